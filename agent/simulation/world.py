"""The sandbox as one process: an exchange, a chain, and an arbitrageur between them, on loopback, funded for one user.

`up` starts it detached, so that it outlives the agent that trades in it; it writes `sandbox.json` when it is ready and ends by
itself after its time to live. Secrets go into files of mode 0600, never into arguments.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from agent.domain.errors import UsageError, VenueError

AccountKind = Literal["eoa", "safe", "role", "erc4337", "erc4337-0.7", "eip7702"]

FILE = "sandbox.json"
LOG = "sandbox.log"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
SYMBOL = "ETHUSDT"


class Spec(msgspec.Struct, frozen=True):
    """What to start. `wallet` is the user's address, which gets `chain_funds`; the exchange account gets `exchange_funds`.

    `account`: who holds what is not ETH, and how the wallet's key reaches it; all but "eoa" and "safe" need Anvil.
    """

    wallet: str
    chain: Literal["anvil", "eth-tester"] = "anvil"
    tape: str = ""
    seed: int = 7
    ttl_s: int = 3_600
    block_time_s: float = 1.0
    account: AccountKind = "eoa"
    exchange_funds: dict[str, str] = msgspec.field(default_factory=lambda: {"ETH": "60", "USDT": "250000"})
    chain_funds: dict[str, str] = msgspec.field(default_factory=lambda: {"ETH": "5", "WETH": "60", "USDT": "250000"})


class Info(msgspec.Struct, frozen=True):
    """Where a running sandbox is. Holds no secret: `secret_file` names the file that does."""

    pid: int
    started_s: int
    ttl_s: int
    chain: str
    tape: str
    exchange_url: str
    exchange_ws_url: str
    api_key: str
    secret_file: str
    rpc_url: str
    chain_id: int
    wallet: str
    tokens: dict[str, tuple[str, int]]
    contracts: dict[str, str]
    pools: list[dict[str, str | int]]
    account: dict[str, str] = {}  # what the venue's section says of it
    account_contracts: dict[str, str] = {}


def up(home: Path, spec: Spec) -> Info:
    """Start a sandbox in `home` and wait until it is ready. Raises VenueError with the log's last line if it does not come up."""
    running = status(home)
    if running is not None:
        raise UsageError(f"a sandbox is already running here (pid {running.pid}); `isthmus sandbox down` stops it")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / FILE).unlink(missing_ok=True)
    (home / "sandbox.spec.json").write_bytes(msgspec.json.encode(spec))
    with (home / LOG).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "agent.simulation.world", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        info = _await_ready(home, child)
    except BaseException:  # Ctrl-C while it starts: nothing is left behind
        child.terminate()
        raise
    if info is not None:
        return info
    if child.poll() is None:
        child.kill()
    lines = (home / LOG).read_text(errors="replace").strip().splitlines()
    raise VenueError(f"the sandbox did not start: {lines[-1][:300] if lines else 'no output'} (log: {home / LOG})")


def _await_ready(home: Path, child: "subprocess.Popen[bytes]") -> Info | None:
    """None when it ended, or time is up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        info = status(home)
        if info is not None:
            return info
        if child.poll() is not None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)
    return None


def status(home: Path) -> Info | None:
    """The running sandbox of this folder, or None."""
    try:
        info = msgspec.json.decode((home / FILE).read_bytes(), type=Info)
        os.kill(info.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return info


def down(home: Path) -> bool:
    """Stop it and wait until it is gone. False if none was running."""
    info = status(home)
    if info is None:
        return False
    os.kill(info.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while status(home) is not None:
        if time.monotonic() > deadline:
            os.kill(info.pid, signal.SIGKILL)
            break
        with contextlib.suppress(ChildProcessError):
            os.waitpid(info.pid, os.WNOHANG)
        time.sleep(0.02)
    (home / FILE).unlink(missing_ok=True)
    return True


async def serve(home: Path, spec: Spec) -> None:
    """The sandbox process: runs until SIGTERM, SIGINT, or the end of its time to live."""
    # here, so that whoever only starts or stops it does not load a whole exchange and a chain
    from agent.simulation.chain.arbitrage import keep_pools_near
    from agent.simulation.chain.world import start_chain
    from agent.simulation.exchange.sandbox import ExchangeConfig, start_exchange

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with contextlib.AsyncExitStack() as stack:
        block_time_s = spec.block_time_s if spec.chain == "anvil" else None
        chain = await start_chain(spec.chain, block_time_s=block_time_s, log_path=home / "chain.log")
        stack.push_async_callback(chain.stop)
        flow: Literal["tape", "model"] = "tape" if spec.tape else "model"
        exchange = await start_exchange(ExchangeConfig(seed=spec.seed, flow=flow, tape_path=spec.tape or None))
        stack.push_async_callback(exchange.stop)
        for asset, text in spec.exchange_funds.items():
            exchange.deposit("user", asset, text)
        api_key, secret = exchange.add_key("user")
        secret_file = home / "exchange.secret"
        _write_secret(secret_file, secret)
        made = await chain.account_of(spec.account, spec.wallet)
        await chain.fund(spec.wallet, {asset: text for asset, text in spec.chain_funds.items() if asset == "ETH"})
        await chain.fund(made.holder, {asset: text for asset, text in spec.chain_funds.items() if asset != "ETH"})
        book = chain.deployment
        trader = asyncio.create_task(keep_pools_near(lambda: float(exchange.mid(SYMBOL) or 0), chain.rpc_url, book))
        stack.callback(trader.cancel)
        info = Info(
            os.getpid(),
            int(time.time()),
            spec.ttl_s,
            spec.chain,
            spec.tape,
            exchange.url,
            exchange.ws_url,
            api_key,
            str(secret_file),
            chain.rpc_url,
            chain.chain_id,
            spec.wallet,
            {name: (token.address, token.decimals) for name, token in book.tokens.items()},
            book.contracts,
            msgspec.to_builtins(book.pools),
            made.settings,
            made.contracts,
        )
        ready = home / (FILE + ".new")
        ready.write_text(json.dumps(msgspec.to_builtins(info), indent=1))
        ready.rename(home / FILE)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), spec.ttl_s)
    (home / FILE).unlink(missing_ok=True)


def _write_secret(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    asyncio.run(serve(folder, msgspec.json.decode((folder / "sandbox.spec.json").read_bytes(), type=Spec)))
