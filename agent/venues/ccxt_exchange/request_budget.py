"""How much we may still ask of an exchange. Its windows are fixed and start on its own clock; its headers correct our count.

Reads may use four fifths of a window and new orders nineteen twentieths, so that a cancel always gets through. When the exchange
says 'too many' (429, 418), everything stops until the moment that it names: whoever goes on is banned.
"""

from collections.abc import Mapping
from typing import Literal

from agent.ports import Clock

Kind = Literal["read", "trade", "cancel"]

MINUTE_NS = 60_000_000_000
TEN_SECONDS_NS = 10_000_000_000
SHARE = {"read": 80, "trade": 95, "cancel": 100}  # percent of the window that each kind may fill
STOP_S = {429: 60, 418: 300}  # when the exchange does not say how long
STOP_S_MAX = 3 * 86_400
WEIGHT_HEADER, ORDERS_HEADER, RETRY_HEADER = "x-mbx-used-weight-1m", "x-mbx-order-count-10s", "retry-after"


class Window:
    """One fixed window: how much was used since it began."""

    def __init__(self, length_ns: int, limit: int) -> None:
        self.length_ns, self.limit = length_ns, limit
        self.used, self._index = 0, -1

    def turn(self, now_ns: int) -> None:
        """Start afresh when the exchange's clock has entered the next window."""
        index = now_ns // self.length_ns
        if index != self._index:
            self._index, self.used = index, 0

    def wait_ns(self, amount: int, share: int, now_ns: int) -> int:
        """0 if `amount` fits into `share` percent of the window, else the time until the next window begins."""
        self.turn(now_ns)
        if (self.used + amount) * 100 <= self.limit * share:
            return 0
        return self.length_ns - now_ns % self.length_ns


class RequestBudget:
    """Counts requests against the exchange's limits. `offset_ns` is the exchange's clock minus ours."""

    def __init__(self, clock: Clock, weight_per_minute: int, orders_per_10s: int) -> None:
        self._clock = clock
        self.offset_ns = 0
        self.weight = Window(MINUTE_NS, weight_per_minute)
        self.orders = Window(TEN_SECONDS_NS, orders_per_10s)
        self.stopped_until_ns = 0

    def take(self, weight: int, kind: Kind) -> int:
        """Take what a request costs and return 0, or take nothing and return the nanoseconds to wait."""
        now_ns = self._now_ns()
        share = SHARE[kind]
        wait_ns = max(self.stopped_until_ns - now_ns, self.weight.wait_ns(weight, share, now_ns), 0)
        if kind == "trade":
            wait_ns = max(wait_ns, self.orders.wait_ns(1, 100, now_ns))
        if wait_ns:
            return wait_ns
        self.weight.used += weight
        self.orders.used += kind == "trade"
        return 0

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Correct the count by a reply. The exchange's figure wins when it is higher: others may share our address."""
        told = {name.lower(): text for name, text in headers.items()}
        now_ns = self._now_ns()
        for window, name in ((self.weight, WEIGHT_HEADER), (self.orders, ORDERS_HEADER)):
            window.turn(now_ns)
            window.used = max(window.used, _whole(told.get(name, ""), 0))
        if status in STOP_S:
            seconds = min(_whole(told.get(RETRY_HEADER, ""), STOP_S[status]), STOP_S_MAX)
            self.stopped_until_ns = max(self.stopped_until_ns, now_ns + seconds * 1_000_000_000)

    def _now_ns(self) -> int:
        return self._clock.now_ns() + self.offset_ns


def _whole(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else default
