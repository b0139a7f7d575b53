"""Presignatures that wait for what they will sign: in memory only, each for one pair of signers, taken out before it is used.

They are taken in the order in which they were made: nobody chooses one after having seen it. A restart drops them all, by having
no other place for them.
"""

import time
from collections.abc import Callable

from agent.keys.threshold import engine

POOL_MAX = 64  # of one pair; what is beyond pushes the oldest out
TTL_S = 3_600.0  # what waits for longer is dropped unused


class Pool:
    """The presignatures of one pair."""

    __slots__ = ("_clock", "_ready", "_size_max")

    def __init__(self, size_max: int = POOL_MAX, clock: Callable[[], float] = time.monotonic) -> None:
        self._ready: dict[bytes, tuple[engine.Presignature, float]] = {}  # in the order in which they were made
        self._size_max, self._clock = size_max, clock

    def __len__(self) -> int:
        self._drop_old()
        return len(self._ready)

    def put(self, presignature: engine.Presignature) -> None:
        while len(self._ready) >= self._size_max:
            del self._ready[next(iter(self._ready))]
        self._ready[presignature.execution_id] = presignature, self._clock()

    def take_oldest(self) -> engine.Presignature | None:
        """Out of the pool, whatever becomes of it."""
        self._drop_old()
        return self.take(next(iter(self._ready))) if self._ready else None

    def take(self, pid: bytes) -> engine.Presignature | None:
        """That one, and none that is older ever after. None if it is not there."""
        self._drop_old()
        if pid not in self._ready:
            return None
        while (first := next(iter(self._ready))) != pid:
            del self._ready[first]
        return self._ready.pop(pid)[0]

    def clear(self) -> None:
        self._ready.clear()

    def _drop_old(self) -> None:
        oldest = self._clock() - TTL_S
        for pid in [pid for pid, (_, made) in self._ready.items() if made < oldest]:
            del self._ready[pid]
