"""The network's solver compiled: the functions of `routing.dual` through numba, on arrays. The same operations, the same answer.

numba comes with the optional extra `fast`; without it `fast()` is None and plain Python does the work. The machine code is kept in
numba's cache beside the module, so that only the first run on a machine compiles.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np

from agent.routing import dual
from agent.routing.dual import WIDTHS
from agent.routing.edges import Edges, Flow, Prepare, Solver, Work

INSTALLED = find_spec("numba") is not None

_COMPILED = (
    "sharpen",
    "assemble",
    "newton",
    "descend",
    "follow",
    "pin",
    "leave",
    "finish",
    "most",
    "shorten",
    "narrow",
    "residual",
    "certify",
    "spot",
    "solve",
)
_WHOLE = {"tail", "head", "first", "last", "gate_first", "gate_last", "steps"}


def fast() -> Prepare | None:
    """What stands for `dual.plain` where numba is installed, else None."""
    return prepare if INSTALLED else None


@cache
def kernels() -> dict[str, Any]:
    """The functions of `dual` by name, compiled, calling one another."""
    import numba  # only here: it takes a quarter of a second, and may not be installed

    names = dict(vars(dual))
    for name in _COMPILED:
        plain = getattr(dual, name)
        copy = FunctionType(plain.__code__, names, name)
        copy.__module__, copy.__qualname__ = dual.__name__, name
        names[name] = numba.njit(cache=True)(copy)
    return {name: names[name] for name in _COMPILED}


def arrays(edges: Edges) -> Edges:
    return Edges(
        *(np.array(part, np.int64 if name in _WHOLE else np.float64) for name, part in zip(Edges._fields, edges, strict=True))
    )


def workspace(edges: Edges, nodes: int) -> Work:
    count = len(edges.tail)
    return Work(
        edges.at.copy(),
        edges.given.copy(),
        edges.slope.copy(),
        edges.first.copy(),
        np.zeros(count),
        np.zeros(count),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes * nodes),
    )


def prepare(edges: Edges, nodes: int, amount: float) -> Solver:
    """`dual.plain`, compiled."""
    flat, found, widths = arrays(edges), kernels(), np.array(WIDTHS)
    work = workspace(flat, nodes)
    solve = found["solve"]

    def run(state: Sequence[int], start: Sequence[float] | None) -> Flow:
        if start is not None:
            work.worth[:] = start
        bound, residual, rounds = solve(flat, work, np.frombuffer(bytes(state), np.uint8), amount, widths, start is None)
        return Flow(work.paid.tolist(), work.received.tolist(), work.worth.tolist(), float(bound), float(residual), int(rounds))

    return run
