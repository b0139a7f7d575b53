"""NautilusTrader, asked over a pipe: its order book in Rust (the pyo3 module), and its live engines.

Book: `load` a stream of updates, then apply and read it. `built`: making the deltas, which its adapters do for every message, is in
the time; `ready`: they are made beforehand. Engines: `ticks` on asyncio's loop or on uvloop, the one that is asked first.
"""

import asyncio
import importlib.metadata
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this program runs in isolation, by its path

from nautilus_trader.core import nautilus_pyo3 as nautilus  # noqa: E402
from wire import serve  # noqa: E402

ID = nautilus.InstrumentId.from_str("ETHUSDT.BINANCE")
DEPTH = 50
Levels = list[list[int]]


class Books:
    """Owns one book for each way of timing, and the stream."""

    def load(self, bids: Levels, asks: Levels, messages: list[tuple[Levels, Levels]]) -> dict[str, Any]:
        self._messages = messages
        self._ready = [_deltas(*message, i + 1) for i, message in enumerate(messages)]
        self._books = {}
        self._next = {"built": 0, "ready": 0}
        for name in self._next:
            book = nautilus.OrderBook(ID, nautilus.BookType.L2_MBP)
            book.apply_deltas(_deltas(bids, asks, 0))
            self._books[name] = book
        return {}

    def built(self, count: int) -> dict[str, Any]:
        book, taken, now = self._books["built"], [], time.perf_counter_ns
        for i in range(self._next["built"], self._next["built"] + count):
            bids, asks = self._messages[i]
            start = now()
            book.apply_deltas(_deltas(bids, asks, i + 1))
            book.bids(DEPTH)
            book.asks(DEPTH)
            taken.append(now() - start)
        self._next["built"] += count
        return {"ns": taken}

    def ready(self, count: int) -> dict[str, Any]:
        book, taken, now = self._books["ready"], [], time.perf_counter_ns
        for deltas in self._ready[self._next["ready"] : self._next["ready"] + count]:
            start = now()
            book.apply_deltas(deltas)
            book.bids(DEPTH)
            book.asks(DEPTH)
            taken.append(now() - start)
        self._next["ready"] += count
        return {"ns": taken}

    def book(self, name: str) -> dict[str, Any]:
        """All levels, best first."""
        book = self._books[name]
        return {"bids": [_level(one) for one in book.bids()], "asks": [_level(one) for one in book.asks()]}


class Engines:
    """Owns the live engines, once they are asked for."""

    def __init__(self) -> None:
        self._live: Any = None

    def ticks(self, count: int, loop: str) -> dict[str, Any]:
        if self._live is None:
            from live import Live  # its imports take seconds, and the book needs none of them

            self._live = Live(_loop(loop))
        found: dict[str, Any] = self._live.ticks(count)
        return found


def _loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()  # by name: importing their package installs uvloop's policy


def _deltas(bids: Levels, asks: Levels, number: int) -> Any:
    rows = []
    for side, levels in ((nautilus.OrderSide.BUY, bids), (nautilus.OrderSide.SELL, asks)):
        for price, size in levels:
            action = nautilus.BookAction.UPDATE if size else nautilus.BookAction.DELETE
            order = nautilus.BookOrder(side, nautilus.Price(price, 0), nautilus.Quantity(size, 0), 0)
            rows.append(nautilus.OrderBookDelta(ID, action, order, 0, number, number, number))
    return nautilus.OrderBookDeltas(ID, rows)


def _level(level: Any) -> tuple[int, int]:
    return int(level.price.as_double()), int(level.size())


def main() -> None:
    books, engines = Books(), Engines()
    jobs = {name: getattr(books, name) for name in ("load", "built", "ready", "book")} | {"ticks": engines.ticks}
    serve(jobs, {"nautilus-trader": importlib.metadata.version("nautilus-trader"), "python": sys.version.split()[0]})


if __name__ == "__main__":
    main()
