"""One suite over both journals: what `ports.Journal` promises, and what the disk adds to it."""

import os
import random
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_kit import EDITS, REWRITES, fill, rewrite, rows_on_disk, some_events

from agent.domain.errors import JournalError
from agent.domain.events import EngineStopped
from agent.journal.codec import GENESIS, SCHEMA_VERSION, ChainError, Row
from agent.journal.memory import MemoryJournal
from agent.journal.sqlite import Durability, SqliteJournal
from agent.ports import Journal

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


async def test_what_was_appended_can_be_waited_for(open_journal: Open) -> None:
    journal = open_journal()
    await journal.secured(0)
    for i in range(20):
        records = journal.append(i, some_events(3))
        await journal.secured(records[-1].seq)
        await journal.secured(1)
    with pytest.raises(JournalError, match="record 61 was never appended, the last one is 60"):
        await journal.secured(61)
    journal.append(30, some_events(2))
    journal.close()
    again = open_journal()
    await again.secured(62)
    assert again.head[0] == 62
    again.close()


async def test_what_is_under_way_reads_back(open_journal: Open) -> None:
    """Nobody waited for the disk: reading, verifying and closing see every record all the same."""
    journal = open_journal()
    for i in range(300):
        journal.append(i, some_events(2, seed=i))
        if i % 50 == 0:
            assert journal.verify() == journal.head == (2 * i + 2, journal.head[1])  # type: ignore[attr-defined]
            assert len(list(journal.read())) == 2 * i + 2
    head = journal.head
    journal.close()
    again = open_journal()
    assert again.head == head
    again.close()


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


def test_every_edit_of_the_file_is_found_and_its_record_named(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    fill(path, 20)
    original, dice = rows_on_disk(path), random.Random(7)
    for round_ in range(22 * len(EDITS)):
        rows = list(original)
        seq = EDITS[round_ % len(EDITS)](rows, dice)
        if rows == original:
            continue
        rewrite(path, rows)
        for read_only in (False, True):
            with pytest.raises(ChainError, match=rf"journal record {seq} (was changed|is missing)") as found:
                SqliteJournal(path, read_only=read_only)
            assert found.value.seq == seq
    rewrite(path, original)
    journal = SqliteJournal(path)
    assert journal.head == (20, original[-1].hash)
    journal.close()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_journal_that_ends_before_what_was_safe_is_refused(tmp_path: Path, durability: Durability) -> None:
    """Whole chains, so that only the head kept beside the journal shows what was done."""
    path, dice = tmp_path / "j.sqlite", random.Random(8)
    fill(path, 20, durability)
    original = rows_on_disk(path)
    for round_ in range(40):
        rows = list(original)
        REWRITES[round_ % 2](rows, dice)
        rewrite(path, rows)
        for read_only in (False, True):
            with pytest.raises(ChainError, match=r"but record 20 was safe on the disk: \d+ record|record 20 is not the one"):
                SqliteJournal(path, durability, read_only=read_only)
    rewrite(path, original)
    SqliteJournal(path, durability).close()


def test_an_older_copy_put_back_is_refused_and_a_person_may_go_on(tmp_path: Path) -> None:
    path, copy = tmp_path / "j.sqlite", tmp_path / "copy.sqlite"
    fill(path, 20)
    shutil.copy(path, copy)
    journal = SqliteJournal(path)
    journal.append(5_000, some_events(7, seed=2))
    journal.close()
    shutil.copy(copy, path)
    with pytest.raises(JournalError, match=r"ends at record 20, but record 27 was safe on the disk: 7 records are missing"):
        SqliteJournal(path)
    accepted = SqliteJournal(path, accepts_loss=True)
    assert accepted.head[0] == 20
    accepted.append(6_000, some_events(1))
    accepted.close()
    again = SqliteJournal(path)
    assert again.head[0] == 21
    again.close()
    shutil.copy(path, copy)  # a copy that was made without its head is a journal like any other
    SqliteJournal(copy).close()


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_loss_is_only_forgotten_when_its_acceptance_is_on_the_disk(tmp_path: Path, durability: Durability) -> None:
    """Killed between the opening and the record that accepts the loss: the next start must ask a person again."""
    path, copy = tmp_path / "j.sqlite", tmp_path / "copy.sqlite"
    fill(path, 20)
    copy.write_bytes(path.read_bytes())
    writer = SqliteJournal(path, durability)
    await writer.secured(writer.append(1, some_events(3))[-1].seq)
    writer.close()
    path.write_bytes(copy.read_bytes())
    SqliteJournal(path, durability, accepts_loss=True).close()  # nothing was recorded
    with pytest.raises(JournalError, match="3 records are missing"):
        SqliteJournal(path, durability)
    accepted = SqliteJournal(path, durability, accepts_loss=True)
    await accepted.secured(accepted.append(1, [EngineStopped("a person accepts it")])[-1].seq)
    await accepted.secured(accepted.append(2, [EngineStopped("and it goes on")])[-1].seq)
    accepted.close()
    again = SqliteJournal(path, durability)
    assert again.head[0] == 22
    again.close()


def test_a_rewritten_journal_is_no_loss_to_accept(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    fill(path, 20)
    rows = rows_on_disk(path)
    REWRITES[1](rows, random.Random(9))
    rewrite(path, rows)
    with pytest.raises(JournalError, match="record 20 is not the one that was seen before"):
        SqliteJournal(path, accepts_loss=True)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER record_no_delete",
        "DROP TRIGGER record_gapless; DROP TRIGGER record_no_update",
        "DROP TRIGGER record_no_update; CREATE TRIGGER record_no_update BEFORE UPDATE ON record BEGIN SELECT 1; END",
        "CREATE TRIGGER more AFTER INSERT ON record BEGIN UPDATE record SET at_ns = 0; END",
        "CREATE TABLE another (x)",
        "CREATE VIEW another AS SELECT * FROM record",
        "CREATE INDEX another ON record (at_ns)",
        "ALTER TABLE record RENAME COLUMN at_ns TO at",
        "ALTER TABLE record ADD COLUMN more TEXT",
        "ALTER TABLE record RENAME TO another",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 0",
    ],
)
def test_changed_tables_and_triggers_are_refused(tmp_path: Path, change: str) -> None:
    fill(tmp_path / "j.sqlite", 5)
    db = sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)
    db.executescript(change)
    db.close()
    for read_only in (False, True):
        with pytest.raises(JournalError, match=r"tables of .* were changed|not a journal of isthmus"):
            SqliteJournal(tmp_path / "j.sqlite", read_only=read_only)


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
        for suffix in ("", "-wal", "-shm", ".head"):
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
    db.close()


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


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_foreign_writer_stops_us(tmp_path: Path, durability: Durability) -> None:
    """Somebody appended with a database tool: our head is not the head any more, so we stop."""
    journal = SqliteJournal(tmp_path / "j.sqlite", durability)
    with sqlite3.connect(tmp_path / "j.sqlite") as db:
        db.execute("INSERT INTO record VALUES (1, 0, x'00', '')")
    db.close()
    with pytest.raises(JournalError, match=r"the journal stopped|did not reach the disk"):
        await journal.secured(journal.append(1, [EngineStopped("x")])[0].seq)
    with pytest.raises(JournalError, match="takes no more records"):
        journal.append(1, [EngineStopped("x")])
    journal.close()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite")
    journal.append(1, [EngineStopped("x")])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"j.sqlite", "j.sqlite-wal", "j.sqlite-shm", "j.sqlite.head", "j.sqlite.lock"}
    assert set(modes.values()) == {0o600}
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


def test_an_older_journal_is_read_as_it_is_and_raised_by_whoever_writes(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    fill(path, 3)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA user_version = 1")
    for read_only, after in ((True, 1), (False, SCHEMA_VERSION)):
        journal = SqliteJournal(path, read_only=read_only)
        assert len(list(journal.read())) == 3
        journal.close()
        assert db.execute("PRAGMA user_version").fetchone()[0] == after
    db.close()


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
