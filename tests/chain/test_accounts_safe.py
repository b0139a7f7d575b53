"""A Safe on a real chain: its own hashes, every form of an owner's word, and a key that acts for it within its policy."""

from collections.abc import Iterator
from typing import Any

import account_kit as kit
import msgspec
import pytest
from account_kit import Chain
from eth_account.messages import encode_defunct

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignatureSlot, SignedTransaction
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import Consent, packed, place_of
from agent.keys.accounts.safe import (
    SafeTx,
    approve_data,
    exec_data,
    message_typed,
    read_exec,
    safe_tx_hash,
    safe_tx_typed,
    unwrap,
    wrap,
)
from agent.keys.digest import typed_digest, typed_preimage
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.simulation.chain.deploy import PERMIT2
from agent.simulation.chain.rpc import RpcError
from agent.simulation.chain.wallets import SafeContracts, deploy_safe_contracts, new_safe

pytestmark = pytest.mark.chain
ROUTER = "0x" + "a1" * 20
A, B, C = (kit.account(name).address for name in ("a", "b", "c"))
_EXEC = "address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256"
PAIR = (Call(kit.SOMEBODY, b"", 123), Call(kit.OTHER, b"\x01\x02", 456))


class Desk(Chain):
    """A chain with Safes of one, of two of three, and of two of which one is a Safe."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.rpc)
        self.contracts: SafeContracts = deploy_safe_contracts(self.deployer)
        self.single = new_safe(self.deployer, self.contracts, [A])
        self.shared = new_safe(self.deployer, self.contracts, [A, B, C], 2)
        self.inner = new_safe(self.deployer, self.contracts, [C], 1, salt=7)
        self.nested = new_safe(self.deployer, self.contracts, [A, self.inner], 2)
        self.pay(A, B, C, self.single, self.shared, self.nested)

    def number(self, safe: str) -> int:
        found: int = self.read(["uint256"], safe, "nonce()")
        return found

    def hash(self, safe: str, tx: SafeTx) -> bytes:
        return safe_tx_hash(self.chain_id, safe, tx, self.number(safe))

    def batch(self) -> SafeTx:
        return wrap(PAIR, self.contracts.multi_send)

    def executed(self, safe: str, tx: SafeTx, *consents: Consent, by: str = "a") -> dict[str, Any]:
        return self.send(by, safe, exec_data(tx, packed(consents)))


@pytest.fixture(scope="module")
def started() -> Iterator[Desk]:
    with kit.running() as chain:
        yield Desk(chain)


@pytest.fixture
def desk(started: Desk) -> Iterator[Desk]:
    snapshot = started.rpc.call("evm_snapshot")
    yield started
    started.rpc.call("evm_revert", snapshot)


def ecdsa(name: str, digest: bytes) -> Consent:
    return Consent(kit.account(name).address, "ecdsa", kit.signature(name, digest))


def fields(tx: SafeTx) -> tuple[object, ...]:
    return tuple(getattr(tx, name) for name in tx.__struct_fields__)


# -- the Safe's own hashes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tx",
    [
        SafeTx(kit.SOMEBODY, 0, b""),
        SafeTx(kit.SOMEBODY, 2**256 - 1, bytes(range(256)), 1, 1, 2, 3, kit.OTHER, kit.SOMEBODY),
        wrap(PAIR, kit.OTHER),
    ],
)
def test_the_hash_and_its_preimage_are_the_contract_s(desk: Desk, tx: SafeTx) -> None:
    found = desk.read(["bytes32"], desk.shared, f"getTransactionHash({_EXEC})", *fields(tx), 41)
    assert safe_tx_hash(desk.chain_id, desk.shared, tx, 41) == found
    preimage = desk.read(["bytes"], desk.shared, f"encodeTransactionData({_EXEC})", *fields(tx), 41)
    assert typed_preimage(safe_tx_typed("", desk.chain_id, desk.shared, tx, 41)) == preimage


def test_the_message_hash_is_the_handler_s_and_the_safe_says_yes_for_a_venue(desk: Desk) -> None:
    asked = kit.key("the hash of an order")
    typed = message_typed("", desk.chain_id, desk.shared, asked)
    handler = "getMessageHashForSafe(address,bytes)"
    assert typed_digest(typed) == desk.read(["bytes32"], desk.contracts.fallback_handler, handler, desk.shared, asked)
    digest = typed_digest(typed)
    both = packed((ecdsa("a", digest), ecdsa("b", digest)))
    said = desk.rpc.read(desk.shared, "isValidSignature(bytes32,bytes)", asked, both)
    assert said[:4].hex() == "1626ba7e"
    with pytest.raises(RpcError):
        desk.rpc.read(desk.shared, "isValidSignature(bytes32,bytes)", kit.key("another order"), both)


# -- owners ------------------------------------------------------------------------------------------------------------


def test_one_owner_one_call(desk: Desk) -> None:
    tx = wrap((Call(kit.SOMEBODY, b"", 5),), desk.contracts.multi_send)
    receipt = desk.executed(desk.single, tx, ecdsa("a", desk.hash(desk.single, tx)), by="b")
    assert (desk.wei(kit.SOMEBODY), desk.number(desk.single)) == (5, 1)
    assert int(receipt["gasUsed"], 16) < 120_000


def test_two_of_three_and_a_batch_of_all_or_nothing(desk: Desk) -> None:
    tx = desk.batch()
    digest = desk.hash(desk.shared, tx)
    desk.executed(desk.shared, tx, ecdsa("b", digest), ecdsa("a", digest))
    assert (desk.wei(kit.SOMEBODY), desk.wei(kit.OTHER)) == (123, 456)
    failing = wrap((*PAIR, Call(desk.token, b"\xde\xad\xbe\xef")), desk.contracts.multi_send)
    digest = desk.hash(desk.shared, failing)
    with pytest.raises(RpcError, match="reverted"):
        desk.executed(desk.shared, failing, ecdsa("b", digest), ecdsa("a", digest))
    assert (desk.wei(kit.SOMEBODY), desk.wei(kit.OTHER)) == (123, 456)


def test_one_signature_of_two_is_not_enough_and_a_stranger_s_is_none(desk: Desk) -> None:
    tx = desk.batch()
    digest = desk.hash(desk.shared, tx)
    for consents in ((ecdsa("a", digest),), (ecdsa("a", digest), ecdsa("stranger", digest))):
        with pytest.raises(RpcError, match="GS02"):
            desk.asked(A, desk.shared, exec_data(tx, packed(consents)))


def test_an_owner_who_approved_on_the_chain_and_one_who_sends(desk: Desk) -> None:
    tx = desk.batch()
    digest = desk.hash(desk.shared, tx)
    desk.send("b", desk.shared, approve_data(digest))
    desk.executed(desk.shared, tx, Consent(B, "approved"), ecdsa("c", digest), by="c")
    digest = desk.hash(desk.shared, tx)
    desk.executed(desk.shared, tx, Consent(A, "approved"), ecdsa("c", digest), by="a")
    assert desk.wei(kit.SOMEBODY) == 2 * 123


def test_an_owner_that_is_a_safe_and_one_that_signs_with_the_prefix(desk: Desk) -> None:
    tx = desk.batch()
    typed = safe_tx_typed("", desk.chain_id, desk.nested, tx, desk.number(desk.nested))
    asked = typed_digest(message_typed("", desk.chain_id, desk.inner, typed_preimage(typed)))
    digest = typed_digest(typed)
    prefixed = bytes(kit.account("a").sign_message(encode_defunct(digest)).signature)
    by_contract = Consent(desk.inner, "contract", packed((ecdsa("c", asked),)))
    desk.executed(desk.nested, tx, by_contract, Consent(A, "eth_sign", prefixed))
    assert desk.wei(kit.OTHER) == 456


# -- a key that acts for its Safe ----------------------------------------------------------------------------------------


def signer_of(desk: Desk, name: str, safe: str) -> LocalSigner:
    signer = LocalSigner(bytearray(kit.key(name)))
    at = Safe(safe, desk.contracts.multi_send)
    tokens = frozenset({desk.token})
    signer.allow(swap_policy(desk.chain_id, signer.address, ROUTER, PERMIT2, tokens, 100 * 10**9, 900_000, account=at))
    return signer


def calls_of(desk: Desk, tx: SafeTx, safe: str, owners: tuple[Consent, ...], slots: tuple[SignatureSlot, ...] = ()) -> Calls:
    target = (Call(safe, exec_data(tx, packed(owners))),)
    return Calls("o-1", desk.chain_id, target, slots, desk.nonce(A), 400_000, 30 * 10**9, 10**9)


def test_a_key_approves_for_its_safe_by_sending_alone(desk: Desk) -> None:
    signer = signer_of(desk, "a", desk.single)
    tx = wrap((kit.approve(desk.token, PERMIT2, 700),), desk.contracts.multi_send)
    signed = signer.sign_now(calls_of(desk, tx, desk.single, (Consent(A, "approved"),)))
    assert isinstance(signed, SignedTransaction)
    desk.raw(signed.raw)
    assert (desk.allowed(desk.single, PERMIT2), desk.allowed(A, PERMIT2)) == (700, 0)


def slotted(desk: Desk, tx: SafeTx, other: Consent, signed: SafeTx | None = None) -> Calls:
    """Owner A's place is empty in a Safe of two of three: the key fills it with its signature of `signed`."""
    owners = (Consent(A, "empty"), other)
    bare = calls_of(desk, tx, desk.shared, owners)
    at = read_exec(bare.calls[0].data).signatures_at + place_of(owners, A)
    typed = safe_tx_typed("o-1", desk.chain_id, desk.shared, signed or tx, desk.number(desk.shared))
    return msgspec.structs.replace(bare, slots=(SignatureSlot(0, at, typed),))


def test_a_key_signs_as_an_owner_inside_the_call_that_it_sends(desk: Desk) -> None:
    signer = signer_of(desk, "a", desk.shared)
    tx = wrap((kit.approve(desk.token, PERMIT2, 0), kit.approve(desk.token, PERMIT2, 700)), desk.contracts.multi_send)
    signed = signer.sign_now(slotted(desk, tx, ecdsa("c", desk.hash(desk.shared, tx))))
    assert isinstance(signed, SignedTransaction)
    desk.raw(signed.raw)
    assert desk.allowed(desk.shared, PERMIT2) == 700


def test_a_key_does_not_sign_another_safe_transaction_than_the_one_it_sends(desk: Desk) -> None:
    signer = signer_of(desk, "a", desk.shared)
    tx, other = (wrap((kit.approve(desk.token, PERMIT2, units),), desk.contracts.multi_send) for units in (700, 701))
    consent = ecdsa("c", desk.hash(desk.shared, tx))
    with pytest.raises(SignerError, match="is not what the account is told"):
        signer.sign_now(slotted(desk, tx, consent, signed=other))
    assert unwrap(tx, desk.contracts.multi_send)[0].data != unwrap(other, desk.contracts.multi_send)[0].data


def test_two_keys_each_with_its_policy_make_a_transaction_together(desk: Desk) -> None:
    tx = wrap((kit.approve(desk.token, PERMIT2, 900),), desk.contracts.multi_send)
    typed = safe_tx_typed("o-1", desk.chain_id, desk.shared, tx, desk.number(desk.shared))
    said = [signer_of(desk, name, desk.shared).sign_now(typed) for name in ("a", "b")]
    consents = [Consent(one.signer, "ecdsa", one.signature) for one in said]  # type: ignore[union-attr]
    desk.executed(desk.shared, tx, *consents, by="c")
    assert desk.allowed(desk.shared, PERMIT2) == 900
