"""Journals to test with: events of several kinds, edits as an intruder would make them, and a look at the rows on the disk."""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent.domain.amount import Amount, Asset
from agent.domain.events import BalanceAdopted, EngineStopped, Event, Halted, OrderSent
from agent.journal.codec import GENESIS, Row, rows_of, seal
from agent.journal.sqlite import Durability, SqliteJournal

ETH = Asset("ETH", "binance", 18, "ETH")


def some_events(count: int, seed: int = 1) -> list[Event]:
    dice = random.Random(seed)
    kinds: list[Callable[[int], Event]] = [
        lambda i: EngineStopped(f"reason {i}"),
        lambda i: Halted("binance", f"break {i}"),
        lambda i: OrderSent(f"order-{i}", raw=dice.randbytes(40)),
        lambda i: BalanceAdopted("main", "binance", Amount(dice.randrange(10**30), ETH), "opening"),
    ]
    return [dice.choice(kinds)(i) for i in range(count)]


def fill(path: Path, count: int = 60, durability: Durability = "process") -> None:
    journal = SqliteJournal(path, durability)
    for i, event in enumerate(some_events(count)):
        journal.append(1_000 + i, [event])
    journal.close()


def some_rows(count: int, seed: int = 1) -> list[Row]:
    """A journal as it lies in the store."""
    rows: list[Row] = []
    for i, event in enumerate(some_events(count, seed)):
        rows += rows_of((rows[-1].seq, rows[-1].hash) if rows else (0, GENESIS), 1_000 + i, [event])
    return rows


def rows_on_disk(path: Path) -> list[Row]:
    db = sqlite3.connect(path)
    rows = [Row(*row) for row in db.execute("SELECT seq, at_ns, body, hash FROM record ORDER BY seq")]
    db.close()
    return rows


def rewrite(path: Path, rows: list[Row]) -> None:
    """As somebody with a database tool would, triggers and all."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA synchronous = OFF; BEGIN IMMEDIATE")
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.execute("DELETE FROM record")
    db.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
    for _, sql in triggers:
        db.execute(sql)
    db.execute("COMMIT")
    db.close()


# -- edits: what somebody who can write the file may do to its records; the answer is the first record that is wrong ---------------


def flip_seq(rows: list[Row], dice: random.Random) -> int:
    """A number that changes puts the record elsewhere: the store keeps them in order, and each number once."""
    taken = {row.seq for row in rows}
    while True:
        at, bit = dice.randrange(len(rows)), dice.randrange(40)
        seq = rows[at].seq ^ (1 << bit)
        if seq not in taken:
            break
    old = rows[at].seq
    rows[at] = rows[at]._replace(seq=seq)
    rows.sort()
    return min(old, seq) if seq > 0 else 1


def flip_at_ns(rows: list[Row], dice: random.Random) -> int:
    at = dice.randrange(len(rows))
    rows[at] = rows[at]._replace(at_ns=rows[at].at_ns ^ (1 << dice.randrange(62)))
    return at + 1


def flip_body(rows: list[Row], dice: random.Random) -> int:
    at = dice.randrange(len(rows))
    rows[at] = rows[at]._replace(body=flipped(rows[at].body, dice))
    return at + 1


def flip_hash(rows: list[Row], dice: random.Random) -> int:
    at = dice.randrange(len(rows))
    text = rows[at].hash
    where = dice.randrange(len(text))
    rows[at] = rows[at]._replace(hash=text[:where] + chr(ord(text[where]) ^ (1 << dice.randrange(7))) + text[where + 1 :])
    return at + 1


def drop(rows: list[Row], dice: random.Random) -> int:
    at = dice.randrange(len(rows) - 1)  # the last one: see `cut`
    del rows[at]
    return at + 1


def drop_and_renumber(rows: list[Row], dice: random.Random) -> int:
    at = dice.randrange(len(rows) - 1)
    rows[at:] = [row._replace(seq=row.seq - 1) for row in rows[at + 1 :]]
    return at + 1


def insert_again(rows: list[Row], dice: random.Random) -> int:
    at = dice.randrange(len(rows))
    rows[at:] = [rows[at], *(row._replace(seq=row.seq + 1) for row in rows[at:])]
    return at + 2


def insert_forged(rows: list[Row], dice: random.Random) -> int:
    """A record of its own, correctly chained to the one before: the one after does not follow it."""
    at = dice.randrange(len(rows))
    before, body = rows[at - 1].hash if at else GENESIS, b'{"type":"EngineStopped","reason":"forged"}'
    forged = Row(at + 1, 5, body, seal(before, at + 1, 5, body))
    rows[at:] = [forged, *(row._replace(seq=row.seq + 1) for row in rows[at:])]
    return at + 2


def swap(rows: list[Row], dice: random.Random) -> int:
    first, second = sorted(dice.sample(range(len(rows)), 2))
    one, other = rows[first], rows[second]
    rows[first], rows[second] = other._replace(seq=one.seq), one._replace(seq=other.seq)
    return first + 1


def copy_over(rows: list[Row], dice: random.Random) -> int:
    at, of = dice.sample(range(len(rows)), 2)
    rows[at] = rows[of]._replace(seq=rows[at].seq)
    return at + 1


def forge(rows: list[Row], dice: random.Random) -> int:
    """Another event, with a hash that is right for it: the next record does not follow, and the head is another."""
    at = dice.randrange(len(rows) - 1)
    before, body = rows[at - 1].hash if at else GENESIS, b'{"type":"EngineStopped","reason":"forged"}'
    rows[at] = Row(at + 1, rows[at].at_ns, body, seal(before, at + 1, rows[at].at_ns, body))
    return at + 2


EDITS = (
    flip_seq, flip_at_ns, flip_body, flip_hash, drop, drop_and_renumber, insert_again, insert_forged, swap, copy_over, forge,
)  # fmt: skip


def cut(rows: list[Row], dice: random.Random) -> int:
    """Records cut off at the end: a chain like any other."""
    at = dice.randrange(len(rows))
    del rows[at:]
    return at + 1


def rewind(rows: list[Row], dice: random.Random) -> int:
    """Everything from some record on is written anew, correctly chained, perhaps longer than it was."""
    at, end = dice.randrange(len(rows)), len(rows) + dice.randrange(3)
    del rows[at:]
    for event in some_events(end - at, seed=dice.randrange(2, 1 << 30)):
        rows += rows_of((rows[-1].seq, rows[-1].hash) if rows else (0, GENESIS), 7, [event])
    return at + 1


REWRITES = (cut, rewind)  # whole chains: only a head that was kept elsewhere shows them


def flipped(data: bytes, dice: random.Random) -> bytes:
    where = dice.randrange(len(data))
    return data[:where] + bytes([data[where] ^ (1 << dice.randrange(8))]) + data[where + 1 :]
