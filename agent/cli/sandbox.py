"""`sandbox`: a local exchange and a local chain that stay, with settings and a key for them."""

import gzip
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.panel import Panel

from agent.app import Secret, settings_of
from agent.cli.options import Json, group
from agent.cli.roles import set_up_sandbox
from agent.cli.show import err, line, out, print_json
from agent.cli.templates import KEYSTORE_WALLET, write_config
from agent.domain.errors import UsageError, VenueError
from agent.simulation import world
from agent.simulation.world import Info, Spec
from agent.wallet import wallet_list, wallet_new

commands = group("A local exchange and a local chain with the real contracts.")

HOME = Path(".isthmus")
KEY = "main"
TAPE_LINE_MAX = 4 << 20
HOLDERS = {
    "safe": ", and a Safe of its own that holds the tokens",
    "role": ", which has a role in a Safe that holds the tokens and that somebody else owns",
    "erc4337": ", and an ERC-4337 account of its own that holds the tokens",
    "eip7702": ", which runs an account's code (EIP-7702)",
}

Kind = Annotated[Literal["anvil", "eth-tester"], typer.Option("--chain", help="Anvil, or an EVM inside Python.")]
Tape = Annotated[Path | None, typer.Option("--tape", help="Replay recorded exchange frames as the background market.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the background market.")]
Home = Annotated[Path, typer.Option("--home", help="Folder for the sandbox, its settings and its key.")]


@commands.command("up")
def up(
    chain: Kind = "anvil",
    tape: Tape = None,
    seed: Seed = 7,
    home: Home = HOME,
    hours: Annotated[int, typer.Option("--hours", min=1, max=168, help="It ends by itself after this long.")] = 12,
    as_json: Json = False,
) -> None:
    """Start a sandbox that stays; writes settings that point to it."""
    info = start(home, Spec("", chain, readable_tape(tape), seed, hours * 3_600), quiet=as_json)
    if as_json:
        print_json({"running": True, "settings": str(home / "isthmus.toml"), "sandbox": info})
    else:
        line(f"settings      {home / 'isthmus.toml'}")
        line("try           isthmus quote ETH/USDT --side sell --qty 5")


@commands.command("status")
def status(home: Home = HOME, as_json: Json = False) -> None:
    """Whether it runs, and where. Exit code 4 when it does not."""
    info = world.status(home)
    if as_json:
        print_json({"running": info is not None, "sandbox": info})
    elif info is None:
        line(f"no sandbox is running in {home}; `isthmus sandbox up` starts one")
    else:
        line(f"running (pid {info.pid}): exchange {info.exchange_url}, {info.chain} {info.rpc_url} (id {info.chain_id})")
    raise typer.Exit(0 if info is not None else VenueError.exit_code)


@commands.command("down")
def down(home: Home = HOME, as_json: Json = False) -> None:
    """Stop it. Safe to repeat."""
    stopped = world.down(home)
    if as_json:
        print_json({"stopped": stopped})
    else:
        line("stopped" if stopped else "none was running")


def start(home: Path, spec: Spec, *, quiet: bool, wallet: Mapping[str, str] | None = None) -> Info:
    """A key, a running sandbox that has funded it, and settings that point there. `wallet`: their section for another key."""
    running = world.status(home)
    if running is not None:
        raise UsageError(f"a sandbox is already running in {home} (pid {running.pid}); `isthmus sandbox down` stops it")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    address = _sandbox_key(home) if wallet is None else wallet["address"]
    if not quiet:
        _announce(spec, address)
        err.print("starting the exchange and the chain …", style="dim", soft_wrap=True)
    info = world.up(home, msgspec.structs.replace(spec, wallet=address))
    write_config(home / "isthmus.toml", info, wallet or KEYSTORE_WALLET)
    if spec.account in ("role", "eip7702"):
        set_up_sandbox(settings_of(home / "isthmus.toml"))
    if not quiet:
        exchange, chain = (url.partition("://")[2] for url in (info.exchange_url, info.rpc_url))
        line(f"sandbox       exchange {exchange}, chain {chain} (id {info.chain_id})")
    return info


def _announce(spec: Spec, address: str) -> None:
    background = f"tape {Path(spec.tape).name}" if spec.tape else f"seeded model, seed {spec.seed}"
    text = f"SIMULATED: nothing here touches real money\nexchange  Binance's spot wire on loopback, {background}\n"
    text += f"chain     {spec.chain} with the real Uniswap v2, v3 and v4\nwallet    {address}"
    text += HOLDERS.get(spec.account, "")
    out.print(Panel(text, title="isthmus sandbox", expand=False))


def _sandbox_key(home: Path) -> str:
    folder, password_file = home / "keystore", home / "wallet.password"
    known = wallet_list(folder).get(KEY)
    if known is not None:
        return known
    password = secrets.token_urlsafe(24)
    password_file.unlink(missing_ok=True)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    return wallet_new(folder, KEY, Secret(password), is_sandbox=True)


def readable_tape(tape: Path | None) -> str:
    """Where the tape is. Raises UsageError for a file that is none, before anything is started."""
    if tape is None:
        return ""
    try:
        with gzip.open(tape, "rb") as file:
            first = file.readline(TAPE_LINE_MAX)
    except (OSError, EOFError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "it is not gzip"
        raise UsageError(f"--tape {tape}: {said}; `isthmus record` makes tapes") from None
    received, _, frame = first.partition(b" ")
    try:
        if not received.isdigit() or not isinstance(msgspec.json.decode(frame), dict):
            raise ValueError("no frame")
    except (ValueError, msgspec.DecodeError):
        raise UsageError(f"--tape {tape}: its first line is no frame; `isthmus record` makes tapes") from None
    return str(tape.resolve())
