"""The usual solvers, asked over a pipe: `load` a market (or `load_network`) in plain numbers, then each as often as it is told."""

import importlib.metadata
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this program runs in isolation, by its path

import cvxpy as cp  # noqa: E402
from enumerate import optimum  # noqa: E402
from models import TIGHT, Model, conic, linear  # noqa: E402
from network import Pools  # noqa: E402
from wire import serve, timed  # noqa: E402

SECANTS = 200
NAMES = ("cvxpy", "clarabel", "highspy", "pyscipopt", "scipy", "numba", "numpy")


class Solvers:
    """Owns the market that was loaded last, and its models once they are asked for."""

    def __init__(self) -> None:
        self.load({})

    def load(self, numbers: dict[str, Any]) -> dict[str, Any]:
        self.numbers = numbers
        self.convex = cache(lambda: conic(self.numbers, False))
        self.mixed = cache(lambda: conic(self.numbers, True))
        self.secants = cache(lambda: linear(self.numbers, SECANTS))
        self.bare = cache(lambda: self.convex().clarabel())
        return {}

    def enumerate(self) -> dict[str, Any]:
        start = time.perf_counter_ns()
        net, amounts = optimum(self.numbers)
        return {"net": net, "amounts": amounts, "ns": [time.perf_counter_ns() - start]}

    def clarabel(self, count: int) -> dict[str, Any]:
        """Without gas, which it cannot model."""
        call = self.bare()
        return {"net": call(), "ns": timed(call, count)}

    def cvxpy(self, count: int) -> dict[str, Any]:
        """cvxpy and Clarabel from the market to the answer, without gas."""

        def call() -> Any:
            return conic(self.numbers, False).solve(solver=cp.CLARABEL, **TIGHT)

        return {"net": call(), "ns": timed(call, count)}

    def highs(self, count: int) -> dict[str, Any]:
        """The solver's own time, cvxpy left out."""
        return self._inner(self.secants(), count, solver=cp.HIGHS, mip_rel_gap=1e-9)

    def refined(self) -> dict[str, Any]:
        """HiGHS twice, the second time with secants where the first answer lies: for its value, not for its time."""
        # At its default tolerance a pool that is a millionth open trades a millionth of the order without gas.
        tight = {"mip_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-10}
        first = linear(self.numbers, SECANTS // 4)
        net = first.solve(solver=cp.HIGHS, mip_rel_gap=1e-7, **tight)
        second = linear(self.numbers, SECANTS // 4, first.taken())
        return {"net": max(net, second.solve(solver=cp.HIGHS, mip_rel_gap=1e-10, **tight)), "ns": []}

    def scip(self, count: int) -> dict[str, Any]:
        """The solver's own time, cvxpy left out."""
        return self._inner(self.mixed(), count, solver=cp.SCIP, scip_params={"limits/time": 60, "limits/gap": 1e-9})

    def _inner(self, model: Model, count: int, **options: Any) -> dict[str, Any]:
        taken, net = [], 0.0
        for _ in range(count):
            net = model.solve(**options)
            taken.append(int(model.problem.solver_stats.solve_time * 1e9))
        return {"net": net, "ns": taken}


class Networks:
    """Owns the network that was loaded last."""

    def load_network(self, numbers: dict[str, Any]) -> dict[str, Any]:
        self._pools = Pools(numbers)
        return {}

    def lbfgsb(self, count: int, compiled: bool) -> dict[str, Any]:
        """The dual by scipy."""

        def call() -> float:
            return self._pools.dual(compiled=compiled)

        return {"net": call(), "ns": timed(call, count)}

    def network_cvxpy(self, count: int) -> dict[str, Any]:
        """The primal by cvxpy and Clarabel, from the numbers to the answer."""
        return {"net": self._pools.conic(), "ns": timed(self._pools.conic, count)}


def main() -> None:
    warnings.filterwarnings("ignore")
    solvers, networks = Solvers(), Networks()
    jobs = {name: getattr(solvers, name) for name in ("load", "enumerate", "clarabel", "cvxpy", "highs", "refined", "scip")}
    jobs |= {name: getattr(networks, name) for name in ("load_network", "lbfgsb", "network_cvxpy")}
    serve(jobs, {name: importlib.metadata.version(name) for name in NAMES})


if __name__ == "__main__":
    main()
