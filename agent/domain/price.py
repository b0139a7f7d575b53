"""Prices as exact ratios: whole quote coins for one whole base coin, whatever the decimals of either at a venue."""

from decimal import Decimal
from math import gcd

import msgspec

from agent.domain.amount import Amount, Units


class Price(msgspec.Struct, frozen=True):
    """`num / den`, reduced, positive. Compares exactly."""

    num: Units
    den: Units

    def __post_init__(self) -> None:
        num, den = int(self.num), int(self.den)
        if num <= 0 or den <= 0:
            raise ValueError("a price is positive")
        shared = gcd(num, den)
        msgspec.structs.force_setattr(self, "num", Units(num // shared))
        msgspec.structs.force_setattr(self, "den", Units(den // shared))

    def __lt__(self, other: "Price") -> bool:
        return self.num * other.den < other.num * self.den

    def __le__(self, other: "Price") -> bool:
        return self.num * other.den <= other.num * self.den

    def __gt__(self, other: "Price") -> bool:
        return other < self

    def __ge__(self, other: "Price") -> bool:
        return other <= self

    def __str__(self) -> str:
        return f"{decimal_of(self):.6f}".rstrip("0").rstrip(".")


def price_of(quote: Amount, base: Amount) -> Price:
    """What was paid or received, per whole base coin. Exact."""
    return Price(quote.units * 10**base.asset.decimals, base.units * 10**quote.asset.decimals)


def ticks_price(ticks: int, tick_units: int, quote_decimals: int) -> Price:
    """The price of `ticks` steps of `tick_units` quote units per whole base coin."""
    return Price(ticks * tick_units, 10**quote_decimals)


def worse_by(price: Price, bps: int, *, selling: bool) -> Price:
    """The limit that is `bps` worse than `price` for whoever sells (lower) or buys (higher). Exact."""
    return Price(price.num * (10_000 - bps if selling else 10_000 + bps), price.den * 10_000)


def rounded(price: Price, decimals: int = 18) -> Price:
    """The nearest price with so many decimals, at least one unit of them: ratios of pool states have hundreds of digits."""
    scale = 10**decimals
    return Price(max((2 * price.num * scale + price.den) // (2 * price.den), 1), scale)


def decimal_of(price: Price) -> Decimal:
    """For printing and charts only."""
    return Decimal(price.num) / Decimal(price.den)


def bps_between(price: Price, reference: Price) -> float:
    """How far `price` lies above `reference`, in basis points: an opinion for reports, never money."""
    return (price.num * reference.den - reference.num * price.den) / (reference.num * price.den) * 10_000
