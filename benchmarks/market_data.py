"""Market data at ten times its recorded rate: every frame decoded, checked and put into its book, on one core.

The frames are the recorded ones of Binance spot (depth and trades of BTC and ETH, which are what the agent subscribes to) where
`ISTHMUS_DATA` names the folder that holds `market/`, else a seeded model of them. Each frame is timed by itself; then the times are
played against the recorded arrivals, ten times as fast, by a queue of one server: `busy` is the share of one core, `queue` the most
frames that waited. The peer is Python's json with ccxt's book, fed as ccxt's own handlers feed it. Both books must end the same.
"""

import gzip
import json
import os
import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
from ccxt.async_support.base.ws.order_book import OrderBook

from agent.domain.amount import Asset
from agent.domain.instrument import Instrument
from agent.domain.market import BookSnapshot, Listed
from agent.market.view import Market
from agent.venues.ccxt_exchange.binance_wire import Context, levels, parse
from benchmarks.measure import Result, Turn, alternately, beside, calls_of, sample
from benchmarks.order_book import stream

DATA = "ISTHMUS_DATA"
SYMBOLS = {"BTCUSDT": "binance_spot_btcusdt_20240808", "ETHUSDT": "binance_spot_ethusdt_20240808"}
LOT = 1  # of 1e-8: some recorded sizes are finer than the lots of today, and would round down
SPEED, TURN, MODELLED = 10, 500, 12_000
TICK = 1_000_000  # 0.01 USDT
OURS, PEER = "ours", "json + ccxt OrderBook"
SUBSCRIBED = re.compile(r"@(depth@100ms|trade)\b")

Frame = tuple[int, str, bool]  # when it arrived, its text, whether it is a whole book
Snapshot = tuple[str, int, list[tuple[str, str]], list[tuple[str, str]]]


def run(frames_max: int | None = None) -> list[Result]:
    frames, origin = _frames(frames_max or MODELLED)
    frames = frames[:frames_max]
    ours, peer = Ours(), Ccxt()
    taken: dict[str, list[int]] = {OURS: [], PEER: []}

    def turn(name: str, take: "Ours | Ccxt", part: list[Frame]) -> list[int]:
        waiting = iter(part)
        times = calls_of(lambda: take.frame(next(waiting)), len(part))()
        taken[name] += times
        return times

    def rounds() -> Iterator[dict[str, Turn]]:
        for start in range(0, len(frames), TURN):
            part = frames[start : start + TURN]
            yield {OURS: partial(turn, OURS, ours, part), PEER: partial(turn, PEER, peer, part)}

    alternately(rounds())
    for symbol in SYMBOLS:
        assert ours.book(symbol) == peer.book(symbol), f"{symbol}: the books differ at the end"
    return [*_rows(frames, origin, taken)]


def _rows(frames: list[Frame], origin: str, taken: dict[str, list[int]]) -> Iterator[Result]:
    """A row for each kind of frame; what the whole stream comes to is the note of the first."""
    at = [frame[0] for frame in frames]
    loads = {name: played(at, times, SPEED) for name, times in taken.items()}
    rate = SPEED * len(at) / ((at[-1] - at[0]) / 1e9)
    parts = (f"{name} busy {load.busy:.1%} of a core, queue {load.queue}" for name, load in loads.items())
    note = f"{len(at):,} frames, {rate:,.0f}/s at {SPEED} x: " + "; ".join(parts)
    for kind in ("depth", "trade"):
        where = [number for number, (_, text, is_book) in enumerate(frames) if f"@{kind}" in text[:60] and not is_book]
        sides = {name: sample([times[number] for number in where]) for name, times in taken.items()}
        yield beside(f"a frame of {kind}, {origin}", sides[OURS], PEER, sides[PEER], note if kind == "depth" else "")


class Load(msgspec.Struct, frozen=True):
    """`busy`: share of the time; `queue`: the most frames that waited when another came."""

    busy: float
    queue: int


def played(at_ns: Sequence[int], work_ns: Sequence[int], speed: int) -> Load:
    """One server, frames in the order of their arrival, none dropped."""
    ends: deque[float] = deque()
    end, worst = 0.0, 0
    first = at_ns[0]
    for arrival, work in zip(at_ns, work_ns, strict=True):
        now = (arrival - first) / speed
        while ends and ends[0] <= now:
            ends.popleft()
        worst = max(worst, len(ends))
        end = max(end, now) + work
        ends.append(end)
    return Load(sum(work_ns) / ((at_ns[-1] - first) / speed), worst)


class Ours:
    """The venue's decoder and the market that the engine owns."""

    def __init__(self) -> None:
        instruments = {one: Instrument("binance", one, _asset(one[:3]), _asset("USDT"), 1_000, TICK, LOT) for one in SYMBOLS}
        self._context = Context("binance", instruments, {})
        self._market = Market()
        self._market.apply(Listed("binance", tuple(instruments.values()), 0))

    def frame(self, frame: Frame) -> None:
        at_ns, text, is_book = frame
        if is_book:
            symbol, seq, bids, asks = _snapshot(text)
            instrument = self._context.instruments[symbol]
            self._market.apply(BookSnapshot(instrument.id, seq, levels(bids, instrument), levels(asks, instrument), at_ns))
            return
        for fact in parse(text, msgspec.structs.replace(self._context, at_ns=at_ns)):
            self._market.apply(fact)  # type: ignore[arg-type]

    def book(self, symbol: str) -> object:
        book = self._market.book(f"binance:{symbol}")
        assert book is not None
        assert book.is_valid, book.trouble
        return book.levels(1_000_000)


class Ccxt:
    """json and ccxt's incremental book. Changes that came before the book wait, as in ccxt's handler."""

    def __init__(self) -> None:
        self._books: dict[str, OrderBook] = {}
        self._early: dict[str, list[dict[str, object]]] = {symbol: [] for symbol in SYMBOLS}
        self._trades: dict[str, tuple[float, float]] = {}

    def frame(self, frame: Frame) -> None:
        _, text, is_book = frame
        if is_book:
            symbol, seq, bids, asks = _snapshot(text)
            self._books[symbol] = OrderBook({"bids": _floats(bids), "asks": _floats(asks), "nonce": seq})
            for data in self._early[symbol]:
                self._store(symbol, data)
            return
        data = json.loads(text)["data"]
        if data["e"] == "trade":
            self._trades[data["s"]] = float(data["p"]), float(data["q"])
        elif data["s"] in self._books:
            self._store(data["s"], data)
        else:
            self._early[data["s"]].append(data)

    def book(self, symbol: str) -> object:
        book = self._books[symbol]
        return tuple(tuple((round(price * 100), round(size * 1e8)) for price, size in book[side]) for side in ("bids", "asks"))

    def _store(self, symbol: str, data: dict[str, object]) -> None:
        book = self._books[symbol]
        if data["u"] <= book["nonce"]:
            return
        bids, asks = book["bids"], book["asks"]
        for level in _floats(data["b"]):  # type: ignore[arg-type]
            bids.storeArray(level)
        for level in _floats(data["a"]):  # type: ignore[arg-type]
            asks.storeArray(level)
        book["nonce"] = data["u"]


def _floats(pairs: list[tuple[str, str]]) -> list[list[float]]:
    return [[float(price), float(size)] for price, size in pairs]


def _asset(symbol: str) -> Asset:
    return Asset(symbol, "binance", 8, symbol)


def _snapshot(text: str) -> Snapshot:
    found: Snapshot = msgspec.json.decode(text, type=tuple[str, int, list[tuple[str, str]], list[tuple[str, str]]])
    return found


# -- where the frames come from ----------------------------------------------------------------------------------------


def _frames(modelled: int) -> tuple[list[Frame], str]:
    folder = os.environ.get(DATA)
    if folder and (Path(folder) / "market").is_dir():
        paths = {symbol: Path(folder) / "market" / f"{name}.jsonl.gz" for symbol, name in SYMBOLS.items()}
        found = [frame for symbol, path in paths.items() for frame in _recorded(path, symbol)]
        return sorted(found, key=lambda frame: frame[0]), "recorded"
    return _modelled(modelled), "modelled"


def _recorded(path: Path, symbol: str) -> list[Frame]:
    """What the agent subscribes to, and the whole book that the recorder asked for once."""
    frames = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            at, _, text = line.rstrip("\n").partition(" ")
            if '"lastUpdateId"' in text[:40]:
                book = json.loads(text)
                frames.append((int(at), json.dumps([symbol, book["lastUpdateId"], book["bids"], book["asks"]]), True))
            elif SUBSCRIBED.search(text[:60]):
                frames.append((int(at), text, False))
    return frames


def _modelled(count: int) -> list[Frame]:
    """Ten books a second and symbol, and trades in bursts of up to thirty in a millisecond; about `count` frames."""
    chance = random.Random(3)
    frames: list[Frame] = []

    def side(one: Sequence[tuple[int, int]]) -> list[list[str]]:
        return [[f"{ticks / 100:.8f}", f"{lots / 1e4:.8f}"] for ticks, lots in one]

    for number, symbol in enumerate(SYMBOLS):
        first, diffs = stream(max(count // 8, 1))
        frames.append((number, json.dumps([symbol, 0, side(first[0]), side(first[1])]), True))
        for seq, (bids, asks) in enumerate(diffs, 1):
            at = seq * 100_000_000 + number
            data = {"e": "depthUpdate", "E": 0, "s": symbol, "U": seq, "u": seq, "b": side(bids), "a": side(asks)}
            frames.append((at, json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": data}), False))
            for _ in range(chance.randint(1, 30) if chance.random() < 0.2 else 0):
                trade = {"e": "trade", "E": 0, "s": symbol, "t": seq, "p": "2683.41", "q": "0.1", "T": 0, "m": True, "M": True}
                text = json.dumps({"stream": f"{symbol.lower()}@trade", "data": trade})
                frames.append((at + chance.randint(0, 1_000_000), text, False))
    return sorted(frames, key=lambda frame: frame[0])
