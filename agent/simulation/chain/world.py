"""Starts the sandbox chain: the whole on-chain market, ready to trade, in a fraction of a second.

    chain = await start_chain("anvil")
    await chain.fund(address, {"ETH": "5", "USDT": "100000"})
    ...
    await chain.stop()

The first start on a machine fetches and builds the world (about half a minute, most of it compiling Permit2) and keeps the
result in the cache; later Anvil starts only load it. The eth-tester chain needs no Anvil program and deploys each time.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from agent.simulation.chain.anvil import CHAIN_ID, GENESIS_S, start_anvil
from agent.simulation.chain.artifacts import HERE, LOCK_PATH, bundle, cache_dir, data_dir, digest, write_atomic
from agent.simulation.chain.child import Child
from agent.simulation.chain.compile import permit2
from agent.simulation.chain.deploy import DEPLOYER, build_world, fund
from agent.simulation.chain.deployment import Deployment, save_deployment
from agent.simulation.chain.rpc import Rpc, Sender, dev_account
from agent.simulation.chain.wallets import Made, new_account
from agent.simulation.world import AccountKind

ChainKind = Literal["anvil", "eth-tester"]
_STATE, _BOOK = "state.json", "deployment.json"


class SandboxChain:
    """A running sandbox chain. Its RPC listens on this machine only."""

    def __init__(self, kind: ChainKind, child: Child, deployment: Deployment) -> None:
        self.kind, self.deployment = kind, deployment
        self.rpc_url = child.url
        self.ws_url = f"ws://127.0.0.1:{child.port}" if kind == "anvil" else None
        self.chain_id = deployment.chain_id
        self._child = child
        self._rpc = Rpc(child.url)
        self._deployer = Sender(self._rpc, dev_account(DEPLOYER))
        self._turn = asyncio.Lock()

    async def fund(self, address: str, amounts: Mapping[str, str]) -> None:
        """Give assets out of nothing, in whole units as text, and wait until they are there: {"ETH": "5", "USDT": "1000"}.

        Raises ValueError for an unknown asset or a bad amount, RpcError when the chain refuses.
        """
        async with self._turn:
            await asyncio.to_thread(self._fund, address, amounts)

    async def account_of(self, kind: AccountKind, key: str) -> Made:
        """A new account that `key` acts for. All but "eoa" and "safe" need Anvil."""
        async with self._turn:
            return await asyncio.to_thread(self._account_of, kind, key)

    async def call(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call to the node, for tests and faults, for example `call("evm_mine")`."""
        async with self._turn:
            return await asyncio.to_thread(self._rpc.call, method, *params)

    async def snapshot(self) -> str:
        """Remember the chain as it is; see `revert`."""
        return str(await self.call("evm_snapshot"))

    async def revert(self, snapshot: str) -> None:
        """Go back to a snapshot; each serves once. Raises ValueError when the chain does not know it."""
        if await self.call("evm_revert", snapshot) is not True:
            raise ValueError(f"the chain has no snapshot {snapshot}: each can be used once")
        if self.kind == "anvil":
            # It went back in time as well, and kept what waits to be mined.
            await self.call("anvil_dropAllTransactions")
            await self.call("evm_setTime", int(time.time()))

    async def stop(self) -> None:
        """End the node; safe to repeat."""
        self._rpc.close()
        await asyncio.to_thread(self._child.stop)

    def _fund(self, address: str, amounts: Mapping[str, str]) -> None:
        self._deployer.resume()  # the chain may have been reverted since the last time
        fund(self._deployer, self.deployment, address, amounts)

    def _account_of(self, kind: AccountKind, key: str) -> Made:
        self._deployer.resume()
        return new_account(self._deployer, kind, key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()


async def start_chain(
    kind: ChainKind = "anvil", *, block_time_s: float | None = None, log_path: Path | None = None
) -> SandboxChain:
    """Start a chain with the whole world on it.

    `block_time_s` None mines each transaction at once; a number makes a block at that interval. The node's log goes to
    `log_path`, or to a temporary file. Raises ArtifactError or ChildError, in one line, when it cannot.
    """
    return await asyncio.to_thread(_start, kind, block_time_s, log_path)


def prepare() -> None:
    """Fetch, compile and cache all that `start_chain` needs, so that later starts need neither network nor node."""
    bundle()
    permit2()
    ensure_world()


def ensure_world() -> tuple[Path, Deployment]:
    """The state file and the address book of the Anvil world, built when the cache has none."""
    folder = cache_dir() / f"world-{_world_digest()}"
    state, book = folder / _STATE, folder / _BOOK
    if not (state.exists() and book.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"building-{os.getpid()}.json"
        child = start_anvil(dump=scratch, timestamp_s=GENESIS_S)
        rpc = Rpc(child.url)
        try:
            deployment = build_world(rpc)
        finally:
            rpc.close()
            child.stop()
        write_atomic(book, msgspec.json.encode(deployment))
        scratch.replace(state)
    return state, msgspec.json.decode(book.read_bytes(), type=Deployment)


def write_deployment() -> Path:
    """Regenerate `deployments/31337.json` in a checkout."""
    path = data_dir("deployments") / f"{CHAIN_ID}.json"
    save_deployment(ensure_world()[1], path)
    return path


def _start_lite(block_time_s: float | None, log_path: Path | None) -> tuple[Child, Deployment]:
    """Start the chain in its own process and build the world on it (a few seconds).

    Raises ChildError when it does not start, ArtifactError when a contract cannot be had.
    """
    command = [sys.executable, "-m", "agent.simulation.chain.lite"]
    top = str(HERE.parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [top, os.environ.get("PYTHONPATH")]))}
    child = Child(command, log_path=log_path, environment=environment)
    rpc = Rpc(child.url)
    try:
        deployment = build_world(rpc)
        rpc.call("evm_setIntervalMining", block_time_s or 0)
    except BaseException:
        child.stop()
        raise
    finally:
        rpc.close()
    return child, deployment


def _start(kind: ChainKind, block_time_s: float | None, log_path: Path | None) -> SandboxChain:
    if kind == "anvil":
        state, deployment = ensure_world()
        child = start_anvil(load=state, block_time_s=block_time_s, log_path=log_path)
    else:
        child, deployment = _start_lite(block_time_s, log_path)
    try:
        rpc = Rpc(child.url)
        if kind == "anvil":
            rpc.call("evm_mine")  # the state was built in 2023 by its own clock: let the head block be of now
        rpc.close()
        return SandboxChain(kind, child, deployment)
    except BaseException:
        child.stop()
        raise


def _world_digest() -> str:
    """Names the cached world after everything that shapes it: pinned packages, our bytecode, the building code."""
    sources = [HERE / "deploy.py", HERE / "pools.py", LOCK_PATH, *sorted(data_dir("abis").glob("*.json"))]
    return digest(*(path.read_bytes() for path in sources))
