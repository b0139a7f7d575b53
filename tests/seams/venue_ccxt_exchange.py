"""How the venue suite trades on a `ccxt_exchange`: the sandbox exchange, one funded account, one resting offer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from venue_case import Case, RealClock

from agent.domain.amount import Amount, Asset
from agent.domain.plan import Approved, ApproveToken, CancelOrder, PlaceOrder
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from agent.ports import Tools
from agent.simulation.exchange import ExchangeConfig, start_exchange
from agent.simulation.exchange.matching import SELL
from agent.venues import ccxt_exchange

NAME = "exchange1"
ETH, USDT = Asset("ETH", NAME, 8, "ETH"), Asset("USDT", NAME, 8, "USDT")
SETTINGS = {"symbols": ["ETH/USDT"], "groups": {"ETH": "ETH", "USDT": "USDT"}}


@contextlib.asynccontextmanager
async def open_case(**way: Any) -> AsyncIterator[Case]:
    """`way`: more of the settings, such as the one by which orders leave."""
    exchange = await start_exchange(ExchangeConfig(flow="none"))
    exchange.deposit("alice", "USDT", "100000")
    exchange.venue.house_place("ETHUSDT", SELL, 268_000, 50_000, time.time_ns() // 10**6)
    api_key, secret = exchange.add_key("alice")
    where = {"url": exchange.url, "ws_url": exchange.ws_url, "api_key": api_key, "secret": "env:EXCHANGE_SECRET"}
    config = ccxt_exchange.Config.model_validate(SETTINGS | where | way)
    key = VenueKey("main", NAME, api_key, Secret(secret))
    venue = await ccxt_exchange.connect(NAME, config, Tools(RealClock(), key, "desk7"))
    instrument = f"{NAME}:ETH/USDT"

    async def works() -> Approved:
        await asyncio.sleep(0)
        plan = PlaceOrder("seam-1", "i", "desk7", NAME, instrument, "buy", 268_000, 10_000, "IOC", Amount(0, USDT), Amount(0, ETH))
        return Approved(plan)

    foreign = ApproveToken("seam-2", "i", "desk7", NAME, 1, Amount(1, USDT), "0x" + "00" * 20, 1, 1, 1)
    cancel = CancelOrder("seam-3", "i", "desk7", NAME, f"{NAME}:NO/PE", "seam-1")
    try:
        yield Case(ccxt_exchange, NAME, "desk7", venue, key, SETTINGS, works, (Approved(foreign), Approved(cancel)), secret)
    finally:
        await venue.close()
        await exchange.stop()
