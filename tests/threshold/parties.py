"""Three parties in one process: ceremonies whose messages are carried by hand, and may be spoilt on the way.

Where the engine is not built, every test that imports this says so and does not run; with ISTHMUS_REQUIRE_MPC=1 it fails instead.
The primes in `primes.hex` only save the tests' time. They are public: a key made with them is nobody's secret.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import pytest
from coincurve import PublicKey
from eth_keys.datatypes import Signature

from agent.domain.errors import SignerError
from agent.keys.digest import keccak

try:
    from agent.keys.threshold import engine
except SignerError as error:
    if os.environ.get("ISTHMUS_REQUIRE_MPC") == "1":
        raise
    pytest.skip(str(error), allow_module_level=True)

PRIMES = Path(__file__).with_name("primes.hex")
MESSAGE = b"\x19\x01" + bytes(range(64))
HALF_ORDER = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0

T = TypeVar("T")


class Letter(NamedTuple):
    """One message on its way to one party."""

    sender: int
    to: int
    body: bytes


class Known(Protocol):
    """What everybody may know of a key."""

    @property
    def public_key(self) -> bytes: ...
    @property
    def address(self) -> bytes: ...


Spoil = Callable[[int, Letter], bytes]  # the number of the letter in this run -> what arrives


def untouched(_: int, letter: Letter) -> bytes:
    return letter.body


def carry(ceremonies: Sequence[engine.Ceremony[T]], spoil: Spoil = untouched) -> list[T]:
    """Run to the end and return the results; parties compute side by side. Raises what the first party to object raises."""
    by_party = {one.party: one for one in ceremonies}
    count = 0

    def letters(sender: int, messages: list[engine.Message]) -> list[Letter]:
        others = [party for party in by_party if party != sender]
        return [Letter(sender, to, one.body) for one in messages for to in (others if one.to is None else [one.to])]

    def take(mail: tuple[int, list[tuple[int, Letter]]]) -> list[Letter]:
        party, inbox = mail
        one = by_party[party]
        return [new for number, letter in inbox for new in letters(party, one.receive(letter.sender, spoil(number, letter)))]

    with ThreadPoolExecutor(len(ceremonies)) as pool:
        sent = [
            new
            for one, messages in zip(ceremonies, pool.map(lambda c: c.start(), ceremonies), strict=True)
            for new in letters(one.party, messages)
        ]
        while sent:
            inboxes: dict[int, list[tuple[int, Letter]]] = {party: [] for party in by_party}
            for letter in sent:
                inboxes[letter.to].append((count, letter))
                count += 1
            sent = [new for batch in pool.map(take, inboxes.items()) for new in batch]
    assert all(one.is_done for one in ceremonies), "a ceremony waits for a message that nobody sent"
    return [one.result() for one in ceremonies]


def eid(number: int) -> bytes:
    return number.to_bytes(32)


def primes(party: int) -> engine.Primes:
    return engine.Primes.from_bytes(bytes.fromhex(PRIMES.read_text(encoding="ascii").split()[party]))


def new_key(number: int, parties: int = 3, threshold: int = 2, spoil: Spoil = untouched) -> list[engine.Core]:
    return carry([engine.keygen(party, parties, threshold, eid(number)) for party in range(parties)], spoil)


def presigned(
    shares: Sequence[engine.KeyShare], signers: Sequence[int], number: int, spoil: Spoil = untouched
) -> list[engine.Presignature]:
    return carry([engine.presign(shares[party], signers, eid(number)) for party in signers], spoil)


def combined(presignatures: Sequence[engine.Presignature], message: bytes = MESSAGE) -> bytes:
    """The signature, after every signer has put it together and all came to the same."""
    signers = presignatures[0].signers
    signings = dict(zip(signers, [one.sign(message) for one in presignatures], strict=True))
    found = {
        signing.combine({other: signings[other].partial for other in signers if other != party})
        for party, signing in signings.items()
    }
    assert len(found) == 1
    return found.pop()


def assert_signed(signature: bytes, key: Known, message: bytes = MESSAGE) -> None:
    """Two other implementations recover the shared key from the signature, and s is low."""
    digest = keccak(message)
    assert len(signature) == 65
    assert int.from_bytes(signature[32:64]) <= HALF_ORDER
    assert PublicKey.from_signature_and_message(signature, digest, hasher=None).format(compressed=False)[1:] == key.public_key
    assert Signature(signature).recover_public_key_from_msg_hash(digest).to_canonical_address() == key.address
