"""The wallet's role in the Safe that holds the tokens: what it must allow, what the chain says it allows, and what lies between.

Each difference comes with the call that removes it, for the Safe's owners to make. Without any the role is what the settings mean.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from agent.chains.roles_log import Granted
from agent.config import Loaded, venue_module
from agent.domain.errors import ChainError
from agent.domain.plan import Call
from agent.keys.accounts import roles
from agent.keys.accounts.permissions import REMARKS, Permissions, TradedPool, permissions_of
from agent.keys.accounts.safe import ENABLE_MODULE, MULTI_SEND
from agent.keys.bounds import KeyPolicy
from agent.policies import policy_of
from agent.ports import Tools

__all__ = ["REMARKS", "Step", "check_role", "role_permissions", "role_steps", "steps_to"]

NOBODY = "0x" + "00" * 20


class Step(msgspec.Struct, frozen=True):
    """One difference in words, and what the Safe's owners do about it."""

    why: str
    call: Call


def role_permissions(section: Any, policy: KeyPolicy) -> Permissions:
    """What the role of the settings must allow. Raises SignerError for what a contract cannot say."""
    assets, pools = section.assets, []
    for pool in section.pools:
        pair = sorted(assets[name].address.lower() for name in (pool.base, pool.quote))
        pools.append(TradedPool(pool.protocol, pair[0], pair[1], pool.fee_pips, pool.hooks.lower()))
    return permissions_of(policy, pools)


async def check_role(loaded: Loaded, name: str, section: Any, tools: Tools) -> None:
    """Where the wallet has a role, hold the chain against the settings. Raises ChainError with the first difference."""
    if getattr(section, "account", "") != "role":
        return
    steps = await role_steps(loaded, name, section, tools)
    if steps:
        more = f" (and {len(steps) - 1} more)" if len(steps) > 1 else ""
        raise ChainError(f"venues.{name}: {steps[0].why}{more}; `isthmus keys roles setup` says what the Safe's owners must sign")


async def role_steps(loaded: Loaded, name: str, section: Any, tools: Tools) -> list[Step]:
    """What is to be done until the role is what the settings mean; nothing if it is. Raises ChainError, SignerError."""
    policy = policy_of(loaded, name, section, section.wallet, section.chain_id)
    is_enabled, granted = await venue_module(section.kind, name).fetch_role(section, tools)
    return steps_to(section, policy, granted, is_enabled=is_enabled)


def steps_to(section: Any, policy: KeyPolicy, granted: Granted, *, is_enabled: bool) -> list[Step]:
    """From what is granted to what the policy needs. Raises SignerError for what a contract cannot say."""
    wanted = role_permissions(section, policy)
    enable = Step("the modifier is not enabled in the Safe", Call(section.safe, ENABLE_MODULE.data(section.modifier)))
    rules = (*_allowances(section, granted, wanted), *_rules(section, granted, wanted))
    return [*([] if is_enabled else [enable]), *_batches(section, granted), *rules, *_members(section, granted)]


def _batches(section: Any, granted: Granted) -> Iterator[Step]:
    """Who takes batches apart is trusted with everything: the one contract of the settings, for the one batch contract."""
    mine = section.contracts.multi_send.lower(), MULTI_SEND.selector
    for to, selector in granted.unwrappers:
        if (to, selector) != mine and granted.unwrappers[to, selector] != NOBODY:
            call = Call(section.modifier, roles.SET_UNWRAPPER.data(to, selector, NOBODY))
            yield Step(f"the modifier reads batches of {to} as well", call)
    if granted.unwrappers.get(mine) != section.contracts.multi_send_unwrapper.lower():
        call = roles.set_unwrapper(section.modifier, section.contracts.multi_send, section.contracts.multi_send_unwrapper)
        yield Step("the modifier does not read batches by contracts.multi_send_unwrapper", call)


def _allowances(section: Any, granted: Granted, wanted: Permissions) -> Iterator[Step]:
    for one in wanted.allowances:
        if granted.allowances.get(one.key) != (one.most, one.refill, one.period_s):
            yield Step(f"an allowance is not {one.most} units in {one.period_s} s", roles.set_allowance(section.modifier, one))


def _rules(section: Any, granted: Granted, wanted: Permissions) -> Iterator[Step]:
    role, modifier = roles.role_key(section.role), section.modifier
    functions = {(one.target.lower(), one.selector): one for one in wanted.scopes}
    targets = sorted({target for target, _ in functions})
    for name, target in granted.targets:
        if name == role and target not in targets:
            yield Step(f"the role reaches {target}", roles.revoke_target(modifier, role, target))
    for target in targets:
        if granted.targets.get((role, target)) is not False:
            yield Step(f"the role does not reach {target} by functions alone", roles.scope_target(modifier, role, target))
    for name, target, selector in granted.functions:
        if name == role and target in targets and (target, selector) not in functions:
            call = roles.revoke_function(modifier, role, target, selector)
            yield Step(f"the role may call 0x{selector.hex()} of {target}", call)
    for (target, selector), one in functions.items():
        if granted.functions.get((role, target, selector)) != (tuple(roles.flattened(one.condition)), 0):
            call = roles.scope_function(modifier, role, target, selector, one.condition)
            yield Step(f"the role's conditions on 0x{selector.hex()} of {target} are not those of the settings", call)


def _members(section: Any, granted: Granted) -> Iterator[Step]:
    """The wallet in this role and no other, and nobody else in it."""
    role, wallet = roles.role_key(section.role), section.wallet.lower()
    for name, members in granted.members.items():
        for member in sorted(members):
            if (name == role) != (member == wallet) and (name == role or member == wallet):
                call = roles.assign(section.modifier, member, [name], is_member=False)
                yield Step(f"{member} has the role {name.rstrip(bytes(1)).decode(errors='replace')!r} as well", call)
    if wallet not in granted.members.get(role, set()):
        yield Step(
            f"the wallet {section.wallet} has not the role {section.role!r}", roles.assign(section.modifier, section.wallet, [role])
        )
