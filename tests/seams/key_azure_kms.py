"""How the signer suite reaches a key of kind `azure_kms`: a stand-in of the documented shape, tokens by the real library."""

import base64
import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_stub import Answer, CloudStub, query, signed_pair, url_base64, with_token
from cryptography.hazmat.primitives.asymmetric import ec
from key_case import Far

from agent.keys.curve_point import address_of
from agent.keys.custody import azure_kms

KEY, VERSION = "wallet", "0123456789abcdef0123456789abcdef"
PATH = f"/keys/{KEY}/{VERSION}"


@contextlib.contextmanager
def open_stub(folder: Path) -> Iterator[tuple[Far, CloudStub]]:
    key = ec.generate_private_key(ec.SECP256K1())
    token, header = secrets.token_hex(20), secrets.token_hex(8)
    numbers = key.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    kid = f"https://desk.vault.azure.net{PATH}"

    def give_token(_body: bytes, talk: Any) -> Answer:
        """The identity of a machine, as App Service hands it out."""
        assert talk.headers["X-IDENTITY-HEADER"] == header
        assert query(talk)["resource"] == ["https://vault.azure.net"]
        return 200, {"access_token": token, "expires_on": str(int(time.time()) + 3_600), "token_type": "Bearer", "resource": "r"}

    def public(_body: bytes, talk: Any) -> Answer:
        assert query(talk)["api-version"] == ["7.4"]
        found = {"kid": kid, "kty": "EC-HSM", "crv": "P-256K", "x": url_base64(x), "y": url_base64(y), "key_ops": ["sign"]}
        return 200, {"key": found, "attributes": {"enabled": True}}

    def sign(body: bytes, talk: Any) -> Answer:
        asked = json.loads(body)
        assert (asked["alg"], query(talk)["api-version"]) == ("ES256K", ["7.4"])
        digest = base64.urlsafe_b64decode(asked["value"] + "=")
        return 200, {"kid": kid, "value": url_base64(signed_pair(key, digest))}

    stub = CloudStub(
        {
            ("GET", "/identity"): give_token,
            ("GET", PATH): with_token(token, public),
            ("POST", f"{PATH}/sign"): with_token(token, sign),
        }
    )
    address = address_of(b"\x04" + x + y)
    settings = {"kind": "azure_kms", "address": address, "vault": stub.url, "key": KEY, "version": VERSION}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AZURE_")]:
            patch.delenv(name)
        patch.setenv("IDENTITY_ENDPOINT", f"{stub.url}/identity")
        patch.setenv("IDENTITY_HEADER", header)
        patch.setenv("NO_PROXY", "127.0.0.1")
        try:
            yield Far(azure_kms, folder, address, settings, (token, header), stub.stop, stub.start), stub
        finally:
            stub.stop()


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    with open_stub(folder) as (far, _):
        yield far
