"""Tapes: raw frames as a venue sent them, read, written, and replayed as the background liquidity of the sandbox exchange.

A tape is gzipped text, one frame a line: `<local receive time, ns since 1970> <JSON frame>`, split at the first space. Frames
are `{"stream": ..., "data": ...}` of `<symbol>@depth@100ms` and `<symbol>@trade`, and a bare REST snapshot with `lastUpdateId`.
Other streams may be there and are passed over. Blank lines are allowed, and a tape that was cut off ends where it was cut.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from agent.simulation.exchange.filters import SymbolRules, units
from agent.simulation.exchange.liquidity import Action, Quote, Take
from agent.simulation.exchange.matching import BUY, SELL

LINE_BYTES_MAX: Final = 4 * 1024 * 1024
_BUFFERED_MAX: Final = 10_000
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Frame(msgspec.Struct, frozen=True):
    """One recorded frame and when it was received (ns since 1970)."""

    received_ns: int
    frame: dict[str, Any]


class TapeError(ValueError):
    """A tape that cannot be read; says where and what to do."""


class TapeWriter:
    """Writes a tape; use as a context manager, or call `close`."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path, "wt", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()

    def __enter__(self) -> TapeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, received_ns: int, frame_text: str) -> None:
        """Append one frame, as received. ValueError if it holds a line break."""
        if "\n" in frame_text or "\r" in frame_text:
            raise ValueError("a frame on a tape is one line: strip its line breaks first")
        self._file.write(f"{received_ns} {frame_text}\n")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def read_tape(path: Path) -> Iterator[Frame]:
    """The frames of a tape, in sequence. TapeError for a line that is no frame; OSError if the file cannot be opened."""
    with gzip.open(path, "rb") as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(LINE_BYTES_MAX)
            except EOFError:  # the recorder was killed: what it wrote before is good
                return
            if not line:
                return
            if line.strip():
                frame = _parse_line(line)
                if frame is None:
                    raise TapeError(f"{path.name}, line {number}: not '<ns> <JSON object>'; record the tape again or cut it there")
                yield frame


class TapeBook:
    """The book that a tape describes: buffers diffs until the snapshot joins them, then follows without a gap."""

    def __init__(self, rules: SymbolRules) -> None:
        self.sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.update_id: int | None = None
        self._rules = rules
        self._buffer: list[dict[str, Any]] = []

    def load(self, snapshot: dict[str, Any]) -> list[Quote]:
        """Take a REST snapshot and join the diffs that came before it; returns what changes."""
        wanted: dict[tuple[int, int], int] = {(side, price): 0 for side in (BUY, SELL) for price in self.sides[side]}
        for side in self.sides:
            side.clear()
        self.update_id = int(snapshot["lastUpdateId"])
        for quote in self._levels(snapshot["bids"], snapshot["asks"]):
            wanted[quote.side, quote.price_ticks] = quote.size_lots
        for diff in self._buffer:
            for quote in self.follow(diff):
                wanted[quote.side, quote.price_ticks] = quote.size_lots
        self._buffer.clear()
        return [Quote(side, price, lots) for (side, price), lots in wanted.items()]

    def follow(self, diff: dict[str, Any]) -> list[Quote]:
        """Apply a diff; nothing before the snapshot and for what it already holds. TapeError on a gap."""
        if self.update_id is None:
            if len(self._buffer) >= _BUFFERED_MAX:
                raise TapeError(f"{_BUFFERED_MAX} diffs and no snapshot: record the tape with a REST snapshot near its start")
            self._buffer.append(diff)
            return []
        if diff["u"] <= self.update_id:
            return []
        if diff["U"] > self.update_id + 1:
            raise TapeError(f"the tape lost updates {self.update_id + 1} to {diff['U'] - 1}: record it again or cut it there")
        self.update_id = diff["u"]
        return self._levels(diff["b"], diff["a"])

    def _levels(self, bids: list[list[str]], asks: list[list[str]]) -> list[Quote]:
        quotes = []
        for side, rows in ((BUY, bids), (SELL, asks)):
            for price_text, size_text in rows:
                price, lots = _ticks(self._rules, price_text), _lots_down(self._rules, size_text)
                if lots:
                    self.sides[side][price] = lots
                else:
                    self.sides[side].pop(price, None)
                quotes.append(Quote(side, price, lots))
        return quotes


class TapeFlow:
    """Replays a tape from the moment its book is complete, `speed` times as fast as it was recorded.

    At the end the last book is held, or the tape starts again. Sizes are rounded down to the symbol's lot.
    """

    def __init__(self, path: Path, rules: SymbolRules, speed: float = 1.0, end: Literal["hold", "loop"] = "hold") -> None:
        if not 0 < speed <= 1000:
            raise ValueError("tape_speed must be above 0 and at most 1000")
        self._path, self._rules, self._speed, self._end = path, rules, speed, end
        self._start_ns: int | None = None
        self._next: Frame | None = None
        self.is_over = False
        self._rewind()

    def step(self, now_ns: int) -> list[Action]:
        """Everything on the tape up to now."""
        if self._start_ns is None:
            self._start_ns = now_ns
            return list(self._opening)
        until_ns = self._tape_start_ns + int((now_ns - self._start_ns) * self._speed)
        actions: list[Action] = []
        while self._next is not None and self._next.received_ns <= until_ns:
            actions.extend(self._actions(self._next.frame))
            self._next = next(self._frames, None)
        if self._next is None:
            self._finish(now_ns, actions)
        return actions

    def batches(self) -> Iterator[tuple[int, list[Action]]]:
        """All of the tape that was not stepped over, frame by frame: when it was received and what it says; the book first."""
        yield self._tape_start_ns, list(self._opening)
        while self._next is not None:
            yield self._next.received_ns, self._actions(self._next.frame)
            self._next = next(self._frames, None)

    def _finish(self, now_ns: int, actions: list[Action]) -> None:
        if self._end == "hold":
            self.is_over = True
            return
        gone = [Quote(side, price, 0) for side in (BUY, SELL) for price in self._book.sides[side]]
        self._rewind()
        self._start_ns = now_ns
        fresh = {(quote.side, quote.price_ticks) for quote in self._opening}
        actions.extend(quote for quote in gone if (quote.side, quote.price_ticks) not in fresh)
        actions.extend(self._opening)

    def _rewind(self) -> None:
        """Open the tape and read on to its snapshot."""
        self._book = TapeBook(self._rules)
        self._traded: set[tuple[int, int]] = set()
        self._frames = read_tape(self._path)
        for frame in self._frames:
            opening = [action for action in self._actions(frame.frame) if isinstance(action, Quote)]
            if self._book.update_id is not None:
                self._opening = opening
                self._tape_start_ns = frame.received_ns
                self._next = next(self._frames, None)
                return
        raise TapeError(f"{self._path.name} holds no book snapshot: record it again")

    def _actions(self, frame: dict[str, Any]) -> list[Action]:
        if "lastUpdateId" in frame:
            return list(self._book.load(frame))
        data, stream = frame.get("data"), str(frame.get("stream", ""))
        if not isinstance(data, dict) or data.get("s") != self._rules.symbol:
            return []
        if "@depth" in stream:
            return self._follow(data)
        if stream.endswith("@trade") and self._book.update_id is not None:
            side = SELL if data["m"] else BUY
            price, lots = _ticks(self._rules, data["p"]), _lots_down(self._rules, data["q"])
            self._traded.add((1 - side, price))
            return [Take(side, price, lots)] if lots else []
        return []

    def _follow(self, data: dict[str, Any]) -> list[Action]:
        """A diff is the last word on the levels that traded before it, also on those that it does not name."""
        quotes: list[Action] = list(self._book.follow(data))
        for side, price in self._traded:
            quotes.append(Quote(side, price, self._book.sides[side].get(price, 0)))
        self._traded.clear()
        return quotes


def _parse_line(line: bytes) -> Frame | None:
    stamp, _, text = line.strip().partition(b" ")
    if not stamp.isdigit() or len(stamp) > 20:
        return None
    try:
        return Frame(int(stamp), _decode(text))
    except (msgspec.DecodeError, RecursionError):
        return None


def _ticks(rules: SymbolRules, text: str) -> int:
    price = units(text)
    if price % rules.tick_units:
        raise TapeError(f"price {text} on the tape is no multiple of {rules.symbol}'s tick: list the symbol with a finer tick")
    return price // rules.tick_units


def _lots_down(rules: SymbolRules, text: str) -> int:
    return units(text) // rules.lot_units
