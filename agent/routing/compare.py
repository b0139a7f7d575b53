"""The counterfactual: what one instrument, or one whole venue, would have given for all of it, had the inventory been there."""

from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.amount import Amount
from agent.domain.events import Alternative
from agent.domain.instrument import Side
from agent.market.view import Source
from agent.routing.cost import GasPrice
from agent.routing.exact import Broken, Leg, exact_leg, settle
from agent.routing.problem import Task, pose
from agent.routing.search import choose
from agent.routing.terms import Order, Rules
from agent.routing.worth import net


def alternatives(order: Order, sources: Sequence[Source], gas: Mapping[int, GasPrice]) -> tuple[Alternative, ...]:
    """One for every instrument that can be priced, and one for every venue with several; balances and the limit are ignored."""
    free = msgspec.structs.replace(order, limit=None, rules=Rules(), charges={})
    task = pose(free, sources, None, gas)
    found = [_alone(task, i, gas) for i in range(len(task.sources))]
    venues: dict[str, list[Source]] = {}
    for source in task.sources:
        venues.setdefault(source.instrument.venue, []).append(source)
    found.extend(_venue(free, venue, members, gas) for venue, members in venues.items() if len(members) > 1)
    found.extend(
        Alternative(reason.text.partition(": ")[0], None, f"could not be priced: {reason.text}") for reason in task.rejected
    )
    return tuple(found)


def best_of(side: Side, compared: Sequence[Alternative]) -> Alternative | None:
    """The best single instrument that could have filled; whole venues (named without a colon) do not count."""
    able = [one for one in compared if one.quote is not None and ":" in one.venue]
    return (max if side == "sell" else min)(able, key=lambda one: one.quote.units if one.quote else 0) if able else None


def total(task: Task, legs: Sequence[Leg], gas: Mapping[int, GasPrice]) -> Amount:
    """After fee and gas, without any rest: what really changes hands."""
    order = task.order
    placed = sum(leg.base * task.terms[leg.i].scale for leg in legs)
    whole = msgspec.structs.replace(order, quantity=Amount(placed, order.quantity.asset))
    worth = net(msgspec.structs.replace(task, order=whole), legs, gas)
    return Amount(worth if order.side == "sell" else -worth, order.quote)


def _alone(task: Task, i: int, gas: Mapping[int, GasPrice]) -> Alternative:
    order, source = task.order, task.sources[i]
    found = source.instrument
    base = order.quantity.units // task.terms[i].scale
    base = base // found.lot_units * found.lot_units if found.is_book else base
    if base == 0 or task.problem.quantity < task.costs.least[i]:
        return Alternative(found.id, None, "could not fill: the quantity is below its smallest order")
    leg = exact_leg(order, source, i, base)
    if isinstance(leg, Broken):
        return Alternative(found.id, None, f"could not fill all of it: {leg.why.partition(': ')[2]}")
    return Alternative(found.id, total(task, [leg], gas), "all of it here, after fee and gas, had the inventory been there")


def _venue(order: Order, venue: str, members: Sequence[Source], gas: Mapping[int, GasPrice]) -> Alternative:
    task = pose(order, members, None, gas)
    choice = choose(task.problem, task.costs, search=task.search)
    legs = settle(task, choice) if choice else []
    if isinstance(legs, Broken) or not legs:
        return Alternative(venue, None, "could not fill it with all its sources together")
    placed = sum(leg.base * task.terms[leg.i].scale for leg in legs)
    finest = min(task.sources[leg.i].instrument.lot_units * task.terms[leg.i].scale for leg in legs)
    if order.quantity.units - placed >= finest:
        return Alternative(venue, None, "could not fill all of it with all its sources together")
    text = f"all of it here over {len(legs)} of its sources, after fees and gas, had the inventory been there"
    return Alternative(venue, total(task, legs, gas), text)
