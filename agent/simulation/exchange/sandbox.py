"""Start the sandbox exchange: one call gives a running venue, its addresses, and the hands to fund accounts and arm faults."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from agent.simulation.exchange.access import Limits
from agent.simulation.exchange.accounts import UNITS_PER_ASSET, Accounts, Transfer
from agent.simulation.exchange.algos import Algos
from agent.simulation.exchange.corrections import Countdowns
from agent.simulation.exchange.faults import Fault, Faults
from agent.simulation.exchange.filters import SymbolRules, units
from agent.simulation.exchange.flow import MarketModel
from agent.simulation.exchange.liquidity import Flow, Liquidity
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.exchange.mishaps import arm
from agent.simulation.exchange.publisher import Publisher
from agent.simulation.exchange.request import Wires
from agent.simulation.exchange.server import make_app
from agent.simulation.exchange.streams import Hub
from agent.simulation.exchange.tape import TapeFlow
from agent.simulation.exchange.venue import Venue

HOST: Final = "127.0.0.1"
_TICK_S: Final = 0.1


class SymbolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A symbol to list. Decimals are text; `start_mid` is where the model's price begins."""

    symbol: str
    base: str
    quote: str
    tick: str = "0.01"
    lot: str = "0.0001"
    notional_min: str = "5"
    start_mid: str = "2683.80"
    open_orders_max: int = 200


ETHUSDT: Final = SymbolSpec(symbol="ETHUSDT", base="ETH", quote="USDT")


class ExchangeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to run the exchange. Port 0 takes any free one; fees are pips (1e-6), 1000 is 10 bps; the clock gives ns since 1970.

    `offers_countdown`: it has Binance USD-M's dead man's switch (`POST /fapi/v1/countdownCancelAll`), which Binance spot has not.
    `algo_speed`: its own TWAPs are worked so much faster than real ones.
    """

    port: int = 0
    symbols: tuple[SymbolSpec, ...] = (ETHUSDT,)
    maker_fee_pips: int = 1000
    taker_fee_pips: int = 1000
    seed: int = 1
    key_seed: str | None = None
    flow: Literal["model", "tape", "none"] = "model"
    tape_path: str | None = None
    tape_speed: float = 1.0
    tape_end: Literal["hold", "loop"] = "hold"
    enforce_limits: bool = False
    offers_countdown: bool = False
    algo_speed: int = 1
    clock_ns: Callable[[], int] = time.time_ns


class Exchange:
    """A running exchange. Made by `start_exchange`, ended by `stop`."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config
        accounts = Accounts(config.maker_fee_pips, config.taker_fee_pips, config.key_seed)
        faults = Faults()
        venue = Venue([_rules(spec) for spec in config.symbols], accounts)
        self._countdowns = Countdowns()
        venue.algos = Algos(venue, config.algo_speed)
        venue.is_in_maintenance = faults.is_in_maintenance
        if config.offers_countdown:
            venue.on_countdown = self._countdowns.start
        hub = Hub(faults)
        publisher = Publisher(venue, hub, faults, lambda: self._wires.now_ms())
        self._wires = Wires(venue, hub, publisher, faults, Limits(is_enforced=config.enforce_limits), config.clock_ns)
        self._runner = web.AppRunner(make_app(self._wires), access_log=None, shutdown_timeout=1)
        self._flows = [(Liquidity(venue, spec.symbol), spec.symbol, flow) for spec, flow in _flows(config, venue)]
        self._ticker: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where REST is served."""
        return f"http://{HOST}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where streams (/ws, /stream) and the WebSocket API (/ws-api/v3) are served."""
        return f"ws://{HOST}:{self.port}"

    @property
    def venue(self) -> Venue:
        """The exchange without its wires: books, accounts, orders."""
        return self._wires.venue

    def best(self, symbol: str) -> tuple[Decimal | None, Decimal | None]:
        """Best bid and best ask; None where a side is empty."""
        market = self.venue.markets[symbol]
        bid, ask = market.book.best(BUY), market.book.best(SELL)
        tick = Decimal(market.rules.tick_units) / UNITS_PER_ASSET
        return (bid[0] * tick if bid else None), (ask[0] * tick if ask else None)

    def mid(self, symbol: str) -> Decimal | None:
        """Half way between best bid and best ask; None while a side is empty."""
        bid, ask = self.best(symbol)
        return None if bid is None or ask is None else (bid + ask) / 2

    def deposit(self, account: str, asset: str, amount_text: str) -> Transfer:
        """Credit an account, for example `deposit("alice", "USDT", "10000")`. ValueError for anything but a positive decimal."""
        amount_units = units(amount_text)
        if not amount_units:
            raise ValueError(f"a deposit of {asset} must be above 0")
        entry = self.venue.move(account, asset, amount_units, self._wires.now_ms())
        assert entry is not None, "a deposit cannot overdraw"
        return entry

    def add_key(self, account: str, *, may_withdraw: bool = False) -> tuple[str, str]:
        """A new (API key, secret) for an account; random unless the configuration seeds it. It may read and trade."""
        key = self.venue.accounts.add_key(account)
        self.venue.accounts.assets(account)
        if may_withdraw:
            self.venue.accounts.withdrawers.add(account)
        return key.key, key.secret

    def fault(self, name: str, **details: Any) -> None:
        """Arm a fault by its name in `faults.FAULTS`; details are the fields of `faults.Fault`. ValueError if it cannot be."""
        arm(self._wires, Fault(name=name, **details))

    def clear_faults(self, name: str | None = None) -> None:
        """Disarm all faults, or those of one name."""
        self._wires.faults.clear(name)

    def listeners(self) -> dict[str, int]:
        """How many connections listen to each stream, and to each account (as `user:<account>`): to wait for a client."""
        return self._wires.hub.listeners()

    def step(self) -> None:
        """One tick of 100 ms: the background flow acts, then the streams are fed. Called by the running exchange."""
        now_ns, now_ms = self.config.clock_ns(), self._wires.now_ms()
        self._countdowns.tick(self.venue, now_ms)
        for liquidity, symbol, flow in self._flows:
            liquidity.apply(flow.step(now_ns), now_ms)
            self._wires.publisher.book_moved(symbol)
        for symbol in sorted(self.venue.algos.tick(now_ms)):
            self._wires.publisher.book_moved(symbol)
        self._wires.publisher.tick()

    async def start(self) -> None:
        """Open the port and start the background flow. OSError if the port is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.config.port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        self.step()  # the first client finds a book
        self._ticker = asyncio.create_task(self._run())
        self._ticker.add_done_callback(self._on_end)

    async def stop(self) -> None:
        """Close every connection and the port. Raises what ended the background flow, if something did."""
        ticker, self._ticker = self._ticker, None
        try:
            if ticker is not None:
                ticker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ticker
        finally:
            self._wires.hub.cut("all")
            await self._runner.cleanup()

    def _on_end(self, ticker: asyncio.Task[None]) -> None:
        """A flow that broke (a tape with a gap) must not look like a quiet market: everybody is cut off, `stop` raises it."""
        if not ticker.cancelled() and ticker.exception() is not None:
            self._wires.hub.cut("all")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.step()
            due = max(due + _TICK_S, loop.time())  # after a pause of the machine it goes on, it does not catch up
            await asyncio.sleep(due - loop.time())


async def start_exchange(config: ExchangeConfig | None = None) -> Exchange:
    """Start an exchange on the loopback interface and return it running."""
    exchange = Exchange(config or ExchangeConfig())
    await exchange.start()
    return exchange


def _flows(config: ExchangeConfig, venue: Venue) -> list[tuple[SymbolSpec, Flow]]:
    """The configured background flow: a model per symbol, or a tape for the first symbol."""
    if config.flow == "none":
        return []
    if config.flow == "tape":
        if config.tape_path is None:
            raise ValueError("flow 'tape' needs tape_path: name a recorded tape, or use flow 'model'")
        spec = config.symbols[0]
        tape = TapeFlow(Path(config.tape_path), venue.rules[spec.symbol], config.tape_speed, config.tape_end)
        return [(spec, tape)]
    return [
        (spec, MarketModel(config.seed + index, float(spec.start_mid), float(spec.tick), float(spec.lot)))
        for index, spec in enumerate(config.symbols)
    ]


def _rules(spec: SymbolSpec) -> SymbolRules:
    return SymbolRules(
        symbol=spec.symbol, base=spec.base, quote=spec.quote, tick_units=units(spec.tick), lot_units=units(spec.lot),
        notional_units_min=units(spec.notional_min), open_orders_max=spec.open_orders_max,
    )  # fmt: skip
