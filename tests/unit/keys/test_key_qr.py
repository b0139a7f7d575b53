"""A file over QR codes: every byte comes back, and nothing else does. Drawing them needs segno."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SignerError
from agent.keys.qr import PART_LETTERS, file_of, joined, parts_of, svg_of, terminal_of

LONG = random.Random(7).randbytes(4_000)


@given(st.binary(max_size=3_000), st.randoms())
def test_parts_come_in_any_order_and_more_than_once(raw: bytes, order: random.Random) -> None:
    parts = parts_of(raw)
    seen = [*parts, parts[0]]
    order.shuffle(seen)
    assert joined("\n".join(seen)) == raw
    assert file_of("\r\n".join(seen).encode()) == raw


def test_what_is_missing_damaged_or_of_another_file_is_told() -> None:
    parts, other = parts_of(LONG), parts_of(LONG[::-1])
    assert len(parts) == 6
    flipped = parts[0][:-1] + ("A" if parts[0][-1] != "A" else "B")
    for lines, reason in (
        (parts[1:], "part 1 of 6 is missing"),
        ([parts[0], other[1]], "several files"),
        ([flipped, *parts[1:]], "do not give the file"),
        ([*parts, flipped], "another one than before"),
        ([*parts, "something else"], "no part of a file"),
        ([parts[0].replace("1/6", "7/6"), *parts], "missing"),
        ([], "none"),
    ):
        with pytest.raises(SignerError, match=reason):
            joined("\n".join(lines))
    with pytest.raises(SignerError, match="too large"):
        parts_of(random.Random(8).randbytes(100_000))


def test_a_small_text_does_not_unfold_into_a_large_one() -> None:
    (part,) = parts_of(bytes(131_000))
    assert len(joined(part)) == 131_000
    import base64
    import zlib

    bomb = base64.b32encode(zlib.compress(bytes(10**7))).decode().rstrip("=")
    with pytest.raises(SignerError, match="do not give the file"):
        joined(f"ISQ1 1/1 00000000 {bomb}")


def test_a_code_is_drawn() -> None:
    pytest.importorskip("segno", reason="QR codes need isthmus[qr]")
    (part,) = parts_of(b"x" * 100)
    assert svg_of(part).startswith(b"<?xml")
    assert len(terminal_of(part).splitlines()) > 10
    full = parts_of(LONG)[0]
    assert len(full.rpartition(" ")[2]) == PART_LETTERS
    assert svg_of(full)
