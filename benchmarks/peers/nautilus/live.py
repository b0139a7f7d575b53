"""NautilusTrader's live engines, from a quote tick to the client's `_submit_order`: data, risk and execution engine, one strategy.

The strategy answers every quote with a limit order; the venue is a client that accepts at once and sends nothing. So what is timed
is theirs alone: no route is searched, nothing is journaled, nothing is signed, no byte leaves. The order is cancelled once its time
is taken. Their engines do not end cleanly outside a trading node; the process ends with the pipe.
"""

import asyncio
import time
from typing import Any

from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.config import LiveDataEngineConfig, LiveExecEngineConfig, LiveRiskEngineConfig, StrategyConfig
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.live.data_engine import LiveDataEngine
from nautilus_trader.live.execution_client import LiveExecutionClient
from nautilus_trader.live.execution_engine import LiveExecutionEngine
from nautilus_trader.live.risk_engine import LiveRiskEngine
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.events import AccountState
from nautilus_trader.model.identifiers import AccountId, ClientId, TraderId, Venue, VenueOrderId
from nautilus_trader.model.objects import AccountBalance, Money, Price, Quantity
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

INSTRUMENT = TestInstrumentProvider.btcusdt_binance()
ACCOUNT = AccountId("BINANCE-1")
RATE = "1000000/00:00:01"  # their throttle, out of the way
PATIENCE_S = 5.0


class Client(LiveExecutionClient):  # type: ignore[misc]
    """The venue: notes when an order reaches it, and accepts."""

    submitted_ns = 0

    async def _connect(self) -> None:
        return

    async def _disconnect(self) -> None:
        return

    async def _submit_order(self, command: Any) -> None:
        self.submitted_ns = time.perf_counter_ns()
        order, now = command.order, self._clock.timestamp_ns()
        names = (order.strategy_id, order.instrument_id, order.client_order_id)
        self.generate_order_submitted(*names, now)
        self.generate_order_accepted(*names, VenueOrderId(order.client_order_id.value), now)

    async def _cancel_order(self, command: Any) -> None:
        order = self._cache.order(command.client_order_id)
        names = (order.strategy_id, order.instrument_id, order.client_order_id, order.venue_order_id)
        self.generate_order_canceled(*names, self._clock.timestamp_ns())


class Quoter(Strategy):  # type: ignore[misc]
    """One limit order for every quote."""

    accepted: asyncio.Event
    order: Any = None

    def on_start(self) -> None:
        self.subscribe_quote_ticks(INSTRUMENT.id)
        self.size, self.price = INSTRUMENT.make_qty(0.01), INSTRUMENT.make_price(50_000.0)

    def on_quote_tick(self, _: Any) -> None:
        self.order = self.order_factory.limit(
            instrument_id=INSTRUMENT.id, order_side=OrderSide.BUY, quantity=self.size, price=self.price
        )
        self.submit_order(self.order)

    def on_order_accepted(self, _: Any) -> None:
        self.accepted.set()


class Live:
    """Owns the loop and the engines, which wait between questions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._start())

    def ticks(self, count: int) -> dict[str, Any]:
        """From a tick to `_submit_order`, each by itself."""
        return {"ns": self._loop.run_until_complete(self._ticks(count))}

    async def _start(self) -> None:
        self._clock, trader = LiveClock(), TraderId("T-001")
        bus, cache = MessageBus(trader, self._clock), Cache()
        portfolio = Portfolio(bus, cache, self._clock)
        parts = {"loop": self._loop, "msgbus": bus, "cache": cache, "clock": self._clock}
        self._data = LiveDataEngine(**parts, config=LiveDataEngineConfig())
        execution = LiveExecutionEngine(**parts, config=LiveExecEngineConfig(reconciliation=False))
        limits = LiveRiskEngineConfig(max_order_submit_rate=RATE, max_order_modify_rate=RATE)
        risk = LiveRiskEngine(**parts, portfolio=portfolio, config=limits)
        self._client = Client(
            **parts,
            client_id=ClientId("BINANCE"),
            venue=Venue("BINANCE"),
            oms_type=OmsType.NETTING,
            account_type=AccountType.CASH,
            base_currency=None,
            instrument_provider=InstrumentProvider(),
        )
        self._client._set_account_id(ACCOUNT)
        execution.register_client(self._client)
        cache.add_instrument(INSTRUMENT)
        balances = [AccountBalance(one, Money(0, one.currency), one) for one in (Money(10**8, USDT), Money(1_000, BTC))]
        portfolio.update_account(AccountState(ACCOUNT, AccountType.CASH, None, True, balances, [], {}, UUID4(), 0, 0))
        self._strategy = Quoter(StrategyConfig(strategy_id="S-1"))
        self._strategy.register(trader, portfolio, bus, cache, self._clock)
        self._strategy.accepted = asyncio.Event()
        for part in (self._data, risk, execution, self._client, self._strategy):
            part.start()
        await asyncio.sleep(0.1)

    async def _ticks(self, count: int) -> list[int]:
        taken, one = [], Quantity(1, 6)
        for _ in range(count):
            self._strategy.accepted.clear()
            at = self._clock.timestamp_ns()
            tick = QuoteTick(INSTRUMENT.id, Price(60_000.0, 2), Price(60_000.01, 2), one, one, at, at)
            start = time.perf_counter_ns()
            self._data.process(tick)
            await asyncio.wait_for(self._strategy.accepted.wait(), PATIENCE_S)
            taken.append(self._client.submitted_ns - start)
            self._strategy.cancel_order(self._strategy.order)
            for _ in range(4):  # until the cancel is through all queues
                await asyncio.sleep(0)
        return taken
