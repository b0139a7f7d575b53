"""Who a party is on the wire: a key and a self-signed certificate of its own, known to the others by its SHA-256.

There is no authority that could name somebody else: each side of a connection must show the very certificate that the group's file
holds for it. TLS 1.3 does the rest. Sources: RFC 8446, RFC 5280.
"""

import datetime
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.domain.errors import SecretError
from agent.keys.cosigner.vault import NEEDS_CRYPTOGRAPHY, wipe

YEARS = 50  # what is pinned needs no end; a new identity is a new group


class Identity(msgspec.Struct, frozen=True):
    """`certificate`: DER, for everybody. `key`: PKCS #8, in nobody else's hands."""

    certificate: bytes
    key: bytearray

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)

    def __repr__(self) -> str:
        return f"Identity({self.fingerprint}, key=****)"


def fingerprint(certificate: bytes) -> str:
    """64 hex digits that two people compare."""
    return hashlib.sha256(certificate).hexdigest()


def new_identity(name: str) -> Identity:
    """From the system's randomness. `name` is for people. Raises SecretError where the library is missing."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    except ImportError:
        raise SecretError(NEEDS_CRYPTOGRAPHY) from None
    key = Ed25519PrivateKey.generate()
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"isthmus cosigner {name}")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
    )
    secret = bytearray(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return Identity(certificate.public_bytes(Encoding.DER), secret)


def tls_contexts(identity: Identity, others: Iterable[bytes]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For those who dial us and for those whom we dial: both must show one of the certificates `others`. Raises SecretError."""
    trusted = "".join(map(ssl.DER_cert_to_PEM_cert, others))
    found = []
    for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate itself is pinned, whatever the address
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=trusted)
            _load(context, identity)
        except (ssl.SSLError, ValueError):
            raise SecretError("a certificate of the group's file cannot be used; copy the file again") from None
        found.append(context)
    return found[0], found[1]


def shown(connection: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """The fingerprint of the certificate at the other end; empty if there is none."""
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    return fingerprint(certificate) if certificate else ""


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    """TLS takes keys from files only: it is given one under a password of its own that is used once and never kept."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_der_private_key

    once = bytearray(os.urandom(24).hex().encode())
    key = load_der_private_key(bytes(identity.key), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(bytes(once)))
    handle, name = tempfile.mkstemp(prefix="isthmus-", suffix=".pem")  # mode 600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem + ssl.DER_cert_to_PEM_cert(identity.certificate).encode())
        context.load_cert_chain(name, password=bytes(once))
    finally:
        Path(name).unlink(missing_ok=True)
        wipe(once)
