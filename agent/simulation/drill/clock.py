"""Time that costs nothing: the loop jumps to the next moment at which something happens. And dice that obey a seed."""

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
START_NS = 1_800_000_000 * 10**9
SECOND = 10**9
TURNS_MAX = 50_000
_MASK = (1 << 64) - 1


class HangError(RuntimeError):
    """Somebody is always busy and time cannot go on: a loop that waits for nothing."""


class WarpLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer when nothing else is left to do. It begins at `warp` seconds."""

    warp = 0.0
    turns = 0  # since time moved last

    def time(self) -> float:
        return self.warp

    def _run_once(self) -> None:
        waiting: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while waiting and waiting[0].cancelled():
            heapq.heappop(waiting)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not self._ready and waiting and waiting[0].when() > self.warp:  # type: ignore[attr-defined]
            self.warp, self.turns = waiting[0].when(), 0
        self.turns += 1
        if self.turns > TURNS_MAX:
            self.turns = 0  # what is left may end in order
            raise HangError(f"nothing came to rest at {self.warp:.3f} s, {TURNS_MAX} turns long")
        super()._run_once()  # type: ignore[misc]


class WarpClock:
    """Satisfies the port `Clock` on a `WarpLoop`. `skew_ns`: how far it is ahead of the world's time; may be set at any moment."""

    def __init__(self, skew_ns: int = 0) -> None:
        self.skew_ns = skew_ns

    def now_ns(self) -> int:
        return world_ns() + self.skew_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def world_ns() -> int:
    """The world's own time, which no clock of the agent can set."""
    return START_NS + int(asyncio.get_running_loop().time() * SECOND)


def warped(work: Coroutine[Any, Any, T], start_ns: int = START_NS) -> T:
    """Run `work` to its end in virtual time that begins at `start_ns`."""

    def loop() -> WarpLoop:
        found = WarpLoop()
        found.warp = (start_ns - START_NS) / SECOND
        return found

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(work)


class Dice(msgspec.Struct):
    """Chance from one number (splitmix64), the same on every machine; it is data, so that it can be saved with what it drives."""

    state: int

    def roll(self) -> int:
        """The next 64 bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def chance(self, share: float) -> bool:
        return self.roll() < share * 2.0**64

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + self.roll() % (high - low + 1)

    def seconds(self, low: float, high: float) -> float:
        return low + (high - low) * (self.roll() >> 11) / 2.0**53

    def pick(self, some: Sequence[T]) -> T:
        return some[self.roll() % len(some)]

    def some(self, found: Sequence[T], count: int) -> list[T]:
        """`count` different ones, in the order drawn."""
        left, taken = list(found), list[T]()
        while left and len(taken) < count:
            taken.append(left.pop(self.roll() % len(left)))
        return taken


def dice(seed: int, name: str) -> Dice:
    """Dice of their own for each thing that needs some, so that one more roll here changes nothing there."""
    mixed = seed & _MASK
    for byte in name.encode():
        mixed = (mixed * 0x100000001B3 ^ byte) & _MASK
    found = Dice(mixed)
    found.roll()
    return found


Listener = Callable[[], None]
