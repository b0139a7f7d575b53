"""Quoted against executed, from the journaled state alone: for one order, and for a parent with all its orders."""

from agent.domain.amount import group_asset
from agent.domain.order import Order
from agent.domain.plan import PlaceOrder
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.summary import rates_of
from agent.execution.gap import Gap, Money, add, no_gap
from agent.execution.gap import order_gap as held_against


def order_gap(state: State, order: Order) -> Gap | None:
    """None for what belongs to no parent. A permission promises nothing and costs gas. Raises LedgerError without a rate for it."""
    parent = state.parents.get(order.plan.intent_id)
    if parent is None:
        return None
    route = parent.routes[order.route] if order.route >= 0 else None
    after = order.mark(0)
    return held_against(
        _money(parent),
        route.pieces if route is not None else (),
        order.fills,
        order.gas_paid.values(),
        is_book=isinstance(order.plan, PlaceOrder),
        mids=(route.mid, after) if route is not None and route.mid is not None and after is not None else None,
        sandwiches=[one for one in state.surrounded.get(order.order_id, ()) if one.block == order.block and order.fills],
    )


def parent_gap(state: State, intent_id: str) -> Gap:
    """The sum over all its orders. Raises KeyError if the parent is not known, LedgerError as above."""
    parent = state.parents[intent_id]
    total = no_gap(_money(parent))
    for name in parent.orders:
        one = order_gap(state, state.orders[name])
        total = add(total, one) if one is not None else total
    return total


def _money(parent: Parent) -> Money:
    intent = parent.intent
    return Money(intent.side, intent.quantity.asset, group_asset(intent.quote), rates_of(parent))
