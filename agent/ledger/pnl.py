"""What an order really cost: the all-in price after fees and gas, exact, from fills and receipts and never from quotes."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset, rescale_up, zero
from agent.domain.errors import LedgerError
from agent.domain.instrument import Side
from agent.domain.order import Fill
from agent.domain.price import Price, price_of


class Execution(msgspec.Struct, frozen=True):
    """The result of a parent, in group assets. `price_all_in` is None if nothing, or less than nothing, was left.

    `base`: sold in all, or bought, in both cases after fees that were taken in base. `quote_gross`: received or paid before costs.
    `fees`, `gas`: in quote, rounded up. Selling, price_all_in = (quote_gross - fees - gas) / base; buying, with plus.
    """

    base: Amount
    quote_gross: Amount
    fees: Amount
    gas: Amount
    price_all_in: Price | None


def execution(
    side: Side, fills: Sequence[Fill], gas: Iterable[Amount], base: Asset, quote: Asset, rates: Mapping[str, Price]
) -> Execution:
    """Adds up a parent's fills. `base` and `quote` are group assets, at least as fine as the members, so that nothing rounds.

    `rates`: quote coins per coin, by group, for gas and for fees in a third coin. Raises LedgerError if one is missing.
    """
    moved, quote_gross, fees = zero(base), zero(quote), zero(quote)
    for fill in fills:
        sold, bought = (
            rescale_up(fill.paid, base if side == "sell" else quote),
            rescale_up(fill.received, quote if side == "sell" else base),
        )
        moved, quote_gross = (moved + sold, quote_gross + bought) if side == "sell" else (moved + bought, quote_gross + sold)
        if fill.fee.asset.group == base.group:
            fee = rescale_up(fill.fee, base)
            moved = moved + fee if side == "sell" else moved - fee
        else:
            fees = fees + worth_up(fill.fee, quote, rates)
    gas_worth = sum((worth_up(amount, quote, rates) for amount in gas), start=zero(quote))
    costs = fees + gas_worth
    net = quote_gross - costs if side == "sell" else quote_gross + costs
    price = price_of(net, moved) if net.units > 0 and moved.units > 0 else None
    return Execution(moved, quote_gross, fees, gas_worth, price)


def worth_up(amount: Amount, quote: Asset, rates: Mapping[str, Price]) -> Amount:
    """What a cost is worth in `quote`, rounded up. Raises LedgerError if there is no rate for its coin."""
    if not amount:
        return zero(quote)
    if amount.asset.group == quote.group:
        return rescale_up(amount, quote)
    rate = rates.get(amount.asset.group)
    if rate is None:
        raise LedgerError(f"no price of {amount.asset.id} in {quote.symbol}; wait for a market that has one")
    num = amount.units * rate.num * 10**quote.decimals
    return Amount(-(-num // (rate.den * 10**amount.asset.decimals)), quote)
