"""From a tick to the order's bytes at the exchange, over loopback WebSockets and by the exchange's clock, beside a bare echo.

The whole engine with its journal (`process`) and its key, and the product's own adapter of Binance: one exchange, one book, orders
over the WebSocket API. The exchange is another process (`loopback_exchange`), which notes when a tick is handed to its socket and
when the order's bytes are received, so that both ways through the kernel and the waking of our process are in the figure. The echo
answers every tick with a fixed frame of an order's length, over the same kinds of sockets, with the same client library and nothing
in between: below that nobody gets with it. Both are on uvloop, as `isthmus run` is with the extra [fast]. One tick at a time, each
when the one before has settled.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from agent import observe
from agent.domain.amount import Amount, group_asset
from agent.domain.intent import Intent
from agent.domain.market import BookDiff
from agent.domain.order import OrderState
from agent.domain.plan import Approved, Signed, Unsigned
from agent.engine.loop import Engine
from agent.engine.world import Rules
from agent.journal.sqlite import SqliteJournal
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from agent.market.quality import QualityLimits
from agent.market.view import Market
from agent.ports import PrivateFact, Snapshot, Tools, Venue, VenueEvent
from agent.risk.limits import Limits
from agent.settlement.knobs import Knobs
from agent.venues import ccxt_exchange
from benchmarks.loopback_exchange import AGENT, EATEN_LOTS, ECHO, START_NS, SYMBOL
from benchmarks.measure import Result, Sample, awake, beside, sample

ROUNDS, CALLS = 16, 220  # the first round warms up; 3,300 ticks are left
NAME, ACCOUNT, SECOND = "binance", "main", 10**9
SLICES = 500  # of one parent; then the next one begins
IDLE_ROUNDS = 8  # of the loop, after which an engine without news waits
SLICE = Amount(EATEN_LOTS * 10**14, group_asset("ETH"))
ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """Time stands still, but for one second with every tick, so that the next slice is due then and not before."""

    def __init__(self) -> None:
        self.time_ns = START_NS

    def now_ns(self) -> int:
        return self.time_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Timed:
    """The adapter as it is; each change of the book that it passes on moves the clock."""

    def __init__(self, venue: Venue, clock: Clock) -> None:
        self._venue, self._clock, self.profile = venue, clock, venue.profile

    async def stream(self) -> AsyncIterator[VenueEvent]:
        async for event in self._venue.stream():
            if isinstance(event, BookDiff):
                self._clock.time_ns += SECOND
            yield event

    def build(self, approved: Approved) -> Unsigned:
        return self._venue.build(approved)

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        return await self._venue.send(signed)

    async def snapshot(self, asked: Sequence[Any] = ()) -> Snapshot:
        return await self._venue.snapshot(asked)

    async def close(self) -> None:
        await self._venue.close()


class Exchange:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the exchange ended: see its last words above"
        found: dict[str, Any] = msgspec.json.decode(line)
        return found

    async def tick(self, who: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"who": who}) + b"\n")
        return int((await self.told())["ns"])


class Desk:
    """Owns the engine. `tick` is what the exchange saw of one tick."""

    def __init__(self, exchange: Exchange, engine: Engine) -> None:
        self._exchange, self._engine, self._parents = exchange, engine, 0

    async def tick(self) -> int:
        await self._settled()
        return await self._exchange.tick(AGENT)

    async def _settled(self) -> None:
        """Nothing is on its way, a parent has something left to trade, and its first slice, which needs no tick, is behind it."""
        state = self._engine.state
        while state.working or not any(state.remaining(parent) for parent in state.live.values()):
            if not state.live:
                await self._begin()
            await asyncio.sleep(0)
        for _ in range(IDLE_ROUNDS):
            await asyncio.sleep(0)

    async def _begin(self) -> None:
        self._parents += 1
        name = f"p{self._parents}"
        whole, end_ns = Amount(SLICE.units * SLICES, SLICE.asset), self._engine.now_ns() + 10**15
        reasons = await self._engine.submit(Intent(name, ACCOUNT, name, "sell", whole, "USDT", 500, end_ns, SLICES, SECOND))
        assert not reasons, reasons
        while not self._engine.state.parents[name].orders:  # noqa: ASYNC110  # an engine tells nobody that it has nothing to do
            await asyncio.sleep(0)


class Echo:
    """Answers each tick with the same bytes: aiohttp, two sockets, and nothing between them."""

    def __init__(self, market: aiohttp.ClientWebSocketResponse, orders: aiohttp.ClientWebSocketResponse) -> None:
        self._market, self._orders = market, orders
        params = {"symbol": SYMBOL, "newClientOrderId": "x" * 16, "apiKey": "k" * 64, "signature": "0" * 64, "price": "2683.80"}
        self._frame = msgspec.json.encode({"id": 1, "method": "order.place", "params": params | {"fill": "f" * 120}})

    async def answer(self) -> None:
        while True:
            await self._market.receive()
            await self._orders.send_frame(self._frame, aiohttp.WSMsgType.TEXT)

    async def drain(self) -> None:
        """The exchange refuses what the echo says, which nobody reads."""
        while True:
            await self._orders.receive()


def run(rounds: int = ROUNDS, calls: int = CALLS) -> list[Result]:
    observe.open_log(level="critical")
    with tempfile.TemporaryDirectory() as folder, awake(), asyncio.Runner(loop_factory=_fast_loop()) as runner:
        ours, floor = runner.run(_taken(Path(folder), rounds, calls))
    times = f"{ours.median_us / floor.median_us:.1f} times the floor"
    tail = f", p99 {ours.p99_us / floor.p99_us:.1f} times its p99" if ours.p99_us and floor.p99_us else ""
    return [beside("tick to order, exchange-observed, journal `process`", ours, "echo floor, aiohttp", floor, times + tail)]


async def _taken(folder: Path, rounds: int, calls: int) -> tuple[Sample, Sample]:
    """In turns; the first round warms up."""
    ours: list[int] = []
    floor: list[int] = []
    async with _exchange() as (exchange, where), _desk(folder, exchange, where[AGENT]) as desk, _echo(where[ECHO]["ws_url"]):
        for number in range(rounds):
            turns = [await desk.tick() for _ in range(calls)], [await exchange.tick(ECHO) for _ in range(calls)]
            if number:
                ours += turns[0]
                floor += turns[1]
    return sample(ours), sample(floor)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop for the agent and for the echo, as `isthmus run` has it with the extra [fast]; without it asyncio's own."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


@contextlib.asynccontextmanager
async def _exchange() -> AsyncIterator[tuple[Exchange, dict[str, Any]]]:
    pipe = asyncio.subprocess.PIPE
    module = (sys.executable, "-m", "benchmarks.loopback_exchange")
    process = await asyncio.create_subprocess_exec(*module, stdin=pipe, stdout=pipe, cwd=ROOT)
    exchange = Exchange(process)
    try:
        yield exchange, await exchange.told()
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _desk(folder: Path, exchange: Exchange, where: dict[str, Any]) -> AsyncIterator[Desk]:
    clock = Clock()
    key = VenueKey("key", NAME, where["api_key"], Secret(where["secret"]))
    config = ccxt_exchange.Config(
        url=where["url"],
        ws_url=where["ws_url"],
        api_key=where["api_key"],
        secret="env:EXCHANGE_SECRET",
        symbols=("ETH/USDT",),
        groups={"ETH": "ETH", "USDT": "USDT"},
        orders_over="websocket",
        stale_ms=600_000,  # of a clock that runs ahead
        clock_check_ms=3_600_000,
    )
    venue = Timed(await ccxt_exchange.connect(NAME, config, Tools(clock, key, ACCOUNT)), clock)
    journal = SqliteJournal(folder / "journal.sqlite", "process")
    never = QualityLimits(book_age_ns_max=0, head_age_ns_max=0, pool_blocks_max=0)
    knobs = Knobs(open_check_interval_secs=3_600, position_check_interval_secs=3_600)
    rules = Rules(Limits({"USDT": 10**30}, {"ETH": 10**30}), knobs=knobs)
    engine = Engine(journal, {NAME: venue}, {NAME: key}, clock, rules, Market(never), ACCOUNT)
    running = asyncio.create_task(engine.run())
    try:
        await engine.ready()
        await engine.priced("ETH/USDT")
        yield Desk(exchange, engine)
        _checked(engine)
    finally:
        await engine.stop()
        await running
        journal.close()
        await venue.close()


def _checked(engine: Engine) -> None:
    """Every order was sent and has traded, so that what was timed is what was meant."""
    orders = engine.state.orders.values()
    odd = [order for order in orders if order.state is not OrderState.FILLED]
    assert orders, "no order was sent"
    assert not odd, f"an order did not trade: {odd[0]}"


@contextlib.asynccontextmanager
async def _echo(ws_url: str) -> AsyncIterator[None]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{ws_url}/stream?streams={SYMBOL.lower()}@depth@100ms") as market,
        session.ws_connect(f"{ws_url}/ws-api/v3") as orders,
    ):
        echo = Echo(market, orders)
        tasks = [asyncio.create_task(echo.answer()), asyncio.create_task(echo.drain())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
