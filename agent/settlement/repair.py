"""What of a difference can be put right from what venues say, without a person's word: steps to be shown before they are done.

Books a trade that was missed, takes over an order that somebody else placed, and infers a trade that the venue counts and no longer
lists from what moved in the balances. Everything else stays a break: money that nobody can explain is never explained by a program.
Ids of inferred trades follow from what they are about, so the same repair twice books once. Pure.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from agent.domain.amount import Amount, zero
from agent.domain.events import Break, GasPaid, OrderClaimed, OrderFilled, OrderReported
from agent.domain.instrument import Instrument
from agent.domain.order import INFERRED, Fill, Order, follows
from agent.domain.plan import PlaceOrder
from agent.ports import Repair, Resting, Snapshot


def repairs(
    breaks: Sequence[Break], shot: Snapshot, orders: Mapping[str, Order], listed: Callable[[str], Instrument | None]
) -> list[Repair]:
    """Steps for one venue, in the order to do them. `listed` knows the venue's instruments."""
    steps = [step for fact in shot.facts if (step := _missed(fact, shot.venue, orders)) is not None]
    booked = {event.fill.order_id for step in steps for event in step.events if isinstance(event, OrderFilled)}
    resting = {one.order_id: one for one in shot.resting}
    inferred = False
    for one in (one for one in breaks if one.venue == shot.venue):
        if one.about == "order" and (found := resting.get(one.asset.partition(":")[2])) and found.order_id not in orders:
            steps.append(_claim(found, shot, listed(found.instrument)))
        elif one.is_balance and not booked and not inferred and (short := _short(shot, orders)):
            inferred = True
            steps += [_infer(order, breaks, shot) for order in short]
        elif one.is_balance and not booked and not inferred:
            action = "nobody can explain it from here: `isthmus reconcile --adopt REASON` takes it over, with your reason"
            steps.append(Repair(one.venue, one.asset, action))
        elif one.is_nonce:
            action = "another program uses this wallet: stop it, then `isthmus reconcile --adopt REASON`"
            steps.append(Repair(one.venue, one.asset, action))
    return steps


def claimed(found: Resting, shot: Snapshot, instrument: Instrument, reason: str) -> OrderClaimed:
    """An order of somebody else as one of ours: from now on it reserves, and its fills are booked."""
    base = Amount(found.lots * instrument.lot_units, instrument.base)
    value, scale = found.ticks * instrument.tick_units * base.units, 10**instrument.base.decimals
    quote = Amount(value // scale if found.side == "sell" else -(-value // scale), instrument.quote)
    sell, buy = (base, quote) if found.side == "sell" else (quote, base)
    plan = PlaceOrder(
        found.order_id, "", shot.account, shot.venue, instrument.id, found.side, found.ticks, found.lots, "GTC", sell, buy
    )
    return OrderClaimed(plan, found.venue_order_id, reason)


def _claim(found: Resting, shot: Snapshot, instrument: Instrument | None) -> Repair:
    if instrument is None:
        return Repair(shot.venue, found.order_id, f"cancel it by hand: {found.instrument} is not among the symbols of this venue")
    event = claimed(found, shot, instrument, "taken over by a repair")
    return Repair(shot.venue, found.order_id, "take the order over: it reserves, and its fills are booked", (event,))


def _missed(fact: object, venue: str, orders: Mapping[str, Order]) -> Repair | None:
    """A fact that the venue tells when asked, and that the journal does not have."""
    match fact:
        case OrderFilled(fill=fill) if (order := orders.get(fill.order_id)) and fill.key not in {one.key for one in order.fills}:
            return Repair(venue, fill.order_id, f"book trade {fill.trade_id}: {fill.paid} -> {fill.received}", (fact,))
        case GasPaid(order_id=order_id, tx_hash=tx_hash) if (order := orders.get(order_id)) and tx_hash not in order.gas_paid:
            return Repair(venue, order_id, f"book gas of {fact.amount}", (fact,))
        case OrderReported(order_id=order_id, state=state) if (order := orders.get(order_id)) and follows(order.state, state):
            return Repair(venue, order_id, f"is {order.state} here and {state} there: take that over", (fact,))
        case _:
            return None


def _short(shot: Snapshot, orders: Mapping[str, Order]) -> list[Order]:
    """The one order of the venue whose trades are not all known; none if there are several, for then nobody can tell them apart."""
    found = [order for order in orders.values() if order.plan.venue == shot.venue and order.lacks_fills]
    return found if len(found) == 1 else []


def _infer(order: Order, breaks: Sequence[Break], shot: Snapshot) -> Repair:
    """The trade that the venue counts and does not list: its size from the venue's sum, its value from the balances."""
    plan = order.plan
    assert isinstance(plan, PlaceOrder), "only orders on books lack fills"
    moved = {one.asset: one.outside - one.journal for one in breaks if one.venue == shot.venue and one.is_balance}
    paid = -moved.get(plan.sell.asset.id, zero(plan.sell.asset))
    received = moved.get(plan.buy.asset.id, zero(plan.buy.asset))
    base = paid if plan.side == "sell" else received
    told = order.told.units if order.told else order.quantity
    others = [asset for asset in moved if asset not in (plan.sell.asset.id, plan.buy.asset.id)]
    is_plausible = paid.units > 0 and received.units > 0 and base.units <= told - order.filled and not others
    if not is_plausible:
        text = f"{told - order.filled} units of it are not listed any more, and the balances do not tell its price: adopt them"
        return Repair(shot.venue, order.order_id, text)
    text = f"{shot.venue}|{order.order_id}|{order.filled}|{told}"
    trade_id = INFERRED + hashlib.sha256(text.encode()).hexdigest()[:16]
    fill = Fill(order.order_id, shot.venue, plan.instrument, trade_id, paid, received, zero(received.asset), shot.at_ns)
    action = f"book {paid} -> {received}, as the balances say: the venue no longer lists the trade"
    return Repair(shot.venue, order.order_id, action, (OrderFilled(fill),))
