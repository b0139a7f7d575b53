"""The whole agent with a share of its TWAP worked by the exchange's own: one parent, both kinds of children, whatever happens."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from agent.app import running_engine
from agent.config import load
from agent.domain.algo import Algo, Value, new_algo
from agent.domain.amount import group_asset, parse_amount
from agent.domain.events import Halted, OrderSent
from agent.domain.intent import Intent
from agent.domain.order import Order, OrderState
from agent.domain.plan import PlaceOrder
from agent.engine.loop import Engine
from agent.journal.sqlite import SqliteJournal
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.matching import BUY, SELL

pytestmark = pytest.mark.timeout(120)
SECOND, WAIT_S = 10**9, 40.0
S = OrderState
SETTINGS = """home = "."
[reconcile]
inflight_check_interval_ms = 500
inflight_check_threshold_ms = 500
open_check_interval_secs = 1
open_check_threshold_ms = 500
[venues.binance]
kind = "ccxt_exchange"
secret = "file:exchange.secret"
symbols = ["ETH/USDT"]
groups = { ETH = "ETH", USDT = "USDT" }
recv_window_ms = 1_000
request_timeout_ms = 400
stale_ms = 2_000
"""


class Scene:
    def __init__(self, exchange: Exchange, home: Path) -> None:
        self.exchange, self.home = exchange, home
        self.engine: Engine

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with running_engine(load(self.home / "isthmus.toml")) as self.engine:
            async with asyncio.timeout(WAIT_S):
                await self.engine.ready()
            await self.engine.priced("ETH/USDT")
            yield

    async def sell(self, quantity: str = "10", seconds: int = 301, **parameters: Value) -> Sequence[str]:
        algo: Algo = new_algo(
            "twap", **{"duration_ns": seconds * SECOND, "interval_ns": 30 * SECOND, "placement": "take"} | parameters
        )
        amount = parse_amount(quantity, group_asset("ETH"))
        ends_ns = self.engine.now_ns() + (seconds + 60) * SECOND
        intent = Intent("p1", "main", "test", "sell", amount, "USDT", 100, ends_ns, algo=algo)
        return [reason.text for reason in await self.engine.submit(intent)]

    async def until(self, met: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not met():  # noqa: ASYNC110 - what is waited for is the state of two programs
                await asyncio.sleep(0.02)

    def natives(self) -> list[Order]:
        return [one for one in self.engine.state.orders.values() if isinstance(one.plan, PlaceOrder) and one.plan.native_s]

    def own(self) -> list[Order]:
        return [one for one in self.engine.state.orders.values() if isinstance(one.plan, PlaceOrder) and not one.plan.native_s]

    async def agrees(self) -> None:
        """0 breaks, nothing sent or halted twice, and the exchange's trades are the journal's."""
        assert await self.engine.reconcile() == []
        journal = SqliteJournal(self.home / "journal.sqlite", read_only=True)
        try:
            events = [record.event for record in journal.read()]
        finally:
            journal.close()
        sent = [event.order_id for event in events if isinstance(event, OrderSent)]
        assert len(sent) == len(set(sent))
        assert [event for event in events if isinstance(event, Halted)] == []
        parent = self.engine.state.parents["p1"]
        assert parent.filled <= parent.intent.quantity
        theirs = sum(fill.size_lots for fill in self.exchange.venue.fills.get("user", ())) * 10**4
        assert sum(order.filled for order in self.engine.state.orders.values()) == theirs


@contextlib.asynccontextmanager
async def staged(home: Path, speed: int = 100, lots: int = 300_000) -> AsyncIterator[Scene]:
    exchange = await start_exchange(ExchangeConfig(flow="none", algo_speed=speed))
    try:
        now_ms = time.time_ns() // 10**6
        exchange.venue.house_place("ETHUSDT", BUY, 268_000, lots, now_ms)
        exchange.venue.house_place("ETHUSDT", SELL, 268_010, lots, now_ms)
        for coin, text in {"ETH": "60", "USDT": "250000"}.items():
            exchange.deposit("user", coin, text)
        api_key, secret = exchange.add_key("user")
        (home / "exchange.secret").touch(mode=0o600)
        (home / "exchange.secret").write_text(secret)
        (home / "isthmus.toml").write_text(
            SETTINGS + f'url = "{exchange.url}"\nws_url = "{exchange.ws_url}"\napi_key = "{api_key}"\n'
        )
        yield Scene(exchange, home)
    finally:
        await exchange.stop()


async def test_the_exchange_works_all_of_it(tmp_path: Path) -> None:
    async with staged(tmp_path) as scene, scene.running():
        assert await scene.sell(native_pct=100) == []
        await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
        assert scene.engine.state.parents["p1"].status == "FILLED"
        (order,) = scene.natives()
        assert (order.state, len(order.fills), scene.own()) == (S.FILLED, 20, [])
        await scene.agrees()


async def test_both_kinds_of_children_keep_one_timetable(tmp_path: Path) -> None:
    async with staged(tmp_path) as scene, scene.running():
        assert await scene.sell(native_pct=60) == []
        await scene.until(lambda: [one.state for one in scene.natives()] == [S.FILLED] and scene.own())
        (order,) = scene.natives()
        assert order.filled == 6 * 10**8
        (first, *_) = scene.own()
        assert first.quantity == 4 * 10**8 // 11 // 10**4 * 10**4  # 11 parts of 30 s
        assert [piece.share for piece in scene.engine.state.parents["p1"].routes[0].pieces] == [1.0]
        await scene.engine.cancel("p1")
        await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
        await scene.agrees()


async def test_a_restart_goes_on_with_what_the_exchange_works(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=40) as scene:
        async with scene.running():
            assert await scene.sell(native_pct=100) == []
            await scene.until(lambda: scene.natives() and scene.natives()[0].fills)
        await asyncio.to_thread(time.sleep, 1)  # it trades while nobody listens
        async with scene.running():
            await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
            assert [order.state for order in scene.natives()] == [S.FILLED]
            assert scene.engine.state.parents["p1"].filled == scene.engine.state.parents["p1"].intent.quantity
            await scene.agrees()


@pytest.mark.parametrize("fault", ["drop_reply", "timeout_1007"])
async def test_a_lost_answer_then_a_restart_hands_nothing_over_twice(tmp_path: Path, fault: str) -> None:
    async with staged(tmp_path, speed=40) as scene:
        async with scene.running():
            scene.exchange.fault(fault, on="place")
            assert await scene.sell(native_pct=100) == []
            await scene.until(scene.natives)
        async with scene.running():
            await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
            assert len(scene.natives()) == 1
            assert scene.engine.state.parents["p1"].status == "FILLED"
            assert len(scene.exchange.venue.algos.ended("user")) == 1
            await scene.agrees()


async def test_a_cancel_takes_it_back_at_the_exchange(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=40) as scene, scene.running():
        assert await scene.sell(native_pct=100) == []
        await scene.until(lambda: scene.natives() and scene.natives()[0].fills)
        await scene.engine.cancel("p1")
        await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
        assert [order.state for order in scene.natives()] == [S.CANCELLED]
        assert [algo.status for algo in scene.exchange.venue.algos.ended("user")] == ["CANCELLED"]
        await scene.agrees()


async def test_what_it_does_not_trade_comes_back_to_own_slices(tmp_path: Path) -> None:
    async with staged(tmp_path, lots=20_000) as scene, scene.running():  # 2 of 10 can be had
        assert await scene.sell(native_pct=100, catch_up_pct=10_000) == []
        await scene.until(lambda: [one.state for one in scene.natives()] == [S.EXPIRED])
        assert scene.natives()[0].filled == 2 * 10**8
        assert scene.engine.state.remaining(scene.engine.state.parents["p1"]).units == 8 * 10**18
        scene.exchange.venue.house_place("ETHUSDT", BUY, 268_000, 300_000, time.time_ns() // 10**6)
        await scene.until(scene.own)
        await scene.engine.cancel("p1")
        await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
        await scene.agrees()


async def test_a_refusal_by_the_exchange_leaves_all_to_own_slices(tmp_path: Path) -> None:
    async with staged(tmp_path) as scene, scene.running():
        scene.exchange.fault("rate_limit_429", on="place", retry_after_s=1)
        assert await scene.sell(native_pct=100) == []
        await scene.until(scene.own)
        assert [order.state for order in scene.natives()] == [S.REJECTED]
        assert scene.exchange.venue.algos.ended("user") == []
        await scene.engine.cancel("p1")
        await scene.until(lambda: not scene.engine.state.parents["p1"].is_live)
        await scene.agrees()


async def test_what_no_venue_would_take_is_refused_with_the_nearest_value(tmp_path: Path) -> None:
    async with staged(tmp_path) as scene, scene.running():
        (short,) = await scene.sell(seconds=60, native_pct=50)
        assert short.endswith("at least 301 s")
        (small,) = await scene.sell("2", native_pct=10)
        assert small.endswith("at least 19 %")
        (tiny,) = await scene.sell("0.3", native_pct=100)
        assert tiny.endswith("0 %")
        (large,) = await scene.sell("50", native_pct=100)
        assert large.endswith("at most 74 %")
        (beyond,) = await scene.sell(native_pct=101)
        assert beyond.endswith("100 %")
        assert scene.natives() == []
