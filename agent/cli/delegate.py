"""`keys delegate`: the wallet's own address runs an account's code from now on, or no more (EIP-7702)."""

from typing import Annotated, Any

import typer

from agent.app import RealClock, settings_of
from agent.cli.options import Config, Json, ask, run_async
from agent.cli.show import line, print_json
from agent.config import Loaded
from agent.domain.errors import UsageError
from agent.gateways import local
from agent.wallet import delegate, delegate_code

Venue = Annotated[str, typer.Option("--venue", help='Which venue, where several have account = "eip7702".')]
Undo = Annotated[bool, typer.Option("--undo", help="It runs no code any more.")]


def delegate_command(venue: Venue = "", undo: Undo = False, config: Config = None, as_json: Json = False) -> None:
    """Let the wallet's address run the code of the settings' delegate, which must be pinned; or take that back.

    Whose code it is may move everything: the key signs it for this delegate alone.
    """
    loaded = settings_of(config)
    if local.is_running(loaded.home):
        raise UsageError("an agent trades with this wallet now, and counts its transactions; stop it first")
    name, section = _place(loaded, venue)
    pinned = section.code_hashes.get(section.delegate, "")
    tx_hash = run_async(lambda: delegate(loaded, RealClock(), name, section, ask, pinned=pinned, is_undone=undo))
    if as_json:
        print_json({"venue": name, "wallet": section.wallet, "delegate": None if undo else section.delegate, "tx_hash": tx_hash})
    else:
        line(f"{section.wallet} runs {'no code any more' if undo else f'the code of {section.delegate}'}  {tx_hash}", "green")


def delegate_in_sandbox(loaded: Loaded, name: str, section: Any) -> None:
    """The sandbox made that contract itself a moment ago, so its code is taken as it is."""

    async def work() -> None:
        clock = RealClock()
        code = await delegate_code(clock, name, section)
        await delegate(loaded, clock, name, section, None, pinned=code, is_undone=False)

    run_async(work)


def _place(loaded: Loaded, venue: str) -> tuple[str, Any]:
    found = {name: one for name, one in loaded.venues.items() if getattr(one, "account", "") == "eip7702" and venue in ("", name)}
    if len(found) != 1:
        which = "no such venue has" if not found else "several venues have"
        raise UsageError(f'{which} account = "eip7702" in {loaded.path.name}; give one that has with --venue')
    return next(iter(found.items()))
