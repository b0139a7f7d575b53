"""Providers that lag, lie, fail after they took a transaction, or keep it to themselves: through the whole engine, on a real node.

The chain itself keeps its word here (see `test_chain_faults`); whoever stands between us and the chain does not.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pilot import NAME, Pilot, flying, rules
from rpc_proxy import Proxy, proxied

from agent.domain.events import (
    OrderApproved,
    OrderReorged,
    OrderReported,
    OrderSent,
    VenueDisconnected,
    VenueStatus,
)
from agent.domain.order import Order, OrderState
from agent.simulation.chain.world import SandboxChain, start_chain

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
S = OrderState
GWEI = 10**9
SEND = "eth_sendRawTransaction"
ROUNDS_NS = 500_000_000  # some rounds of decisions
EITHER = pytest.mark.parametrize("which", ["first", "second"])


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


@contextlib.asynccontextmanager
async def over_two(anvil: SandboxChain, which: str) -> AsyncIterator[tuple[Pilot, Proxy]]:
    """An engine over two providers, and the one of them that will misbehave."""
    async with proxied(anvil.rpc_url) as proxy:
        urls = (proxy.url, anvil.rpc_url) if which == "first" else (anvil.rpc_url, proxy.url)
        async with flying(anvil, rpc_url=urls[0], rpc_url_second=urls[1]) as pilot:
            yield pilot, proxy


async def decides_nothing(pilot: Pilot) -> None:
    """A wish that comes now is refused, or waits; no order follows from it, round after round."""
    before = len(orders(pilot))
    _, reasons = await pilot.ask("0.7")
    assert {one.code for one in reasons} <= {"NO_REFERENCE_PRICE"}
    end_ns = pilot.engine.now_ns() + ROUNDS_NS
    await pilot.until(lambda: pilot.engine.world.beat_ns > end_ns)
    assert len(orders(pilot)) == before


def orders(pilot: Pilot) -> list[OrderApproved]:
    return [event for event in pilot.journal() if isinstance(event, OrderApproved)]


def lost(pilot: Pilot) -> list[str]:
    return [event.reason for event in pilot.journal() if isinstance(event, VenueDisconnected)]


async def works_again(pilot: Pilot) -> None:
    """It is back in step, whatever was asked meanwhile ends, and so does what is asked now; every wei is explained."""
    await pilot.until(lambda: NAME in pilot.engine.world.ready and NAME not in pilot.engine.state.status, "it is not back")
    for name in list(pilot.engine.state.parents):
        await pilot.traded(name)
    await pilot.engine.priced("ETH/USDT")
    await pilot.traded(await pilot.sell("0.5"))
    await pilot.agrees()


# -- two providers -----------------------------------------------------------------------------------------------------


@EITHER
async def test_a_provider_that_goes_back_in_time_is_refused_and_nothing_is_decided_on_it(anvil: SandboxChain, which: str) -> None:
    async with over_two(anvil, which) as (pilot, proxy):
        newest = pilot.engine.world.market.heads()[pilot.config.chain_id].number
        proxy.lag = 8
        await pilot.until(lambda: NAME not in pilot.engine.world.ready, "nobody noticed")
        assert f"{proxy.url} is 8 blocks behind {anvil.rpc_url}: nothing is believed until they agree" in lost(pilot)[-1]
        assert pilot.engine.world.market.heads()[pilot.config.chain_id].number >= newest, "a head never goes back"
        await decides_nothing(pilot)
        proxy.lag = 0
        await works_again(pilot)


@EITHER
async def test_a_provider_that_lies_about_a_block_is_refused_until_both_agree(anvil: SandboxChain, which: str) -> None:
    async with over_two(anvil, which) as (pilot, proxy):
        proxy.twist = another_history
        await anvil.call("evm_mine")
        await pilot.until(lambda: NAME not in pilot.engine.world.ready, "nobody noticed")
        assert "have different blocks at height" in lost(pilot)[-1]
        assert {proxy.url in lost(pilot)[-1], anvil.rpc_url in lost(pilot)[-1]} == {True}, "who contradicts whom"
        assert not [event for event in pilot.journal() if isinstance(event, OrderReorged)], "nor is it taken for history"
        await decides_nothing(pilot)
        proxy.twist = lambda _, found: found
        await works_again(pilot)


def another_history(method: str, found: Any) -> Any:
    return {**found, "hash": "0x" + "ee" * 32} if method == "eth_getBlockByNumber" and isinstance(found, dict) else found


@EITHER
async def test_while_one_is_gone_the_other_looks_after_what_there_is_and_nothing_new_begins(
    anvil: SandboxChain, which: str
) -> None:
    async with over_two(anvil, which) as (pilot, proxy):
        swap = await pilot.held_back()
        proxy.is_down = True
        await pilot.until(lambda: NAME in pilot.engine.state.status, "nobody noticed")
        status = pilot.engine.state.status[NAME]
        assert (status.status, proxy.url in status.reason) == ("CANCEL_ONLY", True)
        await anvil.call("evm_setAutomine", True)
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.block, "the other one did not tell")
        await decides_nothing(pilot)
        proxy.is_down = False
        await works_again(pilot)
        told = [event.status for event in pilot.journal() if isinstance(event, VenueStatus)]
        assert told == ["CANCEL_ONLY", "TRADING"]


@EITHER
async def test_a_receipt_that_one_of_two_contradicts_books_nothing_until_they_agree(anvil: SandboxChain, which: str) -> None:
    def forged(method: str, found: Any) -> Any:
        is_receipt = method == "eth_getTransactionReceipt" and isinstance(found, dict)
        return {**found, "blockHash": "0x" + "ee" * 32} if is_receipt else found

    async with over_two(anvil, which) as (pilot, proxy):
        swap = await pilot.held_back()
        proxy.twist = forged
        await anvil.call("evm_mine")
        end_ns = pilot.engine.now_ns() + 2 * ROUNDS_NS
        await pilot.until(lambda: pilot.engine.world.beat_ns > end_ns)
        assert (swap.block, swap.fills, swap.gas) == (0, [], None)
        await anvil.call("evm_setAutomine", True)
        proxy.twist = lambda _, found: found
        await pilot.until(lambda: swap.block, "it was not booked")
        await works_again(pilot)


# -- an error after the broadcast --------------------------------------------------------------------------------------


def hangs_up(proxy: Proxy) -> None:
    proxy.cut = {SEND, "eth_getTransactionByHash", "eth_getTransactionReceipt"}


def fails(proxy: Proxy) -> None:
    proxy.broken = {SEND: 502}
    proxy.cut = {"eth_getTransactionByHash", "eth_getTransactionReceipt"}


def talks_nonsense(proxy: Proxy) -> None:
    proxy.muddled = {SEND: "internal error: header not found"}
    proxy.cut = {"eth_getTransactionByHash", "eth_getTransactionReceipt"}


def heal(proxy: Proxy) -> None:
    proxy.cut, proxy.broken, proxy.muddled = set(), {}, {}


@pytest.mark.parametrize("fault", [hangs_up, fails, talks_nonsense])
async def test_an_error_after_the_node_took_it_is_unknown_and_has_one_effect(
    anvil: SandboxChain, fault: Callable[[Proxy], None]
) -> None:
    async with proxied(anvil.rpc_url) as proxy, flying(anvil, rpc_url=proxy.url) as pilot:
        before = pilot.held("WETH")
        fault(proxy)  # the first look after the send fails too
        name = await pilot.sell()
        swap = await pilot.swap()
        await pilot.until(lambda: pilot.waiting(S.UNKNOWN), "it is not in doubt")
        assert pilot.engine.state.promised("main", NAME, pilot.config.assets["WETH"]) == 10**18, "and reserved"
        heal(proxy)
        await pilot.traded(name)
        assert pilot.held("WETH") == before - 10**18
        assert sent_once(pilot, swap)
        assert proxy.count(SEND) == 1, "nothing is sent again as long as it is known"
        await pilot.agrees()


async def test_an_outbid_whose_answer_was_lost_is_found_by_its_own_hash(anvil: SandboxChain) -> None:
    """All transactions of a nonce are asked about, also the one of which nobody said that it was taken."""
    async with proxied(anvil.rpc_url) as proxy, flying(anvil, rpc_url=proxy.url) as pilot:
        await pilot.set_base_fee(2 * GWEI)
        swap = await pilot.held_back()
        proxy.broken = {SEND: 504}
        await pilot.set_base_fee(100 * GWEI)
        await pilot.attempted(lambda: len(swap.attempts) == 2, "it was not outbid")
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.block, "it was not found")
        assert (swap.tx_hash, list(swap.gas_paid)) == (swap.attempts[1].tx_hash, [swap.attempts[1].tx_hash])
        assert len(swap.fills) == 1
        proxy.broken = {}
        await pilot.agrees()


def sent_once(pilot: Pilot, order: Order) -> bool:
    return sum(isinstance(event, OrderSent) and event.order_id == order.order_id for event in pilot.journal()) == 1


# -- a gap in the numbers ----------------------------------------------------------------------------------------------


async def test_a_lower_number_that_disappears_is_filled_by_its_own_bytes(anvil: SandboxChain) -> None:
    """Permission and swap were mined; a reorganisation takes both out, and only the swap finds its way back to the node."""
    async with proxied(anvil.rpc_url) as proxy, flying(anvil, rpc_url=proxy.url, is_permitted=False, confirmations=100) as pilot:
        swap = await pilot.traded(await pilot.sell())
        permission = next(one for one in pilot.engine.state.orders.values() if one.nonce == (swap.nonce or 0) - 1)
        await anvil.call("evm_setAutomine", False)
        proxy.swallowed = {SEND}
        await anvil.call("anvil_reorg", 2, [])
        await pilot.until(lambda: permission.state is S.UNKNOWN and swap.state is S.UNKNOWN, "the reorganisation was not seen")
        await anvil.call("anvil_dropAllTransactions")
        await anvil.call(SEND, "0x" + swap.raw.hex())
        for _ in range(2):
            await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.OPEN, "the node holds it, and waits for the number before it")
        assert (permission.state, permission.block, swap.block) == (S.UNKNOWN, 0, 0)
        assert await anvil.call("eth_getTransactionByHash", permission.tx_hash) is None
        proxy.swallowed = set()
        await pilot.until(lambda: permission.block and swap.block, "the gap stayed", each=lambda: anvil.call("evm_mine"))
        assert [len(one.attempts) for one in (permission, swap)] == [1, 1], "the same bytes, and no other number"
        assert sent_once(pilot, permission)
        assert sent_once(pilot, swap)
        await anvil.call("evm_setAutomine", True)
        await pilot.until(lambda: not pilot.engine.state.working)
        await pilot.agrees()


# -- what waited for a node --------------------------------------------------------------------------------------------


async def test_what_queued_while_the_node_was_away_is_judged_anew_and_what_is_over_is_dropped(anvil: SandboxChain) -> None:
    async with proxied(anvil.rpc_url) as proxy, flying(anvil, rpc_url=proxy.url) as pilot:
        first = await pilot.held_back()  # holds the wallet's only lane
        short = [await pilot.sell(f"0.{n}", within_s=1.5) for n in (2, 3, 4)]
        long = [await pilot.sell(f"0.{n}") for n in (5, 6)]
        proxy.is_down = True
        await pilot.until(lambda: NAME not in pilot.engine.world.ready, "nobody noticed")
        await pilot.until(lambda: all(not pilot.engine.state.parents[name].is_live for name in short), "they never ended")
        assert len(orders(pilot)) == 1, "nothing was approved meanwhile"
        proxy.is_down = False
        await anvil.call("evm_setAutomine", True)
        await anvil.call("evm_mine")
        for name in (first.plan.intent_id, *long):
            await pilot.traded(name)
        assert {pilot.engine.state.parents[name].status for name in short} == {"EXPIRED"}
        worked = {event.approved.plan.intent_id for event in orders(pilot)}
        assert worked == {first.plan.intent_id, *long}
        await pilot.agrees()


# -- a private relay ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def over_relay(anvil: SandboxChain, fallback_s: int, **changes: Any) -> AsyncIterator[tuple[Pilot, Proxy]]:
    async with (
        proxied(anvil.rpc_url) as relay,
        flying(anvil, private_rpc_url=relay.url, private_fallback_s=fallback_s, **changes) as pilot,
    ):
        yield pilot, relay


def said(pilot: Pilot, order: Order) -> list[OrderState]:
    return [event.state for event in pilot.journal() if isinstance(event, OrderReported) and event.order_id == order.order_id]


def drops(relay: Proxy) -> None:
    relay.swallowed = {SEND}


def lies(relay: Proxy) -> None:
    relay.pretended = {SEND}


def refuses(relay: Proxy) -> None:
    relay.refused = {SEND: "insufficient funds"}


def is_gone(relay: Proxy) -> None:
    relay.is_down = True


@pytest.mark.parametrize("fault", [drops, lies, refuses, is_gone])
async def test_what_a_relay_does_not_get_mined_is_published_after_the_bound_as_the_same_bytes(
    anvil: SandboxChain, fault: Callable[[Proxy], None]
) -> None:
    """Its yes proves as little as its no: until a block or the public nodes have it, nobody says that it is there."""
    async with over_relay(anvil, fallback_s=1) as (pilot, relay):
        fault(relay)
        name = await pilot.sell()
        swap = await pilot.swap()
        await pilot.until(lambda: relay.asked, "the relay was not asked first")
        await pilot.traded(name)
        assert not {S.OPEN, S.REJECTED} & set(said(pilot, swap)[: said(pilot, swap).index(S.MINED) - 1])
        assert swap.ended_ns - swap.sent_ns >= 10**9, "the relay had its time"
        assert [one.tx_hash for one in swap.attempts] == [swap.tx_hash], "the same bytes"
        assert sent_once(pilot, swap)
        assert len(swap.fills) == 1
        assert {method for method, _ in relay.asked} <= {"eth_chainId", SEND}, "and it is asked for nothing else"
        await pilot.agrees()


async def test_a_relay_that_lies_without_a_bound_never_makes_it_public(anvil: SandboxChain) -> None:
    """What was whispered stays whispered: past its deadline it is taken back by a transaction that everybody may see."""
    async with over_relay(anvil, fallback_s=0, with_rules=rules(deadline_s=30)) as (pilot, relay):
        relay.pretended = {SEND}
        before = pilot.held("WETH")
        await pilot.sell()
        swap = await pilot.swap()
        await pilot.until(lambda: relay.count(SEND) >= 2, "it was not tried again")
        assert swap.state in (S.SENT, S.UNKNOWN)
        assert await anvil.call("eth_getTransactionByHash", swap.tx_hash) is None
        await anvil.call("evm_increaseTime", 60)
        await anvil.call("evm_mine")
        await pilot.until(lambda: swap.state is S.CANCELLED, "it was not taken back")
        assert await anvil.call("eth_getTransactionByHash", swap.attempts[0].tx_hash) is None
        assert (pilot.held("WETH"), swap.fills) == (before, [])
        await pilot.is_explained()  # the parent tries again, and the relay still pretends: nothing moves meanwhile


async def test_a_relay_that_publishes_what_it_was_told_changes_nothing(anvil: SandboxChain) -> None:
    """Safety never hangs on secrecy: the bounds are in the bytes."""
    async with over_relay(anvil, fallback_s=0) as (pilot, relay):
        before = pilot.held("WETH")
        swap = await pilot.traded(await pilot.sell())  # the proxy hands it to the public node
        assert relay.count(SEND) == 1
        (fill,) = swap.fills
        assert pilot.held("WETH") == before - fill.paid.units
        assert fill.received.units >= swap.plan.buy.units  # type: ignore[union-attr]
        await pilot.agrees()
