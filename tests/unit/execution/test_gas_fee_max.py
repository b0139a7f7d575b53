"""Fees per gas: twice the base fee and the tip, and a cap that holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.execution.fees import gas_fee_max

GWEI = 10**9


@pytest.mark.parametrize(
    ("base", "tip", "cap", "expected"),
    [
        (10 * GWEI, GWEI, 100 * GWEI, 21 * GWEI),
        (10 * GWEI, GWEI, 15 * GWEI, 15 * GWEI),
        (10 * GWEI, GWEI, 11 * GWEI, 11 * GWEI),
        (10 * GWEI, GWEI, 11 * GWEI - 1, 11 * GWEI),  # above the cap: the gate refuses it
        (0, 0, 0, 0),
    ],
)
def test_twice_the_base_fee_and_the_tip_up_to_the_cap(base: int, tip: int, cap: int, expected: int) -> None:
    assert gas_fee_max(base, tip, cap) == expected


@given(st.integers(0, 10**15), st.integers(0, 10**12), st.integers(0, 10**15))
def test_it_pays_for_the_next_block_or_is_above_the_cap(base: int, tip: int, cap: int) -> None:
    found = gas_fee_max(base, tip, cap)
    assert found >= base + tip
    assert found <= cap or found == base + tip > cap
