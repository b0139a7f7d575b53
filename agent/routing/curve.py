"""How the price of a source worsens as more is traded there: the float picture that the search works on. Never money.

Every source becomes rising breakpoints in `u`. With p the marginal price after fee, in quote coins per base coin: u = 1/sqrt(p)
when selling, u = -1/sqrt(p) when buying, so u rises as the price worsens. On this scale the base that a pool has taken (or given)
at u is a straight line between breakpoints, and a book is a staircase, so the supply of any set of sources is piecewise linear and
the search finite. Uniswap ranges: base = a (u - u_j), quote = a (1/u_j - 1/u) for both sides, with a as in `liquidity.curves`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import inf, sqrt
from operator import mul

import msgspec

from agent.domain.instrument import PIPS, Instrument, Side
from agent.domain.market import Level
from agent.domain.price import Price
from agent.liquidity.curves import segments
from agent.market.view import PoolLiquidity


class Curve(msgspec.Struct, frozen=True):
    """One source for one side, in whole coins. Parallel lists over breakpoints `u`, rising.

    A book's `base` and `quote` count the level itself, a pool's what was traded up to there; `slope` is base per u after it.
    """

    is_book: bool
    u: list[float]
    base: list[float]
    quote: list[float]
    slope: list[float]


def root(price: float, side: Side) -> float:
    """The u of a price."""
    return (1 if side == "sell" else -1) / sqrt(price)


def price_at(u: float) -> float:
    return 1 / (u * u)


def book_curve(levels: Sequence[Level], found: Instrument, side: Side, worst: Price | None) -> Curve:
    """The levels (best first) no worse than `worst`, which counts before the fee as an order's limit does. Exact there."""
    keep, sign = 1 - found.fee_pips / PIPS, 1 if side == "sell" else -1
    tick = found.tick_units / 10.0**found.quote.decimals * (keep if side == "sell" else 1 / keep)
    lot = found.lot_units / 10.0**found.base.decimals
    if worst is not None:  # ticks rise as the price worsens when they are given the side's sign
        last = -sign * worst_ticks(found, side, worst)
        levels = levels[: bisect_right(levels, last, key=lambda level: -sign * level[0])]
    prices = [ticks * tick for ticks, _ in levels]
    sizes = [lots * lot for _, lots in levels]
    us = [sign / sqrt(price) for price in prices]
    return Curve(True, us, list(accumulate(sizes)), list(accumulate(map(mul, sizes, prices))), [0.0] * len(us))


def worst_ticks(found: Instrument, side: Side, worst: Price) -> int:
    """The last tick of a book that is no worse than a price. Exact."""
    top, bottom = worst.num * 10**found.quote.decimals, worst.den * found.tick_units
    return -(-top // bottom) if side == "sell" else int(top // bottom)


def pool_curve(state: PoolLiquidity, found: Instrument, side: Side, worst: float) -> Curve:
    """A pool until its marginal price after the fee reaches `worst` (quote per base), or until what is known of it ends."""
    selling, end = side == "sell", root(worst, side)
    us: list[float] = []
    bases: list[float] = []
    quotes: list[float] = []
    slopes: list[float] = []
    base = quote = stop = 0.0
    for segment in segments(
        state,
        selling=selling,
        base_decimals=found.base.decimals,
        quote_decimals=found.quote.decimals,
        base_is_0=found.base_is_token0,
    ):
        start = root(segment.price_start, side)
        if start >= end:
            break
        if us and start > stop:  # a gap without liquidity
            _append(us, bases, quotes, slopes, stop, base, quote, 0.0)
        _append(us, bases, quotes, slopes, start, base, quote, segment.slope)
        stop = min(root(segment.price_end, side), end) if 0 < segment.price_end < inf else end
        base += segment.slope * (stop - start)
        quote += segment.slope * (1 / start - 1 / stop)
    if us:
        _append(us, bases, quotes, slopes, stop, base, quote, 0.0)
    return Curve(False, us, bases, quotes, slopes)


def charged(curve: Curve, pips: int, side: Side) -> Curve:
    """The same source with every price worse by so many millionths."""
    factor = 1 - pips / PIPS if side == "sell" else 1 + pips / PIPS
    wide = 1 / sqrt(factor)
    return Curve(
        curve.is_book,
        [u * wide for u in curve.u],
        curve.base,
        [quote * factor for quote in curve.quote],
        [slope / wide for slope in curve.slope],
    )


def floored(curve: Curve, base: float) -> Curve:
    """The same book, of which `base` coins are traded in any case: they come before every price."""
    first = bisect_left(curve.base, base)
    quote = quote_for(curve, base)
    return Curve(
        True, [-inf, *curve.u[first:]], [base, *curve.base[first:]], [quote, *curve.quote[first:]], [0.0, *curve.slope[first:]]
    )


def cut(curve: Curve, base: float) -> Curve:
    """The same book, as if it ended after `base` coins."""
    if base <= 0:
        return Curve(True, [], [], [], [])
    last = bisect_left(curve.base, base * (1 - 1e-12))
    quote = quote_for(curve, base)
    return Curve(True, curve.u[: last + 1], [*curve.base[:last], base], [*curve.quote[:last], quote], curve.slope[: last + 1])


def supply(curve: Curve, u: float) -> float:
    """Base traded when the marginal price has worsened to u, a level at exactly u included."""
    k = bisect_right(curve.u, u) - 1
    if k < 0:
        return 0.0
    return curve.base[k] if curve.is_book else curve.base[k] + curve.slope[k] * (u - curve.u[k])


def supply_before(curve: Curve, u: float) -> float:
    """The same, a level at exactly u left out."""
    if not curve.is_book:
        return supply(curve, u)
    k = bisect_left(curve.u, u) - 1
    return curve.base[k] if k >= 0 else 0.0


def quote_for(curve: Curve, base: float) -> float:
    """Quote coins for `base` coins, after the fee."""
    if curve.is_book:
        k = bisect_left(curve.base, base)
        if k < len(curve.u) and curve.base[k] == base:
            return curve.quote[k]
        before, quote = (curve.base[k - 1], curve.quote[k - 1]) if k else (0.0, 0.0)
        return quote + (base - before) * price_at(curve.u[k]) if k < len(curve.u) else quote
    k = bisect_right(curve.base, base) - 1
    slope, u = curve.slope[k], curve.u[k]
    return curve.quote[k] + slope * (1 / u - 1 / (u + (base - curve.base[k]) / slope)) if slope else curve.quote[k]


def threshold(curve: Curve, gas: float, side: Side) -> float:
    """The u from which a pool's gain over the marginal price pays `gas` quote coins; infinite if never. Independent of the order.

    gain(u) = quote - price * base when selling, the reverse when buying; it never falls as u rises. Within a range it is a
    quadratic in w = 1/u: (slope u_j - base_j) w^2 - 2 slope w + quote_j + slope / u_j = gain. Beyond the supply it still grows.
    """
    sign = 1 if side == "sell" else -1
    if gas <= 0 or not curve.u:
        return curve.u[0] if curve.u else inf
    k = -1
    for u, base, quote in zip(curve.u, curve.base, curve.quote, strict=True):
        if sign * (quote - base * price_at(u)) >= gas:
            break
        k += 1
    slope, u = curve.slope[k], curve.u[k]
    if slope == 0:
        left = curve.quote[k] - sign * gas
        return root(left / curve.base[k], side) if left > 0 and curve.base[k] else inf
    a, c = slope * u - curve.base[k], curve.quote[k] + slope / u - sign * gas
    square = slope * slope - a * c
    if square < 0:
        return inf
    w = c / (slope + sqrt(square)) if side == "sell" else (slope + sqrt(square)) / a
    return 1 / w if sign * w > 0 else inf


def _append(
    us: list[float], bases: list[float], quotes: list[float], slopes: list[float], u: float, base: float, quote: float, slope: float
) -> None:
    us.append(u)
    bases.append(base)
    quotes.append(quote)
    slopes.append(slope)
