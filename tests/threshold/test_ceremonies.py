"""Ceremonies among honest parties: one address, signatures that others verify, and every wrong call refused by name."""

import copy
import os
import pickle
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import MESSAGE, Letter, assert_signed, carry, combined, eid, engine, new_key, presigned, primes

from agent.keys.digest import keccak

pytestmark = [pytest.mark.xdist_group("threshold"), pytest.mark.timeout(600)]


def test_all_parties_hold_the_same_key(group: list[engine.KeyShare]) -> None:
    assert [share.party for share in group] == [0, 1, 2]
    assert {(share.parties, share.threshold) for share in group} == {(3, 2)}
    assert len({share.address for share in group}) == len({share.fingerprint for share in group}) == 1
    assert group[0].address == keccak(group[0].public_key)[12:]


@pytest.mark.parametrize("signers", [(0, 1), (0, 2), (1, 2)])
def test_every_pair_signs_for_the_one_address(group: list[engine.KeyShare], signers: tuple[int, int]) -> None:
    presignatures = presigned(group, signers, 10 + sum(signers))
    assert [one.signers for one in presignatures] == [list(signers)] * 2
    assert_signed(combined(presignatures), group[0])


def test_a_group_makes_a_second_key_with_its_paillier_keys_and_all_sign(group: list[engine.KeyShare]) -> None:
    shares = [engine.KeyShare.assemble(core, share.aux) for core, share in zip(new_key(20, threshold=3), group, strict=True)]
    assert {share.address for share in shares}.isdisjoint({group[0].address})
    assert {share.fingerprint for share in shares}.isdisjoint({group[0].fingerprint})
    assert_signed(combined(presigned(shares, (0, 1, 2), 21), b""), shares[0], b"")


def test_a_stored_share_signs(group: list[engine.KeyShare]) -> None:
    stored = [share.to_bytes() for share in group]
    assert all(isinstance(one, bytearray) for one in stored), "what can be overwritten"
    loaded = [engine.KeyShare.from_bytes(stored[0]), engine.KeyShare.from_bytes(bytes(stored[1])), group[2]]
    assert loaded[0].to_bytes() == stored[0]
    assert [share.fingerprint for share in loaded] == [share.fingerprint for share in group]
    assert_signed(combined(presigned(loaded, (0, 1), 30)), group[0])


# -- a presignature signs once -----------------------------------------------------------------------------------------


def test_a_presignature_signs_once_and_cannot_be_copied(group: list[engine.KeyShare]) -> None:
    ceremonies = [engine.presign(group[party], (0, 1), eid(40)) for party in (0, 1)]
    ours, theirs = carry(ceremonies)
    with pytest.raises(engine.ThresholdError, match="taken already"):
        ceremonies[0].result()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            duplicate(ours)
    assert not hasattr(ours, "to_bytes")
    assert (ours.is_spent, ours.execution_id) == (False, eid(40))
    assert _in_a_fork(lambda: ours.sign(MESSAGE)) == "PresignatureSpent"
    signing = ours.sign(MESSAGE)
    assert ours.is_spent
    for message in (MESSAGE, b"another"):
        with pytest.raises(engine.PresignatureSpent, match="take another") as caught:
            ours.sign(message)
        assert (caught.value.phase, caught.value.guilty) == ("sign", ())
    answer = theirs.sign(MESSAGE).partial
    assert signing.combine({1: answer}) == signing.combine({1: answer}), "putting together spends nothing"


def test_answers_for_something_else_are_refused(group: list[engine.KeyShare]) -> None:
    (ours, theirs), (mine, other) = presigned(group, (0, 1), 41), presigned(group, (0, 1), 42)
    signing, elsewhere, another = ours.sign(MESSAGE), other.sign(MESSAGE), theirs.sign(b"another")
    assert signing.digest == keccak(MESSAGE)
    with pytest.raises(engine.MessageRefused, match="does not sign this message") as caught:
        signing.combine({1: another.partial})
    assert caught.value.guilty == (1,)
    relabelled = another.partial[:38] + signing.digest + another.partial[70:]
    with pytest.raises(engine.MessageRefused, match="does not sign this message"):
        signing.combine({1: relabelled})
    with pytest.raises(engine.MessageRefused, match="another execution"):
        signing.combine({1: elsewhere.partial})
    with pytest.raises(engine.MessageRefused, match="does not sign this message"):
        signing.combine({1: elsewhere.partial[:6] + eid(41) + elsewhere.partial[38:]})
    for partials in ({}, {2: another.partial}, {0: signing.partial}, {0: signing.partial, 1: another.partial}):
        with pytest.raises(engine.MessageRefused, match="all other signers"):
            signing.combine(partials)
    assert_signed(mine.sign(MESSAGE).combine({1: elsewhere.partial}), group[0])


def test_a_ceremony_ends_with_the_process_that_began_it() -> None:
    ceremony = engine.keygen(0, 2, 2, eid(1))
    assert _in_a_fork(ceremony.start) == "ThresholdError"
    assert ceremony.start()


# -- messages that are not for us --------------------------------------------------------------------------------------


def test_stray_messages_are_refused_and_the_ceremony_goes_on() -> None:
    ours, theirs = engine.keygen(0, 2, 2, eid(1)), engine.keygen(1, 2, 2, eid(1))
    with pytest.raises(engine.MessageRefused, match="has not started"):
        ours.receive(1, theirs.start()[0].body)
    ours.start()
    first = engine.keygen(1, 2, 2, eid(1)).start()[0].body
    wrong = {
        "takes no part": (2, first),
        "no part": (0, first),
        "cut short": (1, first[:37]),
        "malformed": (1, first[:-1]),
        "too long": (1, first + bytes(16 * 1024)),
        "another execution": (1, engine.keygen(1, 2, 2, eid(2)).start()[0].body),
        "another phase": (1, engine.aux(1, 2, eid(1), primes(1)).start()[0].body),
        "another sender": (1, engine.keygen(0, 2, 2, eid(1)).start()[0].body),
        "another party": (1, first[:4] + b"\0\1" + first[6:]),
    }
    for reason, (sender, body) in wrong.items():
        with pytest.raises(engine.MessageRefused, match=reason) as caught:
            ours.receive(sender, body)
        assert caught.value.phase == "keygen"
    answer = ours.receive(1, first)
    assert answer, "the right one still counts"
    with pytest.raises(engine.MessageRefused, match="already") as caught:
        ours.receive(1, first)
    assert caught.value.guilty == (1,)
    with pytest.raises(engine.ThresholdError, match="starts once"):
        ours.start()


BOMBS = [bytes([kind | 27]) + b"\xff" * 8 for kind in (0x40, 0x60, 0x80, 0xA0)] + [
    bytes([kind]) * 4_000 for kind in (0x81, 0xC1, 0x9F, 0x7F)
]


@given(noise=st.one_of(st.binary(max_size=300), st.sampled_from(BOMBS)), tagged=st.booleans())
def test_noise_is_refused(noise: bytes, tagged: bool) -> None:
    """Lengths that promise more than there is, and nesting without end, included."""
    ceremony = engine.keygen(0, 2, 2, eid(1))
    ceremony.start()
    header = bytes([1, 1, 0, 1, 255, 255]) + eid(1)
    with pytest.raises(engine.MessageRefused, match="malformed"):
        ceremony.receive(1, header + (b"\xa1fRound1" if tagged else b"") + noise)


def test_a_message_relabelled_from_another_execution_fails_the_proofs() -> None:
    """What the header says can be forged; what the proofs were made for cannot."""

    def relabel(_: int, letter: Letter) -> bytes:
        return letter.body[:6] + (eid(2) if letter.to == 0 else eid(1)) + letter.body[38:]

    with pytest.raises(engine.CeremonyAborted, match="keygen"):
        carry([engine.keygen(0, 2, 2, eid(2)), engine.keygen(1, 2, 2, eid(1))], relabel)


def test_parties_that_disagree_on_the_threshold_make_no_key() -> None:
    with pytest.raises(engine.CeremonyAborted):
        carry([engine.keygen(0, 3, 2, eid(1)), engine.keygen(1, 3, 2, eid(1)), engine.keygen(2, 3, 3, eid(1))])


def test_without_one_party_nothing_happens() -> None:
    ours, theirs = (engine.keygen(party, 3, 2, eid(1)) for party in (0, 1))
    ours.start()
    assert ours.receive(1, theirs.start()[0].body) == [], "the third has not spoken"
    assert not ours.is_done
    with pytest.raises(engine.ThresholdError, match="no result"):
        ours.result()


def test_late_messages_are_refused() -> None:
    ceremonies = [engine.keygen(party, 2, 2, eid(1)) for party in (0, 1)]
    last: list[Letter] = []
    carry(ceremonies, lambda _, letter: (last.append(letter), letter.body)[1])
    with pytest.raises(engine.MessageRefused, match="has ended"):
        ceremonies[last[-1].to].receive(last[-1].sender, last[-1].body)


# -- wrong calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: engine.keygen(3, 3, 2, eid(1)), "does not take part"),
        (lambda: engine.keygen(0, 3, 1, eid(1)), "threshold"),
        (lambda: engine.keygen(0, 3, 4, eid(1)), "threshold"),
        (lambda: engine.keygen(0, 1, 1, eid(1)), "threshold"),
        (lambda: engine.keygen(0, engine.PARTIES_MAX + 1, 2, eid(1)), "2 to 16"),
        (lambda: engine.keygen(0, 3, 2, eid(1)[1:]), "32 bytes"),
        (lambda: engine.aux(0, 1, eid(1), primes(0)), "2 to 16"),
        (lambda: engine.Primes.from_bytes(b"isthmus threshold primes 1\n"), "another backup"),
        (lambda: engine.KeyShare.from_bytes(bytes(engine.MESSAGE_BYTES_MAX + 1)), "too many"),
    ],
)
def test_a_wrong_call_is_refused(call: Callable[[], object], reason: str) -> None:
    with pytest.raises(engine.ThresholdError, match=reason):
        call()


@pytest.mark.parametrize("signers", [(0,), (0, 1, 2), (1, 0), (0, 0), (0, 3), (1, 2)])
def test_signers_are_as_many_as_the_threshold_in_order_and_we_among_them(
    group: list[engine.KeyShare], signers: tuple[int, ...]
) -> None:
    with pytest.raises(engine.ThresholdError, match="presign: "):
        engine.presign(group[0], signers, eid(1))


def test_halves_of_different_parties_do_not_fit(group: list[engine.KeyShare]) -> None:
    with pytest.raises(engine.ThresholdError, match="do not fit"):
        engine.KeyShare.assemble(new_key(50)[0], group[1].aux)


def test_primes_serve_once() -> None:
    ours = primes(0)
    assert engine.Primes.from_bytes(ours.to_bytes()).to_bytes() == ours.to_bytes()
    engine.aux(0, 2, eid(1), ours)
    for again in (ours.to_bytes, lambda: engine.aux(0, 2, eid(2), ours)):
        with pytest.raises(engine.ThresholdError, match="generate others"):
            again()


@given(noise=st.binary(max_size=200), cut=st.integers(0, 13_000))
def test_what_is_no_share_is_refused(group: list[engine.KeyShare], noise: bytes, cut: int) -> None:
    stored = bytes(group[0].to_bytes())
    for data in (noise, stored[:26] + noise, stored[:cut], stored + noise + b"\0"):
        with pytest.raises(engine.ThresholdError, match="share: "):
            engine.KeyShare.from_bytes(data)


@given(where=st.integers(0, 13_000), bit=st.integers(0, 7))
def test_a_damaged_share_never_ends_the_process(group: list[engine.KeyShare], where: int, bit: int) -> None:
    """Most damage is seen at once. The rest must not crash: that a backup is whole is for its encryption to prove."""
    stored = group[0].to_bytes()
    stored[where] ^= 1 << bit
    try:
        share = engine.KeyShare.from_bytes(stored)
    except engine.ThresholdError:
        return
    assert share.to_bytes() == stored


def test_nothing_shows_a_secret(group: list[engine.KeyShare]) -> None:
    assert repr(group[0]) == "KeyShare(party 0 of 3, 2 sign, secret=****)"
    assert repr(primes(0)) == "Primes(****)"
    assert repr(engine.keygen(0, 2, 2, eid(1))) == "Ceremony(keygen, party 0 of [0, 1])"


@pytest.mark.nightly
def test_primes_are_generated() -> None:
    assert len(engine.Primes.generate().to_bytes()) > 1_600


def _in_a_fork(call: Callable[[], object]) -> str:
    """The name of what `call` raises in a forked child, which is what a copy of this process would meet."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what this is about
        child = os.fork()
    if child == 0:
        try:
            call()
            os.write(writing, b"nothing")
        except engine.ThresholdError as error:
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said
