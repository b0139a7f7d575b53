"""Every endpoint in one table: its name on REST and on the WebSocket API, who may call it, what it weighs, what it answers.

A handler is a function of (venue, account, parameters, now): it raises `Refused` or returns what is written as JSON.
Weights: Binance spot API documentation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar

import msgspec

from agent.simulation.exchange import wire
from agent.simulation.exchange.access import limit_rows
from agent.simulation.exchange.filters import (
    Params,
    Refused,
    SymbolRules,
    client_id,
    decimal_units,
    integer,
    optional,
    parse_order,
    required,
    symbol_rules,
)
from agent.simulation.exchange.history import INTERVAL_MS
from agent.simulation.exchange.matching import Order
from agent.simulation.exchange.venue import Fill, Trade, Venue

Handler = Callable[[Venue, str, Params, int], Any]
Scope = Literal["place", "cancel", "query"]
T = TypeVar("T")

LIMIT_MAX: Final = 1000
_DEPTH_MAX: Final = 5000


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint. `scope` is what faults are armed on."""

    handler: Handler
    weight: int
    is_signed: bool = True
    scope: Scope = "query"


def weight(endpoint: Endpoint, params: Params) -> int:
    """What a call costs: a few cost more, the more they ask for."""
    if endpoint.handler is _depth:
        limit = params.get("limit", "100")
        size = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 6 else 100
        return next((cost for top, cost in ((100, 5), (500, 25), (1000, 50)) if size <= top), 250)
    if endpoint.handler is _open_orders and "symbol" not in params:
        return 80
    if endpoint.handler in (_day_ticker, _book_ticker, _price_ticker) and "symbol" not in params:
        return 80 if endpoint.handler is _day_ticker else 4
    return endpoint.weight


# -- market data --------------------------------------------------------------------------------------------------------


def _ping(_venue: Venue, _account: str, _params: Params, _now_ms: int) -> wire.Payload:
    return {}


def _time(_venue: Venue, _account: str, _params: Params, now_ms: int) -> wire.Payload:
    return {"serverTime": now_ms}


def _exchange_info(venue: Venue, _account: str, params: Params, now_ms: int) -> wire.Payload:
    names = [rules.symbol for rules in _selected(venue, params)]
    return wire.exchange_info(venue, names, limit_rows(), now_ms)


def _depth(venue: Venue, _account: str, params: Params, _now_ms: int) -> wire.Payload:
    rules = symbol_rules(params, venue.rules)
    limit = min(integer(params, "limit", 100, 1), _DEPTH_MAX)
    return wire.depth(rules, venue.markets[rules.symbol].book, limit)


def _trades(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    rules = symbol_rules(params, venue.rules)
    trades = venue.markets[rules.symbol].trades
    if "fromId" in params:
        first = integer(params, "fromId")
        chosen = _head((trade for trade in trades if trade.id >= first), _limit(params))
    else:
        chosen = list(trades)[-_limit(params) :]
    return [wire.public_trade(rules, trade) for trade in chosen]


def _agg_trades(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    rules = symbol_rules(params, venue.rules)
    trades: Iterable[Trade] = venue.markets[rules.symbol].trades
    is_bounded = "fromId" in params or "startTime" in params
    if "fromId" in params:
        first = integer(params, "fromId")
        trades = (trade for trade in trades if trade.aggregate_id >= first)
    trades = _in_time(params, trades, lambda trade: trade.time_ms)
    groups = [list(prints) for _, prints in itertools.groupby(trades, lambda trade: trade.aggregate_id)]
    chosen = groups[: _limit(params)] if is_bounded else groups[-_limit(params) :]
    return [wire.aggregate_trade(rules, prints) for prints in chosen]


def _klines(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[list[Any]]:
    rules = symbol_rules(params, venue.rules)
    interval_ms = INTERVAL_MS.get(required(params, "interval"))
    if interval_ms is None:
        raise Refused(-1120, "Invalid interval.")
    bars = venue.markets[rules.symbol].candles.aggregate(interval_ms)
    bars = list(_in_time(params, bars, lambda bar: bar.start_ms))
    limit = _limit(params)
    chosen = bars[:limit] if "startTime" in params else bars[-limit:]
    return [wire.candle(rules, bar, interval_ms) for bar in chosen]


def _day_ticker(venue: Venue, _account: str, params: Params, now_ms: int) -> Any:
    return _each(venue, params, lambda rules: wire.day_ticker(venue.markets[rules.symbol], now_ms))


def _book_ticker(venue: Venue, _account: str, params: Params, _now_ms: int) -> Any:
    def row(rules: SymbolRules) -> wire.Payload:
        bid, bid_size, ask, ask_size = wire.book_ticker(rules, venue.markets[rules.symbol].book)
        return {"symbol": rules.symbol, "bidPrice": bid, "bidQty": bid_size, "askPrice": ask, "askQty": ask_size}

    return _each(venue, params, row)


def _price_ticker(venue: Venue, _account: str, params: Params, now_ms: int) -> Any:
    def row(rules: SymbolRules) -> wire.Payload:
        return {"symbol": rules.symbol, "price": wire.day_ticker(venue.markets[rules.symbol], now_ms)["lastPrice"]}

    return _each(venue, params, row)


# -- orders -------------------------------------------------------------------------------------------------------------


def _place(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    request = parse_order(params, venue.rules)
    order, fills = venue.place(account, request, now_ms)
    return wire.order_placed(venue.rules[request.symbol], order, fills, request.reply_kind)


def _test(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    venue.check(account, parse_order(params, venue.rules), now_ms)
    return {}


def _cancel(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    rules = symbol_rules(params, venue.rules)
    new_id = client_id(params, "newClientOrderId") or venue.new_client_id()
    try:
        order = _named_order(venue, account, rules, params, "orderId", "origClientOrderId")
    except Refused as refusal:
        raise Refused(-2011, "Unknown order sent.") if refusal.code == -2013 else refusal from None
    venue.cancel(account, rules.symbol, order, now_ms, new_id)
    return wire.order_cancelled(rules, order, new_id)


def _cancel_all(venue: Venue, account: str, params: Params, now_ms: int) -> list[wire.Payload]:
    rules = symbol_rules(params, venue.rules)
    found = venue.open_orders(account, rules.symbol)
    if not found:
        raise Refused(-2011, "Unknown order sent.")
    out = []
    for _, order in found:
        new_id = venue.new_client_id()
        venue.cancel(account, rules.symbol, order, now_ms, new_id)
        out.append(wire.order_cancelled(rules, order, new_id))
    return out


def _cancel_replace(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    mode = required(params, "cancelReplaceMode")
    if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
        raise Refused(-1130, "Data sent for parameter 'cancelReplaceMode' is not valid.")
    parse_order(params, venue.rules)  # a malformed order must not cancel anything
    names = {"cancelOrderId": "orderId", "cancelOrigClientOrderId": "origClientOrderId",
             "cancelNewClientOrderId": "newClientOrderId", "symbol": "symbol"}  # fmt: skip
    cancel_params = {inner: params[outer] for outer, inner in names.items() if outer in params}
    cancelled = _attempt(lambda: _cancel(venue, account, cancel_params, now_ms))
    placed: wire.Payload | Refused | None = None
    if not isinstance(cancelled, Refused) or mode == "ALLOW_FAILURE":
        placed = _attempt(lambda: _place(venue, account, params, now_ms))
    data = {
        "cancelResult": _result(cancelled), "newOrderResult": _result(placed),
        "cancelResponse": _response(cancelled), "newOrderResponse": _response(placed),
    }  # fmt: skip
    failures = [isinstance(part, Refused) for part in (cancelled, placed) if part is not None]
    if not any(failures):
        return data
    if all(failures):
        raise Refused(-2022, "Order cancel-replace failed.", 400, data=data)
    raise Refused(-2021, "Order cancel-replace partially failed.", 409, data=data)


def _order(venue: Venue, account: str, params: Params, _now_ms: int) -> wire.Payload:
    rules = symbol_rules(params, venue.rules)
    order = _named_order(venue, account, rules, params, "orderId", "origClientOrderId")
    return wire.order_queried(rules, order)


def _open_orders(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    symbol = symbol_rules(params, venue.rules).symbol if "symbol" in params else None
    return [wire.order_queried(venue.rules[name], order) for name, order in venue.open_orders(account, symbol)]


def _all_orders(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    rules = symbol_rules(params, venue.rules)
    orders: Iterable[Order] = venue.all_orders(account, rules.symbol)
    if "orderId" in params:
        first = integer(params, "orderId")
        orders = (order for order in orders if order.id >= first)
    chosen = list(_in_time(params, orders, lambda order: order.created_ms))
    limit = _limit(params)
    is_bounded = "orderId" in params or "startTime" in params
    chosen = chosen[:limit] if is_bounded else chosen[-limit:]
    return [wire.order_queried(rules, order) for order in chosen]


def _my_trades(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    rules = symbol_rules(params, venue.rules)
    fills: Iterable[Fill] = (fill for fill in venue.fills.get(account, ()) if fill.symbol == rules.symbol)
    if "orderId" in params:
        order_id = integer(params, "orderId")
        fills = (fill for fill in fills if fill.order_id == order_id)
    if "fromId" in params:
        first = integer(params, "fromId")
        fills = (fill for fill in fills if fill.trade_id >= first)
    chosen = list(_in_time(params, fills, lambda fill: fill.time_ms))
    limit = _limit(params)
    chosen = chosen[:limit] if "fromId" in params or "startTime" in params else chosen[-limit:]
    return [wire.my_trade(rules, fill) for fill in chosen]


# -- the account --------------------------------------------------------------------------------------------------------


def _account(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    uid = 1 + sorted({key.account for key in venue.accounts.keys.values()}).index(account)
    omit_zero = params.get("omitZeroBalances", "false") == "true"
    return wire.account(venue.accounts, account, uid, now_ms, omit_zero=omit_zero)


def _commission(venue: Venue, _account: str, params: Params, _now_ms: int) -> wire.Payload:
    rules = symbol_rules(params, venue.rules)
    maker, taker = wire.rate_text(venue.accounts.maker_fee_pips), wire.rate_text(venue.accounts.taker_fee_pips)
    zero = {"maker": "0.00000000", "taker": "0.00000000", "buyer": "0.00000000", "seller": "0.00000000"}
    discount = {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0.00000000"}
    standard = zero | {"maker": maker, "taker": taker}
    return {"symbol": rules.symbol, "standardCommission": standard, "taxCommission": zero, "discount": discount}


def _trade_fees(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    names = [symbol_rules(params, venue.rules).symbol] if "symbol" in params else list(venue.rules)
    return wire.trade_fees(venue.accounts, venue.rules, names)


def _system_status(_venue: Venue, _account: str, _params: Params, _now_ms: int) -> wire.Payload:
    return {"status": 0, "msg": "normal"}


def _coins(venue: Venue, account: str, _params: Params, _now_ms: int) -> list[wire.Payload]:
    listed = {asset for rules in venue.rules.values() for asset in (rules.base, rules.quote)}
    return [
        wire.coin(asset, venue.accounts.balance(account, asset)) for asset in sorted(listed | set(venue.accounts.assets(account)))
    ]


def _withdraw(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    units, address = decimal_units(params, "amount"), required(params, "address")
    network = optional(params, "network") or "ETH"
    if not units or len(address) > 128 or len(network) > 32:
        raise Refused(-1130, "Data sent for parameter 'amount', 'address' or 'network' is not valid.")
    entry = venue.move(account, required(params, "coin"), -units, now_ms, address, network)
    if entry is None:
        raise Refused(-4026, "User has insufficient balance")
    return {"id": f"{entry.id:032x}"}


def _deposits(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    entries = [e for e in venue.accounts.transfers if e.account == account and e.units > 0]
    return [wire.deposit(entry) for entry in entries if params.get("coin", entry.asset) == entry.asset][-LIMIT_MAX:]


def _withdrawals(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    entries = [e for e in venue.accounts.transfers if e.account == account and e.units < 0]
    return [wire.withdrawal(entry) for entry in entries if params.get("coin", entry.asset) == entry.asset][-LIMIT_MAX:]


# -- reading the parameters that many endpoints share -------------------------------------------------------------------


def _named_order(venue: Venue, account: str, rules: SymbolRules, params: Params, by_id: str, by_client_id: str) -> Order:
    if by_id not in params and by_client_id not in params:
        raise Refused(-1102, f"Param '{by_client_id}' or '{by_id}' must be sent, but both were empty/null!")
    order_id = integer(params, by_id) if by_id in params else None
    return venue.find(account, rules.symbol, order_id, client_id(params, by_client_id))


def _selected(venue: Venue, params: Params) -> list[SymbolRules]:
    if "symbol" in params:
        return [symbol_rules(params, venue.rules)]
    if "symbols" not in params:
        return list(venue.rules.values())
    try:
        names = msgspec.json.decode(params["symbols"], type=list[str])
    except (msgspec.DecodeError, RecursionError):
        raise Refused(-1100, "Illegal characters found in parameter 'symbols'.") from None
    return [symbol_rules({"symbol": name}, venue.rules) for name in names[:LIMIT_MAX]]


def _each(venue: Venue, params: Params, row: Callable[[SymbolRules], wire.Payload]) -> Any:
    rows = [row(rules) for rules in _selected(venue, params)]
    return rows[0] if "symbol" in params else rows


def _limit(params: Params) -> int:
    return min(integer(params, "limit", 500, 1), LIMIT_MAX)


def _in_time(params: Params, rows: Iterable[T], time_ms: Callable[[T], int]) -> Iterable[T]:
    first, last = integer(params, "startTime", 0), integer(params, "endTime", 10**17)
    if first > last:
        raise Refused(-1127, "Start time is greater than end time.")
    return (row for row in rows if first <= time_ms(row) <= last)


def _head(rows: Iterable[T], limit: int) -> list[T]:
    return list(itertools.islice(rows, limit))


def _attempt(action: Callable[[], wire.Payload]) -> wire.Payload | Refused:
    try:
        return action()
    except Refused as refusal:
        return refusal


def _result(part: wire.Payload | Refused | None) -> str:
    if part is None:
        return "NOT_ATTEMPTED"
    return "FAILURE" if isinstance(part, Refused) else "SUCCESS"


def _response(part: wire.Payload | Refused | None) -> object:
    return part.payload() if isinstance(part, Refused) else part


REST: Final[dict[tuple[str, str], Endpoint]] = {
    ("GET", "/api/v3/ping"): Endpoint(_ping, 1, is_signed=False),
    ("GET", "/api/v3/time"): Endpoint(_time, 1, is_signed=False),
    ("GET", "/api/v3/exchangeInfo"): Endpoint(_exchange_info, 20, is_signed=False),
    ("GET", "/api/v3/depth"): Endpoint(_depth, 5, is_signed=False),
    ("GET", "/api/v3/trades"): Endpoint(_trades, 25, is_signed=False),
    ("GET", "/api/v3/historicalTrades"): Endpoint(_trades, 25, is_signed=False),
    ("GET", "/api/v3/aggTrades"): Endpoint(_agg_trades, 4, is_signed=False),
    ("GET", "/api/v3/klines"): Endpoint(_klines, 2, is_signed=False),
    ("GET", "/api/v3/ticker/24hr"): Endpoint(_day_ticker, 2, is_signed=False),
    ("GET", "/api/v3/ticker/price"): Endpoint(_price_ticker, 2, is_signed=False),
    ("GET", "/api/v3/ticker/bookTicker"): Endpoint(_book_ticker, 2, is_signed=False),
    ("POST", "/api/v3/order"): Endpoint(_place, 1, scope="place"),
    ("POST", "/api/v3/order/test"): Endpoint(_test, 1),
    ("POST", "/api/v3/order/cancelReplace"): Endpoint(_cancel_replace, 1, scope="place"),
    ("DELETE", "/api/v3/order"): Endpoint(_cancel, 1, scope="cancel"),
    ("DELETE", "/api/v3/openOrders"): Endpoint(_cancel_all, 1, scope="cancel"),
    ("GET", "/api/v3/order"): Endpoint(_order, 4),
    ("GET", "/api/v3/openOrders"): Endpoint(_open_orders, 6),
    ("GET", "/api/v3/allOrders"): Endpoint(_all_orders, 20),
    ("GET", "/api/v3/myTrades"): Endpoint(_my_trades, 20),
    ("GET", "/api/v3/account"): Endpoint(_account, 20),
    ("GET", "/api/v3/account/commission"): Endpoint(_commission, 20),
    ("GET", "/sapi/v1/asset/tradeFee"): Endpoint(_trade_fees, 1),
    ("GET", "/sapi/v1/system/status"): Endpoint(_system_status, 1, is_signed=False),
    ("GET", "/sapi/v1/capital/config/getall"): Endpoint(_coins, 10),
    ("POST", "/sapi/v1/capital/withdraw/apply"): Endpoint(_withdraw, 1),
    ("GET", "/sapi/v1/capital/withdraw/history"): Endpoint(_withdrawals, 1),
    ("GET", "/sapi/v1/capital/deposit/hisrec"): Endpoint(_deposits, 1),
}

_SAME_AS_REST: Final = {
    "ping": ("GET", "ping"), "time": ("GET", "time"), "exchangeInfo": ("GET", "exchangeInfo"), "depth": ("GET", "depth"),
    "trades.recent": ("GET", "trades"), "trades.historical": ("GET", "historicalTrades"),
    "trades.aggregate": ("GET", "aggTrades"), "klines": ("GET", "klines"), "ticker.24hr": ("GET", "ticker/24hr"),
    "ticker.price": ("GET", "ticker/price"), "ticker.book": ("GET", "ticker/bookTicker"),
    "order.place": ("POST", "order"), "order.test": ("POST", "order/test"),
    "order.cancelReplace": ("POST", "order/cancelReplace"), "order.cancel": ("DELETE", "order"),
    "openOrders.cancelAll": ("DELETE", "openOrders"), "order.status": ("GET", "order"),
    "openOrders.status": ("GET", "openOrders"), "allOrders": ("GET", "allOrders"), "myTrades": ("GET", "myTrades"),
    "account.status": ("GET", "account"), "account.commission": ("GET", "account/commission"),
}  # fmt: skip

WS_API: Final = {name: REST[verb, f"/api/v3/{path}"] for name, (verb, path) in _SAME_AS_REST.items()}
