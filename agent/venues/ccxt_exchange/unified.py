"""Every other exchange that ccxt knows: polled through REST, in ccxt's unified words. Slower than a native stream, but never wrong.

Prices of the book are rounded against us (bids down, asks up, sizes down). An order that the exchange does not find stays unknown:
only Binance's rules are known well enough here to prove an absence.
"""

import contextlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from agent.domain.amount import Amount, Asset, parse_units, plain
from agent.domain.errors import ConfigError, FrameError, NumberError, OutcomeUnknown, VenueError
from agent.domain.events import OrderFilled, OrderReported, VenueConnected
from agent.domain.instrument import Instrument
from agent.domain.market import BookSnapshot, Level, Listed
from agent.domain.order import ENDED, IN_DOUBT, RESTING, Fill, OrderRef, OrderState
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Signed, SignedRequest, VenueRequest
from agent.ports import PrivateFact, Profile, Resting, Snapshot, Tools, VenueEvent
from agent.venues.ccxt_exchange.client import Client, Config, RefusedRequestError
from agent.venues.ccxt_exchange.own_orders import REMEMBERED_MAX, OwnOrders, remember

DECIMALS_MAX: Final = 18
DECIMAL_PLACES, TICK_SIZE = 2, 4  # ccxt's precision modes
TRADES_MAX = 500
LATE_NS = 30_000_000_000  # no request is under way for so long
PAGE = 10  # ccxt does not say whether a list was cut; one of a round length may be a page
DEPTH_MAX = 100
PLAIN = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
STATES = {
    "open": OrderState.OPEN,
    "closed": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}
Row = Mapping[str, Any]


class UnifiedExchange:
    """Satisfies the port Venue, by polling. `instruments` by the exchange's symbol."""

    def __init__(self, client: Client, instruments: Mapping[str, Instrument]) -> None:
        self._client, self._api, self._instruments = client, client.exchange, instruments
        self._symbols = {one.id: symbol for symbol, one in instruments.items()}
        self._by_id = {one.id: one for one in instruments.values()}
        self._own = OwnOrders()
        self._numbers: OrderedDict[str, str] = OrderedDict()  # our order id -> the exchange's
        self._asked_ns: OrderedDict[str, int] = OrderedDict()
        self._told: OrderedDict[str, int] = OrderedDict()  # our order id -> base units that were told as filled
        self._polls = 0
        self.profile = Profile(client.name, "ccxt_exchange", False, None, sends_in_flight_max=client.config.sends_in_flight_max)

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port. One book per market and the news of our living orders, once per `poll_ms`."""
        books = await self._books()
        yield VenueConnected(self._client.name)
        yield Listed(self._client.name, tuple(self._by_id.values()), self._client.clock.now_ns())
        conditions, is_new = self._client.conditions, True
        conditions.key_refused = ""
        while True:
            for book in books:
                yield book
            for status in conditions.news(is_new=is_new):
                yield status
            is_new = False
            if conditions.key_refused:
                raise VenueError(f"{self._client.name} does not take the API key any more ({conditions.key_refused})")
            live = [msgspec.structs.replace(ref, filled=self._told.get(ref.order_id, 0)) for ref in self._own.live()]
            for fact in await self._answer(live, await self._open_orders()) if live else ():
                yield fact
            await self._client.clock.sleep(self._client.config.poll_ms / 1_000)
            books = await self._books()

    def build(self, approved: Approved) -> VenueRequest:
        """See the port. The fields have the same names for every exchange; ccxt translates them when the request leaves."""
        match approved.plan:
            case PlaceOrder() as plan:
                instrument = self._instrument(plan.instrument)
                if plan.replaces:
                    raise VenueError(f"{self._client.name}: cancel {plan.replaces} first; here nothing is replaced in one request")
                if plan.ticks <= 0 or plan.lots <= 0:
                    raise VenueError(f"{self._client.name}: order {plan.order_id} has no price or no size")
                is_post = plan.time_in_force == "POST"
                kind = (("type", "LIMIT_MAKER"),) if is_post else (("type", "LIMIT"), ("timeInForce", plan.time_in_force))
                fields = (
                    ("symbol", self._symbols[instrument.id]),
                    ("side", plan.side.upper()),
                    *kind,
                    ("quantity", plain(plan.lots * instrument.lot_units, instrument.base.decimals)),
                    ("price", plain(plan.ticks * instrument.tick_units, instrument.quote.decimals)),
                    ("newClientOrderId", plan.order_id),
                )
                return VenueRequest(plan.order_id, self._client.name, "place", fields)
            case CancelOrder() as plan:
                symbol = self._symbols[self._instrument(plan.instrument).id]
                return VenueRequest(
                    plan.order_id, self._client.name, "cancel", (("symbol", symbol), ("origClientOrderId", plan.target_id))
                )
            case plan:
                raise VenueError(f"{self._client.name} trades on an order book; it cannot do a {type(plan).__name__}")

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port."""
        if not isinstance(signed, SignedRequest) or self._client.key is None or signed.key_id != self._client.key.key_id:
            raise VenueError(f"{self._client.name}: order {signed.order_id} is not signed with this venue's key; nothing was sent")
        fields, order_id = dict(signed.request.fields), signed.order_id
        try:
            if signed.request.action == "cancel":
                return await self._cancel(order_id, fields)
            return await self._place(order_id, fields)
        except RefusedRequestError as refusal:
            facts = (OrderReported(order_id, OrderState.REJECTED, refusal.reason),)
            self._own.note(facts, self._client.clock.now_ns())
            return facts
        except (FrameError, NumberError) as error:
            raise OutcomeUnknown(f"{self._client.name}: the reply about {order_id} cannot be read: {error}") from None

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """See the port."""
        if self._client.key is None:
            raise VenueError(f"{self._client.name} has no key: set api_key and secret to see an account")
        held = await self._client.call(self._api.fetch_balance)
        rows = await self._open_orders()
        facts = await self._answer(asked, rows)
        traded = {asset.symbol: asset for one in self._by_id.values() for asset in (one.base, one.quote)}
        balances = tuple(
            Amount(_units_down(str(held["total"].get(coin) or "0"), asset.decimals), asset)
            for coin, asset in sorted(traded.items())
        )
        client = self._client
        counts = [sum(instrument is one for instrument, _ in rows.values()) for one in self._by_id.values()]
        missing = any(isinstance(fact, OrderReported) and fact.state in RESTING and fact.order_id not in rows for fact in facts)
        return Snapshot(
            client.name,
            client.account,
            balances,
            tuple(rows),
            tuple(facts),
            at_ns=client.clock.now_ns(),
            resting=tuple(_resting(row, order_id, instrument) for order_id, (instrument, row) in rows.items()),
            is_orders_whole=not missing and not any(count and count % PAGE == 0 for count in counts),
        )

    async def close(self) -> None:
        await self._client.close()

    # -- orders -------------------------------------------------------------------------------------------------------

    async def _place(self, order_id: str, fields: Mapping[str, str]) -> Sequence[PrivateFact]:
        is_post = fields["type"] == "LIMIT_MAKER"
        more: dict[str, Any] = {"clientOrderId": order_id} | (
            {"postOnly": True} if is_post else {"timeInForce": fields["timeInForce"]}
        )
        instrument = self._instruments[fields["symbol"]]
        arguments = (instrument.symbol, "limit", fields["side"].lower(), fields["quantity"], fields["price"], more)
        ref = OrderRef(order_id, self._client.name, instrument.id)
        self._own.departs(ref, self._client.clock.now_ns())
        try:
            order = await self._client.call(self._api.create_order, *arguments, kind="trade", about=order_id)
        except RefusedRequestError:
            raise
        except VenueError:
            self._own.stayed(order_id)
            raise
        return self._facts(order, order_id, instrument, order.get("trades") or ())

    async def _cancel(self, order_id: str, fields: Mapping[str, str]) -> Sequence[PrivateFact]:
        target = fields["origClientOrderId"]
        number = self._numbers.get(target)
        if number is None:
            raise VenueError(f"{self._client.name}: {target} is not known by the exchange's number; ask for it first")
        await self._client.call(
            self._api.cancel_order, number, self._instruments[fields["symbol"]].symbol, kind="cancel", about=order_id
        )
        return (OrderReported(order_id, OrderState.FILLED, f"took back {target}"),)  # the next poll says what became of the target

    async def _open_orders(self) -> dict[str, tuple[Instrument, Row]]:
        """What rests, by our id."""
        found: dict[str, tuple[Instrument, Row]] = {}
        for instrument in self._by_id.values():
            for row in await self._client.call(self._api.fetch_open_orders, instrument.symbol):
                found[str(row.get("clientOrderId") or row["id"])] = instrument, row
        return found

    async def _answer(self, asked: Sequence[OrderRef], rows: Mapping[str, tuple[Instrument, Row]]) -> Sequence[PrivateFact]:
        """What is certain about orders: from the list where it agrees with what is known, else asked one by one, some each time."""
        facts: list[PrivateFact] = []
        due: list[OrderRef] = []
        for ref in asked:
            instrument, row = rows.get(ref.order_id, (None, None))
            if instrument is not None and row is not None and _filled(row, instrument) == ref.filled:
                facts += self._facts(row, ref.order_id, instrument, ())
            else:
                due.append(ref)
        due.sort(key=lambda ref: (ref.state in ENDED, self._asked_ns.get(ref.order_id, 0), ref.state not in IN_DOUBT))
        for turn, ref in enumerate(due[: self._client.config.max_single_order_queries_per_cycle]):
            if turn:
                await self._client.clock.sleep(self._client.config.single_order_query_delay_ms / 1_000)
            remember(self._asked_ns, ref.order_id, self._client.clock.now_ns(), REMEMBERED_MAX)
            facts += await self._inquire(ref)
        return facts

    async def _inquire(self, ref: OrderRef) -> Sequence[PrivateFact]:
        """What is certain about one order: nothing, if it is not found."""
        if ref.target_id or self._own.target(ref.order_id):
            return await self._cancel_outcome(ref)
        instrument = self._instrument(ref.instrument)
        number = ref.venue_order_id or self._numbers.get(ref.order_id) or await self._number(ref, instrument)
        if not number:
            return ()
        try:
            order = await self._client.call(self._api.fetch_order, number, instrument.symbol)
        except RefusedRequestError:
            return ()
        trades: Sequence[Row] = order.get("trades") or ()
        if not trades and _filled(order, instrument):
            since_ms = order.get("timestamp")
            listed = await self._client.call(self._api.fetch_my_trades, instrument.symbol, since_ms, TRADES_MAX)
            trades = [trade for trade in listed if str(trade.get("order")) == number]
        return self._facts(order, ref.order_id, instrument, trades)

    async def _cancel_outcome(self, ref: OrderRef) -> Sequence[PrivateFact]:
        """A cancel is judged by its target."""
        target = ref.target_id or self._own.target(ref.order_id)
        facts = await self._inquire(OrderRef(target, ref.venue, ref.instrument))
        state = next((fact.state for fact in facts if isinstance(fact, OrderReported)), None)
        if state is OrderState.CANCELLED:
            return (*facts, OrderReported(ref.order_id, OrderState.FILLED, f"took back {target}"))
        departed_ns = max(ref.sent_ns, self._own.departed_ns(ref.order_id))
        is_late = departed_ns > 0 and self._client.clock.now_ns() > departed_ns + LATE_NS
        if state in ENDED or (state is not None and is_late):  # it never arrived: another one may be tried
            return (*facts, OrderReported(ref.order_id, OrderState.REJECTED, f"{target} is {state}"))
        return facts

    async def _number(self, ref: OrderRef, instrument: Instrument) -> str:
        for what in (self._api.fetch_open_orders, self._api.fetch_closed_orders):
            for order in await self._client.call(what, instrument.symbol):
                if order.get("clientOrderId") == ref.order_id:
                    return str(order["id"])
        return ""

    def _facts(self, order: Row, order_id: str, instrument: Instrument, trades: Sequence[Row]) -> Sequence[PrivateFact]:
        """Fills first. An order's end may come before all of them are listed: `filled` says how much there must be."""
        try:
            number, state = str(order["id"]), STATES[order.get("status") or "open"]
            is_buy = {"buy": True, "sell": False}[order["side"]]
            at_ms = int(order.get("lastTradeTimestamp") or order.get("timestamp") or 0)
            groups = self._client.config.groups
            fills = tuple(_fill(trade, order_id, instrument, groups, at_ms, is_buy=is_buy) for trade in trades)
        except (KeyError, NumberError) as error:
            raise FrameError(f"{self._client.name}: order {order_id} reads oddly: {error}") from None
        remember(self._numbers, order_id, number, REMEMBERED_MAX)
        told = Amount(_filled(order, instrument), instrument.base)
        if not told or sum(_base_units(fact.fill, instrument) for fact in fills) == told.units:
            remember(self._told, order_id, told.units, REMEMBERED_MAX)
        if state is OrderState.OPEN and told:
            state = OrderState.PARTIAL
        facts: Sequence[PrivateFact] = (*fills, OrderReported(order_id, state, "", number, filled=told))
        self._own.note(facts, self._client.clock.now_ns())
        return facts

    async def _books(self) -> tuple[BookSnapshot, ...]:
        self._polls += 1
        books = []
        for one in self._by_id.values():
            book = await self._client.call(
                self._api.fetch_order_book, one.symbol, min(self._client.config.depth_max, DEPTH_MAX), weight=5
            )
            sides = _levels(book["bids"], one, up=False), _levels(book["asks"], one, up=True)
            books.append(BookSnapshot(one.id, self._polls, *sides, self._client.clock.now_ns()))
        return tuple(books)

    def _instrument(self, name: str) -> Instrument:
        try:
            return self._by_id[name]
        except KeyError:
            raise VenueError(f"{self._client.name} does not list {name[:60]}; add it to symbols in the config") from None


async def open_unified(name: str, config: Config, tools: Tools) -> UnifiedExchange:
    """Load the markets and their rules. VenueError or ConfigError, one line, if that is not possible."""
    async with contextlib.AsyncExitStack() as stack:
        client = Client(name, config, tools, lambda status, _code, _text: False if status >= 500 else None)
        stack.push_async_callback(client.close)
        markets = await client.call(client.exchange.load_markets, weight=20)
        venue = UnifiedExchange(client, dict(_instrument(client, markets, symbol) for symbol in config.symbols))
        stack.pop_all()
    return venue


def _instrument(client: Client, markets: Mapping[str, Row], symbol: str) -> tuple[str, Instrument]:
    """A market's rules, with the exchange's own name for it."""
    market = markets.get(symbol)
    if market is None or not market.get("spot"):
        raise ConfigError(
            f"{client.name}: {symbol} is not a spot market of {client.config.exchange}; correct symbols in the config"
        )
    groups, mode = client.config.groups, client.exchange.precisionMode
    for coin in (market["base"], market["quote"]):
        if coin not in groups:
            raise ConfigError(f'{client.name}: groups does not say what {coin} counts as; add {coin} = "{coin}"')
    tick, lot = (_step(str(market["precision"][name]), mode, client.name) for name in ("price", "amount"))
    places = min(DECIMALS_MAX, max(8, _places(tick) + _places(lot)))
    base, quote = (Asset(coin, client.name, places, groups[coin]) for coin in (market["base"], market["quote"]))
    least = str(((market.get("limits") or {}).get("cost") or {}).get("min") or "0")
    config = client.config
    pips = config.taker_fee_pips if config.taker_fee_pips is not None else _units_up(str(market.get("taker") or "0.001"), 6)
    maker = config.maker_fee_pips if config.maker_fee_pips is not None else _maker_pips(market.get("maker"))
    rules = parse_units(tick, places), parse_units(lot, places), _units_up(least, places)
    return str(market["id"]), Instrument(client.name, symbol, base, quote, pips, *rules, maker_fee_pips=maker)


def _maker_pips(rate: Any) -> int | None:
    """A rate in millionths, rounded up: below zero it is paid to us. None where the exchange tells none."""
    if rate is None:
        return None
    text = str(rate)
    return -(parse_units(_plain(text[1:]), 18) // 10**12) if text.startswith("-") else _units_up(text, 6)


def _step(precision: str, mode: int, name: str) -> str:
    """A tick or lot as plain text, whichever way the exchange counts precision."""
    if mode == TICK_SIZE:
        return _plain(precision)
    if mode == DECIMAL_PLACES and precision.isdigit():
        return plain(1, int(precision))
    raise ConfigError(f"{name}: this exchange counts precision in significant digits, which is not supported; choose another")


def _fill(trade: Row, order_id: str, instrument: Instrument, groups: Mapping[str, str], at_ms: int, *, is_buy: bool) -> OrderFilled:
    """One trade; what is paid and the fee round up, what is received rounds down.

    The side is the order's, and so is the time where the trade has none: ccxt leaves both out of the trades in some replies.
    """
    base = Amount(_units_down(str(trade["amount"]), instrument.base.decimals), instrument.base)
    value, scale = _units_down(str(trade["price"]), instrument.quote.decimals) * base.units, 10**instrument.base.decimals
    quote = Amount(-(-value // scale) if is_buy else value // scale, instrument.quote)
    paid, received = (quote, base) if is_buy else (base, quote)
    fee = trade.get("fee") or {}
    coin = fee.get("currency") or received.asset.symbol
    known = {asset.symbol: asset for asset in (instrument.base, instrument.quote)}
    asset = known.get(coin) or Asset(coin, instrument.venue, DECIMALS_MAX, groups.get(coin, ""))
    charged = Amount(_units_up(str(fee.get("cost") or "0"), asset.decimals), asset)
    at_ns = int(trade.get("timestamp") or at_ms) * 1_000_000
    return OrderFilled(Fill(order_id, instrument.venue, instrument.id, str(trade["id"]), paid, received, charged, at_ns))


def _filled(order: Row, instrument: Instrument) -> int:
    return _units_down(str(order.get("filled") or "0"), instrument.base.decimals)


def _base_units(fill: Fill, instrument: Instrument) -> int:
    return (fill.received if fill.received.asset == instrument.base else fill.paid).units


def _resting(row: Row, order_id: str, instrument: Instrument) -> Resting:
    ticks = _units_down(str(row.get("price") or "0"), instrument.quote.decimals) // instrument.tick_units
    lots = _units_down(str(row.get("amount") or "0"), instrument.base.decimals) // instrument.lot_units
    filled = _filled(row, instrument) // instrument.lot_units
    return Resting(order_id, instrument.id, "buy" if row.get("side") == "buy" else "sell", ticks, lots, filled, str(row["id"]))


def _levels(rows: Sequence[Sequence[str]], instrument: Instrument, *, up: bool) -> tuple[Level, ...]:
    """Levels on tick and lot, rounded against whoever takes them; levels that fall together are summed."""
    found: dict[int, int] = {}
    units = _units_up if up else _units_down
    for price, size, *_ in rows:
        whole = units(str(price), instrument.quote.decimals)
        ticks = -(-whole // instrument.tick_units) if up else whole // instrument.tick_units
        lots = _units_down(str(size), instrument.base.decimals) // instrument.lot_units
        if ticks and lots:
            found[ticks] = found.get(ticks, 0) + lots
    return tuple(found.items())


def _plain(text: str) -> str:
    """`1e-8` as `0.00000001`, within bounds."""
    if not PLAIN.fullmatch(text):
        raise NumberError(f"{text[:24]!r} is not a number")
    return format(Decimal(text), "f") if "e" in text.lower() else text


def _places(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


def _units_down(text: str, decimals: int) -> int:
    front, _, part = _plain(text).partition(".")
    return parse_units(f"{front}.{part[:decimals] or '0'}", decimals)


def _units_up(text: str, decimals: int) -> int:
    part = _plain(text).partition(".")[2]
    return _units_down(text, decimals) + (1 if part[decimals:].strip("0") else 0)
