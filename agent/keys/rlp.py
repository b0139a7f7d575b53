"""RLP, the encoding of transactions: whole numbers, byte strings and lists of them. Source: Ethereum yellow paper, appendix B."""

from collections.abc import Sequence


def rlp_int(value: int) -> bytes:
    """A whole number, not negative, without leading zeros."""
    if value < 128:
        return bytes((value or 0x80,))
    return _sized(0x80, value.to_bytes((value.bit_length() + 7) // 8, "big"))


def rlp_bytes(raw: bytes) -> bytes:
    return raw if len(raw) == 1 and raw[0] < 128 else _sized(0x80, raw)


def rlp_list(items: Sequence[bytes]) -> bytes:
    """A list of what is encoded already."""
    return _sized(0xC0, b"".join(items))


def _sized(base: int, raw: bytes) -> bytes:
    if len(raw) < 56:
        return bytes((base + len(raw),)) + raw
    size = len(raw).to_bytes((len(raw).bit_length() + 7) // 8, "big")
    return bytes((base + 55 + len(size),)) + size + raw
