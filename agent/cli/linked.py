"""`order bracket` and `order oco`: orders that belong together, submitted as one.

A bracket is an entry, and after it two exits of which one cancels the other: one takes the profit, one stops the loss. `oco` sends
the two exits alone, for a position that is there already.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import typer

from agent.app import refuse_unarmed, running_engine, settings_of
from agent.cli import algos, triggers, words
from agent.cli.options import Config, Json, Live, Market, Quantity, Side, ask, run_async
from agent.cli.outcome import differences, exit_code, names_at, names_in, others_ended, refuse, result, started, tell
from agent.cli.progress import watch
from agent.cli.reading import follow, replay
from agent.cli.show import Names, line, print_json
from agent.config import Loaded
from agent.domain.algo import Algo
from agent.domain.amount import Amount, group_asset
from agent.domain.errors import IsthmusError, OutcomeUnknown, UsageError
from agent.domain.events import Break
from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.domain.price import Price
from agent.domain.trigger import Stop, Touched, Trailing, Trigger
from agent.engine.state import State
from agent.engine.summary import summary
from agent.gateways import local
from agent.journal.bars import read_bars

Wishes = Callable[[int], Sequence[Intent]]  # (now_ns) -> what the client wants
Result = tuple[int, dict[str, Any]]
TakeProfit = Annotated[str, typer.Option("--take-profit", help="The price at which one exit trades, or better.")]
StopLoss = Annotated[str, typer.Option("--stop-loss", help="The price at which the other exit is triggered.")]
TrailLoss = Annotated[str, typer.Option("--trail", help="Instead of --stop-loss: this far from the best price seen, 50bps.")]
StopLimit = Annotated[str, typer.Option("--stop-limit", help="The triggered exit trades at this price or better, or not at all.")]
Slippage = Annotated[int, typer.Option("--slippage-bps", min=1, max=5_000, help="At most this worse than when each begins.")]
Rest = Annotated[bool, typer.Option("--rest", help="What a book does not take of the profit at once stays there.")]
ExitWithin = Annotated[str, typer.Option("--exit-within", help="How long the exits wait: 2h.")]
Detach = Annotated[bool, typer.Option("--detach", help="Hand it to the running agent and leave.")]


class Exits(msgspec.Struct, frozen=True):
    """What both exits are made of."""

    take: Price
    stop: Trigger
    stop_limit: Price | None
    slippage_bps: int
    lasting_ns: int
    rests: bool


@algos.options
def bracket(
    market: Market,
    side: Side,
    qty: Quantity,
    take_profit: TakeProfit,
    stop_loss: StopLoss = "",
    trail: TrailLoss = "",
    limit: Annotated[str, typer.Option("--limit", help="The entry is never worse than this price, before fees.")] = "",
    stop_limit: StopLimit = "",
    stop_by: triggers.StopBy = "mid",
    within: Annotated[
        str, typer.Option("--within", help="How long the entry may take. [default: 10m, or its algorithm's time]")
    ] = "",
    exit_within: ExitWithin = triggers.WITHIN,
    slippage_bps: Slippage = 30,
    rest: Rest = False,
    algo: Algo | None = None,
    strategy: Annotated[str, typer.Option("--strategy", help="Name under which limits and results are kept.")] = "manual",
    detach: Detach = False,
    config: Config = None,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Enter, and leave at a profit or at a loss: an entry and two exits after it, of which one cancels the other."""
    wanted = words.quantity(qty, words.pair(market))
    exits = _exits(take_profit, stop_loss, trail, stop_by, stop_limit, slippage_bps, exit_within, rest, side)
    entry_limit = words.price(limit, "--limit")
    loaded, base, quote = _settings(config, market, strategy)
    lasting = words.duration(within or "10m", "--within") if within or algo is None else algos.lasting(algo) + algos.AFTER_NS
    quantity, name = Amount(wanted.units, group_asset(base)), f"i{uuid.uuid4().hex[:10]}"

    def wishes(now_ns: int) -> Sequence[Intent]:
        account = loaded.settings.account
        entry = Intent(name, account, strategy, side, quantity, quote, slippage_bps, now_ns + lasting, algo=algo, limit=entry_limit)
        entry = algos.learnt(entry, read_bars(loaded.home, entry.market) if algo is not None else (), now_ns)
        return entry, *_pair(entry, exits, now_ns, after=name)

    _run(loaded, wishes, live=live, detach=detach, as_json=as_json)


def oco(
    market: Market,
    side: Side,
    qty: Quantity,
    take_profit: TakeProfit,
    stop_loss: StopLoss = "",
    trail: TrailLoss = "",
    stop_limit: StopLimit = "",
    stop_by: triggers.StopBy = "mid",
    within: Annotated[str, typer.Option("--within", help="How long both wait: 2h.")] = triggers.WITHIN,
    slippage_bps: Slippage = 30,
    rest: Rest = False,
    strategy: Annotated[str, typer.Option("--strategy", help="Name under which limits and results are kept.")] = "manual",
    detach: Detach = False,
    config: Config = None,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Two exits of which one cancels the other: at a profit, or at a loss. `--side` is what both do."""
    wanted = words.quantity(qty, words.pair(market))
    exits = _exits(take_profit, stop_loss, trail, stop_by, stop_limit, slippage_bps, within, rest, _other(side))
    loaded, base, quote = _settings(config, market, strategy)
    name = f"i{uuid.uuid4().hex[:10]}"
    quantity, account = Amount(wanted.units, group_asset(base)), loaded.settings.account
    entry = Intent(name, account, strategy, _other(side), quantity, quote, slippage_bps, 0)
    _run(loaded, lambda now_ns: _pair(entry, exits, now_ns), live=live, detach=detach, as_json=as_json)


def _exits(
    take: str, stop: str, trail: str, by: Any, stop_limit: str, slippage_bps: int, within: str, rests: bool, entry_side: Side
) -> Exits:
    """Raises UsageError where profit and loss are on the wrong sides of each other."""
    if bool(stop) == bool(trail):
        raise UsageError("name one of --stop-loss and --trail: where the loss ends")
    profit = words.price(take, "--take-profit")
    if profit is None:
        raise UsageError("--take-profit is a price; name one, or use `isthmus order submit --stop`")
    trigger: Trigger = (
        Trailing(triggers.distance(trail, "--trail"), None, by)
        if trail
        else Stop(triggers.sure(words.price(stop, "--stop-loss")), by)
    )
    if isinstance(trigger, Stop) and (profit <= trigger.price if entry_side == "buy" else profit >= trigger.price):
        where = "above" if entry_side == "buy" else "below"
        raise UsageError(
            f"the profit of what was {'bought' if where == 'above' else 'sold'} is {where} the loss; exchange the two prices"
        )
    lasting_ns = words.duration(within, "--exit-within")
    return Exits(profit, trigger, words.price(stop_limit, "--stop-limit"), slippage_bps, lasting_ns, rests)


def _pair(entry: Intent, exits: Exits, now_ns: int, after: str = "") -> tuple[Intent, Intent]:
    """The profit first: until the loss is triggered, it is the one that may trade."""
    both = msgspec.structs.replace(
        entry,
        side=_other(entry.side),
        slippage_bps_max=exits.slippage_bps,
        deadline_ns=max(entry.deadline_ns, now_ns) + exits.lasting_ns,
        algo=None,
        limit=None,
        group=f"g{entry.intent_id}",
        after=after,
    )
    take = msgspec.structs.replace(both, intent_id=f"{entry.intent_id}-tp", limit=exits.take, rests=exits.rests)
    stop = msgspec.structs.replace(both, intent_id=f"{entry.intent_id}-sl", trigger=exits.stop, limit=exits.stop_limit)
    return take, stop


def _other(side: Any) -> Any:
    return "sell" if side == "buy" else "buy"


def _settings(config: Any, market: str, strategy: str) -> tuple[Loaded, str, str]:
    if not strategy.isidentifier() or len(strategy) > 32:
        raise UsageError("--strategy is up to 32 letters, digits and _; choose another name")
    loaded = settings_of(config)
    return loaded, *words.traded(words.pair(market), loaded)


# -- at work -------------------------------------------------------------------------------------------------------------


def _run(loaded: Loaded, wishes: Wishes, *, live: bool, detach: bool, as_json: bool) -> None:
    if local.is_running(loaded.home):
        code, found = run_async(lambda: _hand_over(loaded, wishes, detach=detach, quiet=as_json))
    elif detach:
        raise UsageError("--detach needs a running agent; start one with `isthmus run`")
    else:
        refuse_unarmed(loaded, live=live)
        code, found = run_async(lambda: _trade(loaded, wishes, live=live, quiet=as_json))
    if as_json:
        print_json(found)
    raise typer.Exit(code)


async def _trade(loaded: Loaded, wishes: Wishes, *, live: bool, quiet: bool) -> Result:
    """With an engine of our own, which ends with the orders."""
    async with running_engine(loaded, live=live, ask=ask) as engine:
        await started(engine, quiet=quiet)
        intents = wishes(engine.now_ns())
        await engine.priced(intents[0].market)
        names, events = names_at(engine), engine.events()
        refuse(await engine.submit_all(intents))
        _told(intents, quiet=quiet)
        await watch(events, engine.state, names, *(one.intent_id for one in intents), quiet=quiet)
        if engine.failure:
            raise IsthmusError(f"{engine.failure}; `isthmus order show {intents[0].intent_id}` tells how far it came")
        if engine.is_stopping and any(engine.state.parents[one.intent_id].is_live for one in intents):
            raise KeyboardInterrupt
        await others_ended(engine, quiet=quiet)
        return _ended(engine.state, intents, await differences(engine), names, quiet=quiet)


async def _hand_over(loaded: Loaded, wishes: Wishes, *, detach: bool, quiet: bool) -> Result:
    """To the agent that runs here; then follow its journal until all have ended."""
    intents, state = wishes(time.time_ns()), replay(loaded)
    reasons = await local.ask(loaded.home, local.SubmitAll(tuple(intents)))
    refuse([Reason(r["code"], r["text"]) for r in reasons])
    _told(intents, quiet=quiet)
    if detach:
        return 0, {"status": "LIVE", "orders": [{"status": "LIVE", "parent": {"intent_id": one.intent_id}} for one in intents]}
    await watch(follow(loaded, state), state, names_in(state), *(one.intent_id for one in intents), quiet=quiet)
    if live := [one.intent_id for one in intents if state.parents[one.intent_id].is_live]:
        raise OutcomeUnknown(f"the agent stopped while it worked {', '.join(live)}; `isthmus run` resumes them")
    breaks = [local.read_break(one) for one in await local.ask(loaded.home, local.Reconcile())]
    state = replay(loaded)
    return _ended(state, intents, breaks, names_in(state), quiet=quiet)


def _told(intents: Sequence[Intent], *, quiet: bool) -> None:
    if not quiet:
        for one in intents:
            line(f"{one.intent_id:16} {_meaning(one)}")


def _meaning(intent: Intent) -> str:
    """What one of them does, in a line."""
    limit = f" at {intent.limit} or better" if intent.limit else ""
    match intent.trigger:
        case None:
            wait = ""
        case Trailing(distance_bps=bps):
            wait = f", {bps} bps behind the best price"
        case Stop(price=level) | Touched(price=level):
            wait = f", when the market is at {level}"
    return f"{intent.side} {intent.quantity}{limit}{wait}{f', after {intent.after}' if intent.after else ''}"


def _ended(state: State, intents: Sequence[Intent], breaks: Sequence[Break] | None, names: Names, *, quiet: bool) -> Result:
    """What became of all; an exit that the other one made needless counts as done."""
    done = [summary(state, one.intent_id) for one in intents]
    filled = {one.group for one, told in zip(intents, done, strict=True) if one.group and told.status == "FILLED"}
    counted = [told for one, told in zip(intents, done, strict=True) if told.status != "CANCELLED" or one.group not in filled]
    code = exit_code(state, counted, breaks)
    if not quiet:
        for told in done:
            tell(told, breaks, names)
    orders = [result(state, told, breaks) for told in done]
    return code, {"status": "ok" if code == 0 else "failed", "orders": orders, "breaks": breaks, "exit_code": code}
