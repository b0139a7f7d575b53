"""Why a route is as it is, in sentences that a trader would say. Codes are stable, texts are for reading."""

from collections.abc import Sequence
from math import isinf

from agent.domain.amount import Amount
from agent.domain.instrument import PIPS
from agent.domain.plan import Reason
from agent.routing.curve import price_at
from agent.routing.exact import Leg
from agent.routing.fill import FLOORED
from agent.routing.problem import Task
from agent.routing.search import Choice
from agent.routing.terms import scale

WORSE_PRICE = "WORSE_PRICE"
GAS_NOT_EARNED = "GAS_NOT_EARNED"
NOT_NEEDED = "NOT_NEEDED"
LOT_DUST = "LOT_DUST"
NO_INVENTORY = "NO_INVENTORY"
LIMIT_REACHED = "LIMIT_REACHED"
NO_LIQUIDITY = "NO_LIQUIDITY"


def why(task: Task, choice: Choice, leg: Leg, share: float, price: float) -> str:
    """Why a source has its part: `cheapest until 2683.1; 41 % of size`."""
    order, found = task.order, task.sources[leg.i].instrument
    best = "pays best until" if order.side == "sell" else "cheapest until"
    notes = [f"{best} {_last(task, choice, leg, price):.6g} after fee", f"{share * 100:.3g} % of size"]
    if choice.state[leg.i] == FLOORED:
        notes.append("raised to its minimum order")
    if any(leg.i in task.problem.groups[number] for number in choice.filling.capped):
        notes.append(f"all that the account has of {(found.base if order.side == 'sell' else found.quote).id}")
    if task.problem.gas[leg.i] > 0:
        notes.append(f"{price:.6g} with its gas")
    return "; ".join(notes)


def left_out(task: Task, choice: Choice, legs: Sequence[Leg]) -> list[Reason]:
    """Why each source that could have been used was not."""
    used = {leg.i for leg in legs}
    found = []
    for i, source in enumerate(task.sources):
        if i in used:
            continue
        curve, name, end = task.problem.curves[i], source.instrument.id, choice.filling.u[i]
        best = price_at(curve.u[0])
        if isinf(end) or curve.u[0] >= end:
            text = f"{name}: its best price after fee, {best:.6g}, is worse than what the others give for all of it"
            found.append(Reason(WORSE_PRICE, text))
        elif not source.instrument.is_book:
            found.append(Reason(GAS_NOT_EARNED, f"{name}: better in price ({best:.6g} at best), but by less than its gas costs"))
        else:
            found.append(Reason(NOT_NEEDED, f"{name}: its part would be below its smallest order or not worth a piece"))
    return found


def rest_reason(task: Task, choice: Choice, unplaced: Amount) -> Reason:
    """Why a part of the order stays untraded."""
    order = task.order
    instruments = [source.instrument for source in task.sources]
    sizes = [scale(order, found) * (found.lot_units if found.is_book else 1) for found in instruments]
    if unplaced.units < max(sizes):
        return Reason(LOT_DUST, f"{unplaced} is less than a lot, and not worth a transaction")
    if choice.filling.capped or any(reason.code == "NO_CAPACITY" for reason in task.rejected):
        return Reason(NO_INVENTORY, f"{unplaced} stays: the balances where it could be traded are used up")
    if order.limit is not None:
        return Reason(LIMIT_REACHED, f"{unplaced} stays: nothing more is offered within the limit {order.limit}, gas included")
    return Reason(NO_LIQUIDITY, f"{unplaced} stays: nothing more is offered at a sane price")


def _last(task: Task, choice: Choice, leg: Leg, price: float) -> float:
    """The price after the fee of the last coin traded there."""
    found = task.sources[leg.i].instrument
    if found.is_book:
        keep = 1 - found.fee_pips / PIPS
        raw: float = leg.ticks * found.tick_units / 10**found.quote.decimals
        return raw * keep if task.order.side == "sell" else raw / keep
    return price_at(choice.filling.u[leg.i]) if choice.filling.base[leg.i] > 0 else price
