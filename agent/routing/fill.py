"""Water-filling: the split of a quantity over sources at which every one of them trades up to the same marginal price.

Sources that draw on one balance form a group with a cap; a group whose balance runs out stops early and the others go on. A pool
that must pay gas stays shut until the marginal price has worsened to its threshold, where it opens at once and wide. If the
quantity ends inside such a jump, the answer is a bound that no real split can beat, and `search` decides about that pool. Floats.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import inf

import msgspec

from agent.domain.instrument import Side
from agent.routing.curve import Curve, price_at, quote_for, supply, supply_before, threshold

# shut; opens by itself; gas is paid; trades at least its minimum; opens too easily, for the bound
OUT, GATED, IN, FLOORED, FREE = -1, 0, 1, 2, 3


class Problem(msgspec.Struct, frozen=True):
    """Everything that stays the same while states are tried. Amounts in whole coins.

    `gas[i]` is what using source i costs beside its price, `opens[i]` its threshold. `groups`: the sources of one balance, `caps`:
    what it holds: base when selling, quote when buying; `draws[i]` is how much of it one quote coin after fee takes when buying.
    The last source is the rest that stays untraded: it takes anything, badly.
    """

    side: Side
    quantity: float
    curves: list[Curve]
    gas: list[float]
    opens: list[float]
    groups: list[list[int]]
    caps: list[float]
    draws: list[float]


class Costs(msgspec.Struct, frozen=True):
    """What is fixed: the pools of each chain with the cost of a batch there, and each source's least base amount (books only)."""

    chains: list[tuple[list[int], float]]
    least: list[float]


class Filling(msgspec.Struct, frozen=True):
    """What each source trades. `u[i]`: where it stopped. `torn`: pools left half open. `capped`: groups whose balance ran out."""

    base: list[float]
    u: list[float]
    torn: list[int]
    capped: list[int]


class _Stop(msgspec.Struct, frozen=True):
    """Where a set of sources has reached its target."""

    u: float
    base: dict[int, float]
    torn: list[int]


class Bounds(msgspec.Struct, frozen=True):
    """What the search needs when balances run out. `points`: all breakpoints and thresholds, rising, up to the rest's price.

    `loose` and `opens` are for pools in state FREE: gas by a factor that is surely too small, and its thresholds.
    """

    points: list[float]
    loose: float
    opens: list[float]


def bounds_of(problem: Problem) -> Bounds:
    """Buying: no balance's own marginal price is below the best price, nor the common one above the rest's."""
    curves, end, loose, opens = problem.curves, problem.curves[-1].u[0], 1.0, problem.opens
    if problem.side == "buy" and len(curves) > 1:
        loose = min(price_at(curve.u[0]) for curve in curves[:-1]) / price_at(end)
        opens = [threshold(c, gas * loose, problem.side) for c, gas in zip(curves[:-1], problem.gas[:-1], strict=True)] + [end]
    breaks = (u for curve in curves for u in curve.u)
    return Bounds(sorted({u for u in (*breaks, *problem.opens, *opens) if u < end} | {end}), loose, opens)


def fill(problem: Problem, bounds: Bounds, state: Sequence[int], curves: Sequence[Curve]) -> Filling | None:
    """The best split for these states, or None if what is forced in already exceeds the quantity or a balance.

    `curves` are the problem's, some of them floored.
    """
    points, stops = bounds.points, dict[int, _Stop]()
    live = [[i for i in group if state[i] != OUT and curves[i].u] for group in problem.groups]
    if any(curves[i].u[0] == -inf for group in live for i in group):
        points = [-inf, *points]
    gate = [_gate(problem, bounds, i, now) for i, now in enumerate(state)]
    for number, group in enumerate(live):
        cap = problem.caps[number]
        if cap == inf or not group:
            continue
        stop = _stop(problem, curves, gate, group, points, cap, in_quote=problem.side == "buy")
        if stop is None:
            continue
        if stop.u == -inf:
            return None
        stops[number] = stop
    return _join(problem, curves, gate, live, stops, points)


def value(problem: Problem, bounds: Bounds, filling: Filling, state: Sequence[int], curves: Sequence[Curve]) -> float:
    """Its worth in quote coins after gas, negative when buying. Torn pools count at the marginal price: then it is a bound."""
    sign = 1 if problem.side == "sell" else -1
    total = 0.0
    for i, base in enumerate(filling.base):
        if i in filling.torn:
            total += sign * base * price_at(filling.u[i])
        elif base > 0:
            total += sign * quote_for(curves[i], base)
        if state[i] == IN or (state[i] == GATED and base > 0 and i not in filling.torn):
            total -= problem.gas[i]
        elif state[i] == FREE and base > 0 and i not in filling.torn:
            total -= problem.gas[i] * bounds.loose
    return total


def drawn(problem: Problem, i: int, base: float) -> float:
    """What source i takes from its balance for `base` coins: base when selling, quote when buying."""
    return _use(problem, problem.curves[i], i, base, problem.side == "buy")


def _gate(problem: Problem, bounds: Bounds, i: int, now: int) -> float:
    if now == GATED:
        return problem.opens[i]
    return bounds.opens[i] if now == FREE else -inf


def _join(
    problem: Problem,
    curves: Sequence[Curve],
    gate: Sequence[float],
    live: Sequence[Sequence[int]],
    stops: dict[int, _Stop],
    points: list[float],
) -> Filling | None:
    """All groups together: those that stop early are fixed from their stop on."""
    if stops:
        points = list(points)
        for stop in stops.values():
            insort(points, stop.u)
    free = [i for number, group in enumerate(live) if number not in stops for i in group]
    held = [(live[number], stop.u, sum(stop.base.values())) for number, stop in stops.items()]

    def total(u: float) -> float:
        found = sum(_at(curves[i], gate[i], u) for i in free)
        for group, stop_u, base in held:
            found += base if u >= stop_u else sum(_at(curves[i], gate[i], u) for i in group)
        return found

    place = bisect_left(points, problem.quantity, key=total)
    u = points[min(place, len(points) - 1)]
    if u == -inf and total(u) > problem.quantity * (1 + 1e-9):
        return None
    flowing = free + [i for group, stop_u, _ in held if u <= stop_u for i in group]
    fixed = {i: base for number, stop in stops.items() if u > stop.u for i, base in stop.base.items()}
    heads = [(stops[number], live[number]) for number in stops if u == stops[number].u]
    end = _settle(
        problem, curves, gate, flowing, problem.quantity - sum(fixed.values()), points, place, in_quote=False, heads=heads
    )
    base, us = [0.0] * len(curves), [end.u] * len(curves)
    for i, amount in (fixed | end.base).items():
        base[i] = amount
    torn, capped = list(end.torn), [number for number, stop in stops.items() if u > stop.u]
    for number in capped:
        torn.extend(stops[number].torn)
        for i in live[number]:
            us[i] = stops[number].u
    return Filling(base, us, torn, capped)


def _stop(
    problem: Problem,
    curves: Sequence[Curve],
    gate: Sequence[float],
    group: list[int],
    points: list[float],
    cap: float,
    *,
    in_quote: bool,
) -> _Stop | None:
    """Where a group has used up its balance; None if it never does."""

    def used(u: float) -> float:
        return sum(_use(problem, curves[i], i, _at(curves[i], gate[i], u), in_quote) for i in group)

    if used(points[-1]) <= cap:
        return None
    place = bisect_left(points, cap, key=used)
    if points[place] == -inf:
        return _Stop(-inf, {}, [])
    return _settle(problem, curves, gate, group, cap, points, place, in_quote=in_quote, heads=[])


def _settle(
    problem: Problem,
    curves: Sequence[Curve],
    gate: Sequence[float],
    group: Sequence[int],
    target: float,
    points: list[float],
    place: int,
    *,
    in_quote: bool,
    heads: Sequence[tuple[_Stop, Sequence[int]]],
) -> _Stop:
    """Between the last two points supply is a straight line, or it jumps at the second: take exactly what the target leaves.

    `heads`: groups whose balance ends exactly here, so that they may take no more of the jump than it holds.
    """
    u = points[min(place, len(points) - 1)]
    before = {i: _before(curves[i], gate[i], u) for i in group}
    use = {i: _use(problem, curves[i], i, base, in_quote) for i, base in before.items()}
    excess = sum(use.values()) - target
    if excess > 0 and place > 0:
        inside = _inside(problem, curves, gate, group, target, points[place - 1], u, in_quote)
        if inside is not None:
            return inside
    left, torn, price = max(-excess, 0.0), [], price_at(u)
    room = {i: _Room(stop, members, before) for stop, members in heads for i in members}
    for i in sorted(group, key=lambda i: not curves[i].is_book):  # books first: a level can be taken in part, a pool not
        if left <= 0:
            break
        rate = (price if in_quote else 1.0) * (problem.draws[i] if in_quote else 1.0)
        jump = _at(curves[i], gate[i], u) - before[i]
        most = min(jump, room[i].left) if i in room else jump
        if most <= 0:
            continue
        take = min(most, left / rate)
        before[i] += take
        left -= take * rate
        if i in room:
            room[i].left -= take
        if take < jump and not curves[i].is_book:
            torn.append(i)
    return _Stop(u, before, torn)


class _Room:
    """What a group may still take at the point where its balance ends. Shared by its members."""

    def __init__(self, stop: _Stop, members: Sequence[int], before: dict[int, float]) -> None:
        self.left = sum(stop.base.values()) - sum(before.get(i, 0.0) for i in members)


def _inside(
    problem: Problem,
    curves: Sequence[Curve],
    gate: Sequence[float],
    group: Sequence[int],
    target: float,
    low: float,
    high: float,
    in_quote: bool,
) -> _Stop | None:
    """The target lies strictly between two points: solve the straight line (in u for base, in 1/u for quote)."""
    at_low = {i: _at(curves[i], gate[i], low) for i in group}
    left = target - sum(_use(problem, curves[i], i, base, in_quote) for i, base in at_low.items())
    slope = 0.0
    for i in group:
        if not curves[i].is_book and gate[i] <= low and curves[i].u[0] <= low:
            slope += curves[i].slope[bisect_right(curves[i].u, low) - 1] * (problem.draws[i] if in_quote else 1.0)
    if slope <= 0:
        return None
    u = 1 / (1 / low - left / slope) if in_quote else low + left / slope
    u = min(max(u, low), high)
    return _Stop(u, {i: _at(curves[i], gate[i], u) if u < high else _before(curves[i], gate[i], u) for i in group}, [])


def _at(curve: Curve, gate: float, u: float) -> float:
    return supply(curve, u) if u >= gate else 0.0


def _before(curve: Curve, gate: float, u: float) -> float:
    return supply_before(curve, u) if u > gate else 0.0


def _use(problem: Problem, curve: Curve, i: int, base: float, in_quote: bool) -> float:
    if not in_quote or base <= 0:
        return base
    return quote_for(curve, base) * problem.draws[i]
