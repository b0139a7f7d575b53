"""eth-tester's fixtures over a real node: `EthereumTester(AnvilBackend())`.

One fixture set (accounts, snapshots, time travel, mining by hand) then serves both py-evm and Anvil, while the agent under
test speaks to the same Anvil over HTTP and WebSocket. The node must not mine by itself: eth-tester does. eth-tester's web3
provider reports the chain id 131277322940537 whatever the node says, so a node started here is given that id.
"""

from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_tester.backends.base import BaseChainBackend
from eth_tester.exceptions import BlockNotFound, TransactionFailed, TransactionNotFound, ValidationError
from eth_utils.address import to_canonical_address, to_checksum_address

from agent.simulation.chain.anvil import start_anvil
from agent.simulation.chain.backend_json import block_out, log_out, raw_transaction, receipt_out, transaction_in, transaction_out
from agent.simulation.chain.child import Child
from agent.simulation.chain.rpc import Rpc, RpcError

ETH_TESTER_CHAIN_ID = 131277322940537
_ZERO_ADDRESS = bytes(20)
Block = int | str


class AnvilBackend(BaseChainBackend):  # type: ignore[misc]  # eth-tester ships no types; its backends are made by inheritance
    """All of eth-tester's backend over one Anvil, which mines only when told to."""

    def __init__(self, node: Child | None = None) -> None:
        self._owned = node is None
        self.node = node or start_anvil(chain_id=ETH_TESTER_CHAIN_ID, extra=("--no-mining",))
        self._rpc = Rpc(self.node.url)
        self._rpc.call("evm_setAutomine", False)
        self._added: dict[bytes, LocalAccount] = {}
        self._snapshots: list[str] = []

    def close(self) -> None:
        """Close the connection, and stop the node when it was started here."""
        self._rpc.close()
        if self._owned:
            self.node.stop()

    # snapshots and time

    def take_snapshot(self) -> int:
        self._snapshots.append(self._rpc.call("evm_snapshot"))
        return len(self._snapshots) - 1

    def revert_to_snapshot(self, snapshot: int) -> None:
        if not self._rpc.call("evm_revert", self._snapshots[snapshot]):
            raise ValidationError(f"the node no longer has snapshot {snapshot}")
        self._rpc.call("anvil_dropAllTransactions")  # what was sent since would come back with the next block
        # Anvil forgets a snapshot with its use; eth-tester may go back to it again.
        self._snapshots[snapshot] = self._rpc.call("evm_snapshot")

    def reset_to_genesis(self) -> None:
        self._rpc.call("anvil_reset", {})

    def time_travel(self, to_timestamp: int) -> int:
        self._rpc.call("evm_setNextBlockTimestamp", to_timestamp)
        self._rpc.call("evm_mine")
        return to_timestamp

    def mine_blocks(self, num_blocks: int = 1, coinbase: bytes = _ZERO_ADDRESS) -> tuple[bytes, ...]:
        if coinbase != _ZERO_ADDRESS:
            self._rpc.call("anvil_setCoinbase", to_checksum_address(coinbase))
        before = int(self._rpc.call("eth_blockNumber"), 16)
        self._rpc.call("anvil_mine", hex(num_blocks))
        numbers = range(before + 1, before + num_blocks + 1)
        blocks = self._rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        return tuple(bytes.fromhex(block["hash"][2:]) for block in blocks)

    # accounts

    def get_accounts(self) -> tuple[bytes, ...]:
        return tuple(to_canonical_address(a) for a in self._rpc.call("eth_accounts")) + tuple(self._added)

    def add_account(self, private_key: bytes) -> None:
        account: LocalAccount = Account.from_key(private_key)
        self._added[to_canonical_address(account.address)] = account
        self._rpc.call("anvil_impersonateAccount", account.address)

    # chain data

    def get_block_by_number(self, block_number: Block, full_transaction: bool = True) -> dict[str, Any]:
        return self._block("eth_getBlockByNumber", _block(block_number), full_transaction)

    def get_block_by_hash(self, block_hash: bytes, full_transaction: bool = True) -> dict[str, Any]:
        return self._block("eth_getBlockByHash", "0x" + block_hash.hex(), full_transaction)

    def get_transaction_by_hash(self, transaction_hash: bytes) -> dict[str, Any]:
        found = self._rpc.call("eth_getTransactionByHash", "0x" + transaction_hash.hex())
        if found is None:
            raise TransactionNotFound(f"no transaction 0x{transaction_hash.hex()}")
        return transaction_out(found)

    def get_transaction_receipt(self, transaction_hash: bytes) -> dict[str, Any]:
        found = self._rpc.call("eth_getTransactionReceipt", "0x" + transaction_hash.hex())
        if found is None:
            raise TransactionNotFound(f"no receipt of 0x{transaction_hash.hex()}")
        return receipt_out(found) | {"logs": [log_out(log) for log in found["logs"]]}

    def get_fee_history(
        self, block_count: int = 1, newest_block: Block = "latest", reward_percentiles: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        found = self._rpc.call("eth_feeHistory", hex(block_count), _block(newest_block), list(reward_percentiles))
        return {
            "oldest_block": int(found["oldestBlock"], 16),
            "base_fee_per_gas": [int(fee, 16) for fee in found["baseFeePerGas"]],
            "gas_used_ratio": found["gasUsedRatio"],
            "reward": [[int(tip, 16) for tip in tips] for tips in found.get("reward") or []],
        }

    # account state

    def get_nonce(self, account: bytes, block_number: Block | None = None) -> int:
        return int(self._at("eth_getTransactionCount", account, block_number), 16)

    def get_balance(self, account: bytes, block_number: Block | None = None) -> int:
        return int(self._at("eth_getBalance", account, block_number), 16)

    def get_code(self, account: bytes, block_number: Block | None = None) -> bytes:
        return bytes.fromhex(self._at("eth_getCode", account, block_number)[2:])

    def get_storage(self, account: bytes, slot: int, block_number: Block | None = None) -> int:
        return int(self._at("eth_getStorageAt", account, block_number, hex(slot)), 16)

    def get_base_fee(self, block_number: Block | None = None) -> int:
        return int(self._rpc.call("eth_getBlockByNumber", _block(block_number), False)["baseFeePerGas"], 16)

    # transactions

    def send_raw_transaction(self, raw_transaction: bytes) -> bytes:
        return bytes.fromhex(self._rpc.call("eth_sendRawTransaction", "0x" + bytes(raw_transaction).hex())[2:])

    def send_signed_transaction(self, transaction: dict[str, Any], block_number: Block = "latest") -> bytes:  # noqa: ARG002
        return self.send_raw_transaction(raw_transaction(transaction))

    def send_transaction(self, transaction: dict[str, Any]) -> bytes:
        return bytes.fromhex(self._rpc.call("eth_sendTransaction", transaction_in(transaction))[2:])

    def estimate_gas(self, transaction: dict[str, Any], block_number: Block = "latest") -> int:
        return int(self._execute("eth_estimateGas", transaction, block_number), 16)

    def call(self, transaction: dict[str, Any], block_number: Block = "latest") -> bytes:
        return bytes.fromhex(self._execute("eth_call", transaction, block_number)[2:])

    def _execute(self, method: str, transaction: dict[str, Any], block_number: Block) -> str:
        try:
            return str(self._rpc.call(method, transaction_in(transaction), _block(block_number)))
        except RpcError as error:
            raise TransactionFailed(error.message.removeprefix("execution reverted: "), error.data) from error

    def _block(self, method: str, block: str, full: bool) -> dict[str, Any]:
        found = self._rpc.call(method, block, full)
        if found is None:
            raise BlockNotFound(f"no block {block}")
        return block_out(found, full)

    def _at(self, method: str, account: bytes, block: Block | None, *more: str) -> str:
        return str(self._rpc.call(method, to_checksum_address(account), *more, _block(block)))


def _block(block: Block | None) -> str:
    return hex(block) if isinstance(block, int) else block or "latest"
