"""How the cost of a route grows with the number of sources, 10 to 1,000: `python -m benchmarks growth --svg FILE`.

A fifth of the sources are books of 50 levels, the rest half v2 and half v3 pools of 40 ticks, all with gas; the order grows with
them, so that most of them are used. Clarabel solves the easier problem without gas. One call of a slow peer is enough here: the
plot spans five powers of ten.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.chart import Line, draw
from benchmarks.markets import Instance, Shape, build_instance
from benchmarks.measure import Turn, alternately, calls_of
from benchmarks.optimality import ask_uniswap, posed, searches
from benchmarks.peers.child import Child, peer
from benchmarks.routing import UNISWAP, UNISWAP_WARM
from benchmarks.steps import gas_of, one_split, priced, quoted

SIZES = (10, 20, 50, 100, 200, 500, 1_000)
SEEDS = range(3)
CLARABEL, ONE_SPLIT = "Clarabel alone, without gas", "OneSplit, 20 parts"
TITLE = "Cost of one route against the number of sources"
UNISWAP_CALLS = 5

Growth = dict[str, Any]


def shape(sources: int) -> Shape:
    """The market with so many sources."""
    books = sources // 5
    v2 = (sources - books) // 2
    return Shape(books, v2, sources - books - v2, typical_eth=40.0 * sources, spread=0.3, thick=0.2)


def measure(sizes: tuple[int, ...] = SIZES, seeds: range = SEEDS) -> Growth:
    """{"sizes", "us": {side: median microseconds at each size, None where it was not asked}, "missing"}."""
    missing: dict[str, str] = {}
    found: list[dict[str, float]] = []
    with peer("solvers", missing) as solvers, peer("uniswap", missing) as uniswap:
        if uniswap:
            ask_uniswap(uniswap, build_instance(shape(10), 0), UNISWAP_WARM)
        for size in sizes:
            taken = alternately(_turns(size, [seeds[0], *seeds], solvers, uniswap))
            found.append({name: one.median_us for name, one in taken.items()})
    names = dict.fromkeys(name for one in found for name in one)
    return {"sizes": list(sizes), "us": {name: [one.get(name) for one in found] for name in names}, "missing": missing}


def drawn(growth: Growth) -> str:
    """The plot as SVG text."""
    lines = [
        Line(name, [(size, us) for size, us in zip(growth["sizes"], row, strict=True) if us is not None])
        for name, row in growth["us"].items()
    ]
    return draw(TITLE, "sources", "microseconds", lines)


def table(growth: Growth) -> Iterator[str]:
    """The same in lines of text."""
    yield f"{'sources':34}" + "".join(f"{size:>12,}" for size in growth["sizes"])
    for name, row in growth["us"].items():
        yield f"{name:34}" + "".join(f"{us:12,.0f}" if us is not None else f"{'-':>12}" for us in row)
    yield from growth["missing"].values()


def _turns(size: int, seeds: list[int], solvers: Child | None, uniswap: Child | None) -> Iterator[Mapping[str, Turn]]:
    for seed in seeds:
        instance = build_instance(shape(size), seed)
        rows = priced(quoted(instance, 20), gas_of(instance))
        calls = max(2_000 // size, 5)
        turns = {f"ours, {name}": calls_of(search, calls) for name, search in searches(posed(instance)).items()}
        turns[ONE_SPLIT] = calls_of(lambda rows=rows: one_split(rows), max(500 // size, 2))  # type: ignore[misc]
        if solvers:
            solvers.ask("load", numbers=instance.numbers)
            turns[CLARABEL] = solvers.turn("clarabel", count=max(100 // size, 1))
        if uniswap:
            turns[UNISWAP] = _asked(uniswap, instance)
        yield turns


def _asked(uniswap: Child, instance: Instance) -> Turn:
    return lambda: ask_uniswap(uniswap, instance, UNISWAP_CALLS)[1]
