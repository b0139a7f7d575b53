"""Who may ask, and how often: signatures, receive windows and the request-weight windows, as the venue checks them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from agent.simulation.exchange.accounts import Accounts, ApiKey
from agent.simulation.exchange.filters import Params, Refused, integer, required

WEIGHT_LIMIT_1M: Final = 6000
ORDER_LIMIT_10S: Final = 100
ORDER_LIMIT_1D: Final = 200_000
RECEIVE_WINDOW_MS: Final = 5000
_RECEIVE_WINDOW_MS_MAX: Final = 60_000
_AHEAD_MS_MAX: Final = 1000
_MICROSECONDS_FROM: Final = 10**15
_FIELDS_MAX: Final = 64
_ACCOUNTS_MAX: Final = 10_000
_SIGNATURE = re.compile(r"(?:^|&)signature=[^&]*")


def parse_params(query: str, body: str) -> dict[str, str]:
    """The parameters of a REST request: -1101 if there are too many or one comes twice, -1100 if one is not UTF-8."""
    try:
        (query + body).encode()
    except UnicodeEncodeError:
        raise Refused(-1100, "Illegal characters found in a parameter.") from None
    try:
        pairs = [
            pair for part in (query, body)
            for pair in parse_qsl(part, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
        ]  # fmt: skip
    except ValueError:
        raise Refused(-1101, f"Too many parameters; expected at most '{_FIELDS_MAX}'.") from None
    params = dict(pairs)
    if len(params) != len(pairs):
        raise Refused(-1101, "Duplicate values for a parameter detected.")
    return params


def signed_text(query: str, body: str) -> str:
    """What a REST signature covers: the raw query and the raw body, joined by nothing, without the signature itself."""
    return _SIGNATURE.sub("", query) + _SIGNATURE.sub("", body)


def signed_params(params: Mapping[str, str]) -> str:
    """What a WebSocket API signature covers: all parameters but the signature, in the sequence of their names."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature")


def known_key(accounts: Accounts, key: str | None) -> ApiKey:
    """The key that was sent: -2014 if it cannot be one, -2015 if it is none of ours."""
    if not key or len(key) > 128:
        raise Refused(-2014, "API-key format invalid.", 401)
    if key not in accounts.keys:
        raise Refused(-2015, "Invalid API-key, IP, or permissions for action.", 401)
    return accounts.keys[key]


def verify(key: ApiKey, text: str, params: Params, now_ms: int) -> None:
    """Check timestamp, receive window and signature: -1102, -1021, -1131, -1022."""
    signature = required(params, "signature")
    stamp = integer(params, "timestamp")
    stamp_ms = stamp // 1000 if stamp >= _MICROSECONDS_FROM else stamp
    window = receive_window_ms(params)
    if stamp_ms >= now_ms + _AHEAD_MS_MAX:
        raise Refused(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - stamp_ms > window:
        raise Refused(-1021, "Timestamp for this request is outside of the recvWindow.")
    expected = hmac.new(key.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.lower().encode()):
        raise Refused(-1022, "Signature for this request is not valid.")


def receive_window_ms(params: Params) -> int:
    """The receive window that the request asks for; whole milliseconds of what may have decimals."""
    text = params.get("recvWindow")
    if text is None:
        return RECEIVE_WINDOW_MS
    whole = integer({"recvWindow": text.partition(".")[0]}, "recvWindow")
    if whole > _RECEIVE_WINDOW_MS_MAX:
        raise Refused(-1131, "recvWindow must be less than 60000")
    return whole


class Limits:
    """Used request weight (of all clients: they share one address) and orders per account, in clock-aligned windows."""

    def __init__(self, *, is_enforced: bool = False) -> None:
        self.is_enforced = is_enforced
        self._weight = (0, 0)
        self._orders: dict[tuple[str, int], tuple[int, int]] = {}

    def use(self, weight: int, now_ms: int) -> int:
        """Count a request; returns the weight used in this minute. -1003 with HTTP 429 beyond the limit, if enforced."""
        self._weight = _count(self._weight, now_ms // 60_000, weight)
        if self.is_enforced and self._weight[1] > WEIGHT_LIMIT_1M:
            wait_s = 60 - now_ms // 1000 % 60
            text = f"Too much request weight used; current limit is {WEIGHT_LIMIT_1M} request weight per 1 MINUTE."
            raise Refused(-1003, text, 429, wait_s)
        return self._weight[1]

    def use_order(self, account: str, now_ms: int) -> None:
        """Count a new order. -1015 with HTTP 429 beyond the limit, if enforced."""
        if len(self._orders) > _ACCOUNTS_MAX:
            self._orders.clear()
        for seconds, limit in ((10, ORDER_LIMIT_10S), (86_400, ORDER_LIMIT_1D)):
            window = now_ms // (seconds * 1000)
            counted = _count(self._orders.get((account, seconds), (0, 0)), window, 1)
            self._orders[account, seconds] = counted
            if self.is_enforced and counted[1] > limit:
                wait_s = seconds - now_ms // 1000 % seconds
                raise Refused(-1015, f"Too many new orders; current limit is {limit} orders per {seconds} SECOND.", 429, wait_s)

    def headers(self, account: str | None, now_ms: int) -> dict[str, str]:
        """The headers that tell a client how much it has used."""
        weight = self._used(self._weight, now_ms // 60_000)
        out = {"X-MBX-USED-WEIGHT": str(weight), "X-MBX-USED-WEIGHT-1M": str(weight)}
        if account is not None:
            out["X-MBX-ORDER-COUNT-10S"] = str(self._orders_used(account, 10, now_ms))
            out["X-MBX-ORDER-COUNT-1D"] = str(self._orders_used(account, 86_400, now_ms))
        return out

    def rows(self, account: str | None, now_ms: int) -> list[dict[str, object]]:
        """The same as the WebSocket API writes it."""
        used = [self._used(self._weight, now_ms // 60_000)]
        if account is not None:
            used += [self._orders_used(account, 10, now_ms), self._orders_used(account, 86_400, now_ms)]
        return [row | {"count": count} for row, count in zip(limit_rows(), used, strict=False)]

    def _orders_used(self, account: str, seconds: int, now_ms: int) -> int:
        return self._used(self._orders.get((account, seconds), (0, 0)), now_ms // (seconds * 1000))

    @staticmethod
    def _used(counter: tuple[int, int], window: int) -> int:
        return counter[1] if counter[0] == window else 0


def limit_rows() -> list[dict[str, object]]:
    """The limits as exchangeInfo lists them."""
    rows = (
        ("REQUEST_WEIGHT", "MINUTE", 1, WEIGHT_LIMIT_1M),
        ("ORDERS", "SECOND", 10, ORDER_LIMIT_10S),
        ("ORDERS", "DAY", 1, ORDER_LIMIT_1D),
    )
    return [
        {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
        for kind, interval, number, limit in rows
    ]


def _count(counter: tuple[int, int], window: int, more: int) -> tuple[int, int]:
    return (window, counter[1] + more) if counter[0] == window else (window, more)
