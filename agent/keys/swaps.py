"""Swaps of the UniversalRouter, read from their bytes: who is paid, which tokens, how much at most, and at least how much for it.

Sources: UniversalRouter 2.1 (Commands, Dispatcher); v4-periphery (Actions, IV4Router).
"""

from collections.abc import Sequence
from typing import Any, Final

from agent.domain.errors import SignerError
from agent.keys.bounds import ANY_AMOUNT, Act, KeyPolicy, check_recipient, check_tokens, exact

V3_IN, V3_OUT, V2_IN, V2_OUT, V4 = 0x00, 0x01, 0x08, 0x09, 0x10  # the router's commands that swap
ACTIONS_MAX = 32

_SWAP_V3_ABI = ("address", "uint256", "uint256", "bytes", "bool")
_SWAP_V2_ABI = ("address", "uint256", "uint256", "address[]", "bool")
_HOP_PRICES = "uint256[]"  # UniversalRouter 2.1 takes them as an optional last field of a v2 or v3 swap
_POOL_KEY = "(address,address,uint24,int24,address)"
_PATH = "(address,uint24,int24,address,bytes)[]"
_V4_ABI: Final[dict[int, tuple[str, ...]]] = {
    0x06: (f"({_POOL_KEY},bool,uint128,uint128,bytes)",),  # SWAP_EXACT_IN_SINGLE
    0x07: (f"(address,{_PATH},uint256[],uint128,uint128)",),  # SWAP_EXACT_IN
    0x08: (f"({_POOL_KEY},bool,uint128,uint128,bytes)",),  # SWAP_EXACT_OUT_SINGLE
    0x09: (f"(address,{_PATH},uint256[],uint128,uint128)",),  # SWAP_EXACT_OUT
    0x0B: ("address", "uint256", "bool"),  # SETTLE
    0x0C: ("address", "uint256"),  # SETTLE_ALL
    0x0E: ("address", "address", "uint256"),  # TAKE
    0x0F: ("address", "uint256"),  # TAKE_ALL
}


def read_swap(policy: KeyPolicy, command: int, body: bytes) -> list[Act]:
    """What one swap command does; SignerError for whatever is not within the policy, or not understood."""
    return _v4(policy, body) if command == V4 else [_v2_or_v3(policy, command, body)]


def _v2_or_v3(policy: KeyPolicy, command: int, body: bytes) -> Act:
    """The owner is paid, every token of the path is known, and the bound is a real one."""
    is_v3, is_exact_in = command in (V3_IN, V3_OUT), command in (V3_IN, V2_IN)
    name = f"{'V3' if is_v3 else 'V2'}_SWAP_EXACT_{'IN' if is_exact_in else 'OUT'}"
    recipient, first, bound, path = _fields(_SWAP_V3_ABI if is_v3 else _SWAP_V2_ABI, body, name)
    tokens = _path_tokens(path) if is_v3 else path
    check_recipient(policy, recipient, name)
    check_tokens(policy, tokens, name)
    if (is_exact_in and bound == 0) or first == 0:
        raise SignerError(f"policy: {name} without an amount or a least amount is refused")
    if len(tokens) < 2:
        raise SignerError(f"policy: {name} has no path")
    if is_exact_in:
        return Act("swap", policy.router, tokens[0], first, tokens[-1], bound)
    given, received = (tokens[-1], tokens[0]) if is_v3 else (tokens[0], tokens[-1])  # a v3 path to an exact output runs backwards
    return Act("swap", policy.router, given, bound, received, first)


def _fields(kinds: tuple[str, ...], body: bytes, name: str) -> tuple[str, int, int, Any]:
    # The first word says where the path begins: after five fields, or after six when hop prices are given.
    with_prices = int.from_bytes(body[96:128], "big") == 6 * 32
    fields = exact((*kinds, _HOP_PRICES) if with_prices else kinds, body, name)
    return fields[0], fields[1], fields[2], fields[3]


def _path_tokens(path: bytes) -> list[str]:
    """A v3 path: token, then (3 bytes of fee, token) for each pool."""
    if len(path) < 43 or (len(path) - 20) % 23:
        raise SignerError(f"policy: a v3 path of {len(path)} bytes is not understood")
    return ["0x" + path[at : at + 20].hex() for at in range(0, len(path), 23)]


# -- v4 ----------------------------------------------------------------------------------------------------------------


def _v4(policy: KeyPolicy, body: bytes) -> list[Act]:
    actions, params = exact(("bytes", "bytes[]"), body, "V4_SWAP")
    if not actions or len(actions) > ACTIONS_MAX or len(actions) != len(params):
        raise SignerError(f"policy: V4_SWAP needs 1 to {ACTIONS_MAX} actions with one parameter block each")
    acts: list[Act] = []
    least = False  # a TAKE_ALL that asks for some
    for action, block in zip(actions, params, strict=True):
        if action not in _V4_ABI:
            raise SignerError(f"policy: v4 action 0x{action:02x} is not understood; only swap, settle and take are signed")
        fields = exact(_V4_ABI[action], block, f"v4 action 0x{action:02x}")
        if action in (0x06, 0x08):
            acts.append(_single(policy, fields[0], is_exact_in=action == 0x06))
        elif action in (0x07, 0x09):
            acts.append(_path(policy, fields[0], is_exact_in=action == 0x07))
        else:
            check_tokens(policy, (fields[0],), f"v4 action 0x{action:02x}")
            least |= action == 0x0F and fields[1] > 0
            if action == 0x0E:
                check_recipient(policy, fields[1], "v4 TAKE")
    if any(act.least == 0 for act in acts) and not least:
        raise SignerError("policy: a v4 swap without a least amount is refused")
    return acts


def _single(policy: KeyPolicy, fields: Any, *, is_exact_in: bool) -> Act:
    (currency0, currency1, _, _, hooks), zero_for_one, first, bound, _ = fields
    _check_pool(policy, (currency0, currency1), (hooks,))
    given, received = (currency0, currency1) if zero_for_one else (currency1, currency0)
    return _act(policy, given, received, first, bound, is_exact_in=is_exact_in)


def _path(policy: KeyPolicy, fields: Any, *, is_exact_in: bool) -> Act:
    """`path` names every currency but the one that `fields` begin with: that is given when the input is exact, else received."""
    currency, path, _, first, bound = fields
    _check_pool(policy, (currency, *(hop[0] for hop in path)), tuple(hop[3] for hop in path))
    if not path:
        raise SignerError("policy: a v4 swap has no path")
    given, received = (currency, path[-1][0]) if is_exact_in else (path[0][0], currency)
    return _act(policy, given, received, first, bound, is_exact_in=is_exact_in)


def _act(policy: KeyPolicy, given: str, received: str, first: int, bound: int, *, is_exact_in: bool) -> Act:
    if is_exact_in:  # an input of zero is the router's word for all that is owed to it: nobody knows how much
        return Act("swap", policy.router, given, first or ANY_AMOUNT, received, bound)
    return Act("swap", policy.router, given, bound, received, first or ANY_AMOUNT)


def _check_pool(policy: KeyPolicy, tokens: Sequence[str], hooks: Sequence[str]) -> None:
    check_tokens(policy, tokens, "v4 swap")
    for hook in hooks:
        if hook not in policy.hooks:
            raise SignerError(
                f"policy: the v4 hook {hook} is foreign code that this key does not know; add it to hooks to trade it"
            )
