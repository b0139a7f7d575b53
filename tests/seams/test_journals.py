"""One suite over both journals: what `ports.Journal` promises, and what the disk adds to it."""

import os
import random
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.domain.amount import Amount, Asset
from agent.domain.errors import JournalError
from agent.domain.events import BalanceAdopted, EngineStopped, Event, Halted, OrderSent
from agent.journal.codec import GENESIS, SCHEMA_VERSION, Row
from agent.journal.memory import MemoryJournal
from agent.journal.sqlite import SqliteJournal
from agent.ports import Journal

ETH = Asset("ETH", "binance", 18, "ETH")
Open = Callable[[], Journal]


@pytest.fixture(params=["memory", "sqlite process", "sqlite power"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same journal again and again."""
    rows: list[Row] = []
    match request.param:
        case "memory":
            return lambda: MemoryJournal(rows)
        case "sqlite process":
            return lambda: SqliteJournal(tmp_path / "j.sqlite", "process")
        case _:
            return lambda: SqliteJournal(tmp_path / "j.sqlite", "power")


def some_events(count: int, seed: int = 1) -> list[Event]:
    dice = random.Random(seed)
    kinds: list[Callable[[int], Event]] = [
        lambda i: EngineStopped(f"reason {i}"),
        lambda i: Halted("binance", f"break {i}"),
        lambda i: OrderSent(f"order-{i}", raw=dice.randbytes(40)),
        lambda i: BalanceAdopted("main", "binance", Amount(dice.randrange(10**30), ETH), "opening"),
    ]
    return [dice.choice(kinds)(i) for i in range(count)]


def fill(path: Path, count: int = 60) -> None:
    journal = SqliteJournal(path)
    for i, event in enumerate(some_events(count)):
        journal.append(1_000 + i, [event])
    journal.close()


# -- both --------------------------------------------------------------------------------------------------------------


def test_an_empty_journal_stands_at_genesis(open_journal: Open) -> None:
    journal = open_journal()
    assert journal.head == (0, GENESIS)
    assert list(journal.read()) == []
    assert journal.append(1, []) == []
    assert journal.head == (0, GENESIS)
    journal.close()


def test_records_are_gapless_and_survive_a_reopening(open_journal: Open) -> None:
    journal, events = open_journal(), some_events(50)
    written = [record for i in range(0, 50, 5) for record in journal.append(i, events[i : i + 5])]
    head = journal.head
    journal.close()
    again = open_journal()
    assert again.head == head == (50, written[-1].hash)
    assert list(again.read()) == written
    assert [record.seq for record in written] == list(range(1, 51))
    assert [record.event for record in written] == events
    (after,) = again.append(99, [EngineStopped("after")])
    assert after.seq == 51
    assert list(again.read(after_seq=49)) == [written[49], after]
    assert list(again.read(after_seq=51)) == list(again.read(after_seq=700)) == []
    again.close()


def test_both_journals_make_the_same_chain(tmp_path: Path) -> None:
    disk, memory = SqliteJournal(tmp_path / "j.sqlite"), MemoryJournal()
    for i, event in enumerate(some_events(40)):
        assert disk.append(i, [event]) == memory.append(i, [event])
    assert disk.head == memory.head
    disk.close()


def test_all_or_none(open_journal: Open) -> None:
    journal = open_journal()
    journal.append(1, some_events(3))
    head = journal.head
    with pytest.raises(JournalError, match="nothing was recorded"):
        journal.append(2, [EngineStopped("fine"), EngineStopped("\ud800")])
    assert journal.head == head
    assert len(list(journal.read())) == 3
    assert journal.append(3, [EngineStopped("the next one is taken")])[0].seq == 4
    journal.close()


def test_a_closed_journal_takes_nothing(open_journal: Open) -> None:
    journal = open_journal()
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(1, [EngineStopped("late")])


def test_records_may_be_appended_while_others_are_read(open_journal: Open) -> None:
    journal = open_journal()
    journal.append(1, some_events(5))
    reader = iter(journal.read())
    first = next(reader)
    journal.append(2, some_events(2, seed=2))
    assert first.seq == 1
    assert [record.seq for record in reader][:4] == [2, 3, 4, 5]
    journal.close()


def test_an_anchor_shows_a_cut_tail_and_a_rewritten_journal(open_journal: Open) -> None:
    journal = open_journal()
    journal.append(1, some_events(4))
    seq, found = journal.head
    assert journal.verify((seq, found)) == journal.verify() == (seq, found)  # type: ignore[attr-defined]
    assert journal.verify((0, GENESIS)) == (seq, found)  # type: ignore[attr-defined]
    with pytest.raises(JournalError, match="ends at record 4, but record 9"):
        journal.verify((9, found))  # type: ignore[attr-defined]
    with pytest.raises(JournalError, match="record 3 is not the one"):
        journal.verify((3, found))  # type: ignore[attr-defined]
    journal.close()


# -- edits -------------------------------------------------------------------------------------------------------------

EDITS = ("at_ns", "body", "hash", "drop", "swap", "renumber", "insert", "forge")


def edit_rows(rows: list[Row], kind: str, dice: random.Random) -> int:
    """One edit of a stored journal; the answer is the record that must be named."""
    at = dice.randrange(len(rows) - 1)
    row = rows[at]
    match kind:
        case "at_ns":
            rows[at] = row._replace(at_ns=row.at_ns ^ (1 << dice.randrange(20)))
        case "body":
            where = dice.randrange(len(row.body))
            changed = bytes([row.body[where] ^ (1 << dice.randrange(8))])
            rows[at] = row._replace(body=row.body[:where] + changed + row.body[where + 1 :])
        case "hash":
            rows[at] = row._replace(hash=row.hash[:-1] + ("0" if row.hash[-1] != "0" else "1"))
        case "drop":
            del rows[at]
        case "swap":
            rows[at], rows[at + 1] = rows[at + 1]._replace(seq=row.seq), row._replace(seq=row.seq + 1)
        case "renumber":
            rows[at:] = [one._replace(seq=one.seq + 1) for one in rows[at:]]
        case "insert":
            rows[at:] = [row, *(one._replace(seq=one.seq + 1) for one in rows[at:])]
            return row.seq + 1
        case "forge":
            rows[at] = row._replace(body=b'{"type":"EngineStopped","reason":"forged"}', hash=dice.randbytes(32).hex())
    return row.seq


def rewrite(path: Path, rows: list[Row]) -> None:
    """As somebody with a database tool would, triggers and all."""
    db = sqlite3.connect(path, isolation_level=None)
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.execute("DELETE FROM record")
    db.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
    for _, sql in triggers:
        db.execute(sql)
    db.close()


def test_every_edit_is_found_and_its_record_named(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    fill(path, 20)
    with sqlite3.connect(path) as db:
        original = [Row(*row) for row in db.execute("SELECT seq, at_ns, body, hash FROM record ORDER BY seq")]
    db.close()
    dice = random.Random(7)
    for round_ in range(320):
        rows = list(original)
        seq = edit_rows(rows, EDITS[round_ % len(EDITS)], dice)
        with pytest.raises(JournalError, match=rf"journal record {seq} (was changed|is missing)"):
            MemoryJournal(list(rows))
        rewrite(path, rows)
        with pytest.raises(JournalError, match=rf"journal record {seq} (was changed|is missing)"):
            SqliteJournal(path)
    rewrite(path, original)
    journal = SqliteJournal(path)
    assert journal.head == (20, original[-1].hash)
    journal.close()


def test_flipped_bits_and_cut_files_never_pass_for_the_truth(tmp_path: Path) -> None:
    """What the disk may do to the file: it is either refused, or reads exactly as written."""
    path, copy = tmp_path / "j.sqlite", tmp_path / "copy.sqlite"
    fill(path)
    original, dice, refused = path.read_bytes(), random.Random(3), 0
    journal = SqliteJournal(path, read_only=True)
    written = list(journal.read())
    journal.close()
    for round_ in range(400):
        damaged = bytearray(original)
        if round_ % 8 == 0:
            del damaged[dice.randrange(len(damaged)) :]
        else:
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        for suffix in ("", "-wal", "-shm"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        copy.write_bytes(damaged)
        try:
            journal = SqliteJournal(copy)
        except JournalError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most rounds raise, and those that do not are checked below
            refused += 1
            continue
        assert list(journal.read()) == written
        journal.close()
    assert refused > 200


def test_a_journal_cut_to_nothing_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    fill(path)
    path.write_bytes(b"")
    for read_only in (False, True):
        with pytest.raises(JournalError, match="is empty: it was cut off"):
            SqliteJournal(path, read_only=read_only)


def test_changes_through_sql_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "j.sqlite", 5)
    db = sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)
    for statement in (
        "UPDATE record SET at_ns = 0 WHERE seq = 1",
        "DELETE FROM record WHERE seq = 5",
        "INSERT INTO record VALUES (7, 0, x'00', '')",
        "INSERT OR REPLACE INTO record VALUES (5, 0, x'00', '')",
        "INSERT OR REPLACE INTO record (at_ns, body, hash) VALUES (0, 1.5, '')",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(statement)
    db.execute("DROP TRIGGER record_no_delete")
    db.close()
    with pytest.raises(JournalError, match=r"tables of .* were changed"):
        SqliteJournal(tmp_path / "j.sqlite")


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    first = SqliteJournal(tmp_path / "j.sqlite")
    with pytest.raises(JournalError, match=rf"another agent runs on this journal \(pid {os.getpid()}\)"):
        SqliteJournal(tmp_path / "j.sqlite")
    (tmp_path / "name").symlink_to(tmp_path / "j.sqlite")
    with pytest.raises(JournalError, match="another agent"):
        SqliteJournal(tmp_path / "name")
    first.close()
    SqliteJournal(tmp_path / "j.sqlite").close()


def test_a_foreign_writer_stops_us(tmp_path: Path) -> None:
    """Somebody appended with a database tool: our head is not the head any more, so we stop."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    with sqlite3.connect(tmp_path / "j.sqlite") as db:
        db.execute("INSERT INTO record VALUES (1, 0, x'00', '')")
    db.close()
    with pytest.raises(JournalError, match="the journal stopped"):
        journal.append(1, [EngineStopped("x")])
    journal.close()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite")
    journal.append(1, [EngineStopped("x")])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"j.sqlite", "j.sqlite-wal", "j.sqlite-shm", "j.sqlite.lock"}
    assert set(modes.values()) == {0o600}
    journal.close()


def append_until_it_fails(journal: Journal, count: int) -> None:
    for i in range(10_000):
        journal.append(i, [EngineStopped("x" * 500)] * count)


@pytest.mark.parametrize("count", [1, 3])
def test_a_full_disk_stops_the_journal_for_good(tmp_path: Path, count: int) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite")
    journal.append(1, some_events(3))
    assert journal._db is not None
    journal._db.execute("PRAGMA max_page_count = 12")
    with pytest.raises(JournalError, match=r"the journal stopped .*full.*free the disk"):
        append_until_it_fails(journal, count)
    head = journal.head
    journal._db.execute("PRAGMA max_page_count = 100000")  # room again: still nothing is taken before a restart
    with pytest.raises(JournalError, match="takes no more records"):
        journal.append(1, [EngineStopped("x")])
    journal.close()
    again = SqliteJournal(tmp_path / "j.sqlite")
    assert again.head == head
    again.close()


def test_a_file_size_limit_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    """The other face of a full disk: the write itself fails (SQLITE_IOERR), acknowledged records stay."""
    code = (
        "import resource, signal, sys\n"
        "from agent.journal.sqlite import SqliteJournal\n"
        "from agent.domain.errors import JournalError\n"
        "from agent.domain.events import EngineStopped\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = SqliteJournal(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        "    while True:\n"
        "        journal.append(1, [EngineStopped('x' * 500)])\n"
        "except JournalError as e:\n"
        "    print(journal.head[0], e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "j.sqlite"], capture_output=True, text=True, timeout=60, check=True
    )
    count, _, message = done.stdout.partition(" ")
    assert "the journal stopped" in message
    journal = SqliteJournal(tmp_path / "j.sqlite")
    assert journal.head[0] >= int(count) > 20
    journal.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", b"this is a text file, not a database at all", "cannot be opened"),
        ("foreign", None, "not a journal of isthmus"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE something (x)")
        db.close()
    else:
        path.write_bytes(content)
    with pytest.raises(JournalError, match=message):
        SqliteJournal(path)


def test_a_newer_version_refuses_to_open(tmp_path: Path) -> None:
    fill(tmp_path / "j.sqlite", 2)
    with sqlite3.connect(tmp_path / "j.sqlite") as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(JournalError, match="start a newer isthmus"):
        SqliteJournal(tmp_path / "j.sqlite")


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        SqliteJournal(tmp_path / "absent", read_only=True)
    with pytest.raises(JournalError, match="check the folder"):
        SqliteJournal(tmp_path / "no" / "folder" / "j.sqlite")


def test_a_reader_follows_a_running_writer(tmp_path: Path) -> None:
    path, failures = tmp_path / "j.sqlite", []
    writer = SqliteJournal(path)
    writer.append(0, some_events(1))
    done = threading.Event()

    def follow() -> None:
        try:
            reader = SqliteJournal(path, read_only=True)
            seen = 0
            while not done.is_set() or seen < writer.head[0]:
                for record in reader.read(seen):
                    assert record.seq == seen + 1
                    seen = record.seq
            assert reader.head == writer.head == reader.verify()
            with pytest.raises(JournalError, match="opened for reading"):
                reader.append(1, [EngineStopped("x")])
            reader.close()
        except (AssertionError, JournalError) as error:
            failures.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    for i, event in enumerate(some_events(3_000)):
        writer.append(i, [event])
    done.set()
    thread.join(60)
    assert not failures
    assert not thread.is_alive()
    writer.close()


# -- kill -9 -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from agent.journal.sqlite import SqliteJournal
from agent.domain.events import EngineStopped
journal = SqliteJournal(sys.argv[1], sys.argv[2])
seq = journal.head[0]
while True:
    count = 1 + seq % 3
    records = journal.append(seq, [EngineStopped(f"event {seq + i + 1} " + "x" * 300) for i in range(count)])
    seq = records[-1].seq
    print(seq, flush=True)
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, durability: str) -> None:
    path, dice, acknowledged = tmp_path / "j.sqlite", random.Random(11), 0
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(path), durability]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randrange(1, 250)):
                assert select.select([writer.stdout], [], [], 30)[0]
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split(b"\n")[:-1]  # what it acknowledged before the signal reached it
            acknowledged = int(rest[-1]) if rest else acknowledged
        journal = SqliteJournal(path)
        records = list(journal.read())
        assert journal.head[0] == len(records) >= acknowledged
        assert all(record.event.reason.startswith(f"event {record.seq} ") for record in records)  # type: ignore[union-attr]
        journal.close()


def test_a_failed_fsync_stops_the_journal_for_good(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite")
    journal.append(1, [EngineStopped("fine")])
    flusher = journal._flusher
    assert flusher is not None
    reading, writing = os.pipe()
    os.dup2(writing, flusher._fd)  # a pipe cannot be synced: the next fsync fails
    journal.append(2, [EngineStopped("with the operating system, but not on the disk")])
    flusher._thread.join(30)
    with pytest.raises(JournalError, match="the disk refused to write"):
        journal.append(3, [EngineStopped("never")])
    journal.close()
    os.close(reading)
    os.close(writing)
