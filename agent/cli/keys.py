"""`keys`: the wallet's keystore. Passwords are asked for, or read from a descriptor or file, never from an argument."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import Secret, default_config, read_secret
from agent.cli import delegate, roles
from agent.cli.options import Config, Json, ask, ask_hidden, group, run_async
from agent.cli.show import line, out, print_json
from agent.cli.tables import new_table
from agent.cli.tickets import offline_commands, ticket_commands
from agent.config import load
from agent.domain.errors import SecretError
from agent.wallet import KeyRow, key_rows, wallet_import, wallet_list, wallet_new

commands = group("Create, import and list the keys of the wallet.")
commands.add_typer(roles.commands, name="roles")
commands.command("delegate")(delegate.delegate_command)
commands.add_typer(ticket_commands, name="ticket")
commands.add_typer(offline_commands, name="offline")

PASSWORD_MAX = 4_096
NO_KEYS = "no keys yet; `isthmus keys new` makes one"

Name = Annotated[str, typer.Argument(help="Name of the key in the keystore.")]
Folder = Annotated[Path | None, typer.Option("--keystore", help="Keystore folder; default: the one of the settings file.")]
PasswordFd = Annotated[int | None, typer.Option("--password-fd", min=0, help="Read the password from this file descriptor.")]
Password = Annotated[str | None, typer.Option("--password", help="Reference: env:NAME, file:PATH or keyring:SERVICE/NAME.")]
Key = Annotated[str, typer.Option("--key", help="Where the private key is: env:NAME, file:PATH, keyring:…, or ask.")]


@commands.command("new")
def new(
    name: Name = "main",
    config: Config = None,
    folder: Folder = None,
    password: Password = None,
    password_fd: PasswordFd = None,
    as_json: Json = False,
) -> None:
    """Make a new key and keep it encrypted."""
    place = _folder(config, folder)
    address = wallet_new(place, name, password_of(name, password, password_fd))
    _say({"name": name, "address": address}, f"{name}  {address}", as_json)


@commands.command("import")
def import_command(
    name: Name = "main",
    config: Config = None,
    folder: Folder = None,
    password: Password = None,
    password_fd: PasswordFd = None,
    key: Key = "ask",
    as_json: Json = False,
) -> None:
    """Take an existing private key in. It is asked for, or read through a reference; it is never an argument."""
    place = _folder(config, folder)
    secret = Secret(ask_hidden("private key (hex)")) if key == "ask" else read_secret(key)
    address = wallet_import(place, name, secret, password_of(name, password, password_fd))
    _say({"name": name, "address": address}, f"{name}  {address}", as_json)


@commands.command("list")
def list_command(config: Config = None, folder: Folder = None, as_json: Json = False) -> None:
    """Every key that the settings name and every one in the keystore: where it is, and whether it can sign. Nothing is unlocked.

    With --keystore, the names and addresses in that folder.
    """
    if folder is not None:
        found = [{"name": name, "address": address} for name, address in wallet_list(folder).items()]
        _say(found, "\n".join(f"{row['name']}  {row['address']}" for row in found) or NO_KEYS, as_json)
        return
    loaded = load(config or default_config())
    rows = run_async(lambda: key_rows(loaded))
    if as_json:
        print_json([row._asdict() for row in rows])
    elif not rows:
        line(NO_KEYS)
    else:
        _table(rows)


def _table(rows: list[KeyRow]) -> None:
    """Addresses are shown whole: they are compared by eye, or copied."""
    words = ("name", "kind", "tier", "latency", "used by", "")
    table = new_table((*words[:5], "ms", ""), left=words)
    for row in rows:
        ms = "" if row.ms is None else f"{row.ms:.1f}"
        table.add_row(row.name, row.kind, row.tier, row.latency, row.used_by, ms, "no" if row.health else "ok")
    out.print(table)
    for row in rows:
        if row.address:
            line(f"{row.name}  {row.address}")
    for row in rows:
        if row.health:
            line(f"{row.name}: {row.health}", "red")


def _folder(config: Path | None, folder: Path | None) -> Path:
    return folder if folder is not None else load(config or default_config(), with_venues=False).keystore_path


def password_of(name: str, reference: str | None, descriptor: int | None) -> Secret:
    """By reference, from a descriptor, or typed twice. Raises SecretError."""
    if reference is not None:
        return read_secret(reference)
    if descriptor is not None:
        return read_descriptor(descriptor)
    first = Secret(ask(name))
    if Secret(ask_hidden("again")) != first:
        raise SecretError("the two passwords differ; nothing was written, try again")
    return first


def read_descriptor(descriptor: int) -> Secret:
    """A password that another program wrote into a pipe or a file which is open here. Raises SecretError."""
    try:
        return Secret(os.read(descriptor, PASSWORD_MAX).decode().rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"--password-fd {descriptor} cannot be read ({type(error).__name__}); open it before") from None


def _say(value: Any, text: str, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        line(text)
