"""The network at given worths: what flows, what is left at each node, and the step that would set that right.

The dual value, its gradient and (but for a part that vanishes at the best) its Hessian in the logarithms of worths, which is the
Laplacian of the graph with weights slope * sqrt(worth * worth) / 2. Sources and method: `dual`. Floats, never money.
"""

from math import exp, log, sqrt
from typing import Any

from agent.routing.edges import GATED, OUT, Edges, Work

HOPS_MAX = 4  # over which the first guess looks
_BEFORE = 1.0 - 1e-14  # an edge at its first price counts as open: there the first guess lets all flow


def spot(edges: Edges, state: Any, worth: Any) -> None:
    """Log worths at the best marginal prices, fees included, over a few hops: where nothing has traded yet."""
    nodes = len(worth)
    for v in range(nodes):
        worth[v] = 0.0
    worth[nodes - 1] = 1.0
    for _ in range(HOPS_MAX):
        for e in range(len(edges.tail)):
            if state[e] != OUT:
                z = edges.at[edges.first[e]]
                worth[edges.tail[e]] = max(worth[edges.tail[e]], worth[edges.head[e]] / (z * z))
    worth[nodes - 1] = 1.0
    for v in range(nodes):
        worth[v] = log(worth[v]) if worth[v] > 0.0 else 0.0


def assemble(edges: Edges, work: Work, state: Any, amount: float, u: Any, hold: bool) -> float:
    """The flow at log worths `u`, what is left at each node, the Laplacian; returns the dual value.

    `hold`: every edge stays on the piece where it is, as if that had no end, so that ramps can be followed when they get narrower.
    """
    nodes = len(u)
    last = nodes - 1
    root, grad, hess = work.root, work.grad, work.hess
    for v in range(nodes):
        root[v] = exp(0.5 * u[v])
        grad[v] = 0.0
        for c in range(v * nodes, v * nodes + v + 1):
            hess[c] = 0.0
    value: float = amount * root[0] * root[0]
    grad[0] = value
    for e in range(len(edges.tail)):
        work.paid[e] = 0.0
        work.received[e] = 0.0
        if state[e] == OUT:
            continue
        p, q = edges.tail[e], edges.head[e]
        low = edges.gate_first[e] if state[e] == GATED else edges.first[e]
        j = work.piece[e]
        if hold and j < low:
            continue
        if not hold and root[q] < work.z[low] * root[p] * _BEFORE:
            work.piece[e] = -1
            continue
        high = edges.gate_last[e] if state[e] == GATED else edges.last[e]
        z = root[q] / root[p]
        if not hold:
            if j < low or j >= high:
                j = low
            while j + 1 < high and work.z[j + 1] <= z:
                j += 1
            while j > low and work.z[j] > z:
                j -= 1
            work.piece[e] = j
        rise = work.rise[j]
        paid = edges.taken[j] + rise * (z - work.z[j])
        if hold and edges.width[j] > 0.0:
            received = work.out[j] + (paid - edges.taken[j]) / (edges.at[j + 1] * edges.at[j + 1])
        else:
            received = work.out[j] + rise * (1.0 / work.z[j] - 1.0 / z)
        work.paid[e] = paid
        work.received[e] = received
        paid *= root[p] * root[p]
        received *= root[q] * root[q]
        value += received - paid
        grad[p] -= paid
        grad[q] += received
        weight = 0.5 * root[p] * root[q] * rise
        hess[p * nodes + p] += weight
        hess[q * nodes + q] += weight
        hess[max(p, q) * nodes + min(p, q)] -= weight
    grad[last] = 0.0
    return value


def newton(work: Work, ridge: float) -> float:
    """The step that would leave nothing at any node, if every edge kept its slope; returns the value's slope along it.

    `ridge`, and each node's damping times what is left there, are added to the Laplacian's diagonal, so that it can be solved.
    """
    hess, grad, step = work.hess, work.grad, work.step
    nodes = len(grad)
    count = nodes - 1
    for r in range(count):
        row = r * nodes
        pivot = hess[row + r] * (1.0 + 1e-12) + ridge + work.damp[r] * abs(grad[r])
        if pivot <= 0.0:  # nothing moves here yet
            pivot = abs(grad[r]) + 1e-300
        kept = 1e-14 * pivot
        rest = -grad[r]
        for c in range(r):
            other = c * nodes
            left = hess[row + c]
            for k in range(c):
                left -= hess[row + k] * hess[other + k]
            left /= hess[other + c]
            hess[row + c] = left
            pivot -= left * left
            rest -= left * step[c]
        pivot = sqrt(max(pivot, kept))
        hess[row + r] = pivot
        step[r] = rest / pivot
    for r in range(count - 1, -1, -1):
        row = r * nodes
        step[r] /= hess[row + r]
        for k in range(r):
            step[k] -= hess[row + k] * step[r]
    step[count] = 0.0
    slope = 0.0
    for r in range(count):
        slope += grad[r] * step[r]
    return slope


def residual(edges: Edges, work: Work, amount: float) -> float:
    """The most that is lost or gained at a node, as a part of what is sold."""
    nodes, left, root = len(work.worth), work.grad, work.root
    for v in range(nodes):
        left[v] = 0.0
    whole: float = amount * root[0] * root[0]
    left[0] = whole
    for e in range(len(edges.tail)):
        p, q = edges.tail[e], edges.head[e]
        left[p] -= work.paid[e] * root[p] * root[p]
        left[q] += work.received[e] * root[q] * root[q]
    worst = 0.0
    for v in range(nodes - 1):
        worst = max(worst, abs(left[v]))
    return worst / whole


def certify(edges: Edges, work: Work, state: Any, amount: float) -> float:
    """The dual value at these worths with steps as steps: no trade over these edges brings more."""
    root = work.root
    bound: float = amount * root[0] * root[0]
    for e in range(len(edges.tail)):
        low, high = edges.first[e], edges.last[e]
        p, q = edges.tail[e], edges.head[e]
        z = root[q] / root[p]
        if state[e] == OUT or z <= edges.at[low]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if edges.at[middle] <= z:
                low = middle
            else:
                high = middle
        paid = edges.taken[low] + edges.slope[low] * (z - edges.at[low])
        received = edges.given[low] + edges.slope[low] * (1.0 / edges.at[low] - 1.0 / z)
        gain = received * root[q] * root[q] - paid * root[p] * root[p]
        bound += max(gain - edges.cost[e], 0.0) if state[e] == GATED else gain
    return bound


def most(numbers: Any) -> float:
    """The largest without its sign."""
    found = 0.0
    for v in range(len(numbers)):
        found = max(found, abs(numbers[v]))
    return found
