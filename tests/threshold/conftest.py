"""The group that most tests share: one real key generation and one real run of `aux`, half a minute of two cores."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agent.keys.threshold import engine


@pytest.fixture(scope="session")
def group() -> "list[engine.KeyShare]":
    """Three shares of one key, of which two sign."""
    import parties

    cores = parties.new_key(1)
    auxes = parties.carry([parties.engine.aux(party, 3, parties.eid(2), parties.primes(party)) for party in range(3)])
    return [parties.engine.KeyShare.assemble(core, aux) for core, aux in zip(cores, auxes, strict=True)]
