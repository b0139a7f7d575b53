"""The far end of `loopback`: the sandbox exchange in a process of its own, behind a relay that notes when bytes pass.

It is the sandbox and no stub, because the adapter reads one story from four sides (REST, answers, private and market streams), and
only an exchange that really matches tells it without a contradiction. So that the sandbox's own work is in no figure, clients talk
to the relay: it passes bytes on as they are, and holds the one clock, from the moment at which it hands a tick to the client's
socket until it receives the bytes of the order. `python -m benchmarks.loopback_exchange` answers one JSON line for each line.
"""

import asyncio
import random
import sys
import time
from typing import Any

import msgspec

from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.matching import BUY, SELL

SECOND = 10**9
START_NS = 1_800_000_000 * SECOND
AGENT, ECHO = "agent", "echo"  # each has an exchange of its own, and both look the same
SYMBOL = "ETHUSDT"
FUNDS = {"ETH": "10000000", "USDT": "100000000000"}
BEST_TICKS, LEVELS, LEVEL_LOTS = 268_380, 50, 20_000
EATEN_LOTS = 10_000  # what an order takes of the best bid, which the next tick puts back
CHANGED = 10  # levels of each side in a tick
ORDER_BYTES_MIN = 200  # a ping is shorter, and so is every other word of a client that waits for a tick
STILL_S = 0.001  # before a tick: whoever waits for it is asleep by then, as in a real market
PATIENCE_S = 10.0


class Watch:
    """The one clock: when the tick left, and when the order came."""

    def __init__(self) -> None:
        self._is_armed, self.left_ns, self.came_ns = False, 0, 0
        self.done = asyncio.Event()

    def arm(self) -> None:
        self._is_armed, self.left_ns, self.came_ns = True, 0, 0
        self.done.clear()

    def leaves(self, path: bytes) -> None:
        """Bytes for a client are about to be written."""
        if self._is_armed and not self.left_ns and b"/stream?" in path:
            self.left_ns = time.perf_counter_ns()

    def came(self, path: bytes, count: int, at_ns: int) -> None:
        """Bytes of a client were received."""
        if self.left_ns and not self.came_ns and count >= ORDER_BYTES_MIN and b"/ws-api/" in path:
            self._is_armed, self.came_ns = False, at_ns
            self.done.set()


class Near(asyncio.Protocol):
    """The side of a client. `path` is the first line of its last GET, and so of its WebSocket once it has one."""

    def __init__(self, watch: Watch, port: int) -> None:
        self.path, self._watch, self._port = b"", watch, port
        self._far: asyncio.WriteTransport | None = None
        self._held = b""
        self.transport: asyncio.WriteTransport | None = None
        self._reaching: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport), "a stream"
        self.transport = transport
        self._reaching = asyncio.create_task(self._reach())

    async def _reach(self) -> None:
        far, _ = await asyncio.get_running_loop().create_connection(lambda: Far(self, self._watch), "127.0.0.1", self._port)
        self._far = far
        far.write(self._held)

    def data_received(self, data: bytes) -> None:
        self._watch.came(self.path, len(data), time.perf_counter_ns())
        if data.startswith(b"GET "):  # a connection that served REST may become a WebSocket
            self.path = data.partition(b"\r\n")[0]
        if self._far is None:
            self._held += data
        else:
            self._far.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._far is not None:
            self._far.close()


class Far(asyncio.Protocol):
    """The side of the sandbox."""

    def __init__(self, near: Near, watch: Watch) -> None:
        self._near, self._watch = near, watch

    def data_received(self, data: bytes) -> None:
        assert self._near.transport is not None, "it asked"
        self._watch.leaves(self._near.path)
        self._near.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._near.transport is not None:
            self._near.transport.close()


class Market:
    """An exchange with one book, the relay before it, and time, which stands still but for one second with every tick."""

    def __init__(self) -> None:
        self.now_ns, self._chance, self._watch = START_NS, random.Random(1), Watch()
        self._exchange: Exchange | None = None
        self._relay: asyncio.Server | None = None

    async def open(self) -> dict[str, str]:
        """Where it is, and a key for it."""
        exchange = self._exchange = await start_exchange(ExchangeConfig(flow="none", clock_ns=lambda: self.now_ns))
        assert exchange._ticker is not None
        exchange._ticker.cancel()  # a tick comes when it is asked for, and at no other time
        for coin, text in FUNDS.items():
            exchange.deposit("user", coin, text)
        for level in range(LEVELS):
            self._rest(BUY, BEST_TICKS - level, LEVEL_LOTS)
            self._rest(SELL, BEST_TICKS + 1 + level, LEVEL_LOTS)
        exchange.step()
        loop = asyncio.get_running_loop()
        self._relay = await loop.create_server(lambda: Near(self._watch, exchange.port), "127.0.0.1", 0)
        port = self._relay.sockets[0].getsockname()[1]
        api_key, secret = exchange.add_key("user")
        return {"url": f"http://127.0.0.1:{port}", "ws_url": f"ws://127.0.0.1:{port}", "api_key": api_key, "secret": secret}

    async def tick(self) -> int:
        """Nanoseconds from a change of the book to the order that answers it."""
        assert self._exchange is not None
        self.now_ns += SECOND
        self._rest(BUY, BEST_TICKS, EATEN_LOTS)
        for level in self._chance.sample(range(1, LEVELS), CHANGED):
            self._rest(BUY, BEST_TICKS - level, 1)
            self._rest(SELL, BEST_TICKS + 1 + level, 1)
        await asyncio.sleep(STILL_S)
        self._watch.arm()
        self._exchange.step()
        async with asyncio.timeout(PATIENCE_S):
            await self._watch.done.wait()
        return self._watch.came_ns - self._watch.left_ns

    async def close(self) -> None:
        assert self._relay is not None
        assert self._exchange is not None
        self._relay.close()
        await self._exchange.stop()

    def _rest(self, side: int, ticks: int, lots: int) -> None:
        assert self._exchange is not None
        self._exchange.venue.house_place(SYMBOL, side, ticks, lots, self.now_ns // 1_000_000)


async def main() -> None:
    markets = {name: Market() for name in (AGENT, ECHO)}
    tell({name: await market.open() for name, market in markets.items()})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        tell({"ns": await markets[msgspec.json.decode(line)["who"]].tick()})
    for market in markets.values():
        await market.close()


def tell(fields: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(fields) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
