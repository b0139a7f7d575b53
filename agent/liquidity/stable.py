"""Two-coin stableswap pools, as Curve made them: nearly one for one while balanced, dearer and dearer as one coin runs out.

The invariant, with both balances x and y in one precision of 18 decimals, D the balance of a pool in perfect balance and Ann = 2 A
(Curve's A, which is the paper's A times n^(n-1)):

    Ann (x + y) + D = Ann D + D^3 / (4 x y)

Source: Egorov, "StableSwap", 2019, and the order of roundings of curve-contract's SwapTemplateBase (get_D, get_y, exchange), which
3pool and the plain pools share: D and y end their Newton iterations at the first step of at most one unit, one unit more stays in
the pool, and the fee is taken from what goes out. Fees that rise off the peg (stableswap-ng) and lending wrappers are not modelled.
"""

from collections.abc import Callable

import msgspec

from agent.domain.errors import LiquidityError
from agent.liquidity.quote import Quote, div_up, require_positive

FEE_UNITS = 10**10  # Curve counts fees in these: 4_000_000 is 4 basis points
RATE_UNIT = 10**18
AMP_MAX = 10**6
COINS_MAX = 10**33  # of one coin, in 18 decimals: beyond it the contract's 256 bits overflow
SWAP_GAS = 110_000  # for planning, not measured here: two token transfers and some ten Newton steps

_ROUNDS_MAX = 255
_WORD = 256


class StableSwap(msgspec.Struct, frozen=True):
    """One pool. Build it through `checked` when it comes from outside.

    `balance_0`, `balance_1` in units of asset 0 and 1. `rate_0`, `rate_1` bring units to 18 decimals, times the coin's own rate
    (wstETH has one), and are counted in 1e-18: 10^(36 - decimals) for a plain coin. `amp` is A times `amp_precision`: 100, or 1 in
    3pool and its age. `fee` is of what goes out, `admin_fee` the part of it that leaves the pool at once, both in 1e-10.
    """

    balance_0: int
    balance_1: int
    amp: int
    fee: int
    rate_0: int = RATE_UNIT
    rate_1: int = RATE_UNIT
    amp_precision: int = 100
    admin_fee: int = 0

    def swap_in(self, amount_in: int, zero_for_one: bool) -> Quote:
        """Output rounds down. Raises LiquidityError for no input, no output, and where the contract's arithmetic would fail."""
        require_positive(amount_in, "amount_in")
        x, y = scaled(self, zero_for_one)
        return self._quote(amount_in, zero_for_one, y - _given(self, invariant(self), x, amount_in, zero_for_one))

    def swap_out(self, amount_out: int, zero_for_one: bool) -> Quote:
        """The least input for which the contract pays at least `amount_out`; the answer's `amount_out` is what it then really pays.

        The contract itself has no such question. Raises LiquidityError like `swap_in`, and for more than the pool holds.
        """
        require_positive(amount_out, "amount_out")
        x, y = scaled(self, zero_for_one)
        rate_in, rate_out = self._rates(zero_for_one)
        net = div_up(amount_out * rate_out, RATE_UNIT)
        left = y - ((net - 1) * FEE_UNITS // (FEE_UNITS - self.fee) + 1) - 1  # what may stay, the unit of rounding included
        if left <= 0:
            raise LiquidityError(f"the pool holds {y * RATE_UNIT // rate_out} units, {amount_out} wanted: trade less")
        d = invariant(self)
        guess = div_up(max(other_balance(self, d, left) - x, 1) * RATE_UNIT, rate_in)
        most = (COINS_MAX - x) * RATE_UNIT // rate_in
        amount_in = _least(lambda amount: _given(self, d, x, amount, zero_for_one) <= left, guess, most)
        return self._quote(amount_in, zero_for_one, y - _given(self, d, x, amount_in, zero_for_one))

    def _rates(self, zero_for_one: bool) -> tuple[int, int]:
        return (self.rate_0, self.rate_1) if zero_for_one else (self.rate_1, self.rate_0)

    def _quote(self, amount_in: int, zero_for_one: bool, moved: int) -> Quote:
        """`moved`: what the curve gives in 18 decimals, before the unit that stays and the fee."""
        _, rate_out = self._rates(zero_for_one)
        gross = moved - 1
        fee = max(gross, 0) * self.fee // FEE_UNITS
        amount_out = (gross - fee) * RATE_UNIT // rate_out
        if amount_out <= 0:
            raise LiquidityError("the pool would pay nothing: trade more or use another source")
        gone = amount_out + fee * self.admin_fee // FEE_UNITS * RATE_UNIT // rate_out
        change_0, change_1 = (amount_in, -gone) if zero_for_one else (-gone, amount_in)
        after = msgspec.structs.replace(self, balance_0=self.balance_0 + change_0, balance_1=self.balance_1 + change_1)
        return Quote(amount_in, amount_out, SWAP_GAS, after)


def checked(pool: StableSwap) -> StableSwap:
    """The same pool, or LiquidityError if its numbers cannot be those of a working pool."""
    sound = (
        min(pool.balance_0, pool.balance_1) > 0
        and min(pool.rate_0, pool.rate_1) > 0
        and pool.amp_precision > 0
        and pool.amp_precision <= pool.amp <= AMP_MAX * pool.amp_precision
        and 0 <= pool.fee < FEE_UNITS
        and 0 <= pool.admin_fee <= FEE_UNITS
    )
    if not sound:
        raise LiquidityError("the pool's balances, amplification, rates or fees contradict each other: read it again")
    invariant(pool)
    return pool


def scaled(pool: StableSwap, zero_for_one: bool) -> tuple[int, int]:
    """The balances of the coin that is paid in and of the one that is paid out, in 18 decimals."""
    x, y = pool.balance_0 * pool.rate_0 // RATE_UNIT, pool.balance_1 * pool.rate_1 // RATE_UNIT
    if min(x, y) <= 0 or max(x, y) > COINS_MAX:
        raise LiquidityError("the pool is empty, or holds more than any coin has: use another source")
    return (x, y) if zero_for_one else (y, x)


def invariant(pool: StableSwap) -> int:
    """D in 18 decimals, to the unit as the contract's get_D finds it."""
    x, y = scaled(pool, True)
    ann, unit, total = 2 * pool.amp, pool.amp_precision, x + y
    d = total
    for _ in range(_ROUNDS_MAX):
        product = d * d // (2 * x) * d // (2 * y)
        top = (ann * total // unit + 2 * product) * d
        if top >> _WORD:
            break
        before, d = d, top // ((ann - unit) * d // unit + 3 * product)
        if abs(d - before) <= 1:
            return d
    raise LiquidityError("the pool is too far out of balance for its contract: use another source")


def other_balance(pool: StableSwap, d: int, x: int) -> int:
    """The balance of one coin when the other's is `x`, in 18 decimals, to the unit as the contract's get_y finds it."""
    if not 0 < x <= COINS_MAX:
        raise LiquidityError("the pool would hold more than any coin has: trade less")
    ann, unit = 2 * pool.amp, pool.amp_precision
    wide = d * d // (2 * x) * d * unit
    if wide >> _WORD:
        raise LiquidityError("the pool would be too far out of balance for its contract: trade less")
    c, b = wide // (2 * ann), x + d * unit // ann
    y = d
    for _ in range(_ROUNDS_MAX):
        before, y = y, (y * y + c) // (2 * y + b - d)
        if abs(y - before) <= 1:
            return y
    raise LiquidityError("the pool's contract would not find its new balance: trade less")


def spot(pool: StableSwap) -> tuple[int, int]:
    """What one unit of asset 0 is worth in units of asset 1 at the margin, before the fee: dy/dx of the invariant as a ratio."""
    x, y = scaled(pool, True)
    ann, unit, cube = 2 * pool.amp, pool.amp_precision, invariant(pool) ** 3
    top, bottom = (4 * ann * x * x * y + cube * unit) * y, (4 * ann * x * y * y + cube * unit) * x
    return top * pool.rate_0, bottom * pool.rate_1


def _given(pool: StableSwap, d: int, x: int, amount_in: int, zero_for_one: bool) -> int:
    """What is left of the coin paid out after `amount_in` units of the other came in."""
    rate = pool.rate_0 if zero_for_one else pool.rate_1
    return other_balance(pool, d, x + amount_in * rate // RATE_UNIT)


def _least(reached: Callable[[int], bool], guess: int, most: int) -> int:
    """The least amount from 1 on that is enough, starting near `guess`; more never undoes it."""
    low, high, step = 0, min(max(guess, 1), most), 1
    if reached(high):
        while high > 1 and reached(max(high - step, 1)):
            high, step = max(high - step, 1), step * 2
        low = max(high - step, 0)
    else:
        while not reached(high):
            if high == most:
                raise LiquidityError("the pool cannot pay so much: trade less")
            low, high, step = high, min(high + step, most), step * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
