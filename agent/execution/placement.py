"""Passive or aggressive: whether a part at a book is taken at once, or rests at the best price and waits to be taken.

Both are weighed by what they are expected to cost, in basis points of the middle, from what is seen now:

    take = half the spread + what size costs beyond it + the taker's fee + what the venue's scorecard charges
    rest = P (maker's fee - half the spread + drift against us)
         + (1 - P) (take + drift against us + what the market may move away meanwhile)

P, that it is filled in time: volume that trades against our side comes at the pace of the last minute, more of it where the other
side of the book is heavier, and is taken to be exponentially distributed, so P = exp(-(queue ahead + half of ours) / volume). The
queue ahead is all that stands at the price now. Drift is what a forecast says, and, where it says nothing, half the way from the
middle to the microprice (the middle weighted by the sizes of the other side). Moving away: sigma sqrt(t), half of the time, upwards
only: 0.4 of it. An opinion, in floats; it decides nothing but when and where something is offered.
"""

from collections.abc import Callable
from math import exp, sqrt

import msgspec

from agent.domain.instrument import Instrument, Side
from agent.liquidity.depth import Depth
from agent.market.bars import Bars

PACE_S = 60  # over which the market's pace is measured
SIGMA_S = 300
AWAY = 0.4  # E[max(x, 0)] of a normal x with deviation 1
BPS = 10_000.0
EDGE_BPS = 0.02  # less is not worth a cancel and another order
CHANCE_MIN = 0.05


class Post(msgspec.Struct, frozen=True):
    """Rest there, and why."""

    ticks: int
    why: str


class Weighed(msgspec.Struct, frozen=True):
    """What both would cost, in bps of the middle; `filled`: the chance to be filled in time."""

    take_bps: float
    rest_bps: float
    filled: float
    ticks: int  # where it would rest

    @property
    def is_passive(self) -> bool:
        return self.filled >= CHANCE_MIN and self.rest_bps < self.take_bps - EDGE_BPS


class Sight(msgspec.Struct, frozen=True):
    """What the rule looks at. `horizon_s`: how long it may rest. `charge_pips`: the scorecard's. `drift_bps`: a forecast of the
    middle over so many seconds, upwards positive; None: there is none, or it is neutral.
    """

    found: Instrument
    depth: Depth
    side: Side
    base: float
    take_price: float  # the mean price of taking it, quote coins per base coin, after the fee
    horizon_s: float
    pace: float  # base coins that others trade per second
    sigma: float  # per square root of a second
    charge_pips: int = 0
    drift_bps: float | None = None


def weigh(sight: Sight) -> Weighed | None:
    """None where a side of the book is empty: there is no best price to join."""
    bids, asks = sight.depth.bids, sight.depth.asks
    if not bids or not asks:
        return None
    scale = sight.found.tick_units / 10.0**sight.found.quote.decimals
    lot = sight.found.lot_units / 10.0**sight.found.base.decimals
    (bid, bid_size), (ask, ask_size) = ((ticks * scale, lots * lot) for ticks, lots in (bids[0], asks[0]))
    mid, selling = (bid + ask) / 2, sight.side == "sell"
    sign = 1.0 if selling else -1.0
    half = (ask - bid) / 2 / mid * BPS
    near, far = (ask_size, bid_size) if selling else (bid_size, ask_size)
    take = (mid - sight.take_price) * sign / mid * BPS + sight.charge_pips / 100
    micro = (bid * ask_size + ask * bid_size) / (bid_size + ask_size)
    drift = sight.drift_bps if sight.drift_bps is not None else (micro - mid) / mid * BPS / 2
    against = -drift * sign  # what resting loses when the market goes that way
    coming = sight.pace / 2 * sight.horizon_s * 2 * far / (near + far)
    filled = exp(-(near + sight.base / 2) / coming) if coming > 0 else 0.0
    away = AWAY * sight.sigma * BPS * sqrt(sight.horizon_s)
    maker = sight.found.maker_pips / 100
    rest = filled * (maker - half + max(against, 0.0)) + (1 - filled) * (take + away + against)
    return Weighed(take, rest, filled, asks[0][0] if selling else bids[0][0])


def post(sight: Sight, *, must: bool) -> Post | None:
    """Where to rest, if that is expected to cost less, or if it `must`; None: take it."""
    found = weigh(sight)
    if found is None or not (must or found.is_passive):
        return None
    chance = f"{found.filled:.0%} to be filled within {sight.horizon_s:.0f} s"
    return Post(found.ticks, f"rests: {found.rest_bps:.2f} bps expected against {found.take_bps:.2f} for taking, {chance}")


def pace_of(bars: Callable[[], Bars]) -> tuple[float, float]:
    """(base coins per second, volatility per square root of a second) of late."""
    known = bars()
    return known.rate(PACE_S), known.sigma(SIGMA_S)
