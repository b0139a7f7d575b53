"""`audit`: is the journal as it was written, every record of it, and does it still hold what was seen before."""

import asyncio
import contextlib
import re
import time
from typing import Annotated, Any

import typer

from agent.app import open_reader, settings_of
from agent.cli.options import Config, Json, group
from agent.cli.show import line, print_json
from agent.config import Loaded
from agent.domain.errors import JournalError, UsageError, VenueError
from agent.domain.events import Halted
from agent.journal.codec import ChainError
from agent.journal.head import kept_head
from agent.journal.sqlite import SqliteJournal

ANCHOR = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
EVERYWHERE = "agent"  # the scope of a halt that stops all new risk

commands = group("Check the journal: the whole chain of records, against what was seen before.")


@commands.command()
def verify(
    anchor: Annotated[
        str | None, typer.Option("--anchor", metavar="SEQ:HASH", help="A head that was noted before, as this command prints it.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hold every record against the chain, also while an agent runs. Exit code 4 if one is not as it was written."""
    held = _anchor(anchor) if anchor is not None else None
    loaded = settings_of(config, with_venues=False)
    found: dict[str, Any] = {
        "status": "ok",
        "journal": _name(loaded),
        "records": None,
        "head": None,
        "first_bad": None,
        "error": "",
    }
    code = 0
    try:
        seq, hash_ = _verified(loaded, held)
        found |= {"records": seq, "head": f"{seq}:{hash_}"}
    except JournalError as error:
        code = VenueError.exit_code
        first = error.seq if isinstance(error, ChainError) else None
        found |= {"status": "fail", "first_bad": first, "records": None if first is None else first - 1, "error": str(error)}
    if as_json:
        print_json(found | {"exit_code": code})
    elif code:
        line(f"fail  {found['error']}", "red")
        if found["first_bad"] is not None:
            line(f"      first bad record {found['first_bad']:,}; {found['records']:,} before it are as they were written")
    else:
        line(f"ok    {found['records']:,} records, each as it was written")
        line(f"      head {found['head']}", "dim")
    raise typer.Exit(code)


@commands.command("accept-loss")
def accept_loss(
    reason: Annotated[str, typer.Argument(metavar="REASON", help="Why the records are gone, for the journal.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Go on without records that are missing at the end. Trading stays halted until the journal agrees with the world again."""
    if not reason.strip():
        raise UsageError("accept-loss needs a reason in your own words: it is journaled")
    loaded = settings_of(config, with_venues=False)
    if loaded.settings.journal is not None:
        raise UsageError("this journal is in a database, which keeps its own records; restore it there")
    if not loaded.journal_path.exists():
        raise UsageError(f"there is no journal at {loaded.journal_path}; restore it from a copy")
    kept = kept_head(loaded.journal_path)
    with contextlib.closing(SqliteJournal(loaded.journal_path, loaded.settings.durability, accepts_loss=True)) as journal:
        lost = kept.seq - journal.head[0] if kept else 0
        if lost <= 0:
            raise UsageError("no record is missing; there is nothing to accept")
        last = journal.head[0]
        text = f"{lost} records after record {last} were lost: {reason}; `isthmus reconcile` shows what differs, --adopt lifts this"
        (record,) = journal.append(time.time_ns(), [Halted(EVERYWHERE, text)])
        asyncio.run(journal.secured(record.seq))
    if as_json:
        print_json({"status": "accepted", "lost": lost, "last": last, "reason": reason})
        return
    line(f"the journal goes on after record {last:,} without {lost:,} records; `isthmus reconcile` shows what differs now")


def _verified(loaded: Loaded, anchor: tuple[int, str] | None) -> tuple[int, str]:
    """The head. Raises JournalError where something is not as it was, UsageError where there is no journal."""
    journal = open_reader(loaded)
    if journal is None:
        raise UsageError(f"there is no journal yet at {_name(loaded)}; `isthmus run` or `isthmus order submit` begins one")
    with contextlib.closing(journal):
        return journal.verify(anchor)


def _anchor(text: str) -> tuple[int, str]:
    found = ANCHOR.fullmatch(text.strip())
    if found is None:
        raise UsageError("--anchor takes SEQ:HASH, a number and 64 hex digits, as `isthmus audit verify` prints its head")
    return int(found[1]), found[2]


def _name(loaded: Loaded) -> str:
    section = loaded.settings.journal
    return str(loaded.journal_path) if section is None else f"the desk {section.desk or loaded.settings.account} in the database"
