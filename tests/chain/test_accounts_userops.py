"""ERC-4337 on a real chain: our hashes are the EntryPoint's, and a key brings its account's operations itself."""

from collections.abc import Iterator
from typing import Any

import account_kit as kit
import msgspec
import pytest
from account_kit import Chain
from eth_abi.abi import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignatureSlot, SignedTransaction
from agent.keys.accounts.erc4337 import (
    INIT_7702,
    UserOperation,
    Version,
    execute_data,
    handle_data,
    prefixed,
    read_handle,
    user_op_hash,
    user_op_typed,
)
from agent.keys.accounts.functions import function
from agent.keys.accounts.kinds import UserOps
from agent.keys.digest import keccak
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.simulation.chain.artifacts import third_party
from agent.simulation.chain.deploy import PERMIT2
from agent.simulation.chain.rpc import RpcError

pytestmark = pytest.mark.chain
VERSIONS: tuple[Version, ...] = ("0.7", "0.8")
CREATE = function("createAccount(address,uint256)")
OP = "(address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes)"
HANDLED = "0x49628fd1471006c1482da88028e9ce4dbb080b815c9b0344d39e5a8e6ec1419f"  # UserOperationEvent(...)
OWNER, ROUTER = kit.account("owner").address, "0x" + "a7" * 20


class Desk(Chain):
    """Both EntryPoints, and for each an account of `owner` that does not exist yet but has money."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.rpc)
        self.entry: dict[str, str] = {}
        self.init: dict[str, bytes] = {}
        self.account: dict[str, str] = {}
        for version in VERSIONS:
            entry = self.deployer.deploy(third_party(f"EntryPoint{version.replace('.', '')}"))
            factory = self.deployer.deploy(third_party(f"SimpleAccountFactory{version.replace('.', '')}"), entry)
            self.deployer.settle()
            self.entry[version] = entry
            self.init[version] = bytes.fromhex(factory[2:]) + CREATE.data(OWNER, 1)
            self.account[version] = self.read(["address"], factory, "getAddress(address,uint256)", OWNER, 1)
        self.pay(OWNER, *self.account.values())

    def op(self, version: Version, *calls: Call, is_new: bool = False) -> UserOperation:
        sender, init = self.account[version], self.init[version] if is_new else b""
        nonce = self.read(["uint256"], self.entry[version], "getNonce(address,uint192)", sender, 0)
        data = execute_data(calls, version)
        return UserOperation(sender, nonce, data, 500_000, 200_000, 60_000, 20 * 10**9, 10**9, init_code=init)

    def signed(self, version: Version, op: UserOperation) -> UserOperation:
        digest = user_op_hash(op, self.entry[version], self.chain_id, version)
        digest = keccak(prefixed(digest)) if version == "0.7" else digest
        return msgspec.structs.replace(op, signature=kit.signature("owner", digest))

    def handled(self, version: Version, op: UserOperation) -> bool:
        """Whether the operation happened, by the EntryPoint's own event."""
        receipt = self.send("owner", self.entry[version], handle_data(op, OWNER), gas=2_000_000)
        (log,) = [one for one in receipt["logs"] if one["topics"][0] == HANDLED]
        return int(log["data"][66:130], 16) == 1


@pytest.fixture(scope="module")
def started() -> Iterator[Desk]:
    with kit.running() as chain:
        yield Desk(chain)


@pytest.fixture
def desk(started: Desk) -> Iterator[Desk]:
    snapshot = started.rpc.call("evm_snapshot")
    yield started
    started.rpc.call("evm_revert", snapshot)


def asked(desk: Desk, version: Version, op: UserOperation) -> bytes:
    fields: dict[str, Any] = {name: getattr(op, name) for name in op.__struct_fields__}
    limits = op.verification_gas.to_bytes(16, "big") + op.call_gas.to_bytes(16, "big")
    fees = op.gas_tip.to_bytes(16, "big") + op.gas_fee_max.to_bytes(16, "big")
    tail = (limits, op.pre_gas, fees, fields["paymaster"], fields["signature"])
    packed = (op.sender, op.nonce, op.init_code, op.data, *tail)
    found: bytes = desk.read(["bytes32"], desk.entry[version], f"getUserOpHash({OP})", packed)
    return found


HALF = st.integers(0, 2**128 - 1)
BYTES = st.binary(max_size=70)
OPS = st.builds(
    UserOperation,
    st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
    st.integers(0, 2**256 - 1),
    BYTES,
    HALF,
    HALF,
    st.integers(0, 2**256 - 1),
    HALF,
    HALF,
    BYTES.filter(lambda raw: raw[:2] != INIT_7702[:2]),
    BYTES,
    BYTES,
)


@pytest.mark.parametrize("version", VERSIONS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(op=OPS)
def test_the_hash_is_the_entry_point_s(desk: Desk, version: Version, op: UserOperation) -> None:
    assert user_op_hash(op, desk.entry[version], desk.chain_id, version) == asked(desk, version, op)


@pytest.mark.parametrize("init", [INIT_7702[:2], INIT_7702, INIT_7702 + b"\x01\x02"])
def test_of_an_eoa_with_code_the_delegate_stands_in_the_hash(desk: Desk, init: bytes) -> None:
    op = msgspec.structs.replace(desk.op("0.8", Call(kit.SOMEBODY, b"", 1)), sender=OWNER, init_code=init)
    desk.rpc.call("anvil_setCode", OWNER, "0xef0100" + kit.OTHER[2:])
    assert user_op_hash(op, desk.entry["0.8"], desk.chain_id, "0.8", kit.OTHER) == asked(desk, "0.8", op)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_account_is_created_and_then_does_several_things_at_once(desk: Desk, version: Version) -> None:
    first = desk.op(version, Call(kit.SOMEBODY, b"", 777), is_new=True)
    assert desk.handled(version, desk.signed(version, first))
    both = (kit.approve(desk.token, PERMIT2, 5), Call(kit.OTHER, b"", 8))
    assert desk.handled(version, desk.signed(version, desk.op(version, *both)))
    found = (desk.wei(kit.SOMEBODY), desk.wei(kit.OTHER), desk.allowed(desk.account[version], PERMIT2))
    assert found == (777, 8, 5)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_signature_of_somebody_else_is_refused(desk: Desk, version: Version) -> None:
    op = msgspec.structs.replace(desk.op(version, Call(kit.SOMEBODY, b"", 1), is_new=True), signature=bytes(64) + b"\x1b")
    with pytest.raises(RpcError):
        desk.asked(OWNER, desk.entry[version], handle_data(op, OWNER))


# -- a key with a policy -----------------------------------------------------------------------------------------------


def signer_of(desk: Desk, init_code: bytes = b"") -> LocalSigner:
    signer = LocalSigner(bytearray(kit.key("owner")))
    at = UserOps(desk.account["0.8"], desk.entry["0.8"], init_code)
    tokens = frozenset({desk.token})
    signer.allow(swap_policy(desk.chain_id, OWNER, ROUTER, PERMIT2, tokens, 100 * 10**9, 900_000, account=at))
    return signer


def calls_of(desk: Desk, op: UserOperation, signed: UserOperation | None = None, beneficiary: str = OWNER) -> Calls:
    data = handle_data(msgspec.structs.replace(op, signature=bytes(65)), beneficiary)
    typed = user_op_typed("o-1", signed or op, desk.entry["0.8"], desk.chain_id)
    slot = SignatureSlot(0, read_handle(data).signature_at, typed)
    return Calls("o-1", desk.chain_id, (Call(desk.entry["0.8"], data),), (slot,), desk.nonce(OWNER), 900_000, 30 * 10**9, 10**9)


def test_a_key_signs_the_operation_inside_the_call_that_it_sends(desk: Desk) -> None:
    op = desk.op("0.8", kit.approve(desk.token, PERMIT2, 0), kit.approve(desk.token, PERMIT2, 9), is_new=True)
    signed = signer_of(desk, desk.init["0.8"]).sign_now(calls_of(desk, op))
    assert isinstance(signed, SignedTransaction)
    desk.raw(signed.raw)
    assert desk.allowed(desk.account["0.8"], PERMIT2) == 9


def test_a_key_refuses_what_its_account_may_not(desk: Desk) -> None:
    good = desk.op("0.8", kit.approve(desk.token, PERMIT2, 9))
    replace = msgspec.structs.replace
    pay_thief = bytes.fromhex("a9059cbb") + encode(["address", "uint256"], [kit.OTHER, 1])
    for words, asked_for in (
        ("is not what the account is told", calls_of(desk, good, replace(good, nonce=good.nonce + 1))),
        ("goes to 0xa1a1", calls_of(desk, good, beneficiary=kit.SOMEBODY)),
        ("not of 0x", calls_of(desk, replace(good, sender=kit.SOMEBODY))),
        ("paymaster", calls_of(desk, replace(good, paymaster=b"\x01"))),
        ("create the account in another way", calls_of(desk, replace(good, init_code=desk.init["0.7"]))),
        ("pay for more gas", calls_of(desk, replace(good, call_gas=900_000))),
        ("pay for more gas", calls_of(desk, replace(good, gas_fee_max=101 * 10**9))),
        ("is not allowed on", calls_of(desk, desk.op("0.8", Call(desk.token, pay_thief)))),
        ("is not allowed on", calls_of(desk, desk.op("0.8", kit.approve(desk.token, PERMIT2, 1), Call(desk.token, pay_thief)))),
    ):
        with pytest.raises(SignerError, match=words):
            signer_of(desk).sign_now(asked_for)
