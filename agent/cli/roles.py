"""`keys roles`: a key that may do some things as a Safe, and nothing else, because a contract says so.

Nothing is signed here but in the sandbox, whose owner's key is known to everybody: the Safe's owners sign, wherever their keys are.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import RealClock, settings_of
from agent.cli.delegate import delegate_in_sandbox
from agent.cli.options import Config, Json, group, run_async
from agent.cli.show import line, print_json
from agent.config import Loaded
from agent.domain.errors import RefusedError, UsageError
from agent.ports import Tools
from agent.roles import REMARKS, Step, role_steps

commands = group("What the wallet may do as a Safe, enforced by a contract (Zodiac Roles v2).")

Venue = Annotated[str, typer.Option("--venue", help='Which venue, where several have account = "role".')]
Out = Annotated[Path | None, typer.Option("--out", help="Write a file that Safe's Transaction Builder opens.")]
Sandbox = Annotated[bool, typer.Option("--sandbox", help="Carry it out as the sandbox's owner.")]


@commands.command("setup")
def setup(venue: Venue = "", out: Out = None, sandbox: Sandbox = False, config: Config = None, as_json: Json = False) -> None:
    """What the Safe's owners must sign so that the role allows what the settings need, and no more."""
    loaded = settings_of(config)
    name, section = _place(loaded, venue)
    steps = _steps(loaded, name, section)
    batch = builder_file(section, steps)
    if out is not None:
        out.write_text(json.dumps(batch, indent=1))
    if sandbox:
        carry_out(section, steps)
    if as_json:
        print_json({"venue": name, "steps": [one.why for one in steps], "remarks": REMARKS, "batch": batch, "done": sandbox})
        return
    for one in steps:
        line(f"- {one.why}")
    if not steps:
        line("nothing is to be done: the role is what the settings mean", "green")
    elif sandbox:
        line(f"done: {len(steps)} calls as the sandbox's owner", "green")
    elif out is None:
        line(f"{len(steps)} calls of the Safe; --out FILE writes them for Safe's Transaction Builder")
    for remark in REMARKS:
        line(f"note: {remark}", "dim")


@commands.command("check")
def check(venue: Venue = "", config: Config = None, as_json: Json = False) -> None:
    """Hold what the chain says of the role against the settings. Exit code 3 when they differ."""
    loaded = settings_of(config)
    name, section = _place(loaded, venue)
    steps = _steps(loaded, name, section)
    if as_json:
        print_json({"venue": name, "role": section.role, "modifier": section.modifier, "differences": [one.why for one in steps]})
    else:
        for one in steps:
            line(f"- {one.why}", "red")
        line("`isthmus keys roles setup` says what the owners must sign" if steps else "the role is what the settings mean")
    raise typer.Exit(RefusedError.exit_code if steps else 0)


def builder_file(section: Any, steps: list[Step]) -> dict[str, Any]:
    """The calls as Safe's Transaction Builder reads them (version 1.0 of its files)."""
    calls = [
        {"to": one.call.to, "value": str(one.call.value), "data": "0x" + one.call.data.hex(), "contractMethod": None}
        for one in steps
    ]
    meta = {
        "name": f"role {section.role}",
        "description": "; ".join(one.why for one in steps),
        "createdFromSafeAddress": section.safe,
    }
    return {"version": "1.0", "chainId": str(section.chain_id), "createdAt": 0, "meta": meta, "transactions": calls}


def carry_out(section: Any, steps: list[Step]) -> None:
    """As the owner of a sandbox's Safe. Raises UsageError anywhere else."""
    from agent.app import is_local
    from agent.simulation.chain.rpc import Rpc, RpcError
    from agent.simulation.chain.wallets import as_owner

    if not is_local(section):
        raise UsageError("--sandbox is for a sandbox on this machine; elsewhere the Safe's owners sign what --out writes")
    rpc = Rpc(section.rpc_url)
    try:
        if steps:
            as_owner(rpc, section.safe, section.contracts.multi_send, [one.call for one in steps])
    except RpcError as error:
        raise UsageError(f"the sandbox's owner cannot do that ({error}); is this a sandbox with --account role?") from None
    finally:
        rpc.close()


def set_up_sandbox(loaded: Loaded) -> None:
    """All that the settings of a sandbox need of its owner, and of the wallet itself."""
    for name, section in loaded.venues.items():
        if getattr(section, "account", "") == "eip7702":
            delegate_in_sandbox(loaded, name, section)
        if getattr(section, "account", "") == "role":
            carry_out(section, _steps(loaded, name, section))


def _steps(loaded: Loaded, name: str, section: Any) -> list[Step]:
    return run_async(lambda: role_steps(loaded, name, section, Tools(RealClock())))


def _place(loaded: Loaded, venue: str) -> tuple[str, Any]:
    found = {name: one for name, one in loaded.venues.items() if getattr(one, "account", "") == "role" and venue in ("", name)}
    if len(found) != 1:
        which = "no such venue has" if not found else "several venues have"
        raise UsageError(f'{which} account = "role" in {loaded.path.name}; give one that has with --venue')
    return next(iter(found.items()))
