"""The way between the agent and a venue: what leaves arrives later, and what a venue says is heard later, in its order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from agent.ports import Clock, VenueEvent
from agent.simulation.drill.clock import Dice
from agent.simulation.replay.setting import SECOND, Latency

Letter = Callable[[int], Sequence[VenueEvent]]  # (when it is heard) -> facts, stamped with that


class Way:
    """One direction of one connection. Its times rise, whatever the jitter: nothing overtakes in a line."""

    def __init__(self, clock: Clock, delay_ns: int, jitter_ns: int, dice: Dice) -> None:
        self._clock, self.delay_ns, self._jitter_ns, self._dice = clock, delay_ns, jitter_ns, dice
        self._last_ns = 0

    def due_ns(self) -> int:
        """When what is sent now will be there."""
        late_ns = self._dice.between(0, self._jitter_ns) if self._jitter_ns else 0
        self._last_ns = max(self._clock.now_ns() + self.delay_ns + late_ns, self._last_ns)
        return self._last_ns


class Mailbox:
    """What a venue has said and the agent has not heard yet. One reader."""

    def __init__(self, clock: Clock, latency: Latency, dice: Dice) -> None:
        self._clock, self._way = clock, Way(clock, latency.data_ns, latency.jitter_ns, dice)
        self._letters: deque[tuple[int, Letter]] = deque()
        self._come = asyncio.Event()

    def post(self, letter: Letter) -> None:
        self._letters.append((self._way.due_ns(), letter))
        self._come.set()

    async def read(self) -> AsyncIterator[VenueEvent]:
        """All letters, each when it is due, until nobody reads any more."""
        while True:
            while self._letters:
                due_ns, letter = self._letters[0]
                wait_ns = due_ns - self._clock.now_ns()
                if wait_ns > 0:
                    await asyncio.sleep(wait_ns / SECOND)
                self._letters.popleft()
                for fact in letter(self._clock.now_ns()):
                    yield fact
            self._come.clear()
            await self._come.wait()

    def clear(self) -> None:
        """Whoever connects anew does not hear what was said before."""
        self._letters.clear()
