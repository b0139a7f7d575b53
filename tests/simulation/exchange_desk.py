"""How tests trade at the sandbox exchange through the adapter: a desk with plain words, and a listener that waits for news."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

from agent.domain.amount import Amount, Asset
from agent.domain.errors import VenueError
from agent.domain.events import OrderFilled, OrderReported
from agent.domain.market import BookSnapshot
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import Approved, CancelOrder, PlaceOrder
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from agent.ports import Clock, Snapshot, Tools, Venue, VenueEvent
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.venues import ccxt_exchange

SYMBOL, NAME, INSTRUMENT = "ETHUSDT", "binance", "binance:ETH/USDT"
BUY, SELL = 0, 1
PATIENCE_S = 15
BINANCE: dict[str, Any] = {}  # settings that a test file adds for every venue that is Binance
LONG_AGO_NS = 120 * 10**9


class RealClock:
    """The machine's clock; `ahead_ns` makes it jump."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return time.time_ns() + self.ahead_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Desk:
    """One trader at one exchange: a venue, its key, and plain words for orders."""

    def __init__(self, exchange: Exchange, venue: Venue, key: VenueKey) -> None:
        self.exchange, self.venue, self.key = exchange, venue, key

    def place(self, order_id: str, side: str, ticks: int, lots: int, tif: str = "IOC", replaces: str = "") -> PlaceOrder:
        eth, usdt = (Amount(0, asset(coin)) for coin in ("ETH", "USDT"))
        sell, buy = (usdt, eth) if side == "buy" else (eth, usdt)
        return PlaceOrder(order_id, "i", "a", NAME, INSTRUMENT, side, ticks, lots, tif, sell, buy, replaces)  # type: ignore[arg-type]

    def cancel(self, order_id: str, target: str) -> CancelOrder:
        return CancelOrder(order_id, "i", "a", NAME, INSTRUMENT, target)

    async def send(self, plan: PlaceOrder | CancelOrder) -> list[Any]:
        return list(await self.venue.send(await self.key.sign(self.venue.build(Approved(plan)))))

    async def ask(self, *order_ids: str, sent_ns: int = 0) -> list[Any]:
        return list((await self.look(*order_ids, sent_ns=sent_ns)).facts)

    async def look(self, *order_ids: str, sent_ns: int = 0, filled: int = 0) -> Snapshot:
        asked = [OrderRef(name, NAME, INSTRUMENT, sent_ns=sent_ns, filled=filled) for name in order_ids]
        return await self.venue.snapshot(asked)

    def rest(self, side: int, ticks: int, lots: int) -> None:
        """Liquidity of the rest of the world."""
        self.exchange.venue.house_place(SYMBOL, side, ticks, lots, time.time_ns() // 10**6)


def asset(coin: str) -> Asset:
    return Asset(coin, NAME, 8, coin)


@contextlib.asynccontextmanager
async def trading(
    sandbox: Exchange,
    credentials: tuple[str, str] | None = None,
    clock: Clock | None = None,
    notes: MutableMapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Desk]:
    api_key, secret = credentials or sandbox.add_key("alice")
    settings = (BINANCE if settings.get("exchange", "binance") == "binance" else {}) | settings
    config = ccxt_exchange.Config(
        url=sandbox.url,
        ws_url=settings.pop("ws_url", sandbox.ws_url),
        api_key=api_key,
        secret="env:EXCHANGE_SECRET",
        symbols=("ETH/USDT",),
        groups={"ETH": "ETH", "USDT": "USDT"},
        **settings,
    )
    key = VenueKey("binance-1", NAME, api_key, Secret(secret))
    venue = await ccxt_exchange.connect(NAME, config, Tools(clock or RealClock(), key, notes={} if notes is None else notes))
    try:
        yield Desk(sandbox, venue, key)
    finally:
        await venue.close()


@contextlib.asynccontextmanager
async def started(**settings: Any) -> AsyncIterator[Exchange]:
    exchange = await start_exchange(ExchangeConfig(**({"flow": "none"} | settings)))
    exchange.deposit("alice", "ETH", "100")
    exchange.deposit("alice", "USDT", "1000000")
    try:
        yield exchange
    finally:
        await exchange.stop()


class Listener:
    """Reads a venue's stream into a list; `until` waits for something in it."""

    def __init__(self, venue: Venue) -> None:
        self.seen: list[VenueEvent] = []
        self.error: BaseException | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._read(venue))

    async def _read(self, venue: Venue) -> None:
        try:
            async for event in venue.stream():
                self.seen.append(event)
                self._changed.set()
        except VenueError as error:
            self.error = error
            self._changed.set()

    async def until(self, is_met: Callable[[list[VenueEvent]], object]) -> list[VenueEvent]:
        async with asyncio.timeout(PATIENCE_S):
            while not is_met(self.seen):
                assert self.error is None, self.error
                self._changed.clear()
                await self._changed.wait()
        return self.seen

    async def failure(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while self.error is None:
                self._changed.clear()
                await self._changed.wait()
        return str(self.error)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(venue: Venue) -> AsyncIterator[Listener]:
    listener = Listener(venue)
    try:
        await listener.until(lambda seen: any(isinstance(event, BookSnapshot) for event in seen))
        yield listener
    finally:
        await listener.close()


def states(facts: list[Any], order_id: str) -> list[OrderState]:
    return [fact.state for fact in facts if isinstance(fact, OrderReported) and fact.order_id == order_id]


def fills(facts: list[Any], order_id: str = "") -> list[Any]:
    return [fact.fill for fact in facts if isinstance(fact, OrderFilled) and fact.fill.order_id.startswith(order_id)]


def has(order_id: str, state: OrderState) -> Callable[[list[Any]], bool]:
    return lambda seen: state in states(seen, order_id)


def reports(facts: list[Any], order_id: str) -> list[tuple[OrderState, int]]:
    """(state, units of base that the exchange says were filled) of each report."""
    told = [fact for fact in facts if isinstance(fact, OrderReported) and fact.order_id == order_id]
    return [(fact.state, fact.filled.units if fact.filled else 0) for fact in told]
