"""Quoted against executed over whole orders: it agrees with what the account really received, and a sandwich is told once."""

from collections.abc import Iterator

import pytest
from engine_kit import (
    BOOK,
    COIN,
    MAIN,
    POOL,
    USDT,
    WETH,
    ScriptedBook,
    ScriptedPool,
    WarpClock,
    running,
    sale,
    venues_of,
    warped,
)
from test_any_order import BLOCK as HASH
from test_any_order import GAS, MINED, SWAPPED, TX, kept, pen

from agent import observe
from agent.domain.amount import Amount
from agent.domain.events import GasPaid, OrderReorged, OrderReported, Surrounded
from agent.domain.order import OrderState
from agent.engine.executed import order_gap, parent_gap
from agent.engine.summary import summary
from agent.execution.gap import PARTS

S = OrderState
TAKEN = Surrounded("p1-1", POOL.id, TX, "0xbad", "0x1", "0x2", Amount(30 * 10**6, USDT), Amount(10**16, WETH), 7)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


@pytest.mark.parametrize("reverts", [0.0, 0.5])
def test_the_gap_of_a_parent_ends_at_what_the_account_received(reverts: float) -> None:
    async def work() -> None:
        book, pool = ScriptedBook(WarpClock(), 3), ScriptedPool(WarpClock(), 3, reverts=reverts)
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale("p1", "40", slices=4))
            assert await run.engine.finished("p1") == "FILLED"
            state = run.engine.state
        done, gap = summary(state, "p1"), parent_gap(state, "p1")
        assert gap.executed == done.quote, "after fees and gas, permissions and what reverted included"
        assert gap.base == done.filled
        assert gap.promised + gap.drift + gap.fee + gap.gas + gap.sandwich + gap.rest == gap.executed
        assert gap.drift.units < 0, "the pool fills at the least that it may"
        assert gap.gas.units < 0, "the permission was not in the routes"
        permission = next(order for order in state.orders.values() if type(order.plan).__name__ == "ApproveToken")
        alone = order_gap(state, permission)
        assert alone is not None
        assert (alone.promised.units, alone.gas) == (0, alone.executed)
        assert {name for name in PARTS if getattr(alone, name)} == {"gas"}

    warped(work())


def test_a_sandwich_is_journaled_once_and_belongs_to_its_block() -> None:
    recorder = pen()
    recorder.absorb("amm", [TAKEN])
    assert "Surrounded" not in [type(one.event).__name__ for one in kept(recorder)], "its block is not known yet"
    recorder.absorb("amm", [SWAPPED, GAS, MINED, TAKEN, TAKEN])
    recorder.absorb("amm", [TAKEN])
    assert [one.event for one in kept(recorder) if isinstance(one.event, Surrounded)] == [TAKEN]
    recorder.absorb("amm", [OrderReorged("p1-1", TX, 7, HASH), TAKEN])
    again = Surrounded("p1-1", POOL.id, TX, "0xbad", "0x1", "0x2", Amount(20 * 10**6, USDT), Amount(10**16, WETH), 9)
    mined = OrderReported("p1-1", S.MINED, "", TX, 9, tx_hash=TX, block_hash="0xb2")
    recorder.absorb("amm", [SWAPPED, GAS, mined, again])
    assert recorder.state.surrounded["p1-1"] == [TAKEN, again], "both stay in the journal"
    gap = order_gap(recorder.state, recorder.state.orders["p1-1"])
    assert gap is not None
    assert gap.sandwich.units == -20 * 10**18, "and only the one of its block counts"


def test_of_a_stranger_and_of_another_transaction_nothing_is_told() -> None:
    recorder = pen()
    recorder.absorb("amm", [SWAPPED, GAS, MINED])
    before = len(kept(recorder))
    other = Surrounded("p1-1", POOL.id, "0xcc", "0xbad", "0x1", "0x2", Amount(1, USDT), Amount(1, WETH), 7)
    nobody = Surrounded("p9-1", POOL.id, TX, "0xbad", "0x1", "0x2", Amount(1, USDT), Amount(1, WETH), 7)
    recorder.absorb("amm", [other, nobody])
    assert len(kept(recorder)) == before


def test_an_order_without_a_route_has_no_promise_to_be_held_against() -> None:
    recorder = pen()
    recorder.absorb("amm", [SWAPPED, GasPaid("p1-1", MAIN, Amount(10**15, COIN), 200_000, TX), MINED])
    gap = order_gap(recorder.state, recorder.state.orders["p1-1"])
    assert gap is not None
    assert (gap.base.units, gap.promised.units, gap.gas) == (0, 0, gap.executed)
    assert BOOK.id not in recorder.state.scores.cards
