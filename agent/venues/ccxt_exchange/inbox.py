"""The bounded queue between a venue's sockets and the engine. News of our orders is never dropped; market data is conflated.

While the reader keeps up, everything passes as it came. When it falls behind, what waits about one book becomes one change, in
which the newest size of each level counts; trades all stay. Only when even that is too much is market data dropped, all of it, and
the books are joined anew.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

import msgspec

from agent.domain.errors import VenueError
from agent.domain.market import BookDiff, BookSnapshot, Level, MarketFact
from agent.ports import VenueEvent

BEHIND = 256  # market facts that wait: from here on books are conflated, which costs more than to take them as they are
MARKET_MAX = 4_096
PRIVATE_MAX = 10_000


class _Slot:
    """A place in the queue; empty when what stood there became part of a later one."""

    __slots__ = ("event",)

    def __init__(self, event: VenueEvent) -> None:
        self.event: VenueEvent | None = event


class Inbox:
    """One writer side (sockets), one reader (`events`)."""

    def __init__(self, market_max: int = MARKET_MAX, private_max: int = PRIVATE_MAX, behind: int = BEHIND) -> None:
        self._slots: deque[_Slot] = deque()
        self._books: dict[str, _Slot] = {}  # the newest that waits about each book
        self._market_max, self._private_max, self._behind = market_max, private_max, behind
        self._market = self._private = 0  # that wait
        self._wake = asyncio.Event()
        self._failure: VenueError | None = None

    def market(self, events: Iterable[VenueEvent]) -> bool:
        """Add market facts. False: the reader is too slow, all waiting market facts were dropped, and books must be joined anew."""
        for event in events:
            self._put(self._conflated(event) if isinstance(event, BookDiff | BookSnapshot) else event)
        self._wake.set()
        if self._market <= self._market_max:
            return True
        self._keep([slot for slot in self._slots if slot.event is not None and not isinstance(slot.event, MarketFact)])
        self._market, self._books = 0, {}
        return False

    def private(self, events: Iterable[VenueEvent]) -> None:
        """Add news of our own. When the reader is hopelessly behind, the connection ends; a new one asks for what was missed."""
        for event in events:
            self._slots.append(_Slot(event))
            self._private += 1
        self._wake.set()
        if self._private > self._private_max:
            self.fail(VenueError(f"{self._private_max} events wait unread; the engine is too slow"))

    def fail(self, error: VenueError) -> None:
        """The connection is lost. The reader gets what came before, then the error; the first one counts."""
        self._failure = self._failure or error
        self._wake.set()

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What came in, in order. Raises VenueError once the connection is lost and everything before it was read."""
        while True:
            while self._slots:
                slot = self._slots.popleft()
                event = slot.event
                if event is None:
                    continue
                slot.event = None
                if isinstance(event, MarketFact):
                    self._market -= 1
                else:
                    self._private -= 1
                yield event
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            await self._wake.wait()

    def _put(self, event: VenueEvent) -> None:
        slot = _Slot(event)
        if isinstance(event, BookDiff | BookSnapshot):
            self._books[event.instrument] = slot
        self._slots.append(slot)
        self._market += 1

    def _conflated(self, event: BookDiff | BookSnapshot) -> BookDiff | BookSnapshot:
        """With what waits about the same book, if the reader is behind. It stands where the newest stood: not before our news."""
        before = self._books.get(event.instrument)
        waiting = before.event if before is not None else None
        if before is None or self._market <= self._behind or not isinstance(waiting, BookDiff | BookSnapshot):
            return event
        if isinstance(event, BookDiff):
            if not isinstance(waiting, BookDiff) or event.seq_first != waiting.seq_last + 1:
                return event  # a gap is for the book itself to find
            event = msgspec.structs.replace(
                event, seq_first=waiting.seq_first, bids=_newest(waiting.bids, event.bids), asks=_newest(waiting.asks, event.asks)
            )
        before.event = None
        self._market -= 1
        if len(self._slots) > 2 * (self._market + self._private) + self._behind:  # mostly empty places
            self._keep([slot for slot in self._slots if slot.event is not None])
        return event

    def _keep(self, slots: list[_Slot]) -> None:
        """In place: the reader goes on with the same queue."""
        self._slots.clear()
        self._slots.extend(slots)


def _newest(before: tuple[Level, ...], after: tuple[Level, ...]) -> tuple[Level, ...]:
    return tuple({**dict(before), **dict(after)}.items())
