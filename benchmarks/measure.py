"""How a comparison is timed: our side and its peers in turn, many rounds in one run, and the median of each.

Ratios are the claim; absolute times belong to the machine. Two ways to time: `versus` divides the time of many calls, for what is
shorter than a clock's tick; `alternately` takes every call by itself, so that a p99 can be told as well. A p99 of fewer than 3,000
calls is noise and is not told.
"""

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

P99_CALLS_MIN = 3_000

Turn = Callable[[], list[int]]  # one turn of one side: the nanoseconds of each of its calls


class Result(NamedTuple):
    """Microseconds a call: medians, and p99 where there were calls enough. `note`: what else was seen, or why a peer is missing."""

    what: str
    ours_us: float
    peer: str
    peer_us: float | None
    ours_p99_us: float | None = None
    peer_p99_us: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster than the peer; None without one."""
        if self.peer_us is None:
            return None
        return self.peer_us / self.ours_us if self.ours_us else float("inf")


class Sample(NamedTuple):
    """One side's calls, in microseconds."""

    median_us: float
    p99_us: float | None
    calls: int


def versus(
    what: str, ours: Callable[[], object], peer_name: str, peer: Callable[[], object], calls: int = 2_000, rounds: int = 15
) -> Result:
    """Alternate the two in one run, so that a drift of the machine's speed hits both; the time of many calls, divided."""
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


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keeps every core busy with what gives way to all else, so that no time is spent on waking one up.

    What waits for a disk or for another thread pays for that otherwise, and a virtual machine that idles wakes slowly.
    """
    spin = "import os\nos.nice(19)\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


def calls_of(work: Callable[[], object], count: int) -> Turn:
    """A turn of `count` calls of `work`, each by itself."""

    def turn() -> list[int]:
        now = time.perf_counter_ns
        taken = []
        for _ in range(count):
            start = now()
            work()
            taken.append(now() - start)
        return taken

    return turn


def alternately(rounds: Iterable[Mapping[str, Turn]], warm_up: int = 1) -> dict[str, Sample]:
    """Every side's turn in every round; the first `warm_up` rounds do not count. Garbage is collected between turns alone."""
    taken: dict[str, list[int]] = {}
    for number, turns in enumerate(rounds):
        for name, turn in turns.items():
            gc.collect()
            gc.disable()
            try:
                found = turn()
            finally:
                gc.enable()
            if number >= warm_up:
                taken.setdefault(name, []).extend(found)
    return {name: sample(times) for name, times in taken.items()}


def sample(times_ns: list[int]) -> Sample:
    """Median and, of 3,000 calls or more, p99."""
    ordered = sorted(times_ns)
    p99 = ordered[int(len(ordered) * 0.99)] / 1_000 if len(ordered) >= P99_CALLS_MIN else None
    return Sample(statistics.median(ordered) / 1_000, p99, len(ordered))


def beside(what: str, ours: Sample, peer: str, found: Sample | None, note: str = "") -> Result:
    """One row: ours beside a peer; `found` None where it is missing, `note` says why."""
    if found is None:
        return Result(what, ours.median_us, peer, None, ours.p99_us, None, note)
    return Result(what, ours.median_us, peer, found.median_us, ours.p99_us, found.p99_us, note)
