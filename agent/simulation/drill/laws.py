"""The laws that hold at every moment of a day, whatever the weather. They are all that a day is judged by, and each has a name.

The journal is held against the truth of the venues, which the agent itself never sees.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.amount import decode_hook
from agent.domain.errors import JournalError
from agent.domain.events import (
    Event,
    FillReversed,
    Halted,
    IntentAccepted,
    OrderApproved,
    OrderFilled,
    OrderReorged,
    OrderReported,
    OrderSent,
    Resumed,
)
from agent.domain.order import ENDED, RESTING, Fill, Order, OrderState
from agent.domain.plan import CancelOrder, CancelTransaction, PlaceOrder, Plan, Signed, SignedTransaction, SwapBatch
from agent.domain.price import price_of, worse_by
from agent.engine.state import EVERYWHERE, State
from agent.simulation.drill.blocks import Body, hash_of
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.chain_line import ChainLine
from agent.simulation.drill.clock import WarpClock, world_ns
from agent.simulation.drill.exchange import HAND, Exchange
from agent.simulation.drill.exchange_line import ExchangeLine
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import LOT, quote_amount
from agent.simulation.drill.orders import Placed
from agent.simulation.drill.play import PlayJournal, PlayLatch

LAWS = {
    "sums-to-zero": "postings sum to zero for every asset",
    "durable-first": "nothing leaves before its OrderSent is durable",
    "sent-once": "no order is sent twice; a transaction again only as the same bytes, or as an approved attempt for its number",
    "halted": "nothing that adds risk is sent while halted, killed, or where only cancels are taken",
    "unwanted": "nothing is sent for a parent that was cancelled, or whose deadline has passed",
    "in-step": "after a connect a venue is asked what it knows before anything new is approved for it",
    "limit": "no order may trade worse than its parent's limit",
    "excess": "more than was ordered halts the instrument until a person has looked",
    "strangers": "what somebody else does with the wallet's key is noticed",
    "ladder": "what has ended does not rest again, unless a trade or a block is taken back",
    "order-overfilled": "an order never has more fills than it ordered",
    "parent-overfilled": "all children of a parent together never trade more than it asked for",
    "below-truth": "what an order can still take is never reserved for less than the venue could take",
    "beyond-balance": "what may still leave an account is never more than is there",
    "final": "what is final is never taken back",
    "wallet": "no gap and no clash of numbers, no permit used twice, no replacement that pays too little",
    "replay": "the journal, read again, gives the same state",
    "acked": "what the client was told is accepted is in the journal after every restart",
    "fills": "the journal's trades are the venue's trades, each once",
    "states": "orders ended in the journal as they ended outside",
    "balances": "the journal's balances are the venue's balances",
    "breaks": "nothing is left that nobody can explain",
    "halt": "trading is halted only for something that a person must look at",
    "live": "when the faults are over every order ends, and nobody stays in doubt",
    "nonsense": "a wish that makes no sense is refused",
    "flood": "nothing is recorded over and over without time passing",
    "alive": "the agent ends only when it is killed, stopped, or cannot write",
}


FLOOD = 500  # records in one moment
Line = ExchangeLine | ChainLine


class Violation(msgspec.Struct, frozen=True):
    """A broken law. `seq` is the journal's last record then."""

    law: str
    text: str
    seq: int


class Laws:
    """Owns what was found, over all lives of a day."""

    def __init__(self, exchanges: Sequence[Exchange], chain: Chain, weather: Weather, latch: PlayLatch) -> None:
        self.exchanges, self.chain, self.weather, self.latch = exchanges, chain, weather, latch
        self.found: list[Violation] = []
        self.state = State()
        self.journal: PlayJournal | None = None
        self.clock = WarpClock()
        self.lines: Mapping[str, Line] = {}
        self._sent: dict[str, int] = {}  # order id or transaction hash -> the record that says so
        self._left: set[str] = set()  # those of them whose bytes began to leave
        self._born_seq = 0  # the last record that this life found
        self._noted: list[tuple[int, Halted | Resumed | OrderFilled]] = []  # what halts, lifts, and must halt, by record
        self._touched: set[str] = set()  # orders that the newest records were about
        self._stood: dict[str, OrderState] = {}  # where orders stood before
        self._named: set[tuple[str, str]] = set()
        self._moment = (0, 0)  # (when, records since)
        self.is_over = False  # nothing more is to be learnt from this day

    def begin(self, state: State, journal: PlayJournal, clock: WarpClock, lines: Mapping[str, Line]) -> None:
        """A new life of the agent, with what is left of its journal: what was not written never happened."""
        self.state, self.journal, self.clock, self.lines = state, journal, clock, lines
        self._sent = {name: seq for name, seq in self._sent.items() if seq <= journal.head[0]}
        self._noted = [(seq, event) for seq, event in self._noted if seq <= journal.head[0]]
        self._stood, self._touched, self._born_seq = {}, set(), journal.head[0]

    def broken(self, law: str, text: str) -> None:
        """Note it, each kind of it once for each order."""
        if (law, text[:40]) not in self._named and len(self.found) < 20:
            self._named.add((law, text[:40]))
            self.found.append(Violation(law, text, self.journal.head[0] if self.journal else 0))

    # -- at every record -----------------------------------------------------------------------------------------------

    def before(self, events: Sequence[Event]) -> None:
        """What is about to be written, held against the state until now. Raises JournalError when it never ends."""
        now_ns, count = world_ns(), self._moment[1]
        self._moment = now_ns, count + len(events) if now_ns == self._moment[0] else 0
        if self._moment[1] > FLOOD:
            self.broken("flood", f"{FLOOD} records in one moment, the last a {type(events[-1]).__name__}")
            self.is_over = True
            raise JournalError("a flood of records; the drill ends it")
        self.steady()
        self._steps()
        for offset, event in enumerate(events, 1):
            if isinstance(event, OrderReported | OrderFilled):
                self._touched.add(event.order_id if isinstance(event, OrderReported) else event.fill.order_id)
            match event:
                case OrderApproved(approved=approved):
                    self._approving(approved.plan)
                case IntentAccepted(intent=intent) if intent.intent_id in self.state.parents:
                    self.broken("nonsense", f"{intent.intent_id} is known already, and was accepted again")
                case OrderSent():
                    self._sending(event, offset, _plan_of(event.order_id, events[: offset - 1], self.state))
                case Halted() | Resumed():
                    self._note(event, offset)
                case OrderFilled(fill=fill) if self._exceeds(fill):
                    self._note(event, offset)
                    if not self.weather.struck.get("overfill") and not self._has_bust(fill.order_id):
                        self.broken("order-overfilled", f"{fill.order_id} is booked with more than was ordered, by {fill.trade_id}")
                case FillReversed(order_id=order_id) | OrderReorged(order_id=order_id):
                    self._stood.pop(order_id, None)
                    order = self.state.orders.get(order_id)
                    if order is not None and order.is_final:
                        self.broken("final", f"{order_id} was final, and is taken back")
                case _:
                    pass

    def _steps(self) -> None:
        """Where the newest records have led their orders."""
        for name in sorted(self._touched & self.state.orders.keys()):
            before, state = self._stood.get(name, OrderState.SENT), self.state.orders[name].state
            if before in ENDED and state in (*RESTING, OrderState.SENT, OrderState.APPROVED):
                self.broken("ladder", f"{name} was {before}, and is {state}")
            self._stood[name] = state
        self._touched.clear()

    def _note(self, event: Halted | Resumed | OrderFilled, offset: int) -> None:
        assert self.journal is not None, "a day begins before it records"
        self._noted.append((self.journal.head[0] + offset, event))

    def halts(self) -> tuple[dict[str, str], set[str]]:
        """(what is halted, by scope; instruments that traded too much and never were), by the records alone."""
        halted, loose = dict[str, str](), set[str]()
        for _, event in self._noted:
            if isinstance(event, Halted):
                halted[event.scope] = event.reason
                loose.discard(event.scope)
            elif isinstance(event, Resumed):
                halted.pop(event.scope, None)
            elif event.fill.instrument not in halted:
                loose.add(event.fill.instrument)
        return halted, loose

    def _exceeds(self, fill: Fill) -> bool:
        """Whether this fill makes its order trade more than was ordered."""
        order = self.state.orders.get(fill.order_id)
        if order is None or not isinstance(order.plan, PlaceOrder | SwapBatch):
            return False
        paid = sum(one.paid.units for one in (*order.fills, fill))
        received = sum(one.received.units for one in (*order.fills, fill))
        return paid > order.plan.sell.units or (order.plan.side == "buy" and received > order.plan.buy.units)

    def _has_bust(self, order_id: str) -> bool:
        """Whether a trade of this order was taken back: what replaced it may be told first."""
        trades = (one for exchange in self.exchanges for one in exchange.ledger.trades.values())
        return any(one.is_busted and one.fill.order_id == order_id for one in trades)

    def _approving(self, plan: Plan) -> None:
        line, parent = self.lines[plan.venue], self.state.parents.get(plan.intent_id)
        if not isinstance(plan, CancelOrder) and not line.is_in_step:
            self.broken("in-step", f"{plan.order_id} is approved, and {plan.venue} was not asked since it is connected")
        if not isinstance(plan, PlaceOrder | SwapBatch) or parent is None:
            return
        is_sale = plan.side == "sell"
        quote, base = (plan.buy, plan.sell) if is_sale else (plan.sell, plan.buy)
        price, limit = price_of(quote, base), worse_by(parent.arrival, parent.intent.slippage_bps_max, selling=is_sale)
        if price < limit if is_sale else price > limit:
            self.broken("limit", f"{plan.order_id} may trade at {price}, its parent's limit is {limit}")

    def _sending(self, event: OrderSent, offset: int, plan: Plan | None) -> None:
        name = event.tx_hash or event.order_id
        if name in self._sent or plan is None:
            self.broken("sent-once", f"{event.order_id} is recorded as sent again")
        assert self.journal is not None, "a day begins before it records"
        self._sent[name] = self.journal.head[0] + offset
        if plan is None or event.attempt or isinstance(plan, CancelOrder):
            return
        instrument = plan.instrument if isinstance(plan, PlaceOrder) else ""
        venue, (halted, loose) = plan.venue, self.halts()
        scopes = sorted(halted.keys() & {*EVERYWHERE, venue, instrument})
        if why := halted[scopes[0]] if scopes else self.latch.engaged():
            self.broken("halted", f"{event.order_id} is sent while halted: {why}")
        if venue in self.state.status:
            self.broken("halted", f"{event.order_id} is sent while {venue} takes cancels alone")
        if instrument in loose:
            self.broken("excess", f"{event.order_id} is sent although {instrument} traded too much, and nobody looked")

    def leaving(self, signed: Signed) -> None:
        """A send begins: the first byte is about to leave."""
        is_transaction = isinstance(signed, SignedTransaction)
        name = hash_of(signed.raw) if isinstance(signed, SignedTransaction) else signed.order_id
        order = self.state.orders.get(signed.order_id)
        assert self.journal is not None, "a day begins before it sends"
        if self._sent.get(name, 1 << 62) > self.journal.safe_seq:
            self.broken("durable-first", f"{signed.order_id} leaves before its record is safe")
        is_repeat = name in self._left
        self._left.add(name)
        was_sent = is_repeat or self._sent.get(name, 1 << 62) <= self._born_seq  # an earlier life may have sent it
        if was_sent and not is_transaction:
            self.broken("sent-once", f"{signed.order_id} leaves once more")
        if order is None or is_repeat or isinstance(order.plan, CancelOrder) or _takes_back(signed):
            return
        if self.latch.engaged():
            self.broken("halted", f"{signed.order_id} leaves although the kill switch is pulled")
        parent = self.state.parents.get(order.plan.intent_id)
        if parent is None or (is_transaction and name != order.attempts[0].tx_hash):
            return  # what outbids competes with what was wanted when it left
        if parent.cancelled or self.clock.now_ns() >= parent.intent.deadline_ns:
            self.broken("unwanted", f"{signed.order_id} leaves, and nobody wants it any more")

    # -- at every moment -----------------------------------------------------------------------------------------------

    def steady(self) -> None:
        """What is true at any time. Cheap: what has ended is not looked at again."""
        state = self.state
        for total in state.ledger.trial():
            if total:
                self.broken("sums-to-zero", f"the books are off by {total}")
        for parent in state.live.values():
            if parent.filled > parent.intent.quantity and not self.is_late():
                self.broken("parent-overfilled", f"{parent.intent.intent_id} traded {parent.filled} of {parent.intent.quantity}")
        for order in state.working.values():
            if order.filled > order.quantity and not self.weather.struck.get("overfill") and order.size is None:
                self.broken("order-overfilled", f"{order.order_id} traded {order.filled} of {order.quantity}")
        self._balances()
        for exchange in self.exchanges:
            self._reserved(exchange)
        self._transactions()

    def _balances(self) -> None:
        state = self.state
        if self.weather.halts:
            return  # the account is not what it was, and a person knows it
        taken: dict[tuple[str, str, str], int] = {}
        for order in state.working.values():
            plan = order.plan
            if isinstance(plan, PlaceOrder | SwapBatch):
                key = plan.account, plan.venue, plan.sell.asset.id
                taken[key] = taken.get(key, 0) + order.may_take
        for account, place, amount in state.ledger.balances() if taken else ():
            if taken.get((account, place, amount.asset.id), 0) > amount.units:
                self.broken("beyond-balance", f"{place} has {amount}, orders there may take more")

    def _reserved(self, exchange: Exchange) -> None:
        """For every order that rests or is on its way: what is booked and reserved covers what the exchange can take."""
        venue = exchange.ledger.venue
        late = set(exchange.ledger.late_ids) | {one.late_id for one in exchange.ledger.under_way}
        for placed in exchange.resting():
            order = self.state.orders.get(placed.client_id)
            if placed.client_id.startswith(HAND) or placed.client_id in late or order is None:
                continue
            if not self._has_bust(placed.client_id) and _worst(order) < _taken(exchange, placed):
                self.broken("below-truth", f"{placed.client_id} is {order.state} here and may still trade at {venue}")
        for due in exchange.ledger.under_way:
            if due.request is not None and due.request.action == "place":
                order = self.state.orders.get(due.request.client_id)
                if order is not None and (order.state in ENDED or not order.may_take):
                    self.broken("below-truth", f"{order.order_id} is {order.state} here and still on its way to {venue}")

    def _transactions(self) -> None:
        for tx in self.chain.ledger.mempool.values():
            order = self.state.orders.get(tx.body.order_id)
            if order is None or tx.body.nonce < self.chain.ledger.wallet.nonce or not isinstance(tx.body.plan, SwapBatch):
                continue
            if order.state in (OrderState.REJECTED, OrderState.REPLACED):
                self.broken("below-truth", f"{order.order_id} is {order.state} here and still waits for a block")

    def is_late(self) -> bool:
        """Whether something traded that nobody could foresee when the rest was traded elsewhere."""
        while self.weather.struck.get("revived", 0) < len(self.chain.ledger.revived):
            self.weather.count("revived")
        return bool({"late-fill", "overfill", "bust", "by-hand", "revived"} & self.weather.struck.keys())


def _takes_back(signed: Signed) -> bool:
    """Whether a transaction does nothing but to use up its number."""
    if not isinstance(signed, SignedTransaction):
        return False
    return isinstance(msgspec.json.decode(signed.raw, type=Body, dec_hook=decode_hook).plan, CancelTransaction)


def _worst(order: Order) -> int:
    """What an order took and may still take, by the journal, in units of what it sells."""
    return sum(fill.paid.units for fill in order.fills) + order.may_take


def _taken(exchange: Exchange, placed: Placed) -> int:
    """The same by the exchange."""
    paid = sum(fill.paid.units for fill in exchange.fills(placed.client_id))
    if placed.side == "sell":
        return paid + placed.open_lots * LOT
    return paid + quote_amount(exchange.ledger.venue, placed.ticks, placed.open_lots).units


def _plan_of(order_id: str, before: Sequence[Event], state: State) -> Plan | None:
    """What an order is to do, by the state or by the approval just before in the same append."""
    approved = (event.approved.plan for event in before if isinstance(event, OrderApproved))
    order = state.orders.get(order_id)
    return order.plan if order else next((plan for plan in approved if plan.order_id == order_id), None)
