"""`isthmus kill` as a process of its own, against sandbox exchanges: nothing is left and nothing new leaves, whatever is broken."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from cli_kit import environment

from agent.app import kill_latch, running_engine
from agent.config import load
from agent.domain.amount import group_asset, parse_amount
from agent.domain.intent import Intent
from agent.engine.loop import Engine
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.filters import parse_order
from agent.simulation.exchange.sandbox import ETHUSDT, SymbolSpec

pytestmark = pytest.mark.timeout(90)
Flow = Literal["none", "model"]
BTCUSDT = SymbolSpec(symbol="BTCUSDT", base="BTC", quote="USDT", start_mid="60000")
WAIT_S = 30.0
BOUND_S = 15.0  # what the command promises is 10 s; a loaded machine gets more


class Done(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def row(self, venue: str) -> Any:
        return next(row for row in self.json["venues"] if row["venue"] == venue)


class Desk:
    """Exchanges with orders that rest, and the settings that name them."""

    def __init__(self, home: Path) -> None:
        self.home, self.config = home, home / "isthmus.toml"
        self.exchanges: dict[str, Exchange] = {}
        self.config.write_text('home = "state"\n')

    async def add(self, name: str, stack: contextlib.AsyncExitStack, flow: Flow, **changes: str) -> Exchange:
        exchange = await start_exchange(ExchangeConfig(symbols=(ETHUSDT, BTCUSDT), flow=flow, seed=7))
        stack.push_async_callback(exchange.stop)
        self.exchanges[name] = exchange
        for coin in ("ETH", "BTC"):
            exchange.deposit("user", coin, "1000")
        exchange.deposit("user", "USDT", "1000000")
        key, secret = exchange.add_key("user")
        self.write_secret(name, secret)
        self.section(name, {"url": exchange.url, "ws_url": exchange.ws_url, "api_key": key} | changes)
        return exchange

    def section(self, name: str, changes: dict[str, str]) -> None:
        rows = {"kind": "ccxt_exchange", "exchange": "binance", "secret": f"file:{name}.secret"} | changes
        text = "".join(f'{key} = "{value}"\n' for key, value in rows.items())
        text += 'symbols = ["ETH/USDT"]\ngroups = { ETH = "ETH", USDT = "USDT" }\n'
        with self.config.open("a") as file:
            file.write(f"[venues.{name}]\n{text}")

    def write_secret(self, name: str, secret: str) -> None:
        path = self.home / f"{name}.secret"
        path.touch(mode=0o600)
        path.write_text(secret)

    def rest(self, name: str, count: int, symbol: str = "ETHUSDT") -> None:
        """So many orders of ours far from the price."""
        venue = self.exchanges[name].venue
        for number in range(count):
            fields = {"symbol": symbol, "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1"}
            venue.place("user", parse_order(fields | {"price": f"{90_000 + number}.00"}, venue.rules), time.time_ns() // 10**6)

    def resting(self, name: str) -> int:
        return len(self.exchanges[name].venue.open_orders("user", None))

    async def kill(self, *arguments: str) -> Done:
        async with self.started(*arguments) as process:
            return await self.ended(process)

    @contextlib.asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        command = (sys.executable, "-m", "agent", "kill", "--config", str(self.config), *arguments)
        pipe = asyncio.subprocess.PIPE
        self._began_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment())
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def ended(self, process: asyncio.subprocess.Process) -> Done:
        async with asyncio.timeout(WAIT_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode(), time.monotonic() - self._began_s)

    @property
    def blocked(self) -> str:
        return kill_latch(load(self.config, with_venues=False)).engaged()


@contextlib.asynccontextmanager
async def desk(home: Path, names: Sequence[str] = ("x1",), flow: Flow = "none", **changes: str) -> AsyncIterator[Desk]:
    async with contextlib.AsyncExitStack() as stack:
        made = Desk(home)
        for name in names:
            await made.add(name, stack, flow, **changes)
        yield made


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """It accepts every connection and never says a word."""
    over = asyncio.Event()

    async def swallow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


# -- it works ----------------------------------------------------------------------------------------------------------


async def test_500_orders_over_5_venues(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(5)]
    async with desk(tmp_path, names) as at:
        for name in names:
            at.rest(name, 100)
        dry = await at.kill("--dry-run", "--json")
        assert (dry.code, dry.json["status"], dry.json["left"], dry.json["blocked"]) == (0, "dry run", 500, "")
        assert [at.resting(name) for name in names] == [100] * 5
        assert at.blocked == ""
        assert not (tmp_path / "state").exists(), "a dry run leaves nothing behind"
        done = await at.kill("--json", "--reason", "a drill")
        assert (done.code, done.json["status"], done.json["cancelled"], done.json["left"]) == (0, "ok", 500, 0)
        assert [at.resting(name) for name in names] == [0] * 5
        assert at.blocked.endswith("a drill")
        assert done.seconds < BOUND_S
        told = await at.kill()
        assert told.code == 0
        assert "no new order leaves" in told.out
        assert "nothing is left" in told.out


async def test_symbols_that_the_settings_do_not_name_go_too(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 3)
        at.rest("x1", 4, "BTCUSDT")
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["found"], done.row("x1")["cancelled"], at.resting("x1")) == (0, 7, 7, 0)


async def test_what_the_exchange_works_by_its_own_twap_goes_too(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 2)
        venue = at.exchanges["x1"].venue
        venue.house_place("ETHUSDT", 0, 268_000, 10, 0)
        params = {"symbol": "ETHUSDT", "side": "SELL", "quantity": "10", "duration": "300", "limitPrice": "2690"}
        venue.algos.place("user", params, time.time_ns() // 10**6)
        dry = await at.kill("--dry-run", "--json")
        assert (dry.code, dry.json["left"], len(venue.algos.open("user"))) == (0, 3, 1)
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["cancelled"], done.json["left"], at.resting("x1")) == (0, 3, 0, 0)
        assert [algo.status for algo in venue.algos.ended("user")] == ["CANCELLED"]


async def test_one_venue_alone_still_blocks_every_order(tmp_path: Path) -> None:
    async with desk(tmp_path, ("x1", "x2")) as at:
        at.rest("x1", 2)
        at.rest("x2", 2)
        done = await at.kill("--venue", "x2", "--json")
        assert (done.code, at.resting("x1"), at.resting("x2")) == (0, 2, 0)
        assert at.blocked
        done = await at.kill("--venue", "x1", "--venue", "y", "--json")
        assert (done.code, at.resting("x1"), done.row("y")["left"]) == (4, 0, None)
        assert "no venue of this name; they have: x1, x2" in done.row("y")["note"]


async def test_an_order_that_was_on_its_way_is_found_by_the_second_look(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 5)
        async with at.started("--json") as process:
            async with asyncio.timeout(WAIT_S):
                while at.resting("x1"):  # noqa: ASYNC110 - the exchange has no event for it
                    await asyncio.sleep(0.001)
            at.rest("x1", 1)
            done = await at.ended(process)
        assert (done.code, done.row("x1")["cancelled"], at.resting("x1")) == (0, 6, 0)


async def test_exchanges_that_are_reached_through_ccxt(tmp_path: Path) -> None:
    async with desk(tmp_path, exchange="binanceus") as at:
        at.rest("x1", 7)
        at.rest("x1", 2, "BTCUSDT")
        dry = await at.kill("--dry-run", "--json")
        assert (dry.code, dry.row("x1")["found"], at.resting("x1")) == (0, 9, 9)
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["cancelled"], at.resting("x1")) == (0, 9, 0), done


async def test_a_venue_that_is_only_watched_has_nothing_to_cancel(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.section("w", {"url": at.exchanges["x1"].url, "api_key": "", "secret": ""})
        done = await at.kill("--json")
        assert (done.code, done.row("w")["left"]) == (0, 0)


# -- and the agent obeys -----------------------------------------------------------------------------------------------


def wish(engine: Engine, name: str) -> Intent:
    deadline_ns = engine.now_ns() + 60 * 10**9
    return Intent(name, "main", "test", "sell", parse_amount("1", group_asset("ETH")), "USDT", 100, deadline_ns, 1, 0)


async def reasons(engine: Engine, name: str) -> list[str]:
    return [reason.code for reason in await engine.submit(wish(engine, name))]


async def until(engine: Engine, name: str, *, refused: bool) -> None:
    """Until the agent has taken notice: it looks at every tick."""
    async with asyncio.timeout(WAIT_S):
        number = 0
        while ("TRADING_HALTED" in await reasons(engine, f"{name}{number}")) != refused:
            number += 1
            await asyncio.sleep(0.05)


async def test_an_agent_in_the_same_home_refuses_until_the_kill_is_lifted(tmp_path: Path) -> None:
    async with desk(tmp_path, flow="model") as at, running_engine(load(at.config)) as engine:
        async with asyncio.timeout(WAIT_S):
            await engine.ready()
        await engine.priced("ETH/USDT")
        assert await reasons(engine, "before") == []
        async with asyncio.timeout(WAIT_S):
            await engine.finished("before")
        at.rest("x1", 3)
        done = await at.kill("--json")
        assert (done.code, at.resting("x1")) == (0, 0)
        await until(engine, "during", refused=True)
        assert (await at.kill("--lift", "looked into it")).code == 0
        await until(engine, "after", refused=False)
    assert at.blocked == ""


async def test_an_agent_that_hangs_finds_the_latch_when_it_wakes(tmp_path: Path) -> None:
    """A real `isthmus run`, stopped in its tracks: the kill does not need it, and it sends nothing afterwards."""
    async with desk(tmp_path, flow="model") as at:
        command = (sys.executable, "-m", "agent", "run", "--config", str(at.config))
        agent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment())
        try:
            assert agent.stdout is not None
            async with asyncio.timeout(WAIT_S):
                while b"serving the desk" not in await agent.stdout.readline():
                    assert not agent.stdout.at_eof()
            agent.send_signal(signal.SIGSTOP)
            at.rest("x1", 3)
            done = await at.kill("--json")
            assert (done.code, at.resting("x1")) == (0, 0)
            agent.send_signal(signal.SIGCONT)
            order = ("submit", "ETH/USDT", "--side", "sell", "--qty", "1", "--detach", "--json")
            refused = 0
            for _ in range(10):  # what it accepts before it has looked is not sent
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "agent", "order", *order, "--config", str(at.config),
                    stdout=asyncio.subprocess.PIPE, env=environment(),
                )  # fmt: skip
                out, _ = await process.communicate()
                refused += process.returncode == 3 and b"TRADING_HALTED" in out
                if refused:
                    break
            assert refused, out
            assert at.exchanges["x1"].venue.fills.get("user") is None
            agent.terminate()
            async with asyncio.timeout(WAIT_S):
                await agent.communicate()
        finally:
            if agent.returncode is None:
                agent.kill()
                await agent.wait()


async def test_a_broken_journal_is_not_even_looked_at(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 3)
        (tmp_path / "state").mkdir(mode=0o700)
        (tmp_path / "state" / "journal.sqlite").write_bytes(b"this is no journal" * 99)
        done = await at.kill("--json")
        assert (done.code, at.resting("x1")) == (0, 0)
        assert at.blocked


async def test_the_second_ctrl_c_ends_it_at_once() -> None:
    code = "import asyncio; from agent.cli.sweep import _interrupt as i; e = asyncio.Event(); i(e); print(1, flush=True); i(e)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (130, b"1\n")


async def test_lift(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        assert "nothing was blocked" in (await at.kill("--lift", "why not")).out
        await at.kill("--reason", "first")
        for arguments in (("--lift", " "), ("--lift", "x", "--dry-run"), ("--lift", "x", "--venue", "x1")):
            refused = await at.kill(*arguments)
            assert (refused.code, refused.out) == (2, "")
            assert "--lift takes a reason" in refused.err
        assert at.blocked
        assert (await at.kill("--lift", "all is well", "--json")).json["status"] == "lifted"
        assert at.blocked == ""
        rows = [json.loads(row) for row in (tmp_path / "state" / "KILL.history").read_text().splitlines()]
        assert [(row["what"], row["reason"]) for row in rows] == [("engaged", "first"), ("lifted", "all is well")]


# -- and everything else may be broken ---------------------------------------------------------------------------------


async def test_venues_that_fail_in_every_way_do_not_delay_the_others(tmp_path: Path) -> None:
    async with silent_server() as silent, desk(tmp_path, ("x1", "banned", "x2")) as at:
        for name in at.exchanges:
            at.rest(name, 20)
        at.exchanges["banned"].fault("ban_418", on="any", count=0, retry_after_s=300)
        at.write_secret("silent", "s" * 64)
        for name, url in {"silent": silent, "down": "http://127.0.0.1:9", "odd": "no address"}.items():
            at.section(name, {"url": url, "ws_url": "", "api_key": "k" * 64, "secret": "file:silent.secret"})
        at.section("keyless", {"url": silent, "api_key": "k", "secret": "file:missing.secret"})
        at.section("foreign", {"kind": "barter"})
        done = await at.kill("--json")
        assert done.code == 4
        assert done.seconds < BOUND_S
        assert {row["venue"]: row["left"] for row in done.json["venues"]} == dict.fromkeys(
            ("banned", "silent", "down", "odd", "keyless", "foreign")
        ) | {"x1": 0, "x2": 0}
        assert max(done.row(name)["ms"] for name in ("x1", "x2", "banned", "odd", "keyless")) < 5_000
        assert "300 s (HTTP 418)" in done.row("banned")["note"]
        assert "in time" in done.row("silent")["note"]
        assert "cannot be reached" in done.row("down")["note"]
        assert "not an address" in done.row("odd")["note"]
        assert "missing.secret" in done.row("keyless")["note"]
        assert "'barter' cannot be cancelled from here" in done.row("foreign")["note"]
        assert all(row["note"] for row in done.json["venues"] if row["left"] is None)
        assert (at.resting("x1"), at.resting("x2"), at.resting("banned")) == (0, 0, 20)
        assert at.blocked


@pytest.mark.parametrize("name", ["ban_418", "rate_limit_429"])
async def test_a_closed_door_is_waited_for(tmp_path: Path, name: str) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 20)
        at.exchanges["x1"].fault(name, on="cancel", retry_after_s=1)
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["cancelled"], at.resting("x1")) == (0, 20, 0)
        assert done.row("x1")["ms"] >= 1_000, "not before it may"


@pytest.mark.parametrize("name", ["drop_reply", "timeout_1007", "unknown_1000", "maintenance"])
async def test_an_answer_that_is_lost_is_asked_for_again(tmp_path: Path, name: str) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 20)
        at.exchanges["x1"].fault(name, on="cancel")
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["left"], at.resting("x1")) == (0, 0, 0)
        assert name == "drop_reply" or "an answer was lost" in done.row("x1")["note"]  # the client library may ask again by itself


async def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 2)
        at.exchanges["x1"].fault("clock_offset", offset_ms=-90_000)
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["cancelled"], at.resting("x1")) == (0, 2, 0)


async def test_a_key_that_is_refused_is_said_at_once(tmp_path: Path) -> None:
    async with desk(tmp_path, api_key="k" * 64) as at:
        at.rest("x1", 2)
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["left"], at.resting("x1")) == (4, None, 2)
        assert "-2015" in done.row("x1")["note"]
        assert done.row("x1")["ms"] < 5_000


async def test_wrong_settings_stop_nothing_that_they_need_not_stop(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 2)
        at.config.write_text(
            at.config.read_text() + "depth_max = 3\ncolour = 7\n[risk]\nno_such_limit = 1\n[execution]\nslippage_bps = -4\n"
        )
        done = await at.kill("--json")
        assert (done.code, at.resting("x1")) == (0, 0)
        assert (tmp_path / "state" / "KILL").exists()


async def test_settings_that_cannot_be_read_block_and_say_that_nothing_was_cancelled(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 2)
        at.config.write_text(at.config.read_text() + "= what\n")
        done = await at.kill("--json")
        assert (done.code, done.json["left"], at.resting("x1")) == (4, None, 2)
        assert "not valid TOML" in done.json["troubles"][0]
        assert (tmp_path / "state" / "KILL").exists()
        told = await at.kill()
        assert told.code == 4
        assert "not valid TOML" in told.err
        at.config.write_text('home = "state"\nvenues = 3\n')
        assert (await at.kill("--json")).code == 4
        at.config.unlink()
        missing = await at.kill()
        assert (missing.code, missing.out) == (2, "")
        assert "nothing was blocked" in missing.err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which even root can make nothing")
async def test_a_latch_that_cannot_be_set_does_not_keep_the_orders_alive(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.rest("x1", 2)
        at.config.write_text(at.config.read_text().replace('"state"', '"/proc/isthmus"'))  # where nobody can make a folder
        done = await at.kill("--json")
        assert (done.code, done.row("x1")["left"], at.resting("x1")) == (4, 0, 0)
        assert "kill -9" in done.json["troubles"][0]


async def test_ctrl_c_stops_waiting_and_tells_what_is_known(tmp_path: Path) -> None:
    async with silent_server() as silent, desk(tmp_path) as at:
        at.rest("x1", 2)
        at.write_secret("silent", "s" * 64)
        at.section("silent", {"url": silent, "api_key": "k" * 64})
        async with at.started() as process:
            assert process.stdout is not None
            shown = b""
            async with asyncio.timeout(WAIT_S):
                while b"x1 " not in shown:
                    shown += await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            done = await at.ended(process)
        assert done.code == 130
        assert "not waited for" in done.out
        assert "silent" in done.err
        assert at.resting("x1") == 0
        assert at.blocked


async def test_no_secret_is_told(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        secret = (tmp_path / "x1.secret").read_text()
        at.exchanges["x1"].fault("unknown_1000", on="cancel", count=2)
        done = await at.kill()
        assert secret not in done.out + done.err
        at.config.write_text(at.config.read_text().replace("file:x1.secret", secret))
        done = await at.kill()
        assert done.code == 4
        assert secret not in done.out + done.err
