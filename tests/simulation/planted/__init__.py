"""Bugs that somebody could write, each a switch in tests alone: a function of the agent that does what it must never do.

Every bug names the law that finds it, the faults of its days and the seeds on which it shows. What the drill does not find is a
law that is missing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

Plant = Callable[[pytest.MonkeyPatch], None]


class Bug(NamedTuple):
    """`law`: one that it breaks on one of `seeds`, on days with `faults` (none: as the seed draws them)."""

    name: str
    text: str
    law: str
    faults: tuple[str, ...]
    seeds: tuple[int, ...]
    plant: Plant


BUGS: dict[str, Bug] = {}


def bug(law: str, seeds: tuple[int, ...], *faults: str) -> Callable[[Plant], Plant]:
    """Put a bug on the list, by the name of the function that plants it; its docstring says what it does."""

    def listed(plant: Plant) -> Plant:
        name = plant.__name__.replace("_", "-")
        assert name not in BUGS, name
        BUGS[name] = Bug(name, (plant.__doc__ or "").strip(), law, faults, seeds, plant)
        return plant

    return listed


def instead(patch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any]) -> None:
    """Put `wrong` in the place of a function; it is given what it replaces first, then whatever that was called with."""
    right = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        return wrong(right, *arguments, **options)

    patch.setattr(owner, name, called)


from planted import blocks, books, doubts, orders, sends  # noqa: E402, F401 - each puts its bugs on the list
