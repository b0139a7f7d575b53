"""What can go wrong at a venue, by name: armed by a test or over the loopback admin endpoint, used up as it strikes.

The names are the contract; `FAULTS` says what each one does. A fault with a `count` strikes that many times and is gone; a
standing one lasts until it is cleared. What happens once and at once (a trade taken back, a stream that ends) is in `mishaps.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

DROP_REPLY: Final = "drop_reply"
TIMEOUT_1007: Final = "timeout_1007"
UNKNOWN_1000: Final = "unknown_1000"
ACCEPT_LATE: Final = "accept_late"
RATE_LIMIT_429: Final = "rate_limit_429"
BAN_418: Final = "ban_418"
MAINTENANCE: Final = "maintenance"
CLOCK_OFFSET: Final = "clock_offset"
DUPLICATE_USER_EVENT: Final = "duplicate_user_event"
SWALLOW_USER_EVENT: Final = "swallow_user_event"
REORDER_USER_EVENTS: Final = "reorder_user_events"
DEPTH_GAP: Final = "depth_gap"
STALL_STREAM: Final = "stall_stream"
DISCONNECT: Final = "disconnect"
SLOW_REPLY: Final = "slow_reply"
REFUSE_CONNECT: Final = "refuse_connect"
REVOKED_KEY: Final = "revoked_key"
WITHDRAWAL_RIGHT: Final = "withdrawal_right"
PARTIAL_REPLACE: Final = "partial_cancel_replace"
TRUNCATE_LIST: Final = "truncate_list"
REGRESS_CUMULATIVE: Final = "regress_cumulative"
BUST_TRADE: Final = "bust_trade"
OVERFILL: Final = "overfill"
LATE_FILL: Final = "late_fill"
AMEND_ORDER: Final = "amend_order"
CHANGE_FILTERS: Final = "change_filters"
HALT_SYMBOL: Final = "halt_symbol"
RESUME_SYMBOL: Final = "resume_symbol"
END_STREAM: Final = "end_stream"

FAULTS: Final = {
    DROP_REPLY: "the request is carried out, then the connection is cut instead of an answer (on, count)",
    TIMEOUT_1007: "the request is carried out, then HTTP 504 with -1007 is answered (on, count)",
    UNKNOWN_1000: "the request is carried out, then HTTP 503 with -1000 is answered (on, count)",
    ACCEPT_LATE: "HTTP 504 with -1007 is answered, and only delay_ms later the request is carried out (on, count, delay_ms)",
    RATE_LIMIT_429: "requests are refused with HTTP 429, -1003 and Retry-After (on, count, retry_after_s)",
    BAN_418: "requests are refused with HTTP 418, -1003 and Retry-After (on, count, retry_after_s)",
    MAINTENANCE: "requests are refused with HTTP 503 and -1008, not carried out (on, count; 0 stands and shows in system status)",
    CLOCK_OFFSET: "the venue's clock is ahead by offset_ms, which may be negative (standing)",
    DUPLICATE_USER_EVENT: "user events are sent twice (kind, skip, count)",
    SWALLOW_USER_EVENT: "user events are not sent: skip=k-1 swallows the k-th (kind, skip, count)",
    REORDER_USER_EVENTS: "a user event is sent after the next of its kind (kind, skip, count)",
    DEPTH_GAP: "diffs of the book are made but not sent (symbol, count)",
    STALL_STREAM: "nothing is sent on market or user streams, pings are answered (kind: market, user or all; standing)",
    DISCONNECT: "the WebSocket connections are cut at once (kind: market, user or all)",
    SLOW_REPLY: "requests are carried out at once and answered delay_ms later (on, count, delay_ms)",
    REFUSE_CONNECT: "every request and connection is cut before it is read (standing)",
    REVOKED_KEY: "signed requests are refused with HTTP 401 and -2015, user streams end (standing)",
    WITHDRAWAL_RIGHT: "the keys of an account may withdraw from now on (account; empty: all)",
    PARTIAL_REPLACE: "the cancel of a cancelReplace succeeds and its new order fails: HTTP 409 with -2021 (count)",
    TRUNCATE_LIST: "lists are cut to their first keep rows (kind: openOrders, allOrders or myTrades; count, keep)",
    REGRESS_CUMULATIVE: "executionReports say that nothing was filled so far (kind, skip, count)",
    BUST_TRADE: "the newest trade of an ended order is taken back from both sides (account, symbol)",
    OVERFILL: "the newest filled order trades once more, beyond its size (account, symbol)",
    LATE_FILL: "the newest cancelled order trades once more, after its end (account, symbol)",
    AMEND_ORDER: "half of what is open of the newest resting order is taken back (account, symbol; kind same_id: its id stays)",
    CHANGE_FILTERS: "tick and lot become multiples of what they were at the start (symbol, tick, lot)",
    HALT_SYMBOL: "the symbol is in status BREAK: new orders are refused, cancels are not (symbol)",
    RESUME_SYMBOL: "the symbol trades again (symbol)",
    END_STREAM: "user streams end with an event (kind: eventStreamTerminated, listenKeyExpired or serverShutdown)",
}

_SCOPES = ("place", "cancel", "query", "any")
_STANDING = (CLOCK_OFFSET, STALL_STREAM, REFUSE_CONNECT, REVOKED_KEY)


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An armed fault. `on` is place, cancel, query or any; `kind` an event name, or market, user, all; 0 counts for ever.

    `account` empty stands for the only one that traded; `tick` and `lot` are decimals, empty where they stay.
    """

    name: str
    count: int = 1
    skip: int = 0
    on: str = "place"
    kind: str = "all"
    symbol: str = ""
    offset_ms: int = 0
    delay_ms: int = 0
    retry_after_s: int = 1
    account: str = ""
    keep: int = 0
    tick: str = ""
    lot: str = ""


class Faults:
    """The armed faults of one exchange, in the sequence they were armed."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        """Arm a fault; ValueError for a name that is not in `FAULTS` or for a negative number."""
        if fault.name not in FAULTS:
            raise ValueError(f"no fault is named '{fault.name[:40]}'; the names are: {', '.join(FAULTS)}")
        if min(fault.count, fault.skip, fault.retry_after_s, fault.delay_ms, fault.keep) < 0:
            raise ValueError("count, skip, retry_after_s, delay_ms and keep must not be negative")
        if fault.on not in _SCOPES:
            raise ValueError(f"'on' is one of {', '.join(_SCOPES)}")
        if fault.name in _STANDING:
            fault = msgspec.structs.replace(fault, count=0)
        self._armed.append(fault)

    def clear(self, name: str | None = None) -> None:
        """Disarm all faults, or those of one name."""
        self._armed = [fault for fault in self._armed if name is not None and fault.name != name]

    def armed(self) -> list[Fault]:
        """What is armed now."""
        return list(self._armed)

    def strike(self, name: str, *, on: str = "", kind: str = "", symbol: str = "") -> Fault | None:
        """Use up one strike of the first armed fault that fits; None if none fits."""
        for fault in self._armed:
            if fault.name != name or not _fits(fault, on, kind, symbol):
                continue
            if fault.skip:
                fault.skip -= 1
                return None
            if fault.count == 1:
                self._armed.remove(fault)
            elif fault.count:
                fault.count -= 1
            return fault
        return None

    def stands(self, name: str, kind: str = "") -> bool:
        """Whether a standing fault holds now."""
        return any(fault.name == name and _fits(fault, "", kind, "") for fault in self._armed)

    def is_in_maintenance(self) -> bool:
        """Whether a maintenance stands, which the venue's system status admits; one that is counted is an overload."""
        return any(fault.name == MAINTENANCE and not fault.count for fault in self._armed)

    def clock_offset_ms(self) -> int:
        """How far the venue's clock is ahead."""
        return sum(fault.offset_ms for fault in self._armed if fault.name == CLOCK_OFFSET)


def _fits(fault: Fault, on: str, kind: str, symbol: str) -> bool:
    return (
        (not on or fault.on in (on, "any"))
        and (not kind or fault.kind in (kind, "all"))
        and (not symbol or fault.symbol in (symbol, ""))
    )
