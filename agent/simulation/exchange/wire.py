"""The venue's payloads: what its REST, WebSocket API and streams answer, field by field, as Binance spot writes them.

Every decimal is a string with eight places, every time is in milliseconds. Pure: state in, JSON-ready values out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.simulation.exchange.accounts import UNITS_PER_ASSET, Accounts, Balance, Transfer
from agent.simulation.exchange.filters import SymbolRules
from agent.simulation.exchange.history import Candle
from agent.simulation.exchange.matching import BUY, SELL, Book, Diff, Order
from agent.simulation.exchange.venue import Fill, Market, Report, Trade, Venue

Payload = dict[str, Any]

ORDER_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET")
PREVENTION_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")
_ZERO = "0.00000000"
_SIDES = ("BUY", "SELL")


def text(units: int) -> str:
    """Units of 1e-8 as a decimal with eight places."""
    sign, units = ("-", -units) if units < 0 else ("", units)
    return f"{sign}{units // UNITS_PER_ASSET}.{units % UNITS_PER_ASSET:08d}"


def rate_text(pips: int) -> str:
    """A fee in pips (1e-6) as the fraction that the venue prints."""
    return text(pips * 100)


def levels(rules: SymbolRules, side: Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    """Book levels as [price, size]."""
    tick, lot = rules.tick_units, rules.lot_units
    return [(text(price * tick), text(lots * lot)) for price, lots in side]


def depth(rules: SymbolRules, book: Book, levels_max: int) -> Payload:
    """A snapshot of the book."""
    return {
        "lastUpdateId": book.update_id,
        "bids": levels(rules, book.depth(BUY, levels_max)),
        "asks": levels(rules, book.depth(SELL, levels_max)),
    }


def depth_update(rules: SymbolRules, diff: Diff, now_ms: int) -> Payload:
    """A diff of the book; size 0 removes the level."""
    return {
        "e": "depthUpdate", "E": now_ms, "s": rules.symbol, "U": diff.first_update_id, "u": diff.last_update_id,
        "b": levels(rules, diff.bids), "a": levels(rules, diff.asks),
    }  # fmt: skip


def book_ticker(rules: SymbolRules, book: Book) -> tuple[str, str, str, str]:
    """(bid, bid size, ask, ask size)."""
    bid, ask = book.best(BUY) or (0, 0), book.best(SELL) or (0, 0)
    (bid_row,), (ask_row,) = levels(rules, [bid]), levels(rules, [ask])
    return (*bid_row, *ask_row)


def order(rules: SymbolRules, order: Order) -> Payload:
    """The fields that every view of an order has."""
    return {
        "symbol": rules.symbol, "orderId": order.id, "orderListId": -1, "clientOrderId": order.client_id,
        "price": text(order.price_ticks * rules.tick_units), "origQty": text(rules.base_units(order.size_lots)),
        "executedQty": text(rules.base_units(order.filled_lots)),
        "cummulativeQuoteQty": text(rules.quote_units(order.value)), "status": order.status,
        "timeInForce": order.time_in_force, "type": order.kind, "side": _SIDES[order.side],
        "origQuoteOrderQty": text(order.quote_units), "workingTime": order.created_ms,
        "selfTradePreventionMode": order.prevention,
    }  # fmt: skip


def order_placed(rules: SymbolRules, placed: Order, fills: Sequence[Fill], reply_kind: str) -> Payload:
    """The answer to a new order: ACK, RESULT or FULL (with its fills)."""
    if reply_kind == "ACK":
        keys = ("symbol", "orderId", "orderListId", "clientOrderId")
        whole = order(rules, placed)
        return {key: whole[key] for key in keys} | {"transactTime": placed.created_ms}
    payload = order(rules, placed) | {"transactTime": placed.created_ms}
    if reply_kind == "FULL":
        payload["fills"] = [_fill(rules, fill) for fill in fills]
    return payload


def order_cancelled(rules: SymbolRules, cancelled: Order, client_id: str) -> Payload:
    """The answer to a cancel: `clientOrderId` is the cancel's own id, `origClientOrderId` the order's."""
    return order(rules, cancelled) | {
        "origClientOrderId": cancelled.client_id, "clientOrderId": client_id, "transactTime": cancelled.updated_ms,
    }  # fmt: skip


def order_amended(rules: SymbolRules, amended: Order, old_id: str) -> Payload:
    """The answer to an amendment that kept the order's priority."""
    row = order(rules, amended)
    names = ("symbol", "orderId", "orderListId", "clientOrderId", "price", "executedQty", "status", "timeInForce", "type", "side")
    sums = {"cumulativeQuoteQty": row["cummulativeQuoteQty"], "quoteOrderQty": row["origQuoteOrderQty"], "preventedQty": _ZERO}
    kept = {name: row[name] for name in (*names, "workingTime", "selfTradePreventionMode")}
    return {
        "transactTime": amended.updated_ms, "executionId": amended.id * 2,
        "amendedOrder": kept | sums | {"origClientOrderId": old_id, "qty": row["origQty"]},
    }  # fmt: skip


def order_queried(rules: SymbolRules, queried: Order) -> Payload:
    """An order as a query shows it."""
    return order(rules, queried) | {
        "stopPrice": _ZERO, "icebergQty": _ZERO, "time": queried.created_ms, "updateTime": queried.updated_ms,
        "isWorking": True,
    }  # fmt: skip


def my_trade(rules: SymbolRules, fill: Fill) -> Payload:
    """One of the account's own trades."""
    value = rules.quote_units(fill.price_ticks * fill.size_lots)
    return {
        "symbol": fill.symbol, "id": fill.trade_id, "orderId": fill.order_id, "orderListId": -1,
        "price": text(fill.price_ticks * rules.tick_units), "qty": text(rules.base_units(fill.size_lots)),
        "quoteQty": text(value), "commission": text(fill.fee_units), "commissionAsset": fill.fee_asset,
        "time": fill.time_ms, "isBuyer": fill.side == BUY, "isMaker": fill.is_maker, "isBestMatch": True,
    }  # fmt: skip


def public_trade(rules: SymbolRules, trade: Trade) -> Payload:
    """One public print."""
    return {
        "id": trade.id, "price": text(trade.price_ticks * rules.tick_units), "qty": text(rules.base_units(trade.size_lots)),
        "quoteQty": text(rules.quote_units(trade.price_ticks * trade.size_lots)), "time": trade.time_ms,
        "isBuyerMaker": trade.is_buyer_maker, "isBestMatch": True,
    }  # fmt: skip


def aggregate_trade(rules: SymbolRules, prints: Sequence[Trade]) -> Payload:
    """The prints of one taker at one price, as one trade."""
    first = prints[0]
    return {
        "a": first.aggregate_id, "p": text(first.price_ticks * rules.tick_units),
        "q": text(rules.base_units(sum(trade.size_lots for trade in prints))), "f": first.id, "l": prints[-1].id,
        "T": first.time_ms, "m": first.is_buyer_maker, "M": True,
    }  # fmt: skip


def trade_event(rules: SymbolRules, trade: Trade) -> Payload:
    """A public print on the trade stream."""
    return {
        "e": "trade", "E": trade.time_ms, "s": rules.symbol, "t": trade.id,
        "p": text(trade.price_ticks * rules.tick_units), "q": text(rules.base_units(trade.size_lots)),
        "T": trade.time_ms, "m": trade.is_buyer_maker, "M": True,
    }  # fmt: skip


def candle(rules: SymbolRules, bar: Candle, interval_ms: int) -> list[Any]:
    """One row of the klines endpoint."""
    prices = (bar.open_ticks, bar.high_ticks, bar.low_ticks, bar.close_ticks)
    return [
        bar.start_ms, *(text(ticks * rules.tick_units) for ticks in prices), text(rules.base_units(bar.size_lots)),
        bar.start_ms + interval_ms - 1, text(rules.quote_units(bar.value)), bar.trades,
        text(rules.base_units(bar.buy_lots)), text(rules.quote_units(bar.buy_value)), "0",
    ]  # fmt: skip


def candle_event(rules: SymbolRules, bar: Candle, interval: str, interval_ms: int, now_ms: int) -> Payload:
    """The running candle on the kline stream."""
    row = candle(rules, bar, interval_ms)
    return {
        "e": "kline", "E": now_ms, "s": rules.symbol,
        "k": {"t": row[0], "T": row[6], "s": rules.symbol, "i": interval, "f": -1, "L": -1, "o": row[1], "c": row[4],
              "h": row[2], "l": row[3], "v": row[5], "n": row[8], "x": row[6] < now_ms, "q": row[7], "V": row[9],
              "Q": row[10], "B": "0"},
    }  # fmt: skip


def day_ticker(market: Market, now_ms: int) -> Payload:
    """The statistics of the last 24 hours (ticker/24hr)."""
    rules, bar = market.rules, market.candles.last_day(now_ms) or Candle(now_ms, 0, 0, 0, 0)
    bid, bid_size, ask, ask_size = book_ticker(rules, market.book)
    tick = rules.tick_units
    change = bar.close_ticks - bar.open_ticks
    percent = change * UNITS_PER_ASSET * 100 // bar.open_ticks if bar.open_ticks else 0
    first, last = (market.trades[0], market.trades[-1]) if market.trades else (None, None)
    average = rules.quote_units(bar.value) * UNITS_PER_ASSET // rules.base_units(bar.size_lots) if bar.size_lots else 0
    return {
        "symbol": rules.symbol, "priceChange": text(change * tick), "priceChangePercent": text(percent),
        "weightedAvgPrice": text(average), "prevClosePrice": text(bar.open_ticks * tick),
        "lastPrice": text(bar.close_ticks * tick), "lastQty": text(rules.base_units(last.size_lots)) if last else _ZERO,
        "bidPrice": bid, "bidQty": bid_size, "askPrice": ask, "askQty": ask_size,
        "openPrice": text(bar.open_ticks * tick), "highPrice": text(bar.high_ticks * tick),
        "lowPrice": text(bar.low_ticks * tick), "volume": text(rules.base_units(bar.size_lots)),
        "quoteVolume": text(rules.quote_units(bar.value)), "openTime": bar.start_ms, "closeTime": now_ms,
        "firstId": first.id if first else -1, "lastId": last.id if last else -1, "count": bar.trades,
    }  # fmt: skip


def day_ticker_event(market: Market, now_ms: int, *, is_mini: bool) -> Payload:
    """The 24-hour statistics on the ticker and miniTicker streams."""
    full = day_ticker(market, now_ms)
    mini = {
        "e": "24hrMiniTicker", "E": now_ms, "s": full["symbol"], "c": full["lastPrice"], "o": full["openPrice"],
        "h": full["highPrice"], "l": full["lowPrice"], "v": full["volume"], "q": full["quoteVolume"],
    }  # fmt: skip
    if is_mini:
        return mini
    return mini | {
        "e": "24hrTicker", "p": full["priceChange"], "P": full["priceChangePercent"], "w": full["weightedAvgPrice"],
        "x": full["prevClosePrice"], "Q": full["lastQty"], "b": full["bidPrice"], "B": full["bidQty"],
        "a": full["askPrice"], "A": full["askQty"], "O": full["openTime"], "C": full["closeTime"],
        "F": full["firstId"], "L": full["lastId"], "n": full["count"],
    }  # fmt: skip


def account(accounts: Accounts, name: str, uid: int, now_ms: int, *, omit_zero: bool) -> Payload:
    """Balances and fee rates of an account."""
    maker, taker = rate_text(accounts.maker_fee_pips), rate_text(accounts.taker_fee_pips)
    held = accounts.assets(name).items()
    return {
        "makerCommission": accounts.maker_fee_pips // 100, "takerCommission": accounts.taker_fee_pips // 100,
        "buyerCommission": 0, "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": _ZERO, "seller": _ZERO},
        "canTrade": True, "canWithdraw": True, "canDeposit": True, "brokered": False,
        "requireSelfTradePrevention": False, "preventSor": False, "updateTime": now_ms, "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": text(balance.free), "locked": text(balance.locked)}
            for asset, balance in held if not omit_zero or balance.free or balance.locked
        ],
        "permissions": ["SPOT"], "uid": uid,
    }  # fmt: skip


def execution_report(rules: SymbolRules, report: Report) -> Payload:
    """The user event of one step of an order. Cumulative figures are those after this step; N is never null on a TRADE."""
    subject, fill = report.order, report.fill
    price, lots = (fill.price_ticks, fill.size_lots) if fill else (0, 0)
    return {
        "e": "executionReport", "E": report.time_ms, "s": rules.symbol, "c": report.client_id or subject.client_id,
        "S": _SIDES[subject.side], "o": subject.kind, "f": subject.time_in_force,
        "q": text(rules.base_units(subject.size_lots)), "p": text(subject.price_ticks * rules.tick_units), "P": _ZERO,
        "F": _ZERO, "g": -1, "x": report.execution,
        "C": report.original_id or (subject.client_id if report.client_id else ""),
        "X": report.status, "r": "NONE", "i": subject.id, "l": text(rules.base_units(lots)),
        "z": text(rules.base_units(report.filled_lots)), "L": text(price * rules.tick_units),
        "n": text(fill.fee_units) if fill else "0", "N": fill.fee_asset if fill else None, "T": report.time_ms,
        "t": fill.trade_id if fill else -1, "I": subject.id * 2, "w": report.status in ("NEW", "PARTIALLY_FILLED"),
        "m": bool(fill and fill.is_maker), "M": False, "O": subject.created_ms,
        "Z": text(rules.quote_units(report.value)), "Y": text(rules.quote_units(price * lots)),
        "Q": text(subject.quote_units), "W": subject.created_ms, "V": subject.prevention,
    }  # fmt: skip


def account_position(accounts: Accounts, name: str, assets: Iterable[str], now_ms: int) -> Payload:
    """The user event of changed balances."""
    held = [(asset, accounts.balance(name, asset)) for asset in assets]
    return {
        "e": "outboundAccountPosition", "E": now_ms, "u": now_ms,
        "B": [{"a": asset, "f": text(balance.free), "l": text(balance.locked)} for asset, balance in held],
    }  # fmt: skip


def balance_update(asset: str, units: int, now_ms: int) -> Payload:
    """The user event of a deposit or a withdrawal."""
    return {"e": "balanceUpdate", "E": now_ms, "a": asset, "d": text(units), "T": now_ms}


def exchange_info(venue: Venue, names: Sequence[str], limits: list[Payload], now_ms: int) -> Payload:
    """Symbols, filters and limits."""
    return {
        "timezone": "UTC", "serverTime": now_ms, "rateLimits": limits, "exchangeFilters": [],
        "symbols": [_symbol(venue.rules[name]) for name in names],
    }  # fmt: skip


def trade_fees(accounts: Accounts, rules: Mapping[str, SymbolRules], names: Sequence[str]) -> list[Payload]:
    """Fee rates per symbol (asset/tradeFee)."""
    maker, taker = rate_text(accounts.maker_fee_pips), rate_text(accounts.taker_fee_pips)
    return [{"symbol": rules[name].symbol, "makerCommission": maker, "takerCommission": taker} for name in names]


def _symbol(rules: SymbolRules) -> Payload:
    return {
        "symbol": rules.symbol, "status": rules.status, "baseAsset": rules.base, "baseAssetPrecision": 8,
        "quoteAsset": rules.quote, "quotePrecision": 8, "quoteAssetPrecision": 8, "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8, "orderTypes": list(ORDER_TYPES), "icebergAllowed": False, "ocoAllowed": False,
        "otoAllowed": False, "quoteOrderQtyMarketAllowed": True, "allowTrailingStop": False,
        "cancelReplaceAllowed": True, "amendAllowed": True, "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE", "allowedSelfTradePreventionModes": list(PREVENTION_MODES),
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": text(rules.tick_units), "maxPrice": text(rules.price_units_max),
             "tickSize": text(rules.tick_units * rules.tick_step)},
            {"filterType": "LOT_SIZE", "minQty": text(rules.lot_units), "maxQty": text(rules.size_units_max),
             "stepSize": text(rules.lot_units * rules.lot_step)},
            {"filterType": "NOTIONAL", "minNotional": text(rules.notional_units_min), "applyMinToMarket": True,
             "maxNotional": "9000000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 0},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": rules.open_orders_max},
        ],
    }  # fmt: skip


def _fill(rules: SymbolRules, fill: Fill) -> Payload:
    return {
        "price": text(fill.price_ticks * rules.tick_units), "qty": text(rules.base_units(fill.size_lots)),
        "commission": text(fill.fee_units), "commissionAsset": fill.fee_asset, "tradeId": fill.trade_id,
    }  # fmt: skip


def coin(asset: str, balance: Balance) -> Payload:
    """One row of capital/config/getall."""
    network = {
        "network": "ETH", "coin": asset, "name": "Local chain", "isDefault": True, "depositEnable": True,
        "withdrawEnable": True, "withdrawFee": "0", "withdrawMin": "0.00000001", "withdrawMax": "9999999999",
        "withdrawIntegerMultiple": "0.00000001", "minConfirm": 1, "unLockConfirm": 1, "depositDesc": "", "withdrawDesc": "",
        "specialTips": "", "resetAddressStatus": False, "addressRegex": "^(0x)[0-9A-Fa-f]{40}$", "memoRegex": "",
        "sameAddress": False, "estimatedArrivalTime": 1, "busy": False,
    }  # fmt: skip
    return {
        "coin": asset, "name": asset, "trading": True, "isLegalMoney": False, "depositAllEnable": True,
        "withdrawAllEnable": True, "free": text(balance.free), "locked": text(balance.locked), "freeze": "0",
        "storage": "0", "ipoing": "0", "ipoable": "0", "withdrawing": "0", "networkList": [network],
    }  # fmt: skip


def deposit(entry: Transfer) -> Payload:
    """One row of capital/deposit/hisrec; status 1 is credited."""
    return {
        "id": str(entry.id), "amount": text(entry.units), "coin": entry.asset, "network": entry.network or "ETH",
        "status": 1, "address": entry.address, "addressTag": "", "txId": f"{entry.id:064x}",
        "insertTime": entry.time_ms, "completeTime": entry.time_ms, "confirmTimes": "1/1", "transferType": 0,
    }  # fmt: skip


def withdrawal(entry: Transfer) -> Payload:
    """One row of capital/withdraw/history; status 6 is completed."""
    return {
        "id": f"{entry.id:032x}", "amount": text(-entry.units), "transactionFee": "0", "coin": entry.asset, "status": 6,
        "address": entry.address, "txId": f"{entry.id:064x}", "network": entry.network, "transferType": 0,
        "applyTime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time_ms // 1000)),
    }  # fmt: skip
