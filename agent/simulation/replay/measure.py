"""One replayed order in numbers: what it cost against arrival, and how well it kept its schedule. Opinions, so floats."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from agent.domain.amount import decimal_of, rescale_down
from agent.domain.intent import Intent
from agent.domain.price import decimal_of as price_decimal
from agent.engine.summary import summary
from agent.execution.algorithms import read
from agent.simulation.replay.run import Replayed
from agent.simulation.replay.setting import SECOND

Steps = Sequence[tuple[float, float]]  # (seconds after acceptance, share of the order that is done from then on), times rise


class Measured(msgspec.Struct, frozen=True):
    """`shortfall_bps`: all-in cost of the whole order against its arrival price, after fees and gas. What was not traded counts as
    if it had been taken at once on the exchange in the end, so that nobody saves by not trading.

    `tracking_pct`: root of the mean square, over the order's time, of what was traded less what should have been, in per cent of
    the order; None where nothing says what should have been.
    """

    status: str
    filled_share: float
    shortfall_bps: float
    tracking_pct: float | None
    orders: int
    virtual_s: float
    spent_s: float


def measured(done: Replayed) -> Measured:
    """Raises nothing: an order that did not trade has a shortfall too."""
    found, parent = summary(done.state, done.intent_id), done.state.parents[done.intent_id]
    whole = float(decimal_of(found.quantity))
    filled, arrival = float(decimal_of(found.filled)), float(price_decimal(found.arrival_price))
    price = arrival if found.all_in_price is None else float(price_decimal(found.all_in_price))
    worth = filled * price + (whole - filled) * (done.rest_price or price)
    cost = whole * arrival - worth if found.side == "sell" else worth - whole * arrival
    return Measured(
        found.status,
        filled / whole,
        cost / (whole * arrival) * 1e4,
        _tracking(parent.intent, traded(done)),
        len(found.children),
        done.virtual_s,
        done.spent_s,
    )


def traded(done: Replayed) -> Steps:
    """How far the order was, trade by trade."""
    parent = done.state.parents[done.intent_id]
    intent, steps, units = parent.intent, list[tuple[float, float]](), 0
    fills = [fill for name in parent.orders for fill in done.state.orders[name].fills]
    for fill in sorted(fills, key=lambda one: one.at_ns):
        units += rescale_down(fill.paid if intent.side == "sell" else fill.received, intent.quantity.asset).units
        steps.append(((fill.at_ns - parent.accepted_ns) / SECOND, units / intent.quantity.units))
    return steps


def schedule(intent: Intent) -> Steps | None:
    """How far the order should be, part by part; None where it has no schedule of its own."""
    if intent.algo is not None:
        table = read(intent.algo).plan(intent)
        if table is None:
            return None
        return [(at / SECOND, units / intent.quantity.units) for at, units in zip(table.starts_ns, table.units, strict=True)]
    if intent.slices == 1:
        return None
    return [(part * intent.interval_ns / SECOND, (part + 1) / intent.slices) for part in range(intent.slices)]


def rms_apart(one: Steps, other: Steps, until_s: float) -> float:
    """The root of the mean square of the difference of two step functions from 0 to `until_s`; both begin with nothing."""
    times = sorted({0.0, until_s, *(at for at, _ in (*one, *other) if 0 < at < until_s)})
    total = 0.0
    for at, end in pairwise(times):
        total += (end - at) * (_at(one, at) - _at(other, at)) ** 2
    return float((total / until_s) ** 0.5) if until_s else 0.0


def _tracking(intent: Intent, done: Steps) -> float | None:
    wanted = schedule(intent)
    if wanted is None:
        return None
    pause_s = wanted[1][0] - wanted[0][0] if len(wanted) > 1 else 0.0
    return 100 * rms_apart(done, wanted, wanted[-1][0] + pause_s)


def _at(steps: Steps, at: float) -> float:
    place = bisect_right(steps, at, key=lambda step: step[0])
    return steps[place - 1][1] if place else 0.0
