"""What a Roles modifier allows, from its own announcements: Zodiac Roles v2 keeps its rules where no call can read them.

Every change of a rule is a log of the modifier, so all of them together, in order, are what holds now: members, targets, functions
with their conditions, allowances, and who takes batches apart. Source: zodiac-modifier-roles 2.1 (PermissionBuilder, Roles.sol).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agent.chains.abi import decoded, topic
from agent.chains.logs import Log, parse_logs
from agent.chains.rpc import Node, NodeRefusedError, whole
from agent.domain.errors import ChainError

QUESTIONS_MAX = 512  # some nodes answer about few blocks at a time only
Nodes = tuple[tuple[int, int, int, bytes], ...]  # (parent, form, operator, value) of each condition, breadth first
EVERYTHING: Final[Nodes] = ()  # a function without conditions

_WHAT = "the Roles modifier"
_CONDITIONS = "(uint8,uint8,uint8,bytes)[]"
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "AssignRoles": ("address", "bytes32[]", "bool[]"),
    "AllowTarget": ("bytes32", "address", "uint8"),
    "RevokeTarget": ("bytes32", "address"),
    "ScopeTarget": ("bytes32", "address"),
    "AllowFunction": ("bytes32", "address", "bytes4", "uint8"),
    "RevokeFunction": ("bytes32", "address", "bytes4"),
    "ScopeFunction": ("bytes32", "address", "bytes4", _CONDITIONS, "uint8"),
    "SetAllowance": ("bytes32", "uint128", "uint128", "uint128", "uint64", "uint64"),
    "SetUnwrapAdapter": ("address", "bytes4", "address"),
}
_TOPICS: Final = {topic(f"{name}({','.join(kinds)})"): name for name, kinds in _KINDS.items()}


class Granted(msgspec.Struct):
    """All roles of a modifier, addresses in lower case.

    `targets`: (role, contract) -> whether all of it is allowed. `functions`: (role, contract, selector) -> its conditions and what
    else a call may do (0: nothing but call). `allowances`: key -> (most, refill, seconds).
    """

    members: dict[bytes, set[str]] = {}
    targets: dict[tuple[bytes, str], bool] = {}
    functions: dict[tuple[bytes, str, bytes], tuple[Nodes, int]] = {}
    allowances: dict[bytes, tuple[int, int, int]] = {}
    unwrappers: dict[tuple[str, bytes], str] = {}


async def fetch_granted(rpc: Node, modifier: str, since: int = 0) -> Granted:
    """As of the newest block. `since`: the block in which the modifier was made, or any before it. Raises ChainError."""
    head = whole(await rpc.call("eth_blockNumber"))
    found = Granted()
    for log in await _logs(rpc, modifier, since, head):
        name = _TOPICS.get(log.topics[0])
        if name is not None:
            _apply(found, name, decoded(_KINDS[name], log.data, _WHAT))
    return found


async def _logs(rpc: Node, modifier: str, first: int, last: int) -> list[Log]:
    """In the chain's order. A range that the node refuses is halved."""
    waiting, found, asked = [(first, last)], list[Log](), 0
    while waiting:
        low, high = waiting.pop()
        asked += 1
        if asked > QUESTIONS_MAX:
            raise ChainError(
                f"{rpc.place} tells too few blocks at a time; set role_since to the block in which the modifier was made"
            )
        question = {"fromBlock": hex(low), "toBlock": hex(high), "address": modifier, "topics": [list(_TOPICS)]}
        try:
            found += parse_logs(await rpc.call("eth_getLogs", question))
        except NodeRefusedError:
            if low == high:
                raise
            middle = (low + high) // 2
            waiting += [(middle + 1, high), (low, middle)]
    return found


def _apply(granted: Granted, name: str, values: Sequence[Any]) -> None:
    match name, values:
        case "AssignRoles", (member, roles, flags):
            for role, is_member in zip(roles, flags, strict=True):
                (set.add if is_member else set.discard)(granted.members.setdefault(role, set()), member)
        case "AllowTarget" | "ScopeTarget", (role, target, *_):
            granted.targets[role, target] = name == "AllowTarget"
        case "RevokeTarget", (role, target):
            granted.targets.pop((role, target), None)
        case "AllowFunction", (role, target, selector, options):
            granted.functions[role, target, selector] = EVERYTHING, options
        case "ScopeFunction", (role, target, selector, conditions, options):
            granted.functions[role, target, selector] = tuple(conditions), options
        case "RevokeFunction", (role, target, selector):
            granted.functions.pop((role, target, selector), None)
        case "SetAllowance", (key, _, most, refill, period_s, _):
            granted.allowances[key] = most, refill, period_s
        case "SetUnwrapAdapter", (to, selector, adapter):
            granted.unwrappers[to, selector] = adapter
        case _:
            raise ChainError(f"{_WHAT} announces {name} in a form that is not known")
