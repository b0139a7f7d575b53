"""What a fact from outside is worth: news, a repeat, a stranger's, or something that cannot be true.

A repeat is not journaled again. What cannot be booked is not booked: it halts the place that said it, and a person looks. What is
booked and yet too much (more was traded than was ordered) halts the instrument. Pure.
"""

from collections.abc import Sequence

from agent.domain.amount import Amount, rescale_up
from agent.domain.errors import LedgerError
from agent.domain.events import (
    FillReversed,
    GasPaid,
    OrderAmended,
    OrderFilled,
    OrderReorged,
    OrderReported,
    Surrounded,
    VenueStatus,
)
from agent.domain.order import SETTLED, Fill, Order, OrderState, follows
from agent.domain.plan import PlaceOrder, SwapBatch
from agent.engine.links import overdone
from agent.engine.state import State
from agent.ledger.posting import entry


def is_news(state: State, event: object) -> bool:
    """Whether a fact changes anything; what does not is not journaled again."""
    match event:
        case OrderFilled(fill=fill):
            known = state.orders.get(fill.order_id)
            return known is not None and fill.key not in state.fills and not _is_elsewhere(known, fill.tx_hash)
        case FillReversed(key=key):
            return key in state.fills
        case GasPaid(tx_hash=tx_hash, order_id=order_id):
            known = state.orders.get(order_id)
            return known is not None and tx_hash not in state.gas_seen and not _is_elsewhere(known, tx_hash)
        case Surrounded(order_id=order_id, tx_hash=tx_hash, block=block):
            order = state.orders.get(order_id)
            is_there = order is not None and order.block == block > 0 and order.tx_hash == tx_hash
            return is_there and event not in state.surrounded.get(order_id, ())
        case OrderAmended(order_id=order_id, version=version):
            return order_id in state.orders and version > state.orders[order_id].version
        case OrderReorged(order_id=order_id, tx_hash=tx_hash, block_hash=block_hash):
            order = state.orders.get(order_id)
            return order is not None and order.tx_hash == tx_hash and order.block > 0 and block_hash in ("", order.block_hash)
        case OrderReported() as report:
            return report.order_id in state.orders and _says_more(report, state.orders[report.order_id])
        case VenueStatus(venue=venue, status=status, reason=reason):
            told = state.status.get(venue)
            return (status, reason) != ((told.status, told.reason) if told else ("TRADING", reason))
        case _:
            return True


def _says_more(report: OrderReported, order: Order) -> bool:
    """Whether a report moves the order, tells its number or a higher sum of fills, or that nothing takes it back any more.

    Final in another block than the journal knows is no news yet: that the first block is gone must be told before. And what a venue
    has given a number it has not refused: such a word brings doubt, and never ends it (`reconcile --repair` does, by a person).
    """
    if report.state is OrderState.REJECTED and order.venue_order_id and order.state is OrderState.UNKNOWN:
        return False
    if report.state is OrderState.FINAL and report.block_hash and order.block_hash not in ("", report.block_hash):
        return False
    return (
        follows(order.state, report.state)
        or bool(report.venue_order_id and not order.venue_order_id)
        or bool(report.filled and (order.told is None or report.filled > order.told))
        or order.is_corrected(report.state, report.filled)
        or (report.state is OrderState.FINAL and order.state in SETTLED and not order.is_final)
    )


def _is_elsewhere(order: Order, tx_hash: str) -> bool:
    """Whether another transaction of the order's nonce is in a block: that this block is gone must be told before."""
    return bool(tx_hash and order.block and order.tx_hash and order.tx_hash != tx_hash)


def is_strange(state: State, event: OrderFilled | GasPaid) -> bool:
    """Whether somebody else moves what we count as ours: a trade of no order of this journal.

    A trade from before a place's balance was adopted is part of what was taken over.
    """
    order_id = event.fill.order_id if isinstance(event, OrderFilled) else event.order_id
    if order_id in state.orders:
        return False
    if isinstance(event, OrderFilled):
        return any(venue == event.fill.venue for _, venue in state.adopted)
    return any(account == event.account for account, _ in state.adopted)


def contradiction(state: State, event: object) -> str:
    """Why a fact about a known order cannot be true, and is not booked; empty if it can."""
    try:
        match event:
            case OrderFilled(fill=fill):
                plan = state.orders[fill.order_id].plan
                if not isinstance(plan, PlaceOrder | SwapBatch):
                    return f"order {fill.order_id} trades nothing, and yet {fill.venue} reports fill {fill.trade_id} of it"
                if (fill.venue, fill.paid.asset, fill.received.asset) != (plan.venue, plan.sell.asset, plan.buy.asset):
                    return f"fill {fill.trade_id} ({fill.paid} -> {fill.received} at {fill.venue}) is not of order {fill.order_id}"
                entry(event, plan)
            case GasPaid(order_id=order_id):
                entry(event, state.orders[order_id].plan)
            case OrderReorged(order_id=order_id, block=block) if state.orders[order_id].is_final:
                return f"block {block} of order {order_id} was final, and is not in the chain any more"
            case OrderAmended(order_id=order_id, size=size) if state.orders[order_id].is_more(size):
                return f"the venue changed order {order_id} to {size}, more than was ordered"
            case OrderReported(order_id=order_id, filled=filled) if filled and state.orders[order_id].is_more(filled):
                return f"the venue says that {filled} of order {order_id} is filled, more than was ordered"
            case _:
                pass
    except LedgerError as error:
        return str(error)
    return ""


def excess(state: State, order_id: str, coming: Sequence[Fill] = ()) -> str:
    """Whether more was traded than was asked for, by the order or by its parent; empty if not. It is booked all the same.

    `coming`: fills of this order that are about to be booked.
    """
    order = state.orders[order_id]
    plan, fills = order.plan, (*order.fills, *coming)
    if isinstance(plan, PlaceOrder | SwapBatch):
        paid, got = sum(fill.paid.units for fill in fills), sum(fill.received.units for fill in fills)
        if paid > plan.sell.units or (plan.side == "buy" and got > plan.buy.units):
            return f"order {order_id} traded {Amount(paid, plan.sell.asset)} -> {Amount(got, plan.buy.asset)}, more than it may"
    parent = state.parents.get(plan.intent_id)
    if parent is not None:
        filled = parent.filled
        for fill in coming:
            filled = filled + rescale_up(fill.paid if parent.intent.side == "sell" else fill.received, filled.asset)
        if filled > parent.intent.quantity:
            return f"parent {plan.intent_id} traded {filled} of {parent.intent.quantity}, more than it may"
        return overdone(parent, filled - parent.filled, state)
    return ""
