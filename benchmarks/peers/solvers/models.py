"""Selling over many sources as the textbooks write it: a conic problem, mixed-integer with gas, and a piecewise-linear version.

Amounts are scaled to the order and prices to the best book's. Source of the formulation: Angeris, Evans, Chitra and Boyd, "Optimal
Routing for Constant Function Market Makers", 2021, which also models fixed costs by binaries.
"""

from typing import Any

import clarabel
import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.solvers.conic_solvers.clarabel_conif import dims_to_solver_cones
from enumerate import invariant

TIGHT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}  # at its defaults the answer is up to 1 bps off


class Model:
    """One problem, what one unit of its objective is worth in quote coins, and what its pools take in base coins."""

    def __init__(self, problem: cp.Problem, unit: float, pools: list[Any] | None = None) -> None:
        self.problem, self.unit, self._pools = problem, unit, pools or []

    def solve(self, **options: Any) -> float:
        """Net quote coins."""
        return float(self.problem.solve(**options)) * self.unit

    def taken(self) -> list[float]:
        return [float(pool.value) for pool in self._pools]

    def clarabel(self) -> Any:
        """Clarabel alone: its data are made once, a call builds its solver and solves. Returns the call."""
        data, _, inverse = self.problem.get_problem_data(cp.CLARABEL)
        size = data["c"].size
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        for name, value in TIGHT.items():
            setattr(settings, name, value)
        quadratic = data.get("P", sp.csc_array((size, size)))
        parts = (sp.triu(quadratic).tocsc(), data["c"], data["A"], data["b"], dims_to_solver_cones(data["dims"]), settings)
        offset = inverse[-1][cp.settings.OFFSET]

        def call() -> float:
            found = clarabel.DefaultSolver(*parts).solve()
            assert str(found.status) in ("Solved", "AlmostSolved"), found.status
            return -float(found.obj_val + offset) * self.unit  # the solver minimises

        return call


def conic(numbers: dict[str, Any], integer: bool) -> Model:
    """Concave outputs as cones; `integer` adds gas, the batch and smallest orders, without it they are left out."""
    price, x = float(numbers["books"][0]["prices"][0]), numbers["quantity"]
    total, worth, limits, pools = _books(numbers, price, x, integer)
    for one in numbers["v2"]:
        keep, amount = 1 - one["fee"], cp.Variable(nonneg=True)
        top = one["quote"] / (price * x)
        worth += top - top * cp.inv_pos(1 + keep * x / one["base"] * amount)
        pools.append(amount)
    for one in numbers["v3"]:
        keep, roots, deep = 1 - one["fee"], np.array(one["roots"]), np.array(one["liquidity"])
        amount = cp.Variable(deep.size, nonneg=True)
        top, start = deep * roots[:-1] / (price * x), deep / roots[:-1] / x
        worth += np.sum(top) - cp.sum(cp.multiply(top, cp.inv_pos(1 + cp.multiply(keep / start, amount))))
        limits.append(amount <= deep * (1 / roots[1:] - 1 / roots[:-1]) / keep / x)
        pools.append(cp.sum(amount))
    if integer:
        worth -= _gas(numbers, pools, limits) / (price * x)
    limits.append(total + cp.sum(cp.hstack(pools)) == 1 if pools else total == 1)
    return Model(cp.Problem(cp.Maximize(worth), limits), price * x)


def linear(numbers: dict[str, Any], points: int, around: list[float] | None = None) -> Model:
    """Every pool as `points` secants, so that a linear mixed-integer solver can take it: slightly below the truth, never above.

    `around`: base coins that each pool took in an answer with as many points, near which as many more are put.
    """
    price, x = float(numbers["books"][0]["prices"][0]), numbers["quantity"]
    total, worth, limits, pools = _books(numbers, price, x, True)
    for takes, pays in _secants(numbers, x, points, around):
        part = cp.Variable(takes.size, nonneg=True)
        limits.append(part <= takes / x)
        worth += (pays / takes / price) @ part
        pools.append(cp.sum(part))
    worth -= _gas(numbers, pools, limits) / (price * x)
    limits.append(total + cp.sum(cp.hstack(pools)) == 1 if pools else total == 1)
    return Model(cp.Problem(cp.Maximize(worth), limits), price * x, [x * pool for pool in pools])


def _books(numbers: dict[str, Any], price: float, x: float, integer: bool) -> tuple[Any, Any, list[Any], list[Any]]:
    total, worth, limits = 0, 0, []
    for one in numbers["books"]:
        sizes = np.minimum(np.array(one["sizes"]) / x, 1.0)
        used = sizes[: int(np.searchsorted(np.cumsum(sizes), 1.0)) + 1]  # no order reaches deeper
        part = cp.Variable(used.size, nonneg=True)
        limits.append(part <= used)
        worth += (np.array(one["prices"][: used.size]) * (1 - one["fee"]) / price) @ part
        total += cp.sum(part)
        if integer and one["least"] > 0:
            use = cp.Variable(boolean=True)
            limits += [cp.sum(part) >= one["least"] / x * use, cp.sum(part) <= use]
    return total, worth, limits, []


def _gas(numbers: dict[str, Any], pools: list[Any], limits: list[Any]) -> Any:
    """What gas costs, in quote coins, with a binary for each pool and one for the batch."""
    if not pools:
        return 0.0
    use = cp.Variable(len(pools), boolean=True)
    limits.append(cp.hstack(pools) <= use)
    cost = np.array(numbers["gas"]) @ use
    if numbers["batch"]:
        batch = cp.Variable(boolean=True)
        limits.append(use <= batch)
        cost += numbers["batch"] * batch
    return cost


def _secants(numbers: dict[str, Any], x: float, points: int, around: list[float] | None) -> list[tuple[Any, Any]]:
    found = []
    for i, one in enumerate([*numbers["v2"], *numbers["v3"], *numbers["stable"]]):
        is_stable, is_pair = "ann" in one, "base" in one
        keep = 1 - one["fee"]
        if is_pair:
            edges = np.zeros(1)
            end = x
        else:
            roots, deep = np.array(one["roots"]), np.array(one["liquidity"])
            edges = np.concatenate([[0], np.cumsum(deep * (1 / roots[1:] - 1 / roots[:-1]) / keep)])
            end = min(x, edges[-1])
        grids = [np.linspace(0, end, points + 1), edges[edges < x]]
        if around:
            step = 1.5 * end / points
            grids.append(np.linspace(max(around[i] - step, 0), min(around[i] + step, end), points))
        at = np.unique(np.concatenate(grids))
        at = at[np.concatenate([[True], np.diff(at) > 1e-9 * x])]
        if is_stable:
            pays = _stable_pays(one, at)
        elif is_pair:
            pays = one["quote"] * keep * at / (one["base"] + keep * at)
        else:
            paid = np.concatenate([[0], np.cumsum(deep * (roots[:-1] - roots[1:]))])
            j = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, deep.size - 1)
            pays = paid[j] + deep[j] * (roots[j] - 1 / (1 / roots[j] + (at - edges[j]) * keep / deep[j]))
        found.append((np.diff(at), np.diff(pays)))
    return found


def _stable_pays(one: dict[str, float], at: Any) -> Any:
    x, y, ann = one["base"], one["quote"], one["ann"]
    d = invariant(x, y, ann)
    after = x + at * one["rate"]
    b, c = after + d / ann - d, d**3 / (4 * after * ann)
    root = np.sqrt(b * b + 4 * c)
    return (y - np.where(b >= 0, 2 * c / (b + root), (root - b) / 2)) * (1 - one["fee"])
