"""Orders over Binance's WebSocket API: a connection of their own, kept up. A request leaves once, in one frame, never repeated.

The answers are those of REST and are judged by its rules. Where none comes in time, or the connection ends first, nobody knows what
became of the request, and it is asked about by its own id; an answer that comes after that is ignored. While the connection is down
`is_up` says so and orders take REST: nothing of them has been written yet, so none can arrive twice. A connection on which nothing
at all was heard for so long as a request may take is given up, so that what comes next does not vanish on it too.
Source: Binance spot WebSocket API documentation (request and response format, rate limits, trading requests).
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from agent import observe
from agent.domain.errors import FrameError, VenueError
from agent.venues.ccxt_exchange.binance_feed import HANDSHAKE_S, api_url, open_socket, text_from
from agent.venues.ccxt_exchange.binance_rest import RateLimit
from agent.venues.ccxt_exchange.client import Client, NoAnswerError

IN_FLIGHT_MAX = 256  # the engine keeps to the venue's `sends_in_flight_max`, which is less
CONNECT_WEIGHT = 2
PAUSE_S, PAUSE_S_MAX = 0.1, 30.0  # before it is opened again; doubles until a connection lasted
LASTED_NS = 10_000_000_000
WEIGHT, ORDERS = ("REQUEST_WEIGHT", "MINUTE", 1), ("ORDERS", "SECOND", 10)
SHUTDOWN = "serverShutdown"

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True):
    """What the exchange says unasked: by its name."""

    e: str


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """One frame from the exchange: `result` or `error` for the request `id`, or an `event`."""

    id: int | str | None = None
    status: int = 0
    result: Any = None
    error: dict[str, Any] | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    event: Event | None = None


_answers = msgspec.json.Decoder(Answer)


def read_answer(raw: str | bytes) -> Answer:
    """FrameError for what is not one."""
    try:
        return _answers.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(f"not an answer of this exchange: {str(error)[:160]}") from None


class OrderLine:
    """Owns the connection, and who waits for an answer on it."""

    def __init__(self, client: Client) -> None:
        assert client.key is not None, "only a venue with a key sends orders"
        config = client.config
        self._client, self._key, self._url = client, client.key, api_url(config)
        self._envelope: dict[str, str | int] = {"apiKey": config.api_key, "recvWindow": config.recv_window_ms}
        self._patience_s = config.request_timeout_ms / 1_000
        self._numbers = itertools.count(1)
        self._waiting: dict[int | str | None, asyncio.Future[Answer]] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._is_ending = False
        self._frames = 0  # that were heard
        self._keeper: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[bool]] = set()

    @property
    def is_up(self) -> bool:
        """Whether an order can leave by this line now."""
        socket = self._socket
        return socket is not None and not socket.closed and not self._is_ending and len(self._waiting) < IN_FLIGHT_MAX

    async def open(self) -> None:
        """Connect, and stay connected until `close`. Does not fail: after an attempt that does, the next follow by themselves."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(self._ended)

    async def ask(self, method: str, params: Mapping[str, str]) -> Any:
        """Sign and send one request; its result. For `Client.call`, which turns into a verdict what is raised here.

        There is no wait before the bytes are handed to the socket. SignerError, VenueError: nothing was sent. NoAnswerError: it may
        have been.
        """
        socket = self._socket
        if socket is None or not self.is_up:
            raise VenueError(f"{self._client.name}: no connection, nothing was sent")
        number = next(self._numbers)
        frame = self._frame(number, method, params)
        loop = asyncio.get_running_loop()
        waiter = self._waiting[number] = loop.create_future()
        timer: asyncio.TimerHandle | None = None
        try:
            await socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
            timer = loop.call_later(self._patience_s, self._late, waiter, socket, self._frames)
            answer = await waiter
        except (aiohttp.ClientError, OSError) as error:  # how much of it was written is not told
            raise NoAnswerError(type(error).__name__) from None
        finally:
            del self._waiting[number]
            if timer is not None:
                timer.cancel()
        if answer.error is not None or answer.status != 200:
            self._client.complain(answer.status, answer.error or {})
        return answer.result

    async def close(self) -> None:
        """For good. Whoever still waits is told that no answer comes. Never fails."""
        if self._end is not None:
            self._end.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, *self._closing, return_exceptions=True)
        await self._drop("closed")

    # -- private ------------------------------------------------------------------------------------------------------

    def _frame(self, number: int, method: str, params: Mapping[str, str]) -> bytes:
        """The request, signed: over all parameters in the sequence of their names, as they are, in no encoding."""
        signed = {**params, **self._envelope, "timestamp": self._client.now_ms()}
        text = "&".join([f"{name}={value}" for name, value in sorted(signed.items())])
        signed["signature"] = self._key.hmac_sha256_hex(text.encode())
        return _encode({"id": number, "method": method, "params": signed})

    async def _keep(self) -> None:
        """Read while there is a connection, and open the next one when there is not."""
        pause_s, clock = PAUSE_S, self._client.clock
        while True:
            if self._socket is not None:
                since_ns = clock.now_ns()
                await self._read(self._socket)
                pause_s = PAUSE_S if clock.now_ns() - since_ns >= LASTED_NS else pause_s
            await clock.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
            await self._connect()

    async def _connect(self) -> None:
        """One attempt."""
        budget = self._client.budget
        if budget.take(CONNECT_WEIGHT, "read"):
            observe.order_line_lost(self._client.name, "it may not be opened now: the request limit is used up")
            return
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                self._socket = await open_socket(self._client.session, self._url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.WSServerHandshakeError):
                budget.heard(error.status, error.headers or {})
            observe.order_line_lost(self._client.name, f"it cannot be opened ({type(error).__name__})")
        else:
            self._is_ending = False

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Pass answers on until the connection ends. Where that is known before, what is under way still has its time."""
        why = "closed"
        try:
            while not self._is_ending:
                self._heard(await text_from(self._client.name, socket))
            why = "its end was announced, or nothing was heard on it"
            async with asyncio.timeout(self._patience_s):
                while self._waiting:
                    self._heard(await text_from(self._client.name, socket))
        except (VenueError, TimeoutError) as error:
            why = str(error) or why
        finally:
            await self._drop(why)
        observe.order_line_lost(self._client.name, why)

    def _late(self, waiter: asyncio.Future[Answer], socket: aiohttp.ClientWebSocketResponse, frames: int) -> None:
        """No answer in time. Where nothing else was heard meanwhile either, nothing new leaves by this connection any more."""
        _silence(waiter, "no answer in time")
        if self._frames == frames and self._socket is socket and not self._is_ending:
            self._is_ending = True  # what is under way on it still has its time
            self._end = asyncio.get_running_loop().call_later(self._patience_s, self._hang_up, socket)

    def _hang_up(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        closing = asyncio.create_task(socket.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _heard(self, raw: str) -> None:
        self._frames += 1
        answer = read_answer(raw)
        self._count(answer)
        if answer.event is not None:
            self._is_ending = self._is_ending or answer.event.e == SHUTDOWN
            return
        waiter = self._waiting.get(answer.id)
        if waiter is None or waiter.done():
            observe.answer_ignored(self._client.name, f"request {str(answer.id)[:40]}, status {answer.status}")
            return
        waiter.set_result(answer)

    def _count(self, answer: Answer) -> None:
        """What the exchange says that was used, and how long it wants to be left alone."""
        used = {(one.rate_limit_type, one.interval, one.interval_num): one.count for one in answer.rate_limits}
        self._client.budget.counted(answer.status, used.get(WEIGHT, 0), used.get(ORDERS, 0), retry_s(answer.error))

    async def _drop(self, why: str) -> None:
        """The connection is over, and with it every answer that was still to come."""
        socket, self._socket = self._socket, None
        for waiter in self._waiting.values():
            _silence(waiter, f"the connection ended before the answer ({why})")
        if socket is not None:
            await socket.close()

    def _ended(self, keeper: asyncio.Task[None]) -> None:
        """A keeper that failed leaves the line down, which everybody sees: orders take the other way."""
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None:
            observe.order_line_lost(self._client.name, f"for good, by a bug ({type(error).__name__})")


def _silence(waiter: asyncio.Future[Answer], why: str) -> None:
    if not waiter.done():
        waiter.set_exception(NoAnswerError(why))
        waiter.exception()  # it counts as heard also where nobody waits any more


def retry_s(error: Mapping[str, Any] | None) -> int:
    """Whole seconds from the exchange's now to the moment that it names, rounded up; -1 if it names none."""
    data = (error or {}).get("data")
    if not isinstance(data, dict):
        return -1
    until_ms, now_ms = data.get("retryAfter"), data.get("serverTime")
    if not isinstance(until_ms, int) or not isinstance(now_ms, int):
        return -1
    return max(-(-(until_ms - now_ms) // 1_000), 0)
