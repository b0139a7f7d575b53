"""The group that most tests share: one real key generation and one real run of `aux`, half a minute of two cores."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from parties import Letter

    from agent.keys.threshold import engine


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here runs alone."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.alone)


class Made(NamedTuple):
    """Three shares of one key, of which two sign, and what their parties wrote to each other in `aux`."""

    shares: "list[engine.KeyShare]"
    letters: "list[Letter]"


@pytest.fixture(scope="session")
def made() -> Made:
    import parties

    letters: list[parties.Letter] = []

    def keep(_: int, letter: parties.Letter) -> bytes:
        letters.append(letter)
        return letter.body

    cores = parties.new_key(1)
    auxes = parties.carry([parties.engine.aux(party, 3, parties.eid(2), parties.primes(party)) for party in range(3)], keep)
    return Made([parties.engine.KeyShare.assemble(core, aux) for core, aux in zip(cores, auxes, strict=True)], letters)


@pytest.fixture(scope="session")
def group(made: Made) -> "list[engine.KeyShare]":
    return made.shares
