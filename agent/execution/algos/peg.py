"""Rests at the best price and follows it: joins the queue, steps ahead of it, or stays behind, but chases only so far.

`offset_ticks` above zero improves on the best price, below zero stays behind it. It never takes, and never goes further from the
arrival price than `chase_bps`, nor beyond the limit: there it stays, and waits for the market to come back.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent.domain.intent import Intent
from agent.domain.price import worse_by
from agent.execution.moves import Move, Rest, Take
from agent.execution.parameters import SECOND_NS, Duration, Refresh
from agent.execution.schedule import RETRY_NS
from agent.execution.standing import Resting, Standing
from agent.execution.touch import Place, best_place, bounded, price_at

Offset = Annotated[int, Meta(ge=-1_000, le=1_000, description="Ticks: 0 joins the best price, 1 improves it, -1 stays behind.")]
Chase = Annotated[int, Meta(ge=0, le=5_000, description="How far from the arrival price it follows the market.")]
AtEnd = Annotated[Literal["leave", "take"], Meta(description="What is left when the duration is over: leave it, or take it.")]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    offset_ticks: Offset = 0
    chase_bps: Chase = 50
    refresh_ns: Refresh = SECOND_NS
    at_end: AtEnd = "leave"


def step(own: Parameters, stand: Standing) -> Move | None:
    if not stand.left.units or (stand.slices and stand.now_ns < stand.last_ns + RETRY_NS):
        return None
    if stand.elapsed_ns >= own.duration_ns:
        return Take(stand.left, is_last=True) if own.at_end == "take" else None
    place = best_place(stand) if not stand.resting() else None
    ticks = wanted_ticks(own, stand, place) if place is not None else 0
    if place is None or not ticks:
        return None
    units = min(int(stand.left.units), stand.free(place.instrument))
    if units < stand.least:
        return None
    return Rest(place.instrument.id, ticks, stand.amount(units), _why(own, place))


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    if stand.elapsed_ns >= own.duration_ns:
        return "its time is over"
    place = best_place(stand) if stand.now_ns >= resting.since_ns + own.refresh_ns else None
    if place is None:
        return ""
    ticks = wanted_ticks(own, stand, place)
    return "" if ticks in (0, resting.ticks) else f"the place to rest is {price_at(place, ticks)} now"


def plan(own: Parameters, units: int, seed: str) -> None:
    """It trades when somebody comes."""


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001 - every algorithm is asked alike
    """All of it is within its bounds."""
    return iter(())


def wanted_ticks(own: Parameters, stand: Standing, place: Place) -> int:
    """Where it should rest now; 0 where there is no place."""
    if not place.near:
        return 0
    ticks = place.near + (-own.offset_ticks if stand.is_selling else own.offset_ticks)
    chased = worse_by(stand.arrival, own.chase_bps, selling=stand.is_selling)
    limit = max(chased, stand.limit) if stand.is_selling else min(chased, stand.limit)
    return bounded(place, ticks, limit, selling=stand.is_selling)


def _why(own: Parameters, place: Place) -> str:
    best = price_at(place, place.near)
    if own.offset_ticks > 0:
        return f"rests ahead of the best price {best}"
    return f"joins the best price {best}" if not own.offset_ticks else f"rests behind the best price {best}"
