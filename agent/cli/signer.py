"""`signer`: a key in a process of its own. It answers agents of the same user at a Unix socket, within its own policy."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import RealClock, Secret, settings_of
from agent.cli.keys import Password, PasswordFd, read_descriptor
from agent.cli.options import Config, Json, ask, run_async
from agent.cli.show import line, print_json
from agent.config import Loaded
from agent.domain.errors import UsageError
from agent.wallet import secret_of, serving_signer

Name = Annotated[str, typer.Option("--name", help="Name of the key in the keystore.")]
Socket = Annotated[Path | None, typer.Option("--socket", help="Where to listen; default: wallet.socket of the settings.")]


def signer(
    name: Name = "main",
    socket: Socket = None,
    config: Config = None,
    password: Password = None,
    password_fd: PasswordFd = None,
    as_json: Json = False,
) -> None:
    """Hold a key until stopped. What it may sign follows from these settings' venues; it reads each request itself."""
    loaded = settings_of(config, log="signer.log")
    path = _socket(loaded, socket)
    secret = _password(loaded, name, password, password_fd)
    run_async(lambda: _serve(loaded, name, path, secret, as_json=as_json))


async def _serve(loaded: Loaded, name: str, path: Path, password: Secret, *, as_json: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving_signer(loaded, RealClock(), name, path, password) as told:
        _tell(told, as_json=as_json)
        await stop.wait()


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        lacks = [word for word in ("core_dumps_off", "undumpable", "locked") if not told[word]]
        chains = ", ".join(map(str, told["chains"]))
        line(f"key {told['name']} ({told['address']}) signs for chains {chains} at {told['socket']}")
        line(
            f"this system did not grant: {', '.join(lacks)}"
            if lacks
            else "core dumps off, not readable by debuggers, never swapped"
        )


def _socket(loaded: Loaded, named: Path | None) -> Path:
    found = named if named is not None else getattr(loaded.wallet, "socket", None)
    if found is None:
        raise UsageError("say where to listen: --socket PATH, the one that wallet.socket of the agent's settings names")
    return loaded.path.parent / Path(found).expanduser() if named is None else Path(found).absolute()


def _password(loaded: Loaded, name: str, reference: str | None, descriptor: int | None) -> Secret:
    if reference is not None:
        return secret_of(loaded, reference)
    return read_descriptor(descriptor) if descriptor is not None else Secret(ask(name))
