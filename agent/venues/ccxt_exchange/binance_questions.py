"""Asking Binance spot what became of orders, so that the answer is certain and costs little.

An order that is in the list of open orders, with the sum that we know, is answered by the list. Only the others are asked one by
one, a few in each snapshot, those not asked for longest first; the rest has its turn in the next one. What is missing from a list
is never cancelled and never flat: it is asked by its own id, and only when two sources do not know it, after the last moment at
which it could have been accepted, was it never there.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agent import observe
from agent.domain.errors import VenueError
from agent.domain.events import FillReversed, OrderFilled, OrderReported
from agent.domain.order import ENDED, IN_DOUBT, RESTING, OrderRef, OrderState
from agent.ports import PrivateFact
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange import binance_wire as wire
from agent.venues.ccxt_exchange.client import Client, RefusedRequestError, gather
from agent.venues.ccxt_exchange.own_orders import REMEMBERED_MAX, OwnOrders, remember

MS: Final = 1_000_000
LATE_MARGIN_MS = 3_000  # beyond recvWindow: clocks differ, and an accepted order may take a moment to be listed
LIST_MAX = 1_000  # the longest list that the exchange returns; a full one proves no absence
PAGES_MAX = 100
LOOK_BACK_MS = 60_000
LAG_NS = 10_000_000_000  # the list of trades may be behind the stream for so long


class Markets(msgspec.Struct, frozen=True):
    """What an answer is read against: `context`, and the exchange's symbol by the instrument's id."""

    context: wire.Context
    symbols: Mapping[str, str]

    def symbol(self, instrument: str) -> str:
        """Raises VenueError for an instrument that is not listed."""
        try:
            return self.symbols[instrument]
        except KeyError:
            raise VenueError(f"{self.context.venue} does not list {instrument[:60]}; add it to symbols in the config") from None


class Questions:
    """Questions about orders. `markets` is set anew whenever the exchange's rules are read."""

    def __init__(self, client: Client, own: OwnOrders, markets: Markets) -> None:
        self._client, self._own, self.markets = client, own, markets
        self._api: Any = client.exchange
        self._asked_ns: OrderedDict[str, int] = OrderedDict()

    async def answer(self, asked: Sequence[OrderRef], listed: Mapping[str, rest.OrderView]) -> tuple[list[PrivateFact], bool]:
        """What is certain about the orders asked for, and whether `listed` (the open orders by our id) can be whole.

        A question that fails ends the round; what was learnt before it counts.
        """
        facts: list[PrivateFact] = []
        due: list[OrderRef] = []
        for ref in asked:
            view = listed.get(self._target(ref) or ref.order_id)
            if view is None or (view.filled_units != ref.filled and not self._target(ref)):
                due.append(ref)
            elif self._target(ref):
                facts += self._cancel_facts(ref, self._view_facts(view, self._target(ref)))
            else:
                facts += self._view_facts(view, ref.order_id)
        is_whole = True
        try:
            for turn, ref in enumerate(self._first(due)):
                if turn:
                    await self._client.clock.sleep(self._client.config.single_order_query_delay_ms / 1_000)
                found = await self.inquire(ref, listed.get(ref.order_id))
                facts += found
                is_whole = is_whole and not any(_rests_unlisted(fact, listed) for fact in found)
        except VenueError as error:
            if error.code == rest.TIME_OUTSIDE:
                raise
            observe.query_failed(self._client.name, str(error))
        return facts, is_whole

    async def inquire(self, ref: OrderRef, view: rest.OrderView | None = None) -> Sequence[PrivateFact]:
        """What is certain about one order; `view` is how the list of open orders shows it. Raises VenueError."""
        remember(self._asked_ns, ref.order_id, self._client.clock.now_ns(), REMEMBERED_MAX)
        target = self._target(ref)
        if target:
            about = msgspec.structs.replace(ref, order_id=target, sent_ns=0, venue_order_id="", filled=0)
            facts = self._cancel_facts(ref, await self._order_facts(about, None))
        else:
            facts = await self._order_facts(ref, view)
        self._own.note(facts, self._client.clock.now_ns())
        return facts

    def name(self, view: rest.OrderView) -> str:
        """Our id of an order of theirs."""
        return self._own.name(view.symbol, view.order_id, view.told_id)

    # -- private ------------------------------------------------------------------------------------------------------

    def _target(self, ref: OrderRef) -> str:
        return ref.target_id or self._own.target(ref.order_id)

    def _first(self, due: list[OrderRef]) -> list[OrderRef]:
        """Those whose turn it is: what ended comes last, then who was asked longest ago, then what is in doubt."""

        def rank(ref: OrderRef) -> tuple[bool, int, bool, int]:
            return ref.state in ENDED, self._asked_ns.get(ref.order_id, 0), ref.state not in IN_DOUBT, ref.sent_ns

        return sorted(due, key=rank)[: self._client.config.max_single_order_queries_per_cycle]

    async def _order_facts(self, ref: OrderRef, view: rest.OrderView | None) -> Sequence[PrivateFact]:
        symbol = self.markets.symbol(ref.instrument)
        view = view or await self._find(ref, symbol)
        if view is None:
            if not self.is_late(ref):
                return ()
            view = await self._search(ref, symbol)
            if view is None and ref.venue_order_id:  # acknowledged once, so a copy lags: it cannot be "never accepted"
                return ()
            if view is None:
                reason = "the exchange does not know it, and could not accept it any more"
                return (OrderReported(ref.order_id, OrderState.REJECTED, reason),)
        facts = self._view_facts(view, ref.order_id)
        if view.filled_units == ref.filled:
            return facts
        trades = await self.trades(symbol, view.order_id, ref.order_id)
        return (*trades, *self._reversed(view, ref.order_id, trades), *facts)

    def _view_facts(self, view: rest.OrderView, order_id: str) -> tuple[PrivateFact, ...]:
        context = self.markets.context
        report = rest.order_report(view, order_id, context)
        if view.state in RESTING and self._own.is_smaller(order_id, view.size_units):
            return (rest.amendment(view, order_id, context), report)
        return (report,)

    def _reversed(self, view: rest.OrderView, order_id: str, trades: Sequence[OrderFilled]) -> list[FillReversed]:
        """Trades that passed on and are gone, where the list is complete without them: the exchange took them back."""
        base = self.markets.context.instrument(view.symbol).base
        listed = [fact.fill for fact in trades]
        total = sum((fill.received if fill.received.asset == base else fill.paid).units for fill in listed)
        if total != view.filled_units:
            return []
        gone = self._own.vanished(order_id, {fill.key for fill in listed}, self._client.clock.now_ns() - LAG_NS)
        return [FillReversed(order_id, key, "the exchange does not list the trade any more") for key in gone]

    def _cancel_facts(self, ref: OrderRef, facts: Sequence[PrivateFact]) -> Sequence[PrivateFact]:
        """A cancel is judged by its target; its own id means nothing to the exchange."""
        target = self._target(ref)
        state = next((fact.state for fact in facts if isinstance(fact, OrderReported)), None)
        if state is OrderState.CANCELLED:
            return (*facts, wire.cancel_done(ref.order_id, target))
        if state in ENDED or (state is not None and self.is_late(ref)):
            return (*facts, OrderReported(ref.order_id, OrderState.REJECTED, f"{target} is {state}"))
        return facts

    def is_late(self, ref: OrderRef) -> bool:
        """Whether a request that was under way must have been accepted or refused by now."""
        sent_ns = max(ref.sent_ns, self._own.departed_ns(ref.order_id))
        patience_ms = self._client.config.recv_window_ms + LATE_MARGIN_MS
        return sent_ns > 0 and self._client.clock.now_ns() > sent_ns + patience_ms * MS

    async def trades(self, symbol: str, number: int, order_id: str) -> tuple[OrderFilled, ...]:
        """All trades of an order, page by page. Raises VenueError."""
        wanted = {"symbol": symbol, "orderId": str(number), "fromId": "0", "limit": str(LIST_MAX)}  # without fromId: the newest
        found: dict[int, OrderFilled] = {}
        for _ in range(PAGES_MAX):
            reply = await self._client.call(self._api.private_get_mytrades, wanted, weight=5)
            page = rest.read(reply, list[rest.TradeView])
            found |= {trade.id: rest.fill_of_trade(trade, order_id, self.markets.context) for trade in page}
            if len(page) < LIST_MAX:
                break
            wanted["fromId"] = str(max(found) + 1)
        return tuple(found[number] for number in sorted(found))

    async def _find(self, ref: OrderRef, symbol: str) -> rest.OrderView | None:
        name = {"orderId": ref.venue_order_id} if ref.venue_order_id else {"origClientOrderId": self._own.spelled(ref.order_id)}
        try:
            view = rest.read(
                await self._client.call(self._api.private_get_order, {"symbol": symbol} | name, weight=4), rest.OrderView
            )
        except RefusedRequestError as refusal:
            if refusal.code == rest.NOT_FOUND:
                return None
            raise
        self.name(view)
        return view

    async def _search(self, ref: OrderRef, symbol: str) -> rest.OrderView | None:
        """The second source: the lists of open and of all orders. VenueError if they are too long to prove anything."""
        sent_ns = max(ref.sent_ns, self._own.departed_ns(ref.order_id))
        since_ms = (sent_ns + self._client.budget.offset_ns) // MS - LOOK_BACK_MS
        wanted = {"symbol": symbol, "startTime": str(since_ms), "limit": str(LIST_MAX)}
        listed, resting = await gather(
            self._client.call(self._api.private_get_allorders, wanted, weight=20),
            self._client.call(self._api.private_get_openorders, {"symbol": symbol}, weight=6),
        )
        orders = rest.read(listed, list[rest.OrderView])
        found = next((one for one in (*orders, *rest.read(resting, list[rest.OrderView])) if self.name(one) == ref.order_id), None)
        if found is None and len(orders) >= LIST_MAX:
            raise VenueError(f"{self._client.name}: too many orders since {ref.order_id} was sent to say that it is not among them")
        return found


def _rests_unlisted(fact: PrivateFact, listed: Mapping[str, rest.OrderView]) -> bool:
    """Whether an order is open that the list of open orders does not have: then the list is not whole."""
    return isinstance(fact, OrderReported) and fact.state in RESTING and fact.order_id not in listed
