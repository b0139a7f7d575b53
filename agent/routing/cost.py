"""What trading costs beside the price: the fee of a book, and gas. Everything is counted in the quote group, and rounds up.

A pool's fee is part of its own quote. All pool legs on one chain travel in one transaction, so its base gas is paid once.
"""

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.instrument import PIPS, Side
from agent.domain.price import Price

BATCH_GAS = 75_000  # a batch without its legs: the transaction, its call data, the router and the permit; measured
_NATIVE = 10**18  # wei per coin


class GasPrice(msgspec.Struct, frozen=True):
    """What gas costs on a chain now. `quote_per_native`: quote coins per coin of the chain; `batch_gas`: a batch without legs."""

    chain_id: int
    wei_per_gas: int
    quote_per_native: Price
    batch_gas: int = BATCH_GAS


class Charge(msgspec.Struct, frozen=True):
    """What trading at a source costs beyond its fee, by experience or by convention: millionths of the quote value, and why.

    It weighs in the search and in every comparison; what is received and paid is never changed by it.
    """

    pips: int
    why: str


def gas_up(gas: int, price: GasPrice, quote: Asset) -> Amount:
    """What `gas` units of gas cost, in `quote` (the quote group), rounded up."""
    top = gas * price.wei_per_gas * price.quote_per_native.num * 10**quote.decimals
    return Amount(-(-top // (price.quote_per_native.den * _NATIVE)), quote)


def received_down(quote_units: int, fee_pips: int) -> int:
    """What is left of quote units received on a book after its fee, rounded down."""
    return quote_units * (PIPS - fee_pips) // PIPS


def paid_up(quote_units: int, fee_pips: int) -> int:
    """What quote units paid on a book amount to, rounded up, when its fee is taken from the base that is bought."""
    return -(-quote_units * PIPS // (PIPS - fee_pips))


def after_fee(quote_units: int, fee_pips: int, side: Side) -> int:
    """The quote units of a book trade after the fee: less when selling, more when buying."""
    return received_down(quote_units, fee_pips) if side == "sell" else paid_up(quote_units, fee_pips)


def spread_up(total: int, weights: list[int]) -> list[int]:
    """`total` in parts that are proportional to `weights` and add up to it exactly; the first part takes what rounding leaves."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights] if whole else [0] * len(weights)
    parts[0] += total - sum(parts)
    return parts
