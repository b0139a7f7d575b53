"""From a view to the search's problem: which sources take part, their curves, their fixed costs and the balances they draw on."""

from collections.abc import Mapping, Sequence
from math import inf

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.plan import Reason
from agent.domain.price import Price
from agent.market.view import Source
from agent.routing.cost import GasPrice, gas_up
from agent.routing.curve import Curve, cut, root
from agent.routing.fill import Costs, Problem
from agent.routing.memo import Memo, Shape
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
    worst = rest if order.limit is None else order.limit
    frame = memo.frame(order, sources, worst)
    used: list[Source] = []
    terms: list[Terms] = []
    shapes: list[Shape] = []
    alone: list[bool] = []
    rejected: list[Reason] = []
    for source, one, is_alone in zip(sources, frame.terms, frame.alone, strict=True):
        shape = _refusal(one, capacity, gas) or memo.shape(order, source, one, worst)
        if one.is_book and isinstance(shape, Shape):
            shape = _reach(order, source, one, shape, capacity if is_alone else None)
        if isinstance(shape, Reason):
            rejected.append(shape)
        else:
            used.append(source)
            terms.append(one)
            shapes.append(shape)
            alone.append(is_alone and one.is_book)
    legs = _leg_gas(order, terms, gas)
    opens = [memo.opens(one.id, shape.curve, cost, order.side) for one, shape, cost in zip(terms, shapes, legs, strict=True)]
    end = root(rest.num / rest.den, order.side)
    groups, assets, budgets, caps = _balances(terms, alone, capacity)
    problem = Problem(
        order.side,
        order.quantity.units / 10**order.quantity.asset.decimals,
        [*[shape.curve for shape in shapes], Curve(True, [end], [inf], [inf], [0.0])],
        [*legs, 0.0],
        [*opens, end],
        groups,
        caps,
        [*[one.draw for one in terms], 0.0],
    )
    costs = Costs(_chains(order, terms, gas), [*[shape.least * one.lot for one, shape in zip(terms, shapes, strict=True)], 0.0])
    return Task(order, rest, tuple(used), terms, problem, costs, assets, budgets, tuple(rejected), memo.search)


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


def _balances(
    terms: Sequence[Terms], alone: Sequence[bool], capacity: Mapping[str, Amount] | None
) -> tuple[list[list[int]], list[Asset | None], list[int | None], list[float]]:
    """(sources of each balance, its asset, units, coins). A book that draws on one alone is cut already. The rest is last."""
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(terms):
        groups.setdefault(one.given_id, []).append(i)
    assets: list[Asset | None] = []
    budgets: list[int | None] = []
    caps: list[float] = []
    for name, members in groups.items():
        asset = terms[members[0]].given
        units = None if capacity is None else capacity[name].units
        assets.append(asset)
        budgets.append(units)
        caps.append(inf if units is None or alone[members[0]] else units / 10**asset.decimals * _ROOM)
    return [*groups.values(), [len(terms)]], [*assets, None], [*budgets, None], [*caps, inf]


def _leg_gas(order: Order, terms: Sequence[Terms], gas: Mapping[int, GasPrice]) -> list[float]:
    """What a leg adds to its chain's batch, in quote coins."""
    coin, known = 10**order.quote.decimals, dict[tuple[int | None, int], float]()
    legs: list[float] = []
    for one in terms:
        key = one.chain, one.found.gas
        if one.chain is not None and one.found.gas and key not in known:
            known[key] = gas_up(one.found.gas, gas[one.chain], order.quote).units / coin
        legs.append(known.get(key, 0.0))
    return legs


def _chains(order: Order, terms: Sequence[Terms], gas: Mapping[int, GasPrice]) -> list[tuple[list[int], float]]:
    """The pools of each chain, and what a batch there costs once."""
    pools: dict[int, list[int]] = {}
    for i, one in enumerate(terms):
        if one.chain is not None:
            pools.setdefault(one.chain, []).append(i)
    coin = 10**order.quote.decimals
    return [(members, gas_up(gas[c].batch_gas, gas[c], order.quote).units / coin) for c, members in pools.items()]
