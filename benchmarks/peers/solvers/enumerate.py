"""The optimum by brute force: every set of pools (and of books with a smallest order), each filled by bisection on the price.

Shares nothing with the router's search but the definition of the problem: no breakpoints, no thresholds, no branching. Sources are
counted books, v2, v3, stable (these for selling alone). Compiled, because two to the twelfth is a large number.
"""

import math
from typing import Any

import numpy as np
from numba import njit

STEPS = 90  # halvings of the marginal price's logarithm: below a float's resolution
INNER = 60  # halvings of what a stableswap takes; with Newton's last word by the outer ones


def optimum(numbers: dict[str, Any]) -> tuple[float, list[float]]:
    """Net quote coins of the best split (negative when buying: what it costs), and base coins at each source."""
    books, v2, v3 = numbers["books"], numbers["v2"], numbers["v3"]
    prices, sizes = _padded([one["prices"] for one in books]), _padded([one["sizes"] for one in books])
    ranges, roots = _padded([one["liquidity"] for one in v3]), _padded([one["roots"] for one in v3])
    stable = [[one["base"], one["quote"], one["rate"], one["ann"], one["fee"]] for one in numbers["stable"]]
    assert numbers["side"] == "sell" or not stable, "stableswaps are enumerated for selling alone"
    flat = (
        prices,
        sizes,
        np.array([one["fee"] for one in books]),
        np.array([[one["base"], one["quote"], one["fee"]] for one in v2]).reshape(len(v2), 3),
        ranges,
        roots,
        np.array([one["fee"] for one in v3]),
        np.array([[*row, invariant(row[0], row[1], row[3])] for row in stable]).reshape(len(stable), 6),
    )
    least = np.array([one["least"] for one in books] + [0.0] * (len(v2) + len(v3) + len(stable)))
    gas = np.array([0.0] * len(books) + numbers["gas"])
    taken = np.zeros(len(least))
    best = _best(numbers["side"] == "sell", numbers["quantity"], gas, numbers["batch"], least, *flat, taken)
    return float(best), taken.tolist()


def _padded(rows: list[list[float]]) -> Any:
    width = max((len(row) for row in rows), default=1)
    return np.array([row + [0.0] * (width - len(row)) for row in rows]).reshape(len(rows), width)


def invariant(x: float, y: float, ann: float) -> float:
    """D of Ann (x + y) + D = Ann D + D^3 / (4 x y), by bisection."""
    low, high = 0.0, 2 * (x + y)
    for _ in range(200):
        d = (low + high) / 2
        low, high = (d, high) if ann * (x + y) + d > ann * d + d**3 / (4 * x * y) else (low, d)
    return (low + high) / 2


@njit(cache=True)
def _other(x, ann, d):  # type: ignore[no-untyped-def]
    """The balance y beside x: the positive root of y^2 + (x + D/Ann - D) y = D^3 / (4 x Ann)."""
    b, c = x + d / ann - d, d**3 / (4 * x * ann)
    root = math.sqrt(b * b + 4 * c)
    return 2 * c / (b + root) if b >= 0 else (root - b) / 2


@njit(cache=True)
def _stable_supply(price, pool):  # type: ignore[no-untyped-def]
    """Base coins until the marginal price is `price`; the pool pays less for each."""
    x, _, rate, ann, fee, d = pool
    low, high = 0.0, 100 * d
    for _ in range(INNER):
        more = (low + high) / 2
        left = _other(x + more, ann, d)
        q = d**3 / (4 * (x + more) * left)
        if (ann + q / (x + more)) / (ann + q / left) * (1 - fee) * rate > price:
            low = more
        else:
            high = more
    return low / rate


@njit(cache=True)
def _supply(selling, price, use, least, prices, sizes, book_fee, v2, ranges, roots, v3_fee, stable, taken):  # type: ignore[no-untyped-def]
    """Base that each source trades until its marginal price, after the fee, has worsened to `price`, levels at it included."""
    books, pairs, total = prices.shape[0], v2.shape[0], 0.0
    for i in range(taken.size):
        x = 0.0
        if use[i] and i < books:
            keep = 1 - book_fee[i]
            for j in range(prices.shape[1]):
                if sizes[i, j] == 0.0 or (prices[i, j] * keep < price if selling else prices[i, j] / keep > price):
                    break
                x += sizes[i, j]
            x = max(x, least[i])
        elif use[i] and i < books + pairs:
            base, quote, keep = v2[i - books, 0], v2[i - books, 1], 1 - v2[i - books, 2]
            if selling:
                x = max((math.sqrt(base * quote * keep / price) - base) / keep, 0.0)
            else:
                x = max(base - math.sqrt(base * quote / (keep * price)), 0.0)
        elif use[i] and i >= taken.size - stable.shape[0]:
            x = _stable_supply(price, stable[i - taken.size + stable.shape[0]])
        elif use[i]:
            n = i - books - pairs
            keep = 1 - v3_fee[n]
            stop = math.sqrt(price / keep) if selling else math.sqrt(price * keep)
            for j in range(ranges.shape[1]):
                start, end = roots[n, j], roots[n, j + 1]
                if end == 0.0 or (stop >= start if selling else stop <= start):
                    break
                end = max(stop, end) if selling else min(stop, end)
                x += ranges[n, j] * (1 / end - 1 / start) / keep if selling else ranges[n, j] * (1 / start - 1 / end)
        taken[i] = x
        total += x
    return total


@njit(cache=True)
def _worth(selling, prices, sizes, book_fee, v2, ranges, roots, v3_fee, stable, taken):  # type: ignore[no-untyped-def]
    """Quote coins for what is taken, negative when buying, before gas."""
    books, pairs, total = prices.shape[0], v2.shape[0], 0.0
    for i in range(taken.size):
        x = taken[i]
        if x <= 0:
            continue
        if i < books:
            keep = 1 - book_fee[i]
            for j in range(prices.shape[1]):
                part = min(x, sizes[i, j])
                total += part * prices[i, j] * keep if selling else -part * prices[i, j] / keep
                x -= part
        elif i < books + pairs:
            base, quote, keep = v2[i - books, 0], v2[i - books, 1], 1 - v2[i - books, 2]
            total += quote * x * keep / (base + x * keep) if selling else -quote * x / ((base - x) * keep)
        elif i >= taken.size - stable.shape[0]:
            own, other, rate, ann, fee, d = stable[i - taken.size + stable.shape[0]]
            total += (other - _other(own + x * rate, ann, d)) * (1 - fee)
        else:
            n = i - books - pairs
            keep = 1 - v3_fee[n]
            for j in range(ranges.shape[1]):
                start, end, deep = roots[n, j], roots[n, j + 1], ranges[n, j]
                if x <= 0 or end == 0.0:
                    break
                room = deep * (1 / end - 1 / start) / keep if selling else deep * (1 / start - 1 / end)
                part = min(x, room)
                stop = 1 / (1 / start + part * keep / deep) if selling else 1 / (1 / start - part / deep)
                total += deep * (start - stop) if selling else -deep * (stop - start) / keep
                x -= part
    return total


@njit(cache=True)
def _fill(selling, quantity, use, least, prices, sizes, book_fee, v2, ranges, roots, v3_fee, stable, taken, more):  # type: ignore[no-untyped-def]
    """The best worth for one set of sources; what a level at the last price holds too much is left there."""
    raw = (prices, sizes, book_fee, v2, ranges, roots, v3_fee, stable)
    good, bad = (1e9, 1e-3) if selling else (1e-3, 1e9)
    if _supply(selling, good, use, least, *raw, taken) > quantity or _supply(selling, bad, use, least, *raw, taken) < quantity:
        return -1e300
    for _ in range(STEPS):
        price = math.sqrt(good * bad)
        if _supply(selling, price, use, least, *raw, taken) < quantity:
            good = price
        else:
            bad = price
    left = quantity - _supply(selling, good, use, least, *raw, taken)
    _supply(selling, bad, use, least, *raw, more)
    for i in range(taken.size):
        part = min(max(more[i] - taken[i], 0.0), left)
        taken[i] += part
        left -= part
    return _worth(selling, *raw, taken)


@njit(cache=True)
def _best(selling, quantity, gas, batch, least, prices, sizes, book_fee, v2, ranges, roots, v3_fee, stable, found):  # type: ignore[no-untyped-def]
    raw = (prices, sizes, book_fee, v2, ranges, roots, v3_fee, stable)
    books, n = prices.shape[0], found.size
    free = [i for i in range(n) if i >= books or least[i] > 0.0]
    use, taken, more = np.ones(n, np.bool_), np.zeros(n), np.zeros(n)
    best = -1e300
    for mask in range(1 << len(free)):
        cost, pools = 0.0, 0
        for bit in range(len(free)):
            i = free[bit]
            use[i] = (mask >> bit) & 1
            if use[i] and i >= books:
                cost += gas[i]
                pools += 1
        worth = _fill(selling, quantity, use, least, *raw, taken, more) - cost - (batch if pools else 0.0)
        if worth > best:
            best = worth
            for i in range(n):
                found[i] = taken[i]
    return best
