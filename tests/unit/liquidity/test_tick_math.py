"""Ticks and root prices: the published limits, the inverse, and constants that agree with 1.0001 computed afresh."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import LiquidityError
from agent.liquidity.tick_math import (
    SQRT_PRICE_MAX_X96,
    SQRT_PRICE_MIN_X96,
    TICK_MAX,
    TICK_MIN,
    sqrt_price_at_tick,
    tick_at_sqrt_price,
)


def test_published_limits() -> None:
    assert sqrt_price_at_tick(TICK_MIN) == SQRT_PRICE_MIN_X96
    assert sqrt_price_at_tick(TICK_MAX) == SQRT_PRICE_MAX_X96
    assert tick_at_sqrt_price(SQRT_PRICE_MIN_X96) == TICK_MIN
    assert tick_at_sqrt_price(SQRT_PRICE_MAX_X96 - 1) == TICK_MAX - 1


@pytest.mark.parametrize("tick", [TICK_MIN - 1, TICK_MAX + 1])
def test_ticks_outside_are_refused(tick: int) -> None:
    with pytest.raises(LiquidityError):
        sqrt_price_at_tick(tick)


@pytest.mark.parametrize("root", [SQRT_PRICE_MIN_X96 - 1, SQRT_PRICE_MAX_X96])
def test_roots_outside_are_refused(root: int) -> None:
    with pytest.raises(LiquidityError):
        tick_at_sqrt_price(root)


@given(st.integers(TICK_MIN, TICK_MAX - 1))
def test_tick_of_root_of_tick(tick: int) -> None:
    root = sqrt_price_at_tick(tick)
    assert tick_at_sqrt_price(root) == tick
    assert tick_at_sqrt_price(sqrt_price_at_tick(tick + 1) - 1) == tick
    if tick > TICK_MIN:
        assert tick_at_sqrt_price(root - 1) == tick - 1


@given(st.integers(SQRT_PRICE_MIN_X96, SQRT_PRICE_MAX_X96 - 1))
def test_root_lies_in_its_tick(root: int) -> None:
    tick = tick_at_sqrt_price(root)
    assert sqrt_price_at_tick(tick) <= root < sqrt_price_at_tick(tick + 1)


@given(st.integers(TICK_MIN, TICK_MAX))
def test_roots_are_powers_of_1_0001(tick: int) -> None:
    with localcontext() as context:
        context.prec = 80
        true = (Decimal("1.0001") ** tick).sqrt() * 2**96
        # Each of up to 20 products drops a bit of a ratio that has 128 fractional bits and is below one.
        smallest = min(true, 2**192 / true) * 2**32
        assert abs(sqrt_price_at_tick(tick) - true) < 2 + 20 * true / smallest
