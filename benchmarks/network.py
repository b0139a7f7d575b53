"""A network of 200 pools between 20 coins, sold through from nothing known but its reserves, beside the usual tools for it.

Peers: the same dual by scipy's L-BFGS-B with numpy for the pools (the way of CFMMRouter), from the true prices; the primal in cvxpy
with Clarabel, built and solved. All get the same seeded pools, and must agree before anything is timed. What is not installed is
named and left out. scipy and cvxpy belong to the peers' environment, numba to the extra `fast`; the product needs none of them.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from math import sqrt
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: threads make scipy's small steps many times slower

import numpy as np

from agent.routing.dual import plain
from agent.routing.edges import OPEN, Edges, Flow, Prepare
from agent.routing.network_fast import fast
from benchmarks.measure import Result, versus

COINS, POOLS, SEEDS = 20, 200, 8
RESIDUAL_MAX = 1e-8
AGREE = 1e-6  # relative: a hundredth of a basis point, what the peers can do


class Instance(NamedTuple):
    """Pool k swaps `pair[k]` from `reserves[k]`; `keep`: 1 - fee. `amount` of coin 0 is sold for the last coin."""

    pair: Any
    reserves: Any
    keep: Any
    prices: Any
    amount: float


def instance(seed: int, coins: int = COINS, pools: int = POOLS) -> Instance:
    """A spanning tree around four hubs first, then pools between hubs and others, or any two; reserves are off by 15 bps."""
    rng = np.random.default_rng(seed)
    prices = np.exp(rng.normal(0, 2, coins))
    hubs = np.array([0, 1, 2, coins - 1])
    pair = np.empty((pools, 2), np.int64)
    for k in range(pools):
        a = k + 1 if k < coins - 1 else int(rng.integers(0, coins))
        b = int(rng.choice(hubs) if k < coins - 1 or rng.random() < 0.5 else rng.integers(0, coins))
        pair[k] = a, b if a != b else (0 if a else 1)
    value = rng.lognormal(np.log(1e6), 1.2, pools)
    off = np.exp(rng.normal(0, 0.0015, pools))
    reserves = np.stack([value / prices[pair[:, 0]], value / prices[pair[:, 1]] * off], 1)
    keep = rng.choice([0.997, 0.999, 0.9995], pools)
    return Instance(pair, reserves, keep, prices, float(rng.lognormal(np.log(2e5), 1.0) / prices[0]))


def directions(found: Instance) -> Any:
    """Whether a pool may take its coin 0, and its coin 1: nothing goes back into what is sold, or on from what is bought."""
    last = len(found.prices) - 1
    taken, given = found.pair, found.pair[:, ::-1]
    return (given != 0) & (taken != last)


def edges_of(found: Instance) -> Edges:
    flat = Edges(*([] for _ in Edges._fields))
    allowed = directions(found)
    for k, (pair, reserves, keep) in enumerate(zip(found.pair.tolist(), found.reserves.tolist(), found.keep.tolist(), strict=True)):
        for side in (0, 1):
            if allowed[k, side]:
                inward, outward = reserves[side], reserves[1 - side]
                row = (pair[side], pair[1 - side], len(flat.at), len(flat.at) + 1, 0, 0, 0.0)
                for column, value in zip(flat[:7], row, strict=True):
                    column.append(value)
                piece = (sqrt(inward / (outward * keep)), 0.0, 0.0, sqrt(inward * outward / keep), 0.0)
                for column, value in zip(flat[7:12], piece, strict=True):
                    column.append(value)
    return flat


def ours(prepare: Prepare, found: Instance) -> Callable[[], Flow]:
    """Reserves are in the solver's lists; the rest, first prices included, is found anew in every call."""
    edges = edges_of(found)
    return partial(prepare(edges, len(found.prices), found.amount), [OPEN] * len(edges.tail), None)


def brought(flow: Flow, found: Instance) -> float:
    """Coins of the last kind that arrive."""
    heads = edges_of(found).head
    return sum(received for received, head in zip(flow.received, heads, strict=True) if head == len(found.prices) - 1)


def lbfgsb(found: Instance) -> Callable[[], float]:
    """The dual by scipy: value and gradient of all pools by numpy."""
    from scipy.optimize import minimize

    pair, reserves, keep, prices, amount = found
    count, allowed = len(prices), directions(found)
    scale = amount * prices[0] / prices[-1]

    def value_and_slope(logs: Any) -> tuple[float, Any]:
        worth = np.exp(np.append(logs, 0.0))
        held = worth[pair] * reserves
        middle = np.sqrt(held[:, 0] * held[:, 1] / keep)
        value, slope = amount * worth[0], np.zeros(count)
        slope[0] = value
        for side in (0, 1):
            inward, outward = held[:, side], held[:, 1 - side]
            active = allowed[:, side] & (outward * keep > inward)
            value += np.sum(np.where(active, outward + inward / keep - 2 * middle, 0.0))
            slope += np.bincount(pair[:, side], np.where(active, inward / keep - middle, 0.0), count)
            slope += np.bincount(pair[:, 1 - side], np.where(active, outward - middle, 0.0), count)
        return value / scale, slope[:-1] / scale

    start = np.log(prices[:-1] / prices[-1])
    options = {"maxiter": 2_000, "ftol": 2.2e-15, "gtol": 1e-5, "maxcor": 5}  # as CFMMRouter has them
    return lambda: float(minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options).fun * scale)


def conic(found: Instance) -> tuple[Callable[[], float], Callable[[], float]]:
    """The primal by cvxpy and Clarabel, in coins scaled by price: (coins brought, seconds in Clarabel alone)."""
    import cvxpy

    pair, reserves, keep, prices, amount = found
    count, pools, unit = len(prices), len(keep), 1e6
    held = reserves * prices[pair] / unit
    allowed = directions(found)
    into = [np.zeros((count, pools)), np.zeros((count, pools))]
    for side in (0, 1):
        into[side][pair[:, side], np.arange(pools)] = 1
    needed = np.zeros(count)
    needed[0] = -amount * prices[0] / unit
    inner = np.arange(count) != count - 1

    def solve() -> Any:
        paid, received = cvxpy.Variable((pools, 2), nonneg=True), cvxpy.Variable((pools, 2), nonneg=True)
        change = into[0] @ (received[:, 0] - paid[:, 0]) + into[1] @ (received[:, 1] - paid[:, 1])
        after = held + cvxpy.multiply(keep[:, None], paid) - received
        still = cvxpy.vstack([2 * np.sqrt(held.prod(1)), after[:, 0] - after[:, 1]])
        rules = [cvxpy.SOC(after[:, 0] + after[:, 1], still, axis=0), change[inner] >= needed[inner], paid[~allowed] == 0]
        rules.append(received[:, ::-1][~allowed] == 0)
        problem = cvxpy.Problem(cvxpy.Maximize(change[count - 1]), rules)
        problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        return problem

    return (
        lambda: float(solve().value * unit / prices[-1]),
        lambda: float(solve().solver_stats.solve_time),
    )


def run() -> list[Result]:
    found = [instance(seed) for seed in range(SEEDS)]
    compiled = fast()
    mine: dict[str, list[Callable[[], Flow]]] = {"plain": [ours(plain, one) for one in found]}
    if compiled is not None:
        mine = {"[fast]": [ours(compiled, one) for one in found], **mine}
    else:
        _missing("numba")
    for solvers in mine.values():
        for one, solver in zip(found, solvers, strict=True):
            flow = solver()
            assert flow.residual <= RESIDUAL_MAX, "what arrives at a coin is sent on"
            assert abs(flow.bound - brought(flow, one)) <= 1e-9 * flow.bound, "the flow attains its bound"
    best = next(iter(mine))
    results = []
    if find_spec("scipy") is not None:
        peers = [lbfgsb(one) for one in found]
        _agree("scipy", found, mine[best], peers)
        results += [_row(name, solvers, "scipy L-BFGS-B, numpy", peers, calls=SEEDS) for name, solvers in mine.items()]
    else:
        _missing("scipy")
    if find_spec("cvxpy") is not None and find_spec("clarabel") is not None:
        cones = [conic(one)[0] for one in found]
        _agree("cvxpy", found, mine[best], cones)
        results.append(_row(best, mine[best], "cvxpy + Clarabel", cones, calls=SEEDS, rounds=3))
        seconds = sorted(conic(one)[1]() for one in found)[SEEDS // 2]
        results.append(Result(results[-1].what, results[-1].ours_us, "Clarabel alone", seconds * 1e6))
    else:
        _missing("cvxpy and clarabel")
    if compiled is not None:
        results.append(_row("[fast]", mine["[fast]"], "our own plain Python", mine["plain"], calls=SEEDS))
    return results


def _row(name: str, solvers: list[Any], peer_name: str, peers: list[Any], calls: int, rounds: int = 15) -> Result:
    """One instance a call, in turn, the same for both."""
    turn, other = cycle(solvers), cycle(peers)
    return versus(
        f"{COINS} coins, {POOLS} pools, cold, {name}", lambda: next(turn)(), peer_name, lambda: next(other)(), calls, rounds
    )


def _agree(name: str, found: list[Instance], solvers: list[Any], peers: list[Any]) -> None:
    for one, solver, peer in zip(found, solvers, peers, strict=True):
        mine, theirs = brought(solver(), one), peer()
        assert abs(mine - theirs) <= AGREE * mine, f"{name} disagrees: {theirs} instead of {mine}"


def _missing(what: str) -> None:
    print(f"network: {what} is not installed here; its rows are left out", file=sys.stderr)
