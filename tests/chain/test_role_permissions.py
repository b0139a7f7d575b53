"""The settings' policy, compiled into a role: the contract never allows what the key would refuse, on random calls and on odd ones,
and both agree on everything that this program itself would build.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from onchain_desk import RealClock, settings

from agent.chains import abi, router
from agent.chains.roles_log import Granted
from agent.config import Loaded, Settings
from agent.domain.errors import ChainError, SignerError
from agent.domain.plan import Call, Calls
from agent.keys.accounts import roles
from agent.keys.accounts.kinds import Role
from agent.keys.bounds import KeyPolicy
from agent.keys.local import LocalSigner
from agent.keys.spent import Spent
from agent.policies import policy_of
from agent.ports import Tools
from agent.roles import Step, check_role, role_steps, steps_to
from agent.simulation.chain.rpc import Rpc, RpcError, wait_for_receipt
from agent.simulation.chain.wallets import as_owner
from agent.simulation.chain.world import SandboxChain, start_chain
from agent.venues.uniswap import Config, connect, fetch_role

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
ETH, DOLLAR, DAY_S = 10**18, 10**6, 86_400
FAILED_BEHIND = abi.selector("ModuleTransactionFailed()").hex()  # the role allowed it; the Safe could not do it
THIEF, NO_HOOKS, MSG_SENDER = "0x" + "dd" * 20, "0x" + "00" * 20, "0x" + "00" * 19 + "01"
RULES: list[dict[str, Any]] = [
    {"name": "sell", "effect": "allow", "acts": ["swap"], "give": ["WETH"], "receive": ["USDT"], "amount_max": "5"},
    {"name": "buy", "effect": "allow", "acts": ["swap"], "give": ["USDT"], "amount_max": "9000"},
    {"name": "not at all", "effect": "deny", "acts": ["approve"], "give": ["USDC"]},
    {"name": "approve", "effect": "allow", "acts": ["approve"]},
    {"name": "permit", "effect": "allow", "acts": ["permit"], "give": ["WETH"], "amount_max": "6"},
]
WINDOW = {"name": "sell", "effect": "allow", "acts": ["swap"], "give": ["WETH"], "window_s": DAY_S, "window_max": "3"}
FREE = {"name": "the rest", "effect": "allow", "acts": ["approve", "permit"]}


class Desk:
    """A sandbox chain, a hot key with a role in a funded Safe, and what its settings say."""

    def __init__(self, chain: SandboxChain, section: dict[str, Any], key: bytes) -> None:
        self.chain, self.config, self.key = chain, Config.model_validate(section), key
        self.rpc = Rpc(chain.rpc_url)
        self.at = Role(self.config.safe, self.config.modifier, roles.role_key(self.config.role), self.config.contracts.multi_send)
        self.weth, self.usdt = (self.config.assets[name].address for name in ("WETH", "USDT"))

    def loaded(self, *rules: dict[str, Any]) -> Loaded:
        section = {"policy": list(rules), "risk": {"gas_limit_max": 10_000_000}}
        return Loaded(settings=Settings.model_validate(section), path=Path("s.toml"), digest="", venues={"uniswap": self.config})

    def policy(self, *rules: dict[str, Any]) -> KeyPolicy:
        return policy_of(self.loaded(*rules), "uniswap", self.config, self.config.wallet, self.config.chain_id)

    async def steps(self, *rules: dict[str, Any]) -> list[Step]:
        return await role_steps(self.loaded(*rules), "uniswap", self.config, Tools(RealClock()))

    async def set_up(self, *rules: dict[str, Any]) -> None:
        await self.owner(*(one.call for one in await self.steps(*rules)))
        assert await self.steps(*rules) == []

    async def owner(self, *calls: Call) -> None:
        await asyncio.to_thread(as_owner, self.rpc, self.config.safe, self.config.contracts.multi_send, calls)

    def everything_permitted(self) -> list[Call]:
        permit2, router_, tokens = self.config.contracts.permit2, self.config.contracts.universal_router, (self.weth, self.usdt)
        told = [Call(permit2, abi.permit2_approve(token, router_, 2**160 - 1, 2**40)) for token in tokens]
        return [*told, *(Call(token, abi.approve(permit2, 2**256 - 1)) for token in tokens)]

    def denied(self, *calls: Call) -> bool:
        """Whether the contract stands in the way; what fails behind it is another matter."""
        return self.outcome(*calls) == "denied"

    def outcome(self, *calls: Call) -> Literal["denied", "failed", "done"]:
        """What would become of it: the contract denies it, the Safe cannot do it, or it happens."""
        data = roles.exec_data(calls, self.at.key, self.at.multi_send)
        fields = {"from": self.config.wallet, "to": self.at.modifier, "data": "0x" + data.hex(), "gas": hex(9_000_000)}
        try:
            self.rpc.call("eth_call", fields, "latest")
        except RpcError as error:
            return "failed" if str(error.data)[2:10] == FAILED_BEHIND else "denied"
        return "done"

    def asked(self, *calls: Call) -> Calls:
        data = roles.exec_data(calls, self.at.key, self.at.multi_send)
        return Calls("o", self.config.chain_id, (Call(self.at.modifier, data),), (), 0, 9_000_000, 10**9, 10**9)

    def now_s(self) -> int:
        return int(self.rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def swap(self, protocol: str, fee: int, units: int, bound: int, *, sell: bool = True, exact: bool = True, **odd: Any) -> Call:
        """WETH for USDT, or back, as this program builds it but for what is `odd`."""
        pair = odd.get("pair") or ((self.weth, self.usdt) if sell else (self.usdt, self.weth))
        to, deadline_s = odd.get("to") or self.config.safe, self.now_s() + 600
        if protocol == "v4":
            ordered = sorted(pair, key=lambda one: int(one, 16))
            key = (ordered[0], ordered[1], fee, 10, odd.get("hooks") or NO_HOOKS)
            data = router.execute_within(router.v4_swap(key, pair, units, bound, exact_in=exact))
        else:
            of_v2 = router.v2_swap(to, pair, units, bound, exact_in=exact)
            of_v3 = router.v3_swap(to, pair, fee, units, bound, exact_in=exact)
            data = router.execute_permitted(deadline_s, (of_v2 if protocol == "v2" else of_v3,))
        return Call(self.config.contracts.universal_router, data)


@pytest.fixture(scope="module")
def started() -> Iterator[Desk]:
    chain = asyncio.run(start_chain("anvil"))
    try:
        key = secrets.token_bytes(32)
        wallet = LocalSigner(bytearray(key)).address
        made = asyncio.run(_funded(chain, wallet))
        section = settings(chain.deployment, chain.rpc_url, wallet) | made.settings
        section["contracts"] |= made.contracts
        usdc = {"symbol": "USDC", "address": chain.deployment.tokens["USDC"].address, "decimals": 6}
        section["tokens"].append(usdc)
        yield Desk(chain, section, key)
    finally:
        asyncio.run(chain.stop())


async def _funded(chain: SandboxChain, wallet: str) -> Any:
    made = await chain.account_of("role", wallet)
    await chain.fund(wallet, {"ETH": "10"})
    await chain.fund(made.holder, {"WETH": "100", "USDT": "500000"})
    return made


@pytest.fixture
async def desk(started: Desk) -> AsyncIterator[Desk]:
    snapshot = started.rpc.call("evm_snapshot")
    yield started
    started.rpc.call("evm_revert", snapshot)
    started.rpc.close()


def random_call(desk: Desk, dice: random.Random) -> tuple[Call, bool]:
    """(a call, whether this program might have built it: it never asks for nothing, or for no bound)."""
    contracts, tokens = desk.config.contracts, [token.address for token in desk.config.tokens]
    token, units = dice.choice(tokens), dice.choice([0, 1, ETH, 5 * ETH, 5 * ETH + 1, 8_999 * DOLLAR, 9_001 * DOLLAR, 2**200])
    what = dice.random()
    if what < 0.15:
        spender = dice.choice([contracts.permit2] * 3 + [THIEF, contracts.universal_router])
        units = dice.choice([units, 2**255 - 1, 2**255, 2**256 - 1])
        return Call(token, abi.approve(spender, units)), True
    if what < 0.35:
        spender = dice.choice([contracts.universal_router] * 3 + [THIEF])
        units = dice.choice([units % 2**160, 6 * ETH, 6 * ETH + 1, 2**160 - 2, 2**160 - 1])
        return Call(
            contracts.permit2, abi.permit2_approve(token, spender, units, dice.choice([0, desk.now_s(), 2**33, 2**34]))
        ), True
    if what < 0.45:
        data = dice.choice(
            [abi.call_data("transfer(address,uint256)", THIEF, 1), abi.approve(contracts.permit2, 1), b"", b"\x00" * 4]
        )
        to = dice.choice([desk.config.safe, desk.at.modifier, contracts.universal_router, contracts.permit2, THIEF, token])
        return Call(to, data, dice.choice([0, 0, 1])), False
    odd: dict[str, Any] = {}
    is_odd = dice.random() < 0.3
    if is_odd:
        pairs = [(desk.weth, THIEF), (tokens[2], desk.weth), (desk.weth, desk.weth)]
        odd = dice.choice(
            [{"to": THIEF}, {"to": MSG_SENDER}, {"to": desk.config.wallet}, {"hooks": THIEF}, {"pair": dice.choice(pairs)}]
        )
    protocol = dice.choice(["v2", "v3", "v4"])
    fee = dice.choice([500, 3_000, 10_000, 777 if is_odd else 500])
    amounts = [0, 1, ETH, 5 * ETH, 5 * ETH + 1, 9_000 * DOLLAR, 9_000 * DOLLAR + 1]
    exact, bound = dice.choice(amounts), dice.choice(amounts)
    call = desk.swap(protocol, fee, exact, bound, sell=dice.random() < 0.5, exact=dice.random() < 0.5, **odd)
    if is_odd and dice.random() < 0.3:
        at = dice.randrange(len(call.data))
        call = msgspec.structs.replace(call, data=call.data[:at] + bytes((dice.randrange(256),)) + call.data[at + 1 :])
    return call, not is_odd and exact > 0 and bound > 0


@pytest.mark.parametrize("count", [400, pytest.param(6_000, marks=pytest.mark.nightly)])
async def test_the_contract_allows_nothing_that_the_key_refuses_and_both_agree_on_our_own_calls(desk: Desk, count: int) -> None:
    await desk.set_up(*RULES)
    await desk.owner(*desk.everything_permitted())  # so that what the contract lets pass does happen
    dice, signer = random.Random(5), LocalSigner(bytearray(desk.key))
    signer.allow(desk.policy(*RULES))
    seen = {(signs, denied): 0 for signs in (True, False) for denied in (True, False)}
    for _ in range(count):
        made = [random_call(desk, dice) for _ in range(dice.choice([1, 1, 1, 1, 2, 3]))]
        calls, is_ours = tuple(call for call, _ in made), all(ours for _, ours in made)
        outcome = desk.outcome(*calls)
        denied, why = outcome == "denied", ""
        try:
            signer.sign_now(desk.asked(*calls))
        except SignerError as error:
            why = str(error)
        signs = not why
        assert signs or denied or (outcome == "failed" and "does not decode" in why), (calls, why)
        assert not is_ours or signs != denied, calls
        seen[signs, denied] += 1
    assert min(seen[True, False], seen[False, True]) > count // 10, seen


async def test_a_window_closes_in_both_and_opens_again(desk: Desk, tmp_path: Path) -> None:
    rules = (WINDOW, FREE)
    await desk.set_up(*rules)
    signer = LocalSigner(bytearray(desk.key), spent=Spent(tmp_path / "spent.jsonl", RealClock()))
    signer.allow(desk.policy(*rules))
    first = batch(desk, 2 * ETH)
    signed: Any = signer.sign_now(desk.asked(*first))
    wait_for_receipt(desk.rpc, desk.rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex()))
    again = msgspec.structs.replace(desk.asked(*first), nonce=1)
    with pytest.raises(SignerError, match="rule 'sell' allows 3 WETH"):
        signer.sign_now(again)
    assert desk.denied(*first)
    assert not desk.denied(*batch(desk, ETH))
    signer.sign_now(msgspec.structs.replace(desk.asked(*batch(desk, ETH)), nonce=1))
    desk.rpc.call("evm_increaseTime", DAY_S)
    desk.rpc.call("evm_mine")
    assert not desk.denied(*batch(desk, 2 * ETH))


def batch(desk: Desk, units: int) -> tuple[Call, ...]:
    """What this program sends to sell so much, in two parts, of which the contract adds up what is given."""
    permit2, until_s = desk.config.contracts.permit2, desk.now_s() + 600
    told = (Call(desk.weth, abi.approve(permit2, 0)), Call(desk.weth, abi.approve(permit2, units)))
    may = Call(permit2, abi.permit2_approve(desk.weth, desk.config.contracts.universal_router, units, until_s))
    return (*told, may, desk.swap("v3", 500, units // 2, 1), desk.swap("v2", 3_000, units - units // 2, 1))


# -- what the chain says is held against the settings ------------------------------------------------------------------


async def test_whatever_differs_stops_the_start_and_setup_puts_it_right(desk: Desk) -> None:
    """Each way to widen or to break the role is seen, named, and undone by exactly the calls that setup gives."""
    await desk.set_up(*RULES)
    at, role, mine = desk.at.modifier, desk.at.key, desk.config.contracts
    allow_target = abi.call_data("allowTarget(bytes32,address,uint8)", role, THIEF, 3)
    allow_function = abi.call_data("allowFunction(bytes32,address,bytes4,uint8)", role, desk.weth, b"\xa9\x05\x9c\xbb", 0)
    for words, call in (
        ("has the role 'agent' as well", roles.assign(at, THIEF, [role])),
        ("has the role 'other' as well", roles.assign(at, desk.config.wallet, [roles.role_key("other")])),
        ("has not the role", roles.assign(at, desk.config.wallet, [role], is_member=False)),
        ("the role reaches 0xdddd", Call(at, allow_target)),
        ("by functions alone", roles.revoke_target(at, role, desk.weth)),
        ("may call 0xa9059cbb", Call(at, allow_function)),
        ("conditions on 0x095ea7b3", roles.revoke_function(at, role, desk.weth, bytes.fromhex("095ea7b3"))),
        (
            "conditions on 0x3593564c",
            roles.scope_function(at, role, mine.universal_router, bytes.fromhex("3593564c"), roles.arguments(roles.ANY_BYTES)),
        ),
        ("does not read batches by", roles.set_unwrapper(at, mine.multi_send, THIEF)),
        (f"reads batches of {THIEF}", roles.set_unwrapper(at, THIEF, mine.multi_send_unwrapper)),
        ("is not enabled", Call(desk.config.safe, abi.call_data("disableModule(address,address)", "0x" + "00" * 19 + "01", at))),
    ):
        await desk.owner(call)
        with pytest.raises(ChainError, match=words):
            await check_role(desk.loaded(*RULES), "uniswap", desk.config, Tools(RealClock()))
        (step,) = await desk.steps(*RULES)
        assert words in step.why
        await desk.owner(step.call)
        assert await desk.steps(*RULES) == []
    changed = [one.why for one in await desk.steps(*RULES[:1], FREE)]  # the settings, not the chain
    assert any("conditions on" in why for why in changed)
    await desk.set_up(WINDOW, FREE)
    _, granted = await fetch_role(desk.config, Tools(RealClock()))
    (key,) = granted.allowances
    await desk.owner(roles.set_allowance(at, roles.Allowance(key, 9, 9, 9, 9)))
    assert "an allowance is not 3000000000000000000 units in 86400 s" in (await desk.steps(WINDOW, FREE))[0].why


async def test_an_owner_of_the_safe_is_bound_by_no_role_and_is_refused(desk: Desk) -> None:
    await desk.owner(Call(desk.config.safe, abi.call_data("addOwnerWithThreshold(address,uint256)", desk.config.wallet, 1)))
    with pytest.raises(ChainError, match="binds it to nothing"):
        await connect("uniswap", desk.config, Tools(RealClock()))


def test_pools_that_make_too_many_conditions_are_refused(started: Desk) -> None:
    pools = [{"protocol": "v3", "base": "WETH", "quote": "USDT", "fee_pips": 100 + at, "address": THIEF} for at in range(64)]
    section = started.config.model_dump() | {"pools": pools}
    config = Config.model_validate(section)
    with pytest.raises(SignerError, match="at most 255 conditions"):
        steps_to(config, started.policy(*RULES), Granted(), is_enabled=True)
    with pytest.raises(SignerError, match="acts for no role"):
        steps_to(config, msgspec.structs.replace(started.policy(), account=None), Granted(), is_enabled=True)
