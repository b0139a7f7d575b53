"""Heads of the journal on a real chain: written through the engine's own path, found again, held against the journal."""

import asyncio
import contextlib
import secrets
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, isthmus, started
from journal_kit import fill, rewrite, rows_on_disk
from onchain_desk import GWEI, RealClock, settings
from pilot import NAME, Pilot, flying, rules

from agent.app import Secret
from agent.chains.anchors import read_anchors
from agent.domain.errors import ChainError, UsageError
from agent.domain.events import GasPaid, Halted, OrderRefused, OrderReorged, OrderSent
from agent.domain.order import OrderState
from agent.domain.plan import AnchorHead
from agent.engine.anchor import ANCHOR_GAS
from agent.journal.codec import Row, seal
from agent.journal.memory import MemoryJournal
from agent.simulation.chain.world import SandboxChain, start_chain
from agent.wallet import wallet_new

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
S = OrderState
CLOSED = "http://127.0.0.1:1"


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


async def on_chain(pilot: Pilot) -> list[tuple[int, str]]:
    config = pilot.config
    found = await read_anchors(
        (pilot.chain.rpc_url, ""), config.chain_id, config.contracts.audit_anchor, config.wallet, RealClock()
    )
    assert all(one.block and one.tx_hash for one in found)
    return [(one.seq, one.head) for one in found]


async def anchored(pilot: Pilot) -> tuple[int, str]:
    """One head more, in a block."""
    found = await pilot.engine.anchor()
    assert found.reasons == ()
    order = pilot.engine.state.orders[found.order_id]
    await pilot.until(lambda: order.block, "it is in no block")
    return found.seq, found.head


# -- through the engine ------------------------------------------------------------------------------------------------


async def test_a_head_goes_the_way_of_every_transaction_and_is_found_again(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        assert await on_chain(pilot) == []
        before = pilot.held("ETH")
        heads = [await anchored(pilot)]
        await pilot.traded(await pilot.sell())
        heads.append(await anchored(pilot))
        assert await on_chain(pilot) == heads
        for head in heads:
            MemoryJournal(list(pilot.rows)).verify(head)
        paid = [e for e in pilot.journal() if isinstance(e, GasPaid) and e.order_id.startswith("anchor-")]
        assert max(one.gas_used for one in paid) < ANCHOR_GAS
        assert pilot.held("ETH") < before - sum(one.amount.units for one in paid), "gas is booked, of heads and of swaps"
        sent = [e.order_id for e in pilot.journal() if isinstance(e, OrderSent)]
        assert sum(name.startswith("anchor-") for name in sent) == 2
        await pilot.agrees()


async def test_it_waits_for_the_wallet_s_turn_and_swaps_wait_for_it(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        swap = await pilot.held_back()
        waiting = asyncio.create_task(pilot.engine.anchor())
        await pilot.until(lambda: pilot.engine.world.anchoring, "it does not wait")
        await anvil.call("evm_setAutomine", True)
        await anvil.call("evm_mine")
        found = await waiting
        order = pilot.engine.state.orders[found.order_id]
        await pilot.until(lambda: order.block)
        assert swap.nonce is not None
        assert swap.block < order.block
        assert order.nonce == swap.nonce + 1
        await pilot.agrees()


async def test_a_halted_wallet_refuses_with_the_reason(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        pilot.engine._recorder.record([Halted(NAME, "the wallet differs from the journal")])
        found = await pilot.engine.anchor()
        assert [(one.code, one.text) for one in found.reasons] == [("TRADING_HALTED", "the wallet differs from the journal")]
        assert found.order_id == ""
        assert await on_chain(pilot) == []
        refused = [e for e in pilot.journal() if isinstance(e, OrderRefused)]
        assert [isinstance(one.plan, AnchorHead) for one in refused] == [True], "and it is journaled"


async def test_fee_limits_hold_for_heads_too(anvil: SandboxChain) -> None:
    async with flying(anvil, with_rules=rules(gas_fee_cap=60 * GWEI)) as pilot:
        await anvil.call("evm_setAutomine", False)
        await pilot.set_base_fee(150 * GWEI)
        found = await pilot.engine.anchor()
        assert [one.code for one in found.reasons] == ["GAS_FEE_ABOVE_CAP"]
        assert not pilot.engine.state.chain_orders()


async def test_a_head_that_is_priced_out_is_outbid_like_a_swap(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        await pilot.set_base_fee(2 * GWEI)
        await anvil.call("evm_setAutomine", False)
        found = await pilot.engine.anchor()
        order = pilot.engine.state.orders[found.order_id]
        await pilot.until(lambda: order.state is S.OPEN, "no node holds it")
        await pilot.set_base_fee(100 * GWEI)
        await pilot.attempted(lambda: len(order.attempts) == 2, "it was not outbid")
        await anvil.call("evm_mine")
        await pilot.until(lambda: order.block)
        assert await on_chain(pilot) == [(found.seq, found.head)]
        await pilot.agrees()


async def test_a_head_that_a_reorganisation_takes_out_is_put_back_as_the_same_bytes(anvil: SandboxChain) -> None:
    async with flying(anvil, confirmations=100) as pilot:
        head = await anchored(pilot)
        order = next(iter(pilot.engine.state.orders.values()))
        await anvil.call("evm_setAutomine", False)
        await anvil.call("anvil_reorg", 1, [])
        await pilot.until(lambda: any(isinstance(e, OrderReorged) for e in pilot.journal()), "the reorganisation was not seen")
        assert (await on_chain(pilot), order.gas) == ([], None)
        await pilot.until(lambda: order.block, "it did not come back", each=lambda: anvil.call("evm_mine"))
        assert (await on_chain(pilot), len(order.attempts)) == ([head], 1)
        await anvil.call("evm_setAutomine", True)
        await pilot.agrees()


async def test_a_head_that_was_under_way_when_the_agent_stopped_is_found_at_its_next_start(anvil: SandboxChain) -> None:
    key = secrets.token_bytes(32)
    async with flying(anvil, key=key) as pilot:
        await anvil.call("evm_setAutomine", False)
        found = await pilot.engine.anchor()
        await pilot.until(lambda: pilot.engine.state.orders[found.order_id].state is S.OPEN, "no node holds it")
        rows = pilot.rows
    await anvil.call("evm_setAutomine", True)
    await anvil.call("evm_mine")
    async with flying(anvil, key=key, rows=rows) as pilot:
        await pilot.until(lambda: pilot.engine.state.orders[found.order_id].block, "nobody knows what became of it")
        assert await on_chain(pilot) == [(found.seq, found.head)]
        await pilot.agrees()


async def test_a_venue_without_the_contract_keeps_no_heads(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        with pytest.raises(UsageError, match=r"binance keeps no heads of the journal; set contracts\.audit_anchor"):
            await pilot.engine.anchor("binance")
        config = pilot.config
        with pytest.raises(ChainError, match=r"AuditAnchor at 0x.* answers with 0 bytes .*check its address"):
            await read_anchors((anvil.rpc_url, ""), config.chain_id, "0x" + "22" * 20, config.wallet, RealClock())


# -- the command line --------------------------------------------------------------------------------------------------


class Home:
    """A folder with settings for one chain, a funded key, a journal that has begun, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings, self.journal = folder / "isthmus.toml", folder / "journal.sqlite"

    async def __call__(self, *arguments: str) -> Done:
        return await asyncio.to_thread(isthmus, *arguments, at=self.folder)

    async def verified(self, *flags: str) -> dict[str, Any]:
        done = await self("audit", "verify", "--json", *flags)
        assert (done.code, done.err) == (done.json["exit_code"], "")
        found: dict[str, Any] = done.json
        return found

    def change(self, old: str, new: str) -> None:
        text = self.settings.read_text()
        assert old in text
        self.settings.write_text(text.replace(old, new))


@pytest.fixture
async def home(anvil: SandboxChain, tmp_path: Path) -> Home:
    password = tmp_path / "wallet.password"
    password.touch(mode=0o600)
    password.write_text("a password for tests")
    address = wallet_new(tmp_path / "keystore", "main", Secret("a password for tests"), is_sandbox=True)
    await anvil.fund(address, {"ETH": "10", "WETH": "10", "USDT": "50000"})
    section = settings(anvil.deployment, anvil.rpc_url, address)
    lines = ['account = "main"', 'home = "."', "[wallet]", 'keystore = "main"', 'password = "file:wallet.password"']
    lines += ["[venues.uniswap]", *(f"{key} = {_toml(value)}" for key, value in section.items())]
    found = Home(tmp_path)
    found.settings.write_text("\n".join(lines))
    begun = await found("run", "--until-idle", "--json")
    assert begun.code == 0, begun
    return found


def _toml(value: object) -> str:
    match value:
        case str():
            return f'"{value}"'
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return str(value)


@contextlib.asynccontextmanager
async def agent_of(home: Home) -> AsyncIterator["subprocess.Popen[str]"]:
    """An agent that runs and serves its desk."""

    def until_it_serves() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("serving"):
                return
        raise AssertionError(process.communicate())

    process = started("run", at=home.folder)
    try:
        await asyncio.to_thread(until_it_serves)
        yield process
    finally:
        process.terminate()
        out, err = await asyncio.to_thread(process.communicate, timeout=30)
        assert "Traceback" not in out + err


async def test_the_command_anchors_alone_and_through_a_running_agent_and_verify_compares(home: Home) -> None:
    async with agent_of(home):
        seen = await home.verified()
        assert (seen["status"], seen["chains"][0]["status"], seen["chains"][0]["heads"]) == ("ok", "nothing", 0)
        done = await home("audit", "anchor", "--json")
        assert done.code == 0, done
        assert (done.json["status"], done.json["state"], done.json["venue"]) == ("anchored", "MINED", "uniswap")
        seen = await home.verified("--chain")
        assert (seen["status"], seen["chains"][0]["status"], seen["chains"][0]["newest"]) == ("ok", "ok", done.json["head"])
    text = await home("audit", "anchor")
    assert text.code == 0, text
    assert "anchored  record" in text.out
    assert "gas 0.000" in text.out
    text = await home("audit", "verify")
    assert (text.code, "uniswap: 2 heads on the chain agree" in text.out) == (0, True), text
    assert (await home("reconcile", "--json")).json["status"] == "ok"
    shown = (await home("order", "show", done.json["order_id"], "--json")).json
    assert (shown["kind"], shown["state"]) in (("AnchorHead", "MINED"), ("AnchorHead", "FINAL"))


async def test_a_journal_that_was_cut_with_all_that_lies_beside_it_contradicts_the_chain(home: Home) -> None:
    assert (await home("audit", "anchor", "--json")).code == 0
    rows = rows_on_disk(home.journal)
    anchored = next(int(row.seq) for row in rows if b'"AnchorHead"' in row.body) - 1
    _forge(home, rows[: anchored - 1])
    assert (await home.verified("--no-chain"))["status"] == "ok", "alone it is as if it had never been longer"
    found = await home.verified()
    assert (found["status"], found["first_bad"], found["chains"][0]["status"]) == ("fail", anchored, "fail")
    assert f"ends at record {anchored - 1}, but record {anchored} was anchored at uniswap in block" in found["error"]
    text = await home("audit", "verify")
    assert (text.code, "fail  the journal ends at record" in text.out) == (4, True)
    again = await home("audit", "anchor")
    assert (again.code, "not anchored: the journal ends at record" in again.err) == (4, True), again


async def test_a_journal_that_was_written_anew_contradicts_the_chain(home: Home) -> None:
    for _ in range(2):
        assert (await home("audit", "anchor", "--json")).code == 0
    rows = rows_on_disk(home.journal)
    approved = [row.seq for row in rows if b'"OrderApproved"' in row.body and b'"AnchorHead"' in row.body]
    first, second = approved[0] - 1, approved[1] - 1
    stop = next(at for at in range(first, second) if b'"EngineStopped"' in rows[at].body)
    _forge(home, rows[:stop], [rows[stop].body.replace(b"leaving", b"staying"), *(row.body for row in rows[stop + 1 :])])
    assert (await home.verified("--no-chain"))["status"] == "ok"
    found = await home.verified()
    assert (found["status"], found["exit_code"]) == ("fail", 4)
    assert f"record {second} is not the one that was anchored" in found["error"]
    assert f"up to record {first} it agrees with the chain" in found["error"]


def _forge(home: Home, rows: list[Row], bodies: Sequence[bytes] = ()) -> None:
    """All that lies in the folder says: `rows`, then these `bodies`, sealed anew; a journal that is whole in itself."""
    for path in home.folder.glob("journal.sqlite*"):
        path.unlink()
    fill(home.journal, 0)
    made = list(rows)
    for body in bodies:
        seq = len(made) + 1
        made.append(Row(seq, 7, body, seal(made[-1].hash, seq, 7, body)))
    rewrite(home.journal, made)


async def test_a_chain_that_does_not_answer_is_said_and_only_fails_who_insists(home: Home) -> None:
    assert (await home("audit", "anchor", "--json")).code == 0
    url = home.settings.read_text().split('rpc_url = "')[1].split('"')[0]
    home.change(url, CLOSED)
    found = await home.verified()
    assert (found["status"], found["chains"][0]["status"]) == ("ok", "not compared")
    assert "cannot be reached" in found["chains"][0]["error"]
    text = await home("audit", "verify")
    assert (text.code, "not compared with the chain: " in text.out) == (0, True)
    found = await home.verified("--chain")
    assert (found["status"], found["exit_code"]) == ("not compared", 4)
    done = await home("audit", "anchor")
    assert (done.code, "cannot be reached" in done.err) == (4, True)


async def test_a_killed_home_anchors_nothing_and_says_why(home: Home) -> None:
    assert (await home("audit", "anchor", "--json")).code == 0
    assert (await home("kill", "--reason", "drill", "--json")).code == 0
    done = await home("audit", "anchor")
    assert done.code == 3, done
    assert "refused: TRADING_HALTED: killed at" in done.err
    assert "drill" in done.err
