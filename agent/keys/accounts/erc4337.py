"""ERC-4337: an account's wish (a user operation), what its owner signs, and the transaction that brings it to the EntryPoint.

The key is its own bundler: it sends `handleOps` itself, so nobody else sees the operation before it is mined. Versions 0.7 and 0.8
differ in the hash (0.8 is EIP-712, 0.7 is signed with the prefix of eth_sign) and in how a batch is written. Sources:
account-abstraction 0.7 and 0.8 (UserOperationLib, EntryPoint, Eip7702Support, SimpleAccount).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from eth_abi.abi import encode

from agent.domain.errors import SignerError
from agent.domain.plan import Call, TypedData
from agent.keys.accounts.functions import function
from agent.keys.accounts.kinds import Version
from agent.keys.digest import UINT64_MAX, address_bytes, keccak, typed_digest, typed_preimage

CALLS_MAX = 32
WORD, SIGNATURE_BYTES = 32, 65
UINT128 = 1 << 128
PRIMARY: Final = "PackedUserOperation"
DOMAIN_VERSIONS: Final[dict[Version, str]] = {"0.7": "0.7", "0.8": "1"}  # 0.7 has no domain; ours names it
INIT_7702: Final = b"\x77\x02".ljust(20, b"\0")  # "my factory": this account is an EOA that runs a delegate's code
_PREFIX = b"\x19Ethereum Signed Message:\n32"  # EIP-191

_OP = "(address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes)"
HANDLE_OPS: Final = function(f"handleOps({_OP}[],address)")
EXECUTE: Final = function("execute(address,uint256,bytes)")
BATCH_07: Final = function("executeBatch(address[],uint256[],bytes[])")
BATCH_08: Final = function("executeBatch((address,uint256,bytes)[])")

TYPES: Final[dict[str, list[dict[str, str]]]] = {
    "PackedUserOperation": [
        {"name": "sender", "type": "address"},
        {"name": "nonce", "type": "uint256"},
        {"name": "initCode", "type": "bytes"},
        {"name": "callData", "type": "bytes"},
        {"name": "accountGasLimits", "type": "bytes32"},
        {"name": "preVerificationGas", "type": "uint256"},
        {"name": "gasFees", "type": "bytes32"},
        {"name": "paymasterAndData", "type": "bytes"},
    ]
}


class UserOperation(msgspec.Struct, frozen=True):
    """What an account shall do, and what it pays at most: (verification_gas + call_gas + pre_gas) times `gas_fee_max` wei per gas.

    `init_code` creates the account first: a factory's address and its call data. `signature`: the owner's, once it is there.
    """

    sender: str
    nonce: int
    data: bytes
    verification_gas: int
    call_gas: int
    pre_gas: int
    gas_fee_max: int
    gas_tip: int
    init_code: bytes = b""
    paymaster: bytes = b""
    signature: bytes = b""

    @property
    def gas(self) -> int:
        """All that the account may be charged for."""
        return self.verification_gas + self.call_gas + self.pre_gas


class Handled(msgspec.Struct, frozen=True):
    """`handleOps` with one operation, as read. `signature_at`: at which byte of the call data its signature begins."""

    op: UserOperation
    beneficiary: str
    signature_at: int


# -- what the owner signs ----------------------------------------------------------------------------------------------


def user_op_hash(op: UserOperation, entry_point: str, chain_id: int, version: Version, delegate: str = "") -> bytes:
    """The EntryPoint's `getUserOpHash`. `delegate`: whose code the sender runs, for an `init_code` of 0x7702 (0.8)."""
    if version == "0.8":
        return typed_digest(user_op_typed("", op, entry_point, chain_id, delegate))
    kinds = ["address", "uint256", "bytes32", "bytes32", "bytes32", "uint256", "bytes32", "bytes32"]
    fields = [op.sender, op.nonce, keccak(op.init_code), keccak(op.data), *_gas(op), keccak(op.paymaster)]
    return keccak(encode(["bytes32", "address", "uint256"], [keccak(encode(kinds, fields)), entry_point, chain_id]))


def user_op_typed(
    order_id: str, op: UserOperation, entry_point: str, chain_id: int, delegate: str = "", version: Version = "0.8"
) -> TypedData:
    """What the owner of an account of 0.8 signs (EIP-712). Bytes are told as 0x and hex digits, which JSON can carry.

    For 0.7 it only shows the operation, and its domain says so: what is signed follows from it by `preimage_of`.
    """
    init_code, (limits, pre_gas, fees) = op.init_code, _gas(op)
    if delegate and init_code[:20].ljust(20, b"\0") == INIT_7702:
        init_code = address_bytes(delegate) + init_code[20:]
    message: dict[str, object] = {
        "sender": op.sender,
        "nonce": op.nonce,
        "initCode": _hex(init_code),
        "callData": _hex(op.data),
        "accountGasLimits": _hex(limits),
        "preVerificationGas": pre_gas,
        "gasFees": _hex(fees),
        "paymasterAndData": _hex(op.paymaster),
    }
    domain: dict[str, str | int] = {
        "name": "ERC4337",
        "version": DOMAIN_VERSIONS[version],
        "chainId": chain_id,
        "verifyingContract": entry_point,
    }
    return TypedData(order_id, domain, TYPES, PRIMARY, message)


def preimage_of(typed: TypedData) -> bytes:
    """What a key hashes and signs for typed data: its EIP-712 bytes; for an operation of 0.7 the prefix of eth_sign and its hash.

    Raises SignerError for an operation whose fields are not what they should be.
    """
    if not is_07(typed):
        return typed_preimage(typed)
    chain_id, entry_point = typed.domain.get("chainId"), typed.domain.get("verifyingContract")
    if not isinstance(chain_id, int) or not isinstance(entry_point, str):
        raise SignerError("policy: the operation names no chain or no EntryPoint")
    return prefixed(user_op_hash(user_op_of(typed.message), entry_point, chain_id, "0.7"))


def refuse_07(typed: TypedData) -> None:
    """For keys that lay typed data out by themselves. Raises SignerError for what is none."""
    if is_07(typed):
        raise SignerError("this kind of key signs typed data and no operations of EntryPoint 0.7; use 0.8, or another kind of key")


def is_07(typed: TypedData) -> bool:
    """Whether it shows an operation of 0.7, which is no typed data to a wallet program."""
    return typed.primary == PRIMARY and typed.domain.get("version") == DOMAIN_VERSIONS["0.7"]


def prefixed(user_op: bytes) -> bytes:
    """What the owner of a SimpleAccount of 0.7 signs: the keccak of this."""
    return _PREFIX + user_op


def operation_number(key: str, nonce: int) -> int:
    """The number of the operation that the key's transaction with this number brings: the first in a sequence of its own.

    An EntryPoint counts in as many sequences as one likes (the upper 192 bits name one). The key's address and its transaction's
    number name this one, so it is known without asking, and all attempts for one transaction bring the same operation.
    """
    return (int.from_bytes(address_bytes(key)[4:], "big") << 64 | nonce) << 64


def bringer_of(key: str, number: int) -> int | None:
    """The number of the key's transaction that brings this operation; None if it is no number of `operation_number`."""
    nonce = number >> 64 & UINT64_MAX
    return nonce if number == operation_number(key, nonce) else None


# -- what is sent ------------------------------------------------------------------------------------------------------


def execute_data(calls: Sequence[Call], version: Version) -> bytes:
    """What a SimpleAccount is told: one call, or several of which all or none happen."""
    if not 0 < len(calls) <= CALLS_MAX:
        raise SignerError(f"an account carries out 1 to {CALLS_MAX} calls at once, not {len(calls)}")
    if len(calls) == 1:
        return EXECUTE.data(calls[0].to, calls[0].value, calls[0].data)
    if version == "0.7":
        return BATCH_07.data([one.to for one in calls], [one.value for one in calls], [one.data for one in calls])
    return BATCH_08.data([(one.to, one.value, one.data) for one in calls])


def handle_data(op: UserOperation, beneficiary: str) -> bytes:
    """Call data with which the key brings one operation itself; what the account pays for gas goes to `beneficiary`."""
    limits, pre_gas, fees = _gas(op)
    packed = (op.sender, op.nonce, op.init_code, op.data, limits, pre_gas, fees, op.paymaster, op.signature)
    return HANDLE_OPS.data([packed], beneficiary)


# -- and back ----------------------------------------------------------------------------------------------------------


def read_handle(data: bytes) -> Handled:
    """`handleOps` with exactly one operation. Raises SignerError for anything else, or bytes that are not canonical."""
    ops, beneficiary = HANDLE_OPS.read(data)
    if len(ops) != 1:
        raise SignerError(f"policy: handleOps carries exactly one operation, this carries {len(ops)}")
    op = _op(ops[0])
    if len(op.signature) > SIGNATURE_BYTES:
        raise SignerError(f"policy: an operation's signature has 65 bytes, this has {len(op.signature)}")
    tail = -(-len(op.signature) // WORD) * WORD  # it is the last thing in canonical bytes, filled up to a word
    return Handled(op, beneficiary, len(data) - tail)


def read_execute(data: bytes, version: Version = "0.8") -> tuple[Call, ...]:
    """The calls in what an account is told. Raises SignerError."""
    if EXECUTE.is_in(data):
        to, value, inner = EXECUTE.read(data)
        return (Call(to, inner, value),)
    calls = _columns(*BATCH_07.read(data)) if version == "0.7" else BATCH_08.read(data)[0]
    if not 0 < len(calls) <= CALLS_MAX:
        raise SignerError(f"policy: a batch has 1 to {CALLS_MAX} calls, this has {len(calls)}")
    return tuple(Call(to, inner, value) for to, value, inner in calls)


def user_op_of(message: Mapping[str, object]) -> UserOperation:
    """The operation in a typed message, its sender in lower case. Raises SignerError for a field of another type."""
    names = ("sender", "nonce", "initCode", "callData", "accountGasLimits", "preVerificationGas", "gasFees", "paymasterAndData")
    kinds = (str, int, str, str, str, int, str, str)
    fields = [message.get(name) for name in names]
    try:
        sender, *rest = [_field(value, kind, name) for value, kind, name in zip(fields, kinds, names, strict=True)]
    except ValueError:
        raise SignerError("policy: a field of the operation to sign has another type than it should") from None
    return _op((sender, *rest, b""))


def _columns(places: Sequence[str], values: Sequence[int], inners: Sequence[bytes]) -> list[tuple[str, int, bytes]]:
    """A batch of 0.7, as this program writes it: a value for each call."""
    if len(inners) != len(places) or len(values) != len(places):
        raise SignerError("policy: a batch names as many contracts as values and calls")
    return list(zip(places, values, inners, strict=True))


def _field(value: object, kind: type, name: str) -> object:
    """ValueError for another type."""
    if type(value) is not kind or (isinstance(value, str) and not value.startswith("0x")):
        raise ValueError(name)
    if name == "sender":
        return "0x" + address_bytes(str(value)).hex()
    return bytes.fromhex(value[2:]) if isinstance(value, str) else value


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()


def _gas(op: UserOperation) -> tuple[bytes, int, bytes]:
    """As the EntryPoint takes them: two halves of a word each."""
    return _halves(op.verification_gas, op.call_gas), op.pre_gas, _halves(op.gas_tip, op.gas_fee_max)


def _halves(high: int, low: int) -> bytes:
    if not (0 <= high < UINT128 and 0 <= low < UINT128):
        raise SignerError("a user operation's gas and fees fit 128 bits")
    return (high << 128 | low).to_bytes(WORD, "big")


def _op(fields: tuple[Any, ...]) -> UserOperation:
    sender, nonce, init_code, data, limits, pre_gas, fees, paymaster, signature = fields
    (verification, call), (tip, fee) = (
        (int.from_bytes(one[:16], "big"), int.from_bytes(one[16:], "big")) for one in (limits, fees)
    )
    return UserOperation(sender, nonce, data, verification, call, pre_gas, fee, tip, init_code, paymaster, signature)
