"""What the on-chain signer accepts, and every refusal by its reason."""

import onchain_samples as o
import pytest
from eth_abi.abi import encode

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, TypedData
from agent.keys.bounds import Act, KeyPolicy
from agent.keys.policy import ANCHOR, Permit, check_calls, check_typed, swap_policy

FULL = o.v4(bytes((0x06, 0x0C, 0x0F)), [o.v4_single(), o.settle(), o.take()])
MULTI = o.v4(bytes((0x07, 0x0C, 0x0F)), [o.v4_multi(), o.settle(), o.take()])


def v4_of(action: int, block: bytes) -> bytes:
    return o.execute(b"\x10", [o.v4(bytes((action,)), [block])])


def six(recipient: str = o.OWNER) -> bytes:
    """A v3 swap with the optional hop prices of UniversalRouter 2.1."""
    path = bytes.fromhex(o.USDC[2:]) + b"\0\x01\xf4" + bytes.fromhex(o.WETH[2:])
    kinds = ["address", "uint256", "uint256", "bytes", "bool", "uint256[]"]
    return encode(kinds, [recipient, 5, 1, path, True, [7]])


def acts(unsigned: Calls, policy: KeyPolicy | None = None) -> list[Act]:
    return list(check_calls(policy or o.policy(), unsigned).acts)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(o.execute(b"\x00", [o.v3()]), id="v3 in"),
        pytest.param(o.execute(b"\x00", [o.v3(o.ME)]), id="router word for the sender"),
        pytest.param(o.execute(b"\x00", [o.v3(tokens=(o.USDC, o.WETH, o.USDC))]), id="two hops"),
        pytest.param(o.execute(b"\x00", [six()]), id="hop prices"),
        pytest.param(o.execute(b"\x01", [o.v3(bound=10**30)]), id="v3 out"),
        pytest.param(o.execute(b"\x08", [o.v2()]), id="v2 in"),
        pytest.param(o.execute(b"\x09", [o.v2()]), id="v2 out"),
        pytest.param(o.execute(b"\x10", [FULL]), id="v4 single"),
        pytest.param(o.execute(b"\x10", [MULTI]), id="v4 multi"),
        pytest.param(v4_of(0x08, o.v4_single()), id="v4 out single"),
        pytest.param(v4_of(0x09, o.v4_multi(bound=9)), id="v4 out multi"),
        pytest.param(v4_of(0x0B, encode(["address", "uint256", "bool"], [o.USDC, 1, True])), id="v4 settle"),
        pytest.param(v4_of(0x0E, encode(["address", "address", "uint256"], [o.WETH, o.OWNER, 0])), id="v4 take to owner"),
        pytest.param(o.execute(b"\x10", [o.v4(b"\x06\x0f", [o.v4_single(bound=0), o.take()])]), id="v4 bound by take"),
        pytest.param(o.execute(b"\x0a\x00\x08\x10", [o.permit_input(), o.v3(), o.v2(), FULL]), id="permit and three pools"),
    ],
)
def test_swaps_that_pay_the_owner_pass(data: bytes) -> None:
    check_calls(o.policy(), o.calls(data))
    check_calls(o.policy(), o.calls(data), deadline_s_max=o.DEADLINE_S)


def test_an_exact_approval_to_permit2_passes() -> None:
    assert acts(o.calls(o.approve(), to=o.USDC)) == [Act("approve", o.USDC.lower(), o.USDC.lower(), 10**18)]
    assert acts(o.calls(o.approve(amount=0), to=o.USDC))[0].amount == 0
    assert acts(o.calls(o.approve(amount=2**255 - 1), to=o.USDC))[0].amount == 2**255 - 1


def test_nothing_may_be_sent_to_oneself() -> None:
    """How a transaction that waits is taken back: the same number, no value, no data."""
    assert acts(o.calls(b"", to=o.OWNER)) == [Act("take_back", o.OWNER.lower())]
    assert acts(o.calls(b"", to=o.OWNER.lower()), o.policy(contracts={}, tokens=frozenset()))


@pytest.mark.parametrize(
    ("reason", "asked"),
    [
        ("only nothing is sent", o.calls(b"", to=o.OWNER, value=1)),
        ("only nothing is sent", o.calls(b"\x01", to=o.OWNER)),
        ("not on this key's list", o.calls(b"", to=o.THIEF)),
        ("is not allowed on", o.calls(b"", to=o.ROUTER)),
        ("gas fee", o.calls(b"", to=o.OWNER, gas_fee_max=101 * 10**9)),
        ("gas limit", o.calls(b"", to=o.OWNER, gas_limit=2_000_000)),
    ],
)
def test_a_cancel_is_that_and_no_more_and_the_caps_hold_for_it(reason: str, asked: Calls) -> None:
    with pytest.raises(SignerError, match=reason):
        check_calls(o.policy(), asked)


def anchor(seq: int = 5, tail: bytes = b"") -> bytes:
    return bytes.fromhex("a6855208") + encode(["uint64", "bytes32"], [seq, b"\x07" * 32]) + tail


ANCHORED = swap_policy(o.CHAIN, o.OWNER, o.ROUTER, o.PERMIT2, frozenset({o.USDC}), 100 * 10**9, 1_000_000, o.OTHER)


def test_the_journals_head_goes_to_exactly_one_contract() -> None:
    assert acts(o.calls(anchor(), to=o.OTHER), ANCHORED) == [Act("anchor", o.OTHER.lower())]


@pytest.mark.parametrize(
    ("reason", "asked"),
    [
        ("not on this key's list", o.calls(anchor(), to=o.THIEF)),
        ("selector 0xa6855208 is not allowed", o.calls(anchor(), to=o.USDC)),
        ("selector 0x095ea7b3 is not allowed", o.calls(o.approve(), to=o.OTHER)),
        ("anchor is not in canonical", o.calls(anchor(tail=bytes(32)), to=o.OTHER)),
        ("anchor does not decode", o.calls(anchor()[:40], to=o.OTHER)),
        ("value 1 wei is above 0", o.calls(anchor(), to=o.OTHER, value=1)),
    ],
)
def test_an_anchor_that_is_something_else_is_refused(reason: str, asked: Calls) -> None:
    with pytest.raises(SignerError, match=reason):
        check_calls(ANCHORED, asked)


def test_a_list_that_is_too_generous_does_not_open_the_anchor_elsewhere() -> None:
    generous = o.policy(contracts={o.OTHER: frozenset({ANCHOR})}, value_max=1)
    with pytest.raises(SignerError, match="is not the contract that keeps the journal's heads"):
        check_calls(generous, o.calls(anchor(), to=o.OTHER))
    with pytest.raises(SignerError, match="an anchor carries no value"):
        check_calls(
            o.policy(contracts={o.OTHER: frozenset({ANCHOR})}, value_max=1, anchor=o.OTHER), o.calls(anchor(), to=o.OTHER, value=1)
        )


def test_the_place_of_a_signature_is_found() -> None:
    mark = b"\xee" * 65
    for commands, inputs in ((b"\x0a\x00", [o.permit_input(mark), o.v3()]), (b"\x10\x0a", [FULL, o.permit_input(mark)])):
        data = o.execute(commands, inputs)
        (found,) = check_calls(o.policy(), o.calls(data)).permits
        assert data[found.signature_at : found.signature_at + 65] == mark
        assert found.permit == Permit(o.USDC, 10**6, o.DEADLINE_S, 0, o.ROUTER, o.DEADLINE_S)


REFUSED = [
    ("command 0x05 is not understood", o.execute(b"\x05", [b""])),  # TRANSFER
    ("command 0x04 is not understood", o.execute(b"\x04", [b""])),  # SWEEP
    ("command 0x02 is not understood", o.execute(b"\x02", [b""])),  # PERMIT2_TRANSFER_FROM
    ("command 0x0b is not understood", o.execute(b"\x0b", [b""])),  # WRAP_ETH
    ("command 0x21 is not understood", o.execute(b"\x21", [b""])),  # EXECUTE_SUB_PLAN
    ("command 0x80 is not understood", o.execute(b"\x80", [o.v3()])),  # a v3 swap that may fail alone
    ("command 0x40 is not understood", o.execute(b"\x40", [o.v3()])),
    ("V3_SWAP_EXACT_IN pays", o.execute(b"\x00", [o.v3(o.THIEF)])),
    ("V3_SWAP_EXACT_IN pays", o.execute(b"\x00", [six(o.THIEF)])),
    ("V3_SWAP_EXACT_IN pays", o.execute(b"\x00", [o.v3(o.THE_ROUTER)])),
    ("V3_SWAP_EXACT_OUT pays", o.execute(b"\x01", [o.v3(o.THIEF)])),
    ("V2_SWAP_EXACT_IN pays", o.execute(b"\x08", [o.v2(o.THIEF)])),
    ("V2_SWAP_EXACT_OUT pays", o.execute(b"\x09", [o.v2(o.THIEF)])),
    ("V3_SWAP_EXACT_IN pays", o.execute(b"\x00\x00", [o.v3(), o.v3(o.THIEF)])),
    ("token 0xcc", o.execute(b"\x00", [o.v3(tokens=(o.USDC, o.OTHER))])),
    ("token 0xcc", o.execute(b"\x00", [o.v3(tokens=(o.USDC, o.OTHER, o.WETH))])),
    ("token 0xcc", o.execute(b"\x08", [o.v2(tokens=(o.OTHER, o.WETH))])),
    ("without an amount or a least amount", o.execute(b"\x00", [o.v3(bound=0)])),
    ("without an amount or a least amount", o.execute(b"\x08", [o.v2(bound=0)])),
    ("without an amount or a least amount", o.execute(b"\x09", [o.v2(given=0)])),
    ("V3_SWAP_EXACT_IN does not decode", o.execute(b"\x00", [b""])),
    ("V2_SWAP_EXACT_IN is not in canonical", o.execute(b"\x08", [o.v2() + bytes(32)])),
    ("v3 path of 20 bytes", o.execute(b"\x00", [o.v3(tokens=(o.USDC,))])),
    ("v4 action 0x10 is not understood", v4_of(0x10, b"")),  # TAKE_PORTION
    ("v4 action 0x14 is not understood", v4_of(0x14, b"")),  # SWEEP
    ("v4 action 0x00 is not understood", v4_of(0x00, b"")),  # INCREASE_LIQUIDITY
    ("v4 TAKE pays", v4_of(0x0E, encode(["address", "address", "uint256"], [o.WETH, o.THIEF, 0]))),
    ("token 0xcc", v4_of(0x06, o.v4_single(tokens=(o.USDC, o.OTHER)))),
    ("token 0xcc", v4_of(0x07, o.v4_multi(hops=(o.OTHER,)))),
    ("token 0xcc", v4_of(0x07, o.v4_multi(first=o.OTHER))),
    ("token 0xcc", v4_of(0x0F, o.take(o.OTHER))),
    ("the v4 hook 0xdd", v4_of(0x06, o.v4_single(hooks=o.THIEF))),
    ("the v4 hook 0xdd", v4_of(0x09, o.v4_multi(hooks=o.THIEF))),
    ("v4 swap without a least amount", v4_of(0x06, o.v4_single(bound=0))),
    ("v4 swap without a least amount", v4_of(0x07, o.v4_multi(bound=0))),
    ("1 to 32 actions", o.execute(b"\x10", [o.v4(b"", [])])),
    ("1 to 32 actions", o.execute(b"\x10", [o.v4(b"\x0c\x0f", [o.settle()])])),
    ("1 to 32 commands", o.execute(b"", [])),
    ("1 to 32 commands", o.execute(b"\x00\x00", [o.v3()])),
    ("1 to 32 commands", o.execute(b"\x00" * 33, [o.v3()] * 33)),
    ("execute does not decode", o.execute(b"\x00", [o.v3()])[:-1]),
    ("execute is not in canonical", o.execute(b"\x00", [o.v3()]) + b"\0"),
    ("execute deadline", o.execute(b"\x00", [o.v3()], deadline_s=2**40)),
    ("a permit for 0xdd", o.execute(b"\x0a", [o.permit_input(spender=o.THIEF)])),
    ("token 0xcc", o.execute(b"\x0a", [o.permit_input(token=o.OTHER)])),
    ("unlimited permit", o.execute(b"\x0a", [o.permit_input(amount=2**160 - 1)])),
    ("permit expiration", o.execute(b"\x0a", [o.permit_input(expiration=2**48 - 1)])),
    ("permit sigDeadline", o.execute(b"\x0a", [o.permit_input(sigDeadline=2**256 - 1)])),
    ("has 65 bytes, this has 64", o.execute(b"\x0a", [o.permit_input(signature=bytes(64))])),
    ("selector 0x is not allowed", b""),
    ("selector 0x24856bc3 is not allowed", bytes.fromhex("24856bc3") + bytes(64)),  # execute without a deadline
    ("more than 24576", o.execute(b"\x00", [bytes(25_000)])),
]


@pytest.mark.parametrize(("reason", "data"), REFUSED)
def test_router_calls_that_are_refused(reason: str, data: bytes) -> None:
    with pytest.raises(SignerError, match=f"^policy: .*{reason}"):
        check_calls(o.policy(), o.calls(data))


@pytest.mark.parametrize(
    ("reason", "unsigned"),
    [
        ("only Permit2", o.calls(o.approve(spender=o.THIEF), to=o.USDC)),
        ("only Permit2", o.calls(o.approve(spender=o.ROUTER), to=o.USDC)),
        ("unlimited approval", o.calls(o.approve(amount=2**255), to=o.USDC)),
        ("unlimited approval", o.calls(o.approve(amount=2**256 - 1), to=o.USDC)),
        ("approve is not in canonical|does not decode", o.calls(o.approve() + b"\0", to=o.USDC)),
        ("does not decode", o.calls(o.approve()[:-1], to=o.USDC)),
        ("not on this key's list", o.calls(o.approve(), to=o.OTHER)),
        ("selector 0x095ea7b3 is not allowed", o.calls(o.approve(), to=o.ROUTER)),
        ("selector 0xa9059cbb is not allowed", o.calls(bytes.fromhex("a9059cbb") + bytes(64), to=o.USDC)),  # transfer
        ("value 1 wei", o.calls(o.execute(b"\x00", [o.v3()]), value=1)),
        ("value -1 wei", o.calls(o.execute(b"\x00", [o.v3()]), value=-1)),
        ("gas fee", o.calls(o.execute(b"\x00", [o.v3()]), gas_fee_max=101 * 10**9)),
        ("gas limit", o.calls(o.execute(b"\x00", [o.v3()]), gas_limit=1_000_001)),
        ("chain 1 is not", o.calls(o.execute(b"\x00", [o.v3()]), chain_id=1)),
    ],
)
def test_calls_that_are_refused(reason: str, unsigned: Calls) -> None:
    with pytest.raises(SignerError, match=reason):
        check_calls(o.policy(), unsigned)


def test_exactly_one_call() -> None:
    call = Call(o.ROUTER, o.execute(b"\x00", [o.v3()]))
    for several in ((), (call, call)):
        with pytest.raises(SignerError, match="exactly one call"):
            check_calls(o.policy(), Calls("o", o.CHAIN, several, (), 0, 1, 1, 1))


def test_a_listed_selector_that_nobody_understands_is_refused() -> None:
    allowed = o.policy(contracts={o.USDC: frozenset({"0xa9059cbb"}), o.OTHER: frozenset({"0x3593564c"})})
    with pytest.raises(SignerError, match="does not understand selector 0xa9059cbb"):
        check_calls(allowed, o.calls(bytes.fromhex("a9059cbb") + bytes(64), to=o.USDC))
    with pytest.raises(SignerError, match="is not the router"):
        check_calls(allowed, o.calls(o.execute(b"\x00", [o.v3()]), to=o.OTHER))


def test_an_approval_carries_no_value() -> None:
    with pytest.raises(SignerError, match="carries no value"):
        check_calls(o.policy(value_max=5), o.calls(o.approve(), to=o.USDC, value=1))


def test_with_a_clock_every_deadline_is_bounded() -> None:
    late = o.DEADLINE_S - 1
    for data in (
        o.execute(b"\x00", [o.v3()]),
        o.execute(b"\x0a", [o.permit_input(sigDeadline=late)], deadline_s=late),
        o.execute(b"\x0a", [o.permit_input(expiration=late)], deadline_s=late),
    ):
        with pytest.raises(SignerError, match=f"later than {late}"):
            check_calls(o.policy(), o.calls(data), deadline_s_max=late)


def test_overlapping_inputs_do_not_pass() -> None:
    """Two heads that point at one tail decode well and are still not what an honest encoder writes."""
    data = bytearray(o.execute(b"\x00\x00", [o.v3(), o.v3()]))
    array = 4 + int.from_bytes(data[36:68], "big") + 32
    data[array + 32 : array + 64] = data[array : array + 32]
    with pytest.raises(SignerError, match=r"execute is not in canonical|does not decode"):
        check_calls(o.policy(), o.calls(bytes(data)))


def test_a_permit_passes_as_typed_data() -> None:
    assert check_typed(o.policy(), o.permit_typed(), o.DEADLINE_S).token == o.USDC


def renamed() -> TypedData:
    types = {name: [dict(f) for f in fields] for name, fields in o.permit_typed().types.items()}
    types["PermitDetails"][1]["type"] = "uint256"
    return TypedData("p", o.permit_typed().domain, types, "PermitSingle", o.permit_typed().message)


def other(**changes: object) -> TypedData:
    made = o.permit_typed()
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return TypedData(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "typed"),
    [
        ("does not understand typed data 'Order'", other(primary="Order")),
        ("does not understand typed data 'PermitSingle'", renamed()),
        ("does not understand typed data 'PermitBatch'", other(primary="PermitBatch", types={"PermitBatch": []})),
        ("domain is not Permit2's", other(domain={"name": "USD Coin", "chainId": o.CHAIN, "verifyingContract": o.PERMIT2})),
        ("domain is not Permit2's", other(domain={"name": "Permit2", "chainId": o.CHAIN})),
        ("is not 0x0000", o.permit_typed(permit2=o.THIEF)),
        ("on chain 31337", o.permit_typed(chain_id=1)),
        ("a permit for 0xdd", o.permit_typed(spender=o.THIEF)),
        ("token 0xcc", o.permit_typed(token=o.OTHER)),
        ("unlimited permit", o.permit_typed(amount=2**160 - 1)),
        ("amount must be a whole number", o.permit_typed(amount="1")),
        ("nonce must be a whole number", o.permit_typed(nonce=-1)),
        ("expiration", o.permit_typed(expiration=2**48 - 1)),
        ("sigDeadline", o.permit_typed(sigDeadline=2**255)),
        ("address must be text", o.permit_typed(spender=7)),
        ("has no details", other(message={})),
    ],
)
def test_typed_data_that_is_refused(reason: str, typed: TypedData) -> None:
    with pytest.raises(SignerError, match=reason):
        check_typed(o.policy(), typed)
