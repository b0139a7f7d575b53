"""How far the router's answer is from the best there is, and what others leave on the table: `python -m benchmarks optimality`.

Nothing is timed here. Every instance is solved by our search, made exact by `split`, enumerated (every set of pools, bisection),
given to a mixed-integer solver, to Uniswap's own router and to OneSplit's dynamic programme, on the same market. `gap`: enumeration
less ours, in basis points of the optimum; `lost`: ours less the peer's. Negative would mean that somebody found better; both sides
carry some 1e-9 of rounding. Enumeration knows no lots, so it bounds the exact route from above.
"""

import statistics
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import msgspec

from agent.routing.problem import Task, pose
from agent.routing.search import Choice, choose
from agent.routing.split import Route, split
from agent.routing.terms import Order, Rules
from benchmarks.markets import USDT_GROUP, Instance, Shape, build_instance
from benchmarks.peers.child import Child, peer
from benchmarks.steps import batched, gas_of, greedy, one_split, priced, quoted, single

GAP_BPS_MAX = 1e-3  # what is promised
ROUNDING_BPS = 1e-8  # of two ways to add up the same floats
DUST = 10**12  # 0.000001 USDT, the smallest unit of a pool: every leg of a route rounds down by up to one
SEED = 1_000_000

CASES = {
    "6 pools": Shape(books=0, v2=3, v3=3),
    "10 pools": Shape(books=0, v2=5, v3=5),
    "3 books + 6 pools": Shape(books=3, v2=3, v3=3),
    "5 books + 9 pools": Shape(),
    "5 books + 9 pools, gas x 20": Shape(dear=20),
    "thin books + 10 pools, gas x 20": Shape(books=2, v2=5, v3=5, thick=0.02, dear=20),
    "2 books + 4 pools + 3 stableswaps": Shape(books=2, v2=2, v3=2, stable=3, thick=0.02),
    "small orders, gas x 5": Shape(books=1, v2=5, v3=4, typical_eth=8, thick=0.02, dear=5),
    "minimum notionals, small orders": Shape(books=4, v2=2, v3=2, typical_eth=0.6, thick=0.01, notional_min=300, lot_units=1_000),
    "lots of 0.01 ETH": Shape(typical_eth=30, lot_units=1_000_000),
    "buying, 5 books + 9 pools": Shape(side="buy", thick=0.2),
}


class Losses(msgspec.Struct, frozen=True):
    """Basis points over instances; None for all where a peer is missing or gave no answer."""

    count: int
    least: float
    median: float
    p95: float
    most: float


class Row(msgspec.Struct, frozen=True):
    """One case. `search`: the search's own answer, `exact`: the route in integers, both against enumeration."""

    case: str
    instances: int
    search: Losses | None
    exact: Losses | None
    mixed: Losses | None
    peers: dict[str, Losses | None]


class Report(msgspec.Struct, frozen=True):
    """`failures` is empty when everything that is promised held on every instance."""

    instances: int
    rows: list[Row]
    missing: dict[str, str]
    versions: dict[str, str]
    failures: list[str]


def measure(instances: int) -> Report:
    """`instances` in all, spread evenly over the cases."""
    missing: dict[str, str] = {}
    failures: list[str] = []
    each = -(-instances // len(CASES))
    with peer("solvers", missing) as solvers, peer("uniswap", missing) as uniswap:
        rows = [_row(case, shape, each, solvers, uniswap, failures) for case, shape in CASES.items()]
        versions = (solvers.versions if solvers else {}) | (uniswap.versions if uniswap else {})
    return Report(each * len(CASES), rows, missing, versions, failures)


def posed(instance: Instance) -> Task:
    """The search's problem, its curves built."""
    assert instance.view.mid is not None
    order = Order(instance.side, instance.quantity, USDT_GROUP, instance.view.mid, None, Rules())
    return pose(order, instance.view.sources, instance.capacity, instance.gas)


def searches(task: Task) -> dict[str, Callable[[], Choice | None]]:
    """Every way of ours to search; all must give the same answer. Compiled where numba is installed."""
    found: dict[str, Callable[[], Choice | None]] = {"plain": lambda: choose(task.problem, task.costs)}
    if find_spec("numba"):
        from agent.routing.fast import Arrays

        arrays = Arrays()
        found["[fast]"] = lambda: choose(task.problem, task.costs, frozenset(), arrays.search)
    return found


def searched(instance: Instance) -> float:
    """The search's own answer, in quote coins after gas. AssertionError where plain and compiled differ in the last bit."""
    answers = [search() for search in searches(posed(instance)).values()]
    found = answers[0]
    assert found is not None, f"seed {instance.seed}: no answer"
    assert all(one == found for one in answers), f"seed {instance.seed}: the compiled search has another answer"
    return found.worth


def routed(instance: Instance, legs_max: int | None = None) -> int | None:
    """The exact route, in quote units after gas, with as many legs as pay; None where a rest stays that nobody else leaves."""
    rules = Rules(legs_max=legs_max or len(instance.view.sources))
    found = split(instance.view, instance.side, instance.quantity, instance.capacity, instance.gas, None, rules)
    if not isinstance(found, Route) or found.unplaced.units:
        return None
    return int(found.quote.units) if instance.side == "sell" else -int(found.quote.units)


def ask_uniswap(uniswap: Child, instance: Instance, count: int = 1) -> tuple[int | None, list[int]]:
    """What Uniswap's router nets on the same market, and its nanoseconds. Books are offered as routes without gas."""
    quotes, gas = quoted(instance, 20), gas_of(instance)
    offers = [
        (part * 5, i, str(abs(quote)), str(gas[i]))
        for i, row in enumerate(quotes)
        for part, quote in enumerate(row)
        if part and quote
    ]
    answer = uniswap.ask("search", quotes=offers, side=instance.side, count=count)
    if answer["total"] is None:
        return None, answer["ns"]
    total = int(answer["total"]) * (1 if instance.side == "sell" else -1)
    pools = any(not instance.view.sources[i].instrument.is_book for _, i in answer["legs"])
    return batched(instance, total, pools), answer["ns"]


def in_steps(instance: Instance, parts: int, method: Callable[[list[list[int]]], int]) -> int | None:
    """What a router that goes in steps nets. The batch is charged unless it does as well on books alone."""
    rows = priced(quoted(instance, parts), gas_of(instance))
    total = batched(instance, method(rows))
    books = [row for row, source in zip(rows, instance.view.sources, strict=True) if source.instrument.is_book]
    bare = batched(instance, method(books), uses_pools=False) if books else None
    return max((one for one in (total, bare) if one is not None), default=None)


def shown(report: Report) -> Iterator[str]:
    """The report in lines that people read."""
    yield f"optimality: {report.instances} instances, {len(report.rows)} cases, seeds from {SEED}; basis points of the optimum"
    for row in report.rows:
        yield f"\n{row.case}  ({row.instances} instances)"
        for name, found in _columns(row).items():
            if found is None:
                yield f"  {name:46} not measured"
            else:
                yield (
                    f"  {name:46} n {found.count:4}   least {found.least:9.1e}   median {found.median:9.2g}   "
                    f"p95 {found.p95:9.2g}   most {found.most:9.2g}"
                )
    yield ""
    yield from report.missing.values()
    yield from (f"FAILED: {one}" for one in report.failures)
    if not report.failures:
        yield f"every gap within {GAP_BPS_MAX:g} bps; nobody better anywhere by more than rounding, {DUST / 1e18:g} USDT a leg"


def _columns(row: Row) -> dict[str, Losses | None]:
    return {
        "our gap to enumeration, search": row.search,
        "our gap to enumeration, exact integers": row.exact,
        "mixed-integer solver (HiGHS) less ours": row.mixed,
        **{f"lost by {name}": found for name, found in row.peers.items()},
    }


def _row(case: str, shape: Shape, count: int, solvers: Child | None, uniswap: Child | None, failures: list[str]) -> Row:
    taken: dict[str, list[float]] = {}

    def note(name: str, bps: float, bad: bool, seed: int) -> None:
        taken.setdefault(name, []).append(bps)
        if bad:
            failures.append(f"{case}, seed {seed}: {name} {bps:.3g} bps")

    for instance in _instances(shape, count):
        found, exact = searched(instance), routed(instance)
        whole = abs(found)
        if solvers:
            solvers.ask("load", numbers=instance.numbers)
            best = solvers.ask("enumerate")["net"]
            if not shape.stable:  # those the search sees as straight lines between knots; it is the exact route that counts
                gap = (best - found) / whole * 1e4
                note("search", gap, abs(gap) > GAP_BPS_MAX, instance.seed)
            if exact is not None:
                gap = (best - exact / 1e18) / whole * 1e4
                note("exact", gap, not -ROUNDING_BPS <= gap <= GAP_BPS_MAX, instance.seed)
            if exact is not None and instance.side == "sell":
                mixed = (solvers.ask("refined")["net"] - exact / 1e18) / whole * 1e4
                note("mixed", mixed, mixed > GAP_BPS_MAX, instance.seed)
        nets = _peers(instance, uniswap)
        few, theirs = nets[OURS_FEW], nets[UNISWAP]
        if few is not None and theirs is not None and theirs > few:
            failures.append(f"{case}, seed {instance.seed}: {UNISWAP} is better than {OURS_FEW}")
        for name, net in nets.items():
            if net is not None and exact is not None:
                lost = (exact - net) / 1e18 / whole * 1e4
                note(name, lost, exact - net < -DUST * len(instance.view.sources), instance.seed)
    peers = {name: _losses(taken.get(name)) for name in _PEERS}
    return Row(case, count, _losses(taken.get("search")), _losses(taken.get("exact")), _losses(taken.get("mixed")), peers)


OURS_FEW, UNISWAP = f"our route of {Rules().legs_max} legs at most", "Uniswap's router"
_PEERS = (
    UNISWAP,
    "OneSplit, 10 parts",
    "OneSplit, 20 parts",
    "OneSplit, 100 parts",
    "greedy, 5 % grid",
    "the best single source",
    OURS_FEW,
)


def _peers(instance: Instance, uniswap: Child | None) -> dict[str, int | None]:
    nets = (
        ask_uniswap(uniswap, instance)[0] if uniswap else None,
        *(in_steps(instance, parts, one_split) for parts in (10, 20, 100)),
        in_steps(instance, 20, greedy),
        in_steps(instance, 1, single),
        routed(instance, Rules().legs_max),
    )
    return dict(zip(_PEERS, nets, strict=True))


def _instances(shape: Shape, count: int) -> Iterator[Instance]:
    """The first `count` seeds."""
    return (build_instance(shape, SEED + number) for number in range(count))


def _losses(bps: list[float] | None) -> Losses | None:
    if not bps:
        return None
    ordered = sorted(bps)
    return Losses(len(ordered), ordered[0], statistics.median(ordered), ordered[int(len(ordered) * 0.95)], ordered[-1])


def as_json(report: Report) -> Any:
    return msgspec.to_builtins(report)
