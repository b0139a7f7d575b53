"""A tape as bars: what a market did, second by second, from the frames that `isthmus record` wrote beside an agent."""

from collections import deque
from pathlib import Path
from typing import Any

from agent.market.bars import Bar, Bars
from agent.simulation.exchange.tape import TapeError, read_tape

SAMPLE_NS = 250_000_000  # between two looks at the book, as the agent itself looks
SECONDS_MAX = 31 * 86_400  # as long as any order may last
WAITING_MAX = 10_000  # changes before a snapshot


def tape_bars(path: Path, symbol: str) -> list[Bar]:
    """All bars of a symbol (`ETHUSDT`). Where the tape lost updates, the middle is not known until its next snapshot.

    Raises TapeError if the tape holds nothing of it; OSError if it cannot be read.
    """
    bars, book, sampled_ns, symbols = Bars(SECONDS_MAX), _Top(), 0, set[str]()
    for frame in read_tape(path):
        data = frame.frame.get("data", frame.frame)
        if not isinstance(data, dict):
            continue
        if "s" in data:
            symbols.add(str(data["s"])[:20])
        if data.get("s", symbol) != symbol:
            continue
        try:
            if str(frame.frame.get("stream", "")).endswith("@trade"):
                bars.add(float(data["q"]), float(data["p"]), frame.received_ns)
            else:
                book.apply(data)
        except (KeyError, TypeError, ValueError):
            raise TapeError(
                f"{path.name}: a frame at {frame.received_ns} is none of an order book; record the tape again"
            ) from None
        if book.is_whole and frame.received_ns >= sampled_ns + SAMPLE_NS:
            sampled_ns = frame.received_ns
            bid, ask = book.best()
            if 0 < bid < ask:
                bars.sample((bid + ask) / 2, bid, ask, sampled_ns)
    if symbol not in symbols:
        raise TapeError(f"{path.name} holds nothing of {symbol}; it holds {', '.join(sorted(symbols)) or 'no market at all'}")
    return list(bars.since(0))


class _Top:
    """The best prices of a book as the tape tells it: a snapshot, and the changes that follow it without a gap."""

    def __init__(self) -> None:
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}
        self._waiting: deque[dict[str, Any]] = deque(maxlen=WAITING_MAX)
        self._last = -1  # the newest update that is in it; -1 before the snapshot

    @property
    def is_whole(self) -> bool:
        return self._last >= 0

    def best(self) -> tuple[float, float]:
        return max(self._bids, default=0.0), min(self._asks, default=0.0)

    def apply(self, data: dict[str, Any]) -> None:
        """A snapshot, a change, or something else that says nothing about the book."""
        if "lastUpdateId" in data:
            self._bids, self._asks, self._last = {}, {}, int(data["lastUpdateId"])
            self._take(data["bids"], data["asks"])
            waiting = list(self._waiting)
            self._waiting.clear()
            for earlier in waiting:
                self.apply(earlier)
        elif data.get("e") == "depthUpdate":
            if not self.is_whole or data["U"] > self._last + 1:
                self._last = -1
                self._waiting.append(data)
            elif data["u"] > self._last:
                self._last = data["u"]
                self._take(data["b"], data["a"])

    def _take(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        for side, rows in ((self._bids, bids), (self._asks, asks)):
            for price, size in rows:
                if float(size) > 0:
                    side[float(price)] = float(size)
                else:
                    side.pop(float(price), None)
