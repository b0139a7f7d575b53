"""What an order may wait for before it is worked: a price that the market must reach, by whose word, and from which side.

A stop fires when the market has moved against whoever waits: a sale at or below its price, a purchase at or above it. Touched is
the other way round (market if touched, take profit). A trailing stop follows the best price that was seen at a distance.
"""

from typing import Literal

import msgspec

from agent.domain.instrument import Side
from agent.domain.price import Price, worse_by

By = Literal["mid", "last", "bid_ask"]
"""`mid`: the middle of the trusted view. `bid_ask`: the best price that the order could trade at. `last`: the newest trade."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    price: Price
    by: By = "mid"


class Touched(msgspec.Struct, frozen=True, tag="touched"):
    price: Price
    by: By = "mid"


class Trailing(msgspec.Struct, frozen=True, tag="trailing"):
    """`distance_bps` from the best price since `activation` was reached, or since the order is watched."""

    distance_bps: int
    activation: Price | None = None
    by: By = "mid"


Trigger = Stop | Touched | Trailing


def is_reached(level: Price, price: Price, *, falling: bool) -> bool:
    """Whether the market, at `price`, has fallen to a level, or risen to it."""
    return price <= level if falling else price >= level


def is_awaited_below(trigger: Trigger, side: Side) -> bool:
    """Whether the market must fall for it to fire: for a stop that sells, and for a purchase that waits for its price."""
    return (side == "sell") is not isinstance(trigger, Touched)


def level_of(trigger: Trigger, side: Side, best: Price | None) -> Price | None:
    """The price at which it fires now; of one that trails, `best` is the best price so far, and without one there is none."""
    if not isinstance(trigger, Trailing):
        return trigger.price
    return None if best is None else worse_by(best, trigger.distance_bps, selling=side == "sell")
