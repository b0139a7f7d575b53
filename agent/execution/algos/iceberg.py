"""Shows a little of the order at a time. What can be had within the limit anywhere is taken; the rest waits at a book, bit by bit.

With a limit each piece rests at it; without one it joins the best price. The next piece is shown when the one before is traded.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.domain.amount import Amount, parse_amount
from agent.domain.errors import NumberError
from agent.domain.intent import Intent
from agent.execution.moves import Move, Rest, Take
from agent.execution.parameters import SECOND_NS, Duration, Refresh
from agent.execution.schedule import RETRY_NS, dice
from agent.execution.standing import Resting, Standing, can_take
from agent.execution.touch import best_place, bounded, price_at

Display = Annotated[str, Meta(pattern=r"^\d{1,18}(\.\d{1,18})?$", description="How much is shown at a time, in base coins: 2.5")]
Variance = Annotated[int, Meta(ge=0, le=50, description="Each piece larger or smaller by up to so many per cent.")]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    display: Display
    duration_ns: Duration = 1_800 * SECOND_NS
    variance_pct: Variance = 20
    refresh_ns: Refresh = SECOND_NS


def step(own: Parameters, stand: Standing) -> Move | None:
    is_early = stand.slices and stand.now_ns < stand.last_ns + max(own.refresh_ns, RETRY_NS)
    if is_early or not stand.left.units or stand.elapsed_ns >= own.duration_ns:
        return None
    limit = stand.intent.limit
    if limit is not None and can_take(stand.view(), limit, selling=stand.is_selling):
        return Take(stand.left, limit=limit)
    place = best_place(stand) if not stand.resting() else None
    if place is None or not (place.near or limit is not None):
        return None
    ticks = bounded(place, place.near, stand.limit, selling=stand.is_selling)
    if limit is not None:
        ticks = bounded(place, 0 if stand.is_selling else 1 << 62, limit, selling=stand.is_selling)
    units = min(_shown(own, stand), stand.free(place.instrument))
    if not ticks or units < min(stand.least, int(stand.left.units)):
        return None
    return Rest(place.instrument.id, ticks, stand.amount(units), f"shows {stand.amount(units)} at {price_at(place, ticks)}")


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    if stand.elapsed_ns >= own.duration_ns:
        return "its time is over"
    if stand.intent.limit is not None or stand.now_ns < resting.since_ns + own.refresh_ns:
        return ""
    place = best_place(stand)
    is_behind = place is not None and bounded(place, place.near, stand.limit, selling=stand.is_selling) not in (0, resting.ticks)
    return "the best price is elsewhere now" if is_behind else ""


def plan(own: Parameters, units: int, seed: str) -> None:
    """It trades when somebody comes."""


def check(own: Parameters, intent: Intent) -> Iterator[str]:
    shown = _display(own, intent.quantity)
    if shown is None or shown <= 0:
        yield f"display {own.display} is no quantity of {intent.base}: at most {intent.quantity}"
    elif shown > intent.quantity.units:
        yield f"display {own.display} is above the quantity: at most {intent.quantity}"


def _display(own: Parameters, quantity: Amount) -> int | None:
    try:
        return int(parse_amount(own.display, quantity.asset).units)
    except NumberError:
        return None


def _shown(own: Parameters, stand: Standing) -> int:
    """Of the next piece; nothing is left that would be too small to show."""
    display = _display(own, stand.left) or 0
    spread = 1 + (2 * dice(stand.intent.intent_id, stand.slices) - 1) * own.variance_pct / 100
    units = min(max(int(display * spread), stand.least), int(stand.left.units))
    return int(stand.left.units) if stand.left.units - units < stand.least else units
