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
from agent.routing.curve import worst_ticks
from agent.routing.fill import IN, OUT, Filling, fill
from agent.routing.problem import Order, Task, levels, scale
from agent.routing.search import Choice


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


def settle(task: Task, choice: Choice) -> list[Leg] | Broken:
    """The exact legs of a choice. They never exceed the quantity, nor when selling a balance."""
    bases = _lots(task, choice.filling)
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
            ticks = _worst(levels(source, side), lots)
            quote = swap.amount_out if side == "sell" else after_fee(swap.amount_in, found.fee_pips, side)
            return Leg(i, lots * found.lot_units, quote, _locked(order, found, ticks, lots), ticks, lots)
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


def _locked(order: Order, found: Instrument, ticks: int, lots: int) -> int:
    """What buying on a book locks: all of it at the worst tick, slippage included; never beyond the limit."""
    if order.limit is not None:
        last = worst_ticks(found, order.side, order.limit)
        ticks = min(-(-ticks * (10_000 + order.rules.reserve_bps) // 10_000), last)
    else:
        ticks = -(-ticks * (10_000 + order.rules.reserve_bps) // 10_000)
    return int(-(-ticks * found.tick_units * lots * found.lot_units // 10**found.base.decimals))


def _slipped(order: Order, quote: int) -> int:
    return -(-quote * (10_000 + order.rules.reserve_bps) // 10_000)


def _worst(side: Sequence[tuple[int, int]], lots: int) -> int:
    for ticks, size in side:
        lots -= size
        if lots <= 0:
            return ticks
    raise LiquidityError("the book's known levels are used up: trade less")


def _lots(task: Task, filling: Filling) -> dict[int, int]:
    """Books in whole lots, in units of their base; pools in use with nothing yet."""
    bases: dict[int, int] = {}
    left = task.order.quantity.units
    for i, source in enumerate(task.sources):
        if filling.base[i] <= 0:
            continue
        found = source.instrument
        bases[i] = 0
        if found.is_book:
            size = found.lot_units * scale(task.order, found)
            wanted = int(filling.base[i] * 10**found.base.decimals / found.lot_units * (1 + 1e-12) + 1e-9)
            lots = min(wanted, left // size, _room(task, i, bases) // found.lot_units)
            bases[i] = lots * found.lot_units
            left -= lots * size
    return bases


def _pools(task: Task, choice: Choice, bases: dict[int, int]) -> None:
    """Pools share what the books leave, up to the rest that stays untraded on purpose."""
    order, filling = task.order, choice.filling
    pools = [i for i in bases if not task.sources[i].instrument.is_book]
    if not pools:
        return
    coin = 10**order.quantity.asset.decimals
    left = order.quantity.units - sum(base * scale(order, task.sources[i].instrument) for i, base in bases.items())
    if filling.base[-1] > 1e-9 * task.problem.quantity:
        left = min(left, int(sum(filling.base[i] for i in pools) * coin))
        amounts: Sequence[float] = filling.base
    else:
        amounts = _again(task, choice, pools, left / coin) or filling.base
    for i in pools:
        unit = scale(order, task.sources[i].instrument)
        bases[i] = max(min(int(amounts[i] * coin), left) // unit, 0)
        bases[i] = min(bases[i], _room(task, i, bases))
        left -= bases[i] * unit
    for i in sorted(pools, key=lambda i: -bases[i]):  # the last units: rounding, and lots where nothing was solved again
        unit = scale(order, task.sources[i].instrument)
        if filling.base[-1] <= 1e-9 * task.problem.quantity and not _is_full(task, filling, i):
            more = min(left // unit, _room(task, i, bases) - bases[i])
            bases[i] += max(more, 0)
            left -= max(more, 0) * unit


def _again(task: Task, choice: Choice, pools: list[int], quantity: float) -> list[float] | None:
    """The pools' own best split of `quantity` coins, once the books are in whole lots."""
    problem = msgspec.structs.replace(task.problem, quantity=quantity)
    last = len(problem.curves) - 1
    state = [IN if i in pools else choice.state[i] if i == last else OUT for i in range(last + 1)]
    filling = fill(problem, state, problem.curves)
    return filling.base if filling else None


def _dust(task: Task, filling: Filling, bases: dict[int, int]) -> None:
    """What is still left goes to books in use whose lots are fine enough, best price first."""
    order = task.order
    left = order.quantity.units - sum(base * scale(order, task.sources[i].instrument) for i, base in bases.items())
    if filling.base[-1] > 1e-9 * task.problem.quantity:
        return
    for i in sorted(bases, key=lambda i: filling.u[i]):
        found = task.sources[i].instrument
        size = found.lot_units * scale(order, found)
        if not found.is_book or left < size:
            continue
        more = min(left // size, (_room(task, i, bases) - bases[i]) // found.lot_units)
        if more > 0:
            bases[i] += more * found.lot_units
            left -= more * size


def _room(task: Task, i: int, bases: dict[int, int]) -> int:
    """The most base units that source i can trade: its levels within the limit and, selling, what others leave of the balance."""
    order, source = task.order, task.sources[i]
    found = source.instrument
    most = order.quantity.units // scale(order, found)
    if found.is_book:
        known = len(task.problem.curves[i].u)
        most = min(most, sum(lots for _, lots in levels(source, order.side)[:known]) * found.lot_units)
    number = next(number for number, group in enumerate(task.problem.groups) if i in group)
    budget = task.budgets[number]
    if budget is None or order.side == "buy":
        return most
    return min(most, budget - sum(bases.get(other, 0) for other in task.problem.groups[number] if other != i))


def _is_full(task: Task, filling: Filling, i: int) -> bool:
    """Whether a pool has given all that the limit, or what is known of it, allows."""
    return filling.base[i] >= task.problem.curves[i].base[-1] * (1 - 1e-12)
