"""The power fails at every system call of a real run, before it, inside it and after it; and the files are cut there.

A process appends and says aloud what is safe, while `strace` records every write and sync of its journal. Replayed up to any of
them, the disk may hold all that was written by then, only what was synced, any mixture, or the last write in part. From each such
state the journal is opened: it must be a beginning of the whole one, with everything that had been said to be safe. A disk that
cuts a file off there breaks its promise: then the journal may refuse, but never come back shorter without a word.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.domain.errors import JournalError
from agent.domain.events import EngineStopped
from agent.journal import store
from agent.journal.codec import GENESIS
from agent.journal.sqlite import Durability, SqliteJournal

MODES = pytest.mark.parametrize("durability", ["process", "power"])
APPENDS, SECTOR, TIMEOUT_S = 40, 512, 90
NAMES = ("j.sqlite", "j.sqlite-wal", "j.sqlite.head")

RUN = """
import asyncio, os, pathlib, sys
from agent.domain.events import EngineStopped
from agent.journal import sqlite, store
from agent.journal.head import kept_head
from agent.journal.sqlite import SqliteJournal
store.LOG_BYTES, sqlite.MOVE_PAGES = 96 << 10, 12  # small, so that the log is moved and begins anew

async def main():
    for i in range(int(sys.argv[3])):
        records = journal.append(i, [EngineStopped("x" * (i % 7 * 900))] * (1 + i % 3))
        await journal.secured(records[-1].seq)
        if sys.argv[2] == "power":
            os.write(1, b"%d\\n" % records[-1].seq)
        while sys.argv[2] == "process" and i % 2 and kept() < records[-1].seq:
            await asyncio.sleep(0.001)  # the flusher has its turn, however slow it is; TIMEOUT_S ends the run if it never comes

def kept():
    head = kept_head(pathlib.Path(sys.argv[1]))
    return head[0] if head else 0

journal = SqliteJournal(sys.argv[1], sys.argv[2])
asyncio.run(main())
journal.close()
"""
BUG = """
connect = store.connect
store.connect = lambda path, *, read_only=False, is_synced=False: connect(path, read_only=read_only)  # nobody asks for a sync
journal ="""
LINE = re.compile(r'^(\d+) +(\w+)\((?:(\d+)<([^>]*)>(?:, "((?:\\x[0-9a-f]{2})*)")?|"([^"]*)")?(.*)$')
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>")


class Call(NamedTuple):
    """`what`: write, sync, cut, gone, or said."""

    what: str
    name: str
    data: bytes = b""
    at: int = 0


def traced(folder: Path, durability: Durability, code: str = RUN) -> list[Call]:
    """What the run asked of the system, in order: a write from its beginning on, a sync when it has ended."""
    log = folder / "calls"
    named = "trace=pwrite64,write,ftruncate,fsync,fdatasync,unlink"
    watch = ("strace", "-f", "-y", "-qq", "-xx", "-s", "200000", "-o", str(log), "-e", named)
    if shutil.which("strace") is None or subprocess.run([*watch, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no strace here to watch the system calls")
    command = [*watch, sys.executable, "-c", code, str(folder / "j.sqlite"), durability, str(APPENDS)]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=TIMEOUT_S)
    return list(parsed(log.read_text().splitlines()))


def parsed(lines: list[str]) -> Iterator[Call]:
    syncs: dict[str, str] = {}  # of each thread: the sync that has begun
    for line in lines:
        if done := RESUMED.match(line):
            if "sync" in done[2] and done[1] in syncs:
                yield Call("sync", syncs.pop(done[1]))
            continue
        found = LINE.match(line)
        if found is None:
            continue
        pid, call, number, file, data, path, rest = found.groups()
        name = unhexed(file or path or "").rpartition(b"/")[2].decode()
        raw = unhexed(data or "")
        if number == "1":
            yield Call("said", "", raw)
        elif name not in NAMES:
            continue
        elif call == "pwrite64":
            yield Call("write", name, raw, int(rest.split(",")[2].split(")")[0].split()[0]))
        elif call == "ftruncate":
            yield Call("cut", name, b"", int(rest.split(",")[1].split(")")[0].split()[0]))
        elif call == "unlink":
            yield Call("gone", name)
        elif "sync" in call:
            if "<unfinished" in line:
                syncs[pid] = name
            else:
                yield Call("sync", name)


def unhexed(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


# -- the disk ----------------------------------------------------------------------------------------------------------


class Disk:
    """What is certain to be on it, and what was written since, in order."""

    def __init__(self) -> None:
        self.safe: dict[str, bytes] = {}
        self.loose: list[Call] = []

    def take(self, call: Call) -> None:
        if call.what == "sync":
            mine = [one for one in self.loose if one.name == call.name]
            self.safe = applied(self.safe, mine)
            self.loose = [one for one in self.loose if one.name != call.name]
        else:
            self.loose.append(call)

    def states(self, call: Call, dice: random.Random) -> Iterator[tuple[str, dict[str, bytes]]]:
        """What it may hold if the power fails around `call`, which is a write."""
        whole = applied(self.safe, self.loose)
        yield "nothing of it", whole
        yield "only what was synced", self.safe
        yield "all of it", applied(whole, [call])
        yield "a mixture", applied(self.safe, [one for one in [*self.loose, call] if one.what != "write" or dice.random() < 0.5])
        if call.what == "write" and len(call.data) > 1:
            sectors = range(SECTOR - call.at % SECTOR, len(call.data), SECTOR)
            for cut in {dice.choice(sectors) if sectors else 1, dice.randrange(1, len(call.data)), len(call.data) - 1}:
                yield "a part of it", applied(whole, [call._replace(data=call.data[:cut])])

    def cuts(self, call: Call, dice: random.Random) -> Iterator[dict[str, bytes]]:
        """The file ends where the write begins, inside it, or where it ends; what came before is there."""
        files = applied(applied(self.safe, self.loose), [call])
        for end in (call.at, call.at + dice.randrange(1, len(call.data) + 1), call.at + len(call.data)):
            yield files | {call.name: files[call.name][:end]}

    def without(self, call: Call, last: Call) -> Iterator[dict[str, bytes]]:
        """After `call` the file of `last` ends where that write began: what it brought was safe, and is lost."""
        files = applied(applied(self.safe, self.loose), [call])
        if last.name in files:
            yield files | {last.name: files[last.name][: last.at]}


def applied(files: dict[str, bytes], calls: list[Call]) -> dict[str, bytes]:
    found = dict(files)
    for call in calls:
        old = found.get(call.name, b"")
        if call.what == "write":
            found[call.name] = old[: call.at].ljust(call.at, b"\0") + call.data + old[call.at + len(call.data) :]
        elif call.what == "cut":
            found[call.name] = old[: call.at].ljust(call.at, b"\0")
        else:
            found.pop(call.name, None)
    return found


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is a file system for that: these disks are simulated anyway."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def reopened(folder: Path, files: dict[str, bytes], durability: Durability) -> tuple[int, str]:
    """The head that the journal comes back with; it must take records again."""
    for name in (*NAMES, "j.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    journal = SqliteJournal(folder / "j.sqlite", durability)
    found = journal.head
    journal.append(1, [EngineStopped("it goes on")])
    journal.close()
    return found


class Swept(NamedTuple):
    tried: Counter[str]
    refused: int
    longest: int  # of the journals that came back


@pytest.fixture(autouse=True)
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOG_BYTES", 96 << 10)


def hashes_of(path: Path) -> list[str]:
    journal = SqliteJournal(path, read_only=True)
    found = [GENESIS, *(record.hash for record in journal.read())]
    journal.close()
    return found


def sweep(calls: list[Call], hashes: list[str], folder: Path, durability: Durability) -> Swept:
    """Every state around every call. Raises AssertionError at the first that is not right."""
    disk, dice, said, longest, tried, refused = Disk(), random.Random(1), 0, 0, Counter[str](), 0
    for call in calls:
        if call.what == "said":
            said = int(call.data)
            continue
        for what, files in disk.states(call, dice) if call.what != "sync" else ():
            if "j.sqlite" not in files:
                assert not said
                continue  # nothing was there yet
            tried[what] += 1
            where = f"{what} of {call[:2]} at {call.at}"
            try:
                seq, found = reopened(folder, files, durability)
            except JournalError:
                assert longest == 0, f"{where}: nothing may be refused after the first record"
                refused += 1
                continue
            assert found == hashes[seq], f"{where}: record {seq} is another"
            assert seq >= said, f"{where}: record {said} was safe, {seq} came back"
            longest = max(longest, seq)
        disk.take(call)
    return Swept(tried, refused, longest)


@MODES
def test_the_power_fails_at_every_call(folder: Path, tmp_path: Path, durability: Durability) -> None:
    calls = traced(tmp_path, durability)
    hashes = hashes_of(tmp_path / "j.sqlite")
    swept = sweep(calls, hashes, folder, durability)
    sys.stdout.write(f"power loss, `{durability}`: {len(calls)} calls, {sum(swept.tried.values())} states, lost 0\n")
    assert swept.longest == len(hashes) - 1
    assert sum(call.what == "write" for call in calls) > 150
    assert sum(call[:2] == ("sync", "j.sqlite") for call in calls) >= 2, "the log was moved"
    assert swept.tried["a part of it"] > 300
    assert swept.refused < 40, "only while the file was being made"
    if durability == "power":
        assert [int(call.data) for call in calls if call.what == "said"][-1] == len(hashes) - 1


def test_a_journal_that_does_not_sync_is_found(folder: Path, tmp_path: Path) -> None:
    """The control: the same sweep over a planted bug."""
    calls = traced(tmp_path, "power", RUN.replace("journal =", BUG.strip(), 1))
    with pytest.raises(AssertionError, match=r"record \d+ was safe, \d+ came back"):
        sweep(calls, hashes_of(tmp_path / "j.sqlite"), folder, "power")


@MODES
def test_a_file_that_is_cut_at_every_write_is_never_silently_shorter(folder: Path, tmp_path: Path, durability: Durability) -> None:
    """No power loss does that, for these files were laid out and synced: the disk lost its end. What was kept as safe shows it."""
    disk, dice, kept, refused, came_back, newest = Disk(), random.Random(2), 0, 0, 0, Call("", "")
    for call in traced(tmp_path, durability):
        if call.what == "said":
            continue
        cuts: Iterable[dict[str, bytes]] = ()
        if call.what == "write" and call.name == "j.sqlite.head":
            kept = int(call.data.split()[0])
            cuts = disk.without(call, newest) if newest.what else ()
        elif call.what == "write" and kept:
            cuts = disk.cuts(call, dice)
        for files in cuts:
            try:
                seq, _ = reopened(folder, files, durability)
            except JournalError as error:
                assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right, and each is checked
                refused += 1
            else:
                assert seq >= kept, f"cut at {call.at} of {call.name}: record {kept} was safe, {seq} came back"
                came_back += 1
        newest = call if (call.what, call.name) == ("write", "j.sqlite-wal") else newest
        disk.take(call)
    sys.stdout.write(f"cut, `{durability}`: {refused} refused, {came_back} came back\n")
    assert refused > 10
    assert came_back > 30
