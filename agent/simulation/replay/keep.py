"""The journal of a replay on disk, so that whatever reads journals reads it: `order show`, `audit`, and the analysis of costs."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from agent.domain.errors import UsageError
from agent.journal.codec import Row, decode
from agent.journal.sqlite import SqliteJournal

SETTINGS = "isthmus.toml"
JOURNAL = "journal.sqlite"
_TEXT = '# the journal of a replay; nothing trades with these settings\nhome = "."\n'


def prepare(folder: Path) -> None:
    """Make the folder. Raises UsageError if it holds a journal already, OSError where it cannot be made."""
    if (folder / JOURNAL).exists():
        raise UsageError(f"{folder} holds a journal already; name another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def keep(rows: Sequence[Row], folder: Path) -> None:
    """Into a folder that holds no journal yet, with settings that point at it. Raises UsageError, OSError or JournalError."""
    prepare(folder)
    journal = SqliteJournal(folder / JOURNAL)
    try:
        for at_ns, batch in groupby(rows, key=lambda row: row.at_ns):
            journal.append(at_ns, [decode(row).event for row in batch])
        assert journal.head == (rows[-1].seq, rows[-1].hash), "the same records give the same chain"
    finally:
        journal.close()
    (folder / SETTINGS).write_text(_TEXT, encoding="utf-8")
