"""Options that several commands share."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from agent.app import default_config, log_to
from agent.config import Loaded, load

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file; default ./isthmus.toml.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Live = Annotated[bool, typer.Option("--live", help="Allow live venues; the settings must say `armed = true` too.")]

T = TypeVar("T")


def settings(config: Path | None) -> Loaded:
    """Load the settings and send logs to their home folder."""
    loaded = load(config or default_config())
    log_to(loaded)
    return loaded


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end. Of several failures of one run, the first that a user can act on is raised."""
    try:
        return asyncio.run(work())
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    return group
