"""What experience says of a venue: how fast it answers, how much of an order it fills, how often it refuses or reverts, how far the
fill lies from the quote, and where the price goes after a trade. Routing charges for it, and avoids for a while what fails.

A card is folded from the journal alone, one order at a time, in constant time and memory: the same journal gives the same card, bit
for bit. Nothing here is money: a charge moves the split, never an amount.

Old observations fade: each counts 2^(-age / half-life). A mean `m` of weight `w` is believed as far as there is evidence for it,

    believed = (w m + k p) / (w + k)

with the neutral prior `p` (no drift, no refusals, all filled) worth `k` observations: the credibility formula of Bühlmann (1967),
and the empirical Bayes shrinkage of Efron and Morris (1973) where k is the ratio of the variances within and between venues.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

import msgspec

from agent.domain.events import Routed
from agent.domain.instrument import Instrument
from agent.routing.cost import Charge

SECOND_NS = 1_000_000_000
HORIZONS_NS = (0, SECOND_NS, 10 * SECOND_NS)  # after a trade: when the market is looked at
OBSERVED_PIPS_MAX = 50_000.0  # 5 %: what is farther out is a mistake of somebody's, and counts as this much
ACK_MS_MAX = 60_000.0
CHARGED_EVERY_S = 10  # how often charges fade
CARDS_MAX = 256  # venues; beyond them nothing new is learnt
VENUE_DEGRADED = "VENUE_DEGRADED"

Fault = Literal["rejects", "reverts", "is slow"]
FAULTS: tuple[Fault, ...] = ("rejects", "reverts", "is slow")


class Scoring(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The user's settings of scorecards. Pips are millionths of the quote value: 100 of them are one basis point."""

    is_charged: bool = True  # false: measured and shown, and never charged or avoided
    half_life_s: int = 1_800  # after so long an observation counts half
    prior_orders: int = 20  # how many orders the neutral prior is worth
    prior_markouts: int = 50  # the same for where prices go after a trade, which is noisier
    retry_pips: int = 200  # what it costs to come back for what a venue refused, reverted or did not fill
    charge_pips_max: int = 5_000  # the most that a venue is charged
    fault_half_life_orders: float = 1.5  # how soon single failures are forgotten when a venue is judged
    fault_share_max: float = 0.55  # of these: at or above it a venue is avoided; two failures in a row reach 0.6
    ack_ms_max: int = 5_000  # an answer that takes longer is a failure
    avoid_s: int = 30  # how long a venue is avoided; doubles with each probe that fails too
    avoid_s_max: int = 900


class Mean(msgspec.Struct, frozen=True):
    """An average in which the old fades. `weight`: how many fresh observations it is worth, as of `at_ns`."""

    weight: float = 0.0
    value: float = 0.0
    at_ns: int = 0


class Card(msgspec.Struct, frozen=True, cache_hash=True):
    """What was seen of one venue. Costs are positive when they are against us."""

    orders: int = 0
    ack_ms: Mean = Mean()
    filled: Mean = Mean()  # of orders that take: filled / sent
    rejected: Mean = Mean()
    reverted: Mean = Mean()
    drift_pips: Mean = Mean()  # how much worse a fill was than the route's quote, before fees
    markout_1s_pips: Mean = Mean()  # how much better the market stood then than our fill; half the spread is in it
    markout_10s_pips: Mean = Mean()
    return_pips: Mean = Mean()  # how far the market came back within 10 s: what the trade itself had moved
    lost_gas_pips: Mean = Mean()  # of batches that reverted
    faults: tuple[float, ...] = (0.0,) * len(FAULTS)  # the recent share of failures, by kind
    strikes: int = 0  # times in a row that it was avoided
    avoid_until_ns: int = 0
    why: str = ""  # it was avoided last


class Ended(msgspec.Struct, frozen=True):
    """How one order ended. None: it says nothing about that."""

    is_rejected: bool = False
    is_reverted: bool | None = None  # off chain nothing reverts
    filled: float | None = None
    drift_pips: float | None = None
    lost_gas_pips: float | None = None


class Term(msgspec.Struct, frozen=True):
    """One part of a charge."""

    name: str
    pips: float


# -- the fold ----------------------------------------------------------------------------------------------------------


def observed(mean: Mean, value: float, at_ns: int, half_life_s: float) -> Mean:
    """One more observation. A clock that was set back ages nothing."""
    weight = faded(mean, at_ns, half_life_s) + 1.0
    return Mean(weight, mean.value + (value - mean.value) / weight, max(at_ns, mean.at_ns))


def faded(mean: Mean, at_ns: int, half_life_s: float) -> float:
    """What a mean weighs at `at_ns`."""
    age_s = max(at_ns - mean.at_ns, 0) / SECOND_NS
    return mean.weight * 0.5 ** (age_s / half_life_s) if mean.weight else 0.0


def answered(card: Card, scoring: Scoring, at_ns: int, latency_ns: int) -> Card:
    """The first word about an order came `latency_ns` after it was sent."""
    ack_ms = min(max(latency_ns, 0) / 1e6, ACK_MS_MAX)
    card = msgspec.structs.replace(card, ack_ms=observed(card.ack_ms, ack_ms, at_ns, scoring.half_life_s))
    is_slow = ack_ms > scoring.ack_ms_max
    return _judged(card, scoring, at_ns, "is slow", f"it took {ack_ms / 1e3:.1f} s to answer" if is_slow else "")


def ended(card: Card, scoring: Scoring, at_ns: int, how: Ended, reason: str = "") -> Card:
    """An order has come to its end, and all that it traded is known. `reason`: the venue's words, for people."""

    def more(mean: Mean, value: float | None) -> Mean:
        return mean if value is None else observed(mean, value, at_ns, scoring.half_life_s)

    card = msgspec.structs.replace(
        card,
        orders=card.orders + 1,
        rejected=more(card.rejected, float(how.is_rejected)),
        reverted=more(card.reverted, None if how.is_reverted is None else float(how.is_reverted)),
        filled=more(card.filled, how.filled),
        drift_pips=more(card.drift_pips, _bounded(how.drift_pips)),
        lost_gas_pips=more(card.lost_gas_pips, _bounded(how.lost_gas_pips)),
    )
    words = f": {reason[:80]}" if reason else ""
    card = _judged(card, scoring, at_ns, "rejects", f"it rejected an order{words}" if how.is_rejected else "")
    if how.is_reverted is None:
        return card
    return _judged(card, scoring, at_ns, "reverts", f"a batch reverted{words}" if how.is_reverted else "")


def marked(card: Card, scoring: Scoring, at_ns: int, after_ns: int, markout_pips: float, return_pips: float | None) -> Card:
    """Where the market stood `after_ns` after a trade: against the fill, and against where it stood then."""
    if after_ns == HORIZONS_NS[1]:
        return msgspec.structs.replace(
            card, markout_1s_pips=observed(card.markout_1s_pips, _within(markout_pips), at_ns, scoring.half_life_s)
        )
    if after_ns != HORIZONS_NS[2]:
        return card
    back = card.return_pips
    if return_pips is not None:
        back = observed(back, _within(return_pips), at_ns, scoring.half_life_s)
    late = observed(card.markout_10s_pips, _within(markout_pips), at_ns, scoring.half_life_s)
    return msgspec.structs.replace(card, markout_10s_pips=late, return_pips=back)


def _judged(card: Card, scoring: Scoring, at_ns: int, fault: Fault, failure: str) -> Card:
    """One more outcome of a kind. At too many failures the venue is avoided, longer each time; a good one ends that row."""
    kept = 0.5 ** (1 / scoring.fault_half_life_orders)
    place = FAULTS.index(fault)
    if not failure and not card.faults[place] and not card.strikes:
        return card  # as it nearly always is
    share = card.faults[place] * kept + (1 - kept if failure else 0.0)
    faults = (*card.faults[:place], share, *card.faults[place + 1 :])
    if not failure:
        is_well = max(faults) < scoring.fault_share_max
        return msgspec.structs.replace(card, faults=faults, strikes=0 if is_well else card.strikes)
    if share < scoring.fault_share_max or _left_ns(card, scoring, at_ns):
        return msgspec.structs.replace(card, faults=faults)
    pause_s = min(scoring.avoid_s << min(card.strikes, 20), scoring.avoid_s_max)
    return msgspec.structs.replace(
        card, faults=faults, strikes=card.strikes + 1, avoid_until_ns=at_ns + pause_s * SECOND_NS, why=failure
    )


def _left_ns(card: Card, scoring: Scoring, at_ns: int) -> int:
    """How long it is still avoided; 0: not. Never longer than the longest pause, whatever happened to the clock."""
    left_ns = card.avoid_until_ns - at_ns
    return left_ns if 0 < left_ns <= scoring.avoid_s_max * SECOND_NS else 0


def _bounded(pips: float | None) -> float | None:
    return None if pips is None else _within(pips)


def _within(pips: float) -> float:
    return max(-OBSERVED_PIPS_MAX, min(pips, OBSERVED_PIPS_MAX))


# -- what it means for routing -----------------------------------------------------------------------------------------


def believed(mean: Mean, prior: float, prior_weight: float, at_ns: int, half_life_s: float) -> float:
    """A mean, drawn towards `prior` as if that had been seen `prior_weight` times."""
    weight = faded(mean, at_ns, half_life_s)
    whole = weight + prior_weight
    return (weight * mean.value + prior_weight * prior) / whole if whole else prior


def terms(card: Card, scoring: Scoring, at_ns: int) -> tuple[Term, ...]:
    """The parts of a charge, in pips of the quote value; drift and return may be in our favour, and are negative then."""

    def level(mean: Mean, prior: float, weight: int) -> float:
        return believed(mean, prior, weight, at_ns, scoring.half_life_s)

    retry, orders = scoring.retry_pips, scoring.prior_orders
    return (
        Term("drift", level(card.drift_pips, 0.0, orders)),
        Term("return", level(card.return_pips, 0.0, scoring.prior_markouts)),
        Term("unfilled", (1 - level(card.filled, 1.0, orders)) * retry),
        Term("rejects", level(card.rejected, 0.0, orders) * retry),
        Term("reverts", level(card.reverted, 0.0, orders) * (retry + card.lost_gas_pips.value)),
    )


@lru_cache(maxsize=CARDS_MAX)
def charge(card: Card, scoring: Scoring, turn: int) -> Charge:
    """What a venue is charged now: all terms together, at least nothing, at most the cap. Worked out once a `turn` of ten seconds,
    and when its card has changed.
    """
    parts = terms(card, scoring, turn * CHARGED_EVERY_S * SECOND_NS)
    pips = min(max(round(sum(part.pips for part in parts)), 0), scoring.charge_pips_max)
    words = ", ".join(f"{part.name} {part.pips / 100:.2f}" for part in parts if abs(part.pips) >= 1)
    return Charge(pips, f"{pips / 100:.2f} bps for what it was like before ({words})" if pips else "")


def charges(cards: Mapping[str, Card], scoring: Scoring, at_ns: int, instruments: Iterable[Instrument]) -> dict[str, Charge]:
    """By Instrument.id, for those that are charged at all. Pure; cheap as long as cards stay as they are."""
    if not scoring.is_charged or not cards:
        return {}
    turn = at_ns // (CHARGED_EVERY_S * SECOND_NS)
    costs = {venue: cost for venue, card in cards.items() if (cost := charge(card, scoring, turn)).pips}
    return {one.id: costs[one.venue] for one in instruments if one.venue in costs} if costs else {}


def stamped(told: Routed, learnt: Mapping[str, Charge]) -> Routed:
    """A route with what each of its pieces was charged for its venue's past; in words too where there are words."""
    if not learnt:
        return told
    pieces = tuple(
        msgspec.structs.replace(one, charge_pips=cost.pips, why=worded(one.why, cost) if one.why else "")
        if (cost := learnt.get(one.instrument))
        else one
        for one in told.pieces
    )
    return msgspec.structs.replace(told, pieces=pieces)


def worded(why: str, cost: Charge | None) -> str:
    """The reason of a piece, with its charge."""
    return f"{why}; charged {cost.why}" if cost else why


def degraded(cards: Mapping[str, Card], scoring: Scoring, at_ns: int) -> dict[str, str]:
    """Venues that are avoided now, and why. When their time is up they are tried again."""
    if not scoring.is_charged:
        return {}
    return {
        venue: f"{venue}: avoided for {left_ns / SECOND_NS:.0f} s more, then tried again: {card.why}"
        for venue, card in cards.items()
        if (left_ns := _left_ns(card, scoring, at_ns))
    }
