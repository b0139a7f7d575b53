"""Whatever venues do, the journal ends up saying what they say: every trade once, nothing sent twice, no parent overfilled.

Each seed is one day at two misbehaving venues: replies are lost, orders arrive late or never, fills come late, twice and before the
acknowledgement, streams break, snapshots fail, transactions revert, and the agent itself is killed and started again.
"""

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from engine_kit import (
    BOOK,
    POOL,
    Habits,
    Run,
    ScriptedBook,
    ScriptedPool,
    WarpClock,
    booked,
    dump,
    replayed,
    sale,
    venues_of,
    warped,
)

from agent import observe
from agent.domain.amount import rescale_up
from agent.domain.events import EngineStopped, OrderSent
from agent.domain.order import SETTLED
from agent.journal.memory import MemoryJournal

SEEDS = 208
BOOK_SENDS = ("reply", "quiet", "early", "refuse", "reject", "lost_done", "lost_gone", "late", "hang")
POOL_SENDS = ("reply", "reply", "reply", "refuse", "lost_done", "lost_gone", "hang")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


def scene(seed: int) -> tuple[random.Random, Habits, Habits]:
    rng = random.Random(seed)
    book = Habits(
        tuple(rng.sample(BOOK_SENDS, rng.randint(1, 5))) + ("reply",) * rng.randint(0, 3),
        twice=rng.choice((0, 0.5)),
        drop=rng.choice((0, 0.1, 0.4)),
        deaf=rng.choice((0, 0.3)),
        partial=rng.choice((0, 0.7)),
        delay_s=rng.choice((0.0, 0.3, 2.0)),
    )
    pool = Habits(
        tuple(rng.sample(POOL_SENDS, rng.randint(1, 4))) + ("reply",) * rng.randint(0, 3),
        twice=rng.choice((0, 0.5)),
        drop=rng.choice((0, 0.1, 0.4)),
        deaf=rng.choice((0, 0.3)),
        delay_s=rng.choice((0.0, 0.3)),
    )
    return rng, book, pool


async def day(seed: int) -> None:
    rng, book_habits, pool_habits = scene(seed)
    clock = WarpClock()
    book = ScriptedBook(clock, seed, book_habits)
    pool = ScriptedPool(clock, seed, pool_habits, reverts=rng.choice((0, 0.5)))
    venues = venues_of(book, pool)
    run = Run(venues)
    await run.until(lambda: len(run.engine.state.adopted) == 2)
    await run.engine.priced("ETH/USDT")
    parents = [sale(f"p{i}", str(rng.randint(3, 12)), slices=rng.randint(1, 3), within_s=60) for i in range(rng.randint(1, 3))]
    for parent in parents:
        assert await run.engine.submit(parent) == ()
    for _ in range(rng.randint(0, 3)):
        seq = run.engine.state.seq + rng.randint(1, 12)
        ends = clock.now_ns() + 20 * 10**9
        await run.until(lambda seq=seq, run=run, ends=ends: run.engine.state.seq >= seq or clock.now_ns() > ends)  # type: ignore[misc]
        before = await run.kill()
        run = Run(venues, before)
    book.habits, pool.habits = Habits(), Habits()  # the weather clears
    await run.engine.ready()
    await run.until(lambda: not any(p.is_live for p in run.engine.state.parents.values()), 600)
    await run.until(lambda: not run.engine.state.working, 600)
    breaks = await run.engine.reconcile()
    rows = await run.stop()
    for venue in venues.values():
        await venue.close()
    check(run, book, pool, breaks, rows)


def check(run: Run, book: ScriptedBook, pool: ScriptedPool, breaks: object, rows: list) -> None:  # type: ignore[type-arg]
    state = run.engine.state
    assert breaks == []
    assert state.halted == {}
    assert run.engine.failure == ""
    assert pool.blunders == []
    for venue in (book, pool):
        assert [name for name, count in Counter(venue.arrivals).items() if count > 1 and venue is book] == [], "sent twice"
        traded = {one.fill.trade_id: one.fill for truth in venue.truth.values() for one in truth.facts if hasattr(one, "fill")}
        assert booked(state, venue.profile.name).keys() == traded.keys()
        for order_id, truth in venue.truth.items():
            assert state.orders[order_id].state == truth.state
    events = [record.event for record in MemoryJournal(rows).read()]
    sent = Counter(event.order_id for event in events if isinstance(event, OrderSent))
    assert set(sent.values()) <= {1}
    assert set(book.arrivals) | set(pool.arrivals) <= sent.keys(), "journaled before it left"
    assert isinstance(events[-1], EngineStopped)
    for parent in state.parents.values():
        assert parent.filled <= parent.intent.quantity
        paid = [fill.paid for name in parent.orders for fill in state.orders[name].fills]
        assert sum(rescale_up(one, parent.filled.asset).units for one in paid) == parent.filled.units
    assert all(order.state in SETTLED for order in state.orders.values())
    assert dump(replayed(rows)) == dump(state)


@pytest.mark.parametrize("part", range(8))
def test_journal_and_venues_agree_after_any_day(part: int) -> None:
    for seed in range(part, SEEDS, 8):
        try:
            warped(day(seed))
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(20))
@pytest.mark.timeout(1_200)
def test_journal_and_venues_agree_after_many_days(part: int) -> None:
    for seed in range(SEEDS + part, 10_000, 20):
        try:
            warped(day(seed))
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


def test_the_scenes_trade_in_both_places() -> None:
    """A guard for the test itself: a world in which nothing happens would agree as well."""

    async def counts() -> tuple[int, int]:
        clock = WarpClock()
        book, pool = ScriptedBook(clock, 1), ScriptedPool(clock, 1)
        run = Run(venues_of(book, pool))
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        assert await run.engine.submit(sale(slices=2)) == ()
        await run.engine.finished("p1")
        await run.stop()
        return len(booked(run.engine.state, BOOK.venue)), len(booked(run.engine.state, POOL.venue))

    assert all(warped(counts()))
