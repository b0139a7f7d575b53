"""What many orders cost, put together by strategy, algorithm, venue or side. Each order counts once, whatever its size."""

from collections.abc import Callable, Iterable

import msgspec

from agent.domain.amount import Amount
from agent.engine.analysis import Analysis
from agent.execution.interval import interval
from agent.execution.tca import mean

Keyed = Callable[[Analysis], Iterable[tuple[str, Amount, float | None, float | None]]]  # (name, notional, cost, markout) in bps


class Row(msgspec.Struct, frozen=True):
    """Orders of one name in one quote group. `cost_bps` is against arrival: the mean, and between what it lies in 95 of 100 cases.

    `weighted_bps`: the same by value. `markout_10s_bps`: positive is good for us.
    """

    name: str
    orders: int
    notional: Amount
    cost_bps: float
    low_bps: float | None
    high_bps: float | None
    weighted_bps: float
    markout_10s_bps: float | None


def rows(found: Iterable[Analysis], keyed: Keyed) -> list[Row]:
    """The largest first. What was not traded counts nowhere."""
    told: dict[tuple[str, str], list[tuple[Amount, float, float | None]]] = {}
    for one in found:
        for name, notional, cost_bps, markout_bps in keyed(one):
            if cost_bps is not None:
                told.setdefault((name, notional.asset.group), []).append((notional, cost_bps, markout_bps))
    return sorted((_row(name, some) for (name, _), some in told.items()), key=lambda row: -row.notional.units)


def _row(name: str, some: list[tuple[Amount, float, float | None]]) -> Row:
    notional = sum((one for one, _, _ in some[1:]), start=some[0][0])
    found = interval([cost_bps for _, cost_bps, _ in some])
    assert found is not None, "a row has orders"
    weighted = mean((one.units, cost_bps) for one, cost_bps, _ in some)
    markout = mean((one.units, bps) for one, _, bps in some if bps is not None)
    return Row(name, len(some), notional, found.mean, found.low, found.high, weighted or 0.0, markout)


def _whole(one: Analysis, name: str) -> Iterable[tuple[str, Amount, float | None, float | None]]:
    markout = next((markout.bps for markout in one.markouts if markout.after_s == 10), None)
    yield name, one.shortfall.notional, one.shortfall.bps, markout


def _venues(one: Analysis) -> Iterable[tuple[str, Amount, float | None, float | None]]:
    for group in one.by_venue:
        yield group.name, group.quote, group.cost_bps, next(m.bps for m in group.markouts if m.after_s == 10)


KEYS: dict[str, Keyed] = {
    "strategy": lambda one: _whole(one, one.strategy),
    "algo": lambda one: _whole(one, one.algo),
    "side": lambda one: _whole(one, one.side),
    "venue": _venues,
}
