"""Steps as ramps: book levels, and the jumps with which pools open that must pay gas, on their way to being steps again.

A ramp is followed while it gets narrower, and at last pinned: there the flow itself is solved for. How much that is off: `dual`.
Floats, never money.
"""

from math import exp
from typing import Any

from agent.routing.edges import GATED, OUT, Edges, Work
from agent.routing.laplacian import assemble, most, newton, residual

PINNED = 1e-9  # the last width
PINS_MAX = 8  # times, as edges may turn out to lie beside their ramps
_STRAY = 1e-3  # in log worth: a last step that goes further is noise
NEAR = 1e-6  # of the value: what may be left at a node before `pin`; worths have too few digits for more on a ramp
RIDGE = 1e-4  # of the value, for nodes that nothing but levels of books holds


def sharpen(edges: Edges, work: Work, width: float) -> None:
    """Lay the ramps out, none wider than `width`; what they bring too much stays in the pieces behind them."""
    for k in range(len(edges.steps) // 2):
        extra = 0.0
        for j in range(edges.steps[2 * k], edges.steps[2 * k + 1]):
            work.z[j] = edges.at[j]
            work.out[j] = edges.given[j] + extra
            work.rise[j] = edges.slope[j]
            if edges.width[j] > 0.0:
                end = edges.at[j + 1]
                size = edges.taken[j + 1] - edges.taken[j]
                work.z[j] = end * (1.0 - min(edges.width[j], width))
                work.rise[j] = size / (end - work.z[j])
                extra += size / end * (1.0 / work.z[j] - 1.0 / end)


def follow(edges: Edges, work: Work, state: Any, amount: float) -> float:
    """After ramps got narrower: keep what flows over them, if that is better than to keep the worths; returns the value."""
    u, trial = work.worth, work.trial
    value = assemble(edges, work, state, amount, u, True)
    newton(work, RIDGE * value)
    for v in range(len(u)):
        trial[v] = u[v] + work.step[v]
    if most(work.step) > 1.0:
        return assemble(edges, work, state, amount, u, False)
    after = assemble(edges, work, state, amount, trial, False)
    before = assemble(edges, work, state, amount, u, False)
    if after < before:
        for v in range(len(u)):
            u[v] = trial[v]
        before = assemble(edges, work, state, amount, u, False)
    return before


def finish(edges: Edges, work: Work, state: Any, amount: float, width: float, ridge: float) -> float:
    """Pin the flow down, and go back to the flow at the last width where that fails; returns the residual."""
    for v in range(len(work.worth)):
        work.trial[v] = work.worth[v]
    sharpen(edges, work, PINNED)
    pin(edges, work, state, amount, ridge)
    left = residual(edges, work, amount)
    if left > NEAR:
        for v in range(len(work.worth)):
            work.worth[v] = work.trial[v]
        sharpen(edges, work, width)
        assemble(edges, work, state, amount, work.worth, False)
        left = residual(edges, work, amount)
    return left


def pin(edges: Edges, work: Work, state: Any, amount: float, ridge: float) -> None:
    """The last step, to ramps so narrow that worths have too few digits for what flows: in the flow itself, by straight lines."""
    for again in range(PINS_MAX):
        assemble(edges, work, state, amount, work.worth, True)
        newton(work, ridge)
        if most(work.step) > _STRAY:
            break
        moved = False
        for e in range(len(edges.tail)):
            j = work.piece[e]
            if state[e] != OUT and j >= 0:
                p, q = edges.tail[e], edges.head[e]
                z = work.root[q] / work.root[p]
                more = work.rise[j] * 0.5 * z * (work.step[q] - work.step[p])
                work.paid[e] += more
                work.received[e] += more / (z * z)
                if edges.width[j] > 0.0:
                    moved = leave(edges, work, state, e) or moved
        for v in range(len(work.worth)):
            work.worth[v] += work.step[v]
        if again and not moved:  # the first time the worths are still so far that straight lines are not exact
            break
    for v in range(len(work.worth)):
        work.root[v] = exp(0.5 * work.worth[v])


def leave(edges: Edges, work: Work, state: Any, e: int) -> bool:
    """Whether an edge had to leave its ramp, as more or less than all of it would flow. If not, the step's own price counts."""
    j = work.piece[e]
    before, after = edges.taken[j], edges.taken[j + 1]
    slack = 1e-6 * (after - before)
    if work.paid[e] > after + slack:
        work.piece[e] = j + 1
        return True
    if work.paid[e] < before - slack:
        low = edges.gate_first[e] if state[e] == GATED else edges.first[e]
        work.piece[e] = j - 1 if j > low else -1
        return True
    work.paid[e] = min(max(work.paid[e], before), after)
    work.received[e] = edges.given[j] + (work.paid[e] - before) / (edges.at[j + 1] * edges.at[j + 1])
    return False
