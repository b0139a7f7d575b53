"""Time-weighted: every part of the time gets the same part of the order."""

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from agent.domain.intent import Intent
from agent.execution.moves import Move
from agent.execution.parameters import SECOND_NS, CatchUp, Duration, Interval, Placement, RandomiseSize, RandomiseTime
from agent.execution.schedule import PLANS_MAX, Timetable, by_timetable, check_times, over, stale_by_timetable, timetable
from agent.execution.standing import Resting, Standing


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    interval_ns: Interval = 30 * SECOND_NS
    randomise_size_pct: RandomiseSize = 0
    randomise_time_pct: RandomiseTime = 0
    catch_up_pct: CatchUp = 300
    placement: Placement = "auto"


@lru_cache(PLANS_MAX)
def plan(own: Parameters, units: int, seed: str) -> Timetable:
    return timetable(own, [1.0] * over(own), units, seed)


def step(own: Parameters, stand: Standing) -> Move | None:
    return by_timetable(own, stand, plan(own, int(stand.intent.quantity.units), stand.intent.intent_id))


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    return stale_by_timetable(own, stand, plan(own, int(stand.intent.quantity.units), stand.intent.intent_id), resting)


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001 - every algorithm is asked alike
    return check_times(own)
