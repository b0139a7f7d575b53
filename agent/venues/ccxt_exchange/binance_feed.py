"""The sockets of Binance spot: one for market data, one for our own orders. What they pass on is complete, or ends in an error.

A silent connection is found by the age of its data, not by pongs: a book that does not change is compared with the REST interface,
and an order that REST has accepted must show up on the private stream. Reconnecting is the supervisor's work, and so is asking what
happened meanwhile.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from agent.domain.errors import FrameError, VenueError
from agent.domain.events import OrderReported, VenueDisconnected
from agent.domain.instrument import Instrument
from agent.domain.market import BookDiff, BookSnapshot
from agent.ports import VenueEvent
from agent.venues.ccxt_exchange.binance_native import Natives
from agent.venues.ccxt_exchange.binance_wire import Context, DepthUpdate, ExecutionReport, Frame, decode, facts_of
from agent.venues.ccxt_exchange.book_join import BookJoin
from agent.venues.ccxt_exchange.client import Client, Config
from agent.venues.ccxt_exchange.conditions import nobody
from agent.venues.ccxt_exchange.inbox import Inbox
from agent.venues.ccxt_exchange.own_orders import OwnOrders

STREAMS, API = "wss://stream.binance.com:9443", "wss://ws-api.binance.com"
HANDSHAKE_S = 10.0
CLOSE_S = 1.0  # a connection that is given up need not say goodbye
HEARTBEAT_S = 20.0  # finds a dead TCP connection; a live one that says nothing is found by `_watch`
FRAME_BYTES_MAX = 1 << 20
JOINS_MAX = 8  # attempts to join a book before the connection is given up
CHECKS_PER_STALE = 4
NATIVE_PAUSE_S = 0.25
ReadBook = Callable[[Instrument], Awaitable[BookSnapshot]]
Care = Callable[[], Awaitable[None]]


async def open_socket(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """Connect. Raises aiohttp.ClientError or OSError."""
    url = url if url.startswith("ws") else url.replace("http", "ws", 1)
    patience = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
    return await session.ws_connect(url, heartbeat=HEARTBEAT_S, max_msg_size=FRAME_BYTES_MAX, timeout=patience)


async def text_from(name: str, socket: aiohttp.ClientWebSocketResponse) -> str:
    """The next frame. Raises VenueError when the connection has ended."""
    message = await socket.receive()
    if message.type is aiohttp.WSMsgType.TEXT:
        return str(message.data)
    if message.type in (aiohttp.WSMsgType.BINARY,):
        raise FrameError(f"{name}: a binary frame")
    raise VenueError(f"{name}: the connection was closed ({socket.close_code})")


def api_url(config: Config) -> str:
    """Where the WebSocket API is."""
    return f"{config.ws_url or config.url or API}/ws-api/v3"


class Feed:
    """One life of the two sockets. `instruments` by the exchange's symbol; `care` looks after the exchange's clock and rules."""

    def __init__(
        self,
        client: Client,
        own: OwnOrders,
        natives: Natives,
        instruments: Mapping[str, Instrument],
        read_book: ReadBook,
        care: Care,
    ) -> None:
        self._client, self._own, self._natives, self._clock = client, own, natives, client.clock
        self._instruments, self._read_book, self._care = instruments, read_book, care
        self._context = Context(client.name, instruments, client.config.groups)
        self._joins = {one.id: BookJoin() for one in instruments.values()}
        self._by_id = {one.id: one for one in instruments.values()}
        self._inbox = Inbox()
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._joining: set[str] = set()
        self._answer_ns = 0
        self._cared_ns = client.clock.now_ns()
        self._is_odd = False
        self._conditions = client.conditions

    async def open(self) -> None:
        """Connect and subscribe. VenueError if it does not work within ten seconds. Nothing is lost from here on."""
        config = self._client.config
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                if self._client.key is not None:
                    user = await self._socket(api_url(config))
                    await self._subscribe(user)
                    self._start(self._user(user))
                    self._start(self._ask(user))
                    self._start(self._follow_natives())
                names = "/".join(f"{s.lower()}@depth@100ms/{s.lower()}@trade" for s in self._instruments)
                market = await self._socket(f"{config.ws_url or config.url or STREAMS}/stream?streams={names}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise VenueError(
                f"{self._client.name}: cannot open the streams ({type(error).__name__}); check address and network"
            ) from None
        self._start(self._market(market))
        self._start(self._watch())
        self._start(self._look_after())
        self._conditions.key_refused = ""
        self._conditions.listener = self._changed
        for name in self._joins:
            self._join(name)

    def events(self) -> AsyncIterator[VenueEvent]:
        """Everything in the order received, until VenueError."""
        return self._inbox.events()

    def look_soon(self) -> None:
        """Something hints that rules or state of the exchange have changed."""
        self._cared_ns = 0

    async def close(self) -> None:
        """End all tasks and sockets. Never fails."""
        self._conditions.listener = nobody
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # also when we are called off meanwhile
            await asyncio.gather(*(socket.close() for socket in self._sockets), return_exceptions=True)

    # -- sockets ------------------------------------------------------------------------------------------------------

    async def _socket(self, url: str) -> aiohttp.ClientWebSocketResponse:
        socket = await open_socket(self._client.session, url)
        self._sockets.append(socket)
        return socket

    async def _subscribe(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        key = self._client.key
        assert key is not None, "only a connection with a key has private news"
        config = self._client.config
        params: dict[str, Any] = {"apiKey": config.api_key, "recvWindow": config.recv_window_ms, "timestamp": self._client.now_ms()}
        text = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
        params["signature"] = key.hmac_sha256_hex(text.encode())
        await socket.send_str(json.dumps({"id": "user", "method": "userDataStream.subscribe.signature", "params": params}))
        while True:
            frame = decode(await self._text(socket))
            if frame.id == "user":
                facts_of(frame, self._context)  # raises what the exchange complains about
                self._answer_ns = self._clock.now_ns()
                return

    async def _text(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        return await text_from(self._client.name, socket)

    def _facts(self, frame: Frame) -> Sequence[VenueEvent]:
        facts = facts_of(frame, msgspec.structs.replace(self._context, at_ns=self._clock.now_ns()))
        for fact in facts:
            if isinstance(fact, VenueDisconnected):
                raise VenueError(f"{self._client.name}: the exchange ends the stream ({fact.reason})")
        return facts

    async def _user(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            frame = decode(await self._text(socket))
            report = frame.event
            if frame.id is not None:
                self._answer_ns = self._clock.now_ns()
                self._facts(frame)
            elif isinstance(report, ExecutionReport) and report.symbol in self._instruments:
                if not self._natives.holds(report):
                    self._tell(report)
            else:
                self._facts(frame)

    def _tell(self, report: ExecutionReport) -> None:
        report = self._named(report)
        self._own.mentioned(report.order_id)
        told = [fact for fact in self._facts(Frame(event=report)) if not self._is_foreign_cancel(fact, report)]
        self._own.note(told, self._clock.now_ns())
        self._inbox.private(told)

    async def _follow_natives(self) -> None:
        """Ask how orders are coming on that the exchange works itself."""
        while True:
            await self._clock.sleep(NATIVE_PAUSE_S)
            if self._natives.is_due:
                facts, foreign = await self._natives.look()
                self._own.note(facts, self._clock.now_ns())
                self._inbox.private(facts)
                for report in foreign:
                    self._tell(report)

    def _named(self, report: ExecutionReport) -> ExecutionReport:
        """The report under the name that its order has here, whatever the exchange calls it by now."""
        name = self._own.name(report.symbol, report.order_number, report.order_id)
        if report.execution == "REPLACED":
            self._own.name(report.symbol, report.order_number, report.client_id)
        is_by_other = bool(report.original_id)
        return msgspec.structs.replace(report, **{"original_id" if is_by_other else "client_id": name})

    def _is_foreign_cancel(self, fact: VenueEvent, report: ExecutionReport) -> bool:
        """A cancel by hand is no order of ours: only what it did to its target is told."""
        is_cancel = isinstance(fact, OrderReported) and fact.order_id == report.client_id != report.order_id
        return is_cancel and not self._own.target(report.client_id)

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Ask something now and then: an exchange that answers pings of the socket may still be dead behind it."""
        while True:
            await self._clock.sleep(self._client.config.stale_ms / 1_000 / 2)
            await socket.send_str('{"id":"alive","method":"ping"}')

    async def _market(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            frame = decode(await self._text(socket))
            for fact in self._facts(frame):
                if isinstance(fact, BookDiff):
                    self._compare_sizes(frame.data, fact)
                    join = self._joins[fact.instrument]
                    self._pass_on(join.diff(fact))
                    if not join.is_joined:
                        self._join(fact.instrument)
                else:
                    self._pass_on((fact,))

    def _compare_sizes(self, told: object, fact: BookDiff) -> None:
        """Levels between two ticks were left out: the rules may have changed."""
        if isinstance(told, DepthUpdate) and len(told.bids) + len(told.asks) != len(fact.bids) + len(fact.asks):
            self._is_odd = True

    def _pass_on(self, facts: Sequence[VenueEvent]) -> None:
        if not self._inbox.market(facts):
            for name, join in self._joins.items():
                join.reset()
                self._join(name)

    # -- books --------------------------------------------------------------------------------------------------------

    def _join(self, name: str) -> None:
        if name not in self._joining:
            self._joining.add(name)
            self._start(self._joined(name))

    async def _joined(self, name: str) -> None:
        """Fetch snapshots until one continues into the changes that are kept."""
        join = self._joins[name]
        try:
            for attempt in range(JOINS_MAX):
                facts = join.snapshot(await self._read_book(self._by_id[name]))
                self._pass_on(facts)
                if join.is_joined:
                    join.changed_ns = self._clock.now_ns()
                    return
                await self._clock.sleep(0.05 * 2**attempt)
        finally:
            self._joining.discard(name)
        raise VenueError(f"{self._client.name}: the book of {name} cannot be joined with its changes")

    async def _watch(self) -> None:
        """Find silence: a book that moves without telling us, an order that the private stream does not mention."""
        stale_ns = self._client.config.stale_ms * 1_000_000
        while True:
            await self._clock.sleep(stale_ns / 1e9 / CHECKS_PER_STALE)
            now_ns = self._clock.now_ns()
            silent = self._own.silence(now_ns, stale_ns)
            if silent:
                raise VenueError(f"{self._client.name}: the private stream does not mention order {silent}")
            if self._answer_ns and now_ns - self._answer_ns > 2 * stale_ns:
                raise VenueError(f"{self._client.name}: the private connection does not answer")
            for name, join in self._joins.items():
                if join.is_joined and now_ns - join.changed_ns > stale_ns:
                    await self._compare(name, join, stale_ns)

    async def _look_after(self) -> None:
        """Now and then, and soon where something hints at a change."""
        period_ns, look_ns = self._client.config.clock_check_ms * 1_000_000, self._client.config.stale_ms * 1_000_000
        while True:
            await self._clock.sleep(look_ns / 1e9 / CHECKS_PER_STALE)
            self._changed()
            pause_ns = min(period_ns, look_ns) if self._conditions.is_troubled or self._is_odd else period_ns
            if self._clock.now_ns() - self._cared_ns >= pause_ns:
                self._is_odd = False
                await self._care()
                self._cared_ns = self._clock.now_ns()

    def _changed(self) -> None:
        """What the exchange lets us do may have changed."""
        if self._conditions.key_refused:
            text = f"{self._client.name} does not take the API key any more ({self._conditions.key_refused}); give it a good one"
            self._inbox.fail(VenueError(text))
        self._inbox.private(self._conditions.news())

    async def _compare(self, name: str, join: BookJoin, stale_ns: int) -> None:
        """A quiet book is passed on again, so that its reader knows that it is fresh. A stalled stream is an error."""
        book = await self._read_book(self._by_id[name])
        if book.seq > join.seq:  # the change may be on its way: give it time
            await self._clock.sleep(stale_ns / 1e9 / CHECKS_PER_STALE)
        if book.seq > join.seq:
            raise VenueError(f"{self._client.name}: the stream is silent while the book of {name} moves")
        if book.seq == join.seq and join.is_joined:
            join.changed_ns = self._clock.now_ns()
            self._pass_on((book,))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """However a part ends, the whole connection ends with it: half a feed is worse than none."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, VenueError):
            self._inbox.fail(error)
        elif error is not None:
            lost = VenueError(f"{self._client.name}: the connection was lost ({type(error).__name__})")
            lost.__cause__ = error
            self._inbox.fail(lost)
