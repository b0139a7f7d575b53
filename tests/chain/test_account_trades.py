"""Trading through every kind of account: the same orders on the engine's own path, and every wei explained."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from onchain_desk import RealClock, settings
from pilot import MAIN, Pilot, flying, rules

from agent.chains.transaction import parse_raw
from agent.config import Loaded, Settings
from agent.domain.amount import group_asset, parse_amount
from agent.domain.errors import ChainError, SignerError
from agent.domain.events import GasPaid
from agent.domain.intent import Intent
from agent.domain.order import OrderState
from agent.domain.plan import SwapBatch
from agent.keys.accounts.eip7702 import DELEGATED
from agent.keys.accounts.kinds import Delegated
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.ports import Tools
from agent.roles import check_role
from agent.routing.cost import BATCH_GAS
from agent.simulation.chain.rpc import Rpc, wait_for_receipt
from agent.simulation.chain.world import SandboxChain, start_chain
from agent.simulation.world import AccountKind
from agent.venues.uniswap import Config, connect
from agent.venues.uniswap.config import ACCOUNT_GAS, ACCOUNT_LEG_GAS, LEG_GAS

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
WETH_BALANCES = 3  # WETH9's place of the mapping of balances
GAS_LIMIT_MAX = 10_000_000
KINDS: tuple[AccountKind, ...] = ("safe", "erc4337", "erc4337-0.7", "role", "eip7702")


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


async def delegated(anvil: SandboxChain, key: bytes, delegate: str, *, is_undone: bool = False) -> None:
    """The wallet runs the delegate's code from now on, or none any more: its own key says so, and sends it."""
    signer, tokens = LocalSigner(bytearray(key)), frozenset(one.address for one in anvil.deployment.tokens.values())
    contracts, account = anvil.deployment.contracts, Delegated(signer.address, delegate)
    places = contracts["UniversalRouter"], contracts["Permit2"]
    signer.allow(swap_policy(anvil.chain_id, signer.address, *places, tokens, 100 * 10**9, 10**6, account=account))
    await anvil.fund(signer.address, {"ETH": "1"})
    rpc = Rpc(anvil.rpc_url)
    nonce = int(rpc.call("eth_getTransactionCount", signer.address, "latest"), 16)
    signed = signer.sign_delegation(anvil.chain_id, nonce, 20 * 10**9, 10**9, is_undone=is_undone)
    wait_for_receipt(rpc, rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex()))
    code = bytes.fromhex(rpc.call("eth_getCode", signer.address, "latest")[2:])
    assert code == (b"" if is_undone else DELEGATED + bytes.fromhex(delegate[2:]))
    rpc.close()


@pytest.fixture(params=KINDS)
async def pilot(request: pytest.FixtureRequest, anvil: SandboxChain) -> AsyncIterator[Pilot]:
    key = secrets.token_bytes(32)
    made = await anvil.account_of(request.param, LocalSigner(bytearray(key)).address)
    if request.param == "eip7702":
        await delegated(anvil, key, made.settings["delegate"])
    chosen = rules(gas_base=BATCH_GAS + ACCOUNT_GAS[request.param.partition("-")[0]], gas_limit_max=GAS_LIMIT_MAX)
    async with flying(anvil, key=key, made=made, with_rules=chosen, gas_limit_max=GAS_LIMIT_MAX) as found:
        yield found


async def test_it_sells_and_buys_and_gas_is_what_is_reckoned_with(pilot: Pilot) -> None:
    await pilot.traded(await pilot.sell("1"))
    deadline_ns = pilot.engine.now_ns() + 120 * 10**9
    amount = parse_amount("1", group_asset("ETH"))
    for name in ("b1", "b2"):
        assert await pilot.engine.submit(Intent(name, MAIN, name, "buy", amount, "USDT", 300, deadline_ns)) == ()
        await pilot.traded(name)
    await pilot.traded(await pilot.sell("30"))
    await pilot.agrees()
    for event in [event for event in pilot.journal() if isinstance(event, GasPaid)]:
        plan = pilot.engine.state.orders[event.order_id].plan
        assert isinstance(plan, SwapBatch)
        kind = pilot.config.account
        legs = [leg.instrument.partition(":")[2].partition("-")[0] for leg in plan.legs]
        reckoned = BATCH_GAS + ACCOUNT_GAS[kind] + sum(LEG_GAS[leg] + ACCOUNT_LEG_GAS.get(kind, 0) for leg in legs)
        assert reckoned * 70 // 100 < event.gas_used < reckoned * 115 // 100, (kind, event.gas_used, reckoned, len(legs))
        assert event.gas_used < plan.gas_limit * 6 // 10
        raw = pilot.engine.state.orders[event.order_id].raw
        assert parse_raw(raw).to == pilot.config.swaps_to.lower()  # what a private relay is given, and the public is not


async def test_an_address_runs_no_code_any_more_and_only_the_policy_s_delegate_is_signed(anvil: SandboxChain) -> None:
    key = secrets.token_bytes(32)
    signer = LocalSigner(bytearray(key))
    made = await anvil.account_of("eip7702", signer.address)
    await delegated(anvil, key, made.settings["delegate"])
    await delegated(anvil, key, made.settings["delegate"], is_undone=True)
    with pytest.raises(SignerError, match="no policy"):
        signer.sign_delegation(anvil.chain_id, 0, 10**9, 1, is_undone=False)
    router, permit2 = (anvil.deployment.contracts[name] for name in ("UniversalRouter", "Permit2"))
    signer.allow(swap_policy(anvil.chain_id, signer.address, router, permit2, frozenset(), 10**9, 10**6))
    with pytest.raises(SignerError, match="runs no code here"):
        signer.sign_delegation(anvil.chain_id, 0, 10**9, 1, is_undone=False)


async def test_an_operation_that_fails_inside_a_good_transaction_is_a_revert(anvil: SandboxChain) -> None:
    """The EntryPoint takes it for a success, and the receipt says so."""
    key = secrets.token_bytes(32)
    made = await anvil.account_of("erc4337", LocalSigner(bytearray(key)).address)
    async with flying(anvil, key=key, made=made, with_rules=rules(gas_base=BATCH_GAS + ACCOUNT_GAS["erc4337"])) as pilot:
        swap, before = await pilot.held_back(), pilot.held("WETH")
        place = keccak(int(made.holder, 16).to_bytes(32, "big") + WETH_BALANCES.to_bytes(32, "big"))
        where = pilot.config.contracts.weth, "0x" + place.hex()
        held = await anvil.call("eth_getStorageAt", *where, "latest")
        await anvil.call("anvil_setStorageAt", *where, "0x" + "00" * 32)
        await anvil.call("anvil_mine")
        await anvil.call("anvil_setStorageAt", *where, held)
        await pilot.until(lambda: swap.state is OrderState.REVERTED, "nobody saw it fail")
        assert swap.reason.startswith("call 3: ")
        assert pilot.held("WETH") == before
        assert (await anvil.call("eth_getTransactionReceipt", swap.tx_hash))["status"] == "0x1"
        await anvil.call("evm_setAutomine", True)
        await pilot.agrees()


async def test_its_operations_pay_nothing_so_no_deposit_is_needed(anvil: SandboxChain) -> None:
    key = secrets.token_bytes(32)
    made = await anvil.account_of("erc4337", LocalSigner(bytearray(key)).address)
    async with flying(anvil, key=key, made=made, with_rules=rules(gas_base=BATCH_GAS + ACCOUNT_GAS["erc4337"])) as pilot:
        await pilot.traded(await pilot.sell("1"))
        rpc = Rpc(anvil.rpc_url)
        deposit = int.from_bytes(rpc.read(pilot.config.contracts.entry_point, "balanceOf(address)", made.holder), "big")
        rpc.close()
        assert (deposit, int(await anvil.call("eth_getBalance", made.holder, "latest"), 16)) == (0, 0)


async def test_an_account_that_would_not_obey_the_key_is_refused_at_the_start(anvil: SandboxChain) -> None:
    key, other = (LocalSigner(bytearray(secrets.token_bytes(32))).address for _ in range(2))
    smart, role = await anvil.account_of("erc4337", key), await anvil.account_of("role", key)
    foreign, modifier = await anvil.account_of("role", other), role.settings["modifier"]
    token = anvil.deployment.tokens["USDT"].address
    for made, words, changes in (
        (smart, "not the wallet", {"wallet": other}),
        (smart, "there is no contract at", {"smart_account": other}),
        (smart, "check its address", {"smart_account": token}),
        (smart, "belongs to the EntryPoint", {"entry_point": token}),
        (role, "is not enabled in the Safe", {}),
        (role, "its rules bind nobody", {"modifier": foreign.settings["modifier"]}),
        (role, "check its address", {"modifier": token}),
        (foreign, "its rules bind nobody", {"modifier": modifier}),
    ):
        section = settings(anvil.deployment, anvil.rpc_url, key) | made.settings
        section["contracts"] |= made.contracts
        for name, value in changes.items():
            (section["contracts"] if name == "entry_point" else section)[name] = value
        config = Config.model_validate(section)
        loaded = Loaded(settings=Settings(), path=Path("s.toml"), digest="", venues={"uniswap": config})
        with pytest.raises(ChainError, match=words):
            await begun(loaded, config)


async def begun(loaded: Loaded, config: Config) -> None:
    """As the agent begins with a venue."""
    await (await connect("uniswap", config, Tools(RealClock()))).close()
    await check_role(loaded, "uniswap", config, Tools(RealClock()))
