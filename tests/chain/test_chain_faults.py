"""Faults of chains and nodes, on purpose, on a real node: what becomes of our transactions, and that every wei stays explained."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from pilot import Pilot, flying, rules

from agent.domain.events import GasPaid, OrderFilled, OrderReorged, OrderReported, OrderSent
from agent.domain.order import OrderState
from agent.simulation.chain.world import SandboxChain, start_chain

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
S = OrderState
ETH, USDT, GWEI = 10**18, 10**6, 10**9


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


# -- the whole engine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 7, 64])
@pytest.mark.parametrize("is_mined_again", [True, False])
async def test_a_reorganisation_of_any_depth_is_taken_back_and_every_wei_stays_explained(
    anvil: SandboxChain, depth: int, is_mined_again: bool
) -> None:
    async with flying(anvil, is_permitted=False, confirmations=100) as pilot:
        swap = await pilot.traded(await pilot.sell())
        if depth > 1:
            await anvil.call("anvil_mine", hex(depth - 1))
        await pilot.agrees()
        place = swap.block, swap.block_hash
        await anvil.call("evm_setAutomine", False)
        signed = ["0x" + order.raw.hex() for order in pilot.engine.state.orders.values()][-min(depth, 2) :]
        pairs = [[raw, 0] for raw in signed] if is_mined_again else []
        await anvil.call("anvil_reorg", depth, pairs)
        await pilot.until(lambda: any(isinstance(e, OrderReorged) for e in pilot.journal()), "the reorganisation was not seen")
        gone = [e for e in pilot.journal() if isinstance(e, OrderReorged) and e.order_id == swap.order_id]
        assert [(e.tx_hash, e.block, e.block_hash) for e in gone] == [(swap.tx_hash, *place)]
        if not is_mined_again:
            assert swap.fills == []
            assert swap.gas is None
            await pilot.is_explained()
            await pilot.until(lambda: swap.state is S.OPEN, "it was not sent again")
            await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.MINED and swap.block, "it was not booked again")
        assert (swap.block, swap.block_hash) != place
        assert len(swap.attempts) == 1, "the same bytes, never another order"
        await pilot.until(lambda: not pilot.engine.state.working)
        await pilot.agrees()


async def test_a_reorganisation_while_the_agent_was_away_is_found_at_the_start(anvil: SandboxChain) -> None:
    key = secrets.token_bytes(32)
    async with flying(anvil, key=key, is_permitted=False, confirmations=100) as pilot:
        swap = await pilot.traded(await pilot.sell())
        rows = pilot.rows
    await anvil.call("evm_setAutomine", False)
    await anvil.call("anvil_reorg", 2, [])
    async with flying(anvil, key=key, rows=rows, confirmations=100) as pilot:
        gone = [(e.order_id, e.tx_hash) for e in pilot.journal() if isinstance(e, OrderReorged)]
        assert (swap.order_id, swap.tx_hash) in gone
        assert len(gone) == 2, "the permission and the swap"
        await pilot.is_explained()
        again = pilot.engine.state.orders[swap.order_id]
        await pilot.until(lambda: not pilot.waiting(S.UNKNOWN), "they were not sent again")
        await anvil.call("evm_mine")
        await pilot.until(lambda: again.state is S.MINED)
        await pilot.agrees()


async def test_a_reorganisation_of_what_was_final_halts(anvil: SandboxChain) -> None:
    async with flying(anvil, confirmations=3) as pilot:
        swap = await pilot.traded(await pilot.sell())
        await anvil.call("anvil_mine", "0x4")
        await pilot.until(lambda: swap.is_final)
        booked = list(swap.fills)
        await anvil.call("anvil_reorg", 6, [])
        await pilot.until(lambda: "uniswap" in pilot.engine.state.halted)
        assert "was final" in pilot.engine.state.halted["uniswap"]
        assert swap.fills == booked, "a person decides"


async def test_a_fee_spike_is_outbid(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        await pilot.set_base_fee(2 * GWEI)
        swap = await pilot.held_back()
        first = swap.attempts[0]
        await pilot.set_base_fee(100 * GWEI)  # times fifty
        await pilot.until(lambda: len(swap.attempts) == 2, "it was not outbid")
        second = swap.attempts[1]
        assert second.gas_fee_max >= -(-first.gas_fee_max * 113 // 100)
        assert second.gas_tip >= -(-first.gas_tip * 113 // 100)
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.MINED)
        assert (swap.tx_hash, len(swap.fills)) == (second.tx_hash, 1)
        assert list(swap.gas_paid) == [second.tx_hash], "one of the two happened and costs"
        await pilot.agrees()


async def test_above_the_cap_it_waits_and_lands_when_blocks_are_cheap_again(anvil: SandboxChain) -> None:
    async with flying(anvil, with_rules=rules(gas_fee_cap=60 * GWEI)) as pilot:
        await pilot.set_base_fee(2 * GWEI)
        swap = await pilot.held_back()
        await pilot.set_base_fee(100 * GWEI)
        await pilot.until(lambda: len(swap.attempts) == 2, "it was not outbid")
        assert swap.attempts[1].gas_fee_max == 60 * GWEI
        for _ in range(8):  # an eighth less with each empty block
            await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.MINED)
        assert max(one.gas_fee_max for one in swap.attempts) <= 60 * GWEI
        await pilot.agrees()


async def test_past_its_deadline_it_is_taken_back_by_nothing_to_oneself(anvil: SandboxChain) -> None:
    async with flying(anvil, with_rules=rules(deadline_s=30)) as pilot:
        swap = await pilot.held_back()
        before = pilot.held("WETH")
        await anvil.call("evm_increaseTime", 60)
        await pilot.set_base_fee(5 * GWEI)  # nobody gets in, and time has passed
        await pilot.until(lambda: any(one.is_cancel for one in swap.attempts), "it was not taken back")
        await anvil.call("anvil_setNextBlockBaseFeePerGas", hex(2 * GWEI))
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.CANCELLED)
        assert swap.reason == "cancelled by a transaction to oneself"
        assert pilot.held("WETH") == before
        assert swap.gas is not None
        assert swap.gas.units > 0
        await anvil.call("evm_setAutomine", True)
        await pilot.agrees()


async def test_what_would_revert_now_is_taken_back_before_it_does(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        swap = await pilot.held_back()
        before = pilot.held("WETH")
        await pilot.take_permission_back()
        await pilot.set_base_fee(5 * GWEI)  # a block without it, against which it is run
        await pilot.until(lambda: any(one.is_cancel for one in swap.attempts), "it was not taken back")
        assert any("it would revert now" in one.why for one in pilot.attempts())
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.CANCELLED)
        assert pilot.held("WETH") == before
        await pilot.is_explained()


async def test_the_older_attempt_is_mined_and_decides(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        await pilot.set_base_fee(2 * GWEI)
        swap = await pilot.held_back()
        await pilot.set_base_fee(100 * GWEI)
        await pilot.until(lambda: len(swap.attempts) == 2, "it was not outbid")
        first, second = swap.attempts
        await pilot.until(lambda: not pilot.engine.world.attempting)
        await anvil.call("anvil_dropTransaction", second.tx_hash)
        await anvil.call("anvil_setNextBlockBaseFeePerGas", hex(2 * GWEI))
        await anvil.call("eth_sendRawTransaction", "0x" + first.raw.hex())
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.MINED)
        assert (swap.tx_hash, list(swap.gas_paid)) == (first.tx_hash, [first.tx_hash])
        await pilot.agrees()


async def test_a_dropped_transaction_is_sent_again_as_the_same_bytes(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        swap = await pilot.held_back()
        await anvil.call("anvil_dropTransaction", swap.tx_hash)
        await pilot.until(lambda: swap.state is S.MINED, "it never came back", each=lambda: anvil.call("evm_mine"))
        assert len(swap.attempts) == 1
        assert sum(isinstance(e, OrderSent) and e.order_id == swap.order_id for e in pilot.journal()) == 1
        await anvil.call("evm_setAutomine", True)
        await pilot.agrees()


async def test_a_wallet_that_another_program_uses_is_halted(anvil: SandboxChain) -> None:
    async with flying(anvil) as pilot:
        swap = await pilot.held_back()
        await anvil.call("anvil_dropTransaction", swap.tx_hash)
        foreign = await pilot.another_program(nonce=swap.nonce or 0)
        await anvil.call("evm_mine")
        await pilot.until(lambda: "uniswap" in pilot.engine.state.status, "nobody noticed")
        assert "another program signs with this wallet" in pilot.engine.state.status["uniswap"].reason
        await anvil.call("anvil_mine", "0x3")  # final now
        await pilot.until(lambda: swap.state is S.REPLACED, "it was not seen as replaced")
        assert foreign in swap.reason
        assert swap.fills == []
        await pilot.engine.reconcile()
        assert any("another program" in one.cause for one in await pilot.engine.reconcile())
