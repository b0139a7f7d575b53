"""What a simpler router would have got: all of it where the first coin is best, or the same part everywhere. Quoted exactly."""

from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.events import Alternative
from agent.market.view import Source
from agent.routing.compare import total
from agent.routing.cost import GasPrice
from agent.routing.exact import Broken, Leg, exact_leg
from agent.routing.problem import Task, pose
from agent.routing.terms import Order, Rules

BEST_PRICE = "best first price"
EQUAL_PARTS = "equal parts"


def naive(order: Order, sources: Sequence[Source], gas: Mapping[int, GasPrice]) -> tuple[Alternative, ...]:
    """Both, over every source that can be priced; balances and the limit are ignored. What lots leave over is not in the value."""
    free = msgspec.structs.replace(order, limit=None, rules=Rules(), charges={})
    task = pose(free, sources, None, gas)
    if not task.sources:
        return ()
    best = min(range(len(task.sources)), key=lambda i: task.problem.curves[i].u[0])
    every = range(len(task.sources))
    name = task.sources[best].instrument.id
    return (
        _shared(task, [best], gas, BEST_PRICE, f"all of it at {name}, where the first coin is best, after fee and gas"),
        _shared(task, every, gas, EQUAL_PARTS, f"the same part at each of {len(every)} sources, after fees and gas"),
    )


def _shared(task: Task, chosen: Sequence[int], gas: Mapping[int, GasPrice], name: str, why: str) -> Alternative:
    """The order in equal parts over the chosen sources; None as its value where one of them cannot do its part."""
    order, legs = task.order, list[Leg]()
    part = order.quantity.units // len(chosen)
    for i in chosen:
        found = task.sources[i].instrument
        size = found.lot_units if found.is_book else 1
        base = part // task.terms[i].scale // size * size
        leg = exact_leg(order, task.sources[i], i, base) if base else Broken(i, f"{found.id}: its part is less than a lot")
        if isinstance(leg, Broken):
            return Alternative(name, None, f"could not fill its part: {leg.why}")
        legs.append(leg)
    return Alternative(name, total(task, legs, gas), why)
