"""`order pause`, `order continue` and `order amend`: what can be done to an order while it runs.

A running agent of this home folder is told; without one the journal alone is, by an agent that trades nothing.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from agent.app import running_engine, settings_of
from agent.cli import algos, words
from agent.cli.options import Config, Json, ask, run_async
from agent.cli.outcome import refuse, started
from agent.cli.reading import replay
from agent.cli.show import line, print_json, short
from agent.cli.triggers import sure
from agent.config import Loaded
from agent.domain.amount import Amount
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.domain.trigger import Stop, Touched, Trigger
from agent.engine.parent import Parent
from agent.gateways import local

if TYPE_CHECKING:
    from agent.engine.loop import Engine

Name = Annotated[str, typer.Argument(help="The parent's id.")]


def pause(name: Name, config: Config = None, as_json: Json = False) -> None:
    """Send nothing more for an order for now, and take back what rests. Its deadline stays; `order continue` lets it go on."""
    _turn(config, local.Pause(name), lambda engine: engine.pause(name), as_json)


def proceed(name: Name, config: Config = None, as_json: Json = False) -> None:
    """Let a paused order go on. What it missed it makes up for, as its algorithm allows."""
    _turn(config, local.Proceed(name), lambda engine: engine.proceed(name), as_json)


def amend(
    name: Name,
    qty: Annotated[str, typer.Option("--qty", help="All of it, what was traded included.")] = "",
    within: Annotated[str, typer.Option("--within", help="Deadline from now: 30s, 20m, 2h.")] = "",
    slippage_bps: Annotated[int, typer.Option("--slippage-bps", max=5_000, help="At most this worse than at arrival.")] = 0,
    limit: Annotated[str, typer.Option("--limit", help="Never worse than this price, before fees.")] = "",
    stop: Annotated[str, typer.Option("--stop", help="Another price to wait for, while it waits for one.")] = "",
    duration: Annotated[str, typer.Option("--duration", help="Of its algorithm, from when it began: 10m, 2h.")] = "",
    urgency: Annotated[str, typer.Option("--urgency", help="Of its algorithm, as at --algo.")] = "",
    tune: Annotated[list[str] | None, typer.Option("--tune", help="Another parameter of its algorithm: NAME=VALUE.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Change an order while it runs. What is not named stays; a price bound that changed takes back what rests."""
    loaded = settings_of(config)
    parent = live_parent(loaded, name)
    before = parent.intent
    changes: dict[str, Any] = {}
    if qty:
        changes["quantity"] = Amount(words.quantity(qty, before.market).units, before.quantity.asset)
    if slippage_bps:
        changes["slippage_bps_max"] = slippage_bps
    if limit:
        changes["limit"] = words.price(limit, "--limit")
    if stop:
        changes["trigger"] = _moved(before.trigger, stop)
    if chosen := _chosen(duration, urgency, tune or []):
        if before.algo is None:
            raise UsageError("the order has no algorithm to tune; amend --qty, --slippage-bps or --within")
        changes["algo"] = algos.retuned(before.algo, chosen)
    if not changes and not within:
        raise UsageError("nothing to amend; name what changes, for example --qty 30 or --within 20m")
    lasting_ns = words.duration(within, "--within") if within else None

    def wish(now_ns: int) -> Intent:
        after = msgspec.structs.replace(before, **changes)
        ends_ns = after.deadline_ns if lasting_ns is None else now_ns + lasting_ns
        if after.algo is not None and lasting_ns is None and "duration" in chosen:
            ends_ns = max(ends_ns, parent.begun_ns + algos.lasting(after.algo) + algos.AFTER_NS)
        return msgspec.structs.replace(after, deadline_ns=ends_ns)

    intent = run_async(lambda: _amend(loaded, wish))
    if as_json:
        print_json({"status": "AMENDED", "intent_id": name, "intent": intent})
    else:
        line(f"{name} amended: {intent.side} {short(intent.quantity)}, at most {intent.slippage_bps_max} bps worse than at arrival")


def live_parent(loaded: Loaded, name: str) -> Parent:
    """Raises UsageError, in words, where there is no such live order."""
    parent = replay(loaded).parents.get(name)
    if parent is None or not parent.is_live:
        there = f"it is {parent.status} already" if parent else "`isthmus order list` shows what there is"
        raise UsageError(f"no live order {name[:40]!r}; {there}")
    return parent


def _moved(trigger: Trigger | None, stop: str) -> Trigger:
    """The same trigger at another price. Raises UsageError for one that waits for none."""
    if not isinstance(trigger, Stop | Touched):
        raise UsageError("the order waits for no price of its own; cancel it and submit another with --stop")
    return msgspec.structs.replace(trigger, price=sure(words.price(stop, "--stop")))


def _turn(config: Any, request: local.Pause | local.Proceed, turn: Callable[["Engine"], Awaitable[bool]], as_json: bool) -> None:
    loaded = settings_of(config)
    live_parent(loaded, request.intent_id)
    if not run_async(lambda: _told(loaded, request, turn)):
        live_parent(loaded, request.intent_id)
        raise UsageError(f"{request.intent_id} ended meanwhile; `isthmus order show {request.intent_id}` tells how")
    word = live_parent(loaded, request.intent_id).word
    if as_json:
        print_json({"status": word, "intent_id": request.intent_id})
    else:
        line(f"{request.intent_id} {word.lower()}")


async def _told(loaded: Loaded, request: local.Pause | local.Proceed, turn: Callable[["Engine"], Awaitable[bool]]) -> bool:
    if local.is_running(loaded.home):
        return bool(await local.ask(loaded.home, request))
    async with running_engine(loaded, ask=ask, is_idle=True) as engine:
        await started(engine, quiet=True)
        return await turn(engine)


async def _amend(loaded: Loaded, wish: Callable[[int], Intent]) -> Intent:
    if local.is_running(loaded.home):
        intent = wish(time.time_ns())
        reasons = await local.ask(loaded.home, local.Amend(intent))
        refuse([Reason(r["code"], r["text"]) for r in reasons])
        return intent
    async with running_engine(loaded, ask=ask, is_idle=True) as engine:
        await started(engine, quiet=True)
        intent = wish(engine.now_ns())
        await engine.priced(intent.market)
        refuse(await engine.amend(intent))
        return intent


def _chosen(duration: str, urgency: str, tune: list[str]) -> dict[str, str]:
    """Parameters of the algorithm by name. Raises UsageError for what does not read NAME=VALUE."""
    found = {name: text for name, text in (("duration", duration), ("urgency", urgency)) if text}
    for one in tune:
        name, equals, value = one.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"--tune {one[:40]!r} does not read NAME=VALUE, for example --tune interval=10s")
        found[name] = value
    return found
