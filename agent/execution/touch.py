"""Where a child can rest on a book: which book, at which tick, and how others stand there."""

from collections.abc import Sequence

import msgspec

from agent.domain.instrument import Instrument
from agent.domain.price import Price, ticks_price
from agent.execution.standing import Resting, Standing, books
from agent.liquidity.depth import Depth


class Place(msgspec.Struct, frozen=True):
    """A book, and the best ticks on our side and on the other as others see it: what is ours does not count. 0: nobody is there."""

    instrument: Instrument
    depth: Depth
    near: int
    far: int


def best_place(stand: Standing) -> Place | None:
    """The book to rest on: where something rests already, else the cheapest on which the account has enough to trade."""
    ours = stand.resting()
    found = [_place(one, depth, ours, selling=stand.is_selling) for one, depth in books(stand.view())]
    taken = {one.instrument for one in ours}
    kept = [one for one in found if one.instrument.id in taken]
    able = kept or [one for one in found if stand.free(one.instrument) >= max(stand.least, 1)]
    return min(able, key=lambda one: (one.instrument.maker_pips, one.instrument.id), default=None)


def bounded(place: Place, ticks: int, limit: Price, *, selling: bool) -> int:
    """The tick nearest to `ticks` that neither takes nor is worse than the limit. 0 if there is none."""
    found = place.instrument
    top, bottom = int(limit.num) * 10**found.quote.decimals, int(limit.den) * found.tick_units
    if selling:
        ticks = max(ticks, -(-top // bottom), place.far + 1 if place.far else 1)
    else:
        ticks = min(ticks, top // bottom, place.far - 1 if place.far else ticks)
    return max(ticks, 0)


def price_at(place: Place, ticks: int) -> Price:
    return ticks_price(ticks, place.instrument.tick_units, place.instrument.quote.decimals)


def _place(found: Instrument, depth: Depth, ours: Sequence[Resting], *, selling: bool) -> Place:
    near, far = (depth.asks, depth.bids) if selling else (depth.bids, depth.asks)
    lots: dict[int, int] = {}
    for one in ours:
        if one.instrument == found.id:
            lots[one.ticks] = lots.get(one.ticks, 0) + int(one.left.units) * 10**found.base.decimals // (
                found.lot_units * 10**one.left.asset.decimals
            )
    best = next((ticks for ticks, size in near if size > lots.get(ticks, 0)), 0)
    return Place(found, depth, best, far[0][0] if far else 0)
