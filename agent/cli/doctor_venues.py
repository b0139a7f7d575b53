"""The doctor's checks of each venue: reachable, clock, chain, head, account, and what its API key may do."""

import asyncio
import time
from typing import Any

from agent.app import RealClock, is_local
from agent.cli.checks import Check, Level, failed
from agent.config import Loaded, venue_module
from agent.domain.errors import IsthmusError, VenueError
from agent.domain.market import ChainHead
from agent.ports import Tools, Venue
from agent.roles import check_role
from agent.wallet import venue_key

SKEW_WARN_MS, SKEW_FAIL_MS = 500, 1_000
HEAD_AGE_WARN_S, HEAD_AGE_FAIL_S = 30, 120
TIMEOUT_S = 10.0
COINS_MAX = 6


async def examine_venues(loaded: Loaded) -> list[Check]:
    """Every venue at once, told in the order of the settings."""
    found = await asyncio.gather(*(_venue(loaded, name, section) for name, section in loaded.venues.items()))
    return [check for checks in found for check in checks]


async def _venue(loaded: Loaded, name: str, section: Any) -> list[Check]:
    try:
        key = venue_key(loaded, name, section)
    except IsthmusError as error:
        return [failed(f"{name} secret", error, "check `secret` in the settings")]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            tools = Tools(RealClock(), key, loaded.settings.account)
            venue = await venue_module(section.kind, name).connect(name, section, tools)
    except (IsthmusError, TimeoutError) as error:
        return [failed(f"{name} reachable", error, "check its address and the network")]
    try:
        found = [Check(f"{name} reachable", "ok", section.kind + (", on this machine" if is_local(section) else ", live"))]
        found += _clock(name, venue) + _orders(name, venue)
        if venue.profile.chain_id is not None:
            found.append(Check(f"{name} chain id", "ok", str(venue.profile.chain_id)))
            found.append(await _head(name, venue, is_here=is_local(section)))
            found += await _role(loaded, name, section, tools)
        found.append(await _account(name, venue, has_account=key is not None or venue.profile.chain_id is not None))
        if key is not None:
            found.append(await _rights(name, venue, is_here=is_local(section)))
    finally:
        await venue.close()
    return found


async def _role(loaded: Loaded, name: str, section: Any, tools: Tools) -> list[Check]:
    """Where the wallet has a role in a Safe: whether the contract allows what the settings need, and no more."""
    if getattr(section, "account", "") != "role":
        return []
    try:
        await check_role(loaded, name, section, tools)
    except IsthmusError as error:
        return [failed(f"{name} role", error, "`isthmus keys roles setup`")]
    return [Check(f"{name} role", "ok", f"{section.role}, as the settings mean it")]


def _clock(name: str, venue: Venue) -> list[Check]:
    offset = getattr(venue, "clock_offset_ms", None)
    if offset is None:
        return []
    level: Level = "fail" if abs(offset) > SKEW_FAIL_MS else "warn" if abs(offset) > SKEW_WARN_MS else "ok"
    fix = "run an NTP client on this machine; the exchange refuses requests that are too early or too late"
    return [Check(f"{name} clock", level, f"{offset:+d} ms against this machine", fix)]


def _orders(name: str, venue: Venue) -> list[Check]:
    """The way that orders take, where the settings choose a faster one than REST."""
    is_up = getattr(venue, "is_order_line_up", None)
    if is_up is None:
        return []
    said = "over the WebSocket API" if is_up else "the WebSocket API cannot be reached, so orders take REST"
    return [Check(f"{name} orders", "ok" if is_up else "warn", said, "check ws_url and the network")]


async def _head(name: str, venue: Venue, *, is_here: bool) -> Check:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            head = await _first_head(venue)
    except (IsthmusError, TimeoutError) as error:
        return failed(f"{name} head", error, "check that the node is synced")
    age = int(time.time()) - head.timestamp_s
    too_old: Level = "warn" if is_here else "fail"  # a sandbox chain may mine only when something is sent
    level: Level = too_old if age > HEAD_AGE_FAIL_S else "warn" if age > HEAD_AGE_WARN_S else "ok"
    return Check(
        f"{name} head", level, f"block {head.number}, {age} s old", "the node lags: wait until it is synced, or use another"
    )


async def _first_head(venue: Venue) -> ChainHead:
    async for event in venue.stream():
        if isinstance(event, ChainHead):
            return event
    raise VenueError("the stream ended; check the node")


async def _account(name: str, venue: Venue, *, has_account: bool) -> Check:
    if not has_account:
        return Check(f"{name} account", "skip", "no key: it can be watched, not traded")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            shot = await venue.snapshot()
    except (IsthmusError, TimeoutError) as error:
        return failed(f"{name} account", error, "check the key, its permissions and its IP allow-list")
    held = [str(amount).partition("@")[0] for amount in shot.balances if amount]
    more = f" and {len(held) - COINS_MAX} more" if len(held) > COINS_MAX else ""
    return Check(f"{name} account", "ok" if held else "warn", ", ".join(held[:COINS_MAX]) + more or "it is empty", "fund it")


async def _rights(name: str, venue: Venue, *, is_here: bool) -> Check:
    """An API key that may withdraw is a danger that trading does not need."""
    ask = getattr(venue, "may_withdraw", None)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = None if ask is None else await ask()
    except (IsthmusError, TimeoutError) as error:
        return failed(f"{name} key", error, "check the key's permissions")
    if answer is None:
        return Check(f"{name} key", "skip", "this exchange does not say what the key may do; look at its web page")
    if answer:
        return Check(f"{name} key", "warn" if is_here else "fail", "it may withdraw", "make a key that can read and trade only")
    return Check(f"{name} key", "ok", "it cannot withdraw")
