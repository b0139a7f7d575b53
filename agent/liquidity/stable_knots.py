"""A stableswap pool's curve as the router's search needs it: knots between which base is a straight line in price^(-1/2). Floats.

The knots are chosen, not spread: an interval is halved until what the router can lose inside it, against the exact curve, is small.
With e the error in base that loss is at most e^2 / 2 times the slope of the price (when all else is flat), so it falls with the
fourth power of the interval. Every second knot lies on the curve. The one between is moved off it by so much that the quote up to
the next is exact too, or the value of a large trade would be off by up to half a basis point.
"""

from collections.abc import Callable
from functools import lru_cache
from math import ceil, exp, log, sqrt

import msgspec

from agent.domain.errors import LiquidityError
from agent.liquidity.stable import RATE_UNIT, StableSwap, invariant, scaled

LOSS_MAX = 6e-9  # of the value traded: less than 1e-4 basis points
INTERVALS_MAX = 300  # a pool a thousand to one out of balance would need more
REACH = 4.0  # the curve goes to 1/17 of the price at balance, or until an eighth of the coin is left if that is further

_COIN = 1e18

Knots = tuple[tuple[float, float], ...]


class _Point(msgspec.Struct, frozen=True):
    """`place` is the logarithm of the balances' ratio."""

    place: float
    u: float
    base: float
    quote: float


@lru_cache(maxsize=256)  # a table costs 0.2 to 0.6 ms, and one route asks several times
def knots(pool: StableSwap, zero_for_one: bool, selling: bool) -> Knots:
    """(u, base) from the present state on, both rising, in coins of 18 decimals and before the fee. None for a pool out of order.

    u = p^(-1/2) when selling and -p^(1/2) when buying, with p what comes out per coin that goes in.
    """
    try:
        d = invariant(pool) / _COIN
        x, y = (balance / _COIN for balance in scaled(pool, zero_for_one))
    except LiquidityError:
        return ()
    ann = 2.0 * pool.amp / pool.amp_precision

    def point(place: float, now_x: float, now_y: float) -> _Point:
        q = d / now_x * d / now_y * d / 4
        root = sqrt((ann + q / now_x) / (ann + q / now_y))
        taken, given = now_x - x, y - now_y
        return _Point(place, 1 / root, taken, given) if selling else _Point(place, -root, given, taken)

    def at(place: float) -> _Point:
        """The smaller balance follows from the place without cancellation, the other one from the invariant."""
        small = d / (1 + exp(abs(place)))
        large = _other(ann, d, small)
        return point(place, small, large) if place < 0 else point(place, large, small)

    start = log(max(d / min(x, y) - 1, 1.0)) * (1 if y <= x else -1)
    end = max(log(2 * REACH * sqrt(ann)), start + log(8))
    count = ceil(end - start)
    rest = [at(start + (end - start) * k / count) for k in range(count, 0, -1)]
    return _refined(point(start, x, y), rest, at)


def coins(pool: StableSwap, zero_for_one: bool, decimals: tuple[int, int]) -> tuple[float, float]:
    """How many coins of 18 decimals one whole coin counts for: of the coin paid in, of the coin paid out. `decimals` of 0 and 1."""
    per_0 = pool.rate_0 / RATE_UNIT * 10.0 ** (decimals[0] - 18)
    per_1 = pool.rate_1 / RATE_UNIT * 10.0 ** (decimals[1] - 18)
    return (per_0, per_1) if zero_for_one else (per_1, per_0)


def _other(ann: float, d: float, x: float) -> float:
    """The other balance, from the quadratic y^2 + b y = c, in the form that does not cancel."""
    b, c = x + d / ann - d, d / (4 * x) * d / ann * d
    root = sqrt(b * b + 4 * c)
    return 2 * c / (b + root) if b >= 0 else (root - b) / 2


def _refined(near: _Point, rest: list[_Point], at: Callable[[float], _Point]) -> Knots:
    """From `near` through `rest`, whose last is the next, every interval halved where it must be."""
    found, room = [(near.u, near.base)], INTERVALS_MAX - len(rest)
    while rest:
        far = rest[-1]
        quarter, middle = at((3 * near.place + far.place) / 4), at((near.place + far.place) / 2)
        if not near.u < quarter.u < middle.u < far.u:
            rest.pop()  # closer than floats can tell
            continue
        moved = _moved(near, middle, far)
        line = near.base + (moved - near.base) * (quarter.u - near.u) / (middle.u - near.u)
        if room > 0 and max(_loss(near, far, middle, moved), _loss(near, far, quarter, line)) > LOSS_MAX:
            rest.append(middle)
            room -= 1
        else:
            found += [(middle.u, moved), (far.u, far.base)]
            near = rest.pop()
    return tuple(found)


def _moved(near: _Point, middle: _Point, far: _Point) -> float:
    """The base at the middle for which both halves together give exactly the quote between `near` and `far`."""
    base, quote = far.base - near.base, far.quote - near.quote
    moved = near.u * (quote * middle.u * far.u - base) / (far.u - near.u)
    return near.base + min(max(moved, 0.0), base)


def _loss(near: _Point, far: _Point, inner: _Point, base: float) -> float:
    """What it costs to take `base` for the base at an inner point, as a part of all that is traded up to there."""
    error = base - inner.base
    steepness = abs(1 / far.u**2 - 1 / near.u**2) / (far.base - near.base)
    return error * error / 2 * steepness * inner.u**2 / inner.base
