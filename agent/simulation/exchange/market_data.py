"""The public endpoints, market data of all symbols, and how a page of rows is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from agent.simulation.exchange import wire
from agent.simulation.exchange.access import limit_rows
from agent.simulation.exchange.filters import Params, Refused, SymbolRules, integer, required, symbol_rules
from agent.simulation.exchange.history import INTERVAL_MS
from agent.simulation.exchange.venue import Trade, Venue

T = TypeVar("T")

LIMIT_MAX: Final = 1000
_DEPTH_MAX: Final = 5000


def ping(_venue: Venue, _account: str, _params: Params, _now_ms: int) -> wire.Payload:
    """Nothing, to test the connection."""
    return {}


def time(_venue: Venue, _account: str, _params: Params, now_ms: int) -> wire.Payload:
    """The venue's clock."""
    return {"serverTime": now_ms}


def exchange_info(venue: Venue, _account: str, params: Params, now_ms: int) -> wire.Payload:
    """Symbols, filters and limits."""
    names = [rules.symbol for rules in _selected(venue, params)]
    return wire.exchange_info(venue, names, limit_rows(), now_ms)


def depth(venue: Venue, _account: str, params: Params, _now_ms: int) -> wire.Payload:
    """A snapshot of the book."""
    rules = symbol_rules(params, venue.rules)
    limit = min(integer(params, "limit", 100, 1), _DEPTH_MAX)
    return wire.depth(rules, venue.markets[rules.symbol].book, limit)


def trades(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    """Public prints, the latest or from an id on."""
    rules = symbol_rules(params, venue.rules)
    trades = venue.markets[rules.symbol].trades
    if "fromId" in params:
        first = integer(params, "fromId")
        chosen = _head((trade for trade in trades if trade.id >= first), page_limit(params))
    else:
        chosen = list(trades)[-page_limit(params) :]
    return [wire.public_trade(rules, trade) for trade in chosen]


def agg_trades(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[wire.Payload]:
    """Public prints joined per taker and price."""
    rules = symbol_rules(params, venue.rules)
    trades: Iterable[Trade] = venue.markets[rules.symbol].trades
    is_bounded = "fromId" in params or "startTime" in params
    if "fromId" in params:
        first = integer(params, "fromId")
        trades = (trade for trade in trades if trade.aggregate_id >= first)
    trades = in_time(params, trades, lambda trade: trade.time_ms)
    groups = [list(prints) for _, prints in itertools.groupby(trades, lambda trade: trade.aggregate_id)]
    chosen = groups[: page_limit(params)] if is_bounded else groups[-page_limit(params) :]
    return [wire.aggregate_trade(rules, prints) for prints in chosen]


def klines(venue: Venue, _account: str, params: Params, _now_ms: int) -> list[list[Any]]:
    """Candles."""
    rules = symbol_rules(params, venue.rules)
    interval_ms = INTERVAL_MS.get(required(params, "interval"))
    if interval_ms is None:
        raise Refused(-1120, "Invalid interval.")
    bars = venue.markets[rules.symbol].candles.aggregate(interval_ms)
    bars = list(in_time(params, bars, lambda bar: bar.start_ms))
    limit = page_limit(params)
    chosen = bars[:limit] if "startTime" in params else bars[-limit:]
    return [wire.candle(rules, bar, interval_ms) for bar in chosen]


def day_ticker(venue: Venue, _account: str, params: Params, now_ms: int) -> Any:
    """Statistics of the last 24 hours."""
    return _each(venue, params, lambda rules: wire.day_ticker(venue.markets[rules.symbol], now_ms))


def book_ticker(venue: Venue, _account: str, params: Params, _now_ms: int) -> Any:
    """Best bid and ask."""

    def row(rules: SymbolRules) -> wire.Payload:
        bid, bid_size, ask, ask_size = wire.book_ticker(rules, venue.markets[rules.symbol].book)
        return {"symbol": rules.symbol, "bidPrice": bid, "bidQty": bid_size, "askPrice": ask, "askQty": ask_size}

    return _each(venue, params, row)


def price_ticker(venue: Venue, _account: str, params: Params, now_ms: int) -> Any:
    """The last price."""

    def row(rules: SymbolRules) -> wire.Payload:
        return {"symbol": rules.symbol, "price": wire.day_ticker(venue.markets[rules.symbol], now_ms)["lastPrice"]}

    return _each(venue, params, row)


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


def page_limit(params: Params) -> int:
    """How many rows are asked for: 500 unless told, 1000 at most."""
    return min(integer(params, "limit", 500, 1), LIMIT_MAX)


def in_time(params: Params, rows: Iterable[T], time_ms: Callable[[T], int]) -> Iterable[T]:
    """The rows between startTime and endTime, inclusive."""
    first, last = integer(params, "startTime", 0), integer(params, "endTime", 10**17)
    if first > last:
        raise Refused(-1127, "Start time is greater than end time.")
    return (row for row in rows if first <= time_ms(row) <= last)


def _head(rows: Iterable[T], limit: int) -> list[T]:
    return list(itertools.islice(rows, limit))
