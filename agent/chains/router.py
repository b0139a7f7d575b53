"""The UniversalRouter's language: one transaction that permits, swaps in several pools of three protocols, and pays the trader.

Sources: universal-router 2.1 (Commands, Dispatcher), v4-periphery (Actions, IV4Router.ExactInputSingleParams), Permit2
(IAllowanceTransfer.PermitSingle). Every amount has its bound: an exact input names the least output, an exact output the most
input.
"""

from typing import Final

import msgspec
from eth_abi.abi import encode

from agent.chains.abi import call_data
from agent.domain.plan import TypedData

PERMIT2_PERMIT: Final = 0x0A
V3_EXACT_IN, V3_EXACT_OUT = 0x00, 0x01
V2_EXACT_IN, V2_EXACT_OUT = 0x08, 0x09
V4_SWAP: Final = 0x10
_V4_EXACT_IN_SINGLE, _V4_EXACT_OUT_SINGLE, _V4_SETTLE_ALL, _V4_TAKE_ALL = 0x06, 0x08, 0x0C, 0x0F
_V4_SINGLE: Final = "((address,address,uint24,int24,address),bool,uint128,uint128,bytes)"
_PERMIT_ABI: Final = ("((address,uint160,uint48,uint48),address,uint256)", "bytes")
SIGNATURE_BYTES = 65
_MARK = b"\xa5\x5a" * 32 + b"\xa5"  # stands where the signature will be, while its place is looked up
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
    details = (permit.token, permit.amount, permit.deadline_s, permit.nonce)
    opening = encode(_PERMIT_ABI, ((details, permit.router, permit.deadline_s), _MARK))
    commands = bytes([PERMIT2_PERMIT, *(swap.command for swap in swaps)])
    inputs = [opening, *(swap.body for swap in swaps)]
    data = call_data("execute(bytes,bytes[],uint256)", commands, inputs, permit.deadline_s)
    offset = data.index(_MARK)
    return data[:offset] + bytes(SIGNATURE_BYTES) + data[offset + SIGNATURE_BYTES :], offset


def v2_swap(recipient: str, path: tuple[str, str], amount: int, bound: int, *, exact_in: bool) -> Swap:
    """`amount` is exact; `bound` is the least output, or the most input. The payer is the sender, through Permit2."""
    body = encode(["address", "uint256", "uint256", "address[]", "bool"], [recipient, amount, bound, list(path), True])
    return Swap(V2_EXACT_IN if exact_in else V2_EXACT_OUT, body)


def v3_swap(recipient: str, path: tuple[str, str], fee_pips: int, amount: int, bound: int, *, exact_in: bool) -> Swap:
    """As `v2_swap`. An exact output's path is written backwards."""
    first, last = path if exact_in else reversed(path)
    packed = bytes.fromhex(first[2:]) + fee_pips.to_bytes(3, "big") + bytes.fromhex(last[2:])
    body = encode(["address", "uint256", "uint256", "bytes", "bool"], [recipient, amount, bound, packed, True])
    return Swap(V3_EXACT_IN if exact_in else V3_EXACT_OUT, body)


def v4_swap(key: tuple[str, str, int, int, str], path: tuple[str, str], amount: int, bound: int, *, exact_in: bool) -> Swap:
    """As `v2_swap`; `key` is (token0, token1, fee_pips, tick_spacing, hooks). What is received goes to the sender."""
    zero_for_one = path[0].lower() == key[0].lower()
    most, least = (amount, bound) if exact_in else (bound, amount)
    single = encode([_V4_SINGLE], [(key, zero_for_one, amount, bound, b"")])
    settle = encode(["address", "uint256"], [path[0], most])
    take = encode(["address", "uint256"], [path[1], least])
    actions = bytes([_V4_EXACT_IN_SINGLE if exact_in else _V4_EXACT_OUT_SINGLE, _V4_SETTLE_ALL, _V4_TAKE_ALL])
    return Swap(V4_SWAP, encode(["bytes", "bytes[]"], [actions, [single, settle, take]]))
