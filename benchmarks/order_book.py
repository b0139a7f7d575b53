"""The order book: a diff of 20 levels, then the best 50 of both sides, beside ccxt's, sortedcontainers' and NautilusTrader's book.

One seeded stream of integer ticks and lots around a price that wanders, about 400 levels a side. After the run every book must hold
exactly the same levels.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from ccxt.async_support.base.ws.order_book import OrderBook

from agent.domain.market import BookDiff, BookSnapshot, Level
from agent.market.book import Book
from benchmarks.measure import Result, Turn, alternately, beside, calls_of
from benchmarks.peers.child import Child, peer

LEVELS, CHANGES, DEPTH, SEED = 400, 20, 50, 7
MID, EVERY = 268_380, 1_000_000
ROUNDS, CALLS = 31, 110  # the first round warms up; 3,300 calls are left
OURS, CCXT, SORTED = "ours", "ccxt OrderBook", "sortedcontainers SortedDict"
NAUTILUS = {"built": "Nautilus pyo3 book", "ready": "Nautilus pyo3 book, deltas made before"}

Side = tuple[Level, ...]
Message = tuple[Side, Side]
Consume = Callable[[Message], object]


def run(rounds: int = ROUNDS, calls: int = CALLS) -> list[Result]:
    missing: dict[str, str] = {}
    snapshot, messages = stream(rounds * calls)
    ours, ccxt = Ours(snapshot), Ccxt(snapshot)
    sides: dict[str, Any] = {OURS: ours, CCXT: ccxt}
    try:
        sides[SORTED] = Sorted(snapshot)
    except ImportError:
        missing[SORTED] = "not installed; `python -m pip install sortedcontainers` installs it"
    with peer("nautilus", missing) as nautilus:
        if nautilus:
            nautilus.ask("load", bids=snapshot[0], asks=snapshot[1], messages=messages)
        found = alternately(_rounds(sides, nautilus, messages, rounds, calls))
        last = {name: side.levels() for name, side in sides.items()}
        if nautilus:
            last |= {title: _levels(nautilus, job) for job, title in NAUTILUS.items()}
    for name, levels in last.items():
        assert levels == last[OURS], f"{name} ends with another book"
    what, note = f"{CHANGES} changes, then the best {DEPTH} a side", missing.get("nautilus", "")
    rows = [beside(what, found[OURS], name, found.get(name), missing.get(name, "")) for name in (CCXT, SORTED)]
    return rows + [beside(what, found[OURS], title, found.get(title), note) for title in NAUTILUS.values()]


def stream(count: int) -> tuple[Message, list[Message]]:
    """The first book (best first) and `count` diffs. The price steps now and then; what it passes is removed."""
    chance = random.Random(SEED)
    mid = MID
    books: tuple[dict[int, int], dict[int, int]] = (
        {MID - d: chance.randint(1, 10_000) for d in range(1, LEVELS + 1)},
        {MID + d: chance.randint(1, 10_000) for d in range(1, LEVELS + 1)},
    )
    first = (tuple(books[0].items()), tuple(books[1].items()))
    messages = []
    for _ in range(count):
        step = chance.choice((-1, 0, 0, 0, 1))
        mid += step
        sides = []
        for sign, book in zip((-1, 1), books, strict=True):
            changes = [(mid, 0)] if step and book.pop(mid, 0) else []
            while len(changes) < CHANGES // 2:
                ticks = mid + sign * (1 + min(int(chance.expovariate(0.06)), LEVELS - 1))
                lots = 0 if ticks in book and chance.random() < 0.25 else chance.randint(1, 10_000)
                changes.append((ticks, lots))
                if lots:
                    book[ticks] = lots
                else:
                    del book[ticks]
            sides.append(tuple(changes))
        messages.append((sides[0], sides[1]))
    return first, messages


class Ours:
    """The agent's own book."""

    def __init__(self, snapshot: Message) -> None:
        self._book, self._seq = Book(), 0
        self._book.apply(BookSnapshot("x", 0, *snapshot, 0))

    def take(self, message: Message) -> object:
        self._seq += 1
        self._book.apply(BookDiff("x", self._seq, self._seq, *message, 0))
        return self._book.levels(DEPTH)

    def levels(self) -> Message:
        assert self._book.is_valid, self._book.trouble
        return self._book.levels(EVERY)


class Ccxt:
    """ccxt's incremental book, fed as its own handlers feed it."""

    def __init__(self, snapshot: Message) -> None:
        self._book = OrderBook({"bids": [list(one) for one in snapshot[0]], "asks": [list(one) for one in snapshot[1]]})

    def take(self, message: Message) -> object:
        bids, asks = self._book["bids"], self._book["asks"]
        for level in message[0]:
            bids.storeArray(list(level))
        for level in message[1]:
            asks.storeArray(list(level))
        return bids[:DEPTH], asks[:DEPTH]

    def levels(self) -> Message:
        return _side(self._book["bids"]), _side(self._book["asks"])


class Sorted:
    """The book that one writes with sortedcontainers. Raises ImportError where it is not installed."""

    def __init__(self, snapshot: Message) -> None:
        from sortedcontainers import SortedDict

        self._bids = SortedDict({-ticks: lots for ticks, lots in snapshot[0]})
        self._asks = SortedDict(dict(snapshot[1]))

    def take(self, message: Message) -> object:
        for book, changes, sign in ((self._bids, message[0], -1), (self._asks, message[1], 1)):
            for ticks, lots in changes:
                if lots:
                    book[sign * ticks] = lots
                else:
                    book.pop(sign * ticks, None)
        bids, asks = self._bids, self._asks
        return [(-key, bids[key]) for key in bids.islice(stop=DEPTH)], [(key, asks[key]) for key in asks.islice(stop=DEPTH)]

    def levels(self) -> Message:
        return tuple((-key, lots) for key, lots in self._bids.items()), tuple(self._asks.items())


def _rounds(
    sides: dict[str, Any], nautilus: Child | None, messages: list[Message], rounds: int, calls: int
) -> Iterator[dict[str, Turn]]:
    for number in range(rounds):
        part = messages[number * calls : (number + 1) * calls]
        turns = {name: _turn(side.take, part) for name, side in sides.items()}
        if nautilus:
            turns |= {title: nautilus.turn(job, count=len(part)) for job, title in NAUTILUS.items()}
        yield turns


def _turn(take: Consume, part: list[Message]) -> Turn:
    waiting = iter(part)
    return calls_of(lambda: take(next(waiting)), len(part))


def _levels(nautilus: Child, job: str) -> Message:
    found = nautilus.ask("book", name=job)
    return _side(found["bids"]), _side(found["asks"])


def _side(levels: Any) -> Side:
    return tuple((int(ticks), int(lots)) for ticks, lots in levels)
