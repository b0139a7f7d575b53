"""The options that make an order wait for a price."""

import re
from typing import Annotated, Literal

import msgspec
import typer

from agent.cli import words
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.domain.price import Price
from agent.domain.trigger import By, Stop, Touched, Trailing, Trigger

WITHIN = "24h"  # how long an order waits by default
DISTANCE = re.compile(r"([0-9]{1,5})(?:bps)?", re.ASCII)
PANEL = "Waiting for a price"

StopPrice = Annotated[
    str, typer.Option("--stop", help="Wait until the market has moved against you to this price.", rich_help_panel=PANEL)
]
TakePrice = Annotated[str, typer.Option("--take", help="Wait until the market has come to this price.", rich_help_panel=PANEL)]
Trail = Annotated[
    str, typer.Option("--trail", help="Stop at this distance from the best price seen: 50bps.", rich_help_panel=PANEL)
]
Activation = Annotated[str, typer.Option("--activation", help="Of --trail: follow from this price on.", rich_help_panel=PANEL)]
StopBy = Annotated[
    Literal["mid", "last", "bid_ask"],
    typer.Option(
        "--stop-by", help="Whose word counts: the middle, the last trade, or the best price to trade at.", rich_help_panel=PANEL
    ),
]


def chosen(stop: str, take: str, trail: str, activation: str, by: By) -> Trigger | None:
    """None without any of them. Raises UsageError for two of them, and for what is no price or distance."""
    named = [name for name, text in (("--stop", stop), ("--take", take), ("--trail", trail)) if text]
    if len(named) > 1:
        raise UsageError(f"an order waits for one price, not for {' and '.join(named)}; `isthmus order oco` sends several")
    if activation and not trail:
        raise UsageError("--activation belongs to --trail; name a distance, for example --trail 50bps")
    if trail:
        return Trailing(distance(trail, "--trail"), words.price(activation, "--activation"), by)
    if stop:
        return Stop(sure(words.price(stop, "--stop")), by)
    return Touched(sure(words.price(take, "--take")), by) if take else None


def waiting(intent: Intent, trigger: Trigger | None, after: str, *, is_timed: bool) -> Intent:
    """The same wish, once the trigger has fired and the other order has traded; with a day more, unless the client named a time."""
    patience_ns = words.duration(WITHIN, "--within") if (trigger is not None or after) and not is_timed else 0
    return msgspec.structs.replace(intent, trigger=trigger, after=after, deadline_ns=intent.deadline_ns + patience_ns)


def distance(text: str, option: str) -> int:
    """Basis points of 50bps."""
    match = DISTANCE.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: {text[:20]!r} is not a distance; write 50bps")
    return int(match[1])


def sure(price: Price | None) -> Price:
    """A price that was named."""
    assert price is not None, "only a text without characters is no price"
    return price
