"""The desk on a Unix socket: how the command line talks to an agent that is already running on this machine.

One JSON object a line, one answer a line. The socket lies in the agent's home folder and only its owner may open it.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from agent.domain.amount import decode_hook, encode_hook
from agent.domain.errors import IsthmusError, UsageError, VenueError
from agent.domain.events import Break
from agent.domain.intent import Intent
from agent.ports import Anchoring, Desk, Repair

LINE_MAX = 64 * 1024
TIMEOUT_S = 60.0
SOCKET = "desk.sock"
PATH_MAX = 100  # what every system allows for the address of a Unix socket


class Submit(msgspec.Struct, frozen=True, tag=True):
    intent: Intent


class SubmitAll(msgspec.Struct, frozen=True, tag=True):
    """Orders that belong together."""

    intents: tuple[Intent, ...]


class Cancel(msgspec.Struct, frozen=True, tag=True):
    intent_id: str


class Pause(msgspec.Struct, frozen=True, tag=True):
    intent_id: str


class Proceed(msgspec.Struct, frozen=True, tag=True):
    """A paused order goes on."""

    intent_id: str


class Amend(msgspec.Struct, frozen=True, tag=True):
    """An order is like this from now on."""

    intent: Intent


class Reconcile(msgspec.Struct, frozen=True, tag=True):
    pass


class Mend(msgspec.Struct, frozen=True, tag=True):
    """Repair what can be repaired, or only say what that would be."""

    is_rehearsal: bool


class Adopt(msgspec.Struct, frozen=True, tag=True):
    reason: str


class Anchor(msgspec.Struct, frozen=True, tag=True):
    venue: str  # empty: the only one that keeps heads


class Status(msgspec.Struct, frozen=True, tag=True):
    pass


Request = Submit | SubmitAll | Cancel | Pause | Proceed | Amend | Reconcile | Mend | Adopt | Anchor | Status

_read_request = msgspec.json.Decoder(Request, dec_hook=decode_hook)
_write = msgspec.json.Encoder(enc_hook=encode_hook)


@contextlib.asynccontextmanager
async def serve(desk: Desk, home: Path) -> AsyncIterator[None]:
    """Answer requests while the context is open. Only who holds the journal's lock calls this: an old socket is stale."""
    path = socket_path(home)
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(lambda r, w: _talk(desk, r, w), path, limit=LINE_MAX)
    path.chmod(0o600)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def ask(home: Path, request: Request) -> Any:
    """One request to a running agent. VenueError when none is running, UsageError in its own words when it refuses."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path(home), limit=LINE_MAX * 16)
    except OSError:
        raise VenueError("no agent is running here; `isthmus run` starts one") from None
    try:
        writer.write(_write.encode(request) + b"\n")
        async with asyncio.timeout(TIMEOUT_S):
            answer = msgspec.json.decode(await reader.readline() or b"{}")
    except TimeoutError:
        raise VenueError(f"the agent did not answer within {TIMEOUT_S:.0f} s; look at its log in {home}") from None
    except (ConnectionError, ValueError, msgspec.DecodeError):
        raise VenueError("the agent broke the connection off; look at its log, and at `isthmus order list`") from None
    finally:
        writer.close()
    if "error" in answer:
        raise UsageError(str(answer["error"]))
    if "result" not in answer:
        raise VenueError("the agent left without an answer; look at its log, and at `isthmus order list`")
    return answer["result"]


def read_break(answer: Any) -> Break:
    """A break as the socket carried it."""
    return msgspec.convert(answer, Break, dec_hook=decode_hook)


def read_repair(answer: Any) -> Repair:
    """A repair as the socket carried it."""
    return msgspec.convert(answer, Repair, dec_hook=decode_hook)


def read_anchoring(answer: Any) -> Anchoring:
    """An anchoring as the socket carried it."""
    return msgspec.convert(answer, Anchoring, dec_hook=decode_hook)


def is_running(home: Path) -> bool:
    """Whether an agent answers here. A socket that a crash left behind does not count."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_path(home)))
        except OSError:
            return False
    return True


def socket_path(home: Path) -> Path:
    """In the home folder, or, where that path is too long for a socket, in a private folder of this user's."""
    path = home / SOCKET
    if len(os.fsencode(path)) <= PATH_MAX:
        return path
    folder = Path(tempfile.gettempdir()) / f"isthmus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(f"{folder} is open to others; remove it, or choose a shorter `home` than {home}")
    return folder / f"{hashlib.sha256(os.fsencode(home)).hexdigest()[:24]}.sock"


async def _talk(desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            try:
                answer: dict[str, Any] = {"result": await _answer(desk, _read_request.decode(line))}
            except (IsthmusError, msgspec.MsgspecError, TimeoutError) as error:
                answer = {"error": str(error) or "timed out"}
            writer.write(_write.encode(answer) + b"\n")
            await writer.drain()
    except (ValueError, ConnectionError):  # a line too long, or the other side left
        pass
    finally:
        writer.close()


async def _answer(desk: Desk, request: Request) -> Any:
    match request:
        case Submit(intent=intent):
            return await desk.submit(intent)
        case SubmitAll(intents=intents):
            return await desk.submit_all(intents)
        case Cancel(intent_id=intent_id):
            return await desk.cancel(intent_id)
        case Pause(intent_id=intent_id):
            return await desk.pause(intent_id)
        case Proceed(intent_id=intent_id):
            return await desk.proceed(intent_id)
        case Amend(intent=intent):
            return await desk.amend(intent)
        case Reconcile():
            return await desk.reconcile()
        case Mend(is_rehearsal=is_rehearsal):
            return await desk.repair(is_rehearsal=is_rehearsal)
        case Adopt(reason=reason):
            return await desk.adopt(reason)
        case Anchor(venue=venue):
            return await desk.anchor(venue)
        case Status():
            return desk.intents()
