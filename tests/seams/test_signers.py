"""One suite for every signer: it signs what it understands, refuses the rest in one line, and never shows what it holds.

Keys that lie elsewhere are found, not listed: a new `agent/keys/custody/<kind>.py` fails here until `key_<kind>.py` says how to
start what holds the key. They run against the real thing, or a stand-in for it where docs/keys.md says so.
"""

import asyncio
import copy
import importlib
import inspect
import pickle
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from eth_abi.abi import encode
from eth_account import Account
from key_case import CHAIN, KEY_HEX, PERMIT2, ROUTER, TOKEN, Far

from agent.config import custody_kinds
from agent.domain.amount import Units
from agent.domain.errors import IsthmusError, SignerError, SignerUnavailableError
from agent.domain.plan import Call, Calls, SignedRequest, SignedTransaction, SignedTyped, TypedData, Unsigned, VenueRequest
from agent.keys.accounts.kinds import Delegated, Kind, Role, Safe, UserOps
from agent.keys.accounts.roles import role_key
from agent.keys.accounts.signer import AccountSigner, RemoteAccountSigner
from agent.keys.digest import typed_digest
from agent.keys.local import LocalSigner
from agent.keys.policy import PERMIT_TYPES, swap_policy
from agent.keys.remote import RemoteSigner, recovered
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from agent.ports import Custody, Signer

pytestmark = pytest.mark.xdist_group("signers")
OWNER = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
SAFE = Safe("0x" + "5a" * 20, "0x" + "3b" * 20)
DEADLINE_S = int(time.time()) + 1_800
ACCOUNTS: dict[str, Callable[[str], Kind]] = {  # of the key's address
    "safe": lambda _: SAFE,
    "role": lambda _: Role(SAFE.address, "0x" + "40" * 20, role_key("agent"), SAFE.multi_send),
    "erc4337": lambda _: UserOps(SAFE.address, "0x" + "43" * 20),
    "eip7702": lambda key: Delegated(key, "0x" + "77" * 20),
}
TIERS, LATENCIES = ("hot", "warm", "cold"), ("microseconds", "milliseconds", "seconds", "people")


def approval(amount: int = 5) -> Calls:
    data = bytes.fromhex("095ea7b3") + encode(["address", "uint256"], [PERMIT2, amount])
    return Calls("o-1", CHAIN, (Call(TOKEN, data),), (), nonce=0, gas_limit=400_000, gas_fee_max=10**9, gas_tip=1)


def permit(spender: str = ROUTER) -> TypedData:
    details = {"token": TOKEN, "amount": Units(2**159 + 1), "expiration": DEADLINE_S, "nonce": 0}
    domain: dict[str, str | int] = {"name": "Permit2", "chainId": CHAIN, "verifyingContract": PERMIT2}
    message = {"details": details, "spender": spender, "sigDeadline": DEADLINE_S}
    return TypedData("p-1", domain, {name: list(fields) for name, fields in PERMIT_TYPES.items()}, "PermitSingle", message)


def order(kind: str = "LIMIT") -> VenueRequest:
    names = ("symbol", "side", "type", "timeInForce", "quantity", "price", "newClientOrderId")
    return VenueRequest("o-1", "binance", "place", tuple(zip(names, ("ETHUSDT", "BUY", kind, "GTC", "1", "2", "o-1"), strict=True)))


def allowed(signer: Any) -> Any:
    signer.allow(swap_policy(CHAIN, signer.address, ROUTER, PERMIT2, frozenset({TOKEN}), 10**10, 10**6))
    return signer


async def local() -> Signer:
    return allowed(LocalSigner(bytearray.fromhex(KEY_HEX)))  # type: ignore[no-any-return]


def of_account(kind: str) -> Callable[[], Any]:
    async def make() -> Signer:
        made, account = LocalSigner(bytearray.fromhex(KEY_HEX)), ACCOUNTS[kind](OWNER)
        made.allow(swap_policy(CHAIN, OWNER, ROUTER, PERMIT2, frozenset({TOKEN}), 10**10, 10**6, account=account))
        return AccountSigner(made, account)

    return make


async def venue_key() -> Signer:
    return VenueKey("main", "binance", "public half", Secret(KEY_HEX))


async def close(signer: Any) -> None:
    closing = signer.close()
    if closing is not None:
        await closing


class Case(msgspec.Struct, frozen=True):
    """A signer, something that it signs and as what, something of its own kind that it refuses, and what nothing may show."""

    make: Callable[[], Any]
    signs: Unsigned
    gives: Any
    refuses: Unsigned
    foreign: Unsigned
    canaries: tuple[str, ...] = (KEY_HEX,)


NEAR = {
    "LocalSigner": Case(local, approval(), SignedTransaction, approval(2**256 - 1), order()),
    **{
        f"AccountSigner({kind})": Case(of_account(kind), approval(), SignedTransaction, approval(2**256 - 1), order())
        for kind in ACCOUNTS
    },
    "VenueKey": Case(venue_key, order(), SignedRequest, order("MARKET"), approval()),
}


@pytest.fixture(params=NEAR)
def near(request: pytest.FixtureRequest) -> Case:
    return NEAR[request.param]


ALONE = {"mpc"}  # uses both cores for seconds, so these tests run last and by themselves
KINDS = [pytest.param(kind, marks=pytest.mark.alone) if kind in ALONE else kind for kind in custody_kinds()]


@pytest.fixture(scope="module", params=KINDS)
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("far")
    with importlib.import_module(f"key_{request.param}").open_case(folder) as opened:
        yield opened


@pytest.fixture(scope="module", params=[*NEAR, *KINDS])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    if request.param in NEAR:
        yield NEAR[request.param]
        return
    with importlib.import_module(f"key_{request.param}").open_case(tmp_path_factory.mktemp("far")) as opened:

        async def make() -> Signer:
            return await signer_of(opened)

        yield Case(make, approval(), SignedTransaction, approval(2**256 - 1), order(), opened.canaries)


async def signer_of(far: Far) -> RemoteSigner:
    return allowed(RemoteSigner(await far.open(), patience_s=far.patience_s))  # type: ignore[no-any-return]


# -- every signer ------------------------------------------------------------------------------------------------------


async def test_it_signs_under_the_same_order_id(case: Case) -> None:
    signer = await case.make()
    signed = await signer.sign(case.signs)
    assert isinstance(signed, case.gives)
    assert signed.order_id == case.signs.order_id
    assert msgspec.json.decode(msgspec.json.encode(signed), type=case.gives) == signed, "it travels through the journal's format"
    await close(signer)


async def test_it_refuses_in_one_line_with_exit_code_three(case: Case) -> None:
    signer = await case.make()
    for unsigned in (case.refuses, case.foreign):
        with pytest.raises(SignerError) as caught:
            await signer.sign(unsigned)
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
        shown = "".join(traceback.format_exception(caught.value))
        assert not [canary for canary in case.canaries if canary in shown]
    assert isinstance(await signer.sign(case.signs), case.gives), "a refusal leaves it able to sign"
    await close(signer)


async def test_closed_means_closed(case: Case) -> None:
    signer = await case.make()
    await close(signer)
    await close(signer)
    with pytest.raises(SignerError, match="closed"):
        await signer.sign(case.signs)


async def test_it_is_named_and_hides(case: Case) -> None:
    signer = await case.make()
    assert signer.key_id
    custody: Custody = signer.custody
    assert custody.tier in TIERS
    assert custody.latency in LATENCIES
    shown = f"{signer} {signer!r} {signer.key_id} {custody}"
    assert not [canary for canary in case.canaries if canary in shown]
    assert "****" in shown
    for attempt in (lambda: pickle.dumps(signer), lambda: copy.copy(signer), lambda: copy.deepcopy(signer)):
        with pytest.raises(SignerError):
            attempt()
    assert not hasattr(signer, "__dict__")
    await close(signer)


# -- a key of this process ---------------------------------------------------------------------------------------------


async def test_the_same_request_gives_the_same_signature(near: Case) -> None:
    first, second = await near.make(), await near.make()
    assert await first.sign(near.signs) == await second.sign(near.signs)


async def test_sign_never_waits(near: Case) -> None:
    """In-process signers answer without a suspension, so that two requests cannot interleave."""
    coroutine = (await near.make()).sign(near.signs)
    assert inspect.iscoroutine(coroutine)
    with pytest.raises(StopIteration):
        coroutine.send(None)


# -- a key that lies elsewhere -----------------------------------------------------------------------------------------


def test_its_settings_are_its_own(far: Far) -> None:
    kind, config = far.module.__name__.rpartition(".")[2], far.module.Config
    assert config.model_fields["kind"].default == kind
    assert config.model_config["extra"] == "forbid"
    assert list(inspect.signature(far.module.open_key).parameters) == ["name", "config", "secrets"]
    with pytest.raises(ValueError, match=r"(?i)extra"):
        config.model_validate(far.settings | {"surprise": 1})
    with pytest.raises(ValueError, match="address"):
        config.model_validate(far.settings | {"address": "0x12"})
    shown = repr(config.model_validate(far.settings))
    assert not [canary for canary in far.canaries if canary in shown]


async def test_what_it_signs_is_of_its_account(far: Far) -> None:
    """Each signature is made anew where the key is; every chain would take it."""
    signer = await signer_of(far)
    assert signer.address == far.address
    assert signer.custody == far.module.CUSTODY
    assert signer.custody.kind == far.module.__name__.rpartition(".")[2]
    for nonce in range(min(8, far.many)):  # above half the order as often as below, where a service does not care
        signed = await signer.sign(msgspec.structs.replace(approval(), nonce=nonce))
        assert isinstance(signed, SignedTransaction)
        assert Account.recover_transaction(signed.raw) == far.address
        typed = await signer.sign(permit())
        assert isinstance(typed, SignedTyped)
        assert recovered(typed_digest(permit()), typed.signature) == far.address
    await signer.close()


@pytest.mark.parametrize("kind", ACCOUNTS)
async def test_it_acts_for_an_account_within_the_agents_policy(far: Far, kind: str) -> None:
    """What the account is to do goes into one transaction of the key; a key with a policy of its own that knows none refuses."""
    signer = RemoteSigner(await far.open())
    account = ACCOUNTS[kind](signer.address)
    signer.allow(swap_policy(CHAIN, signer.address, ROUTER, PERMIT2, frozenset({TOKEN}), 10**10, 10**6, account=account))
    acting = RemoteAccountSigner(signer, account)
    assert (acting.address.lower(), acting.key_id, acting.custody) == (account.address, signer.key_id, far.module.CUSTODY)
    with pytest.raises(SignerError):
        await acting.sign(approval(2**256 - 1))
    if far.module.CUSTODY.tier == "warm":
        with pytest.raises(SignerError, match="refuses: "):
            await acting.sign(approval())
    else:
        signed = await acting.sign(approval())
        assert isinstance(signed, SignedTransaction)
        assert Account.recover_transaction(signed.raw) == far.address
    await acting.close()
    with pytest.raises(SignerError, match="closed"):
        await acting.sign(approval())


async def test_it_is_as_quick_as_it_is_told_to_be(far: Far) -> None:
    """With the far end on this machine, and people who say yes at once; the bound leaves room for a busy one. See docs/keys.md."""
    key, took_s = await far.open(), []
    signer = allowed(RemoteSigner(key, patience_s=far.patience_s))
    if far.warm is not None:
        await far.warm(key)
    for nonce in range(far.many):
        begun = time.perf_counter()
        await signer.sign(msgspec.structs.replace(approval(), nonce=nonce))
        took_s.append(time.perf_counter() - begun)
    assert statistics.median(took_s) < {"milliseconds": 0.25, "people": 0.25}[far.module.CUSTODY.latency]
    await signer.close()


async def test_several_requests_at_once(far: Far) -> None:
    signer = await signer_of(far)
    wanted = [msgspec.structs.replace(approval(amount), nonce=amount) for amount in range(1, far.many + 1)]
    signed = await asyncio.gather(*map(signer.sign, wanted))
    assert [(one.nonce, Account.recover_transaction(one.raw)) for one in signed] == [
        (n, far.address) for n in range(1, far.many + 1)
    ]
    await signer.close()


async def test_another_account_is_not_taken_for_it(far: Far) -> None:
    other = "0x" + "17" * 20
    with pytest.raises(IsthmusError, match=r"(?i)0x1717") as caught:
        await far.open(address=other)
    assert far.address.lower() in str(caught.value).lower(), "both are told, so that one can be corrected"


async def test_a_request_that_was_given_up_disturbs_no_other(far: Far) -> None:
    signer = await signer_of(far)
    for patience_s in (0.0, 0.0002, 0.001):
        asked = asyncio.create_task(signer.sign(approval()))
        await asyncio.wait([asked], timeout=patience_s)
        asked.cancel()
        await asyncio.wait([asked])
        signed = await signer.sign(approval(7))
        assert Account.recover_transaction(signed.raw) == far.address
    await signer.close()


async def test_away_is_unavailable_and_back_is_well(far: Far) -> None:
    if far.away is None or far.back is None:
        pytest.skip("it lives in our own process and cannot leave")
    signer = await signer_of(far)
    assert await signer.health() == ""
    far.away()
    try:
        for _ in range(2):
            with pytest.raises(SignerUnavailableError) as caught:
                await signer.sign(approval())
            assert "\n" not in str(caught.value)
        assert await signer.health()
        with pytest.raises(SignerUnavailableError):
            await far.open()
    finally:
        far.back()
    assert await signer.health() == ""
    assert isinstance(await signer.sign(approval()), SignedTransaction)
    await signer.close()
