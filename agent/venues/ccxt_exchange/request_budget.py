"""How much we may still ask of an exchange. Its windows are fixed and start on its own clock; its replies correct our count.

Reads may use four fifths of a window and new orders nineteen twentieths, so that a cancel always gets through. 'Too many' (429)
stops everything but cancels until the moment that the exchange names. A ban (418) stops those as well, but for one now and then: it
may be the one that matters, and it finds out whether the ban has ended. Both ends are noted: a restart does not forget them.
"""

from collections.abc import Mapping, MutableMapping
from typing import Literal

from agent.ports import Clock

Kind = Literal["read", "trade", "cancel"]

MINUTE_NS = 60_000_000_000
TEN_SECONDS_NS = 10_000_000_000
SHARE = {"read": 80, "trade": 95, "cancel": 100}  # percent of the window that each kind may fill
TOO_MANY, BANNED = 429, 418
STOP_S = {TOO_MANY: 60, BANNED: 300}  # when the exchange does not say how long
STOP_S_MAX = 3 * 86_400
BANNED_CANCEL_NS = 10_000_000_000  # between two cancels that are tried during a ban
NOTES = {TOO_MANY: "limited_until_ns", BANNED: "banned_until_ns"}
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
    """Counts requests against the exchange's limits. `offset_ns` is the exchange's clock minus ours; ends of stops are on ours."""

    def __init__(self, clock: Clock, weight_per_minute: int, orders_per_10s: int, notes: MutableMapping[str, str]) -> None:
        self._clock, self._notes = clock, notes
        self.offset_ns = 0
        self.weight = Window(MINUTE_NS, weight_per_minute)
        self.orders = Window(TEN_SECONDS_NS, orders_per_10s)
        self._until_ns = {status: _whole(notes.get(name, ""), 0) for status, name in NOTES.items()}
        self._tried_ns = 0

    def take(self, weight: int, kind: Kind) -> int:
        """Take what a request costs and return 0, or take nothing and return the nanoseconds to wait."""
        now_ns = self._clock.now_ns()
        wait_ns = max(self._stop_ns(kind, now_ns), self.weight.wait_ns(weight, SHARE[kind], now_ns + self.offset_ns))
        if kind == "trade":
            wait_ns = max(wait_ns, self.orders.wait_ns(1, 100, now_ns + self.offset_ns))
        if wait_ns:
            return wait_ns
        if self._until_ns[BANNED] > now_ns:
            self._tried_ns = now_ns
        self.weight.used += weight
        self.orders.used += kind == "trade"
        return 0

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Correct the count by the headers of a reply."""
        told = {name.lower(): text for name, text in headers.items()}
        weight, orders = (_whole(told.get(name, ""), 0) for name in (WEIGHT_HEADER, ORDERS_HEADER))
        self.counted(status, weight, orders, _whole(told.get(RETRY_HEADER, ""), -1))

    def counted(self, status: int, weight: int, orders: int, retry_s: int = -1) -> None:
        """Correct the count by what a reply says was used. The exchange's figure wins if it is higher: others may share our
        address.

        `retry_s`: how long the exchange wants to be left alone, where it says so; -1 if not.
        """
        now_ns = self._clock.now_ns()
        for window, used in ((self.weight, weight), (self.orders, orders)):
            window.turn(now_ns + self.offset_ns)
            window.used = max(window.used, used)
        if status in STOP_S:
            seconds = min(retry_s if retry_s >= 0 else STOP_S[status], STOP_S_MAX)
            self._until_ns[status] = max(self._until_ns[status], now_ns + seconds * 1_000_000_000)
            self._notes[NOTES[status]] = str(self._until_ns[status])

    def stopped(self) -> tuple[str, int]:
        """Why nothing new may be asked and until when; ("", 0) if it may."""
        now_ns, until_ns = self._clock.now_ns(), max(self._until_ns.values())
        if until_ns <= now_ns:
            return "", 0
        return ("the exchange has banned us" if self._until_ns[BANNED] > now_ns else "too many requests"), until_ns

    def _stop_ns(self, kind: Kind, now_ns: int) -> int:
        banned_ns = self._until_ns[BANNED] - now_ns
        if kind != "cancel":
            return max(banned_ns, self._until_ns[TOO_MANY] - now_ns, 0)
        return max(min(banned_ns, self._tried_ns + BANNED_CANCEL_NS - now_ns), 0)


def _whole(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 21 else default
