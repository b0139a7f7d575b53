"""`order`: submit, list, show and cancel parent orders.

When an agent is running in this home folder the commands talk to it; otherwise they start one, do their work, and stop it again.
"""

import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import typer

from agent.app import refuse_unarmed, running_engine, settings_of
from agent.cli import algos, amend, linked, look, preview, tca, triggers, words
from agent.cli.options import Config, Json, Live, Market, Quantity, Side, ask, group, run_async
from agent.cli.outcome import (
    differences,
    exit_code,
    gap_told,
    gaps_told,
    names_at,
    names_in,
    others_ended,
    refuse,
    result,
    started,
    tell,
)
from agent.cli.progress import watch
from agent.cli.reading import follow, replay
from agent.cli.show import Names, err, line, money, named, out, print_json, short, table_rows
from agent.cli.tables import children_table, gap_table, new_table, route_lines
from agent.config import Loaded
from agent.domain.algo import Algo
from agent.domain.amount import Amount, group_asset
from agent.domain.errors import IsthmusError, OutcomeUnknown, RefusedError, UsageError
from agent.domain.events import Break, IntentRefused, OrderApproved, OrderRefused, Routed
from agent.domain.intent import Intent
from agent.domain.order import Order
from agent.domain.plan import ApproveToken, PlaceOrder, Plan, Reason, SwapBatch
from agent.engine.executed import order_gap, parent_gap
from agent.engine.state import State
from agent.engine.summary import purpose, summary
from agent.gateways import local
from agent.journal.bars import read_bars

commands = group("Submit, link, list, show, pause, amend and cancel parent orders.")
commands.command("pause")(amend.pause)
commands.command("continue")(amend.proceed)
commands.command("amend")(amend.amend)
commands.command("preview")(preview.preview)
commands.command("tca")(tca.tca)
commands.command("report")(tca.report)
commands.command("bracket")(linked.bracket)
commands.command("oco")(linked.oco)

Wish = Callable[[int], Intent]  # (now_ns) -> what the client wants
Draft = Callable[[str, str, str, str, int], Intent]  # (its id, account, base, quote, now_ns) -> what the client wants
Name = Annotated[str, typer.Argument(help="A parent's id or a child's order id.")]
Result = tuple[int, Any]


@commands.command("submit")
@algos.options
def submit(
    market: Market,
    side: Side,
    qty: Quantity,
    within: Annotated[
        str,
        typer.Option(
            "--within", help="Deadline from now: 30s, 20m, 2h. [default: 10m, or a minute after the algorithm's end; 24h to wait]"
        ),
    ] = "",
    slippage_bps: Annotated[int, typer.Option("--slippage-bps", min=1, max=5_000, help="At most this worse, before fees.")] = 30,
    slices: Annotated[int, typer.Option("--slices", min=1, max=1_000, help="Equal parts.")] = 1,
    every: Annotated[str, typer.Option("--every", help="Time between slices.")] = "0s",
    rest: Annotated[bool, typer.Option("--rest", help="What a book does not take at once stays there, at its limit.")] = False,
    limit: Annotated[str, typer.Option("--limit", help="Never worse than this price, before fees.")] = "",
    would: Annotated[
        str, typer.Option("--would", help="I-would price: where all that is left can be had at it, it is taken.")
    ] = "",
    stop: triggers.StopPrice = "",
    take: triggers.TakePrice = "",
    trail: triggers.Trail = "",
    activation: triggers.Activation = "",
    stop_by: triggers.StopBy = "mid",
    after: Annotated[str, typer.Option("--after", help="Trade no more than this other order has traded.")] = "",
    algo: Algo | None = None,
    strategy: Annotated[str, typer.Option("--strategy", help="Name under which limits and results are kept.")] = "manual",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the route and what risk says; send nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Hand it to the running agent and leave.")] = False,
    config: Config = None,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Trade a quantity over all venues. Waits until it has ended and prints what it cost."""
    draft = drafted(market, side, qty, within, slippage_bps, slices, every, rest, limit, would, algo, strategy)
    trigger = triggers.chosen(stop, take, trail, activation, stop_by)
    loaded = settings_of(config)
    base, quote = words.traded(words.pair(market), loaded)

    def wish(now_ns: int) -> Intent:
        intent = draft(f"i{uuid.uuid4().hex[:10]}", loaded.settings.account, base, quote, now_ns)
        intent = triggers.waiting(intent, trigger, after, is_timed=bool(within))
        return algos.learnt(intent, read_bars(loaded.home, intent.market) if intent.algo is not None else (), now_ns)

    if dry_run:
        code, found = run_async(lambda: _rehearse(loaded, wish, live=live, quiet=as_json))
    elif local.is_running(loaded.home):
        code, found = run_async(lambda: _hand_over(loaded, wish, detach=detach, quiet=as_json))
    elif detach:
        raise UsageError("--detach needs a running agent; start one with `isthmus run`")
    else:
        refuse_unarmed(loaded, live=live)
        code, found = run_async(lambda: _trade(loaded, wish, live=live, quiet=as_json))
    if as_json:
        print_json(found)
    raise typer.Exit(code)


def drafted(
    market: str,
    side: Literal["sell", "buy"],
    qty: str,
    within: str,
    slippage_bps: int,
    slices: int,
    every: str,
    rest: bool,
    limit: str,
    would: str,
    algo: Algo | None,
    strategy: str,
) -> Draft:
    """What the options say, but for a name, an account and the time. Raises UsageError or NumberError for what makes no sense."""
    wanted = words.quantity(qty, words.pair(market))
    pause = words.duration(every, "--every")
    lasting = words.duration(within or "10m", "--within") if within or algo is None else algos.lasting(algo) + algos.AFTER_NS
    prices = words.price(limit, "--limit"), words.price(would, "--would")
    if not strategy.isidentifier() or len(strategy) > 32:
        raise UsageError("--strategy is up to 32 letters, digits and _; choose another name")

    def draft(name: str, account: str, base: str, quote: str, now_ns: int) -> Intent:
        quantity, deadline_ns = Amount(wanted.units, group_asset(base)), now_ns + lasting
        return Intent(name, account, strategy, side, quantity, quote, slippage_bps, deadline_ns, slices, pause, rest, algo, *prices)

    return draft


async def _trade(loaded: Loaded, wish: Wish, *, live: bool, quiet: bool) -> Result:
    """With an engine of our own, which ends with the order."""
    async with running_engine(loaded, live=live, ask=ask) as engine:
        await started(engine, quiet=quiet)
        intent = wish(engine.now_ns())
        await engine.priced(intent.market)
        return await work(engine, intent, quiet=quiet)


async def work(engine: Any, intent: Intent, *, quiet: bool) -> Result:
    """Submit, show the progress until everything that this engine works has ended, and tell what became of it."""
    names, events = names_at(engine), engine.events()
    refuse(await engine.submit(intent))
    await watch(events, engine.state, names, intent.intent_id, quiet=quiet)
    await still_working(engine, intent.intent_id)
    await others_ended(engine, quiet=quiet)
    breaks = await differences(engine)
    done = summary(engine.state, intent.intent_id)
    if not quiet:
        tell(done, breaks, names)
    return exit_code(engine.state, [done], breaks), result(engine.state, done, breaks)


async def still_working(engine: Any, intent_id: str) -> None:
    """Raises what ended the engine, if that is why the order was left."""
    if engine.failure:
        raise IsthmusError(f"{engine.failure}; `isthmus order show {intent_id}` tells how far it came")
    if engine.is_stopping and engine.state.parents[intent_id].is_live:
        raise KeyboardInterrupt


async def _hand_over(loaded: Loaded, wish: Wish, *, detach: bool, quiet: bool) -> Result:
    """To the agent that runs here; then follow its journal until the order has ended."""
    intent, state = wish(time.time_ns()), replay(loaded)
    reasons = await local.ask(loaded.home, local.Submit(intent))
    refuse([Reason(r["code"], r["text"]) for r in reasons])
    if detach:
        if not quiet:
            line(f"{intent.intent_id} is with the running agent; `isthmus order show {intent.intent_id}` tells how far it is")
        return 0, {"status": "LIVE", "parent": {"intent_id": intent.intent_id}}
    await watch(follow(loaded, state), state, names_in(state), intent.intent_id, quiet=quiet)
    if state.parents[intent.intent_id].is_live:
        raise OutcomeUnknown(f"the agent stopped while it worked {intent.intent_id}; `isthmus run` resumes it")
    breaks = await _differences(loaded)
    state = replay(loaded)
    done = summary(state, intent.intent_id)
    if not quiet:
        tell(done, breaks, names_in(state))
    return exit_code(state, [done], breaks), result(state, done, breaks)


async def _differences(loaded: Loaded) -> list[Break] | None:
    """As the running agent finds them; None when it cannot ask a venue, or has left since."""
    try:
        return [local.read_break(one) for one in await local.ask(loaded.home, local.Reconcile())]
    except IsthmusError as error:
        err.print(f"reconciliation was not possible: {error}; `isthmus reconcile` tries again", style="yellow", markup=False)
        return None


# -- rehearsal -----------------------------------------------------------------------------------------------------------


async def _rehearse(loaded: Loaded, wish: Wish, *, live: bool, quiet: bool) -> Result:
    """The first slice up to the gate, and no further."""
    intent = wish(time.time_ns())
    seen = await look.look(loaded, intent.market, accounts=True)
    events = look.rehearse(loaded, seen, intent, live=live)
    refuse(reason for event in events if isinstance(event, IntentRefused) for reason in event.reasons)
    route = next((event for event in events if isinstance(event, Routed)), None)
    answers = [_answer(event) for event in events if isinstance(event, OrderApproved | OrderRefused)]
    if route is None and not answers:
        look.routed(loaded, seen, intent.side, intent.quantity, intent.slippage_bps_max)  # says why there is none
        raise RefusedError("refused: nothing would be sent now: trading is halted, or a venue has not told its permissions")
    if not quiet:
        _tell_rehearsal(intent, route, answers, Names(one.id for one in seen.market.instruments()))
    code = RefusedError.exit_code if any(reasons for _, reasons in answers) else 0
    decided = [
        {"order": plan, "kind": type(plan).__name__, "decision": "REFUSED" if reasons else "APPROVED", "reasons": reasons}
        for plan, reasons in answers
    ]
    return code, {"status": "DRY_RUN", "sent": 0, "intent": intent, "route": route, "orders": decided, "exit_code": code} | (
        {"schedule": algos.timetable_rows(intent)} if intent.algo is not None else {}
    )


def _answer(event: OrderApproved | OrderRefused) -> tuple[Plan, tuple[Reason, ...]]:
    return (event.plan, event.reasons) if isinstance(event, OrderRefused) else (event.approved.plan, ())


def _tell_rehearsal(intent: Intent, route: Routed | None, answers: list[tuple[Plan, tuple[Reason, ...]]], names: Names) -> None:
    line("DRY RUN: nothing is signed or sent", "bold")
    if route is not None:
        out.print(route_lines(route, names))
    for plan, reasons in answers:
        verdict = "refused " if reasons else "approved"
        if isinstance(plan, ApproveToken):
            text = f"permission: {purpose(plan)}"
        else:
            text = (
                f"{plan.venue}: give at most {named(plan.sell)}, get at least {named(plan.buy)}"
                if isinstance(plan, PlaceOrder | SwapBatch)
                else ""
            )
        line(f"{verdict}  {text}", "red" if reasons else "green")
        for reason in reasons:
            line(f"          {reason.code}: {reason.text}")
    if intent.algo is not None:
        out.print(algos.timetable_lines(intent))
    if intent.slices > 1:
        line(f"then {intent.slices - 1} more slices, {intent.interval_ns // 10**9} s apart, each routed anew")


# -- looking and cancelling ----------------------------------------------------------------------------------------------


@commands.command("list")
def list_command(config: Config = None, as_json: Json = False) -> None:
    """All parents in the journal."""
    state = replay(settings_of(config, with_venues=False))
    done = [summary(state, name) for name in state.parents]
    if as_json:
        print_json([result(state, one, None) | {"routes": len(state.parents[one.intent_id].routes)} for one in done])
        return
    table = new_table(("intent", "side", "quantity", "filled", "all-in", "status"), left=("intent", "side", "status"))
    for one in done:
        quantity, price = short(one.quantity), money(one.all_in_price)
        table.add_row(one.intent_id, one.side, quantity, named(one.filled), price, one.status)
    out.print(table if done else "no orders yet")


@commands.command("show")
def show(name: Name, config: Config = None, as_json: Json = False) -> None:
    """One parent with its legs and routes, or one child order."""
    state = replay(settings_of(config, with_venues=False))
    names = names_in(state)
    if name in state.parents:
        done = summary(state, name)
        gap = parent_gap(state, name)
        if as_json:
            print_json(result(state, done, None) | {"gap": gap_told(gap), "gaps": gaps_told(state, done)})
            return
        for route in state.parents[name].routes:
            out.print(route_lines(route, names))
        out.print(children_table(done.children, done, names))
        out.print(gap_table(gap, done.quote.asset.group))
        tell(done, None, names)
    elif name in state.orders:
        _show_child(state, state.orders[name], as_json)
    else:
        raise UsageError(f"no order {name[:40]!r} in the journal; `isthmus order list` shows what there is")


def _show_child(state: State, order: Order, as_json: bool) -> None:
    fields = {field: getattr(order, field) for field in order.__struct_fields__ if field != "raw"}
    gap, around = order_gap(state, order), state.surrounded.get(order.order_id, [])
    if as_json:
        told = {"gap": None if gap is None else gap_told(gap), "surrounded": around}
        print_json({"order_id": order.order_id, "kind": type(order.plan).__name__, **fields, **told})
        return
    plan = msgspec.structs.asdict(order.plan)
    rows = [("order", order.order_id), ("kind", type(order.plan).__name__), ("state", str(order.state)), ("reason", order.reason)]
    rows += [(key, str(value)) for key, value in plan.items() if key not in ("order_id", "legs")]
    rows += [("transaction", order.tx_hash), ("block", str(order.block or "")), ("gas", str(order.gas or ""))]
    table_rows([(key, value) for key, value in rows if value])
    for fill in order.fills:
        table_rows([("fill", f"{fill.instrument}: {fill.paid} -> {fill.received}, fee {fill.fee}")])
    for one in around:
        table_rows([("traded around", f"{one.instrument}: {one.by} before and after, {one.received_less} less received")])
    if gap is not None and gap.base:
        out.print(gap_table(gap, gap.promised.asset.group))


@commands.command("cancel")
def cancel(name: Annotated[str, typer.Argument(help="The parent's id.")], config: Config = None, as_json: Json = False) -> None:
    """Stop working a parent: what is in flight settles, nothing more is sent."""
    loaded = settings_of(config, with_venues=False)
    parent = replay(loaded).parents.get(name)
    if parent is None or not parent.is_live:
        there = f"it is {parent.status} already" if parent else "`isthmus order list` shows what there is"
        raise UsageError(f"no live order {name[:40]!r}; {there}")
    status = run_async(lambda: _cancel(settings_of(config), name))
    if as_json:
        print_json({"status": status, "intent_id": name})
    else:
        line(f"{name} {status.lower()}")


async def _cancel(loaded: Loaded, name: str) -> str:
    """Its status when what was in flight has settled."""
    if local.is_running(loaded.home):
        state = replay(loaded)
        await local.ask(loaded.home, local.Cancel(name))
        await watch(follow(loaded, state), state, names_in(state), name, quiet=True)
        return state.parents[name].status
    async with running_engine(loaded, ask=ask) as engine:
        await started(engine, quiet=True)
        await engine.cancel(name)
        return await engine.finished(name)
