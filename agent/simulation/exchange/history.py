"""One-minute candles of a symbol, bounded, and what follows from them: longer candles and the 24-hour statistics."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

MINUTE_MS: Final = 60_000
DAY_MINUTES: Final = 1440
_MINUTES_MAX: Final = 2 * DAY_MINUTES

INTERVAL_MS: Final = {
    "1m": MINUTE_MS, "3m": 3 * MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS, "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS, "2h": 120 * MINUTE_MS, "4h": 240 * MINUTE_MS, "1d": DAY_MINUTES * MINUTE_MS,
}  # fmt: skip


class Candle(msgspec.Struct):
    """Prices in ticks, sizes in lots, values in ticks x lots, over [start, start + length)."""

    start_ms: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    size_lots: int = 0
    value: int = 0
    trades: int = 0
    buy_lots: int = 0
    buy_value: int = 0

    def merge(self, later: Candle) -> None:
        """Extend this candle by a later one."""
        self.high_ticks = max(self.high_ticks, later.high_ticks)
        self.low_ticks = min(self.low_ticks, later.low_ticks)
        self.close_ticks = later.close_ticks
        self.size_lots += later.size_lots
        self.value += later.value
        self.trades += later.trades
        self.buy_lots += later.buy_lots
        self.buy_value += later.buy_value


class Candles:
    """The last two days of one-minute candles."""

    def __init__(self) -> None:
        self._minutes: deque[Candle] = deque(maxlen=_MINUTES_MAX)

    def add(self, price_ticks: int, size_lots: int, is_buy: bool, now_ms: int) -> None:
        """Count one print; `is_buy` says that the taker bought."""
        start = now_ms - now_ms % MINUTE_MS
        value = price_ticks * size_lots
        bought = (size_lots, value) if is_buy else (0, 0)
        print_ = Candle(start, price_ticks, price_ticks, price_ticks, price_ticks, size_lots, value, 1, *bought)
        if self._minutes and self._minutes[-1].start_ms >= start:
            self._minutes[-1].merge(print_)
        else:
            self._minutes.append(print_)

    def aggregate(self, interval_ms: int) -> list[Candle]:
        """Candles of a longer interval, oldest first; minutes without a trade leave no candle."""
        merged: list[Candle] = []
        for minute in self._minutes:
            start = minute.start_ms - minute.start_ms % interval_ms
            if merged and merged[-1].start_ms == start:
                merged[-1].merge(minute)
            else:
                merged.append(msgspec.structs.replace(minute, start_ms=start))
        return merged

    def last_day(self, now_ms: int) -> Candle | None:
        """One candle over the last 24 hours; None before the first trade."""
        whole: Candle | None = None
        for minute in self._minutes:
            if minute.start_ms > now_ms - DAY_MINUTES * MINUTE_MS:
                if whole is None:
                    whole = msgspec.structs.replace(minute)
                else:
                    whole.merge(minute)
        return whole
