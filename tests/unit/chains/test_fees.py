"""The base fee of the next block, by the formula of EIP-1559."""

import pytest

from agent.chains.fees import base_fee_next


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
