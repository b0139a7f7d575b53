"""Steps as ramps: book levels, and the jumps with which pools open that must pay gas, on their way to being steps again.

A ramp is followed while it gets narrower, and at last pinned: there the flow itself is solved for. How much that is off: `dual`.
Floats, never money.
"""

from math import exp
from typing import Any

from agent.routing.edges import GATED, OUT, Edges, Work
from agent.routing.laplacian import assemble, most, newton, residual

PINNED = 1e-9  # the last width
PINS_MAX = 24  # times, as edges may turn out to lie beside their ramps
_STRAY = 1e-3  # in log worth: a last step that goes further is noise
DONE = 1e-8  # of the value: what may be left at a node in the end
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
    if left > DONE:
        for v in range(len(work.worth)):
            work.worth[v] = work.trial[v]
        sharpen(edges, work, width)
        assemble(edges, work, state, amount, work.worth, False)
        for e in range(len(edges.tail)):
            if state[e] != OUT and work.piece[e] >= 0:
                over(edges, work, state, e)  # what comes out without the ramps
        left = residual(edges, work, amount)
    return left


def pin(edges: Edges, work: Work, state: Any, amount: float, ridge: float) -> None:
    """The last step, to ramps so narrow that worths have too few digits for what flows: in the flow itself, by straight lines."""
    for again in range(PINS_MAX):
        assemble(edges, work, state, amount, work.worth, True)
        newton(work, ridge)
        if most(work.step) > _STRAY:
            break
        worst, chosen, way = 0.0, -1, 0
        for e in range(len(edges.tail)):
            j = work.piece[e]
            if state[e] != OUT and j >= 0:
                p, q = edges.tail[e], edges.head[e]
                z = work.root[q] / work.root[p]
                work.paid[e] += work.rise[j] * 0.5 * z * (work.step[q] - work.step[p])
                beyond = over(edges, work, state, e) * work.root[p] * work.root[p]
                if abs(beyond) > worst:
                    worst, chosen, way = abs(beyond), e, 1 if beyond > 0.0 else -1
        if chosen >= 0:  # one at a time: of two that are equal only one has to leave
            low = edges.gate_first[chosen] if state[chosen] == GATED else edges.first[chosen]
            j = work.piece[chosen] + way
            work.piece[chosen] = j if j >= low else -1
        for v in range(len(work.worth)):
            work.worth[v] += work.step[v]
        if again and chosen < 0:  # the first time the worths are still so far that straight lines are not exact
            break
    for v in range(len(work.worth)):
        work.root[v] = exp(0.5 * work.worth[v])


def over(edges: Edges, work: Work, state: Any, e: int) -> float:
    """How much more than an edge's piece holds would flow, or (negative) less; 0: it fits, and its curve says what comes out."""
    j = work.piece[e]
    high = edges.gate_last[e] if state[e] == GATED else edges.last[e]
    before, slack = edges.taken[j], 1e-12 * edges.slope[j] * edges.at[j]
    if j + 1 < high:
        after = edges.taken[j + 1]
        slack = 1e-6 * (after - before)
        if work.paid[e] > after + slack:
            return float(work.paid[e] - after)
        work.paid[e] = min(work.paid[e], after)
    if work.paid[e] < before - slack:
        return float(work.paid[e] - before)
    work.paid[e] = max(work.paid[e], before)
    work.received[e] = edges.given[j]
    if edges.width[j] > 0.0:
        work.received[e] += (work.paid[e] - before) / (edges.at[j + 1] * edges.at[j + 1])
    elif edges.slope[j] > 0.0:
        z = edges.at[j] + (work.paid[e] - before) / edges.slope[j]
        work.received[e] += edges.slope[j] * (1.0 / edges.at[j] - 1.0 / z)
    return 0.0
