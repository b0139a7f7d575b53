"""What a cosigner was asked and what it answered, in a file that grows: each line seals the one before.

A line is `{"seq", "at_ns", "hash", "event"}`; its hash is sha256 over the hash before and the exact text of the rest, as in the
journal. It shows any line that was changed, dropped or put in. It cannot show that its end was cut off, or that all of it was
written anew: keep its head elsewhere. It holds no secret: the share of a signature is of no use without the other party's.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from agent.domain.errors import SecretError, SignerError

GENESIS = sha256(b"isthmus cosigner audit").hexdigest()
LINE_BYTES_MAX = 8_192
REASON_MAX = 400


class Taken(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Written before anything is signed: from here on neither the request's id nor its presignature is taken for another."""

    peer: str
    request: str
    pid: str
    payload: str  # sha256 of all that was asked
    digest: str  # what is signed


class Gave(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    peer: str
    request: str
    partial: bytes


class Refused(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """`request` empty: it was no request to sign."""

    peer: str
    request: str
    reason: str


class KeyMade(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    address: str
    fingerprint: str


class Broken(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A ceremony that ended without a result, and who is to blame where that is known."""

    phase: str
    reason: str
    guilty: tuple[str, ...]


Entry = Taken | Gave | Refused | KeyMade | Broken


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: int
    at_ns: int
    hash: str
    event: msgspec.Raw


class AuditLog:
    """Owns the file while it is open: a second process of the same party is refused."""

    __slots__ = ("_fd", "_now_ns", "_path", "found", "head")

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        """Reads and checks what is there: `found`. Raises SignerError when it was changed, SecretError when it cannot be had."""
        self._path, self._now_ns = path, now_ns
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                whole, _, torn = path.read_bytes().rpartition(b"\n")
                if torn:  # power was lost in the middle of a line, before anything followed from it
                    os.ftruncate(self._fd, len(whole) + 1 if whole else 0)
            except BaseException:
                os.close(self._fd)
                raise
        except BlockingIOError:
            raise SecretError(f"another process is this party already ({path} is locked); stop it") from None
        except OSError as error:
            raise SecretError(f"cannot use {path}: {error.strerror}; name another home") from None
        self.head = 0, GENESIS
        try:
            entries = []
            for _, entry, head in walk(whole, path):
                entries.append(entry)
                self.head = head
        except SignerError:
            self.close()
            raise
        self.found = tuple(entries)

    def append(self, event: Entry, *, is_durable: bool = True) -> None:
        """On the disk on return, or with the operating system if not `is_durable`. Raises SignerError: then nothing may follow."""
        seq, at_ns, body = self.head[0] + 1, self._now_ns(), msgspec.json.encode(event)
        line = _Line(seq, at_ns, _seal(self.head[1], seq, at_ns, body), msgspec.Raw(body))
        text = msgspec.json.encode(line) + b"\n"
        try:
            if len(text) > LINE_BYTES_MAX or os.write(self._fd, text) != len(text):
                raise OSError(0, "it took only a part")
            if is_durable:
                os.fsync(self._fd)
        except OSError as error:
            raise SignerError(f"{self._path} cannot be written ({error.strerror}); nothing is signed without it") from None
        self.head = seq, line.hash

    def close(self) -> None:
        os.close(self._fd)


def read_audit(path: Path) -> list[tuple[int, int, Entry]]:
    """(seq, at_ns, entry) of every whole line, beside the process that writes it. Raises SecretError or SignerError."""
    try:
        whole, _, _torn = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from None
    return [(head[0], at_ns, entry) for at_ns, entry, head in walk(whole, path)]


def walk(whole: bytes, path: Path) -> Iterator[tuple[int, Entry, tuple[int, str]]]:
    """Each entry with its time (ns) and the head after it. Raises SignerError at the first that does not continue the chain."""
    head = 0, GENESIS
    for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
        try:
            line = msgspec.json.decode(text, type=_Line)
            entry = msgspec.json.decode(line.event, type=Entry)
            is_next = line.seq == number and line.hash == _seal(head[1], line.seq, line.at_ns, bytes(line.event))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            is_next = False
        if not is_next:
            raise SignerError(f"line {number} of {path} was changed after it was written; find out by whom, and restore it")
        head = line.seq, line.hash
        yield line.at_ns, entry, head


def shortened(reason: str) -> str:
    """One line that fits into the file, whatever it was made of."""
    return " ".join(reason.split())[:REASON_MAX]


def _seal(before: str, seq: int, at_ns: int, body: bytes) -> str:
    return sha256(b"\x01%b[%d,%d,%b]" % (bytes.fromhex(before), seq, at_ns, body)).hexdigest()
