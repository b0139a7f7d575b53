"""`kind = "web3signer"`: a Web3Signer service (REST, `eth1`), over mutual TLS or with a token.

It is given the whole preimage and hashes it itself, so nothing here can make it sign a bare hash. It has no policy of its own for
transactions: what it is asked, it signs. Source: its OpenAPI description (POST /api/v1/eth1/sign/{identifier}, GET
/api/v1/eth1/publicKeys, GET /upcheck).
"""

import re
from typing import Literal

import msgspec
from pydantic import field_validator

from agent.domain.errors import SignerError
from agent.keys.digest import checksum, keccak
from agent.keys.http import HttpSection, link_of
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("web3signer", "hot", "milliseconds")

_PUBLIC_KEY = re.compile(r"0x[0-9a-f]{128}", re.ASCII)
_SIGNATURE = re.compile(rb'\s*"?0x([0-9a-fA-F]{130})"?\s*')


class Config(HttpSection):
    """`identifier`: the public key by which the service knows the key: 0x and 128 hex digits."""

    kind: Literal["web3signer"] = "web3signer"
    identifier: str

    @field_validator("identifier")
    @classmethod
    def _is_public_key(cls, value: str) -> str:
        if not _PUBLIC_KEY.fullmatch(value.lower()):
            raise ValueError("identifier is a public key without its first byte: 0x and 128 hex digits")
        return value.lower()


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:
    """Raises SignerUnavailableError when nothing answers, SignerError when it does not have the key."""
    held = checksum(keccak(bytes.fromhex(config.identifier[2:]))[12:])
    if held != config.address:
        raise SignerError(f"wallet.identifier is the key of {held}, wallet.address is {config.address}; correct one")
    key = Web3SignerKey(name, config, secrets)
    try:
        await key.check()
    except BaseException:
        await key.close()
        raise
    return key


class Web3SignerKey:
    """Connections to one service."""

    __slots__ = ("_identifier", "_link", "address", "key_id")

    def __init__(self, name: str, config: Config, secrets: Secrets) -> None:
        self.key_id, self.address, self._identifier = name, config.address, config.identifier
        self._link = link_of(config, secrets)

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. Asking again is harmless."""
        body = await self._link.post(f"/api/v1/eth1/sign/{self._identifier}", {"data": "0x" + preimage.data.hex()})
        found = _SIGNATURE.fullmatch(body)
        if found is None:
            raise SignerError(f"{self._link.url} gave something that is no signature; check wallet.url")
        raw = bytes.fromhex(found[1].decode())
        return signature_of(preimage.digest, int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), self.address)

    async def health(self) -> str:
        try:
            await self.check()
        except SignerError as error:
            return str(error)
        return ""

    async def check(self) -> None:
        """Raises SignerError unless the service is up and has the key."""
        await self._link.get("/upcheck")
        try:
            found = msgspec.json.decode(await self._link.get("/api/v1/eth1/publicKeys"), type=list[str])
        except (msgspec.DecodeError, RecursionError):
            raise SignerError(f"{self._link.url} is no Web3Signer for eth1; check wallet.url") from None
        if self._identifier not in (one.lower() for one in found):
            raise SignerError(
                f"{self._link.url} does not have the key of {self.address}; load it there, or correct wallet.identifier"
            )

    async def close(self) -> None:
        await self._link.close()
