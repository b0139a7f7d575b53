"""A parent order: what the client wants, and how far it came."""

from collections.abc import Sequence

import msgspec

from agent.domain.amount import Amount
from agent.domain.events import IntentAmended, IntentCancelled, IntentContinued, IntentPaused, Routed, Turn
from agent.domain.intent import Intent
from agent.domain.price import Price

LIVE = "LIVE"
PAUSED = "PAUSED"
UNENDED = frozenset({LIVE, PAUSED})  # what a parent may be called that has not ended


class Parent(msgspec.Struct):
    """A parent order as it stands."""

    intent: Intent
    arrival: Price
    accepted_ns: int
    filled: Amount  # of the base group
    status: str = LIVE
    reason: str = ""
    cancelled: bool = False
    paused: bool = False
    outdated: tuple[str, ...] = ()  # children from before the price that it may trade at was changed: they must not rest
    slices: int = 0
    slice_ns: int = 0
    refusals: int = 0  # by risk, in a row
    failures: dict[str, int] = {}  # venue -> orders that it rejected or reverted since it last filled one
    failed_ns: dict[str, int] = {}  # venue -> when it last did
    routes: list[Routed] = msgspec.field(default_factory=list)
    orders: list[str] = msgspec.field(default_factory=list)
    ended_ns: int = 0
    coin: Price | None = None  # what the coin that pays for gas was worth at arrival, in quote

    @property
    def is_live(self) -> bool:
        return self.status == LIVE

    @property
    def word(self) -> str:
        """Its status as people are told it: one that is live may be paused."""
        return PAUSED if self.is_live and self.paused else self.status

    def turn(self, event: Turn, working: Sequence[str]) -> None:
        """Fold in what the client did to it. `working`: its children through which something may still happen."""
        match event:
            case IntentCancelled():
                self.cancelled = True
            case IntentPaused():
                self.paused = True
            case IntentContinued():
                self.paused = False
            case IntentAmended(intent=intent):
                if _bounds(intent) != _bounds(self.intent):
                    self.outdated = tuple(working)
                self.intent = intent


def parent_of(turn: Turn) -> str:
    """The id of the parent that it happens to."""
    return turn.intent.intent_id if isinstance(turn, IntentAmended) else turn.intent_id


def _bounds(intent: Intent) -> tuple[object, ...]:
    """What says at which price a child may rest."""
    return (intent.slippage_bps_max,)
