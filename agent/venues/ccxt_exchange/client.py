"""Requests to an exchange through ccxt: our addresses, our limits, our signature, and a verdict on what a failure proves.

ccxt never sees the secret: it asks the key object for the signature of each request. It also does not wait, retry or judge: an
order is sent once, and whatever does not prove a refusal is `OutcomeUnknown`.
"""

import asyncio
import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import ccxt.async_support as ccxt

from agent.domain.errors import ConfigError, OutcomeUnknown, SignerError, VenueError
from agent.domain.order import WOULD_TAKE
from agent.ports import RequestKey, Tools
from agent.venues.ccxt_exchange.conditions import Conditions
from agent.venues.ccxt_exchange.config import Config as Config  # its home to everybody who speaks through a client
from agent.venues.ccxt_exchange.request_budget import Kind, RequestBudget

TEXT_MAX = 200
READ_WAIT_NS_MAX = 15_000_000_000  # how long a read may wait for its turn
NO_SECRET = "held-elsewhere"  # noqa: S105 - what ccxt gets in place of the secret

REFUSED = (
    ccxt.InvalidOrder,
    ccxt.InsufficientFunds,
    ccxt.BadRequest,
    ccxt.AuthenticationError,
    ccxt.InvalidNonce,
    ccxt.RateLimitExceeded,
    ccxt.DDoSProtection,
    ccxt.NotSupported,
    ccxt.ArgumentsRequired,
)
OPEN_QUESTIONS = (ccxt.DuplicateOrderId, ccxt.OrderNotCached, ccxt.ChecksumError)  # below some of REFUSED
UNREADABLE = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)  # what ccxt's parsers raise on odd replies
Proof = Callable[[int, str, str], bool | None]

TAKES_AT_ONCE = "immediately match"  # what exchanges say to an order that may only rest and would take


class RefusedRequestError(VenueError):
    """The exchange answered, and its answer proves that the request was not executed."""

    @property
    def reason(self) -> str:
        """As it is journaled: that an order may only rest and would have taken is nobody's failure."""
        return f"{WOULD_TAKE}: {self}" if TAKES_AT_ONCE in str(self).lower() else str(self)


class NoAnswerError(Exception):
    """A request has left, or may have, and no answer to it will come."""


class _Said(Exception):  # noqa: N818 - carries an answer out of ccxt with its status and code
    def __init__(self, status: int, code: str, text: str, cause: type[Exception]) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.cause = status, code, text, cause


class _Legs(Exception):  # noqa: N818 - carries an answer out of ccxt, which takes its status for a failure
    def __init__(self, response: Any) -> None:
        super().__init__("how both legs went")
        self.response = response


class Client:
    """A ccxt exchange with our limits. `proof` knows what the codes of this exchange prove; None: ask ccxt's classes."""

    def __init__(self, name: str, config: Config, tools: Tools, proof: Proof) -> None:
        self.name, self.config = name, config
        self.clock, self.key, self.account = tools.clock, tools.key, tools.account
        self.budget = RequestBudget(tools.clock, config.weight_per_minute, config.orders_per_10s, tools.notes)
        self.conditions = Conditions(name, tools.clock, self.budget)
        self.uncertainty_ns = 0
        self._proof = proof
        self.session = aiohttp.ClientSession(trust_env=False, middlewares=(_once,))
        self.exchange = _exchange(name, config, self.session)
        self._plug()

    async def call(
        self, what: Callable[..., Awaitable[Any]], *arguments: Any, weight: int = 1, kind: Kind = "read", about: str = ""
    ) -> Any:
        """One request, one attempt. A read waits for its turn; an order does not (VenueError: nothing was sent).

        Raises RefusedRequestError if the answer proves that nothing was executed, VenueError if nothing was sent or a read failed,
        and for an order or a cancel OutcomeUnknown in every other case.
        """
        await self._turn(weight, kind)
        answer = await self._asked(what, *arguments, kind=kind, about=about)
        self.conditions.fine(kind)
        return answer

    def complain(self, status: int, complaint: dict[str, Any]) -> NoReturn:
        """For whoever asked in another way than through ccxt: what an answer of this status amounts to, judged as if REST gave it.

        Only inside of what `call` calls, which knows what to do about it.
        """
        self.exchange.handle_errors(status, "", "", "", {}, "", complaint, {}, "")
        raise _Said(status, *_code_of(complaint), ccxt.ExchangeError)

    def now_ms(self) -> int:
        """The exchange's clock, as far as it was measured."""
        return (self.clock.now_ns() + self.budget.offset_ns) // 1_000_000

    async def measure_offset(self, what: Callable[..., Awaitable[Any]], read_ms: Callable[[Any], int]) -> None:
        """Set the exchange's clock against ours: its answer belongs to the middle of the round trip, half of which is the doubt.

        `what` asks for its clock, `read_ms` reads the answer. Waiting for our turn is no part of the round trip.
        """
        await self._turn(1, "read")
        before_ns = self.clock.now_ns()
        theirs_ms = read_ms(await self._asked(what, {}, kind="read", about=""))
        after_ns = self.clock.now_ns()
        self.budget.offset_ns = theirs_ms * 1_000_000 - (before_ns + after_ns) // 2
        self.uncertainty_ns = (after_ns - before_ns) // 2
        self.conditions.clock(self.uncertainty_ns, self.config.recv_window_ms * 1_000_000 // 2)

    async def close(self) -> None:
        await self.exchange.close()
        await self.session.close()

    # -- private ------------------------------------------------------------------------------------------------------

    async def _turn(self, weight: int, kind: Kind) -> None:
        wait_ns = self.budget.take(weight, kind)
        while wait_ns:
            if kind != "read" or wait_ns > READ_WAIT_NS_MAX:
                text = f"{self.name}: the request limit is used up for {wait_ns / 1e9:.1f} s; nothing was sent"
                raise VenueError(text, "429")
            await self.clock.sleep(wait_ns / 1e9)
            wait_ns = self.budget.take(weight, kind)

    async def _asked(self, what: Callable[..., Awaitable[Any]], *arguments: Any, kind: Kind, about: str) -> Any:
        try:
            return await what(*arguments)
        except _Legs as legs:
            return legs.response
        except _Said as said:
            self.conditions.trouble(said.status, said.code, said.text, kind)
            raise self._verdict(said, kind, about) from None
        except SignerError as error:
            raise VenueError(f"{self.name}: nothing was sent: {error}") from None
        except ccxt.BaseError as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                raise VenueError(f"{self.name}: no connection, nothing was sent; check the address and the network") from None
            silence = _Said(0, "", type(error).__name__, type(error))
            raise self._verdict(silence, kind, about) from None
        except NoAnswerError as silence:
            raise self._verdict(_Said(0, "", str(silence), NoAnswerError), kind, about) from None
        except UNREADABLE as error:
            riddle = _Said(0, "", f"a reply that cannot be read ({type(error).__name__})", type(error))
            raise self._verdict(riddle, kind, about) from None

    def _verdict(self, said: _Said, kind: Kind, about: str) -> VenueError | OutcomeUnknown:
        proof = self._proof(said.status, said.code, said.text)
        if proof is None:
            is_open = issubclass(said.cause, OPEN_QUESTIONS) or (kind == "trade" and issubclass(said.cause, ccxt.OrderNotFound))
            proof = said.status < 500 and issubclass(said.cause, REFUSED) and not is_open
        text = f"{said.code} {said.text}".strip()[:TEXT_MAX]
        if proof:
            return RefusedRequestError(f"{self.name}: {text}" if kind == "read" else text, said.code or str(said.status))
        if kind == "read":
            return VenueError(f"{self.name}: {text or 'no answer'}", said.code)
        return OutcomeUnknown(f"{self.name}: nobody knows what became of {about}: {text or 'no answer'}")

    def _plug(self) -> None:
        """Put our parts into this one instance of ccxt."""
        exchange, original = self.exchange, self.exchange.handle_errors

        def answered(status: int, _why: str, _url: str, _verb: str, headers: Mapping[str, str], body: str, *_: object) -> str:
            self.budget.heard(status, headers)
            return body.strip()

        def judged(
            status: int, reason: str, url: str, verb: str, headers: Any, body: str, response: Any, sent_headers: Any, sent_body: Any
        ) -> None:
            code, text = _code_of(response)
            if is_answer(response):
                raise _Legs(response)
            try:
                original(status, reason, url, verb, headers, body, response, sent_headers, sent_body)
            except ccxt.BaseError as error:
                raise _Said(status, code, text or f"HTTP {status}", type(error)) from None
            if status >= 400:
                cause = exchange.httpExceptions.get(str(status), ccxt.ExchangeError)
                raise _Said(status, code, text or f"HTTP {status}", cause)

        exchange.on_rest_response = answered
        exchange.handle_errors = judged
        exchange.milliseconds = self.now_ms
        exchange.nonce = self.now_ms
        if self.key is not None:
            exchange.hmac = _signer(self.key)


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats a DELETE whose connection broke. A cancel must leave once, or its lost answer would look like a refusal."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # never left
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET":
            raise
        raise aiohttp.ClientConnectionError(str(error)) from None


def _exchange(name: str, config: Config, session: aiohttp.ClientSession) -> Any:
    if config.exchange not in ccxt.exchanges:
        raise ConfigError(f"{name}: ccxt knows no exchange {config.exchange[:40]!r}; see ccxt.exchanges for the ids")
    exchange = getattr(ccxt, config.exchange)(
        {
            "apiKey": config.api_key,
            "secret": NO_SECRET,
            "enableRateLimit": False,
            "timeout": config.request_timeout_ms,
            "session": session,
            "options": {
                "fetchMarkets": {"types": ["spot"]},
                "fetchMargins": False,
                "fetchCurrencies": False,
                "warnOnFetchOpenOrdersWithoutSymbol": False,
                "recvWindow": config.recv_window_ms,
            },
        }
    )
    exchange.number = str
    exchange.timeout_on_exit = 0
    exchange.logger.setLevel(logging.INFO)  # its debug lines hold signatures
    if config.url:
        exchange.urls["api"] = _moved(exchange.urls["api"], config.url, config.ws_url or config.url)
    return exchange


def _moved(urls: Any, url: str, ws_url: str) -> Any:
    """Every address at another host; paths stay."""
    if isinstance(urls, dict):
        return {name: _moved(part, url, ws_url) for name, part in urls.items()}
    old = urlsplit(urls)
    new = urlsplit(ws_url if old.scheme.startswith("ws") else url)
    is_secure = new.scheme in ("https", "wss")
    scheme = ("wss" if is_secure else "ws") if old.scheme.startswith("ws") else ("https" if is_secure else "http")
    return f"{scheme}://{new.netloc}{old.path}"


def _signer(key: RequestKey) -> Callable[..., Any]:
    """In place of ccxt's `hmac`: the same arguments, but the secret stays where it is."""

    def hmac(request: bytes, _placeholder: bytes, algorithm: Any = hashlib.sha256, digest: str = "hex") -> str | bytes:
        if algorithm is not hashlib.sha256:
            raise ccxt.NotSupported("the key signs HMAC-SHA256 only; choose an exchange that uses it")
        signature = key.hmac_sha256_hex(request)
        if digest == "hex":
            return signature
        raw = bytes.fromhex(signature)
        return base64.b64encode(raw).decode() if digest == "base64" else raw

    return hmac


def is_answer(response: Any) -> bool:
    """Whether this says leg by leg how a cancel-and-replace went: an answer, although one or both failed (HTTP 409, 400)."""
    return isinstance(response, dict) and isinstance(response.get("data"), dict) and "cancelResult" in response["data"]


def _code_of(response: Any) -> tuple[str, str]:
    """The exchange's code and text, where the reply has them."""
    if not isinstance(response, dict):
        return "", ""
    code = next((response[name] for name in ("code", "error_code", "retCode", "sCode") if name in response), "")
    text = next((response[name] for name in ("msg", "message", "retMsg", "error") if isinstance(response.get(name), str)), "")
    return str(code)[:16], text[:TEXT_MAX]


async def gather(*reads: Awaitable[Any]) -> list[Any]:
    """All reads at once; the first failure is raised after the others were called off."""
    tasks = [asyncio.ensure_future(read) for read in reads]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
