"""An order through a network of 200 pools between 20 tokens, beside scipy's L-BFGS-B on the same dual, and cvxpy with Clarabel.

What is timed is the search: from reserves that are in the solver's lists to the flow through every pool, its first prices included;
scipy begins at the fair prices, which ours is not told. All solve the same problem, arbitrage through any token allowed, and must
agree before anything is timed.
"""

from collections.abc import Callable, Iterator
from math import sqrt

from agent.routing.dual import plain
from agent.routing.edges import OPEN, Edges, Flow
from agent.routing.network_fast import fast
from benchmarks.measure import Result, Turn, alternately, beside, calls_of
from benchmarks.networks import Network, build_network
from benchmarks.peers.child import Child, peer

TOKENS, POOLS, INSTANCES, SEED = 20, 200, 12, 0
CALLS = {"plain": 20, "[fast]": 250}  # 12 x 250 calls: enough for a p99
RESIDUAL_MAX = 1e-8  # of the order's value: lost or gained at a token
AGREE = 1e-6  # relative: a hundredth of a basis point
JOBS = {
    "scipy L-BFGS-B, pools in numpy": ("lbfgsb", {"count": 5, "compiled": False}),
    "scipy L-BFGS-B, pools in numba": ("lbfgsb", {"count": 5, "compiled": True}),
    "cvxpy + Clarabel": ("network_cvxpy", {"count": 1}),
}


def run(instances: int = INSTANCES) -> list[Result]:
    missing: dict[str, str] = {}
    networks = [build_network(TOKENS, POOLS, SEED + k) for k in range(instances)]
    with peer("solvers", missing) as solvers:
        for number, network in enumerate(networks):
            check(network, SEED + number, solvers)
        found = alternately(_turns([networks[0], *networks], solvers))
    rows = []
    for name in CALLS:
        if name in found:
            what = f"{TOKENS} tokens, {POOLS} pools, cold: {name}"
            rows += [beside(what, found[name], title, found.get(title), missing.get("solvers", "")) for title in JOBS]
    if "[fast]" in found:
        rows.append(beside(f"{TOKENS} tokens, {POOLS} pools, cold: [fast]", found["[fast]"], "ours, plain", found["plain"]))
    return rows


def check(network: Network, seed: int, solvers: Child | None) -> None:
    """The flow is one, attains its bound, and is what the peers find. AssertionError with the seed where not."""
    edges = edges_of(network)
    for name, search in searches(network).items():
        flow = search()
        assert flow.residual <= RESIDUAL_MAX, f"seed {seed}, {name}: {flow.residual} is lost on the way"
        assert abs(brought(edges, flow) - flow.bound) <= 1e-9 * flow.bound, f"seed {seed}, {name}: the bound is not attained"
    if solvers:
        solvers.ask("load_network", numbers=_numbers(network))
        for title, (job, fields) in JOBS.items():
            theirs = solvers.ask(job, **fields)["net"]
            assert abs(theirs - flow.bound) <= AGREE * flow.bound, f"seed {seed}: {title} finds {theirs}, we {flow.bound}"


def searches(network: Network) -> dict[str, Callable[[], Flow]]:
    edges, prepared = edges_of(network), {"plain": plain}
    if (compiled := fast()) is not None:
        prepared["[fast]"] = compiled
    state = [OPEN] * len(edges.tail)
    runs = {name: prepare(edges, network.tokens, network.amount) for name, prepare in prepared.items()}
    return {name: (lambda run=run: run(state, None)) for name, run in runs.items()}


def edges_of(network: Network) -> Edges:
    """Both directions of every pool. What is sold is the first node, what is bought the last."""
    flat = Edges(*([] for _ in Edges._fields))
    node = list(range(network.tokens))
    for place, token in ((0, network.source), (network.tokens - 1, network.target)):
        other = node.index(place)
        node[other], node[token] = node[token], place
    for a, b, reserve_a, reserve_b, fee in network.pools:
        for tail, head, inward, outward in ((a, b, reserve_a, reserve_b), (b, a, reserve_b, reserve_a)):
            edge = (node[tail], node[head], len(flat.at), len(flat.at) + 1, 0, 0, 0.0)
            piece = (sqrt(inward / (outward * (1 - fee))), 0.0, 0.0, sqrt(inward * outward / (1 - fee)), 0.0)
            for column, value in zip(flat, (*edge, *piece), strict=False):
                column.append(value)
    return flat


def brought(edges: Edges, flow: Flow) -> float:
    """Coins of what is bought that are left in the end."""
    last = max(edges.head)
    into = sum(received for received, head in zip(flow.received, edges.head, strict=True) if head == last)
    return into - sum(paid for paid, tail in zip(flow.paid, edges.tail, strict=True) if tail == last)


def _turns(networks: list[Network], solvers: Child | None) -> Iterator[dict[str, Turn]]:
    """One round a network: every side answers the same one."""
    for network in networks:
        turns = {name: calls_of(search, CALLS[name]) for name, search in searches(network).items()}
        if solvers:
            solvers.ask("load_network", numbers=_numbers(network))
            turns |= {title: solvers.turn(job, **fields) for title, (job, fields) in JOBS.items()}
        yield turns


def _numbers(network: Network) -> dict[str, object]:
    return {name: getattr(network, name) for name in network.__struct_fields__}
