"""How much is moved between hot and cold: back to the target, never more than there is, and nothing within the bounds."""

import doctest

from hypothesis import given
from hypothesis import strategies as st

from agent.treasury import targets
from agent.treasury.targets import Bound, moves

units = st.integers(min_value=0, max_value=10**30)


def test_the_example() -> None:
    assert doctest.testmod(targets).failed == 0


@given(st.lists(units, min_size=3, max_size=3), units, units)
def test_after_its_moves_an_account_is_within_its_bounds(three: list[int], hot: int, cold: int) -> None:
    floor, target, ceiling = sorted(three)
    bound = Bound("USD", "hot", "cold", floor, target, ceiling)
    held = {("hot", "USD"): hot, ("cold", "USD"): cold}
    swept, topped = moves([bound], held, "sweep"), moves([bound], held, "top_up")
    assert not (swept and topped)
    for one in (*swept, *topped):
        assert 0 <= one.units <= held[one.source, "USD"]
        held[one.source, "USD"] -= one.units
        held[one.to, "USD"] += one.units
    assert held["hot", "USD"] + held["cold", "USD"] == hot + cold
    missing = sum(one.missing for one in topped)
    assert floor <= held["hot", "USD"] + missing <= ceiling
    if swept or topped:
        assert held["hot", "USD"] + missing == target
