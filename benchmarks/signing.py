"""Signing: our digests and libsecp256k1 beside eth-account, byte-identical before they are timed."""

from eth_account import Account

from agent.domain.plan import TypedData
from agent.keys.digest import Transaction, checksum, transaction_digest, transaction_fields, transaction_raw, typed_digest
from agent.keys.local import LocalSigner
from agent.keys.policy import PERMIT_TYPES
from benchmarks.measure import Result, versus

KEY = "0x" + "11" * 32
TOKEN, ROUTER, PERMIT2 = "0x" + "0a" * 20, "0x" + "0b" * 20, "0x" + "0c" * 20
DETAILS = {"token": TOKEN, "amount": 10**18, "expiration": 2_000_000_000, "nonce": 3}
PERMIT = TypedData(
    "i-0",
    {"name": "Permit2", "chainId": 31_337, "verifyingContract": PERMIT2},
    PERMIT_TYPES,
    "PermitSingle",
    {"details": DETAILS, "spender": ROUTER, "sigDeadline": 2_000_000_000},
)
TX = {
    "type": 2, "chainId": 31_337, "nonce": 7, "maxPriorityFeePerGas": 10**9, "maxFeePerGas": 3 * 10**9, "gas": 600_000,
    "to": checksum(bytes.fromhex(TOKEN[2:])),
    "value": 0, "data": "0x" + "ab" * 1_200,
}  # fmt: skip


def run() -> list[Result]:
    account = Account.from_key(KEY)
    signer = LocalSigner(bytearray.fromhex(KEY[2:]))
    ours = Transaction(31_337, 7, 10**9, 3 * 10**9, 600_000, bytes.fromhex(TOKEN[2:]), 0, bytes.fromhex("ab" * 1_200))

    def permit() -> bytes:
        return signer._sign_digest(typed_digest(PERMIT))

    def transaction() -> bytes:
        fields = transaction_fields(ours)
        return transaction_raw(fields, signer._sign_digest(transaction_digest(fields)))

    full = (dict(PERMIT.domain), {k: list(v) for k, v in PERMIT.types.items()}, dict(PERMIT.message))

    def theirs() -> bytes:
        return bytes(account.sign_typed_data(*full).signature)

    assert permit() == theirs()
    assert transaction() == bytes(account.sign_transaction(TX).raw_transaction)
    found = [
        versus("Permit2 permit: digest and signature", permit, "eth-account", theirs, calls=200),
        versus("EIP-1559 transaction, raw bytes", transaction, "eth-account", lambda: account.sign_transaction(TX), calls=200),
    ]
    signer.close()
    return found
