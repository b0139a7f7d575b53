"""What happens to an order while it happens: one line for each event that a trader wants to see, and a bar that stays."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.console import RenderableType
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from agent.cli.show import Names, coins, hash_short, line, named, out, short
from agent.cli.tables import reason_lines, route_lines
from agent.domain.events import (
    Halted,
    IntentAmended,
    IntentContinued,
    IntentEnded,
    IntentPaused,
    IntentTriggered,
    OrderApproved,
    OrderFilled,
    OrderRefused,
    OrderReported,
    OrderSent,
    Record,
    Routed,
    RouteExplained,
    Surrounded,
    VenueDisconnected,
)
from agent.domain.order import OrderState
from agent.domain.plan import ApproveToken, ChainPlan
from agent.engine.state import State
from agent.engine.summary import purpose

BAR = 24
REDRAW_S = 0.25
GRACE_NS = 60 * 10**9
BAD = frozenset({OrderState.REJECTED, OrderState.REVERTED, OrderState.UNKNOWN, OrderState.CANCELLED, OrderState.EXPIRED})


async def watch(events: AsyncIterator[Record], state: State, names: Names, *intents: str, quiet: bool = False) -> None:
    """Tell what happens until these parents have ended, or, without any, until the events end. `state` already has each event."""
    is_shown = bool(intents) and not quiet
    screen = Screen(console=out, auto_refresh=False) if is_shown and out.is_terminal else None
    with screen or contextlib.nullcontext():
        pending = asyncio.ensure_future(anext(events))
        try:
            while True:
                await asyncio.wait({pending}, timeout=REDRAW_S)
                if not pending.done() and intents and all(_has_ended(state, one) for one in intents):
                    break
                if pending.done():
                    if isinstance(pending.exception(), StopAsyncIteration):
                        break
                    record = pending.result()
                    if not quiet:
                        _tell(record, state, names, screen)
                    pending = asyncio.ensure_future(anext(events))
                if screen:
                    screen.update(bar(state, intents[0]), refresh=True)
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
    if is_shown and not screen:
        out.print(bar(state, intents[0]))


def _has_ended(state: State, intent_id: str) -> bool:
    """Also true a while after the deadline, while an order of it is still in doubt: the agent goes on asking without us."""
    parent = state.parents.get(intent_id)
    return parent is not None and (not parent.is_live or time.time_ns() > parent.intent.deadline_ns + GRACE_NS)


def _tell(record: Record, state: State, names: Names, screen: Screen | None) -> None:
    for one in story(record, state, names):
        if isinstance(one, str):
            line(one)
        else:
            out.print(one)
    if screen:
        screen.refresh()


def story(record: Record, state: State, names: Names) -> list[RenderableType]:
    """What a person is told about an event; often nothing."""
    match record.event:
        case Routed() as route:
            return [route_lines(route, names)]
        case RouteExplained() as words:
            routes = state.parents[words.intent_id].routes
            return [*reason_lines(next(one for one in routes if one.slice_index == words.slice_index), names)]
        case OrderFilled(fill=f):
            fee = f"   fee {named(f.fee)}" if f.fee else ""
            return [f"fill    {names(f.instrument):10} {named(f.paid)} -> {named(f.received)}{fee}"]
        case OrderApproved(approved=approved) if isinstance(approved.plan, ApproveToken):
            return [f"permit  {approved.plan.order_id:10} {purpose(approved.plan)}"]
        case OrderSent(order_id=name, tx_hash=tx_hash) if tx_hash:
            return [f"sent    {name:10} {hash_short(tx_hash)}"]
        case OrderReported(state=OrderState.MINED, order_id=name, block=block) if _is_chain(state, name):
            return [f"mined   {name:10} in block {block}"]
        case OrderReported(state=new, order_id=name, reason=reason) if new in BAD:
            return [f"{new.lower():7} {name:10} {reason}".rstrip()]
        case Surrounded(order_id=name, instrument=instrument, received_less=less):
            return [f"around  {name:10} {names(instrument)}: somebody traded around us, which cost {named(less)}"]
        case OrderRefused(plan=plan, reasons=reasons):
            return [f"refused {plan.order_id:10} " + "; ".join(f"{r.code}: {r.text}" for r in reasons)]
        case IntentTriggered(intent_id=name, price=price):
            return [f"fired   {name:10} with the market at {price}"]
        case IntentPaused(intent_id=name):
            return [f"paused  {name:10} nothing more is sent for now"]
        case IntentContinued(intent_id=name):
            return [f"goes on {name:10}"]
        case IntentAmended(intent=intent):
            return [f"amended {intent.intent_id:10} {intent.side} {short(intent.quantity)}"]
        case IntentEnded(intent_id=name, status=status, reason=reason) if status != "FILLED":
            return [f"ended   {name:10} {status} {reason}".rstrip()]
        case VenueDisconnected(venue=venue, reason=reason):
            return [f"lost    {venue:10} {reason}; trying again"]
        case Halted(scope=scope, reason=reason):
            return [f"halted  {scope:10} {reason}"]
        case _:
            return []


def _is_chain(state: State, order_id: str) -> bool:
    return order_id in state.orders and isinstance(state.orders[order_id].plan, ChainPlan)


def bar(state: State, intent_id: str) -> RenderableType:
    """How far the parent is."""
    parent = state.parents.get(intent_id)
    if parent is None:
        return Text("")
    share = parent.filled.units / parent.intent.quantity.units
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(no_wrap=True)
    flying = len(state.unsettled(intent_id))
    table.add_row(
        f"{parent.intent.side} {short(parent.intent.quantity)}",
        Text("━" * int(share * BAR), style="green") + Text("╌" * (BAR - int(share * BAR)), style="dim"),
        f"{share:6.1%}  {coins(parent.filled)} {parent.intent.base}",
        f"{flying} in flight" if flying else "done" if not parent.is_live else "waiting",
    )
    return table
