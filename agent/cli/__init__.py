"""The command line. Every command takes `--json`; errors are one line that says what to do next.

Exit codes: 0 ok, 2 usage, 3 refused by risk, 4 venue or chain, 5 outcome unknown, 1 anything that should not happen.
"""

import sys
from typing import Annotated

import click
import typer

from agent import __version__
from agent.cli import desk, keys, market, sandbox, setup
from agent.cli.show import err, print_json
from agent.domain.errors import IsthmusError

app = typer.Typer(
    name="isthmus",
    help="One order and execution agent over exchanges and on-chain markets, signing with your own keys.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False) -> None:
    if version:
        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


app.command("demo")(sandbox.demo)
app.command("init")(setup.init)
app.command("doctor")(setup.doctor_command)
app.command("run")(desk.run)
app.command("quote")(market.quote)
app.command("route")(market.route)
app.command("record")(market.record)
app.command("balances")(desk.balances)
app.command("reconcile")(desk.reconcile)
app.add_typer(desk.orders, name="order")
app.add_typer(sandbox.commands, name="sandbox")
app.add_typer(keys.commands, name="keys")


def main() -> None:
    """Run the command line and leave with its exit code."""
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except IsthmusError as error:
        _fail(str(error), error.exit_code, as_json)
    except click.exceptions.Abort:
        _fail("interrupted", 130, as_json)
    except click.ClickException as error:
        _fail(f"{error.format_message()} (try --help)", 2, as_json)
    except KeyboardInterrupt:
        _fail("interrupted", 130, as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str, code: int, as_json: bool) -> None:
    line = " ".join(text.split())
    if as_json:
        print_json({"status": "error", "error": line, "exit_code": code})
    else:
        err.print(f"error: {line}", style="red", markup=False)
    sys.exit(code)
