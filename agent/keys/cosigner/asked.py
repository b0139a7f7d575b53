"""What was signed before, from the audit log: the same request gets the same answer, and no presignature is used again."""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256

import msgspec

from agent.domain.errors import SignerError
from agent.keys.cosigner.audit import AuditLog, Entry, Gave, Taken
from agent.keys.cosigner.link import PeerRefusedError
from agent.keys.cosigner.wire import Sign

KEPT_MAX = 10_000  # requests that can still be asked for; the presignatures of older ones are gone from every memory


class _Known(msgspec.Struct):
    payload: str
    partial: bytes


class Requests:
    """Requests by who asked and under which id, and the presignatures that they took."""

    __slots__ = ("_known", "_log", "_pids")

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._pids: OrderedDict[str, None] = OrderedDict()
        self._read(log.found)

    def answered(self, peer: str, asked: Sign) -> bytes | None:
        """What this very request was answered before; None if it is new.

        Raises SignerError when its id was used for something else, or its presignature by another request, and PeerRefusedError
        (lost) when it was taken and its answer never written.
        """
        known = self._known.get((peer, asked.request.hex()))
        if known is not None:
            if known.payload != payload_of(asked):
                raise SignerError("a request under the id of another one; nothing was signed")
            if not known.partial:
                raise PeerRefusedError("lost", "this request was taken before and its answer was lost; nothing is signed twice")
            return known.partial
        if asked.pid.hex() in self._pids:
            raise SignerError("a presignature that was used before; nothing was signed")
        return None

    def take(self, peer: str, asked: Sign, digest: bytes) -> None:
        """On the disk on return. Raises SignerError."""
        entry = Taken(peer, asked.request.hex(), asked.pid.hex(), payload_of(asked), digest.hex())
        self._log.append(entry)
        self._note(entry)

    def give(self, peer: str, asked: Sign, partial: bytes) -> None:
        """With the operating system on return: if the machine loses power now, the answer is lost, and told to be."""
        entry = Gave(peer, asked.request.hex(), partial)
        self._log.append(entry, is_durable=False)
        self._note(entry)

    def _read(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        if isinstance(entry, Taken):
            self._known[entry.peer, entry.request] = _Known(entry.payload, b"")
            self._pids[entry.pid] = None
        elif isinstance(entry, Gave) and (known := self._known.get((entry.peer, entry.request))) is not None:
            known.partial = entry.partial
        for kept in (self._known, self._pids):
            while len(kept) > KEPT_MAX:
                kept.popitem(last=False)


def payload_of(asked: Sign) -> str:
    """sha256 over all that was asked but its id."""
    parts = (asked.pid, asked.kind.encode(), asked.data, asked.typed)
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()
