"""The reader of canonical ABI bytes beside eth_abi: what it accepts, eth_abi decodes to the same, and encodes to the same bytes."""

import pytest
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from hypothesis import given
from hypothesis import strategies as st

from agent.keys.canonical import NotCanonicalError, read
from agent.keys.policy import _PERMIT_ABI
from agent.keys.swaps import _SWAP_V2_ABI, _SWAP_V3_ABI, _V4_ABI

KINDS = [
    ("address", "uint256"),
    ("uint64", "bytes32"),
    ("bytes", "bytes[]", "uint256"),
    ("bytes", "bytes[]"),
    ("uint256[]",),
    ("((bytes,uint8)[],bool)", "int24", "bytes"),
    ("(uint8,bool)[]", "(bytes)[]"),
    _PERMIT_ABI,
    _SWAP_V3_ABI,
    (*_SWAP_V2_ABI, "uint256[]"),
    *_V4_ABI.values(),
]


def members(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text + ","):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    return parts


def values(kind: str) -> st.SearchStrategy:
    if kind.endswith("[]"):
        return st.lists(values(kind[:-2]), max_size=3).map(tuple)
    if kind.startswith("("):
        return st.tuples(*map(values, members(kind[1:-1])))
    if kind == "bytes":
        return st.binary(max_size=70)
    if kind == "address":
        return st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
    if kind == "bool":
        return st.booleans()
    if kind.startswith("uint"):
        return st.integers(0, 2 ** int(kind[4:]) - 1)
    if kind.startswith("int"):
        return st.integers(-(2 ** (int(kind[3:]) - 1)), 2 ** (int(kind[3:]) - 1) - 1)
    return st.binary(min_size=int(kind[5:]), max_size=int(kind[5:]))


def accepted(kinds: tuple[str, ...], raw: bytes) -> tuple | None:
    """What eth_abi makes of bytes that are its own encoding of what it decodes; None for all others."""
    try:
        found = decode(kinds, raw)
        return found if encode(kinds, found) == raw else None
    except (DecodingError, OverflowError, ValueError):
        return None


def ours(kinds: tuple[str, ...], raw: bytes) -> tuple | None:
    try:
        return read(kinds, raw)
    except NotCanonicalError:
        return None


@given(st.data(), st.sampled_from(KINDS))
def test_it_reads_what_eth_abi_encodes(data, kinds):
    wanted = tuple(data.draw(values(kind)) for kind in kinds)
    raw = encode(kinds, wanted)
    assert read(kinds, raw) == decode(kinds, raw) == wanted


@given(st.data(), st.sampled_from(KINDS))
def test_of_bytes_that_were_changed_it_accepts_the_same(data, kinds):
    raw = bytearray(encode(kinds, tuple(data.draw(values(kind)) for kind in kinds)))
    for _ in range(data.draw(st.integers(1, 3))):
        word = data.draw(st.integers(0, max(len(raw) // 32 - 1, 0)))
        change = data.draw(st.sampled_from(["bit", "word", "cut", "more", "move"]))
        if change == "bit" and raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "word":
            raw[word * 32 : word * 32 + 32] = data.draw(st.sampled_from([0, 1, 32, 64, 2**255, 2**256 - 1])).to_bytes(32, "big")
        elif change == "cut":
            del raw[len(raw) - data.draw(st.integers(0, min(40, len(raw)))) :]
        elif change == "more":
            raw += bytes(data.draw(st.sampled_from([1, 31, 32, 64])))
        else:
            raw[word * 32 : word * 32] = bytes(32)
    assert ours(kinds, bytes(raw)) == accepted(kinds, bytes(raw))


@given(st.sampled_from(KINDS), st.binary(max_size=400))
def test_noise_is_refused_or_read_as_eth_abi_reads_it(kinds, raw):
    assert ours(kinds, raw) == accepted(kinds, raw)


def test_long_claims_cost_nothing():
    for kinds in (("uint256[]",), ("bytes[]",), ("bytes",)):
        raw = (32).to_bytes(32, "big") + (2**255).to_bytes(32, "big") + bytes(64)
        with pytest.raises(NotCanonicalError):
            read(kinds, raw)
