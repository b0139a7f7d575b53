"""The journal beside its limits on the same disk: the least that a durable write costs, and SQLite with nothing around it.

The floor is 300 bytes written into a file that is laid out in advance, and fdatasync. All sides take turns in one run, medians of
single calls; those that wait for the disk do so with the cores kept awake. `ratio` is the peer's time over ours: a durable commit
within 1.8 x the floor is 0.56 or more. 256 producers are tasks of one loop that each append and wait until their record is safe,
again and again; the time is the run's over all events.
"""

import asyncio
import gc
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.domain.events import OrderReported
from agent.domain.order import OrderState
from agent.journal.codec import encode
from agent.journal.sqlite import SqliteJournal
from benchmarks.measure import Result, awake

EVENT = OrderReported("i-0", OrderState.OPEN, "", "123456789")
FLOOR_BYTES, SEGMENT = 300, 16 << 20
ROUNDS, CALLS = 40, 30
PRODUCERS, EACH, RUNS = 256, 200, 5
RECORDS = 100_000

Call = Callable[[], Awaitable[object] | None]


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = asyncio.run(_process(folder)) + asyncio.run(_power(folder))
        return [*found, _opening(folder)]


async def _process(folder: Path) -> list[Result]:
    journal, bare = SqliteJournal(folder / "process.sqlite", "process"), _bare(folder / "bare-process.sqlite", "NORMAL")
    taken = await _in_turn({"ours": lambda: _none(journal.append(1, [EVENT])), "bare": bare})
    journal.close()
    return [Result("append, `process`", taken["ours"], "bare sqlite, NORMAL", taken["bare"])]


async def _power(folder: Path) -> list[Result]:
    journal, bare, floor = (
        SqliteJournal(folder / "power.sqlite", "power"),
        _bare(folder / "bare-power.sqlite", "FULL"),
        _floor(folder),
    )

    async def safe() -> None:
        (record,) = journal.append(1, [EVENT])
        await journal.secured(record.seq)

    with awake():
        taken = await _in_turn({"ours": safe, "floor": floor, "bare": bare})
    rates = [await _many(safe) for _ in range(RUNS)]
    journal.close()
    return [
        Result("append and secured, `power`, 1 producer", taken["ours"], "floor: fdatasync", taken["floor"]),
        Result("append and secured, `power`, 1 producer", taken["ours"], "bare sqlite, FULL", taken["bare"]),
        Result(f"an event of {PRODUCERS} producers, `power`", statistics.median(rates), "floor: fdatasync", taken["floor"]),
    ]


def _opening(folder: Path) -> Result:
    path = folder / "opening.sqlite"
    journal = SqliteJournal(path)
    for _ in range(RECORDS // 100):
        journal.append(1, [EVENT] * 100)
    journal.close()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        start = time.perf_counter()
        SqliteJournal(path).close()
        between = time.perf_counter()
        db = sqlite3.connect(path)
        assert len(db.execute("SELECT * FROM record").fetchall()) == RECORDS
        db.close()
        taken[0].append((between - start) / RECORDS * 1e6)
        taken[1].append((time.perf_counter() - between) / RECORDS * 1e6)
    return Result(
        "opening, for each verified record", statistics.median(taken[0]), "bare sqlite, SELECT *", statistics.median(taken[1])
    )


def _bare(path: Path, level: str) -> Call:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={level}")
    db.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, at_ns INTEGER, body BLOB)")
    body = encode(EVENT)
    return lambda: _none(db.execute("INSERT INTO records (at_ns, body) VALUES (1, ?)", (body,)))


def _floor(folder: Path) -> Call:
    fd, at = os.open(folder / "floor", os.O_CREAT | os.O_RDWR), 0
    os.pwrite(fd, bytes(SEGMENT), 0)
    os.fsync(fd)

    def write() -> None:
        nonlocal at
        os.pwrite(fd, b"x" * FLOOR_BYTES, at)
        os.fdatasync(fd)
        at = (at + FLOOR_BYTES) % (SEGMENT - FLOOR_BYTES)

    return write


async def _in_turn(calls: dict[str, Call]) -> dict[str, float]:
    """Median microseconds of one call of each."""
    taken: dict[str, list[int]] = {name: [] for name in calls}
    for round_ in range(ROUNDS + 3):
        for name, call in calls.items():
            gc.collect()
            for _ in range(CALLS):
                start = time.perf_counter_ns()
                waiting = call()
                if waiting is not None:
                    await waiting
                if round_ >= 3:  # the first are to warm up
                    taken[name].append(time.perf_counter_ns() - start)
    return {name: statistics.median(times) / 1_000 for name, times in taken.items()}


async def _many(safe: Callable[[], Awaitable[None]]) -> float:
    """Microseconds for each event."""

    async def produce() -> None:
        for _ in range(EACH):
            await safe()

    start = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    return (time.perf_counter() - start) / (PRODUCERS * EACH) * 1e6


def _none(_: object) -> None:
    return None
