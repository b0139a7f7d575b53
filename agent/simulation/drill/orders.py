"""What an exchange knows, as plain data: requests, orders, trades, and all the rest in one ledger that can be written down."""

from typing import Literal

import msgspec

from agent.domain.events import FillReversed, OrderAmended, OrderFilled, OrderReported, VenueStatus
from agent.domain.instrument import Side
from agent.domain.order import ENDED, Fill, OrderState
from agent.simulation.drill.clock import START_NS, Dice
from agent.simulation.drill.market import ETH_WHOLE, PRICE_TICKS, SCALE, USDT_WHOLE

LEVELS = 5
DEPTH_LOTS = 100_000  # on each level of the background: ten coins
Told = OrderReported | OrderFilled | FillReversed | OrderAmended | VenueStatus


class RefusedError(Exception):
    """The exchange answers, and the answer is no. `code` is its own."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Request(msgspec.Struct, frozen=True):
    """What a client asks for, in numbers. `sent_ns` by the exchange's clock as the client believes it to be."""

    action: Literal["place", "cancel", "replace"]
    client_id: str
    sent_ns: int
    side: Side = "sell"
    ticks: int = 0
    lots: int = 0
    time_in_force: str = "GTC"
    target_id: str = ""


class Placed(msgspec.Struct):
    """An order as the exchange has it. `filled` counts lots of trades that stand."""

    client_id: str
    number: int
    side: Side
    ticks: int
    lots: int
    state: OrderState
    at_ns: int
    filled: int = 0
    version: int = 0

    @property
    def open_lots(self) -> int:
        return 0 if self.state in ENDED else self.lots - self.filled


class Trade(msgspec.Struct):
    """A fill as the exchange has it; `is_busted`: taken back since."""

    fill: Fill
    lots: int
    is_busted: bool = False


class Due(msgspec.Struct):
    """A request on its way, or (`late`) a trade that happened and that nobody was told of yet."""

    at_ns: int
    request: Request | None = None
    late_id: str = ""
    late_lots: int = 0


class ExchangeLedger(msgspec.Struct):
    """All that an exchange knows."""

    venue: str
    dice: Dice
    now_ns: int = START_NS
    bid: int = PRICE_TICKS
    seq: int = 0
    bid_lots: list[int] = msgspec.field(default_factory=lambda: [DEPTH_LOTS] * LEVELS)
    ask_lots: list[int] = msgspec.field(default_factory=lambda: [DEPTH_LOTS] * LEVELS)
    base: int = ETH_WHOLE * SCALE  # what the account has there, free and locked
    quote: int = USDT_WHOLE * SCALE
    orders: dict[str, Placed] = {}
    trades: dict[str, Trade] = {}  # by the exchange's number and the order
    events: list[Told] = []  # the private stream, as it should be
    arrivals: list[str] = []  # every order that reached it, by client order id
    departed: dict[str, int] = {}  # request -> the last moment at which it may still arrive
    under_way: list[Due] = []
    refused: dict[str, str] = {}  # client order id -> why it was never accepted
    number: int = 0
    is_down: bool = False
    status: Literal["TRADING", "CANCEL_ONLY"] = "TRADING"
    dead_man_ns: int = 0  # when it cancels everything; 0: never
    appetite: int = 30  # percent of ticks at which somebody takes from the book
    haste: int = 0  # percent of orders before which somebody took most of what the book showed
    taken_back: list[str] = []  # orders that it cancelled or cut by itself
    late_ids: list[str] = []  # orders that traded after they had ended
