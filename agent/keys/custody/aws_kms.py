"""`kind = "aws_kms"`: a key that was made in AWS KMS (ECC_SECG_P256K1, SIGN_VERIFY) and never leaves it.

KMS signs any hash that its caller may have signed: the policy in front of it is the agent's. Credentials are found as Amazon's own
library finds them (environment, profile, instance role) and are not in these settings. Needs `pip install 'isthmus[aws]'`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.keys.curve_point import address_of, point_of, read_der
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("aws_kms", "hot", "milliseconds")
ALGORITHM = "ECDSA_SHA_256"  # over a digest that is given, KMS never hashes: that it is a keccak is our affair
CONNECT_S, ANSWER_S = 2, 3  # together less than the patience of a RemoteSigner
HERE = ("127.0.0.1", "localhost", "::1")
# Said no for good; everything else may be asked again. AWS KMS API reference, Sign.
FINAL = frozenset(
    {"AccessDeniedException", "NotFoundException", "DisabledException", "InvalidKeyUsageException", "KMSInvalidStateException"}
    | {"ValidationException", "InvalidGrantTokenException", "UnrecognizedClientException", "InvalidSignatureException"}
    | {"ExpiredTokenException", "IncompleteSignature", "MissingAuthenticationToken"}
)


class Config(Section):
    kind: Literal["aws_kms"] = "aws_kms"
    key_id: str = Field(min_length=1, max_length=2_048, description="the key's id, its ARN, or alias/NAME")
    region: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    endpoint: str = Field(default="", description="another address of KMS, such as one inside a private network")

    @field_validator("endpoint")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (not parts.hostname or parts.scheme not in ("http", "https")):
            raise ValueError("endpoint is not an address; write https://HOST")
        if parts.scheme == "http" and parts.hostname not in HERE:
            raise ValueError("another machine is reached over https only")
        return value


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:  # noqa: ARG001 - credentials are Amazon's own affair
    """Raises SecretError without the library, SignerError without credentials or when the key is another one or may not sign."""
    key = KmsKey(name, config)
    await key.open()
    return key


class KmsKey:
    """One key of KMS. Its library blocks, so each request has a thread."""

    __slots__ = ("_client", "_config", "address", "key_id")

    def __init__(self, name: str, config: Config) -> None:
        self.key_id, self.address, self._config = name, config.address, config
        self._client: Any = None

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def open(self) -> None:
        """See `open_key`."""
        await asyncio.to_thread(self._open)

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. KMS may give another signature each time; asking again is harmless."""
        raw = await asyncio.to_thread(self._sign, preimage.digest)
        return signature_of(preimage.digest, *read_der(raw), self.address)

    async def health(self) -> str:
        """Whether KMS gives the public key out now. It does not sign for this."""
        try:
            await asyncio.to_thread(self._check)
        except SignerError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _open(self) -> None:
        try:
            import boto3
            from botocore.config import Config as Options
        except ImportError:
            raise SecretError("a key in AWS KMS needs Amazon's library; run: pip install 'isthmus[aws]'") from None
        options = Options(connect_timeout=CONNECT_S, read_timeout=ANSWER_S, retries={"total_max_attempts": 1})
        session = boto3.session.Session()  # of our own: the library's default one is not for several threads
        self._client = session.client(
            "kms", region_name=self._config.region, endpoint_url=self._config.endpoint or None, config=options
        )
        self._check()

    def _check(self) -> None:
        found = self._ask(lambda: self._client.get_public_key(KeyId=self._config.key_id))
        if found.get("KeyUsage") != "SIGN_VERIFY" or ALGORITHM not in found.get("SigningAlgorithms", ()):
            raise SignerError(f"KMS key {self._config.key_id} is no ECC_SECG_P256K1 key for SIGN_VERIFY; make one, or name another")
        held = address_of(point_of(found["PublicKey"]))
        if held != self.address:
            raise SignerError(f"KMS key {self._config.key_id} is {held}, wallet.address is {self.address}; correct one")

    def _sign(self, digest: bytes) -> bytes:
        wanted = {"MessageType": "DIGEST", "SigningAlgorithm": ALGORITHM}
        raw: bytes = self._ask(lambda: self._client.sign(KeyId=self._config.key_id, Message=digest, **wanted))["Signature"]
        return raw

    def _ask(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            return call()
        except (NoCredentialsError, PartialCredentialsError):
            raise SignerUnavailableError("no credentials for AWS; set a profile or a role as Amazon's own tools take it") from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:64]
            kind = SignerError if code in FINAL else SignerUnavailableError
            raise kind(f"KMS does not sign with {self._config.key_id}: {code}; check the key and what this role may do") from None
        except BotoCoreError as error:
            raise SignerUnavailableError(
                f"KMS in {self._config.region} does not answer ({type(error).__name__}); check wallet.region and the network"
            ) from None
