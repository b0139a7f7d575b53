"""What a treasury's key signs, and every refusal by its reason; what a rule must name, and what needs none."""

from typing import Any

import pytest
from eth_abi.abi import encode

from agent.config import PolicyRule
from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls
from agent.keys.accounts.kinds import Safe
from agent.keys.bounds import Act, KeyPolicy, Rule
from agent.keys.policy import acts_of, check_calls, swap_policy
from agent.keys.rules import charged, judge, told
from agent.keys.transfers import APPROVE, ASSIGN_ROLES, LOCKDOWN, NATIVE, SWAP_OWNER, TRANSFER, treasury_policy

TOKEN, PERMIT2, OWNER, SAFE = ("0x" + pair * 20 for pair in ("b1", "22", "01", "5a"))
FRIEND, THIEF, MODIFIER = ("0x" + pair * 20 for pair in ("f1", "17", "30"))
NAMES = {TOKEN: ("USD", 6)}


def policy(**changes: Any) -> KeyPolicy:
    fields: dict[str, Any] = {"names": NAMES, "account": Safe(SAFE, MODIFIER), "modifier": MODIFIER}
    return treasury_policy(1, OWNER, PERMIT2, frozenset({TOKEN}), 10**11, 10**6, **fields | changes)


def acts(to: str, data: bytes, value: int = 0) -> tuple[Act, ...]:
    return acts_of(policy(), (Call(to, data, value),))


def test_what_it_does_is_read_from_the_bytes() -> None:
    assert acts(TOKEN, TRANSFER.data(FRIEND, 5)) == (Act("transfer", TOKEN, TOKEN, 5, to=FRIEND),)
    assert acts(FRIEND, b"", 7) == (Act("transfer", NATIVE, NATIVE, 7, to=FRIEND),)
    assert acts(TOKEN, APPROVE.data(THIEF, 0)) == (Act("revoke", TOKEN, TOKEN, to=THIEF),)
    assert acts(PERMIT2, LOCKDOWN.data([(TOKEN, THIEF)])) == (Act("revoke", PERMIT2, TOKEN, to=THIEF),)
    assert acts(SAFE, SWAP_OWNER.data("0x" + "00" * 19 + "01", THIEF, FRIEND)) == (
        Act("owners", SAFE, to=FRIEND),
        Act("revoke", SAFE, to=THIEF),
    )
    assert acts(MODIFIER, ASSIGN_ROLES.data(THIEF, [bytes(32)], [False])) == (Act("revoke", MODIFIER, to=THIEF),)
    assert acts(SAFE, b"") == (Act("take_back", SAFE),)


@pytest.mark.parametrize(
    ("reason", "to", "data", "value"),
    [
        ("pays nobody", TOKEN, TRANSFER.data(FRIEND, 0), 0),
        ("pays nobody", TOKEN, TRANSFER.data(TOKEN, 1), 0),
        ("pays nobody", TOKEN, TRANSFER.data("0x" + "00" * 20, 1), 0),
        ("pays nobody", SAFE, b"", 1),
        ("data or value", TOKEN, TRANSFER.data(FRIEND, 1), 1),
        ("gives none", TOKEN, APPROVE.data(THIEF, 1), 0),
        ("gives none", MODIFIER, ASSIGN_ROLES.data(THIEF, [bytes(32)], [True]), 0),
        ("1 to 64 rights", PERMIT2, LOCKDOWN.data([]), 0),
        ("cannot become an owner", SAFE, SWAP_OWNER.data(OWNER, THIEF, SAFE), 0),
        ("cannot become an owner", SAFE, SWAP_OWNER.data(OWNER, THIEF, THIEF), 0),
        ("canonical", TOKEN, TRANSFER.data(FRIEND, 1) + b"\0", 0),
        ("canonical", TOKEN, TRANSFER.selector + b"\1" * 64, 0),
        ("nothing that a treasury does", THIEF, TRANSFER.data(FRIEND, 1), 0),
        ("nothing that a treasury does", TOKEN, bytes.fromhex("23b872dd") + encode(["address"] * 3, [OWNER] * 3), 0),
        ("nothing that a treasury does", SAFE, bytes.fromhex("610b5925") + encode(["address"], [THIEF]), 0),
        ("nothing that a treasury does", SAFE, bytes.fromhex("694e80c3") + encode(["uint256"], [1]), 0),
        ("nothing that a treasury does", PERMIT2, bytes.fromhex("87517c45") + encode(["address"] * 4, [OWNER] * 4), 0),
    ],
)
def test_whatever_else_is_refused(reason: str, to: str, data: bytes, value: int) -> None:
    with pytest.raises(SignerError, match=reason):
        acts(to, data, value)


def test_a_key_that_trades_pays_nobody_and_one_that_pays_does_not_trade() -> None:
    trading = swap_policy(1, OWNER, MODIFIER, PERMIT2, frozenset({TOKEN}), 10**11, 10**6)
    for call in (Call(TOKEN, TRANSFER.data(FRIEND, 1)), Call(FRIEND, b"", 1), Call(TOKEN, APPROVE.data(THIEF, 0))):
        with pytest.raises(SignerError):
            check_calls(trading, Calls("o", 1, (call,), (), 0, 90_000, 10**9, 1))
    approval = Call(TOKEN, APPROVE.data(PERMIT2, 5))
    with pytest.raises(SignerError, match="gives none"):
        check_calls(policy(account=None), Calls("o", 1, (approval,), (), 0, 90_000, 10**9, 1))


def rule(**changes: Any) -> Rule:
    fields: dict[str, Any] = {"name": "friends", "effect": "allow", "kinds": frozenset({"transfer"}), "to": frozenset({FRIEND})}
    return Rule(**fields | changes)


PAY = Act("transfer", TOKEN, TOKEN, 5, to=FRIEND)
OWNERS = Act("owners", SAFE, to=FRIEND)


def test_a_payment_wants_a_rule_that_names_the_act_and_whom() -> None:
    wrong = [{"kinds": frozenset()}, {"to": frozenset()}, {"to": frozenset({THIEF})}, {"kinds": frozenset({"swap"})}]
    for rules in ((), *((rule(**one),) for one in wrong)):
        for act in (PAY, OWNERS):
            assert "no rule allows to" in judge(rules, (act,))[0].why
    assert judge((rule(),), (PAY,))[0].why == ""
    assert judge((rule(kinds=frozenset({"owners"})),), (OWNERS,))[0].why == ""
    assert "allows 0.000004 USD at once" in judge((rule(amount_max=4),), (PAY,), NAMES)[0].why
    everything = Rule("not now", "deny")
    assert "forbids to transfer USD" in judge((everything, rule()), (PAY,), NAMES)[0].why
    assert told(PAY, NAMES) == f"transfer 0.000005 USD to {FRIEND}"


def test_taking_a_right_away_needs_no_rule_and_only_one_that_names_it_forbids_it() -> None:
    gone = Act("revoke", TOKEN, TOKEN, to=THIEF)
    for rules in ((), (rule(),), (Rule("not now", "deny"),)):
        assert judge(rules, (gone,))[0].why == ""
    assert "forbids" in judge((Rule("keep", "deny", frozenset({"revoke"})),), (gone,))[0].why


def test_payments_count_in_windows() -> None:
    counted = rule(window_s=60, window_max=9)
    (charge,) = charged((counted,), (PAY, PAY))
    assert (charge.units, charge.token) == (10, TOKEN)
    assert "allows" in charge.beyond(0)


def test_a_rule_that_allows_payments_names_whom_in_the_settings_too() -> None:
    for acts_named in (["transfer"], ["owners"], ["swap", "transfer"]):
        with pytest.raises(ValueError, match="names whom they are to"):
            PolicyRule.model_validate({"name": "x", "effect": "allow", "acts": acts_named})
    assert PolicyRule.model_validate({"name": "x", "effect": "deny", "acts": ["transfer"]})
