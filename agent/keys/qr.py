"""A file as QR codes, for a camera instead of a cable, and back from what a scanner read off them.

A file is packed (zlib), written in the letters that QR codes hold best (base 32), and cut into parts of one code each:
`ISQ1 2/3 1A2B3C4D LETTERS`. Parts may come in any order and more than once. Needs `pip install 'isthmus[qr]'` to draw them.
"""

import base64
import binascii
import hashlib
import re
import zlib
from typing import Any

from agent.domain.errors import SecretError, SignerError

PART_LETTERS = 1_200  # a code of 109 modules: a phone and a cheap camera read it off a screen
PARTS_MAX = 64
FILE_BYTES_MAX = 131_072
NEEDS = "QR codes need segno; run: pip install 'isthmus[qr]', or carry the file itself"

_PART = re.compile(r"ISQ1 (\d{1,2})/(\d{1,2}) ([0-9A-F]{8}) ([A-Z2-7]+)", re.ASCII)


def parts_of(raw: bytes) -> list[str]:
    """Raises SignerError for a file that is too large."""
    text = base64.b32encode(zlib.compress(raw, 9)).decode().rstrip("=")
    pieces = [text[at : at + PART_LETTERS] for at in range(0, len(text), PART_LETTERS)]
    if len(pieces) > PARTS_MAX or len(raw) > FILE_BYTES_MAX:
        raise SignerError(f"a file of {len(raw)} bytes is too large for QR codes; carry the file itself")
    return [f"ISQ1 {at}/{len(pieces)} {_mark(raw)} {piece}" for at, piece in enumerate(pieces, 1)]


def joined(text: str) -> bytes:
    """The file, from all its parts: a line each. Raises SignerError when one is missing, damaged, or of another file."""
    found: dict[int, str] = {}
    heads: set[tuple[str, str]] = set()
    for line in text.split("\n"):
        if not line.strip():
            continue
        part = _PART.fullmatch(line.strip())
        if part is None or found.setdefault(int(part[1]), part[4]) != part[4]:
            raise SignerError(f"{line.strip()[:24]!r} is no part of a file, or another one than before; scan it again")
        heads.add((part[2], part[3]))
    if len(heads) != 1:
        raise SignerError("these are parts of several files, or none; scan one file at a time")
    ((count, mark),) = heads
    missing = [str(at) for at in range(1, int(count) + 1) if at not in found]
    if missing or len(found) != int(count):
        raise SignerError(f"part {', '.join(missing) or 'none'} of {count} is missing; scan it too")
    return _unpacked("".join(found[at] for at in sorted(found)), mark)


def file_of(raw: bytes) -> bytes:
    """A file as it is, or from the lines that a scanner wrote."""
    if raw[:5] != b"ISQ1 ":
        return raw
    try:
        return joined(raw.decode("ascii"))
    except UnicodeDecodeError:
        raise SignerError("what the scanner wrote is no plain text; scan it again") from None


def svg_of(part: str) -> bytes:
    """One code as a picture. Raises SecretError without the library."""
    import io

    kept = io.BytesIO()
    _code(part).save(kept, kind="svg", scale=4)
    return kept.getvalue()


def terminal_of(part: str) -> str:
    """One code in half blocks."""
    import io

    kept = io.StringIO()
    _code(part).terminal(kept, compact=True)
    return kept.getvalue()


def _code(part: str) -> Any:
    try:
        import segno
    except ImportError:
        raise SecretError(NEEDS) from None
    return segno.make(part, micro=False, error="m")


def _unpacked(letters: str, mark: str) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        raw = unpacking.decompress(base64.b32decode(letters + "=" * (-len(letters) % 8)), FILE_BYTES_MAX)
    except (binascii.Error, ValueError, zlib.error):
        raw = b""
    if not unpacking.eof or unpacking.unused_data or _mark(raw) != mark:
        raise SignerError("the parts do not give the file that they are of; scan them again")
    return raw


def _mark(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:8].upper()
