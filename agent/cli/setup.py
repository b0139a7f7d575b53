"""`init` and `doctor`: from nothing to a configuration that is known to work."""

import asyncio
import os
import stat
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from agent.app import RealClock, default_config, is_local, open_wallet, venue_key
from agent.cli.options import Config, Json, run_async
from agent.cli.show import out, print_json
from agent.config import FILE, Loaded, load, venue_module
from agent.domain.errors import IsthmusError, UsageError, VenueError
from agent.domain.market import ChainHead
from agent.keys.keystore import Keystore
from agent.keys.local import assert_fast_backend
from agent.ports import Tools
from agent.cli.templates import TEMPLATE

SKEW_WARN_MS, SKEW_FAIL_MS = 500, 1_000
HEAD_AGE_WARN_S, HEAD_AGE_FAIL_S = 30, 120
VENUE_TIMEOUT_S = 10.0
DISK_WARN, DISK_FAIL = 1 << 30, 100 << 20
MARKS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


class Check(NamedTuple):
    """One line of the doctor. `fix` is what to do when the level is not ok."""

    name: str
    level: Literal["ok", "warn", "fail", "skip"]
    text: str
    fix: str = ""


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the settings.")] = Path(FILE),
    as_json: Json = False,
) -> None:
    """Write one commented settings file. Nothing in it can trade until venues are filled in and armed."""
    if path.exists():
        raise UsageError(f"{path} exists already; nothing was written")
    try:
        path.write_text(TEMPLATE)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    if as_json:
        print_json({"written": str(path)})
    else:
        out.print(f"{path} written; next: edit it, `isthmus keys new main`, `isthmus doctor`", markup=False)


def doctor_command(config: Config = None, as_json: Json = False) -> None:
    """Check everything that trading needs, one line each, with its fix. Exit code 4 if something fails."""
    checks = examine(config or default_config())
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            out.print(f"[{MARKS[check.level]}]{check.level:4}[/] {check.name:22} ", end="")
            out.print(check.text + (f"  fix: {check.fix}" if check.fix and check.level != "ok" else ""), markup=False)
    raise typer.Exit(VenueError.exit_code if any(check.level == "fail" for check in checks) else 0)


def examine(path: Path) -> list[Check]:
    """All checks, in the order in which a user would mend them."""
    found = [_python(), _signing()]
    try:
        loaded = load(path)
    except IsthmusError as error:
        return [*found, Check("settings", "fail", str(error), "`isthmus init` writes a commented file")]
    found.append(Check("settings", "ok", f"{loaded.path}, {len(loaded.venues)} venues, durability {loaded.settings.durability}"))
    found += [_disk(loaded), _keystore(loaded), _wallet(loaded)]
    if not loaded.venues:
        return [*found, Check("venues", "fail", "no venue is configured", "add a [venues.NAME] section; `isthmus init` shows how")]
    return [*found, *run_async(lambda: _venues(loaded)), _armed(loaded)]


def _python() -> Check:
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check("python", "ok" if good else "fail", version, "use Python 3.11, 3.12 or 3.13")


def _signing() -> Check:
    try:
        assert_fast_backend()
    except IsthmusError as error:
        return Check("signing backend", "fail", str(error), "install coincurve and safe-pysha3 for this Python")
    return Check("signing backend", "ok", "coincurve and a native keccak")


def _disk(loaded: Loaded) -> Check:
    folder = next(parent for parent in (loaded.home, *loaded.home.parents) if parent.exists())
    info = os.statvfs(folder)
    free = info.f_bavail * info.f_frsize
    if not os.access(folder, os.W_OK):
        return Check("home folder", "fail", f"{loaded.home} cannot be written", f"chown or chmod {folder}")
    level: Literal["ok", "warn", "fail"] = "fail" if free < DISK_FAIL else "warn" if free < DISK_WARN else "ok"
    return Check("home folder", level, f"{loaded.home}, {free / (1 << 30):.1f} GiB free", "free some disk space")


def _keystore(loaded: Loaded) -> Check:
    folder = loaded.keystore_path
    if not folder.exists():
        return Check(
            "keystore", "warn" if loaded.settings.wallet is None else "fail", f"{folder} is not there", "isthmus keys new main"
        )
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return Check("keystore", "fail", f"{folder} is open to others (mode {mode:o})", f"chmod 700 {folder}")
    try:
        entries = Keystore(folder).list_keys()
    except IsthmusError as error:
        return Check("keystore", "fail", str(error))
    return Check("keystore", "ok", f"{len(entries)} keys, mode {mode:o}")


def _wallet(loaded: Loaded) -> Check:
    if loaded.settings.wallet is None:
        return Check("wallet", "skip", "no [wallet] section: on-chain venues can be watched, not traded")
    if loaded.settings.wallet.password == "ask":
        return Check("wallet", "skip", "its password is asked for at start")
    try:
        signer = open_wallet(loaded)
    except IsthmusError as error:
        return Check("wallet", "fail", str(error))
    assert signer is not None, "a wallet section was there"
    address = signer.address
    signer.close()
    return Check("wallet", "ok", f"{address} opens")


async def _venues(loaded: Loaded) -> list[Check]:
    return [check for name, section in loaded.venues.items() for check in await _venue(loaded, name, section)]


async def _venue(loaded: Loaded, name: str, section: object) -> list[Check]:
    found: list[Check] = []
    try:
        key = venue_key(loaded, name, section)
    except IsthmusError as error:
        return [Check(f"{name} secret", "fail", str(error))]
    try:
        async with asyncio.timeout(VENUE_TIMEOUT_S):
            venue = await venue_module(section.kind, name).connect(name, section, Tools(RealClock(), key))  # type: ignore[attr-defined]
    except (IsthmusError, TimeoutError) as error:
        return [
            Check(f"{name} reachable", "fail", str(error) or f"no answer within {VENUE_TIMEOUT_S:.0f} s", "check url and network")
        ]
    try:
        found.append(Check(f"{name} reachable", "ok", f"{venue.profile.kind}" + ("" if is_local(section) else ", live")))
        found += await _clock(name, venue)
        if venue.profile.chain_id is not None:
            found.append(Check(f"{name} chain id", "ok", str(venue.profile.chain_id)))
            found.append(await _head(name, venue))
        found.append(await _account(name, venue, key is not None or venue.profile.chain_id is not None))
    finally:
        await venue.close()
    return found


async def _clock(name: str, venue: object) -> list[Check]:
    offset = getattr(venue, "clock_offset_ms", None)
    if offset is None:
        return []
    size = abs(offset)
    level: Literal["ok", "warn", "fail"] = "fail" if size > SKEW_FAIL_MS else "warn" if size > SKEW_WARN_MS else "ok"
    return [Check(f"{name} clock", level, f"{offset:+.0f} ms against this machine", "run an NTP client on this machine")]


async def _head(name: str, venue: object) -> Check:
    async def first() -> ChainHead:
        async for event in venue.stream():  # type: ignore[attr-defined]
            if isinstance(event, ChainHead):
                return event
        raise VenueError("the stream ended")

    try:
        async with asyncio.timeout(VENUE_TIMEOUT_S):
            head = await first()
    except (IsthmusError, TimeoutError) as error:
        return Check(f"{name} head", "fail", str(error) or "no block arrived", "check that the node is synced")
    age = int(time.time()) - head.timestamp_s
    level: Literal["ok", "warn", "fail"] = "fail" if age > HEAD_AGE_FAIL_S else "warn" if age > HEAD_AGE_WARN_S else "ok"
    return Check(f"{name} head", level, f"block {head.number}, {age} s old", "the node lags: wait for it, or use another")


async def _account(name: str, venue: object, has_key: bool) -> Check:
    if not has_key:
        return Check(f"{name} account", "skip", "no key: it can be watched, not traded")
    try:
        async with asyncio.timeout(VENUE_TIMEOUT_S):
            shot = await venue.snapshot()  # type: ignore[attr-defined]
    except (IsthmusError, TimeoutError) as error:
        return Check(f"{name} account", "fail", str(error) or "no answer", "check the key, its permissions and its IP allow-list")
    if getattr(venue, "can_withdraw", False) and not shot.venue.startswith("sandbox"):
        return Check(f"{name} account", "warn", "the API key may withdraw", "make a key that can trade and read only")
    return Check(f"{name} account", "ok", ", ".join(str(amount) for amount in shot.balances if amount)[:100] or "empty")


def _armed(loaded: Loaded) -> Check:
    live = [name for name, section in loaded.venues.items() if not is_local(section)]
    if not live:
        return Check("arming", "ok", "all venues are on this machine: simulated money only")
    if loaded.settings.armed:
        return Check("arming", "warn", f"armed = true: with --live, {', '.join(live)} trade real money")
    return Check("arming", "ok", f"{', '.join(live)} cannot trade: armed = false")
