"""From a view to the search's problem: which sources take part, their curves, their fixed costs and the balances they draw on."""

from collections.abc import Mapping, Sequence
from math import inf

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.plan import Reason
from agent.domain.price import Price
from agent.market.view import Source
from agent.routing.cost import GasPrice
from agent.routing.curve import Curve, cut, root
from agent.routing.fill import Costs, Problem
from agent.routing.memo import Crew, Memo, Shape, crew_of
from agent.routing.search import Search
from agent.routing.terms import Order, Terms, most_lots

NO_CAPACITY = "NO_CAPACITY"
NO_GAS_PRICE = "NO_GAS_PRICE"
BELOW_MINIMUM = "BELOW_MINIMUM"

_ROOM = 1 + 1e-12  # a balance in floats, so that using all of it is not one rounding too much


class Task(msgspec.Struct, frozen=True):
    """The problem with what its numbers stand for: `sources[i]` belongs to curve i. `budgets`: each group's balance in units."""

    order: Order
    rest: Price
    sources: tuple[Source, ...]
    terms: list[Terms]
    problem: Problem
    costs: Costs
    assets: list[Asset | None]
    budgets: list[int | None]
    rejected: tuple[Reason, ...]
    search: Search


def pose(
    order: Order,
    sources: Sequence[Source],
    capacity: Mapping[str, Amount] | None,
    gas: Mapping[int, GasPrice],
    memo: Memo | None = None,
) -> Task:
    """`capacity` None: as if every balance were endless."""
    memo, rest = memo or Memo(), order.rest
    frame = memo.frame(order, sources)

    def answer(place: int, shape: Shape | Reason) -> Shape | Reason:
        source, terms = sources[place], frame.terms[place]
        found = _refusal(terms, capacity, gas) or shape
        if terms.is_book and isinstance(found, Shape):
            found = _reach(order, source, terms, found, capacity if frame.alone[place] else None)
        return found

    purses = [purse(one, alone, capacity, gas) for one, alone in zip(frame.terms, frame.alone, strict=True)]
    answers = memo.answers(order, sources, order.limit or rest, purses, answer)
    shapes = [one for one in answers if isinstance(one, Shape)]
    rejected = [one for one in answers if isinstance(one, Reason)] if len(shapes) < len(answers) else []
    used, crew = tuple(sources), frame.crew
    if rejected:
        places = [place for place, one in enumerate(answers) if isinstance(one, Shape)]
        used = tuple(sources[place] for place in places)
        crew = crew_of([frame.terms[place] for place in places], [frame.alone[place] for place in places])
    bill = memo.gas(crew, gas, order.quote)
    curves = [shape.curve for shape in shapes]
    opens = [memo.opens(one.id, curve, cost, order.side) for one, curve, cost in zip(crew.terms, curves, bill.legs, strict=False)]
    end = root(rest.num / rest.den, order.side)
    budgets, caps = _balances(crew, capacity)
    curves.append(Curve(True, [end], [inf], [inf], [0.0]))
    opens.append(end)
    quantity = order.quantity.units / 10**order.quantity.asset.decimals
    problem = Problem(order.side, quantity, curves, bill.legs, opens, crew.groups, caps, crew.draws)
    least = [shape.least * lot for shape, lot in zip(shapes, crew.lots, strict=False)]
    least.append(0.0)
    return Task(
        order,
        rest,
        used,
        crew.terms,
        problem,
        Costs(bill.chains, least),
        crew.assets,
        budgets,
        tuple(rejected),
        memo.search,
    )


def purse(terms: Terms, alone: bool, capacity: Mapping[str, Amount] | None, gas: Mapping[int, GasPrice]) -> int:
    """What an answer depends on of the balances and of gas, as one number: the units that a book draws on alone, else 1 for some;
    0 for none, -1 for endless, -2 where the price of gas is not known.
    """
    held = None if capacity is None else capacity.get(terms.given_id)
    if capacity is not None and (held is None or held.units <= 0):
        return 0
    if not terms.is_book and terms.chain not in gas:
        return -2
    if held is None:
        return -1
    return int(held.units) if alone and terms.is_book else 1


def _refusal(terms: Terms, capacity: Mapping[str, Amount] | None, gas: Mapping[int, GasPrice]) -> Reason | None:
    if terms.trouble is not None:
        return terms.trouble
    if capacity is not None:
        held = capacity.get(terms.given_id)
        if held is None or held.units <= 0:
            return Reason(NO_CAPACITY, f"{terms.id}: the account has no {terms.given_id} to give there")
    if not terms.is_book and terms.chain not in gas:
        return Reason(NO_GAS_PRICE, f"{terms.id}: the price of gas on its chain is not known")
    return None


def _reach(order: Order, source: Source, terms: Terms, shape: Shape, capacity: Mapping[str, Amount] | None) -> Shape | Reason:
    """A book as far as a balance goes that it draws on alone: there it can simply end, in exact lots."""
    if capacity is not None:
        lots = most_lots(order, source, shape.lots, capacity[terms.given_id].units)
        if lots < shape.lots:
            shape = Shape(cut(shape.curve, lots * terms.lot), lots, shape.least)
        if not shape.curve.u:
            return Reason(NO_CAPACITY, f"{terms.id}: the account has less than a lot to give there")
    if shape.least * terms.lot > shape.curve.base[-1] * _ROOM:
        return Reason(BELOW_MINIMUM, f"{terms.id}: what it shows, or what the account has there, is below its minimum order")
    return shape


def _balances(crew: Crew, capacity: Mapping[str, Amount] | None) -> tuple[list[int | None], list[float]]:
    """(units, coins) of each balance. A book that draws on one alone is cut already, so its coins are no matter."""
    budgets: list[int | None] = []
    caps: list[float] = []
    for asset, members, is_alone in zip(crew.assets, crew.groups, crew.alone, strict=True):
        units = None if capacity is None or asset is None else capacity[crew.terms[members[0]].given_id].units
        budgets.append(units)
        caps.append(inf if units is None or asset is None or is_alone else units / 10**asset.decimals * _ROOM)
    return budgets, caps
