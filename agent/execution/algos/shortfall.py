"""Implementation shortfall: risk costs while one waits, impact costs while one hurries, and the best path is between the two.

Almgren and Chriss, Optimal Execution of Portfolio Transactions (2001): with linear impact and a constant volatility the holdings
that are best for a risk aversion are x(t) = X sinh(kappa (T - t)) / sinh(kappa T). `urgency_pct` is 100 kappa T.
"""

from itertools import pairwise
from math import exp, expm1

from agent.domain.algo import Shortfall


def weights(algo: Shortfall, count: int) -> list[float]:
    """One for each of `count` parts, in order: what the holdings fall by in it, as a share of the order.

    >>> [round(one, 3) for one in weights(Shortfall(5, 1, 304), 5)]
    [0.459, 0.252, 0.142, 0.086, 0.062]
    """
    left = [_left(algo.urgency_pct / 100, part / count) for part in range(count + 1)]
    return [before - after for before, after in pairwise(left)]


def _left(urgency: float, at: float) -> float:
    """sinh(u (1 - at)) / sinh(u), without overflow; its limit where there is no urgency."""
    if urgency < 1e-9:
        return 1.0 - at
    return exp(-urgency * at) * expm1(-2 * urgency * (1.0 - at)) / expm1(-2 * urgency)
