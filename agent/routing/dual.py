"""What a coin is worth at every place of a network: the prices at which all that is sold flows through, and the flow itself.

Every edge swaps coins of its `tail` for coins of its `head`. With w the worth of a coin in coins that are bought, an edge trades
until its marginal price is w[tail] / w[head]; the best worths are those at which each place sends on what arrives (Diamandis,
Resnick, Chitra and Angeris, "An Efficient Algorithm for Optimal Routing Through CFMMs", arXiv 2302.04938: the dual; Newton's method
on the graph's Laplacian, the pieces and the steps are ours). The dual value of any worths is a bound that no trade can beat.

An edge is the curve of `routing.curve` from its tail's side: input is a straight line between breakpoints in z = 1/sqrt(marginal
price). A book level (and the jump with which a pool opens that must pay gas) is a step: it is solved as a ramp of relative width h
just before its z, wide at first, `PINNED` in the end. A ramp trades at prices at most 2 h better than the step's, so what it
brings is off by at most 2 h of what is traded on steps that are taken in part: 2e-5 bps a hop.

The functions run as they are on lists (`plain`) and compiled on arrays (`network_fast`): the same operations, the same answer.
Floats, never money.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

from agent.routing.edges import GATED, OUT, Edges, Flow, Solver, Work

WIDTHS = (1.0, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7, 1e-8)  # of ramps, relative to z
PINNED = 1e-9  # the last width
HOPS_MAX = 4  # over which the first guess looks
ROUNDS_MAX = 40  # of Newton's method for one width
_CLOSE = 1e-10  # of the value: what may be left at a node
_NEAR = 1e-6  # the same where there are ramps: worths have too few digits for more there, `pin` does the rest
_FLOOR = 1e-14  # of the value: a step that changes less is judged by what is left
HALVINGS_MAX = 40
_BEFORE = 1.0 - 1e-14  # an edge at its first price counts as open: there the first guess lets all flow
PINS_MAX = 8
_STRAY = 1e-3  # in log worth: a last step that goes further is noise
# What is added to the Laplacian's diagonal. Of what is left at the node: so that where nothing yet says how far to go, the step is
# about one over that; the next is for a second and a third try. Of the value: for nodes that only levels of books hold.
DAMPS = (1.0, 0.1, 0.0)
_LEAST = 1e-9
_RIDGE = 1e-4


def plain(edges: Edges, nodes: int, amount: float) -> Solver:
    """Solves for states of the edges, from given log worths or from spot prices, in plain Python."""
    pieces, count = len(edges.at), len(edges.tail)
    work = Work(
        list(edges.at),
        list(edges.given),
        list(edges.slope),
        list(edges.first),
        [0.0] * count,
        [0.0] * count,
        [0.0] * nodes,
        [0.0] * nodes,
        [0.0] * nodes,
        [0.0] * nodes,
        [0.0] * nodes,
        [0.0] * (nodes * nodes),
    )
    assert pieces == len(edges.width), "every piece has a width"

    def run(state: Sequence[int], start: Sequence[float] | None) -> Flow:
        if start is not None:
            work.worth[:] = start
        bound, residual, rounds = solve(edges, work, state, amount, WIDTHS, start is None)
        return Flow(list(work.paid), list(work.received), list(work.worth), bound, residual, rounds)

    return run


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
        low, high = edges.first[e], edges.last[e]
        if state[e] == GATED:
            low, high = edges.gate_first[e], edges.gate_last[e]
        j = work.piece[e]
        if hold and j < low:
            continue
        if not hold and root[q] < work.z[low] * root[p] * _BEFORE:
            work.piece[e] = -1
            continue
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


def newton(work: Work, ridge: float, damp: float) -> float:
    """The step that would leave nothing at any node, if every edge kept its slope; returns the value's slope along it.

    `ridge`, and `damp` times what is left at a node, are added to the Laplacian's diagonal, so that it can be solved.
    """
    hess, grad, step = work.hess, work.grad, work.step
    nodes = len(grad)
    count = nodes - 1
    for r in range(count):
        row = r * nodes
        pivot = hess[row + r] * (1.0 + 1e-12) + ridge + damp * abs(grad[r])
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


def descend(
    edges: Edges, work: Work, state: Any, amount: float, value: float, close: float, reach: float, ridge: float, damp: float
) -> tuple[int, float]:
    """Newton's method with halving, for ramps as they lie: (rounds, value). The flow is assembled on entry and on return.

    `close`: how much may be left at a node, of the value. `reach`: the longest step. `ridge`, `damp`: see `newton`.
    """
    u, trial, step = work.worth, work.trial, work.step
    nodes = len(u)
    rounds = 0
    worst = most(work.grad)
    while worst > close * value and rounds < ROUNDS_MAX:
        rounds += 1
        slope = shorten(work, newton(work, ridge, damp), reach)
        part = 1.0
        found = False
        for _ in range(HALVINGS_MAX):
            for v in range(nodes):
                trial[v] = u[v] + part * step[v]
            after = assemble(edges, work, state, amount, trial, False)
            ahead = 0.0
            for v in range(nodes):
                ahead += work.grad[v] * step[v]
            flat = abs(after - value) <= _FLOOR * value
            found = ahead <= 0.0 or (ahead <= -0.5 * slope if flat else after <= value + 1e-4 * part * slope)
            if found:
                break
            # Without ramps a straight line tells best how far to go back, but only once.
            part *= min(max(slope / (slope - ahead), 0.1), 0.9) if part == 1.0 and not len(edges.steps) else 0.5
        if not found:
            assemble(edges, work, state, amount, u, False)
            break
        for v in range(nodes):
            u[v] = trial[v]
        value, worst = after, most(work.grad)
    return rounds, value


def shorten(work: Work, slope: float, reach: float) -> float:
    """Bound a step node by node, as one that nothing holds would stop all others; as a whole where that leads uphill."""
    step, grad = work.step, work.grad
    longest = most(step)
    if longest <= reach:
        return slope
    after = 0.0
    for v in range(len(step)):
        after += grad[v] * min(max(step[v], -reach), reach)
    if after >= 0.0:
        for v in range(len(step)):
            step[v] *= reach / longest
        return slope * reach / longest
    for v in range(len(step)):
        step[v] = min(max(step[v], -reach), reach)
    return after


def most(numbers: Any) -> float:
    """The largest without its sign."""
    found = 0.0
    for v in range(len(numbers)):
        found = max(found, abs(numbers[v]))
    return found


def solve(edges: Edges, work: Work, state: Any, amount: float, widths: Any, cold: bool) -> tuple[float, float, int]:
    """Minimise the dual from `work.worth` on, or (cold) from spot prices, until what flows in flows out: (bound, residual, rounds)."""
    rounds = 0
    left = 0.0
    for k in range(len(DAMPS)):
        if cold or k:
            spot(edges, state, work.worth)
        more, left = narrow(edges, work, state, amount, widths, DAMPS[k])
        rounds += more
        if left <= _NEAR:
            break
    return certify(edges, work, state, amount), left, rounds


def narrow(edges: Edges, work: Work, state: Any, amount: float, widths: Any, damp: float) -> tuple[int, float]:
    """The minimum for ever narrower ramps: (rounds, residual)."""
    if not len(edges.steps):
        sharpen(edges, work, widths[0])
        value = assemble(edges, work, state, amount, work.worth, False)
        rounds, value = descend(edges, work, state, amount, value, _CLOSE, 1.0, _LEAST * value, damp)
        return rounds, residual(edges, work, amount)
    rounds = 0
    for stage in range(len(widths)):
        sharpen(edges, work, widths[stage])
        value = follow(edges, work, state, amount) if stage else assemble(edges, work, state, amount, work.worth, False)
        reach = 30.0 * widths[stage - 1] if stage else 1.0
        ridge = _RIDGE * value if stage else 0.0
        more, value = descend(edges, work, state, amount, value, _NEAR, min(reach, 1.0), ridge, damp)
        rounds += more
    return rounds, finish(edges, work, state, amount, widths[len(widths) - 1], _RIDGE * value)


def finish(edges: Edges, work: Work, state: Any, amount: float, width: float, ridge: float) -> float:
    """Pin the flow down, and go back to the flow at the last width where that fails; returns the residual."""
    for v in range(len(work.worth)):
        work.trial[v] = work.worth[v]
    sharpen(edges, work, PINNED)
    pin(edges, work, state, amount, ridge)
    left = residual(edges, work, amount)
    if left > _NEAR:
        for v in range(len(work.worth)):
            work.worth[v] = work.trial[v]
        sharpen(edges, work, width)
        assemble(edges, work, state, amount, work.worth, False)
        left = residual(edges, work, amount)
    return left


def follow(edges: Edges, work: Work, state: Any, amount: float) -> float:
    """After ramps got narrower: keep what flows over them, if that is better than to keep the worths; returns the value."""
    u, trial = work.worth, work.trial
    value = assemble(edges, work, state, amount, u, True)
    newton(work, _RIDGE * value, 0.0)
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


def pin(edges: Edges, work: Work, state: Any, amount: float, ridge: float) -> None:
    """The last step, to ramps so narrow that worths have too few digits for what flows: in the flow itself, by straight lines."""
    for again in range(PINS_MAX):
        assemble(edges, work, state, amount, work.worth, True)
        newton(work, ridge, 0.0)
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
