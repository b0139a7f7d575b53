"""Faults of chains and nodes, on purpose, on a real node: what becomes of our transactions, and that every wei stays explained."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from onchain_desk import GAS_FEE_MAX, Desk, open_desk
from pilot import flying, rules
from rpc_proxy import proxied

from agent.domain.amount import Amount
from agent.domain.errors import ChainError, OutcomeUnknown
from agent.domain.events import GasPaid, OrderReorged, OrderReported, OrderSent, VenueStatus
from agent.domain.market import ChainHead
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import AnchorHead, CancelTransaction, SignedTransaction
from agent.ports import Simulated
from agent.simulation.chain.rpc import Rpc
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
        await pilot.attempted(lambda: len(swap.attempts) == 2, "it was not outbid")
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
        await pilot.set_base_fee(150 * GWEI)
        await pilot.until(
            lambda: swap.state is S.MINED, each=lambda: anvil.call("evm_mine")
        )  # an eighth less with each empty block
        assert max(one.gas_fee_max for one in swap.attempts) <= 60 * GWEI
        await anvil.call("evm_setAutomine", True)
        await pilot.agrees()


async def test_past_its_deadline_it_is_taken_back_by_nothing_to_oneself(anvil: SandboxChain) -> None:
    async with flying(anvil, with_rules=rules(deadline_s=30)) as pilot:
        swap = await pilot.held_back()
        before = pilot.held("WETH")
        await anvil.call("evm_increaseTime", 60)
        await pilot.set_base_fee(5 * GWEI)  # nobody gets in, and time has passed
        await pilot.attempted(lambda: any(one.is_cancel for one in swap.attempts), "it was not taken back")
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
        await pilot.attempted(lambda: any(one.is_cancel for one in swap.attempts), "it was not taken back")
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
        await pilot.attempted(lambda: len(swap.attempts) == 2, "it was not outbid")
        first, second = swap.attempts
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
        assert await anvil.call("eth_getTransactionByHash", swap.tx_hash) is None
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
        steps = await pilot.engine.repair(is_rehearsal=True)
        assert any(step.about == "nonce" and "another program uses this wallet" in step.action for step in steps)


async def test_an_answer_that_was_cut_off_after_the_broadcast_is_settled_by_asking(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as proxy, flying(anvil, rpc_url=proxy.url) as pilot:
        proxy.cut = {"eth_sendRawTransaction", "eth_getTransactionByHash"}  # and the first look fails too
        name = await pilot.sell()
        swap = await pilot.swap()
        await pilot.until(lambda: swap.state in (S.UNKNOWN, S.MINED))
        proxy.cut = set()
        await pilot.traded(name)
        assert proxy.count("eth_sendRawTransaction") == 1, "nothing is resent blindly"
        await pilot.agrees()


# -- one order, several transactions -----------------------------------------------------------------------------------


def reference(*signed: SignedTransaction, cancels: tuple[SignedTransaction, ...] = ()) -> OrderRef:
    """What the journal knows of an order after a restart."""
    hashes = tuple(one.tx_hash for one in (*signed, *cancels))
    first = signed[0]
    return OrderRef(first.order_id, "uniswap", "", "", hashes[-1], first.nonce, 1, hashes, tuple(one.tx_hash for one in cancels))


def told(facts: object) -> list[tuple[str, OrderState, str]]:
    assert isinstance(facts, list | tuple)
    return [(one.order_id, one.state, one.tx_hash) for one in facts if isinstance(one, OrderReported)]


def back(desk: Desk, order_id: str, times: int) -> CancelTransaction:
    chain_id = desk.config.chain_id
    return CancelTransaction(order_id, "i", "main", "uniswap", chain_id, 22_000, GAS_FEE_MAX * times, GAS_FEE_MAX * times // 100)


async def pair(desk: Desk) -> tuple[SignedTransaction, SignedTransaction]:
    """An approval, and the transaction that takes it back."""
    nonce = await desk.nonce()
    first = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)), nonce)
    return first, await desk.sign(back(desk, "o", 2), nonce)


@pytest.mark.parametrize("which", [0, 1])
async def test_whichever_of_two_is_mined_decides_also_after_a_restart(anvil: SandboxChain, which: int) -> None:
    async with open_desk(anvil) as desk:
        both = await pair(desk)
        await anvil.call("evm_setAutomine", False)
        for one in both:
            await desk.venue.send(one)
        await anvil.call("anvil_dropTransaction", both[1 - which].tx_hash)
        if which == 0:
            await anvil.call("eth_sendRawTransaction", "0x" + both[0].raw.hex())
        await anvil.call("evm_mine")
        state = (S.MINED, S.CANCELLED)[which]
        ended = await desk.feed.report("o", state)
        assert ended.tx_hash == both[which].tx_hash
        assert ended.block > 0
        assert len(ended.block_hash) == 66
        assert [e.tx_hash for e in desk.feed.events if isinstance(e, GasPaid)] == [both[which].tx_hash]
        async with open_desk(anvil, after=desk) as other:
            shot = await other.venue.snapshot([reference(both[0], cancels=both[1:])])
            assert told(shot.facts) == [("o", state, both[which].tx_hash)]
        await anvil.call("anvil_mine", "0x2")
        final = await desk.feed.report("o", S.FINAL)
        assert (final.tx_hash, final.block) == (ended.tx_hash, ended.block), "final, whatever it was"


async def test_a_reverted_one_becomes_final_too(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        plan = await desk.batch([desk.sell_eth("v3-500", ETH, 2_500 * USDT)])  # without a permission
        await desk.venue.send(await desk.sign(plan))
        reverted = await desk.feed.report(plan.order_id, S.REVERTED)
        await anvil.call("anvil_mine", "0x2")
        final = await desk.feed.report(plan.order_id, S.FINAL)
        assert (final.tx_hash, final.block_hash) == (reverted.tx_hash, reverted.block_hash)


async def test_a_gap_in_the_numbers_is_closed_by_the_same_bytes(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as proxy, open_desk(anvil, proxy.url) as desk:
        nonce = await desk.nonce()
        lower = await desk.sign(desk.permission("o0", Amount(USDT, desk.usdt)), nonce)
        upper = await desk.sign(desk.permission("o1", Amount(ETH, desk.weth)), nonce + 1)
        proxy.swallowed = {"eth_sendRawTransaction"}
        with pytest.raises(OutcomeUnknown):
            await desk.venue.send(lower)  # lost on its way
        proxy.swallowed = set()
        await desk.venue.send(upper)
        await anvil.call("evm_mine")
        shot = await desk.venue.snapshot([reference(lower), reference(upper)])
        assert told(shot.facts) == [("o1", S.OPEN, upper.tx_hash)], "of what nobody knows nothing is said"
        await desk.venue.send(lower)
        await desk.feed.report("o0", S.MINED)
        await desk.feed.report("o1", S.MINED)


async def test_only_the_next_in_turn_is_run_against_a_new_block(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        nonce = await desk.nonce()
        approval = await desk.sign(desk.permission("a", Amount(10 * ETH, desk.weth)), nonce)
        plan = await desk.batch([desk.sell_eth("v3-500", ETH, 2_500 * USDT)])
        swap = await desk.sign(plan, nonce + 1)
        await anvil.call("evm_setAutomine", False)
        await desk.venue.send(approval)
        await desk.venue.send(swap)

        async def seen(reason_of: str) -> str:
            await anvil.call("anvil_setNextBlockBaseFeePerGas", hex(GAS_FEE_MAX * 2))
            await anvil.call("evm_mine")  # takes neither
            number = int(await anvil.call("eth_blockNumber"), 16)
            one = await desk.feed.until(
                lambda events: next((e for e in events if isinstance(e, Simulated) and e.block == number), None)
            )
            assert one.order_id == reason_of
            return one.reason

        assert await seen("a") == ""
        assert {e.order_id for e in desk.feed.events if isinstance(e, Simulated)} == {"a"}, "the swap needs it first"
        await anvil.call("anvil_setNextBlockBaseFeePerGas", hex(1))
        await anvil.call("anvil_dropTransaction", swap.tx_hash)
        await desk.venue.send(approval)  # what is priced out falls from the node's pool
        await anvil.call("evm_mine")
        await desk.feed.report("a", S.MINED)
        await desk.venue.send(swap)
        assert await seen(plan.order_id) == ""
        await anvil.call("anvil_setBalance", desk.config.wallet, "0x0")
        await anvil.call("anvil_setCode", desk.weth.address, "0x60006000fd")  # everything it is asked fails
        assert "revert" in await seen(plan.order_id)


async def test_a_late_landing_is_a_success_whatever_was_said_to_the_send(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        first, cancel = await pair(desk)
        await desk.venue.send(first)
        await desk.feed.report("o", S.MINED)
        facts = await desk.venue.send(cancel)  # too late: nonce too low
        assert told(facts) == [("o", S.MINED, first.tx_hash)]


async def test_a_receipt_that_is_missing_takes_nothing_back(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as proxy, open_desk(anvil, proxy.url, confirmations=50) as desk:
        signed = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)))
        await desk.venue.send(signed)
        mined = await desk.feed.report("o", S.MINED)
        proxy.nulls = {"eth_getTransactionReceipt", "eth_getTransactionByHash"}  # its index is gone for a while
        ref = OrderRef(
            "o", "uniswap", "", "", signed.tx_hash, signed.nonce, 1, (signed.tx_hash,), (), mined.block, mined.block_hash, S.MINED
        )
        assert [fact for fact in (await desk.venue.snapshot([ref])).facts if not isinstance(fact, VenueStatus)] == []
        await anvil.call("anvil_reorg", 1, [])
        facts = (await desk.venue.snapshot([ref])).facts
        assert [type(fact) for fact in facts] == [OrderReorged]


# -- providers ---------------------------------------------------------------------------------------------------------


async def test_two_providers_that_agree_are_one(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as second, open_desk(anvil, rpc_url_second=second.url) as desk:
        await desk.approve(desk.weth, ETH)
        assert second.count("eth_sendRawTransaction") == 1, "both are told"
        assert not [e for e in desk.feed.events if isinstance(e, VenueStatus)]
        await desk.venue.snapshot()


async def test_a_provider_that_lags_is_not_believed_until_it_has_caught_up(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as second, open_desk(anvil, rpc_url_second=second.url) as desk:
        await anvil.call("anvil_mine", "0xa")
        second.lag = 8
        with pytest.raises(ChainError, match="blocks behind"):
            await desk.feed.until(lambda _: None)
        with pytest.raises(ChainError, match="8 blocks behind"):
            await desk.venue.snapshot()
        with pytest.raises(ChainError, match="8 blocks behind"):
            await anext(desk.venue.stream())
        second.lag = 2  # as far as is usual
        await desk.venue.snapshot()
        assert await anext(desk.venue.stream())


async def test_the_one_that_speaks_is_not_believed_either_when_it_falls_back(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as first, open_desk(anvil, first.url, rpc_url_second=anvil.rpc_url) as desk:
        await anvil.call("anvil_mine", "0xa")
        newest = int(await anvil.call("eth_blockNumber"), 16)
        await desk.feed.head(newest)
        first.lag = 2
        await anvil.call("evm_mine")
        await asyncio.sleep(0.2)
        assert max(e.number for e in desk.feed.events if isinstance(e, ChainHead)) == newest, "a head never goes back"
        first.lag = 8
        with pytest.raises(ChainError, match="blocks behind"):
            await desk.feed.until(lambda _: None)


async def test_two_histories_are_not_believed(anvil: SandboxChain) -> None:
    async with await start_chain("anvil") as fork, open_desk(anvil) as alone:
        height = int(await anvil.call("eth_blockNumber"), 16) - int(await fork.call("eth_blockNumber"), 16)
        await fork.call("anvil_mine", hex(height))
        with pytest.raises(ChainError, match="different blocks at height"):
            async with open_desk(anvil, after=alone, rpc_url_second=fork.rpc_url):
                pass


async def test_while_one_of_two_is_away_nothing_new_is_sent_and_what_waits_is_tended(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as first, open_desk(anvil, first.url, rpc_url_second=anvil.rpc_url) as desk:
        signed = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)))
        first.is_down = True
        await anvil.call("evm_mine")
        status = await desk.feed.until(lambda events: next((e for e in events if isinstance(e, VenueStatus)), None))
        assert status.status == "CANCEL_ONLY"
        assert first.url in status.reason
        await desk.venue.send(signed)
        await desk.feed.report("o", S.MINED)
        await desk.venue.snapshot([reference(signed)])


async def test_a_provider_of_another_chain_is_refused_at_once(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as second:
        second.refused = {"eth_chainId": "who knows"}
        async with open_desk(anvil, rpc_url_second=second.url) as desk:  # it does not answer: the other serves alone
            assert [e.status for e in desk.feed.events if isinstance(e, VenueStatus)] == ["CANCEL_ONLY"]
    async with await start_chain("eth-tester") as other:
        with pytest.raises(ChainError, match="answers for chain"):
            async with open_desk(anvil, rpc_url_second=other.rpc_url):
                pass


async def test_a_receipt_that_the_other_provider_contradicts_decides_nothing(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as second, open_desk(anvil, rpc_url_second=second.url) as desk:
        signed = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)))
        second.twist = lambda method, found: {**found, "blockHash": "0x" + "ee" * 32} if _is_receipt(method, found) else found
        await desk.venue.send(signed)
        await anvil.call("anvil_mine", "0x2")
        shot = await desk.venue.snapshot([reference(signed)])
        assert S.MINED not in [state for _, state, _ in told(shot.facts)]
        second.twist = lambda _, found: found
        shot = await desk.venue.snapshot([reference(signed)])
        assert told(shot.facts)[0] == ("o", S.MINED, signed.tx_hash)


def _is_receipt(method: str, found: object) -> bool:
    return method == "eth_getTransactionReceipt" and isinstance(found, dict)


# -- a private relay ---------------------------------------------------------------------------------------------------


async def a_swap(desk: Desk) -> SignedTransaction:
    await desk.approve(desk.weth, 10 * ETH)
    return await desk.sign(await desk.batch([desk.sell_eth("v3-500", ETH, 2_500 * USDT)]))


async def test_a_relay_that_drops_proves_nothing_and_the_public_never_sees_it(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as relay, open_desk(anvil, private_rpc_url=relay.url) as desk:
        relay.swallowed = {"eth_sendRawTransaction"}
        signed = await a_swap(desk)
        assert await desk.venue.send(signed) == (), "its word is not passed on"
        assert told((await desk.venue.snapshot([reference(signed)])).facts) == []
        assert await desk.venue.send(signed) == (), "again: only to the relay"
        assert await anvil.call("eth_getTransactionByHash", signed.tx_hash) is None
        assert relay.count("eth_sendRawTransaction") == 2
        cancel = await desk.sign(back(desk, signed.order_id, 2), signed.nonce)
        await desk.venue.send(cancel)  # to everybody
        assert (await desk.feed.report(signed.order_id, S.CANCELLED)).tx_hash == cancel.tx_hash


async def test_a_relay_that_passes_it_on_is_believed_when_it_is_in_a_block(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as relay, open_desk(anvil, private_rpc_url=relay.url) as desk:
        signed = await a_swap(desk)
        assert await desk.venue.send(signed) == ()
        mined = await desk.feed.report(signed.order_id, S.MINED)
        assert mined.tx_hash == signed.tx_hash
        assert {method for method, _ in relay.asked} == {"eth_chainId", "eth_sendRawTransaction"}, "never asked for a receipt"


@pytest.mark.parametrize("fault", ["refuses", "hangs up"])
async def test_a_relay_that_refuses_or_is_silent_leaves_it_unknown(anvil: SandboxChain, fault: str) -> None:
    async with proxied(anvil.rpc_url) as relay, open_desk(anvil, private_rpc_url=relay.url) as desk:
        relay.refused = {"eth_sendRawTransaction": "insufficient funds"} if fault == "refuses" else {}
        relay.is_down = fault == "hangs up"
        signed = await a_swap(desk)
        with pytest.raises(OutcomeUnknown):
            await desk.venue.send(signed)
        assert await anvil.call("eth_getTransactionByHash", signed.tx_hash) is None


async def test_the_public_is_told_after_the_time_that_the_user_chose(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as relay, open_desk(anvil, private_rpc_url=relay.url, private_fallback_s=1) as desk:
        relay.swallowed = {"eth_sendRawTransaction"}
        signed = await a_swap(desk)
        assert await desk.venue.send(signed) == ()
        await asyncio.sleep(1.1)
        assert told(await desk.venue.send(signed)) == [(signed.order_id, S.OPEN, signed.tx_hash)]
        await desk.feed.report(signed.order_id, S.MINED)
        assert relay.count("eth_sendRawTransaction") == 1


# -- wallets that are used by others, and proofs -----------------------------------------------------------------------


async def test_a_kill_beside_the_journal_is_a_cancel_and_its_gas_is_ours(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        lost, cancel = await pair(desk)
        await anvil.call("eth_sendRawTransaction", "0x" + cancel.raw.hex())  # by somebody with the same key
        await anvil.call("evm_mine")
        facts = (await desk.venue.snapshot([reference(lost)])).facts
        assert told(facts) == [("o", S.CANCELLED, cancel.tx_hash)]
        assert [fact.tx_hash for fact in facts if isinstance(fact, GasPaid)] == [cancel.tx_hash]
        ref = OrderRef("o", "uniswap", "", "", cancel.tx_hash, lost.nonce, 1, (lost.tx_hash,))
        async with open_desk(anvil, after=desk) as other:  # and after a restart it is not taken for a trade
            assert told((await other.venue.snapshot([ref])).facts) == [("o", S.CANCELLED, cancel.tx_hash)]


async def test_somebody_elses_transaction_that_waits_with_our_number_stops_new_orders(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        nonce = await desk.nonce()
        lost = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)), nonce)
        other = await desk.sign(desk.permission("x", Amount(2 * USDT, desk.usdt)), nonce)
        await anvil.call("evm_setAutomine", False)
        await anvil.call("eth_sendRawTransaction", "0x" + other.raw.hex())
        seen = [(await desk.venue.snapshot([reference(lost)])).facts for _ in range(2)]
        assert seen[0] == (), "it may be ours, on its way"
        (status,) = seen[1]
        assert isinstance(status, VenueStatus)
        assert (status.status, "another transaction waits with nonce" in status.reason) == ("CANCEL_ONLY", True)
        await anvil.call("anvil_dropTransaction", other.tx_hash)
        assert (await desk.venue.snapshot([reference(lost)])).facts == (VenueStatus("uniswap", "TRADING"),)


async def test_balances_are_proved_to_the_block_and_a_lie_is_not(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as proxy, open_desk(anvil, proxy.url) as desk:
        shot = await desk.venue.snapshot()
        assert shot.proved == shot.balances

        def richer(method: str, found: Any) -> Any:
            return {**found, "balance": hex(2**80)} if method == "eth_getProof" else found

        proxy.twist = richer  # words beside the proof: they do not matter
        assert (await desk.venue.snapshot()).proved == shot.proved

        def other_root(method: str, found: Any) -> Any:
            return {**found, "stateRoot": "0x" + "11" * 32} if method == "eth_getBlockByNumber" else found

        proxy.twist = other_root
        assert (await desk.venue.snapshot()).proved == ()

        def cut_short(method: str, found: Any) -> Any:
            return {**found, "accountProof": found["accountProof"][:-1]} if method == "eth_getProof" else found

        proxy.twist = cut_short
        assert (await desk.venue.snapshot()).proved == ()
        proxy.twist = lambda _, found: found
        proxy.refused = {"eth_getProof": "not now"}
        assert (await desk.venue.snapshot()).proved == ()
        proxy.refused = {}
        assert (await desk.venue.snapshot()).proved == shot.balances


async def test_a_head_of_the_journal_is_anchored_and_only_forward(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        contract = desk.venue.profile.anchor
        assert contract == anvil.deployment.contracts["AuditAnchor"]

        async def anchored(order_id: str, seq: int, head: str) -> OrderReported:
            plan = AnchorHead(
                order_id, "i", "main", "uniswap", desk.config.chain_id, contract, seq, head, 80_000, GAS_FEE_MAX, GWEI
            )
            await desk.venue.send(await desk.sign(plan))
            return await desk.feed.report(order_id, S.MINED, S.REVERTED)

        assert (await anchored("a", 7, "ab" * 32)).state is S.MINED
        assert (await anchored("b", 7, "cd" * 32)).reason == "NotRising(7, 7)"
        assert (await anchored("c", 9, "cd" * 32)).state is S.MINED
        rpc = Rpc(anvil.rpc_url)
        found = await asyncio.to_thread(rpc.read, contract, "heads(address)", desk.config.wallet)
        rpc.close()
        assert (int.from_bytes(found[:32], "big"), found[32:].hex()) == (9, "cd" * 32)
        assert max(e.gas_used for e in desk.feed.events if isinstance(e, GasPaid)) < 80_000
