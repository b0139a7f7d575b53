"""A parent order: what the client wants, and how far it came."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.domain.amount import Amount, rescale_up
from agent.domain.events import (
    IntentAmended,
    IntentCancelled,
    IntentContinued,
    IntentPaused,
    IntentTrailed,
    IntentTriggered,
    Routed,
    Turn,
    WholeQuoted,
)
from agent.domain.intent import Intent
from agent.domain.order import Fill
from agent.domain.price import Price
from agent.domain.trigger import is_awaited_below, level_of

LIVE = "LIVE"
PAUSED, WAITING = "PAUSED", "WAITING"
UNENDED = frozenset({LIVE, PAUSED, WAITING})  # what a parent may be called that has not ended


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
    departure: Price | None = None  # the middle when it ended
    whole: WholeQuoted | None = None
    fees: int = 0  # units of the base group that fees in the coin itself took
    triggered_ns: int = 0  # when what it waited for came
    best: Price | None = None  # the best price that its trailing stop has seen
    coin: Price | None = None  # what the coin that pays for gas was worth at arrival, in quote

    @property
    def is_live(self) -> bool:
        return self.status == LIVE

    @property
    def word(self) -> str:
        """Its status as people are told it: one that is live may be paused, or wait."""
        if not self.is_live:
            return self.status
        return PAUSED if self.paused else WAITING if self.is_waiting else LIVE

    @property
    def is_waiting(self) -> bool:
        """Whether a price, or a trade of another order, must come before it is worked."""
        return not self.triggered_ns and (self.intent.trigger is not None or bool(self.intent.after))

    @property
    def waits_for(self) -> str:
        """What must come before it is worked, for people; empty if nothing must."""
        intent, trigger = self.intent, self.intent.trigger
        if not self.is_waiting or not self.is_live:
            return ""
        first = f"for {intent.after} to trade" if intent.after else ""
        if trigger is None:
            return first
        level = level_of(trigger, intent.side, self.best)
        move = "fall" if is_awaited_below(trigger, intent.side) else "rise"
        price = f"for the market to {move} to {level} ({trigger.by})" if level else "for the market to reach its activation"
        return f"{first}, then {price}" if first else price

    @property
    def begun_ns(self) -> int:
        """Since when it is worked, or could be."""
        return self.triggered_ns or self.accepted_ns

    def count(self, fill: Fill, sign: Literal[1, -1]) -> None:
        """Book a trade, or one that was taken back."""
        asset = self.filled.asset
        base = rescale_up(fill.paid if self.intent.side == "sell" else fill.received, asset)
        self.filled = Amount(self.filled.units + sign * base.units, asset)
        if fill.fee.asset.group == asset.group:
            self.fees += sign * int(rescale_up(fill.fee, asset).units)

    def turn(self, event: Turn, at_ns: int, working: Sequence[str]) -> None:
        """Fold in what happened to it. `working`: its children through which something may still happen."""
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
                self.best = self.best if intent.trigger == self.intent.trigger else None
                self.intent = intent
            case IntentTriggered(arrival=arrival):
                self.triggered_ns, self.arrival = at_ns, arrival
            case IntentTrailed(best=best):
                self.best = best


def parent_of(turn: Turn) -> str:
    """The id of the parent that it happens to."""
    return turn.intent.intent_id if isinstance(turn, IntentAmended) else turn.intent_id


def _bounds(intent: Intent) -> tuple[object, ...]:
    """What says at which price a child may rest, and how much of it."""
    return intent.slippage_bps_max, intent.limit, intent.algo
