"""The exchange's own TWAP on the sandbox exchange: what it refuses, how it works an order, what its lists and its stream say."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from test_exchange_wire import Client

from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.matching import BUY
from agent.simulation.exchange.venue import Report

NAME = "p1-0____________________________"
TWAP = {"symbol": "ETHUSDT", "side": "SELL", "quantity": "10", "duration": "300", "clientAlgoId": NAME, "limitPrice": "2600"}
ROOT = "/sapi/v1/algo/spot"


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    exchange = await start_exchange(ExchangeConfig(flow="none"))
    exchange.venue.house_place("ETHUSDT", BUY, 268_000, 300_000, 0)
    exchange.deposit("alice", "ETH", "100")
    yield exchange
    await exchange.stop()


@pytest.fixture
async def client(exchange: Exchange) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield Client(exchange, "alice", session)


def work(exchange: Exchange, seconds: int, start_ms: int) -> None:
    for second in range(0, seconds + 1, 5):
        exchange.venue.algos.tick(start_ms + second * 1_000)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"duration": "299"}, -20130),
        ({"duration": "86401"}, -20130),
        ({"duration": None}, -1102),
        ({"quantity": "0.37"}, -20204),
        ({"quantity": "37.4"}, -20204),
        ({"quantity": "0.00001"}, -1013),
        ({"clientAlgoId": "short"}, -20130),
        ({"limitPrice": "2600.001"}, -1013),
        ({"side": "HOLD"}, -1117),
        ({"symbol": "NOPE"}, -1121),
    ],
)
async def test_what_cannot_be_worked_is_refused(client: Client, changes: dict[str, Any], code: int) -> None:
    params = {name: value for name, value in (TWAP | changes).items() if value is not None}
    status, answer = await client.signed("POST", f"{ROOT}/newOrderTwap", **params)
    assert (status, answer["code"]) == (400, code)
    assert (await client.signed("GET", f"{ROOT}/openOrders"))[1] == {"total": 0, "orders": []}


async def test_it_is_worked_by_orders_of_the_exchange_s_own(exchange: Exchange, client: Client) -> None:
    reports: list[Report] = []
    tell, exchange.venue.on_report = exchange.venue.on_report, lambda one: (reports.append(one), tell(one))[1]
    assert (await client.signed("POST", f"{ROOT}/newOrderTwap", **TWAP))[1]["success"] is True
    (shown,) = (await client.signed("GET", f"{ROOT}/openOrders"))[1]["orders"]
    assert (shown["clientAlgoId"], shown["algoStatus"], shown["totalQty"]) == (NAME, "WORKING", "10.00000000")
    assert (await client.signed("POST", f"{ROOT}/newOrderTwap", **TWAP))[1]["code"] == -20132
    work(exchange, 150, shown["bookTime"])
    half = (await client.signed("GET", f"{ROOT}/subOrders", algoId=shown["algoId"]))[1]
    assert (half["total"], half["executedQty"]) == (11, "5.50000000")
    work(exchange, 300, shown["bookTime"])
    (ended,) = (await client.signed("GET", f"{ROOT}/historicalOrders", symbol="ETHUSDT"))[1]["orders"]
    assert (ended["algoStatus"], ended["executedQty"]) == ("FINISHED", "10.00000000")
    subs = (await client.signed("GET", f"{ROOT}/subOrders", algoId=shown["algoId"], page=2, pageSize=15))[1]["subOrders"]
    assert [one["subId"] for one in subs] == [16, 17, 18, 19, 20]
    trades = (await client.signed("GET", "/api/v3/myTrades", symbol="ETHUSDT", orderId=subs[0]["orderId"]))[1]
    assert [(one["qty"], one["price"]) for one in trades] == [("0.50000000", "2680.00000000")]
    names = {one.order.client_id for one in reports if one.execution == "TRADE"}
    assert len(names) == 20
    assert NAME not in names
    balance = exchange.venue.accounts.balance("alice", "ETH")
    assert (balance.free, balance.locked) == (90 * 10**8, 0)


async def test_a_cancel_leaves_what_was_traded(exchange: Exchange, client: Client) -> None:
    await client.signed("POST", f"{ROOT}/newOrderTwap", **TWAP)
    (shown,) = (await client.signed("GET", f"{ROOT}/openOrders"))[1]["orders"]
    work(exchange, 60, shown["bookTime"])
    answer = await client.signed("DELETE", f"{ROOT}/order", algoId=shown["algoId"])
    assert answer == (200, {"algoId": shown["algoId"], "success": True, "code": 0, "msg": "OK"})
    assert (await client.signed("DELETE", f"{ROOT}/order", algoId=shown["algoId"]))[1]["code"] == -20124
    assert (await client.signed("DELETE", f"{ROOT}/order", algoId=99))[1]["code"] == -20124
    work(exchange, 300, shown["bookTime"])
    (ended,) = (await client.signed("GET", f"{ROOT}/historicalOrders"))[1]["orders"]
    assert (ended["algoStatus"], ended["executedQty"]) == ("CANCELLED", "2.50000000")


async def test_it_stays_within_its_limit_and_ends_with_a_rest(exchange: Exchange, client: Client) -> None:
    await client.signed("POST", f"{ROOT}/newOrderTwap", **TWAP | {"limitPrice": "2690"})
    (shown,) = (await client.signed("GET", f"{ROOT}/openOrders"))[1]["orders"]
    work(exchange, 300, shown["bookTime"])
    (ended,) = (await client.signed("GET", f"{ROOT}/historicalOrders"))[1]["orders"]
    assert (ended["algoStatus"], ended["executedQty"]) == ("EXPIRED", "0.00000000")
