"""`demo` and `sandbox`: a whole market on this machine, in one command."""

import secrets
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.panel import Panel

from agent.app import running_engine
from agent.cli import desk
from agent.cli.options import Json, run_async, settings
from agent.cli.show import alternatives_table, out, print_json, summary_panel
from agent.domain.amount import group_asset, parse_amount
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.domain.price import decimal_of
from agent.engine.summary import Summary, summary
from agent.keys.keystore import Keystore
from agent.keys.secrets import Secret
from agent.cli.templates import write_config
from agent.simulation import world
from agent.simulation.world import Info, Spec

commands = typer.Typer(help="A local exchange and a local chain with real contracts.", no_args_is_help=True)

HOME = Path(".isthmus")
DEMO = HOME / "demo"
DEMO_TTL_S = 900
SCRYPT_N_SANDBOX = 2**12  # the sandbox's key guards nothing; a real wallet takes the keystore's own default

Kind = Annotated[Literal["anvil", "eth-tester"], typer.Option("--chain", help="Anvil, or an EVM inside Python.")]
Tape = Annotated[Path | None, typer.Option("--tape", help="Replay recorded exchange frames as the background market.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the background market.")]
Home = Annotated[Path, typer.Option("--home", help="Folder for the sandbox, its settings and its key.")]


def demo(
    chain: Kind = "anvil",
    tape: Tape = None,
    seed: Seed = 7,
    qty: Annotated[str, typer.Option("--qty", help="How much ETH to sell.")] = "40",
    slices: Annotated[int, typer.Option("--slices", help="In how many parts.")] = 4,
    every: Annotated[str, typer.Option("--every", help="Time between parts.")] = "3s",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sandbox running afterwards.")] = False,
    home: Home = DEMO,
    as_json: Json = False,
) -> None:
    """Sell ETH over a sandbox exchange and Uniswap v2, v3 and v4 pools at once, with a fresh key. Everything is simulated."""
    quantity = parse_amount(qty, group_asset("ETH"))
    if quantity.units <= 0:
        raise UsageError("--qty must be above zero")
    pause = desk.duration(every, "--every")
    _fresh(home)
    home.mkdir(parents=True, mode=0o700)
    (home / "demo").touch()  # `isthmus run` finishes an interrupted demo and leaves
    info = _start(home, Spec("", chain, _readable(tape), seed, DEMO_TTL_S), quiet=as_json)
    loaded = settings(home / "isthmus.toml")

    def intent(now_ns: int) -> Intent:
        return Intent(f"demo{seed}", "main", "demo", "sell", quantity, "USDT", 50, now_ns + 300 * 10**9, slices, pause)

    try:
        code, result = run_async(lambda: _demo(loaded, intent, info, quiet=as_json))
    finally:
        if not keep:
            world.down(home)
    if as_json:
        print_json(result)
    raise typer.Exit(code)


async def _demo(loaded: Any, intent: Any, info: Info, *, quiet: bool) -> tuple[int, dict[str, Any]]:
    async with running_engine(loaded) as engine:
        await desk.started(engine, quiet=quiet)
        if not quiet:
            venues = ", ".join(
                f"{len([i for i in engine.world.market.instruments() if i.venue == n])} at {n}" for n in engine.world.profiles
            )
            out.print(f"connected: {venues} instruments; opening balances adopted; journal {loaded.journal_path}")
        wish = intent(engine.now_ns())
        await engine.priced(wish.market)
        desk.refuse(await engine.submit(wish))
        await desk.watch(engine, wish.intent_id, quiet=quiet)
        breaks = list(await engine.reconcile())
        done = summary(engine.state, wish.intent_id)
        routes = engine.state.parents[wish.intent_id].routes
        code = desk.exit_code(engine, [done], breaks)
    if not quiet:
        if routes:
            out.print(alternatives_table(routes[0]))
        out.print(summary_panel(done, breaks))
    return code, demo_object(done, routes, breaks)


def demo_object(done: Summary, routes: Any, breaks: Any) -> dict[str, Any]:
    """The result as scripts read it."""
    one = done.best_single_venue
    return {
        "status": done.status,
        "simulated": True,
        "parent": {
            "intent_id": done.intent_id, "side": done.side, "quantity": done.quantity, "filled": done.filled, "quote": done.quote,
            "reason": done.reason, "slices": done.slices, "seconds": round(done.seconds, 3), "fees": done.fees,
        },
        "legs": done.legs,
        "all_in_price": done.all_in_price,
        "arrival_price": done.arrival_price,
        "arrival_bps": done.arrival_bps,
        "best_single_venue": None if one is None else {"instrument": one.instrument, "price": float(decimal_of(one.price)), "quote": one.quote},
        "improvement_bps": done.improvement_bps,
        "gas": done.gas,
        "routes": routes,
        "breaks": breaks,
    }  # fmt: skip


def _fresh(home: Path) -> None:
    """A demo begins with an empty journal and a new chain, together, so that nonces and balances agree."""
    world.down(home)
    if home.exists():
        if not (home / "demo").exists() and any(home.iterdir()):
            raise UsageError(f"{home} is not a demo's folder; choose another with --home")
        shutil.rmtree(home)


def _readable(tape: Path | None) -> str:
    if tape is None:
        return ""
    if not tape.is_file():
        raise UsageError(f"--tape {tape}: no such file; `isthmus record` makes tapes")
    return str(tape.resolve())


def _start(home: Path, spec: Spec, *, quiet: bool) -> Info:
    """A key, a running sandbox that has funded it, and settings that point there."""
    import msgspec

    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    address = _sandbox_key(home)
    if not quiet:
        background = f"tape {Path(spec.tape).name}" if spec.tape else f"seeded model, seed {spec.seed}"
        text = f"SIMULATED: nothing here touches real money\nexchange: Binance's spot wire on loopback ({background})\n"
        out.print(
            Panel(
                text + f"chain: {spec.chain}, Uniswap v2, v3, v4\nwallet: {address} (new key)",
                title="isthmus sandbox",
                expand=False,
            )
        )
        with out.status("starting exchange and chain …"):
            info = world.up(home, msgspec.structs.replace(spec, wallet=address))
        out.print(f"sandbox ready (pid {info.pid}): exchange {info.exchange_url}, chain {info.rpc_url} (id {info.chain_id})")
    else:
        info = world.up(home, msgspec.structs.replace(spec, wallet=address))
    write_config(home / "isthmus.toml", info)
    return info


def _sandbox_key(home: Path) -> str:
    store, password_file = Keystore(home / "keystore", SCRYPT_N_SANDBOX), home / "wallet.password"
    for one in store.list_keys():
        if one.name == "main":
            return one.address
    password = secrets.token_urlsafe(24)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    return store.new("main", Secret(password))


# -- sandbox -----------------------------------------------------------------------------------------------------------


@commands.command("up")
def up(
    chain: Kind = "anvil", tape: Tape = None, seed: Seed = 7, home: Home = HOME,
    hours: Annotated[int, typer.Option("--hours", min=1, max=168, help="It ends by itself after this long.")] = 12, as_json: Json = False,
) -> None:  # fmt: skip
    """Start a sandbox that stays; writes settings that point to it."""
    info = _start(home, Spec("", chain, _readable(tape), seed, hours * 3_600), quiet=as_json)
    if as_json:
        print_json(info)
    else:
        out.print(f"settings: {home / 'isthmus.toml'}; try `isthmus quote ETH/USDT --side sell --qty 5 -c {home / 'isthmus.toml'}`")


@commands.command("status")
def status(home: Home = HOME, as_json: Json = False) -> None:
    """Whether it runs, and where. Exit code 4 when it does not."""
    info = world.status(home)
    if as_json:
        print_json({"running": info is not None, "sandbox": info})
    elif info is None:
        out.print(f"no sandbox is running in {home}; `isthmus sandbox up` starts one")
    else:
        out.print(f"running (pid {info.pid}): exchange {info.exchange_url}, {info.chain} {info.rpc_url} (id {info.chain_id})")
    raise typer.Exit(0 if info is not None else 4)


@commands.command("down")
def down(home: Home = HOME, as_json: Json = False) -> None:
    """Stop it. Safe to repeat."""
    stopped = world.down(home)
    if as_json:
        print_json({"stopped": stopped})
    else:
        out.print("stopped" if stopped else "none was running")
