"""The bytes that a plan becomes, decoded again; and the plans and settings that are refused."""

from typing import Any

import msgspec
import pytest
from eth_abi.abi import decode
from pydantic import ValidationError

from agent.chains.transaction import Message, parse_raw
from agent.domain.amount import Amount, Asset
from agent.domain.errors import SignerError, VenueError
from agent.domain.instrument import Instrument, Pool
from agent.domain.plan import (
    AnchorHead,
    Approved,
    ApproveToken,
    Call,
    Calls,
    CancelOrder,
    CancelTransaction,
    SignedTransaction,
    SwapBatch,
    SwapLeg,
)
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.signer import wrapped
from agent.keys.local import LocalSigner
from agent.keys.policy import check_calls, swap_policy
from agent.venues.uniswap.build import build
from agent.venues.uniswap.config import MULTI_SEND, Config

WALLET = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ROUTER, PERMIT2 = "0x" + "a1" * 20, "0x000000000022D473030F116dDEE9F6B43aC78BA3"
WETH, USDT = "0x" + "11" * 20, "0x" + "22" * 20
ETH, DOLLAR, GWEI = 10**18, 10**6, 10**9
DEADLINE_S = 1_800_000_000
SECTION: dict[str, Any] = {
    "kind": "uniswap",
    "rpc_url": "http://127.0.0.1:8545/secret",
    "chain_id": 31337,
    "wallet": WALLET,
    "contracts": {
        "universal_router": ROUTER,
        "v2_factory": "0x" + "33" * 20,
        "v3_factory": "0x" + "44" * 20,
        "v4_state_view": "0x" + "55" * 20,
        "v4_pool_manager": "0x" + "66" * 20,
    },
    "tokens": [
        {"symbol": "WETH", "address": WETH, "decimals": 18, "group": "ETH"},
        {"symbol": "USDT", "address": USDT, "decimals": 6},
    ],
    "pools": [
        {"protocol": "v2", "base": "WETH", "quote": "USDT"},
        {"protocol": "v3", "base": "WETH", "quote": "USDT", "fee_pips": 500},
        {"protocol": "v4", "base": "WETH", "quote": "USDT", "fee_pips": 3000},
    ],
}
CONFIG = Config.model_validate(SECTION)
SAFE = Safe("0x" + "5a" * 20, MULTI_SEND)
OF_SAFE = Config.model_validate({**SECTION, "account": "safe", "safe": SAFE.address})
BASE, QUOTE = CONFIG.assets["WETH"], CONFIG.assets["USDT"]
POOLS = {
    "v2": Pool("v2", "0x" + "77" * 20, WETH, USDT),
    "v3": Pool("v3", "0x" + "88" * 20, WETH, USDT, 10),
    "v4": Pool("v4", "", WETH, USDT, 60, pool_id="0x" + "99" * 32),
}
FEES = {"v2": 3000, "v3": 500, "v4": 3000}
INSTRUMENTS = {f"u:{name}": Instrument("u", name, BASE, QUOTE, FEES[name], pool=pool) for name, pool in POOLS.items()}


def leg(name: str, *, exact: str = "sell", side: str = "sell") -> SwapLeg:
    sell, buy = (
        (Amount(ETH, BASE), Amount(2_500 * DOLLAR, QUOTE)) if side == "sell" else (Amount(2_800 * DOLLAR, QUOTE), Amount(ETH, BASE))
    )
    return SwapLeg(f"u:{name}", sell, buy, exact)  # type: ignore[arg-type]


def batch(*legs: SwapLeg, **changes: Any) -> SwapBatch:
    sell = Amount(sum(one.sell.units for one in legs), legs[0].sell.asset)
    buy = Amount(sum(one.buy.units for one in legs), legs[0].buy.asset)
    plan = SwapBatch("o", "i", "main", "u", 31337, "sell", legs, sell, buy, 3, DEADLINE_S, 500_000, 20 * GWEI, GWEI)
    return msgspec.structs.replace(plan, **changes)


def made(plan: SwapBatch | ApproveToken) -> Calls:
    return build(Approved(plan, 9), CONFIG, INSTRUMENTS)


def commands(calls: Calls) -> tuple[bytes, list[bytes], int]:
    assert calls.calls[0].data[:4].hex() == "3593564c"
    found, inputs, deadline_s = decode(["bytes", "bytes[]", "uint256"], calls.calls[0].data[4:])
    return found, list(inputs), deadline_s


def test_one_batch_is_one_call_with_the_permit_first() -> None:
    calls = made(batch(leg("v2"), leg("v3"), leg("v4")))
    found, inputs, deadline_s = commands(calls)
    assert (found.hex(), deadline_s) == ("0a080010", DEADLINE_S)
    assert [(call.to.lower(), call.value) for call in calls.calls] == [(ROUTER, 0)]
    assert (calls.nonce, calls.gas_limit, calls.gas_fee_max, calls.gas_tip) == (9, 500_000, 20 * GWEI, GWEI)
    permit, signature = decode(["((address,uint160,uint48,uint48),address,uint256)", "bytes"], inputs[0])
    assert permit == ((WETH, 3 * ETH, DEADLINE_S, 3), ROUTER, DEADLINE_S)
    assert signature == bytes(65)


def test_the_signatures_place_is_the_empty_one_in_the_permit() -> None:
    calls = made(batch(leg("v3")))
    (slot,) = calls.slots
    data = calls.calls[0].data
    filled = data[: slot.offset] + b"\x07" * 65 + data[slot.offset + 65 :]
    _, inputs, _ = commands(msgspec.structs.replace(calls, calls=(msgspec.structs.replace(calls.calls[0], data=filled),)))
    assert decode(["((address,uint160,uint48,uint48),address,uint256)", "bytes"], inputs[0])[1] == b"\x07" * 65
    assert slot.typed.domain == {"name": "Permit2", "chainId": 31337, "verifyingContract": PERMIT2}
    details = {"token": CONFIG.tokens[0].address, "amount": ETH, "expiration": DEADLINE_S, "nonce": 3}
    assert slot.typed.message == {"details": details, "spender": CONFIG.contracts.universal_router, "sigDeadline": DEADLINE_S}


@pytest.mark.parametrize(("exact", "command", "first", "bound"), [("sell", 0x08, "sell", "buy"), ("buy", 0x09, "buy", "sell")])
def test_v2(exact: str, command: int, first: str, bound: str) -> None:
    one = leg("v2", exact=exact)
    found, inputs, _ = commands(made(batch(one)))
    recipient, amount, limit, path, by_user = decode(["address", "uint256", "uint256", "address[]", "bool"], inputs[1])
    assert (found[1], recipient, tuple(path), by_user) == (command, WALLET.lower(), (WETH, USDT), True)
    assert (amount, limit) == (getattr(one, first).units, getattr(one, bound).units)


@pytest.mark.parametrize(("exact", "command"), [("sell", 0x00), ("buy", 0x01)])
def test_v3_writes_the_path_of_a_purchase_backwards(exact: str, command: int) -> None:
    one = leg("v3", exact=exact)
    found, inputs, _ = commands(made(batch(one)))
    recipient, amount, limit, path, by_user = decode(["address", "uint256", "uint256", "bytes", "bool"], inputs[1])
    ends = (WETH, USDT) if exact == "sell" else (USDT, WETH)
    assert (found[1], recipient, by_user) == (command, WALLET.lower(), True)
    assert path.hex() == f"{ends[0][2:]}0001f4{ends[1][2:]}"
    assert {amount, limit} == {one.sell.units, one.buy.units}


@pytest.mark.parametrize(("exact", "action"), [("sell", 0x06), ("buy", 0x08)])
@pytest.mark.parametrize("side", ["sell", "buy"])
def test_v4_settles_what_it_sells_and_takes_what_it_buys(exact: str, action: int, side: str) -> None:
    one = leg("v4", exact=exact, side=side)
    found, inputs, _ = commands(made(batch(one)))
    actions, parameters = decode(["bytes", "bytes[]"], inputs[1])
    assert (found[1], list(actions)) == (0x10, [action, 0x0C, 0x0F])
    ((key, zero_for_one, amount, limit, hook_data),) = decode(
        ["((address,address,uint24,int24,address),bool,uint128,uint128,bytes)"], parameters[0]
    )
    assert key == (WETH, USDT, 3000, 60, "0x" + "00" * 20)
    assert (zero_for_one, hook_data) == (side == "sell", b"")
    assert (amount, limit) == ((one.sell.units, one.buy.units) if exact == "sell" else (one.buy.units, one.sell.units))
    assert decode(["address", "uint256"], parameters[1]) == (one.sell.asset.address, one.sell.units)
    assert decode(["address", "uint256"], parameters[2]) == (one.buy.asset.address, one.buy.units)


@pytest.mark.parametrize("exact", ["sell", "buy"])
@pytest.mark.parametrize("side", ["sell", "buy"])
async def test_the_key_understands_and_signs_what_is_built(exact: str, side: str) -> None:
    signer = LocalSigner(bytearray.fromhex(KEY))
    tokens = frozenset({WETH, USDT})
    signer.allow(swap_policy(31337, WALLET, ROUTER, PERMIT2, tokens, 100 * GWEI, 1_000_000))
    signed = await signer.sign(made(batch(*(leg(name, exact=exact, side=side) for name in ("v2", "v3", "v4")))))
    assert isinstance(signed, SignedTransaction)
    with pytest.raises(SignerError):
        await signer.sign(made(batch(leg("v2"), permit_nonce=3, gas_fee_max=200 * GWEI)))
    signer.close()


@pytest.mark.parametrize("units", [0, 5 * DOLLAR])
def test_a_permission_is_exact_and_for_permit2(units: int) -> None:
    plan = ApproveToken("o", "i", "main", "u", 31337, Amount(units, QUOTE), PERMIT2, 80_000, GWEI, GWEI)
    calls = made(plan)
    assert calls.calls[0].to.lower() == USDT
    assert calls.calls[0].data.hex() == "095ea7b3" + PERMIT2[2:].lower().rjust(64, "0") + hex(units)[2:].rjust(64, "0")
    assert calls.slots == ()
    with pytest.raises(VenueError, match="only Permit2"):
        made(msgspec.structs.replace(plan, spender=ROUTER))
    with pytest.raises(VenueError, match="no amount of a token"):
        made(msgspec.structs.replace(plan, sell=Amount(1, Asset("X", "eip155:31337", 6, "X", ROUTER))))


def test_a_further_attempt_is_the_same_but_for_its_fees() -> None:
    plan = batch(leg("v2"), leg("v4"))
    dearer = msgspec.structs.replace(plan, gas_fee_max=30 * GWEI, gas_tip=2 * GWEI)
    first, second = made(plan), build(Approved(dearer, 9, 1), CONFIG, INSTRUMENTS)
    assert (second.calls, second.slots, second.nonce, second.gas_limit) == (first.calls, first.slots, 9, first.gas_limit)
    assert (second.gas_fee_max, second.gas_tip) == (30 * GWEI, 2 * GWEI)
    with pytest.raises(VenueError, match="more gas"):
        build(Approved(msgspec.structs.replace(plan, gas_fee_max=501 * GWEI), 9, 2), CONFIG, INSTRUMENTS)


async def test_a_transaction_is_taken_back_by_nothing_to_oneself() -> None:
    plan = CancelTransaction("o", "i", "main", "u", 31337, 22_000, 30 * GWEI, 2 * GWEI)
    calls = build(Approved(plan, 9, 1), CONFIG, INSTRUMENTS)
    assert calls.calls == (Call(WALLET, b"", 0),)
    assert (calls.nonce, calls.gas_limit, calls.gas_fee_max, calls.gas_tip, calls.slots) == (9, 22_000, 30 * GWEI, 2 * GWEI, ())
    signer = LocalSigner(bytearray.fromhex(KEY))
    signer.allow(swap_policy(31337, WALLET, ROUTER, PERMIT2, frozenset({WETH, USDT}), 100 * GWEI, 1_000_000))
    signed = await signer.sign(calls)
    signer.close()
    assert isinstance(signed, SignedTransaction)
    message = parse_raw(signed.raw)
    assert message == Message(9, 22_000, WALLET.lower(), 0, b"")
    assert message.is_nothing_for(WALLET)


def test_the_journals_head_goes_into_the_contract_of_the_config() -> None:
    config = Config.model_validate({**SECTION, "contracts": {**SECTION["contracts"], "audit_anchor": ROUTER}})
    contract = config.contracts.audit_anchor
    plan = AnchorHead("o", "i", "main", "u", 31337, contract, 77, "ab" * 32, 80_000, GWEI, GWEI)
    (call,) = build(Approved(plan, 3), config, INSTRUMENTS).calls
    assert (call.to, call.value, call.data[:4].hex()) == (contract, 0, "a6855208")
    assert decode(["uint64", "bytes32"], call.data[4:]) == (77, b"\xab" * 32)
    with pytest.raises(VenueError, match=r"not contracts.audit_anchor"):
        build(Approved(plan, 3), CONFIG, INSTRUMENTS)
    for changes in (
        {"contract": USDT},
        {"head": "ab"},
        {"head": "zz" * 32},
        {"head": " " + "ab" * 31 + "a"},
        {"seq": 0},
        {"seq": 2**64},
    ):
        with pytest.raises(VenueError, match="anchors"):
            build(Approved(msgspec.structs.replace(plan, **changes), 3), config, INSTRUMENTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chain_id": 1}, "is for chain 1"),
        ({"legs": ()}, "sells nothing"),
        ({"sell": Amount(ETH - 1, BASE)}, "more in its legs"),
        ({"gas_fee_max": 501 * GWEI}, "more gas"),
        ({"gas_limit": 4_000_000}, "more gas"),
        ({"sell": Amount(2**160, BASE)}, "more than Permit2 can count"),
        ({"legs": (SwapLeg("u:other", Amount(1, BASE), Amount(1, QUOTE), "sell"),)}, "does not list"),
        ({"legs": (SwapLeg("u:v2", Amount(1, BASE), Amount(0, QUOTE), "sell"),)}, "no bound"),
        ({"legs": (SwapLeg("u:v2", Amount(1, QUOTE), Amount(1, BASE), "sell"),)}, "other coins"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(VenueError, match=words):
        made(batch(leg("v2"), **changes))


def test_a_plan_without_a_nonce_and_a_cancel_are_refused() -> None:
    with pytest.raises(VenueError, match="with nonce None"):
        build(Approved(batch(leg("v2"))), CONFIG, INSTRUMENTS)
    with pytest.raises(VenueError, match="no orders that rest"):
        build(Approved(CancelOrder("o", "i", "main", "u", "u:v2", "x"), 1), CONFIG, INSTRUMENTS)


def test_the_settings_do_not_show_the_nodes_key() -> None:
    assert "secret" not in repr(CONFIG)
    named = {"rpc_url_second": "http://127.0.0.1:1/secret", "private_rpc_url": "http://127.0.0.1:2/secret"}
    assert "secret" not in repr(Config.model_validate({**SECTION, **named}))
    assert (CONFIG.poll_every_s, CONFIG.home, CONFIG.confirmations) == (0.25, "eip155:31337", 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"typo": 1}, "Extra inputs"),
        ({"wallet": "0x12"}, "is not an address"),
        ({"rpc_url": "127.0.0.1:8545"}, "rpc_url is not an address"),
        ({"tokens": [SECTION["tokens"][0], SECTION["tokens"][0]]}, "same symbol"),
        ({"pools": [{"protocol": "v2", "base": "WETH", "quote": "DAI"}]}, "names DAI"),
        ({"pools": [{"protocol": "v2", "base": "WETH", "quote": "USDT", "fee_pips": 500}]}, "always takes 3000"),
        ({"pools": [{"protocol": "v4", "base": "WETH", "quote": "USDT", "fee_pips": 7}]}, "needs a tick_spacing"),
        ({"pools": [{"protocol": "v4", "base": "WETH", "quote": "USDT", "hooks": "0x" + "00" * 19 + "80"}]}, "hooks that act"),
        ({"contracts": {"universal_router": ROUTER}}, "needs contracts.v2_factory"),
        ({"rpc_url_second": SECTION["rpc_url"]}, "must be another one"),
        ({"private_rpc_url": "relay"}, "rpc_url is not an address"),
        ({"account": "safe"}, "needs safe"),
        ({"safe": SAFE.address}, "has no meaning with"),
        ({"account": "safe", "safe": "0x12"}, "is not an address"),
        ({"account": "multisig"}, "'eoa', 'safe', 'role', 'erc4337' or 'eip7702'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Config.model_validate({**SECTION, **changes})


@pytest.mark.parametrize("exact", ["sell", "buy"])
@pytest.mark.parametrize("side", ["sell", "buy"])
@pytest.mark.parametrize("name", ["v2", "v3", "v4"])
def test_a_key_reads_from_the_bytes_what_the_leg_says(name: str, side: str, exact: str) -> None:
    """Two programs that know nothing of one another: what builds the calls, and what reads them before they are signed."""
    policy = swap_policy(31337, WALLET, ROUTER, PERMIT2, frozenset({WETH, USDT}), 50 * GWEI, 10**6)
    one = leg(name, exact=exact, side=side)
    permit, swap = check_calls(policy, made(batch(one, side=side))).acts
    assert (permit.kind, permit.given, permit.amount) == ("permit", one.sell.asset.address.lower(), one.sell.units)
    assert (swap.kind, swap.given, swap.amount) == ("swap", one.sell.asset.address.lower(), one.sell.units)
    assert (swap.received, swap.least) == (one.buy.asset.address.lower(), one.buy.units)


@pytest.mark.parametrize("exact", ["sell", "buy"])
@pytest.mark.parametrize("side", ["sell", "buy"])
@pytest.mark.parametrize("name", ["v2", "v3", "v4"])
def test_a_safe_is_told_to_permit_and_swap_at_once_and_is_paid_itself(name: str, side: str, exact: str) -> None:
    policy = swap_policy(31337, WALLET, ROUTER, PERMIT2, frozenset({WETH, USDT}), 50 * GWEI, 10**6, account=SAFE)
    one = leg(name, exact=exact, side=side)
    calls = build(Approved(batch(one, side=side), 9), OF_SAFE, INSTRUMENTS)
    assert calls.slots == ()
    none, approve, permit, swap = check_calls(policy, wrapped(calls, SAFE, WALLET), DEADLINE_S).acts
    assert [(act.kind, act.amount) for act in (none, approve, permit)] == [
        ("approve", 0),
        ("approve", one.sell.units),
        ("permit", one.sell.units),
    ]
    assert (swap.kind, swap.given, swap.amount) == ("swap", one.sell.asset.address.lower(), one.sell.units)
    assert (swap.received, swap.least) == (one.buy.asset.address.lower(), one.buy.units)
    of_wallet = swap_policy(31337, WALLET, ROUTER, PERMIT2, frozenset({WETH, USDT}), 50 * GWEI, 10**6)
    if name != "v4":  # v4 pays whoever calls the router
        with pytest.raises(SignerError, match="is not the owner"):
            check_calls(of_wallet, msgspec.structs.replace(calls, calls=calls.calls[-1:]))


def test_a_safe_takes_back_and_approves_as_a_wallet_does() -> None:
    plan = ApproveToken("o", "i", "main", "u", 31337, Amount(5, QUOTE), PERMIT2, 80_000, 20 * GWEI, GWEI)
    assert build(Approved(plan, 9), OF_SAFE, INSTRUMENTS).calls == made(plan).calls
    back = CancelTransaction("o", "i", "main", "u", 31337, 21_000, 20 * GWEI, GWEI)
    assert build(Approved(back, 9), OF_SAFE, INSTRUMENTS).calls == (Call(WALLET, b""),)
