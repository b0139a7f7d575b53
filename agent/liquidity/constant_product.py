"""Uniswap v2 pools and their many forks: reserves whose product never falls.

Source: UniswapV2Library.getAmountOut and getAmountIn. They write the 0.3 % fee as 997/1000; pips multiply numerator
and denominator by the same 1000, so the quotient and its floor are identical, and other fees (forks) come for free.
"""

import msgspec

from agent.domain.errors import LiquidityError
from agent.domain.instrument import PIPS
from agent.liquidity.quote import Quote, require_positive

RESERVE_MAX = (1 << 112) - 1  # the pair stores reserves in 112 bits and reverts above
SWAP_GAS = 66_000  # median of thousands of swaps through Router02; the transaction's base is not included


class ConstantProduct(msgspec.Struct, frozen=True):
    """Reserves in units of asset 0 and asset 1."""

    reserve_0: int
    reserve_1: int
    fee_pips: int = 3_000

    def swap_in(self, amount_in: int, zero_for_one: bool) -> Quote:
        """Output rounds down. Raises LiquidityError for no input, no output or a reserve above 112 bits."""
        require_positive(amount_in, "amount_in")
        reserve_in, reserve_out = self._reserves(zero_for_one)
        after_fee = amount_in * (PIPS - self.fee_pips)
        amount_out = after_fee * reserve_out // (reserve_in * PIPS + after_fee)
        if amount_out == 0:
            raise LiquidityError("the pair would pay nothing and revert: trade more or use another source")
        return self._quote(amount_in, amount_out, zero_for_one)

    def swap_out(self, amount_out: int, zero_for_one: bool) -> Quote:
        """Input rounds up (the contract always adds one unit). Raises LiquidityError when the reserve is too small."""
        require_positive(amount_out, "amount_out")
        reserve_in, reserve_out = self._reserves(zero_for_one)
        if amount_out >= reserve_out:
            raise LiquidityError(f"the pair holds {reserve_out} units, {amount_out} wanted: trade less")
        amount_in = reserve_in * amount_out * PIPS // ((reserve_out - amount_out) * (PIPS - self.fee_pips)) + 1
        return self._quote(amount_in, amount_out, zero_for_one)

    def _reserves(self, zero_for_one: bool) -> tuple[int, int]:
        reserves = (self.reserve_0, self.reserve_1) if zero_for_one else (self.reserve_1, self.reserve_0)
        if min(reserves) <= 0 or not 0 <= self.fee_pips < PIPS:
            raise LiquidityError("the pair is empty or takes the whole input as fee: use another source")
        return reserves

    def _quote(self, amount_in: int, amount_out: int, zero_for_one: bool) -> Quote:
        change_0, change_1 = (amount_in, -amount_out) if zero_for_one else (-amount_out, amount_in)
        reserve_0, reserve_1 = self.reserve_0 + change_0, self.reserve_1 + change_1
        if max(reserve_0, reserve_1) > RESERVE_MAX:
            raise LiquidityError("the pair would hold more than 112 bits and revert: trade less")
        return Quote(amount_in, amount_out, SWAP_GAS, ConstantProduct(reserve_0, reserve_1, self.fee_pips))
