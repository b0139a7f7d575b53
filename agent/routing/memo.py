"""What was worked out for the sources of a market, kept as long as it holds. It changes no answer, only how soon it is there."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from agent.domain.instrument import Instrument, Side
from agent.domain.plan import Reason
from agent.domain.price import Price, decimal_of
from agent.liquidity.depth import Depth
from agent.market.view import Liquidity, Source
from agent.routing import kernel
from agent.routing.curve import Curve, book_curve, charged, pool_curve, threshold
from agent.routing.search import Search
from agent.routing.terms import Order, Terms, least_lots, levels, terms_of

BEYOND_LIMIT = "BEYOND_LIMIT"


class Shape(msgspec.Struct, frozen=True):
    """A source as far as the limit allows. Books only: `lots` are all of them, `least` the fewest that one takes."""

    curve: Curve
    lots: int = 0
    least: int = 0


class Frame(msgspec.Struct, frozen=True):
    """The instruments of a market. `alone`: whether nobody else draws on the same balance."""

    terms: list[Terms]
    alone: list[bool]


class Memo:
    """Owns it for one market and one side. `search`: the everyday search, plain or compiled."""

    def __init__(self, search: Search = kernel.search) -> None:
        self.search = search
        self._asked: tuple[object, ...] = ()
        self._listed: list[Instrument] = []
        self._frame = Frame([], [])
        self._shapes: dict[str, tuple[Liquidity, object, Shape | Reason]] = {}
        self._opens: dict[str, tuple[Curve, float, float]] = {}

    def frame(self, order: Order, sources: Sequence[Source], worst: Price) -> Frame:
        """What the instruments mean for an order. Begins anew when it asks something else, or of others."""
        asked = order.side, order.quantity.asset, order.quote, order.rules.reserve_bps, order.limit, worst
        if asked != self._asked:
            self._asked, self._listed = asked, []
            self._shapes.clear()
        known = self._listed
        if len(known) != len(sources) or any(source.instrument is not one for source, one in zip(sources, known, strict=True)):
            self._listed = [source.instrument for source in sources]
            terms = [terms_of(order, one) for one in self._listed]
            sharing = Counter(one.given_id for one in terms)
            self._frame = Frame(terms, [sharing[one.given_id] == 1 for one in terms])
        return self._frame

    def shape(self, order: Order, source: Source, terms: Terms, worst: Price) -> Shape | Reason:
        """Built again when the source has another state, or trading there another charge."""
        charge = order.charges.get(terms.id)
        known = self._shapes.get(terms.id)
        if known is None or known[0] is not source.state or known[1] != charge:
            known = self._shapes[terms.id] = source.state, charge, _shape(order, source, terms, worst)
        return known[2]

    def opens(self, name: str, curve: Curve, gas: float, side: Side) -> float:
        """See `threshold`."""
        known = self._opens.get(name)
        if known is None or known[0] is not curve or known[1] != gas:
            known = self._opens[name] = curve, gas, threshold(curve, gas, side)
        return known[2]


def _shape(order: Order, source: Source, terms: Terms, worst: Price) -> Shape | Reason:
    found, state, charge = source.instrument, source.state, order.charges.get(terms.id)
    if isinstance(state, Depth):
        curve = book_curve(levels(source, order.side), found, order.side, order.limit)
    else:
        curve = pool_curve(state, found, order.side, float(decimal_of(worst)))
    if not curve.u:
        return Reason(BEYOND_LIMIT, f"{terms.id}: its best price is already beyond the limit {worst}")
    if charge is not None and charge.pips:
        curve = charged(curve, charge.pips, order.side)
    if not terms.is_book:
        return Shape(curve)
    return Shape(curve, sum(lots for _, lots in levels(source, order.side)[: len(curve.u)]), least_lots(order, source))
