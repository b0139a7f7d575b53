"""From a flow in floats to hops in exact integers: which swap comes after which, and what each one takes and gives to the unit.

A place sends on what has arrived there and never more: books take whole lots, pools and conversions share the rest as the flow
does, the largest takes the last unit. What does not fit a lot stays where it is and is named. Each source trades once, so its own
quote from its state now is what it will do.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.errors import LiquidityError
from agent.liquidity.depth import Depth, Levels
from agent.liquidity.quote import div_up
from agent.market.view import Liquidity, Source
from agent.routing.graph import Conversion, Graph, Held, Way
from agent.routing.memo import BEYOND_LIMIT
from agent.routing.problem import BELOW_MINIMUM

_EDGE = 1 - 1e-9  # the end of a pool's known liquidity in floats, so that the exact pool surely reaches it
_NOTHING = 1e-10  # of all that is sold: what flows less is noise


class Hop(msgspec.Struct, frozen=True):
    """One swap or conversion, exact. Hops stand in the order in which each one's input is there. `lots`: of a book."""

    via: Source | Conversion | Held
    amount_in: Amount
    amount_out: Amount
    lots: int = 0

    @property
    def name(self) -> str:
        return (
            self.via.instrument.id if isinstance(self.via, Source) else f"{self.amount_in.asset.id} -> {self.amount_out.asset.id}"
        )


class Settled(msgspec.Struct, frozen=True):
    """All hops; what arrived of the group that is bought; `left[place]`: units that stayed at a place, sold or on the way."""

    hops: tuple[Hop, ...]
    received: Amount
    left: Mapping[int, Amount]


class Broken(msgspec.Struct, frozen=True):
    """A way that cannot do exactly what the flow expects of it, and why. `code`: of the reason."""

    way: int
    code: str
    why: str


def used(graph: Graph, paid: Sequence[float], worth: Sequence[float], part: float = _NOTHING) -> list[int]:
    """The ways that carry more than such a part of the order; if not said, than noise."""
    least = part * graph.sold * worth[0]
    return [e for e, way in enumerate(graph.ways) if paid[e] * worth[way.tail] > least]


def cycle(graph: Graph, ways: Sequence[int]) -> list[int]:
    """Some ways that lead in a circle; empty if none do."""
    following: dict[int, list[int]] = {}
    for e in ways:
        following.setdefault(graph.ways[e].tail, []).append(e)
    done: set[int] = set()

    def walk(place: int, path: list[int], on_path: list[int]) -> list[int]:
        for e in following.get(place, ()):
            head = graph.ways[e].head
            if head in on_path:
                return [*path[on_path.index(head) :], e]
            if head not in done:
                found = walk(head, [*path, e], [*on_path, head])
                if found:
                    return found
        done.add(place)
        return []

    for place in list(following):
        if place not in done and (found := walk(place, [], [place])):
            return found
    return []


def ordered(graph: Graph, ways: Sequence[int]) -> list[int]:
    """The places in an order in which all that arrives is there before anything leaves. There must be no circle."""
    waiting = [0] * len(graph.places)
    for e in ways:
        waiting[graph.ways[e].head] += 1
    ready = [place for place, count in enumerate(waiting) if not count]
    found: list[int] = []
    while ready:
        place = ready.pop(0)
        found.append(place)
        for e in ways:
            if graph.ways[e].tail == place:
                waiting[graph.ways[e].head] -= 1
                if not waiting[graph.ways[e].head]:
                    ready.append(graph.ways[e].head)
    return found


def settle(
    graph: Graph, ways: Sequence[int], paid: Sequence[float], sell: Amount, unsold: float, bumped: int | None = None
) -> Settled | Broken:
    """The flow `paid` over `ways` in exact integers. `unsold`: whole coins that the flow leaves where they are, on purpose.

    Books round down to lots, but `bumped` rounds up: with coarse lots that can be better.
    """
    have = [0] * len(graph.places)
    have[0] = sell.units
    kept = {0: unsold}
    hops: list[Hop] = []
    left: dict[int, Amount] = {}
    for place in ordered(graph, ways)[:-1]:
        leaving = [e for e in ways if graph.ways[e].tail == place]
        # Books first: what does not fill a lot goes to the pools. The largest last: it takes what rounding leaves.
        leaving.sort(key=lambda e: (not is_book(graph.ways[e]), paid[e]))
        rest = sum(paid[e] for e in leaving) + kept.get(place, 0.0)
        for e in leaving:
            way = graph.ways[e]
            last = e == leaving[-1] and not kept.get(place)
            scale = _scale(graph.places[place], way.give)
            share = have[place] if last else round(have[place] * (paid[e] / rest))
            share += _lot_more(way) * scale if e == bumped else 0
            rest -= paid[e]
            hop = _hop(way, e, min(share, have[place]) // scale)
            if isinstance(hop, Broken):
                return hop
            if hop is not None:
                have[place] -= hop.amount_in.units * scale
                have[way.head] += hop.amount_out.units * _scale(graph.places[way.head], way.receive)
                hops.append(hop)
        if have[place]:
            left[place] = Amount(have[place], graph.places[place])
    bought = graph.places[-1]
    return Settled(tuple(hop for hop in hops if not isinstance(hop.via, Held)), Amount(have[-1], bought), left)


def least_met(levels: Levels, lots: int, found: Source) -> bool:
    """Whether an order of so many lots reaches the book's minimum value, counted at the worst level that it touches."""
    one = found.instrument
    worst, left = 0, lots
    for ticks, size in levels:
        worst, left = ticks, left - size
        if left <= 0:
            break
    return bool(worst * one.tick_units * lots * one.lot_units >= one.notional_min * 10**one.base.decimals)


def _hop(way: Way, e: int, units: int) -> Hop | Broken | None:
    """`units` of what a way takes, as its contract, matching engine or operator would count; None: nothing to do."""
    what = way.what
    if isinstance(what, Source):
        return _swap(what, way, e, units)
    if isinstance(what, Held):
        units = min(units, what.most.units)
        return Hop(what, Amount(units, way.receive), Amount(units, way.receive)) if units else None
    units = min(units, what.most.units) if what.most else units
    out = what.received_down(units)
    return (
        Hop(what, Amount(units, way.give), Amount(out, way.receive))
        if out
        else Broken(e, BELOW_MINIMUM, f"{what.name}: its fixed cost takes all")
    )


def _swap(source: Source, way: Way, e: int, units: int) -> Hop | Broken | None:
    found, state = source.instrument, source.state
    units = min(units, _most(state, way, units))
    if units <= 0 or (isinstance(state, Depth) and units < _one_lot(state, way.forward)):
        return None
    try:
        quote = state.swap_in(units, way.forward if isinstance(state, Depth) else way.forward == found.base_is_token0)
    except LiquidityError as error:
        return Broken(e, BEYOND_LIMIT, f"{found.id}: {error}")
    lots = 0
    if isinstance(state, Depth):
        lots = _lots(state, quote.amount_in, quote.after, way.forward)
        if not least_met(state.bids if way.forward else state.asks, lots, source):
            return Broken(e, BELOW_MINIMUM, f"{found.id}: what would go there is below its minimum order")
    if quote.amount_out <= 0:
        return None
    return Hop(source, Amount(quote.amount_in, way.give), Amount(quote.amount_out, way.receive), lots)


def _most(state: Liquidity, way: Way, units: int) -> int:
    """What is known of a source takes so much, at most."""
    if isinstance(state, Depth):
        if way.forward:
            return sum(lots for _, lots in state.bids) * state.lot_units
        size = state.tick_units * state.lot_units
        return sum(div_up(ticks * lots * size, 10**state.base_decimals) for ticks, lots in state.asks)
    return int(way.curve.base[-1] * 10**way.give.decimals * _EDGE) if way.curve.slope[-1] == 0.0 else units


def _lot_more(way: Way) -> int:
    return _one_lot(way.what.state, way.forward) if isinstance(way.what, Source) and isinstance(way.what.state, Depth) else 0


def _one_lot(book: Depth, forward: bool) -> int:
    """What the smallest order takes."""
    return book.lot_units if forward else -(-book.asks[0][0] * book.tick_units * book.lot_units // 10**book.base_decimals)


def _lots(book: Depth, amount_in: int, after: object, forward: bool) -> int:
    """How many lots a swap on a book took."""
    if forward:
        return amount_in // book.lot_units
    assert isinstance(after, Depth), "a book stays a book"
    return sum(size for _, size in book.asks) - sum(size for _, size in after.asks)


def is_book(way: Way) -> bool:
    return isinstance(way.what, Source) and way.what.instrument.is_book


def _scale(place: Asset, asset: Asset) -> int:
    """Units of a place in one unit of an asset that is counted there."""
    power: int = 10 ** (place.decimals - asset.decimals)
    return power
