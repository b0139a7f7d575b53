"""A signing service over HTTP: one bounded request, one bounded answer, over TLS that knows both sides or with a token.

Plain HTTP goes to this machine alone. Nothing is followed elsewhere, and no proxy of the environment is used: what is to be signed
is nobody else's business.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, field_validator, model_validator

from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.keys.secrets import Secret, Secrets
from agent.keys.section import Section

ANSWER_S = 4.0  # less than the patience of a RemoteSigner, so that the reason is told
ANSWER_BYTES_MAX = 131_072
HERE = ("127.0.0.1", "localhost", "::1")

Bearer = Callable[[], Awaitable[str]]


class HttpSection(Section):
    """Where the service is and how each side knows the other. Paths are relative to the settings file."""

    url: str
    token: str = Field(default="", description="sent as `Authorization: Bearer`; env:NAME, file:PATH or keyring:SERVICE/NAME")
    ca: str = Field(default="", description="file with the certificate that the service's must come from; empty: the system's")
    certificate: str = Field(default="", description="file with our own certificate, for mutual TLS")
    certificate_key: str = Field(default="", description="file with its key, mode 600")

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host = parts.hostname
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError("url is not an address; write https://HOST:PORT")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("a secret does not belong in the url; put a reference to it into token")
        if parts.scheme == "http" and host not in HERE:
            raise ValueError("another machine is reached over https only")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _belongs_together(self) -> "HttpSection":
        if bool(self.certificate) != bool(self.certificate_key):
            raise ValueError("certificate and certificate_key belong together; give both")
        if self.url.startswith("http:") and (self.ca or self.certificate):
            raise ValueError("ca and certificate need https")
        if self.url.startswith("https:") and urlsplit(self.url).hostname not in HERE and not (self.token or self.certificate):
            raise ValueError("a service on another machine must know who asks; give a token or a certificate")
        return self


class Link:
    """Connections to one service, kept open between requests. Closed with `close`."""

    __slots__ = ("_bearer", "_fix", "_session", "url")

    def __init__(self, url: str, bearer: Bearer | None, tls: ssl.SSLContext | bool = True, fix: str = "check wallet.token") -> None:
        """`bearer` gives the token for a request; `fix` is what a user does when the service does not let us in."""
        self.url, self._bearer, self._fix = url, bearer, fix
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=8),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
        )

    async def post(self, path: str, document: Any) -> bytes:
        """What is answered. Raises SignerError when it says no, SignerUnavailableError when it cannot be asked."""
        return await self._ask("POST", path, document)

    async def get(self, path: str) -> bytes:
        """As `post`."""
        return await self._ask("GET", path, None)

    async def close(self) -> None:
        await self._session.close()

    async def _ask(self, method: str, path: str, document: Any) -> bytes:
        headers = {"Authorization": f"Bearer {await self._bearer()}"} if self._bearer is not None else None
        try:
            async with self._session.request(
                method, self.url + path, json=document, headers=headers, allow_redirects=False
            ) as answer:
                body = await answer.content.read(ANSWER_BYTES_MAX + 1)
                while len(body) <= ANSWER_BYTES_MAX and (more := await answer.content.read(ANSWER_BYTES_MAX)):
                    body += more
                status = answer.status
        except aiohttp.ClientSSLError:
            raise SignerUnavailableError(
                f"the signing service at {self.url} and this agent do not know each other; check wallet.ca and wallet.certificate"
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise SignerUnavailableError(
                f"the signing service at {self.url} does not answer ({type(error).__name__}); start it, or check its address"
            ) from None
        self._check(status, len(body))
        return body

    def _check(self, status: int, size: int) -> None:
        if size > ANSWER_BYTES_MAX:
            raise SignerError(f"the signing service at {self.url} answers more than {ANSWER_BYTES_MAX} bytes; check its address")
        if status in (401, 403):
            raise SignerError(f"the signing service at {self.url} does not let this agent in ({status}); {self._fix}")
        if status in (408, 425, 429) or status >= 500:
            raise SignerUnavailableError(f"the signing service at {self.url} cannot sign now (status {status}); look at its log")
        if status != 200:
            raise SignerError(f"the signing service at {self.url} refuses (status {status}); look at its log")


def link_of(config: HttpSection, secrets: Secrets) -> Link:
    """Raises SecretError for a token or a certificate that cannot be read."""
    tls = _tls(config, secrets) if config.url.startswith("https:") else True
    if not config.token:
        return Link(config.url, None, tls)
    text = _plain(secrets.read(config.token))

    async def bearer() -> str:
        return text.reveal()

    return Link(config.url, bearer, tls)


def _plain(token: Secret) -> Secret:
    text = token.reveal()
    if not text.isascii() or not text.isprintable():
        raise SecretError("wallet.token holds what cannot stand in a header; write one line of plain text")
    return token


def _tls(config: HttpSection, secrets: Secrets) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(secrets.path(config.ca)) if config.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.certificate:
            key = secrets.private(config.certificate_key)
            context.load_cert_chain(secrets.path(config.certificate), key)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SecretError(f"wallet.ca or wallet.certificate cannot be used ({reason}); check these files") from None
    return context
