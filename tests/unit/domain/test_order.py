"""The transition table: every path ends, doubt is never ended by a counter, and what ended stays ended."""

import itertools

from agent.domain.order import ENDED, SETTLED, TRANSITIONS, OrderState, follows


def test_the_table_knows_every_state() -> None:
    assert set(TRANSITIONS) == set(OrderState)


def test_from_every_state_an_end_can_be_reached() -> None:
    reach = {state: {state} for state in OrderState}
    for _ in OrderState:
        for state in OrderState:
            reach[state] |= {far for near in TRANSITIONS[state] for far in reach[near]}
    assert all(reach[state] & ENDED for state in OrderState)


def test_an_unknown_outcome_can_become_anything_that_the_venue_proves() -> None:
    assert TRANSITIONS[OrderState.UNKNOWN] >= SETTLED | {OrderState.OPEN}


def test_what_ended_off_chain_never_moves_again() -> None:
    gone = (OrderState.FILLED, OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED, OrderState.FINAL)
    assert not any(follows(state, new) for state, new in itertools.product(gone, OrderState))


def test_a_mined_transaction_can_be_taken_back_by_a_reorganisation() -> None:
    assert follows(OrderState.MINED, OrderState.UNKNOWN)
    assert follows(OrderState.MINED, OrderState.FINAL)
