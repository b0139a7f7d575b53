"""One sandbox for all tests of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import isthmus


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home folder of a running sandbox: settings, keystore and secrets are in it."""
    home = tmp_path_factory.mktemp("desk") / "box"
    up = isthmus("sandbox", "up", "--home", home, "--hours", "1", "--json", at=home.parent)
    assert up.code == 0, up
    yield home
    assert isthmus("sandbox", "down", "--home", home, at=home.parent).code == 0
