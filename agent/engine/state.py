"""Everything the agent knows about its own business, as a fold over the journal. The same records give the same state, bit for bit.

Market data is not here (`agent/market`): it is not journaled, and no money depends on remembering it.
"""

from agent.domain.amount import Amount, Asset, rescale_up, zero
from agent.domain.events import (
    BalanceAdopted,
    EngineStarted,
    FillReversed,
    GasPaid,
    Halted,
    IntentAccepted,
    IntentEnded,
    Marked,
    NonceAdopted,
    OrderAmended,
    OrderApproved,
    OrderClaimed,
    OrderFilled,
    OrderRefused,
    OrderReorged,
    OrderReported,
    OrderSent,
    Reconciled,
    Record,
    Resumed,
    Routed,
    RouteExplained,
    Surrounded,
    Turn,
    VenueConnected,
    VenueDisconnected,
    VenueStatus,
    WholeQuoted,
)
from agent.domain.intent import Intent
from agent.domain.order import NEVER_SENT, REORGANISED, SETTLED, WOULD_TAKE, Attempt, Fill, Order, OrderState, after, follows
from agent.domain.plan import CancelOrder, ChainPlan, PlaceOrder, Plan, SwapBatch
from agent.engine.parent import LIVE, Parent, parent_of
from agent.engine.scores import Scores
from agent.ledger.positions import Ledger
from agent.ledger.posting import entry, reversal
from agent.routing.scorecard import Scoring

EVERYWHERE = frozenset({"kill", "agent", "disk"})  # scopes of a halt that stop all new risk; others name a venue or an instrument


class State:
    """Owned by the engine; changed by `apply` alone. `scoring`: how scorecards are kept; the same records and settings give the
    same cards.
    """

    def __init__(self, scoring: Scoring | None = None) -> None:
        self.scores = Scores(scoring or Scoring())
        self.parents: dict[str, Parent] = {}
        self.live: dict[str, Parent] = {}  # those of them that are worked
        self.orders: dict[str, Order] = {}
        self.groups: dict[str, list[str]] = {}  # of parents of which one cancels the others
        self.cancels: dict[str, list[str]] = {}  # order -> the orders that take it back
        self.working: dict[str, Order] = {}  # those of them through which something may still happen
        self._under: dict[str, dict[str, Order]] = {}  # the same by the parent's id, each in the order of `working`
        self.mined: dict[str, Order] = {}  # settled in a block that is not final yet
        self.ledger = Ledger()
        self.fills: dict[str, Fill] = {}
        self.gas_seen: set[str] = set()
        self.surrounded: dict[str, list[Surrounded]] = {}  # order -> the sandwiches around it
        self.adopted: set[tuple[str, str]] = set()
        self.nonces: dict[str, dict[int, str]] = {}  # venue -> number of a transaction -> the order that has it
        self.nonce_base: dict[str, int] = {}  # venue -> numbers below it are accounted for otherwise
        self.status: dict[str, VenueStatus] = {}  # what connected venues let us do, where it is less than trading
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
            case FillReversed() as event:
                self._reverse(event.key)
            case OrderAmended() as event:
                order = self.orders[event.order_id]
                order.size, order.version = event.size, event.version
                self._settle(order)
            case OrderReorged() as event:
                self._reorged(event)
            case GasPaid() as event:
                self._gas(event)
            case Marked() as event:
                order = self.orders[event.order_id]
                self.scores.marked(order, self.parents.get(order.plan.intent_id), event, record.at_ns)
            case Surrounded() as event:
                self.surrounded.setdefault(event.order_id, []).append(event)
            case BalanceAdopted() as event:
                self.adopted.add((event.account, event.venue))
                self.ledger.post(entry(event))
            case NonceAdopted(venue=venue, nonce=nonce):
                self.nonce_base[venue] = nonce
            case IntentAccepted(intent=intent, arrival=arrival, coin=coin):
                parent = Parent(intent, arrival, record.at_ns, zero(intent.quantity.asset), coin=coin)
                self.parents[intent.intent_id] = self.live[intent.intent_id] = parent
                if intent.group:
                    self.groups.setdefault(intent.group, []).append(intent.intent_id)
            case IntentEnded() as event:
                parent = self.parents[event.intent_id]
                parent.status, parent.reason, parent.ended_ns = event.status, event.reason, record.at_ns
                parent.departure = event.mid
                self.live.pop(event.intent_id, None)
            case Routed() as event:
                parent = self.parents[event.intent_id]
                parent.routes.append(event)
                parent.slices, parent.slice_ns = parent.slices + 1, record.at_ns
            case RouteExplained() as event:
                routes = self.parents[event.intent_id].routes
                for place, route in enumerate(routes):
                    if route.slice_index == event.slice_index:
                        routes[place] = event.told_of(route)
            case WholeQuoted() as event:
                self.parents[event.intent_id].whole = event
            case OrderApproved() as event:
                self._approved(event.approved.plan, event.approved.nonce)
            case OrderClaimed() as event:
                self._approved(event.plan, None)
                order = self.orders[event.plan.order_id]
                order.sent_ns, order.venue_order_id = record.at_ns, event.venue_order_id
                self._move(order, OrderState.OPEN)
            case OrderRefused(plan=plan):
                if plan.intent_id in self.parents:
                    self.parents[plan.intent_id].refusals += 1
            case OrderSent() as event:
                self._sent(event)
            case EngineStarted():
                self._restart()
            case Reconciled() as event:
                self.reconciled = event
            case VenueStatus(venue=venue, status=status):
                self.status.pop(venue, None)
                if status != "TRADING":
                    self.status[venue] = record.event
            case VenueConnected(venue=venue) | VenueDisconnected(venue=venue):
                self.status.pop(venue, None)
            case Halted() as event:
                self.halted[event.scope] = event.reason
            case Resumed(scope=scope):
                self.halted.pop(scope, None)
            case event if isinstance(event, Turn):
                name = parent_of(event)
                self.parents[name].turn(event, record.at_ns, [order.order_id for order in self.unsettled(name)])
            case _:
                pass

    # -- questions ---------------------------------------------------------------------------------------------------

    def unsettled(self, intent_id: str) -> list[Order]:
        """Children of a parent through which something may still leave the account, or whose fills are not all known."""
        return list(self._under.get(intent_id, {}).values())

    def free(self, account: str, venue: str, asset: Asset) -> Amount:
        return Amount(self.ledger.units(account, venue, asset) - self.promised(account, venue, asset), asset)

    def promised(self, account: str, venue: str, asset: Asset) -> int:
        """Units that unsettled orders may still take: the worse of both outcomes while one is in doubt."""
        units = 0
        for order in self.working.values():
            plan = order.plan
            if not isinstance(plan, PlaceOrder | SwapBatch):
                continue
            if plan.account == account and plan.venue == venue and plan.sell.asset == asset:
                units += order.may_take
        return units

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
        used, nonce = self.nonces.get(venue, {}), mined
        while nonce in used:
            nonce += 1
        return nonce

    def foreign_nonce(self, venue: str, mined: int) -> int | None:
        """The first number that the chain has mined for the wallet and that no order of this journal has; None if there is none."""
        used = self.nonces.get(venue, {})
        return next((number for number in range(self.nonce_base.get(venue, mined), mined) if number not in used), None)

    def halt_of(self, venue: str = "", instrument: str = "") -> str:
        """Why nothing new may be done: at all, at a venue, or in an instrument; empty if it may."""
        scopes = (scope for scope in self.halted if scope in EVERYWHERE or scope in (venue, instrument))
        return next((self.halted[scope] for scope in scopes), "")

    def halt_of_plan(self, plan: Plan) -> str:
        """The same for a plan: one of its pools that is halted halts a batch."""
        legs = plan.legs if isinstance(plan, SwapBatch) else (plan,) if isinstance(plan, PlaceOrder) else ()
        return self.halt_of(plan.venue) or next(filter(None, (self.halt_of(plan.venue, one.instrument) for one in legs)), "")

    def unfinished(self) -> list[Order]:
        """Orders through which something may still happen, or may be taken back."""
        return list({**self.working, **self.mined}.values())

    def chain_orders(self) -> list[Order]:
        """Transactions that are under way."""
        return [order for order in self.working.values() if isinstance(order.plan, ChainPlan)]

    # -- folding -----------------------------------------------------------------------------------------------------

    def _approved(self, plan: Plan, nonce: int | None) -> None:
        order = Order(plan, OrderState.APPROVED, self.now_ns, nonce)
        self.orders[plan.order_id] = self.working[plan.order_id] = order
        self._under.setdefault(plan.intent_id, {})[plan.order_id] = order
        if nonce is not None:
            self.nonces.setdefault(plan.venue, {})[nonce] = plan.order_id
        if isinstance(plan, CancelOrder):
            self.cancels.setdefault(plan.target_id, []).append(plan.order_id)
        parent = self.parents.get(plan.intent_id)
        if parent is not None:
            parent.orders.append(plan.order_id)
            parent.refusals = 0
            order.route = len(parent.routes) - 1

    def _sent(self, event: OrderSent) -> None:
        order = self.orders[event.order_id]
        if event.tx_hash:
            order.attempts.append(Attempt(event.tx_hash, event.raw, self.now_ns, event.gas_fee_max, event.gas_tip, event.is_cancel))
            order.tx_hash = order.tx_hash if order.block else event.tx_hash
        if not event.attempt:
            order.sent_ns = self.now_ns
            self._move(order, OrderState.SENT)

    def _report(self, event: OrderReported) -> None:
        order = self.orders.get(event.order_id)
        if order is None:
            return
        if event.state is not OrderState.UNKNOWN and not event.reason.startswith(NEVER_SENT):
            self.scores.heard(order, self.now_ns)
        order.venue_order_id = order.venue_order_id or event.venue_order_id
        if is_corrected := order.is_corrected(event.state, event.filled):
            order.state = event.state
        if event.filled is not None and (order.told is None or event.filled > order.told or is_corrected):
            order.told = event.filled
        if event.state is OrderState.FINAL and order.state in SETTLED:
            order.is_final = True
        if follows(order.state, event.state):
            order.reason = event.reason or order.reason
            if event.block:
                order.block, order.block_hash, order.tx_hash = event.block, event.block_hash, event.tx_hash or order.tx_hash
            self._move(order, after(order.state, event.state))
            if event.state in (OrderState.REJECTED, OrderState.REVERTED) and not event.reason.startswith(WOULD_TAKE):
                self._failed(order)
        else:
            self._settle(order)

    def _failed(self, order: Order) -> None:
        parent, venue = self.parents.get(order.plan.intent_id), order.plan.venue
        if parent is not None:
            parent.failures[venue] = parent.failures.get(venue, 0) + 1
            parent.failed_ns[venue] = self.now_ns

    def _move(self, order: Order, state: OrderState) -> None:
        order.state = OrderState.PARTIAL if state is OrderState.OPEN and order.fills else state
        self._settle(order)

    def _settle(self, order: Order) -> None:
        """Put an order where it belongs after a change: worked, in a block, or done. A complete order is filled."""
        if isinstance(order.plan, PlaceOrder) and order.fills and order.filled >= order.quantity:
            order.state = OrderState.FILLED
        name, state = order.order_id, order.state
        siblings = self._under.setdefault(order.plan.intent_id, {})
        order.ended_ns = (order.ended_ns or self.now_ns) if state in SETTLED else 0
        if state in SETTLED and not order.lacks_fills:
            self.working.pop(name, None)
            siblings.pop(name, None)
            self.scores.ended(order, self.parents.get(order.plan.intent_id), self.now_ns)
        else:
            self.working[name] = siblings[name] = order
        if order.block and state in REORGANISED and not order.is_final:
            self.mined[name] = order
        else:
            self.mined.pop(name, None)
        if order.nonce is not None:
            used = self.nonces.setdefault(order.plan.venue, {})
            if state is OrderState.REPLACED or (state in (OrderState.REJECTED, OrderState.CANCELLED) and not order.block):
                if used.get(order.nonce) == name:
                    del used[order.nonce]
            else:
                used.setdefault(order.nonce, name)

    def _fill(self, event: OrderFilled) -> None:
        fill = event.fill
        order = self.orders.get(fill.order_id)
        if order is None or fill.key in self.fills:
            return
        self.fills[fill.key] = fill
        order.fills.append(fill)
        self.scores.heard(order, self.now_ns)
        self.scores.traded(order, self.now_ns)
        if isinstance(order.plan, PlaceOrder):
            if order.state in (OrderState.SENT, OrderState.UNKNOWN, OrderState.OPEN):
                order.state = OrderState.PARTIAL
            elif order.state is OrderState.REJECTED:
                order.state, order.reason = OrderState.UNKNOWN, f"it was refused, and yet {fill.trade_id} is a trade of it"
        self._settle(order)
        self.ledger.post(entry(event, order.plan))
        parent = self.parents.get(order.plan.intent_id)
        if parent is not None:
            parent.count(fill, 1)
            parent.failures.pop(fill.venue, None)

    def _reverse(self, key: str) -> None:
        """Take a fill back: a compensating entry, and the order and its parent count it no more."""
        fill = self.fills.pop(key, None)
        if fill is None:
            return
        order = self.orders[fill.order_id]
        order.fills.remove(fill)
        if not fill.is_inferred:
            order.told, order.is_shaken = None, True  # what the venue said before counts no more
        if order.state is OrderState.FILLED and isinstance(order.plan, PlaceOrder):
            order.state, order.reason = OrderState.UNKNOWN, f"trade {fill.trade_id} was taken back"
        self._settle(order)
        self.ledger.post(reversal(entry(OrderFilled(fill), order.plan)))
        parent = self.parents.get(order.plan.intent_id)
        if parent is not None:
            parent.count(fill, -1)
            self._reopen(order)

    def _reorged(self, event: OrderReorged) -> None:
        """The block of a transaction is gone: its fills and gas are taken back, and the order is in doubt again."""
        order = self.orders[event.order_id]
        for fill in [fill for fill in order.fills if fill.tx_hash == event.tx_hash]:
            self._reverse(fill.key)
        paid = order.gas_paid.pop(event.tx_hash, None)
        if paid is not None:
            self.gas_seen.discard(event.tx_hash)
            bill = GasPaid(order.order_id, order.plan.account, paid, 0, event.tx_hash)
            self.ledger.post(reversal(entry(bill, order.plan)))
        order.block, order.block_hash, order.reason = 0, "", f"block {event.block} was taken back by a reorganisation"
        order.state = OrderState.UNKNOWN
        self._settle(order)
        self._reopen(order)

    def _reopen(self, order: Order) -> None:
        """A parent that had ended is worked again, until this order has settled once more."""
        parent = self.parents.get(order.plan.intent_id)
        if parent is not None and not parent.is_live:
            parent.status, parent.reason, parent.ended_ns, parent.departure = LIVE, "", 0, None
            self.live[parent.intent.intent_id] = parent

    def _gas(self, event: GasPaid) -> None:
        order = self.orders.get(event.order_id)
        if order is None or event.tx_hash in self.gas_seen:
            return
        self.gas_seen.add(event.tx_hash)
        order.gas_paid[event.tx_hash] = event.amount
        self.ledger.post(entry(event, order.plan))

    def _restart(self) -> None:
        """After a crash nobody knows whether a SENT order left; an order that was only APPROVED never did."""
        for order in list(self.working.values()):
            order.heard_ns = order.heard_ns or self.now_ns  # how long an answer took cannot be known any more
            if order.state is OrderState.SENT:
                order.reason = "the agent restarted before an answer came"
                self._move(order, OrderState.UNKNOWN)
            elif order.state is OrderState.APPROVED:
                order.reason = f"{NEVER_SENT}: the agent stopped first"
                self._move(order, OrderState.CANCELLED)


def _base_open(order: Order, intent: Intent) -> Amount:
    """What an unsettled child may still trade of its parent's base, in the parent's asset, rounded up."""
    asset, plan = intent.quantity.asset, order.plan
    if not isinstance(plan, PlaceOrder | SwapBatch):
        return zero(asset)
    base = plan.sell.asset if intent.side == "sell" else plan.buy.asset
    return rescale_up(Amount(order.may_trade, base), asset)
