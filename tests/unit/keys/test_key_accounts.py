"""Wrapped calls as bytes: the same as other libraries make them, read back strictly, and refused when somebody turned a bit."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import onchain_samples as o
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignatureSlot, TypedData
from agent.keys.accounts import eip7702, erc4337, roles, safe
from agent.keys.accounts.functions import function
from agent.keys.accounts.kinds import Delegated, Kind, Role, Safe, UserOps, Version
from agent.keys.accounts.owners import PART, Consent, packed, place_of, read_consents
from agent.keys.accounts.signer import wrapped as acting
from agent.keys.bounds import Act, KeyPolicy, Rule
from agent.keys.digest import Transaction, address_bytes, keccak, typed_digest
from agent.keys.frames import Ask, pack
from agent.keys.local import LocalSigner
from agent.keys.policy import STANDING, check_calls, check_safe_tx, swap_policy
from agent.keys.spent import Spent
from agent.keys.steps import Preimage, alone, steps

VAULT, MULTI, MODIFIER, ENTRY = "0x" + "5a" * 20, "0x" + "3b" * 20, "0x" + "70" * 20, "0x" + "43" * 20
SAFE, ROLE_KEY = Safe(VAULT, MULTI), roles.role_key("agent")
ROLE, OPS, EOA = Role(VAULT, MODIFIER, ROLE_KEY, MULTI), UserOps(VAULT, ENTRY), Delegated(o.OWNER, o.OTHER)
OLD = UserOps(VAULT, ENTRY, version="0.7")
MINE = Consent(o.OWNER, "approved")
UINT, ADDRESS = st.integers(0, 2**256 - 1), st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
CALLS = st.builds(Call, ADDRESS, st.binary(max_size=100), UINT)
TXS = st.builds(safe.SafeTx, ADDRESS, UINT, st.binary(max_size=100), st.integers(0, 255), UINT, UINT, UINT, ADDRESS, ADDRESS)


def policy(account: Kind = SAFE) -> KeyPolicy:
    tokens = frozenset({o.USDC, o.WETH, o.NATIVE})
    return swap_policy(o.CHAIN, o.OWNER, o.ROUTER, o.PERMIT2, tokens, 100 * 10**9, 1_000_000, account=account)


def by_library(typed: TypedData) -> bytes:
    domain = [{"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}]
    if "name" in typed.domain:
        domain = [{"name": "name", "type": "string"}, {"name": "version", "type": "string"}, *domain]
    full = {"types": typed.types | {"EIP712Domain": domain}, "primaryType": typed.primary, "domain": typed.domain}
    return bytes(_hash_eip191_message(encode_typed_data(full_message=full | {"message": typed.message})))


# -- the same bytes as other libraries make ----------------------------------------------------------------------------


@given(TXS, UINT)
def test_a_safe_transaction_s_hash(tx: safe.SafeTx, nonce: int) -> None:
    assert safe.safe_tx_hash(o.CHAIN, VAULT, tx, nonce) == by_library(safe.safe_tx_typed("", o.CHAIN, VAULT, tx, nonce))


@given(st.binary(max_size=200))
def test_a_safe_message_s_hash(message: bytes) -> None:
    typed = safe.message_typed("", o.CHAIN, VAULT, message)
    assert typed_digest(typed) == by_library(typed)


@given(ADDRESS, UINT, st.binary(max_size=60), st.integers(0, 2**128 - 1), UINT)
def test_a_user_operation_s_hash(sender: str, nonce: int, data: bytes, half: int, whole: int) -> None:
    op = erc4337.UserOperation(sender, nonce, data, half, 7, whole, half, 1, b"\x01", b"\x02")
    assert erc4337.user_op_hash(op, ENTRY, o.CHAIN, "0.8") == by_library(erc4337.user_op_typed("", op, ENTRY, o.CHAIN))


@given(
    st.integers(1, 2**64 - 1),
    ADDRESS,
    st.lists(st.tuples(ADDRESS, st.integers(0, 2**64 - 2)), min_size=1, max_size=3),
    st.integers(0, 2**64 - 2),
    st.integers(0, 2**70),
    st.binary(max_size=80),
)
def test_a_set_code_transaction_is_byte_for_byte_eth_account_s(
    chain_id: int, to: str, asked: list[tuple[str, int]], nonce: int, value: int, data: bytes
) -> None:
    key = Account.from_key(bytes.fromhex(o.KEY_HEX))
    lists, ours = [], []
    for delegate, number in asked:
        made = key.sign_authorization({"chainId": chain_id, "address": address_bytes(delegate), "nonce": number})
        authorization = eip7702.Authorization(chain_id, delegate, number)
        assert keccak(eip7702.authorization_preimage(authorization)) == bytes(made.authorization_hash)
        raw = made.r.to_bytes(32, "big") + made.s.to_bytes(32, "big") + bytes((27 + made.y_parity,))
        lists.append(made)
        ours.append(eip7702.SignedAuthorization(authorization, raw))
    fields = {"chainId": chain_id, "nonce": nonce, "gas": 99_999, "maxFeePerGas": 9, "maxPriorityFeePerGas": 3}
    wanted = key.sign_transaction(
        {"type": 4, "to": address_bytes(to), "value": value, "data": data, "authorizationList": lists, **fields}
    )
    tx = Transaction(chain_id, nonce, 3, 9, 99_999, address_bytes(to), value, data)
    signature = wanted.r.to_bytes(32, "big") + wanted.s.to_bytes(32, "big") + bytes((27 + wanted.v,))
    assert eip7702.set_code_raw(tx, ours, signature) == bytes(wanted.raw_transaction)
    assert Account._recover_hash(keccak(eip7702.set_code_preimage(tx, ours)), signature=signature) == key.address


@given(CALLS)
def test_calls_of_roles_and_accounts(call: Call) -> None:
    kinds = ["address", "uint256", "bytes", "uint8", "bytes32", "bool"]
    values = [call.to, call.value, call.data, 0, ROLE_KEY, True]
    assert roles.exec_data((call,), ROLE_KEY, MULTI)[4:] == encode(kinds, values)
    assert roles.read_exec(roles.exec_data((call,), ROLE_KEY, MULTI), ROLE_KEY, MULTI) == (call,)


def test_conditions_are_handed_over_level_by_level() -> None:
    inner = roles.Condition(roles.TUPLE, roles.MATCHES, parts=(roles.equal(b"\x01" * 32), roles.equal(b"\x02" * 32)))
    found = roles.flattened(roles.arguments(roles.ANYTHING, inner, roles.within(roles.role_key("daily"))))
    assert [(parent, operator) for parent, _, operator, _ in found] == [(0, 5), (0, 0), (0, 5), (0, 28), (2, 16), (2, 16)]
    with pytest.raises(SignerError, match="at most 255"):
        roles.flattened(roles.arguments(*[roles.ANYTHING] * 256))


# -- there and back ----------------------------------------------------------------------------------------------------


@given(st.lists(CALLS, min_size=1, max_size=6))
def test_what_a_safe_or_an_account_is_told_is_read_back(calls: list[Call]) -> None:
    tx = safe.wrap(calls, MULTI)
    found = safe.read_exec(safe.exec_data(tx, packed((MINE,))))
    assert (found.tx, safe.unwrap(found.tx, MULTI)) == (tx, tuple(calls))
    assert erc4337.read_execute(erc4337.execute_data(calls, "0.8")) == tuple(calls)


@given(TXS, UINT)
def test_a_typed_safe_transaction_is_read_back(tx: safe.SafeTx, nonce: int) -> None:
    assert safe.safe_tx_of(safe.safe_tx_typed("", o.CHAIN, VAULT, tx, nonce).message) == tx


V = st.binary(min_size=64, max_size=64).filter(any)
CONSENTS = st.lists(
    st.one_of(
        st.builds(lambda owner, raw, v: Consent(owner, "ecdsa", raw + bytes((v,))), ADDRESS, V, st.sampled_from([27, 28])),
        st.builds(lambda owner, raw, v: Consent(owner, "eth_sign", raw + bytes((v,))), ADDRESS, V, st.sampled_from([27, 28])),
        st.builds(lambda owner, raw: Consent(owner, "contract", raw), ADDRESS, st.binary(max_size=70)),
        st.builds(lambda owner: Consent(owner, "approved"), ADDRESS),
        st.builds(lambda owner: Consent(owner, "empty"), ADDRESS),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one.owner,
)


@given(CONSENTS, st.binary(min_size=1, max_size=80))
def test_owners_words_are_read_back_and_nothing_stands_behind_them(consents: list[Consent], more: bytes) -> None:
    raw = packed(consents)
    found = read_consents(raw)
    ordered = sorted(consents, key=lambda one: one.owner)
    assert [(one.how, one.signature) for one in found] == [(one.how, one.signature) for one in ordered]
    for one in consents:
        assert place_of(consents, one.owner) == PART * ordered.index(one)
    if len(more) % PART or any(one.how == "contract" for one in consents):
        with pytest.raises(SignerError, match="policy: "):
            read_consents(raw + more)


@given(st.binary(max_size=300))
def test_other_bytes_are_no_owners_words_or_mean_themselves(raw: bytes) -> None:
    try:
        found = read_consents(raw)
    except SignerError:
        return
    assert len(found) >= 1


# -- the policy: a wrapped call is judged as what it does ---------------------------------------------------------------


def wrapped(*calls: Call, account: Kind = SAFE, multi: str = MULTI) -> Calls:
    match account:
        case Safe():
            return told(safe.wrap(calls, multi))
        case Role():
            return o.calls(roles.exec_data(calls, ROLE_KEY, multi), MODIFIER)
        case UserOps():
            return o.calls(erc4337.handle_data(op_of(*calls, version=account.version), o.OWNER), ENTRY)
        case Delegated():
            return o.calls(erc4337.execute_data(calls, "0.8"), o.OWNER)


def told(tx: safe.SafeTx) -> Calls:
    return o.calls(safe.exec_data(tx, packed((MINE,))), VAULT)


def op_of(*calls: Call, version: Version = "0.8") -> erc4337.UserOperation:
    data = erc4337.execute_data(calls, version)
    return erc4337.UserOperation(VAULT, 3, data, 300_000, 300_000, 50_000, 10**9, 10**9, signature=bytes(65))


def approval(spender: str = o.PERMIT2, units: int = 10**6) -> Call:
    return Call(o.USDC, o.approve(spender, units))


def standing(spender: str = o.ROUTER, units: int = 10**6, token: str = o.USDC, until_s: int = o.DEADLINE_S) -> Call:
    kinds = ["address", "address", "uint160", "uint48"]
    return Call(o.PERMIT2, bytes.fromhex(STANDING[2:]) + encode(kinds, [token, spender, units, until_s]))


def swap(recipient: str = VAULT) -> Call:
    return Call(o.ROUTER, o.execute(b"\x00", [o.v3(recipient)]))


ACCOUNTS = pytest.mark.parametrize("account", [SAFE, ROLE, OPS, OLD, EOA], ids=lambda one: type(one).__name__)
VERSIONS = pytest.mark.parametrize("account", [OPS, OLD], ids=lambda one: one.version)


@ACCOUNTS
def test_a_wrapped_swap_pays_the_account_and_counts_as_a_swap(account: Kind) -> None:
    meaning = check_calls(policy(account), wrapped(swap(account.address), account=account), o.DEADLINE_S)
    assert meaning.acts == (Act("swap", o.ROUTER, o.USDC, 10**6, o.WETH, 1),)
    assert check_calls(policy(account), wrapped(swap(o.ME), account=account)).acts == meaning.acts


def test_permissions_and_a_swap_in_one_batch() -> None:
    acts = check_calls(policy(), wrapped(approval(), standing(), swap())).acts
    assert [(act.kind, act.given, act.amount) for act in acts] == [
        ("approve", o.USDC, 10**6),
        ("permit", o.USDC, 10**6),
        ("swap", o.USDC, 10**6),
    ]


INNER_REFUSED = [
    ("which is not the owner", swap(o.THIEF)),
    ("only Permit2", approval(o.THIEF)),
    ("unlimited approval", approval(units=2**256 - 1)),
    ("only the router", standing(o.THIEF)),
    ("unlimited permit", standing(units=2**160 - 1)),
    ("is later than", standing(until_s=2**40)),
    ("is not on this key's list", standing(token=o.OTHER)),
    ("only nothing is sent", Call(VAULT, safe.ENABLE_MODULE.data(o.THIEF))),
    ("only nothing is sent", Call(VAULT, b"", 1)),
    ("is not on this key's list", Call(o.THIEF, b"")),
    ("value 1 wei", Call(o.USDC, o.approve(), 1)),
    ("a permit inside", Call(o.ROUTER, o.execute(b"\x0a\x00", [o.permit_input(), o.v3(VAULT)]))),
]


@ACCOUNTS
@pytest.mark.parametrize(("reason", "call"), INNER_REFUSED)
def test_what_the_account_may_not_do_is_refused_alone_and_in_a_batch(account: Kind, reason: str, call: Call) -> None:
    if account is EOA and call.to == VAULT:
        call = msgspec.structs.replace(call, to=o.OWNER)
    if account is EOA and call.to == o.ROUTER and reason.startswith("a permit"):
        call = Call(o.ROUTER, o.execute(b"\x0a\x00", [o.permit_input(), o.v3()]))
    with pytest.raises(SignerError, match=reason):
        check_calls(policy(account), wrapped(call, account=account))
    with pytest.raises(SignerError, match=reason):
        check_calls(policy(account), wrapped(approval(), call, account=account))


def test_a_payment_to_the_key_instead_of_its_account_is_refused() -> None:
    with pytest.raises(SignerError, match="which is not the owner"):
        check_calls(policy(), wrapped(swap(o.OWNER)))


@ACCOUNTS
def test_a_wrap_inside_a_wrap_is_refused(account: Kind) -> None:
    inner = wrapped(approval(), account=account).calls[0]
    with pytest.raises(SignerError, match=r"is not on this key's list|only nothing is sent"):
        check_calls(policy(account), wrapped(inner, account=account))
    generous = policy(account)
    generous = msgspec.structs.replace(
        generous, contracts={**generous.contracts, inner.to: frozenset({"0x" + inner.data[:4].hex()})}
    )
    with pytest.raises(SignerError, match=r"does not understand selector|only nothing is sent"):
        check_calls(generous, wrapped(inner, account=account))


@ACCOUNTS
def test_outside_its_account_the_key_only_takes_back(account: Kind) -> None:
    assert check_calls(policy(account), o.calls(b"", to=o.OWNER)).acts[0].kind == "take_back"
    for call in (approval(), standing(), Call(o.ROUTER, o.execute(b"\x00", [o.v3()]))):
        with pytest.raises(SignerError, match="this key acts for"):
            check_calls(policy(account), o.calls(call.data, to=call.to))


@ACCOUNTS
def test_the_key_sends_no_value_with_a_wrapped_call(account: Kind) -> None:
    made = wrapped(approval(), account=account)
    paying = msgspec.structs.replace(made, calls=(msgspec.structs.replace(made.calls[0], value=1),))
    with pytest.raises(SignerError, match=r"no value|only nothing is sent"):
        check_calls(policy(account), paying)


@pytest.mark.parametrize(
    ("reason", "tx"),
    [
        ("only MultiSendCallOnly", safe.SafeTx(o.THIEF, 0, b"", 1)),
        ("only MultiSendCallOnly", safe.SafeTx(o.USDC, 0, o.approve(), 1)),
        ("neither a call nor", safe.SafeTx(o.USDC, 0, o.approve(), 2)),
        ("pays for gas", safe.SafeTx(o.USDC, 0, o.approve(), gas_price=1)),
        ("pays for gas", safe.SafeTx(o.USDC, 0, o.approve(), base_gas=1)),
        ("pays for gas", safe.SafeTx(o.USDC, 0, o.approve(), safe_tx_gas=1)),
        ("pays for gas", safe.SafeTx(o.USDC, 0, o.approve(), gas_token=o.USDC)),
        ("pays for gas", safe.SafeTx(o.USDC, 0, o.approve(), refund_receiver=o.OWNER)),
        ("is not multiSend", safe.SafeTx(MULTI, 0, o.approve(), 1)),
        ("carries no value of its own", safe.SafeTx(MULTI, 1, safe.wrap([approval()] * 2, MULTI).data, 1)),
        ("without a call", safe.SafeTx(MULTI, 0, safe.MULTI_SEND.data(b""), 1)),
        ("ends in the middle", safe.SafeTx(MULTI, 0, safe.MULTI_SEND.data(bytes(84)), 1)),
        ("ends in the middle", safe.SafeTx(MULTI, 0, safe.MULTI_SEND.data(bytes(53) + (2**255).to_bytes(32, "big")), 1)),
        ("operation 1 in a batch", safe.SafeTx(MULTI, 0, safe.MULTI_SEND.data(b"\x01" + bytes(84)), 1)),
        ("more than 32 calls", safe.SafeTx(MULTI, 0, safe.MULTI_SEND.data(bytes(85) * 33), 1)),
        ("is not on this key's list", safe.SafeTx(MULTI, 0, safe.wrap([approval()] * 2, MULTI).data, 0)),
    ],
)
def test_safe_transactions_that_are_refused_to_send_and_to_sign(reason: str, tx: safe.SafeTx) -> None:
    with pytest.raises(SignerError, match=reason):
        check_calls(policy(), told(tx))
    with pytest.raises(SignerError, match=reason):
        check_safe_tx(policy(), safe.safe_tx_typed("", o.CHAIN, VAULT, tx, 0))


@pytest.mark.parametrize(
    ("reason", "typed"),
    [
        ("another Safe", safe.safe_tx_typed("", o.CHAIN, o.OTHER, safe.wrap([approval()], MULTI), 0)),
        ("not for chain", safe.safe_tx_typed("", 1, VAULT, safe.wrap([approval()], MULTI), 0)),
        ("does not understand", safe.message_typed("", o.CHAIN, VAULT, bytes(32))),
    ],
)
def test_what_a_key_does_not_sign_as_an_owner(reason: str, typed: TypedData) -> None:
    with pytest.raises(SignerError, match=reason):
        check_safe_tx(policy(), typed)
    with pytest.raises(SignerError, match="acts for no Safe"):
        check_safe_tx(o.policy(), safe.safe_tx_typed("", o.CHAIN, VAULT, safe.wrap([approval()], MULTI), 0))


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("only MultiSendCallOnly", (o.USDC, 0, o.approve(), 1, ROLE_KEY, True)),
        ("another role", (o.USDC, 0, o.approve(), 0, roles.role_key("admin"), True)),
        ("must revert", (o.USDC, 0, o.approve(), 0, ROLE_KEY, False)),
    ],
)
def test_calls_through_a_role_that_are_refused(reason: str, values: tuple[object, ...]) -> None:
    with pytest.raises(SignerError, match=reason):
        check_calls(policy(ROLE), o.calls(roles.EXEC_WITH_ROLE.data(*values), MODIFIER))


def test_two_operations_in_one_are_refused() -> None:
    packed_op = erc4337.HANDLE_OPS.read(erc4337.handle_data(op_of(approval()), o.OWNER))[0][0]
    with pytest.raises(SignerError, match="exactly one operation"):
        check_calls(policy(OPS), o.calls(erc4337.HANDLE_OPS.data([packed_op] * 2, o.OWNER), ENTRY))


@ACCOUNTS
def test_appended_bytes_are_refused(account: Kind) -> None:
    good = wrapped(approval(), account=account)
    for more in (b"\0", bytes(32), bytes(65)):
        longer = msgspec.structs.replace(good, calls=(Call(good.calls[0].to, good.calls[0].data + more),))
        with pytest.raises(SignerError, match="not in canonical ABI encoding"):
            check_calls(policy(account), longer)


def test_bytes_appended_to_signatures_or_to_a_batch_are_refused() -> None:
    tx = safe.wrap([approval()], MULTI)
    with pytest.raises(SignerError, match="are not 65 for each"):
        check_calls(policy(), o.calls(safe.exec_data(tx, packed((MINE,)) + b"\0"), VAULT))
    batch = safe.MULTI_SEND.read(safe.wrap([approval()] * 2, MULTI).data)[0]
    with pytest.raises(SignerError, match="ends in the middle"):
        check_calls(policy(), told(safe.SafeTx(MULTI, 0, safe.MULTI_SEND.data(batch + b"\0"), 1)))


@ACCOUNTS
@given(st.data())
def test_no_turned_bit_makes_something_worse_pass(account: Kind, data: st.DataObject) -> None:
    """Whatever still passes does the same kind of thing, to known contracts, with known tokens."""
    good = wrapped(approval() if account is ROLE else swap(account.address), account=account)
    raw = bytearray(good.calls[0].data)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        acts = check_calls(policy(account), o.calls(bytes(raw), to=good.calls[0].to)).acts
    except SignerError:
        return
    for act in acts:
        assert act.kind in ("approve", "swap")
        assert {act.given, act.received} <= {o.USDC, o.WETH, ""}
        assert act.contract in (o.USDC, o.ROUTER)
        assert act.amount < 2**255 or act.kind == "swap"


# -- signing inside a wrapped call ---------------------------------------------------------------------------------------


def slotted(tx: safe.SafeTx, signed: safe.SafeTx, safe_at: str = VAULT, chain_id: int = o.CHAIN) -> Calls:
    owners = (Consent(o.OWNER, "empty"), Consent(o.OTHER, "approved"))
    data = safe.exec_data(tx, packed(owners))
    at = safe.read_exec(data).signatures_at + place_of(owners, o.OWNER)
    return o.calls(data, VAULT, (SignatureSlot(0, at, safe.safe_tx_typed("o-1", chain_id, safe_at, signed, 5)),))


def signer_of(account: Kind = SAFE) -> LocalSigner:
    signer = LocalSigner(bytearray.fromhex(o.KEY_HEX))
    signer.allow(policy(account))
    return signer


def test_a_place_inside_is_filled_for_the_very_transaction_around_it() -> None:
    tx, other = safe.wrap([approval(), swap()], MULTI), safe.wrap([approval(), swap(), swap()], MULTI)
    signer_of().sign_now(slotted(tx, tx))
    for made in (slotted(tx, other), slotted(tx, tx, safe_at=o.OTHER), slotted(tx, tx, chain_id=1)):
        with pytest.raises(SignerError, match="is not what the account is told"):
            signer_of().sign_now(made)
    moved = slotted(tx, tx)
    moved = msgspec.structs.replace(moved, slots=(msgspec.structs.replace(moved.slots[0], offset=moved.slots[0].offset - 1),))
    with pytest.raises(SignerError, match="is not the signature of"):
        signer_of().sign_now(moved)


def test_a_permit_in_place_of_the_safe_s_transaction_is_refused() -> None:
    tx = safe.wrap([approval()], MULTI)
    made = slotted(tx, tx)
    made = msgspec.structs.replace(made, slots=(msgspec.structs.replace(made.slots[0], typed=o.permit_typed()),))
    with pytest.raises(SignerError, match="nonce of a SafeTx"):
        signer_of().sign_now(made)


# -- small ones --------------------------------------------------------------------------------------------------------


def test_a_signature_says_its_types() -> None:
    assert function("approve(address,uint256)").selector.hex() == "095ea7b3"
    assert function("nothing()").kinds == ()
    assert function("f((uint8,bytes)[],address)").kinds == ("(uint8,bytes)[]", "address")
    with pytest.raises(SignerError, match="an argument does not fit"):
        function("f(uint8)").data(256)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: safe.wrap([], MULTI),
        lambda: safe.wrap([approval()] * 33, MULTI),
        lambda: packed((MINE, MINE)),
        lambda: packed(()),
        lambda: packed((Consent(o.OWNER, "ecdsa", bytes(65)),)),
        lambda: erc4337.execute_data([], "0.7"),
        lambda: erc4337.handle_data(msgspec.structs.replace(op_of(approval()), call_gas=2**128), o.OWNER),
        lambda: roles.role_key(""),
        lambda: roles.role_key("x" * 33),
        lambda: roles.scope_function(MODIFIER, ROLE_KEY, o.USDC, b"\x01", roles.ANYTHING),
        lambda: Role(VAULT, MODIFIER, b"short", MULTI),
        lambda: Safe("0x12", MULTI),
        lambda: eip7702.authorization_preimage(eip7702.Authorization(0, o.OTHER, 0)),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_made(wrong: Callable[[], object]) -> None:
    with pytest.raises(SignerError):
        wrong()


def test_what_an_owner_signs_alone_takes_from_its_windows_and_a_refusal_takes_nothing(tmp_path: Path) -> None:
    spent = Spent(tmp_path / "spent", Clock())
    rule = Rule("hourly", "allow", given=frozenset({o.USDC}), window_s=3_600, window_max=15 * 10**5)
    signer = LocalSigner(bytearray.fromhex(o.KEY_HEX), spent=spent)
    signer.allow(msgspec.structs.replace(policy(), rules=(rule,)))
    first, second = (safe.safe_tx_typed("o-1", o.CHAIN, VAULT, safe.wrap([swap()], MULTI), nonce) for nonce in (5, 6))
    signer.sign_now(first)
    signer.sign_now(first)  # the same number: only one of them can happen
    assert spent.used("hourly", o.USDC) == 10**6
    with pytest.raises(SignerError, match=r"500000 units of .* are left"):
        signer.sign_now(second)


class Clock:
    def now_ns(self) -> int:
        return 10**18

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


# -- a key in another process: an operation, decided on its bytes alone --------------------------------------------------


def operation(account: UserOps = OPS) -> tuple[Calls, Preimage, Preimage]:
    """What the key is asked for so that its smart account swaps: the whole, the operation, and the transaction around it."""
    call = Call(o.ROUTER, o.execute(b"\x00", [o.v3(VAULT)]))
    asked = acting(Calls("o-1", o.CHAIN, (call,), (), 7, 600_000, 10**9, 1), account, o.OWNER)
    work = steps(asked, {o.CHAIN: policy(account)}, o.OWNER, "k")
    typed = next(work)
    return asked, typed, work.send(bytes(31) + b"\x01" + bytes(31) + b"\x01\x1b")


def sent(preimage: Preimage) -> Preimage:
    """As it arrives in another process."""
    source = preimage.source
    assert isinstance(source, TypedData)
    frame = pack(Ask("", 1, preimage.kind, preimage.data, source))
    arrived = msgspec.json.decode(frame[4:], type=Ask)
    assert arrived.typed is not None
    return Preimage(arrived.kind, arrived.data, arrived.typed)


@VERSIONS
def test_an_operation_and_the_transaction_around_it_take_their_room_once(account: UserOps, tmp_path: Path) -> None:
    rule = Rule("hourly", "allow", frozenset({"swap"}), window_s=3_600, window_max=15 * 10**5)
    mine, spent = {o.CHAIN: msgspec.structs.replace(policy(account), rules=(rule,))}, Spent(tmp_path / "spent", Clock())
    _, typed, transaction = operation(account)
    assert alone(sent(typed), mine, "k", spent=spent) is not None
    assert alone(transaction, mine, "k", spent=spent) is not None
    assert spent.used("hourly", o.USDC) == 10**6


def test_what_is_signed_for_an_operation_of_07_is_its_hash_behind_a_prefix() -> None:
    _, typed, _ = operation(OLD)
    source = typed.source
    assert isinstance(source, TypedData)
    found = erc4337.user_op_hash(erc4337.user_op_of(source.message), ENTRY, o.CHAIN, "0.7")
    assert typed.data == b"\x19Ethereum Signed Message:\n32" + found
    with pytest.raises(SignerError, match=r"no operations of EntryPoint 0\.7"):
        erc4337.refuse_07(source)
    erc4337.refuse_07(operation(OPS)[1].source)  # type: ignore[arg-type]


@VERSIONS
def test_an_operation_that_does_something_else_is_refused_on_its_bytes_alone(account: UserOps) -> None:
    _, typed, _ = operation(account)
    source = typed.source
    assert isinstance(source, TypedData)
    thief = "0x" + erc4337.execute_data((approval(o.THIEF),), account.version).hex()
    for reason, changes in (
        ("only Permit2", {"callData": thief}),
        ("not of", {"sender": o.THIEF}),
        ("paymaster", {"paymasterAndData": "0x" + o.THIEF[2:]}),
        ("in another way", {"initCode": "0x01"}),
        ("more gas", {"preVerificationGas": 1_000_001}),
        ("more for gas", {"gasFees": "0x" + "ff" * 32}),
        ("another type", {"nonce": "1"}),
        ("another type", {"callData": 1}),
        ("another type", {"callData": "0xzz"}),
        ("are not of the typed data", {"nonce": 1}),
    ):
        changed = msgspec.structs.replace(source, message=source.message | changes)
        with pytest.raises(SignerError, match=reason):
            alone(Preimage("typed", typed.data, changed), {o.CHAIN: policy(account)}, "k")
    for domain in (
        {"chainId": 2},
        {"verifyingContract": o.THIEF},
        {"name": "ERC4338"},
        {"version": "1" if account is OLD else "0.7"},
    ):
        changed = msgspec.structs.replace(source, domain=source.domain | domain)
        with pytest.raises(SignerError, match=r"is not for the EntryPoint|has no policy for chain"):
            alone(Preimage("typed", typed.data, changed), {o.CHAIN: policy(account)}, "k")
    with pytest.raises(SignerError, match="has no such account"):
        alone(typed, {o.CHAIN: policy(SAFE)}, "k")


def test_an_operation_s_number_names_the_transaction_that_brings_it() -> None:
    number = erc4337.operation_number(o.OWNER, 7)
    assert (erc4337.bringer_of(o.OWNER, number), number % 2**64) == (7, 0)
    assert erc4337.bringer_of(o.OWNER, number + 1) is None
    assert erc4337.bringer_of(o.THIEF, number) is None
    assert number != erc4337.operation_number(o.THIEF, 7)


def test_a_gas_limit_that_leaves_nothing_for_the_account_is_refused() -> None:
    with pytest.raises(SignerError, match="leaves nothing for the account's calls"):
        acting(Calls("o-1", o.CHAIN, (approval(),), (), 7, 200_000, 10**9, 1), OPS, o.OWNER)
    with pytest.raises(SignerError, match="signs no permits"):
        acting(Calls("o-1", o.CHAIN, (approval(),), (SignatureSlot(0, 0, operation()[1].source),), 7, 600_000, 1, 1), OPS, o.OWNER)  # type: ignore[arg-type]
