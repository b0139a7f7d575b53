"""The everyday search: one marginal price for all and every fixed cost decided, where no balance and no minimum is in the way.

Supply at a marginal price is piecewise linear in u (see `curve`), so the price at which it meets the quantity is found by selection
over the sorted breakpoints of all sources, with no tolerance and no merging. A pool that must pay gas opens at its threshold. If
the quantity falls inside such a jump, that one pool is decided, in or out, and the search goes on (branch and bound). In every
other case the answer attains the bound of the dual problem, and is the best there is. This is the reference; `fast` is the same,
compiled.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import product
from math import inf

import msgspec

from agent.routing.curve import Curve, quote_for
from agent.routing.fill import GATED, IN, OUT, Costs, Problem

NODES_MAX = 400  # of one set of chains; the best answer found until then stands
TIE = 1e-13


class Found(msgspec.Struct, frozen=True):
    """A split in whole coins. `worth`: quote coins after gas, negative when buying. `u`: where all of them stop."""

    worth: float
    u: float
    base: list[float]
    state: list[int]
    nodes: int


def search(problem: Problem, costs: Costs, shut: Collection[int] = ()) -> Found | None:
    """The best split when balances and minimum orders are ignored, over every set of chains. None: the sources cannot take it.

    What no set of chains can beat is the split with all of them at no cost for a batch. If that one uses no pool, it is the answer.
    """
    curves, gas, sign = problem.curves, problem.gas, 1.0 if problem.side == "sell" else -1.0
    best: Found | None = None
    nodes = 0
    for uses in product((True, False), repeat=len(costs.chains)):
        stack, fixed = [_first(problem, costs, shut, uses)], 0.0
        for is_used, (_, batch) in zip(uses, costs.chains, strict=True):
            fixed += batch if is_used else 0.0
        left = NODES_MAX
        while stack and left:
            state = stack.pop()
            nodes, left = nodes + 1, left - 1
            stop = _pour(curves, problem.opens, state, problem.quantity)
            if stop is None:
                continue
            u, base, torn = stop
            worth = _worth(curves, gas, state, base, u, torn, sign)
            if best is not None and worth - fixed <= best.worth + TIE * abs(best.worth):
                continue
            if torn < 0:
                batches = _batches(costs, base)
                best = Found(worth - batches, u, base, state, nodes)
                if nodes == 1 and batches == 0.0:
                    return best
            else:
                stack.append([*state[:torn], OUT, *state[torn + 1 :]])
                stack.append([*state[:torn], IN, *state[torn + 1 :]])
    return best


def _first(problem: Problem, costs: Costs, shut: Collection[int], uses: Sequence[bool]) -> list[int]:
    """Nothing is decided but what is shut: pools without gas trade at any price, the others open by themselves."""
    state = [IN if gas <= 0.0 and not curve.is_book else GATED for gas, curve in zip(problem.gas, problem.curves, strict=True)]
    closed = [i for is_used, (pools, _) in zip(uses, costs.chains, strict=True) if not is_used for i in pools]
    for i in (*shut, *closed):
        state[i] = OUT
    return state


def _batches(costs: Costs, base: Sequence[float]) -> float:
    """What the batches cost of those chains that are used."""
    total = 0.0
    for pools, batch in costs.chains:
        for i in pools:
            if base[i] > 0.0:
                total += batch
                break
    return total


def _worth(
    curves: Sequence[Curve], gas: Sequence[float], state: list[int], base: list[float], u: float, torn: int, sign: float
) -> float:
    """Quote coins after gas. A torn pool counts at the marginal price, where it gains just its gas: no real split beats that."""
    worth = 0.0
    for i, amount in enumerate(base):
        if i == torn:
            worth += sign * amount / (u * u)
        elif amount > 0.0:
            worth += sign * quote_for(curves[i], amount) - gas[i]
        elif state[i] == IN:
            worth -= gas[i]
    return worth


def _pour(
    curves: Sequence[Curve], opens: Sequence[float], state: list[int], quantity: float
) -> tuple[float, list[float], int] | None:
    """(u at which supply meets the quantity, base of each source, the pool that the quantity ends inside of, or -1)."""
    live = [i for i, now in enumerate(state) if now != OUT and curves[i].u]
    low, high = [0] * len(curves), [len(curve.u) for curve in curves]
    below, upto = [0] * len(curves), [0] * len(curves)
    floor, ceiling = -inf, inf
    while True:
        u = _probe(curves, opens, state, live, low, high, floor, ceiling)
        if u is None:
            return _between(curves, opens, state, live, low, floor, quantity)
        before = at = 0.0  # supply just below u, and at u with its jumps
        for i in live:
            curve, k = curves[i], high[i]
            us = curve.u
            below[i] = j = bisect_left(us, u, low[i], k)
            while j < k and us[j] == u:
                j += 1
            upto[i] = j
            if curve.is_book:
                if below[i]:
                    before += curve.base[below[i] - 1]
                if j:
                    at += curve.base[j - 1]
            elif j and (state[i] == IN or opens[i] <= u):
                amount = curve.base[j - 1] + curve.slope[j - 1] * (u - us[j - 1])
                at += amount
                if state[i] == IN or opens[i] < u:
                    before += amount
        if at < quantity:
            floor = u
            for i in live:
                low[i] = upto[i]
        elif before > quantity:
            ceiling = u
            for i in live:
                high[i] = below[i]
        else:
            return _jump(curves, opens, state, live, below, upto, u, quantity)


def _probe(
    curves: Sequence[Curve],
    opens: Sequence[float],
    state: list[int],
    live: list[int],
    low: list[int],
    high: list[int],
    floor: float,
    ceiling: float,
) -> float | None:
    """The middle breakpoint of the source with most of them left; then thresholds between breakpoints; then nothing."""
    width = widest = 0
    for i in live:
        if high[i] - low[i] > width:
            width, widest = high[i] - low[i], i
    if width:
        return curves[widest].u[(low[widest] + high[widest]) >> 1]
    for i in live:
        if state[i] == GATED and floor < opens[i] < ceiling and opens[i] > curves[i].u[0]:
            return opens[i]
    return None


def _jump(
    curves: Sequence[Curve],
    opens: Sequence[float],
    state: list[int],
    live: list[int],
    below: list[int],
    upto: list[int],
    u: float,
    quantity: float,
) -> tuple[float, list[float], int]:
    """The quantity ends inside a jump at u. Levels are taken in part and pools are not: books first, each in its order."""
    base, left = [0.0] * len(curves), quantity
    for i in live:
        curve, j = curves[i], upto[i]
        if curve.is_book:
            base[i] = curve.base[below[i] - 1] if below[i] else 0.0
        elif j and (state[i] == IN or opens[i] < u):
            base[i] = curve.base[j - 1] + curve.slope[j - 1] * (u - curve.u[j - 1])
        left -= base[i]
    for i in live:
        if left > 0.0 and curves[i].is_book and upto[i]:
            take = min(left, curves[i].base[upto[i] - 1] - base[i])
            base[i] += take
            left -= take
    for i in live:
        curve, j = curves[i], upto[i]
        if left > 0.0 and not curve.is_book and j and state[i] == GATED and opens[i] == u:
            whole = curve.base[j - 1] + curve.slope[j - 1] * (u - curve.u[j - 1])
            base[i] = min(left, whole)
            if left < whole:
                return u, base, i
            left -= whole
    return u, base, -1


def _between(
    curves: Sequence[Curve],
    opens: Sequence[float],
    state: list[int],
    live: list[int],
    low: list[int],
    floor: float,
    quantity: float,
) -> tuple[float, list[float], int] | None:
    """No breakpoint is left between: from the last one on supply is a straight line in u, shared by the pools that are open."""
    base = [0.0] * len(curves)
    slope, left, flowing = 0.0, quantity, []
    for i in live:
        curve, k = curves[i], low[i]
        if not k:
            continue
        if curve.is_book:
            base[i] = curve.base[k - 1]
        elif state[i] == IN or opens[i] <= floor:
            base[i] = curve.base[k - 1] + curve.slope[k - 1] * (floor - curve.u[k - 1])
            slope += curve.slope[k - 1]
            flowing.append(i)
        left -= base[i]
    if slope <= 0.0:
        return None
    for i in flowing:
        base[i] += left * (curves[i].slope[low[i] - 1] / slope)
    return floor + left / slope, base, -1
