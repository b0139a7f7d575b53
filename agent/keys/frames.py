"""How an agent and its signer process talk over a Unix socket: bounded frames between two processes of one user.

A connection opens with the signer's `Hello`, whose `greeting` is new each time; every `Ask` repeats it and counts up from 1. So a
frame that was heard before is refused, on the same connection and on any other. Nothing can ask for a signature over a bare hash:
there is no such frame.
"""

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Literal

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import TypedData
from agent.keys.secrets import check_private

PROTOCOL = 1
FRAME_BYTES_MAX = 65_536  # the most call data that a policy passes is 24 kB, a third more as text
PATH_BYTES_MAX = 100  # what every system allows for the address of a Unix socket


class Hello(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Who answers, for which chains it has a policy, and what its system granted the key."""

    protocol: int
    greeting: str
    name: str
    address: str
    chains: tuple[int, ...]
    is_locked: bool
    is_undumpable: bool


class Ask(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Sign the keccak of `data`: typed data (given beside it, to be read) or a transaction, which is read from the bytes."""

    greeting: str
    number: int
    kind: Literal["typed", "transaction"]
    data: bytes
    typed: TypedData | None = None


class Given(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    number: int
    signature: bytes


class Denied(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Why nothing was signed. `number` 0: the frame itself was not understood, and the connection ends."""

    number: int
    reason: str


Frame = Hello | Ask | Given | Denied
_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(
    Frame
)  # JSON, as its whole numbers have no bound: amounts have 160 bits


def _whole(value: object) -> int:
    """Amounts are whole numbers of a kind of their own."""
    if isinstance(value, int):
        return int(value)
    raise SignerError(f"typed data with a {type(value).__name__} in it cannot be sent to a signer")


encode = msgspec.json.Encoder(enc_hook=_whole).encode  # whole numbers without a bound


def pack(frame: Frame) -> bytes:
    """Four bytes of length, then the frame. Raises SignerError if it is too long."""
    body = encode(frame)
    if len(body) > FRAME_BYTES_MAX:
        raise SignerError(f"a request of {len(body)} bytes is more than a signer takes ({FRAME_BYTES_MAX})")
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader, patience_s: float) -> Frame:
    """The next frame, awaited without end; once it has begun it must be whole within `patience_s`.

    Raises SignerError for what is no frame, IncompleteReadError when the other side leaves, TimeoutError.
    """
    first = await reader.readexactly(1)
    async with asyncio.timeout(patience_s):
        size = int.from_bytes(first + await reader.readexactly(3), "big")
        if not 0 < size <= FRAME_BYTES_MAX:
            raise SignerError(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX} are read")
        body = await reader.readexactly(size)
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise SignerError("a frame that is none of the protocol's") from None


def check_peer(writer: asyncio.StreamWriter) -> None:
    """Raises SignerError unless the other side is a process of the same user. Source: SO_PEERCRED, unix(7)."""
    connection: socket.socket = writer.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise SignerError("this system does not say who is at the other end of a socket; use another kind of key")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    if uid != os.geteuid():
        raise SignerError(f"the other end of the signer's socket belongs to user {uid}; run agent and signer as one user")


def check_socket(path: Path) -> None:
    """The socket is ours alone (0600) in a folder that is (0700). Raises SecretError, or OSError when it is not there."""
    check_private(path.parent.stat(), path.parent, 0o700)
    check_private(path.stat(), path, 0o600)
