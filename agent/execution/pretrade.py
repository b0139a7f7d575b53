"""What an order will probably cost, before it is sent: an opinion from what the market did lately, with its range.

In basis points of the order at the middle of now, with sigma the standard deviation of log returns per square root of a second, v
what others trade, in base coins a second, Q the order and T its duration:

    participation  Q / (v T + Q)                    of all that is traded meanwhile
    impact         Y sigma sqrt(Q / v)              the square-root law, with Y = 1
    timing risk    sigma sqrt(tau sum (1 - j/N)^2)  of N equal slices, tau apart; sigma sqrt(T / 3) for many

The law is B. Toth and others, "Anomalous price impact and the critical nature of liquidity" (2011): it does not depend on the
duration, as long as the participation is moderate. The risk is R. Almgren and N. Chriss, "Optimal execution of portfolio
transactions" (2000).

Since impact does not depend on the duration and risk grows with it, the best duration is the shortest in which the participation
stays below `PARTICIPATION_MAX`; and what books and pools would take at once for less than that, with its risk, is better traded at
once.
"""

from math import sqrt
from typing import Literal

import msgspec

BPS = 10_000.0
IMPACT_Y = 1.0
PARTICIPATION_MAX = 0.10
DURATION_S_MAX = 31 * 86_400
NORMAL_90 = 1.645  # standard deviations between which 90 of 100 cases lie


class Conditions(msgspec.Struct, frozen=True):
    """The market of now. `half_spread_bps` of the tightest book, `fee_bps` and `gas` (quote coins a slice) of the first slice's
    route; `distance_bps`: what else it costs, its depth and how far its venues stand from the middle, which may be below zero.
    `sigma` and `rate` 0.0: not known. `at_once_bps`: what all of it would cost now, after fees and gas; None: it cannot.
    """

    mid: float
    half_spread_bps: float
    fee_bps: float
    gas: float
    sigma: float
    rate: float
    at_once_bps: float | None = None
    distance_bps: float = 0.0


class Estimate(msgspec.Struct, frozen=True):
    """Parts and sums in basis points of the order; `low_bps` to `high_bps` holds 90 of 100 cases. None: not known."""

    duration_s: float
    slices: int
    participation: float | None
    spread_bps: float
    fees_bps: float
    gas_bps: float
    distance_bps: float
    impact_bps: float | None
    risk_bps: float | None
    mean_bps: float | None
    low_bps: float | None
    high_bps: float | None


class Suggestion(msgspec.Struct, frozen=True):
    """`algo`: as `--algo` has it, or `once`. `why`: one line."""

    algo: Literal["once", "twap", "is"]
    duration_s: float
    urgency_pct: int
    why: str


def estimate(quantity: float, duration_s: float, slices: int, now: Conditions) -> Estimate:
    """Of `quantity` base coins in equal slices over the duration. All of them take."""
    value = quantity * now.mid
    gas_bps = now.gas * slices / value * BPS
    sure_bps = now.half_spread_bps + now.fee_bps + gas_bps + now.distance_bps
    impact_bps = impact(quantity, now) if now.rate > 0 and now.sigma > 0 else None
    risk_bps = timing_risk_bps(now.sigma, duration_s, slices) if now.sigma > 0 else None
    part = participation(quantity, duration_s, now.rate) if now.rate > 0 else None
    if impact_bps is None or risk_bps is None:
        sums: tuple[float | None, ...] = (None, None, None)
    else:
        mean = sure_bps + impact_bps
        sums = mean, mean - NORMAL_90 * risk_bps, mean + NORMAL_90 * risk_bps
    sure = now.half_spread_bps, now.fee_bps, gas_bps, now.distance_bps
    return Estimate(duration_s, slices, part, *sure, impact_bps, risk_bps, *sums)


def impact(quantity: float, now: Conditions) -> float:
    """What the order moves the price by until its end, in basis points."""
    return IMPACT_Y * now.sigma * sqrt(quantity / now.rate) * BPS


def participation(quantity: float, duration_s: float, rate: float) -> float:
    """The order's part of all that is traded meanwhile, its own included."""
    return quantity / (rate * duration_s + quantity)


def shortest_s(quantity: float, rate: float, most: float = PARTICIPATION_MAX) -> float:
    """The duration in which the participation is just `most`."""
    return quantity * (1 - most) / (most * rate)


def timing_risk_bps(sigma: float, duration_s: float, slices: int) -> float:
    """The standard deviation of the cost that the market's own moves make, in basis points; the first slice is traded at once."""
    left = sum((1 - done / slices) ** 2 for done in range(1, slices)) * duration_s / slices
    return sigma * sqrt(left) * BPS


def suggest(quantity: float, interval_s: float, now: Conditions, risk_weight: float) -> Suggestion | None:
    """The way whose mean cost and `risk_weight` times its standard deviation is least. None: too little is known of the market."""
    if now.rate <= 0 or now.sigma <= 0:
        return None
    duration_s = min(max(shortest_s(quantity, now.rate), interval_s), DURATION_S_MAX)
    worked = estimate(quantity, duration_s, slices_of(duration_s, interval_s), now)
    assert worked.mean_bps is not None, "its parts are known"
    assert worked.risk_bps is not None, "its parts are known"
    assert worked.impact_bps is not None, "its parts are known"
    charged_bps = worked.mean_bps + risk_weight * worked.risk_bps
    over = f"{worked.mean_bps:.2f} bps and {risk_weight:g} times its risk of {worked.risk_bps:.2f} bps"
    if now.at_once_bps is not None and now.at_once_bps <= charged_bps:
        return Suggestion("once", 0.0, 0, f"at once costs {now.at_once_bps:.2f} bps for sure, over {span(duration_s)} {over}")
    why = f"the shortest with at most {PARTICIPATION_MAX:.0%} of what is traded; it costs {over}"
    why += f", at once {now.at_once_bps:.2f} bps" if now.at_once_bps is not None else ", and at once there is not enough"
    if risk_weight * worked.risk_bps > worked.impact_bps:
        return Suggestion("is", duration_s, 100, f"{why}; the risk weighs more than the impact, so sooner is better")
    return Suggestion("twap", duration_s, 0, why)


def slices_of(duration_s: float, interval_s: float) -> int:
    """How many slices fit, at least one."""
    return max(1, -int(-duration_s // interval_s))


def span(seconds: float) -> str:
    """For people: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
