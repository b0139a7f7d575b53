"""`isthmus kill` on a real chain: transactions that wait are replaced by nothing, and nobody claims more than a block has said."""

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli_kit import environment
from pilot import NAME, Pilot, flying

from agent.chains.take_back import take_back
from agent.domain.order import OrderState
from agent.domain.plan import Call, Calls, SignedTransaction
from agent.domain.sweep import Sweep, Swept
from agent.journal.latch import FileLatch
from agent.keys.bounds import NO_HOOKS, KeyPolicy
from agent.keys.keystore import Keystore
from agent.keys.local import LocalSigner
from agent.keys.secrets import Secret
from agent.simulation.chain.world import SandboxChain, start_chain

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
GWEI = 10**9
WAIT_S = 30.0
PASSWORD = "a test"


class Stuck(NamedTuple):
    """A chain that makes no block by itself, and a wallet whose transactions wait there."""

    chain: SandboxChain
    signer: LocalSigner
    home: Path

    async def send(self, nonce: int, fee: int) -> str:
        to = self.signer.address
        unsigned = Calls(f"stuck-{nonce}", self.chain.chain_id, (Call(to, b""),), (), nonce, 30_000, fee, min(fee, 2 * GWEI))
        signed = await self.signer.sign(unsigned)
        assert isinstance(signed, SignedTransaction)
        return str(await self.chain.call("eth_sendRawTransaction", "0x" + signed.raw.hex()))

    async def waiting(self) -> set[str]:
        block = await self.chain.call("eth_getBlockByNumber", "pending", True)
        return {one["hash"] for one in block["transactions"]}

    def configure(self, **changes: Any) -> Path:
        rows = {"rpc_url": self.chain.rpc_url, "chain_id": self.chain.chain_id, "wallet": self.signer.address} | changes
        text = 'home = "."\n[wallet]\nkeystore = "main"\npassword = "file:wallet.password"\n[venues.uniswap]\nkind = "uniswap"\n'
        path = self.home / "isthmus.toml"
        path.write_text(text + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rows.items()))
        return path

    @contextlib.asynccontextmanager
    async def kill(self, *arguments: str, **changes: Any) -> AsyncIterator["asyncio.Task[tuple[int, Any]]"]:
        command = (sys.executable, "-m", "agent", "kill", "--json", "--config", str(self.configure(**changes)), *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment())

        async def ended() -> tuple[int, Any]:
            out, _ = await process.communicate()
            found = json.loads(out)
            return found["exit_code"], found["venues"][0]

        task = asyncio.create_task(ended())
        try:
            yield task
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.gather(task, return_exceptions=True)

    async def killed(self, *arguments: str, **changes: Any) -> tuple[int, Any]:
        async with self.kill(*arguments, **changes) as task, asyncio.timeout(WAIT_S):
            return await task


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


@contextlib.asynccontextmanager
async def stuck(home: Path) -> AsyncIterator[Stuck]:
    store = Keystore(home / "keystore", 2**12)
    address = store.new("main", Secret(PASSWORD))
    (home / "wallet.password").touch(mode=0o600)
    (home / "wallet.password").write_text(PASSWORD)
    signer = store.unlock("main", Secret(PASSWORD))
    async with await start_chain("anvil") as chain:
        signer.allow(KeyPolicy(chain.chain_id, address, NO_HOOKS, NO_HOOKS, frozenset(), {}, 1_000 * GWEI, 100_000))
        await chain.fund(address, {"ETH": "5"})
        await chain.call("evm_setAutomine", False)
        yield Stuck(chain, signer, home)
    signer.close()


async def test_what_waits_is_replaced_and_counts_when_a_block_has_it(tmp_path: Path) -> None:
    async with stuck(tmp_path) as at:
        old = {await at.send(nonce, 20 * GWEI) for nonce in range(3)}
        code, row = await at.killed("--dry-run")
        assert (code, row["found"], row["left"]) == (0, 3, 3)
        assert await at.waiting() == old
        async with at.kill() as task, asyncio.timeout(WAIT_S):
            while (now := await at.waiting()) & old or len(now) < 3:
                assert not task.done(), task.result()
                await asyncio.sleep(0.05)
            await at.chain.call("evm_mine")
            code, row = await task
        assert (code, row["found"], row["cancelled"], row["left"], row["note"]) == (0, 3, 3, 0, "")
        assert [await at.chain.call("eth_getTransactionReceipt", one) for one in old] == [None] * 3
        assert int(await at.chain.call("eth_getTransactionCount", at.signer.address, "latest"), 16) == 3
        code, row = await at.killed()
        assert (code, row["found"], row["left"]) == (0, 0, 0)


async def test_what_waits_for_its_block_counts_as_left(tmp_path: Path) -> None:
    async with stuck(tmp_path) as at:
        await at.send(0, 20 * GWEI)
        code, row = await at.killed()
        assert (code, row["found"], row["cancelled"], row["left"]) == (4, 1, 0, 1)
        assert "replaced 1, which a block must still take; run it again" in row["note"]


async def test_a_transaction_that_a_block_took_first_is_not_called_cancelled(tmp_path: Path) -> None:
    async with stuck(tmp_path) as at:
        tx_hash = await at.send(0, 20 * GWEI)
        await at.chain.call("evm_mine")
        code, row = await at.killed()
        assert (code, row["found"], row["cancelled"], row["left"]) == (0, 0, 0, 0)
        assert await at.chain.call("eth_getTransactionReceipt", tx_hash)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chain_id": 5}, "the node answers for chain 31337, the settings say 5"),
        ({"gas_fee_max_gwei": 20}, "more than gas_fee_max_gwei = 20"),
        ({"wallet": "0x" + "00" * 19 + "01"}, ""),
        ({"rpc_url": "http://127.0.0.1:9/secret-path"}, "the node cannot be reached"),
        ({"rpc_url": "nowhere"}, "rpc_url is not an address"),
        ({"chain_id": "x"}, "Expected `int`"),
    ],
)
async def test_what_stands_in_the_way_is_said_and_nothing_is_sent(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    async with stuck(tmp_path) as at:
        old = {await at.send(0, 20 * GWEI)}
        code, row = await at.killed(**changes)
        assert says in row["note"], row
        assert (code, row["cancelled"]) == (4 if says else 0, 0)
        assert "secret-path" not in json.dumps(row)
        assert await at.waiting() == old


async def test_a_password_that_is_missing_leaves_it_waiting(tmp_path: Path) -> None:
    async with stuck(tmp_path) as at:
        old = {await at.send(0, 20 * GWEI)}
        (tmp_path / "wallet.password").unlink()
        code, row = await at.killed()
        assert (code, row["found"], row["left"]) == (4, 1, 1)
        assert "wallet.password" in row["note"]
        assert await at.waiting() == old


async def test_over_a_websocket(tmp_path: Path) -> None:
    async with stuck(tmp_path) as at:
        await at.send(0, 20 * GWEI)
        code, row = await at.killed("--dry-run", rpc_url=at.chain.rpc_url.replace("http", "ws", 1))
        assert (code, row["found"], row["left"]) == (0, 1, 1), row


# -- what the agent makes of it ----------------------------------------------------------------------------------------


async def swept(pilot: Pilot, key: bytes) -> Swept:
    """What `isthmus kill` does for the wallet of the agent: in another process usually, and beside its journal always."""

    async def opened(_section: object) -> LocalSigner:
        signer = LocalSigner(bytearray(key))
        signer.allow(KeyPolicy(pilot.config.chain_id, signer.address, NO_HOOKS, NO_HOOKS, frozenset(), {}, 500 * GWEI, 1_000_000))
        return signer

    config = pilot.config
    section = {"rpc_url": pilot.chain.rpc_url, "chain_id": config.chain_id, "wallet": config.wallet}
    until_ms = round((asyncio.get_running_loop().time() + WAIT_S) * 1_000)
    sweeping = asyncio.create_task(take_back(NAME, section, opened, Sweep(until_ms)))
    while not sweeping.done():
        await asyncio.sleep(0.05)
        await pilot.chain.call("evm_mine")
    return await sweeping


async def is_explained(pilot: Pilot, before: int) -> None:
    """The order is cancelled, by one transaction whose gas is ours; nothing is left for a person to adopt."""
    swap = pilot.engine.state.orders["p1-0"]
    await pilot.until(lambda: swap.state is OrderState.CANCELLED, "it does not know what became of it")
    assert list(swap.gas_paid) == [swap.tx_hash]
    assert pilot.held("WETH") == before
    assert await pilot.engine.reconcile() == []
    assert set(pilot.engine.state.halted) <= {"kill"}
    assert pilot.engine.state.status == {}


async def test_a_kill_beside_a_running_agent_is_explained_by_itself(anvil: SandboxChain, tmp_path: Path) -> None:
    key, latch = secrets.token_bytes(32), FileLatch(tmp_path)
    async with flying(anvil, key=key, latch=latch) as pilot:
        before = pilot.held("WETH")
        await pilot.held_back()
        latch.engage("drill")
        assert (await swept(pilot, key)).left == 0
        await is_explained(pilot, before)
        await anvil.call("evm_setAutomine", True)
        latch.lift("the drill is over")
        await pilot.traded("p1")
        await pilot.agrees()


async def test_a_kill_while_no_agent_ran_is_explained_at_its_next_start(anvil: SandboxChain) -> None:
    key = secrets.token_bytes(32)
    async with flying(anvil, key=key) as pilot:
        before = pilot.held("WETH")
        swap = await pilot.held_back()
        await pilot.engine.cancel("p1")
        rows = pilot.rows
    assert (await swept(pilot, key)).cancelled == 1
    async with flying(anvil, key=key, rows=rows) as pilot:
        await is_explained(pilot, before)
        assert pilot.engine.state.orders["p1-0"].tx_hash not in {one.tx_hash for one in swap.attempts}, "the kill's own"
        await pilot.is_explained()
