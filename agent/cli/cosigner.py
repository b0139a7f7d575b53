"""`cosigner`: one party of a key that no machine holds. Three make it together, any two sign, each within a policy of its own."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import RealClock, Secret, settings_of
from agent.cli.keys import Password, PasswordFd, password_of, read_descriptor
from agent.cli.options import Config, Json, ask, group, run_async
from agent.cli.show import err, line, print_json
from agent.cosigners import (
    audit_lines,
    lead_set_up,
    party_about,
    party_backup,
    party_new,
    party_primes,
    party_restore,
    serving_cosigner,
)
from agent.wallet import secret_of

commands = group("Be one party of a shared key (MPC): make it, hold a share, sign within a policy.")

HOME = Path("cosigner")

Home = Annotated[Path, typer.Option("--home", help="Folder of this party.")]
Primes = Annotated[Path | None, typer.Option("--primes", help="Primes made before, as hex in a file of mode 600.")]
File = Annotated[Path, typer.Argument(help="The backup.")]


@commands.command("init")
def init(
    name: Annotated[str, typer.Argument(help="What the others call this party.")],
    at: Annotated[str, typer.Option("--at", help="HOST:PORT where it answers the others.")] = "127.0.0.1:7700",
    home: Home = HOME,
    primes: Primes = None,
    password: Password = None,
    password_fd: PasswordFd = None,
    as_json: Json = False,
) -> None:
    """Make a party: its identity, and primes for its set-up (a minute or two). Prints its entry for the group's file."""
    secret = password_of(name, password, password_fd)
    entry = party_new(home, name, at, secret)
    took_s = _make_primes(home, secret, primes)
    told = party_about(home, secret) | {"entry": entry, "primes_s": round(took_s, 1)}
    if as_json:
        print_json(told)
    else:
        line(f"put this into {home / 'group.toml'}, the same file at every party; compare fingerprints by another way:\n\n{entry}")


@commands.command("primes")
def primes_command(
    home: Home = HOME, primes: Primes = None, password: Password = None, password_fd: PasswordFd = None, as_json: Json = False
) -> None:
    """Make other primes, when those of `init` were used by a set-up that failed."""
    took_s = _make_primes(home, _password(home, password, password_fd), primes)
    _say({"home": str(home), "primes_s": round(took_s, 1)}, "primes are ready", as_json)


@commands.command("setup")
def setup(home: Home = HOME, password: Password = None, password_fd: PasswordFd = None, as_json: Json = False) -> None:
    """Make the key. Run it at one party while every other one serves; all of them compare the key before any of them keeps it."""
    secret = _password(home, password, password_fd)
    made = run_async(lambda: lead_set_up(home, secret, RealClock(), lambda text: err.print(text, markup=False)))
    text = (
        f"key {made.address}\nfingerprint {made.fingerprint}\nwrite the address into every party's settings, and restart the others"
    )
    _say(made, text, as_json)


@commands.command("serve")
def serve(
    home: Home = HOME,
    config: Config = None,
    password: Password = None,
    password_fd: PasswordFd = None,
    as_json: Json = False,
) -> None:
    """Answer the other parties until stopped. What is signed follows from these settings' venues and rules."""
    loaded = settings_of(config, log="cosigner.log")
    secret = secret_of(loaded, password) if password is not None else _password(home, None, password_fd)
    run_async(lambda: _serve(loaded, home, secret, as_json=as_json))


@commands.command("show")
def show(home: Home = HOME, password: Password = None, password_fd: PasswordFd = None, as_json: Json = False) -> None:
    """Who this party is, of which group, and which key its share is of."""
    told = party_about(home, _password(home, password, password_fd))
    _say(told, "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.items()), as_json)


@commands.command("backup")
def backup(file: File, home: Home = HOME, password: Password = None, password_fd: PasswordFd = None, as_json: Json = False) -> None:
    """Copy identity and share, as they are sealed, into one file. It is opened with the home's password."""
    told = party_backup(home, _password(home, password, password_fd), file)
    _say(told, f"{file}: keep it away from this machine, and its password away from it", as_json)


@commands.command("restore")
def restore(
    file: File,
    group_file: Annotated[Path, typer.Option("--group", help="The group's file.")],
    home: Home = HOME,
    password: Password = None,
    password_fd: PasswordFd = None,
    as_json: Json = False,
) -> None:
    """Make a home from a backup, if it belongs to the group and the password opens it."""
    told = party_restore(home, _password(home, password, password_fd), file, group_file)
    _say(told, f"party {told['party']} of the key {told['address']} is at {home} again", as_json)


@commands.command("audit")
def audit(home: Home = HOME, as_json: Json = False) -> None:
    """What this party was asked and what it answered, after its chain was checked."""
    found = audit_lines(home)
    if as_json:
        print_json(found)
    else:
        for row in found:
            line(" ".join(str(row[name]) for name in ("seq", "type", "peer", "request", "reason", "phase") if row.get(name)))
        line(f"{len(found)} lines, as they were written")


async def _serve(loaded: Any, home: Path, password: Secret, *, as_json: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving_cosigner(loaded, RealClock(), home, password) as told:
        chains = ", ".join(map(str, told["chains"]))
        holds = f"signs for {told['address']} on chains {chains}" if told["address"] else "has no share yet and waits for a set-up"
        _say(told, f"party {told['name']} of {told['group']} at {told['at']} {holds}", as_json)
        await stop.wait()


def _make_primes(home: Path, password: Secret, file: Path | None) -> float:
    if file is None:
        err.print("making primes, a minute or two ...", markup=False)
    return party_primes(home, password, file)


def _password(home: Path, reference: str | None, descriptor: int | None) -> Secret:
    """By reference, from a descriptor, or typed once."""
    if reference is not None or descriptor is not None:
        return password_of(str(home), reference, descriptor) if descriptor is None else read_descriptor(descriptor)
    return Secret(ask(str(home)))


def _say(told: Any, text: str, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        line(text)
