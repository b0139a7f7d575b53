"""From what happened at the venue to what its streams say: trades and best prices at once, books and statistics on a timer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final

from agent.simulation.exchange import faults as fault_names
from agent.simulation.exchange import wire
from agent.simulation.exchange.accounts import Transfer
from agent.simulation.exchange.faults import Faults
from agent.simulation.exchange.history import INTERVAL_MS
from agent.simulation.exchange.matching import Diff
from agent.simulation.exchange.streams import Hub
from agent.simulation.exchange.venue import Market, Report, Trade, Venue

_PARTIAL_LEVELS: Final = (5, 10, 20)
_TICKS_PER_SECOND: Final = 10


class Publisher:
    """Listens to a venue and feeds a hub. `tick` is called every 100 ms."""

    def __init__(self, venue: Venue, hub: Hub, faults: Faults, now_ms: Callable[[], int]) -> None:
        self._venue, self._hub, self._faults, self._now_ms = venue, hub, faults, now_ms
        self._best: dict[str, tuple[str, str, str, str]] = {}
        self._slow: dict[str, list[Diff]] = {symbol: [] for symbol in venue.markets}
        self._ticks = 0
        venue.on_report = self._on_report
        venue.on_trades = self._on_trades
        venue.on_balances = self._on_balances
        venue.on_transfer = self._on_transfer

    def tick(self) -> None:
        """Publish the book diffs of the last 100 ms, and once a second the slower streams."""
        self._ticks += 1
        is_second = self._ticks % _TICKS_PER_SECOND == 0
        for symbol, market in self._venue.markets.items():
            self._publish_depth(symbol, market, is_second)
            if is_second:
                self._publish_statistics(symbol, market)

    def book_moved(self, symbol: str) -> None:
        """Publish the best bid and ask if they changed since the last time."""
        topic = f"{symbol.lower()}@bookTicker"
        if not self._hub.wants(topic):
            return
        market = self._venue.markets[symbol]
        best = wire.book_ticker(market.rules, market.book)
        if best != self._best.get(symbol):
            self._best[symbol] = best
            names = ("b", "B", "a", "A")
            row = dict(zip(names, best, strict=True))
            self._hub.publish(topic, {"u": market.book.update_id, "s": symbol} | row)

    def _publish_depth(self, symbol: str, market: Market, is_second: bool) -> None:
        now_ms, name, slow = self._now_ms(), symbol.lower(), self._slow[symbol]
        diff = market.book.take_diff()
        if diff is not None:
            slow.append(diff)
            if not self._faults.strike(fault_names.DEPTH_GAP, symbol=symbol) and self._hub.wants(f"{name}@depth@100ms"):
                self._hub.publish(f"{name}@depth@100ms", wire.depth_update(market.rules, diff, now_ms))
            self._publish_partial(name, market, "@100ms")
        if is_second and slow:
            if self._hub.wants(f"{name}@depth"):
                self._hub.publish(f"{name}@depth", wire.depth_update(market.rules, _joined(slow), now_ms))
            self._publish_partial(name, market, "")
            slow.clear()

    def _publish_partial(self, name: str, market: Market, speed: str) -> None:
        for count in _PARTIAL_LEVELS:
            topic = f"{name}@depth{count}{speed}"
            if self._hub.wants(topic):
                self._hub.publish(topic, wire.depth(market.rules, market.book, count))

    def _publish_statistics(self, symbol: str, market: Market) -> None:
        now_ms, name, rules = self._now_ms(), symbol.lower(), market.rules
        for topic, is_mini in ((f"{name}@ticker", False), (f"{name}@miniTicker", True)):
            if self._hub.wants(topic):
                self._hub.publish(topic, wire.day_ticker_event(market, now_ms, is_mini=is_mini))
        for interval, interval_ms in INTERVAL_MS.items():
            if not self._hub.wants(f"{name}@kline_{interval}"):
                continue
            bars = market.candles.aggregate(interval_ms)
            if bars:
                event = wire.candle_event(rules, bars[-1], interval, interval_ms, now_ms)
                self._hub.publish(f"{name}@kline_{interval}", event)

    def _on_report(self, report: Report) -> None:
        rules = self._venue.rules[report.symbol]
        self._hub.tell(report.order.account, wire.execution_report(rules, report))

    def _on_balances(self, account: str, assets: tuple[str, ...], now_ms: int) -> None:
        self._hub.tell(account, wire.account_position(self._venue.accounts, account, assets, now_ms))

    def _on_transfer(self, entry: Transfer) -> None:
        self._hub.tell(entry.account, wire.balance_update(entry.asset, entry.units, entry.time_ms))

    def _on_trades(self, symbol: str, trades: list[Trade]) -> None:
        rules, name = self._venue.rules[symbol], symbol.lower()
        if self._hub.wants(f"{name}@trade"):
            for trade in trades:
                self._hub.publish(f"{name}@trade", wire.trade_event(rules, trade))
        if self._hub.wants(f"{name}@aggTrade"):
            for _, prints in itertools.groupby(trades, lambda trade: trade.aggregate_id):
                rows = list(prints)
                head = {"e": "aggTrade", "E": rows[0].time_ms, "s": symbol}
                self._hub.publish(f"{name}@aggTrade", head | wire.aggregate_trade(rules, rows))


def _joined(diffs: list[Diff]) -> Diff:
    """Consecutive diffs as one: the last word on every level."""
    return Diff(
        diffs[0].first_update_id,
        diffs[-1].last_update_id,
        _last_words(diff.bids for diff in diffs),
        _last_words(diff.asks for diff in diffs),
    )


def _last_words(sides: Iterable[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return list({price: lots for side in sides for price, lots in side}.items())
