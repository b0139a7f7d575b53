"""The UniversalRouter's language: one transaction that permits, swaps in several pools of three protocols, and pays the trader.

Sources: universal-router 2.1 (Commands, Dispatcher), v4-periphery (Actions, IV4Router.ExactInputSingleParams), Permit2
(IAllowanceTransfer.PermitSingle). Every amount has its bound: an exact input names the least output, an exact output the most
input.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
from eth_utils.address import is_address

from agent.chains.abi import WORD, selector
from agent.domain.errors import ChainError
from agent.domain.plan import TypedData

PERMIT2_PERMIT: Final = 0x0A
V3_EXACT_IN, V3_EXACT_OUT = 0x00, 0x01
V2_EXACT_IN, V2_EXACT_OUT = 0x08, 0x09
V4_SWAP: Final = 0x10
_V4_EXACT_IN_SINGLE, _V4_EXACT_OUT_SINGLE, _V4_SETTLE_ALL, _V4_TAKE_ALL = 0x06, 0x08, 0x0C, 0x0F
SIGNATURE_BYTES = 65
_PERMIT_TYPES: Final[dict[str, list[dict[str, str]]]] = {
    "PermitDetails": [
        {"name": "token", "type": "address"},
        {"name": "amount", "type": "uint160"},
        {"name": "expiration", "type": "uint48"},
        {"name": "nonce", "type": "uint48"},
    ],
    "PermitSingle": [
        {"name": "details", "type": "PermitDetails"},
        {"name": "spender", "type": "address"},
        {"name": "sigDeadline", "type": "uint256"},
    ],
}


class Swap(msgspec.Struct, frozen=True):
    """One command: bytes in the router's language."""

    command: int
    body: bytes


class Permit(msgspec.Struct, frozen=True):
    """Permit2's permission for the router: exactly `amount` of `token`, valid until `deadline_s` on the chain's clock."""

    chain_id: int
    permit2: str
    router: str
    token: str
    amount: int
    nonce: int
    deadline_s: int


def permit_typed(order_id: str, permit: Permit) -> TypedData:
    """What the wallet signs for a permit (EIP-712)."""
    details: dict[str, object] = {
        "token": permit.token,
        "amount": permit.amount,
        "expiration": permit.deadline_s,
        "nonce": permit.nonce,
    }
    message: dict[str, object] = {"details": details, "spender": permit.router, "sigDeadline": permit.deadline_s}
    domain: dict[str, str | int] = {"name": "Permit2", "chainId": permit.chain_id, "verifyingContract": permit.permit2}
    return TypedData(order_id, domain, _PERMIT_TYPES, "PermitSingle", message)


def execute(permit: Permit, swaps: tuple[Swap, ...]) -> tuple[bytes, int]:
    """Call data of `execute` with the permit first, and the offset in it of the permit's 65 empty signature bytes."""
    details = _address(permit.token) + _uint(permit.amount, 160) + _uint(permit.deadline_s, 48) + _uint(permit.nonce, 48)
    terms = details + _address(permit.router) + _uint(permit.deadline_s)
    opening = _packed(terms, _Tail(_bytes(bytes(SIGNATURE_BYTES))))
    commands = bytes([PERMIT2_PERMIT, *[swap.command for swap in swaps]])
    inputs = [opening, *[swap.body for swap in swaps]]
    data = _EXECUTE + _packed(_Tail(_bytes(commands)), _Tail(_array(inputs)), _uint(permit.deadline_s))
    return data, data.index(opening) + len(terms) + 2 * WORD  # behind where the signature begins, and how long it is


def execute_permitted(deadline_s: int, swaps: tuple[Swap, ...]) -> bytes:
    """Call data of `execute` for a sender whom Permit2 has been told about."""
    commands = _bytes(bytes([swap.command for swap in swaps]))
    return _EXECUTE + _packed(_Tail(commands), _Tail(_array([swap.body for swap in swaps])), _uint(deadline_s))


def execute_within(swap: Swap) -> bytes:
    """As `execute_permitted`, of one swap, without a deadline of its own: it ends with the permission that Permit2 was told."""
    commands = _bytes(bytes((swap.command,)))
    return _EXECUTE_WITHIN + _packed(_Tail(commands), _Tail(_array([swap.body])))


def v2_swap(recipient: str, path: tuple[str, str], amount: int, bound: int, *, exact_in: bool) -> Swap:
    """`amount` is exact; `bound` is the least output, or the most input. The payer is the sender, through Permit2."""
    coins = _uint(len(path)) + b"".join([_address(one) for one in path])
    body = _packed(_address(recipient), _uint(amount), _uint(bound), _Tail(coins), _TRUE)
    return Swap(V2_EXACT_IN if exact_in else V2_EXACT_OUT, body)


def v3_swap(recipient: str, path: tuple[str, str], fee_pips: int, amount: int, bound: int, *, exact_in: bool) -> Swap:
    """As `v2_swap`. An exact output's path is written backwards."""
    first, last = path if exact_in else reversed(path)
    way = _address(first)[12:] + _uint(fee_pips, 24)[29:] + _address(last)[12:]
    body = _packed(_address(recipient), _uint(amount), _uint(bound), _Tail(_bytes(way)), _TRUE)
    return Swap(V3_EXACT_IN if exact_in else V3_EXACT_OUT, body)


def v4_swap(key: tuple[str, str, int, int, str], path: tuple[str, str], amount: int, bound: int, *, exact_in: bool) -> Swap:
    """As `v2_swap`; `key` is (token0, token1, fee_pips, tick_spacing, hooks). What is received goes to the sender."""
    zero_for_one = path[0].lower() == key[0].lower()
    most, least = (amount, bound) if exact_in else (bound, amount)
    pool = _address(key[0]) + _address(key[1]) + _uint(key[2], 24) + _uint(key[3], 23) + _address(key[4])
    single = _uint(WORD) + _packed(pool, _uint(zero_for_one), _uint(amount, 128), _uint(bound, 128), _Tail(_bytes(b"")))
    settle, take = _address(path[0]) + _uint(most), _address(path[1]) + _uint(least)
    actions = bytes([_V4_EXACT_IN_SINGLE if exact_in else _V4_EXACT_OUT_SINGLE, _V4_SETTLE_ALL, _V4_TAKE_ALL])
    return Swap(V4_SWAP, _packed(_Tail(_bytes(actions)), _Tail(_array([single, settle, take]))))


# -- the contract ABI ----------------------------------------------------------------------------------------------------
#
# For the few shapes above: a library takes many times as long, most of it to look at the same addresses again.


class _Tail(bytes):
    """What stands behind the head, which only says where."""


def _packed(*parts: bytes) -> bytes:
    """Parts in their places of the head, tails behind it in their order."""
    at = sum([WORD if type(part) is _Tail else len(part) for part in parts])
    head: list[bytes] = []
    tails: list[bytes] = []
    for part in parts:
        if type(part) is _Tail:
            head.append(at.to_bytes(WORD, "big"))
            tails.append(part)
            at += len(part)
        else:
            head.append(part)
    return b"".join(head + tails)


def _array(items: Sequence[bytes]) -> bytes:
    """`bytes[]`."""
    return _uint(len(items)) + _packed(*[_Tail(_bytes(item)) for item in items])


def _bytes(raw: bytes) -> bytes:
    return len(raw).to_bytes(WORD, "big") + raw + bytes(-len(raw) % WORD)


def _uint(value: int, bits: int = 256) -> bytes:
    if not 0 <= value < 1 << bits:
        raise ChainError(f"{value} does not fit {bits} bits; nothing can be built from it")
    return value.to_bytes(WORD, "big")


@lru_cache(1_024)
def _address(text: str) -> bytes:
    """A word. The few addresses of a venue come again and again."""
    if not is_address(text):
        raise ChainError(f"{text[:48]!r} is not an address; nothing can be built from it")
    return bytes(12) + bytes.fromhex(text[2:])


_EXECUTE: Final = selector("execute(bytes,bytes[],uint256)")
_EXECUTE_WITHIN: Final = selector("execute(bytes,bytes[])")
_TRUE: Final = _uint(1)
