"""Waits for a price and takes what is there: hidden or fleeting liquidity anywhere, at the limit or better after fees and gas.

It never rests and never chases: the limit of the order is the trigger, and what cannot be had there is not wanted.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.domain.intent import Intent
from agent.execution.moves import Move, Take
from agent.execution.parameters import SECOND_NS, Duration
from agent.execution.standing import Resting, Standing, can_take

Cooldown = Annotated[int, Meta(ge=0, le=3_600 * SECOND_NS, description="After a shot, before the next: 0s, 2s.")]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    cooldown_ns: Cooldown = SECOND_NS


def step(own: Parameters, stand: Standing) -> Move | None:
    limit = stand.intent.limit
    if limit is None or stand.elapsed_ns >= own.duration_ns or (stand.slices and stand.now_ns < stand.last_ns + own.cooldown_ns):
        return None
    if not can_take(stand.view(), limit, selling=stand.is_selling):
        return None
    return Take(stand.left, limit=limit, is_all_in=True)


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:  # noqa: ARG001
    return "a sniper does not rest"


def plan(own: Parameters, units: int, seed: str) -> None:
    """It trades when the price is there."""


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001
    if intent.limit is None:
        yield "a sniper needs the price that it waits for: give a limit"
