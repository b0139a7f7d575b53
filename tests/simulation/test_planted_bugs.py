"""Bugs that are put in on purpose: the drill must find every one, by the law that it breaks.

The bugs are in `planted`. Each is caught on one of a few fixed seeds, on which the agent as it is breaks no law.
"""

from collections.abc import Iterator
from functools import cache

import pytest
from planted import BUGS, Bug

from agent import observe
from agent.simulation.drill.day import play
from agent.simulation.drill.laws import LAWS
from agent.simulation.drill.run import quiet

LEAST = 30


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    quiet()
    yield
    observe.open_log()


@cache
def healthy(seed: int, faults: tuple[str, ...]) -> tuple[str, ...]:
    """The laws that the agent as it is breaks on that day."""
    return tuple(one.law for one in play(seed, faults).violations)


def broken(bug: Bug, patch: pytest.MonkeyPatch, seed: int) -> set[str]:
    """The laws that are broken on a day with the bug in."""
    with patch.context() as switched:
        bug.plant(switched)
        return {one.law for one in play(seed, bug.faults).violations}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug, found = BUGS[name], set[str]()
    for seed in bug.seeds:
        assert healthy(seed, bug.faults) == (), f"seed {seed} is no control: a law is broken without the bug"
        found |= broken(bug, monkeypatch, seed)
        if bug.law in found:
            break
    assert bug.law in found, f"{bug.text} Not caught by {bug.law!r} on seeds {bug.seeds}, but by {sorted(found)}"


def test_there_are_enough_of_them_and_each_says_what_it_does() -> None:
    assert len(BUGS) >= LEAST
    for bug in BUGS.values():
        assert bug.text.endswith("."), bug.name
        assert bug.seeds, bug.name
        assert bug.law in LAWS, bug.name


def test_every_law_finds_something() -> None:
    """A law that nothing can break is no law."""
    assert LAWS.keys() - {bug.law for bug in BUGS.values()} == set()
