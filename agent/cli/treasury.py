"""`treasury`: coins between hot and cold accounts, rights taken away, owners replaced; and the tickets that wait for people."""

from typing import Annotated, Any

import typer

from agent.app import RealClock, settings_of
from agent.cli.options import Config, Json, ask, group, run_async
from agent.cli.show import line, out, print_json
from agent.cli.tables import new_table
from agent.cli.tickets import Id, shown, tell
from agent.ports import Ticket
from agent.treasurer import Done, Held, balances, leave, move, pay, poll, refuse, replace_owner, revoke, tickets
from agent.treasury.targets import Kind
from agent.vaults import treasury_of

commands = group("Coins between hot and cold accounts, and what waits for people.")

Account = Annotated[str, typer.Argument(help="Name of an account of [treasury].", metavar="ACCOUNT")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")]
Everything = Annotated[bool, typer.Option("--all", help="Those that are over too.")]
VERBS: dict[Kind, str] = {"sweep": "sweep", "top_up": "top up"}


@commands.command("show")
def show(config: Config = None, as_json: Json = False) -> None:
    """What every account holds now, by tier, its bounds, and the tickets that are not over."""
    loaded = settings_of(config)
    held = run_async(lambda: balances(loaded))
    waiting = tickets(loaded, RealClock())
    if as_json:
        bounds = [one.model_dump() for one in treasury_of(loaded).bounds]
        print_json({"balances": [_row(one) for one in held], "bounds": bounds, "tickets": [shown(one) for one in waiting]})
        return
    table = new_table(("tier", "account", "kind", "coin", "holds"), left=("tier", "account", "kind", "coin"))
    for one in held:
        table.add_row(one.tier, one.account, one.kind, one.coin, one.text)
    out.print(table)
    for address in dict.fromkeys(f"{one.account}  {one.address}" for one in held):
        line(address)
    for bound in treasury_of(loaded).bounds:
        line(
            f"{bound.coin} in {bound.hot}: from {bound.floor} to {bound.ceiling}, back to {bound.target}; the rest in {bound.cold}"
        )
    for ticket in waiting:
        tell(ticket, as_json=False)


@commands.command("sweep")
def sweep(config: Config = None, dry_run: Dry = False, as_json: Json = False) -> None:
    """Move what a hot account holds above its ceiling to the cold one. One that is under way is not asked for twice."""
    _move("sweep", config, dry_run=dry_run, as_json=as_json)


@commands.command("top-up")
def top_up(config: Config = None, dry_run: Dry = False, as_json: Json = False) -> None:
    """Ask the cold account for what a hot one has less than its floor."""
    _move("top_up", config, dry_run=dry_run, as_json=as_json)


@commands.command("pay")
def pay_command(
    account: Account,
    coin: Annotated[str, typer.Argument(metavar="COIN")],
    amount: Annotated[str, typer.Argument(help="In whole coins, for example 12.5.", metavar="AMOUNT")],
    to: Annotated[str, typer.Argument(help="An account of [treasury], or an address.", metavar="TO")],
    name: Annotated[str, typer.Option("--name", help="What it is for: the same name is paid once.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Pay from an account, within the rules that name whom it may pay."""
    loaded = settings_of(config)
    tell(run_async(lambda: pay(loaded, RealClock(), account, coin, amount, to, f"pay {name}", ask)), as_json=as_json)


@commands.command("tickets")
def tickets_command(config: Config = None, everything: Everything = False, as_json: Json = False) -> None:
    """What waits for people, and for what; nobody is asked."""
    _tell_all(tickets(settings_of(config), RealClock(), is_all=everything), "no tickets wait", as_json=as_json)


@commands.command("poll")
def poll_command(config: Config = None, as_json: Json = False) -> None:
    """Ask how far every ticket is, and send what is ready."""
    loaded = settings_of(config)
    _tell_all(run_async(lambda: poll(loaded, RealClock(), ask)), "no tickets wait", as_json=as_json)


@commands.command("refuse")
def refuse_command(
    ticket: Id, reason: Annotated[str, typer.Argument(help="Kept with the ticket.")], config: Config = None, as_json: Json = False
) -> None:
    """Take a ticket back. Where somebody may have signed it, its number is used up with nothing, which has to be signed too."""
    loaded = settings_of(config)
    tell(run_async(lambda: refuse(loaded, RealClock(), ticket, reason, ask)), as_json=as_json)


@commands.command("revoke")
def revoke_command(
    account: Account,
    spender: Annotated[list[str] | None, typer.Option("--spender", help="Another address whose approvals are taken back.")] = None,
    member: Annotated[str, typer.Option("--member", help="Take this address out of the account's role.")] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take back what others may take of an account's coins: approvals, Permit2's permissions, a member's role."""
    loaded = settings_of(config)
    _tell_all(run_async(lambda: revoke(loaded, RealClock(), account, spender or (), member, ask)), "", as_json=as_json)


@commands.command("replace-owner")
def replace_owner_command(
    account: Account,
    old: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make another address an owner of a Safe, in the place of an old one. A rule with the act `owners` must name it."""
    loaded = settings_of(config)
    tell(run_async(lambda: replace_owner(loaded, RealClock(), account, old, new, ask)), as_json=as_json)


@commands.command("leave")
def leave_command(
    account: Account,
    to: Annotated[str, typer.Option("--to", help="The account of [treasury] that gets everything.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Send everything that an account holds to another one: when its key may be known to somebody."""
    loaded = settings_of(config)
    _tell_all(run_async(lambda: leave(loaded, RealClock(), account, to, ask)), "it holds nothing", as_json=as_json)


def _move(kind: Kind, config: Any, *, dry_run: bool, as_json: bool) -> None:
    loaded = settings_of(config)
    found = run_async(lambda: move(loaded, RealClock(), kind, ask, is_rehearsal=dry_run))
    if as_json:
        print_json([_done(one) for one in found])
        return
    for one in found:
        moved = one.move
        line(f"{VERBS[kind]} {one.amount} {moved.coin} from {moved.source} to {moved.to}", "bold")
        if moved.missing:
            line(f"  {moved.source} does not have the rest that was wanted")
        if one.ticket is not None:
            line("" if one.is_new else "  it was under way before")
            tell(one.ticket, as_json=False)
    if not found:
        line("everything is within its bounds")


def _tell_all(found: list[Ticket], nothing: str, *, as_json: bool) -> None:
    if as_json:
        print_json([shown(one) for one in found])
        return
    for one in found:
        tell(one, as_json=False)
    if not found:
        line(nothing)


def _row(one: Held) -> dict[str, Any]:
    return {**one._asdict(), "units": str(one.units), "amount": one.text}


def _done(one: Done) -> dict[str, Any]:
    moved = {name: getattr(one.move, name) for name in one.move.__struct_fields__}
    exact = {**moved, "units": str(one.move.units), "missing": str(one.move.missing), "amount": one.amount}
    return {**exact, "is_new": one.is_new, "ticket": None if one.ticket is None else shown(one.ticket)}
