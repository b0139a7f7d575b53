"""Whether a parent is worked now: it may be paused, wait for a price, for another order, or for one of its group.

An order that waits is live: it can be cancelled and amended, and its deadline ends it. When what it waits for has come, that is
journaled with the market's middle, and from then on it is an order like any other that arrived at this moment. Pure.
"""

from agent.domain.events import Event, IntentTrailed, IntentTriggered
from agent.engine.links import at_stake, left_behind, outranked
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.world import World
from agent.execution.triggers import Fired, Moved, watched


def held(parent: Parent, dust: int, state: State, world: World, now_ns: int) -> list[Event] | None:
    """None when it is to be worked; else what is to be journaled instead, mostly nothing. `dust`: units that no venue trades.

    While all trading is halted nothing fires: when it is lifted, the market of then counts.
    """
    if parent.paused or outranked(parent, state):
        return []
    if not parent.is_waiting:
        entry = left_behind(parent, state)
        return None if entry is None else [entry]
    if state.halt_of():
        return []
    if parent.intent.after and at_stake(parent, state).units <= dust:
        return []
    return _news(parent, world, now_ns)


def is_quiet(parent: Parent, state: State, world: World, now_ns: int) -> bool:
    """Whether one that waits has nothing to do with this moment: the many that wait are passed by, for a few that are worked."""
    intent = parent.intent
    if parent.cancelled or now_ns >= intent.deadline_ns or (intent.group and not _is_untouched(intent.group, state)):
        return False
    entry = state.parents.get(intent.after)
    if entry is not None and not entry.filled:
        return entry.is_live
    if intent.trigger is None:
        return False
    view = world.market.view(intent.market, now_ns)
    return watched(intent.trigger, intent.side, parent.best, view, world.market.last_trade) is None


def _is_untouched(group: str, state: State) -> bool:
    """Whether all of a group still wait."""
    members = (state.parents[name] for name in state.groups[group])
    return not any(one.triggered_ns or one.filled or not one.is_live for one in members)


def _news(parent: Parent, world: World, now_ns: int) -> list[Event]:
    """What the market of now means for an order that waits."""
    intent = parent.intent
    if not (world.has_begun or world.ready.issuperset(world.profiles)):
        return []  # after a start the picture is not whole yet
    view = world.market.view(intent.market, now_ns)
    if view.mid is None:
        return []
    if intent.trigger is None:
        return [IntentTriggered(intent.intent_id, view.mid, view.mid)]
    match watched(intent.trigger, intent.side, parent.best, view, world.market.last_trade):
        case Fired(price=price):
            return [IntentTriggered(intent.intent_id, price, view.mid)]
        case Moved(best=best):
            return [IntentTrailed(intent.intent_id, best)]
        case None:
            return []
