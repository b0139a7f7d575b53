"""Zodiac Roles v2: a hot key that may do some things as a Safe, and nothing else, because a contract says so and not a program.

The owners of the Safe set a role up once (targets, functions, bounds on parameters, allowances that refill); the key then calls
through the modifier. Conditions are a tree, handed over breadth first. Sources: zodiac-modifier-roles 2.1 (Types.sol,
PermissionBuilder.sol, Roles.sol).
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from eth_abi.abi import encode

from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts.functions import SELECTOR_BYTES, function
from agent.keys.accounts.safe import MULTI_SEND, SafeTx, unwrap, wrap
from agent.keys.digest import address_bytes

WORD = 32
CONDITIONS_MAX = 255  # an index is one byte

# ParameterType and Operator of Types.sol
NONE, STATIC, DYNAMIC, TUPLE, ARRAY, CALLDATA, ABI_ENCODED = 0, 1, 2, 3, 4, 5, 6
PASS, AND, OR, MATCHES, EQUAL_TO_AVATAR, EQUAL_TO, GREATER_THAN, LESS_THAN, WITHIN_ALLOWANCE = 0, 1, 2, 5, 15, 16, 17, 18, 28

EXEC_WITH_ROLE: Final = function("execTransactionWithRole(address,uint256,bytes,uint8,bytes32,bool)")
_ASSIGN: Final = function("assignRoles(address,bytes32[],bool[])")
_SCOPE_TARGET: Final = function("scopeTarget(bytes32,address)")
_REVOKE_TARGET: Final = function("revokeTarget(bytes32,address)")
_REVOKE_FUNCTION: Final = function("revokeFunction(bytes32,address,bytes4)")
_SCOPE_FUNCTION: Final = function("scopeFunction(bytes32,address,bytes4,(uint8,uint8,uint8,bytes)[],uint8)")
SET_UNWRAPPER: Final = function("setTransactionUnwrapper(address,bytes4,address)")
_SET_ALLOWANCE: Final = function("setAllowance(bytes32,uint128,uint128,uint128,uint64,uint64)")


class Condition(msgspec.Struct, frozen=True):
    """One node of a tree: the form of a parameter, what must hold of it, and the conditions on its parts, in order."""

    form: int
    operator: int
    value: bytes = b""
    parts: tuple["Condition", ...] = ()


class Allowance(msgspec.Struct, frozen=True):
    """Units that a role may move: `units` to begin with, `refill` more every `period_s` from `start_s` (0: now), up to `most`."""

    key: bytes
    units: int
    most: int
    refill: int
    period_s: int
    start_s: int = 0


ANYTHING: Final = Condition(STATIC, PASS)
ANY_BYTES: Final = Condition(DYNAMIC, PASS)
AVATAR: Final = Condition(STATIC, EQUAL_TO_AVATAR)  # the Safe itself
SOME: Final = Condition(STATIC, GREATER_THAN, bytes(WORD))  # a number that is not zero


# -- conditions --------------------------------------------------------------------------------------------------------


def arguments(*parts: Condition) -> Condition:
    """The arguments of a call, one condition for each; what comes after the last is not looked at."""
    return Condition(CALLDATA, MATCHES, parts=parts)


def equal(word: bytes) -> Condition:
    """A parameter of one word that must be exactly these 32 bytes."""
    if len(word) != WORD:
        raise SignerError(f"a word has {WORD} bytes, this has {len(word)}")
    return Condition(STATIC, EQUAL_TO, word)


def equal_address(address: str) -> Condition:
    return equal(address_bytes(address).rjust(WORD, b"\0"))


def within(allowance: bytes) -> Condition:
    """An amount that is taken out of the allowance with this key."""
    return Condition(STATIC, WITHIN_ALLOWANCE, _key(allowance))


def equal_bytes(raw: bytes) -> Condition:
    """`bytes` that must be exactly these."""
    return Condition(DYNAMIC, EQUAL_TO, encode(["bytes"], [raw]))


def at_most(number: int) -> Condition:
    """A number of 256 bits that is not above this one."""
    return Condition(STATIC, LESS_THAN, (number + 1).to_bytes(WORD, "big"))


def fields(*parts: Condition) -> Condition:
    """The members of a struct, all of them."""
    return Condition(TUPLE, MATCHES, parts=parts)


def items(*parts: Condition) -> Condition:
    """An array of exactly so many items."""
    return Condition(ARRAY, MATCHES, parts=parts)


def encoded(*parts: Condition) -> Condition:
    """`bytes` that hold ABI-encoded values, one condition for each; what comes after the last is not looked at."""
    return Condition(ABI_ENCODED, MATCHES, parts=parts)


def any_of(parts: Sequence[Condition]) -> Condition:
    return Condition(NONE, OR, parts=tuple(parts))


def all_of(parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Condition(NONE, AND, parts=tuple(parts))


def flattened(root: Condition) -> list[tuple[int, int, int, bytes]]:
    """(parent, form, operator, value) of each node, breadth first; the root is its own parent. SignerError for too many."""
    nodes, found = [(0, root)], [(0, root.form, root.operator, root.value)]
    for index, (_, node) in enumerate(nodes):  # grows while it is walked, level by level
        for part in node.parts:
            nodes.append((index, part))
            found.append((index, part.form, part.operator, part.value))
        if len(found) > CONDITIONS_MAX:
            raise SignerError(f"a permission has at most {CONDITIONS_MAX} conditions")
    return found


# -- what the owners set up --------------------------------------------------------------------------------------------


def role_key(name: str) -> bytes:
    """A role's or an allowance's name as 32 bytes. Raises SignerError for a name that is empty, long or not ASCII."""
    if not name or len(name) > WORD or not name.isascii():
        raise SignerError(f"{name[:40]!r} is no name of a role: 1 to {WORD} ASCII letters")
    return name.encode().ljust(WORD, b"\0")


def assign(modifier: str, member: str, roles: Sequence[bytes], *, is_member: bool = True) -> Call:
    """Give `member` the roles, or take them away."""
    return Call(modifier, _ASSIGN.data(member, list(roles), [is_member] * len(roles)))


def scope_target(modifier: str, role: bytes, target: str) -> Call:
    """Let the role reach `target`, by the functions that are scoped and no others."""
    return Call(modifier, _SCOPE_TARGET.data(_key(role), target))


def revoke_target(modifier: str, role: bytes, target: str) -> Call:
    """The role reaches `target` no more."""
    return Call(modifier, _REVOKE_TARGET.data(_key(role), target))


def revoke_function(modifier: str, role: bytes, target: str, selector: bytes) -> Call:
    """The role calls one function of `target` no more."""
    return Call(modifier, _REVOKE_FUNCTION.data(_key(role), target, selector))


def scope_function(modifier: str, role: bytes, target: str, selector: bytes, condition: Condition) -> Call:
    """Let the role call one function of `target` where `condition` holds: no value, no delegatecall."""
    if len(selector) != SELECTOR_BYTES:
        raise SignerError(f"a selector has {SELECTOR_BYTES} bytes, this has {len(selector)}")
    return Call(modifier, _SCOPE_FUNCTION.data(_key(role), target, selector, flattened(condition), 0))


def set_unwrapper(modifier: str, multi_send: str, unwrapper: str) -> Call:
    """Let the modifier take batches apart that go through `multi_send`, and judge every call in them."""
    return Call(modifier, SET_UNWRAPPER.data(multi_send, MULTI_SEND.selector, unwrapper))


def set_allowance(modifier: str, allowance: Allowance) -> Call:
    amounts = (allowance.units, allowance.most, allowance.refill, allowance.period_s, allowance.start_s)
    return Call(modifier, _SET_ALLOWANCE.data(_key(allowance.key), *amounts))


# -- what the key sends ------------------------------------------------------------------------------------------------


def exec_data(calls: Sequence[Call], role: bytes, multi_send: str) -> bytes:
    """Call data of one call through the modifier, or of several by MultiSendCallOnly: all or nothing happens."""
    tx = wrap(calls, multi_send)
    return EXEC_WITH_ROLE.data(tx.to, tx.value, tx.data, tx.operation, _key(role), True)


def read_exec(data: bytes, role: bytes, multi_send: str) -> tuple[Call, ...]:
    """The calls inside. Raises SignerError for another role, a delegatecall, or a failure that would pass for a success."""
    to, value, inner, operation, key, reverts = EXEC_WITH_ROLE.read(data)
    if key != role:
        raise SignerError("policy: the call names another role than this key's")
    if not reverts:
        raise SignerError("policy: a call through a role must revert when it fails")
    return unwrap(SafeTx(to, value, inner, operation), multi_send)


def _key(raw: bytes) -> bytes:
    if len(raw) != WORD:
        raise SignerError(f"a role's or an allowance's key has {WORD} bytes, this has {len(raw)}")
    return raw
