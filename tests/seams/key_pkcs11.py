"""How the signer suite reaches a key of kind `pkcs11`: SoftHSM, with a token of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from key_case import Far
from soft_hsm import LABEL, TOKEN, make_key, make_token, module

from agent.keys.curve_point import address_of
from agent.keys.custody import pkcs11

PIN = "pin5678canary"


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    library = module()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        make_token(folder, PIN)
        (folder / "pin").touch(mode=0o600)
        (folder / "pin").write_text(PIN)
        address = address_of(make_key(library, PIN))
        settings = {"kind": "pkcs11", "address": address, "module": library, "token": TOKEN, "label": LABEL, "pin": "file:pin"}
        yield Far(pkcs11, folder, address, settings, (PIN,))
