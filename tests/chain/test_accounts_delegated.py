"""EIP-7702 on a real chain: an EOA takes the code of an account, and its key then sends several calls at once within its policy."""

from collections.abc import Iterator

import account_kit as kit
import pytest
from account_kit import Chain

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignedTransaction
from agent.keys.accounts.eip7702 import (
    DELEGATED,
    Authorization,
    SignedAuthorization,
    authorization_preimage,
    set_code_preimage,
    set_code_raw,
)
from agent.keys.accounts.erc4337 import execute_data
from agent.keys.accounts.kinds import Delegated
from agent.keys.digest import Transaction, address_bytes, keccak
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.simulation.chain.artifacts import third_party
from agent.simulation.chain.deploy import PERMIT2

pytestmark = pytest.mark.chain
OWNER, SPONSOR, ROUTER = kit.account("owner").address, kit.account("sponsor").address, "0x" + "a7" * 20


@pytest.fixture
def chain() -> Iterator[Chain]:
    with kit.running() as chain:
        chain.pay(OWNER, SPONSOR)
        yield chain


def delegate(chain: Chain, by: str, delegate: str) -> None:
    """`by` sends the transaction; the owner's account takes the code."""
    sender = kit.account(by).address
    nonce = chain.nonce(OWNER) + (sender == OWNER)  # the sender's own number is used up first
    authorization = Authorization(chain.chain_id, delegate, nonce)
    signed = SignedAuthorization(authorization, kit.signature("owner", keccak(authorization_preimage(authorization))))
    tx = Transaction(chain.chain_id, chain.nonce(sender), 10**9, 20 * 10**9, 200_000, address_bytes(OWNER), 0, b"")
    chain.raw(set_code_raw(tx, [signed], kit.signature(by, keccak(set_code_preimage(tx, [signed])))))


@pytest.mark.parametrize("by", ["owner", "sponsor"])
def test_one_transaction_of_many_calls_from_an_eoa(chain: Chain, by: str) -> None:
    code = chain.deployer.deploy(third_party("Simple7702Account"))
    chain.deployer.settle()
    delegate(chain, by, code)
    assert bytes.fromhex(chain.rpc.call("eth_getCode", OWNER, "latest")[2:]) == DELEGATED + address_bytes(code)
    signer = LocalSigner(bytearray(kit.key("owner")))
    at, tokens = Delegated(OWNER, code), frozenset({chain.token})
    signer.allow(swap_policy(chain.chain_id, OWNER, ROUTER, PERMIT2, tokens, 100 * 10**9, 900_000, account=at))

    def calls(*inner: Call) -> Calls:
        target = (Call(OWNER, execute_data(inner, "0.8")),)
        return Calls("o-1", chain.chain_id, target, (), chain.nonce(OWNER), 300_000, 30 * 10**9, 10**9)

    signed = signer.sign_now(calls(kit.approve(chain.token, PERMIT2, 0), kit.approve(chain.token, PERMIT2, 44)))
    assert isinstance(signed, SignedTransaction)
    receipt = chain.raw(signed.raw)
    assert (chain.allowed(OWNER, PERMIT2), int(receipt["gasUsed"], 16) < 120_000) == (44, True)
    with pytest.raises(SignerError, match="only Permit2"):
        signer.sign_now(calls(kit.approve(chain.token, PERMIT2, 0), kit.approve(chain.token, kit.SOMEBODY, 44)))
