"""Implementation shortfall: risk costs while one waits, impact costs while one hurries, and the best path is between the two.

Almgren and Chriss, Optimal Execution of Portfolio Transactions (2001): with linear impact and a constant volatility the holdings
that are best for a risk aversion lambda are x(t) = X sinh(kappa (T - t)) / sinh(kappa T), kappa^2 = lambda sigma^2 / eta. Either
`urgency_pct` says kappa T outright (100 kappa T), or `risk_aversion` says lambda, and kappa follows from the volatility of the last
minutes and from what the books are seen to give for size; it is worked out anew for each slice, for what is left then.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import exp, expm1, sqrt
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.domain.intent import Intent
from agent.execution.impact import slope
from agent.execution.moves import Move
from agent.execution.parameters import SECOND_NS, CatchUp, Duration, Interval, Placement, RandomiseSize, RandomiseTime
from agent.execution.schedule import PLANS_MAX, Timetable, by_timetable, check_times, over, stale_by_timetable, timetable, towards
from agent.execution.standing import Resting, Standing

WINDOW_S = 300  # over which volatility is measured
Urgency = Annotated[int, Meta(ge=0, le=5_000, description="0 is a TWAP, 300 trades half within the first quarter.")]
RiskAversion = Annotated[
    str,
    Meta(pattern=r"^(\d{1,4}(\.\d{1,18})?)?$", description="Lambda per quote coin, e.g. 0.000001: urgency from what is measured."),
]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration_ns: Duration = 1_800 * SECOND_NS
    interval_ns: Interval = 30 * SECOND_NS
    urgency_pct: Urgency = 100
    risk_aversion: RiskAversion = ""
    randomise_size_pct: RandomiseSize = 0
    randomise_time_pct: RandomiseTime = 0
    catch_up_pct: CatchUp = 300
    placement: Placement = "auto"


@lru_cache(PLANS_MAX)
def plan(own: Parameters, units: int, seed: str) -> Timetable:
    return timetable(own, weights(own.urgency_pct / 100, over(own)), units, seed)


def step(own: Parameters, stand: Standing) -> Move | None:
    table = plan(own, int(stand.intent.quantity.units), stand.intent.intent_id)
    if not own.risk_aversion:
        return by_timetable(own, stand, table)
    at, last = table.at(stand.elapsed_ns), table.at(stand.last_ns - stand.accepted_ns) if stand.slices else -1
    if at <= last and stand.wanted is not None:
        wanted = int(stand.wanted.units)
        even = int(stand.intent.quantity.units) // over(own)
        return towards(own, stand, wanted, even, 0, _until_ns(own, table, at))
    kappa = _kappa(own, stand) if at > last else None
    return by_timetable(own, stand, table) if kappa is None else _again(own, stand, table, kappa, (last, at))


def stale(own: Parameters, stand: Standing, resting: Resting) -> str:
    return stale_by_timetable(own, stand, plan(own, int(stand.intent.quantity.units), stand.intent.intent_id), resting)


def check(own: Parameters, intent: Intent) -> Iterator[str]:  # noqa: ARG001 - every algorithm is asked alike
    return check_times(own)


def weights(urgency: float, count: int) -> Sequence[float]:
    """One for each of `count` parts, in order: what the holdings fall by in it, as a share of the order. `urgency` is kappa T.

    >>> [round(one, 3) for one in weights(3.04, 5)]
    [0.459, 0.252, 0.142, 0.086, 0.062]
    """
    left = [_left(urgency, part / count) for part in range(count + 1)]
    return [before - after for before, after in pairwise(left)]


def _again(own: Parameters, stand: Standing, table: Timetable, kappa: float, parts: tuple[int, int]) -> Move | None:
    """Planned anew from what should be left: the holdings at the end of this part by the kappa of now. `parts`: last, now."""
    quantity, before = int(stand.intent.quantity.units), int(stand.wanted.units) if stand.wanted is not None else 0
    began, ends = (min((part + 1) * own.interval_ns / own.duration_ns, 1.0) for part in parts)
    rest_s = own.duration_ns * (1 - began) / SECOND_NS
    share = _left(kappa * rest_s, (ends - began) / (1 - began)) if began < 1 else 0.0
    wanted = max(quantity - int((quantity - before) * share), before)
    return towards(own, stand, wanted, max(wanted - before, 1), before, _until_ns(own, table, parts[1]))


def _until_ns(own: Parameters, table: Timetable, at: int) -> int:
    return table.starts_ns[at + 1] if at + 1 < len(table.starts_ns) else own.duration_ns


def _kappa(own: Parameters, stand: Standing) -> float | None:
    """Per second. None while volatility or depth is not known: then the urgency that was given counts."""
    view = stand.view()
    if view.mid is None:
        return None
    size = int(stand.intent.quantity.units) / 10.0**stand.left.asset.decimals
    mid = int(view.mid.num) / int(view.mid.den)
    sigma, steep = stand.bars().sigma(WINDOW_S) * mid, slope(view, size, selling=stand.is_selling)
    if not sigma or not steep:
        return None
    eta = steep * own.interval_ns / SECOND_NS / 2  # a slice of v tau pays half its own slope
    return sqrt(float(own.risk_aversion) * sigma * sigma / eta)


def _left(urgency: float, at: float) -> float:
    """sinh(u (1 - at)) / sinh(u), without overflow; its limit where there is no urgency."""
    if urgency < 1e-9:
        return 1.0 - at
    return exp(-urgency * at) * expm1(-2 * urgency * (1.0 - at)) / expm1(-2 * urgency)
