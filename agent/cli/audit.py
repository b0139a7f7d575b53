"""`audit`: is the journal as it was written, every record of it, and does it still hold what was seen before."""

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.app import open_reader, settings_of
from agent.cli.options import Config, Json, Live, group, run_async
from agent.cli.show import coins, line, print_json
from agent.config import Loaded
from agent.domain.errors import ConfigError, JournalError, UsageError, VenueError
from agent.domain.events import Halted
from agent.domain.order import OrderState
from agent.journal.codec import ChainError
from agent.journal.head import kept_head
from agent.journal.sqlite import SqliteJournal

if TYPE_CHECKING:
    from agent.chains.anchors import AnchoredHead
    from agent.cli.anchors import Keeper, Seen

ANCHOR = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
EVERYWHERE = "agent"  # the scope of a halt that stops all new risk

commands = group("Check the journal against what was seen of it before, and keep its head on a chain.")


@commands.command()
def verify(
    anchor: Annotated[
        str | None, typer.Option("--anchor", metavar="SEQ:HASH", help="A head that was noted before, as this command prints it.")
    ] = None,
    chain: Annotated[
        bool | None,
        typer.Option(
            "--chain/--no-chain", help="With the heads that a chain keeps: insist, or do not ask. Default: if it answers."
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hold every record against the chain of hashes, also while an agent runs, and against the heads that were anchored.

    Exit code 4 if one is not as it was written.
    """
    held = _anchor(anchor) if anchor is not None else None
    loaded = settings_of(config, with_venues=False)
    seen, told = _asked(loaded, chain)
    found: dict[str, Any] = {
        "status": "ok",
        "journal": _name(loaded),
        "records": None,
        "head": None,
        "first_bad": None,
        "error": "",
        "chains": seen,
    }
    code = 0
    try:
        seq, hash_ = _verified(loaded, held, seen, told)
        found |= {"records": seq, "head": f"{seq}:{hash_}"}
        missing = [one.error for one in seen if one.status == "not compared"]
        if chain and missing:
            code = VenueError.exit_code
            found |= {"status": "not compared", "error": missing[0]}
    except JournalError as error:
        code = VenueError.exit_code
        first = error.seq if isinstance(error, ChainError) else None
        found |= {"status": "fail", "first_bad": first, "records": None if first is None else first - 1, "error": str(error)}
    if as_json:
        print_json(found | {"exit_code": code})
    else:
        _tell(found, seen)
    raise typer.Exit(code)


@commands.command("anchor")
def anchor_command(
    venue: Annotated[str, typer.Option("--venue", help="Where, if several venues keep heads.", show_default=False)] = "",
    config: Config = None,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Write the journal's newest hash on a chain, so that a journal that is cut or rewritten later is found out. Costs gas."""
    from agent.cli.anchors import write

    loaded = settings_of(config)
    found, order = run_async(lambda: write(loaded, venue, live=live, quiet=as_json))
    is_there = order.state in (OrderState.MINED, OrderState.FINAL)
    code = 0 if is_there else VenueError.exit_code
    if as_json:
        fields = {name: getattr(order, name) for name in ("state", "reason", "tx_hash", "block", "gas")}
        status = "anchored" if is_there else "failed"
        head = f"{found.seq}:{found.head}"
        print_json({
            "status": status, "venue": found.venue, "contract": found.contract, "head": head, "order_id": found.order_id,
            **fields, "exit_code": code,
        })  # fmt: skip
    elif is_there:
        gas = f"{coins(order.gas, 6)} {order.gas.asset.symbol}" if order.gas else "not told yet"
        line(f"anchored  record {found.seq:,} at {found.venue} in block {order.block}, gas {gas}")
        line(f"          head {found.seq}:{found.head}", "dim")
        line(f"          transaction {order.tx_hash} to {found.contract}", "dim")
    else:
        line(f"not anchored: {found.order_id} is {order.state}: {order.reason}; nothing but gas was spent", "red")
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


def _asked(loaded: Loaded, chain: bool | None) -> tuple["list[Seen]", "dict[str, list[AnchoredHead] | str]"]:
    """What the chains have; asked before the journal is read, which may grow meanwhile. `chain` as of the command line."""
    if chain is False or not (chain or loaded.settings.venues):
        return [], {}
    from agent.cli import anchors

    try:
        places = anchors.keepers(loaded)
    except ConfigError as error:
        if chain:
            raise
        return [anchors.Seen("settings", "", "", "not compared", 0, "", str(error))], {"settings": str(error)}
    if chain and not places:
        raise UsageError(f"{anchors.NOBODY} of the journal; {anchors.SET_IT}")
    told = run_async(lambda: anchors.look(places))
    return [_seen(name, places[name], told[name]) for name in places], told


def _seen(name: str, keeper: "Keeper", told: "list[AnchoredHead] | str") -> "Seen":
    from agent.cli.anchors import Seen

    place = name, keeper.contracts.audit_anchor, keeper.wallet
    if isinstance(told, str):
        return Seen(*place, "not compared", 0, "", told)
    newest = f"{told[-1].seq}:{told[-1].head}" if told else ""
    return Seen(*place, "ok" if told else "nothing", len(told), newest, "")


def _verified(
    loaded: Loaded, anchor: tuple[int, str] | None, seen: "list[Seen]", told: "dict[str, list[AnchoredHead] | str]"
) -> tuple[int, str]:
    """The head. Raises JournalError where something is not as it was, UsageError where there is no journal."""
    journal = open_reader(loaded)
    if journal is None:
        raise UsageError(f"there is no journal yet at {_name(loaded)}; `isthmus run` or `isthmus order submit` begins one")
    with contextlib.closing(journal):
        head = journal.verify(anchor)
        troubles = [_compare(journal, head[0], one, told[one.venue]) for one in seen]
    for trouble in filter(None, troubles):
        raise trouble
    return head


def _compare(journal: Any, last: int, one: "Seen", told: "list[AnchoredHead] | str") -> JournalError | None:
    """What is wrong, if the chain contradicts the journal."""
    from agent.cli.anchors import compare

    if isinstance(told, str):
        return None
    try:
        compare(journal, last, one.venue, told)
    except JournalError as error:
        one.status, one.error = "fail", str(error)
        return error
    return None


def _tell(found: Mapping[str, Any], seen: "list[Seen]") -> None:
    if found["status"] == "fail":
        line(f"fail  {found['error']}", "red")
        if found["first_bad"] is not None:
            line(f"      first bad record {found['first_bad']:,}; {found['records']:,} before it are as they were written")
        return
    line(f"ok    {found['records']:,} records, each as it was written")
    line(f"      head {found['head']}", "dim")
    for one in seen:
        match one.status:
            case "ok":
                newest = one.newest.partition(":")[0]
                agree = "1 head on the chain agrees" if one.heads == 1 else f"{one.heads:,} heads on the chain agree"
                line(f"ok    {one.venue}: {agree}, the newest of record {newest}")
            case "nothing":
                line(f"-     {one.venue}: nothing is anchored there for {one.wallet}; `isthmus audit anchor` does it", "yellow")
            case _:
                line(f"-     {one.venue}: not compared with the chain: {one.error}", "yellow")
    if not seen:
        line("      not compared with a chain: no venue was asked that keeps heads (contracts.audit_anchor)", "dim")


def _anchor(text: str) -> tuple[int, str]:
    found = ANCHOR.fullmatch(text.strip())
    if found is None:
        raise UsageError("--anchor takes SEQ:HASH, a number and 64 hex digits, as `isthmus audit verify` prints its head")
    return int(found[1]), found[2]


def _name(loaded: Loaded) -> str:
    section = loaded.settings.journal
    return str(loaded.journal_path) if section is None else f"the desk {section.desk or loaded.settings.account} in the database"
