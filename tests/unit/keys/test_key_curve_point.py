"""Public keys and signatures from elsewhere, read strictly. The judge is OpenSSL, through `cryptography`."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SignerError
from agent.keys.curve_point import address_of, point_of, read_der, read_pair
from agent.keys.remote import ORDER

WORDS = st.one_of(st.integers(1, 300), st.integers(1, ORDER - 1), st.integers(2**255 - 5, 2**255 + 5))
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
DER = serialization.Encoding.DER


@given(WORDS, WORDS)
def test_every_signature_is_read(r: int, s: int) -> None:
    assert read_der(encode_dss_signature(r, s)) == (r, s)
    assert read_pair(r.to_bytes(32, "big") + s.to_bytes(32, "big")) == (r, s)


@given(WORDS, WORDS, st.data())
def test_what_is_read_is_the_only_way_to_write_it(r: int, s: int, data: st.DataObject) -> None:
    raw = bytearray(encode_dss_signature(r, s))
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(("flip", "cut", "more"))):
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[at:]
        case _:
            raw.insert(at, data.draw(st.integers(0, 255)))
    try:
        found = read_der(bytes(raw))
    except SignerError:
        return
    assert encode_dss_signature(*found) == bytes(raw)
    assert decode_dss_signature(bytes(raw)) == found


@given(st.binary(max_size=80))
def test_noise_is_no_signature(noise: bytes) -> None:
    for raw in (noise, b"\x30" + bytes((len(noise),)) + noise):
        try:
            assert encode_dss_signature(*read_der(raw)) == raw
        except SignerError:
            continue
    if len(noise) != 64:
        with pytest.raises(SignerError, match="r and s have 64"):
            read_pair(noise)


@given(st.integers(1, ORDER - 1))
def test_an_address_is_that_of_every_wallet(secret: int) -> None:
    spki = ec.derive_private_key(secret, ec.SECP256K1()).public_key().public_bytes(DER, SPKI)
    assert address_of(point_of(spki)) == Account.from_key(secret.to_bytes(32, "big")).address


def test_another_kind_of_key_is_refused() -> None:
    k1, r1 = ec.generate_private_key(ec.SECP256K1()).public_key(), ec.generate_private_key(ec.SECP256R1()).public_key()
    other = rsa.generate_private_key(65_537, 2_048).public_key()
    good = k1.public_bytes(DER, SPKI)
    for wrong in (r1.public_bytes(DER, SPKI), other.public_bytes(DER, SPKI), good[:-1], good + b"\0", b"", b"\x30" + good[1:-1]):
        with pytest.raises(SignerError, match="secp256k1"):
            point_of(wrong)
    compressed = k1.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    for wrong in (compressed, b"\x04" + bytes(63), b"", b"\x03" + bytes(64)):
        with pytest.raises(SignerError, match="uncompressed point"):
            address_of(wrong)
