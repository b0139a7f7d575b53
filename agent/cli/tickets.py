"""`keys ticket` and `keys offline`: requests that leave as files or QR codes, and the signatures that come back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.app import RealClock, Secret, read_secret, settings_of
from agent.cli.options import Config, Json, ask, group, run_async
from agent.cli.show import line, out, print_json
from agent.domain.errors import SignerError, UsageError
from agent.offline import codes_of, export, sign_offline, take_in, understood
from agent.ports import Ticket

FILE_BYTES_MAX = 131_072

ticket_commands = group("Requests that wait for people: take one out as a file, bring a signature in.")
offline_commands = group("On the machine without a network: read a request, and sign it.")

Id = Annotated[str, typer.Argument(help="The ticket; `isthmus treasury tickets` lists them.", metavar="TICKET")]
Out = Annotated[Path, typer.Argument(help="The request file to write.", metavar="FILE")]
In = Annotated[Path, typer.Argument(help="A file, or the lines that a scanner read off QR codes.", metavar="FILE")]
Qr = Annotated[bool, typer.Option("--qr", help="Show it as QR codes too, and write each beside the file as SVG.")]


@ticket_commands.command("export")
def export_command(ticket: Id, file: Out, config: Config = None, qr: Qr = False, as_json: Json = False) -> None:
    """Write what is to be signed into a file: what it does, all its fields, what is hashed, and until when."""
    loaded = settings_of(config)
    raw, asked = run_async(lambda: export(loaded, RealClock(), ticket, ask))
    pictures = _write(file, raw, qr=qr, as_json=as_json)
    if as_json:
        told = {"ticket": asked.ticket, "file": str(file), "signers": asked.signers, "meaning": asked.meaning}
        print_json({**told, "pictures": pictures})
        return
    for text in asked.meaning:
        line(text)
    line(f"{file}: for {', '.join(asked.signers) or 'nobody'}; bring the signature back with `isthmus keys ticket import`")


@ticket_commands.command("import")
def import_command(file: In, config: Config = None, as_json: Json = False) -> None:
    """Take a signature in, if it is for exactly what its ticket asks now, and of somebody who is asked."""
    loaded, raw = settings_of(config), _read(file)
    tell(run_async(lambda: take_in(loaded, RealClock(), raw, ask)), as_json=as_json)


@offline_commands.command("sign")
def sign(
    request: In,
    to: Annotated[Path, typer.Option("--out", help="The signature file to write.")],
    key: Annotated[str, typer.Option("--key", help="Name of the key in this machine's keystore.")] = "main",
    config: Config = None,
    password: Annotated[str | None, typer.Option("--password", help="env:NAME, file:PATH or keyring:SERVICE/NAME.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for machines that nobody sits at.")] = False,
    qr: Qr = False,
    as_json: Json = False,
) -> None:
    """Say what a request does, as this machine's own settings read it, ask, and sign. No network is used."""
    loaded = settings_of(config)
    asked, account, meaning = understood(loaded, _read(request))
    if not as_json:
        line(f"{account.name} shall:", "bold")
        for text in meaning:
            line(f"  {text}")
    if not yes and not typer.confirm("sign it?", err=True):
        raise SignerError("nothing was signed")
    secret = read_secret(password) if password is not None else Secret(ask(key))
    raw = sign_offline(loaded, RealClock(), asked, account, key, secret)
    pictures = _write(to, raw, qr=qr, as_json=as_json)
    if as_json:
        print_json({"ticket": asked.ticket, "meaning": meaning, "file": str(to), "pictures": pictures})
    else:
        line(f"{to}: carry it back, and `isthmus keys ticket import` it")


def tell(ticket: Ticket, *, as_json: bool) -> None:
    """One ticket, for scripts or people."""
    if as_json:
        print_json(shown(ticket))
        return
    line(f"{ticket.id}  {ticket.account}  {ticket.state}  {ticket.tx_hash}".rstrip(), "bold")
    for text in (*ticket.meaning, ticket.reason):
        if text:
            line(f"  {text}")


def shown(ticket: Ticket) -> dict[str, Any]:
    """As `--json` has it; what is empty is null."""
    found = {name: getattr(ticket, name) for name in ticket.__struct_fields__}
    return {**found, "tx_hash": ticket.tx_hash or None, "reason": ticket.reason or None}


def _write(path: Path, raw: bytes, *, qr: bool, as_json: bool) -> list[str]:
    """The file, and with `qr` its pictures, whose names are returned. An existing file is not overwritten."""
    codes = codes_of(raw) if qr else []
    try:
        with path.open("xb") as file:
            file.write(raw)
    except FileExistsError:
        raise UsageError(f"{path} is there already and is not overwritten; name another file") from None
    pictures = []
    for at, (text, svg) in enumerate(codes, 1):
        picture = path.with_name(f"{path.name}-{at}-of-{len(codes)}.svg")
        picture.write_bytes(svg)
        pictures.append(str(picture))
        if not as_json:
            out.print(text, markup=False, highlight=False, soft_wrap=True)
    return pictures


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; name the file that was carried here") from None
    if len(raw) > FILE_BYTES_MAX:
        raise UsageError(f"{path} is larger than {FILE_BYTES_MAX} bytes; it is no request and no signature")
    return raw
