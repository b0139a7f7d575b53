"""A transaction is run before it is signed: what a token does behind the bytes' back is found out while it still costs nothing."""

from collections.abc import AsyncIterator

import pytest
from eth_utils.crypto import keccak
from pilot import Pilot, flying

from agent.chains.abi import topic
from agent.domain.events import OrderFilled
from agent.domain.order import NEVER_SENT
from agent.simulation.chain.world import SandboxChain, start_chain

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]

WETH_BALANCES = 3  # WETH9's place of the mapping of balances
ORIGINAL, THIEF = "0x" + "ab" * 20, "0x" + "66" * 20
TRANSFER_FROM = "23b872dd"
ONE = (10**18).to_bytes(8, "big").hex()


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


@pytest.fixture
async def pilot(anvil: SandboxChain) -> AsyncIterator[Pilot]:
    async with flying(anvil) as found:
        yield found


def proxy(behind: str) -> str:
    """Code that does what the code at ORIGINAL does and, after a transferFrom, what `behind` does; stack and memory are its own."""
    whole = "365f5f37" + "5f5f365f73" + ORIGINAL[2:] + "5af4"  # copy the call data; delegatecall; its success stays on the stack
    whole += "5f3560e01c63" + TRANSFER_FROM + "1415"  # 1 unless it was a transferFrom
    skip = len(whole) // 2 + 4 + len(behind) // 2
    whole += "61" + skip.to_bytes(2, "big").hex() + "57" + behind + "5b"
    whole += "3d5f5f3e"  # what the original returned
    whole += "61" + (len(whole) // 2 + 7).to_bytes(2, "big").hex() + "57" + "3d5ffd" + "5b3d5ff3"
    return "0x" + whole


def taking_one_more(holder: str) -> str:
    """One coin fewer for the holder, without a log."""
    place = keccak(bytes.fromhex(holder[2:].zfill(64)) + WETH_BALANCES.to_bytes(32, "big")).hex()
    return "67" + ONE + "7f" + place + "54" + "03" + "7f" + place + "55"


def allowing_a_thief(holder: str) -> str:
    """A log which says that THIEF may take the holder's coins."""
    words = "".join("7f" + one[2:].zfill(64) for one in (THIEF, holder, topic("Approval(address,address,uint256)")))
    return "60015f52" + words + "60205fa3"


async def corrupt(pilot: Pilot, behind: str) -> None:
    """The token's code becomes another, as if its owner had upgraded it."""
    weth = pilot.config.contracts.weth
    await pilot.chain.call("anvil_setCode", ORIGINAL, await pilot.chain.call("eth_getCode", weth, "latest"))
    await pilot.chain.call("anvil_setCode", weth, proxy(behind))


async def refused(pilot: Pilot) -> str:
    """Why the swap of a new parent never left."""
    await pilot.sell("2")
    await pilot.until(lambda: any(NEVER_SENT in order.reason for order in pilot.engine.state.orders.values()), "it was signed")
    assert not [event for event in pilot.journal() if isinstance(event, OrderFilled)]
    return next(order.reason for order in pilot.engine.state.orders.values() if NEVER_SENT in order.reason)


async def test_a_token_that_does_what_it_says_is_traded(pilot: Pilot) -> None:
    await corrupt(pilot, "")  # the proxy itself changes nothing
    before = pilot.held("WETH")
    await pilot.traded(await pilot.sell("2"))
    assert before - pilot.held("WETH") == 2 * 10**18
    await pilot.agrees()


async def test_a_token_that_takes_more_than_the_bytes_say_is_not_sold(pilot: Pilot) -> None:
    await corrupt(pilot, taking_one_more(pilot.config.wallet))
    assert "the account would end with -3 WETH, and the bytes promise -2 WETH or better" in await refused(pilot)
    assert await pilot.chain.call("eth_getTransactionCount", pilot.config.wallet, "latest") == "0x1"  # the permission alone


async def test_a_token_that_lets_somebody_else_take_coins_is_not_sold(pilot: Pilot) -> None:
    await corrupt(pilot, allowing_a_thief(pilot.config.wallet))
    assert f"it would let {THIEF} take coins of the account, says {pilot.config.contracts.weth.lower()}" in await refused(pilot)


async def test_what_would_fail_is_not_signed_and_costs_no_gas(pilot: Pilot) -> None:
    before = pilot.held("ETH")
    await pilot.take_permission_back()
    assert "rehearsal: it would fail" in await refused(pilot)
    assert pilot.held("ETH") == before


async def test_who_does_not_want_it_signs_at_once(anvil: SandboxChain) -> None:
    async with flying(anvil, simulate=False) as pilot:
        await corrupt(pilot, taking_one_more(pilot.config.wallet))
        await pilot.traded(await pilot.sell("2"))
        assert await pilot.engine.reconcile() != []  # found, and too late
