"""A module whose token, key or PIN is not as it should be: told in one line with the fix, and nothing is signed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from key_case import Far
from key_pkcs11 import PIN, open_case
from pkcs11 import lib
from soft_hsm import make_key
from test_signers import approval, signer_of

from agent.domain.errors import IsthmusError, SecretError, SignerError, SignerUnavailableError
from agent.domain.plan import SignedTransaction
from agent.keys.curve_point import address_of
from agent.keys.custody import pkcs11

pytestmark = pytest.mark.xdist_group("signers")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with open_case(tmp_path_factory.mktemp("hsm")) as opened:
        yield opened


async def complains(far: Far, error: type[IsthmusError], words: str, **changes: str) -> None:
    with pytest.raises(error, match=words) as caught:
        await far.open(**changes)
    assert "\n" not in str(caught.value)
    assert PIN not in str(caught.value)


async def test_settings_that_do_not_fit_the_module(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG_PIN", "0000")
    await complains(far, SecretError, "does not open the token agent; check wallet.pin", pin="env:WRONG_PIN")
    await complains(far, SignerUnavailableError, "there is no token", token="another")
    await complains(far, SignerError, "has no key pair another", label="another")
    await complains(far, SignerUnavailableError, "check wallet.module", module="/nowhere/lib.so")
    with pytest.raises(ValueError, match="module"):
        pkcs11.Config.model_validate(far.settings | {"module": "lib.so"})
    await (await far.open()).close()


async def test_two_keys_of_one_label_are_not_chosen_from(far: Far) -> None:
    make_key(far.settings["module"], PIN, "twice")
    make_key(far.settings["module"], PIN, "twice")
    await complains(far, SignerError, "more than one key pair twice", label="twice")


async def test_a_key_that_could_leave_is_refused(far: Far) -> None:
    for label, given in (("open", {"EXTRACTABLE": True}), ("plain", {"SENSITIVE": False, "EXTRACTABLE": True})):
        address = address_of(make_key(far.settings["module"], PIN, label, **given))
        await complains(far, SignerError, "make it sensitive and not extractable", label=label, address=address)


async def test_a_key_of_another_curve_is_refused(far: Far) -> None:
    make_key(far.settings["module"], PIN, "other", curve="1.2.840.10045.3.1.7")
    await complains(far, SignerError, "not of secp256k1", label="other")


async def test_a_session_that_was_lost_is_begun_anew(far: Far) -> None:
    signer = await signer_of(far)
    for again in (signer.health, lambda: signer.sign(approval())):
        lib(far.settings["module"]).reinitialize()  # what a reset of the module looks like from here
        assert isinstance(await again(), str | SignedTransaction)
        assert await signer.health() == ""
    await signer.close()


def test_the_folder_of_the_token_holds_no_pin(far: Far) -> None:
    files = [path for path in Path(far.folder).rglob("*") if path.is_file() and path.name != "pin"]
    assert len(files) > 2
    assert not [path for path in files if PIN.encode() in path.read_bytes()]
