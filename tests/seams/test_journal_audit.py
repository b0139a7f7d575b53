"""Ten thousand random edits of a journal's files, by somebody who can write them all but an auditor's note: all found.

Rows are changed, moved, dropped, inserted and rewritten through SQL, triggers and all; bytes of records are flipped in the file;
the file and the journal's end are cut; the kept head is forged or spoiled. An edit is found when the journal does not open for
reading, which verifies all of it. `tests/seams/test_journals.py` flips bytes that may belong to nothing.
"""

import os
import random
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journal_kit import EDITS, REWRITES, fill, flipped, rewrite, rows_on_disk

from agent.domain.errors import JournalError
from agent.journal.codec import Row
from agent.journal.head import SLOT, head_path
from agent.journal.sqlite import SqliteJournal

LENGTH = 40


class Original:
    """A journal as it was written, and a copy for every edit."""

    def __init__(self, folder: Path) -> None:
        self.path, self.copy = folder / "j.sqlite", folder / "copy.sqlite"
        fill(self.path, LENGTH)
        self.rows = rows_on_disk(self.path)
        self.data, self.head = self.path.read_bytes(), head_path(self.path).read_bytes()

    def restore(self) -> Path:
        for suffix in ("-wal", "-shm"):
            self.copy.with_name(self.copy.name + suffix).unlink(missing_ok=True)
        self.copy.write_bytes(self.data)
        head_path(self.copy).write_bytes(self.head)
        return self.copy


Edit = Callable[[Original, Path, random.Random], bool]


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Original]:
    """In memory where there is a file system for that: nothing here depends on the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield Original(tmp_path)
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Original(Path(name))


def edit_of(change: Callable[[list[Row], random.Random], int]) -> Edit:
    def edit(original: Original, path: Path, dice: random.Random) -> bool:
        rows = list(original.rows)
        change(rows, dice)
        if rows == original.rows:
            return False  # two like records changed places
        rewrite(path, rows)
        return True

    edit.__name__ = change.__name__
    return edit


def flip_in_a_body(original: Original, path: Path, dice: random.Random) -> bool:
    return flip(original, path, dice, dice.choice(original.rows).body)


def flip_in_a_hash(original: Original, path: Path, dice: random.Random) -> bool:
    return flip(original, path, dice, dice.choice(original.rows).hash.encode())


def flip(original: Original, path: Path, dice: random.Random, what: bytes) -> bool:
    """A bit of a record where it lies in the file."""
    at = original.data.index(what)
    path.write_bytes(original.data[:at] + flipped(what, dice) + original.data[at + len(what) :])
    return True


def overwrite_a_page(original: Original, path: Path, dice: random.Random) -> bool:
    """A page that holds records, with another page of the same file."""
    pages = [original.data[at : at + 4_096] for at in range(0, len(original.data), 4_096)]
    full = [i for i, page in enumerate(pages) if i and b'"type":"' in page and b"CREATE" not in page]
    at, other = dice.choice(full), dice.randrange(len(pages))
    if pages[other] == pages[at]:
        return False
    pages[at] = pages[other]
    path.write_bytes(b"".join(pages))
    return True


def cut_the_file(original: Original, path: Path, dice: random.Random) -> bool:
    os.truncate(path, dice.randrange(len(original.data)))
    return True


def forge_the_head(original: Original, path: Path, dice: random.Random) -> bool:
    """It claims another record, with a checksum that is right."""
    seq = dice.choice((LENGTH, LENGTH + dice.randrange(1, 1_000), dice.randrange(1, LENGTH)))
    text = b"%d %s" % (seq, dice.randbytes(32).hex().encode())
    slot = (b"%s %08x" % (text, zlib.crc32(text))).ljust(127) + b"\n"
    head_path(path).write_bytes(slot.ljust(SLOT, b"\n") + slot)
    return True


def spoil_the_head(original: Original, path: Path, dice: random.Random) -> bool:
    """Nobody can read any more what it claimed; and as if to use that, the journal's end is cut."""
    rows = original.rows[: dice.randrange(1, LENGTH)]
    rewrite(path, rows)
    head_path(path).write_bytes(dice.choice((dice.randbytes(1_024), original.head[: dice.randrange(1, 60)], b"nothing was kept")))
    return True


KINDS: tuple[Edit, ...] = (
    *(edit_of(change) for change in (*EDITS, *REWRITES)),
    flip_in_a_body,
    flip_in_a_hash,
    overwrite_a_page,
    cut_the_file,
    forge_the_head,
    spoil_the_head,
)


def sweep(original: Original, count: int, seed: int) -> Counter[str]:
    """How many edits of each kind were made. Every one must be found."""
    dice, made = random.Random(seed), Counter[str]()
    assert is_whole(original.restore()), "without an edit there is nothing to find"
    for turn in range(count):
        edit, path = KINDS[turn % len(KINDS)], original.restore()
        if edit(original, path, dice):
            assert not is_whole(path), f"edit {turn} ({edit.__name__}, seed {seed}) was not found"
            made[edit.__name__] += 1
    return made


def is_whole(path: Path) -> bool:
    try:
        journal = SqliteJournal(path, read_only=True)
    except JournalError:
        return False
    journal.close()
    return True


def test_ten_thousand_random_edits_of_the_files_are_all_found(original: Original) -> None:
    made = sweep(original, 10_500, seed=1)
    assert sum(made.values()) >= 10_000
    assert min(made.values()) > 400
    assert len(made) == len(KINDS)


def test_a_journal_without_its_kept_head_needs_a_note_from_elsewhere(original: Original) -> None:
    """What no file beside the journal can show: its end was cut and the head is gone as well. An anchor shows it."""
    path, last = original.restore(), original.rows[-1]
    rewrite(path, original.rows[:-3])
    head_path(path).unlink()
    shutil.copy(path, path.with_name("alone.sqlite"))
    journal = SqliteJournal(path, read_only=True)
    with pytest.raises(JournalError, match=f"ends at record {LENGTH - 3}, but record {LENGTH} was seen before"):
        journal.verify((last.seq, last.hash))
    journal.close()
