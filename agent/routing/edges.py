"""A network as the solver sees it: flat lists of edges and their pieces, the room it works in, and the flow that it finds.

Plain lists or arrays alike, so that the same functions run in plain Python and compiled. Floats, never money.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

OUT, OPEN, GATED = 0, 1, 2  # an edge's state: shut; trades, its cost is paid; opens by itself where it earns its cost


class Edges(NamedTuple):
    """A network in flat lists. Node 0 is sold, the last node is bought. Amounts in whole coins.

    The pieces of edge e are `first[e]` to `last[e] - 1`; those it has while GATED `gate_first[e]` to `gate_last[e] - 1`; `cost` is
    what using it costs, in coins that are bought. A piece starts at z = `at`, with `taken` in and `given` out; `slope` is input per
    z. `width` > 0: a ramp that ends at the next piece and may be so wide. `steps`: pairs (first, last) of piece ranges with ramps.
    """

    tail: Any
    head: Any
    first: Any
    last: Any
    gate_first: Any
    gate_last: Any
    cost: Any
    at: Any
    taken: Any
    given: Any
    slope: Any
    width: Any
    steps: Any


class Work(NamedTuple):
    """What the method writes: pieces as ramps make them, each edge's piece and flow, and one number or row for every node."""

    z: Any
    out: Any
    rise: Any
    piece: Any
    paid: Any
    received: Any
    worth: Any
    root: Any
    grad: Any
    step: Any
    trial: Any
    damp: Any
    before: Any
    kept: Any
    hess: Any


class Flow(NamedTuple):
    """`paid[e]` into and `received[e]` out of each edge; `worth` of a coin at each node; `bound`: nothing brings more (before the
    cost of OPEN edges); `residual`: the most that is lost or gained at a node, as a part of the whole value."""

    paid: list[float]
    received: list[float]
    worth: list[float]
    bound: float
    residual: float
    rounds: int


Solver = Callable[[Sequence[int], Sequence[float] | None], Flow]
Prepare = Callable[[Edges, int, float], Solver]
