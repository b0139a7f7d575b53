"""The best single paths: the whole order through one source after another, up to three of them. What a simple router would do.

They are candidates beside the flow: where lots or gas are coarse against the order, a plain path can be the better whole number.
"""

from collections.abc import Sequence

from agent.routing.curve import Curve, quote_for
from agent.routing.graph import Graph

HOPS_MAX = 3


def paths(graph: Graph) -> list[list[int]]:
    """For one hop, two and three: the ways of the path that brings most before gas, where there is one."""
    last = len(graph.places) - 1
    found: list[list[int]] = []
    reached: dict[int, tuple[float, tuple[int, ...]]] = {0: (graph.sold, ())}
    for _ in range(HOPS_MAX):
        reached = _further(graph, reached)
        if last in reached:
            found.append(list(reached.pop(last)[1]))
    return found


def _further(graph: Graph, reached: dict[int, tuple[float, tuple[int, ...]]]) -> dict[int, tuple[float, tuple[int, ...]]]:
    """One hop more: the most that arrives at each place, and how."""
    found: dict[int, tuple[float, tuple[int, ...]]] = {}
    for e, way in enumerate(graph.ways):
        if way.tail not in reached:
            continue
        amount, path = reached[way.tail]
        received = _through(way.curve, amount) if _fresh(graph, path, e) else 0.0
        if received > found.get(way.head, (0.0, ()))[0]:
            found[way.head] = received, (*path, e)
    return found


def _fresh(graph: Graph, path: Sequence[int], e: int) -> bool:
    """Whether a way leads to a place where the path has not been yet, over a source that it has not used."""
    return all(graph.ways[k].what is not graph.ways[e].what and graph.ways[k].tail != graph.ways[e].head for k in path)


def _through(curve: Curve, amount: float) -> float:
    """What all of an amount brings; nothing where not all of it fits."""
    if curve.slope[-1] == 0.0 and amount > curve.base[-1]:
        return 0.0
    return quote_for(curve, amount)
