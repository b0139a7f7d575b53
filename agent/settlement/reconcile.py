"""Journal = venue = chain, for every asset: what we booked, held against what the world says. Pure.

Every difference is a `Break` with its cause as far as that is known. The search goes from the certain to the vague: something the
venue just told us and we have not booked; an order whose outcome is open and whose limits cover the difference; an order that ended
without all its fills or its gas; and at last a deposit or withdrawal that nobody explained. Nothing is booked here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

from agent.domain.amount import Amount, Asset, zero
from agent.domain.events import Break, GasPaid, OrderFilled, OrderReported
from agent.domain.order import IN_DOUBT, RESTING, Order, OrderState
from agent.domain.plan import ChainPlan, PlaceOrder, SwapBatch
from agent.ledger.positions import Ledger, Line
from agent.ledger.posting import Posting, entry
from agent.ports import Snapshot

ORDER_BREAK = "order:"  # how the asset of a break about an order begins
NATIVE = ("", "0x0000000000000000000000000000000000000000", "0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee")


def compare(
    ledger: Ledger,
    snapshots: Sequence[Snapshot],
    orders: Mapping[str, Order],
    filtered: Collection[str] = (),
    open_orders: Collection[Order] | None = None,
) -> tuple[Break, ...]:
    """All differences, balances first. Reads the ledger, changes nothing; a place without a snapshot is not judged.

    `open_orders`: those through which something may still happen, where the caller knows them; else all are looked through.

    An order that was sent after a snapshot was taken (`Snapshot.at_ns`) is not expected to rest there. What is missing in a list
    that may have been cut off is not judged either. `filtered`: orders at venues that are none of our business.
    """
    lines, still = ledger.balances(), orders.values() if open_orders is None else open_orders
    return tuple(
        chain.from_iterable(
            (*_balance_breaks(lines, shot, orders, still), *_order_breaks(shot, orders, still, filtered)) for shot in snapshots
        )
    )


def checked(ledger: Ledger, snapshots: Sequence[Snapshot]) -> int:
    """How many balances `compare` holds against each other: one for each account, place and asset."""
    lines = ledger.balances()
    return sum(len(_pairs(lines, shot)) for shot in snapshots)


def _pairs(lines: Iterable[Line], shot: Snapshot) -> dict[Asset, tuple[Amount, Amount]]:
    """For each asset that either side knows: (journal, outside)."""
    journal = {amount.asset: amount for account, place, amount in lines if (account, place) == (shot.account, shot.venue)}
    outside = {amount.asset: amount for amount in shot.balances}
    assets = sorted(journal.keys() | outside.keys(), key=lambda asset: (asset.id, asset.address))
    told = outside.keys() if not shot.is_balances_whole else assets
    return {asset: (journal.get(asset, zero(asset)), outside.get(asset, zero(asset))) for asset in assets if asset in told}


# -- balances ----------------------------------------------------------------------------------------------------------


def _balance_breaks(
    lines: Iterable[Line], shot: Snapshot, orders: Mapping[str, Order], still: Collection[Order]
) -> Iterable[Break]:
    ours = [order for order in still if (order.plan.account, order.plan.venue) == (shot.account, shot.venue)]
    news = _unbooked(shot, orders)
    proved = {amount.asset: amount for amount in shot.proved}
    for asset, (journal, outside) in _pairs(lines, shot).items():
        if journal != outside:
            cause = _cause(outside - journal, shot, ours, news)
            yield Break(shot.account, shot.venue, asset.id, journal, outside, cause, proved.get(asset))


def _cause(difference: Amount, shot: Snapshot, ours: Sequence[Order], news: Sequence[tuple[str, tuple[Posting, ...]]]) -> str:
    told = [(text, _effect(postings, shot, difference.asset)) for text, postings in news]
    told = [(text, units) for text, units in told if units]
    rest = difference.units - sum(units for _, units in told)
    known = ", ".join(text for text, _ in told)
    if not rest:
        return known
    cause = _order_cause(Amount(rest, difference.asset), ours) or _unexplained(Amount(rest, difference.asset))
    return f"{known}; {cause}" if known else cause


def _unbooked(shot: Snapshot, orders: Mapping[str, Order]) -> list[tuple[str, tuple[Posting, ...]]]:
    """Fills and gas in the snapshot that the journal does not have, with what they would book."""
    news: dict[str, tuple[str, tuple[Posting, ...]]] = {}
    for fact in shot.facts:
        if isinstance(fact, OrderFilled):
            order = orders.get(fact.fill.order_id)
            if order is not None and fact.fill.key not in {fill.key for fill in order.fills}:
                news[fact.fill.key] = (f"fill missing: {fact.fill.trade_id} of order {order.order_id}", entry(fact, order))
        elif isinstance(fact, GasPaid):
            order = orders.get(fact.order_id)
            if order is not None and fact.tx_hash not in order.gas_paid and order.plan.account == fact.account:
                news[f"gas|{fact.tx_hash}"] = (f"gas of order {order.order_id} is not booked", entry(fact, order))
    return list(news.values())


def _effect(postings: Iterable[Posting], shot: Snapshot, asset: Asset) -> int:
    wallet = (shot.account, shot.venue, asset)
    return sum(posting.amount.units for posting in postings if (posting.account, posting.place, posting.amount.asset) == wallet)


def _order_cause(rest: Amount, ours: Sequence[Order]) -> str:
    """The orders that can have moved `rest`, the likeliest kind of doubt first; empty if none can."""
    doubtful = [order for order in ours if order.state in IN_DOUBT and _touches(order, rest.asset)]
    if doubtful and _covers(doubtful, rest):
        return _named(doubtful, "in doubt")
    short = [order for order in ours if _lacks_fills(order) and _touches(order, rest.asset)]
    if short and _covers(short, rest):
        return _named(short, "fill missing")
    resting = [order for order in ours if order.state in RESTING and _touches(order, rest.asset)]
    if resting and _covers(resting, rest):
        return _named(resting, "a fill may be on its way")
    unpaid = [order for order in ours if _lacks_gas(order) and _is_native(order, rest.asset)]
    if unpaid and _covers(unpaid, rest):
        return _named(unpaid, "gas is not booked")
    return f"{_unexplained(rest)}; {_named(doubtful, 'in doubt')} explains a part at most" if doubtful else ""


def _named(orders: Sequence[Order], what: str) -> str:
    return f"{what}: " + ", ".join(f"order {order.order_id} ({order.state})" for order in orders)


def _unexplained(rest: Amount) -> str:
    if rest.units > 0:
        return f"unexplained: {rest} more outside (a deposit, or a trade by hand)"
    return f"unexplained: {-rest} less outside (a withdrawal, a charge, or a trade by hand)"


def _covers(orders: Sequence[Order], rest: Amount) -> bool:
    """Whether the orders together can have moved so much: at most what they may sell and burn; what arrives has no upper end."""
    low = -sum(_leaves_max(order, rest.asset) for order in orders)
    return low <= rest.units and (rest.units <= 0 or any(_buys(order, rest.asset) for order in orders))


def _touches(order: Order, asset: Asset) -> bool:
    return _leaves_max(order, asset) > 0 or _buys(order, asset)


def _leaves_max(order: Order, asset: Asset) -> int:
    """The most of `asset` that the order can still take out of the wallet, beyond what is booked."""
    plan = order.plan
    gas = 0
    if isinstance(plan, ChainPlan) and _lacks_gas(order):
        gas = plan.gas_limit * max([plan.gas_fee_max, *(one.gas_fee_max for one in order.attempts)])
    leaves = gas if _is_native(order, asset) else 0
    if isinstance(plan, PlaceOrder | SwapBatch) and plan.sell.asset == asset:
        leaves += max(0, plan.sell.units - sum(fill.paid.units for fill in order.fills if fill.paid.asset == asset))
    return leaves


def _buys(order: Order, asset: Asset) -> bool:
    return isinstance(order.plan, PlaceOrder | SwapBatch) and order.plan.buy.asset == asset


def _lacks_fills(order: Order) -> bool:
    """Ended as done, and yet not all of what was exact in the plan is booked."""
    plan = order.plan
    match plan:
        case PlaceOrder():
            return order.lacks_fills
        case SwapBatch() if order.state in (OrderState.MINED, OrderState.FINAL):
            return len(order.fills) < len(plan.legs)
        case _:
            return False


def _lacks_gas(order: Order) -> bool:
    is_paid_for = order.state in IN_DOUBT or order.state in (
        OrderState.OPEN,
        OrderState.MINED,
        OrderState.FINAL,
        OrderState.REVERTED,
        OrderState.CANCELLED,
    )
    return isinstance(order.plan, ChainPlan) and order.gas is None and is_paid_for


def _is_native(order: Order, asset: Asset) -> bool:
    """Whether `asset` is the coin in which the order's chain takes gas."""
    plan = order.plan
    on_chain = isinstance(plan, ChainPlan) and asset.home == f"eip155:{plan.chain_id}"
    return on_chain and asset.address.lower() in NATIVE


# -- orders ------------------------------------------------------------------------------------------------------------


def _order_breaks(
    shot: Snapshot, orders: Mapping[str, Order], still: Collection[Order], filtered: Collection[str]
) -> Iterable[Break]:
    """Orders that rest there and not here, and the other way round. Counted in orders: the amount is 0 or 1."""
    unit = Asset("orders", shot.venue, 0)
    none, one = zero(unit), Amount(1, unit)
    for order_id in sorted(set(shot.open_orders) - set(filtered)):
        order = orders.get(order_id)
        if order is None:
            cause = "rests at the venue and the journal does not know it (another program, or by hand)"
        elif order.state is OrderState.APPROVED or order.is_settled:
            cause = f"rests at the venue, but here it is {order.state}"
        else:
            continue
        yield Break(shot.account, shot.venue, f"{ORDER_BREAK}{order_id}", none, one, cause, about="order")
    said = {fact.order_id: fact.state for fact in shot.facts if isinstance(fact, OrderReported)}
    for order in still:
        if shot.is_orders_whole and _should_rest(order, shot) and order.order_id not in shot.open_orders:
            state = said.get(order.order_id)
            if state in RESTING:
                continue  # asked for by name it says that it rests: a list may be short, an answer is not
            cause = "is open here, the venue does not hold it" if state is None else f"is open here, the venue says {state}"
            yield Break(shot.account, shot.venue, f"{ORDER_BREAK}{order.order_id}", one, none, cause, about="order")


def _should_rest(order: Order, shot: Snapshot) -> bool:
    plan = order.plan
    is_here = isinstance(plan, PlaceOrder) and (plan.account, plan.venue) == (shot.account, shot.venue)
    is_old_enough = not shot.at_ns or order.sent_ns <= shot.at_ns
    return is_here and order.state in RESTING and is_old_enough
