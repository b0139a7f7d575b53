"""Volume-weighted: every part of the time gets as much of the order as the market usually trades in it.

`curve` says what the market usually trades in equal parts of the duration; it is learnt from a tape (`learnt`). While the order is
worked the curve is corrected by what is really traded: where more than expected was traded so far, more of the day's volume is over
already, and the rest is expected higher by as much as the time that has passed makes likely.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.domain.intent import Intent
from agent.execution.moves import Move
from agent.execution.parameters import SECOND_NS, CatchUp, Duration, Interval, Placement, RandomiseSize, RandomiseTime
from agent.execution.schedule import PLANS_MAX, Timetable, by_timetable, check_times, over, stale_by_timetable, timetable, towards
from agent.execution.standing import Resting, Standing
from agent.market.bars import Bar

DAY_S = 86_400
BEFORE_S = 600  # how long before the order the market's pace is looked at, where the curve gives only proportions
KNOWN_S = 30  # of that, at least
POINTS_MAX = 96
FLATTEN = 0.2  # of a learnt curve is flat, so that a quiet minute of yesterday does not forbid this one
Curve = Annotated[
    str,
    Meta(
        pattern=r"^(\d{1,12}(\.\d{1,8})?(,\d{1,12}(\.\d{1,8})?){0,95})?$",
        description="What the market trades in equal parts of the duration, e.g. 120,80,95; empty: evenly.",
    ),
]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    interval_ns: Interval = 30 * SECOND_NS
    curve: Curve = ""
    randomise_size_pct: RandomiseSize = 0
    randomise_time_pct: RandomiseTime = 0
    catch_up_pct: CatchUp = 300
    placement: Placement = "auto"


@lru_cache(PLANS_MAX)
def plan(own: Parameters, units: int, seed: str) -> Timetable:
    count, points = over(own), _points(own)
    shares = [_cumulated(points, min(part * own.interval_ns / own.duration_ns, 1.0)) for part in range(count + 1)]
    return timetable(own, [max(after - before, 1e-9) for before, after in pairwise(shares)], units, seed)


def step(own: Parameters, stand: Standing) -> Move | None:
    table = plan(own, int(stand.intent.quantity.units), stand.intent.intent_id)
    at = table.at(stand.elapsed_ns)
    if stand.slices and stand.elapsed_ns < own.duration_ns and at == table.at(stand.last_ns - stand.accepted_ns):
        return by_timetable(own, stand, table) if stand.wanted is None else _now(own, stand, table, at, int(stand.wanted.units))
    wanted = _corrected(own, stand, at) if at >= 0 else None
    return by_timetable(own, stand, table) if wanted is None else _now(own, stand, table, at, wanted)


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    return stale_by_timetable(own, stand, plan(own, int(stand.intent.quantity.units), stand.intent.intent_id), resting)


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001 - every algorithm is asked alike
    return check_times(own)


def learnt(bars: Sequence[Bar], start_s: int, duration_s: int, parts: int) -> str:
    """A curve for an order that begins at `start_s` (since 1970): the mean volume of the same seconds of the days in `bars`.

    In base coins for each of `parts` (at most 96); a part that no day covers gets the mean of the others. Empty without any volume.
    """
    parts = max(1, min(parts, POINTS_MAX, duration_s))
    volumes, seconds = [0.0] * parts, [0] * parts
    for bar in bars:
        part = (bar.start_s - start_s) % DAY_S * parts // duration_s
        if part < parts and bar.start_s < start_s:
            volumes[part] += bar.volume
            seconds[part] += 1
    known = [volume / count for volume, count in zip(volumes, seconds, strict=True) if count]
    if not known or not sum(known):
        return ""
    mean, each_s = sum(known) / len(known), duration_s / parts
    rates = [volume / count if count else mean for volume, count in zip(volumes, seconds, strict=True)]
    return ",".join(f"{(rate * (1 - FLATTEN) + mean * FLATTEN) * each_s:.8f}" for rate in rates)


def _now(own: Parameters, stand: Standing, table: Timetable, at: int, wanted: int) -> Move | None:
    before = int(stand.wanted.units) if stand.wanted is not None else 0
    until_ns = table.starts_ns[at + 1] if at + 1 < len(table.starts_ns) else own.duration_ns
    is_new = at > (table.at(stand.last_ns - stand.accepted_ns) if stand.slices else -1)
    return towards(own, stand, wanted, max(wanted - before, table.part(at)), before if is_new else 0, until_ns)


def _corrected(own: Parameters, stand: Standing, at: int) -> int | None:
    """What should have been traded by the end of this part, by what the market has traded; None if nobody knows that."""
    expected, quantity = _expected(own, stand), int(stand.intent.quantity.units)
    if expected is None or stand.elapsed_ns <= 0:
        return None
    points, bars = _points(own), stand.bars()
    gone, ends = (_cumulated(points, min(ns / own.duration_ns, 1.0)) for ns in (stand.elapsed_ns, (at + 1) * own.interval_ns))
    blind = _cumulated(points, min(max(bars.covered_from_ns - stand.accepted_ns, 0) / own.duration_ns, 1.0))
    own_part = stand.on_books_since(stand.accepted_ns)
    seen = max(bars.volume(stand.accepted_ns, stand.now_ns) - own_part, 0.0) + blind * expected
    pace = seen / (expected * gone) if gone else 1.0
    rest = expected * (gone * pace + (1 - gone))  # per whole curve: the more of it is over, the more the pace of now is believed
    share = (seen + rest * (ends - gone)) / (seen + rest * (1 - gone)) if ends < 1 else 1.0
    before = int(stand.wanted.units) if stand.wanted is not None else 0
    return min(max(int(quantity * share), before), quantity)


def _expected(own: Parameters, stand: Standing) -> float | None:
    """What the market is expected to trade within the duration, in base coins."""
    if own.curve and sum(_points(own)) > 0:
        return sum(_points(own))
    bars = stand.bars()
    from_ns = max(bars.covered_from_ns, stand.accepted_ns - BEFORE_S * SECOND_NS)
    known_s = (stand.accepted_ns - from_ns) / SECOND_NS
    if not bars.covered_from_ns or known_s < KNOWN_S:
        return None
    return bars.volume(from_ns, stand.accepted_ns) / known_s * own.duration_ns / SECOND_NS or None


@lru_cache(PLANS_MAX)
def _points(own: Parameters) -> tuple[float, ...]:
    return tuple(float(one) for one in own.curve.split(",")) if own.curve else (1.0,)


def _cumulated(points: Sequence[float], at: float) -> float:
    """Which share of the curve lies before `at` (0 to 1); evenly within each of its parts."""
    whole, place = sum(points), at * len(points)
    if whole <= 0:
        return at
    full = min(int(place), len(points))
    part = points[full] * (place - full) if full < len(points) else 0.0
    return (sum(points[:full]) + part) / whole
