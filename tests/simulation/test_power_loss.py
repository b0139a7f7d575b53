"""The power fails at every point of a scripted run: whatever the disk had not yet kept is cut off, torn, mixed or turned to noise.

The run is captured after every append and every sync, file by file. What the disk may hold after a power loss follows from what was
synced when: bytes written since then are there or not, in any mixture of sectors; what was synced stays. From each such state the
journal is opened as the agent opens it. What comes back must be a beginning of what was written, with every record that was said to
be safe. As a control, disks that broke their promise are simulated too: there the journal must refuse, and never come back shorter.

That the promise is asked of the disk in the right order is not assumed: the last tests watch the system calls.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from journal_kit import some_events

from agent.domain.errors import JournalError
from agent.domain.events import EngineStopped, Event
from agent.journal import flush, sqlite, store
from agent.journal.codec import GENESIS
from agent.journal.head import head_path
from agent.journal.sqlite import Durability, SqliteJournal

MODES = pytest.mark.parametrize("durability", ["process", "power"])
SECTOR, PAGE, FRAME = 512, 4_096, 4_096 + 24
LOG_HEADER = 32
TIMEOUT_S = 60


class Files(NamedTuple):
    """What the files hold; `head` None: there is none."""

    database: bytes
    log: bytes
    head: bytes | None


class Point(NamedTuple):
    """A moment of the run: `old` is on the disk for certain, `new` is what was written since; `safe` was said to be safe."""

    what: str
    old: Files
    new: Files
    safe: int
    written: int


class Run(NamedTuple):
    points: list[Point]
    hashes: list[str]  # of the records, from GENESIS on


class Report(NamedTuple):
    points: int
    lost: int
    came_back_further: int  # states from which more came back than had been promised


# -- the run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is full after a few appends, so that the run sees all of its life; and a flusher that we time ourselves."""
    monkeypatch.setattr(store, "LOG_BYTES", 96 << 10)
    monkeypatch.setattr(sqlite, "MOVE_PAGES", 12)
    monkeypatch.setattr(flush, "PAUSE_S", 3_600.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is a file system for that: these disks are simulated anyway."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def look(path: Path) -> Files:
    log, head = store.log_path(path), head_path(path)
    return Files(path.read_bytes(), log.read_bytes() if log.exists() else b"", head.read_bytes() if head.exists() else None)


def script(length: int, seed: int) -> Iterator[list[Event]]:
    """Single events, small batches, and now and then one that fills several pages."""
    dice = random.Random(seed)
    for i in range(length):
        if dice.random() < 0.15:
            yield [EngineStopped(f"{i} " + "x" * dice.randrange(3_000, 9_000))]
        else:
            yield some_events(dice.choice((1, 1, 1, 2, 5)), seed=dice.randrange(1 << 30))


async def record(folder: Path, durability: Durability, length: int, seed: int) -> Run:
    """Appends the script, and notes at each step what the disk had and what was only written."""
    path, dice = folder / "run.sqlite", random.Random(seed)
    journal = SqliteJournal(path, durability)
    hashes, points, synced, safe = [GENESIS], [], look(path), 0
    for i, events in enumerate(script(length, seed)):
        records = journal.append(i, events)
        hashes += [one.hash for one in records]
        written = records[-1].seq
        if durability == "power":
            await journal.secured(written)
            journal._drain()  # the head is kept, and the log moved, when everyone was told
        before = look(path)
        if before.database != synced.database:  # the commit was synced before any of it was moved into the database
            points.append(Point("append", synced, before._replace(database=synced.database, head=synced.head), safe, written))
            points.append(Point("move", before._replace(database=synced.database), before, written, written))
        else:
            points.append(Point("append", synced, before, safe, written))
        if durability == "process":
            if dice.random() < 0.7:
                continue
            journal._flush()  # as the thread does
            after = look(path)
            if after.database != before.database:
                points.append(Point("move", before._replace(head=after.head), after, written, written))
        synced, safe = look(path), written
    if durability == "process":
        journal._flush()
    synced = look(path)
    points.append(Point("end", synced, synced, written, written))
    journal.close()
    points.append(Point("close", synced, synced._replace(database=path.read_bytes()), written, written))
    points.append(Point("closed", look(path), look(path), written, written))
    return Run(points, hashes)


# -- what the disk may hold --------------------------------------------------------------------------------------------

Damage = Callable[[bytes, bytes, random.Random], bytes]


def changed(old: bytes, new: bytes) -> list[int]:
    """The sectors in which two states of a file differ, the first from the first byte that does."""
    size = max(len(old), len(new))
    old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
    sectors = [at for at in range(0, size, SECTOR) if old[at : at + SECTOR] != new[at : at + SECTOR]]
    if sectors:
        first = sectors[0]
        sectors[0] = next(at for at in range(first, first + SECTOR) if old[at] != new[at])
    return sectors


def mixed(old: bytes, new: bytes, dice: random.Random) -> bytes:
    """Each written sector is there or not."""
    found = bytearray(old.ljust(len(new), b"\0"))
    share = dice.random()
    for at in changed(old, new):
        if dice.random() < share:
            end = (at // SECTOR + 1) * SECTOR
            found[at:end] = new[at:end]
    return bytes(found)


def torn(old: bytes, new: bytes, dice: random.Random) -> bytes:
    """All was written but the last 4 KiB, which are old, empty or noise, from some byte on."""
    sectors = changed(old, new)
    if not sectors:
        return new
    end = min((sectors[-1] // SECTOR + 1) * SECTOR, len(new))
    at = max(sectors[0], end - dice.randrange(1, PAGE + 1))
    kind = dice.randrange(3)
    noise = (old.ljust(end, b"\0")[at:end], bytes(end - at), dice.randbytes(end - at))[kind]
    return new[:at] + noise + new[end:]


def cut(old: bytes, new: bytes, dice: random.Random) -> bytes:
    """The file ends where the writing began, at a border of a frame, next to one, or anywhere after."""
    sectors = changed(old, new)
    if not sectors:
        return new
    first, last = sectors[0], min(sectors[-1] + SECTOR, len(new))
    borders = [at + near for at in range(LOG_HEADER, last + FRAME, FRAME) for near in (-1, 0, 1, 23, 24, 25)]
    fitting = [at for at in borders if first <= at <= last]
    return new[: dice.choice(fitting) if fitting and dice.random() < 0.7 else dice.randrange(first, last + 1)]


def nothing(old: bytes, new: bytes, dice: random.Random) -> bytes:
    return old


def everything(old: bytes, new: bytes, dice: random.Random) -> bytes:
    return new


DAMAGES: tuple[Damage, ...] = (nothing, everything, mixed, mixed, torn, cut)


def after_power_loss(point: Point, damage: Damage, dice: random.Random) -> Files:
    """One state that the files may be in. The log's own header is synced before anything follows it; cuts are for the log alone."""
    old, new = point.old, point.new
    log = damage(old.log, new.log, dice)
    if new.log[:LOG_HEADER] != old.log[:LOG_HEADER] and log != old.log:
        log = new.log[:LOG_HEADER] + log[LOG_HEADER:]
    database = (mixed if damage is cut else damage)(old.database, new.database, dice)
    head = old.head
    if head is not None and new.head is not None and point.safe == point.written:
        head = dice.choice((head, new.head, mixed(head, new.head, dice)))
    return Files(database, log, dice.choice((head, head, head, None)))


def reopen(path: Path, files: Files, durability: Durability) -> SqliteJournal:
    for name in ("", "-wal", "-shm", ".head"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    path.write_bytes(files.database)
    if files.log:
        store.log_path(path).write_bytes(files.log)
    if files.head is not None:
        head_path(path).write_bytes(files.head)
    return SqliteJournal(path, durability)


def sweep(folder: Path, run: Run, durability: Durability, tries: int, seed: int) -> Report:
    """Every point, `tries` times for each kind of damage. Raises JournalError or AssertionError at the first that is not right."""
    dice, path, points, lost, further = random.Random(seed), folder / "after.sqlite", 0, 0, 0
    for point in run.points:
        for damage in DAMAGES * tries:
            points += 1
            journal = reopen(path, after_power_loss(point, damage, dice), durability)
            seq, found = journal.head
            assert found == run.hashes[seq], f"{point.what}: record {seq} is not the one that was written"
            assert seq <= point.written
            lost += seq < point.safe
            further += seq > point.safe
            journal.append(1, [EngineStopped("the run goes on")])
            journal.close()
    return Report(points, lost, further)


@MODES
async def test_a_power_loss_at_any_point_loses_nothing_that_was_safe(folder: Path, durability: Durability) -> None:
    run = await record(folder, durability, length=45, seed=1)
    whats = [point.what for point in run.points]
    assert whats.count("move") >= 3, "the log began anew several times"
    report = sweep(folder, run, durability, tries=2, seed=2)
    assert report.lost == 0
    assert report.points >= 600
    assert report.came_back_further > 20, "some of what was not promised had reached the disk"


@pytest.mark.nightly
@MODES
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.timeout(1_800)
async def test_a_power_loss_at_any_point_of_many_runs(folder: Path, durability: Durability, seed: int) -> None:
    run = await record(folder, durability, length=200, seed=seed)
    report = sweep(folder, run, durability, tries=5, seed=seed)
    assert report.lost == 0
    assert report.points > 6_000


@MODES
async def test_the_log_is_cut_at_every_border_of_a_frame(
    folder: Path, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without gaps, in a log that was never moved: before, at and after each frame, as if nothing had been synced."""
    monkeypatch.setattr(sqlite, "MOVE_PAGES", 1_000)
    path = folder / "after.sqlite"
    run = await record(folder, durability, length=9, seed=3)
    end = next(point for point in run.points if point.what == "end")
    last = (max(changed(b"", end.new.log)) + SECTOR - LOG_HEADER) // FRAME * FRAME + FRAME
    seqs = []
    for border in range(LOG_HEADER, last, FRAME):
        for length in (border - 1, border, border + 1, border + 23, border + 24, border + 25, border + FRAME // 2):
            journal = reopen(path, Files(end.new.database, end.new.log[:length], None), durability)
            seq, found = journal.head
            assert found == run.hashes[seq]
            seqs.append(seq)
            journal.close()
    assert seqs == sorted(seqs)
    assert len(set(seqs)) > 4


@MODES
async def test_a_disk_that_broke_its_promise_is_refused(folder: Path, durability: Durability) -> None:
    """The control: records that were safe are gone, at the end or in the middle of the log. No such journal opens."""
    dice, path, refused = random.Random(4), folder / "after.sqlite", 0
    run = await record(folder, durability, length=45, seed=5)
    synced = [point.new for point in run.points if point.what == "append" and point.safe == point.written] or [
        point.old for point in run.points if point.what == "append" and point.safe
    ]
    for files in synced:
        used = max(changed(b"", files.log), default=0)
        for _ in range(4):
            at = dice.randrange(LOG_HEADER, used + SECTOR)
            log = files.log[:at] + (dice.randbytes(SECTOR) + files.log[at + SECTOR :] if dice.random() < 0.5 else b"")
            try:
                journal = reopen(path, files._replace(log=log), durability)
            except JournalError as error:
                refused += 1
                assert re.search(r"but record \d+ was safe on the disk|is malformed", str(error))  # noqa: PT017
                continue
            seq, found = journal.head
            assert found == run.hashes[seq]
            assert b"%d %s" % (seq, found.encode()) in (files.head or b""), "only what lay behind the last record was hit"
            journal.close()
    assert refused > len(synced)


# -- the order in which the disk is asked ------------------------------------------------------------------------------

WATCHED = """
import asyncio, os, sys
from agent.domain.events import EngineStopped
from agent.journal import flush, sqlite
from agent.journal.sqlite import SqliteJournal
flush.PAUSE_S, sqlite.MOVE_PAGES = 0.001, 8

async def main():
    for i in range(60):
        (record,) = journal.append(i, [EngineStopped("x" * 300)])
        await journal.secured(record.seq)
        os.write(1, b"%d" % record.seq)

journal = SqliteJournal(sys.argv[1], sys.argv[2])
asyncio.run(main())
journal.close()
"""
CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?:\((\d+)<([^>]*)>)?")


def calls(folder: Path, durability: Durability) -> Iterator[tuple[str, str]]:
    """(call, file) in their order: a write counts from its beginning on, a sync from its end on."""
    log = folder / "calls"
    watch = ("strace", "-f", "-y", "-qq", "-o", str(log), "-e", "trace=pwrite64,write,fsync,fdatasync")
    if shutil.which("strace") is None or subprocess.run([*watch, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no strace here to watch the system calls")
    command = [*watch, sys.executable, "-c", WATCHED, str(folder / "j.sqlite"), durability]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=TIMEOUT_S)
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        pid, call, number, file = found.groups()
        name = "out" if number == "1" else (file or begun.get(pid, "")).rpartition("/")[2]
        is_sync, is_begun, is_resumed = "sync" in call, line.endswith("<unfinished ...>"), "resumed>" in line
        if is_begun:
            begun[pid] = name
        if (is_sync and not is_begun) or (not is_sync and not is_resumed):
            yield ("sync" if is_sync else "write", name)


def test_nothing_is_called_safe_before_the_disk_was_asked_to_keep_it(tmp_path: Path) -> None:
    """Mode `power`: whenever a record is acknowledged, and before the database is touched, nothing of the log is unsynced."""
    unsynced, acknowledged, moved = False, 0, 0
    for call, name in calls(tmp_path, "power"):
        if name == "j.sqlite-wal":
            unsynced = call == "write"
        elif name == "out":
            acknowledged += 1
            assert not unsynced, f"record {acknowledged} was acknowledged before its sync"
        elif acknowledged and name in ("j.sqlite.head", "j.sqlite"):
            moved += (call, name) == ("write", "j.sqlite")
            assert not unsynced, f"{name} was written before the log was synced"
    assert acknowledged == 60
    assert moved >= 6


def test_the_kept_head_is_never_ahead_of_the_disk(tmp_path: Path) -> None:
    """Mode `process`: what is kept as safe was synced by then. Appends may run on meanwhile."""
    syncs, kept, acknowledged = 0, 0, 0
    for call, name in calls(tmp_path, "process"):
        acknowledged += name == "out"
        if (call, name) == ("sync", "j.sqlite-wal"):
            syncs += 1
        elif (call, name) == ("write", "j.sqlite.head"):
            kept += 1
            assert syncs > 0, "a head was kept without a sync of the log since the one before"
            syncs = 0
    assert acknowledged == 60
    assert kept >= 3
