"""`isthmus keys`: the wallet's keystore. Passwords are asked for, or read from a descriptor or file, never from an argument."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.app import default_config
from agent.cli.options import Config, Json
from agent.cli.show import out, print_json
from agent.config import load
from agent.domain.errors import SecretError
from agent.keys.keystore import Keystore
from agent.keys.secrets import Secret, read_secret

commands = typer.Typer(help="Create, import and list the keys of the wallet.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the key in the keystore.")]
Folder = Annotated[Path | None, typer.Option("--keystore", help="Keystore folder; default: the one of the settings file.")]
PasswordFd = Annotated[int | None, typer.Option("--password-fd", help="Read the password from this file descriptor.")]
Password = Annotated[str | None, typer.Option("--password", help="Reference: env:NAME, file:PATH or keyring:SERVICE/NAME.")]


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
    address = Keystore(_folder(config, folder)).new(name, _password(name, password, password_fd, confirm=True))
    _say({"name": name, "address": address}, f"{name}  {address}", as_json)


@commands.command("import")
def import_command(
    name: Name = "main",
    config: Config = None,
    folder: Folder = None,
    password: Password = None,
    password_fd: PasswordFd = None,
    key: Annotated[str, typer.Option("--key", help="Where the private key is: env:NAME, file:PATH, keyring:…, or ask.")] = "ask",
    as_json: Json = False,
) -> None:
    """Take an existing private key in. It is asked for, or read through a reference; it is never an argument."""
    secret = _prompt("private key (hex): ") if key == "ask" else read_secret(key)
    address = Keystore(_folder(config, folder)).import_key(name, secret, _password(name, password, password_fd, confirm=True))
    _say({"name": name, "address": address}, f"{name}  {address}", as_json)


@commands.command("list")
def list_command(config: Config = None, folder: Folder = None, as_json: Json = False) -> None:
    """Names and addresses; nothing is unlocked."""
    found = Keystore(_folder(config, folder)).list_keys()
    rows = [{"name": one.name, "address": one.address} for one in found]
    _say(
        rows, "\n".join(f"{row['name']}  {row['address']}" for row in rows) or "no keys yet; `isthmus keys new` makes one", as_json
    )


def _folder(config: Path | None, folder: Path | None) -> Path:
    return folder if folder is not None else load(config or default_config()).keystore_path


def _password(name: str, reference: str | None, descriptor: int | None, *, confirm: bool = False) -> Secret:
    if reference is not None:
        return read_secret(reference)
    if descriptor is not None:
        try:
            text = os.fdopen(descriptor, "r", closefd=False).read(4_096).rstrip("\n")
        except OSError as error:
            raise SecretError(f"--password-fd {descriptor} cannot be read: {error.strerror}") from None
        return Secret(text)
    first = _prompt(f"password for {name}: ")
    if confirm and _prompt("again: ").reveal() != first.reveal():
        raise SecretError("the two passwords differ; nothing was written")
    return first


def _prompt(text: str) -> Secret:
    if not sys.stdin.isatty():
        raise SecretError("no terminal to ask on: give a reference such as env:NAME, file:PATH or keyring:SERVICE/NAME")
    return Secret(typer.prompt(text.rstrip(": "), hide_input=True))


def _say(value: object, text: str, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        out.print(text, markup=False)
