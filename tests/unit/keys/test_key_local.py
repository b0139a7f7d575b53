"""The local signer: its transactions and signatures are eth-account's, its key never shows, and it refuses what it should."""

import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import onchain_samples as o
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignatureSlot, SignedTransaction, SignedTyped, VenueRequest
from agent.keys.digest import checksum
from agent.keys.local import LocalSigner, assert_fast_backend
from agent.keys.memory import KeyPage


class FixedClock:
    """The chain's clock, standing still."""

    def __init__(self, at_s: int) -> None:
        self.at_s = at_s

    def now_ns(self) -> int:
        return self.at_s * 1_000_000_000

    async def sleep(self, seconds: float) -> None:
        self.at_s += int(seconds)


def signer(at_s: int | None = None) -> LocalSigner:
    made = LocalSigner(bytearray.fromhex(o.KEY_HEX), clock=None if at_s is None else FixedClock(at_s))
    made.allow(o.policy())
    return made


async def test_a_permit_and_a_swap_become_the_transaction_that_eth_account_makes() -> None:
    unsigned = o.permit_and_swap()
    signed = await signer().sign(unsigned)
    account, slot = Account.from_key(o.KEY_HEX), unsigned.slots[0]
    permit = account.sign_typed_data(slot.typed.domain, slot.typed.types, slot.typed.message).signature
    data = unsigned.calls[0].data
    data = data[: slot.offset] + bytes(permit) + data[slot.offset + 65 :]
    fees = {"maxPriorityFeePerGas": unsigned.gas_tip, "maxFeePerGas": unsigned.gas_fee_max, "gas": unsigned.gas_limit}
    plain = {
        "type": 2,
        "chainId": o.CHAIN,
        "nonce": 7,
        **fees,
        "to": checksum(bytes.fromhex(o.ROUTER[2:])),
        "value": 0,
        "data": "0x" + data.hex(),
    }
    expected = account.sign_transaction(plain)
    assert isinstance(signed, SignedTransaction)
    assert signed.raw == bytes(expected.raw_transaction)
    assert signed.tx_hash == "0x" + bytes(expected.hash).hex()
    assert (signed.sender, signed.nonce, signed.chain_id, signed.order_id) == (o.OWNER, 7, o.CHAIN, "o-1")


async def test_typed_data_is_signed_as_eth_account_does() -> None:
    typed = o.permit_typed()
    signed = await signer().sign(typed)
    account = Account.from_key(o.KEY_HEX)
    assert isinstance(signed, SignedTyped)
    assert signed.signature == bytes(account.sign_typed_data(typed.domain, typed.types, typed.message).signature)
    message = encode_typed_data(typed.domain, typed.types, typed.message)
    assert Account.recover_message(message, signature=signed.signature) == signed.signer == o.OWNER


async def test_with_a_clock_deadlines_are_at_most_an_hour_ahead() -> None:
    await signer(o.DEADLINE_S - 3_600).sign(o.permit_and_swap())
    with pytest.raises(SignerError, match="execute deadline"):
        await signer(o.DEADLINE_S - 3_601).sign(o.permit_and_swap())
    with pytest.raises(SignerError, match="permit expiration"):
        await signer(o.DEADLINE_S - 3_601).sign(o.permit_typed())


async def test_without_a_policy_nothing_is_signed() -> None:
    fresh = LocalSigner(bytearray.fromhex(o.KEY_HEX))
    for unsigned in (o.permit_and_swap(), o.permit_typed()):
        with pytest.raises(SignerError, match="has no policy for chain 31337"):
            await fresh.sign(unsigned)
    with pytest.raises(SignerError, match="has no policy for chain None"):
        await fresh.sign(o.permit_typed().__class__("p", {"name": "Permit2"}, {}, "PermitSingle", {}))


def test_a_policy_is_for_this_key_and_is_never_widened() -> None:
    made = signer()
    with pytest.raises(SignerError, match="has a policy for chain 31337 already"):
        made.allow(o.policy(gas_fee_max=10**18))
    with pytest.raises(SignerError, match="the policy is for"):
        made.allow(o.policy(owner=o.THIEF, chain_id=1))


async def test_venue_requests_need_a_venue_key() -> None:
    with pytest.raises(SignerError, match="needs that venue's own key"):
        await signer().sign(VenueRequest("o-1", "binance", "place", ()))


async def test_slots_must_be_the_permits_of_the_call() -> None:
    good = o.permit_and_swap()
    slot = good.slots[0]

    async def refused(reason: str, slots: tuple[SignatureSlot, ...], data: bytes = good.calls[0].data) -> None:
        with pytest.raises(SignerError, match=reason):
            await signer().sign(o.calls(data, slots=slots))

    await refused("is not the signature of a permit", (SignatureSlot(0, slot.offset + 1, slot.typed),))
    await refused("is not the signature of a permit", (SignatureSlot(1, slot.offset, slot.typed),))
    await refused("is not the signature of a permit", (SignatureSlot(0, -65, slot.typed),))
    await refused("same place", (slot, slot))
    await refused("is not the permit in the call", (SignatureSlot(0, slot.offset, o.permit_typed(amount=10**7)),))
    await refused("is not the permit in the call", (SignatureSlot(0, slot.offset, o.permit_typed(nonce=1)),))
    await refused("no policy for chain 1|is not the permit", (SignatureSlot(0, slot.offset, o.permit_typed(chain_id=1)),))
    await refused("a permit for 0xdd", (SignatureSlot(0, slot.offset, o.permit_typed(spender=o.THIEF)),))
    filled = o.execute(b"\x0a\x00", [o.permit_input(signature=b"\x01" * 65), o.v3()])
    await refused("is not empty", (slot,), filled)


async def test_widths_that_no_policy_bounds_are_checked() -> None:
    for change in ({"nonce": -1}, {"nonce": 2**64}, {"gas_tip": 31 * 10**9}, {"gas_limit": 0}):
        with pytest.raises(SignerError, match="transaction: the"):
            await signer().sign(o.calls(o.approve(), to=o.USDC, **change))


async def test_a_closed_signer_refuses() -> None:
    made = signer()
    made.close()
    made.close()
    with pytest.raises(SignerError, match="closed"):
        await made.sign(o.permit_typed())


async def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    made = signer()
    texts = [repr(made), str(made), f"{made}", repr(made._key), made.key_id]
    logging.getLogger("keys").warning("%s %r", made, made)
    for attempt in (lambda: pickle.dumps(made), lambda: copy.deepcopy(made), lambda: pickle.dumps(made._key)):
        with pytest.raises(SignerError) as caught:
            attempt()
        texts += traceback.format_exception(caught.value)
    for unsigned in (o.calls(b""), o.permit_typed(amount=-1), VenueRequest("o", "v", "place", ())):
        with pytest.raises(SignerError) as caught:
            await made.sign(unsigned)
        texts += traceback.format_exception(caught.value)
        assert "\n" not in str(caught.value)
    shown = " ".join([*texts, caplog.text]).lower()
    assert o.KEY_HEX not in shown
    assert str(int(o.KEY_HEX, 16)) not in shown
    assert repr(bytes.fromhex(o.KEY_HEX))[2:-1].lower() not in shown


def test_the_source_is_zeroed_and_close_wipes() -> None:
    source = bytearray.fromhex(o.KEY_HEX)
    page = KeyPage(source)
    assert source == bytes(32)
    view = page._view
    assert bytes(view[0:32]) == bytes.fromhex(o.KEY_HEX)
    page.close()
    assert page.closed
    short = bytearray(b"\x01" * 31)
    with pytest.raises(SignerError, match="has 32 bytes"):
        KeyPage(short)
    assert short == bytes(31)


@pytest.mark.parametrize("number", [0, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141, 2**256 - 1])
def test_numbers_that_are_no_key(number: int) -> None:
    with pytest.raises(SignerError, match="not a secp256k1 key"):
        LocalSigner(bytearray(number.to_bytes(32, "big")))


def test_many_signers_come_and_go() -> None:
    for number in range(1, 200):
        LocalSigner(bytearray(number.to_bytes(32, "big"))).close()
    gc.collect()


def run(code: str, **environment: str) -> str:
    """The last line that a fresh Python prints for `code`."""
    root = Path(__file__).parents[3]
    path = os.pathsep.join(filter(None, (environment.pop("first", ""), str(root))))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux grants")
def test_hardening_holds_and_a_fork_has_no_key() -> None:
    out = run(
        "import os, resource\n"
        "from agent.keys.memory import harden_process, KeyPage\n"
        "print(harden_process(), resource.getrlimit(resource.RLIMIT_CORE))\n"
        "page = KeyPage(bytearray(b'k' * 32))\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.write(write, bytes(page.pointer[0:32])); os._exit(0)\n"
        "os.wait()\n"
        "print(os.read(read, 32) == bytes(32), bytes(page.pointer[0:32]) == b'k' * 32)\n"
    )
    assert out.splitlines() == ["Hardening(core_dumps_off=True, undumpable=True) (0, 0)", "True True"]


CHECK = (
    "from agent.domain.errors import SignerError\n"
    "from agent.keys.local import assert_fast_backend\n"
    "try:\n    assert_fast_backend()\nexcept SignerError as error:\n    print(error)\n"
)


def test_the_fast_backend_is_in_use() -> None:
    assert_fast_backend()


def test_a_slow_curve_is_noticed() -> None:
    assert "unset ECC_BACKEND_CLASS" in run(CHECK, ECC_BACKEND_CLASS="eth_keys.backends.native.NativeECCBackend")


def test_a_stand_in_for_keccak_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "sha3.py").write_text(
        "from Crypto.Hash import keccak as k\ndef keccak_256(b):\n    return k.new(data=b, digest_bits=256)\n"
    )
    assert "install safe-pysha3" in run(CHECK, first=str(tmp_path))


def test_two_calls_are_refused() -> None:
    call = Call(o.ROUTER, o.execute(b"\x00", [o.v3()]))
    coroutine = signer().sign(Calls("o", o.CHAIN, (call, call), (), 0, 1, 1, 1))
    with pytest.raises(SignerError, match="exactly one call"):
        coroutine.send(None)
