"""Orders that Binance spot works itself: its own TWAP, as one order of ours that rests and fills over time.

The exchange tells the trades of such an order as those of sub-orders, under ids of its own. Which of them are ours only a question
says, so the private stream is no more than a hint to ask: what trades under an id that nobody knows waits until the lists have been
asked, and only what stays unknown passes on as somebody else's. A TWAP has ended when the exchange lists it among the past ones and
its sub-orders add up to what it says was traded. Source: Binance spot algo API documentation.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from agent import observe
from agent.domain.amount import Amount, parse_units, plain
from agent.domain.errors import NumberError, VenueError
from agent.domain.events import FillReversed, OrderFilled, OrderReported
from agent.domain.instrument import Instrument
from agent.domain.order import ENDED, RESTING, OrderRef, OrderState
from agent.domain.plan import CancelOrder, PlaceOrder, VenueRequest
from agent.ports import NativeTwap, PrivateFact
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange import binance_wire as wire
from agent.venues.ccxt_exchange.binance_questions import Questions
from agent.venues.ccxt_exchange.client import Client, RefusedRequestError
from agent.venues.ccxt_exchange.own_orders import OwnOrders, remember

NATIVE_TWAP: Final = NativeTwap("USDT", 300, 86_400, 1_000, 100_000)
NAME_LENGTH: Final = 32  # of a client id, exactly
KNOWN_MAX: Final = 256  # orders of this kind that are remembered, those that ended among them
PARTS_MAX: Final = 20_000
PAGE: Final = 100
PAGES_MAX: Final = 60
TRADES_MAX: Final = 20  # sub-orders whose trades are asked for in one round, the newest first
LOOK_NS: Final = 2_000_000_000  # between rounds while one is worked
HELD_NS: Final = 10_000_000_000  # how long a report waits for the lists to name its order
RECENT_NS: Final = 600_000_000_000  # after its end, how long what trades may still be of it
HELD_MAX: Final = 2_000
MS: Final = 1_000_000
PREFIX: Final = "algo:"  # before the exchange's number: the numbers of ordinary orders are counted apart


class AlgoView(msgspec.Struct, frozen=True, rename="camel"):
    algo_id: int
    symbol: str
    side: Literal["BUY", "SELL"]
    total_qty: str
    executed_qty: str
    client_algo_id: str
    algo_status: str

    @property
    def filled_units(self) -> int:
        return parse_units(self.executed_qty, wire.DECIMALS, "executedQty")

    @property
    def size_units(self) -> int:
        return parse_units(self.total_qty, wire.DECIMALS, "totalQty")


class AlgosView(msgspec.Struct, frozen=True):
    total: int
    orders: tuple[AlgoView, ...]


class PartView(msgspec.Struct, frozen=True, rename="camel"):
    order_id: int
    executed_qty: str

    @property
    def filled_units(self) -> int:
        return parse_units(self.executed_qty, wire.DECIMALS, "executedQty")


class PartsView(msgspec.Struct, frozen=True, rename="camel"):
    total: int
    sub_orders: tuple[PartView, ...]


class PlacedView(msgspec.Struct, frozen=True, rename="camel"):
    client_algo_id: str
    success: bool


class TakenView(msgspec.Struct, frozen=True, rename="camel"):
    algo_id: int
    success: bool


class Natives:
    """What this connection knows of orders of this kind, and what it asks about them."""

    def __init__(self, client: Client, own: OwnOrders, questions: Questions) -> None:
        self._client, self._own, self._questions = client, own, questions
        self._api: Any = client.exchange
        self._known: OrderedDict[str, OrderRef] = OrderedDict()  # ours, from this connection or from the journal
        self._ended: OrderedDict[str, int] = OrderedDict()  # those of them that ended, and when that was seen
        self._parts: OrderedDict[tuple[str, int], str] = OrderedDict()  # (symbol, number) of a sub-order -> our order
        self._told: OrderedDict[tuple[str, int], int] = OrderedDict()  # units of it whose trades were passed on
        self._trade_ids: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._held: deque[tuple[int, wire.ExecutionReport]] = deque()
        self._looked_ns = 0
        self._opened_ns = 0  # since when the journal's orders were not asked about in this life of the stream; 0: they were

    # -- what is sent -------------------------------------------------------------------------------------------------

    def placing(self, plan: PlaceOrder, symbol: str, found: Instrument) -> VenueRequest:
        """Raises VenueError for what the exchange does not take."""
        low, high = NATIVE_TWAP.duration_s_min, NATIVE_TWAP.duration_s_max
        if not low <= plan.native_s <= high or len(plan.order_id) > NAME_LENGTH or plan.ticks <= 0 or plan.lots <= 0:
            raise VenueError(f"{self._client.name}: its own TWAP takes {low} to {high} s, and no order as {plan.order_id[:48]}")
        fields = (
            ("symbol", symbol),
            ("side", plan.side.upper()),
            ("quantity", plain(plan.lots * found.lot_units, found.base.decimals)),
            ("duration", str(plan.native_s)),
            ("limitPrice", plain(plan.ticks * found.tick_units, found.quote.decimals)),
            ("clientAlgoId", spelled(plan.order_id)),
        )
        return VenueRequest(plan.order_id, self._client.name, "place_native", fields)

    def cancelling(self, plan: CancelOrder, symbol: str) -> VenueRequest:
        fields = ("symbol", symbol), ("clientAlgoId", spelled(plan.target_id))
        return VenueRequest(plan.order_id, self._client.name, "cancel_native", fields)

    async def place(self, request: VenueRequest) -> Sequence[PrivateFact]:
        """Raises OutcomeUnknown, or VenueError where nothing was sent. That it was accepted says nothing about its trades."""
        order_id, fields = request.order_id, dict(request.fields)
        instrument = self._questions.markets.context.instrument(fields["symbol"])
        ref = OrderRef(order_id, self._client.name, instrument.id, sent_ns=self._client.clock.now_ns(), is_native=True)
        remember(self._known, order_id, ref, KNOWN_MAX)
        try:
            reply = await self._client.call(self._api.sapi_post_algo_spot_newordertwap, fields, kind="trade", about=order_id)
        except RefusedRequestError as refusal:
            self._known.pop(order_id, None)
            return [OrderReported(order_id, OrderState.REJECTED, refusal.reason)]
        except VenueError:
            self._known.pop(order_id, None)
            raise
        view = rest.read(reply, PlacedView)
        if not view.success or view.client_algo_id != fields["clientAlgoId"]:
            return [OrderReported(order_id, OrderState.UNKNOWN, "it is not confirmed")]
        remember(self._known, order_id, msgspec.structs.replace(ref, state=OrderState.OPEN), KNOWN_MAX)
        return [OrderReported(order_id, OrderState.OPEN)]

    async def cancel(self, request: VenueRequest) -> Sequence[PrivateFact]:
        """Takes it back by the exchange's number, which is looked up first. Raises as `place`."""
        fields = dict(request.fields)
        target = fields["clientAlgoId"].rstrip("_")
        about = self._reference(target, self._questions.markets.context.instrument(fields["symbol"]).id)
        working = await self._working()
        view = working.get(target)
        if view is None:
            return [
                *await self._facts(about, working),
                OrderReported(request.order_id, OrderState.REJECTED, "it is not worked there"),
            ]
        done: PrivateFact = wire.cancel_done(request.order_id, target)
        wanted = {"algoId": str(view.algo_id)}
        try:
            reply = await self._client.call(self._api.sapi_delete_algo_spot_order, wanted, kind="cancel", about=request.order_id)
            if not rest.read(reply, TakenView).success:
                done = OrderReported(request.order_id, OrderState.UNKNOWN, "it is not confirmed")
        except RefusedRequestError as refusal:
            done = OrderReported(request.order_id, OrderState.REJECTED, refusal.reason)
        try:
            facts = await self._facts(about, await self._working())
        except (VenueError, NumberError) as error:  # it will be asked about again
            observe.query_failed(self._client.name, str(error))
            facts = []
        return [*facts, done]

    # -- what is asked ------------------------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether anything of this kind may be traded, or a report waits to be understood."""
        return bool(self._held) or any(name not in self._ended for name in self._known)

    def is_part(self, symbol: str, number: int) -> bool:
        """Whether the exchange's order with this number is one of those that it works an order of ours with."""
        return (symbol, number) in self._parts

    async def answer(self, asked: Sequence[OrderRef]) -> tuple[list[PrivateFact], tuple[str, ...], bool]:
        """What is certain about the orders and cancels of this kind, which orders it works, and whether all were asked."""
        for ref in asked:
            if not ref.target_id:
                remember(self._known, ref.order_id, ref, KNOWN_MAX)
                if ref.state not in ENDED:
                    self._ended.pop(ref.order_id, None)
        facts: list[PrivateFact] = []
        self._opened_ns = 0
        if not asked and not self.is_active:
            return facts, (), True
        try:
            working = await self._working()
            for ref in asked:
                facts += await (self._cancel_facts(ref, working) if ref.target_id else self._facts(ref, working))
        except (VenueError, NumberError) as error:
            if isinstance(error, VenueError) and error.code == rest.TIME_OUTSIDE:
                raise
            observe.query_failed(self._client.name, str(error))
            return facts, (), False
        return facts, tuple(working), True

    async def _working(self) -> dict[str, AlgoView]:
        """By our ids. Raises VenueError."""
        view = rest.read(await self._client.call(self._api.sapi_get_algo_spot_openorders, {}), AlgosView)
        if view.total > len(view.orders):
            raise VenueError(f"{self._client.name}: its list of TWAPs is not whole")
        return {one.client_algo_id.rstrip("_"): one for one in view.orders}

    async def _facts(self, ref: OrderRef, working: Mapping[str, AlgoView]) -> list[PrivateFact]:
        """Trades first, then where it stands."""
        view = working.get(ref.order_id)
        is_open = view is not None
        view = view or await self._past(ref)
        if view is None:
            if ref.venue_order_id or ref.state in RESTING or not self._questions.is_late(ref):
                return []
            remember(self._ended, ref.order_id, self._client.clock.now_ns(), KNOWN_MAX)
            reason = "the exchange does not know it, and could not accept it any more"
            return [OrderReported(ref.order_id, OrderState.REJECTED, reason)]
        parts = await self._parts_of(view, ref.order_id)
        trades = await self._trades(view.symbol, parts, ref.order_id)
        sum_units = sum(part.filled_units for part in parts)
        told = Amount(max(view.filled_units, sum_units), self._questions.markets.context.instrument(view.symbol).base)
        state = OrderState.OPEN if is_open or view.algo_status == "WORKING" or sum_units < view.filled_units else _end(view, told)
        if state in ENDED:
            remember(self._ended, ref.order_id, self._client.clock.now_ns(), KNOWN_MAX)
        reason = f"the exchange says {view.algo_status}" if state is OrderState.EXPIRED else ""
        return [*trades, OrderReported(ref.order_id, state, reason, f"{PREFIX}{view.algo_id}", filled=told)]

    async def _cancel_facts(self, ref: OrderRef, working: Mapping[str, AlgoView]) -> list[PrivateFact]:
        """A cancel is judged by its target."""
        facts = await self._facts(self._reference(ref.target_id, ref.instrument), working)
        state = next((fact.state for fact in facts if isinstance(fact, OrderReported)), None)
        if state is OrderState.CANCELLED:
            return [*facts, wire.cancel_done(ref.order_id, ref.target_id)]
        if state in ENDED or (state is not None and self._questions.is_late(ref)):
            return [*facts, OrderReported(ref.order_id, OrderState.REJECTED, f"{ref.target_id} is {state}")]
        return facts

    def _reference(self, order_id: str, instrument: str) -> OrderRef:
        known = self._known.get(order_id)
        return known or OrderRef(order_id, self._client.name, instrument, venue_order_id=PREFIX, is_native=True)

    async def _past(self, ref: OrderRef) -> AlgoView | None:
        """Among those that ended. VenueError if there are too many to say that it is not among them."""
        wanted = {"symbol": self._questions.markets.symbol(ref.instrument), "pageSize": str(PAGE)}
        if ref.sent_ns:
            wanted["startTime"] = str((ref.sent_ns + self._client.budget.offset_ns) // MS - 60_000)
        for page in range(1, PAGES_MAX + 1):
            asked = wanted | {"page": str(page)}
            view = rest.read(await self._client.call(self._api.sapi_get_algo_spot_historicalorders, asked), AlgosView)
            found = next((one for one in view.orders if one.client_algo_id == spelled(ref.order_id)), None)
            if found is not None or page * PAGE >= view.total or not view.orders:
                return found
        raise VenueError(f"{self._client.name}: too many TWAPs to say that {ref.order_id} is not among them")

    async def _parts_of(self, view: AlgoView, order_id: str) -> list[PartView]:
        parts: dict[int, PartView] = {}
        for page in range(1, PAGES_MAX + 1):
            wanted = {"algoId": str(view.algo_id), "page": str(page), "pageSize": str(PAGE)}
            listed = rest.read(await self._client.call(self._api.sapi_get_algo_spot_suborders, wanted), PartsView)
            parts |= {part.order_id: part for part in listed.sub_orders}
            if page * PAGE >= listed.total or not listed.sub_orders:
                break
        for number in parts:
            remember(self._parts, (view.symbol, number), order_id, PARTS_MAX)
        return list(parts.values())

    async def _trades(self, symbol: str, parts: Sequence[PartView], order_id: str) -> list[OrderFilled]:
        """Of the sub-orders whose trades were not all told from here: what is known already is told once more after a restart."""
        due = [part for part in parts if part.filled_units > self._told.get((symbol, part.order_id), 0)]
        base, facts = self._questions.markets.context.instrument(symbol).base, list[OrderFilled]()
        for part in sorted(due, key=lambda one: one.order_id, reverse=True)[:TRADES_MAX]:
            trades = await self._questions.trades(symbol, part.order_id, order_id)
            moved = [one.fill.received if one.fill.received.asset == base else one.fill.paid for one in trades]
            remember(self._told, (symbol, part.order_id), sum(amount.units for amount in moved), PARTS_MAX)
            for one in trades:
                remember(self._trade_ids, (symbol, one.fill.trade_id), None, PARTS_MAX)
            facts += trades
        return facts

    # -- what the private stream says ---------------------------------------------------------------------------------

    def holds(self, report: wire.ExecutionReport) -> bool:
        """Whether a report belongs, or may belong, to a sub-order: then it waits here. VenueError if too many wait."""
        is_named = self._own.is_known(report.symbol, report.order_number, report.order_id)
        is_possible = bool(self._suspects()) or self._is_new
        if not self.is_part(report.symbol, report.order_number) and (is_named or not is_possible):
            return False
        if len(self._held) >= HELD_MAX:
            raise VenueError(f"{self._client.name}: too many reports of orders that nobody knows")
        self._held.append((self._client.clock.now_ns(), report))
        return True

    def opened(self) -> None:
        """A new life of the stream: until the journal's orders are asked about, any trade may be of one of them."""
        self._opened_ns = self._client.clock.now_ns()

    @property
    def _is_new(self) -> bool:
        return self._opened_ns > 0 and self._client.clock.now_ns() < self._opened_ns + HELD_NS

    @property
    def is_due(self) -> bool:
        is_hinted = bool(self._held) and not self._is_new
        return self.is_active and (is_hinted or self._client.clock.now_ns() >= self._looked_ns + LOOK_NS)

    async def look(self) -> tuple[list[PrivateFact], list[wire.ExecutionReport]]:
        """Ask about all that is worked, or may be hinted at. What no list names after a while is returned: it is not ours."""
        self._looked_ns = self._client.clock.now_ns()
        seen, facts, foreign = len(self._held), list[PrivateFact](), list[wire.ExecutionReport]()
        names = self._suspects() if seen else [name for name in self._known if name not in self._ended]
        try:
            working = await self._working() if names else {}
            for name in names:
                facts += await self._facts(self._known[name], working)
        except (VenueError, NumberError) as error:
            observe.query_failed(self._client.name, str(error))
            return facts, foreign
        for _ in range(seen):
            since_ns, report = self._held.popleft()
            owner = self._parts.get((report.symbol, report.order_number))
            is_old = not self._is_new and (not names or self._looked_ns > since_ns + HELD_NS)
            if owner is None and is_old:
                foreign.append(report)
            elif owner is not None and report.execution == "TRADE_CANCEL":
                facts += _taken_back(report, owner, self._questions.markets.context)
            elif owner is None or (not is_old and not self._is_told(report)):
                self._held.append((since_ns, report))
        return facts, foreign

    def _suspects(self) -> list[str]:
        """Our orders whose sub-orders may still be told of: worked, or ended a short while ago."""
        since_ns = self._client.clock.now_ns() - RECENT_NS
        return [name for name in self._known if self._ended.get(name, since_ns) >= since_ns]

    def _is_told(self, report: wire.ExecutionReport) -> bool:
        return report.execution != "TRADE" or (report.symbol, str(report.trade_id)) in self._trade_ids


def _taken_back(report: wire.ExecutionReport, order_id: str, context: wire.Context) -> list[PrivateFact]:
    """The trade that the exchange took back, under our id."""
    named = msgspec.structs.replace(report, client_id=order_id, original_id="")
    return [fact for fact in wire.facts_of(wire.Frame(event=named), context) if isinstance(fact, FillReversed)]


def spelled(order_id: str) -> str:
    """Our id as the exchange wants it: filled up to 32 characters. An order's id ends with a digit, so nothing is lost."""
    return order_id.ljust(NAME_LENGTH, "_")


def _end(view: AlgoView, told: Amount) -> OrderState:
    if told.units >= view.size_units:
        return OrderState.FILLED
    return OrderState.CANCELLED if view.algo_status in ("CANCELLED", "CANCELED") else OrderState.EXPIRED
