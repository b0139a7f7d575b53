"""Safe 1.4.1: calls into one SafeTx, what its owners sign, the transaction that carries it out, and the way back from the bytes.

One call is carried out as it is; several go through MultiSendCallOnly by delegatecall, all or nothing. The Safe never pays for gas,
so those fields are zero here. Sources: Safe 1.4.1 (Safe.sol, MultiSendCallOnly.sol, CompatibilityFallbackHandler.sol).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call, TypedData
from agent.keys.accounts.functions import SELECTOR_BYTES, function
from agent.keys.digest import address_bytes, typed_digest

CALL, DELEGATECALL = 0, 1
CALLS_MAX = 32
ZERO_ADDRESS: Final = "0x" + "00" * 20
WORD = 32

EXEC: Final = function(
    "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)",
)
MULTI_SEND: Final = function("multiSend(bytes)")
APPROVE_HASH: Final = function("approveHash(bytes32)")
SETUP: Final = function("setup(address[],uint256,address,bytes,address,address,uint256,address)")
CREATE_PROXY: Final = function("createProxyWithNonce(address,bytes,uint256)")
ENABLE_MODULE: Final = function("enableModule(address)")

SAFE_TX_TYPES: Final[dict[str, list[dict[str, str]]]] = {
    "SafeTx": [
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "data", "type": "bytes"},
        {"name": "operation", "type": "uint8"},
        {"name": "safeTxGas", "type": "uint256"},
        {"name": "baseGas", "type": "uint256"},
        {"name": "gasPrice", "type": "uint256"},
        {"name": "gasToken", "type": "address"},
        {"name": "refundReceiver", "type": "address"},
        {"name": "nonce", "type": "uint256"},
    ]
}
_MESSAGE_TYPES: Final[dict[str, list[dict[str, str]]]] = {"SafeMessage": [{"name": "message", "type": "bytes"}]}
_PACKED_HEAD = 1 + 20 + 2 * WORD  # of one call in a batch: operation, to, value, length


class SafeTx(msgspec.Struct, frozen=True):
    """What a Safe carries out; `value` wei. The fields from `safe_tx_gas` on would let it pay for gas."""

    to: str
    value: int
    data: bytes
    operation: int = CALL
    safe_tx_gas: int = 0
    base_gas: int = 0
    gas_price: int = 0
    gas_token: str = ZERO_ADDRESS
    refund_receiver: str = ZERO_ADDRESS

    @property
    def pays_gas(self) -> bool:
        """Whether any field says how the Safe pays for gas, or that a failure inside may pass for a success."""
        numbers = (self.safe_tx_gas, self.base_gas, self.gas_price)
        return any(numbers) or {self.gas_token, self.refund_receiver} != {ZERO_ADDRESS}


class Execution(msgspec.Struct, frozen=True):
    """`execTransaction` as read. `signatures_at`: at which byte of the call data its signatures begin."""

    tx: SafeTx
    signatures: bytes
    signatures_at: int


# -- what owners sign --------------------------------------------------------------------------------------------------


def safe_tx_typed(order_id: str, chain_id: int, safe: str, tx: SafeTx, nonce: int) -> TypedData:
    """EIP-712. Its digest is the Safe's `getTransactionHash`, its preimage `encodeTransactionData`."""
    message: dict[str, object] = {
        "to": tx.to,
        "value": tx.value,
        "data": tx.data,
        "operation": tx.operation,
        "safeTxGas": tx.safe_tx_gas,
        "baseGas": tx.base_gas,
        "gasPrice": tx.gas_price,
        "gasToken": tx.gas_token,
        "refundReceiver": tx.refund_receiver,
        "nonce": nonce,
    }
    return TypedData(order_id, _domain(chain_id, safe), SAFE_TX_TYPES, "SafeTx", message)


def safe_tx_hash(chain_id: int, safe: str, tx: SafeTx, nonce: int) -> bytes:
    """The 32 bytes that owners sign or approve. Raises SignerError for what does not fit its type."""
    return typed_digest(safe_tx_typed("", chain_id, safe, tx, nonce))


def message_typed(order_id: str, chain_id: int, safe: str, message: bytes) -> TypedData:
    """What owners sign so that the Safe says yes in `isValidSignature` (EIP-1271).

    `message` is the 32-byte hash that a venue asks about; of an owner that is itself a Safe, the preimage of the outer SafeTx.
    """
    return TypedData(order_id, _domain(chain_id, safe), _MESSAGE_TYPES, "SafeMessage", {"message": message})


def safe_tx_of(message: dict[str, object]) -> SafeTx:
    """The SafeTx in a typed message, addresses in lower case. Raises SignerError for a field of another type."""
    number = {name: _whole(message.get(name), name) for name in ("value", "operation", "safeTxGas", "baseGas", "gasPrice")}
    place = {name: _address(message.get(name), name) for name in ("to", "gasToken", "refundReceiver")}
    data = message.get("data")
    if isinstance(data, str) and data.startswith("0x"):
        try:
            data = bytes.fromhex(data[2:])
        except ValueError:
            data = None
    if not isinstance(data, bytes):
        raise SignerError("policy: the data of a SafeTx must be bytes, or 0x and hex digits")
    return SafeTx(
        place["to"],
        number["value"],
        data,
        number["operation"],
        number["safeTxGas"],
        number["baseGas"],
        number["gasPrice"],
        place["gasToken"],
        place["refundReceiver"],
    )


# -- what is sent ------------------------------------------------------------------------------------------------------


def wrap(calls: Sequence[Call], multi_send: str) -> SafeTx:
    """The SafeTx that carries out `calls` in order, all or nothing. Raises SignerError when there are none or too many."""
    if not 0 < len(calls) <= CALLS_MAX:
        raise SignerError(f"a Safe carries out 1 to {CALLS_MAX} calls at once, not {len(calls)}")
    if len(calls) == 1:
        return SafeTx(calls[0].to, calls[0].value, calls[0].data)
    return SafeTx(multi_send, 0, MULTI_SEND.data(b"".join(_packed(call) for call in calls)), DELEGATECALL)


def exec_data(tx: SafeTx, signatures: bytes) -> bytes:
    """Call data of `execTransaction`. `signatures`: see `owners.packed`."""
    gas = (tx.safe_tx_gas, tx.base_gas, tx.gas_price, tx.gas_token, tx.refund_receiver)
    return EXEC.data(tx.to, tx.value, tx.data, tx.operation, *gas, signatures)


def approve_data(safe_tx: bytes) -> bytes:
    """Call data with which an owner approves the hash of a SafeTx on the chain."""
    return APPROVE_HASH.data(safe_tx)


def setup_data(owners: Sequence[str], threshold: int, fallback_handler: str) -> bytes:
    """Call data of a new Safe's `setup`: no module, no payment, nothing delegated."""
    return SETUP.data(list(owners), threshold, ZERO_ADDRESS, b"", fallback_handler, ZERO_ADDRESS, 0, ZERO_ADDRESS)


# -- and back ----------------------------------------------------------------------------------------------------------


def read_exec(data: bytes) -> Execution:
    """`execTransaction` in its canonical encoding. Raises SignerError for anything else."""
    to, value, inner, operation, safe_tx_gas, base_gas, gas_price, gas_token, refund_receiver, signatures = EXEC.read(data)
    tx = SafeTx(to, value, inner, operation, safe_tx_gas, base_gas, gas_price, gas_token, refund_receiver)
    head = SELECTOR_BYTES + 9 * WORD  # the last of ten words says where the signatures are
    return Execution(tx, signatures, SELECTOR_BYTES + int.from_bytes(data[head : head + WORD], "big") + WORD)


def unwrap(tx: SafeTx, multi_send: str) -> tuple[Call, ...]:
    """The calls that a SafeTx carries out. Raises SignerError for whatever `wrap` does not make."""
    if tx.pays_gas:
        raise SignerError("policy: a SafeTx that pays for gas, or that lets a failure pass, is refused; those fields must be zero")
    if tx.operation == CALL:
        return (Call(tx.to, tx.data, tx.value),)
    if tx.operation != DELEGATECALL:
        raise SignerError(f"policy: operation {tx.operation} of a SafeTx is neither a call nor a delegatecall")
    if address_bytes(tx.to) != address_bytes(multi_send):
        raise SignerError(
            f"policy: a delegatecall to {tx.to} is refused; only MultiSendCallOnly ({multi_send}) may run as the Safe"
        )
    if tx.value:
        raise SignerError("policy: a batch carries no value of its own")
    return _unpacked(MULTI_SEND.read(tx.data)[0])


def _packed(call: Call) -> bytes:
    if call.value < 0 or call.value >> 256:
        raise SignerError("a call's value does not fit 256 bits")
    sizes = call.value.to_bytes(WORD, "big") + len(call.data).to_bytes(WORD, "big")
    return bytes((CALL,)) + address_bytes(call.to) + sizes + call.data


def _unpacked(raw: bytes) -> tuple[Call, ...]:
    calls: list[Call] = []
    at = 0
    while at < len(raw):
        head, at = raw[at : at + _PACKED_HEAD], at + _PACKED_HEAD
        size = int.from_bytes(head[-WORD:], "big")
        if len(head) < _PACKED_HEAD or at + size > len(raw):
            raise SignerError("policy: a batch ends in the middle of a call")
        if head[0] != CALL:
            raise SignerError(f"policy: operation {head[0]} in a batch is refused; only calls")
        calls.append(Call("0x" + head[1:21].hex(), raw[at : at + size], int.from_bytes(head[21:53], "big")))
        at += size
        if len(calls) > CALLS_MAX:
            raise SignerError(f"policy: a batch of more than {CALLS_MAX} calls is refused")
    if not calls:
        raise SignerError("policy: a batch without a call is refused")
    return tuple(calls)


def _domain(chain_id: int, safe: str) -> dict[str, str | int]:
    return {"chainId": chain_id, "verifyingContract": safe}


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SignerError(f"policy: {name} of a SafeTx must be a whole number")
    return value


def _address(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise SignerError(f"policy: {name} of a SafeTx must be an address")
    return "0x" + address_bytes(value).hex()
