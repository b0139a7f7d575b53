"""`kind = "azure_kms"`: a key in Azure Key Vault or Managed HSM (EC, curve P-256K), which never leaves it.

Credentials are found as Microsoft's own library finds them (`DefaultAzureCredential`), which is all that is used of it: signing is
one request. The vault signs any hash that its caller may have signed. Needs `pip install 'isthmus[azure]'`. Source: Key Vault REST
reference, API version 7.4, Get Key and Sign (ES256K).
"""

import asyncio
import base64
import binascii
import logging
import time
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, field_validator

from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.keys.curve_point import address_of, read_pair
from agent.keys.http import ANSWER_S, HERE, Link
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("azure_kms", "hot", "milliseconds")
API = "?api-version=7.4"
SCOPES = {"managedhsm.azure.net": "https://managedhsm.azure.net/.default"}  # by the end of the vault's name
SCOPE = "https://vault.azure.net/.default"
FRESH_S = 120  # a token that ends sooner is renewed
FIX = "check that this identity may get the key and sign with it"


class Config(Section):
    """`vault`: https://NAME.vault.azure.net. `version` is needed: a key that is rotated is another account."""

    kind: Literal["azure_kms"] = "azure_kms"
    vault: str
    key: str = Field(pattern=r"^[0-9a-zA-Z-]{1,127}$")
    version: str = Field(pattern=r"^[0-9a-f]{32}$")

    @field_validator("vault")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in HERE)):
            raise ValueError("vault is not a safe address; write https://NAME.vault.azure.net")
        return value.rstrip("/")


class _PublicKey(msgspec.Struct, frozen=True):
    kty: str
    crv: str
    x: str
    y: str
    kid: str


class _Found(msgspec.Struct, frozen=True):
    key: _PublicKey


class _Signed(msgspec.Struct, frozen=True):
    kid: str
    value: str


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:  # noqa: ARG001 - credentials are Microsoft's own affair
    """Raises SecretError without the library, SignerError without credentials or when the key is another one or may not sign."""
    key = VaultKey(name, config)
    try:
        await key.check()
    except BaseException:
        await key.close()
        raise
    return key


class VaultKey:
    """Connections to a vault, with a token that is renewed when it is old."""

    __slots__ = ("_credential", "_link", "_path", "_scope", "_token", "_turn", "address", "key_id")

    def __init__(self, name: str, config: Config) -> None:
        self.key_id, self.address = name, config.address
        self._path = f"/keys/{config.key}/{config.version}"
        host = urlsplit(config.vault).hostname or ""
        self._scope = next((scope for end, scope in SCOPES.items() if host.endswith(end)), SCOPE)
        self._link = Link(config.vault, self._bearer, fix=FIX)
        self._turn = asyncio.Lock()
        self._credential: Any = None
        self._token: Any = None

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. The vault may give another signature each time; asking again is harmless."""
        wanted = {"alg": "ES256K", "value": base64.urlsafe_b64encode(preimage.digest).rstrip(b"=").decode()}
        signed = _read(await self._link.post(f"{self._path}/sign{API}", wanted), _Signed)
        if not signed.kid.endswith(self._path):
            raise SignerError(f"the vault signed with {signed.kid[:120]!r} instead of {self._path}; stop and check what answers")
        return signature_of(preimage.digest, *read_pair(_base64(signed.value)), self.address)

    async def health(self) -> str:
        """Whether the vault gives the public key out now. It does not sign for this."""
        try:
            await self.check()
        except (SignerError, SecretError) as error:
            return str(error)
        return ""

    async def check(self) -> None:
        """See `open_key`."""
        found = _read(await self._link.get(self._path + API), _Found).key
        if found.kty not in ("EC", "EC-HSM") or found.crv != "P-256K":
            raise SignerError(f"{self._path} is no key of curve P-256K; make one, or name another")
        held = address_of(b"\x04" + _base64(found.x).rjust(32, b"\0") + _base64(found.y).rjust(32, b"\0"))
        if held != self.address:
            raise SignerError(f"{self._path} is {held}, wallet.address is {self.address}; correct one")

    async def close(self) -> None:
        await self._link.close()
        if self._credential is not None:
            await asyncio.to_thread(self._credential.close)

    async def _bearer(self) -> str:
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await asyncio.to_thread(self._renewed)
            except TimeoutError:
                raise SignerUnavailableError("Azure does not give a token now; check the network") from None

    def _renewed(self) -> str:
        try:
            from azure.core.exceptions import AzureError
            from azure.identity import DefaultAzureCredential
        except ImportError:
            raise SecretError("a key in Azure Key Vault needs Microsoft's library; run: pip install 'isthmus[azure]'") from None
        try:
            if self._credential is None:
                logging.getLogger("azure").addHandler(logging.NullHandler())  # or it tells stderr of each place that it tried
                self._credential = DefaultAzureCredential(retry_total=0)
            if self._token is None or self._token.expires_on < time.time() + FRESH_S:
                self._token = self._credential.get_token(self._scope)
        except (AzureError, OSError, ValueError) as error:
            raise SignerUnavailableError(
                f"no token from Azure ({type(error).__name__}); set credentials as Microsoft's own tools take them"
            ) from None
        return str(self._token.token)


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError):
        raise SignerError("what answers is not Azure Key Vault; check wallet.vault") from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SignerError("what answers is not Azure Key Vault; check wallet.vault") from None
