"""An exchange through ccxt: `kind = "ccxt_exchange"`. Binance spot speaks its own streams; the others are polled through REST.

ccxt gives breadth; where a stream must be right, it is ours (ccxt's own streams end silently when a message surprises them).
"""

from collections.abc import Iterator

from agent.ports import Tools, Venue, VenueEvent
from agent.venues.ccxt_exchange import binance_wire
from agent.venues.ccxt_exchange.binance_record import frames
from agent.venues.ccxt_exchange.binance_spot import open_binance
from agent.venues.ccxt_exchange.client import Config
from agent.venues.ccxt_exchange.unified import open_unified

__all__ = ["Config", "connect", "frames", "parse"]

Context = binance_wire.Context


async def connect(name: str, config: Config, tools: Tools) -> Venue:
    """Reach the exchange, read the rules of its markets and its clock. ConfigError or VenueError, one line, if that fails."""
    if config.exchange == "binance":
        return await open_binance(name, config, tools)
    return await open_unified(name, config, tools)


def parse(frame: str | bytes, context: Context) -> Iterator[VenueEvent]:
    """The facts in one frame of the streams. Raises FrameError on a frame that is not known."""
    return binance_wire.parse(frame, context)
