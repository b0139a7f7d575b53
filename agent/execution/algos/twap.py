"""Time-weighted: every part of the time gets the same part of the order.

A share of it may be handed to a venue that works a TWAP of its own, as the first thing; the rest is sliced by the same timetable.
"""

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from agent.domain.intent import Intent
from agent.execution.moves import Move
from agent.execution.native import hand_over
from agent.execution.parameters import SECOND_NS, CatchUp, Duration, Interval, NativePct, Placement, RandomiseSize, RandomiseTime
from agent.execution.schedule import PLANS_MAX, Timetable, by_timetable, check_times, over, stale_by_timetable, timetable
from agent.execution.standing import Resting, Standing


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    interval_ns: Interval = 30 * SECOND_NS
    randomise_size_pct: RandomiseSize = 0
    randomise_time_pct: RandomiseTime = 0
    catch_up_pct: CatchUp = 300
    placement: Placement = "auto"
    native_pct: NativePct = 0


@lru_cache(PLANS_MAX)
def plan(own: Parameters, units: int, seed: str) -> Timetable:
    return timetable(own, [1.0] * over(own), units, seed)


def step(own: Parameters, stand: Standing) -> Move | None:
    if own.native_pct and not stand.slices and (first := hand_over(own.native_pct, own.duration_ns, stand)) is not None:
        return first
    return by_timetable(own, stand, plan(own, int(stand.intent.quantity.units), stand.intent.intent_id))


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    return stale_by_timetable(own, stand, plan(own, int(stand.intent.quantity.units), stand.intent.intent_id), resting)


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001 - every algorithm is asked alike
    return check_times(own)
