"""Many replays side by side: where they begin, what they are held against, and what their numbers support."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_kit import ALONE, TAPE_START_NS, twap, wish, write_tape

from agent.domain.errors import UsageError
from agent.simulation.replay import compare
from agent.simulation.replay.interval import Interval, interval, spread, word
from agent.simulation.replay.measure import Measured
from agent.simulation.replay.setting import SECOND, ChainSetting, Setting

MARKET = Measured("FILLED", 1.0, 10.0, None, 1, 1.0, 1.0)


@pytest.fixture(scope="module")
def taped(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    path = write_tape(tmp_path_factory.mktemp("tape") / "eth.jsonl.gz", 40)
    return msgspec.structs.replace(ALONE, tape=str(path), start_ns=5 * SECOND, warm_up_ns=SECOND, chain=ChainSetting())


# -- where runs begin ----------------------------------------------------------------------------------------------------


def test_runs_are_spread_over_the_tape_and_end_on_it(taped: Setting) -> None:
    found = compare.settings(taped, 4, 9 * SECOND)
    assert [one.start_ns / SECOND for one in found] == [5, 12, 19, 26], "40 s less 9 s and a tail of 5 s"
    assert [one.seed for one in found] == [7, 8, 9, 10]
    assert compare.overlap_of(found, 9 * SECOND) == pytest.approx(9 / 7)
    assert compare.overlap_of(found, 2 * SECOND) == 1
    assert compare.settings(taped, 1, 9 * SECOND) == [taped]


def test_runs_of_the_model_share_nothing() -> None:
    found = compare.settings(ALONE, 3, 60 * SECOND)
    assert [(one.start_ns, one.seed) for one in found] == [(ALONE.start_ns, seed) for seed in (7, 8, 9)]
    assert compare.overlap_of(found, 60 * SECOND) == 1


def test_a_tape_that_is_too_short_says_how_long_it_is(taped: Setting) -> None:
    words = "the tape is 40 s long, so from --start on 35 s are left, and the order takes 45 s; begin sooner"
    with pytest.raises(UsageError, match=words):
        compare.check_length(taped, 40 * SECOND)
    compare.check_length(taped, 30 * SECOND)
    compare.check_length(ALONE, 10**9 * SECOND)


def test_the_naive_ways_have_the_exchange_alone(taped: Setting) -> None:
    made = compare.jobs({"twap": twap("8", 20, 2), "market": wish("8")}, compare.settings(taped, 2, 20 * SECOND), 20 * SECOND)
    assert [job.label for job in made] == ["twap", "market", compare.NAIVE_MARKET, compare.NAIVE_TWAP] * 2
    by_label = {job.label: job for job in made[:4]}
    assert {label: job.setting.has_chain for label, job in by_label.items()} == {
        "twap": True, "market": True, compare.NAIVE_MARKET: False, compare.NAIVE_TWAP: False,
    }  # fmt: skip
    plan = by_label[compare.NAIVE_TWAP].intent
    assert (plan.algo, plan.slices, plan.interval_ns, plan.quantity) == (None, 10, 2 * SECOND, made[0].intent.quantity)
    assert by_label[compare.NAIVE_MARKET].intent.slices == 1
    assert {job.intent.intent_id for job in made} == {"r7", "r8"}, "all dice of an order come from its name"
    assert all(job.intent.deadline_ns <= TAPE_START_NS + 39 * SECOND for job in made)


# -- what they amount to -------------------------------------------------------------------------------------------------


def rows(costs: dict[str, list[float]]) -> list[compare.Row]:
    found = [
        compare.Row(label, 10.0, seed, msgspec.structs.replace(MARKET, shortfall_bps=cost))
        for label, some in costs.items()
        for seed, cost in enumerate(some)
    ]
    random.Random(1).shuffle(found)  # they come as they end
    return found


def test_differences_are_taken_run_by_run() -> None:
    """The market moves by far more than the two differ: side by side, the difference shows all the same."""
    market = [100.0 * (-1) ** seed for seed in range(20)]
    costs = {"a": [one - 1.0 for one in market], compare.NAIVE_MARKET: market, compare.NAIVE_TWAP: [-one for one in market]}
    first, naive, _ = compare.results(rows(costs), 1.0, costs)
    assert (first.label, first.runs, first.shortfall_bps.mean) == ("a", 20, pytest.approx(-1))
    against_market, against_twap = first.differences
    assert (against_market.than, against_market.bps, against_market.word) == (compare.NAIVE_MARKET, Interval(-1, -1, -1), "better")
    assert against_twap.word == "no difference shown"
    assert naive.differences == ()


def test_few_separate_stretches_of_market_support_nothing() -> None:
    costs = {"a": [9.0] * 20, compare.NAIVE_MARKET: [10.0] * 20}
    assert compare.results(rows(costs), 1.0, costs)[0].differences[0].word == "better"
    assert compare.results(rows(costs), 4.1, costs)[0].differences[0].word == "too little market"


@pytest.mark.parametrize(
    ("found", "said"),
    [(Interval(-1, -2, -0.1), "better"), (Interval(1, 0.1, 2), "worse"), (Interval(-1, -2, 0.1), "no difference shown")],
)
def test_words(found: Interval, said: str) -> None:
    assert word(found, 200) == said
    assert word(found, 4.9) == "too little market"


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 300 samples of 40 numbers whose mean is 0, about 5 in 100 intervals miss it."""
    chance = random.Random(5)
    missed = 0
    for _ in range(300):
        found = interval([chance.gauss(0, 1) for _ in range(40)])
        missed += not found.low <= 0 <= found.high
    assert 6 <= missed <= 33


def test_neighbours_that_share_their_market_make_an_interval_wider() -> None:
    chance = random.Random(5)
    blocks = [chance.gauss(0, 1) for _ in range(10)]
    shared = [one for one in blocks for _ in range(10)]  # a hundred runs that know what ten know
    alone, together = interval(shared), interval(shared, 10)
    assert together.high - together.low > 2 * (alone.high - alone.low)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(1, 50))
def test_intervals_and_spreads_lie_within_what_was_seen(values: list[float], block: int) -> None:
    found, lying = interval(values, block), spread(values)
    room = 1e-6 * (1 + max(abs(one) for one in values))
    assert min(values) - room <= found.low <= found.high <= max(values) + room
    assert min(values) - room <= lying.p5 <= lying.median <= lying.p95 <= max(values) + room
    assert found == interval(values, block), "its dice are seeded"


def test_two_processes_find_what_one_finds(taped: Setting) -> None:
    ways = {"twap": twap("4", 8, 4)}
    work = compare.jobs(ways, compare.settings(taped, 2, 8 * SECOND), 8 * SECOND)
    one, two = (
        sorted((row.label, row.seed, row.done.shortfall_bps, row.done.orders) for row in compare.rows(work, processes))
        for processes in (1, 2)
    )
    assert one == two
    assert len(one) == 6
