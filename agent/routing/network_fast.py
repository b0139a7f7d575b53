"""The network's solver compiled: `laplacian`, `ramps` and `dual` through numba, on arrays. The same operations, the same answer.

numba comes with the optional extra `fast`; without it `fast()` is None and plain Python does the work. The machine code is kept
in numba's cache beside the modules, so that only the first run on a machine compiles. To see whether code is stale numba looks at a
function's own file alone, so a digest of all of them is part of each name.
"""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np

from agent.routing import dual, laplacian, ramps
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
    "over",
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
    """The functions by name, compiled, calling one another."""
    import numba  # only here: it takes a quarter of a second, and may not be installed

    names: dict[str, Any] = {**vars(laplacian), **vars(ramps), **vars(dual)}
    stamp = _digest(names)
    for name in _COMPILED:
        plain = names[name]
        copy = FunctionType(plain.__code__, names, name)
        copy.__module__, copy.__qualname__ = plain.__module__, f"{name}_{stamp}"
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


def _digest(names: dict[str, Any]) -> str:
    """Of all that gets compiled in: the functions, and the numbers that they use."""
    code = [(name, names[name].__code__.co_code, names[name].__code__.co_consts) for name in _COMPILED]
    numbers = sorted((name, value) for name, value in names.items() if isinstance(value, int | float | tuple))
    return sha256(repr((code, numbers)).encode()).hexdigest()[:12]
