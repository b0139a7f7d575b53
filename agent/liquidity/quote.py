"""The one question every source of liquidity answers: how much out for this much in, at what gas, and what is left.

A pool state is an immutable value. Swapping returns a `Quote` that carries the *next* state, so a route that visits
one pool twice, or a search that tries ten sizes, never disturbs anything. All amounts are integers in the asset's
smallest unit.
"""

from typing import Protocol

import msgspec

from agent.domain.errors import LiquidityError


class Quote(msgspec.Struct, frozen=True):
    """What a swap takes and gives. `gas` is an estimate of what the leg adds to a transaction (its 21,000 base excluded)."""

    amount_in: int
    amount_out: int
    gas: int
    after: "Pool"


class Pool(Protocol):
    """Anything tradable between asset 0 and asset 1. `zero_for_one` sells asset 0 for asset 1.

    Both methods raise `LiquidityError` for an amount that is not positive or that the known state cannot fill.
    """

    def swap_in(self, amount_in: int, zero_for_one: bool) -> Quote:
        """Sell exactly `amount_in` units (a book sells whole lots: at most that many)."""
        ...

    def swap_out(self, amount_out: int, zero_for_one: bool) -> Quote:
        """Receive exactly `amount_out` units (a book delivers whole lots: at least that many)."""
        ...


def require_positive(amount: int, name: str) -> None:
    """Refuse an amount of zero or less; every venue would revert or ignore it."""
    if amount <= 0:
        raise LiquidityError(f"{name} is {amount}: ask for at least one unit")


def div_up(numerator: int, denominator: int) -> int:
    """Quotient rounded towards plus infinity: what is paid rounds up."""
    return -(-numerator // denominator)
