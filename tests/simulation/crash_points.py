"""Where a process dies: a real journal with numbered moments around all that it does, at each of which `kill -9` may strike.

The journal's thread, whose pace would differ from run to run, works at fixed moments here. Everything else is the journal itself.
"""

import os
import resource
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.domain.events import Event, Record
from agent.journal import store
from agent.journal.codec import Row
from agent.journal.sqlite import SqliteJournal

FLUSH_EVERY = 4  # appends, in mode `process`
FRAME, LOG_HEADER, HALF = 4_096 + 24, 32, 24 + 1_500  # bytes of SQLite's log


class Points:
    """The moments at which this process may die, numbered as they come; it dies at number `last`."""

    def __init__(self, last: int = 0) -> None:
        self.last, self.names = last, list[str]()

    def at(self, name: str) -> None:
        if self.is_now(name):
            die()

    def is_now(self, name: str) -> bool:
        self.names.append(name)
        return len(self.names) == self.last


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """Satisfies ports.Journal: the real one, with points, and with its thread working at fixed moments only.

    In mode `power` nothing is handed to the thread until somebody waits for it: the most that a kill can cost there. In mode
    `process` the flusher's work is done here, after every few appends.
    """

    def __init__(self, inner: SqliteJournal, home: Path, points: Points) -> None:
        self.inner, self.points = inner, points
        self._appends, self._is_first, self._is_torn = 0, False, False
        self._promise = os.open(home / "promise", os.O_RDWR | os.O_CREAT)
        self._held: list[Row] = []
        self._push = inner._commit.push if inner._commit is not None else None
        if inner._commit is not None:
            inner._commit.push = self._held.extend  # type: ignore[method-assign, assignment]
        writer = inner._db if self._push is None else inner._back
        assert writer is not None
        self._writer = writer
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # it ends the process when a write reaches the limit
        writer.set_trace_callback(self._statement)
        self._watch_disk(inner)

    def _watch_disk(self, inner: SqliteJournal) -> None:
        """Points between what is done on the disk. This process is the run's own, so nothing is put back."""
        insert, move, points = store.insert, store.move_log, self.points
        assert inner._kept is not None
        keep = inner._kept.keep

        def inserting(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
            insert(db, rows)
            if self._is_torn:
                die()  # the log began anew, so the write went elsewhere and was whole
            if self._push is not None:
                points.at("written")

        def keeping(seq: int, found: str) -> None:
            points.at("before the head is kept")
            keep(seq, found)
            points.at("head kept")

        def moving(db: sqlite3.Connection) -> int:
            points.at("before the log is moved")
            left = move(db)
            points.at("log moved")
            return left

        store.insert, store.move_log = inserting, moving
        inner._kept.keep = keeping  # type: ignore[method-assign]

    def _statement(self, text: str) -> None:
        """Called before SQLite does something. The system itself cuts in its middle what it writes to the log."""
        is_alone = text.startswith("INSERT") and not self._writer.in_transaction
        if self._is_first and (is_alone or text.startswith("COMMIT")):
            self._is_first = False
            if self.points.is_now("half written"):
                self._is_torn = True
                end = log_end(store.log_path(self.inner.path)) + HALF
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (end, end))

    # -- the port ------------------------------------------------------------------------------------------------------

    @property
    def head(self) -> tuple[int, str]:
        return self.inner.head

    @property
    def warning(self) -> str:
        return self.inner.warning

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        names = "+".join(type(event).__name__ for event in events)
        self.points.at(f"before {names}")
        self._is_first = True
        records = self.inner.append(at_ns, events)
        if self._push is None:
            self._promised()
        self.points.at(f"after {names}")
        self._appends += 1
        if self._push is None and self._appends % FLUSH_EVERY == 0:
            self.inner._flush()
        return records

    async def secured(self, seq: int) -> None:
        """The loop stands still until the disk has it, so that no virtual time passes meanwhile."""
        if self._held:
            self.points.at("before the disk")
            self._write()
        await self.inner.secured(seq)
        if self._push is not None:
            self._promised()
            self.points.at("secured")

    def _write(self) -> None:
        if self._push is not None and self.inner._commit is not None:
            self._is_first = True
            self._push(tuple(self._held))
            self._held.clear()
            self.inner._commit.drain()

    def _promised(self) -> None:
        """From here on the caller may tell the world: this much must be found after the kill."""
        seq, found = self.inner.head
        os.pwrite(self._promise, f"{seq:20} {found}".encode(), 0)

    def read(self, after_seq: int = 0) -> Iterator[Record]:
        self._write()
        return self.inner.read(after_seq)

    def close(self) -> None:
        self._write()
        self.inner.close()


def log_end(path: Path) -> int:
    """Where the log's next frame begins, unless the log begins anew."""
    data = path.read_bytes()
    salts, at = data[16:24], LOG_HEADER
    while data[at + 8 : at + 16] == salts and any(salts):
        at += FRAME
    return at
