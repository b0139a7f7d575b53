"""Orders that belong together: one of a group cancels or shrinks the others (OCO), and an order may come after another (OTO).

A group trades no more in all than its largest member's quantity, so a member may only work what nobody else of the group has traded
or may still trade through a child that is out. What comes after an order may trade no more than that order has brought: what it
filled, less a fee that was taken in the coin itself. Both bounds follow from the journal at every moment, so nothing is to be
remembered beside it. The first of a group whose trigger fired is worked alone: the others' resting children are taken back, and
until a venue has said what became of them, what they may still trade is theirs. Pure.
"""

from agent.domain.amount import Amount, zero
from agent.domain.events import IntentCancelled, IntentEnded
from agent.engine.parent import Parent
from agent.engine.state import State


def room(parent: Parent, state: State) -> Amount:
    """What the parent may still send children for, of the base group; below zero when what it comes after lost a trade again."""
    left = state.remaining(parent)
    if not _is_linked(parent):
        return left
    return min(left, _bound(parent, state) - _committed(parent, state))


def at_stake(parent: Parent, state: State) -> Amount:
    """What is left for it and its group to trade, of the base group, whoever of them has children out for it."""
    return _bound(parent, state) - _sum(parent, [one.filled for one in _members(parent, state)])


def overdone(parent: Parent, coming: Amount, state: State) -> str:
    """Whether it and its group have traded more than they may, with the fills that are `coming`; empty if not.

    It takes a venue that tells a trade of an order that it had told was gone.
    """
    over = coming - at_stake(parent, state) if _is_linked(parent) else zero(coming.asset)
    if over.units <= 0:
        return ""
    names = ", ".join(one.intent.intent_id for one in _members(parent, state))
    return f"{names} traded {over} more than they may together"


def outranked(parent: Parent, state: State) -> str:
    """Why it waits for another of its group, for people; empty if it does not."""
    if not parent.intent.group:
        return ""
    fired = [one for one in _members(parent, state) if one.is_live and one.triggered_ns and one.intent.trigger and not one.paused]
    first = min(fired, key=lambda one: one.triggered_ns, default=parent)
    return "" if first is parent else f"{first.intent.intent_id} of its group was triggered first"


def unwanted(parent: Parent, state: State) -> str:
    """Why its resting children should go, for people; empty if they may stay."""
    if not _is_linked(parent):
        return ""
    if why := outranked(parent, state):
        return why
    return f"{parent.intent.after} has traded less than was thought" if room(parent, state).units < 0 else ""


def ended(parent: Parent, dust: int, state: State) -> IntentEnded | None:
    """Its end, when nothing is left for it because of others. `dust`: units that no venue trades."""
    intent = parent.intent
    if not _is_linked(parent):
        return None
    entry = state.parents.get(intent.after)
    yet = _largest(parent, state) - _bound(parent, state) if entry is not None and entry.is_live else zero(parent.filled.asset)
    if (at_stake(parent, state) + yet).units > dust:
        return None
    is_whole = (intent.quantity - parent.filled).units <= dust
    return IntentEnded(intent.intent_id, "FILLED" if parent.filled else "CANCELLED", "" if is_whole else _why(parent, state))


def left_behind(parent: Parent, state: State) -> IntentCancelled | None:
    """An exit that has begun ends its entry: what is being sold is not bought on."""
    intent = parent.intent
    entry = state.parents.get(intent.after)
    has_begun = bool(parent.filled) or (intent.trigger is not None and parent.triggered_ns > 0)
    if not intent.group or entry is None or not has_begun or not entry.is_live or entry.cancelled:
        return None
    return IntentCancelled(entry.intent.intent_id)


def group_least(parent: Parent, state: State) -> Amount:
    """What its quantity may not fall below, so that no more was promised in all than the largest of its group; zero without one."""
    others = [one for one in _members(parent, state) if one is not parent]
    committed = _committed(parent, state)
    return committed if others and all(one.intent.quantity < committed for one in others) else zero(committed.asset)


def brought(entry: Parent) -> Amount:
    """What an order filled so far, of the base group, less the fees that were taken in the base coin itself, rounded down."""
    return Amount(max(entry.filled.units - entry.fees, 0), entry.filled.asset)


def _is_linked(parent: Parent) -> bool:
    return bool(parent.intent.group or parent.intent.after)


def _members(parent: Parent, state: State) -> list[Parent]:
    """All of its group, the ended ones too; without a group it stands alone."""
    return [state.parents[name] for name in state.groups.get(parent.intent.group, ())] or [parent]


def _committed(parent: Parent, state: State) -> Amount:
    """What it and its group have traded, or may still trade through children that are out."""
    return _sum(parent, [one.intent.quantity - state.remaining(one) for one in _members(parent, state)])


def _largest(parent: Parent, state: State) -> Amount:
    return max(one.intent.quantity for one in _members(parent, state))


def _bound(parent: Parent, state: State) -> Amount:
    """The most that it and its group may trade in all, as things stand."""
    largest, entry = _largest(parent, state), state.parents.get(parent.intent.after)
    return largest if entry is None else min(largest, brought(entry))


def _why(parent: Parent, state: State) -> str:
    others = [one.intent.intent_id for one in _members(parent, state) if one is not parent and one.filled]
    if others:
        return f"{', '.join(others)} of its group traded {'the rest' if parent.filled else 'it'}"
    entry = state.parents.get(parent.intent.after)
    if entry is None:
        return ""
    amount = brought(entry)
    return f"{entry.intent.intent_id} ended {entry.status} with {amount if amount else 'nothing'} traded"


def _sum(parent: Parent, amounts: list[Amount]) -> Amount:
    return sum(amounts, start=zero(parent.filled.asset))
