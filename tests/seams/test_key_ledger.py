"""A Ledger beside the suite: what it is shown, what its owner says, and the pieces that its wires carry. Against a model of it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from key_case import CHAIN, TOKEN
from ledger_device import LOCKED, NO, OK, Ledger

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.domain.plan import Call, TypedData
from agent.keys.accounts.safe import SafeTx, safe_tx_typed
from agent.keys.custody import ledger
from agent.keys.digest import (
    Transaction,
    address_bytes,
    domain_separator,
    struct_hash,
    transaction_fields,
    transaction_preimage,
    typed_preimage,
)
from agent.keys.remote import recovered
from agent.keys.steps import Preimage
from agent.simulation.chain.rpc import DEV_MNEMONIC

SAFE_TX: TypedData = safe_tx_typed("", CHAIN, "0x" + "5a" * 20, SafeTx(TOKEN, 5, b""), 3)


@pytest.fixture
def device() -> Iterator[Ledger]:
    found = Ledger(DEV_MNEMONIC)
    yield found
    found.stop()


def key_of(device: Ledger, path: str = "44'/60'/0'/0/0") -> ledger.LedgerKey:
    address = device.account(f"m/{path}").address
    return ledger.LedgerKey("far", ledger.Config(address=address, path=path, transport=f"tcp://127.0.0.1:{device.port}"))


def transaction(size: int = 0, call: Call | None = None) -> Preimage:
    call = call or Call(TOKEN, bytes(range(256)) * (size // 256) + bytes(size % 256))
    tx = Transaction(CHAIN, 7, 1, 2 * 10**9, 90_000, address_bytes(call.to), call.value, call.data)
    return Preimage("transaction", transaction_preimage(transaction_fields(tx)), tx)


@pytest.mark.parametrize("size", [0, 1, 120, 150, 190, 235, 255, 256, 700, 5_000])
async def test_a_transaction_of_any_size_is_read_whole_and_shown(device: Ledger, size: int) -> None:
    key, wanted = key_of(device), transaction(size)
    assert recovered(wanted.digest, await key.signature(wanted)) == key.address
    (shown,) = device.shown
    assert (shown["to"].hex(), len(shown["data"]), shown["nonce"]) == (TOKEN[2:], size, b"\x07")


async def test_typed_data_are_shown_as_two_hashes(device: Ledger) -> None:
    key, wanted = key_of(device), Preimage("typed", typed_preimage(SAFE_TX), SAFE_TX)
    assert recovered(wanted.digest, await key.signature(wanted)) == key.address
    assert device.shown == [{"domain": domain_separator(SAFE_TX.domain), "message": struct_hash(SAFE_TX)}]


async def test_another_path_is_another_key(device: Ledger) -> None:
    first, other = key_of(device), key_of(device, "44'/60'/3'/0/0")
    assert first.address != other.address
    assert recovered(transaction().digest, await other.signature(transaction())) == other.address


async def test_what_its_owner_says(device: Ledger) -> None:
    key = key_of(device)
    device.says = NO
    with pytest.raises(SignerError, match="its owner said no") as caught:
        await key.signature(transaction())
    assert not isinstance(caught.value, SignerUnavailableError)
    device.says, device.allows_blind = OK, False
    with pytest.raises(SignerError, match="allow blind signing"):
        await key.signature(transaction(9))
    device.is_locked = True
    with pytest.raises(SignerUnavailableError, match="unlock it"):
        await key.signature(transaction())
    assert "unlock it" in await key.health()
    device.is_locked = False
    assert LOCKED in ledger.AWAY
    assert recovered(transaction().digest, await key.signature(transaction())) == key.address


@pytest.mark.parametrize("path", ["", "44'/60'/", "m/44'", "44/-1", "2147483648", "/".join("0" * 11), "44''"])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(ValueError):
        ledger.path_bytes(path)


def test_only_devices_of_this_machine() -> None:
    for wrong in ("tcp://192.0.2.1:9", "tcp://127.0.0.1", "usb"):
        with pytest.raises(ValueError):
            ledger.Config(address=TOKEN, transport=wrong)


@given(st.binary(min_size=1, max_size=500))
def test_reports_carry_every_byte(apdu: bytes) -> None:
    reports = ledger.packets(apdu)
    assert all(len(one) == 64 for one in reports)
    assert ledger.unpacked(iter(reports)) == apdu
    for wrong in (reports[:-1], [reports[0][:-1], *reports[1:]], [b"\2" + one[1:] for one in reports]):
        with pytest.raises(OSError, match="device"):
            ledger.unpacked(iter(wrong))
