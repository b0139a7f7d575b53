"""Messages changed on their way, in every phase: a typed error, and never a wrong key or a wrong signature.

A flipped bit mostly makes a message unreadable. So single digits are changed as well, one in each number that a message carries: it
stays readable, and only the proofs can tell. That is how two faults of the crate were found (`REPAIRS` in threshold/build.py).
"""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import MESSAGE, Letter, Spoil, assert_signed, carry, eid, engine, new_key, presigned, primes

pytestmark = [pytest.mark.xdist_group("threshold"), pytest.mark.timeout(600)]

NUMBER = re.compile(rb"[0-9a-f]{12,}")  # a big number in a message: hexadecimal text
KEYGEN_LETTERS, PRESIGN_LETTERS, AUX_LETTERS = 30, 10, 8  # 3 parties, 2 signers, 2 parties; a broadcast is a letter to each
HEADER_BITS = 38 * 8


def flipped(number: int, bit: int) -> Spoil:
    """Spoils one letter of a run. `bit` counts from the body's first, around its end."""

    def spoil(at: int, letter: Letter) -> bytes:
        return flip(letter.body, HEADER_BITS + bit % (len(letter.body) * 8 - HEADER_BITS)) if at == number else letter.body

    return spoil


def flip(body: bytes, bit: int) -> bytes:
    spoilt = bytearray(body)
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


def test_the_counts_of_letters_are_right(group: list[engine.KeyShare]) -> None:
    seen: list[int] = []

    def count(at: int, letter: Letter) -> bytes:
        seen.append(at)
        return letter.body

    new_key(1, spoil=count)
    assert len(seen) == KEYGEN_LETTERS
    seen.clear()
    presigned(group, (0, 1), 60, count)
    assert len(seen) == PRESIGN_LETTERS


@given(number=st.integers(0, KEYGEN_LETTERS - 1), bit=st.integers(0, 4_000))
def test_key_generation_notices_every_bit(number: int, bit: int) -> None:
    with pytest.raises((engine.MessageRefused, engine.CeremonyAborted), match="keygen: ") as caught:
        new_key(70, spoil=flipped(number, bit))
    assert caught.value.phase == "keygen"
    assert set(caught.value.guilty) <= {0, 1, 2}


@pytest.mark.parametrize("number", range(PRESIGN_LETTERS))
def test_presigning_notices_a_bit_in_every_message(group: list[engine.KeyShare], number: int) -> None:
    with pytest.raises((engine.MessageRefused, engine.CeremonyAborted), match="presign: ") as caught:
        presigned(group, (0, 2), 80 + number, flipped(number, random.Random(number).randrange(1 << 20)))
    assert set(caught.value.guilty) <= {0, 2}


@pytest.mark.nightly
@settings(max_examples=100)
@given(number=st.integers(0, PRESIGN_LETTERS - 1), bit=st.integers(0, 300_000))
def test_presigning_notices_every_bit(group: list[engine.KeyShare], number: int, bit: int) -> None:
    with pytest.raises((engine.MessageRefused, engine.CeremonyAborted), match="presign: "):
        presigned(group, (0, 2), 100, flipped(number, bit))


def test_signing_notices_every_bit(group: list[engine.KeyShare]) -> None:
    ours, theirs = (one.sign(MESSAGE) for one in presigned(group, (1, 2), 110))
    for bit in range(len(theirs.partial) * 8):
        with pytest.raises(engine.MessageRefused, match="sign: ") as caught:
            ours.combine({2: flip(theirs.partial, bit)})
        assert set(caught.value.guilty) <= {2}
    assert_signed(ours.combine({2: theirs.partial}), group[0])


def misread(number: int, field: int) -> Spoil:
    """Changes one digit of one number in one letter, so that it stays well formed."""

    def spoil(at: int, letter: Letter) -> bytes:
        if at != number:
            return letter.body
        found = list(NUMBER.finditer(letter.body, HEADER_BITS // 8))[field]
        place = random.Random(field).randrange(found.start() + 1, found.end() - 2)
        other = next(digit for digit in b"01" if digit != letter.body[place])
        return letter.body[:place] + bytes([other]) + letter.body[place + 1 :]

    return spoil


FIELDS = [
    *[(1, field) for field in range(12)],  # both range proofs of the first round
    *[(6, field) for field in range(0, 28, 5)],  # the encrypted products of the second, and their proofs
    *[pytest.param(3, field, marks=pytest.mark.nightly) for field in range(12)],
    *[pytest.param(number, field, marks=pytest.mark.nightly) for number in (6, 7) for field in range(28)],
]


@pytest.mark.parametrize(("number", "field"), FIELDS)
def test_every_number_of_presigning_is_proven(group: list[engine.KeyShare], number: int, field: int) -> None:
    sender = {1: 0, 3: 2, 6: 0, 7: 2}[number]
    with pytest.raises(engine.CeremonyAborted, match="presign: ") as caught:
        presigned(group, (0, 2), 140, misread(number, field))
    assert caught.value.guilty == (sender,)


class FoundError(Exception):
    """A message that a test was looking for."""


def test_the_challenge_to_ring_pedersen_parameters_has_all_its_bits() -> None:
    """Each of 128 answers z shows one bit: t**z is the commitment, or s times it. A bit that is always 0 asks nothing."""

    def stop(_: int, letter: Letter) -> bytes:
        if b"params_proof" in letter.body:
            raise FoundError(letter.body)
        return letter.body

    with pytest.raises(FoundError) as found:
        carry([engine.aux(party, 2, eid(150), primes(party)) for party in (0, 1)], stop)
    _, modulus, s, t, *rest = numbers(found.value.args[0])
    assert len(rest) == 256
    commitments, answers = rest[:128], rest[128:]
    bits = []
    for commitment, answer in zip(commitments[32:96], answers[32:96], strict=True):
        power = pow(t, answer, modulus)
        assert power in (commitment, s * commitment % modulus)
        bits.append(power != commitment)
    assert 8 < sum(bits) < 56


def numbers(body: bytes) -> list[int]:
    """The big numbers of a message in their order: in CBOR, a text after the key `value`, with its length in one byte or in two."""
    found = []
    for one in re.finditer(rb"evalue(?:x(.)|y(..))", body, flags=re.DOTALL):
        length = int.from_bytes(one[1] or one[2])
        found.append(int(body[one.end() : one.end() + length], 16))
    return found


@pytest.mark.parametrize("number", [0, 5, pytest.param(3, marks=pytest.mark.nightly), pytest.param(7, marks=pytest.mark.nightly)])
def test_the_paillier_keys_notice_a_bit(number: int) -> None:
    """A letter of each of the four rounds: commitment, comparison of broadcasts, parameters, proofs."""
    ceremonies = [engine.aux(party, 2, eid(120 + number), primes(party)) for party in (0, 1)]
    with pytest.raises((engine.MessageRefused, engine.CeremonyAborted), match="aux: ") as caught:
        carry(ceremonies, flipped(number, random.Random(number).randrange(1 << 20)))
    assert set(caught.value.guilty) <= {0, 1}


@pytest.mark.parametrize("phase", ["keygen", "presign"])
def test_whoever_sends_something_else_to_each_is_found_out(group: list[engine.KeyShare], phase: str) -> None:
    """A broadcast in two versions, both well formed: the parties compare what they heard before anything depends on it."""
    if phase == "keygen":
        honest = [engine.keygen(party, 3, 2, eid(1)) for party in range(3)]
        other = engine.keygen(0, 3, 2, eid(1)).start()[0].body
    else:
        (*shares,) = (engine.KeyShare.assemble(core, one.aux) for core, one in zip(new_key(130, threshold=3), group, strict=True))
        honest = [engine.presign(share, (0, 1, 2), eid(131)) for share in shares]
        other = engine.presign(shares[0], (0, 1, 2), eid(131)).start()[0].body

    def equivocate(at: int, letter: Letter) -> bytes:
        return other if at == 1 and letter.sender == 0 else letter.body

    with pytest.raises(engine.CeremonyAborted) as caught:
        carry(honest, equivocate)
    assert caught.value.phase == phase
