"""Algorithms: all of the order and never more, in time, whatever is filled when, and the same after a restart."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from algo_kit import BOOK, GROUP, LOT, MID_TICKS, SECOND, START_NS, Desk, depth, order
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.algo import Algo, Value, new_algo
from agent.domain.amount import Amount
from agent.domain.price import Price
from agent.execution.algorithms import ALGORITHMS, OUT_OF_RANGE, UNKNOWN, parameters, read, refusals
from agent.execution.algos import is_, vwap
from agent.execution.moves import Rest, Take
from agent.execution.schedule import RETRY_NS, Timetable
from agent.market.bars import Bar

PCT = st.integers(0, 50)
TIMES = st.tuples(st.integers(1, 600), st.integers(1, 60)).map(lambda both: (both[0] * SECOND, min(both) * SECOND))
CURVES = st.lists(st.integers(0, 500), max_size=12).map(lambda some: ",".join(map(str, some)))


def scheduled(name: str, times: tuple[int, int], size: int, time: int, most: int, **more: Value) -> Algo:
    shared = {"randomise_size_pct": size, "randomise_time_pct": time, "catch_up_pct": most}
    return new_algo(name, duration_ns=times[0], interval_ns=times[1], **shared, **more)


def twap(seconds: int, every: int, **more: Value) -> Algo:
    return new_algo("twap", duration_ns=seconds * SECOND, interval_ns=every * SECOND, **more)


TWAPS = st.builds(scheduled, st.just("twap"), TIMES, PCT, PCT, st.integers(100, 500))
SHORTFALLS = st.builds(
    lambda times, size, time, most, urgency: scheduled("is", times, size, time, most, urgency_pct=urgency),
    TIMES, PCT, PCT, st.integers(100, 500), st.integers(0, 5_000),
)  # fmt: skip
VWAPS = st.builds(
    lambda times, size, time, most, curve: scheduled("vwap", times, size, time, most, curve=curve),
    TIMES, PCT, PCT, st.integers(100, 500), CURVES,
)  # fmt: skip
SCHEDULED = st.one_of(TWAPS, SHORTFALLS, VWAPS)


def table(algo: Algo, units: int, seed: str = "i") -> Timetable:
    found = read(algo).plan(order(algo, units, seed))
    assert found is not None
    return found


@given(SCHEDULED, st.integers(1, 10**22), st.text(max_size=8))
def test_a_timetable_rises_to_the_whole_order_within_its_time(algo: Algo, units: int, seed: str) -> None:
    found, own = table(algo, units, seed), read(algo).own
    assert len(found.starts_ns) == len(found.units) == -(-own.duration_ns // own.interval_ns)
    assert found.units[-1] == units
    assert found.starts_ns[0] == 0
    assert found.starts_ns[-1] <= own.duration_ns
    assert all(before <= after for before, after in pairwise(found.units))
    assert all(before <= after for before, after in pairwise(found.starts_ns))
    assert ALGORITHMS[algo.name].plan.__wrapped__(own, units, seed) == found, "the same whenever it is asked"  # type: ignore[attr-defined]


@given(st.one_of(TWAPS, SHORTFALLS), st.integers(10**6, 10**22), st.lists(st.floats(0, 1), max_size=30), st.integers(1, 10**5))
def test_all_of_it_never_more_and_never_ahead_of_time(algo: Algo, units: int, shares: list[float], least: int) -> None:
    desk, plan = Desk(order(algo, units), least=least, shares=shares), table(algo, units)
    for step in desk.work():
        wanted = max(total for start, total in zip(plan.starts_ns, plan.units, strict=True) if start <= step.at_ns)
        size = step.move.quantity.units
        assert 0 < size <= units - step.done, "never more than is left"
        is_last = size == units - step.done
        assert size >= least or is_last
        assert step.done + size <= wanted or is_last, "never ahead, but not to leave dust"
        assert is_last or units - step.done - size >= least, "no dust is left"
    assert desk.done <= units
    if len(shares) < len(desk.steps) or not shares:
        assert desk.done == units
    assert all(later.at_ns - earlier.at_ns >= RETRY_NS for earlier, later in pairwise(desk.steps))


@given(VWAPS, st.integers(10**6, 10**22), st.lists(st.floats(0, 1), max_size=30), st.floats(0, 20))
def test_a_corrected_schedule_is_all_of_it_too_and_never_more(algo: Algo, units: int, shares: list[float], volume: float) -> None:
    desk = Desk(order(algo, units), shares=shares, volume=volume)
    wanted = [step.move.wanted for step in desk.work() if isinstance(step.move, Take)]
    assert desk.done <= units
    if len(shares) < len(desk.steps) or not shares:
        assert desk.done == units
    assert all(one is not None and one.units <= units for one in wanted)
    assert all(before <= after for before, after in pairwise([one for one in wanted if one is not None])), "it only rises"


@given(
    st.sampled_from([twap(60, 5), twap(60, 5, randomise_size_pct=30, randomise_time_pct=50), new_algo("is", duration_ns=60 * SECOND,
        interval_ns=5 * SECOND, urgency_pct=200), new_algo("is", duration_ns=60 * SECOND, interval_ns=5 * SECOND,
        risk_aversion="0.001"), new_algo("vwap", duration_ns=60 * SECOND, interval_ns=5 * SECOND, curve="60,20,30")]),
    st.lists(st.integers(0, 100), max_size=4),
)  # fmt: skip
def test_killed_at_any_moment_it_gives_the_same_total(algo: Algo, kills: list[int]) -> None:
    """What a journal knows is kept, and what the tape said is lost."""
    desk = Desk(order(algo, 10**19))
    for turn, now_ns in enumerate(range(START_NS, desk.intent.deadline_ns + SECOND, SECOND // 2)):
        if turn in kills:
            desk.bars = Desk(desk.intent).bars
        desk.tick(now_ns)
    assert desk.done == 10**19


@given(TWAPS, st.integers(10**6, 10**20))
def test_what_was_missed_is_made_up_with_a_bound(algo: Algo, units: int) -> None:
    """Nothing was traded for half of the time; then at most so many times the part of now at once, until the end."""
    own, plan = read(algo).own, table(algo, units)
    move = read(algo).step(Desk(order(algo, units)).standing(START_NS + own.duration_ns // 2))
    assert move is not None
    most = max(plan.part(at) for at in range(len(plan.units))) * own.catch_up_pct / 100
    assert move.quantity.units <= max(most, 1)
    late = read(algo).step(Desk(order(algo, units)).standing(START_NS + own.duration_ns))
    assert late is not None
    assert late.quantity.units == units, "at the end all of it"


def test_the_same_order_is_scheduled_the_same_and_another_is_not() -> None:
    algo = twap(600, 10, randomise_size_pct=20, randomise_time_pct=20)
    assert table(algo, 10**18, "a") != table(algo, 10**18, "b")
    sizes = [table(algo, 10**18, "a").part(at) for at in range(60)]
    assert max(sizes) > 1.1 * 10**18 / 60
    assert min(sizes) < 0.9 * 10**18 / 60


# -- implementation shortfall ----------------------------------------------------------------------------------------------


def test_almgren_and_chriss_numbers() -> None:
    """Their paper: X 1e6, T = N = 5, sigma .95, gamma 2.5e-7, eta 2.5e-6; kappa .607076 at lambda 1e-6."""
    trades = [one * 1e6 for one in is_.weights(3.04, 5)]
    assert trades == pytest.approx([458_044, 252_101, 141_957, 85_756, 62_142], rel=0.003), "kappa T is 3.03538"
    assert is_.weights(0, 5) == pytest.approx([0.2] * 5)
    assert is_.weights(50, 5)[0] > 0.9999


def test_a_measured_urgency_is_planned_anew_as_the_market_changes() -> None:
    """A wild market is left sooner than a calm one; and in one that does not change it is the closed form."""

    def traded(wild: float) -> list[int]:
        desk = Desk(order(new_algo("is", duration_ns=100 * SECOND, interval_ns=10 * SECOND, risk_aversion="0.000005"), 10**20))
        desk.book = lambda at_ns: depth(lots=20_000)
        for second in range(60):
            desk.bars.sample(2_683 * (1 + wild * (second % 2)), 2_682, 2_684, START_NS - (60 - second) * SECOND)
        desk.bars.sample = lambda *_: None  # type: ignore[method-assign] # nothing new is seen
        return [step.filled for step in desk.work()]

    calm, wild = traded(1e-5), traded(1e-3)
    assert sum(calm) == sum(wild) == 10**20
    assert wild[0] > 2 * calm[0]
    left = [1 - sum(wild[:part]) / 1e20 for part in range(11)]
    ratios = [(left[part] + left[part + 2]) / left[part + 1] for part in range(6) if left[part + 2] > 1e-9]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=0.01), "x(t-1) + x(t+1) = 2 cosh(kappa tau) x(t)"


# -- along with the market -------------------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.floats(0.1, 50), st.lists(st.floats(0, 1), max_size=20))
def test_pov_keeps_its_share_of_what_others_trade(target: int, volume: float, shares: list[float]) -> None:
    desk = Desk(
        order(new_algo("pov", duration_ns=300 * SECOND, target_pct=target), 10**22), least=LOT, shares=shares, volume=volume
    )
    desk.work()
    others = int(volume / 2 * 10**8) // BOOK.lot_units * 0.0001 * 2 * 300
    assert desk.done / 1e18 <= others * target / 100 * 1.02 + 1e-9, "never above its share"
    if not shares and desk.done:
        assert desk.done / 1e18 >= others * target / 100 * 0.9 - 0.0002, "and not far below it"


def test_own_trades_on_the_tape_are_not_the_markets() -> None:
    desk = Desk(order(new_algo("pov", duration_ns=300 * SECOND, target_pct=50), 10**22), volume=2.0)
    desk.mine.append((START_NS + SECOND, 1e9))
    assert not any(desk.tick(START_NS + at * SECOND // 2) for at in range(1, 12)), "all that was traded was ours"


def test_pov_moves_between_its_floor_and_its_cap_with_the_price() -> None:
    def share(ticks: int) -> float:
        algo = new_algo("pov", duration_ns=300 * SECOND, target_pct=10, floor_pct=2, cap_pct=30, scale_bps=10)
        desk = Desk(order(algo, 10**22), volume=10.0)
        desk.book = lambda at_ns: depth(MID_TICKS + ticks - 1, MID_TICKS + ticks + 1)
        return next(step.filled for at in range(20) if (step := desk.tick(START_NS + at * SECOND // 2))) / 1e18 / 50

    assert share(0) == pytest.approx(0.10, rel=0.15)
    assert share(2_000) == pytest.approx(0.30, rel=0.15), "a seller's price: the cap"
    assert share(-1_000) == pytest.approx(0.02, rel=0.15)


def test_vwap_follows_the_curve_and_what_is_really_traded() -> None:
    algo = new_algo("vwap", duration_ns=100 * SECOND, interval_ns=10 * SECOND, curve="300,100")
    desk = Desk(order(algo, 10**20), volume=3.0 * 1.33)
    early = sum(step.filled for step in desk.work() if step.at_ns < 50 * SECOND) / 1e20
    assert early == pytest.approx(0.75, abs=0.08)
    busy = Desk(order(algo, 10**20), volume=20.0)
    busy.volume = 60.0
    sooner = 0
    for now_ns in range(START_NS, START_NS + 50 * SECOND, SECOND // 2):
        if now_ns > START_NS + 20 * SECOND:
            busy.volume = 1.0
        if step := busy.tick(now_ns):
            sooner += step.filled
    assert sooner / 1e20 > 0.75, "more of the day's volume is over already"


def test_a_curve_is_learnt_from_the_same_seconds_of_other_days() -> None:
    day, start_s = 86_400, 100 * 86_400 + 36_000
    bars = [Bar(start_s - back * day + second, volume=3.0 if second < 60 else 1.0) for back in (1, 2) for second in range(120)]
    points = [float(one) for one in vwap.learnt(bars, start_s, 120, 2).split(",")]
    assert points == pytest.approx([60 * (3 * 0.8 + 2 * 0.2), 60 * (1 * 0.8 + 2 * 0.2)])
    assert vwap.learnt([], start_s, 120, 2) == ""
    assert vwap.learnt([Bar(start_s + 1, volume=5.0)], start_s, 120, 2) == "", "the order's own time teaches nothing"


# -- resting -----------------------------------------------------------------------------------------------------------------


def rests(desk: Desk) -> list[Rest]:
    return [step.move for step in desk.steps if isinstance(step.move, Rest)]


def test_an_iceberg_shows_a_little_at_a_time() -> None:
    desk = Desk(order(new_algo("iceberg", display="2", variance_pct=30), 10**19, limit="2690"), least=LOT)
    for at in range(600):
        now_ns = START_NS + at * SECOND // 2
        desk.tick(now_ns)
        assert sum(one.left.units for one in desk.resting) <= 2.6 * 10**18, "never shows more"
        if at % 5 == 4:
            desk.fill_resting(now_ns)
    assert desk.done == 10**19
    shown = rests(desk)
    assert {one.ticks for one in shown} == {269_000}, "at its limit"
    assert len({one.quantity.units for one in shown}) > 3, "no two alike"


def test_an_iceberg_takes_what_is_within_its_limit_first() -> None:
    desk = Desk(order(new_algo("iceberg", display="2"), 10**19, limit="2680"))
    first = desk.tick(START_NS)
    assert first is not None
    assert isinstance(first.move, Take)
    assert first.move.quantity.units == 10**19
    assert first.move.limit == Price(2_680, 1)


@pytest.mark.parametrize(("offset", "ticks"), [(0, MID_TICKS + 1), (-3, MID_TICKS + 4), (1, MID_TICKS), (5, MID_TICKS)])
def test_a_peg_joins_improves_or_stays_behind_and_never_takes(offset: int, ticks: int) -> None:
    desk = Desk(order(new_algo("peg", offset_ticks=offset), 10**18))
    desk.tick(START_NS)
    assert [one.ticks for one in rests(desk)] == [ticks]


def test_a_peg_follows_the_market_only_so_far_and_does_not_chase_itself() -> None:
    desk = Desk(order(new_algo("peg", chase_bps=5, duration_ns=600 * SECOND), 10**18))
    ours: list[int] = []

    def fall(at_ns: int) -> Any:
        down = (at_ns - START_NS) // SECOND * 10
        market = depth(MID_TICKS - 1 - down, MID_TICKS + 1 - down)
        mine = [(one.ticks, 10_000) for one in desk.resting]
        return msgspec.structs.replace(market, asks=tuple(sorted([*market.asks, *mine])))

    desk.book = fall
    for at in range(120):
        desk.tick(START_NS + at * SECOND // 2)
        ours += [one.ticks for one in desk.resting]
    assert all(after <= before for before, after in pairwise(ours)), "it goes down with the market"
    floor = MID_TICKS * 9_995 // 10_000
    assert floor <= min(ours) <= floor + 2, "and stays where the chase ends"


def test_a_sniper_waits_and_takes_what_is_there() -> None:
    desk = Desk(order(new_algo("sniper", cooldown_ns=2 * SECOND), 10**19, limit="2684"), shares=[0.1] * 3)
    desk.book = lambda at_ns: depth(268_450, 268_452) if START_NS + 10 * SECOND <= at_ns < START_NS + 20 * SECOND else depth()
    steps = desk.work()
    assert [step.at_ns // SECOND for step in steps] == [10, 12, 14, 16]
    assert all(isinstance(step.move, Take) and step.move.is_all_in and step.move.limit == Price(2_684, 1) for step in steps)
    assert not rests(desk)


# -- bad parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"interval_ns": 601 * SECOND}, "at most 600 s"),
        ({"interval_ns": 0}, "not within 0.1 s and 2678400 s: 0.1 s"),
        ({"duration_ns": 7_200 * SECOND, "interval_ns": SECOND}, "at least 7.2 s for 1000"),
        ({"duration_ns": 0}, "duration 0 s is not within 1 s"),
        ({"duration_ns": 721 * SECOND}, "at most 720 s"),
        ({"randomise_size_pct": 51}, "within 0 % and 50 %: 50 %"),
        ({"randomise_time_pct": -1}, "within 0 % and 50 %: 0 %"),
        ({"catch_up_pct": 99}, "within 100 % and 10000 %: 100 %"),
        ({"urgency_pct": -1}, "urgency -1 % is not within 0 % and 5000 %: 0 %"),
        ({"urgency_pct": 5_001}, "within 0 % and 5000 %: 5000 %"),
        ({"placement": "maybe"}, "placement 'maybe' is none of auto, passive, take"),
        ({"risk_aversion": "-1"}, "risk-aversion '-1' is not written as it should be"),
        ({"hurry": 1}, "is has no parameter 'hurry'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(change: dict[str, Value], nearest: str) -> None:
    right = new_algo("is", duration_ns=600 * SECOND, interval_ns=10 * SECOND)
    assert refusals(order(right, 10**18), right, START_NS) == ()
    wrong = new_algo("is", **(dict(right.parameters) | change))
    reasons = refusals(msgspec.structs.replace(order(right, 10**18), algo=wrong), wrong, START_NS)
    assert any(reason.code == OUT_OF_RANGE and nearest in reason.text for reason in reasons), reasons


@pytest.mark.parametrize(
    ("algo", "nearest"),
    [
        (new_algo("iceberg", display="11"), "display 11 is above the quantity: at most 10"),
        (new_algo("iceberg", display="0"), "display 0 is no quantity of ETH: at most 10"),
        (new_algo("iceberg"), "iceberg needs display"),
        (new_algo("sniper"), "a sniper needs the price that it waits for"),
        (new_algo("pov", target_pct=10, floor_pct=20), "at most 10 %"),
        (new_algo("pov", target_pct=10, cap_pct=5), "at least 10 %"),
        (new_algo("vwap", curve="1,-2"), "curve '1,-2' is not written as it should be"),
        (twap(600, 1), "at most 100 parts"),
    ],
)
def test_each_algorithm_refuses_its_own_nonsense(algo: Algo, nearest: str) -> None:
    reasons = refusals(order(algo, 10**19), algo, START_NS, least=10**17)
    assert any(nearest in reason.text for reason in reasons), reasons


def test_an_algorithm_makes_its_own_slices_and_must_exist() -> None:
    wish = msgspec.structs.replace(order(twap(600, 10), 10**18), slices=4)
    assert "makes its own slices" in refusals(wish, twap(600, 10), START_NS)[0].text
    assert refusals(wish, Algo("tvap"), START_NS)[0].code == UNKNOWN


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_algorithm_says_what_each_parameter_means(name: str) -> None:
    for one in parameters(name):
        assert one.text.endswith((".", "2.5", "80,95; empty: evenly.")) or ":" in one.text
        assert one.default is not None or one.name == "display"


@given(st.sampled_from(["peg", "iceberg", "sniper"]), st.integers(1, 10**19), st.data())
def test_whatever_the_market_does_it_never_trades_or_shows_more_than_is_left(name: str, units: int, data: st.DataObject) -> None:
    more: dict[str, Value] = {"display": "0.5"} if name == "iceberg" else {}
    desk = Desk(order(new_algo(name, duration_ns=30 * SECOND, **more), units, limit="2680"), least=LOT)
    desk.book = lambda at_ns: depth(MID_TICKS + (moves := walk[(at_ns - START_NS) // SECOND]) - 1, MID_TICKS + moves + 1)
    walk = data.draw(st.lists(st.integers(-900, 900), min_size=160, max_size=160))
    for at in range(300):
        now_ns = START_NS + at * SECOND // 2
        desk.tick(now_ns)
        promised = sum(one.left.units for one in desk.resting)
        assert desk.done + promised <= units
        assert all(one.ticks * 0.01 >= 2_680 for one in desk.resting), "never beyond its limit"
        if data.draw(st.integers(0, 9)) == 0:
            desk.fill_resting(now_ns)
    assert not desk.resting, "its time is over"


def test_amounts_are_of_the_orders_own_asset() -> None:
    move = Desk(order(twap(60, 5), 12 * 10**18)).tick(START_NS)
    assert move is not None
    assert move.move.quantity == Amount(10**18, GROUP)
