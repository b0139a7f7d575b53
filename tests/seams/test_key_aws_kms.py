"""AWS KMS that says no: what is final is told as final, what may pass is not, and the fix stands in the same line."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from key_aws_kms import REGION, open_case
from key_case import Far

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.keys.custody import aws_kms

pytestmark = pytest.mark.xdist_group("signers")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with open_case(tmp_path_factory.mktemp("kms")) as opened:
        yield opened


def made(far: Far, spec: str, usage: str = "SIGN_VERIFY") -> str:
    client = boto3.client("kms", region_name=REGION, endpoint_url=far.settings["endpoint"])
    key_id: str = client.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["KeyId"]
    client.close()
    return key_id


@pytest.mark.parametrize(("spec", "words"), [("ECC_NIST_P256", "not one of secp256k1"), ("RSA_2048", "no ECC_SECG_P256K1 key")])
async def test_a_key_of_another_kind(far: Far, spec: str, words: str) -> None:
    with pytest.raises(SignerError, match=words):
        await far.open(key_id=made(far, spec))


async def test_a_key_that_is_not_there(far: Far) -> None:
    with pytest.raises(SignerError, match="NotFoundException; check the key") as caught:
        await far.open(key_id="12345678-1234-1234-1234-123456789012")
    assert not isinstance(caught.value, SignerUnavailableError)


async def test_without_credentials_or_service(far: Far, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SignerUnavailableError, match="does not answer"):
        await far.open(endpoint="http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(SignerUnavailableError, match="no credentials for AWS"):
        await far.open()


@pytest.mark.parametrize("endpoint", ["http://10.0.0.1", "ftp://127.0.0.1", "kms"])
def test_an_endpoint_that_is_not_safe(far: Far, endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"over https only|not an address"):
        aws_kms.Config.model_validate(far.settings | {"endpoint": endpoint})
