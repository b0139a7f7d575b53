"""How parties talk: bounded frames over TLS, many requests at once over one connection, each answered under its number.

Whoever dialled asks, and the other end answers. Both know from TLS who the other is; no frame says so. No frame asks to sign a
hash: `Sign` carries the bytes themselves, and the typed data that they are made of.
"""

from typing import Literal

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import TypedData
from agent.keys.frames import encode

PROTOCOL = 1
BODY_BYTES_MAX = 393_216  # of one message of a ceremony, as the engine bounds it
FRAME_BYTES_MAX = 2 * BODY_BYTES_MAX + 4_096
TYPED_BYTES_MAX = 65_536
NONCE_BYTES = 16

Kind = Literal["keygen", "aux", "presign"]


class Who(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Asks for `About`."""

    protocol: int
    group: bytes


class Propose(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A new ceremony; answered with the other's `Nonce`, as every party has a part in its execution id."""

    kind: Kind


class Start(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Begin it, with the nonces of all of its parties in their order."""

    kind: Kind
    nonces: tuple[tuple[int, bytes], ...]


class Post(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Messages for the receiver; `first` is the number of the first among all from this sender, so that none is taken twice."""

    run: bytes
    first: int
    bodies: tuple[bytes, ...]


class Fetch(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The messages to us after the first `have`: answered with `Mail` when there are some, or it is over, or in a while."""

    run: bytes
    have: int


class Compare(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What the new key is to us; answered with what it is to the other, when that has made it."""

    fingerprint: bytes


class Prepare(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Write the share, if all parties have compared equal; answered when it is on the disk."""

    fingerprint: bytes


class Commit(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """All have written theirs: use it from now on."""

    fingerprint: bytes


class Discard(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Nobody uses it: forget what was written."""

    fingerprint: bytes


class Sign(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Sign `data` with the presignature `pid`. `typed`: for typed data, what the bytes are made of, in JSON."""

    request: bytes
    pid: bytes
    kind: Literal["typed", "transaction"]
    data: bytes
    typed: bytes


Request = Who | Propose | Start | Post | Fetch | Compare | Prepare | Commit | Discard | Sign


class About(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """`state`: no share yet, one that is written but not used yet, or one in use."""

    protocol: int
    group: bytes
    state: Literal["new", "prepared", "ready"]
    fingerprint: bytes
    address: str
    has_primes: bool
    chains: tuple[int, ...]


class Nonce(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    nonce: bytes


class Mail(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """`is_over`: it has its result, and there are no more."""

    bodies: tuple[bytes, ...]
    is_over: bool


class Same(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    fingerprint: bytes


class Done(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Nothing else to say."""


class Partial(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Our share of one signature."""

    partial: bytes


class Denied(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Why not. gone: that presignature is not here. lost: asked before, and what was answered is not known any more."""

    why: Literal["refused", "gone", "lost"]
    reason: str


Answer = About | Nonce | Mail | Same | Done | Partial | Denied


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    request: Request


class Answered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    answer: Answer


_asked: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(Asked)
_answered: msgspec.msgpack.Decoder[Answered] = msgspec.msgpack.Decoder(Answered)
_typed: msgspec.json.Decoder[TypedData] = msgspec.json.Decoder(TypedData)  # JSON, as its whole numbers have no bound


def pack(frame: Asked | Answered) -> bytes:
    """Four bytes of length, then the frame. Raises SignerError if it is too long."""
    body = msgspec.msgpack.encode(frame)
    if len(body) > FRAME_BYTES_MAX:
        raise SignerError(f"a frame of {len(body)} bytes is more than a party takes ({FRAME_BYTES_MAX})")
    return len(body).to_bytes(4, "big") + body


def read_asked(body: bytes) -> Asked:
    """Raises SignerError for what is no request."""
    try:
        return _asked.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise SignerError("a frame that is none of the protocol's") from None


def read_answered(body: bytes) -> Answered:
    """Raises SignerError for what is no answer."""
    try:
        return _answered.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise SignerError("an answer that is none of the protocol's") from None


def typed_text(typed: TypedData) -> bytes:
    """Raises SignerError for what cannot be sent."""
    text = encode(typed)
    if len(text) > TYPED_BYTES_MAX:
        raise SignerError(f"typed data of {len(text)} bytes is more than a party takes ({TYPED_BYTES_MAX})")
    return text


def read_typed(text: bytes) -> TypedData:
    """Raises SignerError for what is no typed data."""
    try:
        return _typed.decode(text[: TYPED_BYTES_MAX + 1])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise SignerError("typed data that cannot be read; nothing is signed without being read") from None
