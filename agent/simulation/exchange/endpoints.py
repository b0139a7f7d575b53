"""Every endpoint in one table: its name on REST and on the WebSocket API, who may call it, what it weighs, what it answers.

A handler is a function of (venue, account, parameters, now): it raises `Refused` or returns what is written as JSON.
Weights: Binance spot API documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgspec

from agent.simulation.exchange import wire
from agent.simulation.exchange.algo_endpoints import cancel_algo, new_twap, open_algos, past_algos, sub_orders
from agent.simulation.exchange.filters import (
    Params,
    Refused,
    SymbolRules,
    client_id,
    decimal_units,
    integer,
    optional,
    parse_order,
    parse_size,
    required,
    symbol_rules,
)
from agent.simulation.exchange.market_data import (
    LIMIT_MAX,
    agg_trades,
    book_ticker,
    day_ticker,
    depth,
    exchange_info,
    in_time,
    klines,
    page_limit,
    ping,
    price_ticker,
    time,
    trades,
)
from agent.simulation.exchange.matching import Order
from agent.simulation.exchange.venue import Fill, Venue

Handler = Callable[[Venue, str, Params, int], Any]
Scope = Literal["place", "cancel", "query"]


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint. `scope` is what faults are armed on; `rows` names the list that it answers with, which may be cut."""

    handler: Handler
    weight: int
    is_signed: bool = True
    scope: Scope = "query"
    rows: str = ""
    is_replacement: bool = False


def weight(endpoint: Endpoint, params: Params) -> int:
    """What a call costs: a few cost more, the more they ask for."""
    if endpoint.handler is depth:
        limit = params.get("limit", "100")
        size = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 6 else 100
        return next((cost for top, cost in ((100, 5), (500, 25), (1000, 50)) if size <= top), 250)
    if endpoint.handler is _open_orders and "symbol" not in params:
        return 80
    if endpoint.handler in (day_ticker, book_ticker, price_ticker) and "symbol" not in params:
        return 80 if endpoint.handler is day_ticker else 4
    return endpoint.weight


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


def _amend(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    rules = symbol_rules(params, venue.rules)
    order = _named_order(venue, account, rules, params, "orderId", "origClientOrderId")
    old_id, new_id = order.client_id, client_id(params, "newClientOrderId") or venue.new_client_id()
    venue.amend(account, rules.symbol, order, parse_size(params, rules, "newQty"), now_ms, new_id)
    return wire.order_amended(rules, order, old_id)


def _countdown(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    rules = symbol_rules(params, venue.rules)
    length_ms = integer(params, "countdownTime", at_most=86_400_000)
    venue.on_countdown(account, rules.symbol, length_ms, now_ms)
    return {"symbol": rules.symbol, "countdownTime": str(length_ms)}


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
    chosen = list(in_time(params, orders, lambda order: order.created_ms))
    limit = page_limit(params)
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
    chosen = list(in_time(params, fills, lambda fill: fill.time_ms))
    limit = page_limit(params)
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


def _rights(venue: Venue, account: str, _params: Params, now_ms: int) -> wire.Payload:
    """What the key may do: read and trade, and withdraw only where that was asked for."""
    may_withdraw = account in venue.accounts.withdrawers
    rights = dict.fromkeys(("enableReading", "enableSpotAndMarginTrading"), True) | {"enableWithdrawals": may_withdraw}
    return {"ipRestrict": False, "createTime": now_ms, **rights}


def _trade_fees(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    names = [symbol_rules(params, venue.rules).symbol] if "symbol" in params else list(venue.rules)
    return wire.trade_fees(venue.accounts, venue.rules, names)


def _system_status(venue: Venue, _account: str, _params: Params, _now_ms: int) -> wire.Payload:
    return {"status": 1, "msg": "system_maintenance"} if venue.is_in_maintenance() else {"status": 0, "msg": "normal"}


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
    coin = required(params, "coin")
    if account not in venue.accounts.withdrawers:
        raise Refused(-1002, "You are not authorized to execute this request.", 401)
    entry = venue.move(account, coin, -units, now_ms, address, network)
    if entry is None:
        raise Refused(-4026, "User has insufficient balance")
    return {"id": f"{entry.id:032x}"}


def _deposits(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    entries = [e for e in venue.accounts.transfers if e.account == account and e.units > 0]
    return [wire.deposit(entry) for entry in entries if params.get("coin", entry.asset) == entry.asset][-LIMIT_MAX:]


def _withdrawals(venue: Venue, account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    entries = [e for e in venue.accounts.transfers if e.account == account and e.units < 0]
    return [wire.withdrawal(entry) for entry in entries if params.get("coin", entry.asset) == entry.asset][-LIMIT_MAX:]


def _named_order(venue: Venue, account: str, rules: SymbolRules, params: Params, by_id: str, by_client_id: str) -> Order:
    if by_id not in params and by_client_id not in params:
        raise Refused(-1102, f"Param '{by_client_id}' or '{by_id}' must be sent, but both were empty/null!")
    order_id = integer(params, by_id) if by_id in params else None
    return venue.find(account, rules.symbol, order_id, client_id(params, by_client_id))


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
    ("GET", "/api/v3/ping"): Endpoint(ping, 1, is_signed=False),
    ("GET", "/api/v3/time"): Endpoint(time, 1, is_signed=False),
    ("GET", "/api/v3/exchangeInfo"): Endpoint(exchange_info, 20, is_signed=False),
    ("GET", "/api/v3/depth"): Endpoint(depth, 5, is_signed=False),
    ("GET", "/api/v3/trades"): Endpoint(trades, 25, is_signed=False),
    ("GET", "/api/v3/historicalTrades"): Endpoint(trades, 25, is_signed=False),
    ("GET", "/api/v3/aggTrades"): Endpoint(agg_trades, 4, is_signed=False),
    ("GET", "/api/v3/klines"): Endpoint(klines, 2, is_signed=False),
    ("GET", "/api/v3/ticker/24hr"): Endpoint(day_ticker, 2, is_signed=False),
    ("GET", "/api/v3/ticker/price"): Endpoint(price_ticker, 2, is_signed=False),
    ("GET", "/api/v3/ticker/bookTicker"): Endpoint(book_ticker, 2, is_signed=False),
    ("POST", "/api/v3/order"): Endpoint(_place, 1, scope="place"),
    ("POST", "/api/v3/order/test"): Endpoint(_test, 1),
    ("POST", "/api/v3/order/cancelReplace"): Endpoint(_cancel_replace, 1, scope="place", is_replacement=True),
    ("DELETE", "/api/v3/order"): Endpoint(_cancel, 1, scope="cancel"),
    ("DELETE", "/api/v3/openOrders"): Endpoint(_cancel_all, 1, scope="cancel"),
    ("PUT", "/api/v3/order/amend/keepPriority"): Endpoint(_amend, 4, scope="cancel"),
    ("POST", "/fapi/v1/countdownCancelAll"): Endpoint(_countdown, 10, scope="cancel"),
    ("GET", "/api/v3/order"): Endpoint(_order, 4),
    ("GET", "/api/v3/openOrders"): Endpoint(_open_orders, 6, rows="openOrders"),
    ("GET", "/api/v3/allOrders"): Endpoint(_all_orders, 20, rows="allOrders"),
    ("GET", "/api/v3/myTrades"): Endpoint(_my_trades, 20, rows="myTrades"),
    ("GET", "/api/v3/account"): Endpoint(_account, 20),
    ("GET", "/api/v3/account/commission"): Endpoint(_commission, 20),
    ("GET", "/sapi/v1/account/apiRestrictions"): Endpoint(_rights, 1),
    ("GET", "/sapi/v1/asset/tradeFee"): Endpoint(_trade_fees, 1),
    ("GET", "/sapi/v1/system/status"): Endpoint(_system_status, 1, is_signed=False),
    ("GET", "/sapi/v1/capital/config/getall"): Endpoint(_coins, 10),
    ("POST", "/sapi/v1/capital/withdraw/apply"): Endpoint(_withdraw, 1),
    ("GET", "/sapi/v1/capital/withdraw/history"): Endpoint(_withdrawals, 1),
    ("GET", "/sapi/v1/capital/deposit/hisrec"): Endpoint(_deposits, 1),
    ("POST", "/sapi/v1/algo/spot/newOrderTwap"): Endpoint(new_twap, 1, scope="place"),
    ("DELETE", "/sapi/v1/algo/spot/order"): Endpoint(cancel_algo, 1, scope="cancel"),
    ("GET", "/sapi/v1/algo/spot/openOrders"): Endpoint(open_algos, 1),
    ("GET", "/sapi/v1/algo/spot/historicalOrders"): Endpoint(past_algos, 1),
    ("GET", "/sapi/v1/algo/spot/subOrders"): Endpoint(sub_orders, 1),
}

_SAME_AS_REST: Final = {
    "ping": ("GET", "ping"), "time": ("GET", "time"), "exchangeInfo": ("GET", "exchangeInfo"), "depth": ("GET", "depth"),
    "trades.recent": ("GET", "trades"), "trades.historical": ("GET", "historicalTrades"),
    "trades.aggregate": ("GET", "aggTrades"), "klines": ("GET", "klines"), "ticker.24hr": ("GET", "ticker/24hr"),
    "ticker.price": ("GET", "ticker/price"), "ticker.book": ("GET", "ticker/bookTicker"),
    "order.place": ("POST", "order"), "order.test": ("POST", "order/test"),
    "order.cancelReplace": ("POST", "order/cancelReplace"), "order.cancel": ("DELETE", "order"),
    "order.amend.keepPriority": ("PUT", "order/amend/keepPriority"),
    "openOrders.cancelAll": ("DELETE", "openOrders"), "order.status": ("GET", "order"),
    "openOrders.status": ("GET", "openOrders"), "allOrders": ("GET", "allOrders"), "myTrades": ("GET", "myTrades"),
    "account.status": ("GET", "account"), "account.commission": ("GET", "account/commission"),
}  # fmt: skip

WS_API: Final = {name: REST[verb, f"/api/v3/{path}"] for name, (verb, path) in _SAME_AS_REST.items()}
