"""`isthmus kill`: 500 orders over 5 exchanges, from the start of the process until every exchange confirms, beside a ccxt script.

The peer is what a careful person would write with ccxt: a process of its own, all exchanges at once, `cancelAllOrders`, then a look
that nothing is open. Both are timed from before the process starts until the last exchange has said "nothing is open"; the last row
is ours until the process has left, with its second look a quarter of a second later. The exchanges are sandboxes in this process,
on the loopback interface: a real network adds two round trips to ours, three to the peer's.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.filters import parse_order
from benchmarks.measure import Result

VENUES, ORDERS, ROUNDS = 5, 100, 7
FIELDS = {"symbol": "ETHUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1"}

PEER = """
import asyncio, json, sys, time
import ccxt.async_support as ccxt

async def one(url, key, path):
    options = {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False}
    options["warnOnFetchOpenOrdersWithoutSymbol"] = False
    exchange = ccxt.binance({"apiKey": key, "secret": open(path).read(), "enableRateLimit": False, "options": options})
    api = exchange.urls["api"]
    for name, old in api.items():
        if isinstance(old, str):
            api[name] = url + "/" + old.split("/", 3)[3]
    try:
        await exchange.cancel_all_orders("ETH/USDT")
        assert not await exchange.fetch_open_orders()
    finally:
        await exchange.close()

async def main():
    await asyncio.gather(*(one(*row) for row in json.loads(sys.argv[1])))
    print(time.time_ns())

asyncio.run(main())
"""


class Place(NamedTuple):
    exchange: Exchange
    key: str
    secret: str

    def rest(self) -> list[int]:
        """A hundred orders far from the price; their numbers."""
        venue, now_ms = self.exchange.venue, time.time_ns() // 10**6
        prices = (f"{90_000 + number}.00" for number in range(ORDERS))
        return [venue.place("user", parse_order(FIELDS | {"price": price}, venue.rules), now_ms)[0].id for price in prices]

    def is_empty(self) -> bool:
        return not self.exchange.venue.open_orders("user", None)


def run() -> list[Result]:
    return asyncio.run(_run())


async def _run() -> list[Result]:
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [await _open(stack) for _ in range(VENUES)]
        _write_settings(home, places)
        confirmed, whole, script = [], [], []
        for _ in range(ROUNDS):
            done_s, all_s = await _kill(home, places)
            confirmed.append(done_s)
            whole.append(all_s)
            script.append(await _ccxt(home, places))
    peer, peer_us = "ccxt script", statistics.median(script) * 1e6
    what = f"{VENUES * ORDERS} orders, {VENUES} venues"
    return [
        Result(f"{what}: start to confirmed", statistics.median(confirmed) * 1e6, peer, peer_us),
        Result(f"{what}: slowest of {ROUNDS}", max(confirmed) * 1e6, peer, max(script) * 1e6),
        Result(f"{what}: until it has left", statistics.median(whole) * 1e6, peer, peer_us),
    ]


async def _open(stack: contextlib.AsyncExitStack) -> Place:
    exchange = await start_exchange(ExchangeConfig(flow="none"))
    stack.push_async_callback(exchange.stop)
    exchange.deposit("user", "ETH", "1000")
    return Place(exchange, *exchange.add_key("user"))


def _write_settings(home: Path, places: list[Place]) -> None:
    text = 'home = "."\n'
    for number, place in enumerate(places):
        secret = home / f"x{number}.secret"
        secret.touch(mode=0o600)
        secret.write_text(place.secret)
        text += f'[venues.x{number}]\nkind = "ccxt_exchange"\nurl = "{place.exchange.url}"\napi_key = "{place.key}"\n'
        text += f'secret = "file:{secret.name}"\nsymbols = ["ETH/USDT"]\ngroups = {{ ETH = "ETH", USDT = "USDT" }}\n'
    (home / "isthmus.toml").write_text(text)


async def _kill(home: Path, places: list[Place]) -> tuple[float, float]:
    """Seconds until the last exchange has confirmed that nothing rests, and until the process has ended (it looks twice)."""
    for place in places:
        place.rest()
    command = (sys.executable, "-m", "agent", "kill", "--json", "--config", str(home / "isthmus.toml"))
    start_ns = time.time_ns()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    end_ns = time.time_ns()
    found = json.loads(out)
    assert found["cancelled"] == VENUES * ORDERS, found
    assert all(place.is_empty() for place in places)
    return (found["done_ns"] - start_ns) / 1e9, (end_ns - start_ns) / 1e9


async def _ccxt(home: Path, places: list[Place]) -> float:
    """Seconds until the script has seen that nothing is open anywhere."""
    for place in places:
        place.rest()
    rows = [(place.exchange.url, place.key, str(home / f"x{number}.secret")) for number, place in enumerate(places)]
    start_ns = time.time_ns()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER, json.dumps(rows), stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert all(place.is_empty() for place in places)
    return (int(out) - start_ns) / 1e9
