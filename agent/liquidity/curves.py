"""Liquidity as the router's search sees it: floats in whole coins, one row per stretch of constant liquidity. Opinions,
never money.

All prices are quote per base and *all-in*, after the source's fee: what the next coin really brings (selling) or
costs (buying). Selling walks prices down, buying walks them up; segments stand in the order in which they are used.

With liquidity L in whole coins, gamma = 1 - fee and a pool price s^2, the all-in price is lambda = gamma s^2 when
selling (the fee is taken from the base paid in) and s^2 / gamma when buying (from the quote paid in). Both integrate
to the same two lines, with a = L / sqrt(gamma):

    base  = a |lambda^(-1/2) - lambda_start^(-1/2)|         quote = a |lambda^(1/2) - lambda_start^(1/2)|

so base is linear in lambda^(-1/2): a sum over sources is piecewise linear and can be solved exactly. A v2 pool is
one such stretch with L = sqrt(reserve * reserve) (its curve has no end), a v3 or v4 pool one per range between
initialised ticks. A book level is a step: price p and size q become p gamma and q when selling, p / gamma and q
gamma when buying, as the fee is kept from what is received. A stableswap pool has no such stretches: between close knots
a straight line in lambda^(-1/2) stands for its curve (`stable_knots`). (Angeris, Evans, Chitra and Boyd, "Optimal Routing for
Constant Function Market Makers", 2021, for marginal prices; the algebra above is ours and is tested against exact
quotes.)
"""

from collections.abc import Iterator
from itertools import pairwise
from math import inf, sqrt

import msgspec

from agent.domain.instrument import PIPS
from agent.liquidity.concentrated import Concentrated, swap_fee_pips
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth
from agent.liquidity.stable import FEE_UNITS, StableSwap
from agent.liquidity.stable_knots import coins, knots
from agent.liquidity.tick_math import sqrt_price_at_tick

Source = ConstantProduct | Concentrated | StableSwap | Depth


class Segment(msgspec.Struct, frozen=True):
    """From `price_start` to `price_end` the source takes (selling) or gives (buying) `base_capacity` base coins.

    `slope` is a above: base per unit of price^(-1/2). Zero marks a step, all of it at one price.
    """

    price_start: float
    price_end: float
    slope: float
    base_capacity: float


def segments(
    source: Source, *, selling: bool, base_decimals: int, quote_decimals: int, base_is_0: bool = True
) -> tuple[Segment, ...]:
    """The curve of any source for selling base into it, or buying base from it.

    `base_is_0` says which asset of a pool is the base; a book's is always asset 0.
    """
    decimals = (base_decimals, quote_decimals) if base_is_0 else (quote_decimals, base_decimals)
    match source:
        case Depth():
            return _book(source, selling, quote_decimals)
        case ConstantProduct():
            return _constant_product(source, selling, decimals, base_is_0)
        case Concentrated():
            return _concentrated(source, selling, decimals, base_is_0)
        case StableSwap():
            return _stable(source, selling, decimals, base_is_0)


def absorbed(curve: tuple[Segment, ...], price: float, *, selling: bool) -> float:
    """Base coins traded until the marginal all-in price has moved to `price`; segments at exactly that price count in full."""
    total = 0.0
    for segment in curve:
        if segment.price_start < price if selling else segment.price_start > price:
            break
        if segment.price_end >= price if selling else segment.price_end <= price:
            total += segment.base_capacity
        else:
            total += segment.slope * abs(price**-0.5 - segment.price_start**-0.5)
    return total


def exchanged(curve: tuple[Segment, ...], price: float, *, selling: bool) -> float:
    """Quote coins received (selling) or paid (buying) until the marginal all-in price has moved to `price`."""
    total = 0.0
    for segment in curve:
        if segment.price_start < price if selling else segment.price_start > price:
            break
        if segment.slope == 0.0:
            total += segment.base_capacity * segment.price_start
        else:
            end = max(segment.price_end, price) if selling else min(segment.price_end, price)
            total += segment.slope * abs(sqrt(end) - sqrt(segment.price_start))
    return total


def _book(book: Depth, selling: bool, quote_decimals: int) -> tuple[Segment, ...]:
    gamma = 1.0 - book.fee_pips / PIPS
    price_unit = book.tick_units / 10**quote_decimals
    size_unit = book.lot_units / 10**book.base_decimals
    price_factor, size_factor = (gamma, 1.0) if selling else (1.0 / gamma, gamma)
    found = []
    for ticks, lots in book.bids if selling else book.asks:
        price = ticks * price_unit * price_factor
        found.append(Segment(price, price, 0.0, lots * size_unit * size_factor))
    return tuple(found)


def _constant_product(pool: ConstantProduct, selling: bool, decimals: tuple[int, int], base_is_0: bool) -> tuple[Segment, ...]:
    gamma = 1.0 - pool.fee_pips / PIPS
    reserves = (pool.reserve_0 / 10 ** decimals[0], pool.reserve_1 / 10 ** decimals[1])
    base, quote = reserves if base_is_0 else reserves[::-1]
    if not base or not quote:
        return ()
    slope = sqrt(base * quote / gamma)
    if selling:
        return (Segment(gamma * quote / base, 0.0, slope, inf),)
    return (Segment(quote / base / gamma, inf, slope, base),)


def _concentrated(pool: Concentrated, selling: bool, decimals: tuple[int, int], base_is_0: bool) -> tuple[Segment, ...]:
    zero_for_one = selling == base_is_0
    gamma = 1.0 - swap_fee_pips(pool, zero_for_one) / PIPS
    factor = gamma if selling else 1.0 / gamma
    root_unit = 10.0 ** ((decimals[0] - decimals[1]) / 2) / 2.0**96
    slope_unit = 10.0 ** (-(decimals[0] + decimals[1]) / 2) / sqrt(gamma)
    found = []
    for root_from, root_to, liquidity in _ranges_down(pool) if zero_for_one else _ranges_up(pool):
        start, end = root_from * root_unit, root_to * root_unit
        if not base_is_0:
            start, end = 1.0 / start, 1.0 / end
        start, end = start * start * factor, end * end * factor
        slope = liquidity * slope_unit
        found.append(Segment(start, end, slope, slope * abs(end**-0.5 - start**-0.5)))
    return tuple(found)


def _stable(pool: StableSwap, selling: bool, decimals: tuple[int, int], base_is_0: bool) -> tuple[Segment, ...]:
    """The fee is taken from what comes out: from the quote when selling, from the base when buying."""
    zero_for_one = selling == base_is_0
    gamma = 1.0 - pool.fee / FEE_UNITS
    per_in, per_out = coins(pool, zero_for_one, decimals)
    per_base, price_factor = (per_in, gamma * per_in / per_out) if selling else (per_out / gamma, per_out / per_in / gamma)
    u_factor = price_factor**-0.5
    rows = [(price_factor / (u * u), u * u_factor, base / per_base) for u, base in knots(pool, zero_for_one, selling)]
    return tuple(
        Segment(near[0], far[0], (far[2] - near[2]) / (far[1] - near[1]), far[2] - near[2]) for near, far in pairwise(rows)
    )


def _ranges_down(pool: Concentrated) -> Iterator[tuple[int, int, int]]:
    """(root price from, to, liquidity) with the price falling to the last known tick; empty ranges are left out."""
    price_x96, liquidity = pool.sqrt_price_x96, pool.liquidity
    for tick, net in (*reversed([entry for entry in pool.ticks if entry[0] <= pool.tick]), (pool.known_lower, 0)):
        edge_x96 = sqrt_price_at_tick(tick)
        if liquidity and edge_x96 < price_x96:
            yield price_x96, edge_x96, liquidity
        price_x96 = min(price_x96, edge_x96)
        liquidity -= net


def _ranges_up(pool: Concentrated) -> Iterator[tuple[int, int, int]]:
    """(root price from, to, liquidity) with the price rising to the last known tick; empty ranges are left out."""
    price_x96, liquidity = pool.sqrt_price_x96, pool.liquidity
    for tick, net in (*[entry for entry in pool.ticks if entry[0] > pool.tick], (pool.known_upper, 0)):
        edge_x96 = sqrt_price_at_tick(tick)
        if liquidity and edge_x96 > price_x96:
            yield price_x96, edge_x96, liquidity
        price_x96 = max(price_x96, edge_x96)
        liquidity += net
