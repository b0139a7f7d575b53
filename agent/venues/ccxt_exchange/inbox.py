"""The bounded queue between a venue's sockets and the engine. News of our orders is never dropped; market data may be."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from agent.domain.errors import VenueError
from agent.domain.market import MarketFact
from agent.ports import VenueEvent

MARKET_MAX = 4_096
PRIVATE_MAX = 10_000


class Inbox:
    """One writer side (sockets), one reader (`events`)."""

    def __init__(self, market_max: int = MARKET_MAX, private_max: int = PRIVATE_MAX) -> None:
        self._events: deque[VenueEvent] = deque()
        self._market_max, self._private_max = market_max, private_max
        self._market = 0
        self._wake = asyncio.Event()
        self._failure: VenueError | None = None

    def market(self, events: Iterable[VenueEvent]) -> bool:
        """Add market facts. False: the reader is too slow, all waiting market facts were dropped, and books must be joined anew."""
        for event in events:
            self._events.append(event)
            self._market += 1
        self._wake.set()
        if self._market <= self._market_max:
            return True
        self._events = deque(event for event in self._events if not isinstance(event, MarketFact))
        self._market = 0
        return False

    def private(self, events: Iterable[VenueEvent]) -> None:
        """Add news of our own. When the reader is hopelessly behind, the connection ends; a new one asks for what was missed."""
        self._events.extend(events)
        self._wake.set()
        if len(self._events) - self._market > self._private_max:
            self.fail(VenueError(f"{self._private_max} events wait unread; the engine is too slow"))

    def fail(self, error: VenueError) -> None:
        """The connection is lost. The reader gets what came before, then the error; the first one counts."""
        self._failure = self._failure or error
        self._wake.set()

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What came in, in order. Raises VenueError once the connection is lost and everything before it was read."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._market -= isinstance(event, MarketFact)
                yield event
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            await self._wake.wait()
