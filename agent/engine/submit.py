"""Wishes that come together are accepted together: all of them or none, in one append of the journal. Pure."""

from collections.abc import Iterator, Sequence

from agent.domain.events import IntentAccepted, IntentRefused
from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.engine.decide import accept
from agent.engine.state import State
from agent.engine.world import Rules, World
from agent.execution.triggers import price_by
from agent.risk.conditions import refuse_links, refuse_trigger

SUBMITTED_MAX = 32


def accept_all(
    intents: Sequence[Intent], state: State, world: World, rules: Rules, now_ns: int
) -> list[IntentAccepted | IntentRefused]:
    """An answer for each. One that is refused takes the others with it."""
    answers = [_answer(intent, intents, state, world, rules, now_ns) for intent in intents[:SUBMITTED_MAX]]
    refused = [one for one in answers if isinstance(one, IntentRefused)]
    if not refused:
        return answers
    why = Reason("LINKED_REFUSED", f"{refused[0].intent.intent_id[:40]} of the same submit was refused")
    return [one if isinstance(one, IntentRefused) else IntentRefused(one.intent, (why,)) for one in answers]


def reasons_of(answers: Sequence[IntentAccepted | IntentRefused]) -> tuple[Reason, ...]:
    """All reasons of those that were refused, without those that say that another was."""
    found = [reason for one in answers if isinstance(one, IntentRefused) for reason in one.reasons]
    return tuple(reason for reason in dict.fromkeys(found) if reason.code != "LINKED_REFUSED")


def refuse_conditions(intent: Intent, together: Sequence[Intent], state: State, world: World, now_ns: int) -> Iterator[Reason]:
    """Why its trigger or its links are not sound. `together`: all wishes of the same submit."""
    group = [one for one in together if one.group == intent.group]
    if intent.group in state.groups:
        yield Reason("LINK_UNSOUND", f"group {intent.group} is known already: all its orders come in one submit")
    before = {one.intent_id: one for one in together[: together.index(intent)]}
    known = state.parents.get(intent.after)
    entry = before.get(intent.after) or (known.intent if known else None)
    is_entry_live = intent.after in before or (known is not None and known.is_live)
    yield from refuse_links(intent, group, entry, is_entry_live=is_entry_live)
    yield from refuse_reached(intent, None if known and known.filled else entry, world, now_ns)


def refuse_reached(intent: Intent, entry: Intent | None, world: World, now_ns: int) -> Iterator[Reason]:
    """By the market of now, or by the price that the order before it, which has not traded yet, waits for."""
    if intent.trigger is None:
        return
    awaited = None if entry is None else entry.limit or getattr(entry.trigger, "price", None)
    if awaited is not None:
        yield from refuse_trigger(intent, awaited, f"the entry {intent.after}")
        return
    view = world.market.view(intent.market, now_ns)
    yield from refuse_trigger(intent, price_by(intent.trigger.by, intent.side, view, world.market.last_trade))


def _answer(
    intent: Intent, together: Sequence[Intent], state: State, world: World, rules: Rules, now_ns: int
) -> IntentAccepted | IntentRefused:
    answer = accept(intent, state, world, rules, now_ns)
    reasons = [*refuse_conditions(intent, together, state, world, now_ns)]
    if sum(one.intent_id == intent.intent_id for one in together) > 1:
        reasons.append(Reason("DUPLICATE_INTENT", f"{intent.intent_id[:40]} comes twice in one submit"))
    if len(together) > SUBMITTED_MAX:
        reasons.append(Reason("LINK_UNSOUND", f"{len(together)} orders in one submit, at most {SUBMITTED_MAX}"))
    if isinstance(answer, IntentAccepted):
        return IntentRefused(intent, tuple(reasons)) if reasons else answer
    return IntentRefused(intent, (*answer.reasons, *reasons))
