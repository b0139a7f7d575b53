"""The key's policy as permissions of a role: what a contract enforces, also against who has stolen the key.

The same rules decide. Which of them matches depends on what is done and on the tokens alone, never on the amount, so for each way
to trade there is one rule that decides about it, and what it allows becomes a condition on the call's parameters. Where the two
differ the contract is narrower, never wider, but for two things that no contract of this kind knows: a window that moves with time,
and how far ahead a deadline may lie. `REMARKS` says so in words. Sources: as `roles`, and as `agent.keys.swaps`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from eth_abi.abi import encode

from agent.domain.errors import SignerError
from agent.keys.accounts import roles
from agent.keys.accounts.kinds import Role
from agent.keys.accounts.roles import ANYTHING, Allowance, Condition
from agent.keys.bounds import FOREVER_S, Act, KeyPolicy, Kind, Rule
from agent.keys.digest import address_bytes, keccak
from agent.keys.policy import APPROVAL_BELOW, APPROVE, EXECUTE, EXECUTE_PERMITTED, PERMIT_AMOUNT_MAX, STANDING
from agent.keys.rules import deciding
from agent.keys.swaps import V2_IN, V2_OUT, V3_IN, V3_OUT, V4

REMARKS: Final = (
    "the contract knows the pools of the settings alone, each swap straight through one of them, and only the Safe as who is paid",
    "a swap's data stand in the one layout that this program writes, with nothing for hooks",
    "a window is a fixed period in the contract: around its turn up to twice as much may pass, which the key itself counts",
    "how far ahead a deadline lies, and what gas costs, is bounded by the key's policy alone; gas is the key's own money",
)
_SETTLE_ALL, _TAKE_ALL = 0x0C, 0x0F
_V4_ACTIONS: Final = {True: bytes((0x06, _SETTLE_ALL, _TAKE_ALL)), False: bytes((0x08, _SETTLE_ALL, _TAKE_ALL))}
_COMMANDS: Final = {
    ("v2", True): V2_IN, ("v2", False): V2_OUT, ("v3", True): V3_IN, ("v3", False): V3_OUT, ("v4", True): V4, ("v4", False): V4,
}  # fmt: skip
_V4_SINGLE: Final = "((address,address,uint24,int24,address),bool,uint128,uint128,bytes)"


class TradedPool(msgspec.Struct, frozen=True):
    """A pool of the settings; `token0` sorts before `token1`."""

    protocol: str
    token0: str
    token1: str
    fee_pips: int
    hooks: str


class Scope(msgspec.Struct, frozen=True):
    """One function of one contract, and what must hold of a call to it."""

    target: str
    selector: bytes
    condition: Condition


class Permissions(msgspec.Struct, frozen=True):
    """Everything that a role may do."""

    scopes: tuple[Scope, ...]
    allowances: tuple[Allowance, ...]


def permissions_of(policy: KeyPolicy, pools: Sequence[TradedPool]) -> Permissions:
    """What the policy allows its account, in the contract's words. Raises SignerError for what they cannot say."""
    if not isinstance(policy.account, Role):
        raise SignerError("the key acts for no role; its policy cannot become one")
    approvals, permits = [], []
    for token in sorted(policy.tokens):
        if (rule := _allowed(policy, "approve", token, token)) is not None:
            bound = _below(rule.amount_max, APPROVAL_BELOW)
            allows = roles.arguments(roles.equal_address(policy.permit2), bound)
            approvals.append(Scope(token, bytes.fromhex(APPROVE[2:]), allows))
        if (rule := _allowed(policy, "permit", policy.permit2, token)) is not None:
            amount, router = _below(rule.amount_max, PERMIT_AMOUNT_MAX + 1), roles.equal_address(policy.router)
            permits.append(roles.arguments(roles.equal_address(token), router, amount, roles.at_most(FOREVER_S)))
    ways = [way for pool in pools for way in _ways(policy, pool)]
    swaps: dict[str, list[Condition]] = {}
    for group in _grouped(ways):
        swaps.setdefault(EXECUTE_PERMITTED if group[0].pool.protocol == "v4" else EXECUTE, []).append(_execute(group))
    scopes = tuple(approvals)
    scopes += (Scope(policy.permit2, bytes.fromhex(STANDING[2:]), _any_of(permits)),) if permits else ()
    scopes += tuple(Scope(policy.router, bytes.fromhex(name[2:]), _any_of(found)) for name, found in sorted(swaps.items()))
    windows = {_allowance_key(way.rule, way.given): way for way in ways if way.rule.window_max is not None}
    return Permissions(scopes, tuple(_allowance(key, way.rule) for key, way in sorted(windows.items())))


# -- ways to trade -------------------------------------------------------------------------------------------------------


class _Way(msgspec.Struct, frozen=True):
    """Through one pool in one direction, by the rule that allows it."""

    pool: TradedPool
    given: str
    received: str
    exact_in: bool
    rule: Rule


_FREE: Final = Rule("", "allow")  # no rule at all: whatever the hard rules pass


def _allowed(policy: KeyPolicy, kind: Kind, contract: str, given: str, received: str = "") -> Rule | None:
    """The rule that allows it; None where none does, or one forbids."""
    if not policy.rules:
        return _FREE
    rule = deciding(policy.rules, Act(kind, contract.lower(), given.lower(), received=received.lower()))
    return rule if rule is not None and rule.effect == "allow" else None


def _ways(policy: KeyPolicy, pool: TradedPool) -> Iterator[_Way]:
    for given, received in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
        rule = _allowed(policy, "swap", policy.router, given, received)
        if rule is not None and pool.hooks.lower() in policy.hooks:
            yield from (_Way(pool, given, received, exact_in, rule) for exact_in in (True, False))


def _grouped(ways: Sequence[_Way]) -> list[list[_Way]]:
    """Those that one condition covers: of a protocol, with the tokens in one order, and the same bounds on the same amounts."""
    found: dict[tuple[object, ...], list[_Way]] = {}
    for way in ways:
        found.setdefault((way.pool.protocol, _path(way), way.pool.hooks, _amounts(way)), []).append(way)
    return list(found.values())


def _path(way: _Way) -> tuple[str, str]:
    """The tokens as the command writes them: a v3 path to an exact output runs backwards."""
    is_backwards = way.pool.protocol == "v3" and not way.exact_in
    return (way.received, way.given) if is_backwards else (way.given, way.received)


# -- conditions ----------------------------------------------------------------------------------------------------------
#
# All conditions on one function must read its arguments as the same types. So a command's input is read as so many words, in the
# one layout that the canonical encoding has: eight for v2 and v3 alike; for v4 twenty-six, behind the function without a deadline.
# The contract reads all conditions of a function for every call, 4,000 gas for each: the fewer, the better.

_FEE, _SPACING, _AMOUNT, _BOUND, _MOST, _LEAST = 0xFEE001, 0x5AC001, 2**120 + 1, 2**120 + 2, 2**120 + 3, 2**120 + 4  # stand-ins


def _execute(ways: Sequence[_Way]) -> Condition:
    """`execute` with one command and its one input."""
    commands = dict.fromkeys(_COMMANDS[way.pool.protocol, way.exact_in] for way in ways)
    words = _v4(ways) if ways[0].pool.protocol == "v4" else _v2_or_v3(ways)
    is_command = _any_of([roles.equal_bytes(bytes((one,))) for one in commands])
    deadline = [] if V4 in commands else [roles.at_most(FOREVER_S)]
    return roles.arguments(is_command, roles.items(roles.encoded(*words)), *deadline)


def _v2_or_v3(ways: Sequence[_Way]) -> list[Condition]:
    """Who is paid, how much, where the path begins, that the Safe pays by Permit2, and the path.

    Of v2 that is two addresses, of v3 43 bytes: a token, three bytes of fee, a token.
    """
    head = [roles.AVATAR, *_amounts(ways[0]), _number(5 * 32), _number(1)]
    first, last = _path(ways[0])
    if ways[0].pool.protocol == "v2":
        return [*head, _number(2), roles.equal_address(first), roles.equal_address(last)]
    fees = sorted({way.pool.fee_pips for way in ways})
    paths = [address_bytes(first) + fee.to_bytes(3, "big") + address_bytes(last) for fee in fees]
    begins = _any_of([roles.equal(path[:32]) for path in paths])
    return [*head, _number(len(paths[0])), begins, roles.equal(paths[0][32:].ljust(32, b"\0"))]


def _v4(ways: Sequence[_Way]) -> list[Condition]:
    """One swap in one pool, then what is owed is paid and what is gained is taken, by the Safe that called. No data for hooks."""
    way = ways[0]
    actions = {one.exact_in: _V4_ACTIONS[one.exact_in].ljust(32, b"\0") for one in ways}
    key = (way.pool.token0, way.pool.token1, _FEE, _SPACING, way.pool.hooks)
    single = encode([_V4_SINGLE], [(key, way.given == way.pool.token0, _AMOUNT, _BOUND, b"")])
    settle, take = (encode(["address", "uint256"], pair) for pair in ((way.given, _MOST), (way.received, _LEAST)))
    raw = encode(["bytes", "bytes[]"], [_V4_ACTIONS[way.exact_in], [single, settle, take]])
    amount, bound = _amounts(way)
    fee, spacing = roles.at_most(2**24 - 1), roles.at_most(2**15 - 1)  # uint24; more apart than that v4 allows no ticks
    open_words = {_FEE: fee, _SPACING: spacing, _AMOUNT: amount, _BOUND: bound, _MOST: ANYTHING, _LEAST: ANYTHING}
    open_words[int.from_bytes(actions[way.exact_in], "big")] = _any_of([roles.equal(one) for one in actions.values()])
    words = (raw[at : at + 32] for at in range(0, len(raw), 32))
    return [open_words.get(int.from_bytes(word, "big"), roles.equal(word)) for word in words]


def _amounts(way: _Way) -> tuple[Condition, Condition]:
    """(the exact amount, its bound), neither of them nothing but a bound on what leaves, which may be. What may leave counts."""
    bounds = [roles.at_most(way.rule.amount_max)] if way.rule.amount_max is not None else []
    bounds += [roles.within(_allowance_key(way.rule, way.given))] if way.rule.window_max is not None else []
    if way.exact_in:
        return roles.all_of([roles.SOME, *bounds]), roles.SOME
    return roles.SOME, roles.all_of(bounds) if bounds else roles.SOME


def _number(value: int) -> Condition:
    return roles.equal(value.to_bytes(32, "big"))


def _below(amount_max: int | None, bound: int) -> Condition:
    return roles.at_most(bound - 1 if amount_max is None else min(amount_max, bound - 1))


def _any_of(conditions: Sequence[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else roles.any_of(conditions)


def _allowance_key(rule: Rule, token: str) -> bytes:
    """Windows are counted by rule and token, there as here."""
    return keccak(f"{rule.name}:{token.lower()}".encode())


def _allowance(key: bytes, rule: Rule) -> Allowance:
    most = rule.window_max or 0
    return Allowance(key, most, most, most, rule.window_s)
