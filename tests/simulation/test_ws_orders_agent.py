"""The whole agent, as its user runs it, with its orders over the exchange's WebSocket API: days of faults, drawn by a seed; then
what the journal knows is held against what the exchange knows, trade by trade.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.app import running_engine
from agent.config import load
from agent.domain.amount import group_asset, parse_amount
from agent.domain.errors import VenueError
from agent.domain.events import OrderSent
from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.domain.order import IN_DOUBT
from agent.engine.loop import Engine
from agent.journal.sqlite import SqliteJournal
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.venues.ccxt_exchange import binance_ws_orders
from agent.venues.ccxt_exchange.binance_ws_orders import OrderLine

pytestmark = pytest.mark.timeout(120)
WAIT_S, PARENTS, FAULTS_MOST, SECOND = 60.0, 4, 5, 10**9
SEEDS, SEEDS_NIGHTLY = range(3), range(3, 60)
Strike = tuple[str, dict[str, object]]

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
orders_over = "websocket"
recv_window_ms = 1_000
request_timeout_ms = 400
stale_ms = 2_000
"""


def strikes(roll: random.Random) -> list[Strike]:
    """Some of the faults that a line or an exchange can have while orders are under way."""
    on = {"on": roll.choice(("place", "place", "cancel", "any"))}
    known: list[Strike] = [
        ("drop_reply", on),
        ("timeout_1007", on),
        ("unknown_1000", on),
        ("accept_late", {"delay_ms": roll.randrange(50, 900)}),
        ("slow_reply", on | {"delay_ms": roll.randrange(50, 900), "count": 2}),
        ("maintenance", on),
        ("rate_limit_429", {"retry_after_s": 1}),
        ("disconnect", {"kind": roll.choice(("all", "user", "market"))}),
        ("duplicate_user_event", {"count": 3}),
        ("reorder_user_events", {"kind": "executionReport"}),
        ("swallow_user_event", {"kind": "executionReport", "skip": roll.randrange(3)}),
        ("end_stream", {"kind": "serverShutdown"}),
        ("clock_offset", {"offset_ms": roll.choice((-3_000, 3_000))}),
    ]
    found = roll.sample(known, roll.randrange(1, FAULTS_MOST + 1))
    return [*found, ("stall_stream", {"kind": "user"})] if roll.random() < 0.5 else found  # then only asking tells


@contextlib.asynccontextmanager
async def trading(home: Path, seed: int) -> AsyncIterator[tuple[Exchange, Engine]]:
    exchange = await start_exchange(ExchangeConfig(seed=seed))
    try:
        for coin, text in {"ETH": "60", "USDT": "250000"}.items():
            exchange.deposit("user", coin, text)
        api_key, secret = exchange.add_key("user")
        (home / "exchange.secret").touch(mode=0o600)
        (home / "exchange.secret").write_text(secret)
        (home / "isthmus.toml").write_text(
            SETTINGS + f'url = "{exchange.url}"\nws_url = "{exchange.ws_url}"\napi_key = "{api_key}"\n'
        )
        async with running_engine(load(home / "isthmus.toml")) as engine:
            async with asyncio.timeout(WAIT_S):
                await engine.ready()
            await engine.priced("ETH/USDT")
            yield exchange, engine
    finally:
        await exchange.stop()


def wish(roll: random.Random, number: int, now_ns: int) -> Intent:
    side: Side = "sell" if roll.random() < 0.5 else "buy"
    quantity = parse_amount(str(roll.randrange(1, 6)), group_asset("ETH"))
    slices, rests = roll.randrange(1, 4), roll.random() < 0.4
    end_ns = now_ns + 8 * SECOND
    return Intent(f"p{number}", "main", f"s{number}", side, quantity, "USDT", 200, end_ns, slices, SECOND // 10, rests)


async def a_day(home: Path, seed: int) -> int:
    """How many requests left over the WebSocket."""
    roll = random.Random(seed)
    async with trading(home, seed) as (exchange, engine):
        for number in range(PARENTS):
            for name, details in strikes(roll):
                exchange.fault(name, **details)
            for _ in range(100):
                if not await engine.submit(wish(roll, number, engine.now_ns())):
                    break
                await asyncio.sleep(0.05)  # there is no price while a stream is down
            await asyncio.sleep(roll.random())
            if roll.random() < 0.3:
                await engine.cancel(f"p{number}")
        exchange.clear_faults()
        return await settled(exchange, engine)


async def a_silent_sale(home: Path) -> None:
    """An order trades, its answer is lost, and the private stream does not tell either."""
    async with trading(home, 7) as (exchange, engine):
        exchange.fault("drop_reply", on="place")
        exchange.fault("stall_stream", kind="user")
        quantity = parse_amount("3", group_asset("ETH"))
        sale = Intent("p0", "main", "test", "sell", quantity, "USDT", 200, engine.now_ns() + 8 * SECOND)
        assert await engine.submit(sale) == ()
        assert await settled(exchange, engine) > 0
        assert engine.state.parents["p0"].status == "FILLED"


async def settled(exchange: Exchange, engine: Engine) -> int:
    """Everything has ended, and the journal is right about it; how many requests left over the WebSocket."""
    async with asyncio.timeout(WAIT_S):
        for name in list(engine.state.parents):
            await engine.finished(name)
        while engine.state.working:  # noqa: ASYNC110  # an order that is settled late has no event of its own
            await asyncio.sleep(0.05)
    assert await engine.reconcile() == []
    agrees(exchange, engine)
    line: OrderLine = engine._venues["binance"]._line  # type: ignore[attr-defined]
    return next(line._numbers) - 1


def agrees(exchange: Exchange, engine: Engine) -> None:
    """Every trade of ours is booked once, no order is unknown to the journal, none is in doubt, none traded too much."""
    state = engine.state
    theirs = {str(fill.trade_id) for fill in exchange.venue.fills.get("user", ())}
    ours = [fill.trade_id for order in state.orders.values() for fill in order.fills]
    assert sorted(ours) == sorted(theirs)
    placed = {order.client_id for order in exchange.venue.all_orders("user", "ETHUSDT")}
    assert placed <= state.orders.keys()
    assert not [order for order in state.orders.values() if order.state in IN_DOUBT]
    assert not [parent for parent in state.parents.values() if parent.is_live or parent.intent.quantity < parent.filled]
    assert not state.halted


def sent(home: Path) -> list[str]:
    journal = SqliteJournal(home / "journal.sqlite", read_only=True)
    try:
        return [record.event.order_id for record in journal.read() if isinstance(record.event, OrderSent)]
    finally:
        journal.close()


@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in SEEDS_NIGHTLY)])
async def test_days_of_faults_leave_nothing_lost_and_nothing_twice(tmp_path: Path, seed: int) -> None:
    assert await a_day(tmp_path, seed) > 0
    assert max(Counter(sent(tmp_path)).values()) == 1


async def test_a_sale_that_nobody_tells_of_is_asked_for(tmp_path: Path) -> None:
    await a_silent_sale(tmp_path)


async def test_a_line_that_takes_silence_for_a_refusal_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance_ws_orders, "NoAnswerError", VenueError)
    with pytest.raises(AssertionError):
        await a_silent_sale(tmp_path)
