"""Fees per gas: the formula of EIP-1559, and a cap that holds."""

import pytest

from agent.chains.fees import Fees, base_fee_next, fees
from agent.domain.market import ChainHead
from agent.domain.plan import Reason

GWEI = 10**9


def head(base_fee: int) -> ChainHead:
    return ChainHead(1, 1, "0x1", "0x0", base_fee, 0, 0)


@pytest.mark.parametrize(
    ("base", "tip", "cap", "expected"),
    [
        (10 * GWEI, GWEI, 100 * GWEI, Fees(21 * GWEI, GWEI)),
        (10 * GWEI, GWEI, 15 * GWEI, Fees(15 * GWEI, GWEI)),
        (10 * GWEI, GWEI, 11 * GWEI, Fees(11 * GWEI, GWEI)),
        (0, 0, 0, Fees(0, 0)),
    ],
)
def test_twice_the_base_fee_and_the_tip_up_to_the_cap(base: int, tip: int, cap: int, expected: Fees) -> None:
    assert fees(head(base), tip, cap) == expected


def test_a_block_that_asks_more_than_the_cap_is_refused_with_the_numbers() -> None:
    refused = fees(head(10 * GWEI), GWEI, 11 * GWEI - 1)
    assert isinstance(refused, Reason)
    assert refused.code == "GAS_FEE_ABOVE_CAP"
    assert str(10 * GWEI) in refused.text


def test_negative_numbers_are_no_fees() -> None:
    with pytest.raises(ValueError, match="zero or more"):
        fees(head(1), -1, 5)


@pytest.mark.parametrize(
    ("base", "used", "limit", "expected"),
    [
        (1_000_000_000, 15_000_000, 30_000_000, 1_000_000_000),
        (1_000_000_000, 30_000_000, 30_000_000, 1_125_000_000),
        (1_000_000_000, 0, 30_000_000, 875_000_000),
        (7, 15_000_001, 30_000_000, 8),
        (7, 0, 30_000_000, 7),
        (0, 30_000_000, 30_000_000, 1),
        # mainnet: block 12965001 after the London block 12965000
        (1_000_000_000, 30_025_257, 30_029_122, 1_124_967_822),
    ],
)
def test_the_next_base_fee_is_the_protocols(base: int, used: int, limit: int, expected: int) -> None:
    assert base_fee_next(base, used, limit) == expected
