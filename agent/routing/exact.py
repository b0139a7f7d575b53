"""From the search's opinion to money: whole lots, whole units, and every piece quoted again in exact integers.

Books round down to lots; what that leaves goes to the pools in use, then to books with finer lots. The sum never exceeds the order.
"""

from collections.abc import Sequence

import msgspec

from agent.domain.errors import LiquidityError
from agent.domain.instrument import Instrument, Side
from agent.domain.price import Price
from agent.liquidity.depth import Depth, buy_lots, sell_lots
from agent.market.view import Source
from agent.routing.cost import after_fee
from agent.routing.fill import IN, OUT, Costs, Filling, bounds_of, fill
from agent.routing.problem import Task
from agent.routing.search import Choice
from agent.routing.terms import Order, levels, locked, most_lots, worst_touched

_EDGE = 1 - 1e-9  # the end of a pool's known liquidity in floats, so that the exact pool surely reaches it


class Leg(msgspec.Struct, frozen=True):
    """One source's exact part, in units of its own assets. `quote` is after the fee; `locked` is the most that buying may take."""

    i: int
    base: int
    quote: int
    locked: int
    ticks: int = 0
    lots: int = 0


class Broken(msgspec.Struct, frozen=True):
    """A source that cannot do exactly what the search expected of it, and why."""

    i: int
    why: str


def settle(task: Task, choice: Choice, bumped: int | None = None) -> list[Leg] | Broken:
    """The exact legs of a choice. They never exceed the quantity, nor when selling a balance.

    Books round down to lots, but `bumped` rounds up: with coarse lots that can be better.
    """
    bases = _lots(task, choice.filling, bumped)
    _pools(task, choice, bases)
    _dust(task, choice.filling, bases)
    legs = []
    for i, base in bases.items():
        if base > 0:
            leg = exact_leg(task.order, task.sources[i], i, base)
            if isinstance(leg, Broken):
                return leg
            legs.append(leg)
    return legs


def exact_leg(order: Order, source: Source, i: int, base: int) -> Leg | Broken:
    """`base` units (whole lots for a book) traded at `source` alone, as its contract or matching engine would count."""
    found, state, side = source.instrument, source.state, order.side
    try:
        if isinstance(state, Depth):
            lots = base // found.lot_units
            swap = sell_lots(state, lots) if side == "sell" else buy_lots(state, lots)
            ticks = worst_touched(levels(source, side), lots)
            quote = swap.amount_out if side == "sell" else after_fee(swap.amount_in, found.fee_pips, side)
            return Leg(i, lots * found.lot_units, quote, locked(order, found, ticks, lots), ticks, lots)
        zero_for_one = (side == "sell") == found.base_is_token0
        swap = state.swap_in(base, zero_for_one) if side == "sell" else state.swap_out(base, zero_for_one)
    except LiquidityError as error:
        return Broken(i, f"{found.id}: {error}")
    quote = swap.amount_out if side == "sell" else swap.amount_in
    if quote <= 0 or (order.limit is not None and beyond(found, side, base, quote, order.limit)):
        return Broken(i, f"{found.id}: its price for this amount is beyond the limit")
    return Leg(i, base, quote, _slipped(order, quote))


def overdrawn(task: Task, legs: Sequence[Leg]) -> dict[int, int]:
    """Group number -> what its legs may take, for every group that would take more than its balance."""
    found = {}
    for number, (group, budget) in enumerate(zip(task.problem.groups, task.budgets, strict=True)):
        if budget is not None:
            taken = sum(leg.base if task.order.side == "sell" else leg.locked for leg in legs if leg.i in group)
            if taken > budget:
                found[number] = taken
    return found


def beyond(found: Instrument, side: Side, base: int, quote: int, limit: Price) -> bool:
    """Whether `quote` for `base`, in units of the instrument's assets, is worse than the limit. Exact."""
    left: int = quote * limit.den * 10**found.base.decimals
    right: int = base * limit.num * 10**found.quote.decimals
    return left < right if side == "sell" else left > right


def _slipped(order: Order, quote: int) -> int:
    return -(-quote * (10_000 + order.rules.reserve_bps) // 10_000)


def _lots(task: Task, filling: Filling, bumped: int | None) -> dict[int, int]:
    """Books in whole lots, in units of their base; pools in use with nothing yet."""
    bases: dict[int, int] = {}
    left = task.order.quantity.units
    for i, source in enumerate(task.sources):
        if filling.base[i] <= 0:
            continue
        found = source.instrument
        bases[i] = 0
        if found.is_book:
            size = found.lot_units * task.terms[i].scale
            wanted = int(filling.base[i] * task.terms[i].coin / found.lot_units * (1 + 1e-12) + 1e-9) + (i == bumped)
            bases[i] = _fitting(task, i, bases, min(wanted, left // size) * found.lot_units)
            left -= bases[i] * task.terms[i].scale
    return bases


def _pools(task: Task, choice: Choice, bases: dict[int, int]) -> None:
    """Pools share what the books leave, up to the rest that stays untraded on purpose."""
    order, filling = task.order, choice.filling
    pools = [i for i in bases if not task.sources[i].instrument.is_book]
    if not pools:
        return
    coin = 10**order.quantity.asset.decimals
    left = _left(task, bases)
    amounts = filling.base if _leaves_rest(task, filling) else _again(task, choice, pools, left / coin) or filling.base
    for i in pools:
        unit = task.terms[i].scale
        bases[i] = _fitting(task, i, bases, max(min(int(amounts[i] * coin), left) // unit, 0))
        left -= bases[i] * unit
    if _leaves_rest(task, filling):
        return
    for i in sorted(pools, key=lambda i: -bases[i]):  # the last units that rounding left
        unit = task.terms[i].scale
        before = bases[i]
        if left >= unit:
            bases[i] = _fitting(task, i, bases, before + left // unit)
            left -= (bases[i] - before) * unit


def _again(task: Task, choice: Choice, pools: list[int], quantity: float) -> list[float] | None:
    """The pools' own best split of `quantity` coins, once the books are in whole lots. Their gas is paid already."""
    if quantity <= 0:
        return None
    problem, last = task.problem, len(task.problem.curves) - 1
    free = msgspec.structs.replace(problem, quantity=quantity, gas=[0.0] * (last + 1))
    if not choice.filling.capped:
        found = task.search(free, Costs([], task.costs.least), [i for i in range(last) if i not in pools])
        return found.base if found else None
    state = [IN if i in pools else choice.state[i] if i == last else OUT for i in range(last + 1)]
    filling = fill(free, bounds_of(free), state, problem.curves)
    return filling.base if filling else None


def _dust(task: Task, filling: Filling, bases: dict[int, int]) -> None:
    """What is still left goes to books in use whose lots are fine enough, best price first."""
    if _leaves_rest(task, filling):
        return
    left = _left(task, bases)
    for i in sorted(bases, key=lambda i: filling.u[i]):
        found = task.sources[i].instrument
        size = found.lot_units * task.terms[i].scale
        if found.is_book and left >= size:
            before = bases[i]
            bases[i] = _fitting(task, i, bases, before + left // size * found.lot_units)
            left -= (bases[i] - before) * task.terms[i].scale


def _left(task: Task, bases: dict[int, int]) -> int:
    """What is not placed yet, in units of the base group."""
    return int(task.order.quantity.units - sum(base * task.terms[i].scale for i, base in bases.items()))


def _leaves_rest(task: Task, filling: Filling) -> bool:
    """Whether the search itself leaves a part of the order untraded."""
    return filling.base[-1] > 1e-9 * task.problem.quantity


def _fitting(task: Task, i: int, bases: dict[int, int], wanted: int) -> int:
    """The most base units up to `wanted` that source i can trade: within the limit, and within what others leave of the balance."""
    order, source, curve = task.order, task.sources[i], task.problem.curves[i]
    found = source.instrument
    number = next(number for number, group in enumerate(task.problem.groups) if i in group)
    others = {other: bases[other] for other in task.problem.groups[number] if other != i and bases.get(other)}
    budget = task.budgets[number]
    if found.is_book:
        known = int(curve.base[-1] * 10**found.base.decimals / found.lot_units + 0.5)
        lots = min(wanted // found.lot_units, known)
        if budget is not None:
            lots = most_lots(order, source, lots, budget - _taken(task, others))
        return lots * found.lot_units
    wanted = min(wanted, int(curve.base[-1] * 10**found.base.decimals * _EDGE))
    if budget is None or wanted <= 0:
        return wanted
    left = budget - _taken(task, others)
    return min(wanted, left) if order.side == "sell" else _most_bought(order, source, i, wanted, left)


def _taken(task: Task, bases: dict[int, int]) -> int:
    """What sources take from their balance."""
    if task.order.side == "sell":
        return sum(bases.values())
    legs = (exact_leg(task.order, task.sources[i], i, base) for i, base in bases.items())
    return sum(leg.locked for leg in legs if isinstance(leg, Leg))


def _most_bought(order: Order, source: Source, i: int, wanted: int, budget: int) -> int:
    """The most base up to `wanted` that a pool gives for `budget` quote units, slippage kept back."""
    leg = exact_leg(order, source, i, wanted)
    if isinstance(leg, Broken) or leg.locked <= budget:
        return wanted
    spend = budget * 10_000 // (10_000 + order.rules.reserve_bps)
    assert not isinstance(source.state, Depth), "books are counted in lots"
    try:
        return min(wanted, source.state.swap_in(spend, not source.instrument.base_is_token0).amount_out)
    except LiquidityError:
        return 0
