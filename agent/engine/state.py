"""Everything the agent knows about its own business, as a fold over the journal. The same records give the same state, bit for bit.

Market data is not here (`agent/market`): it is not journaled, and no money depends on remembering it.
"""

import msgspec

from agent.domain.amount import Amount, Asset, rescale_up, zero
from agent.domain.errors import LedgerError
from agent.domain.events import (
    BalanceAdopted,
    EngineStarted,
    GasPaid,
    Halted,
    IntentAccepted,
    IntentCancelled,
    IntentEnded,
    OrderApproved,
    OrderFilled,
    OrderRefused,
    OrderReported,
    OrderSent,
    Reconciled,
    Record,
    Resumed,
    Routed,
)
from agent.domain.intent import Intent
from agent.domain.order import ENDED, SETTLED, Fill, Order, OrderRef, OrderState, follows
from agent.domain.plan import ApproveToken, CancelOrder, ChainPlan, PlaceOrder, SwapBatch
from agent.domain.price import Price
from agent.ledger.positions import Ledger
from agent.ledger.posting import entry

LIVE = "LIVE"


class Parent(msgspec.Struct):
    """A parent order as it stands."""

    intent: Intent
    arrival: Price
    accepted_ns: int
    filled: Amount  # of the base group
    status: str = LIVE
    reason: str = ""
    cancelled: bool = False
    slices: int = 0
    slice_ns: int = 0
    refusals: int = 0  # by risk, in a row
    failures: dict[str, int] = {}  # venue -> orders that it rejected or reverted since it last filled one
    failed_ns: dict[str, int] = {}  # venue -> when it last did
    routes: list[Routed] = msgspec.field(default_factory=list)
    orders: list[str] = msgspec.field(default_factory=list)
    ended_ns: int = 0
    coin: Price | None = None  # what the coin that pays for gas was worth at arrival, in quote

    @property
    def is_live(self) -> bool:
        return self.status == LIVE


class State:
    """Owned by the engine; changed by `apply` alone."""

    def __init__(self) -> None:
        self.parents: dict[str, Parent] = {}
        self.orders: dict[str, Order] = {}
        self.working: dict[str, Order] = {}  # those of them through which something may still happen
        self.mined: dict[str, Order] = {}  # settled in a block that is not final yet
        self.ledger = Ledger()
        self.fills: set[str] = set()
        self.gas_seen: set[str] = set()
        self.adopted: set[tuple[str, str]] = set()
        self.halted: dict[str, str] = {}
        self.reconciled: Reconciled | None = None
        self.seq = 0
        self.now_ns = 0

    def apply(self, record: Record) -> None:
        """Fold one record in. Facts that change nothing (repeats, late news) are ignored here, not treated as errors."""
        self.seq, self.now_ns = record.seq, record.at_ns
        match record.event:
            case OrderReported() as event:
                self._report(event)
            case OrderFilled() as event:
                self._fill(event)
            case GasPaid() as event:
                self._gas(event)
            case BalanceAdopted() as event:
                self.adopted.add((event.account, event.venue))
                self.ledger.post(entry(event))
            case IntentAccepted(intent=intent, arrival=arrival, coin=coin):
                parent = Parent(intent, arrival, record.at_ns, zero(intent.quantity.asset), coin=coin)
                self.parents[intent.intent_id] = parent
            case IntentCancelled(intent_id=intent_id):
                self.parents[intent_id].cancelled = True
            case IntentEnded() as event:
                parent = self.parents[event.intent_id]
                parent.status, parent.reason, parent.ended_ns = event.status, event.reason, record.at_ns
            case Routed() as event:
                parent = self.parents[event.intent_id]
                parent.routes.append(event)
                parent.slices, parent.slice_ns = parent.slices + 1, record.at_ns
            case OrderApproved() as event:
                self._approved(event)
            case OrderRefused(plan=plan):
                self.parents[plan.intent_id].refusals += 1
            case OrderSent() as event:
                order = self.orders[event.order_id]
                order.sent_ns, order.tx_hash, order.raw = record.at_ns, event.tx_hash, event.raw
                self._move(order, OrderState.SENT)
            case EngineStarted():
                self._restart()
            case Reconciled() as event:
                self.reconciled = event
            case Halted() as event:
                self.halted[event.scope] = event.reason
            case Resumed(scope=scope):
                self.halted.pop(scope, None)
            case _:
                pass

    # -- questions ---------------------------------------------------------------------------------------------------

    def is_news(self, event: object) -> bool:
        """Whether a fact from outside changes anything; what does not is not journaled again."""
        match event:
            case OrderFilled(fill=fill):
                return fill.key not in self.fills and fill.order_id in self.orders
            case GasPaid(tx_hash=tx_hash, order_id=order_id):
                return tx_hash not in self.gas_seen and order_id in self.orders
            case OrderReported() as report:
                order = self.orders.get(report.order_id)
                return order is not None and (
                    follows(order.state, report.state) or bool(report.venue_order_id and not order.venue_order_id)
                )
            case _:
                pass
        return True

    def is_strange(self, event: OrderFilled | GasPaid) -> bool:
        """Whether somebody else moves what we count as ours: a trade of no order of this journal.

        A trade from before a place's balance was adopted is part of what was taken over.
        """
        order_id = event.fill.order_id if isinstance(event, OrderFilled) else event.order_id
        if order_id in self.orders:
            return False
        if isinstance(event, OrderFilled):
            return any(venue == event.fill.venue for _, venue in self.adopted)
        return any(account == event.account for account, _ in self.adopted)

    def contradiction(self, event: object) -> str:
        """Why a fill or a gas bill of a known order cannot be booked; empty if it can."""
        try:
            match event:
                case OrderFilled(fill=fill):
                    plan = self.orders[fill.order_id].plan
                    if not isinstance(plan, PlaceOrder | SwapBatch):
                        return f"order {fill.order_id} trades nothing, and yet {fill.venue} reports fill {fill.trade_id} of it"
                    if (fill.venue, fill.paid.asset, fill.received.asset) != (plan.venue, plan.sell.asset, plan.buy.asset):
                        return (
                            f"fill {fill.trade_id} ({fill.paid} -> {fill.received} at {fill.venue}) is not of order {fill.order_id}"
                        )
                    entry(event, plan)
                case GasPaid(order_id=order_id):
                    entry(event, self.orders[order_id].plan)
                case _:
                    pass
        except LedgerError as error:
            return str(error)
        return ""

    def excess(self, order_id: str) -> str:
        """Whether more was traded than was asked for, by the order or by its parent; empty if not. It is booked all the same."""
        order = self.orders[order_id]
        plan = order.plan
        if isinstance(plan, PlaceOrder | SwapBatch):
            paid, got = sum(fill.paid.units for fill in order.fills), sum(fill.received.units for fill in order.fills)
            if paid > plan.sell.units or (plan.side == "buy" and got > plan.buy.units):
                return f"order {order_id} traded {Amount(paid, plan.sell.asset)} -> {Amount(got, plan.buy.asset)}, more than it may"
        parent = self.parents.get(plan.intent_id)
        if parent is not None and parent.filled > parent.intent.quantity:
            return f"parent {plan.intent_id} traded {parent.filled} of {parent.intent.quantity}, more than it may"
        return ""

    def unsettled(self, intent_id: str) -> list[Order]:
        """Children of a parent through which something may still leave the account, or whose fills are not all known."""
        return [self.working[name] for name in self.parents[intent_id].orders if name in self.working]

    def promised(self, account: str, venue: str, asset: Asset) -> Amount:
        """What unsettled orders may still take: the worse of both outcomes while one is in doubt."""
        total = zero(asset)
        for order in self.working.values():
            plan = order.plan
            if not isinstance(plan, PlaceOrder | SwapBatch):
                continue
            if plan.account == account and plan.venue == venue and plan.sell.asset == asset:
                taken = sum(fill.paid.units for fill in order.fills)
                total = total + Amount(max(plan.sell.units - taken, 0), asset)
        return total

    def free(self, account: str, venue: str, asset: Asset) -> Amount:
        return self.ledger.balance(account, venue, asset) - self.promised(account, venue, asset)

    def remaining(self, parent: Parent) -> Amount:
        """Of the parent, in its group: neither filled nor promised to a child that may still trade."""
        left = parent.intent.quantity - parent.filled
        for order in self.unsettled(parent.intent.intent_id):
            left = left - _base_open(order, parent.intent)
        return left

    def next_nonce(self, venue: str, mined: int) -> int:
        """The lowest number that the venue's wallet may use: not below what the chain has `mined`, and not used by a transaction
        that was sent or is about to be. One that was certainly never accepted gives its number back, so that no gap remains.
        """
        gone = (OrderState.REJECTED, OrderState.CANCELLED)
        used = {order.nonce for order in self.orders.values() if order.plan.venue == venue and order.state not in gone}
        nonce = mined
        while nonce in used:
            nonce += 1
        return nonce

    def chain_orders(self) -> list[Order]:
        """Transactions that are under way."""
        return [order for order in self.working.values() if isinstance(order.plan, ChainPlan)]

    # -- folding -----------------------------------------------------------------------------------------------------

    def _approved(self, event: OrderApproved) -> None:
        plan = event.approved.plan
        order = Order(plan, OrderState.APPROVED, self.now_ns, event.approved.nonce)
        self.orders[plan.order_id] = self.working[plan.order_id] = order
        parent = self.parents.get(plan.intent_id)
        if parent is not None:
            parent.orders.append(plan.order_id)
            parent.refusals = 0

    def _report(self, event: OrderReported) -> None:
        order = self.orders.get(event.order_id)
        if order is None:
            return
        order.venue_order_id = order.venue_order_id or event.venue_order_id
        if follows(order.state, event.state):
            order.reason, order.block = event.reason or order.reason, event.block or order.block
            self._move(order, event.state)
            if event.state in (OrderState.REJECTED, OrderState.REVERTED):
                self._failed(order)

    def _failed(self, order: Order) -> None:
        parent, venue = self.parents.get(order.plan.intent_id), order.plan.venue
        if parent is not None:
            parent.failures[venue] = parent.failures.get(venue, 0) + 1
            parent.failed_ns[venue] = self.now_ns

    def _move(self, order: Order, state: OrderState) -> None:
        order.state = state
        self.mined.pop(order.order_id, None)
        if state is OrderState.MINED:
            self.mined[order.order_id] = order
        if state in SETTLED:
            order.ended_ns = order.ended_ns or self.now_ns
        if state in SETTLED and not _lacks_fills(order):
            self.working.pop(order.order_id, None)
        else:
            self.working[order.order_id] = order

    def _fill(self, event: OrderFilled) -> None:
        fill = event.fill
        order = self.orders.get(fill.order_id)
        if order is None or fill.key in self.fills:
            return
        self.fills.add(fill.key)
        order.fills.append(fill)
        if order.state in SETTLED and not _lacks_fills(order):
            self.working.pop(order.order_id, None)
        self.ledger.post(entry(event, order.plan))
        parent = self.parents.get(order.plan.intent_id)
        if parent is not None:
            parent.filled = parent.filled + rescale_up(_base_of(fill, parent.intent), parent.filled.asset)
            parent.failures.pop(fill.venue, None)

    def _gas(self, event: GasPaid) -> None:
        order = self.orders.get(event.order_id)
        if order is None or event.tx_hash in self.gas_seen:
            return
        self.gas_seen.add(event.tx_hash)
        order.gas = event.amount if order.gas is None else order.gas + event.amount
        self.ledger.post(entry(event, order.plan))

    def _restart(self) -> None:
        """After a crash nobody knows whether a SENT order left; an order that was only APPROVED never did."""
        for order in list(self.working.values()):
            if order.state is OrderState.SENT:
                order.reason = "the agent restarted before an answer came"
                self._move(order, OrderState.UNKNOWN)
            elif order.state is OrderState.APPROVED:
                order.reason = "never sent: the agent stopped first"
                self._move(order, OrderState.CANCELLED)


def reference_of(order: Order) -> OrderRef:
    """What to ask the venue about this order."""
    plan = order.plan
    instrument = plan.instrument if isinstance(plan, PlaceOrder | CancelOrder) else ""
    return OrderRef(order.order_id, plan.venue, instrument, order.venue_order_id, order.tx_hash, order.nonce, order.sent_ns)


def _base_of(fill: Fill, intent: Intent) -> Amount:
    return fill.paid if intent.side == "sell" else fill.received


def _lacks_fills(order: Order) -> bool:
    """The exchange says that it is filled and has not told all fills yet. Until it has, nobody else may trade that part."""
    plan = order.plan
    if not isinstance(plan, PlaceOrder) or order.state is not OrderState.FILLED:
        return False
    if plan.side == "sell":
        return sum(fill.paid.units for fill in order.fills) < plan.sell.units
    return sum(fill.received.units for fill in order.fills) < plan.buy.units


def _base_open(order: Order, intent: Intent) -> Amount:
    """What an unsettled child may still trade of its parent's base, in the parent's asset, rounded up."""
    asset = intent.quantity.asset
    plan = order.plan
    if isinstance(plan, ApproveToken | CancelOrder) or (order.state in ENDED and not _lacks_fills(order)):
        return zero(asset)
    whole = rescale_up(plan.sell if intent.side == "sell" else plan.buy, asset)
    for fill in order.fills:
        whole = whole - rescale_up(_base_of(fill, intent), asset)
    return whole if whole.units > 0 else zero(asset)
