"""What Binance spot answers to REST requests, as facts; the rules of its markets; and what its error codes prove. Pure.

Source: Binance spot API documentation (REST endpoints, filters, error codes).
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from agent.domain.amount import Amount, Asset, parse_units
from agent.domain.errors import FrameError, NumberError
from agent.domain.events import OrderAmended, OrderFilled, OrderReported
from agent.domain.instrument import Instrument
from agent.domain.market import BookSnapshot
from agent.domain.order import OrderState
from agent.ports import Resting
from agent.venues.ccxt_exchange.binance_wire import DECIMALS, SCALE, Context, Pairs, filled, levels, state_of

V = TypeVar("V")


class PartialFill(msgspec.Struct, frozen=True):
    price: str
    qty: str
    commission: str
    commissionAsset: str  # noqa: N815 - the exchange's spelling
    tradeId: int  # noqa: N815


class OrderView(msgspec.Struct, frozen=True, rename="camel"):
    """An order in the reply to placing, cancelling or asking. `fills` only in the first."""

    symbol: str
    order_id: int
    client_order_id: str
    status: str
    executed_qty: str
    side: Literal["BUY", "SELL"]
    price: str
    orig_qty: str
    orig_client_order_id: str = ""
    transact_time: int = 0
    update_time: int = 0
    fills: tuple[PartialFill, ...] = ()

    @property
    def told_id(self) -> str:
        """The order's client id as the exchange has it now."""
        return self.orig_client_order_id or self.client_order_id

    @property
    def filled_units(self) -> int:
        return parse_units(self.executed_qty, DECIMALS, "executedQty")

    @property
    def size_units(self) -> int:
        return parse_units(self.orig_qty, DECIMALS, "origQty")

    @property
    def state(self) -> OrderState:
        return state_of(self.status)


class Complaint(msgspec.Struct, frozen=True):
    code: int
    msg: str


class LegsView(msgspec.Struct, frozen=True, rename="camel"):
    """How the two legs of a cancel-and-replace went: SUCCESS, FAILURE or NOT_ATTEMPTED. Each answer is an order or a complaint."""

    cancel_result: str
    new_order_result: str
    cancel_response: Any = None
    new_order_response: Any = None


class TradeView(msgspec.Struct, frozen=True, rename="camel"):
    symbol: str
    id: int
    order_id: int
    price: str
    qty: str
    commission: str
    commission_asset: str
    time: int
    is_buyer: bool


class DepthView(msgspec.Struct, frozen=True, rename="camel"):
    last_update_id: int
    bids: Pairs
    asks: Pairs


class BalanceView(msgspec.Struct, frozen=True):
    asset: str
    free: str
    locked: str


class Rates(msgspec.Struct, frozen=True):
    maker: str
    taker: str


class AccountView(msgspec.Struct, frozen=True, rename="camel"):
    balances: tuple[BalanceView, ...]
    commission_rates: Rates | None = None


class RightsView(msgspec.Struct, frozen=True, rename="camel"):
    enable_withdrawals: bool


class SystemView(msgspec.Struct, frozen=True):
    """0 is normal, 1 is maintenance."""

    status: int


class Filter(msgspec.Struct, frozen=True, rename="camel"):
    filter_type: str
    tick_size: str = ""
    step_size: str = ""
    min_notional: str = ""


class SymbolView(msgspec.Struct, frozen=True, rename="camel"):
    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    filters: tuple[Filter, ...]
    allowed_self_trade_prevention_modes: tuple[str, ...] = ()


class RateLimit(msgspec.Struct, frozen=True, rename="camel"):
    """`count`: what was used of it so far, in the answers of the WebSocket API."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int
    count: int = 0


class ExchangeView(msgspec.Struct, frozen=True, rename="camel"):
    symbols: tuple[SymbolView, ...]
    rate_limits: tuple[RateLimit, ...] = ()


def read(reply: Any, kind: type[V]) -> V:
    """A reply as the type that it should be. FrameError if it is not."""
    try:
        return msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        raise FrameError(f"a reply of the exchange is not understood ({str(error)[:160]}); check url in the settings") from None


def book_snapshot(view: DepthView, instrument: Instrument, at_ns: int) -> BookSnapshot:
    """The book as the REST interface shows it."""
    try:
        bids, asks = levels(view.bids, instrument), levels(view.asks, instrument)
    except NumberError as error:
        raise FrameError(str(error)) from None
    return BookSnapshot(instrument.id, view.last_update_id, bids, asks, at_ns)


def fills_in_reply(view: OrderView, order_id: str, context: Context) -> tuple[OrderFilled, ...]:
    """The trades that the reply to a new order lists."""
    instrument, is_buy = context.instrument(view.symbol), view.side == "BUY"
    return tuple(
        filled(
            context,
            instrument,
            order_id,
            part.tradeId,
            is_buy,
            part.price,
            part.qty,
            part.commission,
            part.commissionAsset,
            view.transact_time,
        )
        for part in view.fills
    )


def fill_of_trade(trade: TradeView, order_id: str, context: Context) -> OrderFilled:
    """One of our trades as the list of trades shows it; it names the order by the exchange's number, so `order_id` is ours."""
    instrument = context.instrument(trade.symbol)
    fee = trade.commission, trade.commission_asset
    return filled(context, instrument, order_id, trade.id, trade.is_buyer, trade.price, trade.qty, *fee, trade.time)


def order_report(view: OrderView, order_id: str, context: Context) -> OrderReported:
    """Where an order stands and how much of it was traded, by our id."""
    told = Amount(view.filled_units, context.instrument(view.symbol).base)
    return OrderReported(order_id, view.state, "", str(view.order_id), filled=told)


def amendment(view: OrderView, order_id: str, context: Context) -> OrderAmended:
    """The order as the exchange made it."""
    size = Amount(view.size_units, context.instrument(view.symbol).base)
    return OrderAmended(order_id, size, view.update_time, "the exchange changed the order")


def resting(view: OrderView, order_id: str, context: Context) -> Resting:
    """One of the open orders. What lies between two ticks or lots, from before the rules changed, rounds down."""
    one = context.instrument(view.symbol)
    ticks = parse_units(view.price, DECIMALS, "price") // one.tick_units
    lots = view.size_units // one.lot_units, view.filled_units // one.lot_units
    return Resting(order_id, one.id, "buy" if view.side == "BUY" else "sell", ticks, *lots, str(view.order_id))


def balances(account: AccountView, context: Context) -> tuple[Amount, ...]:
    """Free and locked together. Coins of which there is nothing are left out, those of our markets never."""
    traded = {asset.symbol for one in context.instruments.values() for asset in (one.base, one.quote)}
    held = {one.asset: parse_units(one.free, DECIMALS) + parse_units(one.locked, DECIMALS) for one in account.balances}
    coins = sorted(coin for coin in held.keys() | traded if held.get(coin) or coin in traded)
    return tuple(Amount(held.get(coin, 0), context.asset(coin)) for coin in coins)


def instrument_of(
    view: SymbolView, venue: str, symbol: str, groups: Mapping[str, str], fee_pips: int, maker_pips: int
) -> Instrument:
    """A market's rules from the exchange's own strings. `symbol` is how the config writes it. FrameError if a rule is missing."""
    rules = {rule.filter_type: rule for rule in view.filters}
    notional = rules.get("NOTIONAL") or rules.get("MIN_NOTIONAL")
    try:
        tick = parse_units(rules["PRICE_FILTER"].tick_size, DECIMALS, "tickSize")
        lot = parse_units(rules["LOT_SIZE"].step_size, DECIMALS, "stepSize")
        least = parse_units(notional.min_notional, DECIMALS, "minNotional") if notional else 0
    except (KeyError, NumberError) as error:
        raise FrameError(f"{venue}: the rules of {view.symbol} are not complete: {error}") from None
    if not tick or not lot:
        raise FrameError(f"{venue}: {view.symbol} has no tick or no lot")
    base, quote = (Asset(coin, venue, DECIMALS, groups.get(coin, "")) for coin in (view.base_asset, view.quote_asset))
    return Instrument(venue, symbol, base, quote, fee_pips, tick, lot, least, maker_fee_pips=maker_pips)


def fee_pips(rate: str) -> int:
    """A rate such as `0.00100000` in millionths, rounded up: we pay it."""
    units = parse_units(rate, DECIMALS, "rate") * 1_000_000
    return -(-units // SCALE)


# -- what an error code proves -----------------------------------------------------------------------------------------

NOT_FOUND, NOTHING_TO_CANCEL, TIME_OUTSIDE, BAD_SYMBOL, FILTER = "-2013", "-2011", "-1021", "-1121", "-1013"
DUPLICATE, DUPLICATE_CODES = "duplicate order", ("-4116", "-20132")
REFUSALS = frozenset(
    {-1002, -1003, -1010, -1013, -1014, -1015, -1020, -1021, -1022, -2008, -2010, -2011, -2013, -2014, -2015, -2016, -2026}
    | set(range(-1199, -1098))  # malformed, missing or unknown parameters
    | {-20121, -20124, -20130, -20194, -20195, -20196, -20198, -20204}  # of the exchange's own TWAP; -20132 is a duplicate
)


def proves_refusal(status: int, code: str, text: str) -> bool | None:
    """True: certainly not executed. False: the outcome is open. None: this code says nothing, judge by other means.

    5xx is 'execution status unknown' by the exchange's own definition, whatever the code; 'Duplicate order sent' means that an
    earlier attempt landed.
    """
    if status >= 500 or DUPLICATE in text.lower() or code in DUPLICATE_CODES:
        return False
    if status in (418, 429):
        return True
    number = code.removeprefix("-")
    if not (number.isascii() and number.isdigit() and len(number) < 7):
        return None
    return True if int(code) in REFUSALS else None
