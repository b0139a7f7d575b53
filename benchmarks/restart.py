"""A restart with a long past: 100,000 records of journal and 1,000 orders that rest at the exchange, from nothing to ready.

The journal is written as an agent writes it: parents, orders with their fills, and a thousand parents that each have one order at
the exchange. The exchange is the sandbox over HTTP, in a process of its own, and knows exactly those orders and balances. Timed is
all that stands between the start and the first new order: settings, journal, every record verified and replayed, the connection,
every open order compared. Afterwards nothing may have been sent, no order may have changed and every balance must agree.
"""

import asyncio
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from agent import observe
from agent.app import running_engine
from agent.config import load
from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.events import (
    BalanceAdopted,
    EngineStarted,
    EngineStopped,
    Event,
    IntentAccepted,
    IntentEnded,
    OrderApproved,
    OrderFilled,
    OrderReported,
    OrderSent,
    Routed,
    VenueConnected,
)
from agent.domain.intent import Intent
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, PlaceOrder
from agent.domain.price import Price
from agent.engine.state import State
from agent.journal.sqlite import SqliteJournal
from agent.simulation.exchange import Exchange, ExchangeConfig, SymbolSpec, start_exchange
from agent.simulation.exchange.filters import parse_order
from benchmarks.measure import Result

RECORDS, OPEN, RUNS = 100_000, 1_000, 3
LIMIT_S, PATIENCE_S = 10.0, 120
VENUE, SYMBOL, BOOK, ACCOUNT = "binance", "ETHUSDT", "binance:ETH/USDT", "main"
ETH, USDT = Asset("ETH", VENUE, 8, "ETH"), Asset("USDT", VENUE, 8, "USDT")
LOT, TICK, SCALE = 10**4, 10**6, 10**8  # base units, quote units per whole coin, base units per whole coin
LOTS, TICKS, FAR_TICKS = 100, 268_300, 9_000_000
HOUR_NS, FEE_PIPS = 3_600 * 10**9, 1_000
BATCH = 500


class Ready(NamedTuple):
    """One start: seconds until the engine was ready, and what it found then. `sent`: orders that left since, where none should."""

    seconds: float
    records: int
    open_orders: int
    live_parents: int
    breaks: int
    sent: int


def run() -> list[Result]:
    observe.open_log(level="critical")
    with tempfile.TemporaryDirectory() as name, exchange_beside(Path(name)) as home:
        opened_s, replayed_s = alone(home / "journal.sqlite")
        found = [asyncio.run(start(home)) for _ in range(RUNS)]
    assert all((one.open_orders, one.live_parents, one.breaks, one.sent) == (OPEN, OPEN, 0, 0) for one in found), found
    rows = {
        "ready": statistics.median(one.seconds for one in found),
        f"ready, slowest of {RUNS}": max(one.seconds for one in found),
        "of it: journal verified": opened_s,
        "of it: read and replayed": replayed_s,
    }
    what = f"{RECORDS // 1_000}k records, {OPEN} open orders"
    return [Result(f"{what}: {name}", taken * 1e6, "the limit", LIMIT_S * 1e6) for name, taken in rows.items()]


async def start(home: Path) -> Ready:
    """A start as `isthmus run` makes it, and a look at what it came to."""
    begun, begun_ns = time.perf_counter(), time.time_ns()
    loaded = load(home / "isthmus.toml")
    async with running_engine(loaded) as engine:
        async with asyncio.timeout(PATIENCE_S):
            await engine.ready()
        seconds = time.perf_counter() - begun
        assert not engine.failure, engine.failure
        state, breaks = engine.state, await engine.reconcile()
        open_orders = sum(order.state is OrderState.OPEN for order in state.working.values())
        sent = sum(order.sent_ns > begun_ns for order in state.orders.values())
        return Ready(seconds, state.seq, open_orders, len(state.live), len(breaks), sent)


def alone(path: Path) -> tuple[float, float]:
    """Seconds to open and verify the journal, and to read and replay it, without an engine around it."""
    begun = time.perf_counter()
    journal, state = SqliteJournal(path), State()
    opened = time.perf_counter()
    for record in journal.read():
        state.apply(record)
    replayed = time.perf_counter()
    journal.close()
    return opened - begun, replayed - opened


# -- the past ----------------------------------------------------------------------------------------------------------


def history(now_ns: int, numbers: list[int]) -> Iterator[list[Event]]:
    """Parents that were worked and ended, two orders each, as much bought as sold; then those whose orders rest, by `numbers`."""
    yield [EngineStarted("long ago", "", ""), VenueConnected(VENUE)]
    yield [BalanceAdopted(ACCOUNT, VENUE, Amount(units, coin), "opening balance") for units, coin in OPENING]
    parents = (RECORDS - OPEN * 5 - 5) // 13
    for i in range(parents):
        yield [*begun(f"p{i}", i, 2, now_ns), *traded(f"p{i}-0", i), *traded(f"p{i}-1", i), IntentEnded(f"p{i}", "FILLED", "")]
    for i, number in enumerate(numbers):
        plan = planned(f"r{i}-0", 0, FAR_TICKS + i)
        told = OrderReported(plan.order_id, OrderState.OPEN, venue_order_id=str(number), filled=Amount(0, ETH))
        yield [*begun(f"r{i}", 0, 1, now_ns), OrderApproved(Approved(plan)), OrderSent(plan.order_id), told]
    yield [EngineStopped("a bench")] * (RECORDS - 4 - parents * 13 - len(numbers) * 5)


OPENING = ((10_000 * SCALE, ETH), (50_000_000 * SCALE, USDT))


def begun(name: str, turn: int, orders: int, now_ns: int) -> list[Event]:
    side = "buy" if turn % 2 else "sell"
    quantity, none = Amount(orders * LOTS * LOT * 10**10, group_asset("ETH")), Amount(0, group_asset("USDT"))
    intent = Intent(name, ACCOUNT, "bench", side, quantity, "USDT", 10_000, now_ns + HOUR_NS, rests=True)
    return [IntentAccepted(intent, PRICE), Routed(name, 0, quantity, (), none, (), ())]


PRICE = Price(268_300, 100)


def planned(name: str, turn: int, ticks: int) -> PlaceOrder:
    base, quote = Amount(LOTS * LOT, ETH), Amount(ticks * TICK * LOTS * LOT // SCALE, USDT)
    side, sell, buy = ("buy", quote, base) if turn % 2 else ("sell", base, quote)
    return PlaceOrder(name, name.partition("-")[0], ACCOUNT, VENUE, BOOK, side, ticks, LOTS, "GTC", sell, buy)  # type: ignore[arg-type]


def traded(name: str, turn: int) -> list[Event]:
    """One order, all that happened to it: approved, sent, held, filled, told."""
    plan = planned(name, turn, TICKS)
    fee = Amount(-(-plan.buy.units * FEE_PIPS // 10**6), plan.buy.asset)
    fill = Fill(name, VENUE, BOOK, name, plan.sell, plan.buy, fee, 1)
    size = Amount(LOTS * LOT, ETH)
    return [
        OrderApproved(Approved(plan)),
        OrderSent(name),
        OrderReported(name, OrderState.OPEN, venue_order_id=name, filled=Amount(0, ETH)),
        OrderFilled(fill),
        OrderReported(name, OrderState.FILLED, venue_order_id=name, filled=size),
    ]


def write(path: Path, numbers: list[int]) -> State:
    """The journal, and the state that it leads to."""
    journal, state, now_ns = SqliteJournal(path), State(), time.time_ns()
    waiting: list[Event] = []

    def flush() -> None:
        for record in journal.append(now_ns - HOUR_NS, waiting):
            state.apply(record)
        waiting.clear()

    for events in history(now_ns, numbers):
        waiting += events
        if len(waiting) >= BATCH:
            flush()
    flush()
    journal.close()
    assert state.seq == RECORDS, state.seq
    return state


# -- the exchange ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def exchange_beside(home: Path) -> Iterator[Path]:
    """The sandbox in a process of its own, and a home folder whose journal agrees with it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        url, api_key, secret, numbers = ours.recv()
        state = write_home(home, url, api_key, secret, numbers)
        ours.send([(asset.symbol, state.ledger.balance(ACCOUNT, VENUE, asset).units) for asset in (ETH, USDT)])
        assert ours.recv() == "funded"
        yield home
    finally:
        ours.close()
        process.join(10)
        process.kill()


def serve(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    """Lists a thousand orders, is told what the account must have, and works until the other side hangs up."""
    exchange = await start_exchange(ExchangeConfig(flow="none", symbols=(SymbolSpec(symbol=SYMBOL, base="ETH", quote="USDT",
                                                                                    open_orders_max=2 * OPEN),)))  # fmt: skip
    reserved = OPEN * LOTS * LOT
    exchange.deposit("user", "ETH", _text(reserved))
    for side in (0, 1):
        exchange.venue.house_place(SYMBOL, side, TICKS - 1 + 2 * side, 10**7, time.time_ns() // 10**6)
    pipe.send((exchange.url, *exchange.add_key("user"), [_place(exchange, i) for i in range(OPEN)]))
    with contextlib.suppress(EOFError):
        balances: list[tuple[str, int]] = await asyncio.to_thread(pipe.recv)
        for coin, units in balances:
            exchange.deposit("user", coin, _text(units - (reserved if coin == "ETH" else 0)))
        pipe.send("funded")
        await asyncio.to_thread(pipe.recv)
    await exchange.stop()


def _place(exchange: Exchange, i: int) -> int:
    venue = exchange.venue
    fields = {"symbol": SYMBOL, "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "newClientOrderId": f"r{i}-0"}
    fields |= {"quantity": _text(LOTS * LOT), "price": f"{(FAR_TICKS + i) // 100}.{(FAR_TICKS + i) % 100:02}"}
    order, _ = venue.place("user", parse_order(fields, venue.rules), time.time_ns() // 10**6)
    return int(order.id)


def _text(units: int) -> str:
    return f"{units // SCALE}.{units % SCALE:08}"


def write_home(home: Path, url: str, api_key: str, secret: str, numbers: list[int]) -> State:
    (home / "x.secret").touch(mode=0o600)
    (home / "x.secret").write_text(secret)
    (home / "isthmus.toml").write_text(
        f'home = "."\n[venues.{VENUE}]\nkind = "ccxt_exchange"\nurl = "{url}"\nws_url = "{url.replace("http", "ws", 1)}"\n'
        f'api_key = "{api_key}"\nsecret = "file:x.secret"\nsymbols = ["ETH/USDT"]\ngroups = {{ ETH = "ETH", USDT = "USDT" }}\n'
    )
    return write(home / "journal.sqlite", numbers)
