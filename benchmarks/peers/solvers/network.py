"""A network of constant-product pools, solved as others do: the dual by scipy's L-BFGS-B, the primal as a conic problem.

The dual: prices of all tokens in coins of the target; minimise what the order is worth plus every pool's best arbitrage against
those prices (Diamandis, Resnick, Chitra and Angeris, "An Efficient Algorithm for Optimal Routing Through Constant Function Market
Makers", arXiv 2302.04938; memory and precision are those of their CFMMRouter). Both answer in coins of the target.
"""

import math
from typing import Any

import cvxpy as cp
import numpy as np
from models import TIGHT
from numba import njit
from scipy.optimize import minimize

LBFGSB = {"maxcor": 5, "ftol": 10 * np.finfo(float).eps, "gtol": 1e-8, "maxiter": 10_000, "maxfun": 100_000}


class Pools:
    """A network as arrays."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        rows = numbers["pools"]
        self.tokens, self.source, self.target = numbers["tokens"], numbers["source"], numbers["target"]
        self.amount, self.start = numbers["amount"], np.array(numbers["start"])
        self.pair = np.array([row[:2] for row in rows], np.int64)
        self.reserves = np.array([row[2:4] for row in rows])
        self.keep = 1 - np.array([row[4] for row in rows])

    def dual(self, *, compiled: bool) -> float:
        """By L-BFGS-B over the logarithms of the prices; arbitrage in numba or in numpy, as CFMMRouter's is in Julia."""
        free = np.arange(self.tokens) != self.target
        arbitrage = _compiled if compiled else _vectorised
        u = np.log(self.start)
        unit = self.amount * self.start[self.source]  # without it, its first steps overflow on some networks

        def value(x: Any) -> tuple[float, Any]:
            u[free] = x
            prices = np.exp(u)
            worth, left = arbitrage(prices, self.pair, self.reserves, self.keep)
            left[self.source] += self.amount
            return (worth + prices[self.source] * self.amount) / unit, (left * prices)[free] / unit

        found = minimize(value, u[free], jac=True, method="L-BFGS-B", options=LBFGSB)
        return float(found.fun) * unit

    def conic(self) -> float:
        """By cvxpy and Clarabel, values scaled to a millionth of the order's."""
        price, m = self.start, len(self.keep)
        unit = self.amount * price[self.source]
        reserves = self.reserves * price[self.pair] / unit
        given, taken = cp.Variable((m, 2), nonneg=True), cp.Variable((m, 2), nonneg=True)
        sums = [np.zeros((self.tokens, m)) for _ in range(2)]
        for side, one in enumerate(sums):
            one[self.pair[:, side], np.arange(m)] = 1
        net = sum(one @ (taken[:, side] - given[:, side]) for side, one in enumerate(sums))
        after = reserves + cp.multiply(self.keep[:, None], given) - taken
        root = np.sqrt(reserves.prod(1))
        curve = cp.SOC(after[:, 0] + after[:, 1], cp.vstack([2 * root, after[:, 0] - after[:, 1]]), axis=0)
        spent = np.zeros(self.tokens)
        spent[self.source] = -1.0
        others = np.arange(self.tokens) != self.target
        problem = cp.Problem(cp.Maximize(net[self.target]), [curve, net[others] >= spent[others]])
        return float(problem.solve(solver=cp.CLARABEL, **TIGHT)) * unit


def _vectorised(prices: Any, pair: Any, reserves: Any, keep: Any) -> tuple[float, Any]:
    worth = prices[pair] * reserves
    left, (a, b) = np.zeros(len(prices)), worth.T
    root = np.sqrt(a * b / keep)
    first, second = b * keep > a, a * keep > b
    profit = np.where(first, b + a / keep - 2 * root, 0.0) + np.where(second, a + b / keep - 2 * root, 0.0)
    on_a = np.where(first, a / keep - root, 0.0) + np.where(second, a - root, 0.0)
    on_b = np.where(first, b - root, 0.0) + np.where(second, b / keep - root, 0.0)
    np.add.at(left, pair[:, 0], on_a / prices[pair[:, 0]])
    np.add.at(left, pair[:, 1], on_b / prices[pair[:, 1]])
    return float(profit.sum()), left


@njit(cache=True)
def _compiled(prices, pair, reserves, keep):  # type: ignore[no-untyped-def]
    left, total = np.zeros(prices.size), 0.0
    for k in range(keep.size):
        p, q, g = pair[k, 0], pair[k, 1], keep[k]
        a, b = prices[p] * reserves[k, 0], prices[q] * reserves[k, 1]
        if b * g > a:
            root = math.sqrt(a * b / g)
            total += b + a / g - 2 * root
            left[p] += (a / g - root) / prices[p]
            left[q] += (b - root) / prices[q]
        elif a * g > b:
            root = math.sqrt(a * b / g)
            total += a + b / g - 2 * root
            left[p] += (a - root) / prices[p]
            left[q] += (b / g - root) / prices[q]
    return total, left
