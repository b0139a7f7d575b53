"""The words of Binance spot, read strictly and turned into facts. Pure: a frame and a context in, facts out.

All decimals are text with at most eight places, so every asset has eight decimals here. The same trade has the same id, price and
size in the reply to an order, on the private stream and in the list of our trades, so it becomes the same `Fill` from all three.
Source: Binance spot API documentation (web socket streams, user data stream, REST), as the sandbox speaks it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from agent.domain.amount import Amount, Asset, parse_units
from agent.domain.errors import FrameError, NumberError
from agent.domain.events import FillReversed, OrderAmended, OrderFilled, OrderReported, VenueDisconnected
from agent.domain.instrument import Instrument
from agent.domain.market import BookDiff, Level, TradePrint
from agent.domain.order import Fill, OrderState
from agent.ports import PrivateFact, VenueEvent

DECIMALS = 8
WHOLE_MAX = 20  # digits before the point that are read the short way
SCALE = 100_000_000
PRICES_KEPT = 1 << 15
OFF_TICK = -1
MS = 1_000_000  # nanoseconds

STATES = {
    "NEW": OrderState.OPEN,
    "PENDING_NEW": OrderState.OPEN,
    "PARTIALLY_FILLED": OrderState.PARTIAL,
    "PENDING_CANCEL": OrderState.OPEN,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELLED,
    "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}
Pairs = list[tuple[str, str]]


class Context(msgspec.Struct, frozen=True):
    """What a frame is read against: the venue's name, its instruments by the exchange's symbol, groups by coin, time of receipt."""

    venue: str
    instruments: Mapping[str, Instrument]
    groups: Mapping[str, str]
    at_ns: int = 0

    def asset(self, symbol: str) -> Asset:
        return Asset(symbol, self.venue, DECIMALS, self.groups.get(symbol, ""))

    def instrument(self, symbol: str) -> Instrument:
        try:
            return self.instruments[symbol]
        except KeyError:
            raise FrameError(f"{self.venue}: a message about {symbol[:24]!r}, which was not asked for") from None


# -- frames of the streams ---------------------------------------------------------------------------------------------


class DepthUpdate(msgspec.Struct, frozen=True, tag="depthUpdate", tag_field="e"):
    symbol: str = msgspec.field(name="s")
    first: int = msgspec.field(name="U")
    last: int = msgspec.field(name="u")
    bids: Pairs = msgspec.field(name="b")
    asks: Pairs = msgspec.field(name="a")


class Trade(msgspec.Struct, frozen=True, tag="trade", tag_field="e"):
    symbol: str = msgspec.field(name="s")
    price: str = msgspec.field(name="p")
    size: str = msgspec.field(name="q")
    is_buyer_maker: bool = msgspec.field(name="m")


class ExecutionReport(msgspec.Struct, frozen=True, tag="executionReport", tag_field="e"):
    """`size`, `price`, `trade_id` and `fee` are those of this one trade; `filled` is the order's sum, `quantity` its whole."""

    symbol: str = msgspec.field(name="s")
    client_id: str = msgspec.field(name="c")
    original_id: str = msgspec.field(name="C")
    side: Literal["BUY", "SELL"] = msgspec.field(name="S")
    execution: str = msgspec.field(name="x")
    status: str = msgspec.field(name="X")
    reject: str = msgspec.field(name="r")
    order_number: int = msgspec.field(name="i")
    quantity: str = msgspec.field(name="q")
    size: str = msgspec.field(name="l")
    filled: str = msgspec.field(name="z")
    price: str = msgspec.field(name="L")
    fee: str = msgspec.field(name="n")
    trade_id: int = msgspec.field(name="t")
    time_ms: int = msgspec.field(name="T")
    fee_coin: str | None = msgspec.field(name="N")

    @property
    def order_id(self) -> str:
        """Our id of the order. In the report of a cancel, `c` is the cancel's; of an amendment, the order's new one."""
        return self.original_id or self.client_id


class StreamTerminated(msgspec.Struct, frozen=True, tag="eventStreamTerminated", tag_field="e"):
    """The private stream has ended; what happens from here on is not told."""


class ListenKeyExpired(msgspec.Struct, frozen=True, tag="listenKeyExpired", tag_field="e"):
    """The same for who listens by a listen key."""


class ServerShutdown(msgspec.Struct, frozen=True, tag="serverShutdown", tag_field="e"):
    """The exchange will close this connection."""


class AccountPosition(msgspec.Struct, frozen=True, tag="outboundAccountPosition", tag_field="e"):
    """Balances after a change. Known and not needed: the ledger follows fills, and `snapshot` is what it is held against."""


class BalanceUpdate(msgspec.Struct, frozen=True, tag="balanceUpdate", tag_field="e"):
    """A deposit or withdrawal. Known and not needed, as above."""


class ListStatus(msgspec.Struct, frozen=True, tag="listStatus", tag_field="e"):
    """News of an order list. We place none."""


class LockUpdate(msgspec.Struct, frozen=True, tag="externalLockUpdate", tag_field="e"):
    """Part of a balance was locked elsewhere. Known and not needed, as above."""


Ended = StreamTerminated | ListenKeyExpired | ServerShutdown
PrivateEvent = ExecutionReport | Ended | AccountPosition | BalanceUpdate | ListStatus | LockUpdate
MarketEvent = DepthUpdate | Trade | ServerShutdown


class Complaint(msgspec.Struct, frozen=True):
    code: int
    msg: str


class Frame(msgspec.Struct, frozen=True):
    """Everything that can come over a socket: market data (`stream`, `data`), private news (`event`), or an answer (`id`)."""

    stream: str | None = None
    data: MarketEvent | None = None
    event: PrivateEvent | None = None
    id: str | int | None = None
    status: int | None = None
    error: Complaint | None = None


_frames = msgspec.json.Decoder(Frame)


def decode(raw: str | bytes) -> Frame:
    """One frame of any of the sockets. FrameError if it is none that this program knows."""
    try:
        frame = _frames.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(f"not a message of this exchange: {str(error)[:160]}") from None
    if (frame.data is None or not frame.stream) and frame.event is None and frame.id is None:
        raise FrameError("a message without data, event or id")
    return frame


def parse(raw: str | bytes, context: Context) -> Iterator[VenueEvent]:
    """The facts in one frame, none for an answer that brings no news. Raises FrameError before any fact if it is not understood."""
    return iter(facts_of(decode(raw), context))


def facts_of(frame: Frame, context: Context) -> Sequence[VenueEvent]:
    """As `parse`, for a frame that is decoded already."""
    try:
        match frame.data or frame.event:
            case DepthUpdate() as change:
                return (_diff(change, context),)
            case Trade() as trade:
                instrument = context.instrument(trade.symbol)
                at = levels([(trade.price, trade.size)], instrument)
                return tuple(TradePrint(instrument.id, *level, trade.is_buyer_maker, context.at_ns) for level in at if level[1])
            case ExecutionReport() as report:
                return _reported(report, context)
            case StreamTerminated() | ListenKeyExpired() | ServerShutdown() as ended:
                return (VenueDisconnected(context.venue, type(ended).__name__),)
            case _:
                pass
    except NumberError as error:
        raise FrameError(str(error)) from None
    if frame.error is not None:
        raise FrameError(f"{context.venue} answers {frame.error.code} {frame.error.msg[:160]}", str(frame.error.code))
    return ()


def _diff(change: DepthUpdate, context: Context) -> BookDiff:
    if change.first > change.last:
        raise FrameError(f"a change of the book from {change.first} to {change.last}")
    instrument = context.instrument(change.symbol)
    bids, asks = levels(change.bids, instrument), levels(change.asks, instrument)
    return BookDiff(instrument.id, change.first, change.last, bids, asks, context.at_ns)


def levels(pairs: Pairs, instrument: Instrument) -> tuple[Level, ...]:
    """Levels on tick and lot. An exchange that makes its ticks coarser keeps what rested between them: that is left out.

    Sizes round down to lots. So less may be shown than there is, never more.
    """
    tick, lot = instrument.tick_units, instrument.lot_units
    found = [(_ticks(price, tick), _units(size) // lot) for price, size in pairs]
    return tuple([level for level in found if level[0] != OFF_TICK])


def _units(text: str) -> int:
    """As `parse_units`; sooner for the form in which the exchange writes every size: with all eight places."""
    front, _, part = text.partition(".")
    digits = front + part
    if len(part) == DECIMALS and 0 < len(front) <= WHOLE_MAX and digits.isascii() and digits.isdigit():
        return int(digits)
    return parse_units(text, DECIMALS, "level")


def _steps(text: str, step_units: int) -> int:
    steps, rest = divmod(parse_units(text, DECIMALS, "level"), step_units)
    return OFF_TICK if rest else steps


_ticks = lru_cache(maxsize=PRICES_KEPT)(_steps)  # the same prices come again and again: three times faster


def _reported(report: ExecutionReport, context: Context) -> Sequence[PrivateFact]:
    if report.symbol not in context.instruments:
        return ()  # our account, but not a market that this agent trades
    base = context.instrument(report.symbol).base
    told = Amount(parse_units(report.filled, DECIMALS, "filled"), base)
    facts: list[PrivateFact] = []
    match report.execution:
        case "TRADE":
            facts.append(_trade(report, context))
        case "TRADE_CANCEL":
            facts.append(FillReversed(report.order_id, _trade(report, context).fill.key, "the exchange took the trade back"))
        case "REPLACED":
            size = Amount(parse_units(report.quantity, DECIMALS, "quantity"), base)
            facts.append(OrderAmended(report.order_id, size, report.time_ms, "the exchange changed the order"))
        case _:
            pass
    reason = "" if report.reject == "NONE" else report.reject
    if report.execution == "TRADE_PREVENTION":
        reason = reason or "it would have traded with another order of ours"
    facts.append(OrderReported(report.order_id, state_of(report.status), reason, str(report.order_number), filled=told))
    if report.execution == "CANCELED" and report.client_id != report.order_id:
        facts.append(cancel_done(report.client_id, report.order_id))
    return facts


def _trade(report: ExecutionReport, context: Context) -> OrderFilled:
    instrument, is_buy = context.instrument(report.symbol), report.side == "BUY"
    fee = report.fee, report.fee_coin
    return filled(context, instrument, report.order_id, report.trade_id, is_buy, report.price, report.size, *fee, report.time_ms)


def state_of(status: str) -> OrderState:
    try:
        return STATES[status]
    except KeyError:
        raise FrameError(f"an order in a state that is not known: {status[:24]!r}") from None


def cancel_done(cancel_id: str, order_id: str) -> OrderReported:
    """A cancel is an order of its own: it ends FILLED when it did what it was sent for."""
    return OrderReported(cancel_id, OrderState.FILLED, f"took back {order_id}")


def filled(
    context: Context,
    instrument: Instrument,
    order_id: str,
    trade_id: int,
    is_buy: bool,
    price: str,
    size: str,
    fee: str,
    fee_coin: str | None,
    time_ms: int,
) -> OrderFilled:
    """One trade of ours. Where price x size is finer than a unit, what is paid rounds up and what is received down."""
    base = Amount(parse_units(size, DECIMALS, "size"), instrument.base)
    value = parse_units(price, DECIMALS, "price") * base.units
    quote = Amount(-(-value // SCALE) if is_buy else value // SCALE, instrument.quote)
    paid, received = (quote, base) if is_buy else (base, quote)
    fee_asset = context.asset(fee_coin) if fee_coin else received.asset
    charged = Amount(parse_units(fee, DECIMALS, "fee"), fee_asset)
    return OrderFilled(Fill(order_id, context.venue, instrument.id, str(trade_id), paid, received, charged, time_ms * MS))
