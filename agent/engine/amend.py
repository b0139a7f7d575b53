"""Changing a parent order while it runs: what may change, and by how much.

Quantity, price bounds, end, trigger and the parameters of its algorithm may change; what, for whom and in which direction may not.
The changed order passes the checks of a new one. Nothing is undone: what was traded, or may still be through a child that is out,
bounds the quantity from below. Pure.
"""

from collections.abc import Iterator

from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.engine.decide import unworkable
from agent.engine.links import group_least
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.submit import refuse_reached
from agent.engine.world import Rules, World
from agent.risk.gate import refuse_intent

AMENDABLE = frozenset(
    {"quantity", "slippage_bps_max", "deadline_ns", "limit", "would", "slices", "interval_ns", "algo", "trigger"}
)  # fmt: skip


def refuse_amended(intent: Intent, state: State, world: World, rules: Rules, now_ns: int) -> tuple[Reason, ...]:
    """Why a parent may not become like this, each reason with the nearest value that would do; empty if it may."""
    parent = state.parents.get(intent.intent_id)
    if parent is None or not parent.is_live:
        there = f"it is {parent.status} already" if parent else "no such order is known"
        return (Reason("NOT_LIVE", f"{intent.intent_id[:40]} cannot be amended: {there}"),)
    return tuple(_reasons(intent, parent, state, world, rules, now_ns))


def _reasons(intent: Intent, parent: Parent, state: State, world: World, rules: Rules, now_ns: int) -> Iterator[Reason]:
    before = parent.intent
    changed = [name for name in Intent.__struct_fields__ if getattr(intent, name) != getattr(before, name)]
    if fixed := [name for name in changed if name not in AMENDABLE]:
        yield Reason("VALIDATION_FAILED", f"{', '.join(fixed)} of an order cannot be amended: cancel it and submit another")
    if intent.quantity.asset != before.quantity.asset:
        yield Reason("VALIDATION_FAILED", f"the quantity is counted in {before.quantity.asset}, not in {intent.quantity.asset}")
        return
    least = max(before.quantity - state.remaining(parent), group_least(parent, state))
    if intent.quantity < least:
        text = f"{least} is traded or under way already: at least {least}; `isthmus order pause` takes back what rests"
        yield Reason("QUANTITY_BELOW_MINIMUM", text)
    if intent.trigger != before.trigger:
        yield from _retriggered(intent, parent, state, world, now_ns)
    yield from refuse_intent(intent, iter(()), now_ns, rules.limits)
    yield from unworkable(intent, world, rules, parent.begun_ns, now_ns)


def _retriggered(intent: Intent, parent: Parent, state: State, world: World, now_ns: int) -> Iterator[Reason]:
    """What an order waits for may change as long as it waits, and not to nothing."""
    if intent.trigger is None or parent.intent.trigger is None or not parent.is_waiting:
        yield Reason("VALIDATION_FAILED", "only an order that waits for a price can wait for another: cancel it and submit another")
        return
    entry = state.parents.get(intent.after)
    yield from refuse_reached(intent, None if entry is None or entry.filled else entry.intent, world, now_ns)
