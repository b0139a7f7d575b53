"""`keys`: the wallet's keystore. Passwords are asked for, or read from a descriptor or file, never from an argument."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import Secret, default_config, read_secret, wallet_import, wallet_list, wallet_new
from agent.cli.options import Config, Json, ask, ask_hidden, group
from agent.cli.show import line, print_json
from agent.config import load
from agent.domain.errors import SecretError

commands = group("Create, import and list the keys of the wallet.")

PASSWORD_MAX = 4_096

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
    address = wallet_new(place, name, _password(name, password, password_fd))
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
    address = wallet_import(place, name, secret, _password(name, password, password_fd))
    _say({"name": name, "address": address}, f"{name}  {address}", as_json)


@commands.command("list")
def list_command(config: Config = None, folder: Folder = None, as_json: Json = False) -> None:
    """Names and addresses; nothing is unlocked."""
    found = wallet_list(_folder(config, folder))
    rows = [{"name": name, "address": address} for name, address in found.items()]
    text = "\n".join(f"{row['name']}  {row['address']}" for row in rows)
    _say(rows, text or "no keys yet; `isthmus keys new` makes one", as_json)


def _folder(config: Path | None, folder: Path | None) -> Path:
    return folder if folder is not None else load(config or default_config(), with_venues=False).keystore_path


def _password(name: str, reference: str | None, descriptor: int | None) -> Secret:
    if reference is not None:
        return read_secret(reference)
    if descriptor is not None:
        try:
            text = os.read(descriptor, PASSWORD_MAX).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretError(f"--password-fd {descriptor} cannot be read ({type(error).__name__}); open it before") from None
        return Secret(text)
    first = Secret(ask(name))
    if Secret(ask_hidden("again")) != first:
        raise SecretError("the two passwords differ; nothing was written, try again")
    return first


def _say(value: Any, text: str, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        line(text)
