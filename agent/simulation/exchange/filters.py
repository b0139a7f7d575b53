"""Strict reading of what a client sent, and the trading rules of a symbol; each refusal carries the code the real venue sends.

Numbers are bounded before they are read: at most 20 digits on either side of the point, nothing else. So `1e1000000`, NaN, signs
and other alphabets end in -1100 in a microsecond, never in a stall or a server error.
Codes and texts: Binance spot API documentation, "Error codes" and "Filters".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar, get_args

import msgspec

from agent.simulation.exchange.accounts import UNITS_PER_ASSET
from agent.simulation.exchange.matching import BUY, SELL, Kind, Prevention, TimeInForce

Params = Mapping[str, str]
T = TypeVar("T")

DECIMALS: Final = 8
_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?")
_INTEGER = re.compile(r"[0-9]{1,18}")
_CLIENT_ID = re.compile(r"[a-zA-Z0-9\-_./:]{1,36}")
_SYMBOL = re.compile(r"[A-Z0-9\-_.]{1,20}")
_DECIMAL_RANGE = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"


class Refused(Exception):  # noqa: N818 - it is the venue's answer, not a fault of the program
    """The venue's answer to a request it will not carry out: its code, its text and the HTTP status."""

    def __init__(self, code: int, text: str, http_status: int = 400, retry_after_s: int | None = None, data: object = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.data = data

    def payload(self) -> dict[str, object]:
        """The body of the answer."""
        body: dict[str, object] = {"code": self.code, "msg": self.text}
        return body if self.data is None else body | {"data": self.data}


class SymbolRules(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol's rules. Everything is in units of 1e-8: of quote per base for prices, of base for sizes, of quote for values.

    The engine counts in ticks and lots of the start; new orders must lie on every `tick_step`-th and `lot_step`-th of them.
    """

    symbol: str
    base: str
    quote: str
    tick_units: int
    lot_units: int
    notional_units_min: int
    size_units_max: int = 9_000 * UNITS_PER_ASSET
    price_units_max: int = 1_000_000 * UNITS_PER_ASSET
    open_orders_max: int = 200
    tick_step: int = 1
    lot_step: int = 1
    status: str = "TRADING"

    def __post_init__(self) -> None:
        if self.tick_units <= 0 or self.lot_units <= 0 or self.tick_units * self.lot_units % UNITS_PER_ASSET:
            raise ValueError(f"{self.symbol}: tick x lot must be a positive multiple of 1e-8 of {self.quote}; choose coarser ones")

    def base_units(self, lots: int) -> int:
        """Exact units of base in `lots`."""
        return lots * self.lot_units

    def quote_units(self, value: int) -> int:
        """Exact units of quote in a value of ticks x lots."""
        return value * (self.tick_units * self.lot_units // UNITS_PER_ASSET)

    def value_down(self, quote_units: int) -> int:
        """The largest value (ticks x lots) that `quote_units` pays for."""
        return quote_units // (self.tick_units * self.lot_units // UNITS_PER_ASSET)


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A checked order request. A market order has price 0; sized in quote it has `quote_units` instead of `size_lots`."""

    symbol: str
    side: int
    kind: Kind
    time_in_force: TimeInForce
    prevention: Prevention
    price_ticks: int
    size_lots: int
    quote_units: int
    client_id: str | None
    reply_kind: str


def units(text: str) -> int:
    """Read a decimal that *we* wrote (configuration, deposits) as units of 1e-8; ValueError says what is wrong with it."""
    found = _DECIMAL.fullmatch(text)
    if found is None or len((found[2] or "").rstrip("0")) > DECIMALS:
        raise ValueError(f"'{text[:40]}' is not a plain decimal with at most {DECIMALS} digits after the point, such as 2683.80")
    return _to_units(found)


def required(params: Params, name: str) -> str:
    """A parameter that must be there and not be empty."""
    text = params.get(name)
    if not text:
        raise Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return text


def optional(params: Params, name: str) -> str | None:
    """A parameter that may be missing, but not empty."""
    text = params.get(name)
    if text == "":
        raise Refused(-1105, f"Parameter '{name}' was empty.")
    return text


def decimal_units(params: Params, name: str) -> int:
    """A decimal parameter in units of 1e-8: -1102 missing, -1100 not a plain decimal, -1111 more than eight decimals."""
    found = _DECIMAL.fullmatch(required(params, name))
    if found is None:
        raise _illegal(name, _DECIMAL_RANGE)
    if len((found[2] or "").rstrip("0")) > DECIMALS:
        raise Refused(-1111, f"Parameter '{name}' has too much precision.")
    return _to_units(found)


def integer(params: Params, name: str, default: int | None = None, at_least: int = 0, at_most: int = 10**18) -> int:
    """A whole-number parameter within bounds; `default` makes it optional."""
    if default is not None and name not in params:
        return default
    text = required(params, name)
    if _INTEGER.fullmatch(text) is None:
        raise _illegal(name, "^[0-9]{1,20}$")
    value = int(text)
    if not at_least <= value <= at_most:
        raise Refused(-1130, f"Data sent for parameter '{name}' is not valid.")
    return value


def client_id(params: Params, name: str) -> str | None:
    """An optional client order id."""
    text = optional(params, name)
    if text is not None and _CLIENT_ID.fullmatch(text) is None:
        raise _illegal(name, r"^[a-zA-Z0-9-_]{1,36}$")
    return text


def symbol_rules(params: Params, known: Mapping[str, SymbolRules], name: str = "symbol") -> SymbolRules:
    """The rules of the symbol that was named."""
    text = required(params, name)
    if _SYMBOL.fullmatch(text) is None:
        raise _illegal(name, r"^[A-Z0-9-_.]{1,20}$")
    if text not in known:
        raise Refused(-1121, "Invalid symbol.")
    return known[text]


def parse_size(params: Params, rules: SymbolRules, name: str) -> int:
    """A size in lots, on the symbol's lot."""
    size = decimal_units(params, name)
    if size < rules.lot_units * rules.lot_step or size > rules.size_units_max or size % (rules.lot_units * rules.lot_step):
        raise Refused(-1013, "Filter failure: LOT_SIZE")
    return size // rules.lot_units


def parse_order(params: Params, known: Mapping[str, SymbolRules]) -> NewOrder:
    """Read and check a new order as far as that needs no book and no balance."""
    rules = symbol_rules(params, known)
    side = {"BUY": BUY, "SELL": SELL}.get(required(params, "side"))
    if side is None:
        raise Refused(-1117, "Invalid side.")
    kind = _one_of(required(params, "type"), get_args(Kind), Refused(-1116, "Invalid orderType."))
    reply_kind = params.get("newOrderRespType", "FULL")
    _one_of(reply_kind, ("ACK", "RESULT", "FULL"), Refused(-1130, "Data sent for parameter 'newOrderRespType' is not valid."))
    prevention = params.get("selfTradePreventionMode", "NONE")
    bad_prevention = Refused(-1130, "Data sent for parameter 'selfTradePreventionMode' is not valid.")
    _refuse_unread(params, kind)
    time_in_force: TimeInForce = "GTC"
    price_ticks = quote_units = size_lots = 0
    if kind == "LIMIT":
        time_in_force = _one_of(required(params, "timeInForce"), get_args(TimeInForce), Refused(-1115, "Invalid timeInForce."))
    if kind == "MARKET" and "quoteOrderQty" in params:
        quote_units = decimal_units(params, "quoteOrderQty")
        check_notional(rules, quote_units)
    else:
        size_lots = parse_size(params, rules, "quantity")
    if kind != "MARKET":
        price_ticks = _price_ticks(params, rules)
        check_notional(rules, rules.quote_units(price_ticks * size_lots))
    return NewOrder(
        symbol=rules.symbol, side=side, kind=kind, time_in_force=time_in_force, price_ticks=price_ticks,
        prevention=_one_of(prevention, get_args(Prevention), bad_prevention),
        size_lots=size_lots, quote_units=quote_units, client_id=client_id(params, "newClientOrderId"), reply_kind=reply_kind,
    )  # fmt: skip


def check_notional(rules: SymbolRules, quote_units: int) -> None:
    """Refuse an order whose value is below the symbol's minimum."""
    if quote_units < rules.notional_units_min:
        raise Refused(-1013, "Filter failure: NOTIONAL")


def _price_ticks(params: Params, rules: SymbolRules) -> int:
    price = decimal_units(params, "price")
    if not 0 < price <= rules.price_units_max or price % (rules.tick_units * rules.tick_step):
        raise Refused(-1013, "Filter failure: PRICE_FILTER")
    return price // rules.tick_units


def _refuse_unread(params: Params, kind: str) -> None:
    """Parameters that contradict the order type, and order features that this exchange does not have."""
    unwanted = {
        "MARKET": ("price", "timeInForce"),
        "LIMIT_MAKER": ("timeInForce", "quoteOrderQty"),
        "LIMIT": ("quoteOrderQty",),
    }
    for name in (*unwanted[kind], "stopPrice", "trailingDelta", "icebergQty"):
        # A post-only order with timeInForce=GTC says nothing contradictory, and old clients send it.
        if name in params and not (name == "timeInForce" and params[name] == "GTC"):
            raise Refused(-1106, f"Parameter '{name}' sent when not required.")
    if kind == "MARKET" and "quoteOrderQty" in params and "quantity" in params:
        raise Refused(-1128, "Combination of optional parameters invalid.")


def _one_of(text: str, allowed: tuple[T, ...], refusal: Refused) -> T:
    for word in allowed:
        if word == text:
            return word
    raise refusal


def _illegal(name: str, legal: str) -> Refused:
    return Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def _to_units(found: re.Match[str]) -> int:
    return int(found[1]) * UNITS_PER_ASSET + int((found[2] or "").rstrip("0").ljust(DECIMALS, "0"))
