"""The best single paths: the whole order through one source after another, up to three of them. What a simple router would do.

They are candidates beside the flow: where lots or gas are coarse against the order, a plain path can be the better whole number.
"""

from collections.abc import Sequence

import msgspec

from agent.routing.curve import Curve, quote_for
from agent.routing.graph import Graph

HOPS_MAX = 3


class _Leg(msgspec.Struct, frozen=True):
    """A path so far: what arrived, in coins of its last place, and what its sources cost, in coins bought."""

    amount: float
    cost: float
    ways: tuple[int, ...]


def paths(graph: Graph, worth: Sequence[float]) -> list[list[int]]:
    """For one hop, two and three: the ways of the path that brings most after gas, where there is one.

    `worth`: about what a coin at each place is worth, to weigh gas against coins on the way.
    """
    last = len(graph.places) - 1
    found: list[list[int]] = []
    reached = {0: _Leg(graph.sold, 0.0, ())}
    for _ in range(HOPS_MAX):
        reached = _further(graph, reached, worth)
        if last in reached:
            found.append(list(reached.pop(last).ways))
    return found


def _further(graph: Graph, reached: dict[int, _Leg], worth: Sequence[float]) -> dict[int, _Leg]:
    """One hop more: the best that arrives at each place, and how."""
    found: dict[int, _Leg] = {}
    for e, way in enumerate(graph.ways):
        leg = reached.get(way.tail)
        if leg is None or not _fresh(graph, leg.ways, e):
            continue
        amount = _through(way.curve, leg.amount)
        cost = leg.cost + _cost(graph, e, leg, worth)
        best = found.get(way.head)
        if amount and (best is None or amount * worth[way.head] - cost > best.amount * worth[way.head] - best.cost):
            found[way.head] = _Leg(amount, cost, (*leg.ways, e))
    return found


def _cost(graph: Graph, e: int, leg: _Leg, worth: Sequence[float]) -> float:
    way, chain = graph.ways[e], graph.chains[e]
    if chain is None:
        return graph.costs[e] * worth[way.tail]
    opened = any(graph.chains[k] == chain for k in leg.ways)
    return graph.costs[e] + (0.0 if opened else graph.batches[chain])


def _fresh(graph: Graph, path: Sequence[int], e: int) -> bool:
    """Whether a way leads to a place where the path has not been yet, over a source that it has not used."""
    return all(graph.ways[k].what is not graph.ways[e].what and graph.ways[k].tail != graph.ways[e].head for k in path)


def _through(curve: Curve, amount: float) -> float:
    """What all of an amount brings; nothing where not all of it fits."""
    if curve.slope[-1] == 0.0 and amount > curve.base[-1]:
        return 0.0
    return quote_for(curve, amount)
