"""The agent's connection to the exchange of a replay: it satisfies the port Venue and behaves as a real exchange's adapter does.

A request takes its time to get there, is carried out on the book as it is then, and its reply takes its time back. A request that
has left arrives, also when the agent dies meanwhile; whoever connects anew asks what became of it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from agent.domain.amount import Amount
from agent.domain.errors import VenueError
from agent.domain.events import OrderFilled, OrderReported, VenueConnected
from agent.domain.instrument import Side
from agent.domain.market import Listed
from agent.domain.order import WOULD_TAKE, OrderRef, OrderState
from agent.domain.order import Fill as OurFill
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Signed, SignedRequest, Unsigned, VenueRequest
from agent.ports import Clock, PrivateFact, Profile, Resting, Snapshot, VenueEvent
from agent.simulation.drill.clock import dice
from agent.simulation.exchange.filters import NewOrder, Refused
from agent.simulation.exchange.matching import BUY, SELL, Order, Status, TimeInForce
from agent.simulation.exchange.venue import Fill, Report
from agent.simulation.replay.exchange import MS, Exchange, nobody
from agent.simulation.replay.mail import Mailbox, Way
from agent.simulation.replay.setting import EXCHANGE, SECOND, USER, Setting

ACCOUNT: Final = "main"
STATES: Final[dict[Status, OrderState]] = {
    "NEW": OrderState.OPEN,
    "PARTIALLY_FILLED": OrderState.PARTIAL,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELLED,
    "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}
_TIMES: Final[dict[str, TimeInForce]] = {"GTC": "GTC", "IOC": "IOC", "FOK": "FOK"}

TAKES_AT_ONCE = "immediately match"  # the exchange's words to an order that may only rest


class ExchangeLine:
    """Satisfies the port Venue over one exchange. It may be handed from an engine that died to the next one."""

    def __init__(self, exchange: Exchange, setting: Setting, clock: Clock) -> None:
        self._exchange, self._clock, latency = exchange, clock, setting.latency
        self._profile = Profile(EXCHANGE, "replay", False, None)
        self._mail = Mailbox(clock, latency, dice(setting.seed, "exchange-data"))
        self._out = Way(clock, latency.order_ns, latency.jitter_ns, dice(setting.seed, "exchange-orders"))
        self._back = Way(clock, latency.data_ns, latency.jitter_ns, dice(setting.seed, "exchange-replies"))
        self._under_way: set[str] = set()
        self._answering: set[str] = set()  # orders whose news is in the reply that is being written
        self._refused: dict[str, str] = {}
        exchange.on_own = self._on_report

    @property
    def profile(self) -> Profile:
        return self._profile

    async def close(self) -> None:
        self._exchange.on_news = nobody

    # -- sends -------------------------------------------------------------------------------------------------------

    def build(self, approved: Approved) -> Unsigned:
        """See the port."""
        match approved.plan:
            case PlaceOrder() as plan:
                fields = {
                    "side": plan.side,
                    "ticks": str(plan.ticks),
                    "lots": str(plan.lots),
                    "time_in_force": plan.time_in_force,
                    "target_id": plan.replaces,
                }
                return VenueRequest(plan.order_id, EXCHANGE, "replace" if plan.replaces else "place", tuple(fields.items()))
            case CancelOrder() as plan:
                return VenueRequest(plan.order_id, EXCHANGE, "cancel", (("target_id", plan.target_id),))
            case plan:
                raise VenueError(f"{EXCHANGE} trades on a book; it cannot do a {type(plan).__name__}")

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port."""
        if not isinstance(signed, SignedRequest):
            raise VenueError(f"{EXCHANGE} takes requests, no transactions")
        request, loop = signed.request, asyncio.get_running_loop()
        reply: asyncio.Future[Sequence[PrivateFact]] = loop.create_future()
        self._under_way.add(request.order_id)
        loop.call_later((self._out.due_ns() - self._clock.now_ns()) / SECOND, self._arrive, request, reply)
        facts = await reply
        await asyncio.sleep((self._back.due_ns() - self._clock.now_ns()) / SECOND)
        return facts

    def _arrive(self, request: VenueRequest, reply: "asyncio.Future[Sequence[PrivateFact]]") -> None:
        fields = dict(request.fields)
        self._under_way.discard(request.order_id)
        self._answering = {request.order_id, fields.get("target_id", "")}
        facts = self._carry_out(request, fields)
        self._answering = set()
        if not reply.done():  # nobody waits any more when the agent has died
            reply.set_result(facts)

    def _carry_out(self, request: VenueRequest, fields: dict[str, str]) -> list[PrivateFact]:
        """What the reply proves. Of a replacement's legs each has its own outcome; the second is not tried without the first."""
        name, target, now_ns = request.order_id, fields.get("target_id", ""), self._clock.now_ns()
        facts: list[PrivateFact] = []
        if request.action != "place":
            try:
                facts.append(self._report(self._exchange.cancel(target, name, now_ns)))
            except Refused as refusal:
                self._refused[name] = str(refusal)
                return [*self._whole(target), OrderReported(name, OrderState.REJECTED, str(refusal))]
        if request.action == "cancel":
            return [*facts, OrderReported(name, OrderState.FILLED)]
        try:
            order, fills = self._exchange.place(self._order(name, fields), now_ns)
        except Refused as refusal:
            reason = f"{WOULD_TAKE}: {refusal}" if TAKES_AT_ONCE in str(refusal) else str(refusal)
            self._refused[name] = reason
            return [*facts, OrderReported(name, OrderState.REJECTED, reason)]
        return [*facts, *(OrderFilled(self._fill(fill, name)) for fill in fills), self._report(order)]

    def _order(self, name: str, fields: dict[str, str]) -> NewOrder:
        is_maker = fields["time_in_force"] == "POST"
        return NewOrder(
            symbol=self._exchange.rules.symbol,
            side=SELL if fields["side"] == "sell" else BUY,
            kind="LIMIT_MAKER" if is_maker else "LIMIT",
            time_in_force="GTC" if is_maker else _TIMES[fields["time_in_force"]],
            prevention="EXPIRE_TAKER",
            price_ticks=int(fields["ticks"]),
            size_lots=int(fields["lots"]),
            quote_units=0,
            client_id=name,
            reply_kind="FULL",
        )

    # -- the stream --------------------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port."""
        await asyncio.sleep(self._back.delay_ns / SECOND)
        yield VenueConnected(EXCHANGE)
        yield Listed(EXCHANGE, (self._exchange.instrument,), self._clock.now_ns())
        self._mail.clear()
        self._exchange.on_news = self._mail.post
        yield self._exchange.snapshot(self._clock.now_ns())
        try:
            async for event in self._mail.read():
                yield event
        finally:
            self._exchange.on_news = nobody

    def _on_report(self, report: Report) -> None:
        """What happens to our orders while we do not ask: they trade, or the exchange ends them."""
        name = report.order.client_id
        if name in self._answering:
            return
        told = Amount(report.filled_lots * self._exchange.rules.lot_units, self._exchange.instrument.base)
        said = OrderReported(name, STATES[report.status], "", str(report.order.id), filled=told)
        traded = (OrderFilled(self._fill(report.fill, name)),) if report.fill is not None else ()
        self._mail.post(lambda _at_ns: (*traded, said))

    # -- questions ---------------------------------------------------------------------------------------------------

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """See the port."""
        await asyncio.sleep(self._out.delay_ns / SECOND)
        open_orders = [order for _, order in self._exchange.venue.open_orders(USER)]
        found = Snapshot(
            EXCHANGE,
            ACCOUNT,
            self._exchange.balances(),
            tuple(one.client_id for one in open_orders),
            tuple(fact for ref in asked for fact in self._certain(ref)),
            None,
            self._clock.now_ns(),
            tuple(self._resting(one) for one in open_orders),
        )
        await asyncio.sleep(self._back.delay_ns / SECOND)
        return found

    def _certain(self, ref: OrderRef) -> list[PrivateFact]:
        """All that is certain about one order. One that is still on its way there is not."""
        if ref.order_id in self._under_way:
            return []
        if ref.target_id:
            return self._certain_cancel(ref)
        reason = self._refused.get(ref.order_id, "the exchange does not know it")
        return self._whole(ref.order_id) or [OrderReported(ref.order_id, OrderState.REJECTED, reason)]

    def _certain_cancel(self, ref: OrderRef) -> list[PrivateFact]:
        """A cancel is judged by its target: its own id means nothing to the exchange."""
        order = self._exchange.find(ref.target_id)
        if order is not None and order.status == "CANCELED":
            return [*self._whole(ref.target_id), OrderReported(ref.order_id, OrderState.FILLED)]
        return [*self._whole(ref.target_id), OrderReported(ref.order_id, OrderState.REJECTED, f"{ref.target_id} was not there")]

    def _whole(self, order_id: str) -> list[PrivateFact]:
        """An order with all its trades, its state last; nothing if the exchange does not know it."""
        order = self._exchange.find(order_id)
        if order is None:
            return []
        return [*(OrderFilled(self._fill(fill, order_id)) for fill in self._exchange.fills(order)), self._report(order)]

    # -- in the agent's words ------------------------------------------------------------------------------------------

    def _report(self, order: Order) -> OrderReported:
        told = Amount(order.filled_lots * self._exchange.rules.lot_units, self._exchange.instrument.base)
        return OrderReported(order.client_id, STATES[order.status], "", str(order.id), filled=told)

    def _fill(self, fill: Fill, order_id: str) -> OurFill:
        found, rules = self._exchange.instrument, self._exchange.rules
        base = Amount(rules.base_units(fill.size_lots), found.base)
        quote = Amount(rules.quote_units(fill.price_ticks * fill.size_lots), found.quote)
        paid, received = (base, quote) if fill.side == SELL else (quote, base)
        fee = Amount(fill.fee_units, received.asset)
        return OurFill(order_id, EXCHANGE, found.id, str(fill.trade_id), paid, received, fee, fill.time_ms * MS)

    def _resting(self, order: Order) -> Resting:
        side: Side = "sell" if order.side == SELL else "buy"
        name = self._exchange.instrument.id
        return Resting(order.client_id, name, side, order.price_ticks, order.size_lots, order.filled_lots, str(order.id))
