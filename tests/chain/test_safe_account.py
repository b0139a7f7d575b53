"""Trading from a Safe: the engine's own path, with tokens that the Safe holds and a key that only sends; every wei is explained."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from onchain_desk import GWEI, RealClock, settings
from pilot import MAIN, Pilot, flying, rules

from agent.domain.amount import group_asset, parse_amount
from agent.domain.errors import ChainError, SignerError
from agent.domain.events import GasPaid
from agent.domain.intent import Intent
from agent.domain.order import OrderState
from agent.domain.plan import ApproveToken, Call, Calls, SwapBatch
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.signer import AccountSigner
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.ports import Tools
from agent.routing.cost import BATCH_GAS
from agent.simulation.chain.deploy import DEPLOYER
from agent.simulation.chain.rpc import Rpc, Sender, dev_account
from agent.simulation.chain.wallets import deploy_safe_contracts, new_safe
from agent.simulation.chain.world import SandboxChain, start_chain
from agent.venues.uniswap import Config, connect
from agent.venues.uniswap.config import ACCOUNT_GAS, LEG_GAS

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


@pytest.fixture
async def pilot(anvil: SandboxChain) -> AsyncIterator[Pilot]:
    key = secrets.token_bytes(32)
    made = await anvil.account_of("safe", LocalSigner(bytearray(key)).address)
    async with flying(
        anvil, key=key, made=made, with_rules=rules(gas_base=BATCH_GAS + ACCOUNT_GAS["safe"], deadline_s=100)
    ) as found:
        yield found


def permitted(pilot: Pilot, symbol: str, owner: str) -> tuple[int, bool]:
    """(what Permit2 may still take, whether the router may still ask Permit2 for it)."""
    rpc, contracts = Rpc(pilot.chain.rpc_url), pilot.config.contracts
    token = pilot.config.assets[symbol].address
    allowed = int.from_bytes(rpc.read(token, "allowance(address,address)", owner, contracts.permit2), "big")
    asked = (owner, token, contracts.universal_router)
    told = rpc.read(contracts.permit2, "allowance(address,address,address)", *asked)
    now_s = int(rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    rpc.close()
    return allowed, int.from_bytes(told[32:64], "big") > now_s and int.from_bytes(told[:32], "big") > 0


async def buy(pilot: Pilot, name: str) -> None:
    deadline_ns = pilot.engine.now_ns() + 120 * 10**9
    amount = parse_amount("1", group_asset("ETH"))
    assert await pilot.engine.submit(Intent(name, MAIN, name, "buy", amount, "USDT", 300, deadline_ns)) == ()
    await pilot.traded(name)


async def test_it_sells_in_one_transaction_and_nothing_stays_permitted(pilot: Pilot) -> None:
    before = {symbol: pilot.held(symbol) for symbol in ("WETH", "USDT", "ETH")}
    order = await pilot.traded(await pilot.sell("2"))
    assert before["WETH"] - pilot.held("WETH") == 2 * 10**18
    assert pilot.held("USDT") > before["USDT"]
    assert not [one for one in pilot.engine.state.orders.values() if isinstance(one.plan, ApproveToken)]
    assert permitted(pilot, "WETH", pilot.config.safe) == (0, False)
    assert order.nonce == 0
    (paid,) = [event for event in pilot.journal() if isinstance(event, GasPaid)]
    assert before["ETH"] - pilot.held("ETH") == paid.amount.units
    await pilot.agrees()


async def test_it_buys_again_and_again_whatever_permission_was_left_over(pilot: Pilot) -> None:
    """USDT refuses to change a permission that is not zero, and an exact output leaves some of it."""
    await buy(pilot, "b1")
    left, may_spend = permitted(pilot, "USDT", pilot.config.safe)
    assert (left > 0, may_spend) == (True, False)
    await buy(pilot, "b2")
    await pilot.agrees()


async def test_gas_is_what_is_reckoned_with(pilot: Pilot) -> None:
    await pilot.traded(await pilot.sell("1"))
    await buy(pilot, "b1")
    await pilot.traded(await pilot.sell("30"))
    for event in [event for event in pilot.journal() if isinstance(event, GasPaid)]:
        plan = pilot.engine.state.orders[event.order_id].plan
        assert isinstance(plan, SwapBatch)
        reckoned = (
            BATCH_GAS + ACCOUNT_GAS["safe"] + sum(LEG_GAS[leg.instrument.partition(":")[2].partition("-")[0]] for leg in plan.legs)
        )
        assert reckoned * 85 // 100 < event.gas_used < reckoned * 115 // 100, (event.gas_used, reckoned, len(plan.legs))
        assert event.gas_used < plan.gas_limit * 6 // 10


async def test_one_that_is_priced_out_is_outbid(pilot: Pilot) -> None:
    await pilot.set_base_fee(2 * GWEI)
    order = await pilot.held_back()
    await pilot.set_base_fee(100 * GWEI)
    await pilot.attempted(lambda: len(order.attempts) == 2, "it was not outbid")
    await pilot.chain.call("anvil_mine")
    await pilot.until(lambda: order.block, "it was not mined")
    await pilot.agrees()


async def test_one_past_its_deadline_is_taken_back_by_the_key_s_nothing_to_itself(pilot: Pilot) -> None:
    swap, before = await pilot.held_back(), pilot.held("WETH")
    await pilot.chain.call("evm_increaseTime", 200)
    await pilot.set_base_fee(5 * GWEI)  # nobody gets in, and time has passed
    await pilot.attempted(lambda: any(one.is_cancel for one in swap.attempts), "it was not taken back")
    await pilot.chain.call("anvil_setNextBlockBaseFeePerGas", hex(2 * GWEI))
    await pilot.chain.call("evm_mine")
    await pilot.until(lambda: swap.state is OrderState.CANCELLED)
    assert pilot.held("WETH") == before
    await pilot.chain.call("evm_setAutomine", True)
    await pilot.agrees()


async def test_the_key_itself_anchors_the_journal(pilot: Pilot) -> None:
    found = await pilot.engine.anchor()
    assert found.reasons == ()
    order = pilot.engine.state.orders[found.order_id]
    await pilot.until(lambda: order.block, "it is in no block")
    assert order.state in (OrderState.MINED, OrderState.FINAL)
    await pilot.agrees()


async def test_a_swap_that_waits_when_the_agent_stops_is_booked_by_the_next(anvil: SandboxChain) -> None:
    key = secrets.token_bytes(32)
    made = await anvil.account_of("safe", LocalSigner(bytearray(key)).address)
    chosen = rules(gas_base=BATCH_GAS + ACCOUNT_GAS["safe"])
    async with flying(anvil, key=key, made=made, with_rules=chosen) as pilot:
        swap = await pilot.held_back()
        rows = pilot.rows
    await anvil.call("evm_setAutomine", True)
    await anvil.call("evm_mine")
    async with flying(anvil, key=key, made=made, with_rules=chosen, rows=rows) as pilot:
        await pilot.until(lambda: pilot.engine.state.orders[swap.order_id].block, "nobody knows what became of it")
        await pilot.agrees()


async def test_balances_of_the_safe_are_proved_to_the_block(pilot: Pilot) -> None:
    venue = await connect("uniswap", pilot.config, Tools(RealClock()))
    shot = await venue.snapshot()
    await venue.close()
    assert {one.asset.symbol: one.units for one in shot.proved} == {
        one.asset.symbol: one.units for one in shot.balances if one.units
    }
    assert {one.asset.symbol for one in shot.proved} == {"ETH", "WETH", "USDT"}


# -- what it does not begin with ---------------------------------------------------------------------------------------


async def test_a_safe_that_would_not_obey_the_key_alone_is_refused_at_the_start(anvil: SandboxChain) -> None:
    sender = Sender(Rpc(anvil.rpc_url), dev_account(DEPLOYER))
    key, other = (LocalSigner(bytearray(secrets.token_bytes(32))).address for _ in range(2))
    contracts = await asyncio.to_thread(deploy_safe_contracts, sender)
    shared = await asyncio.to_thread(new_safe, sender, contracts, [key, other], 2)
    foreign = await asyncio.to_thread(new_safe, sender, contracts, [other])
    sender.rpc.close()
    token = anvil.deployment.tokens["USDT"].address
    for safe, words in ((shared, "wants 2 owners"), (foreign, "is no owner of"), (token, "check its address"), (key, "check its")):
        section = settings(anvil.deployment, anvil.rpc_url, key, account="safe", safe=safe)
        with pytest.raises(ChainError, match=words):
            await connect("uniswap", Config.model_validate(section), Tools(RealClock()))


def signer_of() -> tuple[AccountSigner, LocalSigner]:
    key = LocalSigner(bytearray(secrets.token_bytes(32)))
    account = Safe("0x" + "5a" * 20, "0x" + "3b" * 20)
    places: Any = ("0x" + "a7" * 20, "0x" + "22" * 20, frozenset({"0x" + "b1" * 20}))
    anchor = "0x" + "ac" * 20
    key.allow(swap_policy(31337, key.address, *places, 10**12, 900_000, anchor, account=account))
    return AccountSigner(key, account, anchor), key


def test_what_is_not_the_key_s_own_goes_through_the_safe_and_is_judged_there() -> None:
    signer, key = signer_of()
    thief = Call("0x" + "dd" * 20, b"")
    for call in (thief, Call(key.address, b"\x01"), Call(key.address, b"", 1)):
        with pytest.raises(SignerError, match=r"is not on this key's list|value 1 wei"):
            signer.sign_now(Calls("o", 31337, (call,), (), 0, 300_000, 10**9, 10**9))
    signer.sign_now(Calls("o", 31337, (Call(key.address, b""),), (), 0, 300_000, 10**9, 10**9))
    assert (signer.key_id, signer.custody) == (key.key_id, key.custody)
    assert signer.address.lower() == "0x" + "5a" * 20
