"""How a comparison is timed: both sides in turn, many rounds, the median of each."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    """Medians in microseconds a call; `ratio` says how many times faster than the peer."""

    what: str
    ours_us: float
    peer: str
    peer_us: float

    @property
    def ratio(self) -> float:
        return self.peer_us / self.ours_us if self.ours_us else float("inf")


def versus(
    what: str, ours: Callable[[], object], peer_name: str, peer: Callable[[], object], calls: int = 2_000, rounds: int = 15
) -> Result:
    """Alternate the two in one run, so that a drift of the machine's speed hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for work in (ours, peer):
        for _ in range(min(calls, 100)):
            work()
    gc.disable()
    try:
        for _ in range(rounds):
            for work, taken in zip((ours, peer), times, strict=True):
                start = time.perf_counter_ns()
                for _ in range(calls):
                    work()
                taken.append((time.perf_counter_ns() - start) / calls / 1_000)
    finally:
        gc.enable()
    return Result(what, statistics.median(times[0]), peer_name, statistics.median(times[1]))
