"""Uniswap v3 and v4 pools: liquidity that differs from price range to price range.

A swap walks from one stopping price to the next exactly as the contracts do, because every stop rounds: initialised
ticks, and also the ends of the 256-tick words of the tick bitmap, where nothing changes but the fee is rounded up
once more.

Sources: UniswapV3Pool.swap, TickBitmap.nextInitializedTickWithinOneWord, SwapMath.computeSwapStep and SqrtPriceMath;
v4-core's Pool.swap. v4 rewrote the step, but with the same totals, so one walk serves both. What differs: v4 adds a
protocol fee per direction on top of the pool's fee (ProtocolFeeLibrary.calculateSwapFee; v3 takes its share out of
the fee, which no trader sees). Hooks and dynamic fees are not modelled.
"""

from bisect import bisect_right
from itertools import pairwise

import msgspec

from agent.domain.errors import LiquidityError
from agent.domain.instrument import PIPS
from agent.liquidity.quote import Quote, div_up, require_positive
from agent.liquidity.tick_math import (
    SQRT_PRICE_MAX_X96,
    SQRT_PRICE_MIN_X96,
    TICK_MAX,
    TICK_MIN,
    sqrt_price_at_tick,
    tick_at_sqrt_price,
)

AMOUNT_MAX = (1 << 127) - 1  # v4 keeps amounts in signed 128 bits; no token needs more
# Medians of thousands of swaps through v3's SwapRouter; the transaction's base is not included.
# v4 starts 15,000 higher and crosses 10,000 cheaper.
SWAP_GAS = 82_000
WORD_GAS = 7_000  # every stop at the end of a bitmap word
CROSS_GAS = 25_000  # every initialised tick crossed

_NET_MAX = 1 << 128  # above every liquidity net: sorts (tick, _NET_MAX) behind (tick, net)
_UINT256 = 1 << 256


class Concentrated(msgspec.Struct, frozen=True):
    """One pool. `ticks` are (tick, liquidity net), rising: *all* initialised ticks from `known_lower` to `known_upper`.

    Build it through `checked` when it comes from outside. `protocol_fee_*_pips` are v4's, for selling asset 0 and asset 1.
    """

    sqrt_price_x96: int
    tick: int
    liquidity: int
    fee_pips: int
    tick_spacing: int
    ticks: tuple[tuple[int, int], ...]
    known_lower: int = TICK_MIN
    known_upper: int = TICK_MAX
    protocol_fee_0_pips: int = 0
    protocol_fee_1_pips: int = 0

    def swap_in(self, amount_in: int, zero_for_one: bool) -> Quote:
        """Output rounds down and may be zero. Raises LiquidityError when the known ticks do not take all of `amount_in`."""
        quote = swap(self, amount_in, zero_for_one, exact_in=True)
        if quote.amount_in != amount_in:
            raise LiquidityError(f"the pool takes {quote.amount_in} of {amount_in} units, then it is empty: trade less")
        return quote

    def swap_out(self, amount_out: int, zero_for_one: bool) -> Quote:
        """Input rounds up. Raises LiquidityError when the known ticks do not hold `amount_out`."""
        quote = swap(self, amount_out, zero_for_one, exact_in=False)
        if quote.amount_out != amount_out:
            raise LiquidityError(f"the pool pays {quote.amount_out} of {amount_out} units, then it is empty: trade less")
        return quote


def checked(pool: Concentrated) -> Concentrated:
    """The same pool, or LiquidityError if its numbers contradict each other (a half-read pool must never be quoted)."""
    indexes = [tick for tick, _ in pool.ticks]
    lower_x96 = sqrt_price_at_tick(max(pool.tick, TICK_MIN))
    upper_x96 = sqrt_price_at_tick(min(pool.tick + 1, TICK_MAX))
    sound = (
        pool.tick_spacing > 0
        and 0 <= swap_fee_pips(pool, True) < PIPS
        and 0 <= swap_fee_pips(pool, False) < PIPS
        and all(a < b for a, b in pairwise(indexes))
        and all(tick % pool.tick_spacing == 0 for tick in indexes)
        and (not indexes or (pool.known_lower <= indexes[0] and indexes[-1] <= pool.known_upper))
        and TICK_MIN <= pool.known_lower <= pool.known_upper <= TICK_MAX
        and lower_x96 <= pool.sqrt_price_x96 <= upper_x96  # equal above: a swap down that stopped on the tick
    )
    if not sound:
        raise LiquidityError("the pool's ticks, price and fee contradict each other: read the pool again")
    below = sum(net for tick, net in pool.ticks if tick <= pool.tick)
    above = -sum(net for tick, net in pool.ticks if tick > pool.tick)
    if (pool.known_lower == TICK_MIN and below != pool.liquidity) or (pool.known_upper == TICK_MAX and above != pool.liquidity):
        raise LiquidityError("the pool's ticks do not add up to its liquidity: read the pool again")
    return pool


def swap_fee_pips(pool: Concentrated, zero_for_one: bool) -> int:
    """The whole fee on the input: the pool's, plus v4's protocol fee taken first."""
    protocol_pips = pool.protocol_fee_0_pips if zero_for_one else pool.protocol_fee_1_pips
    return protocol_pips + pool.fee_pips - protocol_pips * pool.fee_pips // PIPS


def swap(pool: Concentrated, amount: int, zero_for_one: bool, exact_in: bool, limit_x96: int | None = None) -> Quote:
    """Trade until `amount` (of input, or of output) is done or the root price reaches `limit_x96`, as the contract does.

    The quote may be partial at the limit; without one the limit is the last price that a pool accepts. Raises LiquidityError for an
    amount or limit that the contract refuses, and when the price would leave the known ticks.
    """
    require_positive(amount, "amount")
    fee_pips = swap_fee_pips(pool, zero_for_one)
    if amount > AMOUNT_MAX or fee_pips >= PIPS:
        raise LiquidityError("the amount does not fit 127 bits, or the pool takes all of it as fee: trade less or elsewhere")
    if limit_x96 is None:
        limit_x96 = SQRT_PRICE_MIN_X96 + 1 if zero_for_one else SQRT_PRICE_MAX_X96 - 1
    if not _is_limit(limit_x96, pool.sqrt_price_x96, zero_for_one):
        raise LiquidityError("the pool's price is already at or past the limit: nothing can be traded in this direction")
    walk = _walk_down if zero_for_one else _walk_up
    return walk(pool, amount, exact_in, limit_x96, fee_pips)


def _is_limit(limit_x96: int, price_x96: int, zero_for_one: bool) -> bool:
    return SQRT_PRICE_MIN_X96 < limit_x96 < price_x96 if zero_for_one else price_x96 < limit_x96 < SQRT_PRICE_MAX_X96


def _walk_down(pool: Concentrated, amount: int, exact_in: bool, limit_x96: int, fee_pips: int) -> Quote:
    """Sell asset 0: the price falls. A tick belongs to the range above it, so crossing one leaves the pool at tick - 1."""
    price_x96, tick, liquidity, spacing, ticks = pool.sqrt_price_x96, pool.tick, pool.liquidity, pool.tick_spacing, pool.ticks
    known_x96 = sqrt_price_at_tick(pool.known_lower)
    position = bisect_right(ticks, (tick, _NET_MAX)) - 1
    remaining, total_in, total_out, stops, crossed = amount, 0, 0, 0, 0
    while remaining and price_x96 != limit_x96:
        stop = (tick // spacing >> 8 << 8) * spacing
        following = ticks[position][0] if position >= 0 else TICK_MIN
        initialised = position >= 0 and following >= stop
        if initialised or not liquidity:
            stops += 0 if initialised else (stop - following) // (spacing << 8)
            stop = following  # an empty range takes and pays nothing: its words need no stop here, only gas there
            initialised = position >= 0
        stop_x96 = sqrt_price_at_tick(max(stop, TICK_MIN))
        start_x96 = price_x96
        price_x96, paid, received = _step_down(price_x96, max(stop_x96, limit_x96), liquidity, remaining, fee_pips, exact_in)
        if price_x96 < known_x96:
            raise _unknown(pool.known_lower)
        remaining -= paid if exact_in else received
        total_in += paid
        total_out += received
        if price_x96 == stop_x96:
            if initialised:
                liquidity -= ticks[position][1]
                position -= 1
                crossed += 1
            stops += 1
            tick = max(stop, TICK_MIN) - 1
        elif price_x96 != start_x96:
            tick = tick_at_sqrt_price(price_x96)
            if not tick % (spacing << 8) and sqrt_price_at_tick(tick) == price_x96:
                tick -= 1  # a limit at the end of a word that the jump over an empty range left out
    return _quote(pool, total_in, total_out, stops, crossed, price_x96, tick, liquidity)


def _walk_up(pool: Concentrated, amount: int, exact_in: bool, limit_x96: int, fee_pips: int) -> Quote:
    """Sell asset 1: the price rises. Kept beside `_walk_down`, line by line, as the two differ in every comparison."""
    price_x96, tick, liquidity, spacing, ticks = pool.sqrt_price_x96, pool.tick, pool.liquidity, pool.tick_spacing, pool.ticks
    known_x96 = sqrt_price_at_tick(pool.known_upper)
    position = bisect_right(ticks, (tick, _NET_MAX))
    count = len(ticks)
    remaining, total_in, total_out, stops, crossed = amount, 0, 0, 0, 0
    while remaining and price_x96 != limit_x96:
        stop = (tick // spacing + 1 | 255) * spacing
        following = ticks[position][0] if position < count else TICK_MAX
        initialised = position < count and following <= stop
        if initialised or not liquidity:
            stops += 0 if initialised else (following - stop) // (spacing << 8)
            stop = following
            initialised = position < count
        stop_x96 = sqrt_price_at_tick(min(stop, TICK_MAX))
        start_x96 = price_x96
        price_x96, paid, received = _step_up(price_x96, min(stop_x96, limit_x96), liquidity, remaining, fee_pips, exact_in)
        if price_x96 > known_x96:
            raise _unknown(pool.known_upper)
        remaining -= paid if exact_in else received
        total_in += paid
        total_out += received
        if price_x96 == stop_x96:
            if initialised:
                liquidity += ticks[position][1]
                position += 1
                crossed += 1
            stops += 1
            tick = min(stop, TICK_MAX)
        elif price_x96 != start_x96:
            tick = tick_at_sqrt_price(price_x96)
    return _quote(pool, total_in, total_out, stops, crossed, price_x96, tick, liquidity)


def _unknown(tick: int) -> LiquidityError:
    return LiquidityError(f"the pool's known ticks end at {tick}: read more ticks or trade less")


def _quote(
    pool: Concentrated, paid: int, received: int, stops: int, crossed: int, price_x96: int, tick: int, liquidity: int
) -> Quote:
    gas = SWAP_GAS + (stops - crossed) * WORD_GAS + crossed * CROSS_GAS
    after = Concentrated(
        price_x96,
        tick,
        liquidity,
        pool.fee_pips,
        pool.tick_spacing,
        pool.ticks,
        pool.known_lower,
        pool.known_upper,
        pool.protocol_fee_0_pips,
        pool.protocol_fee_1_pips,
    )
    return Quote(paid, received, gas, after)


def _step_down(
    price_x96: int, target_x96: int, liquidity: int, remaining: int, fee_pips: int, exact_in: bool
) -> tuple[int, int, int]:
    """One constant-product step towards `target_x96`: (new root price, paid with fee, received)."""
    numerator = liquidity << 96
    if exact_in:
        usable = remaining * (PIPS - fee_pips) // PIPS
        needed = div_up(numerator * (price_x96 - target_x96), price_x96 * target_x96)
        if usable < needed:
            next_x96 = _root_after_0(price_x96, liquidity, usable)
            return next_x96, remaining, liquidity * (price_x96 - next_x96) >> 96
        received = liquidity * (price_x96 - target_x96) >> 96
        return target_x96, needed + div_up(needed * fee_pips, PIPS - fee_pips), received
    received = liquidity * (price_x96 - target_x96) >> 96
    next_x96 = target_x96
    if remaining < received:
        received = remaining
        next_x96 = price_x96 - div_up(remaining << 96, liquidity)
    needed = div_up(numerator * (price_x96 - next_x96), price_x96 * next_x96)
    return next_x96, needed + div_up(needed * fee_pips, PIPS - fee_pips), received


def _step_up(
    price_x96: int, target_x96: int, liquidity: int, remaining: int, fee_pips: int, exact_in: bool
) -> tuple[int, int, int]:
    """The mirror of `_step_down`: asset 1 in, asset 0 out."""
    numerator = liquidity << 96
    if exact_in:
        usable = remaining * (PIPS - fee_pips) // PIPS
        needed = _shift_up(liquidity * (target_x96 - price_x96))
        if usable < needed:
            next_x96 = price_x96 + (usable << 96) // liquidity
            return next_x96, remaining, numerator * (next_x96 - price_x96) // (next_x96 * price_x96)
        received = numerator * (target_x96 - price_x96) // (target_x96 * price_x96)
        return target_x96, needed + div_up(needed * fee_pips, PIPS - fee_pips), received
    received = numerator * (target_x96 - price_x96) // (target_x96 * price_x96)
    next_x96 = target_x96
    if remaining < received:
        received = remaining
        next_x96 = div_up(numerator * price_x96, numerator - remaining * price_x96)
    needed = _shift_up(liquidity * (next_x96 - price_x96))
    return next_x96, needed + div_up(needed * fee_pips, PIPS - fee_pips), received


def _root_after_0(price_x96: int, liquidity: int, amount_0: int) -> int:
    """Root price after asset 0 came in, rounded up (SqrtPriceMath); the contract is less precise where 256 bits overflow."""
    numerator = liquidity << 96
    product = amount_0 * price_x96
    if product + numerator < _UINT256:
        return div_up(numerator * price_x96, numerator + product)
    return div_up(numerator, numerator // price_x96 + amount_0)


def _shift_up(value: int) -> int:
    return -(-value >> 96)
