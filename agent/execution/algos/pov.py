"""Percentage of volume: trades along with the market, at a share of what others trade. It has no schedule, and may not finish.

With a floor and a cap (scaled POV) the share moves between them with the price: `scale_bps` better than arrival it is the cap, as
much worse the floor. Own trades on books are on the tape too and are left out of the volume. What was traded while nobody looked
does not count, so after a restart the share is never above the cap.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.domain.intent import Intent
from agent.domain.price import bps_between
from agent.execution.moves import Move, Take
from agent.execution.parameters import SECOND_NS, Duration, Interval, Placement
from agent.execution.schedule import RETRY_NS, left_behind
from agent.execution.standing import Resting, Standing

Target = Annotated[int, Meta(ge=1, le=50, description="Per cent of what others trade.")]
Floor = Annotated[int, Meta(ge=0, le=50, description="The least share, where the price is bad; 0: as the target.")]
Cap = Annotated[int, Meta(ge=0, le=60, description="The largest share, where the price is good; 0: as the target.")]
Scale = Annotated[int, Meta(ge=1, le=1_000, description="So many bps from arrival the share is the floor or the cap.")]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    interval_ns: Interval = 5 * SECOND_NS
    target_pct: Target = 10
    floor_pct: Floor = 0
    cap_pct: Cap = 0
    scale_bps: Scale = 20
    placement: Placement = "auto"


def step(own: Parameters, stand: Standing) -> Move | None:
    since_ns = stand.last_ns if stand.slices else stand.accepted_ns
    if stand.elapsed_ns >= own.duration_ns or stand.now_ns < since_ns + max(own.interval_ns, RETRY_NS):
        return None
    traded = max(stand.bars().volume(since_ns, stand.now_ns) - stand.on_books_since(since_ns), 0.0)
    volume = int(traded * 10**stand.left.asset.decimals)
    before = int(stand.wanted.units) if stand.wanted is not None else 0
    wanted = min(before + int(volume * _share(own, stand)), int(stand.intent.quantity.units))
    most = volume * (own.cap_pct or own.target_pct) // 100
    units = min(wanted - stand.done, most, int(stand.left.units))
    if units < stand.least:
        return None
    if stand.left.units - units < stand.least:
        units = min(int(stand.left.units), most)
    return Take(stand.amount(units), stand.amount(max(wanted, stand.done + units)), own.placement, stand.now_ns + own.interval_ns)


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    return "its slice is over" if stand.now_ns >= resting.since_ns + own.interval_ns else left_behind(stand, resting)


def plan(own: Parameters, units: int, seed: str) -> None:
    """The market makes its schedule."""


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001 - every algorithm is asked alike
    if own.floor_pct > own.target_pct:
        yield f"the floor of {own.floor_pct} % is above the target: at most {own.target_pct} %"
    if own.cap_pct and own.cap_pct < own.target_pct:
        yield f"the cap of {own.cap_pct} % is below the target: at least {own.target_pct} %"


def _share(own: Parameters, stand: Standing) -> float:
    mid = stand.view().mid
    if mid is None or not (own.floor_pct or own.cap_pct):
        return own.target_pct / 100
    better = bps_between(mid, stand.arrival) * (1 if stand.is_selling else -1) / own.scale_bps
    far = (own.cap_pct or own.target_pct) if better > 0 else (own.floor_pct or own.target_pct)
    return (own.target_pct + (far - own.target_pct) * min(abs(better), 1.0)) / 100
