"""`demo`: a whole market on this machine and one order over all of it, in one command."""

import contextlib
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent.app import open_reader, running_engine, settings_of
from agent.cli import algos, words
from agent.cli.custody_told import account_told, on_chain, tell_account
from agent.cli.options import Json, run_async
from agent.cli.order import work
from agent.cli.outcome import started
from agent.cli.run import DEMO_MARK
from agent.cli.sandbox import Home, Kind, Seed, Tape, readable_tape, start
from agent.cli.show import line, print_json
from agent.config import Loaded
from agent.domain.algo import Algo
from agent.domain.errors import UsageError
from agent.domain.events import Record
from agent.domain.intent import Intent
from agent.gateways import local
from agent.simulation import world
from agent.simulation.cosigners import CosignerGroup, wallet_settings
from agent.simulation.world import AccountKind, Spec

if TYPE_CHECKING:
    from agent.engine.loop import Engine

Custody = Literal["eoa", "safe", "role", "erc4337", "eip7702", "mpc"]
HOLDS: dict[Custody, AccountKind] = {
    "eoa": "eoa",
    "safe": "safe",
    "role": "role",
    "erc4337": "erc4337",
    "eip7702": "eip7702",
    "mpc": "eoa",
}  # who holds the coins

DEMO = Path(".isthmus/demo")
DEMO_TTL_S = 900  # a sandbox that nobody stops, after a crash, ends by itself
DEADLINE_NS = 300 * 10**9
SLIPPAGE_BPS = 50


@algos.options
def demo(
    chain: Kind = "anvil",
    tape: Tape = None,
    seed: Seed = 7,
    qty: Annotated[str, typer.Option("--qty", help="How much ETH to sell.")] = "40",
    slices: Annotated[int, typer.Option("--slices", min=1, max=1_000, help="In how many parts, without an algorithm.")] = 4,
    every: Annotated[str, typer.Option("--every", help="Time between parts.")] = "3s",
    algo: Algo | None = None,
    account: Annotated[Custody, typer.Option("--account", help="Who holds the coins, and how the key reaches them.")] = "eoa",
    primes: Annotated[Path | None, typer.Option("--primes", help="For mpc: primes made before, which take some minutes.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sandbox running afterwards.")] = False,
    home: Home = DEMO,
    as_json: Json = False,
) -> None:
    """Sell ETH over a sandbox exchange and Uniswap v2, v3 and v4 pools at once, with a fresh key. Everything is simulated."""
    quantity = words.quantity(qty, "ETH")
    pause = words.duration(every, "--every")
    spec = Spec("", chain, readable_tape(tape), seed, DEMO_TTL_S, account=HOLDS[account])
    if account == "mpc" and keep:
        raise UsageError("--keep leaves no cosigners behind that could sign; leave --keep or --account mpc out")
    _fresh(home)
    group = CosignerGroup(home / "parties") if account == "mpc" else None

    def wish(now_ns: int) -> Intent:
        parts = (slices, pause) if algo is None else (1, 0)
        ends_ns = now_ns + DEADLINE_NS + (algos.lasting(algo) if algo is not None else 0)
        return Intent(f"demo{seed}", "main", "demo", "sell", quantity, "USDT", SLIPPAGE_BPS, ends_ns, *parts, algo=algo)

    try:
        info = start(home, spec, quiet=as_json, wallet=_shared(group, primes, quiet=as_json) if group is not None else None)
        loaded = settings_of(home / "isthmus.toml")
        if group is not None:
            text = loaded.path.read_text(encoding="utf-8")
            run_async(lambda: group.serve(text))
        code, found = run_async(lambda: _demo(loaded, wish, account, quiet=as_json))
    finally:
        if not keep:
            world.down(home)
        if group is not None:
            group.close()
    if keep and not as_json:
        line(f"the sandbox (pid {info.pid}) runs on; `isthmus sandbox down --home {home}` stops it")
    if as_json:
        print_json(found)
    raise typer.Exit(code)


def _shared(group: CosignerGroup, primes: Path | None, *, quiet: bool) -> dict[str, str]:
    """A key of three parties, made now; the section of the settings that opens it."""

    def tell(text: str) -> None:
        if not quiet:
            line(text)

    made = primes.read_text(encoding="ascii").split() if primes is not None else ()
    key = run_async(lambda: group.make(made, tell))
    return wallet_settings(key)


async def _demo(loaded: Loaded, wish: Any, custody: str, *, quiet: bool) -> tuple[int, dict[str, Any]]:
    async with running_engine(loaded) as engine:
        await started(engine, quiet=quiet)
        intent: Intent = wish(engine.now_ns())
        await engine.priced(intent.market)
        if not quiet:
            _tell_connected(engine, loaded)
        code, found = await work(engine, intent, quiet=quiet)
        mined, section = on_chain(_records(loaded)), loaded.venues["uniswap"]
        if not quiet:
            tell_account(custody, section, mined)
        return code, {"status": found.pop("status"), "simulated": True, "account": account_told(custody, section, mined)} | found


def _records(loaded: Loaded) -> list[Record]:
    journal = open_reader(loaded)
    if journal is None:
        return []
    with contextlib.closing(journal):
        return list(journal.read())


def _tell_connected(engine: "Engine", loaded: Loaded) -> None:
    count = Counter((one.venue, "book" if one.is_book else "pool") for one in engine.world.market.instruments())
    told = ", ".join(f"{number} {what}{'s' if number > 1 else ''} at {venue}" for (venue, what), number in count.items())
    line(f"connected     {told}; opening balances adopted")
    place = loaded.journal_path
    line(f"journal       {place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place}")


def _fresh(home: Path) -> None:
    """A demo begins with an empty journal and a new chain, together, so that nonces and balances agree."""
    if home.exists():
        if not (home / DEMO_MARK).is_file() and any(home.iterdir()):
            raise UsageError(f"{home} is not a demo's folder; choose another with --home")
        if local.is_running(home.resolve()):
            raise UsageError(f"a demo is running in {home}; wait for it, or choose another folder with --home")
        world.down(home)
        shutil.rmtree(home)
    home.mkdir(parents=True, mode=0o700)
    (home / DEMO_MARK).touch()  # `isthmus run` finishes an interrupted demo and leaves
