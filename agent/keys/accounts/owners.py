"""What the owners of a Safe say to a transaction, packed as the Safe reads it: ascending by owner, one word of 65 bytes for each.

An owner's word is an ECDSA signature (v 27 or 28), one with the prefix of eth_sign (v 31 or 32), "I approved it on the chain, or I
send it" (v 1), or "ask my contract" (v 0), whose answer stands behind all words. Source: Safe 1.4.1, checkNSignatures.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.domain.errors import SignerError
from agent.keys.digest import address_bytes

WORD, PART = 32, 65
OWNERS_MAX = 64
_CONTRACT, _APPROVED, _ETH_SIGN = 0, 1, 4

How = Literal["ecdsa", "eth_sign", "approved", "contract", "empty"]


class Consent(msgspec.Struct, frozen=True):
    """One owner's word. `signature`: 65 bytes with v 27 or 28, a contract's own bytes, or nothing for `approved`.

    `owner` is empty where the bytes do not say it, which is so for what was read of `ecdsa` and `eth_sign`; `empty` is a place of
    65 zero bytes that waits for an ECDSA signature.
    """

    owner: str
    how: How
    signature: bytes = b""


def packed(consents: Sequence[Consent]) -> bytes:
    """All of them in the order of their owners. Raises SignerError for two of one owner, or a signature of another form."""
    ordered = sorted(consents, key=lambda one: address_bytes(one.owner))
    owners = [address_bytes(one.owner) for one in ordered]
    if len(set(owners)) != len(owners) or not 0 < len(owners) <= OWNERS_MAX:
        raise SignerError(f"a Safe takes one signature of each owner, of 1 to {OWNERS_MAX} of them")
    words, tails = b"", b""
    for owner, one in zip(owners, ordered, strict=True):
        if one.how == "contract":
            words += owner.rjust(WORD, b"\0") + (PART * len(owners) + len(tails)).to_bytes(WORD, "big") + bytes((_CONTRACT,))
            tails += len(one.signature).to_bytes(WORD, "big") + one.signature
        else:
            words += _word(owner, one)
    return words + tails


def place_of(consents: Sequence[Consent], owner: str) -> int:
    """At which byte of `packed` the word of an owner begins."""
    return PART * sorted(address_bytes(one.owner) for one in consents).index(address_bytes(owner))


def read_consents(raw: bytes) -> tuple[Consent, ...]:
    """What was packed, with nothing between, behind or left over. Raises SignerError for anything else."""
    count = _count(raw)
    found: list[Consent] = []
    end = PART * count
    for at in range(0, PART * count, PART):
        one, end = _read_word(raw, at, end)
        found.append(one)
    if end != len(raw):
        raise SignerError(f"policy: {len(raw) - end} bytes behind the signatures of the Safe's owners")
    return tuple(found)


def _word(owner: bytes, one: Consent) -> bytes:
    if one.how == "approved":
        return owner.rjust(WORD, b"\0") + bytes(WORD) + bytes((_APPROVED,))
    if one.how == "empty":
        return bytes(PART)
    if len(one.signature) != PART or one.signature[-1] not in (27, 28):
        raise SignerError("an owner's signature has 65 bytes and v 27 or 28")
    v = one.signature[-1] + (_ETH_SIGN if one.how == "eth_sign" else 0)
    return one.signature[:-1] + bytes((v,))


def _count(raw: bytes) -> int:
    """Words come before the first contract's answer; without one there is nothing but words."""
    for at in range(0, min(len(raw), PART * OWNERS_MAX) - PART + 1, PART):
        is_empty = not any(raw[at : at + PART])
        if raw[at + 2 * WORD] == _CONTRACT and not is_empty:
            offset = int.from_bytes(raw[at + WORD : at + 2 * WORD], "big")
            if offset % PART or not at < offset < len(raw):
                raise SignerError("policy: a contract's signature is not behind the words of the Safe's owners")
            return offset // PART
    if not raw or len(raw) % PART or len(raw) > PART * OWNERS_MAX:
        raise SignerError(f"policy: {len(raw)} bytes of signatures are not 65 for each of 1 to {OWNERS_MAX} owners of the Safe")
    return len(raw) // PART


def _read_word(raw: bytes, at: int, end: int) -> tuple[Consent, int]:
    """The word at `at`; `end` is where the tails read so far end."""
    word = raw[at : at + PART]
    v = word[-1]
    if not any(word):
        return Consent("", "empty"), end
    if v in (27, 28):
        return Consent("", "ecdsa", word), end
    if v in (27 + _ETH_SIGN, 28 + _ETH_SIGN):
        return Consent("", "eth_sign", word[:-1] + bytes((v - _ETH_SIGN,))), end
    if v not in (_CONTRACT, _APPROVED) or any(word[: WORD - 20]):
        raise SignerError(f"policy: an owner's signature with v {v} is not understood")
    owner, second = "0x" + word[WORD - 20 : WORD].hex(), int.from_bytes(word[WORD : 2 * WORD], "big")
    if v == _APPROVED:
        if second:
            raise SignerError("policy: an owner's approval carries more than the owner")
        return Consent(owner, "approved"), end
    size = int.from_bytes(raw[end : end + WORD], "big")
    if second != end or end + WORD + size > len(raw):
        raise SignerError("policy: a contract's signature is not where the one before it ends")
    return Consent(owner, "contract", raw[end + WORD : end + WORD + size]), end + WORD + size
