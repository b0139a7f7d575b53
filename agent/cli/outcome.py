"""Starting an engine for one piece of work, and what its end means: the result as people and scripts read it, and the exit code."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agent.cli.show import Names, err, hash_short, line, out
from agent.cli.tables import summary_panel
from agent.domain.errors import IsthmusError, OutcomeUnknown, RefusedError, VenueError
from agent.domain.events import Break, Routed
from agent.domain.order import IN_DOUBT
from agent.domain.plan import Reason
from agent.engine.executed import order_gap
from agent.engine.parent import UNENDED
from agent.engine.state import State
from agent.engine.summary import Summary
from agent.execution.gap import PARTS, Gap, bps

if TYPE_CHECKING:
    from agent.engine.loop import Engine


async def started(engine: "Engine", *, quiet: bool) -> list[str]:
    """Wait until the engine may trade; the parents that were live before. Raises VenueError naming who does not answer."""
    if not quiet:
        err.print("connecting, replaying the journal, reconciling …", style="dim", soft_wrap=True)
    try:
        await asyncio.wait_for(engine.ready(), engine.patience_s)
    except TimeoutError:
        raise VenueError(f"not ready after {engine.patience_s} s: {engine.waiting_for()}; try `isthmus doctor`") from None
    if engine.failure:
        raise IsthmusError(engine.failure)
    if engine.is_stopping:
        raise KeyboardInterrupt
    return [name for name, parent in engine.state.parents.items() if parent.is_live]


async def others_ended(engine: "Engine", *, quiet: bool) -> None:
    """Orders that were handed to this engine, or resumed by it, end before it leaves."""
    while live := [name for name, parent in engine.state.parents.items() if parent.is_live]:
        if not quiet:
            line(f"waiting for {', '.join(live)}, which this agent works too", "dim")
        for name in live:
            await engine.finished(name)
        if engine.is_stopping or any(engine.state.parents[name].is_live for name in live):
            return


async def differences(engine: "Engine") -> list[Break] | None:
    """The breaks; None, with a line that says why, when a venue cannot be asked. What was traded is told all the same."""
    try:
        return list(await engine.reconcile())
    except (IsthmusError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or "a venue did not answer in time"
        err.print(f"reconciliation was not possible: {reason}; `isthmus reconcile` tries again", style="yellow", markup=False)
        return None


def names_at(engine: "Engine") -> Names:
    return Names(one.id for one in engine.world.market.instruments())


def names_in(state: State) -> Names:
    """Short names of everything that the journal's routes and fills mention."""
    parents, orders = state.parents.values(), state.orders.values()
    routed = (one.venue for parent in parents for route in parent.routes for one in route.alternatives)
    return Names({*routed, *(fill.instrument for order in orders for fill in order.fills)})


def refuse(reasons: Iterable[Reason]) -> None:
    """Raises RefusedError with every reason and its code, if there is one."""
    text = "; ".join(f"{r.code}: {r.text}" for r in reasons)
    if text:
        raise RefusedError(f"refused: {text}")


def exit_code(state: State, done: Sequence[Summary], breaks: Sequence[Break] | None) -> int:
    """0 only if every order was filled and nothing differs from what venues and chains say (None: they could not be asked)."""
    if any(order.state in IN_DOUBT for order in state.working.values()) or any(one.status in UNENDED for one in done):
        return OutcomeUnknown.exit_code
    if any(one.status == "REFUSED" for one in done):
        return RefusedError.exit_code
    return VenueError.exit_code if breaks or breaks is None or any(one.status != "FILLED" for one in done) else 0


def tell(done: Summary, breaks: Sequence[Break] | None, names: Names) -> None:
    """The end of an order, for people."""
    for one in done.children:
        if one.kind == "permission":
            line(f"permission {one.order_id} {one.state} {hash_short(one.tx_hash)}", "dim")
            line(f"  {one.about}", "dim")
    out.print(summary_panel(done, breaks, names))


def gap_told(gap: Gap) -> dict[str, Any]:
    """From quoted to executed, for scripts: exact amounts, positive in the client's favour, and basis points of what was quoted."""
    amounts = {name: getattr(gap, name) for name in Gap.__struct_fields__}
    return amounts | {"bps": {name: bps(getattr(gap, name), gap) for name in PARTS}}


def gaps_told(state: State, done: Summary) -> dict[str, Any]:
    """The same for each order that traded."""
    found = ((one.order_id, order_gap(state, state.orders[one.order_id])) for one in done.children)
    return {name: gap_told(gap) for name, gap in found if gap is not None and gap.base}


def result(state: State, done: Summary, breaks: Sequence[Break] | None) -> dict[str, Any]:
    """The end of an order, for scripts."""
    routes: Sequence[Routed] = state.parents[done.intent_id].routes
    return {
        "status": done.status,
        "parent": {
            "intent_id": done.intent_id, "side": done.side, "quantity": done.quantity, "filled": done.filled, "quote": done.quote,
            "reason": done.reason, "slices": done.slices, "seconds": done.seconds, "fees": done.fees,
        },
        "legs": done.legs,
        "orders": done.children,
        "all_in_price": done.all_in_price,
        "arrival_price": done.arrival_price,
        "arrival_bps": done.arrival_bps,
        "best_single_venue": done.best_single_venue,
        "improvement_bps": done.improvement_bps,
        "singles": done.singles,
        "gas": done.gas,
        "routes": routes,
        "breaks": breaks,
    }  # fmt: skip
