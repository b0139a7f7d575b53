"""An exchange through ccxt: `kind = "ccxt_exchange"`. Binance spot speaks its own streams; the others are polled through REST.

ccxt gives breadth; where a stream must be right, it is ours (ccxt's own streams end silently when a message surprises them). It is
imported when a venue connects and not before: checking the settings, and cancelling everything at Binance, do without it.
"""

from collections.abc import AsyncIterator, Iterator

from agent.ports import Tools, Venue, VenueEvent
from agent.venues.ccxt_exchange import binance_wire
from agent.venues.ccxt_exchange.config import Config

__all__ = ["Config", "connect", "frames", "parse"]

Context = binance_wire.Context


async def connect(name: str, config: Config, tools: Tools) -> Venue:
    """Reach the exchange, read the rules of its markets and its clock. ConfigError or VenueError, one line, if that fails."""
    if config.exchange == "binance":
        from agent.venues.ccxt_exchange.binance_spot import open_binance

        return await open_binance(name, config, tools)
    from agent.venues.ccxt_exchange.unified import open_unified

    return await open_unified(name, config, tools)


def frames(config: Config, tools: Tools, seconds: int) -> AsyncIterator[tuple[int, str]]:
    """(time of receipt in ns, frame) of the first symbol, for `seconds`. ConfigError for other exchanges, VenueError if cut off."""
    from agent.venues.ccxt_exchange import binance_record

    return binance_record.frames(config, tools, seconds)


def parse(frame: str | bytes, context: Context) -> Iterator[VenueEvent]:
    """The facts in one frame of the streams. Raises FrameError on a frame that is not known."""
    return binance_wire.parse(frame, context)
