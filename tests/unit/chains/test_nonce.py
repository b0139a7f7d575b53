"""Which number comes next: never one twice, never a gap, and a stranger with our key is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chains.nonce import NextNonce, next_nonce


@pytest.mark.parametrize(
    ("mined", "pending", "sent", "known_from", "expected"),
    [
        (0, 0, set(), 0, NextNonce(0, ())),
        (3, 3, {0, 1, 2}, 0, NextNonce(3, ())),
        (3, 5, {0, 1, 2, 3, 4}, 0, NextNonce(5, ())),
        (3, 3, {0, 1, 2, 3}, 0, NextNonce(4, ())),  # sent, not seen by the node yet
        (3, 3, {0, 1, 2, 4}, 0, NextNonce(3, ())),  # 3 was reserved and never sent: free, and it closes the gap
        (3, 1, {0, 1, 2}, 0, NextNonce(3, ())),  # a stale pending count
        (9, 9, set(), 9, NextNonce(9, ())),  # what happened before the journal began
        (9, 9, {7}, 7, NextNonce(9, (8,))),  # somebody else sent 8
        (3, 5, {0, 1, 2, 4}, 0, NextNonce(5, (3,))),  # and somebody else's 3 is still waiting
    ],
)
def test_the_next_number(mined: int, pending: int, sent: set[int], known_from: int, expected: NextNonce) -> None:
    assert next_nonce(mined, pending, sent, known_from) == expected


@given(st.integers(0, 50), st.integers(0, 60), st.frozensets(st.integers(0, 60)), st.integers(0, 60))
def test_it_is_unused_and_leaves_no_gap(mined: int, pending: int, sent: frozenset[int], known_from: int) -> None:
    found = next_nonce(mined, pending, sent, known_from)
    assert found.nonce >= mined
    assert found.nonce not in sent
    assert all(n in sent or n in found.foreign for n in range(mined, found.nonce))
    assert not set(found.foreign) & sent


def test_counts_are_not_negative() -> None:
    with pytest.raises(ValueError, match="zero or more"):
        next_nonce(-1, 0, frozenset())
