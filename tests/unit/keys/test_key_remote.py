"""A key that lies elsewhere: the same bytes and the same refusals as a key of this process, and no belief in what it answers."""

import asyncio
import copy
import pickle
from collections.abc import Callable

import onchain_samples as o
import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.domain.plan import Calls, VenueRequest
from agent.keys.local import LocalSigner
from agent.keys.remote import ORDER, RemoteSigner, recovered, signature_of
from agent.keys.steps import Preimage
from agent.ports import Custody

OTHER = "0x" + "17" * 32


class Elsewhere:
    """A Key whose far end is eth-account; `bend` changes what comes back, `asked` is what it was asked for."""

    key_id = "far"
    custody = Custody("test", "hot", "milliseconds")

    def __init__(self, bend: Callable[[bytes], bytes] = bytes, secret: str = o.KEY_HEX) -> None:
        self._account, self._bend = Account.from_key(secret), bend
        self.address = Account.from_key(o.KEY_HEX).address
        self.asked: list[Preimage] = []
        self.is_deaf = False

    async def signature(self, preimage: Preimage) -> bytes:
        self.asked.append(preimage)
        if self.is_deaf:
            await asyncio.Event().wait()
        return self._bend(bytes(self._account.unsafe_sign_hash(preimage.digest).signature))

    async def health(self) -> str:
        return "deaf" if self.is_deaf else ""

    async def close(self) -> None:
        self.is_deaf = True


def signer(key: Elsewhere, patience_s: float = 5.0) -> RemoteSigner:
    made = RemoteSigner(key, patience_s=patience_s)
    made.allow(o.policy())
    return made


def local() -> LocalSigner:
    made = LocalSigner(bytearray.fromhex(o.KEY_HEX))
    made.allow(o.policy())
    return made


async def test_what_it_signs_is_what_a_key_of_this_process_signs() -> None:
    key = Elsewhere()
    for unsigned in (o.permit_and_swap(), o.permit_typed(), o.calls(o.approve(), to=o.USDC)):
        assert await signer(key).sign(unsigned) == await local().sign(unsigned)
    assert [one.kind for one in key.asked] == ["typed", "transaction", "typed", "transaction"]


async def test_what_the_policy_refuses_the_key_is_never_asked() -> None:
    key = Elsewhere()
    refused = (
        o.calls(o.approve(), to="0x" + "99" * 20),
        o.calls(b"\xde\xad\xbe\xef" + bytes(64)),
        VenueRequest("o-1", "binance", "place", ()),
        Calls("o", 5, (), (), 0, 1, 1, 1),
    )
    for unsigned in refused:
        with pytest.raises(SignerError):
            await signer(key).sign(unsigned)
    with pytest.raises(SignerError, match="no policy"):
        await RemoteSigner(key).sign(o.permit_and_swap())
    assert key.asked == []


@pytest.mark.parametrize(
    "bend",
    [
        lambda s: s[:64],
        lambda s: s[:64] + bytes((s[64] - 27,)),
        lambda s: s[:64] + bytes((55 - s[64],)),
        lambda s: s[:32] + (ORDER - int.from_bytes(s[32:64], "big")).to_bytes(32, "big") + bytes((55 - s[64],)),
        lambda s: bytes(65),
        lambda s: bytes((s[0] ^ 1,)) + s[1:],
        lambda s: b"",
    ],
    ids=["no v", "v of 0 or 1", "wrong v", "high s", "zeros", "one bit", "nothing"],
)
async def test_an_answer_that_is_not_its_signature_is_not_used(bend: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SignerError, match="not its own"):
        await signer(Elsewhere(bend)).sign(o.permit_and_swap())


async def test_another_keys_signature_is_not_used() -> None:
    with pytest.raises(SignerError, match="not its own"):
        await signer(Elsewhere(secret=OTHER)).sign(o.permit_and_swap())


async def test_silence_is_unavailable_and_ends() -> None:
    key = Elsewhere()
    key.is_deaf = True
    with pytest.raises(SignerUnavailableError, match="did not answer"):
        await signer(key, patience_s=0.01).sign(o.permit_and_swap())


async def test_closed_means_closed_and_it_hides() -> None:
    made = signer(Elsewhere())
    assert await made.health() == ""
    await made.close()
    await made.close()
    assert await made.health() == "it is closed"
    with pytest.raises(SignerError, match="closed"):
        await made.sign(o.permit_and_swap())
    assert "****" in repr(made)
    for attempt in (lambda: pickle.dumps(made), lambda: copy.copy(made)):
        with pytest.raises(SignerError):
            attempt()


async def test_a_policy_is_given_once_and_for_this_account() -> None:
    made = signer(Elsewhere())
    with pytest.raises(SignerError, match="already"):
        made.allow(o.policy())
    with pytest.raises(SignerError, match="this key is"):
        RemoteSigner(Elsewhere()).allow(o.policy(owner="0x" + "12" * 20))


@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_a_bare_pair_becomes_the_one_form_that_chains_take(digest: bytes, is_high: bool) -> None:
    """Services give s as it comes out: above half the order as often as below."""
    account = Account.from_key(o.KEY_HEX)
    signed = account.unsafe_sign_hash(digest)
    found = signature_of(digest, signed.r, ORDER - signed.s if is_high else signed.s, account.address)
    assert found == bytes(signed.signature)
    assert recovered(digest, found) == account.address
    with pytest.raises(SignerError, match="not of"):
        signature_of(digest, signed.r, signed.s, Account.from_key(OTHER).address)
    for r, s in ((0, signed.s), (signed.r, 0), (ORDER, signed.s), (signed.r, 2**256 - 1), (2**300, signed.s)):
        with pytest.raises(SignerError, match="not of"):
            signature_of(digest, r, s, account.address)
