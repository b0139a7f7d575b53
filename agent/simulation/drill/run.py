"""Many days, one after the other or side by side, and what they amount to."""

import multiprocessing
from collections.abc import Iterator, Sequence

import msgspec

from agent import observe
from agent.simulation.drill.day import Day, play
from agent.simulation.drill.faults import FAULTS

CHUNK = 8  # seeds that a process takes at a time


class Total(msgspec.Struct):
    """Sums over all days so far. `failed`: the seeds of the days on which a law was broken."""

    seeds: int = 0
    hours: float = 0.0  # simulated
    records: int = 0
    parents: int = 0
    orders: int = 0
    fills: int = 0
    kills: int = 0
    restarts: int = 0
    reorgs: int = 0
    violations: int = 0
    doubt_s_max: float = 0.0  # the longest that an order was in doubt after the faults had ended
    struck: dict[str, int] = {}
    failed: list[int] = []

    def add(self, day: Day) -> None:
        self.seeds += 1
        self.hours += day.seconds / 3_600
        for name in ("records", "parents", "orders", "fills", "kills", "restarts", "reorgs"):
            setattr(self, name, getattr(self, name) + getattr(day, name))
        self.violations += len(day.violations)
        self.doubt_s_max = max(self.doubt_s_max, day.doubt_s)
        for name, count in day.struck.items():
            self.struck[name] = self.struck.get(name, 0) + count
        if day.violations:
            self.failed.append(day.seed)

    @property
    def idle(self) -> list[str]:
        """Faults that never struck: what is not exercised shows."""
        return [name for name in FAULTS if name not in self.struck]


def days(seeds: range, only: Sequence[str] = (), jobs: int = 1) -> Iterator[Day]:
    """The days of these seeds, in no particular order when `jobs` processes share them."""
    if jobs <= 1:
        for seed in seeds:
            yield play(seed, only)
        return
    work = [(seed, tuple(only)) for seed in seeds]
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, max(len(work), 1)), quiet) as pool:
        yield from pool.imap_unordered(_play, work, CHUNK)


def quiet() -> None:
    """What the agent logs on such days is nobody's news."""
    observe.open_log(level="critical")


def _play(work: tuple[int, tuple[str, ...]]) -> Day:
    try:
        return play(*work)
    except BaseException as error:
        error.add_note(f"repeat with: isthmus simulate --seeds {work[0]}")
        raise
