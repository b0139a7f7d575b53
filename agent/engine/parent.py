"""A parent order: what the client wants, and how far it came."""

import msgspec

from agent.domain.amount import Amount
from agent.domain.events import Routed, WholeQuoted
from agent.domain.intent import Intent
from agent.domain.price import Price

LIVE = "LIVE"


class Parent(msgspec.Struct):
    """A parent order as it stands."""

    intent: Intent
    arrival: Price
    accepted_ns: int
    filled: Amount  # of the base group
    status: str = LIVE
    reason: str = ""
    cancelled: bool = False
    slices: int = 0
    slice_ns: int = 0
    refusals: int = 0  # by risk, in a row
    failures: dict[str, int] = {}  # venue -> orders that it rejected or reverted since it last filled one
    failed_ns: dict[str, int] = {}  # venue -> when it last did
    routes: list[Routed] = msgspec.field(default_factory=list)
    orders: list[str] = msgspec.field(default_factory=list)
    ended_ns: int = 0
    departure: Price | None = None  # the middle when it ended
    whole: WholeQuoted | None = None
    coin: Price | None = None  # what the coin that pays for gas was worth at arrival, in quote

    @property
    def is_live(self) -> bool:
        return self.status == LIVE
