"""The group that most tests share: one real key generation and one real run of `aux` among daemons, half a minute of two cores."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agent.keys.threshold import engine


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here runs alone."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def group() -> "list[engine.KeyShare]":
    """Three shares of one key, of which two sign: those of the daemons' group, taken from its homes."""
    from cosigner_kit import open_group

    from agent.keys.cosigner.home import Home
    from agent.keys.secrets import read_secret
    from agent.simulation.cosigners import NAMES

    with open_group() as (daemons, _):
        homes = [Home(daemons.home(name), read_secret(daemons.password(name))) for name in NAMES]
        return [home.share(home.group()[0]) for home in homes]
