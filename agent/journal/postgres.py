"""The journal in a desk's PostgreSQL: the same records, chain and refusals as the file, and a lease that lets one agent write.

What is promised when `secured` returns, in mode `power`: the records are on the server's disk, and on that of its synchronous
standby if it has one. In mode `process`: on the server's own disk; a standby is not waited for. `append` itself waits for nothing.

What piled up is stored by one statement. It moves the desk's head from the record before to its own last one, if the epoch is still
ours and the lease still runs, and stores its records only then. A frozen agent that wakes up after a takeover stores nothing.
When a connection dies under a commit, the same statement is sent again over a new one: it finds the head where it was and is
carried out, or finds that the head is our own last record already, or the agent stops. No commit is guessed at or made twice.

Reach the server directly: a pooler that shares sessions between transactions would lose the session's rules.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import LiteralString, NoReturn

from agent.domain.errors import JournalError
from agent.domain.events import Event, Record
from agent.journal.codec import GENESIS, Row, check_anchor, decode, rows_of, walk
from agent.journal.database import Link, LinkLostError, Place
from agent.journal.group import GroupCommit
from agent.journal.layout import check_layout, is_laid_out, lay_out, raise_version
from agent.journal.lease import RENEWALS, Lease, session_name, take, why_refused
from agent.journal.sqlite import Durability

PAGE_ROWS = 1_000
LEASE_S = 10.0
DESK = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class NoJournalError(JournalError):
    """The database holds no journal of this desk, which is no fault where nobody has written yet."""


class PostgresJournal:
    """Satisfies `ports.Journal`. Owns the desk's lease, its sessions and the head of the chain.

    Opening makes the tables if they are absent, waits at most `wait_s` for the lease, and verifies the whole chain up to the head
    that the server kept. `read_only` takes no lease and follows a writer that runs. Every failure is a JournalError of one line.
    """

    def __init__(
        self,
        url: str,
        durability: Durability = "power",
        *,
        desk: str = "main",
        password: Callable[[], str] | None = None,
        lease_s: float = LEASE_S,
        wait_s: float = 0.0,
        read_only: bool = False,
    ) -> None:
        if not DESK.fullmatch(desk):
            raise JournalError("a desk's name is 1 to 32 letters, digits, - or _; choose another journal.desk")
        self.desk = desk
        self._place = Place(url, durability, password, lease_s / RENEWALS)
        self._is_closed = False
        self._head = self._stored = (0, GENESIS)  # as appended, and as known to be on the server
        self._reading = Link(self._place, f"isthmus {desk} reading")
        self._writing: Link | None = None
        self._lease: Lease | None = None
        self._group: GroupCommit | None = None
        try:
            if read_only:
                self._look()
            else:
                self._take(lease_s, wait_s)
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest record. Of a reader: as the writer left it at this moment."""
        return self._head if self._writing is not None else self._kept_head()

    @property
    def warning(self) -> str:
        """Why nothing new should be begun. The server's disk is not seen from here: what it refuses, `append` says."""
        return ""

    @property
    def epoch(self) -> int:
        """How many times the desk's journal was taken over up to now; 0 for a reader."""
        return self._lease.fence.epoch if self._lease is not None else 0

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        """Hands all events over to be recorded, or none; `secured` says when they are. Raises JournalError; after a failed write,
        and once the lease is lost, every further append does.
        """
        self._refuse_stopped()
        assert self._group is not None
        rows = rows_of(self._head, at_ns, events)
        if rows:
            self._group.push(rows)
            self._head = (rows[-1].seq, rows[-1].hash)
        return [Record(row.seq, at_ns, event, row.hash) for row, event in zip(rows, events, strict=True)]

    async def secured(self, seq: int) -> None:
        """Returns when the record `seq` and all before it are safe on the server, and this agent is still the one that may act.

        Raises JournalError if either will never be, at the latest when the lease ends.
        """
        self._refuse_stopped()
        assert self._group is not None
        if seq > self._head[0]:
            raise JournalError(f"record {seq} was never appended, the last one is {self._head[0]}")
        try:
            await self._group.secured(seq)
        except JournalError:
            self._refuse_stopped()
            raise
        self._refuse_stopped()

    def read(self, after_seq: int = 0) -> Iterator[Record]:
        """Records in order, each verified against the one before. Raises JournalError at the first that does not fit."""
        self._drain()
        before = GENESIS
        if after_seq > 0:
            found = self._select(_HASH_OF, (self.desk, after_seq))
            if not found:
                return
            before = str(found[0][0])
        yield from map(decode, walk(self._rows(after_seq), (max(after_seq, 0), before)))

    def verify(self, anchor: tuple[int, str] | None = None) -> tuple[int, str]:
        """The head, after every record was held against the chain, and the chain against the head that the server keeps beside it,
        and against `anchor` (a head kept elsewhere).
        """
        self._drain()
        anchors = [self._kept_head(), *([anchor] if anchor else [])]
        seq, found = 0, GENESIS
        at = {0: GENESIS}
        for row in walk(self._rows(0)):
            seq, found = row.seq, row.hash
            if any(seq == one[0] for one in anchors):
                at[seq] = found
        for one in anchors:
            check_anchor(seq, at.get(one[0]), one)
        return seq, found

    def close(self) -> None:
        """Writes everything down, for as long as the lease allows, and gives the lease back. Closing twice is allowed."""
        self._is_closed = True
        if self._group is not None:
            self._group.close()
        if self._lease is not None:
            self._lease.release()
        if self._writing is not None:
            self._writing.close()
        self._reading.close()

    # -- opening -----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not is_laid_out(self._reading):
            raise NoJournalError("the database holds no journal; start the agent once, or correct journal.url")
        check_layout(self._reading)
        self.verify()

    def _take(self, lease_s: float, wait_s: float) -> None:
        lay_out(self._reading)
        check_layout(self._reading)
        raise_version(self._reading)
        keeping = Link(self._place, f"isthmus {self.desk} waiting")
        try:
            taken = take(keeping, self.desk, lease_s, wait_s)
            name = session_name(self.desk, taken.fence.epoch)
            keeping.rename(name)
        except BaseException:
            keeping.close()
            raise
        writing = Link(self._place, name)
        self._lease = Lease(keeping, taken, lease_s, writing.cut)
        self._head = self._stored = self.verify()
        if self._head != taken.head:
            raise JournalError(
                f"record {taken.head[0] + 1} was written by no agent; see who writes to the database, and restore it from a copy"
            )
        self._writing = writing
        self._group = GroupCommit(self._write, "journal-postgres")

    # -- writing, in the thread of the group -------------------------------------------------------------------------------

    def _write(self, rows: Sequence[Row]) -> None:
        assert self._lease is not None
        while True:
            try:
                self._store(rows)
                break
            except LinkLostError:  # before, during or after the commit: ask the server
                self._lease.rest()
        self._stored = (rows[-1].seq, rows[-1].hash)

    def _store(self, rows: Sequence[Row]) -> None:
        assert self._writing is not None
        assert self._lease is not None
        seq, found = self._stored
        last = rows[-1]
        fence = self._lease.fence
        columns = list(zip(*rows, strict=True))
        touched = self._writing.run(_APPEND, (last.seq, last.hash, *fence, seq, found, *map(list, columns))).touched
        if touched == len(rows):
            return
        # Refused. If the head is our own last record, the statement before this one had been carried out after all; to say so takes
        # a commit of its own, which is as safe as the one that we missed.
        if not self._writing.run(_CONFIRM, (*fence, last.seq, last.hash)).touched:
            self._give_up(why_refused(self._writing, fence, seq))

    def _give_up(self, why: str) -> NoReturn:
        assert self._lease is not None
        self._lease.lose(why)
        raise JournalError(why)

    # -- the rest ----------------------------------------------------------------------------------------------------------

    def _refuse_stopped(self) -> None:
        if self._is_closed:
            raise JournalError("the journal is closed; open it again")
        if self._lease is None or self._group is None:
            raise JournalError("this journal was opened for reading; only the agent that owns it writes")
        self._lease.refuse_lost()
        if self._group.failure:
            raise JournalError(f"the journal takes no more records: {self._group.failure}")

    def _drain(self) -> None:
        """What was appended is read, too."""
        if self._group is not None and not self._is_closed:
            self._group.drain()

    def _kept_head(self) -> tuple[int, str]:
        rows = self._select(_HEAD, (self.desk,))
        if not rows:
            raise NoJournalError(
                f"the database holds no journal of the desk {self.desk}; start the agent once, or correct journal.desk"
            )
        return int(rows[0][0]), str(rows[0][1])

    def _rows(self, after_seq: int) -> Iterator[Row]:
        """Page by page: a slow reader holds nothing open at the server."""
        while True:
            page = self._select(_PAGE, (self.desk, after_seq, PAGE_ROWS))
            for row in page:
                after_seq = row[0]
                yield Row(*row)
            if len(page) < PAGE_ROWS:
                return

    def _select(self, query: LiteralString, arguments: tuple[object, ...]) -> list[tuple[int, int, bytes, str]]:
        if self._is_closed:
            raise JournalError("the journal is closed; open it again")
        return self._reading.ask(query, arguments).rows


_HEAD: LiteralString = "SELECT seq, hash FROM isthmus.head WHERE desk = %s"
_HASH_OF: LiteralString = "SELECT hash FROM isthmus.record WHERE desk = %s AND seq = %s"
_PAGE: LiteralString = "SELECT seq, at_ns, body, hash FROM isthmus.record WHERE desk = %s AND seq > %s ORDER BY seq LIMIT %s"
_APPEND: LiteralString = """
WITH held AS (
  UPDATE isthmus.head SET seq = %s, hash = %s
  WHERE desk = %s AND epoch = %s AND holder = %s AND seq = %s AND hash = %s AND expires_at > clock_timestamp()
  RETURNING desk
)
INSERT INTO isthmus.record (desk, seq, at_ns, body, hash)
SELECT held.desk, added.*
FROM held, unnest(%b::bigint[], %b::bigint[], %b::bytea[], %b::text[]) AS added(seq, at_ns, body, hash)
ORDER BY added.seq
"""
_CONFIRM: LiteralString = """
UPDATE isthmus.head SET seq = seq
WHERE desk = %s AND epoch = %s AND holder = %s AND seq = %s AND hash = %s AND expires_at > clock_timestamp()
"""
