"""Reading what the user wrote: pairs, quantities, durations. Everything is bounded before it is converted."""

import re
from typing import TYPE_CHECKING

from agent.domain.amount import Amount, group_asset, parse_amount
from agent.domain.errors import UsageError

if TYPE_CHECKING:
    from agent.config import Loaded

PAIR = re.compile(r"([A-Za-z0-9]{1,12})/([A-Za-z0-9]{1,12})", re.ASCII)
DURATION = re.compile(r"([0-9]{1,6})(s|m|h)", re.ASCII)
SECONDS = {"s": 1, "m": 60, "h": 3_600}
DAYS_MAX = 31


def pair(text: str, loaded: "Loaded") -> tuple[str, str]:
    """`eth/usdt` -> (ETH, USDT), if a venue of the settings trades it."""
    match = PAIR.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is not a pair; write it as BASE/QUOTE, for example ETH/USDT")
    known = markets(loaded)
    names = {one.upper(): one for one in known}
    if text.upper() not in names:
        raise UsageError(f"no venue of {loaded.path.name} trades {text.upper()}; name one of {', '.join(sorted(known)) or 'none'}")
    base, _, quote = names[text.upper()].partition("/")
    return base, quote


def markets(loaded: "Loaded") -> set[str]:
    """Pairs of groups that the settings name."""
    return {market for section in loaded.venues.values() for market in section.markets()}


def quantity(text: str, base: str) -> Amount:
    """Of the base group, above zero. Raises NumberError or UsageError."""
    found = parse_amount(text, group_asset(base))
    if not found:
        raise UsageError("--qty must be above zero")
    return found


def duration(text: str, option: str) -> int:
    """Nanoseconds of 30s, 20m, 2h."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: {text[:20]!r} is not a duration; write 30s, 20m or 2h")
    seconds = int(match[1]) * SECONDS[match[2]]
    if seconds > DAYS_MAX * 86_400:
        raise UsageError(f"{option}: {text} is longer than {DAYS_MAX} days; write less")
    return seconds * 10**9
