"""Options that several commands share, and how their work is run."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from agent.domain.errors import SecretError, UsageError

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file; default ./isthmus.toml.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Live = Annotated[bool, typer.Option("--live", help="Allow live venues; the settings must say `armed = true` too.")]
Market = Annotated[str, typer.Argument(help="The pair, for example ETH/USDT.", metavar="PAIR")]
Side = Annotated[Literal["sell", "buy"], typer.Option("--side", help="Of the base coin.")]
Quantity = Annotated[str, typer.Option("--qty", help="How much of the base coin, for example 40 or 0.25.")]

T = TypeVar("T")


def group(text: str) -> typer.Typer:
    """A group of commands, in the same dress as the others."""
    found = typer.Typer(help=text, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    found.callback(invoke_without_command=True)(_help_without_command)
    return found


def _help_without_command(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(UsageError.exit_code)


def run_async(work: Callable[[], Coroutine[Any, Any, T]], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run to the end, in asyncio's own loop or one from `loop`. Of several failures, the first that a user can act on is raised."""
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(work())
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in failures.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    return failures


def ask(name: str) -> str:
    """The password of a key, typed by a person. Raises SecretError where nobody can be asked."""
    return ask_hidden(f"password for {name}")


def ask_hidden(text: str) -> str:
    if not sys.stdin.isatty():
        raise SecretError("no terminal to ask on: give a reference such as env:NAME, file:PATH or keyring:SERVICE/NAME")
    return str(typer.prompt(text, hide_input=True, err=True))
