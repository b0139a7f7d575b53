"""The journal: one record appended and safe, beside a bare SQLite insert with the same durability and no hash chain."""

import sqlite3
import tempfile
from pathlib import Path

from agent.domain.events import OrderReported
from agent.domain.order import OrderState
from agent.journal.codec import encode
from agent.journal.sqlite import SqliteJournal
from benchmarks.measure import Result, versus

EVENT = OrderReported("i-0", OrderState.OPEN, "", "123456789")


def run() -> list[Result]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for durability, level in (("process", "NORMAL"), ("power", "FULL")):
            ours = SqliteJournal(Path(folder) / f"{durability}.sqlite", durability)  # type: ignore[arg-type]
            peer = sqlite3.connect(Path(folder) / f"peer-{durability}.sqlite", isolation_level=None)
            peer.execute("PRAGMA journal_mode=WAL")
            peer.execute(f"PRAGMA synchronous={level}")
            peer.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, at_ns INTEGER, body BLOB)")
            body = encode(EVENT)

            def append(journal: SqliteJournal = ours) -> object:
                return journal.append(1, [EVENT])

            def insert(db: sqlite3.Connection = peer, body: bytes = body) -> object:
                return db.execute("INSERT INTO records (at_ns, body) VALUES (1, ?)", (body,))

            found.append(versus(f"append, durability {durability}", append, "bare sqlite insert", insert, calls=300))
            ours.close()
            peer.close()
    return found
