"""Records the raw market frames of Binance spot: a snapshot of the book and every change and trade, as they were received."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from agent.domain.errors import ConfigError, VenueError
from agent.ports import Tools
from agent.venues.ccxt_exchange.binance_feed import FRAME_BYTES_MAX, HEARTBEAT_S, STREAMS
from agent.venues.ccxt_exchange.binance_rest import proves_refusal
from agent.venues.ccxt_exchange.client import Client, Config

DEPTH = "1000"


async def frames(config: Config, tools: Tools, seconds: int) -> AsyncIterator[tuple[int, str]]:
    """(time of receipt in ns, frame) of the first symbol, for `seconds`. ConfigError for other exchanges, VenueError if cut off."""
    if config.exchange != "binance":
        raise ConfigError(f"only binance can be recorded, not {config.exchange[:40]}")
    symbol = config.symbols[0].replace("/", "")
    until_ns = tools.clock.now_ns() + seconds * 1_000_000_000
    async with contextlib.AsyncExitStack() as stack:
        client = Client("record", config, tools, proves_refusal)
        stack.push_async_callback(client.close)
        names = f"{symbol.lower()}@depth@100ms/{symbol.lower()}@trade"
        host = (config.ws_url or config.url or STREAMS).replace("http", "ws", 1)
        try:
            socket = await client.session.ws_connect(
                f"{host}/stream?streams={names}", heartbeat=HEARTBEAT_S, max_msg_size=FRAME_BYTES_MAX
            )
        except (aiohttp.ClientError, OSError) as error:
            raise VenueError(f"cannot open the streams at {host} ({type(error).__name__}); check address and network") from None
        stack.push_async_callback(socket.close)
        wanted = {"symbol": symbol, "limit": DEPTH}
        snapshot = await client.call(client.exchange.public_get_depth, wanted, weight=50)
        yield tools.clock.now_ns(), msgspec.json.encode(snapshot).decode()
        while (left_ns := until_ns - tools.clock.now_ns()) > 0:
            try:
                message = await socket.receive(timeout=left_ns / 1e9)
            except TimeoutError:
                return
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise VenueError("the exchange closed the stream; record again")
            yield tools.clock.now_ns(), str(message.data)
