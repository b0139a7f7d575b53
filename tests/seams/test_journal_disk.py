"""A disk that is full or broken: the journal stops for good with one clear line, and loses nothing that it acknowledged."""

import asyncio
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from journal_kit import some_events

from agent.domain.errors import JournalError
from agent.domain.events import EngineStopped
from agent.journal import sqlite
from agent.journal.sqlite import Durability, SqliteJournal

MODES = pytest.mark.parametrize("durability", ["process", "power"])
TIMEOUT_S = 90

WRITER = """
import asyncio, faulthandler, sys
from agent.domain.errors import JournalError
from agent.domain.events import EngineStopped
from agent.journal import sqlite, store
from agent.journal.sqlite import SqliteJournal

faulthandler.dump_traceback_later(60, exit=True)

async def write(journal, count, size=500):
    "Appends records and waits until each is safe; says how many are."
    for i in range(count):
        (record,) = journal.append(i, [EngineStopped(f"event {journal.head[0] + 1} " + "x" * size)])
        await journal.secured(record.seq)
        print(record.seq, flush=True)
"""


def run(code: str, *arguments: str | Path, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A program of its own with the helpers of WRITER, started `through` another one."""
    command = [*through, sys.executable, "-c", WRITER + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def check_nothing_lost(path: Path, acknowledged: int) -> None:
    """What was acknowledged is there, in order, and the journal takes more."""
    journal = SqliteJournal(path)
    records = list(journal.read())
    assert journal.head[0] == len(records) >= acknowledged
    assert all(record.event.reason.startswith(f"event {record.seq} ") for record in records)  # type: ignore[union-attr]
    journal.append(1, [EngineStopped(f"event {len(records) + 1} ")])
    journal.close()


async def append_until_it_fails(journal: SqliteJournal, count: int) -> int:
    """The last record that was safe."""
    safe = 0
    for i in range(10_000):
        try:
            records = journal.append(i, [EngineStopped("x" * 500)] * count)
            await journal.secured(records[-1].seq)
        except JournalError:
            return safe
        safe = records[-1].seq
    raise AssertionError("it never failed")


@MODES
@pytest.mark.parametrize("count", [1, 3, 200])
async def test_a_full_disk_stops_the_journal_for_good(tmp_path: Path, count: int, durability: Durability) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite", durability)
    await journal.secured(journal.append(1, some_events(3))[-1].seq)
    writer = journal._db if durability == "process" else journal._back
    assert writer is not None
    writer.execute("PRAGMA max_page_count = 60")
    safe = await append_until_it_fails(journal, count)
    writer.execute("PRAGMA max_page_count = 100000")  # room again: still nothing is taken before a restart
    with pytest.raises(JournalError, match=r"takes no more records .*full.*free the disk") as error:
        journal.append(1, [EngineStopped("x")])
    assert "\n" not in str(error.value)
    if durability == "power":
        with pytest.raises(JournalError, match=r"did not reach the disk .*full"):
            await journal.secured(safe + 1)
    await journal.secured(safe)
    journal.close()
    again = SqliteJournal(tmp_path / "j.sqlite", durability)
    assert again.head[0] == max(safe, 3)
    again.close()


@MODES
def test_a_file_size_limit_is_an_error_and_not_a_loss(tmp_path: Path, durability: Durability) -> None:
    """The other face of a full disk: the write itself fails (SQLITE_IOERR), acknowledged records stay."""
    code = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = SqliteJournal(sys.argv[1], sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            asyncio.run(write(journal, 10_000))
        except JournalError as error:
            print(error)
        journal.close()
    """
    done = run(code, tmp_path / "j.sqlite", durability)
    assert done.returncode == 0, done.stderr
    *seqs, message = done.stdout.splitlines()
    assert "the journal stopped" in message if durability == "process" else "did not reach the disk" in message
    assert int(seqs[-1]) > 20
    check_nothing_lost(tmp_path / "j.sqlite", int(seqs[-1]))


FULL_DISK = """
    import os, shutil
    folder, mode = sys.argv[1:]
    sqlite.FREE_MIN = 1 << 20
    journal = SqliteJournal(folder + "/j.sqlite", mode)
    asyncio.run(write(journal, 20))
    assert journal.warning == "", journal.warning

    def fill():
        with open(folder + "/ballast", "wb", buffering=0) as ballast:
            while True:
                try:
                    ballast.write(bytes(4096))
                except OSError:
                    return
    fill()
    assert "almost full" in journal.warning and "free some space" in journal.warning, journal.warning
    before = journal.head[0]
    asyncio.run(write(journal, 700))  # the reserve: every record of these is safe, on a disk with no byte left
    os.remove(folder + "/ballast")
    assert journal.warning == "", "it recovers by itself when there is room again"
    asyncio.run(write(journal, 2_000))
    fill()
    try:
        asyncio.run(write(journal, 100_000))
    except JournalError as error:
        print("stopped:", error)
    safe = journal.head[0] if mode == "process" else None
    journal.close()
    os.remove(folder + "/ballast")
    again = SqliteJournal(folder + "/j.sqlite", mode)
    print("found", again.head[0], len(list(again.read())))
    asyncio.run(write(again, 5))
    again.close()
"""


@MODES
def test_on_a_disk_without_a_byte_left_the_last_records_still_fit(tmp_path: Path, durability: Durability) -> None:
    """A real file system of 20 MiB, filled to the brim: the warning, the reserve, the end, and all of it there after a restart."""
    inside = f'mount -t tmpfs -o size=20m none {tmp_path} && exec "$@"'
    through = ("unshare", "-r", "-m", "sh", "-c", inside, "sh")
    if shutil.which("unshare") is None or subprocess.run([*through, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a file system of their own")
    done = run(FULL_DISK, tmp_path, durability, through=through)
    assert done.returncode == 0, done.stderr + done.stdout
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("stopped:"))
    assert "full" in lines[at]
    assert "then start again" in lines[at]
    _, found, read = lines[at + 1].split()
    assert int(found) == int(read) >= int(lines[at - 1]) > 2_720 + 400
    assert int(lines[-1]) == int(found) + 5


@MODES
def test_a_disk_that_fails_to_sync_stops_the_journal_for_good(tmp_path: Path, durability: Durability) -> None:
    """The system itself says EIO, from some sync on. Nothing is tried again, and nothing acknowledged as safe is lost."""
    inject = (
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "inject=fsync,fdatasync:error=EIO:when=20+",
    )
    if shutil.which("strace") is None or subprocess.run([*inject, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no strace here to make the system fail")
    code = """
        journal = SqliteJournal(sys.argv[1], sys.argv[2])
        try:
            asyncio.run(write(journal, 100_000))
        except JournalError as error:
            print(error)
        for _ in range(3):
            try:
                journal.append(1, [EngineStopped("more")])
            except JournalError as error:
                assert "takes no more records" in str(error), error
            else:
                raise SystemExit("it took more")
        journal.close()
    """
    done = run(code, tmp_path / "j.sqlite", durability, through=inject)
    assert done.returncode == 0, done.stderr + done.stdout
    *seqs, message = done.stdout.splitlines()
    assert "I/O error" in message or "Input/output error" in message
    check_nothing_lost(tmp_path / "j.sqlite", int(seqs[-1]))


async def test_a_sync_that_fails_stops_the_journal_for_good(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite")
    journal.append(1, [EngineStopped("fine")])
    flusher = journal._flusher
    assert flusher is not None
    reading, writing = os.pipe()
    os.dup2(writing, journal._log)  # a pipe cannot be synced: the next flush fails
    journal.append(2, [EngineStopped("with the operating system, but not on the disk")])
    flusher._thread.join(30)
    with pytest.raises(JournalError, match="the disk refused to write"):
        journal.append(3, [EngineStopped("never")])
    journal.close()
    os.close(reading)
    os.close(writing)


def test_a_disk_with_little_room_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite")
    monkeypatch.setattr(sqlite, "FREE_MIN", shutil.disk_usage(tmp_path).free // 4)
    assert journal.warning == ""
    monkeypatch.setattr(sqlite, "FREE_MIN", 1 << 60)
    assert "almost full" in journal.warning
    assert journal.append(1, [EngineStopped("the last records still fit")])
    journal.close()


@MODES
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, durability: Durability) -> None:
    path, dice, acknowledged = tmp_path / "j.sqlite", random.Random(11), 0
    code = WRITER + "asyncio.run(write(SqliteJournal(sys.argv[1], sys.argv[2]), 1_000_000))"
    for _ in range(8):
        command = [sys.executable, "-c", code, str(path), durability]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randrange(1, 250)):
                assert select.select([writer.stdout], [], [], 30)[0]
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split(b"\n")[:-1]  # what it acknowledged before the signal reached it
            acknowledged = int(rest[-1]) if rest else acknowledged
        check_nothing_lost(path, acknowledged)


@MODES
async def test_the_log_is_moved_again_and_again_and_stays_small(tmp_path: Path, durability: Durability) -> None:
    """Many times what the log holds: it begins anew each time, keeps its size, and everything is there."""
    journal = SqliteJournal(tmp_path / "j.sqlite", durability)
    log = tmp_path / "j.sqlite-wal"
    size = log.stat().st_size
    for i in range(60):
        records = journal.append(i, [EngineStopped("x" * 2_000)] * 300)
        await journal.secured(records[-1].seq)
        await asyncio.sleep(0)
    assert log.stat().st_size <= 2 * size
    assert (tmp_path / "j.sqlite").stat().st_size > size
    assert journal.verify() == journal.head == (18_000, records[-1].hash)
    journal.close()
