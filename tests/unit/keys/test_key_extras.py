"""A cloud's or a module's library that is not installed: the settings are read all the same, and the fix is one line."""

import sys
from pathlib import Path
from typing import Any

import pytest

from agent.config import custody_module, wallet_section
from agent.domain.errors import ConfigError, SecretError
from agent.keys.secrets import Secrets

ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
VERSION = "projects/d/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
EXTRAS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "aws_kms": ("boto3", "aws", {"key_id": "alias/x", "region": "eu-central-1"}),
    "gcp_kms": ("google.auth", "gcp", {"version": VERSION}),
    "azure_kms": ("azure.identity", "azure", {"vault": "https://d.vault.azure.net", "key": "k", "version": "0" * 32}),
    "pkcs11": ("pkcs11", "hsm", {"module": "/lib/x.so", "token": "t", "label": "l", "pin": "env:PIN"}),
}


@pytest.mark.parametrize(("kind", "library", "extra", "given"), [(kind, *rest) for kind, rest in EXTRAS.items()], ids=EXTRAS)
async def test_the_extra_is_named(
    kind: str, library: str, extra: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    config = wallet_section({"kind": kind, "address": ADDRESS, **given}, "isthmus.toml")
    with pytest.raises(SecretError, match=rf"pip install 'isthmus\[{extra}\]'"):
        await custody_module(kind, "x").open_key(kind, config, Secrets(tmp_path))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"kind": "proces"}, "there is no kind \"proces\"; did you mean process"),
        ({"kind": "../x"}, "there is no kind"),
        ({"kind": "process", "address": ADDRESS}, "wallet: socket is missing; add it"),
        ({"kind": "process", "address": ADDRESS, "socket": "s", "sokcet": "s"}, "unknown key sokcet; did you mean socket"),
        ({"kind": "process", "address": "0x12", "socket": "s"}, "address: '0x12' is not an address"),
        ({"kind": "process", "address": ADDRESS.replace("c7", "C7"), "socket": "s"}, "wrong checksum"),
        ({"keystore": "main"}, "wallet: password is missing; add it"),
        ({"kind": "keystore", "keystore": "main", "password": "env:X", "socket": "s"}, "unknown key socket; remove it"),
    ],
)  # fmt: skip
def test_mistakes_in_the_section_are_named(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        wallet_section(section, "isthmus.toml")
    assert str(caught.value).startswith("isthmus.toml: wallet")
