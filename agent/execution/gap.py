"""From what was quoted to what was executed: the difference, taken apart to the last unit.

A route promises an amount for each piece. What really came is held against the promise for the part that was filled, and every unit
of the difference has one name: the market moved before the order arrived (drift), fees, gas, a sandwich, and the rest, which is the
book or pool being thinner than it looked, and rounding. Amounts are counted as the account sees them: what is received is positive,
what is paid negative, so positive parts are always in our favour and both sides add up alike:

    executed = promised + drift + fee + gas + sandwich + rest

In units of the quote group. Promises for a part are rounded against us: received down, paid up.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset, rescale_up, zero
from agent.domain.events import RoutePiece, Surrounded
from agent.domain.instrument import PIPS, Side
from agent.domain.order import Fill
from agent.domain.price import Price
from agent.ledger.pnl import worth_up


class Money(msgspec.Struct, frozen=True):
    """In what a parent is counted. `rates`: quote coins per coin, by group, for gas and for fees in another coin."""

    side: Side
    base: Asset
    quote: Asset
    rates: Mapping[str, Price]


class Gap(msgspec.Struct, frozen=True):
    """`base`: what was traded. `promised` and `executed` after fees and gas."""

    base: Amount
    promised: Amount
    executed: Amount
    drift: Amount
    fee: Amount
    gas: Amount
    sandwich: Amount
    rest: Amount


PARTS = ("drift", "fee", "gas", "sandwich", "rest")


class Promise(msgspec.Struct, frozen=True):
    """What a route said of a part: `gross` before the fee (a pool's is inside its price), in units of the quote group."""

    gross: int
    fee: int


def no_gap(money: Money) -> Gap:
    nothing = zero(money.quote)
    return Gap(zero(money.base), nothing, nothing, nothing, nothing, nothing, nothing, nothing)


def add(one: Gap, other: Gap) -> Gap:
    return Gap(*(getattr(one, name) + getattr(other, name) for name in Gap.__struct_fields__))


def bps(part: Amount, gap: Gap) -> float | None:
    """A part in basis points of what was promised: an opinion for reports. None where nothing was."""
    return part.units / abs(gap.promised.units) * 10_000 if gap.promised else None


def order_gap(
    money: Money,
    pieces: Sequence[RoutePiece],
    fills: Sequence[Fill],
    gas: Iterable[Amount],
    *,
    is_book: bool,
    mids: tuple[Price, Price] | None = None,
    sandwiches: Iterable[Surrounded] = (),
) -> Gap:
    """One order against its pieces of the route. `mids`: the middle when it was decided, and when it traded; without them all of
    a book's price difference is drift. A pool's always is, less what a sandwich took: its block began at another price.
    """
    sign = 1 if money.side == "sell" else -1
    by_name = {piece.instrument: piece for piece in pieces}
    base = promised = executed = fee = price = promised_gas = 0
    for name in dict.fromkeys(fill.instrument for fill in fills):
        mine, piece = [fill for fill in fills if fill.instrument == name], by_name.get(name)
        if piece is None:
            continue
        sold, gross = traded(mine, money)
        paid_fee = _fees(mine, money, sold, gross)
        said = promise(piece, sold, money.side, is_book=is_book)
        base += sold
        promised += sign * said.gross - said.fee
        executed += sign * gross - paid_fee
        price += sign * (gross - said.gross)
        fee += said.fee - paid_fee
        promised_gas += piece.gas.units
    paid_gas = sum(worth_up(amount, money.quote, money.rates).units for amount in gas)
    taken = -sum(rescale_up(_cost(one, money.side), money.quote).units for one in sandwiches)
    drift = _moved(base, mids, sign, money) if is_book and mids is not None else price - taken
    parts = drift, fee, promised_gas - paid_gas, taken, price - drift - taken
    return Gap(
        Amount(base, money.base), *(Amount(units, money.quote) for units in (promised - promised_gas, executed - paid_gas, *parts))
    )


def traded(fills: Iterable[Fill], money: Money) -> tuple[int, int]:
    """(base, quote before fees) of all fills, in units of the groups, which are the finest: routes refuse what counts finer.

    By hand and not by `rescale_up`, because this is done for every order as the journal is read.
    """
    base = gross = 0
    for fill in fills:
        sold, got = (fill.paid, fill.received) if money.side == "sell" else (fill.received, fill.paid)
        base += sold.units * 10 ** (money.base.decimals - sold.asset.decimals)
        gross += got.units * 10 ** (money.quote.decimals - got.asset.decimals)
    return base, gross


def promise(piece: RoutePiece, base: int, side: Side, *, is_book: bool) -> Promise:
    """What a piece said of `base` units of its base, in proportion."""
    top, whole = piece.quote.units * base, piece.base.units
    net = top // whole if side == "sell" else -(-top // whole)
    if not is_book:
        return Promise(net, 0)
    if side == "sell":
        fee = net * piece.fee_pips // (PIPS - piece.fee_pips)
        return Promise(net + fee, fee)
    fee = net * piece.fee_pips // PIPS
    return Promise(net - fee, fee)


def _fees(fills: Iterable[Fill], money: Money, base: int, gross: int) -> int:
    """In quote, rounded up. What a book keeps from the base that was bought makes the rest that much dearer, as routes count it."""
    units = in_base = 0
    for fill in fills:
        if fill.fee.asset.group == money.base.group:
            in_base += rescale_up(fill.fee, money.base).units
        else:
            units += worth_up(fill.fee, money.quote, money.rates).units
    if in_base:
        units += -(-gross * in_base // (base - in_base if money.side == "buy" and base > in_base else base))
    return units


def _cost(one: Surrounded, side: Side) -> Amount:
    return one.received_less if side == "sell" else one.paid_more


def _moved(base: int, mids: tuple[Price, Price], sign: int, money: Money) -> int:
    """What `base` units are worth at the second middle, less at the first; rounded down."""
    first, second = mids
    top: int = sign * base * (second.num * first.den - first.num * second.den) * 10**money.quote.decimals
    bottom: int = first.den * second.den * 10**money.base.decimals
    return top // bottom
