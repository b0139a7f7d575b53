"""What was worked out for the sources of a market, kept as long as it holds. It changes no answer, only how soon it is there."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from agent.domain.amount import Asset
from agent.domain.instrument import Instrument, Side
from agent.domain.market import Level
from agent.domain.plan import Reason
from agent.domain.price import Price, decimal_of
from agent.liquidity.depth import Depth
from agent.market.view import Liquidity, Source
from agent.routing import kernel
from agent.routing.cost import Charge, GasPrice, gas_up
from agent.routing.curve import Curve, book_curve, charged, pool_curve, threshold
from agent.routing.search import Search
from agent.routing.terms import Order, Terms, least_lots, levels, terms_of

BEYOND_LIMIT = "BEYOND_LIMIT"


class _Known(msgspec.Struct, frozen=True):
    """What was worked out for a source: before its charge, and after all."""

    state: Liquidity | None
    enough: int
    purse: int
    charge: Charge | None
    shape: "Shape | Reason"
    answer: "Shape | Reason"


_NOT_KNOWN = _Known(None, 0, 0, None, Reason("", ""), Reason("", ""))


class Shape(msgspec.Struct, frozen=True):
    """A source as far as the limit allows. Books only: `lots` are all of them, `least` the fewest that one takes."""

    curve: Curve
    lots: int = 0
    least: int = 0


class Crew(msgspec.Struct, frozen=True):
    """Instruments that take part together. `groups`: those that draw on one balance, `assets` what that holds; the rest is last.

    `alone`: books that draw on a balance alone. `chains`: the pools of each. `draws`, `lots`: see `Terms`; the rest has none.
    """

    terms: list[Terms]
    groups: list[list[int]]
    assets: list[Asset | None]
    alone: list[bool]
    chains: dict[int, list[int]]
    draws: list[float]
    lots: list[float]


class Frame(msgspec.Struct, frozen=True):
    """The instruments of a market. `alone`: whether nobody else draws on the same balance. `crew`: all of them together."""

    terms: list[Terms]
    alone: list[bool]
    crew: Crew


def crew_of(terms: list[Terms], alone: Sequence[bool]) -> Crew:
    """`alone`: for each of them, whether nobody else of the market draws on its balance."""
    groups: dict[str, list[int]] = {}
    chains: dict[int, list[int]] = {}
    for i, one in enumerate(terms):
        groups.setdefault(one.given_id, []).append(i)
        if one.chain is not None:
            chains.setdefault(one.chain, []).append(i)
    return Crew(
        terms,
        [*groups.values(), [len(terms)]],
        [*(terms[members[0]].given for members in groups.values()), None],
        [*(terms[members[0]].is_book and alone[members[0]] for members in groups.values()), False],
        chains,
        [*(one.draw for one in terms), 0.0],
        [*(one.lot for one in terms), 0.0],
    )


class Bill(msgspec.Struct, frozen=True):
    """What gas costs, in quote coins: what each leg adds to its chain's batch, and the pools of each chain with its batch."""

    legs: list[float]
    chains: list[tuple[list[int], float]]


class Memo:
    """Owns it for one market and one side. `search`: the everyday search, plain or compiled.

    An answer is kept for each source, and worked out again when the source has another state or another balance to draw on.
    Everything begins anew when the order asks something else, of other instruments, or at another limit; thresholds do when gas
    costs something else.
    """

    def __init__(self, search: Search = kernel.search) -> None:
        self.search = search
        self._asked: tuple[object, ...] = ()
        self._listed: list[Instrument] = []
        self._frame = Frame([], [], crew_of([], []))
        self._context: tuple[object, ...] = ()
        self._known: list[_Known] = []
        self._billed: tuple[Crew, Mapping[int, GasPrice], Bill] | None = None
        self._opens: dict[str, tuple[Curve, float, float]] = {}

    def frame(self, order: Order, sources: Sequence[Source]) -> Frame:
        """What the instruments mean for an order."""
        asked = order.side, order.quantity.asset, order.quote, order.rules.reserve_bps
        known = self._listed
        is_same = asked == self._asked and len(known) == len(sources)
        if not is_same or any(source.instrument is not one for source, one in zip(sources, known, strict=True)):
            self._asked, self._listed = asked, [source.instrument for source in sources]
            terms = [terms_of(order, one) for one in self._listed]
            sharing = Counter(one.given_id for one in terms)
            alone = [sharing[one.given_id] == 1 for one in terms]
            self._frame, self._context = Frame(terms, alone, crew_of(terms, alone)), ()
        return self._frame

    def answers(
        self,
        order: Order,
        sources: Sequence[Source],
        worst: Price,
        purses: Sequence[int],
        answer: Callable[[int, Shape | Reason], Shape | Reason],
    ) -> list[Shape | Reason]:
        """`answer(place, shape)` for every source. `worst`: the limit, or what a rest is worth; `purses`: see `problem.purse`.

        Nothing else matters to an answer but the order's charges and quantity.
        """
        context = order.limit is None, worst
        if context != self._context or len(self._known) != len(sources):
            self._context, self._known = context, [_NOT_KNOWN] * len(sources)
        enough, charges = order.quantity.units, order.charges
        found: list[Shape | Reason] = []
        for place, (source, terms, purse, known) in enumerate(zip(sources, self._frame.terms, purses, self._known, strict=True)):
            is_same = source.state is known.state and (known.enough == enough or not terms.is_book)
            charge = charges.get(terms.id)
            if not is_same or purse != known.purse or charge != known.charge:
                shape = known.shape if is_same else shape_of(order, source, terms, worst)
                told = charged_shape(shape, charge, order.side)
                known = self._known[place] = _Known(source.state, enough, purse, charge, shape, answer(place, told))
            found.append(known.answer)
        return found

    def gas(self, crew: Crew, gas: Mapping[int, GasPrice], quote: Asset) -> Bill:
        known = self._billed
        if known is None or known[0] is not crew or known[1] != gas:
            known = self._billed = crew, dict(gas), _gas(crew, gas, quote)
        return known[2]

    def opens(self, name: str, curve: Curve, gas: float, side: Side) -> float:
        """See `threshold`."""
        known = self._opens.get(name)
        if known is None or known[0] is not curve or known[1] != gas:
            known = self._opens[name] = curve, gas, threshold(curve, gas, side)
        return known[2]


def _gas(crew: Crew, gas: Mapping[int, GasPrice], quote: Asset) -> Bill:
    def coins(units: int, chain_id: int) -> float:
        return float(gas_up(units, gas[chain_id], quote).units / coin)

    coin = 10**quote.decimals
    legs = [coins(one.found.gas, one.chain) if one.chain is not None and one.found.gas else 0.0 for one in crew.terms]
    chains = [(members, coins(gas[chain_id].batch_gas, chain_id)) for chain_id, members in crew.chains.items()]
    return Bill([*legs, 0.0], chains)


def shape_of(order: Order, source: Source, terms: Terms, worst: Price) -> Shape | Reason:
    """A book no further than the order goes."""
    found, state = source.instrument, source.state
    if isinstance(state, Depth):
        side = needed(levels(source, order.side), -(-order.quantity.units // (terms.scale * found.lot_units)))
        curve = book_curve(side, found, order.side, order.limit)
    else:
        curve = pool_curve(state, found, order.side, float(decimal_of(worst)))
    if not curve.u:
        return Reason(BEYOND_LIMIT, f"{terms.id}: its best price is already beyond the limit {worst}")
    if not terms.is_book:
        return Shape(curve)
    return Shape(curve, sum([lots for _, lots in levels(source, order.side)[: len(curve.u)]]), least_lots(order, source))


def needed(side: Sequence[Level], lots: int) -> Sequence[Level]:
    """The levels that so many lots can touch."""
    for count, (_, size) in enumerate(side, 1):
        lots -= size
        if lots <= 0:
            return side[:count]
    return side


def charged_shape(shape: Shape | Reason, charge: Charge | None, side: Side) -> Shape | Reason:
    if isinstance(shape, Reason) or charge is None or not charge.pips:
        return shape
    return Shape(charged(shape.curve, charge.pips, side), shape.lots, shape.least)
