"""Cancel everything at an exchange that is reached through ccxt, in its unified words. Slower than at Binance: the rules of the
markets are read first, and most exchanges cancel symbol by symbol. Part of `isthmus kill`; see `cancel_all`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agent.domain.errors import ConfigError, OutcomeUnknown, VenueError
from agent.domain.sweep import Sweep
from agent.ports import RequestKey, Tools
from agent.venues.ccxt_exchange.cancel_all import PAUSE_S, ROUNDS_MAX, Tally
from agent.venues.ccxt_exchange.client import Client
from agent.venues.ccxt_exchange.config import Config

ORDERS_MAX = 1_000  # cancelled one by one in a round
AT_ONCE = 8


class _WallClock:
    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def cancel_at_others(name: str, section: Mapping[str, Any], key: RequestKey, sweep: Sweep, tally: Tally) -> None:
    """Fills `tally`. Raises VenueError or ConfigError when the exchange cannot be asked at all."""
    try:
        config = Config.model_validate({field: value for field, value in section.items() if field in Config.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{place}: {first['msg']}; correct it in the settings") from None
    client = Client(name, config, Tools(_WallClock(), key), lambda status, _code, _text: False if status >= 500 else None)
    try:
        await _sweep(client, sweep, tally)
    finally:
        await client.close()


async def _sweep(client: Client, sweep: Sweep, tally: Tally) -> None:
    await client.call(client.exchange.load_markets, weight=20)
    rest = await _resting(client, tally)
    if sweep.is_dry:
        return
    has_settled = False
    for _ in range(ROUNDS_MAX):
        if not rest:
            if has_settled:
                return
            has_settled = True
            await asyncio.sleep(sweep.settle_ms / 1_000)
        else:
            await _cancel(client, rest, tally)
        rest = await _resting(client, tally)


async def _resting(client: Client, tally: Tally) -> list[tuple[str, str]]:
    """(symbol, the exchange's number) of what rests: in the account if the exchange tells, else in the settings' symbols."""
    try:
        orders = await client.call(client.exchange.fetch_open_orders, weight=80)
    except VenueError:
        orders = []
        for symbol in client.config.symbols:
            orders += await client.call(client.exchange.fetch_open_orders, symbol)
    rest = [(str(order["symbol"]), str(order["id"])) for order in orders]
    tally.resting(map("/".join, rest))
    return rest


async def _cancel(client: Client, rest: list[tuple[str, str]], tally: Tally) -> None:
    """All orders of a symbol with one request where the exchange has one. What fails is seen by the look that follows."""
    tally.unsure()
    if client.exchange.has.get("cancelAllOrders") is True:
        for symbol in sorted({symbol for symbol, _ in rest}):
            if await _asked(client, tally, client.exchange.cancel_all_orders, symbol):
                tally.cancelled("/".join(order) for order in rest if order[0] == symbol)
        return
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(symbol: str, number: str) -> None:
        async with gate:
            if await _asked(client, tally, client.exchange.cancel_order, number, symbol):
                tally.cancelled([f"{symbol}/{number}"])

    await asyncio.gather(*(one(*order) for order in rest[:ORDERS_MAX]))


async def _asked(client: Client, tally: Tally, what: Any, *arguments: str) -> bool:
    """Whether the exchange says that it has cancelled."""
    try:
        await client.call(what, *arguments, kind="cancel", about=arguments[0])
    except (VenueError, OutcomeUnknown) as error:
        tally.trouble = str(error)
        tally.has_lost |= isinstance(error, OutcomeUnknown)
        await asyncio.sleep(PAUSE_S)
        return False
    return True
