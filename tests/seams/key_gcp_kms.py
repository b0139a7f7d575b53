"""How the signer suite reaches a key of kind `gcp_kms`: a stand-in of the documented shape, tokens by the real library."""

import base64
import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cloud_stub import Answer, CloudStub, signed_der, with_token
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from key_case import Far

from agent.keys.curve_point import address_of, point_of
from agent.keys.custody import gcp_kms

VERSION = "projects/desk/locations/europe-west3/keyRings/agent/cryptoKeys/wallet/cryptoKeyVersions/1"
PEM, SPKI = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


@contextlib.contextmanager
def open_stub(folder: Path) -> Iterator[tuple[Far, CloudStub]]:
    key, caller = ec.generate_private_key(ec.SECP256K1()), rsa.generate_private_key(65_537, 2_048)
    token = secrets.token_hex(20)

    def give_token(body: bytes, _talk: Any) -> Answer:
        """RFC 7523: the library signs a statement with the key of its account."""
        form = parse_qs(body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        statement, _, signature = form["assertion"][0].rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        caller.public_key().verify(raw, statement.encode(), padding.PKCS1v15(), hashes.SHA256())
        return 200, {"access_token": token, "expires_in": 3_600, "token_type": "Bearer"}

    def public(_body: bytes, _talk: Any) -> Answer:
        pem = key.public_key().public_bytes(PEM, SPKI).decode()
        return 200, {"pem": pem, "algorithm": "EC_SIGN_SECP256K1_SHA256", "name": VERSION, "protectionLevel": "HSM"}

    def sign(body: bytes, _talk: Any) -> Answer:
        asked = json.loads(body)
        assert asked.keys() == {"digest"}
        raw = signed_der(key, base64.b64decode(asked["digest"]["sha256"], validate=True))
        return 200, {"signature": base64.b64encode(raw).decode(), "name": VERSION, "protectionLevel": "HSM"}

    stub = CloudStub(
        {
            ("POST", "/token"): give_token,
            ("GET", f"/v1/{VERSION}/publicKey"): with_token(token, public),
            ("POST", f"/v1/{VERSION}:asymmetricSign"): with_token(token, sign),
        }
    )
    pem = caller.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    account = {
        "type": "service_account",
        "client_email": "agent@desk.iam.gserviceaccount.com",
        "private_key": pem,
        "private_key_id": "1",
        "project_id": "desk",
        "token_uri": f"{stub.url}/token",
    }
    (folder / "account.json").write_text(json.dumps(account))
    address = address_of(point_of(key.public_key().public_bytes(serialization.Encoding.DER, SPKI)))
    settings = {"kind": "gcp_kms", "address": address, "version": VERSION, "endpoint": stub.url}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        try:
            yield Far(gcp_kms, folder, address, settings, (token, pem), stub.stop, stub.start), stub
        finally:
            stub.stop()


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    with open_stub(folder) as (far, _):
        yield far
