"""Binance spot as a venue: orders through REST, one attempt each; news through its own streams; the truth, when asked, from REST.

A cancel is an order of its own with its own id: it ends FILLED when it took its target back and REJECTED when there was nothing to
take back. 'Unknown' is never turned into 'rejected' by waiting alone: the exchange must have been asked twice, in two ways, after
the last moment at which it could still have accepted the request.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from agent.domain.amount import Amount, parse_units, plain
from agent.domain.errors import ConfigError, FrameError, NumberError, OutcomeUnknown, VenueError
from agent.domain.events import OrderFilled, OrderReported, VenueConnected
from agent.domain.instrument import Instrument
from agent.domain.market import BookSnapshot, Listed
from agent.domain.order import ENDED, OrderRef, OrderState
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Signed, SignedRequest, VenueRequest
from agent.ports import PrivateFact, Profile, Snapshot, Tools, VenueEvent
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange import binance_wire as wire
from agent.venues.ccxt_exchange.binance_feed import Feed
from agent.venues.ccxt_exchange.client import Client, Config, RefusedRequestError, gather
from agent.venues.ccxt_exchange.own_orders import OwnOrders

V = TypeVar("V")
MS: Final = 1_000_000
LATE_MARGIN_MS = 3_000  # beyond recvWindow: clocks differ, and an accepted order may take a moment to be listed
LIST_MAX = 1_000  # the longest list that the exchange returns; a full one proves no absence
LOOK_BACK_MS = 60_000
DEPTH_WEIGHTS = ((100, 5), (500, 25), (1_000, 50))
DEFAULT_FEE_PIPS = 1_000
CLIENT_ID_MAX = 36


class BinanceSpot:
    """Satisfies the port Venue. `instruments` by the exchange's symbol."""

    def __init__(self, client: Client, instruments: Mapping[str, Instrument]) -> None:
        self._client = client
        self._take(instruments)
        self._own = OwnOrders({one.id: one.base for one in instruments.values()})
        self._api: Any = client.exchange
        self._was_opened = False
        self.profile = Profile(client.name, "ccxt_exchange", False, None, sends_in_flight_max=client.config.sends_in_flight_max)

    @property
    def clock_offset_ms(self) -> int:
        """The exchange's clock minus ours, as measured last. Above a second, something is wrong with one of them."""
        return round(self._client.budget.offset_ns / MS)

    # -- the four verbs -----------------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port. Begins with VenueConnected, what is listed, and what became of our orders in the meantime."""
        if self._was_opened:  # after a break, clocks and rules may have changed
            await _measure(self._client)
            self._take(await _instruments(self._client))
        self._was_opened = True
        self._own.forgive()
        feed = Feed(self._client, self._own, self._instruments, self._read_book, self._settle)
        try:
            await feed.open()
            yield VenueConnected(self._client.name)
            yield Listed(self._client.name, tuple(self._instruments.values()), self._client.clock.now_ns())
            for ref in self._own.live():
                for fact in await self._inquire(ref):
                    yield fact
            async for event in feed.events():
                yield event
        finally:
            await feed.close()

    def build(self, approved: Approved) -> VenueRequest:
        """See the port. Prices and sizes are exact: they lie on tick and lot by construction."""
        match approved.plan:
            case PlaceOrder() as plan:
                return VenueRequest(plan.order_id, self._client.name, "place", self._place_fields(plan))
            case CancelOrder() as plan:
                fields = (
                    ("symbol", self._symbol(plan.instrument)),
                    ("origClientOrderId", plan.target_id),
                    ("newClientOrderId", plan.order_id),
                )
                return VenueRequest(plan.order_id, self._client.name, "cancel", fields)
            case plan:
                raise VenueError(f"{self._client.name} trades on an order book; it cannot do a {type(plan).__name__}")

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port. A refusal by the exchange is a fact (REJECTED with its code and words), not an error."""
        if not isinstance(signed, SignedRequest) or self._client.key is None or signed.key_id != self._client.key.key_id:
            raise VenueError(f"{self._client.name}: order {signed.order_id} is not signed with this venue's key; nothing was sent")
        fields, order_id = dict(signed.request.fields), signed.order_id
        instrument = self._instruments[fields["symbol"]].id
        is_cancel = signed.request.action == "cancel"
        ref = OrderRef(order_id, self._client.name, instrument)
        self._own.departs(ref, self._client.clock.now_ns(), fields.get("origClientOrderId", ""))
        try:
            if is_cancel:
                reply = await self._client.call(self._api.private_delete_order, fields, kind="cancel", about=order_id)
            else:
                full = fields | {"newOrderRespType": "FULL"}
                reply = await self._client.call(self._api.private_post_order, full, kind="trade", about=order_id)
        except RefusedRequestError as refusal:
            facts: Sequence[PrivateFact] = (OrderReported(order_id, OrderState.REJECTED, str(refusal)),)
            self._own.note(facts)
            if refusal.code == rest.TIME_OUTSIDE:
                with contextlib.suppress(VenueError):  # the clocks can also be set later; the refusal is what counts
                    await _measure(self._client)
            return facts
        except VenueError:
            self._own.stayed(order_id)
            raise
        try:
            return await self._proved(_read(reply, rest.OrderView), order_id, is_cancel=is_cancel)
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
        await _measure(self._client)  # a clock was set: without this no order in doubt would ever be answered for
        return await self._snapshot(asked)

    async def close(self) -> None:
        await self._client.close()

    async def may_withdraw(self) -> bool:
        """Whether the API key could move coins out, which trading never needs. Raises VenueError."""
        reply = await self._client.call(self._api.sapi_get_account_apirestrictions, {})
        return _read(reply, rest.RightsView).enable_withdrawals

    # -- orders -------------------------------------------------------------------------------------------------------

    async def _snapshot(self, asked: Sequence[OrderRef]) -> Snapshot:
        account, *resting = await gather(
            self._client.call(self._api.private_get_account, {"omitZeroBalances": "true"}, weight=20),
            *(self._client.call(self._api.private_get_openorders, {"symbol": symbol}, weight=6) for symbol in self._instruments),
        )
        facts: list[PrivateFact] = []
        for ref in asked:
            facts += await self._inquire(ref)
        return Snapshot(
            self._client.name,
            self._client.account,
            _balances(_read(account, rest.AccountView), self._context()),
            tuple(one.our_id for orders in resting for one in _read(orders, list[rest.OrderView])),
            tuple(facts),
            at_ns=self._client.clock.now_ns(),
        )

    def _take(self, instruments: Mapping[str, Instrument]) -> None:
        """The markets with their rules of now."""
        self._instruments = instruments
        self._symbols = {one.id: symbol for symbol, one in instruments.items()}
        self._by_id = {one.id: one for one in instruments.values()}

    def _place_fields(self, plan: PlaceOrder) -> tuple[tuple[str, str], ...]:
        instrument = self._by_id.get(plan.instrument)
        if instrument is None or plan.ticks <= 0 or plan.lots <= 0 or not 1 <= len(plan.order_id) <= CLIENT_ID_MAX:
            raise VenueError(
                f"{self._client.name}: order {plan.order_id[:48]} for {plan.instrument} is not one that this venue takes"
            )
        kind = (
            (("type", "LIMIT_MAKER"),) if plan.time_in_force == "POST" else (("type", "LIMIT"), ("timeInForce", plan.time_in_force))
        )
        return (
            ("symbol", self._symbol(plan.instrument)),
            ("side", plan.side.upper()),
            *kind,
            ("quantity", plain(plan.lots * instrument.lot_units, instrument.base.decimals)),
            ("price", plain(plan.ticks * instrument.tick_units, instrument.quote.decimals)),
            ("newClientOrderId", plan.order_id),
        )

    async def _proved(self, view: rest.OrderView, order_id: str, *, is_cancel: bool) -> Sequence[PrivateFact]:
        """What a reply proves. An order's end is only told when all its trades are."""
        if view.our_id not in (order_id, self._own.target(order_id)):
            raise FrameError(f"it is about {view.our_id[:40]!r}")
        fills = rest.fills_in_reply(view, self._context())
        if not is_cancel:
            self._own.accepted(order_id, self._client.clock.now_ns())
        self._own.note(fills)
        facts: tuple[PrivateFact, ...] = (wire.cancel_done(order_id, view.our_id),) if is_cancel else ()
        if view.state not in ENDED or view.filled_units == self._own.filled_units(view.our_id):
            facts = (*fills, rest.order_report(view), *facts)
        self._own.note(facts)
        return facts

    async def _settle(self, report: wire.ExecutionReport) -> Sequence[PrivateFact]:
        """For the end of an order: the trades that were not seen, so that they come before it."""
        if wire.STATES.get(report.status) not in ENDED:
            return ()
        seen = self._own.filled_units(report.order_id)
        last = parse_units(report.size, wire.DECIMALS, "size") if report.execution == "TRADE" else 0
        if parse_units(report.filled, wire.DECIMALS, "filled") <= seen + last:
            return ()
        return await self._trades(report.symbol, report.order_number, report.order_id)

    async def _trades(self, symbol: str, number: int, order_id: str) -> tuple[OrderFilled, ...]:
        wanted = {"symbol": symbol, "orderId": str(number), "limit": str(LIST_MAX)}
        reply = await self._client.call(self._api.private_get_mytrades, wanted, weight=5)
        context = self._context()
        return tuple(rest.fill_of_trade(trade, order_id, context) for trade in _read(reply, list[rest.TradeView]))

    # -- questions ----------------------------------------------------------------------------------------------------

    async def _inquire(self, ref: OrderRef) -> Sequence[PrivateFact]:
        """What is certain about one order."""
        target = self._own.target(ref.order_id)
        facts = await (self._cancel_outcome(ref, target) if target else self._order_outcome(ref, self._symbol(ref.instrument)))
        self._own.note(facts)
        return facts

    async def _order_outcome(self, ref: OrderRef, symbol: str) -> Sequence[PrivateFact]:
        view = await self._find(ref, symbol)
        if view is None:
            if not self._is_late(ref):
                return ()
            view = await self._search(ref, symbol)
            if view is None:
                reason = "the exchange does not know it, and could not accept it any more"
                return (OrderReported(ref.order_id, OrderState.REJECTED, reason),)
        if view.filled_units == 0:
            return (OrderReported(ref.order_id, view.state, "", str(view.order_id)),)
        fills = await self._trades(symbol, view.order_id, ref.order_id)
        self._own.note(fills)
        if view.state in ENDED and view.filled_units != self._own.filled_units(ref.order_id):
            return fills  # not all trades are listed yet: its end is not certain
        return (*fills, OrderReported(ref.order_id, view.state, "", str(view.order_id)))

    async def _cancel_outcome(self, ref: OrderRef, target: str) -> Sequence[PrivateFact]:
        """A cancel is judged by its target; its own id means nothing to the exchange."""
        about = msgspec.structs.replace(ref, order_id=target, sent_ns=0)
        facts = await self._order_outcome(about, self._symbol(ref.instrument))
        state = next((fact.state for fact in facts if isinstance(fact, OrderReported)), None)
        if state is OrderState.CANCELLED:
            return (*facts, wire.cancel_done(ref.order_id, target))
        if state in ENDED or (state is not None and self._is_late(ref)):
            return (*facts, OrderReported(ref.order_id, OrderState.REJECTED, f"{target} is {state}"))
        return facts

    def _is_late(self, ref: OrderRef) -> bool:
        """Whether a request that was under way must have been accepted or refused by now."""
        sent_ns = max(ref.sent_ns, self._own.departed_ns(ref.order_id))
        patience_ms = self._client.config.recv_window_ms + LATE_MARGIN_MS
        return sent_ns > 0 and self._client.clock.now_ns() > sent_ns + patience_ms * MS

    async def _find(self, ref: OrderRef, symbol: str) -> rest.OrderView | None:
        wanted = {"symbol": symbol, "origClientOrderId": ref.order_id}
        try:
            return _read(await self._client.call(self._api.private_get_order, wanted, weight=4), rest.OrderView)
        except RefusedRequestError as refusal:
            if refusal.code == rest.NOT_FOUND:
                return None
            raise

    async def _search(self, ref: OrderRef, symbol: str) -> rest.OrderView | None:
        """The second source: the lists of open and of all orders. VenueError if they are too long to prove anything."""
        sent_ns = max(ref.sent_ns, self._own.departed_ns(ref.order_id))
        since_ms = (sent_ns + self._client.budget.offset_ns) // MS - LOOK_BACK_MS
        wanted = {"symbol": symbol, "startTime": str(since_ms), "limit": str(LIST_MAX)}
        listed, resting = await gather(
            self._client.call(self._api.private_get_allorders, wanted, weight=20),
            self._client.call(self._api.private_get_openorders, {"symbol": symbol}, weight=6),
        )
        orders = _read(listed, list[rest.OrderView])
        found = next((one for one in (*orders, *_read(resting, list[rest.OrderView])) if one.our_id == ref.order_id), None)
        if found is None and len(orders) >= LIST_MAX:
            raise VenueError(f"{self._client.name}: too many orders since {ref.order_id} was sent to say that it is not among them")
        return found

    async def _read_book(self, instrument: Instrument) -> BookSnapshot:
        most = self._client.config.depth_max
        weight = next((weight for top, weight in DEPTH_WEIGHTS if most <= top), 250)
        wanted = {"symbol": self._symbol(instrument.id), "limit": str(most)}
        reply = await self._client.call(self._api.public_get_depth, wanted, weight=weight)
        return rest.book_snapshot(_read(reply, rest.DepthView), instrument, self._client.clock.now_ns())

    def _context(self) -> wire.Context:
        return wire.Context(self._client.name, self._instruments, self._client.config.groups, self._client.clock.now_ns())

    def _symbol(self, instrument: str) -> str:
        try:
            return self._symbols[instrument]
        except KeyError:
            raise VenueError(f"{self._client.name} does not list {instrument[:60]}; add it to symbols in the config") from None


async def open_binance(name: str, config: Config, tools: Tools) -> BinanceSpot:
    """Set the clocks against each other and read the rules of the markets. VenueError or ConfigError if that is not possible."""
    async with contextlib.AsyncExitStack() as stack:
        client = Client(name, config, tools, rest.proves_refusal)
        stack.push_async_callback(client.close)
        await _measure(client)
        venue = BinanceSpot(client, await _instruments(client))
        stack.pop_all()
    return venue


async def _instruments(client: Client) -> dict[str, Instrument]:
    wanted = {symbol.replace("/", ""): symbol for symbol in client.config.symbols}
    asked = {"symbols": msgspec.json.encode(sorted(wanted)).decode()}
    try:
        info = _read(await client.call(client.exchange.public_get_exchangeinfo, asked, weight=20), rest.ExchangeView)
    except RefusedRequestError as refusal:
        if refusal.code != rest.BAD_SYMBOL:
            raise
        raise ConfigError(
            f"{client.name}: one of {', '.join(client.config.symbols)} does not exist there; correct symbols"
        ) from None
    pips = await _fee_pips(client)
    groups = client.config.groups
    listed = {one.symbol: one for one in info.symbols if one.symbol in wanted and one.status == "TRADING"}
    for symbol, written in wanted.items():
        if symbol not in listed:
            raise ConfigError(f"{client.name}: {written} is not traded there now; correct symbols in the config")
        for coin in (listed[symbol].base_asset, listed[symbol].quote_asset):
            if coin not in groups:
                raise ConfigError(f'{client.name}: groups does not say what {coin} counts as; add {coin} = "{coin}"')
    return {symbol: rest.instrument_of(one, client.name, wanted[symbol], groups, pips) for symbol, one in listed.items()}


async def _fee_pips(client: Client) -> int:
    """What a taker pays: the config's word, else the account's rate, else the usual ten basis points."""
    if client.config.taker_fee_pips is not None:
        return client.config.taker_fee_pips
    if client.key is None:
        return DEFAULT_FEE_PIPS
    reply = await client.call(client.exchange.private_get_account, {"omitZeroBalances": "true"}, weight=20)
    rates = _read(reply, rest.AccountView).commission_rates
    return rest.fee_pips(rates.taker) if rates else DEFAULT_FEE_PIPS


async def _measure(client: Client) -> None:
    async def theirs() -> int:
        reply = await client.call(client.exchange.public_get_time, {})
        return _read(reply, dict[str, int])["serverTime"]

    await client.measure_offset(theirs)


def _balances(account: rest.AccountView, context: wire.Context) -> tuple[Amount, ...]:
    """Free and locked together. Coins of which there is nothing are left out, those of our markets never."""
    traded = {asset.symbol for one in context.instruments.values() for asset in (one.base, one.quote)}
    held = {one.asset: parse_units(one.free, wire.DECIMALS) + parse_units(one.locked, wire.DECIMALS) for one in account.balances}
    coins = sorted(coin for coin in held.keys() | traded if held.get(coin) or coin in traded)
    return tuple(Amount(held.get(coin, 0), context.asset(coin)) for coin in coins)


def _read(reply: Any, kind: type[V]) -> V:
    """A reply as the type that it should be. FrameError if it is not."""
    try:
        return msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        raise FrameError(f"a reply of the exchange is not understood ({str(error)[:160]}); check url in the settings") from None
