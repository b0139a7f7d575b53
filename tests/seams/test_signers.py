"""One suite for every signer: it signs what it understands, refuses the rest in one line, and never shows what it holds."""

import copy
import inspect
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from eth_abi.abi import encode

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignedRequest, SignedTransaction, Unsigned, VenueRequest
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.signer import SafeSigner
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from agent.ports import Signer

SECRET = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
OWNER = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
PERMIT2, ROUTER, TOKEN = "0x000000000022D473030F116dDEE9F6B43aC78BA3", "0x" + "a1" * 20, "0x" + "b1" * 20


def approval(amount: int = 5) -> Calls:
    data = bytes.fromhex("095ea7b3") + encode(["address", "uint256"], [PERMIT2, amount])
    return Calls("o-1", 31337, (Call(TOKEN, data),), (), nonce=0, gas_limit=60_000, gas_fee_max=10**9, gas_tip=1)


def order(kind: str = "LIMIT") -> VenueRequest:
    names = ("symbol", "side", "type", "timeInForce", "quantity", "price", "newClientOrderId")
    return VenueRequest("o-1", "binance", "place", tuple(zip(names, ("ETHUSDT", "BUY", kind, "GTC", "1", "2", "o-1"), strict=True)))


def local() -> Signer:
    made = LocalSigner(bytearray.fromhex(SECRET))
    made.allow(swap_policy(31337, OWNER, ROUTER, PERMIT2, frozenset({TOKEN}), 10**10, 10**6))
    return made


def of_safe() -> Signer:
    account = Safe("0x" + "5a" * 20, "0x" + "3b" * 20)
    made = LocalSigner(bytearray.fromhex(SECRET))
    made.allow(swap_policy(31337, OWNER, ROUTER, PERMIT2, frozenset({TOKEN}), 10**10, 10**6, account=account))
    return SafeSigner(made, account)


def venue_key() -> Signer:
    return VenueKey("main", "binance", "public half", Secret(SECRET))


class Case(msgspec.Struct, frozen=True):
    """A signer, something that it signs and as what, and something of its own kind that it refuses."""

    make: Callable[[], Any]
    signs: Unsigned
    gives: Any
    refuses: Unsigned
    foreign: Unsigned


CASES = {
    "LocalSigner": Case(local, approval(), SignedTransaction, approval(2**256 - 1), order()),
    "SafeSigner": Case(of_safe, approval(), SignedTransaction, approval(2**256 - 1), order()),
    "VenueKey": Case(venue_key, order(), SignedRequest, order("MARKET"), approval()),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


async def test_it_signs_under_the_same_order_id(case: Case) -> None:
    signed = await case.make().sign(case.signs)
    assert isinstance(signed, case.gives)
    assert signed.order_id == case.signs.order_id


async def test_the_same_request_gives_the_same_signature(case: Case) -> None:
    assert await case.make().sign(case.signs) == await case.make().sign(case.signs)


async def test_signed_values_travel_through_the_journal_format(case: Case) -> None:
    signed = await case.make().sign(case.signs)
    assert msgspec.json.decode(msgspec.json.encode(signed), type=case.gives) == signed


async def test_it_refuses_in_one_line_with_exit_code_three(case: Case) -> None:
    for unsigned in (case.refuses, case.foreign):
        with pytest.raises(SignerError) as caught:
            await case.make().sign(unsigned)
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_refusal_leaves_it_able_to_sign(case: Case) -> None:
    signer = case.make()
    with pytest.raises(SignerError):
        await signer.sign(case.refuses)
    assert isinstance(await signer.sign(case.signs), case.gives)


async def test_closed_means_closed(case: Case) -> None:
    signer = case.make()
    signer.close()
    signer.close()
    with pytest.raises(SignerError, match="closed"):
        await signer.sign(case.signs)


def test_it_is_named_and_hides(case: Case) -> None:
    signer = case.make()
    assert signer.key_id
    shown = f"{signer} {signer!r} {signer.key_id}"
    assert SECRET not in shown
    assert "****" in shown
    for attempt in (lambda: pickle.dumps(signer), lambda: copy.copy(signer), lambda: copy.deepcopy(signer)):
        with pytest.raises(SignerError):
            attempt()
    assert not hasattr(signer, "__dict__")


def test_sign_never_waits(case: Case) -> None:
    """In-process signers answer without a suspension, so that two requests cannot interleave."""
    coroutine = case.make().sign(case.signs)
    assert inspect.iscoroutine(coroutine)
    with pytest.raises(StopIteration):
        coroutine.send(None)
