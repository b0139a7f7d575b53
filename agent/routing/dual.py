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
from typing import Any

from agent.routing.edges import Edges, Flow, Solver, Work
from agent.routing.laplacian import assemble, certify, most, newton, residual, spot
from agent.routing.ramps import DONE, NEAR, RIDGE, finish, follow, sharpen

WIDTHS = (1.0, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7, 1e-8)  # of ramps, relative to z
ROUNDS_MAX = 40  # of Newton's method for one width
_CLOSE = 1e-10  # of the value: what may be left at a node
_FLOOR = 1e-14  # of the value: a step that changes less is judged by what is left
HALVINGS_MAX = 40
# What is added to the Laplacian's diagonal. DAMPS, of what is left at the node: where nothing says how far to go, the step is one
# over that. One for each try; from the second on it grows by GROWTH where a node goes to and fro, so as not to hold up the others.
DAMPS = (1.0, 0.1, 1.0, 0.01)
GROWTH = 4.0
_DAMP_MAX = 1e6
_LEAST = 1e-9  # of the value, in any case
_LOST = 1e-3  # of the value: more than this left at a node is no answer


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


def descend(
    edges: Edges,
    work: Work,
    state: Any,
    amount: float,
    value: float,
    close: float,
    reach: float,
    ridge: float,
    damp: float,
    growth: float,
) -> tuple[int, float]:
    """Newton's method with halving, for ramps as they lie: (rounds, value). The flow is assembled on entry and on return.

    `close`: how much may be left at a node, of the value. `reach`: the longest step. `ridge`, `damp`: see `newton`.
    """
    u, trial, step = work.worth, work.trial, work.step
    nodes = len(u)
    rounds = 0
    for v in range(nodes):
        work.damp[v] = damp
    worst = most(work.grad)
    while worst > close * value and rounds < ROUNDS_MAX:
        rounds += 1
        for v in range(nodes):
            work.before[v] = work.grad[v]
        slope = shorten(work, newton(work, ridge), reach)
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
            again = work.before[v] * work.grad[v] < 0.0
            work.damp[v] = min(work.damp[v] * growth, _DAMP_MAX) if again else max(0.5 * work.damp[v], damp)
        value, worst = after, most(work.grad)
    for v in range(nodes):
        work.damp[v] = 0.0
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


def solve(edges: Edges, work: Work, state: Any, amount: float, widths: Any, cold: bool) -> tuple[float, float, int]:
    """Minimise the dual from `work.worth`, or (cold) from spot prices, until what flows in flows out: (bound, residual, rounds)."""
    rounds = 0
    left = 0.0
    for k in range(len(DAMPS)):
        if cold or k:
            spot(edges, state, work.worth)
        more, left = narrow(edges, work, state, amount, widths, DAMPS[k], GROWTH if k else 1.0)
        rounds += more
        if left <= DONE:
            break
    return certify(edges, work, state, amount), left, rounds


def narrow(edges: Edges, work: Work, state: Any, amount: float, widths: Any, damp: float, growth: float) -> tuple[int, float]:
    """The minimum for ever narrower ramps: (rounds, residual)."""
    if not len(edges.steps):
        sharpen(edges, work, widths[0])
        value = assemble(edges, work, state, amount, work.worth, False)
        rounds, value = descend(edges, work, state, amount, value, _CLOSE, 1.0, _LEAST * value, damp, growth)
        return rounds, residual(edges, work, amount)
    rounds = 0
    width = widths[0]
    for stage in range(len(widths)):
        for v in range(len(work.worth)):
            work.kept[v] = work.worth[v]
        sharpen(edges, work, widths[stage])
        value = follow(edges, work, state, amount) if stage else assemble(edges, work, state, amount, work.worth, False)
        reach = 30.0 * widths[stage - 1] if stage else 1.0
        ridge = RIDGE * value if stage else 0.0
        more, value = descend(edges, work, state, amount, value, NEAR, min(reach, 1.0), ridge, damp, growth)
        rounds += more
        if stage and most(work.grad) > _LOST * value:  # too narrow for it: pin from the width before
            for v in range(len(work.worth)):
                work.worth[v] = work.kept[v]
            sharpen(edges, work, width)
            value = assemble(edges, work, state, amount, work.worth, False)
            break
        width = widths[stage]
    return rounds, finish(edges, work, state, amount, width, RIDGE * value)
