"""Double entry: what every fill, gas bill and adopted balance does to the books. Pure.

An owner's wallet is the account of that name (`main`); what it trades with, pays to and came from are its counter-accounts
`main:market`, `main:fees`, `main:gas` and `main:equity`. Each entry sums to zero per asset, so nothing appears from nowhere.
Account names therefore hold no colon. A fee below zero is a rebate.
"""

from collections.abc import Iterable

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.errors import LedgerError
from agent.domain.events import BalanceAdopted, GasPaid, OrderFilled
from agent.domain.order import Fill, Order
from agent.domain.plan import Plan

MARKET, FEES, GAS, EQUITY = "market", "fees", "gas", "equity"
Booked = OrderFilled | GasPaid | BalanceAdopted


class Posting(msgspec.Struct, frozen=True):
    """`amount` (signed) arrives on `account` at `place`, a venue's name."""

    account: str
    place: str
    amount: Amount


def counter(account: str, name: str) -> str:
    """The owner's counter-account: `counter("main", GAS)` is `main:gas`."""
    return f"{account}:{name}"


def is_wallet(account: str) -> bool:
    """Whether an account is an owner's own and not one of the counter-accounts."""
    return ":" not in account


def entry(event: Booked, of: Order | Plan | None = None) -> tuple[Posting, ...]:
    """What the event books. A fill and gas need `of`, the order that they belong to; its plan names account and place.

    Raises LedgerError if it belongs to another order, if a fill pays or receives less than nothing, or if the sum is not zero.
    """
    match event:
        case OrderFilled(fill):
            plan = _plan(of, fill.order_id)
            return balanced(_fill(fill, plan.account))
        case GasPaid():
            plan = _plan(of, event.order_id)
            if event.account != plan.account:
                raise LedgerError(
                    f"gas of order {event.order_id} is of account {event.account}, the order of {plan.account}; reconcile"
                )
            return balanced(_move(event.account, GAS, plan.venue, event.amount))
        case BalanceAdopted():
            return balanced(_move(event.account, EQUITY, event.venue, -event.amount))


def reversal(postings: Iterable[Posting]) -> tuple[Posting, ...]:
    """The entry that takes another one back: both stay in the books."""
    return tuple(Posting(one.account, one.place, -one.amount) for one in postings)


def balanced(postings: Iterable[Posting]) -> tuple[Posting, ...]:
    """The postings as they are, without empty ones. Raises LedgerError unless they sum to zero for every asset."""
    kept = tuple(posting for posting in postings if posting.amount)
    sums: dict[Asset, int] = {}
    for posting in kept:
        sums[posting.amount.asset] = sums.get(posting.amount.asset, 0) + posting.amount.units
    for asset, units in sums.items():
        if units:
            raise LedgerError(f"an entry leaves {Amount(units, asset)} without a counter-entry; nothing was booked")
    return kept


def _fill(fill: Fill, account: str) -> tuple[Posting, ...]:
    if fill.paid.units < 0 or fill.received.units < 0:
        raise LedgerError(f"fill {fill.trade_id} of order {fill.order_id} trades a negative amount; nothing was booked")
    return (
        *_move(account, MARKET, fill.venue, fill.paid),
        *_move(account, MARKET, fill.venue, -fill.received),
        *_move(account, FEES, fill.venue, fill.fee),
    )


def _move(account: str, name: str, place: str, amount: Amount) -> tuple[Posting, Posting]:
    """`amount` from the wallet to a counter-account."""
    return Posting(account, place, -amount), Posting(counter(account, name), place, amount)


def _plan(of: Order | Plan | None, order_id: str) -> Plan:
    if of is None:
        raise LedgerError(f"order {order_id} is not known, so nobody knows whose it is; reconcile")
    plan = of.plan if isinstance(of, Order) else of
    if plan.order_id != order_id:
        raise LedgerError(f"an entry for order {order_id} was asked of order {plan.order_id}; nothing was booked")
    return plan
