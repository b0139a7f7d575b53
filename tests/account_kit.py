"""A chain with accounts on it: the real contracts of Safe and ERC-4337, a token, and keys that sign."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import coincurve
from eth_abi.abi import decode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.domain.plan import Call, TypedData
from agent.keys.digest import typed_digest
from agent.simulation.chain.anvil import start_anvil
from agent.simulation.chain.artifacts import own
from agent.simulation.chain.rpc import Rpc, Sender, calldata, dev_account, wait_for_receipt

ETH = 10**18
GAS = 1_000_000
FEES = {"maxFeePerGas": 20 * 10**9, "maxPriorityFeePerGas": 10**9}
SOMEBODY, OTHER = "0x" + "a1" * 20, "0x" + "b2" * 20


def key(name: str) -> bytes:
    return keccak(text=name)


def account(name: str) -> LocalAccount:
    made: LocalAccount = Account.from_key(key(name))
    return made


def signature(name: str, digest: bytes) -> bytes:
    """r, s and v (27 or 28) of a key by its name."""
    raw = coincurve.PrivateKey(key(name)).sign_recoverable(digest, hasher=None)
    return raw[:64] + bytes((27 + raw[64],))


def typed_signature(name: str, typed: TypedData) -> bytes:
    return signature(name, typed_digest(typed))


class Chain:
    """An Anvil, its first account as deployer, and a token of six decimals."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc, self.deployer = rpc, Sender(rpc, dev_account(0))
        self.chain_id = self.deployer.chain_id
        self.token = self.deployer.deploy(own("SandboxDollar"))
        self.deployer.settle()

    def pay(self, *addresses: str) -> None:
        """Ten ETH and ten million units of the token for each."""
        for address in addresses:
            self.deployer.send(to_checksum_address(address), "0x", gas=100_000, value=10 * ETH)
            self.deployer.invoke(self.token, "mint(address,uint256)", address, 10**7)
        self.deployer.settle()

    def send(self, name: str, to: str, data: bytes, gas: int = GAS) -> dict[str, Any]:
        """A transaction of the account with that name; its receipt. Raises RpcError when it reverts."""
        fields = {
            "nonce": self.nonce(account(name).address),
            "gas": gas,
            "value": 0,
            "to": to_checksum_address(to),
            "data": data,
            **FEES,
        }
        return self.raw(bytes(account(name).sign_transaction({"type": 2, "chainId": self.chain_id, **fields}).raw_transaction))

    def raw(self, raw: bytes) -> dict[str, Any]:
        return wait_for_receipt(self.rpc, self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex()))

    def asked(self, sender: str, to: str, data: bytes) -> bytes:
        """What a call would return. Raises RpcError with the revert's data."""
        call = {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(GAS)}
        return bytes.fromhex(self.rpc.call("eth_call", call, "latest")[2:])

    def read(self, kinds: list[str], to: str, what: str, *args: Any) -> Any:
        return decode(kinds, self.rpc.read(to, what, *args))[0]

    def nonce(self, address: str) -> int:
        return int(self.rpc.call("eth_getTransactionCount", address, "latest"), 16)

    def wei(self, address: str) -> int:
        return int(self.rpc.call("eth_getBalance", address, "latest"), 16)

    def allowed(self, owner: str, spender: str) -> int:
        found: int = self.read(["uint256"], self.token, "allowance(address,address)", owner, spender)
        return found


@contextmanager
def running() -> Iterator[Chain]:
    child = start_anvil()
    rpc = Rpc(child.url)
    try:
        yield Chain(rpc)
    finally:
        rpc.close()
        child.stop()


def approve(token: str, spender: str, units: int) -> Call:
    return Call(token, bytes.fromhex(calldata("approve(address,uint256)", spender, units)[2:]))
