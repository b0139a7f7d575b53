"""How an event becomes bytes, and how records are chained so that no later edit goes unseen.

A record is `(seq, at_ns, event)`. Its hash is `sha256(0x01 || hash of the record before || b"[seq,at_ns,event]")`, where the event
is the exact JSON text that is stored; the first record follows `GENESIS`. Money is text of whole units, bytes are base64.

What the chain shows: any changed, inserted, dropped, swapped or renumbered record. What a chain alone cannot show: records cut
off at the end, or a journal that was rewritten from some point on. Keep a head elsewhere and hold it against `verify(anchor)`.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from agent.domain.amount import TEXT_MAX, decode_hook, encode_hook
from agent.domain.errors import JournalError, NumberError
from agent.domain.events import Event, Record, Routed

SCHEMA_VERSION = 3  # raised whenever an older agent could not read what a newer one writes; 3: an order is paused, amended, linked
GENESIS = sha256(b"isthmus journal").hexdigest()
BODY_MAX = 1 << 20  # bytes of one event
AT_NS_MAX = (1 << 63) - 1


class ChainError(JournalError):
    """Records do not fit together. `seq` is the first of them that is not as it was written, or is missing."""

    def __init__(self, seq: int, message: str) -> None:
        super().__init__(message)
        self.seq = seq


class Row(NamedTuple):
    """A record as it lies in the store: `body` is the event's JSON, `hash` 64 hex digits."""

    seq: int
    at_ns: int
    body: bytes
    hash: str


def encode(event: Event) -> bytes:
    """The event's JSON. Raises JournalError for what could not be read back: a NaN, text that is no Unicode, a number too long."""
    if type(event) is Routed:
        _refuse_odd_floats(event)
    try:
        body = _encode(event)
    except (NumberError, TypeError, ValueError, OverflowError) as e:
        raise JournalError(f"a {type(event).__name__} event cannot be written down ({e}); nothing was recorded") from e
    if len(body) > BODY_MAX:
        raise JournalError(
            f"a {type(event).__name__} event has {len(body)} bytes, at most {BODY_MAX} are recorded; nothing was recorded"
        )
    return body


def decode(row: Row) -> Record:
    """Raises JournalError, naming the record, if the event is of no kind that this version knows."""
    try:
        event = _decoder.decode(row.body)
    except (msgspec.MsgspecError, ArithmeticError, NumberError, TypeError, ValueError) as e:
        raise JournalError(
            f"journal record {row.seq} cannot be understood by this version ({_short(e)}); use the version that wrote it"
        ) from e
    return Record(row.seq, row.at_ns, event, row.hash)


def seal(before: str, seq: int, at_ns: int, body: bytes) -> str:
    """The hash of a record, given the hash of the one before."""
    return sha256(b"\x01%b[%d,%d,%b]" % (bytes.fromhex(before), seq, at_ns, body)).digest().hex()


def rows_of(head: tuple[int, str], at_ns: int, events: Iterable[Event]) -> list[Row]:
    """The rows that follow `head`. Raises JournalError before anything is stored."""
    rows: list[Row] = []
    for event in events:
        row = row_of(head, at_ns, event)
        head = row.seq, row.hash
        rows.append(row)
    return rows


def row_of(head: tuple[int, str], at_ns: int, event: Event) -> Row:
    """The row that follows `head`. Raises JournalError for what cannot be stored."""
    if not 0 <= at_ns <= AT_NS_MAX:
        raise JournalError(f"{at_ns} ns is no time that can be recorded; check the clock")
    seq, body = head[0] + 1, encode(event)
    return _row(Row, (seq, at_ns, body, seal(head[1], seq, at_ns, body)))


def walk(rows: Iterable[Row], head: tuple[int, str] = (0, GENESIS)) -> Iterator[Row]:
    """Passes rows on as long as they continue the chain from `head`; raises ChainError at the first that does not."""
    seq, before = head
    for row in rows:
        seq += 1
        if row.seq != seq:
            raise ChainError(seq, f"journal record {seq} is missing (found {str(row.seq)[:24]}); restore the journal from a copy")
        if not _is_whole(row) or seal(before, seq, row.at_ns, row.body) != row.hash:
            raise ChainError(seq, f"journal record {seq} was changed after it was written; restore the journal from a copy")
        before = row.hash
        yield row


def check_version(version: int) -> None:
    """Raises JournalError unless this program can read a journal of that schema version."""
    if version > SCHEMA_VERSION:
        raise JournalError(f"the journal has version {version}, this program knows up to {SCHEMA_VERSION}; start a newer isthmus")
    if version < 1:
        raise JournalError("the journal has no version; this is not a journal of isthmus, choose another file")


def check_anchor(seq: int, found: str | None, anchor: tuple[int, str]) -> None:
    """Holds a head kept elsewhere against the hash `found` at its place (None if the journal ends before it, at `seq`)."""
    if found is None:
        raise ChainError(
            seq + 1, f"the journal ends at record {seq}, but record {anchor[0]} was seen before; restore the journal from a copy"
        )
    if found != anchor[1]:
        text = f"journal record {anchor[0]} is not the one that was seen before; restore the journal from a copy"
        raise ChainError(anchor[0], text)


def is_hash(text: str) -> bool:
    """Whether it could be a record's hash: 64 hex digits."""
    return len(text) == len(GENESIS) and not set(text) - set("0123456789abcdef")


def _is_whole(row: Row) -> bool:
    return type(row.at_ns) is int and type(row.body) is bytes and type(row.hash) is str


def _refuse_odd_floats(event: Routed) -> None:
    for piece in event.pieces:
        for number in (piece.share, piece.price, piece.price_all_in):
            if not abs(number) < _INFINITY:  # JSON has no NaN and no infinity: they would come back as nothing
                raise JournalError(f"the route of {event.intent_id} holds {number}, which is not a number; nothing was recorded")


def _encode_hook(value: Any) -> Any:
    text = encode_hook(value)
    if len(text) > TEXT_MAX:
        raise NumberError(f"a number of {len(text)} digits could not be read back")
    return text


def _short(e: Exception) -> str:
    return str(e).splitlines()[0][:200]


_INFINITY = float("inf")
_row = tuple.__new__  # what Row() does, without its call in between: this is done for every record
_encode = msgspec.json.Encoder(enc_hook=_encode_hook).encode
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event, dec_hook=decode_hook)
