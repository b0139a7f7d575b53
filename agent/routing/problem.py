"""From a view to the search's problem: which sources take part, their curves, their fixed costs and the balances they draw on."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.instrument import PIPS, Instrument, Side
from agent.domain.plan import Reason
from agent.domain.price import Price, decimal_of, worse_by
from agent.liquidity.depth import Depth
from agent.market.view import Source, chain_of
from agent.routing.cost import GasPrice, gas_up
from agent.routing.curve import Curve, book_curve, cut, pool_curve, price_at, root, threshold, worst_ticks
from agent.routing.fill import Problem
from agent.routing.search import Costs

NO_CAPACITY = "NO_CAPACITY"
NO_GAS_PRICE = "NO_GAS_PRICE"
BAD_DECIMALS = "BAD_DECIMALS"
BEYOND_LIMIT = "BEYOND_LIMIT"
BELOW_MINIMUM = "BELOW_MINIMUM"

_ROOM = 1 + 1e-12  # a balance in floats, so that using all of it is not one rounding too much


class Rules(msgspec.Struct, frozen=True):
    """The trader's settings for routes.

    `legs_max`: pieces of one route. `improvement_bps_min`: a piece that brings less than this of the whole is left out.
    `reserve_bps`: buying, how much of a balance is kept for slippage, as an order locks it at its limit. `rest_bps`: how far from
    the middle (gas included) trading still beats leaving a rest; where the order has no limit, half or double the middle.
    """

    legs_max: int = 12
    improvement_bps_min: float = 0.0
    reserve_bps: int = 10
    rest_bps: int = 1_000


class Order(msgspec.Struct, frozen=True):
    """What is to be routed: `quantity` of the base group, for `quote` (the group). `limit`: before gas and a book's fee."""

    side: Side
    quantity: Amount
    quote: Asset
    mid: Price
    limit: Price | None
    rules: Rules

    @property
    def rest(self) -> Price:
        """What a coin that stays untraded is worth: so bad that everything within the limit is better."""
        selling = self.side == "sell"
        if self.limit is None:
            return Price(self.mid.num, self.mid.den * 2) if selling else Price(self.mid.num * 2, self.mid.den)
        far = worse_by(self.mid, self.rules.rest_bps, selling=selling)
        return min(far, self.limit) if selling else max(far, self.limit)


class Task(msgspec.Struct, frozen=True):
    """The problem with what its numbers stand for: `sources[i]` belongs to curve i. `budgets`: each group's balance in units."""

    order: Order
    sources: tuple[Source, ...]
    problem: Problem
    costs: Costs
    assets: list[Asset | None]
    budgets: list[int | None]
    rejected: tuple[Reason, ...]


def pose(order: Order, sources: Sequence[Source], capacity: Mapping[str, Amount] | None, gas: Mapping[int, GasPrice]) -> Task:
    """`capacity` None: as if every balance were endless."""
    used: list[Source] = []
    curves: list[Curve] = []
    rejected: list[Reason] = []
    sharing = Counter(given(source.instrument, order.side).id for source in sources)
    for source in sources:
        curve = _refusal(order, source, capacity, gas) or _curve(order, source, capacity, _is_alone(order, source, sharing))
        if isinstance(curve, Reason):
            rejected.append(curve)
        else:
            used.append(source)
            curves.append(curve)
    legs = [_leg_gas(order, source.instrument, gas) for source in used]
    opens = [threshold(curve, cost, order.side) for curve, cost in zip(curves, legs, strict=True)]
    end = root(float(decimal_of(order.rest)), order.side)
    loose, opens_loose = _loose(order, curves, legs, opens)
    breaks = (u for curve in curves for u in curve.u)
    points = sorted({u for u in (*breaks, *opens, *opens_loose) if u < end} | {end})
    groups, assets = _groups(order, used)
    budgets = [capacity[asset.id].units if capacity is not None and asset else None for asset in assets]
    own = {given(s.instrument, order.side).id for s in used if s.instrument.is_book and _is_alone(order, s, sharing)}
    caps = [
        inf if units is None or asset is None or asset.id in own else _float(units, asset) * _ROOM
        for units, asset in zip(budgets, assets, strict=True)
    ]
    rest = Curve(True, [end], [inf], [inf], [0.0])
    quantity = _float(order.quantity.units, order.quantity.asset)
    draws = [_draw(order, source.instrument) for source in used]
    problem = Problem(
        order.side,
        quantity,
        [*curves, rest],
        [*legs, 0.0],
        [*opens, end],
        groups,
        caps,
        [*draws, 0.0],
        points,
        loose,
        [*opens_loose, end],
    )
    least = [_least(order, source) for source in used]
    costs = Costs(
        _chains(order, used, gas),
        [*(lots * _float(s.instrument.lot_units, s.instrument.base) for lots, s in zip(least, used, strict=True)), 0.0],
    )
    return Task(order, tuple(used), problem, costs, assets, budgets, tuple(rejected))


def scale(order: Order, found: Instrument) -> int:
    """Base group units in one unit of the instrument's base."""
    power: int = 10 ** (order.quantity.asset.decimals - found.base.decimals)
    return power


def given(found: Instrument, side: Side) -> Asset:
    """What leaves the account."""
    return found.base if side == "sell" else found.quote


def levels(source: Source, side: Side) -> tuple[tuple[int, int], ...]:
    """The side of a book that an order takes from."""
    assert isinstance(source.state, Depth), "only books have levels"
    return source.state.bids if side == "sell" else source.state.asks


def worst_touched(side: Sequence[tuple[int, int]], lots: int) -> int:
    """The ticks of the worst level that `lots` touch; of the last one where they are too many."""
    for ticks, size in side:
        lots -= size
        if lots <= 0:
            return ticks
    return side[-1][0]


def locked(order: Order, found: Instrument, ticks: int, lots: int) -> int:
    """What buying on a book locks, rounded up: all of it at the worst tick, slippage included; never beyond the limit."""
    ticks = -(-ticks * (10_000 + order.rules.reserve_bps) // 10_000)
    if order.limit is not None:
        ticks = min(ticks, worst_ticks(found, order.side, order.limit))
    return int(-(-ticks * found.tick_units * lots * found.lot_units // 10**found.base.decimals))


def most_lots(order: Order, source: Source, lots: int, budget: int) -> int:
    """The most lots, up to `lots`, that a balance of `budget` units pays for on a book."""
    found = source.instrument
    if order.side == "sell":
        return min(lots, max(budget, 0) // found.lot_units)
    side = levels(source, order.side)
    if locked(order, found, worst_touched(side, lots), lots) <= budget:
        return lots
    return bisect_right(range(lots), budget, key=lambda n: locked(order, found, worst_touched(side, n), n)) - 1


def _refusal(order: Order, source: Source, capacity: Mapping[str, Amount] | None, gas: Mapping[int, GasPrice]) -> Reason | None:
    found = source.instrument
    if found.base.decimals > order.quantity.asset.decimals or found.quote.decimals > order.quote.decimals:
        return Reason(BAD_DECIMALS, f"{found.id}: counts finer than the order does; state the order in more decimals")
    asset = given(found, order.side)
    if capacity is not None and (asset.id not in capacity or capacity[asset.id].units <= 0):
        return Reason(NO_CAPACITY, f"{found.id}: the account has no {asset.id} to give there")
    if not found.is_book and chain_of(found) not in gas:
        return Reason(NO_GAS_PRICE, f"{found.id}: the price of gas on its chain is not known")
    return None


def _is_alone(order: Order, source: Source, sharing: Mapping[str, int]) -> bool:
    """Whether nobody else draws on a source's balance: then a book can simply end where its balance does."""
    return sharing[given(source.instrument, order.side).id] == 1


def _within(order: Order, source: Source, curve: Curve, budget: int) -> Curve:
    """A book as far as its own balance goes, in exact lots."""
    found = source.instrument
    known = sum(lots for _, lots in levels(source, order.side)[: len(curve.u)])
    lots = most_lots(order, source, known, budget)
    return curve if lots == known else cut(curve, _float(lots * found.lot_units, found.base))


def _curve(order: Order, source: Source, capacity: Mapping[str, Amount] | None, alone: bool) -> Curve | Reason:
    found, state = source.instrument, source.state
    if isinstance(state, Depth):
        curve = book_curve(levels(source, order.side), found, order.side, order.limit)
        if curve.u and alone and capacity is not None:
            curve = _within(order, source, curve, capacity[given(found, order.side).id].units)
            if not curve.u:
                return Reason(NO_CAPACITY, f"{found.id}: the account has less than a lot to give there")
        if curve.u and _least(order, source) * _float(found.lot_units, found.base) > curve.base[-1] * _ROOM:
            return Reason(BELOW_MINIMUM, f"{found.id}: what it shows, or what the account has there, is below its minimum order")
    else:
        curve = pool_curve(state, found, order.side, float(decimal_of(order.limit or order.rest)))
    if not curve.u:
        return Reason(BEYOND_LIMIT, f"{found.id}: its best price is already beyond the limit {order.limit or order.rest}")
    return curve


def _least(order: Order, source: Source) -> int:
    """The fewest lots that reach a book's minimum order value at the worst tick that they touch, slippage included; 0 for pools."""
    found = source.instrument
    if not found.is_book:
        return 0
    last = None if order.limit is None else worst_ticks(found, order.side, order.limit)
    slipped = 10_000 - order.rules.reserve_bps if order.side == "sell" else 10_000
    known = 0
    for ticks, lots in levels(source, order.side):
        worst = ticks if last is None or order.side == "buy" else max(last, ticks * slipped // 10_000)
        unit = worst * found.tick_units * found.lot_units
        need = max(-(-found.notional_min * 10**found.base.decimals // unit) if unit else 1, 1)
        if need <= known + lots:
            return max(need, known + 1)
        known += lots
    return known + 1


def _loose(order: Order, curves: Sequence[Curve], legs: Sequence[float], opens: list[float]) -> tuple[float, list[float]]:
    """Buying: no balance's own marginal price is below the best price, nor the common one above the rest's."""
    if order.side == "sell" or not curves:
        return 1.0, opens
    loose = min(price_at(curve.u[0]) for curve in curves) / float(decimal_of(order.rest))
    return loose, [threshold(curve, gas * loose, order.side) for curve, gas in zip(curves, legs, strict=True)]


def _leg_gas(order: Order, found: Instrument, gas: Mapping[int, GasPrice]) -> float:
    if found.is_book or not found.gas:
        return 0.0
    chain_id = chain_of(found)
    assert chain_id is not None, "pools without a chain were refused"
    return _float(gas_up(found.gas, gas[chain_id], order.quote).units, order.quote)


def _chains(order: Order, used: Sequence[Source], gas: Mapping[int, GasPrice]) -> list[tuple[list[int], float]]:
    pools: dict[int, list[int]] = {}
    for i, source in enumerate(used):
        chain_id = None if source.instrument.is_book else chain_of(source.instrument)
        if chain_id is not None:
            pools.setdefault(chain_id, []).append(i)
    return [
        (members, _float(gas_up(gas[chain_id].batch_gas, gas[chain_id], order.quote).units, order.quote))
        for chain_id, members in pools.items()
    ]


def _groups(order: Order, used: Sequence[Source]) -> tuple[list[list[int]], list[Asset | None]]:
    found: dict[str, list[int]] = {}
    assets: list[Asset | None] = []
    for i, source in enumerate(used):
        asset = given(source.instrument, order.side)
        if asset.id not in found:
            found[asset.id] = []
            assets.append(asset)
        found[asset.id].append(i)
    return [*found.values(), [len(used)]], [*assets, None]


def _draw(order: Order, found: Instrument) -> float:
    keep = 1 - found.fee_pips / PIPS if found.is_book else 1.0
    return keep * (1 + order.rules.reserve_bps / 10_000)


def _float(units: int, asset: Asset) -> float:
    coin: int = 10**asset.decimals
    return units / coin
