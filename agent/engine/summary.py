"""What became of a parent order, from the journaled state alone: legs, all-in price, and what one venue alone would have given."""

from collections.abc import Sequence

import msgspec

from agent.domain.amount import Amount, group_asset, zero
from agent.domain.order import Fill, Order
from agent.domain.plan import ApproveToken, PlaceOrder, SwapBatch
from agent.domain.price import Price, bps_between, price_of
from agent.engine.state import Parent, State
from agent.ledger.pnl import execution


class Leg(msgspec.Struct, frozen=True):
    """What one instrument contributed. Amounts in group assets, `quote` after the venue's fee and before gas."""

    order_id: str
    venue: str
    instrument: str
    state: str
    base: Amount
    quote: Amount
    fee: Amount  # in quote
    price: Price | None  # quote / base, after fee, before gas
    fills: int
    tx_hash: str = ""


class Gas(msgspec.Struct, frozen=True):
    paid: Amount | None  # in the chain's own coin
    quote: Amount
    transactions: int


class Single(msgspec.Struct, frozen=True):
    """The best that one instrument alone would have given for the same slices, quoted at the moment each slice was routed."""

    instrument: str
    quote: Amount
    price: Price


class Summary(msgspec.Struct, frozen=True):
    """`improvement_bps`: all-in price against the best single venue; `arrival_bps`: against the arrival price. Positive is better."""

    intent_id: str
    status: str
    reason: str
    side: str
    quantity: Amount
    filled: Amount
    quote: Amount  # after fees and gas
    all_in_price: Price | None
    arrival_price: Price
    arrival_bps: float | None
    best_single_venue: Single | None
    improvement_bps: float | None
    gas: Gas
    fees: Amount
    legs: tuple[Leg, ...]
    slices: int
    seconds: float


def summary(state: State, intent_id: str) -> Summary:
    """Raises KeyError if the parent is not known."""
    parent = state.parents[intent_id]
    intent = parent.intent
    base, quote = intent.quantity.asset, group_asset(intent.quote)
    orders = [state.orders[name] for name in parent.orders]
    fills = [fill for order in orders for fill in order.fills]
    paid = [order.gas for order in orders if order.gas is not None]
    rates = {intent.base: parent.arrival}
    done = execution(intent.side, fills, paid, base, quote, rates)
    sign = 1 if intent.side == "sell" else -1
    costs = done.fees + done.gas
    net = done.quote_gross - costs if intent.side == "sell" else done.quote_gross + costs
    single = best_single(parent)
    better = None if single is None or done.price_all_in is None else sign * bps_between(done.price_all_in, single.price)
    return Summary(
        intent_id,
        parent.status,
        parent.reason,
        intent.side,
        intent.quantity,
        parent.filled,
        net,
        done.price_all_in,
        parent.arrival,
        None if done.price_all_in is None else sign * bps_between(done.price_all_in, parent.arrival),
        single,
        better,
        Gas(_total(paid), done.gas, len(paid)),
        done.fees,
        tuple(leg for order in orders for leg in _legs(order, parent)),
        parent.slices,
        max(0, (parent.ended_ns or state.now_ns) - parent.accepted_ns) / 1e9,
    )


def best_single(parent: Parent) -> Single | None:
    """Only instruments that could have filled every slice count."""
    intent = parent.intent
    totals: dict[str, Amount] = {}
    quantity = zero(intent.quantity.asset)
    for index, route in enumerate(parent.routes):
        quantity = quantity + route.quantity
        able = {one.venue: one.quote for one in route.alternatives if one.quote is not None}
        if index == 0:
            totals = able
        else:
            totals = {name: total + able[name] for name, total in totals.items() if name in able}
    ranked = sorted(totals.items(), key=lambda item: item[1].units, reverse=intent.side == "sell")
    if not ranked or not quantity or ranked[0][1].units <= 0:
        return None
    name, best = ranked[0]
    return Single(name, best, price_of(best, quantity))


def _legs(order: Order, parent: Parent) -> Sequence[Leg]:
    plan = order.plan
    if isinstance(plan, PlaceOrder):
        names = [plan.instrument]
    elif isinstance(plan, SwapBatch):
        names = [leg.instrument for leg in plan.legs]
    else:
        names = [f"{plan.venue}:approve"] if isinstance(plan, ApproveToken) else []
    return [_leg(order, name, [f for f in order.fills if f.instrument == name], parent) for name in names]


def _leg(order: Order, name: str, fills: Sequence[Fill], parent: Parent) -> Leg:
    intent = parent.intent
    base, quote = intent.quantity.asset, group_asset(intent.quote)
    done = execution(intent.side, fills, (), base, quote, {intent.base: parent.arrival})
    return Leg(
        order.order_id,
        order.plan.venue,
        name,
        str(order.state),
        done.base,
        done.quote_gross - done.fees if intent.side == "sell" else done.quote_gross + done.fees,
        done.fees,
        done.price_all_in,
        len(fills),
        order.tx_hash,
    )


def _total(amounts: Sequence[Amount]) -> Amount | None:
    total = None
    for amount in amounts:
        total = amount if total is None else total + amount
    return total
