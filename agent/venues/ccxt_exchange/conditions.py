"""What an exchange lets us do right now, and why: its limits, its maintenance, an uncertain clock, a market that is closed.

CANCEL_ONLY while any of these holds, TRADING when none does. No I/O: requests report how they fared, and whoever reads `news` tells
the engine. A key that the exchange does not take any more is no such state: the whole connection ends with it.
"""

from collections.abc import Callable

from agent.domain.events import VenueStatus
from agent.ports import Clock
from agent.venues.ccxt_exchange.request_budget import Kind, RequestBudget

OVERLOADS_MAX = 3  # in a row, before it counts as maintenance
PAUSE_NS = 10_000_000_000  # after the last of them, before new orders are tried again
OVERLOADED = frozenset({"-1008", "-1001"})  # 'server overloaded', 'internal error, disconnected'
KEY_REFUSED = frozenset({"-2014", "-2015"})


class Conditions:
    """The state of one exchange. `listener` is called whenever something may have changed."""

    def __init__(self, name: str, clock: Clock, budget: RequestBudget) -> None:
        self._name, self._clock, self._budget = name, clock, budget
        self._causes: dict[str, str] = {}
        self._overloads: dict[Kind, int] = {}
        self._overloaded_ns = 0
        self._told = VenueStatus(name, "TRADING")
        self.listener: Callable[[], None] = nobody
        self.key_refused = ""

    def fine(self, kind: Kind) -> None:
        """A request was answered as it should be."""
        self._overloads.pop(kind, None)

    def trouble(self, status: int, code: str, text: str, kind: Kind) -> None:
        """A request was not answered as it should be."""
        if code in KEY_REFUSED or status == 401:
            self.key_refused = f"{code} {text}".strip()
        elif status == 503 or code in OVERLOADED:
            self._overloads[kind] = self._overloads.get(kind, 0) + 1
            self._overloaded_ns = self._clock.now_ns()
        self.listener()

    def system(self, *, is_normal: bool) -> None:
        """What the exchange says of itself."""
        self.set("maintenance", "" if is_normal else "the exchange is in maintenance")

    def clock(self, uncertainty_ns: int, limit_ns: int) -> None:
        """How far the exchange's clock may be from where we think it is. Beyond the limit, orders would be refused or come late."""
        self.set("clock", "the exchange's clock is too uncertain" if uncertainty_ns > limit_ns else "")

    def set(self, cause: str, reason: str) -> None:
        """A cause holds, with its reason in words; empty lifts it."""
        if reason:
            self._causes[cause] = reason
        else:
            self._causes.pop(cause, None)
        self.listener()

    @property
    def is_troubled(self) -> bool:
        """Whether it is worth asking soon again how things are."""
        return bool(self._causes or self._overloads)

    def status(self) -> VenueStatus:
        """How it is now."""
        reason, until_ns = self._budget.stopped()
        reasons = [reason] if reason else []
        reasons += list(self._causes.values())
        if self._is_overloaded():
            reasons.append("the exchange is overloaded")
        if not reasons:
            return VenueStatus(self._name, "TRADING")
        return VenueStatus(self._name, "CANCEL_ONLY", "; ".join(reasons), until_ns if len(reasons) == 1 else 0)

    def news(self, *, is_new: bool = False) -> tuple[VenueStatus, ...]:
        """The status if it is not what was told last. `is_new`: the listener has just connected and knows nothing."""
        now = self.status()
        if now == self._told and not is_new:
            return ()
        self._told = now
        return (now,)

    def _is_overloaded(self) -> bool:
        if max(self._overloads.values(), default=0) < OVERLOADS_MAX:
            return False
        if self._clock.now_ns() - self._overloaded_ns < PAUSE_NS:
            return True
        self._overloads.clear()
        return False


def nobody() -> None:
    """The listener before anybody listens."""
