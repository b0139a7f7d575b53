"""The journal's twin without a disk, for tests and simulation: the same bytes, the same hashes, the same refusals.

`rows` plays the disk: a second journal over the same list is what a restart finds.
"""

from collections.abc import Iterator, Sequence

from agent.domain.errors import JournalError
from agent.domain.events import Event, Record
from agent.journal.codec import GENESIS, Row, check_anchor, decode, rows_of, walk


class MemoryJournal:
    """Satisfies `ports.Journal`. Opening verifies what is in `rows` and raises JournalError as the journal on disk does."""

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows = [] if rows is None else rows
        self._is_closed = False
        self.verify()

    @property
    def head(self) -> tuple[int, str]:
        return (self.rows[-1].seq, self.rows[-1].hash) if self.rows else (0, GENESIS)

    @property
    def warning(self) -> str:
        """Why nothing new should be begun; here nothing ever fills up."""
        return ""

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        if self._is_closed:
            raise JournalError("the journal is closed; open it again")
        rows = rows_of(self.head, at_ns, events)
        for row in rows:
            decode(row)  # what could not be read back shows at once here, and not at the next start
        self.rows.extend(rows)
        return [Record(row.seq, at_ns, event, row.hash) for row, event in zip(rows, events, strict=True)]

    async def secured(self, seq: int) -> None:
        """At once: a list has no disk to wait for. Raises JournalError for a record that was never appended."""
        if seq > self.head[0]:
            raise JournalError(f"record {seq} was never appended, the last one is {self.head[0]}")

    def read(self, after_seq: int = 0) -> Iterator[Record]:
        for row in walk(tuple(self.rows)):
            if row.seq > after_seq:
                yield decode(row)

    def verify(self, anchor: tuple[int, str] | None = None) -> tuple[int, str]:
        """The head, after every record was held against the chain, and the chain against `anchor` (a head kept elsewhere)."""
        hashes = [GENESIS, *(row.hash for row in walk(tuple(self.rows)))]
        if anchor is not None:
            check_anchor(len(hashes) - 1, hashes[anchor[0]] if anchor[0] < len(hashes) else None, anchor)
        return self.head

    def close(self) -> None:
        self._is_closed = True
