"""The journal in PostgreSQL: the same promises as the file, and that of two agents one writes and the other stops within a lease.

The server is real, and so is what happens to it: it is crashed, demoted and cut off, and agents are frozen and killed.
"""

import asyncio
import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_kit import isthmus
from engine_kit import Habits, Run, ScriptedBook, WarpClock, booked, replayed, sale, venues_of
from postgres_server import AGENT, Cable, Server, running_server

from agent.app import open_journal, open_reader
from agent.cli.reading import replay
from agent.config import load
from agent.domain.amount import Amount, Asset
from agent.domain.errors import JournalError
from agent.domain.events import BalanceAdopted, EngineStopped, Event, Halted, OrderFilled, OrderSent, Record
from agent.journal.codec import GENESIS, SCHEMA_VERSION, Row, rows_of
from agent.journal.database import Link, Place
from agent.journal.lease import MARGIN, session_name
from agent.journal.memory import MemoryJournal
from agent.journal.postgres import NoJournalError, PostgresJournal
from agent.ports import Journal

pytestmark = pytest.mark.xdist_group("postgres")

COIN = Asset("ETH", "binance", 18, "ETH")
LEASE_S = 1.5
GRACE_S = 1.0  # for a machine that is busy with other things
WRONG_WORD = "p4ss/w0rd:x"
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        server.new_database("desk")
        yield server


class Desk:
    """An empty database: agents open its journal, tests look at it and spoil it."""

    def __init__(self, server: Server, database: str = "desk") -> None:
        self.server = server
        self.database = database
        self._opened: list[PostgresJournal] = []
        self.end_sessions()
        self.run("DROP SCHEMA IF EXISTS isthmus CASCADE")

    def open(self, *, through: Cable | None = None, **options: Any) -> PostgresJournal:
        options = {"lease_s": 10.0, "password": self.word} | options
        journal = PostgresJournal(self.server.url(self.database, through.port if through else 0), **options)
        self._opened.append(journal)
        return journal

    def close(self) -> None:
        """Whatever a test left open, because it failed."""
        for journal in self._opened:
            journal.close()

    def word(self) -> str:
        return self.server.password

    def run(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """As the database's administrator."""
        with self.server.admin(self.database) as session:
            cursor = session.execute(query.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[Row]:
        return [Row(*row) for row in self.run("SELECT seq, at_ns, body, hash FROM isthmus.record ORDER BY seq")]

    def rewrite(self, rows: list[Row]) -> None:
        """As somebody with a database tool would, triggers and all; the head is left alone."""
        with self.server.admin(self.database) as session:
            session.execute("ALTER TABLE isthmus.record DISABLE TRIGGER USER")
            session.execute("DELETE FROM isthmus.record")
            with session.cursor() as cursor:
                cursor.executemany("INSERT INTO isthmus.record VALUES ('main', %s, %s, %s, %s)", rows)
            for name in ("record_gapless", "record_kept"):
                session.execute(f"ALTER TABLE isthmus.record ENABLE ALWAYS TRIGGER {name}".encode())

    def expire(self) -> None:
        self.run("UPDATE isthmus.head SET expires_at = clock_timestamp()")

    def end_sessions(self) -> int:
        """As an administrator who ends every session of the agent."""
        (found,) = self.run("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s", AGENT)
        return int(found[0])


@pytest.fixture
def desk(server: Server) -> Iterator[Desk]:
    with contextlib.closing(Desk(server)) as desk:
        yield desk


@pytest.fixture
def cable(server: Server) -> Iterator[Cable]:
    with contextlib.closing(Cable(server.port)) as cable:
        yield cable


def some_events(count: int, seed: int = 1) -> list[Event]:
    dice = random.Random(seed)
    kinds: list[Callable[[int], Event]] = [
        lambda i: EngineStopped(f"reason {i}"),
        lambda i: Halted("binance", f"break {i} \u20ac \0 \\x"),
        lambda i: OrderSent(f"order-{i}", raw=dice.randbytes(40)),
        lambda i: BalanceAdopted("main", "binance", Amount(dice.randrange(10**30), COIN), "opening"),
    ]
    return [dice.choice(kinds)(i) for i in range(count)]


def note(text: str) -> list[Event]:
    return [EngineStopped(text)]


def secured(journal: Journal, seq: int = 0) -> None:
    """Wait until the record, or the newest, is safe."""

    async def wait() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await journal.secured(seq or journal.head[0])

    asyncio.run(wait())


def write(journal: Journal, *texts: str) -> Record:
    """Append each text and wait until all are safe; the last record."""
    records = [journal.append(i, note(text))[0] for i, text in enumerate(texts)]
    secured(journal, records[-1].seq)
    return records[-1]


def texts(desk: Desk) -> list[str]:
    """What the server holds, verified."""
    with contextlib.closing(desk.open(read_only=True)) as journal:
        return [record.event.reason for record in journal.read()]  # type: ignore[union-attr]


# -- the same promises as the file -------------------------------------------------------------------------------------


def test_an_empty_journal_stands_at_genesis(desk: Desk) -> None:
    with contextlib.closing(desk.open()) as journal:
        assert journal.head == (0, GENESIS)
        assert list(journal.read()) == []
        assert journal.append(1, []) == []
        assert journal.head == (0, GENESIS)
        secured(journal, 0)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_records_are_gapless_and_survive_a_reopening(desk: Desk, durability: str) -> None:
    journal, events = desk.open(durability=durability), some_events(50)
    written = [record for i in range(0, 50, 5) for record in journal.append(i, events[i : i + 5])]
    assert list(journal.read()) == written  # what is still under way is waited for
    head = journal.head
    journal.close()
    again = desk.open(durability=durability)
    assert again.head == head == (50, written[-1].hash)
    assert list(again.read()) == written
    assert [record.seq for record in written] == list(range(1, 51))
    assert [record.event for record in written] == events
    (after,) = again.append(99, note("after"))
    assert after.seq == 51
    assert list(again.read(after_seq=49)) == [written[49], after]
    assert list(again.read(after_seq=51)) == list(again.read(after_seq=700)) == []
    again.close()


def test_the_server_holds_the_same_rows_as_the_memory(desk: Desk) -> None:
    ours, memory = desk.open(), MemoryJournal()
    for i, event in enumerate(some_events(300)):
        assert ours.append(i, [event]) == memory.append(i, [event])
    assert ours.head == memory.head == ours.verify()
    assert desk.rows() == memory.rows
    ours.close()


def test_all_or_none(desk: Desk) -> None:
    journal = desk.open()
    journal.append(1, some_events(3))
    head = journal.head
    with pytest.raises(JournalError, match="nothing was recorded"):
        journal.append(2, [EngineStopped("fine"), EngineStopped("\ud800")])
    assert journal.head == head
    assert len(list(journal.read())) == 3
    assert journal.append(3, note("the next one is taken"))[0].seq == 4
    journal.close()
    assert len(desk.rows()) == 4


def test_a_closed_journal_takes_nothing(desk: Desk) -> None:
    journal = desk.open()
    journal.close()
    journal.close()
    for attempt in (lambda: journal.append(1, note("late")), lambda: secured(journal), lambda: list(journal.read())):
        with pytest.raises(JournalError, match="closed"):
            attempt()


def test_records_may_be_appended_while_others_are_read(desk: Desk) -> None:
    with contextlib.closing(desk.open()) as journal:
        journal.append(1, some_events(5))
        reader = iter(journal.read())
        first = next(reader)
        journal.append(2, some_events(2, seed=2))
        assert first.seq == 1
        assert [record.seq for record in reader][:4] == [2, 3, 4, 5]


def test_an_anchor_shows_a_cut_tail_and_a_rewritten_journal(desk: Desk) -> None:
    with contextlib.closing(desk.open()) as journal:
        journal.append(1, some_events(4))
        seq, found = journal.head
        assert journal.verify((seq, found)) == journal.verify() == journal.verify((0, GENESIS)) == (seq, found)
        with pytest.raises(JournalError, match="ends at record 4, but record 9"):
            journal.verify((9, found))
        with pytest.raises(JournalError, match="record 3 is not the one"):
            journal.verify((3, found))


def test_secured_waits_for_the_server_and_for_nothing_else(desk: Desk) -> None:
    with contextlib.closing(desk.open()) as journal:
        for count in range(1, 20):
            record = journal.append(1, note("x" * count))[0]
            secured(journal, record.seq)
            assert len(desk.rows()) >= count
        with pytest.raises(JournalError, match="record 20 was never appended"):
            secured(journal, 20)


def test_a_big_pile_travels_together_and_a_big_event_alone(desk: Desk) -> None:
    with contextlib.closing(desk.open()) as journal:
        for i in range(5_000):
            journal.append(i, note("x" * 200))
        journal.append(1, note("y" * 1_000_000))
        secured(journal)
        assert journal.verify() == journal.head
    assert len(desk.rows()) == 5_001


def test_a_reader_follows_a_running_writer(desk: Desk) -> None:
    writer, failures, done = desk.open(), [], threading.Event()
    writer.append(0, some_events(1))

    def follow() -> None:
        try:
            reader = desk.open(read_only=True)
            seen = 0
            while not done.is_set() or seen < writer.head[0]:
                for record in reader.read(seen):
                    assert record.seq == seen + 1
                    seen = record.seq
            assert reader.head == writer.head == reader.verify()
            with pytest.raises(JournalError, match="opened for reading"):
                reader.append(1, note("x"))
            reader.close()
        except (AssertionError, JournalError) as error:
            failures.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    for i, event in enumerate(some_events(2_000)):
        writer.append(i, [event])
    secured(writer)
    done.set()
    thread.join(DEADLINE_S)
    assert not failures
    assert not thread.is_alive()
    writer.close()


def test_desks_share_a_database_and_nothing_else(desk: Desk) -> None:
    with contextlib.closing(desk.open(desk="a")) as one, contextlib.closing(desk.open(desk="b")) as other:
        write(one, "of a")
        write(other, "of b", "again")
        assert (one.head[0], other.head[0]) == (1, 2)
        assert (one.verify(), other.verify()) == (one.head, other.head)
    with pytest.raises(JournalError, match="1 to 32 letters"):
        desk.open(desk="a b")


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
            rows[at] = row._replace(body=row.body[:where] + bytes([row.body[where] ^ 1]) + row.body[where + 1 :])
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


def fill(desk: Desk, count: int = 20) -> list[Row]:
    with contextlib.closing(desk.open()) as journal:
        for i, event in enumerate(some_events(count)):
            journal.append(1_000 + i, [event])
    return desk.rows()


def test_every_edit_is_found_and_its_record_named(desk: Desk) -> None:
    original, dice = fill(desk), random.Random(7)
    for round_ in range(80):
        rows = list(original)
        seq = edit_rows(rows, EDITS[round_ % len(EDITS)], dice)
        desk.rewrite(rows)
        with pytest.raises(JournalError, match=rf"journal record {seq} (was changed|is missing)"):
            desk.open(read_only=round_ % 4 > 0)
    desk.rewrite(original)
    with contextlib.closing(desk.open()) as journal:
        assert journal.head == (20, original[-1].hash)


def test_records_cut_off_at_the_end_or_added_by_others_are_found(desk: Desk) -> None:
    """What the chain alone cannot show: the server keeps the head beside it."""
    original = fill(desk)
    for left in (0, 5, 19):
        desk.rewrite(original[:left])
        for read_only in (True, False):
            with pytest.raises(JournalError, match=rf"ends at record {left}, but record 20 was seen before"):
                desk.open(read_only=read_only)
    forged = rows_of((20, original[-1].hash), 5, note("a record that fits, written by somebody else"))
    desk.rewrite([*original, *forged])
    with pytest.raises(JournalError, match="record 21 was written by no agent"):
        desk.open()


REFUSED = (
    "UPDATE isthmus.record SET at_ns = 0 WHERE seq = 1",
    "DELETE FROM isthmus.record WHERE seq = 5",
    "TRUNCATE isthmus.record",
    "INSERT INTO isthmus.record VALUES ('main', 7, 0, '', '')",
    "INSERT INTO isthmus.record VALUES ('main', 5, 0, '', '')",
    "INSERT INTO isthmus.record VALUES ('main', 5, 0, '', '') ON CONFLICT (desk, seq) DO UPDATE SET body = ''",
    "INSERT INTO isthmus.record VALUES ('other', 2, 0, '', '')",
    "UPDATE isthmus.head SET seq = seq - 1",
    "UPDATE isthmus.head SET epoch = 0",
    "UPDATE isthmus.head SET desk = 'x'",
    "DELETE FROM isthmus.head",
    "TRUNCATE isthmus.head",
)


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_changes_through_sql_are_refused(desk: Desk, role: str) -> None:
    fill(desk, 5)
    before = desk.rows()
    with desk.server.admin(desk.database) as session:
        session.execute(f"SET session_replication_role = {role}".encode())  # a replica's role skips ordinary triggers
        for statement in REFUSED:
            with pytest.raises(psycopg.IntegrityError):
                session.execute(statement.encode())
    assert desk.rows() == before


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER record_kept ON isthmus.record",
        "ALTER TABLE isthmus.record DISABLE TRIGGER record_kept",
        "ALTER TABLE isthmus.record ENABLE TRIGGER record_gapless",
        "CREATE OR REPLACE FUNCTION isthmus.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE OR REPLACE TRIGGER head_kept BEFORE DELETE ON isthmus.head FOR EACH STATEMENT WHEN (false)"
        " EXECUTE FUNCTION isthmus.refuse_change()",
        "CREATE TRIGGER more BEFORE INSERT ON isthmus.record FOR EACH ROW EXECUTE FUNCTION isthmus.refuse_gap()",
        "ALTER TABLE isthmus.record SET UNLOGGED",
        "ALTER TABLE isthmus.record ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE isthmus.record ADD COLUMN more text",
        "CREATE RULE quiet AS ON INSERT TO isthmus.record DO INSTEAD NOTHING",
    ],
)
def test_changed_tables_are_refused(desk: Desk, change: str) -> None:
    fill(desk, 2)
    desk.run(change)
    for read_only in (False, True):
        with pytest.raises(JournalError, match="the journal's tables were changed"):
            desk.open(read_only=read_only)


# -- the database ------------------------------------------------------------------------------------------------------


def test_a_newer_version_refuses_to_open(desk: Desk) -> None:
    fill(desk, 2)
    desk.run("UPDATE isthmus.version SET version = %s", SCHEMA_VERSION + 1)
    with pytest.raises(JournalError, match="start a newer isthmus"):
        desk.open()


def test_an_older_journal_is_read_as_it_is_and_raised_by_whoever_writes(desk: Desk) -> None:
    fill(desk, 3)
    desk.run("UPDATE isthmus.version SET version = 1")
    for read_only, after in ((True, 1), (False, SCHEMA_VERSION)):
        journal = desk.open(read_only=read_only)
        assert len(list(journal.read())) == 3
        journal.close()
        assert desk.run("SELECT version FROM isthmus.version") == [(after,)]


def test_a_reader_says_where_there_is_no_journal(desk: Desk) -> None:
    with pytest.raises(NoJournalError, match="start the agent once"):
        desk.open(read_only=True)
    fill(desk, 1)
    with pytest.raises(NoJournalError, match=r"of the desk other; .* correct journal\.desk"):
        desk.open(read_only=True, desk="other")


def test_two_agents_may_lay_out_a_new_database_at_once(desk: Desk) -> None:
    found: list[PostgresJournal | JournalError] = []

    def start() -> None:
        try:
            found.append(desk.open())
        except JournalError as error:
            found.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    opened = [one for one in found if isinstance(one, PostgresJournal)]
    assert len(opened) == 1
    assert len(found) == 4
    assert all("another agent holds the desk main" in str(one) for one in found if isinstance(one, JournalError))
    opened[0].close()


def test_a_journal_in_a_schema_that_an_administrator_made(server: Server) -> None:
    """The agent's user need not be allowed to make schemas."""
    desk = Desk(server, server.new_database("strict"))
    desk.run(f"ALTER DATABASE {desk.database} OWNER TO CURRENT_USER")
    with pytest.raises(JournalError, match="permission denied for database"):
        desk.open()
    desk.run(f"CREATE SCHEMA isthmus AUTHORIZATION {AGENT}")
    fill(desk, 1)


def test_what_cannot_be_opened_says_so_in_one_line_without_the_password(desk: Desk, cable: Cable) -> None:
    cable.close()
    errors = []
    for options in ({"password": lambda: WRONG_WORD}, {"through": cable, "password": lambda: WRONG_WORD}):
        with pytest.raises(JournalError, match=r"cannot be reached \(.*\); start it, or correct journal.url") as caught:
            desk.open(**options)  # type: ignore[arg-type]
        errors.append(caught.value)
    journal = desk.open()
    assert journal._lease is not None
    shown = [repr(journal), repr(journal._place), repr(journal._reading), str(vars(journal)), str(vars(journal._lease))]
    for error in errors:
        shown += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
        shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
        assert "\n" not in str(error)
    journal.close()
    assert not [text for text in shown if WRONG_WORD in text or desk.server.password in text]


def test_mode_power_refuses_a_server_that_forgets(desk: Desk) -> None:
    for value in ("off", "on"):
        desk.run(f"ALTER SYSTEM SET fsync = {value}")
        desk.run("SELECT pg_reload_conf()")
        while desk.run("SHOW fsync") != [(value,)]:
            pass
        if value == "off":
            with pytest.raises(JournalError, match="runs with fsync off"):
                desk.open(durability="power")
            desk.open(durability="process").close()
    desk.open(durability="power").close()


@pytest.mark.parametrize(("durability", "expected"), [("process", "local"), ("power", "on")])
def test_how_a_session_commits(server: Server, durability: Any, expected: str) -> None:
    """Whatever the database's own settings are."""
    desk = Desk(server, server.new_database(f"loose_{durability}"))
    desk.run(f"ALTER DATABASE {desk.database} SET synchronous_commit = off")
    desk.run(f"ALTER DATABASE {desk.database} SET default_transaction_isolation = 'serializable'")
    link = Link(Place(desk.server.url(desk.database), durability, desk.word), "a test")
    assert link.run("SHOW synchronous_commit").rows == [(expected,)]
    assert link.run("SHOW transaction_isolation").rows == [("read committed",)]
    link.close()


def test_a_full_disk_stops_the_journal_for_good(desk: Desk) -> None:
    """The server refuses a write: all of it, and everything after it, until the journal is opened anew."""
    journal = desk.open()
    write(journal, "fine")
    desk.run(
        "CREATE FUNCTION isthmus.full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
    )
    desk.run("CREATE TRIGGER full_disk BEFORE INSERT ON isthmus.record FOR EACH ROW EXECUTE FUNCTION isthmus.full_disk()")
    with pytest.raises(JournalError, match=r"takes no more records: .*No space left"):
        write(journal, "does not fit")
    desk.run("DROP TRIGGER full_disk ON isthmus.record")
    with pytest.raises(JournalError, match="takes no more records"):
        write(journal, "room again, and still nothing is taken")
    journal.close()
    assert texts(desk) == ["fine"]
    with contextlib.closing(desk.open()) as again:
        write(again, "after")
    assert texts(desk) == ["fine", "after"]


# -- one agent at a time -----------------------------------------------------------------------------------------------


def test_a_second_agent_is_told_who_holds_the_desk_and_until_when(desk: Desk) -> None:
    first = desk.open()
    with pytest.raises(
        JournalError, match=r"another agent holds the desk main \(.* pid \d+ run [0-9a-f]+, until \d\d:\d\d:\d\d UTC\); stop it"
    ):
        desk.open()
    assert first.epoch == 1
    first.close()
    second = desk.open()  # given back: nobody waits for its end
    assert second.epoch == 2
    second.close()


def test_a_standby_waits_and_takes_over(desk: Desk) -> None:
    first, found = desk.open(lease_s=LEASE_S), []
    write(first, "of the first")
    began = time.monotonic()
    with pytest.raises(JournalError, match="another agent holds the desk"):
        desk.open(wait_s=0.3)
    assert 0.3 <= time.monotonic() - began < LEASE_S + GRACE_S
    standby = threading.Thread(target=lambda: found.append(desk.open(wait_s=DEADLINE_S)))
    standby.start()
    write(first, "a standby changes nothing")
    first.close()
    standby.join(DEADLINE_S)
    (second,) = found
    assert second.epoch == 2
    write(second, "of the second")
    second.close()
    assert texts(desk) == ["of the first", "a standby changes nothing", "of the second"]


def test_a_lease_is_renewed_for_as_long_as_the_agent_lives(desk: Desk) -> None:
    with contextlib.closing(desk.open(lease_s=0.6)) as journal:
        with pytest.raises(JournalError, match="another agent holds the desk"):
            desk.open(wait_s=2.0)
        write(journal, "three leases later")


def test_an_overtaken_agent_stores_nothing_even_if_its_clock_stood_still(desk: Desk) -> None:
    """Its own clock says that the lease runs; the epoch in the transaction of the append says no."""
    first = desk.open(lease_s=60.0)
    write(first, "of the first")
    desk.expire()
    second = desk.open()
    assert second.epoch == 2
    first.append(1, note("never"))
    with pytest.raises(JournalError, match=r"another agent took over the desk main"):
        secured(first)
    for attempt in (lambda: first.append(2, note("never")), lambda: secured(first, 1)):
        with pytest.raises(JournalError, match="may not write any more: another agent took over the desk main"):
            attempt()
    write(second, "of the second")
    first.close()
    write(second, "its end takes nothing from the second")
    second.close()
    assert texts(desk) == ["of the first", "of the second", "its end takes nothing from the second"]


def test_an_expired_lease_takes_nothing_even_if_nobody_took_over(desk: Desk) -> None:
    first = desk.open(lease_s=60.0)
    desk.expire()
    with pytest.raises(JournalError, match="its lease on the desk main ran out"):
        write(first, "never")
    first.close()
    assert texts(desk) == []


def test_an_idle_agent_learns_that_it_was_overtaken(desk: Desk) -> None:
    first = desk.open(lease_s=LEASE_S)
    assert first._lease is not None
    desk.expire()
    second = desk.open(lease_s=60.0)
    assert first._lease._over.wait(LEASE_S + GRACE_S)
    with pytest.raises(JournalError, match="another agent took over the desk main"):
        first.append(1, note("never"))
    assert second.head[0] == 0


def test_the_clock_alone_stops_an_agent_that_was_frozen(desk: Desk) -> None:
    """Its first step after it woke up is an append or a send, before any thread of the lease has looked."""
    journal = desk.open(lease_s=60.0)
    write(journal, "before")
    assert journal._lease is not None
    journal._lease._until_s = 0.0
    for attempt in (lambda: secured(journal, 1), lambda: journal.append(1, note("never"))):
        with pytest.raises(JournalError, match="could not be renewed in time"):
            attempt()
    journal.close()
    assert texts(desk) == ["before"]


def test_a_record_that_arrived_is_no_leave_to_act_once_the_lease_is_lost(desk: Desk) -> None:
    """The commit was heard of, and the lease lost, before the loop came round to whoever waits."""
    journal = desk.open()
    assert journal._lease is not None

    async def wait() -> None:
        with desk.server.admin(desk.database) as session:
            session.execute("BEGIN")
            session.execute("SELECT seq FROM isthmus.head FOR UPDATE")  # holds the append up
            journal.append(1, note("stored"))
            waiting = asyncio.create_task(journal.secured(1))
            await asyncio.sleep(0)
            session.execute("COMMIT")
        assert len(list(journal.read())) == 1  # blocks this loop until it is stored
        journal._lease.lose("a test")  # type: ignore[union-attr]
        async with asyncio.timeout(DEADLINE_S):
            await waiting

    with pytest.raises(JournalError, match="may not write any more: a test"):
        asyncio.run(wait())
    journal.close()
    assert texts(desk) == ["stored"]


def test_a_head_that_moved_without_us_stops_us(desk: Desk) -> None:
    """As after a failover to a copy that had not received everything, or when somebody else writes."""
    journal = desk.open()
    first = write(journal, "kept", "lost by the failover")
    rows = desk.rows()
    desk.rewrite(rows[:1])
    desk.run("ALTER TABLE isthmus.head DISABLE TRIGGER USER")
    desk.run("UPDATE isthmus.head SET seq = 1, hash = %s", rows[0].hash)
    with pytest.raises(JournalError, match=rf"the database does not end at record {first.seq} any more: it lost records"):
        write(journal, "never")
    journal.close()
    assert desk.rows() == rows[:1]


def test_a_holder_frozen_inside_a_transaction_does_not_block_the_next(desk: Desk) -> None:
    """Its session still locks the head: whoever takes over ends it first."""
    first = desk.open(lease_s=LEASE_S)
    frozen = Link(Place(desk.server.url(desk.database), "power", desk.word), session_name("main", 1))
    frozen.run("BEGIN")
    frozen.run("SET LOCAL idle_in_transaction_session_timeout = 0")
    frozen.run("SELECT seq FROM isthmus.head FOR UPDATE")
    second = desk.open(wait_s=DEADLINE_S)
    assert second.epoch == 2
    with pytest.raises(JournalError, match="lost"):
        frozen.run("COMMIT")
    with pytest.raises(JournalError, match="may not write any more"):
        first.append(1, note("never"))
    write(second, "of the second")
    for journal in (first, second):
        journal.close()
    frozen.close()
    assert texts(desk) == ["of the second"]


WRITER = """
import asyncio, sys
from agent.domain.errors import JournalError
from agent.domain.events import EngineStopped
from agent.journal.postgres import PostgresJournal

async def main(url, lease_s):
    word = sys.stdin.readline().strip()
    journal = PostgresJournal(url, lease_s=float(lease_s), wait_s=30.0, password=lambda: word)
    print("open", journal.epoch, flush=True)
    while True:
        try:
            (record,) = journal.append(1, [EngineStopped(f"epoch {journal.epoch} " + "x" * 300)])
            await journal.secured(record.seq)
        except JournalError as error:
            print("stopped", error, flush=True)
            journal.close()
            return
        print(record.seq, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Writer:
    """An agent's journal in a process of its own, which appends as fast as it can and tells what is safe."""

    def __init__(self, desk: Desk) -> None:
        command = [sys.executable, "-c", WRITER, desk.server.url(desk.database), str(LEASE_S)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        print(desk.server.password, file=self.stdin, flush=True)

    def line(self) -> str:
        assert select.select([self.stdout], [], [], DEADLINE_S)[0]
        return self.stdout.readline()

    def rest(self) -> list[str]:
        """What it still said before it ended."""
        return self.stdout.read().splitlines()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


def test_a_frozen_agent_that_wakes_up_after_the_takeover_stores_nothing(desk: Desk) -> None:
    with contextlib.closing(Writer(desk)) as first:
        assert first.line() == "open 1\n"
        for _ in range(20):
            first.line()
        first.process.send_signal(signal.SIGSTOP)
        second = desk.open(wait_s=DEADLINE_S)
        assert second.epoch == 2
        head = second.head[0]
        write(second, "of the second")
        first.process.send_signal(signal.SIGCONT)
        *acknowledged, last = first.rest()
        assert first.process.wait(DEADLINE_S) == 0
    assert last.startswith("stopped ")
    assert max(map(int, acknowledged), default=0) <= head  # what it told after it woke up had been stored before it froze
    write(second, "nobody else writes")
    assert second.verify()[0] == head + 2
    second.close()
    written = texts(desk)
    assert written[head:] == ["of the second", "nobody else writes"]
    assert all(text.startswith("epoch 1") for text in written[:head])


def test_killed_agents_lose_nothing_that_they_acknowledged_and_hand_over(desk: Desk) -> None:
    """Each is killed while it writes; the next has been waiting, and begins within a lease."""
    acknowledged = 0
    waiting = Writer(desk)
    for epoch in range(1, 3):
        with contextlib.closing(waiting) as writer:
            assert writer.line() == f"open {epoch}\n"
            waiting = Writer(desk)
            for _ in range(30):
                acknowledged = int(writer.line())
            writer.process.kill()
            acknowledged = max([acknowledged, *map(int, (line for line in writer.rest() if line.isdigit()))])
        killed = time.monotonic()
        assert select.select([waiting.stdout], [], [], DEADLINE_S)[0]
        assert time.monotonic() - killed < LEASE_S + 2 * GRACE_S
        assert len(desk.rows()) >= acknowledged
    waiting.close()
    texts(desk)


# -- the network and the server ----------------------------------------------------------------------------------------


def test_sessions_that_are_ended_while_we_write_lose_and_repeat_nothing(desk: Desk) -> None:
    journal, said, ended = desk.open(lease_s=60.0), [], 0
    for round_ in range(6):
        said += [f"{round_}:{i}" for i in range(200)]
        for text in said[-200:]:
            journal.append(1, note(text))
        ended += desk.end_sessions()  # in the middle of what is under way
        secured(journal)
    assert ended >= 2
    assert list(journal.read())[-1].seq == len(said)
    journal.close()
    assert texts(desk) == said


@pytest.mark.parametrize("how", ["lose_request", "lose_reply"])
def test_a_commit_that_nobody_heard_of_is_asked_for_and_made_once(desk: Desk, cable: Cable, how: str) -> None:
    journal = desk.open(through=cable, lease_s=60.0)
    said = []
    for round_ in range(4):
        said += [f"marked {round_}", f"after {round_}"]
        getattr(cable, how)(f"marked {round_}".encode())
        write(journal, said[-2])
        write(journal, said[-1])
    journal.close()
    assert texts(desk) == said


def test_an_agent_without_a_network_stops_before_another_may_begin(desk: Desk, cable: Cable) -> None:
    first = desk.open(through=cable, lease_s=LEASE_S)
    write(first, "before")
    stopped: list[float] = []
    cable.freeze()
    began = time.monotonic()
    first.append(1, note("under way when the network went"))

    def wait() -> None:
        with pytest.raises(JournalError, match="could not be renewed in time"):
            secured(first)
        stopped.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    second = desk.open(wait_s=DEADLINE_S)
    with pytest.raises(JournalError, match="may not write any more"):
        first.append(2, note("never"))  # it knew before the other began, whatever its threads had time for
    waiting.join(DEADLINE_S)
    assert stopped[0] - began < LEASE_S + GRACE_S
    for attempt in (lambda: first.append(2, note("never")), lambda: secured(first, 1)):
        with pytest.raises(JournalError, match="may not write any more: its lease on the desk main could not be renewed"):
            attempt()
    write(second, "of the second")
    cable.thaw()  # what was held up reaches the server now
    first.close()
    write(second, "the end")
    second.close()
    assert texts(desk) == ["before", "of the second", "the end"]


def test_an_idle_agent_without_a_network_stops_too_and_closes_in_bounds(desk: Desk, cable: Cable) -> None:
    journal = desk.open(through=cable, lease_s=LEASE_S)
    cable.freeze()
    began = time.monotonic()
    assert journal._lease is not None
    assert journal._lease._over.wait(DEADLINE_S)
    assert LEASE_S * (1 - MARGIN) / 2 < time.monotonic() - began < LEASE_S + GRACE_S
    journal.close()
    assert time.monotonic() - began < LEASE_S + 2 * GRACE_S


def test_a_server_that_crashes_and_comes_back_is_waited_for(desk: Desk) -> None:
    journal, said = desk.open(lease_s=60.0), ["before"]
    write(journal, "before")
    for round_ in range(1):
        desk.server.crash()
        for i in range(50):
            said.append(f"while it was down {round_} {i}")
            journal.append(1, note(said[-1]))
        desk.server.start()
        secured(journal)
        said.append(f"after {round_}")
        write(journal, said[-1])
    journal.close()
    assert texts(desk) == said


def test_a_server_that_does_not_come_back_stops_the_agent_within_its_lease(desk: Desk) -> None:
    journal = desk.open(lease_s=LEASE_S)
    write(journal, "before")
    desk.server.crash()
    try:
        began = time.monotonic()
        journal.append(1, note("never"))
        with pytest.raises(JournalError, match="could not be renewed in time"):
            secured(journal)
        assert time.monotonic() - began < LEASE_S + GRACE_S
        journal.close()
    finally:
        desk.server.start()
    assert texts(desk) == ["before"]


def test_a_copy_of_the_server_decides_nothing_until_it_is_promoted(desk: Desk) -> None:
    journal = desk.open(lease_s=60.0)
    write(journal, "before")
    desk.server.demote()
    for options in ({}, {"read_only": True}):
        with pytest.raises(JournalError, match="is a copy of another server"):
            desk.open(desk="another", **options)
    journal.append(1, note("waited for the promotion"))
    desk.server.promote()
    secured(journal)
    journal.close()
    assert texts(desk) == ["before", "waited for the promotion"]


def test_a_standby_waits_through_a_restart_of_the_server(desk: Desk) -> None:
    first, found = desk.open(lease_s=60.0), []
    standby = threading.Thread(target=lambda: found.append(desk.open(wait_s=DEADLINE_S)))
    standby.start()
    while not desk.run("SELECT 1 FROM pg_stat_activity WHERE application_name = 'isthmus main waiting'"):
        pass
    desk.server.stop()
    desk.server.start()
    write(first, "the first goes on")
    first.close()
    standby.join(DEADLINE_S)
    assert found[0].epoch == 2
    found[0].close()


def test_a_unix_socket_serves_as_well(desk: Desk) -> None:
    """And is cut as well: the server's process is frozen, so that nothing else ends the wait."""
    url = f"postgresql://{AGENT}@/{desk.database}?host={desk.server.folder}&port={desk.server.port}"
    journal = PostgresJournal(url, password=desk.word, lease_s=LEASE_S)
    write(journal, "through the socket")
    (pid,) = desk.run(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY backend_start", session_name("main", 1)
    )[-1]
    os.kill(pid, signal.SIGSTOP)
    try:
        desk.run("SELECT 1")
        began = time.monotonic()
        journal.append(1, note("held up"))
        assert journal._lease is not None
        journal._lease.lose("a test")
        with pytest.raises(JournalError, match="may not write any more: a test"):
            secured(journal)
        journal.close()
        assert time.monotonic() - began < LEASE_S + GRACE_S
    finally:
        os.kill(pid, signal.SIGCONT)


# -- the settings ------------------------------------------------------------------------------------------------------


def test_the_settings_lead_there_for_the_agent_and_for_those_who_only_look(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "isthmus.toml"
    path.write_text(
        f'account = "fund"\ndurability = "power"\n[journal]\nurl = "{desk.server.url(desk.database)}"\n'
        'password = "env:JOURNAL_PASSWORD"\nwait_s = 0\n'
    )
    monkeypatch.setenv("JOURNAL_PASSWORD", desk.server.password)
    loaded = load(path)
    assert open_reader(loaded) is None
    assert replay(loaded).seq == 0
    with contextlib.closing(open_journal(loaded)) as journal:
        assert isinstance(journal, PostgresJournal)
        assert journal.desk == "fund"
        journal.append(1, [Halted("binance", "a test")])
        secured(journal)
        assert replay(loaded).halted == {"binance": "a test"}
        with pytest.raises(JournalError, match="another agent holds the desk fund"):
            open_journal(loaded)
    done = isthmus("order", "list", "--json", at=tmp_path, JOURNAL_PASSWORD=desk.server.password)
    assert done.code == 0, done
    done = isthmus("order", "list", at=tmp_path, JOURNAL_PASSWORD=WRONG_WORD)
    assert done.code == 1
    assert "cannot be reached" in done.err
    assert WRONG_WORD not in done.out + done.err


# -- two engines, one database -----------------------------------------------------------------------------------------


class OwnTime(asyncio.SelectorEventLoop):
    """Real seconds that begin with the loop, as those of the scripted market do."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        super().__init__()

    def time(self) -> float:
        return super().time() - self._began


async def two_engines(desk: Desk, cable: Cable) -> tuple[ScriptedBook, int, int]:
    """One trades and loses its network, the other has been waiting. How many orders had left when the first ended, and when the
    second began.
    """
    book = ScriptedBook(WarpClock(), 5, Habits(delay_s=0.02))
    venues = venues_of(book)
    first = Run(venues, journal=await asyncio.to_thread(desk.open, through=cable, lease_s=LEASE_S))
    waiting = asyncio.create_task(asyncio.to_thread(desk.open, wait_s=DEADLINE_S))
    await first.engine.ready()
    await first.engine.priced("ETH/USDT")
    assert await first.engine.submit(sale("p1", "6", slices=6, interval_ns=300_000_000)) == ()
    await first.until(lambda: len(book.arrivals) >= 2, DEADLINE_S)
    assert not waiting.done()
    cable.freeze()
    with pytest.raises(JournalError, match="may not write any more"):
        async with asyncio.timeout(LEASE_S + GRACE_S):
            await first.task
    at_end = len(book.arrivals)
    second = Run(venues, journal=await waiting)
    at_takeover = len(book.arrivals)
    cable.thaw()
    await second.engine.ready()
    async with asyncio.timeout(DEADLINE_S):
        assert await second.engine.finished("p1") == "FILLED"
    await second.engine.stop("the test is over")
    await second.task
    await book.close()
    return book, at_end, at_takeover


def test_of_two_engines_one_sends_and_the_other_goes_on_where_it_stopped(desk: Desk, cable: Cable) -> None:
    with asyncio.Runner(loop_factory=OwnTime) as runner:
        book, at_end, at_takeover = runner.run(two_engines(desk, cable))
    assert 2 <= at_end == at_takeover < len(book.arrivals)
    assert len(book.arrivals) == len(set(book.arrivals)), "an order was sent twice"
    state = replayed(desk.rows())
    assert set(book.arrivals) <= set(state.orders)
    fills = booked(state, "cex")
    told = {fact.fill.trade_id for truth in book.truth.values() for fact in truth.facts if isinstance(fact, OrderFilled)}
    assert set(fills) == told
    assert state.parents["p1"].filled == sale("p1", "6").quantity


async def idle_engine(desk: Desk, cable: Cable) -> None:
    """It has nothing to write, and still it stops within the lease."""
    run = Run(venues_of(ScriptedBook(WarpClock(), 5)), journal=await asyncio.to_thread(desk.open, through=cable, lease_s=LEASE_S))
    await run.engine.ready()
    cable.freeze()
    with pytest.raises(JournalError, match="may not write any more"):
        async with asyncio.timeout(LEASE_S + GRACE_S):
            await run.task
    cable.thaw()


def test_an_idle_agent_that_lost_the_desk_stops_within_the_lease(desk: Desk, cable: Cable) -> None:
    with asyncio.Runner(loop_factory=OwnTime) as runner:
        runner.run(idle_engine(desk, cable))
