"""The transition table: every path ends, no counter ends a doubt, and evidence leads to one place in whatever order it comes."""

import itertools

import pytest

from agent.domain.order import ENDED, REORGANISED, SETTLED, TRANSITIONS, OrderState, after, follows

S = OrderState


def test_the_table_knows_every_state() -> None:
    assert set(TRANSITIONS) == set(OrderState)


def test_from_every_state_an_end_can_be_reached() -> None:
    reach = {state: {state} for state in OrderState}
    for _ in OrderState:
        for state in OrderState:
            reach[state] |= {far for near in TRANSITIONS[state].values() for far in reach[near]}
    assert all(reach[state] & ENDED for state in OrderState)


def test_an_unknown_outcome_can_become_anything_that_the_venue_proves() -> None:
    assert TRANSITIONS[S.UNKNOWN].keys() >= SETTLED | {S.OPEN}


def test_only_better_evidence_moves_what_ended() -> None:
    assert not any(follows(state, new) for state in (S.FILLED, S.FINAL, S.REPLACED) for new in OrderState)
    assert [new for new in OrderState if follows(S.CANCELLED, new)] == [S.FILLED]


@pytest.mark.parametrize(
    "told", [(S.OPEN, S.EXPIRED, S.CANCELLED, S.FILLED), (S.OPEN, S.CANCELLED), (S.OPEN, S.PARTIAL, S.EXPIRED)]
)
def test_the_ladder_is_climbed_to_the_same_step_in_any_order(told: tuple[OrderState, ...]) -> None:
    ends = set()
    for order in itertools.permutations(told + told):
        state = S.SENT
        for evidence in order:
            state = after(state, evidence)
        ends.add(state)
    assert ends == {told[-1]}


def test_held_and_refused_is_a_question_in_either_order() -> None:
    assert after(after(S.SENT, S.OPEN), S.REJECTED) is S.UNKNOWN
    assert after(after(S.SENT, S.REJECTED), S.OPEN) is S.UNKNOWN


def test_only_a_reorganisation_takes_back_what_stands_in_a_block() -> None:
    assert {S.MINED, S.REVERTED} <= REORGANISED
    assert not follows(S.MINED, S.UNKNOWN)
    assert follows(S.MINED, S.FINAL)
