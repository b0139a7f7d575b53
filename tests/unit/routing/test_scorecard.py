"""A scorecard says what a plain recomputation over all that was seen says; it believes little on little evidence; it forgets."""

from collections.abc import Sequence

import pytest
from engine_kit import BOOK, POOL
from hypothesis import given
from hypothesis import strategies as st

from agent.routing.scorecard import (
    CHARGED_EVERY_S,
    HORIZONS_NS,
    OBSERVED_PIPS_MAX,
    SECOND_NS,
    Card,
    Ended,
    Mean,
    Scoring,
    answered,
    believed,
    charge,
    charges,
    degraded,
    ended,
    faded,
    marked,
    observed,
    terms,
)

START_NS = 1_800_000_000 * SECOND_NS
RULES = Scoring(half_life_s=600)
NOT_ASKED = None

gaps = st.integers(0, 3_600 * SECOND_NS)
pips = st.floats(-OBSERVED_PIPS_MAX, OBSERVED_PIPS_MAX)
Seen = Sequence[tuple[int, float]]  # (when, what)


def times(steps: Sequence[int]) -> list[int]:
    found, now_ns = [], START_NS
    for step in steps:
        now_ns += step
        found.append(now_ns)
    return found


def average(seen: Seen, now_ns: int, half_life_s: int) -> tuple[float, float]:
    """(weight, value) the slow way: every observation by its age."""
    weights = [2 ** (-(now_ns - at_ns) / SECOND_NS / half_life_s) for at_ns, _ in seen]
    return sum(weights), sum(w * value for w, (_, value) in zip(weights, seen, strict=True)) / sum(weights)


# -- means -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(gaps, pips), min_size=1, max_size=30), gaps)
def test_a_mean_is_the_average_of_all_that_was_seen_each_by_its_age(steps: list[tuple[int, float]], later: int) -> None:
    seen = list(zip(times([step for step, _ in steps]), [value for _, value in steps], strict=True))
    mean = Mean()
    for at_ns, value in seen:
        mean = observed(mean, value, at_ns, RULES.half_life_s)
    now_ns = seen[-1][0] + later
    weight, value = average(seen, now_ns, RULES.half_life_s)
    assert faded(mean, now_ns, RULES.half_life_s) == pytest.approx(weight, rel=1e-9, abs=1e-9)
    assert mean.value == pytest.approx(average(seen, seen[-1][0], RULES.half_life_s)[1], rel=1e-7, abs=1e-7)
    k, prior = 20, 3.0
    expected = (weight * mean.value + k * prior) / (weight + k)
    assert believed(mean, prior, k, now_ns, RULES.half_life_s) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert min(prior, mean.value) - 1e-9 <= believed(mean, prior, k, now_ns, RULES.half_life_s) <= max(prior, mean.value) + 1e-9


def test_after_a_half_life_an_observation_counts_half_and_without_evidence_the_prior_stands() -> None:
    mean = observed(Mean(), 100.0, START_NS, 600)
    assert faded(mean, START_NS + 600 * SECOND_NS, 600) == 0.5
    assert faded(mean, START_NS - 600 * SECOND_NS, 600) == 1.0, "a clock that was set back makes nothing younger or older"
    assert believed(Mean(), 7.0, 20, START_NS, 600) == 7.0
    assert believed(mean, 0.0, 1, START_NS, 600) == 50.0
    assert believed(mean, 0.0, 1, START_NS + 600 * SECOND_NS, 600) == pytest.approx(100 / 3)


# -- each statistic ----------------------------------------------------------------------------------------------------


class Past:
    """All that happened at one venue, kept whole."""

    def __init__(self) -> None:
        self.card, self.now_ns = Card(), START_NS
        self.seen: dict[str, list[tuple[int, float]]] = {}

    def note(self, name: str, value: float) -> None:
        self.seen.setdefault(name, []).append((self.now_ns, value))


latencies = st.integers(0, 80_000 * 10**6)
orders = st.fixed_dictionaries(
    {
        "step": gaps,
        "latency": latencies,
        "how": st.sampled_from(["filled", "partly", "rejected", "mined", "reverted"]),
        "share": st.floats(0, 1),
        "drift": st.floats(-200_000, 200_000),
        "gas": st.floats(0, 200_000),
        "mark": st.floats(-200_000, 200_000),
        "back": st.none() | st.floats(-200_000, 200_000),
    }
)


def within(value: float) -> float:
    return min(max(value, -OBSERVED_PIPS_MAX), OBSERVED_PIPS_MAX)


def live_through(past: Past, one: dict[str, object]) -> None:
    how, drift, share = one["how"], float(str(one["drift"])), float(str(one["share"]))
    past.now_ns += int(str(one["step"]))
    now_ns, latency = past.now_ns, int(str(one["latency"]))
    past.card = answered(past.card, RULES, now_ns, latency)
    past.note("ack_ms", min(latency / 1e6, 60_000.0))
    match how:
        case "filled" | "partly":
            filled = 1.0 if how == "filled" else share
            past.card = ended(past.card, RULES, now_ns, Ended(False, None, filled, drift))
            past.note("filled", filled)
            past.note("drift_pips", within(drift))
        case "rejected":
            past.card = ended(past.card, RULES, now_ns, Ended(is_rejected=True), "no")
        case "mined":
            past.card = ended(past.card, RULES, now_ns, Ended(is_reverted=False, drift_pips=drift))
            past.note("drift_pips", within(drift))
        case _:
            gas = float(str(one["gas"]))
            past.card = ended(past.card, RULES, now_ns, Ended(is_reverted=True, lost_gas_pips=gas), "TooLittleReceived")
            past.note("lost_gas_pips", within(gas))
    past.note("rejected", float(how == "rejected"))
    if how in ("mined", "reverted"):
        past.note("reverted", float(how == "reverted"))
    mark, back = float(str(one["mark"])), one["back"]
    for after_ns, name in ((HORIZONS_NS[1], "markout_1s_pips"), (HORIZONS_NS[2], "markout_10s_pips")):
        past.card = marked(past.card, RULES, now_ns, after_ns, mark, None if back is None else float(str(back)))
        past.note(name, within(mark))
    if back is not None:
        past.note("return_pips", within(float(str(back))))


@given(st.lists(orders, min_size=1, max_size=25))
def test_every_statistic_equals_a_recomputation_over_the_whole_past(steps: list[dict[str, object]]) -> None:
    past = Past()
    for one in steps:
        live_through(past, one)
    assert past.card.orders == len(steps)
    for name in ("ack_ms", "filled", "rejected", "reverted", "drift_pips", "lost_gas_pips", "return_pips", "markout_1s_pips",
                 "markout_10s_pips"):  # fmt: skip
        mean, seen = getattr(past.card, name), past.seen.get(name, [])
        if not seen:
            assert mean == Mean()
            continue
        weight, _ = average(seen, past.now_ns, RULES.half_life_s)
        assert faded(mean, past.now_ns, RULES.half_life_s) == pytest.approx(weight, rel=1e-7, abs=1e-9), name
        assert mean.value == pytest.approx(average(seen, seen[-1][0], RULES.half_life_s)[1], rel=1e-6, abs=1e-6), name


@given(st.lists(orders, max_size=12))
def test_the_same_past_gives_the_same_card_and_the_same_charge(steps: list[dict[str, object]]) -> None:
    one, other = Past(), Past()
    for past in (one, other):
        for step in steps:
            live_through(past, step)
    assert one.card == other.card
    at_ns = one.now_ns + 17 * SECOND_NS
    assert charges({"cex": one.card}, RULES, at_ns, (BOOK,)) == charges({"cex": other.card}, RULES, at_ns, (BOOK,))


@given(st.lists(orders, max_size=12))
def test_a_charge_is_the_sum_of_its_terms_never_a_gift_and_never_beyond_the_cap(steps: list[dict[str, object]]) -> None:
    past = Past()
    for one in steps:
        live_through(past, one)
    turn = past.now_ns // SECOND_NS // CHARGED_EVERY_S
    parts = {part.name: part.pips for part in terms(past.card, RULES, turn * CHARGED_EVERY_S * SECOND_NS)}
    told = charge(past.card, RULES, turn)
    assert told.pips == min(max(round(sum(parts.values())), 0), RULES.charge_pips_max)
    assert all(parts[name] >= 0 for name in ("unfilled", "rejects", "reverts"))
    assert (told.why == "") is (told.pips == 0)


# -- what is believed --------------------------------------------------------------------------------------------------


def test_a_venue_without_a_past_costs_nothing_and_one_bad_day_is_not_a_character() -> None:
    assert charge(Card(), RULES, START_NS // 10**10).pips == 0
    once = ended(Card(), RULES, START_NS, Ended(False, None, 1.0, 1_000.0))
    turn = START_NS // SECOND_NS // CHARGED_EVERY_S
    assert charge(once, RULES, turn).pips == round(1_000 / 21), "one of twenty-one"
    often = once
    for second in range(200):
        often = ended(often, RULES, START_NS + second * SECOND_NS, Ended(False, None, 1.0, 1_000.0))
    assert 850 < charge(often, RULES, turn).pips < 1_000
    assert charge(often, RULES, turn + 2 * RULES.half_life_s // CHARGED_EVERY_S).pips < 750, "without news it fades"


def test_each_term_is_charged_in_words() -> None:
    turn, card = START_NS // SECOND_NS // CHARGED_EVERY_S, Card()
    for _ in range(20):
        card = ended(card, RULES, START_NS, Ended(is_reverted=True, lost_gas_pips=600.0), "out of gas")
    parts = {part.name: part.pips for part in terms(card, RULES, turn * CHARGED_EVERY_S * SECOND_NS)}
    assert parts == pytest.approx({"drift": 0, "return": 0, "unfilled": 0, "rejects": 0, "reverts": 0.5 * (200 + 600)})
    assert charge(card, RULES, turn).why == "4.00 bps for what it was like before (reverts 4.00)"


def test_charges_are_by_instrument_and_can_be_switched_off() -> None:
    card = ended(Card(), RULES, START_NS, Ended(False, None, 0.0, 5_000.0))
    cards = {"cex": card, "amm": Card()}
    assert list(charges(cards, RULES, START_NS, (BOOK, POOL))) == [BOOK.id], "who is charged nothing is not mentioned"
    assert charges(cards, Scoring(is_charged=False), START_NS, (BOOK, POOL)) == {}
    assert charges({}, RULES, START_NS, (BOOK, POOL)) == {}


# -- what is avoided ---------------------------------------------------------------------------------------------------


def failed(card: Card, at_s: float, kind: str = "rejects") -> Card:
    at_ns = START_NS + int(at_s * SECOND_NS)
    if kind == "is slow":
        return answered(card, RULES, at_ns, 6 * SECOND_NS)
    return ended(card, RULES, at_ns, Ended(kind == "rejects", True if kind == "reverts" else NOT_ASKED), "no")


def well(card: Card, at_s: float) -> Card:
    at_ns = START_NS + int(at_s * SECOND_NS)
    return ended(answered(card, RULES, at_ns, SECOND_NS), RULES, at_ns, Ended(False, False, 1.0))


def avoided(card: Card, at_s: float) -> bool:
    return "cex" in degraded({"cex": card}, RULES, START_NS + int(at_s * SECOND_NS))


@pytest.mark.parametrize("kind", ["rejects", "reverts", "is slow"])
def test_two_failures_in_a_row_are_avoided_for_a_bounded_time_and_each_failed_probe_doubles_it(kind: str) -> None:
    card = failed(Card(), 0, kind)
    assert not avoided(card, 0)
    card = failed(card, 1, kind)
    assert avoided(card, 1)
    assert avoided(card, 30.9)
    assert not avoided(card, 31), "it is probed again"
    card = failed(card, 40, kind)
    assert avoided(card, 40 + 59)
    assert not avoided(card, 40 + 60)
    end_s = 100.0
    for _ in range(12):
        card = failed(card, end_s, kind)
        left_ns = card.avoid_until_ns - START_NS - int(end_s * SECOND_NS)
        assert left_ns <= RULES.avoid_s_max * SECOND_NS
        end_s = (card.avoid_until_ns - START_NS) / SECOND_NS
    for _ in range(3):
        card = well(card, end_s)
    assert (card.strikes, avoided(card, end_s)) == (0, False)
    assert avoided(failed(failed(card, end_s + 1, kind), end_s + 2, kind), end_s + 2 + 29), "and it begins anew"


def test_a_single_failure_now_and_then_avoids_nothing() -> None:
    card = Card()
    for turn in range(60):
        card = failed(card, turn) if turn % 3 == 0 else well(card, turn)
        assert not avoided(card, turn)


def test_failures_while_it_is_avoided_do_not_prolong_it() -> None:
    card = failed(failed(Card(), 0), 1)
    until_ns = card.avoid_until_ns
    assert failed(failed(card, 2), 3).avoid_until_ns == until_ns


def test_a_clock_that_jumps_back_avoids_nobody_for_ever() -> None:
    card = failed(failed(Card(), 10**6), 10**6 + 1)
    assert not avoided(card, 0)


def test_the_reason_says_how_long_and_why() -> None:
    card = failed(failed(Card(), 0), 1)
    told = degraded({"cex": card}, RULES, START_NS + 11 * SECOND_NS)
    assert told == {"cex": "cex: avoided for 20 s more, then tried again: it rejected an order: no"}
    assert degraded({"cex": card}, Scoring(is_charged=False), START_NS + 11 * SECOND_NS) == {}
