"""What became of a parent order, from the journaled state alone: what each source gave, the all-in price, and what one place alone
would have given."""

from collections.abc import Sequence

import msgspec

from agent.domain.amount import Amount, Asset, decimal_of, group_asset, zero
from agent.domain.intent import Intent
from agent.domain.order import Fill, Order, OrderState
from agent.domain.plan import AnchorHead, ApproveToken, CancelOrder, CancelTransaction, PlaceOrder, SwapBatch
from agent.domain.price import Price, bps_between, price_of
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.world import NATIVE_GROUP
from agent.ledger.pnl import Execution, execution

# Of several orders, the one that is least settled speaks for all.
LEAST_SETTLED = (
    OrderState.UNKNOWN, OrderState.APPROVED, OrderState.SENT, OrderState.OPEN, OrderState.PARTIAL, OrderState.MINED,
    OrderState.FINAL, OrderState.FILLED, OrderState.EXPIRED, OrderState.CANCELLED, OrderState.REVERTED, OrderState.REPLACED,
    OrderState.REJECTED,
)  # fmt: skip


class Leg(msgspec.Struct, frozen=True):
    """What one instrument gave over all slices. Amounts in group assets, `quote` after the venue's fee and before gas."""

    venue: str
    instrument: str
    state: str
    base: Amount
    quote: Amount
    price: Price | None  # quote / base, after fee, before gas
    fee: Amount  # in quote; a pool keeps its fee inside the price
    fills: int
    orders: tuple[str, ...]
    tx_hashes: tuple[str, ...]


class Child(msgspec.Struct, frozen=True):
    """One order that was sent. `kind`: order, batch (all pools of a slice in one transaction), permission or cancel."""

    order_id: str
    kind: str
    venue: str
    instruments: tuple[str, ...]
    state: str
    base: Amount
    quote: Amount  # after the venue's fee, before gas
    price: Price | None
    fills: int
    tx_hash: str
    reason: str
    about: str = ""


class Gas(msgspec.Struct, frozen=True):
    paid: Amount | None  # in the chain's own coin
    quote: Amount
    transactions: int


class Single(msgspec.Struct, frozen=True):
    """What one place alone would have given for the same slices, after fee and gas, quoted when each slice was routed, whatever the
    account holds there. `instrument` is one book or pool, or a whole venue (no colon in it) over all its sources."""

    instrument: str
    quote: Amount
    price: Price


class Summary(msgspec.Struct, frozen=True):
    """`improvement_bps`: all-in price against the best single venue; `arrival_bps`: against arrival. Positive is better."""

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
    children: tuple[Child, ...]
    singles: tuple[Single, ...]  # best first
    slices: int
    seconds: float


def summary(state: State, intent_id: str) -> Summary:
    """Raises KeyError if the parent is not known."""
    parent = state.parents[intent_id]
    intent = parent.intent
    orders = [state.orders[name] for name in parent.orders]
    paid = [order.gas for order in orders if order.gas is not None]
    done = _executed([fill for order in orders for fill in order.fills], parent, paid)
    singles = _singles(parent)
    best = singles[0] if singles else None
    return Summary(
        intent_id,
        parent.word,
        parent.reason or parent.waits_for,
        intent.side,
        intent.quantity,
        parent.filled,
        _net(done, intent, done.fees + done.gas),
        done.price_all_in,
        parent.arrival,
        _better(done.price_all_in, parent.arrival, intent),
        best,
        _better(done.price_all_in, best.price if best else None, intent),
        Gas(_total(paid), done.gas, len(paid)),
        done.fees,
        _legs(orders, parent),
        tuple(_child(order, parent) for order in orders),
        singles,
        parent.slices,
        max(0, (parent.ended_ns or state.now_ns) - parent.accepted_ns) / 1e9,
    )


def rates_of(parent: Parent) -> dict[str, Price]:
    """Quote coins per coin at arrival, for gas and for fees in another coin."""
    coin = {NATIVE_GROUP: parent.coin} if parent.coin is not None else {}
    return coin | {parent.intent.base: parent.arrival}


def _executed(fills: Sequence[Fill], parent: Parent, gas: Sequence[Amount] = ()) -> Execution:
    intent = parent.intent
    return execution(intent.side, fills, gas, intent.quantity.asset, group_asset(intent.quote), rates_of(parent))


def _net(done: Execution, intent: Intent, costs: Amount) -> Amount:
    return done.quote_gross - costs if intent.side == "sell" else done.quote_gross + costs


def _better(price: Price | None, reference: Price | None, intent: Intent) -> float | None:
    """By how many bps of `reference` the price is better for the client."""
    if price is None or reference is None:
        return None
    return bps_between(price, reference) * (1 if intent.side == "sell" else -1)


def _singles(parent: Parent) -> tuple[Single, ...]:
    """Only places that could have filled every slice count."""
    totals: dict[str, Amount] = {}
    quantity = zero(parent.intent.quantity.asset)
    for index, route in enumerate(parent.routes):
        quantity = quantity + route.quantity
        able = {one.venue: one.quote for one in route.alternatives if one.quote is not None and one.quote.units > 0}
        totals = {name: totals[name] + able[name] for name in totals if name in able} if index else able
    ranked = sorted(totals.items(), key=lambda item: item[1].units, reverse=parent.intent.side == "sell")
    return tuple(Single(name, quote, price_of(quote, quantity)) for name, quote in ranked if quantity)


def _legs(orders: Sequence[Order], parent: Parent) -> tuple[Leg, ...]:
    names = dict.fromkeys(fill.instrument for order in orders for fill in order.fills)
    return tuple(_leg(name, orders, parent) for name in names)


def _leg(name: str, orders: Sequence[Order], parent: Parent) -> Leg:
    mine = [order for order in orders if any(fill.instrument == name for fill in order.fills)]
    fills = [fill for order in mine for fill in order.fills if fill.instrument == name]
    done = _executed(fills, parent)
    return Leg(
        mine[0].plan.venue,
        name,
        str(min((order.state for order in mine), key=LEAST_SETTLED.index)),
        done.base,
        _net(done, parent.intent, done.fees),
        done.price_all_in,
        done.fees,
        len(fills),
        tuple(order.order_id for order in mine),
        tuple(order.tx_hash for order in mine if order.tx_hash),
    )


def _child(order: Order, parent: Parent) -> Child:
    plan, done = order.plan, _executed(order.fills, parent)
    about = ""
    names: tuple[str, ...] = ()
    match plan:
        case PlaceOrder():
            kind, names = "order", (plan.instrument,)
        case SwapBatch():
            kind, names = "batch", tuple(leg.instrument for leg in plan.legs)
        case ApproveToken():
            kind = "permission"
            about = purpose(plan)
        case CancelOrder():
            kind, names = "cancel", (plan.instrument,)
        case AnchorHead() | CancelTransaction():
            kind, about = "anchor", "writes the journal's head into a contract"
    return Child(
        order.order_id, kind, plan.venue, names, str(order.state), done.base, _net(done, parent.intent, done.fees),
        done.price_all_in, len(order.fills), order.tx_hash, order.reason, about,
    )  # fmt: skip


def purpose(plan: ApproveToken) -> str:
    """What a permission is for, in words: the one transaction that moves nothing."""
    coin = plan.sell.asset.symbol
    if not plan.sell:
        return f"takes back an earlier {coin} permission before a new one is given"
    return f"lets Permit2 take up to {decimal_of(plan.sell).normalize():,f} {coin}, for signed swaps only"


def _total(amounts: Sequence[Amount]) -> Amount | None:
    """All amounts of one chain's coin; None without any."""
    assets: list[Asset] = [amount.asset for amount in amounts]
    return sum(amounts[1:], start=amounts[0]) if assets and len(set(assets)) == 1 else None
