"""The chain for a machine with Python alone: eth-tester's EVM behind the same JSON-RPC over HTTP as a node.

Started as its own process by `world.start_chain`, so that a slow EVM never holds up the agent. What it lacks compared with Anvil:
WebSocket and subscriptions, traces, reorgs, nonce gaps and replacements, cheat codes; and it is ten to fifty times slower.
Its chain id is fixed by eth-tester; its blocks are at
least a second apart by their own clock, whatever the interval. Calls are served one after another, in the order they arrive.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from eth.exceptions import PyEVMError
from eth_account import Account
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.backends.pyevm import main as pyevm
from eth_tester.exceptions import BlockNotFound, SnapshotNotFound, TransactionFailed
from eth_tester.exceptions import ValidationError as TesterValidationError
from eth_utils.exceptions import ValidationError
from web3 import Web3
from web3.exceptions import Web3Exception
from web3.providers.eth_tester import EthereumTesterProvider
from web3.types import RPCEndpoint

from agent.simulation.chain.deploy import CREATE2_FUNDER
from agent.simulation.chain.lite_json import MethodMissingError, prepare_params, revert_data, to_json
from agent.simulation.chain.rpc import DEV_MNEMONIC, TIP_WEI, dev_account

CHAIN_ID = 131277322940537  # hard-coded in eth-tester
GAS_LIMIT = 30_000_000
BALANCE_ETH = 10_000_000
DEV_ACCOUNTS = 10
BUILD_BLOCKS_MAX = 200
BODY_BYTES_MAX = 4_000_000
BATCH_MAX = 1000
FEE_BLOCKS_MAX = 1024
_REVERTED, _METHOD_MISSING, _BAD_REQUEST, _REFUSED = 3, -32601, -32600, -32000
_REFUSALS = (BlockNotFound, TesterValidationError, PyEVMError, ValidationError, Web3Exception, ValueError, TypeError, LookupError)


def execute_free(chain: Any, transaction: Any, block_number: Any = "latest") -> Any:
    """Run a call and undo it, as eth-tester does, but lend its sender the gas: nodes charge a call nothing."""
    state = pyevm._get_vm_for_block_number(chain, block_number).state
    before = state.snapshot()
    lent = transaction.gas * max(getattr(transaction, name, 0) for name in ("max_fee_per_gas", "gas_price"))
    state.set_balance(transaction.sender, state.get_balance(transaction.sender) + lent)
    computation = state.apply_transaction(transaction)
    state.revert(before)
    return computation


class LiteChain:
    """An eth-tester chain that answers JSON-RPC requests."""

    def __init__(self) -> None:
        pyevm._execute_and_revert_transaction = execute_free
        genesis = {bytes.fromhex(dev_account(i).address[2:]): _wealth() for i in range(DEV_ACCOUNTS)}
        genesis[bytes.fromhex(CREATE2_FUNDER[2:])] = _wealth()
        self._backend = PyEVMBackend(
            genesis_parameters=PyEVMBackend.generate_genesis_params(
                # every block of the build moves the clock by a second at least: begin early enough not to overtake it
                {"gas_limit": GAS_LIMIT, "timestamp": int(time.time()) - BUILD_BLOCKS_MAX}
            ),
            genesis_state=genesis,
            mnemonic=DEV_MNEMONIC,
            hd_path="m/44'/60'/0'/0",
        )
        self._tester = EthereumTester(self._backend)
        provider = EthereumTesterProvider(self._tester)
        web3 = Web3(provider, middleware=[])
        self._forward = provider.request_func(web3, web3.middleware_onion)
        self._sent: set[str] = set()
        self.block_time_s: float | None = None
        self._on_wall_clock = False
        self._own: dict[str, Callable[..., Any]] = {
            "eth_sendRawTransaction": self._send_raw,
            "eth_feeHistory": self._fee_history,
            "eth_getBlockReceipts": self._block_receipts,
            "evm_revert": self._revert,
            "evm_mine": self._mine_now,
            "evm_setIntervalMining": self._set_interval,
            "net_version": lambda: str(CHAIN_ID),
        }

    def answer(self, request: Any) -> dict[str, Any]:
        """Answer one JSON-RPC request; errors become JSON-RPC errors."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return {"jsonrpc": "2.0", "id": None, "error": {"code": _BAD_REQUEST, "message": "not a JSON-RPC request"}}
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request.get("id")}
        try:
            return reply | {"result": self.call(request["method"], list(request.get("params") or []))}
        except MethodMissingError as error:
            return reply | {"error": {"code": _METHOD_MISSING, "message": str(error)}}
        except TransactionFailed as error:
            message, data = revert_data(error)
            return reply | {"error": {"code": _REVERTED, "message": message, "data": data}}
        except _REFUSALS as error:
            return reply | {"error": {"code": _REFUSED, "message": " ".join(str(error).split())[:500]}}

    def call(self, method: str, params: list[Any]) -> Any:
        """The JSON result of one call. Raises what eth-tester raises."""
        if own := self._own.get(method):
            return own(*params)
        if method in ("eth_getTransactionByHash", "eth_getTransactionReceipt") and params[0].lower() not in self._sent:
            return None  # eth-tester would look through every block
        params = prepare_params(method, params, self._number_of)
        reply: Any = self._forward(RPCEndpoint(method), params)
        if "error" in reply:
            raise MethodMissingError(reply["error"]["message"])
        if method == "eth_sendTransaction":
            self._sent.add(str(to_json(method, reply["result"])))
        return self._renumber(method, to_json(method, reply["result"]))

    def mine(self) -> None:
        """Close the open block; the next one is stamped with the time at which it is expected to be mined."""
        self._tester.mine_blocks()
        self._stamp()

    def _stamp(self) -> None:
        """Give the open block, while it is empty, the wall clock's time, or during the build the earliest allowed."""
        chain = self._backend.chain
        if not chain.get_block().transactions:
            earliest_s = int(chain.get_canonical_head().timestamp) + 1
            clock_s = int(time.time() + (self.block_time_s or 0)) if self._on_wall_clock else 0
            chain.header = chain.header.copy(timestamp=max(earliest_s, clock_s))

    def _send_raw(self, raw: str) -> str:
        self._stamp()
        # Past EthereumTester's own pool, which refuses the second of two waiting transactions of one account.
        tx_hash: str = "0x" + self._backend.send_raw_transaction(bytes.fromhex(raw.removeprefix("0x"))).hex()
        self._sent.add(tx_hash)
        if self.block_time_s is None:
            self.mine()
        return tx_hash

    def _fee_history(self, count: Any, newest: Any = "latest", percentiles: Any = ()) -> dict[str, Any]:
        """As nodes answer it: with the next block's base fee; the tip is what every sandbox transaction pays."""
        blocks = min(int(count, 16) if isinstance(count, str) else int(count), FEE_BLOCKS_MAX)
        last = self._number_of(newest)
        first = max(last - blocks + 1, 0)
        headers = [self._backend.chain.get_canonical_block_header_by_number(n) for n in range(first, last + 1)]
        fees = [header.base_fee_per_gas for header in headers]
        history: dict[str, Any] = {
            "oldestBlock": hex(first),
            "baseFeePerGas": [hex(fee) for fee in [*fees, next_base_fee(headers[-1])]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
        }
        return history | ({"reward": [[hex(TIP_WEI) for _ in percentiles] for _ in headers]} if percentiles else {})

    def _block_receipts(self, block: str) -> Any:
        found = self.call("eth_getBlockByNumber", [block, False])
        return found and [self.call("eth_getTransactionReceipt", [tx_hash]) for tx_hash in found["transactions"]]

    def _revert(self, snapshot: str) -> bool:
        try:
            self._tester.revert_to_snapshot(int(snapshot, 16))
        except SnapshotNotFound:
            return False
        return True

    def _mine_now(self, *_: Any) -> str:
        self._stamp()
        self.mine()
        return "0x0"

    def _set_interval(self, seconds: Any) -> bool:
        """Mine by the clock, or with 0 at each transaction; from now on blocks carry the wall clock's time."""
        self.block_time_s = float(seconds) or None
        self._on_wall_clock = True
        return True

    def _renumber(self, method: str, result: Any) -> Any:
        """Number logs within their block, as nodes do; eth-tester begins at zero in each transaction."""
        if method == "eth_getTransactionReceipt" and result:
            first = self._logs_before(result["blockNumber"], int(result["transactionIndex"], 16))
            logs = [log | {"logIndex": hex(first + int(log["logIndex"], 16))} for log in result["logs"]]
            return result | {"logs": logs}
        if method == "eth_getLogs":
            firsts = {(x["blockNumber"], x["transactionIndex"]): 0 for x in result}
            for block, index in firsts:
                firsts[block, index] = self._logs_before(block, int(index, 16))
            return [
                log | {"logIndex": hex(firsts[log["blockNumber"], log["transactionIndex"]] + int(log["logIndex"], 16))}
                for log in result
            ]
        return result

    def _logs_before(self, block: str, index: int) -> int:
        """How many logs the block's transactions before `index` wrote."""
        if index == 0:
            return 0
        hashes = self._tester.get_block_by_number(int(block, 16))["transactions"][:index]
        return sum(len(self._tester.get_transaction_receipt(tx_hash)["logs"]) for tx_hash in hashes)

    def _number_of(self, block: Any) -> int:
        """A block parameter as a number; "pending" counts as the latest mined block."""
        if isinstance(block, str) and block.startswith("0x"):
            return int(block, 16)
        name = "latest" if block in ("pending", None) else block
        return int(self._tester.get_block_by_number(name)["number"])


def next_base_fee(header: Any) -> int:
    """The base fee of the block after `header` (EIP-1559: at most an eighth up or down)."""
    fee, target = int(header.base_fee_per_gas), int(header.gas_limit) // 2
    used = int(header.gas_used)
    if used > target:
        return fee + max(fee * (used - target) // target // 8, 1)
    return fee - fee * (target - used) // target // 8


async def serve() -> None:
    """Serve until SIGINT or SIGTERM; prints the port as Anvil does."""
    Account.enable_unaudited_hdwallet_features()
    chain = LiteChain()
    stopped = asyncio.Event()
    if sys.platform != "win32":  # there the process is simply ended
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stopped.set)

    async def handle(request: web.Request) -> web.Response:
        body = await request.json()
        if isinstance(body, list):
            return web.json_response([chain.answer(item) for item in body[:BATCH_MAX]])
        return web.json_response(chain.answer(body))

    application = web.Application(client_max_size=BODY_BYTES_MAX)
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"Listening on 127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    clock = asyncio.create_task(_keep_mining(chain))
    await stopped.wait()
    clock.cancel()
    await runner.cleanup()


async def _keep_mining(chain: LiteChain) -> None:
    """Mine at the chosen interval; idle while each transaction is mined at once."""
    while True:
        await asyncio.sleep(chain.block_time_s or 0.05)
        if chain.block_time_s:
            chain.mine()


def _wealth() -> dict[str, Any]:
    return {"balance": BALANCE_ETH * 10**18, "nonce": 0, "code": b"", "storage": {}}


def main() -> None:
    """Entry point of the chain's process."""
    asyncio.run(serve())


if __name__ == "__main__":
    main()
