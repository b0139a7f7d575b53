"""A Safe whose hot key may do one thing: Zodiac Roles v2 allows and denies on a real chain, and the key's policy says the same.

The contracts are fetched as published (LGPL-3.0-or-later) and are never part of this project.
"""

import random
from collections.abc import Callable, Iterator

import account_kit as kit
import pytest
from account_kit import Chain
from eth_abi.abi import encode

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignedTransaction
from agent.keys.accounts import roles
from agent.keys.accounts.kinds import Role
from agent.keys.accounts.owners import Consent, packed
from agent.keys.accounts.safe import ENABLE_MODULE, exec_data, wrap
from agent.keys.bounds import Rule
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.simulation.chain.deploy import PERMIT2
from agent.simulation.chain.rpc import RpcError
from agent.simulation.chain.wallets import deploy_roles, deploy_safe_contracts, new_safe

pytestmark = pytest.mark.chain
VIOLATION = "d0a9bf58"  # ConditionViolation(uint8,bytes32)
ROLE, DAILY = roles.role_key("agent"), roles.role_key("daily")
LIMIT = 1_000
DAY_S = 86_400
APPROVE = bytes.fromhex("095ea7b3")
COLD, HOT = (kit.account(name).address for name in ("cold", "hot"))
ROUTER = "0x" + "a7" * 20


class Desk(Chain):
    """A Safe of a cold key, and a role in it for a hot one: approve a token to Permit2, 1,000 units a day."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.rpc)
        shared = deploy_safe_contracts(self.deployer)
        self.safe = new_safe(self.deployer, shared, [COLD])
        self.pay(COLD, HOT, self.safe)
        self.multi_send = shared.multi_send
        self.modifier, _ = deploy_roles(self.deployer, self.safe)
        within = roles.arguments(roles.equal_address(PERMIT2), roles.within(DAILY))
        set_up = (
            Call(self.safe, ENABLE_MODULE.data(self.modifier)),
            roles.set_allowance(self.modifier, roles.Allowance(DAILY, LIMIT, LIMIT, LIMIT, DAY_S)),
            roles.scope_target(self.modifier, ROLE, self.token),
            roles.scope_function(self.modifier, ROLE, self.token, APPROVE, within),
            roles.assign(self.modifier, HOT, [ROLE]),
        )
        data = exec_data(wrap(set_up, shared.multi_send), packed((Consent(COLD, "approved"),)))
        self.send("cold", self.safe, data, gas=3_000_000)

    def refused(self, call: Call) -> str:
        """Why the contract refuses, as the first eight digits of the revert; empty if it does not."""
        try:
            self.asked(HOT, self.modifier, roles.exec_data((call,), ROLE, self.multi_send))
        except RpcError as error:
            return str(error.data)[2:10]
        return ""

    def signer(self, limit: int = LIMIT) -> LocalSigner:
        signer = LocalSigner(bytearray(kit.key("hot")))
        rule = Rule("daily", "allow", frozenset({"approve"}), amount_max=limit)
        at = Role(self.safe, self.modifier, ROLE, self.multi_send)
        tokens = frozenset({self.token})
        policy = swap_policy(self.chain_id, HOT, ROUTER, PERMIT2, tokens, 100 * 10**9, 900_000, rules=(rule,), account=at)
        signer.allow(policy)
        return signer

    def calls(self, call: Call) -> Calls:
        target = (Call(self.modifier, roles.exec_data((call,), ROLE, self.multi_send)),)
        return Calls("o-1", self.chain_id, target, (), self.nonce(HOT), 400_000, 30 * 10**9, 10**9)


@pytest.fixture(scope="module")
def started() -> Iterator[Desk]:
    with kit.running() as chain:
        yield Desk(chain)


@pytest.fixture
def desk(started: Desk) -> Iterator[Desk]:
    snapshot = started.rpc.call("evm_snapshot")
    yield started
    started.rpc.call("evm_revert", snapshot)


def test_what_the_role_may_do_happens_as_the_safe(desk: Desk) -> None:
    signed = desk.signer().sign_now(desk.calls(kit.approve(desk.token, PERMIT2, 600)))
    assert isinstance(signed, SignedTransaction)
    receipt = desk.raw(signed.raw)
    assert (desk.allowed(desk.safe, PERMIT2), desk.allowed(HOT, PERMIT2)) == (600, 0)
    assert int(receipt["gasUsed"], 16) < 150_000


def test_an_allowance_is_used_up_and_refills(desk: Desk) -> None:
    first = kit.approve(desk.token, PERMIT2, 600)
    desk.send("hot", desk.modifier, roles.exec_data((first,), ROLE, desk.multi_send))
    assert desk.refused(first) == VIOLATION
    assert desk.refused(kit.approve(desk.token, PERMIT2, 400)) == ""
    desk.rpc.call("evm_increaseTime", DAY_S)
    desk.rpc.call("evm_mine")
    assert desk.refused(first) == ""


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda d: kit.approve(d.token, PERMIT2, LIMIT + 1), id="more than the allowance"),
        pytest.param(lambda d: kit.approve(d.token, kit.SOMEBODY, 1), id="another spender"),
        pytest.param(lambda d: Call(d.token, bytes.fromhex("a9059cbb") + encode(["address", "uint256"], [HOT, 1])), id="transfer"),
        pytest.param(lambda d: Call(kit.SOMEBODY, b""), id="another target"),
        pytest.param(lambda d: Call(d.token, kit.approve(d.token, PERMIT2, 1).data, 1), id="value"),
        pytest.param(lambda d: Call(d.safe, ENABLE_MODULE.data(kit.SOMEBODY)), id="the Safe itself"),
        pytest.param(lambda d: roles.assign(d.modifier, HOT, [DAILY]), id="the roles themselves"),
    ],
)
def test_what_it_may_not_is_refused_by_the_contract_and_by_the_key(desk: Desk, call: Callable[[Desk], Call]) -> None:
    made = call(desk)
    assert desk.refused(made) == VIOLATION
    with pytest.raises(SignerError, match="policy: "):
        desk.signer().sign_now(desk.calls(made))


def test_a_stranger_has_no_role(desk: Desk) -> None:
    with pytest.raises(RpcError):
        desk.asked(COLD, desk.modifier, roles.exec_data((kit.approve(desk.token, PERMIT2, 1),), ROLE, desk.multi_send))


@pytest.mark.parametrize("count", [300, pytest.param(5_000, marks=pytest.mark.nightly)])
def test_policy_and_contract_agree_on_every_call(desk: Desk, count: int) -> None:
    dice, signer = random.Random(7), desk.signer()
    targets = [desk.token] * 6 + [PERMIT2, desk.safe, desk.modifier, kit.SOMEBODY]
    selectors = [APPROVE] * 4 + [bytes.fromhex("a9059cbb"), bytes.fromhex("39509351")]
    seen = {True: 0, False: 0}
    for _ in range(count):
        arguments = [dice.choice([PERMIT2, PERMIT2, PERMIT2, HOT, kit.SOMEBODY]), dice.randint(0, 2 * LIMIT)]
        data = dice.choice(selectors) + encode(["address", "uint256"], arguments)
        call = Call(dice.choice(targets), data, dice.choice([0] * 9 + [1]))
        try:
            signer.sign_now(desk.calls(call))
            signs = True
        except SignerError:
            signs = False
        assert signs == (desk.refused(call) == ""), call
        seen[signs] += 1
    assert min(seen.values()) > count // 20
