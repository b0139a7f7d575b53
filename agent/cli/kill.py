"""`kill`: nothing new leaves, and everything that rests is taken back. Needs neither a running agent nor a readable journal.

First the latch, before anything else is looked at; then all venues at once. What it prints, it prints plainly and as it happens.
"""

import os
import sys
import threading
from typing import Annotated, Any

import typer

from agent.app import default_config
from agent.cli.options import Config, Json
from agent.cli.sweep import INTERRUPTED, Outcome, Place, read_place, sweep
from agent.domain.errors import JournalError, UsageError, VenueError
from agent.domain.sweep import Swept
from agent.journal.latch import FileLatch

ENGAGE_S = 1.0  # a disk that hangs must not keep the orders alive
ROW = "{:<20} {:>7} {:>10} {:>7} {:>8}"
HANGS = "the disk does not answer, the latch may not hold: stop the agent itself (kill -9)"


def kill(
    reason: Annotated[str, typer.Option("--reason", help="Why, for the history.")] = "by hand",
    venue: Annotated[
        list[str] | None, typer.Option("--venue", help="Cancel at this venue only; may be repeated. New orders stop everywhere.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be cancelled; change nothing.")] = False,
    lift: Annotated[str | None, typer.Option("--lift", metavar="REASON", help="Allow new orders again.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Block new orders and cancel everything, at every venue, whatever the agent does. Exit code 4 if something may be left."""
    if lift is not None and (dry_run or venue or not lift.strip()):
        raise UsageError("--lift takes a reason in your own words and nothing beside it; it goes into the history")
    place = read_place(config or default_config())
    latch = FileLatch(place.home)
    if lift is not None:
        _lift(latch, lift, as_json=as_json)
        return
    troubles = [HANGS]
    if dry_run:
        troubles = []
    else:
        _engage(latch, reason, troubles)
    tell = _quiet if as_json else _tell_row
    if not as_json:
        _tell_start(place, latch, troubles, is_dry=dry_run)
    outcome = sweep(place, venue or (), tell, is_dry=dry_run)
    found = _report(place, latch, outcome, troubles, is_dry=dry_run)
    if as_json:
        from agent.cli.show import print_json

        print_json(found)
    else:
        _tell_end(found, outcome.rows, is_dry=dry_run)
    _leave(found["exit_code"])


def _engage(latch: FileLatch, reason: str, troubles: list[str]) -> None:
    """Set the latch, and wait for it no longer than ENGAGE_S. `troubles` is what is wrong with it, also later."""

    def work() -> None:
        try:
            latch.engage(reason)
            troubles.clear()
        except JournalError as error:
            troubles[:] = [str(error)]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(ENGAGE_S)


def _lift(latch: FileLatch, reason: str, *, as_json: bool) -> None:
    was_engaged = latch.lift(reason)
    if as_json:
        from agent.cli.show import print_json

        print_json({"status": "lifted" if was_engaged else "not engaged", "latch": str(latch.path), "exit_code": 0})
    elif was_engaged:
        typer.echo(f"lifted: orders may leave again ({latch.path} is gone, its history stays)")
    else:
        typer.echo(f"nothing was blocked: {latch.path} does not exist")


def _report(place: Place, latch: FileLatch, outcome: Outcome, troubles: list[str], *, is_dry: bool) -> dict[str, Any]:
    rows = sorted(outcome.rows, key=lambda row: row.venue)
    is_known = not place.trouble and all(row.left is not None for row in rows)
    is_clean = is_known and (is_dry or all(row.left == 0 for row in rows))
    code = INTERRUPTED if outcome.is_interrupted else 0 if is_clean and not troubles else VenueError.exit_code
    status = "interrupted" if outcome.is_interrupted else "failed" if code else "dry run" if is_dry else "ok"
    return {
        "status": status,
        "latch": str(latch.path),
        "blocked": latch.engaged(),
        "venues": rows,
        "cancelled": sum(row.cancelled for row in rows),
        "left": sum(row.left or 0 for row in rows) if is_known else None,
        "done_ns": max((row.at_ns for row in rows), default=0),
        "troubles": [*troubles, *([place.trouble] if place.trouble else [])],
        "exit_code": code,
    }


# -- what is told ------------------------------------------------------------------------------------------------------


def _tell_start(place: Place, latch: FileLatch, troubles: list[str], *, is_dry: bool) -> None:
    for trouble in (*troubles, place.trouble):
        if trouble:
            typer.echo(f"error: {trouble}", err=True)
    if is_dry:
        typer.echo(f"dry run: {latch.path} would stop every new order, and this would be cancelled:")
    elif not troubles:
        typer.echo(f"blocked: no new order leaves while {latch.path} exists")
    if place.venues:
        typer.echo(ROW.format("venue", "found", "cancelled", "left", "ms"))


def _tell_row(row: Swept) -> None:
    left = "?" if row.left is None else row.left
    typer.echo(ROW.format(row.venue[:20], row.found, row.cancelled, left, row.ms))
    if row.note:
        typer.echo(f"  {row.note}")


def _quiet(_row: Swept) -> None:
    return


def _tell_end(found: dict[str, Any], rows: Any, *, is_dry: bool) -> None:
    if is_dry:
        typer.echo(f"{sum(row.found for row in rows)} orders would be cancelled; nothing was changed")
    elif found["exit_code"] == 0:
        typer.echo(f"{found['cancelled']} cancelled, nothing is left; `isthmus kill --lift REASON` allows new orders again")
    else:
        where = ", ".join(row.venue for row in rows if row.left != 0) or "nowhere"
        typer.echo(f"error: something may be left at: {where}; do what stands there, then run `isthmus kill` again", err=True)


def _leave(code: int) -> None:
    """A thread that still waits for a name server, a keyring or a disk is not waited for."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
