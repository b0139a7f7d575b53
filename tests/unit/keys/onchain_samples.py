"""Sample router calls, permits and policies for the signer's tests. Addresses are made up."""

import os
from typing import Any

from eth_abi.abi import encode

from agent.domain.plan import Call, Calls, SignatureSlot, TypedData
from agent.keys.bounds import KeyPolicy
from agent.keys.policy import PERMIT_TYPES, swap_policy

KEY_HEX = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
OWNER = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
CHAIN = 31337
ROUTER = "0x" + "a1" * 20
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
USDC, WETH, OTHER, THIEF = ("0x" + pair * 20 for pair in ("b1", "b2", "cc", "dd"))
NATIVE = "0x" + "00" * 20
ME, THE_ROUTER = "0x" + "00" * 19 + "01", "0x" + "00" * 19 + "02"
DEADLINE_S = int(os.environ["ISTHMUS_TESTS_BEGAN_S"]) + 1_800  # what runs by the real clock signs nothing for longer than an hour
SELECTOR = bytes.fromhex("3593564c")


def policy(**changes: Any) -> KeyPolicy:
    made = swap_policy(CHAIN, OWNER, ROUTER, PERMIT2, frozenset({USDC, WETH, NATIVE}), 100 * 10**9, 1_000_000)
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return KeyPolicy(**{**fields, **changes})


def execute(commands: bytes, inputs: list[bytes], deadline_s: int = DEADLINE_S) -> bytes:
    return SELECTOR + encode(["bytes", "bytes[]", "uint256"], [commands, inputs, deadline_s])


def approve(spender: str = PERMIT2, amount: int = 10**18) -> bytes:
    return bytes.fromhex("095ea7b3") + encode(["address", "uint256"], [spender, amount])


def v3(recipient: str = OWNER, tokens: tuple[str, ...] = (USDC, WETH), given: int = 10**6, bound: int = 1) -> bytes:
    path = bytes.fromhex(tokens[0][2:]) + b"".join((500).to_bytes(3, "big") + bytes.fromhex(t[2:]) for t in tokens[1:])
    return encode(["address", "uint256", "uint256", "bytes", "bool"], [recipient, given, bound, path, True])


def v2(recipient: str = OWNER, tokens: tuple[str, ...] = (USDC, WETH), given: int = 10**6, bound: int = 1) -> bytes:
    return encode(["address", "uint256", "uint256", "address[]", "bool"], [recipient, given, bound, list(tokens), True])


def v4(actions: bytes, params: list[bytes]) -> bytes:
    return encode(["bytes", "bytes[]"], [actions, params])


def v4_single(tokens: tuple[str, str] = (USDC, WETH), hooks: str = NATIVE, bound: int = 1) -> bytes:
    kinds = ["((address,address,uint24,int24,address),bool,uint128,uint128,bytes)"]
    return encode(kinds, [((*tokens, 500, 10, hooks), True, 10**6, bound, b"")])


def v4_multi(first: str = USDC, hops: tuple[str, ...] = (NATIVE, WETH), hooks: str = NATIVE, bound: int = 1) -> bytes:
    kinds = ["(address,(address,uint24,int24,address,bytes)[],uint256[],uint128,uint128)"]
    return encode(kinds, [(first, [(hop, 500, 10, hooks, b"") for hop in hops], [], 10**6, bound)])


def settle(token: str = USDC) -> bytes:
    return encode(["address", "uint256"], [token, 10**6])


def take(token: str = WETH, least: int = 1) -> bytes:
    return encode(["address", "uint256"], [token, least])


def permit_input(signature: bytes = bytes(65), **changes: Any) -> bytes:
    p = permit_fields(**changes)
    details = (p["token"], p["amount"], p["expiration"], p["nonce"])
    kinds = ["((address,uint160,uint48,uint48),address,uint256)", "bytes"]
    return encode(kinds, [(details, p["spender"], p["sigDeadline"]), signature])


def permit_fields(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"token": USDC, "amount": 10**6, "expiration": DEADLINE_S, "nonce": 0}
    return {**made, "spender": ROUTER, "sigDeadline": DEADLINE_S, **changes}


def permit_typed(chain_id: int = CHAIN, permit2: str = PERMIT2, **changes: Any) -> TypedData:
    p = permit_fields(**changes)
    details = {name: p[name] for name in ("token", "amount", "expiration", "nonce")}
    message = {"details": details, "spender": p["spender"], "sigDeadline": p["sigDeadline"]}
    domain: dict[str, str | int] = {"name": "Permit2", "chainId": chain_id, "verifyingContract": permit2}
    return TypedData("p-1", domain, {n: list(f) for n, f in PERMIT_TYPES.items()}, "PermitSingle", message)


def calls(data: bytes, to: str = ROUTER, slots: tuple[SignatureSlot, ...] = (), **changes: Any) -> Calls:
    given = {"chain_id": CHAIN, "nonce": 7, "gas_limit": 400_000, "gas_fee_max": 30 * 10**9, "gas_tip": 10**9, **changes}
    value = given.pop("value", 0)
    return Calls(order_id="o-1", calls=(Call(to, data, value),), slots=slots, **given)


def permit_and_swap(**changes: Any) -> Calls:
    """What the uniswap venue builds: a permit whose signature is still to come, then a swap."""
    data = execute(bytes((0x0A, 0x00)), [permit_input(), v3()])
    marked = execute(bytes((0x0A, 0x00)), [permit_input(signature=b"\xee" * 65), v3()])
    offset = marked.index(b"\xee" * 65)
    return calls(data, slots=(SignatureSlot(0, offset, permit_typed(**changes)),))
