"""The sandbox's own line to its chain: blocking JSON-RPC over one kept-open loopback connection, and local signing.

Only the sandbox uses it (to build the world, fund accounts and arbitrage pools); the agent speaks to the chain through
`agent.chains`. Not safe for use from two threads at once.
"""

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.abi import function_signature_to_4byte_selector, get_abi_input_types
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.simulation.chain.artifacts import Artifact

# The test mnemonic that every development node knows. Its accounts are worthless anywhere else, and are used nowhere else.
DEV_MNEMONIC = "test test test test test test test test test test test junk"
FEE_MAX_WEI = 20_000_000_000
TIP_WEI = 1_000_000_000
DEPLOY_GAS = 8_000_000
RECEIPT_TIMEOUT_S = 60.0


class RpcError(Exception):
    """The node refused a call; `data` holds a revert's payload (0x...) when there is one."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Rpc:
    """One connection to a node on this machine."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        parts = urlsplit(url)
        self.url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)

    def call(self, method: str, *params: Any) -> Any:
        """One call. Raises RpcError when the node refuses, OSError when it cannot be reached."""
        return _result(self._post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}))

    def batch(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        """Several calls in one request, answered in order; the first refusal raises."""
        if not calls:
            return []
        body = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, (m, p) in enumerate(calls)]
        replies = sorted(self._post(body), key=lambda reply: int(reply["id"]))
        return [_result(reply) for reply in replies]

    def read(self, to: str, signature: str, *args: Any, block: str = "latest") -> bytes:
        """The raw answer of a view call, for example `read(token, "balanceOf(address)", owner)`."""
        return bytes.fromhex(self.call("eth_call", {"to": to, "data": calldata(signature, *args)}, block)[2:])

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._connection.close()

    def _post(self, content: Any) -> Any:
        body = json.dumps(content).encode()
        for attempt in range(2):
            try:
                self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
                response = self._connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    raise RpcError(-32603, f"the node answered with HTTP {response.status}: see its log")
                return json.loads(answer)
            except (http.client.RemoteDisconnected, http.client.CannotSendRequest, BrokenPipeError):
                # The node closed the idle connection before it read anything: one new connection is safe.
                self._connection.close()
                if attempt:
                    raise
        raise AssertionError("unreachable")


class Sender:
    """An account of the sandbox that signs here and sends many transactions at once, in nonce order."""

    def __init__(self, rpc: Rpc, account: LocalAccount) -> None:
        self.rpc, self.account = rpc, account
        self.address = str(account.address)
        self.chain_id = int(rpc.call("eth_chainId"), 16)
        self.nonce = int(rpc.call("eth_getTransactionCount", self.address, "latest"), 16)
        self._unsent: list[str] = []

    def deploy(self, artifact: Artifact, *args: Any) -> str:
        """Queue a contract's creation; its address follows from the account and its nonce."""
        constructor = next((entry for entry in artifact.abi if entry["type"] == "constructor"), None)
        types = get_abi_input_types(constructor) if constructor else []  # type: ignore[arg-type]
        address = created_address(self.address, self.nonce)
        self.send(None, artifact.bytecode + encode(types, args).hex(), gas=DEPLOY_GAS)
        return address

    def invoke(self, to: str, signature: str, *args: Any, gas: int = 300_000, value: int = 0) -> None:
        """Queue a contract call, for example `invoke(token, "transfer(address,uint256)", to, amount)`."""
        self.send(to, calldata(signature, *args), gas=gas, value=value)

    def send(self, to: str | None, data: str, *, gas: int, value: int = 0) -> None:
        """Queue one transaction; nothing leaves before `settle`."""
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": self.nonce,
            "gas": gas,
            "maxFeePerGas": FEE_MAX_WEI,
            "maxPriorityFeePerGas": TIP_WEI,
            "value": value,
            "data": data,
        }
        if to is not None:
            fields["to"] = to
        self._unsent.append("0x" + bytes(self.account.sign_transaction(fields).raw_transaction).hex())
        self.nonce += 1

    def settle(self, *, together: bool = False) -> None:
        """Send what is queued and wait until all of it is mined. Raises RpcError at a reverted transaction.

        One transaction a block by default, so that a world is built the same way each time. `together` sends all at once,
        for a chain that mines by the clock; the queue's gas must then fit into one block.
        """
        queue, self._unsent = self._unsent, []
        if together:
            hashes = self.rpc.batch([("eth_sendRawTransaction", [raw]) for raw in queue])
            for tx_hash in hashes:
                wait_for_receipt(self.rpc, tx_hash)
            return
        for raw in queue:
            wait_for_receipt(self.rpc, self.rpc.call("eth_sendRawTransaction", raw))

    def resume(self) -> None:
        """Forget what is queued and take the nonce from the chain, after a failure."""
        self._unsent.clear()
        self.nonce = int(self.rpc.call("eth_getTransactionCount", self.address, "latest"), 16)


def wait_for_receipt(rpc: Rpc, tx_hash: str) -> dict[str, Any]:
    """Wait for a receipt; automatic mining answers a send before the block is there. Raises RpcError at a revert."""
    deadline = time.monotonic() + RECEIPT_TIMEOUT_S
    pause_s = 0.001
    while (receipt := rpc.call("eth_getTransactionReceipt", tx_hash)) is None:
        if time.monotonic() > deadline:
            raise RpcError(-32000, f"transaction {tx_hash} was not mined within {RECEIPT_TIMEOUT_S} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.1)
    if receipt["status"] != "0x1":
        raise RpcError(3, f"transaction {tx_hash} reverted, {int(receipt['gasUsed'], 16)} gas used")
    found: dict[str, Any] = receipt
    return found


def dev_account(index: int) -> LocalAccount:
    """One of the worthless accounts of the development mnemonic."""
    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(DEV_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return account


def calldata(signature: str, *args: Any) -> str:
    """Selector and arguments of a call, as 0x and hexadecimal digits."""
    types = split_types(signature[signature.index("(") + 1 : -1])
    return "0x" + (function_signature_to_4byte_selector(signature) + encode(types, args)).hex()


def split_types(text: str) -> list[str]:
    """The top-level types of a signature's inner text; tuples keep their commas."""
    types, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            types.append(text[start:i])
            start = i + 1
    return [*types, text[start:]] if text else []


def created_address(sender: str, nonce: int) -> str:
    """The address of a contract created by `sender` at `nonce`: keccak(rlp([sender, nonce]))[12:]."""
    number = b"\x80" if nonce == 0 else nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    item = number if nonce < 0x80 else bytes([0x80 + len(number)]) + number
    body = b"\x94" + bytes.fromhex(sender[2:]) + item
    return str(to_checksum_address(keccak(bytes([0xC0 + len(body)]) + body)[12:]))


def create2_address(factory: str, salt: bytes, init_code: bytes) -> str:
    """The address that a CREATE2 factory gives: keccak(0xff ++ factory ++ salt ++ keccak(code))[12:] (EIP-1014)."""
    return str(to_checksum_address(keccak(b"\xff" + bytes.fromhex(factory[2:]) + salt + keccak(init_code))[12:]))


def _result(reply: dict[str, Any]) -> Any:
    if "error" in reply:
        error = reply["error"]
        raise RpcError(int(error.get("code", -32000)), str(error.get("message", "")), error.get("data"))
    return reply["result"]
