"""The journal on disk: one SQLite file that a desk can copy, read with any tool, and check.

What is promised when `append` returns:

* `process`: the records are with the operating system. They survive `kill -9` and a crash of this program. A thread of the journal
  asks the disk to write them down right after; a power loss takes at most what was appended since that last finished, usually a few
  milliseconds, and always from the end: never a record in the middle.
* `power`: the records are on the disk (fsync before the return). They survive a power loss if the disk keeps its own promise.

All events of one `append` are recorded, or none. A failed write or fsync stops the journal for good: the system may have dropped
the pages, so trying again proves nothing. Open it anew; what is then read and verified is the truth.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from agent.domain.errors import JournalError
from agent.domain.events import Event, Record
from agent.journal.codec import GENESIS, SCHEMA_VERSION, Row, check_anchor, check_version, decode, rows_of, walk
from agent.journal.lock import release_lock, take_lock

Durability = Literal["process", "power"]

APPLICATION_ID = 0x49535448  # 'ISTH': tells our files from other SQLite files
PAGE_ROWS = 1_000
BUSY_S = 1  # seconds to wait for a foreign program that writes to the file

SCHEMA = (
    "CREATE TABLE record (seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, body BLOB NOT NULL, hash TEXT NOT NULL) STRICT",
    "CREATE TRIGGER record_gapless BEFORE INSERT ON record"
    " WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM record)"
    " BEGIN SELECT RAISE(ABORT, 'records are numbered without gaps'); END",
    "CREATE TRIGGER record_no_update BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'records are never changed'); END",
    "CREATE TRIGGER record_no_delete BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'records are never deleted'); END",
)


class SqliteJournal:
    """Satisfies `ports.Journal`. Owns the file, the writer's lock and the head of the chain.

    Opening makes the file (0600) if it is absent, takes the lock, and verifies the whole chain (2 s a million records).
    `read_only` takes no lock and follows a writer that runs. Every failure is a JournalError of one line.
    """

    def __init__(self, path: Path | str, durability: Durability = "process", *, read_only: bool = False) -> None:
        self.path = Path(path).resolve()
        self._is_read_only = read_only
        self._stopped = ""
        self._guard = threading.Lock()
        self._lock = -1 if read_only else take_lock(self.path.with_name(self.path.name + ".lock"))
        self._flusher: _Flusher | None = None
        self._db: sqlite3.Connection | None = None
        try:
            self._db = _connect(self.path, durability, read_only=read_only)
            self._head = self.verify()
            if durability == "process" and not read_only:
                self._flusher = _Flusher(self.path.with_name(self.path.name + "-wal"))
        except (sqlite3.Error, OSError) as e:
            self.close()
            raise JournalError(f"the journal {self.path} cannot be opened ({e}); check the file, its folder and the disk") from e
        except JournalError:
            self.close()
            raise

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest record. Of a reader: as the writer left it at this moment."""
        if not self._is_read_only:
            return self._head
        rows = self._select("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1", ())
        return (int(rows[0][0]), str(rows[0][1])) if rows else (0, GENESIS)

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        """Records all events or none, as durable as chosen. Raises JournalError; after a failed write every further append does.

        An event that cannot be written down (see `codec.encode`) is refused before anything is stored, and stops nothing.
        """
        with self._guard:
            if self._is_read_only:
                raise JournalError("this journal was opened for reading; only the agent that owns it writes")
            self._refuse_stopped()
            rows = rows_of(self._head, at_ns, events)
            if rows:
                self._insert(rows)
                self._head = (rows[-1].seq, rows[-1].hash)
        return [Record(row.seq, at_ns, event, row.hash) for row, event in zip(rows, events, strict=True)]

    async def secured(self, seq: int) -> None:
        """Returns when the record `seq` and all before it are as durable as chosen. Raises JournalError if that will never be."""
        if seq > self._head[0]:
            raise JournalError(f"record {seq} was never appended, the last one is {self._head[0]}")

    def read(self, after_seq: int = 0) -> Iterator[Record]:
        """Records in order, each verified against the one before. Raises JournalError at the first that does not fit."""
        before = GENESIS
        if after_seq > 0:
            found = self._select("SELECT hash FROM record WHERE seq = ?", (after_seq,))
            if not found:
                return
            before = str(found[0][0])
        yield from map(decode, walk(self._rows(after_seq), (max(after_seq, 0), before)))

    def verify(self, anchor: tuple[int, str] | None = None) -> tuple[int, str]:
        """The head, after every record was held against the chain, and the chain against `anchor` (a head kept elsewhere)."""
        seq, found = 0, GENESIS
        at_anchor = GENESIS if anchor and anchor[0] == 0 else None
        for row in walk(self._rows(0)):
            seq, found = row.seq, row.hash
            if anchor and seq == anchor[0]:
                at_anchor = found
        if anchor:
            check_anchor(seq, at_anchor, anchor)
        return seq, found

    def close(self) -> None:
        """Writes everything down and gives the lock back. Closing twice is allowed."""
        self._stopped = self._stopped or "it is closed"
        if self._flusher is not None:
            self._flusher.close()
            self._flusher = None
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock >= 0:
            release_lock(self._lock)
            self._lock = -1

    def _insert(self, rows: Sequence[Row]) -> None:
        assert self._db is not None
        try:
            if len(rows) == 1:
                self._db.execute(_INSERT, rows[0])
            else:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(_INSERT, rows)
                self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as e:
            self._stop(e)
        if self._flusher is not None:
            self._flusher.wake()

    def _stop(self, e: Exception) -> NoReturn:
        """The commit may or may not have reached the disk, so the head is not known any more and nothing may follow."""
        self._stopped = f"a write failed: {e}"
        if self._db is not None and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as second:
                self._stopped += f" ({second})"
        raise JournalError(f"the journal stopped ({self._stopped}); free the disk or repair it, then start again") from e

    def _refuse_stopped(self) -> None:
        if self._flusher is not None and self._flusher.failure:
            self._stopped = self._stopped or f"the disk refused to write: {self._flusher.failure}"
        if self._stopped:
            raise JournalError(f"the journal takes no more records ({self._stopped}); free the disk or repair it, then start again")

    def _rows(self, after_seq: int) -> Iterator[Row]:
        """Page by page, so that a slow reader never holds the writer's log open."""
        while True:
            page = self._select(
                "SELECT seq, at_ns, body, hash FROM record WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, PAGE_ROWS)
            )
            for row in page:
                after_seq = row[0]
                yield Row(*row)
            if len(page) < PAGE_ROWS:
                return

    def _select(self, query: str, arguments: tuple[int, ...]) -> list[tuple[int, int, bytes, str]]:
        if self._db is None:
            raise JournalError("the journal is closed; open it again")
        try:
            return self._db.execute(query, arguments).fetchall()
        except (sqlite3.Error, OSError) as e:
            raise JournalError(f"the journal {self.path} cannot be read ({e}); restore it from a copy") from e


class _Flusher:
    """The thread that asks the disk, right after an append, to write down the log. A failure is kept and never retried."""

    def __init__(self, log: Path) -> None:
        self.failure = ""
        self._fd = os.open(log, os.O_RDWR | os.O_CREAT, 0o600)
        self._wanted = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="journal-flush", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        if not self._wanted.is_set():
            self._wanted.set()

    def close(self) -> None:
        self._is_closing = True
        self._wanted.set()
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        while not self.failure and not self._is_closing:
            self._wanted.wait()
            self._wanted.clear()  # before the fsync: what is appended meanwhile asks for another one
            try:
                os.fsync(self._fd)
            except OSError as e:
                self.failure = e.strerror or "fsync failed"


def _connect(path: Path, durability: Durability, *, read_only: bool) -> sqlite3.Connection:
    is_new = not path.exists()
    if is_new and read_only:
        raise JournalError(f"there is no journal at {path}; start the agent once, or name the right file")
    if not is_new and not path.stat().st_size:
        raise JournalError(f"{path} is empty: it was cut off; restore it from a copy, or remove it to begin anew")
    if not read_only:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    mode = "ro" if read_only else "rw"
    db = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    try:
        if not read_only:
            _lay_out(db)
        _check_schema(db, path)
        if not read_only:
            path.chmod(0o600)
            _choose(db, durability)
    except (sqlite3.Error, JournalError):
        db.close()
        raise
    return db


def _lay_out(db: sqlite3.Connection) -> None:
    """Makes the tables of an empty file."""
    if db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _choose(db: sqlite3.Connection, durability: Durability) -> None:
    """How writes reach the disk. Raises JournalError where the log cannot be shared with readers."""
    mode: str = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise JournalError(f"this file system cannot hold the journal (SQLite log mode {mode}); choose a local disk")
    db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
    db.execute("PRAGMA fullfsync = 1")  # macOS: ask the disk itself, not only its cache
    db.execute("PRAGMA checkpoint_fullfsync = 1")


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is a database, but not a journal of isthmus; name another file")
    check_version(db.execute("PRAGMA user_version").fetchone()[0])
    found = {row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
    if found != set(SCHEMA):
        raise JournalError(f"the tables of {path} were changed, records may have been edited; restore the journal from a copy")


_INSERT = "INSERT INTO record (seq, at_ns, body, hash) VALUES (?, ?, ?, ?)"
