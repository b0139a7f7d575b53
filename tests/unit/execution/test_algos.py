"""Schedules of algorithms: all of the order and never more, in time, whatever is filled when, and the same after a restart."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.algo import Algo, Shortfall, Twap
from agent.domain.amount import Amount, group_asset
from agent.domain.intent import Intent
from agent.execution.algos import shortfall
from agent.execution.schedule import RETRY_NS, Slice, due, parts, timetable
from agent.risk.schedules import CODE, refuse_algo

SECOND = 10**9
GROUP = group_asset("ETH")
PCT = st.integers(0, 50)
TIMES = st.tuples(st.integers(1, 600), st.integers(1, 60)).map(lambda both: (both[0] * SECOND, min(both) * SECOND))
TWAPS = st.builds(lambda times, size, time, most: Twap(*times, size, time, most), TIMES, PCT, PCT, st.integers(100, 500))
SHORTFALLS = st.builds(
    lambda times, urgency, size, time, most: Shortfall(*times, urgency, size, time, most),
    TIMES, st.integers(0, 5_000), PCT, PCT, st.integers(100, 500),
)  # fmt: skip
ALGOS: st.SearchStrategy[Algo] = st.one_of(TWAPS, SHORTFALLS)


def order(algo: Algo, units: int, name: str = "i", after_ns: int = 60 * SECOND) -> Intent:
    return Intent(name, "m", "s", "sell", Amount(units, GROUP), "USDT", 50, algo.duration_ns + after_ns, algo=algo)


def worked(wish: Intent, fills: list[float], least: int = 1, step_ns: int = SECOND // 2) -> list[tuple[int, Slice, int]]:
    """(when, slice, filled of it) until nothing is due any more; of each slice a share of `fills` is filled."""
    left, last, found = wish.quantity.units, 0, list[tuple[int, Slice, int]]()
    for now in range(0, wish.deadline_ns + step_ns, step_ns):
        piece = due(wish, Amount(left, GROUP), len(found), last, now, least=least)
        if piece is None:
            continue
        share = fills[len(found)] if len(found) < len(fills) else 1.0
        done = piece.quantity.units if share == 1.0 else int(piece.quantity.units * share)
        found.append((now, piece, done))
        left, last = left - done, now
    return found


@given(ALGOS, st.integers(1, 10**22), st.text(max_size=8))
def test_a_timetable_rises_to_the_whole_order_within_its_time(algo: Algo, units: int, seed: str) -> None:
    table = timetable(algo, units, seed)
    assert len(table.starts_ns) == len(table.units) == parts(algo)
    assert table.units[-1] == units
    assert table.starts_ns[0] == 0
    assert table.starts_ns[-1] <= algo.duration_ns
    assert all(before <= after for before, after in pairwise(table.units))
    assert all(before <= after for before, after in pairwise(table.starts_ns))
    assert timetable.__wrapped__(algo, units, seed) == table, "the same whenever it is asked"


@given(ALGOS, st.integers(10**6, 10**22), st.lists(st.floats(0, 1), max_size=30), st.integers(1, 10**5))
def test_all_of_it_never_more_and_never_ahead_of_time(algo: Algo, units: int, fills: list[float], least: int) -> None:
    wish = order(algo, units, after_ns=120 * SECOND)
    table, done = timetable(algo, units, "i"), 0
    found = worked(wish, fills, least)
    for at_ns, piece, filled in found:
        assert at_ns < wish.deadline_ns
        wanted = max(total for start, total in zip(table.starts_ns, table.units, strict=True) if start <= at_ns)
        assert 0 < piece.quantity.units <= units - done, "never more than is left"
        is_last = piece.quantity.units == units - done
        assert piece.quantity.units >= least or is_last
        assert done + piece.quantity.units <= wanted or is_last, "never ahead, but not to leave dust"
        assert units - done - piece.quantity.units == 0 or units - done - piece.quantity.units >= least, "no dust is left"
        done += filled
    assert done <= units
    if len(fills) < len(found) or not fills:
        assert done == units
    assert all(later - earlier >= RETRY_NS for (earlier, _, _), (later, _, _) in pairwise(found))


@given(TWAPS, st.integers(10**6, 10**20))
def test_what_was_missed_is_made_up_with_a_bound(algo: Twap, units: int) -> None:
    """Nothing was traded for half of the time; then at most so many times the part of now at once, until the end."""
    wish, half = order(algo, units), algo.duration_ns // 2
    piece = due(wish, wish.quantity, 0, 0, half)
    table = timetable(algo, units, "i")
    assert piece is not None
    most = max(table.part(at) for at in range(parts(algo))) * algo.catch_up_pct / 100
    assert piece.quantity.units <= max(most, 1)
    assert (late := due(wish, wish.quantity, 0, 0, algo.duration_ns)) is not None
    assert late.quantity == wish.quantity, "at the end all of it"


def test_the_same_order_is_scheduled_the_same_and_another_is_not() -> None:
    algo = Twap(600 * SECOND, 10 * SECOND, 20, 20)
    assert timetable(algo, 10**18, "a") != timetable(algo, 10**18, "b")
    sizes = [timetable(algo, 10**18, "a").part(at) for at in range(60)]
    assert max(sizes) > 1.1 * 10**18 / 60
    assert min(sizes) < 0.9 * 10**18 / 60


def test_almgren_and_chriss_numbers() -> None:
    """Their paper: X 1e6, T = N = 5, sigma .95, gamma 2.5e-7, eta 2.5e-6; kappa .607076 at lambda 1e-6."""
    trades = [one * 1e6 for one in shortfall.weights(Shortfall(5, 1, 304), 5)]
    assert trades == pytest.approx([458_044, 252_101, 141_957, 85_756, 62_142], rel=0.003), "kappa T is 3.03538"
    assert shortfall.weights(Shortfall(5, 1, 0), 5) == pytest.approx([0.2] * 5)
    assert shortfall.weights(Shortfall(5, 1, 5_000), 5)[0] > 0.9999


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"interval_ns": 601 * SECOND}, "at most 600 s"),
        ({"interval_ns": 0}, "at least 1 s"),
        ({"duration_ns": 7_200 * SECOND, "interval_ns": SECOND}, "at least 8 s for 1000 parts"),
        ({"duration_ns": 0}, "not within 1 s and 31 days"),
        ({"duration_ns": 661 * SECOND}, "at most 660 s"),
        ({"randomise_size_pct": 51}, "within 0 % and 50 %: 50 %"),
        ({"randomise_time_pct": -1}, "within 0 % and 50 %: 0 %"),
        ({"catch_up_pct": 99}, "within 100 % and 10000 %: 100 %"),
        ({"urgency_pct": -1}, "urgency -1 % is not within 0 % and 5000 %: 0 %"),
        ({"urgency_pct": 5_001}, "within 0 % and 5000 %: 5000 %"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(change: dict[str, int], nearest: str) -> None:
    right = Shortfall(600 * SECOND, 10 * SECOND, 100)
    assert list(refuse_algo(order(right, 10**18), right, 0)) == []
    wrong = msgspec.structs.replace(right, **change)
    wish = msgspec.structs.replace(order(right, 10**18), algo=wrong)
    reasons = list(refuse_algo(wish, wrong, 0))
    assert any(reason.code == CODE and nearest in reason.text for reason in reasons), reasons


def test_an_algorithm_makes_its_own_slices() -> None:
    algo = Twap(600 * SECOND, 10 * SECOND)
    wish = msgspec.structs.replace(order(algo, 10**18), slices=4)
    assert "makes its own slices" in next(refuse_algo(wish, algo, 0)).text
