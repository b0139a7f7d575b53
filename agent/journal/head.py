"""The kept head: a small file beside the journal that says up to which record everything was once safe on the disk.

A chain shows every edit but one: records that are missing at its end read like records that were never written. A disk that did not
keep its promise, an older copy put back, a log that was removed: all of them look like that, and an agent that went on would send
orders again that it no longer knows. So the last head that was safe is kept apart, and a journal that ends before it is refused.

The file is text for people too: `seq hash checksum` in two places that are written in turn, so that one of them is always whole.
It is not forced to the disk each time: after a power loss it may be older than the journal, and then claims less, never too much.
"""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from agent.domain.errors import JournalError
from agent.journal.codec import ChainError, check_anchor, is_hash

SLOT = 512  # bytes: each claim in a sector of its own
_TEXT = 127  # of them used


class Head(NamedTuple):
    seq: int
    hash: str


class HeadFile:
    """Owns the file that the one writer keeps its head in. Raises OSError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._turn = 0

    def keep(self, seq: int, hash_: str) -> None:
        """From now on a journal that ends before `seq` is refused. A write into what is laid out already: a few microseconds."""
        self._turn ^= SLOT
        os.pwrite(self._fd, _slot(seq, hash_), self._turn)

    def start(self, seq: int, hash_: str) -> None:
        """The same in both places, and on the disk: what was claimed before is forgotten."""
        os.pwrite(self._fd, _slot(seq, hash_).ljust(SLOT, b"\n") + _slot(seq, hash_), 0)
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def head_path(journal: Path) -> Path:
    return journal.with_name(journal.name + ".head")


def kept_head(journal: Path) -> Head | None:
    """What was kept beside this journal; None where nothing was.

    Raises JournalError for a file that says something which nobody can read: a torn write spoils one place, never both.
    """
    try:
        data = head_path(journal).read_bytes()[: 2 * SLOT]
    except FileNotFoundError:
        return None
    except OSError as e:
        raise JournalError(f"{head_path(journal)} cannot be read ({e.strerror}); check its permissions") from e
    found = max(filter(None, (_parse(data[:SLOT]), _parse(data[SLOT:]))), default=None)
    if found is None and data.strip(b"\0"):
        raise JournalError(
            f"{head_path(journal)} is damaged, so nobody knows whether records are missing at the journal's end; remove it, and"
            " hold the journal against a head kept elsewhere: `isthmus audit verify --anchor SEQ:HASH`"
        )
    return found


def check_kept(seq: int, found: str | None, kept: Head) -> None:
    """Holds the kept head against the hash `found` at its place (None if the journal ends before it, at `seq`)."""
    if found is None:
        raise ChainError(
            seq + 1,
            f"the journal ends at record {seq}, but record {kept.seq} was safe on the disk: {kept.seq - seq} records are missing;"
            " restore the journal from a copy, or go on without them: `isthmus audit accept-loss REASON`",
        )
    check_anchor(seq, found, kept)


def _slot(seq: int, hash_: str) -> bytes:
    text = b"%d %s" % (seq, hash_.encode())
    return (b"%s %08x" % (text, zlib.crc32(text))).ljust(_TEXT) + b"\n"


def _parse(slot: bytes) -> Head | None:
    text, _, checksum = slot[:_TEXT].rstrip(b" ").rpartition(b" ")
    seq, _, hash_ = text.partition(b" ")
    found = hash_.decode("ascii", "replace")
    if not seq.isdigit() or not is_hash(found) or checksum != b"%08x" % zlib.crc32(text):
        return None
    return Head(int(seq), found)
