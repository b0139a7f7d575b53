"""`kind = "gcp_kms"`: a key in Google Cloud KMS (EC_SIGN_SECP256K1_SHA256, in an HSM), which never leaves it.

Credentials are found as Google's own library finds them (`google.auth.default`), which is all that is used of it: signing is one
request. KMS signs any hash that its caller may have signed. Needs `pip install 'isthmus[gcp]'`. Source: Cloud KMS REST reference,
v1 cryptoKeyVersions.asymmetricSign and getPublicKey.
"""

import asyncio
import base64
import binascii
import functools
import re
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, field_validator

from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.keys.curve_point import address_of, point_of, read_der
from agent.keys.http import ANSWER_S, HERE, Link
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("gcp_kms", "hot", "milliseconds")
ALGORITHM = "EC_SIGN_SECP256K1_SHA256"  # KMS is given the digest and hashes nothing: that it is a keccak is our affair
SCOPE = "https://www.googleapis.com/auth/cloudkms"
FIX = "check that this account may use the key (roles/cloudkms.signerVerifier)"

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]{1,2000})-----END PUBLIC KEY-----\s*", re.ASCII)
_VERSION = r"^projects/[\w.:-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+/cryptoKeyVersions/\d+$"


class Config(Section):
    """`version`: the key with its version, as Google names it."""

    kind: Literal["gcp_kms"] = "gcp_kms"
    version: str = Field(pattern=_VERSION, max_length=512)
    endpoint: str = Field(default="https://cloudkms.googleapis.com", description="another address of KMS")

    @field_validator("endpoint")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in HERE):
            raise ValueError("endpoint is not a safe address; write https://HOST")
        return value.rstrip("/")


class _PublicKey(msgspec.Struct, frozen=True):
    pem: str
    algorithm: str


class _Signed(msgspec.Struct, frozen=True):
    signature: str
    name: str


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:  # noqa: ARG001 - credentials are Google's own affair
    """Raises SecretError without the library, SignerError without credentials or when the key is another one or may not sign."""
    key = KmsKey(name, config)
    try:
        await key.check()
    except BaseException:
        await key.close()
        raise
    return key


class KmsKey:
    """Connections to KMS, with a token that is renewed when it is old."""

    __slots__ = ("_credentials", "_link", "_turn", "_version", "address", "key_id")

    def __init__(self, name: str, config: Config) -> None:
        self.key_id, self.address, self._version = name, config.address, config.version
        self._link = Link(config.endpoint, self._token, fix=FIX)
        self._turn = asyncio.Lock()
        self._credentials: Any = None

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. Google's checksums are left out: the signature is held against the address, which says more."""
        wanted = {"digest": {"sha256": base64.b64encode(preimage.digest).decode()}}
        signed = _read(await self._link.post(f"/v1/{self._version}:asymmetricSign", wanted), _Signed)
        if signed.name != self._version:
            raise SignerError(f"KMS signed with {signed.name[:120]!r} instead of {self._version}; stop and check what answers")
        return signature_of(preimage.digest, *read_der(_base64(signed.signature)), self.address)

    async def health(self) -> str:
        """Whether KMS gives the public key out now. It does not sign for this."""
        try:
            await self.check()
        except (SignerError, SecretError) as error:
            return str(error)
        return ""

    async def check(self) -> None:
        """See `open_key`."""
        found = _read(await self._link.get(f"/v1/{self._version}/publicKey"), _PublicKey)
        pem = _PEM.fullmatch(found.pem)
        if found.algorithm != ALGORITHM or pem is None:
            raise SignerError(f"{self._version} is no key of {ALGORITHM}; make one, or name another")
        held = address_of(point_of(_base64("".join(pem[1].split()))))
        if held != self.address:
            raise SignerError(f"{self._version} is {held}, wallet.address is {self.address}; correct one")

    async def close(self) -> None:
        await self._link.close()

    async def _token(self) -> str:
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await asyncio.to_thread(self._renewed)
            except TimeoutError:
                raise SignerUnavailableError("Google does not give a token now; check the network") from None

    def _renewed(self) -> str:
        try:
            import google.auth
            from google.auth.exceptions import GoogleAuthError
            from google.auth.transport.requests import Request
        except ImportError:
            raise SecretError("a key in Google Cloud KMS needs Google's library; run: pip install 'isthmus[gcp]'") from None
        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(functools.partial(Request(), timeout=ANSWER_S))
        except (GoogleAuthError, OSError, ValueError) as error:  # a file that is none of theirs is a ValueError
            raise SignerUnavailableError(
                f"no token from Google ({type(error).__name__}); set credentials as Google's own tools take them"
            ) from None
        return str(self._credentials.token)


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError):
        raise SignerError("what answers is not Google Cloud KMS; check wallet.endpoint") from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignerError("what answers is not Google Cloud KMS; check wallet.endpoint") from None
