"""What an order will probably cost: the formulas agree with their sources, and the advice follows from them."""

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.execution.pretrade import (
    PARTICIPATION_MAX,
    Conditions,
    estimate,
    impact,
    participation,
    shortest_s,
    slices_of,
    span,
    suggest,
    timing_risk_bps,
)

DAY_S = 86_400
NOW = Conditions(mid=2_000.0, half_spread_bps=0.5, fee_bps=10.0, gas=0.4, sigma=1e-4, rate=5.0, at_once_bps=14.0)


def changed(**fields):
    return Conditions(**{name: getattr(NOW, name) for name in Conditions.__struct_fields__} | fields)


def test_the_square_root_law() -> None:
    """1 % of a day's volume at a volatility of 3 % a day moves the price by 30 bps."""
    now = changed(sigma=0.03 / sqrt(DAY_S), rate=100_000 / DAY_S)
    assert impact(1_000, now) == pytest.approx(30.0)


def test_timing_risk_is_that_of_almgren_and_chriss() -> None:
    """Their example: 5 days of 0.95 a day on a price of 50, in 5 slices: variance 1.083e12 for a million shares."""
    risk = timing_risk_bps(0.95 / 50, 5, 5) / 10_000 * 50 * 1e6
    assert risk**2 == pytest.approx(1.083e12, rel=1e-3)


def test_many_slices_come_to_a_third_of_the_time() -> None:
    assert timing_risk_bps(1e-4, 1_800, 100_000) == pytest.approx(1e-4 * sqrt(1_800 / 3) * 1e4, rel=1e-4)
    assert timing_risk_bps(1e-4, 1_800, 1) == 0.0, "at once nothing can happen"


def test_the_parts_of_an_estimate() -> None:
    found = estimate(40, 1_800, 60, NOW)
    assert found.gas_bps == pytest.approx(0.4 * 60 / 80_000 * 1e4)
    assert found.participation == pytest.approx(40 / (5 * 1_800 + 40))
    assert found.mean_bps == pytest.approx(0.5 + 10 + found.gas_bps + impact(40, NOW))
    assert found.high_bps - found.mean_bps == pytest.approx(1.645 * found.risk_bps)
    assert found.mean_bps - found.low_bps == pytest.approx(1.645 * found.risk_bps)


@pytest.mark.parametrize("missing", [{"sigma": 0.0}, {"rate": 0.0}])
def test_what_is_not_known_is_not_made_up(missing) -> None:
    found = estimate(40, 1_800, 60, changed(**missing))
    assert (found.impact_bps, found.mean_bps, found.low_bps, found.high_bps) == (None,) * 4
    assert suggest(40, 30, changed(**missing), 0.1) is None


@given(quantity=st.floats(1e-3, 1e6), rate=st.floats(1e-3, 1e4), most=st.floats(0.01, 0.9))
def test_the_shortest_duration_has_just_the_participation(quantity, rate, most) -> None:
    assert participation(quantity, shortest_s(quantity, rate, most), rate) == pytest.approx(most)


@given(quantity=st.floats(1e-2, 1e4), weight=st.floats(0, 3), at_once=st.none() | st.floats(0, 500), sigma=st.floats(1e-6, 1e-2))
def test_the_advice_costs_least(quantity, weight, at_once, sigma) -> None:
    now = changed(at_once_bps=at_once, sigma=sigma)
    found = suggest(quantity, 30, now, weight)
    assert found is not None
    duration_s = max(shortest_s(quantity, now.rate), 30)
    worked = estimate(quantity, duration_s, slices_of(duration_s, 30), now)
    charged = worked.mean_bps + weight * worked.risk_bps
    if found.algo == "once":
        assert at_once is not None
        assert at_once <= charged
    else:
        assert at_once is None or at_once > charged
        assert found.duration_s == pytest.approx(duration_s)
        assert participation(quantity, found.duration_s, now.rate) <= PARTICIPATION_MAX + 1e-9
    assert "\n" not in found.why


def test_who_minds_risk_trades_sooner() -> None:
    now = changed(at_once_bps=None)
    assert suggest(400, 30, now, 0.1).algo == "twap"
    assert suggest(400, 30, now, 1.0).algo == "is"


def test_words() -> None:
    assert [span(seconds) for seconds in (45, 720, 12_600)] == ["45 s", "12 min", "3.5 h"]
    assert [slices_of(duration, 30) for duration in (1, 30, 31, 1_800)] == [1, 1, 2, 60]
