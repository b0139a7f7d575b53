"""Tickets on disk: what was asked of vaults and how far it is, so that nothing is forgotten in a restart and nothing is done twice.

One file for each ticket, readable by its owner only, replaced whole or not at all, and on the disk before anything leaves because
of it. Whoever changes tickets takes turns, also with other processes.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.domain.plan import Call
from agent.ports import Clock, Ticket, TicketState

TICKETS_MAX = 10_000
OPEN_MAX = 200
FILE_BYTES_MAX = 262_144
REQUEST_MAX = 200
REASON_MAX = 300
ID_DIGITS = 16
OPEN: frozenset[TicketState] = frozenset({"waiting", "ready", "sent"})
SECOND_NS = 1_000_000_000


class Filed(msgspec.Struct, frozen=True):
    """A ticket with all that is kept of it. `notes`: what its kind wants to find again."""

    ticket: Ticket
    chain_id: int
    calls: tuple[Call, ...]
    notes: dict[str, str] = {}


class Tickets:
    """Owns the folder."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Raises SignerError when the folder cannot be used."""
        self._folder, self._clock = folder, clock
        self._order = asyncio.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SignerError(f"the tickets cannot be kept in {folder} ({error.strerror}); name another home") from None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While it is open nobody else changes a ticket. SignerUnavailableError when another process has its turn."""
        async with self._order:
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise SignerUnavailableError("another command works on the tickets; try again when it is done") from None
                yield
            finally:
                os.close(lock)

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def find(self, ticket_id: str) -> Filed:
        """Raises SignerError when there is none, or its file is damaged."""
        path = self._path(ticket_id)
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            raise SignerError(f"there is no ticket {ticket_id}; `isthmus treasury tickets` lists them") from None
        except OSError as error:
            raise SignerError(f"{path} cannot be read ({error.strerror}); restore it") from None
        try:
            return msgspec.json.decode(raw, type=Filed)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise SignerError(f"{path} is damaged; restore it, as nobody knows otherwise what was sent for it") from None

    def all(self, account: str = "") -> list[Filed]:
        """The oldest first. Of one account, or of all."""
        found = [self.find(path.stem) for path in self._folder.glob("*.json")]
        kept = [one for one in found if not account or one.ticket.account == account]
        return sorted(kept, key=lambda one: (one.ticket.created_ns, one.ticket.id))

    def known(self, account: str, request: str, chain_id: int, calls: Sequence[Call]) -> Filed | None:
        """The ticket of a request that was made before. SignerError when it was for other calls."""
        ticket_id = id_of(account, request)
        if not self._path(ticket_id).exists():
            return None
        found = self.find(ticket_id)
        if (found.chain_id, found.calls) != (chain_id, tuple(calls)):
            raise SignerError(f"the request {request[:60]!r} was made before, for something else; give this one another name")
        return found

    def file(self, filed: Filed) -> Filed:
        """A new ticket. Raises SignerError when there are too many."""
        found = self.all()
        is_full = sum(one.ticket.state in OPEN for one in found) >= OPEN_MAX
        if is_full or len(found) >= TICKETS_MAX:
            raise SignerError(f"there are too many tickets in {self._folder}; settle the open ones, or move old files away")
        return self.keep(filed)

    def moved(self, filed: Filed, state: TicketState, reason: str = "", tx_hash: str = "", **notes: str) -> Filed:
        """The ticket in its new state; what is not given stays, but for the reason. An empty note is taken away."""
        kept = {name: text for name, text in (filed.notes | notes).items() if text}
        ticket = msgspec.structs.replace(
            filed.ticket, state=state, reason=reason[:REASON_MAX], tx_hash=tx_hash or filed.ticket.tx_hash
        )
        new = msgspec.structs.replace(filed, ticket=ticket, notes=kept)
        return filed if new == filed else self.keep(new)

    def keep(self, filed: Filed) -> Filed:
        """On the disk on return, whole or not at all."""
        path, raw = self._path(filed.ticket.id), msgspec.json.encode(filed)
        if len(raw) > FILE_BYTES_MAX:
            raise SignerError(f"a ticket of {len(raw)} bytes is larger than {FILE_BYTES_MAX}; ask for less at once")
        new = path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise SignerError(f"{path} cannot be written ({error.strerror}); nothing is sent without it") from None
        return filed

    def _path(self, ticket_id: str) -> Path:
        if not ticket_id.isascii() or not ticket_id.isalnum() or len(ticket_id) > ID_DIGITS:
            raise SignerError(f"{ticket_id[:40]!r} is no ticket; `isthmus treasury tickets` lists them")
        return self._folder / f"{ticket_id}.json"


def id_of(account: str, request: str) -> str:
    """What follows from who is asked and under which name. Raises SignerError for a name that is none."""
    if not request or len(request) > REQUEST_MAX or not request.isprintable():
        raise SignerError(f"a request's name has 1 to {REQUEST_MAX} printable letters")
    return hashlib.sha256(f"{account}\0{request}".encode()).hexdigest()[:ID_DIGITS]
