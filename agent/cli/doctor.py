"""`doctor`: everything that trading needs, one line each, in the order in which a user would mend it, with the fix."""

import contextlib
import os
import stat
import sys
from pathlib import Path

import typer

from agent.app import RealClock, default_config, kill_latch, live_venues, open_reader
from agent.cli.checks import Check, Level, failed
from agent.cli.options import Config, Json, run_async
from agent.cli.show import out, print_json
from agent.config import Loaded, Wallet, load
from agent.domain.errors import IsthmusError, VenueError
from agent.gateways import local
from agent.wallet import signs_fast, wallet_address, wallet_list

DISK_WARN, DISK_FAIL = 1 << 30, 100 << 20
MARKS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def doctor(config: Config = None, as_json: Json = False) -> None:
    """Check everything that trading needs, one line each, with its fix. Exit code 4 if something fails."""
    checks = [check if check.level in ("warn", "fail") else check._replace(fix="") for check in examine(config or default_config())]
    failed = sum(check.level == "fail" for check in checks)
    code = VenueError.exit_code if failed else 0
    if as_json:
        rows = [check._asdict() for check in checks]
        print_json({"status": "fail" if failed else "ok", "checks": rows, "exit_code": code})
    else:
        for check in checks:
            _tell(check)
        warned = sum(check.level == "warn" for check in checks)
        out.print(f"{failed} failed, {warned} warnings, {len(checks)} checks", style="bold")
    raise typer.Exit(code)


def _tell(check: Check) -> None:
    out.print(f"[{MARKS[check.level]}]{check.level:4}[/]  {check.name:19} ", end="", soft_wrap=True)
    out.print(check.text, markup=False, soft_wrap=True)
    if check.fix:
        out.print(f"{'':26}fix: {check.fix}", markup=False, soft_wrap=True)


def examine(path: Path) -> list[Check]:
    """All checks. Later ones are left out when an earlier one makes them impossible."""
    found = [_python(), _signing()]
    try:
        loaded = load(path)
    except IsthmusError as error:
        return [*found, failed("settings", error, "`isthmus init` writes a commented file")]
    found.append(Check("settings", "ok", f"{loaded.path}, {len(loaded.venues)} venues, durability {loaded.settings.durability}"))
    found += [_disk(loaded), _journal(loaded), _agent(loaded), _kill_switch(loaded), _keystore(loaded), _wallet(loaded)]
    if not loaded.venues:
        return [*found, Check("venues", "fail", "no venue is configured", "add a [venues.NAME] section; `isthmus init` shows how")]
    from agent.cli.doctor_venues import examine_venues

    return [*found, *run_async(lambda: examine_venues(loaded)), _armed(loaded)]


def _python() -> Check:
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check("python", "ok" if good else "fail", version, "use Python 3.11, 3.12 or 3.13")


def _signing() -> Check:
    try:
        signs_fast()
    except IsthmusError as error:
        return failed("signing", error, "install coincurve and safe-pysha3 for this Python")
    return Check("signing", "ok", "coincurve and a native keccak")


def _disk(loaded: Loaded) -> Check:
    folder = next(parent for parent in (loaded.home, *loaded.home.parents) if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Check("home folder", "fail", f"{loaded.home} cannot be written", f"chown or chmod {folder}, or change `home`")
    info = os.statvfs(folder)
    free = info.f_bavail * info.f_frsize
    level: Level = "fail" if free < DISK_FAIL else "warn" if free < DISK_WARN else "ok"
    return Check("home folder", level, f"{loaded.home}, {free / (1 << 30):.1f} GiB free", "free some disk space")


def _agent(loaded: Loaded) -> Check:
    if local.is_running(loaded.home):
        return Check("agent", "ok", "running; `isthmus order` talks to it")
    return Check("agent", "ok", "not running")


def _journal(loaded: Loaded) -> Check:
    section = loaded.settings.journal
    place = f"PostgreSQL, desk {section.desk or loaded.settings.account}" if section else str(loaded.journal_path)
    try:
        journal = open_reader(loaded)
        if journal is None:
            return Check("journal", "ok", f"{place}: not there yet, the first start makes it")
        with contextlib.closing(journal):
            count, _ = journal.head
    except IsthmusError as error:
        return failed("journal", error, "`isthmus audit verify` says what is wrong with it")
    return Check("journal", "ok", f"{place}, {count} records")


def _kill_switch(loaded: Loaded) -> Check:
    reason = kill_latch(loaded).engaged()
    if reason:
        return Check("kill switch", "warn", f"no order leaves: {reason}", "isthmus kill --lift REASON")
    return Check("kill switch", "ok", "not pulled; `isthmus kill` pulls it")


def _keystore(loaded: Loaded) -> Check:
    folder, fix = loaded.keystore_path, "isthmus keys new main"
    if not folder.exists():
        return Check("keystore", "fail" if isinstance(loaded.wallet, Wallet) else "skip", f"{folder} is not there", fix)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return Check("keystore", "fail", f"{folder} is open to others (mode {mode:o})", f"chmod 700 {folder}")
    try:
        count = len(wallet_list(folder))
    except IsthmusError as error:
        return failed("keystore", error, f"chmod 600 {folder}/*.json")
    return Check("keystore", "ok", f"{count} keys, mode {mode:o}")


def _wallet(loaded: Loaded) -> Check:
    if loaded.wallet is None:
        return Check("wallet", "skip", "no [wallet] section: on-chain venues can be watched, not traded")
    if isinstance(loaded.wallet, Wallet) and loaded.wallet.password == "ask":  # noqa: S105 - the word that means: ask a person
        return Check("wallet", "skip", "its password is asked for at start")
    try:
        address = run_async(lambda: wallet_address(loaded, RealClock()))
    except IsthmusError as error:
        return failed("wallet", error, "check [wallet] in the settings")
    for name, section in loaded.venues.items():
        named = getattr(section, "wallet", address)
        if named.lower() != address.lower():
            text = f"[wallet] opens {address}, venues.{name}.wallet is {named}"
            return Check("wallet", "fail", text, f'write wallet = "{address}" there, or name another key')
    return Check("wallet", "ok", f"{address} opens")


def _armed(loaded: Loaded) -> Check:
    live = live_venues(loaded)
    if not live:
        return Check("arming", "ok", "all venues are on this machine: simulated money only")
    if loaded.settings.armed:
        text = f"armed = true: with --live, {', '.join(live)} trade real money"
        return Check("arming", "warn", text, "set armed = false until you mean it")
    return Check("arming", "ok", f"{', '.join(live)} cannot trade: armed = false")
