"""A route becomes child orders: one limit order per book, and ONE batch for all pools of a venue.

Every child carries its own worst price: the route's price worsened by `slippage_bps`, but never beyond the parent's limit.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from agent.domain.amount import Amount, zero
from agent.domain.instrument import Instrument, Side
from agent.domain.intent import Intent
from agent.domain.plan import PlaceOrder, Plan, SwapBatch, SwapLeg
from agent.domain.price import Price
from agent.execution.placement import Post


class Part(msgspec.Struct, frozen=True):
    """One piece of a route, as execution needs it. `quote` is after the fee; `ticks` is the worst level of a book piece."""

    instrument: Instrument
    base: Amount
    quote: Amount
    ticks: int = 0
    lots: int = 0


class ChainTerms(msgspec.Struct, frozen=True):
    """What a batch needs to know of its chain now."""

    chain_id: int
    permit_nonce: int
    deadline_s: int
    gas_base: int  # units of gas of the batch itself, without legs
    gas_fee_max: int
    gas_tip: int


class Tolerance(msgspec.Struct, frozen=True):
    slippage_bps: int
    limit: Price  # of the parent: the worst price at all


def children(
    intent: Intent,
    parts: Sequence[Part],
    new_id: Callable[[], str],
    terms: dict[str, ChainTerms],
    tolerance: Tolerance,
    posts: Mapping[str, Post],
) -> list[Plan]:
    """Plans in the order to send them: books first: they answer at once. `posts`: which books' parts rest instead."""
    plans: list[Plan] = [
        _book(intent, part, new_id(), tolerance, posts.get(part.instrument.id)) for part in parts if part.instrument.is_book
    ]
    venues = dict.fromkeys(part.instrument.venue for part in parts if not part.instrument.is_book)
    for venue in venues:
        legs = [part for part in parts if part.instrument.venue == venue]
        plans.append(_batch(intent, venue, legs, new_id(), terms[venue], tolerance))
    return plans


def resting(intent: Intent, found: Instrument, ticks: int, lots: int, order_id: str) -> PlaceOrder:
    """An order that only rests."""
    return _place(intent, found, ticks, lots, "POST", order_id)


def native(intent: Intent, found: Instrument, ticks: int, lots: int, seconds: int, order_id: str) -> PlaceOrder:
    """An order that the venue works by its own TWAP, never beyond `ticks`."""
    return msgspec.structs.replace(_place(intent, found, ticks, lots, "GTC", order_id), native_s=seconds)


def _book(intent: Intent, part: Part, order_id: str, tolerance: Tolerance, post: Post | None) -> PlaceOrder:
    if post is not None:
        return resting(intent, part.instrument, post.ticks, part.lots, order_id)
    ticks = _limit_ticks(part, intent.side, tolerance)
    return _place(intent, part.instrument, ticks, part.lots, "GTC" if intent.rests else "IOC", order_id)


def _place(
    intent: Intent, found: Instrument, ticks: int, lots: int, time_in_force: Literal["IOC", "GTC", "POST"], order_id: str
) -> PlaceOrder:
    base = Amount(lots * found.lot_units, found.base)
    value, scale = ticks * found.tick_units * base.units, 10**found.base.decimals
    quote = Amount(value // scale if intent.side == "sell" else -(-value // scale), found.quote)
    sell, buy = (base, quote) if intent.side == "sell" else (quote, base)
    return PlaceOrder(
        order_id, intent.intent_id, intent.account, found.venue, found.id, intent.side, ticks, lots, time_in_force, sell, buy
    )


def _limit_ticks(part: Part, side: Side, tolerance: Tolerance) -> int:
    """The worst tick: the route's own, a little wider, never beyond the parent's limit; rounded to the safe side."""
    found, limit = part.instrument, tolerance.limit
    top: int = limit.num * 10**found.quote.decimals
    bottom: int = limit.den * found.tick_units
    if side == "sell":
        return max(part.ticks * (10_000 - tolerance.slippage_bps) // 10_000, -(-top // bottom))
    return min(-(-part.ticks * (10_000 + tolerance.slippage_bps) // 10_000), top // bottom)


def _batch(intent: Intent, venue: str, parts: Sequence[Part], order_id: str, terms: ChainTerms, tolerance: Tolerance) -> SwapBatch:
    legs = tuple(_leg(part, intent.side, tolerance) for part in parts)
    sell, buy = zero(legs[0].sell.asset), zero(legs[0].buy.asset)
    for leg in legs:
        sell, buy = sell + leg.sell, buy + leg.buy
    gas = terms.gas_base + sum(part.instrument.gas for part in parts)
    return SwapBatch(
        order_id,
        intent.intent_id,
        intent.account,
        venue,
        terms.chain_id,
        intent.side,
        legs,
        sell,
        buy,
        terms.permit_nonce,
        terms.deadline_s,
        gas * 2,  # ticks crossed since the quote cost gas too; what is not used is not paid
        terms.gas_fee_max,
        terms.gas_tip,
    )


def _leg(part: Part, side: Side, tolerance: Tolerance) -> SwapLeg:
    base, quote, bps, limit = part.base, part.quote, tolerance.slippage_bps, tolerance.limit
    # the parent's limit for this base, in quote units
    top = limit.num * base.units * 10**quote.asset.decimals
    bottom = limit.den * 10**base.asset.decimals
    if side == "sell":
        least = max(quote.units * (10_000 - bps) // 10_000, -(-top // bottom))
        return SwapLeg(part.instrument.id, base, Amount(min(least, quote.units), quote.asset), "sell")
    most = min(-(-quote.units * (10_000 + bps) // 10_000), top // bottom)
    return SwapLeg(part.instrument.id, Amount(max(most, quote.units), quote.asset), base, "buy")
