"""The engine against the laws: journal before action, nothing twice, doubts that only the venue ends, clear ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from engine_kit import (
    BOOK,
    CEX_ETH,
    CEX_USDT,
    POOL,
    Habits,
    Run,
    Scripted,
    ScriptedBook,
    ScriptedPool,
    WarpClock,
    as_venue,
    booked,
    dump,
    replayed,
    running,
    sale,
    venues_of,
    warped,
)

from agent import observe
from agent.domain.amount import Amount, parse_amount, zero
from agent.domain.errors import JournalError, VenueError
from agent.domain.events import (
    BalanceAdopted,
    EngineStopped,
    Event,
    Halted,
    IntentEnded,
    OrderApproved,
    OrderFilled,
    OrderRefused,
    OrderReported,
    OrderSent,
    Record,
    Resumed,
    VenueDisconnected,
)
from agent.domain.market import TradePrint
from agent.domain.order import RESTING, Fill, OrderState
from agent.domain.plan import PlaceOrder, Signed, SwapBatch, Unsigned
from agent.engine.record import SUBSCRIBER_MAX
from agent.journal.memory import MemoryJournal
from agent.ports import PrivateFact, VenueEvent

S = OrderState


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


def events(run: Run, *kinds: type) -> list[Any]:
    return [record.event for record in run.journal.read() if isinstance(record.event, kinds)]


def both(**habits: Any) -> dict[str, Scripted]:
    return venues_of(ScriptedBook(WarpClock(), 1, Habits(**habits)), ScriptedPool(WarpClock(), 1))


def book_only(*sends: str, **habits: Any) -> dict[str, Scripted]:
    return venues_of(ScriptedBook(WarpClock(), 1, Habits(sends or ("reply",), **habits)))


async def traded(run: Run, *parents: str) -> None:
    await run.until(lambda: all(not run.engine.state.parents[name].is_live for name in parents))


# -- the way of an order -------------------------------------------------------------------------------------------------


def test_a_parent_trades_at_both_places_and_everything_agrees() -> None:
    async def work() -> None:
        venues = both()
        async with running(venues) as run:
            assert await run.engine.submit(sale(slices=2)) == ()
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []
            assert booked(run.engine.state, "cex")
            assert booked(run.engine.state, "amm")
        assert isinstance(events(run, object)[-1], EngineStopped)

    warped(work())


class Watchful(ScriptedBook):
    """A book that looks into the journal before it answers."""

    journal: MemoryJournal

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        last = [record.event for record in self.journal.read()][-1]
        assert last == OrderSent(signed.order_id), "on disk before the first byte leaves"
        return await super().send(signed)


def test_the_journal_knows_an_order_before_the_venue_does() -> None:
    async def work() -> None:
        venue = Watchful(WarpClock(), 1)
        async with running(venues_of(venue)) as run:
            venue.journal = run.journal
            await run.engine.submit(sale())
            await traded(run, "p1")
        assert run.engine.failure == ""
        assert venue.arrivals

    warped(work())


def test_two_parents_at_once_never_share_a_nonce_a_permit_or_a_coin() -> None:
    async def work() -> None:
        venues = both()
        async with running(venues) as run:
            for number in range(4):
                assert await run.engine.submit(sale(f"p{number}", "12", slices=2)) == ()
            await traded(run, "p0", "p1", "p2", "p3")
            assert {parent.status for parent in run.engine.state.parents.values()} == {"FILLED"}
            assert await run.engine.reconcile() == []
            nonces = [e.approved.nonce for e in events(run, OrderApproved) if e.approved.nonce is not None]
            assert nonces == list(range(len(nonces)))
        pool = venues["amm"]
        assert isinstance(pool, ScriptedPool)
        assert pool.blunders == []

    warped(work())


@pytest.mark.parametrize("how", ["lost_gone", "late", "hang"])
def test_a_doubt_lasts_until_the_venue_ends_it(how: str) -> None:
    async def work() -> None:
        venues = book_only(how, deaf=1.0)
        async with running_deaf(venues) as run:
            await run.engine.submit(sale(quantity="5", within_s=3_600))
            await run.until(lambda: any(o.state is S.UNKNOWN for o in run.engine.state.orders.values()))
            await asyncio.sleep(1_200)
            (order,) = run.engine.state.orders.values()
            if how in ("lost_gone", "hang"):
                assert order.state is S.UNKNOWN or order.fills, "no counter and no clock ends it"
            assert venues["cex"].arrivals == [order.order_id], "and nothing is sent again"
            venues["cex"].habits = Habits()
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []

    warped(work())


def running_deaf(venues: dict[str, Scripted]) -> Any:
    """As `running`, but the venue falls silent only when the engine is ready."""
    habits = venues["cex"].habits
    deaf, habits.deaf = habits.deaf, 0.0
    started = running(venues)

    class Started:
        async def __aenter__(self) -> Run:
            run: Run = await started.__aenter__()
            habits.deaf = deaf
            return run

        async def __aexit__(self, *why: Any) -> None:
            await started.__aexit__(*why)

    return Started()


def test_a_venue_that_always_refuses_is_given_up_and_does_not_fill_the_journal() -> None:
    async def work() -> None:
        async with running(book_only("reject")) as run:
            await run.engine.submit(sale())
            assert await run.engine.finished("p1") == "REFUSED"
            (ended,) = events(run, IntentEnded)
            assert "every venue failed 3 times" in ended.reason
            assert "-2010 not today" in ended.reason
            assert len(events(run, OrderSent)) == 3

    warped(work())


def test_reverts_cost_gas_and_the_parent_goes_on_elsewhere() -> None:
    async def work() -> None:
        book, pool = ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1, reverts=1.0)
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale())
            assert await run.engine.finished("p1") == "FILLED"
            reverted = [o for o in run.engine.state.orders.values() if o.state is S.REVERTED]
            assert len(reverted) == 2, "after two in a row the pool is avoided, and the book takes the rest"
            assert all(order.gas for order in reverted)
            assert await run.engine.reconcile() == []
        assert pool.blunders == []

    warped(work())


def test_a_rejected_transaction_gives_its_nonce_back() -> None:
    async def work() -> None:
        book, pool = ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1, Habits(("refuse",)))
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale())
            await run.until(lambda: any(o.state is S.REJECTED for o in run.engine.state.orders.values()))
            pool.habits = Habits()
            assert await run.engine.finished("p1") == "FILLED"
        used = [(o.nonce, o.state) for o in run.engine.state.orders.values() if o.nonce is not None]
        assert used[0] == (0, S.REJECTED)
        assert used[1][0] == 0
        assert pool.blunders == []

    warped(work())


def test_a_transaction_that_no_node_knows_is_sent_again_as_the_same_bytes() -> None:
    async def work() -> None:
        book, pool = ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1, Habits(("lost_gone",)))
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale())
            await run.until(lambda: any(o.state is S.UNKNOWN for o in run.engine.state.orders.values()))
            pool.habits = Habits()
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []
        assert pool.arrivals.count(pool.arrivals[0]) > 1
        assert len([e for e in events(run, OrderSent) if e.order_id == pool.arrivals[0]]) == 1

    warped(work())


def test_a_transaction_that_the_node_forgot_is_sent_again_too() -> None:
    async def work() -> None:
        venues = both()
        pool = venues["amm"]
        assert isinstance(pool, ScriptedPool)
        async with running(venues) as run:
            pool.stall = True
            await run.engine.submit(sale())
            await run.until(lambda: pool.pending)
            (forgotten,) = pool.pending.values()
            pool.pending.clear()
            del pool.truth[forgotten.plan.order_id]
            pool.stall = False
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []
        assert pool.arrivals.count(forgotten.plan.order_id) == 2
        assert pool.blunders == []

    warped(work())


@pytest.mark.parametrize("mined", [0, 1], ids=["permission", "batch"])
def test_a_transaction_that_blocks_outgrew_keeps_nobody_from_the_book(mined: int) -> None:
    async def work() -> None:
        venues = both()
        pool = venues["amm"]
        assert isinstance(pool, ScriptedPool)
        async with running(venues) as run:
            pool.stall = mined == 0
            await run.engine.submit(sale(quantity="20", slices=2))
            await run.until(lambda: pool.nonce == mined and pool.pending)
            pool.stall, pool.base_fee = True, 500 * 10**9
            state, parent = run.engine.state, run.engine.state.parents["p1"]
            await run.until(lambda: not state.remaining(parent), 20)
            assert len(pool.arrivals) == mined + 1
            await asyncio.sleep(20)
            assert parent.is_live, "what the transaction may still trade is not known"
            pool.stall, pool.base_fee = False, 10**9
            assert await run.engine.finished("p1") == "FILLED"
            assert parent.filled == parent.intent.quantity
            assert await run.engine.reconcile() == []
        assert pool.blunders == []

    warped(work())


def test_a_venue_that_goes_away_keeps_nobody_from_the_others() -> None:
    async def work() -> None:
        venues = both()
        pool = venues["amm"]
        assert isinstance(pool, ScriptedPool)
        async with running(venues) as run:
            pool.stall = True
            await run.engine.submit(sale(quantity="20"))
            parent = run.engine.state.parents["p1"]
            await run.until(lambda: pool.pending)
            pool.is_down = True
            pool.cut()
            await run.until(lambda: parent.filled == parent.intent.quantity, 20)
            await asyncio.sleep(20)
            assert parent.is_live, "what became of its transaction is not known"
            pool.stall = pool.is_down = False
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []
        assert pool.blunders == []

    warped(work())


def test_a_parent_that_ends_unfilled_says_what_stood_in_its_way() -> None:
    async def work() -> None:
        venues = both()
        async with running(venues) as run:
            await run.engine.submit(sale("p1", quantity="150", within_s=60))
            assert await run.engine.finished("p1") == "PARTIAL"
            await run.engine.submit(sale("p2", quantity="1", within_s=120))
            assert await run.engine.finished("p2") == "EXPIRED"
        parents = run.engine.state.parents
        assert parents["p1"].reason == "the deadline passed with 30 ETH left; no venue that can be used has ETH to give"
        assert parents["p2"].reason == "the deadline passed with 1 ETH left; no venue that can be used has ETH to give"

    warped(work())


def test_gas_above_the_cap_closes_the_chain_and_not_the_parent() -> None:
    async def work() -> None:
        venues = both()
        pool = venues["amm"]
        assert isinstance(pool, ScriptedPool)
        pool.base_fee = 500 * 10**9
        async with running(venues) as run:
            await run.engine.submit(sale(quantity="80"))  # the book's account holds 60
            parent = run.engine.state.parents["p1"]
            await run.until(lambda: parent.filled == parse_amount("60", parent.filled.asset))
            await asyncio.sleep(20)
            assert parent.is_live
            assert (pool.arrivals, events(run, OrderRefused)) == ([], [])
            pool.base_fee = 10**9
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []

    warped(work())


# -- venues --------------------------------------------------------------------------------------------------------------


def test_a_venue_that_is_down_at_the_start_is_named_and_joins_later() -> None:
    async def work() -> None:
        venues = both()
        venues["cex"].is_down = True
        run = Run(venues)
        await run.until(lambda: "amm" in run.engine.world.ready)
        await asyncio.sleep(120)
        assert run.engine.waiting_for() == "cex: cex is down"
        assert len(events(run, VenueDisconnected)) == 1, "an outage is journaled once, not at every attempt"
        venues["cex"].is_down = False
        await run.engine.ready()
        assert run.engine.waiting_for() == ""
        await run.stop()

    warped(work())


def test_stop_while_a_venue_is_down_does_not_hang() -> None:
    async def work() -> None:
        venues = book_only()
        venues["cex"].is_down = True
        run = Run(venues)
        waiting = asyncio.create_task(run.engine.ready())
        await asyncio.sleep(5)
        async with asyncio.timeout(5):
            await run.stop()
            await waiting

    warped(work())


def test_a_disconnect_in_the_middle_of_an_order_loses_nothing() -> None:
    async def work() -> None:
        venues = book_only("lost_done", delay_s=5.0)
        async with running(venues) as run:
            await run.engine.submit(sale())
            await run.until(lambda: venues["cex"].arrivals)
            venues["cex"].cut()
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []
            assert len(events(run, VenueDisconnected)) == 1
            adopted = [(e.venue, e.amount.asset) for e in events(run, BalanceAdopted)]
            assert len(adopted) == len(set(adopted)) == 2, "once, not at each connect"

    warped(work())


class Flood(ScriptedBook):
    """A book whose stream never pauses for breath."""

    async def stream(self) -> AsyncIterator[VenueEvent]:
        async for event in super().stream():
            yield event
            for number in range(20_000):
                yield TradePrint(BOOK.id, self.bid, number, False, self.clock.now_ns())


def test_a_flood_of_market_data_delays_no_news_and_starves_nobody() -> None:
    async def work() -> None:
        venues = venues_of(Flood(WarpClock(), 1, Habits(("quiet",))), ScriptedPool(WarpClock(), 1))
        async with running(venues) as run:
            await run.engine.submit(sale())
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []

    warped(work())


# -- a person looks ------------------------------------------------------------------------------------------------------


def test_a_deposit_halts_until_a_person_explains_it() -> None:
    async def work() -> None:
        venues = book_only("quiet")
        async with running(venues) as run:
            venues["cex"].holding[CEX_USDT] += 5 * 10**8
            run.engine.remind()
            await run.until(lambda: run.engine.state.halted)
            assert [reason.code for reason in await run.engine.submit(sale())] == ["TRADING_HALTED"]
            assert await run.engine.adopt("deposit of 5 USDT") == []
            assert run.engine.state.halted == {}
            assert events(run, Resumed)[0].reason == "deposit of 5 USDT"
            assert [one.amount for one in events(run, BalanceAdopted) if one.cause == "deposit of 5 USDT"] == [
                Amount(5 * 10**8, CEX_USDT)
            ]
            await run.engine.submit(sale())
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []

    warped(work())


# -- what should not happen ----------------------------------------------------------------------------------------------


def test_a_trade_of_an_unknown_order_halts() -> None:
    async def work() -> None:
        venues = book_only()
        async with running(venues) as run:
            fill = Fill("by-hand", "cex", BOOK.id, "t0", Amount(10**8, CEX_ETH), Amount(10**11, CEX_USDT), zero(CEX_USDT), 0)
            venues["cex"].push(OrderFilled(fill), OrderFilled(fill))
            await run.until(lambda: run.engine.state.halted)
            assert len(events(run, Halted)) == 1
            assert [reason.code for reason in await run.engine.submit(sale())] == ["TRADING_HALTED"]

    warped(work())


def test_a_fill_that_cannot_be_booked_halts_and_leaves_the_journal_readable() -> None:
    async def work() -> None:
        venues = book_only("quiet", delay_s=20.0)
        async with running(venues) as run:
            await run.engine.submit(sale())
            await run.until(lambda: any(o.state in RESTING for o in run.engine.state.orders.values()))
            order = next(iter(run.engine.state.orders.values()))
            wrong = Fill(order.order_id, "cex", BOOK.id, "bad", Amount(-1, CEX_ETH), Amount(1, CEX_USDT), zero(CEX_USDT), 0)
            venues["cex"].push(OrderFilled(wrong))
            await run.until(lambda: run.engine.state.halted)
            rows = await run.stop()
        assert dump(replayed(rows)) == dump(run.engine.state)

    warped(work())


def test_an_overfill_is_booked_and_halts() -> None:
    async def work() -> None:
        venues = book_only()
        async with running(venues) as run:
            await run.engine.submit(sale())
            assert await run.engine.finished("p1") == "FILLED"
            name = next(iter(run.engine.state.orders))
            more = Fill(name, "cex", BOOK.id, "more", Amount(10**8, CEX_ETH), Amount(2_600 * 10**8, CEX_USDT), zero(CEX_USDT), 0)
            venues["cex"].move(more)
            venues["cex"].push(OrderFilled(more))
            await run.until(lambda: run.engine.state.halted)
            assert "more than it may" in run.engine.state.halted[BOOK.id]
            assert await run.engine.reconcile() == [], "it is in the books all the same"

    warped(work())


def test_a_difference_at_the_start_halts_and_a_second_start_adopts_nothing() -> None:
    async def work() -> None:
        venues = book_only()
        async with running(venues) as run:
            rows = await run.stop()
        venues["cex"].holding[CEX_ETH] -= 1
        again = Run(venues, rows)
        await again.engine.ready()
        assert "1 less outside" in again.engine.state.halted["cex"].replace("0.00000001 ETH@cex", "1")
        assert len(events(again, BalanceAdopted)) == 2
        await again.stop()

    warped(work())


def test_resting_orders_of_an_earlier_journal_halt_a_fresh_one() -> None:
    class Haunted(ScriptedBook):
        async def snapshot(self, asked: Any = ()) -> Any:
            return msgspec.structs.replace(await super().snapshot(asked), open_orders=("old-7",))

    async def work() -> None:
        run = Run(venues_of(Haunted(WarpClock(), 1)))
        await run.engine.ready()
        assert "the journal does not know it" in run.engine.state.halted["cex"]
        await run.stop()

    warped(work())


# -- ends ----------------------------------------------------------------------------------------------------------------


class Full(MemoryJournal):
    """A disk that is full after some records."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        if len(self.rows) + len(events) > self.room:
            raise JournalError("the journal stopped (disk full); free the disk, then start again")
        return super().append(at_ns, events)


@pytest.mark.parametrize("room", [0, 1, 2, 4, 6, 8, 9, 10, 11, 12])
def test_a_journal_that_fails_stops_everything_and_says_so(room: int) -> None:
    async def work() -> None:
        venues = book_only("quiet", delay_s=1.0)
        run = Run(venues, journal=Full(room))
        async with asyncio.timeout(120):
            await run.engine.ready()
            if not run.engine.is_stopping:
                await run.engine.priced("ETH/USDT")
            if not run.engine.is_stopping:
                with contextlib.suppress(JournalError):
                    await run.engine.submit(sale())
            await run.engine.finished("p1")
            with pytest.raises(JournalError, match="disk full"):
                await run.task
        assert "disk full" in run.engine.failure
        sent = {event.order_id for event in events(run, OrderSent)}
        assert set(venues["cex"].arrivals) <= sent
        with pytest.raises(StopAsyncIteration):
            await anext(run.engine.events())

    warped(work())


class Filling(MemoryJournal):
    """A disk that is almost full while `free` is false."""

    free = True

    @property
    def warning(self) -> str:
        return "" if self.free else "the disk is almost full"


def test_a_disk_that_fills_up_stops_what_is_new_until_there_is_room_again() -> None:
    async def work() -> None:
        venues, journal = book_only(), Filling()
        run = Run(venues, journal=journal)
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        assert await run.engine.submit(sale("p1", "9", slices=9, interval_ns=10**9)) == ()
        await run.until(lambda: venues["cex"].arrivals)
        journal.free = False
        await run.until(lambda: "disk" in run.engine.state.halted)
        before = len(venues["cex"].arrivals)
        await asyncio.sleep(20)
        assert len(venues["cex"].arrivals) == before
        assert [reason.code for reason in await run.engine.submit(sale("p2", "1"))] == ["TRADING_HALTED"]
        assert await run.engine.reconcile() == [], "looking and booking go on"
        journal.free = True
        await run.until(lambda: "disk" not in run.engine.state.halted)
        assert await run.engine.finished("p1") == "FILLED"
        await run.stop()

    warped(work())


def test_a_journal_that_cannot_be_read_is_a_failure_and_not_a_hang() -> None:
    class Torn(MemoryJournal):
        def read(self, after_seq: int = 0) -> Any:
            raise JournalError("journal record 3 was changed; restore the journal from a copy")

    async def work() -> None:
        run = Run(book_only(), journal=Torn())
        await run.engine.ready()
        assert "record 3" in run.engine.failure
        with pytest.raises(JournalError):
            await run.task

    warped(work())


def test_a_bug_in_an_adapter_ends_the_run_with_its_words() -> None:
    class Broken(ScriptedBook):
        async def send(self, signed: Signed) -> Sequence[PrivateFact]:
            raise ZeroDivisionError("a bug")

    async def work() -> None:
        run = Run(venues_of(Broken(WarpClock(), 1)))
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        await run.engine.submit(sale())
        assert await run.engine.finished("p1") == "LIVE"
        with pytest.raises(ZeroDivisionError):
            await run.task
        assert run.engine.failure == "ZeroDivisionError: a bug"
        assert {order.state for order in run.engine.state.orders.values()} == {S.UNKNOWN}, "it may have left"
        assert events(run, EngineStopped)[-1].reason == run.engine.failure
        assert [r.code for r in await run.engine.submit(sale("p2"))] == ["AGENT_STOPPING"]

    warped(work())


def test_stop_waits_for_the_sends_under_way_and_interrupts_what_hangs() -> None:
    async def work() -> None:
        for sends, state in ((("early",), S.FILLED), (("hang",), S.UNKNOWN)):
            async with running_deaf(book_only(*sends, deaf=1.0)) as run:
                await run.engine.submit(sale(quantity="5"))
                await run.until(lambda run=run: events(run, OrderSent))  # type: ignore[misc]
                await run.stop()
                assert {order.state for order in run.engine.state.orders.values()} == {state}
                assert isinstance(events(run, object)[-1], EngineStopped)
                assert events(run, EngineStopped)[-1].reason == "test"

    warped(work())


class SlowSigner:
    """A person with a hardware key."""

    key_id = "k"

    async def sign(self, unsigned: Unsigned) -> Signed:
        await asyncio.sleep(60)
        raise VenueError("nobody pressed the button")


def test_what_was_only_approved_is_not_sent_once_the_client_cancelled() -> None:
    async def work() -> None:
        venues = book_only()
        async with running(venues) as run:
            run.engine._dispatch._signers = {"cex": SlowSigner()}  # type: ignore[dict-item]
            await run.engine.submit(sale())
            await run.until(lambda: run.engine.state.orders)
            assert await run.engine.cancel("p1")
            assert await run.engine.cancel("p1")
            assert await run.engine.finished("p1") == "CANCELLED"
            assert venues["cex"].arrivals == []
            assert not await run.engine.cancel("p1")

    warped(work())


def test_a_slow_subscriber_is_cut_off_and_told_so() -> None:
    async def work() -> None:
        async with running(book_only()) as run:
            slow = run.engine.events()
            for _ in range(SUBSCRIBER_MAX + 10):
                run.engine._recorder.record([OrderReported("nobody", S.OPEN)])
            seen = [record async for record in slow]
            assert len(seen) == SUBSCRIBER_MAX - 1

    warped(work())


def test_reconcile_works_beside_live_parents() -> None:
    async def work() -> None:
        async with running(both(delay_s=0.3)) as run:
            await run.engine.submit(sale(slices=10, interval_ns=2 * 10**9))
            for _ in range(5):
                await asyncio.sleep(3.3)
                assert await run.engine.reconcile() == []
            assert run.engine.state.parents["p1"].is_live
            assert await run.engine.finished("p1") == "FILLED"
            run.engine.remind()
            await asyncio.sleep(30)
            assert run.engine.state.halted == {}

    warped(work())


def test_children_are_of_both_kinds_and_never_larger_than_their_parent() -> None:
    async def work() -> None:
        async with running(both()) as run:
            await run.engine.submit(sale(quantity="20", slices=2))
            await traded(run, "p1")
        plans = [event.approved.plan for event in events(run, OrderApproved)]
        assert {type(plan) for plan in plans} >= {PlaceOrder, SwapBatch}
        units = sum(
            p.sell.units * (10**10 if p.sell.asset == CEX_ETH else 1) for p in plans if isinstance(p, PlaceOrder | SwapBatch)
        )
        assert units == 20 * 10**18

    warped(work())


def test_the_scripted_venues_satisfy_the_port() -> None:
    async def work() -> None:
        for venue in (ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1)):
            assert as_venue(venue).profile.name in (BOOK.venue, POOL.venue)

    warped(work())
