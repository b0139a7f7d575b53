"""`run`, `order`, `balances`, `reconcile`: the desk from the command line.

When an agent is running in this home folder the commands talk to it; otherwise they start one, do their work, and stop it again.
"""

import asyncio
import re
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from rich.live import Live as Screen
from rich.table import Table

from agent.app import open_journal, open_venues, open_wallet, running_engine
from agent.cli.options import Config, Json, Live, run_async, settings
from agent.cli.show import breaks_table, coins, err, jsonable, money, out, print_json, route_table, summary_panel
from agent.config import Loaded
from agent.domain.amount import Amount, group_asset, parse_amount
from agent.domain.errors import OutcomeUnknown, RefusedError, UsageError, VenueError
from agent.domain.events import Break, IntentEnded, OrderFilled, OrderRefused, OrderReported, Record, Routed
from agent.domain.intent import Intent
from agent.domain.order import OrderState
from agent.domain.plan import Reason
from agent.engine.loop import Engine
from agent.engine.state import State
from agent.engine.summary import Summary, summary
from agent.gateways import local
from agent.settlement.reconcile import compare

orders = typer.Typer(help="Submit, list, show and cancel parent orders.", no_args_is_help=True)

START_TIMEOUT_S = 60.0
PAIR = re.compile(r"^([A-Za-z0-9]{1,12})/([A-Za-z0-9]{1,12})$")
DURATION = re.compile(r"^(\d{1,6})(s|m|h)$")
SECONDS = {"s": 1, "m": 60, "h": 3_600}

Market = Annotated[str, typer.Argument(help="The pair, for example ETH/USDT.")]
Side = Annotated[Literal["sell", "buy"], typer.Option("--side", help="Of the base coin.")]
Quantity = Annotated[str, typer.Option("--qty", help="How much of the base coin, for example 40 or 0.25.")]


def run(config: Config = None, live: Live = False, as_json: Json = False, until_idle: Annotated[
    bool, typer.Option("--until-idle", help="Leave when no order is being worked, instead of waiting for more.")
] = False) -> None:  # fmt: skip
    """Run the agent: replay the journal, settle what was in doubt, resume live orders, and serve the desk until stopped."""
    loaded = settings(config)
    code, report = run_async(lambda: _run(loaded, live, until_idle or as_json, quiet=as_json))
    if as_json:
        print_json(report)
    raise typer.Exit(code)


async def _run(loaded: Loaded, live: bool, until_idle: bool, *, quiet: bool) -> tuple[int, dict[str, object]]:
    async with running_engine(loaded, live=live) as engine:
        resumed = await started(engine, quiet=quiet)
        if not quiet:
            tell_resumed(engine, resumed)
        follower = asyncio.create_task(_follow(engine, quiet=quiet))
        if until_idle or _is_demo(loaded):
            for name in resumed:
                await engine.finished(name)
        else:
            await engine.stopped()
        breaks = [] if engine.is_stopping else list(await engine.reconcile())
        done = [summary(engine.state, name) for name in resumed]
        follower.cancel()
    if not quiet:
        for one in done:
            out.print(summary_panel(one, breaks))
        if not done:
            out.print(f"nothing was left to do; {len(breaks)} breaks")
    code = exit_code(engine, done, breaks)
    return code, {"status": "ok" if code == 0 else "failed", "orders": done, "breaks": breaks, "failure": engine.failure}


def _is_demo(loaded: Loaded) -> bool:
    """An interrupted demo is finished and left; its sandbox would not be there for more."""
    return (loaded.home / "demo").exists()


async def started(engine: Engine, *, quiet: bool) -> list[str]:
    """Wait until the engine may trade; the parents that were live before. Raises VenueError naming who does not answer."""
    if not quiet:
        err.print("connecting, replaying the journal, reconciling …", style="dim")
    try:
        await asyncio.wait_for(engine.ready(), START_TIMEOUT_S)
    except TimeoutError:
        raise VenueError(f"not ready after {START_TIMEOUT_S:.0f} s: {engine.waiting_for()}") from None
    if engine.failure:
        raise VenueError(engine.failure)
    return [name for name, parent in engine.state.parents.items() if parent.is_live]


def tell_resumed(engine: Engine, resumed: Sequence[str]) -> None:
    out.print(f"journal: {engine.state.seq} records, {len(engine.state.orders)} orders, {len(resumed)} parents to resume")
    for name in resumed:
        parent = engine.state.parents[name]
        out.print(f"  {name}: {coins(parent.filled)} of {coins(parent.intent.quantity)} {parent.intent.base} filled")


async def _follow(engine: Engine, *, quiet: bool) -> None:
    async for record in engine.events():
        if not quiet and (line := story(record)):
            out.print(line, markup=False)


def story(record: Record) -> str:
    """One line of progress for a person, or nothing."""
    match record.event:
        case Routed() as r:
            parts = ", ".join(f"{p.instrument} {p.share:.0%}" for p in r.pieces)
            return f"  route   {coins(r.quantity)} {r.quantity.asset.group}: {parts}"
        case OrderFilled(fill=f):
            return f"  fill    {f.instrument}: {f.paid} -> {f.received} (fee {f.fee})"
        case OrderReported(state=state, order_id=name, reason=reason) if state is not OrderState.FINAL:
            return f"  {state.lower():7} {name} {reason}".rstrip()
        case OrderRefused(plan=plan, reasons=reasons):
            return f"  refused {plan.order_id}: " + "; ".join(f"{r.code}: {r.text}" for r in reasons)
        case IntentEnded(intent_id=name, status=status, reason=reason):
            return f"  ended   {name}: {status} {reason}".rstrip()
        case _:
            return ""


def exit_code(engine: Engine, done: Sequence[Summary], breaks: Sequence[Break]) -> int:
    if engine.failure:
        return 1
    if any(order.state in (OrderState.UNKNOWN, OrderState.SENT) for order in engine.state.working.values()):
        return OutcomeUnknown.exit_code
    if breaks:
        return VenueError.exit_code
    bad = [one for one in done if one.status != "FILLED"]
    if any(one.status == "REFUSED" for one in bad):
        return RefusedError.exit_code
    return VenueError.exit_code if bad else 0


# -- orders ------------------------------------------------------------------------------------------------------------


@orders.command("submit")
def submit(
    market: Market,
    side: Side,
    qty: Quantity,
    within: Annotated[str, typer.Option("--within", help="Deadline from now: 30s, 20m, 2h.")] = "10m",
    slippage_bps: Annotated[int, typer.Option("--slippage-bps", help="At most this much worse than arrival.")] = 30,
    slices: Annotated[int, typer.Option("--slices", help="Equal parts.")] = 1,
    every: Annotated[str, typer.Option("--every", help="Time between slices.")] = "0s",
    strategy: Annotated[str, typer.Option("--strategy", help="Name under which limits and results are kept.")] = "manual",
    config: Config = None,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Trade a quantity over all venues. Waits until it has ended and prints what it cost."""
    loaded = settings(config)
    code, result = run_async(
        lambda: _submit(loaded, live, market, side, qty, within, slippage_bps, slices, every, strategy, quiet=as_json)
    )
    if as_json:
        print_json(result)
    raise typer.Exit(code)


async def _submit(
    loaded: Loaded, live: bool, market: str, side: Literal["sell", "buy"], qty: str, within: str, slippage_bps: int, slices: int,
    every: str, strategy: str, *, quiet: bool,
) -> tuple[int, object]:  # fmt: skip
    known = markets(loaded)
    base, quote = pair(market, known)
    quantity = parse_amount(qty, group_asset(base))
    lasting, pause = duration(within, "--within"), duration(every, "--every")

    def intent(now_ns: int) -> Intent:
        return Intent(
            f"i{uuid.uuid4().hex[:10]}", loaded.settings.account, strategy, side, quantity, quote, slippage_bps,
            now_ns + lasting, slices, pause,
        )  # fmt: skip

    if local.is_running(loaded.home):
        return await _hand_over(loaded, intent, quiet=quiet)
    async with running_engine(loaded, live=live) as engine:
        await started(engine, quiet=quiet)
        wish = intent(engine.now_ns())
        refuse(await engine.submit(wish))
        await watch(engine, wish.intent_id, quiet=quiet)
        breaks = list(await engine.reconcile())
        done = summary(engine.state, wish.intent_id)
    if not quiet:
        out.print(summary_panel(done, breaks))
    return exit_code(engine, [done], breaks), {"status": done.status, "parent": done, "breaks": breaks}


async def _hand_over(loaded: Loaded, intent: "object", *, quiet: bool) -> tuple[int, object]:
    import time

    wish: Intent = intent(time.time_ns())  # type: ignore[operator]
    reasons = await local.ask(loaded.home, local.Submit(wish))
    refuse([Reason(r["code"], r["text"]) for r in reasons])
    if not quiet:
        out.print(f"{wish.intent_id} handed to the running agent; `isthmus order show {wish.intent_id}` follows it")
    return 0, {"status": "ACCEPTED", "parent": {"intent_id": wish.intent_id}}


async def watch(engine: Engine, intent_id: str, *, quiet: bool) -> None:
    """Show progress until the parent has ended. A route is printed when it is made; fills move the bar."""
    if quiet:
        await engine.finished(intent_id)
        return
    ended = asyncio.create_task(engine.finished(intent_id))
    with Screen(_progress(engine, intent_id), console=out, refresh_per_second=8, transient=True) as screen:
        events = engine.events()
        pending = asyncio.ensure_future(anext(events))
        while not ended.done():
            await asyncio.wait({ended, pending}, timeout=0.25, return_when=asyncio.FIRST_COMPLETED)
            if pending.done():
                if pending.exception() is not None:
                    break
                record = pending.result()
                if isinstance(record.event, Routed):
                    screen.console.print(route_table(record.event))
                elif line := story(record):
                    screen.console.print(line, markup=False)
                pending = asyncio.ensure_future(anext(events))
            screen.update(_progress(engine, intent_id))
        pending.cancel()
    await ended


def _progress(engine: Engine, intent_id: str) -> Table:
    parent = engine.state.parents[intent_id]
    share = parent.filled.units / parent.intent.quantity.units
    bar = "█" * int(share * 30)
    table = Table.grid(padding=(0, 2))
    table.add_row(
        f"{parent.intent.side} {coins(parent.intent.quantity, 2)} {parent.intent.base}",
        f"[{bar:30}] {share:6.1%}",
        f"filled {coins(parent.filled)}",
        f"in flight {len(engine.state.unsettled(intent_id))}",
    )
    return table


def refuse(reasons: Sequence[Reason]) -> None:
    if reasons:
        raise RefusedError("refused: " + "; ".join(f"{r.code}: {r.text}" for r in reasons))


@orders.command("list")
def list_command(config: Config = None, as_json: Json = False) -> None:
    """All parents in the journal."""
    state = replay(settings(config))
    done = [summary(state, name) for name in state.parents]
    if as_json:
        print_json(done)
        return
    table = Table()
    for name in ("intent", "side", "quantity", "filled", "all-in", "status"):
        table.add_column(name)
    for one in done:
        table.add_row(one.intent_id, one.side, str(one.quantity), coins(one.filled), money(one.all_in_price), one.status)
    out.print(table if done else "no orders yet")


@orders.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A parent's id or a child's order id.")], config: Config = None, as_json: Json = False
) -> None:
    """One parent with its legs and routes, or one child order."""
    state = replay(settings(config))
    if name in state.parents:
        done = summary(state, name)
        if as_json:
            print_json({"parent": done, "routes": state.parents[name].routes})
            return
        for route in state.parents[name].routes:
            out.print(route_table(route))
        out.print(summary_panel(done, []))
    elif name in state.orders:
        order = state.orders[name]
        print_json({f: getattr(order, f) for f in order.__struct_fields__ if f != "raw"})
    else:
        raise UsageError(f"no order {name[:40]} in the journal; `isthmus order list` shows them")


@orders.command("cancel")
def cancel(name: Annotated[str, typer.Argument(help="The parent's id.")], config: Config = None, as_json: Json = False) -> None:
    """Stop working a parent: what is in flight settles, nothing more is sent."""
    loaded = settings(config)

    async def work() -> bool:
        if local.is_running(loaded.home):
            return bool(await local.ask(loaded.home, local.Cancel(name)))
        async with running_engine(loaded) as engine:
            await started(engine, quiet=True)
            cancelled = await engine.cancel(name)
            if cancelled:
                await engine.finished(name)
            return cancelled

    if not run_async(work):
        raise UsageError(f"no live order {name[:40]}; `isthmus order list` shows what there is")
    if as_json:
        print_json({"status": "cancelled", "intent_id": name})
    else:
        out.print(f"{name} cancelled")


# -- balances ----------------------------------------------------------------------------------------------------------


def balances(config: Config = None, as_json: Json = False) -> None:
    """What the journal says, beside what venues and chains say now."""
    loaded = settings(config)
    rows = run_async(lambda: _balances(loaded))
    if as_json:
        print_json(rows)
        return
    table = Table()
    for name in ("venue", "asset", "outside", "journal"):
        table.add_column(name, justify="left" if name in ("venue", "asset") else "right")
    for row in rows:
        table.add_row(row["venue"], row["asset"], row["outside"], row["journal"])
    out.print(table)


async def _balances(loaded: Loaded) -> list[dict[str, str]]:
    state = replay(loaded) if loaded.journal_path.exists() else State()
    async with open_venues(loaded, open_wallet(loaded)) as (venues, _):
        shots = [await venue.snapshot() for venue in venues.values()]
    rows = []
    for shot in shots:
        for amount in shot.balances:
            ours = state.ledger.balance(loaded.settings.account, shot.venue, amount.asset)
            rows.append({"venue": shot.venue, "asset": amount.asset.id, "outside": _digits(amount), "journal": _digits(ours)})
    return rows


def _digits(amount: Amount) -> str:
    return str(jsonable(amount)["amount"])


def reconcile(config: Config = None, as_json: Json = False) -> None:
    """Hold the journal against every venue and chain. Exit code 4 when there are breaks."""
    loaded = settings(config)
    breaks = run_async(lambda: _reconcile(loaded))
    if as_json:
        print_json({"status": "ok" if not breaks else "breaks", "breaks": breaks})
    else:
        out.print(breaks_table(breaks) if breaks else "0 breaks")
    raise typer.Exit(VenueError.exit_code if breaks else 0)


async def _reconcile(loaded: Loaded) -> list[Break]:
    if local.is_running(loaded.home):
        found = await local.ask(loaded.home, local.Reconcile())
        return [local.read_break(one) for one in found]
    import msgspec

    state = replay(loaded)
    account = loaded.settings.account
    async with open_venues(loaded, open_wallet(loaded)) as (venues, _):
        shots = [msgspec.structs.replace(await venue.snapshot(), account=account) for venue in venues.values()]
    return list(compare(state.ledger, shots, state.orders))


# -- reading what the user wrote ------------------------------------------------------------------------------------------


def replay(loaded: Loaded) -> State:
    """The state that the journal gives, without starting anything."""
    journal = open_journal(loaded, read_only=True)
    state = State()
    try:
        for record in journal.read():
            state.apply(record)
    finally:
        journal.close()
    return state


def markets(loaded: Loaded) -> set[str]:
    """Pairs of groups that the settings name."""
    found: set[str] = set()
    for section in loaded.venues.values():
        found |= set(section.markets())
    return found


def pair(market: str, known: set[str]) -> tuple[str, str]:
    match = PAIR.match(market)
    if match is None:
        raise UsageError(f"{market[:40]!r} is not a pair; write it as BASE/QUOTE, for example ETH/USDT")
    name = market.upper()
    if name not in known:
        raise UsageError(f"no venue of this config trades {name}; it trades {', '.join(sorted(known)) or 'nothing'}")
    base, quote = name.split("/")
    return base, quote


def duration(text: str, option: str) -> int:
    """Nanoseconds of 30s, 20m, 2h."""
    match = DURATION.match(text)
    if match is None:
        raise UsageError(f"{option}: {text[:20]!r} is not a duration; write 30s, 20m or 2h")
    return int(match[1]) * SECONDS[match[2]] * 10**9
