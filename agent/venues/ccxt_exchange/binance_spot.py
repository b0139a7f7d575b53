"""Binance spot as a venue: orders through REST or its WebSocket API, one attempt each; news through its own streams; the truth,
when asked, from REST.

A cancel is an order of its own with its own id: it ends FILLED when it took its target back and REJECTED when there was nothing to
take back. To replace an order is one request with two legs, and each leg has its own outcome under its own id. 'Unknown' is never
turned into 'rejected' by waiting alone: see `binance_questions`.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Final

from agent.domain.amount import parse_units, plain
from agent.domain.errors import ConfigError, FrameError, NumberError, OutcomeUnknown, VenueError
from agent.domain.events import OrderReported, VenueConnected
from agent.domain.instrument import Instrument
from agent.domain.market import BookSnapshot, Listed
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Signed, SignedRequest, VenueRequest
from agent.ports import PrivateFact, Profile, Snapshot, Tools, VenueEvent
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange import binance_wire as wire
from agent.venues.ccxt_exchange.binance_feed import Feed
from agent.venues.ccxt_exchange.binance_markets import Rules, measure, read_rules
from agent.venues.ccxt_exchange.binance_native import NATIVE_TWAP, Natives
from agent.venues.ccxt_exchange.binance_questions import Markets, Questions
from agent.venues.ccxt_exchange.binance_replies import Replies
from agent.venues.ccxt_exchange.binance_ws_orders import OrderLine
from agent.venues.ccxt_exchange.client import Client, Config, RefusedRequestError, gather
from agent.venues.ccxt_exchange.own_orders import OwnOrders
from agent.venues.ccxt_exchange.request_budget import Kind

MS: Final = 1_000_000
DEPTH_WEIGHTS = ((100, 5), (500, 25), (1_000, 50))
CLIENT_ID_MAX = 36


class BinanceSpot:
    """Satisfies the ports Venue and DeadMan (which Binance spot itself has not: see the config)."""

    def __init__(self, client: Client, rules: Rules, line: OrderLine | None = None) -> None:
        """`line`: the way that orders take while it is up; without it, REST."""
        self._client, self._rules, self._line = client, rules, line
        self._own = OwnOrders()
        self._questions = Questions(client, self._own, self._markets())
        self._replies = Replies(client, self._own, self._questions)
        self._natives = Natives(client, self._own, self._questions)
        self._api: Any = client.exchange
        self._ways: Mapping[str, tuple[Any, str]] = {
            "place": (self._api.private_post_order, "order.place"),
            "cancel": (self._api.private_delete_order, "order.cancel"),
            "replace": (self._api.private_post_order_cancelreplace, "order.cancelReplace"),
        }
        self._feed: Feed | None = None
        self._was_opened = False
        most = client.config.sends_in_flight_max
        self.profile = Profile(client.name, "ccxt_exchange", False, None, sends_in_flight_max=most, native_twap=NATIVE_TWAP)

    @property
    def clock_offset_ms(self) -> int:
        """The exchange's clock minus ours, as measured last. Above a second, something is wrong with one of them."""
        return round(self._client.budget.offset_ns / MS)

    @property
    def clock_uncertainty_ms(self) -> int:
        """How far that may be off: half the round trip of the measurement, rounded up."""
        return -(-self._client.uncertainty_ns // MS)

    @property
    def is_order_line_up(self) -> bool | None:
        """Whether orders leave over the WebSocket API now; None where the settings want REST."""
        return None if self._line is None else self._line.is_up

    # -- the four verbs -----------------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port. Begins with VenueConnected, what is listed, what may be done; what happened meanwhile must be asked."""
        client = self._client
        if self._was_opened:  # after a break, clocks and rules may have changed
            await measure(client)
            self._rules = await read_rules(client, self._rules)
            self._questions.markets = self._markets()
        self._was_opened = True
        self._own.forgive()
        feed = self._feed = Feed(client, self._own, self._natives, self._rules.instruments, self._read_book, self._care)
        try:
            self._natives.opened()
            await feed.open()
            yield VenueConnected(client.name)
            yield Listed(client.name, tuple(self._rules.instruments.values()), client.clock.now_ns())
            for status in client.conditions.news(is_new=True):
                yield status
            async for event in feed.events():
                yield event
        finally:
            self._feed = None
            await feed.close()

    def build(self, approved: Approved) -> VenueRequest:
        """See the port. Prices and sizes are exact: they lie on tick and lot by construction."""
        name = self._client.name
        markets = self._questions.markets
        match approved.plan:
            case PlaceOrder() as plan if plan.native_s:
                symbol = markets.symbol(plan.instrument)
                return self._natives.placing(plan, symbol, self._rules.instruments[symbol])
            case CancelOrder(is_native=True) as plan:
                return self._natives.cancelling(plan, markets.symbol(plan.instrument))
            case PlaceOrder(replaces="") as plan:
                return VenueRequest(plan.order_id, name, "place", self._place_fields(plan))
            case PlaceOrder() as plan:
                target = (
                    ("cancelReplaceMode", "STOP_ON_FAILURE"),
                    ("cancelOrigClientOrderId", self._own.spelled(plan.replaces)),
                )
                return VenueRequest(plan.order_id, name, "replace", (*self._place_fields(plan), *target))
            case CancelOrder() as plan:
                fields = (
                    ("symbol", self._questions.markets.symbol(plan.instrument)),
                    ("origClientOrderId", self._own.spelled(plan.target_id)),
                    ("newClientOrderId", plan.order_id),
                )
                return VenueRequest(plan.order_id, name, "cancel", fields)
            case plan:
                raise VenueError(f"{name} trades on an order book; it cannot do a {type(plan).__name__}")

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port. A refusal by the exchange is a fact (REJECTED with its code and words), not an error."""
        if not isinstance(signed, SignedRequest) or self._client.key is None or signed.key_id != self._client.key.key_id:
            raise VenueError(f"{self._client.name}: order {signed.order_id} is not signed with this venue's key; nothing was sent")
        request, order_id = signed.request, signed.order_id
        if request.action in ("place_native", "cancel_native"):
            facts = await (self._natives.place if request.action == "place_native" else self._natives.cancel)(request)
            self._own.note(facts, self._client.clock.now_ns())
            return facts
        fields = dict(request.fields)
        self._departs(request, fields)
        kind: Kind = "cancel" if request.action == "cancel" else "trade"
        if kind == "trade":
            fields["newOrderRespType"] = "FULL"
        rest_call, method = self._ways[request.action]
        try:
            if self._line is not None and self._line.is_up:
                reply = await self._client.call(self._line.ask, method, fields, kind=kind, about=order_id)
            else:
                reply = await self._client.call(rest_call, fields, kind=kind, about=order_id)
        except RefusedRequestError as refusal:
            return await self._refused(request, refusal)
        except VenueError:
            self._own.stayed(order_id)
            raise
        try:
            return await self._replies.proved(request, reply)
        except (FrameError, NumberError) as error:
            raise OutcomeUnknown(f"{self._client.name}: the reply about {order_id} cannot be read: {error}") from None

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """See the port. What is said about an asked order is certain; about the others nothing is said."""
        if self._client.key is None:
            raise VenueError(f"{self._client.name} has no key: set api_key and secret to see an account")
        try:
            return await self._snapshot(asked)
        except RefusedRequestError as refusal:
            if refusal.code != rest.TIME_OUTSIDE:
                raise
        await measure(self._client)  # a clock was set: without this no order in doubt would ever be answered for
        return await self._snapshot(asked)

    async def close(self) -> None:
        if self._line is not None:
            await self._line.close()
        await self._client.close()

    async def may_withdraw(self) -> bool:
        """Whether the API key could move coins out, which trading never needs. Raises VenueError."""
        return await may_withdraw(self._client)

    # -- the dead man's switch ----------------------------------------------------------------------------------------

    @property
    def countdown_s(self) -> int:
        """See the port DeadMan; 0 unless the settings name the switch of an exchange that has one."""
        return self._client.config.dead_man_s

    async def arm(self, countdown_s: int) -> None:
        """See the port DeadMan. Binance USD-M's form: for each symbol, `countdownTime` in ms; 0 stops it. Raises VenueError."""
        if not self.countdown_s:
            raise VenueError(f"{self._client.name} has no dead-man switch: Binance spot offers none")
        for symbol in self._rules.instruments:
            wanted = {"symbol": symbol, "countdownTime": str(countdown_s * 1_000)}
            try:
                await self._client.call(
                    self._api.fapiprivate_post_countdowncancelall, wanted, weight=10, kind="cancel", about=f"the switch of {symbol}"
                )
            except OutcomeUnknown as error:
                raise VenueError(str(error)) from None

    # -- private ------------------------------------------------------------------------------------------------------

    def _departs(self, request: VenueRequest, fields: Mapping[str, str]) -> None:
        ref = OrderRef(request.order_id, self._client.name, self._rules.instruments[fields["symbol"]].id)
        target = fields["origClientOrderId"] if request.action == "cancel" else ""
        size = parse_units(fields["quantity"], wire.DECIMALS) if "quantity" in fields else 0
        self._own.departs(ref, self._client.clock.now_ns(), self._own.original(target), size)

    async def _refused(self, request: VenueRequest, refusal: RefusedRequestError) -> Sequence[PrivateFact]:
        """What a refusal proves, and what it makes us look at: clocks, rules, or the target of a cancel."""
        facts: list[PrivateFact] = [OrderReported(request.order_id, OrderState.REJECTED, refusal.reason)]
        with contextlib.suppress(VenueError, NumberError):  # it can also be looked at later; the refusal is what counts
            if refusal.code == rest.TIME_OUTSIDE:
                await measure(self._client)
            if refusal.code == rest.FILTER and self._feed is not None:
                self._feed.look_soon()
            if request.action == "cancel" and refusal.code in (rest.NOTHING_TO_CANCEL, rest.NOT_FOUND):
                facts[:0] = await self._replies.target_of(request)
        self._own.note(facts, self._client.clock.now_ns())
        return facts

    async def _snapshot(self, asked: Sequence[OrderRef]) -> Snapshot:
        symbols = list(self._rules.instruments)
        self._own.learn(asked, dict(self._questions.markets.symbols))
        account, *lists = await gather(
            tried(self._client.call(self._api.private_get_account, {"omitZeroBalances": "true"}, weight=20)),
            *(tried(self._client.call(self._api.private_get_openorders, {"symbol": symbol}, weight=6)) for symbol in symbols),
        )
        failures = [one for one in (account, *lists) if isinstance(one, VenueError)]
        if len(failures) == len(lists) + 1:
            raise failures[0]
        natives = [ref for ref in asked if ref.is_native]
        told, worked, are_asked = await self._natives.answer(natives)
        self._own.note(told, self._client.clock.now_ns())
        views = [view for one in lists if not isinstance(one, VenueError) for view in rest.read(one, list[rest.OrderView])]
        views = [view for view in views if not self._natives.is_part(view.symbol, view.order_id)]
        listed = {self._questions.name(view): view for view in views}
        facts, is_whole = await self._questions.answer([ref for ref in asked if not ref.is_native], listed)
        context = self._questions.markets.context
        is_known = not isinstance(account, VenueError)
        return Snapshot(
            self._client.name,
            self._client.account,
            rest.balances(rest.read(account, rest.AccountView), context) if is_known else (),
            (*listed, *worked),
            (*told, *facts),
            at_ns=self._client.clock.now_ns(),
            resting=tuple(rest.resting(view, order_id, context) for order_id, view in listed.items()),
            is_orders_whole=is_whole and are_asked and not any(isinstance(one, VenueError) for one in lists),
            is_balances_whole=is_known,
        )

    def _place_fields(self, plan: PlaceOrder) -> tuple[tuple[str, str], ...]:
        symbol = self._questions.markets.symbols.get(plan.instrument)
        if symbol is None or plan.ticks <= 0 or plan.lots <= 0 or not 1 <= len(plan.order_id) <= CLIENT_ID_MAX:
            raise VenueError(
                f"{self._client.name}: order {plan.order_id[:48]} for {plan.instrument} is not one that this venue takes"
            )
        instrument, mode = self._rules.instruments[symbol], self._client.config.self_trade_prevention
        kind = (
            (("type", "LIMIT_MAKER"),) if plan.time_in_force == "POST" else (("type", "LIMIT"), ("timeInForce", plan.time_in_force))
        )
        prevention = (("selfTradePreventionMode", mode),) if mode in self._rules.preventions[symbol] else ()
        return (
            ("symbol", symbol),
            ("side", plan.side.upper()),
            *kind,
            ("quantity", plain(plan.lots * instrument.lot_units, instrument.base.decimals)),
            ("price", plain(plan.ticks * instrument.tick_units, instrument.quote.decimals)),
            ("newClientOrderId", plan.order_id),
            *prevention,
        )

    async def _care(self) -> None:
        """Clock, state and rules of the exchange. VenueError only if the rules have changed: then the connection begins anew."""
        client = self._client
        try:
            await measure(client)
            reply = await client.call(self._api.sapi_get_system_status, {})
            client.conditions.system(is_normal=rest.read(reply, rest.SystemView).status == 0)
            rules = await read_rules(client, self._rules)
        except (VenueError, ConfigError):
            return  # the next time will tell; whether the exchange is silent is found elsewhere
        if rules != self._rules:
            raise VenueError(f"{client.name} has new rules for its markets")

    def _markets(self) -> Markets:
        client, instruments = self._client, self._rules.instruments
        context = wire.Context(client.name, instruments, client.config.groups, client.clock.now_ns())
        return Markets(context, {one.id: symbol for symbol, one in instruments.items()})

    async def _read_book(self, instrument: Instrument) -> BookSnapshot:
        most = self._client.config.depth_max
        weight = next((weight for top, weight in DEPTH_WEIGHTS if most <= top), 250)
        wanted = {"symbol": self._questions.markets.symbol(instrument.id), "limit": str(most)}
        reply = await self._client.call(self._api.public_get_depth, wanted, weight=weight)
        return rest.book_snapshot(rest.read(reply, rest.DepthView), instrument, self._client.clock.now_ns())


async def open_binance(name: str, config: Config, tools: Tools) -> BinanceSpot:
    """Set the clocks against each other and read the rules of the markets. VenueError or ConfigError if that is not possible.

    ConfigError too for a key that could withdraw: trading needs no such right, and whoever steals it needs nothing else.
    """
    async with contextlib.AsyncExitStack() as stack:
        client = Client(name, config, tools, rest.proves_refusal)
        stack.push_async_callback(client.close)
        await measure(client)
        if client.key is not None and await may_withdraw(client):
            raise ConfigError(f"{name}: this API key may withdraw; make one that can only read and trade, and use that")
        line = OrderLine(client) if client.key is not None and config.orders_over == "websocket" else None
        venue = BinanceSpot(client, await read_rules(client), line)
        if line is not None:
            stack.push_async_callback(line.close)
            await line.open()
        stack.pop_all()
    return venue


async def may_withdraw(client: Client) -> bool:
    """Whether the API key could move coins out. Raises VenueError."""
    reply = await client.call(client.exchange.sapi_get_account_apirestrictions, {})
    return rest.read(reply, rest.RightsView).enable_withdrawals


async def tried(reading: Awaitable[Any]) -> Any:
    """The reply, or the VenueError in its place: one list that fails takes no other with it. A clock that is off is raised."""
    try:
        return await reading
    except VenueError as error:
        if error.code == rest.TIME_OUTSIDE:
            raise
        return error
