"""Which sources to use at all: the fixed costs. Gas is paid or it is not, and a book's minimum order is reached or it is not.

Branch and bound: solve with every pool opening by itself. Usually no pool is left half open and that *is* the optimum; otherwise
decide about that one pool, in or out, and solve again; give up a branch whose bound is no better than the best answer known. A book
below its minimum is decided in the same way. Dropping what does not pay, one by one, is simpler and wrong: 72 bps with dear gas.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import product
from math import inf

import msgspec

from agent.routing import kernel
from agent.routing.curve import Curve, floored
from agent.routing.fill import FLOORED, FREE, GATED, IN, OUT, Bounds, Costs, Filling, Problem, bounds_of, drawn, fill, value
from agent.routing.kernel import NODES_MAX, TIE, Found

ENOUGH = 1 - 1e-12  # of a minimum, in floats

Search = Callable[[Problem, Costs, Collection[int]], Found | None]


class Choice(msgspec.Struct, frozen=True):
    """A split, and its worth in quote coins after all gas (negative when buying, the untraded rest counted at its bad price)."""

    worth: float
    filling: Filling
    state: tuple[int, ...]


def choose(problem: Problem, costs: Costs, out: frozenset[int] = frozenset(), search: Search = kernel.search) -> Choice | None:
    """The best split without the sources in `out`, over every set of chains that may be used.

    Mostly no balance runs out and no book is below its minimum; then the everyday search has the answer. Otherwise all that it
    leaves out is looked at. `search`: the everyday search, plain or compiled.
    """
    found = search(problem, costs, out)
    if found is not None and _fits(problem, costs, found.base):
        return Choice(found.worth, Filling(found.base, [found.u] * len(found.base), [], []), tuple(found.state))
    best: Choice | None = None
    bounds = bounds_of(problem)
    for uses in product((True, False), repeat=len(costs.chains)):
        shut, fixed = set(out), 0.0
        for used, (pools, batch) in zip(uses, costs.chains, strict=True):
            if used:
                fixed += batch
            else:
                shut.update(pools)
        best = _search(problem, costs, bounds, shut, fixed, best)
    return best


def _fits(problem: Problem, costs: Costs, base: Sequence[float]) -> bool:
    """Whether a split keeps within every balance and above every minimum."""
    for amount, least in zip(base, costs.least, strict=True):
        if 0.0 < amount < least * ENOUGH:
            return False
    for group, cap in zip(problem.groups, problem.caps, strict=True):
        if cap < inf and sum([drawn(problem, i, base[i]) for i in group if base[i] > 0.0]) > cap:
            return False
    return True


def _search(problem: Problem, costs: Costs, bounds: Bounds, shut: set[int], fixed: float, best: Choice | None) -> Choice | None:
    start = tuple(OUT if i in shut else IN if gas <= 0 and not c.is_book else GATED for i, (gas, c) in _each(problem))
    stack, nodes = [start], 0
    while stack and nodes < NODES_MAX:
        state = stack.pop()
        nodes += 1
        curves = _curves(problem, costs, state)
        filling = fill(problem, bounds, state, curves)
        if filling is None:
            continue
        relaxed = _relaxed(problem, filling, state)
        if relaxed != state:
            stack.append(relaxed)
            continue
        worth = value(problem, bounds, filling, state, curves) - fixed
        if best is not None and worth <= best.worth + TIE * abs(best.worth):
            continue
        branches = _branches(costs, filling, state)
        stack.extend(branches)
        if not branches:
            best = Choice(worth, filling, state)
    return best


def _each(problem: Problem) -> list[tuple[int, tuple[float, Curve]]]:
    return list(enumerate(zip(problem.gas, problem.curves, strict=True)))


def _curves(problem: Problem, costs: Costs, state: Sequence[int]) -> Sequence[Curve]:
    if FLOORED not in state:
        return problem.curves
    return [floored(curve, costs.least[i]) if state[i] == FLOORED else curve for i, curve in enumerate(problem.curves)]


def _relaxed(problem: Problem, filling: Filling, state: tuple[int, ...]) -> tuple[int, ...]:
    """Buying with a balance that runs out, a quote coin there is worth more than one of gas (by the marginal price over its own).

    So the thresholds mislead: let its pools open too easily, which gives a bound, and decide about each one that is used.
    """
    if problem.side == "sell" or not filling.capped:
        return state
    doubtful = {i for number in filling.capped for i in problem.groups[number] if state[i] == GATED and problem.gas[i] > 0}
    return tuple(FREE if i in doubtful else now for i, now in enumerate(state))


def _branches(costs: Costs, filling: Filling, state: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Out and in for one source that is undecided, the promising one last (it is looked at first); empty: nothing is."""
    for i, base in enumerate(filling.base):
        if i in filling.torn or (state[i] == FREE and base > 0):
            return [_with(state, i, OUT), _with(state, i, IN)]
    for i, base in enumerate(filling.base):
        if state[i] == GATED and 0 < base < costs.least[i] * ENOUGH:
            return [_with(state, i, OUT), _with(state, i, FLOORED)]
    return []


def _with(state: tuple[int, ...], i: int, choice: int) -> tuple[int, ...]:
    return (*state[:i], choice, *state[i + 1 :])
