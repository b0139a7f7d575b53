"""A cloud, or what answers in its place, that gives another key, another signature, or nonsense: none of it is used."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import key_azure_kms
import key_gcp_kms
import pytest
from cloud_stub import Answer, CloudStub
from key_case import Far
from test_signers import approval, signer_of

from agent.domain.errors import IsthmusError, SignerError, SignerUnavailableError

pytestmark = pytest.mark.xdist_group("signers")
OTHER = "A" * 43

Bend = Callable[[str, Answer], Answer]


@pytest.fixture(scope="module", params=[key_gcp_kms, key_azure_kms], ids=["gcp", "azure"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Far, CloudStub]]:
    with request.param.open_stub(tmp_path_factory.mktemp("cloud")) as opened:
        yield opened


def everywhere(**changes: Any) -> Bend:
    """The same change in whatever has such a field; tokens stay as they are."""

    def bend(path: str, answer: Answer) -> Answer:
        status, document = answer
        if "token" in path or "identity" in path:
            return answer
        inner = {name: value for name, value in changes.items() if name in document.get("key", ())}
        found = document | {name: value for name, value in changes.items() if name in document}
        return status, found | ({"key": document["key"] | inner} if inner else {})

    return bend


def always(status: int, document: Any) -> Bend:
    return lambda path, answer: answer if "token" in path or "identity" in path else (status, document)


SIGNING: dict[str, tuple[Bend, type[SignerError], str]] = {
    "no signature": (everywhere(signature="", value=""), SignerError, "not in DER|have 64"),
    "not base64": (everywhere(signature="*", value="*"), SignerError, "what answers is not"),
    "another key's": (everywhere(signature="MAYCAQECAQE=", value="A" * 85 + "E"), SignerError, "is not of"),
    "another key": (everywhere(name="projects/x", kid="https://desk/keys/other/1"), SignerError, "instead of"),
    "nonsense": (always(200, [1, 2]), SignerError, "what answers is not"),
    "no such key": (always(404, {}), SignerError, "404"),
    "not allowed": (always(403, {}), SignerError, "403.*check that this"),
    "busy": (always(429, {}), SignerUnavailableError, "429"),
    "broken": (always(503, {}), SignerUnavailableError, "503"),
}


@pytest.mark.parametrize(("bend", "error", "words"), SIGNING.values(), ids=SIGNING)
async def test_an_answer_that_is_no_signature_of_ours(
    cloud: tuple[Far, CloudStub], bend: Bend, error: type[SignerError], words: str
) -> None:
    far, stub = cloud
    signer = await signer_of(far)
    stub.bend = bend
    try:
        with pytest.raises(error, match=words) as caught:
            await signer.sign(approval())
        assert isinstance(caught.value, SignerUnavailableError) == (error is SignerUnavailableError)
        assert "\n" not in str(caught.value)
        assert not [canary for canary in far.canaries if canary in str(caught.value)]
    finally:
        stub.bend = None
    await signer.sign(approval())
    await signer.close()


OPENING: dict[str, Bend] = {
    "another algorithm": everywhere(algorithm="EC_SIGN_P256_SHA256", crv="P-256"),
    "another kind": everywhere(algorithm="RSA_SIGN_PKCS1_2048_SHA256", kty="RSA"),
    "no key": everywhere(pem="", x=""),
    "another point": everywhere(pem="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", x=OTHER),
}


@pytest.mark.parametrize("bend", OPENING.values(), ids=OPENING)
async def test_a_public_key_that_is_not_ours(cloud: tuple[Far, CloudStub], bend: Bend) -> None:
    far, stub = cloud
    stub.bend = bend
    try:
        with pytest.raises(SignerError, match=r"is no key of|not one of secp256k1|wallet.address is"):
            await far.open()
    finally:
        stub.bend = None


async def test_without_credentials(
    cloud: tuple[Far, CloudStub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on a machine that was never set up: one line, and nothing of what the library tried on the terminal."""
    far, _ = cloud
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # neither vendor's command-line tool is asked
    with pytest.raises(IsthmusError, match=r"no token from|does not give a token") as caught:
        await far.open()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("address", ["http://10.0.0.1", "ftp://127.0.0.1", "desk"])
def test_an_address_that_is_not_safe(cloud: tuple[Far, CloudStub], address: str) -> None:
    far, _ = cloud
    name = "vault" if "vault" in far.settings else "endpoint"
    with pytest.raises(ValueError, match="not a safe address"):
        far.module.Config.model_validate(far.settings | {name: address})
