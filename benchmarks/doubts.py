"""How long an order stays in doubt: four exchanges whose answers to orders are lost, cut, or come as -1007 and -1000, one engine.

The private streams stand still too, so nothing but the engine's own questions can end a doubt. Timed from the record that says
UNKNOWN until the record that says what became of the order. The peer is our own bound: ten seconds, for 99 of 100.
What an exchange carries out only after it has answered -1007 is a line of its own: nobody can know before it has.
"""

import asyncio
import contextlib
import itertools
import statistics
import tempfile
from pathlib import Path

from agent.app import running_engine
from agent.config import load
from agent.domain.amount import group_asset, parse_amount
from agent.domain.events import OrderReported, Record
from agent.domain.intent import Intent
from agent.domain.order import OrderState
from agent.engine.loop import Engine
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.faults import ACCEPT_LATE, DROP_REPLY, STALL_STREAM, TIMEOUT_1007, UNKNOWN_1000
from benchmarks.measure import Result

VENUES, PARENTS, BOUND_US = 4, 40, 10e6
LOST, LATE = (DROP_REPLY, TIMEOUT_1007, UNKNOWN_1000), (ACCEPT_LATE,)
LATE_MS = 2_000


def run() -> list[Result]:
    return [*asyncio.run(_run(LOST, PARENTS, "no answer")), *asyncio.run(_run(LATE, PARENTS // 4, f"accepted {LATE_MS} ms late"))]


async def _run(faults: tuple[str, ...], parents: int, what: str) -> list[Result]:
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [await _open(stack, seed) for seed in range(VENUES)]
        engine = await stack.enter_async_context(running_engine(load(_settings(home, places))))
        async with asyncio.timeout(60):
            await engine.ready()
        await engine.priced("ETH/USDT")
        for exchange, _, _ in places:
            exchange.fault(STALL_STREAM, kind="user")
        records, kinds = engine.events(), itertools.cycle(faults)
        for number in range(parents):
            for exchange, _, _ in places:
                exchange.clear_faults(faults[0] if len(faults) == 1 else None)
                exchange.fault(STALL_STREAM, kind="user")
                exchange.fault(next(kinds), on="place", count=1, delay_ms=LATE_MS)
            await _sold(engine, f"p{number}")
        await engine.stop("measured")
        taken = _doubts([record async for record in records])
    assert await _is_whole(engine)
    taken.sort()
    place = f"{len(taken)} doubts, {what}"
    return [
        Result(f"{place}: median", statistics.median(taken) * 1e6, "bound", BOUND_US),
        Result(f"{place}: p99", taken[min(int(len(taken) * 0.99), len(taken) - 1)] * 1e6, "bound", BOUND_US),
    ]


async def _is_whole(engine: Engine) -> bool:
    return not engine.state.working and not engine.state.halted


async def _sold(engine: Engine, name: str) -> None:
    quantity = parse_amount("40", group_asset("ETH"))
    intent = Intent(name, "main", name, "sell" if int(name[1:]) % 2 else "buy", quantity, "USDT", 200, engine.now_ns() + 60 * 10**9)
    reasons = await engine.submit(intent)
    assert not reasons, reasons
    async with asyncio.timeout(90):
        await engine.finished(name)


def _doubts(records: list[Record]) -> list[float]:
    """Seconds of each doubt, in the order of its end."""
    since: dict[str, int] = {}
    taken = []
    for record in records:
        if isinstance(event := record.event, OrderReported):
            if event.state is OrderState.UNKNOWN:
                since.setdefault(event.order_id, record.at_ns)
            elif event.order_id in since:
                taken.append((record.at_ns - since.pop(event.order_id)) / 1e9)
    assert not since, f"still in doubt: {list(since)}"
    return taken


async def _open(stack: contextlib.AsyncExitStack, seed: int) -> tuple[Exchange, str, str]:
    exchange = await start_exchange(ExchangeConfig(seed=seed))
    stack.push_async_callback(exchange.stop)
    exchange.deposit("user", "ETH", "1000")
    exchange.deposit("user", "USDT", "2000000")
    return exchange, *exchange.add_key("user")


def _settings(home: Path, places: list[tuple[Exchange, str, str]]) -> Path:
    text = 'home = "."\n[risk]\norder_value_max = { USDT = "1000000" }\norder_volume_max = { ETH = "50" }\nduplicate_window_s = 0\n'
    for number, (exchange, key, secret) in enumerate(places):
        path = home / f"x{number}.secret"
        path.touch(mode=0o600)
        path.write_text(secret)
        text += f'[venues.x{number}]\nkind = "ccxt_exchange"\nurl = "{exchange.url}"\nws_url = "{exchange.ws_url}"\n'
        text += f'api_key = "{key}"\nsecret = "file:{path.name}"\nsymbols = ["ETH/USDT"]\n'
        text += 'groups = { ETH = "ETH", USDT = "USDT" }\n'
    (home / "isthmus.toml").write_text(text)
    return home / "isthmus.toml"
