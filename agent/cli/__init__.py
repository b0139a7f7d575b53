"""The command line. Every command takes `--json`; errors are one line that says what to do next.

Exit codes: 0 ok, 2 usage, 3 refused by risk, 4 venue or chain, 5 outcome unknown, 130 interrupted, 1 what should not happen.
A command's module is imported when the command is asked for, so that `--help` and `--version` answer at once.
"""

import importlib
import io
import os
import sys
from typing import Annotated, Any

import typer
import typer.core
import typer.exceptions
import typer.main

from agent import __version__
from agent.domain.errors import IsthmusError, UsageError

COMMANDS = {
    # name -> (module of agent/cli, function or group in it, one line of help)
    "demo": ("demo", "demo", "Sell 40 ETH over a sandbox exchange and pools. Simulated."),
    "init": ("init", "init", "Write one commented settings file."),
    "doctor": ("doctor", "doctor", "Check everything that trading needs, one line each, with its fix."),
    "run": ("run", "run", "Run the agent: settle doubts, resume orders, serve the desk."),
    "quote": ("market", "quote", "What a quantity would fetch now, over all venues."),
    "route": ("market", "route", "How a quantity would be split now, and why."),
    "order": ("order", "commands", "Submit, list, show and cancel parent orders."),
    "tca": ("tca", "many", "What orders cost against arrival, by algorithm, venue, side or strategy."),
    "venues": ("venues", "venues", "How each venue did, what routing charges for that, and who is avoided."),
    "balances": ("account", "balances", "What the journal says, beside what venues and chains say now."),
    "reconcile": ("account", "reconcile", "Hold the journal against every venue and chain."),
    "audit": ("audit", "commands", "Check that the journal is as it was written; keep its head on a chain."),
    "kill": ("kill", "kill", "Block new orders and cancel everything, whatever the agent does."),
    "keys": ("keys", "commands", "Create, import and list the keys of the wallet."),
    "treasury": ("treasury", "commands", "Coins between hot and cold accounts, and what waits for people."),
    "policy": ("policy", "commands", "What the wallet's key may sign, and what it would say to a request."),
    "signer": ("signer", "signer", "Hold a key in a process of its own, for agents of this machine."),
    "cosigner": ("cosigner", "commands", "Be one party of a shared key (MPC): make it, hold a share, sign within a policy."),
    "record": ("record", "record", "Write an exchange's market frames to a tape for the sandbox."),
    "replay": ("replay", "replay", "Play an order over a tape or a model of a market, in virtual time."),
    "simulate": ("simulate", "simulate", "Days of the agent with faults, in virtual time, held to its laws."),
    "sandbox": ("sandbox", "commands", "A local exchange and a local chain with the real contracts."),
}


INTERRUPTED = 130


class _Lazy(typer.core.TyperGroup):
    """The table above as a group of commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the parent's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(f"agent.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            command = typer.main.get_command(found)
        else:
            alone = _typer()
            alone.command(cmd_name)(found)
            command = typer.main.get_command(alone)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


def _typer(**options: Any) -> typer.Typer:
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False, **options)


app = typer.Typer(
    name="isthmus",
    cls=_Lazy,
    help="One order and execution agent over exchanges and on-chain markets, signing with your own keys.",
    epilog="Exit codes: 0 ok, 2 usage, 3 refused by risk, 4 venue or chain, 5 outcome unknown, 130 interrupted.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"isthmus {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(UsageError.exit_code)


def main() -> None:
    """Run the command line and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character still shows the rest
    sys.exit(_code())


def _code() -> int:
    try:
        code = app(standalone_mode=False)
    except IsthmusError as error:
        return _fail(str(error), error.exit_code)
    except typer.exceptions.TyperException as error:
        return _fail(f"{error.format_message()} (try --help)", UsageError.exit_code)
    except (typer.exceptions.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read our output has gone: nothing more can be told
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}; check the path and its permissions", 2)
    if code == INTERRUPTED:
        return _fail("interrupted; `isthmus order list` shows what is still live, `isthmus run` resumes it", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    from agent.cli.show import err, print_json

    line = " ".join(text.split())
    if "--json" in sys.argv:
        print_json({"status": "error", "error": line, "exit_code": code})
    else:
        err.print(f"error: {line}", style="red", markup=False, soft_wrap=True)
    return code
