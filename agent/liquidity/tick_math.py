"""Ticks and prices of Uniswap v3 and v4: price = 1.0001^tick, kept as a square root with 96 fractional bits.

The published TickMath algorithm, bit for bit: the root at a tick is a product of precomputed powers 1.0001^(-2^i /
2) with 128 fractional bits, and the tick at a root is a base-2 logarithm of 14 fractional bits, corrected by one
exact comparison.
"""

from functools import lru_cache

from agent.domain.errors import LiquidityError

TICK_MIN = -887_272
TICK_MAX = 887_272
SQRT_PRICE_MIN_X96 = 4_295_128_739  # at TICK_MIN
SQRT_PRICE_MAX_X96 = 1_461_446_703_485_210_103_287_273_052_203_988_822_378_723_970_342  # at TICK_MAX

# 2^128 * 1.0001^(-2^i / 2) for bit i of the tick
_POWERS_X128 = (
    0xFFFCB933BD6FAD37AA2D162D1A594001,
    0xFFF97272373D413259A46990580E213A,
    0xFFF2E50F5F656932EF12357CF3C7FDCC,
    0xFFE5CACA7E10E4E61C3624EAA0941CD0,
    0xFFCB9843D60F6159C9DB58835C926644,
    0xFF973B41FA98C081472E6896DFB254C0,
    0xFF2EA16466C96A3843EC78B326B52861,
    0xFE5DEE046A99A2A811C461F1969C3053,
    0xFCBE86C7900A88AEDCFFC83B479AA3A4,
    0xF987A7253AC413176F2B074CF7815E54,
    0xF3392B0822B70005940C7A398E4B70F3,
    0xE7159475A2C29B7443B29C7FA6E889D9,
    0xD097F3BDFD2022B8845AD8F792AA5825,
    0xA9F746462D870FDF8A65DC1F90E061E5,
    0x70D869A156D2A1B890BB3DF62BAF32F7,
    0x31BE135F97D08FD981231505542FCFA6,
    0x9AA508B5B7A84E1C677DE54F3E99BC9,
    0x5D6AF8DEDB81196699C329225EE604,
    0x2216E584F5FA1EA926041BEDFE98,
    0x48A170391F7DC42444E8FA2,
)
_LOG_BITS = 14
_LOG_SCALE_X64 = 255_738_958_999_603_826_347_141  # 1 / log2(sqrt(1.0001)), 64 fractional bits
_TICK_ERROR_LOW = 3_402_992_956_809_132_418_596_140_100_660_247_210  # error bounds of a 14 bit logarithm, 128 fractional bits
_TICK_ERROR_HIGH = 291_339_464_771_989_622_907_027_621_153_398_088_495


@lru_cache(maxsize=65_536)
def sqrt_price_at_tick(tick: int) -> int:
    """Square root of 1.0001^tick, 96 fractional bits, rounded up as TickMath.getSqrtPriceAtTick does.

    >>> sqrt_price_at_tick(0) == 1 << 96
    True
    """
    if not TICK_MIN <= tick <= TICK_MAX:
        raise LiquidityError(f"tick {tick} is outside {TICK_MIN} to {TICK_MAX}: no pool has such a price")
    ratio_x128 = 1 << 128
    bits = abs(tick)
    for power_x128 in _POWERS_X128:
        if bits & 1:
            ratio_x128 = ratio_x128 * power_x128 >> 128
        bits >>= 1
    if tick > 0:
        ratio_x128 = ((1 << 256) - 1) // ratio_x128
    return (ratio_x128 + 0xFFFFFFFF) >> 32


def tick_at_sqrt_price(sqrt_price_x96: int) -> int:
    """Greatest tick whose root is at or below `sqrt_price_x96` (TickMath.getTickAtSqrtPrice).

    >>> tick_at_sqrt_price(1 << 96), tick_at_sqrt_price((1 << 96) - 1)
    (0, -1)
    """
    if not SQRT_PRICE_MIN_X96 <= sqrt_price_x96 < SQRT_PRICE_MAX_X96:
        raise LiquidityError(f"root price {sqrt_price_x96} is outside the range of any pool: read the pool again")
    whole = sqrt_price_x96.bit_length() - 97
    # A mantissa of 128 bits, squared once for every bit of the logarithm's fraction.
    mantissa = sqrt_price_x96 << (31 - whole) if whole < 31 else sqrt_price_x96 >> (whole - 31)
    log2 = whole << _LOG_BITS
    for bit in range(_LOG_BITS - 1, -1, -1):
        mantissa = mantissa * mantissa >> 127
        if mantissa >> 128:
            log2 |= 1 << bit
            mantissa >>= 1
    tick_x128 = (log2 << (64 - _LOG_BITS)) * _LOG_SCALE_X64
    low = (tick_x128 - _TICK_ERROR_LOW) >> 128
    high = (tick_x128 + _TICK_ERROR_HIGH) >> 128
    if low == high or sqrt_price_at_tick(high) > sqrt_price_x96:
        return low
    return high
