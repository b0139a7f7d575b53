"""The laws that hold at every moment of a day, whatever the weather. They are all that a day is judged by, and each has a name.

The journal is held against the truth of the venues, which the agent itself never sees.
"""

from collections.abc import Sequence

import msgspec

from agent.domain.amount import rescale_up
from agent.domain.errors import JournalError
from agent.domain.events import Event, FillReversed, OrderReorged, OrderSent
from agent.domain.order import ENDED, IN_DOUBT, Order, OrderState
from agent.domain.plan import CancelOrder, PlaceOrder, Signed, SignedTransaction, SwapBatch
from agent.engine.state import State
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.clock import world_ns
from agent.simulation.drill.exchange import HAND, Exchange
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import AMM, LOT, quote_amount
from agent.simulation.drill.orders import Placed
from agent.simulation.drill.play import PlayJournal, PlayLatch

LAWS = {
    "sums-to-zero": "postings sum to zero for every asset",
    "durable-first": "nothing leaves before its OrderSent is durable",
    "sent-once": "no order is sent twice; a transaction again only as the same bytes, or as an approved attempt for its number",
    "halted": "nothing that adds risk is sent while halted, killed, or where only cancels are taken",
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
        self._sent: dict[str, int] = {}  # order id or transaction hash -> the record that says so
        self._named: set[tuple[str, str]] = set()
        self._moment = (0, 0)  # (when, records since)

    def begin(self, state: State, journal: PlayJournal) -> None:
        """A new life of the agent, with what is left of its journal: what was not written never happened."""
        self.state, self.journal = state, journal
        self._sent = {name: seq for name, seq in self._sent.items() if seq <= journal.head[0]}

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
            raise JournalError("a flood of records; the drill ends it")
        self.steady()
        for offset, event in enumerate(events, 1):
            match event:
                case OrderSent():
                    self._sending(event, offset)
                case FillReversed(order_id=order_id) | OrderReorged(order_id=order_id):
                    order = self.state.orders.get(order_id)
                    if order is not None and order.is_final:
                        self.broken("final", f"{order_id} was final, and is taken back")
                case _:
                    pass

    def _sending(self, event: OrderSent, offset: int) -> None:
        name, order = event.tx_hash or event.order_id, self.state.orders.get(event.order_id)
        if name in self._sent or order is None:
            self.broken("sent-once", f"{event.order_id} is recorded as sent again")
        assert self.journal is not None, "a day begins before it records"
        self._sent[name] = self.journal.head[0] + offset
        if order is None or event.attempt or isinstance(order.plan, CancelOrder):
            return
        instrument = order.plan.instrument if isinstance(order.plan, PlaceOrder) else ""
        venue = order.plan.venue
        if why := self.state.halt_of(venue, instrument) or self.latch.engaged():
            self.broken("halted", f"{event.order_id} is sent while halted: {why}")
        if venue in self.state.status:
            self.broken("halted", f"{event.order_id} is sent while {venue} takes cancels alone")

    def leaving(self, signed: Signed) -> None:
        """A send begins: the first byte is about to leave."""
        name = signed.tx_hash if isinstance(signed, SignedTransaction) else signed.order_id
        order = self.state.orders.get(signed.order_id)
        assert self.journal is not None, "a day begins before it sends"
        if self._sent.get(name, 1 << 62) > self.journal.safe_seq:
            self.broken("durable-first", f"{signed.order_id} leaves before its record is safe")
        if order is None or isinstance(order.plan, CancelOrder):
            return
        if self.latch.engaged() and name == signed.order_id:
            self.broken("halted", f"{signed.order_id} leaves although the kill switch is pulled")

    # -- at every moment -----------------------------------------------------------------------------------------------

    def steady(self) -> None:
        """What is true at any time. Cheap: what has ended is not looked at again."""
        state = self.state
        for total in state.ledger.trial():
            if total:
                self.broken("sums-to-zero", f"the books are off by {total}")
        for parent in state.live.values():
            if parent.filled > parent.intent.quantity and not self._is_late():
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
            has_bust = any(one.is_busted for one in exchange.ledger.trades.values() if one.fill.order_id == placed.client_id)
            if not has_bust and _worst(order) < _taken(exchange, placed):
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

    def _is_late(self) -> bool:
        """Whether something traded that nobody could foresee when the rest was traded elsewhere."""
        while self.weather.struck.get("revived", 0) < len(self.chain.ledger.revived):
            self.weather.count("revived")
        return bool({"late-fill", "overfill", "bust", "by-hand", "revived"} & self.weather.struck.keys())

    # -- at the end ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """All is quiet: the journal says what the venues say."""
        for parent in self.state.parents.values():
            if parent.filled > parent.intent.quantity and not self._is_late():
                self.broken("parent-overfilled", f"{parent.intent.intent_id} traded {parent.filled} of {parent.intent.quantity}")
            paid = [one for name in parent.orders for one in self.state.orders[name].fills]
            base = [one.paid if parent.intent.side == "sell" else one.received for one in paid]
            if sum(rescale_up(one, parent.filled.asset).units for one in base) != parent.filled.units:
                self.broken("parent-overfilled", f"{parent.intent.intent_id} does not count what its orders traded")
        for order in self.state.orders.values():
            if not order.is_settled or order.state in IN_DOUBT:
                self.broken("live", f"{order.order_id} is still {order.state}")
        for exchange in self.exchanges:
            self._exchange_end(exchange)
        self._chain_end()
        for blunder in self.chain.ledger.blunders:
            self.broken("wallet", blunder)

    def _exchange_end(self, exchange: Exchange) -> None:
        book, orders = exchange.ledger, self.state.orders
        for name in {one for one in book.arrivals if book.arrivals.count(one) > 1}:
            self.broken("sent-once", f"{name} reached {book.venue} twice")
        for name in book.arrivals:
            if name not in orders and not name.startswith(HAND):
                self.broken("durable-first", f"{name} reached {book.venue}, and the journal does not know it")
        theirs = {one.fill.key for one in book.trades.values() if not one.is_busted and one.fill.order_id in orders}
        ours = {key for key, fill in self.state.fills.items() if fill.venue == book.venue}
        for key in sorted(theirs ^ ours):
            if f"|{HAND}" not in key:  # what traded before it was claimed, a person has explained
                self.broken("fills", f"{key} is {'not booked' if key in theirs else 'booked and no trade'}")
        for name, placed in book.orders.items():
            order = orders.get(name)
            if order is not None and order.state is not placed.state:
                self.broken("states", f"{name} is {order.state} here and {placed.state} at {book.venue}")
        for order in orders.values():
            never = order.plan.venue == book.venue and isinstance(order.plan, PlaceOrder) and order.order_id not in book.orders
            if never and order.state not in (OrderState.REJECTED, OrderState.CANCELLED):
                self.broken("states", f"{order.order_id} is {order.state} here and never was at {book.venue}")

    def _chain_end(self) -> None:
        receipts = {one.tx.hash: one for block in self.chain.ledger.blocks for one in block.receipts}
        theirs = {fill.key for one in receipts.values() for fill in one.fills}
        ours = {key for key, fill in self.state.fills.items() if fill.venue == AMM}
        for key in sorted(theirs ^ ours):
            self.broken("fills", f"{key[:90]} is {'not booked' if key in theirs else 'booked and in no block'}")
        for receipt in receipts.values():
            order = self.state.orders.get(receipt.tx.body.order_id)
            if order is not None and receipt.tx.hash not in order.gas_paid:
                self.broken("fills", f"{order.order_id}: its gas is not booked")
            if order is not None and bool(receipt.trouble) != (order.state is OrderState.REVERTED):
                self.broken("states", f"{order.order_id} is {order.state} here; in its block: {receipt.trouble or 'done'}")


def _worst(order: Order) -> int:
    """What an order took and may still take, by the journal, in units of what it sells."""
    return sum(fill.paid.units for fill in order.fills) + order.may_take


def _taken(exchange: Exchange, placed: Placed) -> int:
    """The same by the exchange."""
    paid = sum(fill.paid.units for fill in exchange.fills(placed.client_id))
    if placed.side == "sell":
        return paid + placed.open_lots * LOT
    return paid + quote_amount(exchange.ledger.venue, placed.ticks, placed.open_lots).units
