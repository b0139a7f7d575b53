"""The SQLite file below the journal: its tables, its log that is laid out in advance, and how rows get into it.

SQLite appends what is committed to a log beside the database (`-wal`) and moves it into the database later. The log is written full
of zeros when the journal is opened: a commit then changes no file's size and needs no room, so the disk has less to do for each
(about a third less time), and a disk that is full shows itself first when the log is moved, not when a record is written. What is
left of the log then is the reserve for the last records: cancels, fills, the end of the run.
"""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from agent.domain.errors import JournalError
from agent.journal.codec import SCHEMA_VERSION, Row, check_version

APPLICATION_ID = 0x49535448  # 'ISTH': tells our files from other SQLite files
BUSY_S = 1  # seconds to wait for a foreign program that writes to the file
PAGE = 4_096  # bytes of a page, as SQLite chooses it
LOG_BYTES = 8 << 20
MOVE_PAGES = 1_000  # of the log are moved into the database at a time; the rest is the reserve
CHUNK = 64  # rows of one statement
FEW = 8  # rows that one decision makes

SCHEMA = (
    "CREATE TABLE record (seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, body BLOB NOT NULL, hash TEXT NOT NULL) STRICT",
    "CREATE TRIGGER record_gapless BEFORE INSERT ON record"
    " WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM record)"
    " BEGIN SELECT RAISE(ABORT, 'records are numbered without gaps'); END",
    "CREATE TRIGGER record_no_update BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'records are never changed'); END",
    "CREATE TRIGGER record_no_delete BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'records are never deleted'); END",
)
ERRORS = (sqlite3.Error, OSError, UnicodeDecodeError)  # what a damaged file or disk raises


def log_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def open_store(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """The tables, made if the file is absent, checked if it is there. Raises JournalError or one of ERRORS."""
    is_new = not path.exists()
    if is_new and read_only:
        raise JournalError(f"there is no journal at {path}; start the agent once, or name the right file")
    if not is_new and not path.stat().st_size:
        raise JournalError(f"{path} is empty: it was cut off; restore it from a copy, or remove it to begin anew")
    if not read_only:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = connect(path, read_only=read_only)
    try:
        if not read_only:
            _lay_out_tables(db)
        _check_schema(db, path)
        if not read_only:
            _raise_version(db)
            path.chmod(0o600)
            _choose_log(db)
    except (*ERRORS, JournalError):
        db.close()
        raise
    return db


def connect(path: Path, *, read_only: bool = False, is_synced: bool = False) -> sqlite3.Connection:
    """A connection for one thread at a time. `is_synced`: a commit returns when the disk has it, else when the system has it."""
    mode = "ro" if read_only else "rw"
    db = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    try:
        db.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
        db.execute("PRAGMA fullfsync = 1")  # macOS: ask the disk itself, not only its cache
        db.execute("PRAGMA checkpoint_fullfsync = 1")
    except sqlite3.Error:  # a file that is no database, or damaged
        db.close()
        raise
    return db


def lay_out_log(path: Path) -> None:
    """Writes the log full of zeros behind what it holds, and all of it to the disk. Raises OSError."""
    fd = os.open(log_path(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        size = os.fstat(fd).st_size
        while size < LOG_BYTES:
            size += os.pwrite(fd, bytes(min(1 << 20, LOG_BYTES - size)), size)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """The names of new files are as safe as what is in them, and so is the folder's own. Not every system can do that."""
    for folder in (path.parent, path.parent.parent):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def insert(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """All rows in one commit. Raises one of ERRORS; then it is not known whether they are there."""
    if len(rows) == 1:
        db.execute(_INSERT, rows[0])
        return
    if len(rows) <= FEW:  # one statement is a commit of its own
        db.execute(_INSERT_FEW[len(rows)], list(chain.from_iterable(rows)))
        return
    whole = len(rows) - len(rows) % CHUNK
    db.execute("BEGIN IMMEDIATE")
    for start in range(0, whole, CHUNK):
        db.execute(_INSERT_CHUNK, list(chain.from_iterable(rows[start : start + CHUNK])))
    db.executemany(_INSERT, rows[whole:])
    db.execute("COMMIT")


def pages_of(rows: Sequence[Row]) -> int:
    """How many pages of the log these rows take in one commit, rather too many."""
    return 3 + sum(len(row.body) + 100 for row in rows) // (PAGE - 100)


def move_log(db: sqlite3.Connection) -> int:
    """Moves the log into the database, so that it begins anew. Pages that stay; -1: the disk has no room. Raises sqlite3.Error."""
    try:
        ((_, pages, moved),) = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.OperationalError as e:
        if e.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return -1
        raise
    return int(pages - moved)


def _lay_out_tables(db: sqlite3.Connection) -> None:
    """Makes the tables of an empty file."""
    if db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _raise_version(db: sqlite3.Connection) -> None:
    """What is written from now on, an agent of an older version could not read: it must not open the file any more."""
    if db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _choose_log(db: sqlite3.Connection) -> None:
    mode: str = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise JournalError(f"this file system cannot hold the journal (SQLite log mode {mode}); choose a local disk")


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is a database, but not a journal of isthmus; name another file")
    check_version(db.execute("PRAGMA user_version").fetchone()[0])
    found = sorted(row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    if found != sorted(SCHEMA):
        raise JournalError(f"the tables of {path} were changed, records may have been edited; restore the journal from a copy")


_INSERT = "INSERT INTO record (seq, at_ns, body, hash) VALUES (?, ?, ?, ?)"
_INSERT_CHUNK = f"{_INSERT}{', (?, ?, ?, ?)' * (CHUNK - 1)}"
_INSERT_FEW = [f"{_INSERT}{', (?, ?, ?, ?)' * (count - 1)}" for count in range(FEW + 1)]
