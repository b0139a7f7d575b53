"""An exchange as it really is, whatever its replies say: a small matching book, our orders and trades, and what it will still tell.

Everything it holds is plain data (`orders`), driven by the world's time alone: `advance` lets pass what was due. It never fails by
itself; what goes wrong on the way to it is the business of the line (`exchange_line`), and what it does of its own accord
(cancel, amend, bust, go down) is asked of it by the weather.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.domain.amount import Amount, decode_hook, encode_hook
from agent.domain.events import FillReversed, OrderAmended, OrderFilled, OrderReported, VenueStatus
from agent.domain.instrument import Side
from agent.domain.order import ENDED, Fill, OrderState
from agent.simulation.drill.clock import SECOND, Listener, dice
from agent.simulation.drill.market import (
    LOT,
    PRICE_TICKS,
    base_amount,
    base_of,
    book_of,
    quote_amount,
    quote_of,
)
from agent.simulation.drill.orders import DEPTH_LOTS, LEVELS, Due, ExchangeLedger, Placed, RefusedError, Request, Told, Trade

TICK_NS = SECOND // 2
WINDOW_NS = 5 * SECOND  # a request older than this is refused
WANDER_TICKS = 400  # how far the price strays from where it began
FEE_PIPS = 1_000
HAND = "hand-"  # how the ids of orders begin that a person placed beside the agent


class Exchange:
    """Owns the ledger. `listeners` are called after every change: to wake a stream, to write the ledger down."""

    def __init__(self, ledger: ExchangeLedger) -> None:
        self.ledger = ledger
        self.listeners: list[Listener] = []

    @classmethod
    def open(cls, venue: str, seed: int) -> "Exchange":
        return cls(ExchangeLedger(venue, dice(seed, venue)))

    @classmethod
    def load(cls, saved: bytes) -> "Exchange":
        return cls(msgspec.json.decode(saved, type=ExchangeLedger, dec_hook=decode_hook))

    def dump(self) -> bytes:
        return msgspec.json.encode(self.ledger, enc_hook=encode_hook)

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Let happen what was due by `now_ns`: requests that arrive late, trades, the wandering price, the dead man's switch."""
        book = self.ledger
        while True:
            tick_ns = (book.now_ns // TICK_NS + 1) * TICK_NS
            due = min(book.under_way, key=lambda one: one.at_ns, default=None)
            at_ns = min(tick_ns, due.at_ns if due else tick_ns)
            if at_ns > now_ns:
                break
            book.now_ns = max(at_ns, book.now_ns)
            if due is not None and due.at_ns <= at_ns:
                book.under_way.remove(due)
                self._happen(due)
            else:
                self._tick()
        book.now_ns = max(book.now_ns, now_ns)

    def _happen(self, due: Due) -> None:
        if due.request is None:
            self._trade_late(due)
            return
        try:
            self._execute(due.request)
        except RefusedError as refusal:
            self.ledger.refused[due.request.client_id] = str(refusal)

    def _tick(self) -> None:
        book = self.ledger
        book.seq += 1
        book.bid += book.dice.between(-3, 3)
        book.bid = max(PRICE_TICKS - WANDER_TICKS, min(PRICE_TICKS + WANDER_TICKS, book.bid))
        book.bid_lots = [DEPTH_LOTS] * LEVELS
        book.ask_lots = [DEPTH_LOTS] * LEVELS
        if book.dead_man_ns and book.now_ns >= book.dead_man_ns:
            book.dead_man_ns = 0
            self.cancel_all("the dead man's switch fired")
        for order in [one for one in book.orders.values() if one.open_lots]:
            if self._is_crossed(order):  # the price walked through it
                self._fill(order, order.ticks, order.open_lots)
            elif book.dice.between(0, 99) < book.appetite:
                self._fill(order, order.ticks, min(order.open_lots, book.dice.between(1, 15_000)))
        self._changed()

    def _is_crossed(self, order: Placed) -> bool:
        return order.ticks <= self.ledger.bid if order.side == "sell" else order.ticks > self.ledger.bid

    # -- requests ----------------------------------------------------------------------------------------------------

    def arrive(self, request: Request, now_ns: int) -> list[Told]:
        """A request is here: what the reply says. Raises RefusedError for a no."""
        self.advance(now_ns)
        count = len(self.ledger.events)
        try:
            self._execute(request)
        except RefusedError as refusal:
            if refusal.code != "-2012":
                self.ledger.refused[request.client_id] = str(refusal)
            raise
        finally:
            self._changed()
        return self.ledger.events[count:]

    def depart(self, request: Request, now_ns: int, after_ns: int) -> None:
        """A request is on its way and arrives `after_ns` from now, when nobody waits for its reply any more."""
        self.advance(now_ns)
        self.ledger.under_way.append(Due(now_ns + after_ns, request))
        self._changed()

    def note(self, client_id: str, until_ns: int) -> None:
        """A client begins to send: until then it may arrive, afterwards it cannot."""
        self.ledger.departed[client_id] = until_ns
        self._changed()

    def may_arrive(self, client_id: str, now_ns: int) -> bool:
        """Whether a request of that id may still be on its way. False too for one that never left, or was refused."""
        if any(one.request and one.request.client_id == client_id for one in self.ledger.under_way):
            return True
        return client_id in self.ledger.departed and now_ns <= self.ledger.departed[client_id]

    def arm(self, countdown_s: int, now_ns: int) -> None:
        self.advance(now_ns)
        self.ledger.dead_man_ns = now_ns + countdown_s * SECOND if countdown_s else 0
        self._changed()

    def _execute(self, request: Request) -> None:
        book = self.ledger
        if abs(book.now_ns - request.sent_ns) > WINDOW_NS:
            raise RefusedError("-1021", "Timestamp for this request is outside of the recvWindow.")
        if request.action in ("cancel", "replace"):
            self._cancel(request.target_id)
        if request.action in ("place", "replace"):
            self._place(request)

    def _cancel(self, client_id: str) -> None:
        order = self.ledger.orders.get(client_id)
        if order is None or order.state in ENDED:
            raise RefusedError("-2011", "Unknown order sent.")
        self._end(order, OrderState.CANCELLED, "")

    def _place(self, request: Request) -> None:
        book = self.ledger
        if request.client_id in book.orders:
            raise RefusedError("-2012", "Duplicate order sent.")
        book.arrivals.append(request.client_id)
        if book.status == "CANCEL_ONLY":
            raise RefusedError("-1013", "This market takes cancels alone now.")
        needed = request.lots * LOT if request.side == "sell" else quote_amount(book.venue, request.ticks, request.lots).units
        if needed > self.free(request.side):
            raise RefusedError("-2010", "Account has insufficient balance for requested action.")
        book.number += 1
        order = Placed(request.client_id, book.number, request.side, request.ticks, request.lots, OrderState.OPEN, book.now_ns)
        if request.time_in_force == "POST" and self._takes(order):
            raise RefusedError("-2010", "Order would immediately match and take.")
        if request.time_in_force == "FOK" and self._takes(order) < order.lots:
            raise RefusedError("-2010", "The order cannot be filled at once.")
        book.orders[order.client_id] = order
        self._tell(order)
        if book.dice.between(0, 99) < book.haste:
            self._run_ahead(order)
        self._match(order)
        if order.open_lots and request.time_in_force == "IOC":
            self._end(order, OrderState.EXPIRED, "")

    def _run_ahead(self, order: Placed) -> None:
        """Somebody was faster: most of what the book showed is gone, and often the price with it, so that an order rests."""
        book = self.ledger
        book.bid_lots = [lots * book.dice.between(0, 4) // 100 for lots in book.bid_lots]
        book.ask_lots = [lots * book.dice.between(0, 4) // 100 for lots in book.ask_lots]
        beyond = order.ticks - 1 - book.dice.between(0, 9) if order.side == "sell" else order.ticks + book.dice.between(0, 9)
        if abs(beyond - book.bid) <= WANDER_TICKS // 4:
            book.bid = beyond

    def free(self, side: Side) -> int:
        """What is neither traded nor locked by orders that rest, in units of what that side gives."""
        open_orders = [one for one in self.ledger.orders.values() if one.open_lots and one.side == side]
        if side == "sell":
            return self.ledger.base - sum(one.open_lots * LOT for one in open_orders)
        return self.ledger.quote - sum(quote_amount(self.ledger.venue, one.ticks, one.open_lots).units for one in open_orders)

    # -- matching ------------------------------------------------------------------------------------------------------

    def levels(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """The book that everybody sees, best first: (bids, asks). Our own resting orders are in it."""
        book = self.ledger
        bids = {book.bid - i: lots for i, lots in enumerate(book.bid_lots) if lots}
        asks = {book.bid + 1 + i: lots for i, lots in enumerate(book.ask_lots) if lots}
        for order in book.orders.values():
            if order.open_lots:
                side = asks if order.side == "sell" else bids
                side[order.ticks] = side.get(order.ticks, 0) + order.open_lots
        return tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items()))

    def _takes(self, order: Placed) -> int:
        """Lots that it would take at once."""
        bids, asks = self.levels()
        if order.side == "sell":
            return min(sum(lots for ticks, lots in bids if ticks >= order.ticks), order.lots)
        return min(sum(lots for ticks, lots in asks if ticks <= order.ticks), order.lots)

    def _match(self, order: Placed) -> None:
        """Take from the other side, best price first; at one price orders that rest come before the background."""
        bids, asks = self.levels()
        for ticks, _ in bids if order.side == "sell" else asks:
            if not order.open_lots or (ticks < order.ticks if order.side == "sell" else ticks > order.ticks):
                break
            for other in [
                one for one in self.ledger.orders.values() if one.open_lots and one.ticks == ticks and one.side != order.side
            ]:
                lots = min(order.open_lots, other.open_lots)
                if lots:
                    number = self._fill(other, ticks, lots)
                    self._fill(order, ticks, lots, number)
            lots = min(order.open_lots, self._background(order.side, ticks))
            if lots:
                self._use_up(order.side, ticks, lots)
                self._fill(order, ticks, lots)

    def _background(self, side: Side, ticks: int) -> int:
        index = self.ledger.bid - ticks if side == "sell" else ticks - self.ledger.bid - 1
        found = self.ledger.bid_lots if side == "sell" else self.ledger.ask_lots
        return found[index] if 0 <= index < LEVELS else 0

    def _use_up(self, side: Side, ticks: int, lots: int) -> None:
        if side == "sell":
            self.ledger.bid_lots[self.ledger.bid - ticks] -= lots
        else:
            self.ledger.ask_lots[ticks - self.ledger.bid - 1] -= lots

    def _fill(self, order: Placed, ticks: int, lots: int, number: int = 0) -> int:
        """A trade of so many lots; its number. Both sides of a trade with oneself have the same number."""
        book = self.ledger
        if not number:
            book.number += 1
            number = book.number
        base, quote = base_amount(book.venue, lots), quote_amount(book.venue, ticks, lots)
        paid, received = (base, quote) if order.side == "sell" else (quote, base)
        fee = Amount(-(-received.units * FEE_PIPS // 10**6), received.asset)
        fill = Fill(order.client_id, book.venue, book_of(book.venue).id, f"t{number}", paid, received, fee, book.now_ns)
        book.trades[f"{number}|{order.client_id}"] = Trade(fill, lots)
        self._move(fill, 1)
        order.filled += lots
        book.events.append(OrderFilled(fill))
        if order.filled >= order.lots:
            order.state = OrderState.FILLED
        if order.state is not OrderState.OPEN:
            self._tell(order)
        return number

    def _move(self, fill: Fill, sign: int) -> None:
        for units, asset in ((-fill.paid.units, fill.paid.asset), (fill.received.units - fill.fee.units, fill.received.asset)):
            if asset == base_of(self.ledger.venue):
                self.ledger.base += sign * units
            elif asset == quote_of(self.ledger.venue):
                self.ledger.quote += sign * units

    def _end(self, order: Placed, state: OrderState, reason: str) -> None:
        order.state = state
        self._tell(order, reason)

    def _tell(self, order: Placed, reason: str = "") -> None:
        self.ledger.events.append(self.report(order, reason))

    def report(self, order: Placed, reason: str = "") -> OrderReported:
        """What the exchange says of an order now, with its own sum of what was traded."""
        told = base_amount(self.ledger.venue, order.filled)
        return OrderReported(order.client_id, order.state, reason, f"v{order.number}", 0, told)

    def fills(self, client_id: str) -> list[Fill]:
        return [one.fill for one in self.ledger.trades.values() if one.fill.order_id == client_id and not one.is_busted]

    def busts(self) -> list[FillReversed]:
        """Every trade that was taken back: said again with every answer, because it matters more than anything else."""
        return [FillReversed(one.fill.order_id, one.fill.key, "busted") for one in self.ledger.trades.values() if one.is_busted]

    def _changed(self) -> None:
        for listener in self.listeners:
            listener()

    # -- of its own accord ---------------------------------------------------------------------------------------------

    def resting(self) -> list[Placed]:
        return [one for one in self.ledger.orders.values() if one.open_lots]

    def cancel_all(self, reason: str) -> int:
        """Cancel everything that rests; how many orders."""
        found = self.resting()
        for order in found:
            self._end(order, OrderState.CANCELLED, reason)
            self.ledger.taken_back.append(order.client_id)
        self._changed()
        return len(found)

    def take_back(self, order: Placed) -> None:
        """Cancel one order that rests."""
        self._end(order, OrderState.CANCELLED, "")
        self._changed()

    def amend(self, order: Placed, lots: int) -> None:
        """Cut an order that rests to `lots`, never below what was traded."""
        order.lots = max(lots, order.filled + 1)
        order.version += 1
        self.ledger.taken_back.append(order.client_id)
        size = base_amount(self.ledger.venue, order.lots)
        self.ledger.events.append(OrderAmended(order.client_id, size, order.version, "decremented"))
        self._changed()

    def amendment(self, order: Placed) -> Sequence[OrderAmended]:
        if not order.version:
            return ()
        return (OrderAmended(order.client_id, base_amount(self.ledger.venue, order.lots), order.version, "decremented"),)

    def bust(self, trade: Trade) -> None:
        """Take a trade back: the coins return, and an order that was complete is not any more."""
        trade.is_busted = True
        self._move(trade.fill, -1)
        order = self.ledger.orders[trade.fill.order_id]
        order.filled -= trade.lots
        if order.state is OrderState.FILLED:
            order.state = OrderState.CANCELLED
        self.ledger.events.append(FillReversed(order.client_id, trade.fill.key, "busted"))
        self._changed()

    def trade_after_end(self, order: Placed, lots: int, after_ns: int) -> None:
        """An order that is being cancelled trades all the same, and that is told later."""
        self.ledger.under_way.append(Due(self.ledger.now_ns + after_ns, None, order.client_id, lots))
        self._changed()

    def _trade_late(self, due: Due) -> None:
        order = self.ledger.orders[due.late_id]
        lots = min(due.late_lots, order.lots - order.filled)
        if lots > 0 and order.state is OrderState.CANCELLED:
            self.ledger.late_ids.append(order.client_id)
            self._fill(order, order.ticks, lots)
        self._changed()

    def by_hand(self, side: Side, ticks: int, lots: int) -> bool:
        """A person places an order beside the agent; whether it was accepted."""
        book = self.ledger
        try:
            self._execute(Request("place", f"{HAND}{book.venue}-{book.number + 1}", book.now_ns, side, ticks, lots))
        except RefusedError:
            return False
        self._changed()
        return True

    def overfill(self, order: Placed, lots: int) -> None:
        """The exchange lets an order trade more than was ordered, which it should never do."""
        self._fill(order, order.ticks, lots)
        self._changed()

    def deposit(self, base: int, quote: int) -> None:
        self.ledger.base += base
        self.ledger.quote += quote
        self._changed()

    def set_status(self, status: Literal["TRADING", "CANCEL_ONLY"], reason: str) -> None:
        self.ledger.status = status
        self.ledger.events.append(VenueStatus(self.ledger.venue, status, reason))
        self._changed()

    def go(self, *, down: bool) -> None:
        self.ledger.is_down = down
        self._changed()
