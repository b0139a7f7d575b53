"""Transactions read back from their bytes: every one that this program writes, and not one written in another way."""

import onchain_samples as o
import pytest
import rlp
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SignerError
from agent.domain.plan import SignedTransaction
from agent.keys.digest import Transaction, checksum, keccak, transaction_fields, transaction_preimage
from agent.keys.local import LocalSigner
from agent.keys.raw import BYTES_MAX, read_signature, read_transaction
from agent.keys.steps import Preimage, alone, steps

WORDS = st.one_of(st.integers(0, 300), st.integers(0, 2**256 - 1))
SMALL = st.one_of(st.integers(1, 300), st.integers(1, 2**64 - 2))
DATA = st.one_of(st.binary(max_size=80), st.binary(min_size=250, max_size=300))


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    fee = draw(WORDS)
    tip = draw(st.integers(0, fee))
    return Transaction(
        draw(SMALL), draw(SMALL), tip, fee, draw(SMALL), draw(st.binary(min_size=20, max_size=20)), draw(WORDS), draw(DATA)
    )


def written(tx: Transaction) -> bytes:
    return transaction_preimage(transaction_fields(tx))


@given(transactions())
def test_what_is_written_is_read(tx: Transaction) -> None:
    assert read_transaction(written(tx)) == tx


@given(transactions(), st.data())
def test_bytes_that_are_read_are_the_only_way_to_write_it(tx: Transaction, data: st.DataObject) -> None:
    """Changed, cut or longer: what is still read is another transaction, written in the one way. The judge is another reader."""
    raw = bytearray(written(tx))
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(("flip", "cut", "more"))):
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[at:]
        case _:
            raw += b"\x80"
    try:
        found = read_transaction(bytes(raw))
    except SignerError:
        return
    fields = rlp.decode(bytes(raw[1:]), strict=True)
    assert found != tx
    assert [int.from_bytes(one, "big") for one in fields[:5]] == [
        found.chain_id, found.nonce, found.gas_tip, found.gas_fee_max, found.gas_limit
    ]  # fmt: skip
    assert (fields[5], int.from_bytes(fields[6], "big"), fields[7], fields[8]) == (found.to, found.value, found.data, [])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for raw in (noise, b"\x02" + noise, b"\x02\xf8" + noise):
        try:
            assert written(read_transaction(raw)) == raw
        except SignerError:
            continue


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        b"\x01\xc0",
        b"\x02\xc0",
        b"\x02\xff" + b"\xff" * 8,
        b"\x02" + rlp.encode([b"\x01"] * 5 + [b"\x11" * 20, b"", b"", [[b"\x11" * 20, []]]]),
        b"\x02" + rlp.encode([b"\x00"] + [b"\x01"] * 4 + [b"\x11" * 20, b"", b"", []]),
        b"\x02" + rlp.encode([b"\x01"] * 5 + [b"", b"", b"\x60", []]),
        b"\x02" + rlp.encode([b"\x01"] * 5 + [b"\x11" * 20, b"", bytes(BYTES_MAX), []]),
        keccak(b"a bare hash"),
    ],
    ids=["nothing", "no list", "another type", "empty", "endless", "access list", "padded", "creation", "too long", "hash"],
)
def test_what_this_signer_does_not_understand(raw: bytes) -> None:
    with pytest.raises(SignerError):
        read_transaction(raw)


@given(transactions(), st.integers(0, 2**64))
def test_a_signature_is_found_in_what_another_program_signed(tx: Transaction, other: int) -> None:
    account = Account.from_key(o.KEY_HEX)
    fields = {
        "type": 2, "chainId": tx.chain_id, "nonce": tx.nonce, "maxPriorityFeePerGas": tx.gas_tip, "maxFeePerGas": tx.gas_fee_max,
        "gas": tx.gas_limit, "to": checksum(tx.to), "value": tx.value, "data": tx.data,
    }  # fmt: skip
    signed = account.sign_transaction(fields)
    raw = bytes(signed.raw_transaction)
    assert read_signature(raw, tx) == (signed.r, signed.s)
    changed = Transaction(tx.chain_id, tx.nonce ^ 1, tx.gas_tip, tx.gas_fee_max, tx.gas_limit, tx.to, tx.value, tx.data)
    for wrong, asked in (
        (raw, changed),
        (raw[:-1], tx),
        (raw + b"\x80", tx),
        (b"\x01" + raw[1:], tx),
        (written(tx), tx),
        (b"", tx),
    ):
        with pytest.raises(SignerError):
            read_signature(wrong, asked)


def test_each_step_of_a_swap_passes_alone_and_not_with_another_policy() -> None:
    """A process that is shown one step at a time decides as the agent does for the whole."""
    signer = LocalSigner(bytearray.fromhex(o.KEY_HEX))
    signer.allow(o.policy())
    work = steps(o.permit_and_swap(), {o.CHAIN: o.policy()}, signer.address, "k")
    permit = next(work)
    step = work.send(signer.sign_preimage(permit))
    assert (permit.kind, step.kind) == ("typed", "transaction")
    with pytest.raises(StopIteration) as done:
        work.send(signer.sign_preimage(step))
    assert isinstance(done.value.value, SignedTransaction)
    assert done.value.value == signer.sign_now(o.permit_and_swap())
    for kind in ("typed", "transaction"):
        with pytest.raises(SignerError):
            signer.sign_preimage(Preimage(kind, step.digest, step.source))  # type: ignore[arg-type]
    with pytest.raises(SignerError, match="policy"):
        alone(step, {o.CHAIN: o.policy(router=o.OTHER, contracts={})}, "k")
    with pytest.raises(SignerError, match="no policy"):
        alone(step, {}, "k")
