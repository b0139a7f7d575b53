"""The journal on disk: one SQLite file that a desk can copy, read with any tool, and check.

* `process`: on return from `append` the records are with the operating system. They survive `kill -9` and a crash of this program.
  A thread of the journal brings them to the disk right after; a power loss takes at most what was appended since that last
  finished, usually ten or twenty milliseconds, and always from the end: never a record in the middle.
* `power`: `append` hands the records to a thread that commits what piled up in one go; `secured` returns when they are on the disk
  (fsync). They survive a power loss if the disk keeps its own promise.

All events of one `append` are recorded, or none. A failed write or fsync stops the journal for good: the system may have dropped
the pages, so trying again proves nothing. Open it anew; what is then read and verified is the truth. A disk that fills up is told
before that, see `warning`.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from agent.domain.errors import JournalError
from agent.domain.events import Event, Record
from agent.journal import store
from agent.journal.codec import GENESIS, ChainError, Row, check_anchor, decode, is_hash, row_of, rows_of, walk
from agent.journal.flush import Flusher
from agent.journal.group import GroupCommit
from agent.journal.head import HeadFile, check_kept, head_path, kept_head
from agent.journal.lock import release_lock, take_lock
from agent.journal.store import ERRORS, MOVE_PAGES

Durability = Literal["process", "power"]

PAGE_ROWS = 1_000
FREE_MIN = 64 << 20  # bytes of the disk that should be left
RETRY_PAGES = 100  # of the log, after which a full disk is tried again
LOG_PAGES_MAX = 1_200  # from here on the writer itself moves the log into the database, so that some 850 pages stay as a reserve


class SqliteJournal:
    """Satisfies `ports.Journal`. Owns the file, the writer's lock, the head of the chain, and the thread that serves the disk.

    Opening makes the file (0600) if it is absent, takes the lock, verifies the whole chain (2 s a million records) and holds it
    against the head that was kept beside it. `read_only` takes no lock and follows a writer that runs. `accepts_loss`: a person
    knows that records at the end are missing and goes on without them. Every failure is a JournalError of one line.
    """

    def __init__(
        self, path: Path | str, durability: Durability = "process", *, read_only: bool = False, accepts_loss: bool = False
    ) -> None:
        self.path = Path(path).resolve()
        self._is_read_only, self._accepts_loss = read_only, accepts_loss
        self._stopped = ""
        self._pages = self._pages_moved = 0  # of the log: written, and written when it was last moved into the database
        self._log = -1
        self._kept: HeadFile | None = None
        self._commit: GroupCommit | None = None  # in mode `power`
        self._flusher: Flusher | None = None  # in mode `process`
        self._db: sqlite3.Connection | None = None  # for the caller's thread
        self._back: sqlite3.Connection | None = None  # for ours
        self._lock = -1 if read_only else take_lock(self.path.with_name(self.path.name + ".lock"))
        try:
            self._db = store.open_store(self.path, read_only=read_only)
            self._head = self.verify()
            self._head_found = self._head[0]  # the last record at the opening
            if not read_only:
                self._start(durability)
        except ERRORS as e:
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

    @property
    def warning(self) -> str:
        """Why nothing new should be begun, while the reserve still takes what must be recorded; empty if there is no reason."""
        try:
            free = shutil.disk_usage(self.path.parent).free
        except OSError as e:
            return f"the disk of {self.path} cannot be looked at ({e.strerror}); see to it"
        if free >= FREE_MIN:
            return ""
        return f"the disk of {self.path} is almost full ({free >> 20} MiB are left, {FREE_MIN >> 20} are wanted); free some space"

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        """Records all events or none. Raises JournalError; after a failed write every further append does.

        An event that cannot be written down (see `codec.encode`) is refused before anything is stored, and stops nothing.
        """
        if self._stopped or self._is_read_only:
            self._refuse()
        if len(events) == 1:  # by far the most: half the work
            return [self._append_one(at_ns, events[0])]
        rows = rows_of(self._head, at_ns, events)
        if not rows:
            return []
        if self._commit is not None:
            self._commit.push(rows)
        else:
            self._insert(rows)
        self._head = (rows[-1].seq, rows[-1].hash)
        return [Record(row.seq, at_ns, events[i], row.hash) for i, row in enumerate(rows)]

    def _append_one(self, at_ns: int, event: Event) -> Record:
        row = row_of(self._head, at_ns, event)
        if self._commit is not None:
            self._commit.push((row,))
        else:
            self._insert((row,))
        self._head = (row.seq, row.hash)
        return Record(row.seq, at_ns, event, row.hash)

    async def secured(self, seq: int) -> None:
        """Returns when the record `seq` and all before it are as durable as chosen. Raises JournalError if that will never be."""
        if self._commit is not None:
            future = self._commit.waiter(seq)
            if future is not None:
                await future
        elif seq > self._head[0]:
            raise JournalError(f"record {seq} was never appended, the last one is {self._head[0]}")

    def read(self, after_seq: int = 0) -> Iterator[Record]:
        """Records in order, each verified against the one before. Raises JournalError at the first that does not fit."""
        self._drain()
        before = GENESIS
        if after_seq > 0:
            found = self._select("SELECT hash FROM record WHERE seq = ?", (after_seq,))
            if not found:
                return
            before = str(found[0][0])
            if not is_hash(before):
                raise ChainError(after_seq, f"journal record {after_seq} was changed; restore the journal from a copy")
        yield from map(decode, walk(self._rows(after_seq), (max(after_seq, 0), before)))

    def verify(self, anchor: tuple[int, str] | None = None) -> tuple[int, str]:
        """The head, after every record was held against the chain, and the chain against `anchor` (a head kept elsewhere).

        Raises ChainError, which names the first record that is not as it was written or is missing.
        """
        kept = kept_head(self.path)  # before the records: a writer may be adding some
        self._drain()
        held = {at[0]: GENESIS if at[0] == 0 else None for at in (kept, anchor) if at}
        seq, found = 0, GENESIS
        for row in walk(self._rows(0)):
            seq, found = row.seq, row.hash
            if seq in held:
                held[seq] = found
        if kept and not (self._accepts_loss and seq < kept.seq):
            check_kept(seq, held[kept.seq], kept)
        if anchor:
            check_anchor(seq, held[anchor[0]], anchor)
        return seq, found

    def close(self) -> None:
        """Writes everything down and gives the lock back. Closing twice is allowed."""
        self._stopped = self._stopped or "it is closed"
        for thread in (self._commit, self._flusher):
            if thread is not None:
                thread.close()
        for file in (self._kept, self._back, self._db):
            if file is not None:
                file.close()
        self._flusher = self._kept = self._back = self._db = None
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        if self._lock >= 0:
            release_lock(self._lock)
            self._lock = -1

    # -- the caller's thread -------------------------------------------------------------------------------------------

    def _start(self, durability: Durability) -> None:
        """Everything that is there goes to the disk, and is kept as the head; then the thread begins."""
        assert self._db is not None
        store.lay_out_log(self.path)
        self._kept = HeadFile(head_path(self.path))
        if not self._accepts_loss:
            self._kept.start(*self._head)
        store.sync_folder(self.path)
        self._back = store.connect(self.path, is_synced=True)
        self._back.execute("PRAGMA wal_autocheckpoint = 0")
        if durability == "power":
            self._commit = GroupCommit(self._write, "journal", self._tidy)
            return
        self._db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES_MAX}")
        self._log = os.open(store.log_path(self.path), os.O_RDWR)
        self._flusher = Flusher(self._flush, "journal")

    def _insert(self, rows: Sequence[Row]) -> None:
        assert self._db is not None
        assert self._flusher is not None
        if self._flusher.failure:
            self._stopped = self._flusher.failure
            self._refuse()
        try:
            store.insert(self._db, rows)
        except ERRORS as e:
            self._stopped = _failure(self._db, e)
            raise JournalError(f"the journal stopped ({self._stopped}); free the disk or repair it, then start again") from e
        self._pages += store.pages_of(rows)
        self._flusher.wake()

    def _refuse(self) -> NoReturn:
        if self._is_read_only and not self._stopped:
            raise JournalError("this journal was opened for reading; only the agent that owns it writes")
        raise JournalError(f"the journal takes no more records ({self._stopped}); free the disk or repair it, then start again")

    def _drain(self) -> None:
        if self._commit is not None and not self._stopped:
            self._commit.drain()

    def _rows(self, after_seq: int) -> Iterator[Row]:
        """Page by page, so that a slow reader never holds the writer's log open."""
        while True:
            page = self._select(
                "SELECT seq, at_ns, body, hash FROM record WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, PAGE_ROWS)
            )
            yield from map(Row._make, page)
            if len(page) < PAGE_ROWS:
                return
            after_seq = page[-1][0]

    def _select(self, query: str, arguments: tuple[int, ...]) -> list[tuple[int, int, bytes, str]]:
        if self._db is None:
            raise JournalError("the journal is closed; open it again")
        try:
            return self._db.execute(query, arguments).fetchall()
        except ERRORS as e:
            raise JournalError(f"the journal {self.path} cannot be read ({e}); restore it from a copy") from e

    # -- our thread ----------------------------------------------------------------------------------------------------

    def _write(self, rows: Sequence[Row]) -> None:
        """In mode `power`: what piled up goes to the disk in one commit."""
        assert self._back is not None
        try:
            store.insert(self._back, rows)
            self._pages += store.pages_of(rows)
        except ERRORS as e:
            raise JournalError(_failure(self._back, e)) from e

    def _tidy(self, last: Row) -> None:
        """After that, while others go on already: the head is kept, and the log moved when there is enough of it."""
        assert self._back is not None
        try:
            self._keep(last.seq, last.hash)
            self._move()
        except ERRORS as e:
            raise JournalError(_failure(self._back, e)) from e

    def _flush(self) -> None:
        """In mode `process`: what the system holds goes to the disk."""
        assert self._back is not None
        seq, found = self._head
        try:
            os.fsync(self._log)
            self._keep(seq, found)
            self._move()
        except ERRORS as e:
            raise JournalError(f"the disk refused to write: {_failure(self._back, e)}") from e

    def _keep(self, seq: int, found: str) -> None:
        """Keeps the head. What an earlier one claims is only forgotten when the record that accepts the loss is on the disk."""
        assert self._kept is not None
        if self._accepts_loss:
            if seq == self._head_found:
                return  # nothing was recorded since it was opened
            self._accepts_loss = False
            self._kept.start(seq, found)
        else:
            self._kept.keep(seq, found)

    def _move(self) -> None:
        """The log into the database, when there is enough of it. A disk with no room for that is tried again later."""
        assert self._back is not None
        pages = self._pages
        if pages - self._pages_moved >= MOVE_PAGES:
            left = store.move_log(self._back)
            self._pages_moved = pages if left == 0 else pages - MOVE_PAGES + RETRY_PAGES


def _failure(db: sqlite3.Connection, e: Exception) -> str:
    """In words. The commit may or may not have reached the disk, so the head is not known any more and nothing may follow."""
    text = f"a write failed: {e}"
    if db.in_transaction:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error as second:
            text += f" ({second})"
    return text
