"""The search of `kernel`, compiled: the same steps in the same order, and so the same answer to the last bit. Optional (numba).

`warm` compiles, or reads what was compiled before, and takes seconds: it belongs to the start, never to the first order.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from agent.routing.curve import Curve
from agent.routing.fill import GATED, IN, OUT, Costs, Problem
from agent.routing.kernel import NODES_MAX, TIE, Found

ROOM = 1.25  # how much wider a row becomes than what made it too narrow

_NO_CURVE = Curve(True, [], [], [], [])

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


class Arrays:
    """Owns the curves of one market and side as arrays, a row for each source, written again only when its curve is another one."""

    def __init__(self) -> None:
        self._curves: list[Curve] = []
        self._billed: Sequence[float]
        self._chained: Sequence[tuple[Sequence[int], float]]
        self._lay_out(0, 0)

    def _lay_out(self, count: int, width: int) -> None:
        self._width = width
        self._u, self._base, self._quote, self._slope = (np.zeros((count, width)) for _ in range(4))
        self._length, self._chain, self._shut = (np.zeros(count, np.int64) for _ in range(3))
        self._is_book, self._is_shut = np.zeros(count, np.bool_), False
        self._gas, self._opens, self._fixed = np.zeros(count), np.zeros(count), np.zeros(1)
        self._found, self._state = np.zeros(count), np.zeros(count, np.int64)
        self._work = np.zeros((5, count), np.int64)
        self._stack = np.zeros((count + 2, count), np.int64)
        self._billed, self._chained = (), ()

    def search(self, problem: Problem, costs: Costs, shut: Collection[int] = ()) -> Found | None:
        """See `kernel.search`."""
        self._take(problem.curves)
        if problem.gas is not self._billed or costs.chains is not self._chained:  # a memo gives the same lists again
            self._bill(problem.gas, costs.chains)
        self._opens[:] = problem.opens
        if shut or self._is_shut:
            self._is_shut = bool(shut)
            self._shut[:] = 0
            self._shut[list(shut)] = 1
        worth, u, nodes = _search(
            problem.quantity, 1.0 if problem.side == "sell" else -1.0, len(costs.chains), self._fixed, self._chain, self._shut,
            self._is_book, self._length, self._u, self._base, self._quote, self._slope, self._gas, self._opens, self._work,
            self._stack, self._found, self._state,
        )  # fmt: skip
        return Found(worth, u, self._found.tolist(), self._state.tolist(), nodes) if nodes else None

    def _bill(self, gas: Sequence[float], chains: Sequence[tuple[Sequence[int], float]]) -> None:
        """The lists are kept: as long as they are given again, nothing is written."""
        self._billed, self._chained = gas, chains
        self._gas[:] = gas
        self._chain[:] = -1
        self._fixed = np.zeros(max(len(chains), 1))
        for number, (pools, batch) in enumerate(chains):
            self._fixed[number] = batch
            for i in pools:
                self._chain[i] = number

    def _take(self, curves: Sequence[Curve]) -> None:
        known, count = self._curves, len(curves)
        if known == [] or len(known) != count or any(len(curve.u) > self._width for curve in curves):
            self._lay_out(count, int(max([len(curve.u) for curve in curves], default=0) * ROOM))
            known = [_NO_CURVE] * count
        for i, curve in enumerate(curves):
            if known[i] is not curve:
                k = len(curve.u)
                self._length[i], self._is_book[i] = k, curve.is_book
                self._u[i, :k], self._base[i, :k], self._quote[i, :k] = curve.u, curve.base, curve.quote
                if not curve.is_book:
                    self._slope[i, :k] = curve.slope
        self._curves = list(curves)


def warm() -> None:
    """Compile, or load what an earlier run compiled."""
    curve = Curve(True, [1.0], [1.0], [1.0], [0.0])
    rest = Curve(True, [2.0], [np.inf], [np.inf], [0.0])
    problem = Problem("sell", 1.0, [curve, rest], [0.0, 0.0], [1.0, 2.0], [[0], [1]], [np.inf, np.inf], [1.0, 1.0])
    Arrays().search(problem, Costs([], [0.0, 0.0]))


@njit(cache=True)
def _left(row: Floats, value: float, low: int, high: int) -> int:
    while low < high:
        middle = (low + high) >> 1
        if row[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _right(row: Floats, value: float, low: int, high: int) -> int:
    while low < high:
        middle = (low + high) >> 1
        if value < row[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True)
def _quote_for(is_book: bool, k: int, u: Floats, base: Floats, quote: Floats, slope: Floats, amount: float) -> float:
    """As `curve.quote_for`."""
    found = 0.0
    if is_book:
        j = _left(base, amount, 0, k)
        before = base[j - 1] if j else 0.0
        found = quote[j - 1] if j else 0.0
        if j < k:
            found = quote[j] if base[j] == amount else found + (amount - before) * (1.0 / (u[j] * u[j]))
        return found
    j = _right(base, amount, 0, k) - 1
    found = quote[j]
    if slope[j] != 0.0:
        found += slope[j] * (1.0 / u[j] - 1.0 / (u[j] + (amount - base[j]) / slope[j]))
    return float(found)


@njit(cache=True)
def _pour(
    quantity: float,
    state: Whole,
    is_book: NDArray[np.bool_],
    length: Whole,
    us: Floats,
    bases: Floats,
    slopes: Floats,
    opens: Floats,
    work: Whole,
    base: Floats,
) -> tuple[float, int]:
    """As `kernel._pour`; the split is left in `base`. Returns (u, torn); torn -2: the sources cannot take it."""
    count = state.size
    low, high, below, upto = work[0], work[1], work[2], work[3]
    for i in range(count):
        low[i] = 0
        high[i] = length[i] if state[i] != OUT else 0
    floor, ceiling = -np.inf, np.inf
    while True:
        width = widest = 0
        for i in range(count):
            if high[i] - low[i] > width:
                width = high[i] - low[i]
                widest = i
        is_found = width > 0
        u = 0.0
        if is_found:
            u = us[widest, (low[widest] + high[widest]) >> 1]
        else:
            for i in range(count):
                if state[i] == GATED and length[i] and floor < opens[i] < ceiling and opens[i] > us[i, 0]:
                    u = opens[i]
                    is_found = True
                    break
        if not is_found:
            break
        before = at = 0.0
        for i in range(count):
            if state[i] == OUT or not length[i]:
                continue
            k = high[i]
            j = _left(us[i], u, low[i], k)
            below[i] = j
            while j < k and us[i, j] == u:
                j += 1
            upto[i] = j
            if is_book[i]:
                if below[i]:
                    before += bases[i, below[i] - 1]
                if j:
                    at += bases[i, j - 1]
            elif j and (state[i] == IN or opens[i] <= u):
                amount = bases[i, j - 1] + slopes[i, j - 1] * (u - us[i, j - 1])
                at += amount
                if state[i] == IN or opens[i] < u:
                    before += amount
        if at < quantity:
            floor = u
            for i in range(count):
                if state[i] != OUT:
                    low[i] = upto[i]
        elif before > quantity:
            ceiling = u
            for i in range(count):
                if state[i] != OUT:
                    high[i] = below[i]
        else:
            return u, _jump(u, quantity, state, is_book, length, us, bases, slopes, opens, below, upto, base)
    slope, left = 0.0, quantity
    for i in range(count):
        base[i] = 0.0
        k = low[i]
        if state[i] == OUT or not k:
            continue
        if is_book[i]:
            base[i] = bases[i, k - 1]
        elif state[i] == IN or opens[i] <= floor:
            base[i] = bases[i, k - 1] + slopes[i, k - 1] * (floor - us[i, k - 1])
            slope += slopes[i, k - 1]
        left -= base[i]
    if slope <= 0.0:
        return 0.0, -2
    for i in range(count):
        k = low[i]
        if state[i] != OUT and k and not is_book[i] and (state[i] == IN or opens[i] <= floor):
            base[i] += left * (slopes[i, k - 1] / slope)
    return floor + left / slope, -1


@njit(cache=True)
def _jump(
    u: float,
    quantity: float,
    state: Whole,
    is_book: NDArray[np.bool_],
    length: Whole,
    us: Floats,
    bases: Floats,
    slopes: Floats,
    opens: Floats,
    below: Whole,
    upto: Whole,
    base: Floats,
) -> int:
    """As `kernel._jump`; returns the torn pool or -1."""
    count, left = state.size, quantity
    for i in range(count):
        base[i] = 0.0
        if state[i] == OUT or not length[i]:
            continue
        j = upto[i]
        if is_book[i]:
            base[i] = bases[i, below[i] - 1] if below[i] else 0.0
        elif j and (state[i] == IN or opens[i] < u):
            base[i] = bases[i, j - 1] + slopes[i, j - 1] * (u - us[i, j - 1])
        left -= base[i]
    for i in range(count):
        if left > 0.0 and state[i] != OUT and length[i] and is_book[i] and upto[i]:
            take = min(left, bases[i, upto[i] - 1] - base[i])
            base[i] += take
            left -= take
    for i in range(count):
        if left > 0.0 and state[i] == GATED and length[i] and not is_book[i] and upto[i] and opens[i] == u:
            j = upto[i]
            whole = bases[i, j - 1] + slopes[i, j - 1] * (u - us[i, j - 1])
            base[i] = min(left, whole)
            if left < whole:
                return i
            left -= whole
    return -1


@njit(cache=True)
def _search(
    quantity: float,
    sign: float,
    chains: int,
    fixed: Floats,
    chain: Whole,
    shut: Whole,
    is_book: NDArray[np.bool_],
    length: Whole,
    us: Floats,
    bases: Floats,
    quotes: Floats,
    slopes: Floats,
    gas: Floats,
    opens: Floats,
    work: Whole,
    stack: Whole,
    found: Floats,
    chosen: Whole,
) -> tuple[float, float, int]:
    """As `kernel.search`; the split is left in `found` and `chosen`. Returns (worth, u, nodes); nodes 0: no answer."""
    count = length.size
    base = np.zeros(count)
    best, best_u, best_nodes = 0.0, 0.0, 0
    nodes = 0
    for mask in range(1 << chains):  # the first chain is the highest bit: the order of itertools.product
        batches_max = 0.0
        for number in range(chains):
            if not (mask >> (chains - 1 - number)) & 1:
                batches_max += fixed[number]
        for i in range(count):
            stack[0, i] = IN if gas[i] <= 0.0 and not is_book[i] else GATED
            if shut[i] or (chain[i] >= 0 and (mask >> (chains - 1 - chain[i])) & 1):
                stack[0, i] = OUT
        top, left = 1, NODES_MAX
        while top and left:
            top -= 1
            state = work[4]
            for i in range(count):
                state[i] = stack[top, i]
            nodes += 1
            left -= 1
            u, torn = _pour(quantity, state, is_book, length, us, bases, slopes, opens, work, base)
            if torn == -2:
                continue
            worth = 0.0
            for i in range(count):
                if i == torn:
                    worth += sign * base[i] / (u * u)
                elif base[i] > 0.0:
                    paid = _quote_for(is_book[i], length[i], us[i], bases[i], quotes[i], slopes[i], base[i])
                    worth += sign * paid - gas[i]
                elif state[i] == IN:
                    worth -= gas[i]
            if best_nodes and worth - batches_max <= best + TIE * abs(best):
                continue
            if torn < 0:
                batches = 0.0
                for number in range(chains):
                    for i in range(count):
                        if chain[i] == number and base[i] > 0.0:
                            batches += fixed[number]
                            break
                best, best_u, best_nodes = worth - batches, u, nodes
                for i in range(count):
                    found[i] = base[i]
                    chosen[i] = state[i]
                if nodes == 1 and batches == 0.0:
                    return best, best_u, best_nodes
            else:
                for i in range(count):
                    stack[top, i] = state[i]
                    stack[top + 1, i] = state[i]
                stack[top, torn] = OUT
                stack[top + 1, torn] = IN
                top += 2
    return best, best_u, best_nodes
