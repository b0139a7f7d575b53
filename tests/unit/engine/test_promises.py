"""Promises that a sceptic tried to break: halts, cancels, repairs, clocks and one venue's trouble that is not another's."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from engine_kit import (
    BOOK,
    CEX_ETH,
    MAIN,
    POOL,
    RULES,
    START_NS,
    USDT,
    WETH,
    Line,
    PlainSigner,
    Run,
    ScriptedBook,
    ScriptedPool,
    Truth,
    WarpClock,
    sale,
    venues_of,
    warped,
)

from agent.domain.amount import zero
from agent.domain.errors import FrameError, NumberError, VenueError
from agent.domain.events import OrderFilled, OrderReported, VenueConnected, VenueStatus
from agent.domain.instrument import Instrument, Pool
from agent.domain.intent import Intent
from agent.domain.market import Listed, PoolReserves
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, CancelOrder, Plan, Signed, SwapBatch, Unsigned, VenueRequest
from agent.engine.loop import Engine
from agent.journal.memory import MemoryJournal
from agent.market.view import Market
from agent.ports import OrderRef, PrivateFact, Snapshot, VenueEvent

S = OrderState
OTHER = Instrument("amm", "v2b", WETH, USDT, 100, pool=Pool("v2", "0x" + "ce" * 20, WETH.address, USDT.address), gas=120_000)


class RestBook(ScriptedBook):
    """A book where orders rest and nothing fills by itself. `hangs`: whose send never returns. `snapshot_s`: how long it thinks."""

    def __init__(self) -> None:
        super().__init__(WarpClock(), 1)
        self.hangs: type[Plan] | Any = ()
        self.rests: dict[str, Plan] = {}
        self.sent: list[tuple[float, Plan]] = []
        self.snapshot_s, self.is_blind, self.trouble = 0.0, False, ""

    def build(self, approved: Approved) -> Unsigned:
        plan = approved.plan
        self.plans[plan.order_id] = plan  # type: ignore[assignment]
        return VenueRequest(plan.order_id, "cex", "cancel" if isinstance(plan, CancelOrder) else "place", ())

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        plan: Plan = self.plans[signed.order_id]
        self.sent.append((asyncio.get_running_loop().time(), plan))
        if isinstance(plan, self.hangs):
            await asyncio.sleep(3_600)
        if isinstance(plan, CancelOrder):
            self.rests.pop(plan.target_id, None)
            return [self._says(plan.target_id, S.CANCELLED), OrderReported(plan.order_id, S.FILLED)]
        self.rests[plan.order_id] = plan
        return [self._says(plan.order_id, S.OPEN)]

    def _says(self, name: str, state: OrderState, *fills: Fill) -> OrderReported:
        filled = sum((fill.paid for fill in fills), start=zero(CEX_ETH))
        report = OrderReported(name, state, venue_order_id=f"v{name}", filled=filled)
        self.truth[name] = Truth(self.plans[name], state, [report], self.clock.now_ns())
        return report

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        await asyncio.sleep(self.snapshot_s)
        if self.trouble:
            raise VenueError(self.trouble)
        found = await super().snapshot(asked)
        return msgspec.structs.replace(found, open_orders=() if self.is_blind else tuple(self.rests))

    def certain(self, ref: OrderRef) -> Sequence[PrivateFact]:
        if self.is_blind:
            return (OrderReported(ref.order_id, S.REJECTED, "never heard of it"),)
        return super().certain(ref)


class ArmedLine(Line):
    """A venue with a dead-man switch of 30 seconds. `fails`: arming does."""

    countdown_s = 30

    def __init__(self, venue: ScriptedBook) -> None:
        super().__init__(venue)
        self.armed: list[float] = []
        self.fails = False

    async def arm(self, seconds: int) -> None:
        if self.fails:
            raise VenueError("HTTP 503")
        self.armed.append(asyncio.get_running_loop().time())


def resting(name: str, quantity: str = "1") -> Intent:
    return msgspec.structs.replace(sale(name, quantity, within_s=100_000), rests=True)


async def ready(engine: Engine) -> None:
    async with asyncio.timeout(60):
        await engine.ready()
    await engine.priced("ETH/USDT")


async def one_resting(book: RestBook) -> Run:
    run = Run({"cex": book})
    await ready(run.engine)
    assert await run.engine.submit(resting("r1")) == ()
    await run.until(lambda: book.rests)
    return run


def test_a_theft_is_seen_while_an_order_rests() -> None:
    async def work() -> None:
        book = RestBook()
        run = await one_resting(book)
        await asyncio.sleep(60)
        book.holding[CEX_ETH] -= 50 * 10**8
        run.engine.remind()
        await run.until(lambda: "cex" in run.engine.state.halted)
        assert "50 ETH@cex less outside" in run.engine.state.halted["cex"]
        await run.kill()

    warped(work())


def test_a_cancel_waits_behind_nothing() -> None:
    async def work() -> None:
        from agent.domain.plan import PlaceOrder

        book = RestBook()
        run = await one_resting(book)
        book.hangs = PlaceOrder
        for number in range(24):
            wish = msgspec.structs.replace(resting(f"n{number}", f"1.{number:02}"), strategy=str(number))
            assert await run.engine.submit(wish) == ()
        await asyncio.sleep(3)
        asked_s = asyncio.get_running_loop().time()
        await run.engine.cancel("r1")
        await run.until(lambda: any(isinstance(plan, CancelOrder) for _, plan in book.sent))
        left_s = next(at_s for at_s, plan in book.sent if isinstance(plan, CancelOrder))
        assert left_s - asked_s < 1, "every slot for new orders hangs, and still"
        await run.kill()

    warped(work())


def test_a_slow_answer_does_not_starve_the_dead_man_switch() -> None:
    async def work() -> None:
        book = RestBook()
        line = ArmedLine(book)
        engine = Engine(MemoryJournal(), {"cex": line}, {"cex": PlainSigner()}, WarpClock(), RULES, Market(), MAIN)
        task = asyncio.create_task(engine.run())
        await ready(engine)
        await engine.submit(resting("r1"))
        await asyncio.sleep(20)
        book.snapshot_s = 29.9
        await asyncio.sleep(300)
        assert max(later - earlier for earlier, later in zip(line.armed, line.armed[1:], strict=False)) < 15
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    warped(work())


def test_a_switch_that_works_again_does_not_lift_what_the_venue_itself_said() -> None:
    async def work() -> None:
        book = RestBook()
        line = ArmedLine(book)
        engine = Engine(MemoryJournal(), {"cex": line}, {"cex": PlainSigner()}, WarpClock(), RULES, Market(), MAIN)
        task = asyncio.create_task(engine.run())
        await ready(engine)
        book.push(VenueStatus("cex", "CANCEL_ONLY", "the exchange is in maintenance"))
        for fails in (True, False):
            line.fails = fails
            await asyncio.sleep(30)
        assert engine.state.status["cex"].reason == "the exchange is in maintenance"
        book.push(VenueStatus("cex", "TRADING"))
        line.fails = True
        await asyncio.sleep(30)
        assert engine.state.status["cex"].reason.startswith("its dead-man switch")
        line.fails = False
        await asyncio.sleep(30)
        assert engine.state.status == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    warped(work())


def test_a_resting_order_can_be_taken_back_while_the_account_cannot_be_read() -> None:
    async def work() -> None:
        book = RestBook()
        run = await one_resting(book)
        book.trouble = "HTTP 503"
        book.cut()
        await asyncio.sleep(10)
        assert "cex" not in run.engine.world.ready
        await run.engine.cancel("r1")
        await run.until(lambda: not book.rests, 30)
        await run.kill()

    warped(work())


def test_what_a_venue_acknowledged_it_has_not_refused() -> None:
    async def work() -> None:
        book = RestBook()
        run = await one_resting(book)
        await asyncio.sleep(20)
        book.is_blind = True
        await run.until(lambda: run.engine.state.orders["r1-0"].state is S.UNKNOWN, 60)
        await asyncio.sleep(600)
        order = run.engine.state.orders["r1-0"]
        assert (order.state, order.may_take, len(book.sent)) == (S.UNKNOWN, order.plan.sell.units, 1)  # type: ignore[union-attr]
        book.is_blind = False
        await run.until(lambda: order.state is S.OPEN, 60)
        await run.kill()

    warped(work())


def test_a_halted_pool_trades_no_more_and_the_other_one_does() -> None:
    class Two(ScriptedPool):
        def opening(self) -> Sequence[VenueEvent]:
            return (Listed("amm", (POOL, OTHER), self.clock.now_ns()), VenueConnected("amm"), *self.pulse(), *self._allowances())

        def pulse(self) -> Sequence[VenueEvent]:
            other = PoolReserves(OTHER.id, self.reserve_eth, self.reserve_usdt, self.height, self.clock.now_ns())
            return (*super().pulse(), other)

    async def work() -> None:
        pool = Two(WarpClock(), 1)
        pool.allowance = 10**30
        run = Run(venues_of(pool))
        await ready(run.engine)
        run.engine._recorder.halt(POOL.id, "it traded too much")
        assert await run.engine.submit(sale("s", "5")) == ()
        await run.until(lambda: any(isinstance(one.plan, SwapBatch) for one in run.engine.state.orders.values()))
        await asyncio.sleep(10)
        legs = [
            leg.instrument for one in run.engine.state.orders.values() if isinstance(one.plan, SwapBatch) for leg in one.plan.legs
        ]
        assert set(legs) == {OTHER.id}
        await run.kill()
        await pool.close()

    warped(work())


def test_a_trade_that_is_told_while_a_repair_looks_elsewhere_is_booked_once() -> None:
    class Slow(ScriptedPool):
        wait_s = 0.0

        async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
            await asyncio.sleep(self.wait_s)
            return await super().snapshot(asked)

    async def work() -> None:
        book, pool = RestBook(), Slow(WarpClock(), 1)
        pool.reserve_eth, pool.reserve_usdt = 10**15, 2_683_000
        run = Run(venues_of(book, pool))
        await ready(run.engine)
        await run.engine.submit(resting("r1"))
        await run.until(lambda: book.rests)
        order = next(iter(run.engine.state.orders.values()))
        plan: Any = order.plan
        fill = Fill(order.order_id, "cex", BOOK.id, "t99", plan.sell, plan.buy, zero(plan.buy.asset), START_NS)
        book.rests.clear()
        book.move(fill)
        book.push(book._says(order.order_id, S.FILLED, fill))  # it traded, and the list of trades lags behind
        await run.until(lambda: order.lacks_fills)
        pool.wait_s = 20
        mending = asyncio.create_task(run.engine.repair(is_rehearsal=False))
        await asyncio.sleep(5)
        book.truth[order.order_id].facts.insert(0, OrderFilled(fill))
        book.push(OrderFilled(fill))
        async with asyncio.timeout(300):
            await mending
        assert [one.trade_id for one in order.fills] == ["t99"]
        assert run.engine.state.ledger.balance(MAIN, "cex", CEX_ETH).units == book.holding[CEX_ETH]
        await run.kill()
        await pool.close()

    warped(work())


@pytest.mark.parametrize("error", [NumberError("1E-7 is no number"), FrameError("no JSON")])
def test_a_reply_that_nobody_understands_is_a_doubt_and_not_the_end(error: Exception) -> None:
    class Garbled(RestBook):
        async def send(self, signed: Signed) -> Sequence[PrivateFact]:
            await super().send(signed)
            raise error

    async def work() -> None:
        book = Garbled()
        run = Run({"cex": book})
        await ready(run.engine)
        await run.engine.submit(resting("r1"))
        await run.until(lambda: any(order.state is S.OPEN for order in run.engine.state.orders.values()), 60)
        assert not run.task.done()
        await run.kill()

    warped(work())
