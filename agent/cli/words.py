"""Reading what the user wrote: pairs, quantities, durations. Everything is bounded before it is converted."""

import re
from typing import TYPE_CHECKING

from agent.domain.amount import Amount, group_asset, parse_amount, parse_units
from agent.domain.errors import UsageError
from agent.domain.price import Price

if TYPE_CHECKING:
    from agent.config import Loaded

PAIR = re.compile(r"([A-Za-z0-9]{1,12})/([A-Za-z0-9]{1,12})", re.ASCII)
DURATION = re.compile(r"([0-9]{1,6})(ms|s|m|h)", re.ASCII)
UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
DAYS_MAX = 31
PRICE_DECIMALS = 18


def pair(text: str) -> str:
    """`eth/usdt` -> `ETH/USDT`."""
    if PAIR.fullmatch(text) is None:
        raise UsageError(f"{text[:40]!r} is not a pair; write it as BASE/QUOTE, for example ETH/USDT")
    return text.upper()


def traded(market: str, loaded: "Loaded") -> tuple[str, str]:
    """(base, quote) of a pair that a venue of the settings trades, in the settings' own spelling."""
    known = {one.upper(): one for section in loaded.venues.values() for one in section.markets()}
    if not known:
        raise UsageError(f"{loaded.path.name} names no venue; add a [venues.NAME] section, or try `isthmus sandbox up`")
    if market not in known:
        raise UsageError(f"no venue of {loaded.path.name} trades {market}; name one of {', '.join(sorted(known.values()))}")
    base, _, quote = known[market].partition("/")
    return base, quote


def quantity(text: str, market: str) -> Amount:
    """Of the base group of the pair, above zero. Raises NumberError or UsageError."""
    found = parse_amount(text, group_asset(market.partition("/")[0]))
    if not found:
        raise UsageError("--qty must be above zero")
    return found


def duration(text: str, option: str) -> int:
    """Nanoseconds of 30s, 20m, 2h."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: {text[:20]!r} is not a duration; write 30s, 20m or 2h")
    found_ns = int(match[1]) * UNITS_NS[match[2]]
    if found_ns > DAYS_MAX * 86_400 * 10**9:
        raise UsageError(f"{option}: {text} is longer than {DAYS_MAX} days; write less")
    return found_ns


def price(text: str, option: str) -> Price | None:
    """Quote coins per base coin, above zero; None for nothing. Raises NumberError or UsageError."""
    if not text:
        return None
    units = parse_units(text, PRICE_DECIMALS, option)
    if not units:
        raise UsageError(f"{option} must be above zero")
    return Price(units, 10**PRICE_DECIMALS)
