"""`balances` and `reconcile`: what is owned, and whether the journal agrees with every venue and chain."""

from typing import Annotated

import typer

from agent.app import running_engine, settings_of
from agent.cli.options import Config, Json, ask, run_async
from agent.cli.outcome import started
from agent.cli.reading import look_at_accounts, reconcile_journal, replay
from agent.cli.show import digits, line, out, print_json
from agent.cli.tables import breaks_table, new_table, repairs_table
from agent.config import Loaded
from agent.domain.errors import UsageError, VenueError
from agent.domain.events import Break
from agent.gateways import local
from agent.ports import Repair


def balances(config: Config = None, as_json: Json = False) -> None:
    """What the journal says, beside what venues and chains say now."""
    loaded = settings_of(config)
    rows = run_async(lambda: _balances(loaded))
    if as_json:
        print_json(rows)
        return
    table = new_table(("venue", "asset", "outside", "journal"), left=("venue", "asset"))
    for row in rows:
        table.add_row(row["venue"], row["asset"], row["outside"], row["journal"] or "-")
    out.print(table)
    if rows and not any(row["journal"] for row in rows):
        line("the journal is empty: the first `isthmus run` or `isthmus order submit` takes these as opening balances")


async def _balances(loaded: Loaded) -> list[dict[str, str | None]]:
    state, account = replay(loaded), loaded.settings.account
    rows: list[dict[str, str | None]] = []
    for shot in await look_at_accounts(loaded):
        known = (account, shot.venue) in state.adopted
        for amount in shot.balances:
            ours = digits(state.ledger.balance(account, shot.venue, amount.asset)) if known else None
            rows.append({"venue": shot.venue, "asset": amount.asset.id, "outside": digits(amount), "journal": ours})
    return rows


def reconcile(
    adopt: Annotated[
        str | None,
        typer.Option("--adopt", metavar="REASON", help="Explain the differences (a deposit, say): take them over, lift the halt."),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what venues can tell: missed trades and orders.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: say what would be done, and do nothing.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hold the journal against every venue and chain. Exit code 4 when there are breaks."""
    if adopt is not None and (not adopt.strip() or repair):
        raise UsageError("--adopt needs a reason in your own words, which is journaled; and it is not for use with --repair")
    if dry_run and not repair:
        raise UsageError("--dry-run belongs to --repair; without it nothing is changed anyway")
    loaded = settings_of(config)
    if adopt is not None:
        steps: list[Repair] = []
        breaks = run_async(lambda: _adopt(loaded, adopt))
    elif repair and not dry_run:
        breaks, steps = run_async(lambda: _repair(loaded))
    else:
        breaks, steps = run_async(lambda: _reconcile(loaded))
    code = VenueError.exit_code if breaks else 0
    if as_json:
        told = [{"venue": one.venue, "about": one.about, "action": one.action, "is_possible": bool(one.events)} for one in steps]
        status = "breaks" if breaks else "ok"
        print_json({"status": status, "breaks": breaks, **({"repairs": told} if repair else {}), "exit_code": code})
    else:
        if repair:
            out.print(repairs_table(steps, is_done=not dry_run) if steps else "nothing to repair")
        out.print(breaks_table(breaks) if breaks else "0 breaks")
    raise typer.Exit(code)


async def _reconcile(loaded: Loaded) -> tuple[list[Break], list[Repair]]:
    if local.is_running(loaded.home):
        steps = [local.read_repair(one) for one in await local.ask(loaded.home, local.Mend(is_rehearsal=True))]
        found = await local.ask(loaded.home, local.Reconcile())
        return [local.read_break(one) for one in found], steps
    return await reconcile_journal(loaded)


async def _repair(loaded: Loaded) -> tuple[list[Break], list[Repair]]:
    """What was done, and the differences that are left."""
    if local.is_running(loaded.home):
        steps = [local.read_repair(one) for one in await local.ask(loaded.home, local.Mend(is_rehearsal=False))]
        return [local.read_break(one) for one in await local.ask(loaded.home, local.Reconcile())], steps
    async with running_engine(loaded, ask=ask, is_idle=True) as engine:
        await started(engine, quiet=True)
        done = list(await engine.repair(is_rehearsal=False))
        return list(await engine.reconcile()), done


async def _adopt(loaded: Loaded, reason: str) -> list[Break]:
    if local.is_running(loaded.home):
        return [local.read_break(one) for one in await local.ask(loaded.home, local.Adopt(reason))]
    async with running_engine(loaded, ask=ask, is_idle=True) as engine:
        await started(engine, quiet=True)
        return list(await engine.adopt(reason))
