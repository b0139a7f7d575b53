"""The split with gas over 5 books x 50 levels, 5 v2 and 4 v3 pools x 40 ticks, beside solvers, Uniswap's router and step routers.

The search is timed on curves that are ready, as the peers' times leave out their quotes and models. The whole `split`, from a view
to exact integers, has rows of its own: as the engine decides, with one book that has moved since the last time and no words, and
with nothing remembered and everything explained. Clarabel and cvxpy cannot model gas and solve the easier problem without it.
Every answer is checked against the others before anything is timed.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import cycle

import msgspec

from agent.market.view import View
from agent.routing import kernel
from agent.routing.memo import Memo
from agent.routing.split import split
from benchmarks.markets import Instance, Shape, build_instance
from benchmarks.measure import Result, Turn, alternately, beside, calls_of
from benchmarks.optimality import GAP_BPS_MAX, ask_uniswap, in_steps, posed, routed, searched, searches
from benchmarks.peers.child import Child, peer
from benchmarks.steps import gas_of, greedy, one_split, priced, quoted

INSTANCES, SEED, CALLS = 12, 0, 250  # 12 x 250 calls: enough for a p99
SHAPE, FREE = Shape(), Shape(dear=0)
SCIP_GAP_BPS, CLARABEL_GAP_BPS = 0.5, 1e-2  # how far their own tolerances leave them from the optimum
SOLVERS = {"clarabel": ("Clarabel alone, without gas", 12), "cvxpy": ("cvxpy + Clarabel, without gas", 2)}
SOLVERS |= {"highs": ("HiGHS, mixed-integer", 1), "scip": ("SCIP, mixed-integer", 1)}
UNISWAP = "Uniswap's router, split search"
UNISWAP_WARM, UNISWAP_CALLS = 50, 25  # calls until node has compiled it; calls a turn
QUOTED = "{}, with quotes"
STEPS = {"OneSplit, 10 parts": (10, one_split, 50), "OneSplit, 20 parts": (20, one_split, 25)}
STEPS |= {"OneSplit, 100 parts": (100, one_split, 3), "greedy, 5 % grid": (20, greedy, 50)}
PEERS_OF_SEARCH = (*(title for title, _ in SOLVERS.values()), UNISWAP, *STEPS)
PEERS_OF_SPLIT = (SOLVERS["cvxpy"][0], UNISWAP, QUOTED.format("OneSplit, 20 parts"), QUOTED.format("greedy, 5 % grid"))


def run(instances: int = INSTANCES) -> list[Result]:
    missing: dict[str, str] = {}
    markets = [(build_instance(SHAPE, SEED + i), build_instance(FREE, SEED + i)) for i in range(instances)]
    with peer("solvers", missing) as solvers, peer("uniswap", missing) as uniswap:
        for instance, free in markets:
            check(instance, free, solvers, uniswap)
        if uniswap:
            ask_uniswap(uniswap, markets[0][0], UNISWAP_WARM)
        found = alternately(_turns([markets[0], *markets], solvers, uniswap))
    ours = [name for name in found if name.startswith("ours")]
    rows = []
    for name in ours:
        what = f"{len(markets[0][0].view.sources)} sources with gas: {name.removeprefix('ours, ')}"
        for title in PEERS_OF_SPLIT if "ours, split" in name else PEERS_OF_SEARCH:
            note = missing.get("uniswap" if title == UNISWAP else "solvers", "")
            rows.append(beside(what, found[name], title, found.get(title), note if title not in found else ""))
    return rows


def check(instance: Instance, free: Instance, solvers: Child | None, uniswap: Child | None) -> None:
    """Nobody may find better, and what should be equal must be. AssertionError with the seed where not."""
    net, exact = searched(instance), routed(instance)
    assert exact is not None, instance.seed

    def gap(found: float, ours: float) -> float:
        return (found - ours) / abs(ours) * 1e4

    if solvers:
        solvers.ask("load", numbers=instance.numbers)
        assert abs(gap(solvers.ask("enumerate")["net"], net)) <= GAP_BPS_MAX, f"seed {instance.seed}: enumeration disagrees"
        assert gap(solvers.ask("highs", count=1)["net"], net) <= GAP_BPS_MAX, f"seed {instance.seed}: HiGHS found better"
        assert gap(solvers.ask("scip", count=1)["net"], net) <= SCIP_GAP_BPS, f"seed {instance.seed}: SCIP found better"
        solvers.ask("load", numbers=free.numbers)
        bare = solvers.ask("clarabel", count=1)["net"]
        assert abs(gap(bare, searched(free))) <= CLARABEL_GAP_BPS, f"seed {instance.seed}: Clarabel disagrees without gas"
    if uniswap:
        theirs, _ = ask_uniswap(uniswap, instance)
        assert theirs is None or theirs <= exact, f"seed {instance.seed}: Uniswap's router found better"
    for name, (parts, method, _) in STEPS.items():
        dealt = in_steps(instance, parts, method)
        assert dealt is None or dealt <= exact, f"seed {instance.seed}: {name} found better"


def _turns(markets: list[tuple[Instance, Instance]], solvers: Child | None, uniswap: Child | None) -> Iterator[dict[str, Turn]]:
    """One round an instance: every side answers the same one."""
    for instance, free in markets:
        turns = dict(_ours(instance))
        if solvers:
            solvers.ask("load", numbers=free.numbers)
            turns |= {SOLVERS[job][0]: _loaded(solvers, free, job) for job in ("clarabel", "cvxpy")}
            turns |= {SOLVERS[job][0]: _loaded(solvers, instance, job) for job in ("highs", "scip")}
        if uniswap:
            turns[UNISWAP] = _searching(uniswap, instance)
        for name, (parts, method, count) in STEPS.items():
            turns[name] = calls_of(_dealing(instance, parts, method), count)
            if QUOTED.format(name) in PEERS_OF_SPLIT:
                turns[QUOTED.format(name)] = calls_of(_quoting(instance, parts, method), 5)
        yield turns


def _ours(instance: Instance) -> Iterator[tuple[str, Turn]]:
    for name, search in searches(posed(instance)).items():
        yield f"ours, search {name}", calls_of(search, CALLS)
    for name, memo in _memos().items():
        yield f"ours, split {name}", calls_of(_deciding(instance, memo), CALLS)

    def whole() -> object:
        return split(instance.view, instance.side, instance.quantity, instance.capacity, instance.gas)

    yield "ours, split, nothing remembered, explained", calls_of(whole, CALLS // 10)


def _memos() -> dict[str, Memo]:
    found = {"plain": Memo(kernel.search)}
    if find_spec("numba"):
        from agent.routing.fast import Arrays

        found["[fast]"] = Memo(Arrays().search)
    return found


def _deciding(instance: Instance, memo: Memo) -> Callable[[], object]:
    """As the engine decides after a message: one book is another one, all else as before."""
    views = cycle([instance.view, _moved(instance.view)])
    return lambda: split(
        next(views), instance.side, instance.quantity, instance.capacity, instance.gas, memo=memo, is_explained=False
    )


def _moved(view: View) -> View:
    """The same market, the first book's levels each one lot larger."""
    first, *others = view.sources
    bids, asks = ([(ticks, lots + 1) for ticks, lots in side] for side in (first.state.bids, first.state.asks))  # type: ignore[union-attr]
    state = msgspec.structs.replace(first.state, bids=tuple(bids), asks=tuple(asks))
    return msgspec.structs.replace(view, sources=(msgspec.structs.replace(first, state=state), *others))


def _loaded(solvers: Child, instance: Instance, job: str) -> Turn:
    def turn() -> list[int]:
        solvers.ask("load", numbers=instance.numbers)
        taken: list[int] = solvers.ask(job, count=SOLVERS[job][1])["ns"]
        return taken

    return turn


def _searching(uniswap: Child, instance: Instance) -> Turn:
    return lambda: ask_uniswap(uniswap, instance, UNISWAP_CALLS)[1]


def _dealing(instance: Instance, parts: int, method: Callable[[list[list[int]]], int]) -> Callable[[], int]:
    rows = priced(quoted(instance, parts), gas_of(instance))
    return lambda: method(rows)


def _quoting(instance: Instance, parts: int, method: Callable[[list[list[int]]], int]) -> Callable[[], int]:
    return lambda: method(priced(quoted(instance, parts), gas_of(instance)))
