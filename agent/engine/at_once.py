"""What a parent that is worked over time would have given in one go when it was accepted: the first thing that an analysis compares
it with. It is asked when the parent is accepted, and worked out when nothing else is to be done.
"""

from collections.abc import Iterable

from agent.domain.amount import group_asset, zero
from agent.domain.events import WholeQuoted
from agent.engine.decide import capacity
from agent.engine.explain import Question
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.world import Rules, World, gas_prices
from agent.routing.memo import Memo
from agent.routing.scorecard import charges
from agent.routing.split import NoRoute, report
from agent.routing.terms import Rules as RouteRules


def whole(parent: Parent, state: State, world: World, rules: Rules, now_ns: int) -> Iterable[Question]:
    """The question about all of it, now; none for a parent that is traded in one go anyway, or waits."""
    intent = parent.intent
    if parent.is_waiting or (intent.algo is None and intent.slices == 1):
        return
    view = world.market.view(intent.market, now_ns)
    learnt = charges(state.scores.cards, rules.scoring, now_ns, (one.instrument for one in view.sources))
    free, gas = capacity(state, world, rules, parent, now_ns), gas_prices(world, rules, intent.quote, now_ns)
    settings = RouteRules(reserve_bps=rules.slippage_bps)
    yield Question(intent.intent_id, -1, view, intent.side, intent.quantity, free, gas, None, settings, learnt)


def whole_quoted(asked: Question, memo: Memo) -> WholeQuoted:
    """The answer to it."""
    found = asked.route(memo)
    if isinstance(found, NoRoute):
        why = "; ".join(reason.text for reason in found.reasons)
        return WholeQuoted(asked.intent_id, zero(asked.quantity.asset), zero(group_asset(asked.view.market.partition("/")[2])), why)
    placed = asked.quantity - found.unplaced
    why = f"only {placed} of it could have been traded" if found.unplaced else ""
    return WholeQuoted(asked.intent_id, placed, report(found, asked.intent_id, asked.index).quote, why)
