"""SoftHSM for tests: a token in a folder of its own. Debian's `softhsm2`; `.ci/run` installs it.

Where it is not installed the tests that want it skip; with ISTHMUS_REQUIRE_SOFTHSM=1 they fail instead.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so")
TOKEN, LABEL = "agent", "wallet"


def module() -> str:
    """Its library, or a skip."""
    found = os.environ.get("SOFTHSM2_MODULE") or next((place for place in PLACES if Path(place).exists()), "")
    if not found or shutil.which("softhsm2-util") is None:
        assert os.environ.get("ISTHMUS_REQUIRE_SOFTHSM") != "1", "SoftHSM is required here; install softhsm2"
        pytest.skip("SoftHSM is not installed (Debian: softhsm2)")
    return found


def make_token(folder: Path, pin: str) -> None:
    """A token in `folder`; SOFTHSM2_CONF must name its settings before the library is loaded."""
    (folder / "tokens").mkdir(parents=True, exist_ok=True)
    settings = Path(os.environ["SOFTHSM2_CONF"])
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--so-pin", "12345678", "--pin", pin]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def make_key(library: str, pin: str, label: str = LABEL, curve: str = "1.3.132.0.10", **given: Any) -> bytes:
    """A key pair in the token; its point, uncompressed. `given`: attributes of the private key, by name."""
    import pkcs11
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_named_curve_parameters

    lib = pkcs11.lib(library)
    lib.reinitialize()
    with lib.get_token(token_label=TOKEN).open(user_pin=pin, rw=True) as session:
        domain = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
        parameters = session.create_domain_parameters(KeyType.EC, domain, local=True)
        template = {Attribute[name]: value for name, value in given.items()}
        public, _ = parameters.generate_keypair(store=True, label=label, private_template=template)
        return bytes(public[Attribute.EC_POINT])[-65:]
