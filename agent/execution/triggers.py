"""Whether the market has reached what an order waits for: stops, prices that are touched, and stops that trail.

Prices come from the trusted view alone: without one nothing fires. The best price that a trailing stop follows only ever moves one
way, and it is remembered whenever it has moved by a basis point: so no spike is forgotten, not even by a restart, and yet a rise by
a tenth of the price costs at most a thousand records. A stop that trails is therefore exact to one basis point of its distance.
"""

from collections.abc import Callable

import msgspec

from agent.domain.instrument import Instrument, Side
from agent.domain.market import TradePrint
from agent.domain.price import Price, bps_between, ticks_price, worse_by
from agent.domain.trigger import By, Trailing, Trigger, is_awaited_below, is_reached, level_of
from agent.liquidity.depth import Depth
from agent.market.view import Source, View

PRINT_BPS_MAX = 200  # a trade further from the trusted middle is somebody's mistake, or older than the market is now
STEP_BPS = 1  # what the best price moves by before it is remembered anew


class Fired(msgspec.Struct, frozen=True):
    """The market is at `price`, which it waited for."""

    price: Price


class Moved(msgspec.Struct, frozen=True):
    """The best price that a trailing stop follows is `best` now."""

    best: Price


LastTrade = Callable[[str], TradePrint | None]


def watched(trigger: Trigger, side: Side, best: Price | None, view: View, last_trade: LastTrade) -> Fired | Moved | None:
    """What the market of now means for a trigger. `best`: what a trailing stop has seen so far."""
    price = price_by(trigger.by, side, view, last_trade)
    if price is None:
        return None
    level = level_of(trigger, side, best)
    if level is not None and is_reached(level, price, falling=is_awaited_below(trigger, side)):
        return Fired(price)
    return _moved(trigger, side, best, price) if isinstance(trigger, Trailing) else None


def price_by(by: By, side: Side, view: View, last_trade: LastTrade) -> Price | None:
    """The market's price by that word, from trusted sources; None where there is none."""
    if view.mid is None:
        return None
    match by:
        case "mid":
            return view.mid
        case "bid_ask":
            offers = [_offer(one, side) for one in view.sources]
            return (max(offers) if side == "sell" else min(offers)) if offers else None
        case "last":
            return _last(view, view.mid, last_trade)


def _moved(trigger: Trailing, side: Side, best: Price | None, price: Price) -> Moved | None:
    if best is None:
        start = trigger.activation
        is_active = start is None or is_reached(start, price, falling=side == "buy")
        return Moved(price) if is_active else None
    step = worse_by(best, STEP_BPS, selling=side == "buy")  # one step better for whoever waits
    return Moved(price) if is_reached(step, price, falling=side == "buy") else None


def _offer(source: Source, side: Side) -> Price:
    """What the first coin would trade at there: the best level of a book, or a pool's middle after its fee."""
    found, state = source.instrument, source.state
    if isinstance(state, Depth):
        return ticks_price((state.bids if side == "sell" else state.asks)[0][0], found.tick_units, found.quote.decimals)
    num, den, kept = int(source.mid.num), int(source.mid.den), 10**6 - found.fee_pips
    return Price(num * kept, den * 10**6) if side == "sell" else Price(num * 10**6, den * kept)


def _last(view: View, mid: Price, last_trade: LastTrade) -> Price | None:
    """The newest trade at a trusted book, unless it is far from where the market stands."""
    seen = [(print_, one.instrument) for one in view.sources if (print_ := last_trade(one.instrument.id)) is not None]
    if not seen:
        return None
    price = _printed(*max(seen, key=lambda item: item[0].at_ns))
    return price if abs(bps_between(price, mid)) <= PRINT_BPS_MAX else None


def _printed(trade: TradePrint, instrument: Instrument) -> Price:
    return ticks_price(trade.ticks, instrument.tick_units, instrument.quote.decimals)
