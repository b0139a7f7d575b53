"""A market as somebody described it, instead of as venues stream it: which pairs trade in it, and each of them as a view."""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, prod

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.instrument import PIPS, Side
from agent.domain.plan import Reason
from agent.domain.price import Price
from agent.market.view import Source, View, middle

NO_CONVERSION = "NO_CONVERSION"


class ChainCost(msgspec.Struct, frozen=True):
    """What gas costs on a chain. `coin_prices`: its coin in quote coins, by quote group."""

    chain_id: int
    wei_per_gas: int
    batch_gas: int
    coin_prices: Mapping[str, Price]


class Conversion(msgspec.Struct, frozen=True):
    """One coin of `source` becomes `price` coins of `target`, of the same group, less `cost_pips` millionths of them."""

    source: Asset
    target: Asset
    price: Price
    cost_pips: int

    @property
    def kept(self) -> Fraction:
        """Coins received for one that is given."""
        return Fraction(self.price.num, self.price.den) * (PIPS - self.cost_pips) / PIPS


class Limits(msgspec.Struct, frozen=True):
    """The trader's settings; see routing.problem.Rules."""

    legs_max: int
    improvement_bps_min: float
    reserve_bps: int


class Described(msgspec.Struct, frozen=True):
    """The whole file. Pools stand with asset 0 as their base, books as they are quoted. `balances` None: endless everywhere."""

    assets: Mapping[str, Asset]
    sources: tuple[Source, ...]
    chains: tuple[ChainCost, ...]
    balances: Mapping[str, Amount] | None
    conversions: tuple[Conversion, ...]
    limits: Limits


def pairs(described: Described) -> tuple[str, ...]:
    """The markets that trade directly, `ETH/USDT`, in the direction in which they are asked for: pools alone know both."""
    quoted = dict.fromkeys(one.instrument.market for one in described.sources if one.instrument.is_book)
    found = dict(quoted)
    for one in described.sources:
        if not one.instrument.is_book:
            both = (one.instrument.market, _reversed(one.instrument.market))
            found.update(dict.fromkeys(both if not quoted.keys() & set(both) else ()))
    return tuple(found)


def view(described: Described, market: str) -> View:
    """One market of `pairs` with all its sources. `mid` as for a live market; None where nothing trades."""
    found = []
    for source in described.sources:
        if source.instrument.market == market:
            found.append(source)
        elif not source.instrument.is_book and source.instrument.market == _reversed(market):
            found.append(turned(source))
    return View(market, 0, middle(found), tuple(found), (), {})


def turned(source: Source) -> Source:
    """The same pool with its other asset as the base."""
    one = source.instrument
    found = msgspec.structs.replace(one, base=one.quote, quote=one.base)
    return msgspec.structs.replace(source, instrument=found, mid=Price(source.mid.den, source.mid.num))


def _reversed(market: str) -> str:
    base, _, quote = market.partition("/")
    return f"{quote}/{base}"


class Reach(msgspec.Struct, frozen=True):
    """What trading costs somebody who holds, or wants, one particular asset: millionths of the value, by Instrument.id.

    Below zero where the other asset is worth more.
    """

    view: View
    cost_pips: Mapping[str, int]


def reached(described: Described, found: View, side: Side, base: Asset | None, quote: Asset | None) -> Reach:
    """The sources that can be reached from `base` and `quote`, each None where its whole group counts the same.

    Selling turns `base` into what the source takes, and what it pays into `quote`; buying the reverse. A source without the
    conversion for it is left out with its reason.
    """
    kept_of = {(one.source.id, one.target.id): one.kept for one in described.conversions}
    kept: list[Source] = []
    pips: dict[str, int] = {}
    refused: list[Reason] = []
    for source in found.sources:
        one = source.instrument
        steps = [(base, one.base), (one.quote, quote)] if side == "sell" else [(quote, one.quote), (one.base, base)]
        needed = [(start.id, end.id) for start, end in steps if start is not None and end is not None and start != end]
        missing = [step for step in needed if step not in kept_of]
        if missing:
            start, end = missing[0]
            refused.append(Reason(NO_CONVERSION, f"{one.id}: the file has no conversion from {start} to {end}"))
            continue
        kept.append(source)
        if needed:
            kept_part = prod((kept_of[step] for step in needed), start=Fraction(1))
            pips[one.id] = ceil((1 - kept_part if side == "sell" else 1 / kept_part - 1) * PIPS)
    return Reach(msgspec.structs.replace(found, sources=tuple(kept), untrusted=(*found.untrusted, *refused)), pips)
