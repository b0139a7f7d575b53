"""The connection to one chain: HTTP or WebSocket, by the address. It proves which chain it is before it is used.

Reads are tried twice and then fail in one line; a send is made once and ends in accepted, ChainError or OutcomeUnknown. An RPC
address often carries a key in its path or user part, so errors name the host alone, and web3's own log of addresses is kept silent.
"""

import asyncio
import logging
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from web3 import AsyncHTTPProvider, AsyncWeb3, WebSocketProvider
from web3.exceptions import ProviderConnectionError, Web3Exception
from web3.types import RPCEndpoint
from websockets.exceptions import ConnectionClosed, WebSocketException

from agent.chains.submit import refusal, turned_away
from agent.domain.errors import ChainError, ConfigError, OutcomeUnknown

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
TIMEOUT_S = 5.0
READ_TRIES = 2
MESSAGE_CHARACTERS_MAX = 200
FRAME_BYTES_MAX = 64 * 2**20

_TRANSPORT = (aiohttp.ClientError, WebSocketException, Web3Exception, OSError, TimeoutError, ValueError)
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, ProviderConnectionError)
logging.getLogger("web3").setLevel(logging.WARNING)  # below that it writes whole addresses
logging.getLogger("websockets").setLevel(logging.WARNING)


class NodeRefusedError(ChainError):
    """The node understood a read and said no. `data` is a revert's payload, if it gave one."""

    def __init__(self, message: str, code: str = "", data: bytes = b"") -> None:
        super().__init__(message, code)
        self.data = data


class WrongChainError(ChainError):
    """The node answers for another chain than the config names: waiting will not help."""


class Node(Protocol):
    """Whoever answers for a chain: one connection, or two that must agree (`witness`). What each verb does stands at `Rpc`."""

    @property
    def place(self) -> str: ...

    @property
    def chain_id(self) -> int: ...

    @property
    def is_pushed(self) -> bool: ...

    async def open(self) -> None: ...

    async def call(self, method: str, *params: Any) -> Any: ...

    async def send_raw(self, raw: bytes) -> str: ...

    async def news(self, timeout_s: float) -> None: ...

    async def close(self) -> None: ...


class Rpc:
    """One connection, checked to be chain `chain_id`. Satisfies the port Chain."""

    def __init__(self, url: str, chain_id: int, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ConfigError when the address is not http, https, ws or wss."""
        self._url, self._chain_id, self._timeout_s = url, chain_id, timeout_s
        self._place = place_of(url)
        self._is_socket = urlsplit(url).scheme in ("ws", "wss")
        self._web3: AsyncWeb3[Any] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def place(self) -> str:
        """The address without what may be secret in it."""
        return self._place

    @property
    def chain_id(self) -> int:
        return self._chain_id

    @property
    def is_open(self) -> bool:
        """Whether `open` succeeded once, and nobody closed it since."""
        return self._web3 is not None

    @property
    def is_pushed(self) -> bool:
        """Whether new blocks announce themselves (WebSocket)."""
        return self._listener is not None and not self._listener.done()

    async def open(self) -> None:
        """Connect, or connect again, and check the chain's id. Raises ChainError in one line that says what to do."""
        is_new = self._web3 is None or (self._is_socket and not self.is_pushed)
        try:
            if is_new:  # otherwise requests that are under way are left alone
                await self.close()
                web3 = self._web3 = _web3(self._url, self._timeout_s)
                if self._is_socket:
                    await asyncio.wait_for(web3.provider.connect(), self._timeout_s)
            found = whole(await self.call("eth_chainId"))
        except _TRANSPORT as error:
            await self.close()
            raise ChainError(_unreachable(self.place, error)) from None
        except ChainError:
            await self.close()
            raise
        if found != self._chain_id:
            await self.close()
            raise WrongChainError(
                f"{self.place} answers for chain {found}, the config says {self._chain_id}: correct rpc_url or chain_id"
            )
        if is_new and self._is_socket:
            await self._subscribe()

    async def call(self, method: str, *params: Any) -> Any:
        """One read. Raises NodeRefusedError when the node says no, ChainError when it cannot be reached."""
        for left in reversed(range(READ_TRIES)):
            try:
                return _result(await self._request(method, params), self.place, method)
            except _TRANSPORT as error:
                if not left or isinstance(error, TimeoutError):
                    raise ChainError(_unreachable(self.place, error)) from None
        raise AssertionError("unreachable")

    async def send_raw(self, raw: bytes) -> str:
        """Send signed bytes, once; returns the hash that the node computed.

        Raises ChainError if they were certainly not accepted, OutcomeUnknown if nobody knows.
        """
        try:
            reply = await self._request("eth_sendRawTransaction", ("0x" + raw.hex(),))
        except _NOT_SENT as error:
            raise ChainError(_unreachable(self.place, error)) from None
        except aiohttp.ClientResponseError as error:
            if turned_away(error.status):
                raise ChainError(f"{self.place} turned the request away (HTTP {error.status}): check its key and quota") from None
            raise _unknown(self.place, f"HTTP {error.status}") from None
        except _TRANSPORT as error:
            raise _unknown(self.place, type(error).__name__) from None
        if isinstance(reply, dict) and isinstance(problem := reply.get("error"), dict):
            message, code, _ = _problem(problem)
            raise refusal(message, code, self.place)
        found = reply.get("result") if isinstance(reply, dict) else None
        if not isinstance(found, str):
            raise _unknown(self.place, "an answer without a hash")
        return found

    async def news(self, timeout_s: float) -> None:
        """Wait for a new block to announce itself, or for `timeout_s`. Only for pushed connections."""
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return
        self._news.clear()

    async def close(self) -> None:
        """Safe to repeat."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        web3, self._web3 = self._web3, None
        if web3 is not None:
            try:
                await web3.provider.disconnect()
            except _TRANSPORT:
                return  # it was gone already

    def __repr__(self) -> str:
        return f"Rpc({self.place}, chain {self._chain_id})"

    async def _request(self, method: str, params: tuple[Any, ...]) -> Any:
        if self._web3 is None:
            raise ProviderConnectionError("the connection is closed")
        async with asyncio.timeout(self._timeout_s):
            try:
                return await self._web3.provider.make_request(RPCEndpoint(method), list(params))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # nobody cancelled us: web3 passes on the end of its own reading task when a socket is closed
                raise ConnectionAbortedError("the connection was closed meanwhile") from None

    async def _subscribe(self) -> None:
        """Ask for new heads; a node that cannot push is polled."""
        assert self._web3 is not None
        try:
            await asyncio.wait_for(self._web3.eth.subscribe("newHeads"), self._timeout_s)
        except _TRANSPORT:
            return
        self._listener = asyncio.create_task(self._listen(self._web3))

    async def _listen(self, web3: "AsyncWeb3[Any]") -> None:
        try:
            async for _ in web3.socket.process_subscriptions():
                self._news.set()
        except _TRANSPORT:
            self._news.set()  # the next read finds out what is wrong


async def connect(url: str, chain_id: int, timeout_s: float = TIMEOUT_S) -> Rpc:
    """A connection that answers for `chain_id`. `timeout_s` bounds every request. Raises ChainError or ConfigError."""
    rpc = Rpc(url, chain_id, timeout_s)
    await rpc.open()
    return rpc


def place_of(url: str) -> str:
    """The address without user, path and query, where keys are: `https://host:443`. Raises ConfigError for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "wss": 443}.get(parts.scheme, 80)
    except ValueError:
        raise ConfigError("rpc_url is not an address such as http://127.0.0.1:8545") from None
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ConfigError("rpc_url is not an address such as http://127.0.0.1:8545 or wss://host/path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def is_loopback(url: str) -> bool:
    """Whether the node runs on this machine."""
    return urlsplit(url).hostname in LOOPBACK


def field(answer: Any, name: str) -> Any:
    """A field that an answer must have. Raises ChainError where the node left it out."""
    if isinstance(answer, dict) and name in answer:
        return answer[name]
    raise ChainError(f"the node's answer has no {name!r}: use another RPC")


def whole(value: object) -> int:
    """A JSON-RPC quantity (`0x1a`) as an integer. Raises ChainError for anything else."""
    if isinstance(value, str) and value.startswith("0x") and len(value) <= 66:
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise ChainError("the node answered with something that is not a number: use another RPC")


def octets(value: object) -> bytes:
    """JSON-RPC data (`0x...`) as bytes. Raises ChainError for anything else."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise ChainError("the node answered with something that is not hexadecimal data: use another RPC")


def printable(text: object) -> str:
    """Foreign text made safe to show: one line, no control characters, bounded."""
    flat = " ".join(str(text)[: 4 * MESSAGE_CHARACTERS_MAX].split())
    return "".join(c for c in flat if c.isprintable())[:MESSAGE_CHARACTERS_MAX]


def _web3(url: str, timeout_s: float) -> "AsyncWeb3[Any]":
    if urlsplit(url).scheme in ("ws", "wss"):
        return AsyncWeb3(
            WebSocketProvider(
                url, {"max_size": FRAME_BYTES_MAX, "open_timeout": timeout_s}, request_timeout=timeout_s, max_connection_retries=1
            )
        )
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=timeout_s / 2)
    return AsyncWeb3(AsyncHTTPProvider(url, {"timeout": timeout}, exception_retry_configuration=None))


def _result(reply: Any, place: str, method: str) -> Any:
    if isinstance(reply, dict):
        if isinstance(problem := reply.get("error"), dict):
            message, code, data = _problem(problem)
            raise NodeRefusedError(f"{place} refused {method}: {message}", str(code), data)
        if "result" in reply:
            return reply["result"]
    raise ChainError(f"{place} does not speak JSON-RPC: check rpc_url")


def _problem(problem: dict[str, Any]) -> tuple[str, int, bytes]:
    """(message, code, revert data). Nodes put the data in `data`, or in `data.data`."""
    code, data = problem.get("code"), problem.get("data")
    data = data.get("data") if isinstance(data, dict) else data
    payload = octets(data) if isinstance(data, str) and data.startswith("0x") else b""
    return printable(problem.get("message", "")), code if isinstance(code, int) else 0, payload


def _unknown(place: str, what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{place} did not say whether it took the transaction ({what}): ask for it by its hash")


def _unreachable(place: str, error: BaseException) -> str:
    """Names the kind of failure only: the exceptions' own texts carry the address."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{place} answers HTTP {error.status}: check rpc_url, its key and its quota"
    if isinstance(error, TimeoutError):
        return f"{place} does not answer in time: check the node, or raise timeout_s"
    if isinstance(error, ValueError):
        return f"{place} does not speak JSON-RPC: check rpc_url"
    if isinstance(error, ConnectionClosed):
        return f"{place} closed the connection: it will be opened again"
    return f"{place} cannot be reached ({type(error).__name__}): start the node, or correct rpc_url"
