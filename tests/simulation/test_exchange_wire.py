"""The sandbox exchange on the wire: every error code, hostile input, faults, streams that join, and slow readers."""

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from agent.simulation.exchange import Exchange, ExchangeConfig, SymbolSpec, start_exchange
from agent.simulation.exchange.access import ORDER_LIMIT_10S
from agent.simulation.exchange.faults import FAULTS
from agent.simulation.exchange.tape import TapeError, TapeWriter

ORDER = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "2600"}
SYMBOLS = (
    SymbolSpec(symbol="ETHUSDT", base="ETH", quote="USDT", open_orders_max=5),
    SymbolSpec(symbol="BTCUSDT", base="BTC", quote="USDT", lot="0.00001", start_mid="61000"),
)


class Client:
    """A bare client: signs and sends exactly what a test says."""

    def __init__(self, exchange: Exchange, account: str, session: aiohttp.ClientSession) -> None:
        self.exchange, self.session = exchange, session
        self.key, self.secret = exchange.add_key(account)
        self.headers: Any = {}

    def sign(self, text: str) -> str:
        return hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()

    async def raw(self, method: str, path: str, query: str = "", body: str = "", key: str | None = "") -> tuple[int, Any]:
        headers = {} if key is None else {"X-MBX-APIKEY": key or self.key}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = f"{self.exchange.url}{path}?{query}"
        async with self.session.request(method, aiohttp.client.URL(url, encoded=True), data=body or None, headers=headers) as r:
            self.headers = r.headers
            return r.status, await r.json()

    async def signed(self, method: str, path: str, **params: Any) -> tuple[int, Any]:
        query = urlencode({"timestamp": int(time.time() * 1000)} | params)
        return await self.raw(method, path, f"{query}&signature={self.sign(query)}")

    async def order(self, **changes: Any) -> tuple[int, Any]:
        params = {name: value for name, value in (ORDER | changes).items() if value is not None}
        return await self.signed("POST", "/api/v3/order", **params)

    def call(self, method: str, **params: Any) -> str:
        params |= {"apiKey": self.key, "timestamp": int(time.time() * 1000)}
        text = "&".join(f"{name}={params[name]}" for name in sorted(params))
        return json.dumps({"id": method, "method": method, "params": params | {"signature": self.sign(text)}})


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    exchange = await start_exchange(ExchangeConfig(flow="none", symbols=SYMBOLS))
    yield exchange
    await exchange.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
async def client(exchange: Exchange, session: aiohttp.ClientSession) -> Client:
    exchange.deposit("alice", "USDT", "100000")
    exchange.deposit("alice", "ETH", "10")
    return Client(exchange, "alice", session)


@pytest.fixture
async def maker(exchange: Exchange, session: aiohttp.ClientSession) -> Client:
    exchange.deposit("bob", "ETH", "1000")
    exchange.deposit("bob", "USDT", "1000000")
    return Client(exchange, "bob", session)


async def receive(ws: aiohttp.ClientWebSocketResponse, is_wanted: Any = lambda _: True) -> Any:
    async with asyncio.timeout(5):
        while True:
            message = json.loads(await ws.receive_str())
            if is_wanted(message):
                return message


def is_event(name: str) -> Any:
    return lambda m: m.get("event", m).get("e") == name


ORDER_ERRORS = [
    ({"symbol": None}, -1102, "symbol"),
    ({"symbol": ""}, -1102, "symbol"),
    ({"symbol": "NOPE"}, -1121, "Invalid symbol."),
    ({"symbol": "eth/usdt"}, -1100, "symbol"),
    ({"side": "HOLD"}, -1117, "Invalid side."),
    ({"side": None}, -1102, "side"),
    ({"type": "STOP_LOSS"}, -1116, "Invalid orderType."),
    ({"timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
    ({"timeInForce": None}, -1102, "timeInForce"),
    ({"price": None}, -1102, "price"),
    ({"price": "1e1000000"}, -1100, "price"),
    ({"price": "NaN"}, -1100, "price"),
    ({"price": "-1"}, -1100, "price"),
    ({"price": "٣"}, -1100, "price"),
    ({"price": "9" * 5000}, -1100, "price"),
    ({"price": "2600.123456789"}, -1111, "price"),
    ({"price": "2600.001"}, -1013, "Filter failure: PRICE_FILTER"),
    ({"price": "0"}, -1013, "Filter failure: PRICE_FILTER"),
    ({"price": "99999999999999999999"}, -1013, "Filter failure: PRICE_FILTER"),
    ({"quantity": "Infinity"}, -1100, "quantity"),
    ({"quantity": "0.00001"}, -1013, "Filter failure: LOT_SIZE"),
    ({"quantity": "0"}, -1013, "Filter failure: LOT_SIZE"),
    ({"quantity": "9001"}, -1013, "Filter failure: LOT_SIZE"),
    ({"quantity": "0.0001"}, -1013, "Filter failure: NOTIONAL"),
    ({"quantity": "39"}, -2010, "Account has insufficient balance for requested action."),
    ({"side": "SELL", "quantity": "11"}, -2010, "Account has insufficient balance for requested action."),
    ({"type": "LIMIT_MAKER", "timeInForce": None, "price": "2800"}, -2010, "Order would immediately match and take."),
    ({"type": "MARKET", "timeInForce": None}, -1106, "price"),
    ({"type": "MARKET", "price": None, "timeInForce": None, "quoteOrderQty": "10"}, -1128, "Combination"),
    ({"type": "MARKET", "price": None, "timeInForce": None, "quantity": "0.0001"}, -1013, "Filter failure: NOTIONAL"),
    ({"type": "MARKET", "price": None, "timeInForce": None, "quantity": None, "quoteOrderQty": "1"}, -1013, "NOTIONAL"),
    ({"icebergQty": "1"}, -1106, "icebergQty"),
    ({"newClientOrderId": "a b"}, -1100, "newClientOrderId"),
    ({"newClientOrderId": "x" * 37}, -1100, "newClientOrderId"),
    ({"newClientOrderId": ""}, -1105, "newClientOrderId"),
    ({"newOrderRespType": "ALL"}, -1130, "newOrderRespType"),
    ({"selfTradePreventionMode": "MAYBE"}, -1130, "selfTradePreventionMode"),
    ({"recvWindow": "70000"}, -1131, "recvWindow"),
    ({"recvWindow": "x"}, -1100, "recvWindow"),
    ({"timestamp": "yesterday"}, -1100, "timestamp"),
    ({"timestamp": ""}, -1102, "timestamp"),
    ({"timestamp": "1"}, -1021, "outside of the recvWindow"),
    ({"timestamp": str(int(time.time() * 1000) + 3_600_000)}, -1021, "ahead of the server's time"),
]


async def test_every_refusal_of_an_order(client: Client, maker: Client) -> None:
    assert (await maker.order(side="SELL", price="2700", quantity="1"))[0] == 200
    for changes, code, words in ORDER_ERRORS:
        status, body = await client.order(**changes)
        assert (status, body["code"]) == (400, code), (changes, body)
        assert words in body["msg"]
    assert (await client.signed("GET", "/api/v3/openOrders"))[1] == []


async def test_refusals_of_access(client: Client) -> None:
    now = int(time.time() * 1000)
    query = f"timestamp={now}"
    good = client.sign(query)
    cases = [
        (await client.raw("GET", "/api/v3/account", f"{query}&signature={good}", key=None), 401, -2014),
        (await client.raw("GET", "/api/v3/account", f"{query}&signature={good}", key="x" * 64), 401, -2015),
        (await client.raw("GET", "/api/v3/account", query), 400, -1102),
        (await client.raw("GET", "/api/v3/account", f"{query}&signature={'0' * 64}"), 400, -1022),
        (await client.raw("GET", "/api/v3/account", f"{query}&signature=%C3%A9"), 400, -1022),
        (await client.raw("GET", "/api/v3/account", f"{query}&a=1&a=2&signature={good}"), 400, -1101),
        (await client.raw("GET", "/api/v3/time", "&".join(f"a{n}=1" for n in range(500))), 400, -1101),
        (await client.raw("GET", "/api/v3/nothing"), 404, -1020),
        (await client.raw("PATCH", "/api/v3/order"), 404, -1020),
    ]
    for (status, body), want_status, code in cases:
        assert (status, body["code"]) == (want_status, code), body
    assert (await client.raw("GET", "/api/v3/account", f"{query}&signature={good}"))[0] == 200


async def test_refusals_of_queries(client: Client) -> None:
    client.exchange.fault("withdrawal_right", account="alice")
    cases = [
        ("GET", "/api/v3/order", {"symbol": "ETHUSDT", "orderId": 99}, -2013),
        ("GET", "/api/v3/order", {"symbol": "ETHUSDT"}, -1102),
        ("GET", "/api/v3/order", {"symbol": "ETHUSDT", "orderId": "-1"}, -1100),
        ("DELETE", "/api/v3/order", {"symbol": "ETHUSDT", "origClientOrderId": "none"}, -2011),
        ("DELETE", "/api/v3/openOrders", {"symbol": "ETHUSDT"}, -2011),
        ("GET", "/api/v3/myTrades", {}, -1102),
        ("GET", "/api/v3/allOrders", {"symbol": "ETHUSDT", "startTime": 2, "endTime": 1}, -1127),
        ("GET", "/api/v3/klines", {"symbol": "ETHUSDT", "interval": "7m"}, -1120),
        ("GET", "/api/v3/depth", {"symbol": "ETHUSDT", "limit": "0"}, -1130),
        ("GET", "/api/v3/depth", {"symbol": "ETHUSDT", "limit": "9" * 5000}, -1100),
        ("GET", "/api/v3/exchangeInfo", {"symbols": "[" * 2000}, -1100),
        ("GET", "/api/v3/exchangeInfo", {"symbols": '["NOPE"]'}, -1121),
        ("POST", "/api/v3/order/cancelReplace", ORDER | {"cancelReplaceMode": "NO"}, -1130),
        ("POST", "/sapi/v1/capital/withdraw/apply", {"coin": "ETH", "amount": "11", "address": "0x1"}, -4026),
    ]
    for method, path, params, code in cases:
        status, body = await client.signed(method, path, **params)
        assert (status, body["code"]) == (400, code), (path, params, body)


async def test_an_id_is_unique_among_open_orders_only(client: Client) -> None:
    assert (await client.order(newClientOrderId="one"))[0] == 200
    assert (await client.order(newClientOrderId="one"))[1] == {"code": -2010, "msg": "Duplicate order sent."}
    await client.signed("DELETE", "/api/v3/order", symbol="ETHUSDT", origClientOrderId="one")
    assert (await client.order(newClientOrderId="one"))[0] == 200
    for _ in range(4):
        assert (await client.order())[0] == 200
    assert (await client.order())[1] == {"code": -1013, "msg": "Filter failure: MAX_NUM_ORDERS"}


async def test_a_signature_covers_query_and_body_as_sent(client: Client) -> None:
    query = "symbol=ETHUSDT&side=BUY&type=LIMIT&timeInForce=GTC"
    body = f"quantity=0.01&price=2600&timestamp={int(time.time() * 1000)}"
    signature = client.sign(query + body)
    status, placed = await client.raw("POST", "/api/v3/order", query, f"{body}&signature={signature}")
    assert (status, placed["status"]) == (200, "NEW")


async def test_reply_kinds_test_orders_and_market_orders_without_a_market(client: Client) -> None:
    assert set((await client.order(newOrderRespType="ACK"))[1]) == {
        "symbol", "orderId", "orderListId", "clientOrderId", "transactTime",
    }  # fmt: skip
    assert "fills" not in (await client.order(newOrderRespType="RESULT"))[1]
    assert (await client.signed("POST", "/api/v3/order/test", **ORDER)) == (200, {})
    for size in ({"quantity": "1"}, {"quantity": None, "quoteOrderQty": "100"}):
        _, body = await client.order(type="MARKET", price=None, timeInForce=None, **size)
        assert (body["status"], body["executedQty"]) == ("EXPIRED", "0.00000000")
    assert len((await client.signed("GET", "/api/v3/openOrders", symbol="ETHUSDT"))[1]) == 2


async def test_cancel_replace_may_half_succeed(client: Client) -> None:
    _, first = await client.order()
    replace = ORDER | {"cancelReplaceMode": "STOP_ON_FAILURE", "price": "2601"}
    path = "/api/v3/order/cancelReplace"
    status, body = await client.signed("POST", path, **replace, cancelOrderId=first["orderId"])
    assert (status, body["newOrderResponse"]["price"]) == (200, "2601.00000000")
    status, body = await client.signed("POST", path, **replace, cancelOrderId=first["orderId"])
    assert (status, body["code"], body["data"]["newOrderResult"]) == (400, -2022, "NOT_ATTEMPTED")
    allow = replace | {"cancelReplaceMode": "ALLOW_FAILURE"}
    status, body = await client.signed("POST", path, **allow, cancelOrderId=first["orderId"])
    assert (status, body["code"], body["data"]["newOrderResult"]) == (409, -2021, "SUCCESS")
    huge = replace | {"quantity": "1000", "cancelOrderId": body["data"]["newOrderResponse"]["orderId"]}
    status, body = await client.signed("POST", path, **huge)
    assert (status, body["code"], body["data"]["cancelResult"]) == (409, -2021, "SUCCESS")


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("timeout_1007", 504, -1007), ("unknown_1000", 503, -1000), ("drop_reply", None, None)],
)
async def test_lost_replies_on_both_wires(client: Client, name: str, status: int | None, code: int | None) -> None:
    client.exchange.fault(name, count=2)
    if status is None:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.order(newClientOrderId="rest")
    else:
        got, body = await client.order(newClientOrderId="rest")
        assert (got, body["code"]) == (status, code)
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws-api/v3") as ws:
        await ws.send_str(client.call("order.place", **ORDER, newClientOrderId="socket"))
        if status is None:
            message = await ws.receive(timeout=5)
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        else:
            reply = await receive(ws)
            assert (reply["status"], reply["error"]["code"]) == (status, code)
    _, orders = await client.signed("GET", "/api/v3/openOrders")
    assert [order["clientOrderId"] for order in orders] == ["rest", "socket"]


async def test_an_order_may_be_accepted_after_its_timeout(client: Client) -> None:
    client.exchange.fault("accept_late", delay_ms=100)
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws-api/v3") as ws:
        await ws.send_str(client.call("userDataStream.subscribe.signature"))
        await receive(ws)
        assert (await client.order(newClientOrderId="late"))[0] == 504
        query = {"symbol": "ETHUSDT", "origClientOrderId": "late"}
        assert (await client.signed("GET", "/api/v3/order", **query))[1]["code"] == -2013
        assert (await receive(ws, is_event("executionReport")))["event"]["c"] == "late"
        assert (await client.signed("GET", "/api/v3/order", **query))[1]["status"] == "NEW"


async def test_a_broken_flow_is_not_a_quiet_market(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    snapshot = {"lastUpdateId": 1, "bids": [["99.00", "1"]], "asks": [["101.00", "1"]]}
    gap = {"e": "depthUpdate", "s": "ETHUSDT", "U": 5, "u": 6, "b": [], "a": []}
    with TapeWriter(tmp_path / "gap.gz") as tape:
        tape.write(0, json.dumps(snapshot))
        tape.write(400_000_000, json.dumps({"stream": "ethusdt@depth@100ms", "data": gap}))
    exchange = await start_exchange(ExchangeConfig(flow="tape", tape_path=str(tmp_path / "gap.gz")))
    assert exchange.mid("ETHUSDT") == 100
    async with session.ws_connect(f"{exchange.ws_url}/ws/ethusdt@trade") as ws:
        assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    with pytest.raises(TapeError, match="lost updates 2 to 4"):
        await exchange.stop()


async def test_faults_before_acceptance(client: Client) -> None:
    for name, status, code in (("rate_limit_429", 429, -1003), ("ban_418", 418, -1003), ("maintenance", 503, -1008)):
        client.exchange.fault(name, retry_after_s=3)
        got, body = await client.order()
        assert (got, body["code"]) == (status, code)
        assert name == "maintenance" or client.headers["Retry-After"] == "3"
    client.exchange.fault("clock_offset", offset_ms=10_000)
    assert (await client.order())[1]["code"] == -1021
    client.exchange.clear_faults()
    assert (await client.signed("GET", "/api/v3/openOrders"))[1] == []
    client.exchange.fault("timeout_1007", on="cancel")
    assert (await client.order(newClientOrderId="x"))[0] == 200
    status, _ = await client.signed("DELETE", "/api/v3/order", symbol="ETHUSDT", origClientOrderId="x")
    assert status == 504
    assert (await client.signed("GET", "/api/v3/openOrders"))[1] == []


async def test_the_admin_endpoint_arms_lists_and_clears(client: Client) -> None:
    url = f"{client.exchange.url}/_sandbox/fault"
    async with client.session.post(url, json={"name": "drop_reply", "count": 3}) as reply:
        assert (await reply.json())["armed"][0]["count"] == 3
    for bad in ({"name": "nothing"}, {"name": "drop_reply", "count": -1}, {"name": "drop_reply", "on": "x"}, {"x": 1}, []):
        async with client.session.post(url, json=bad) as reply:
            assert reply.status == 400
    async with client.session.delete(url) as reply:
        assert (await reply.json()) == {"faults": FAULTS, "armed": []}
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        async with client.session.post(url, json={"name": "drop_reply"}, headers=headers) as reply:
            assert reply.status == 403


async def test_user_events_tell_a_fill_step_by_step(client: Client, maker: Client) -> None:
    for price in ("2700", "2701"):
        await maker.order(side="SELL", price=price, quantity="0.5")
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws-api/v3") as ws:
        await ws.send_str(client.call("session.logon"))
        assert (await receive(ws))["result"]["apiKey"] == client.key
        await ws.send_str('{"id":"sub","method":"userDataStream.subscribe"}')
        assert (await receive(ws))["result"] == {"subscriptionId": 0}
        await ws.send_str(json.dumps({"id": 7, "method": "order.place", "params": ORDER | {"price": "2701", "quantity": "1.2"}}))
        events, reply = [], None
        async with asyncio.timeout(5):
            while reply is None or len(events) < 4:
                message = json.loads(await ws.receive_str())
                if message.get("id") == 7:
                    reply = message
                else:
                    assert message["subscriptionId"] == 0
                    events.append(message["event"])
        assert (reply["result"]["status"], len(reply["result"]["fills"])) == ("PARTIALLY_FILLED", 2)
        steps = [(e["x"], e["X"], e["l"], e["z"], e["Z"], e["N"]) for e in events if e["e"] == "executionReport"]
        assert steps == [
            ("NEW", "NEW", "0.00000000", "0.00000000", "0.00000000", None),
            ("TRADE", "PARTIALLY_FILLED", "0.50000000", "0.50000000", "1350.00000000", "ETH"),
            ("TRADE", "PARTIALLY_FILLED", "0.50000000", "1.00000000", "2700.50000000", "ETH"),
        ]
        assert events[-1]["e"] == "outboundAccountPosition"
        locked = {row["a"]: row["l"] for row in events[-1]["B"]}
        assert locked["USDT"] == "540.20000000"  # 0.2 at 2701
        client.exchange.deposit("alice", "USDT", "5")
        assert (await receive(ws, is_event("balanceUpdate")))["event"]["d"] == "5.00000000"


async def test_faults_of_user_events(client: Client) -> None:
    exchange = client.exchange
    async with client.session.ws_connect(f"{exchange.ws_url}/ws-api/v3") as ws:
        await ws.send_str(client.call("userDataStream.subscribe.signature"))
        await receive(ws)

        async def ids(fault: str, **details: Any) -> list[str]:
            exchange.fault(fault, **details)
            for name in "abc":
                await client.order(newClientOrderId=fault + name)
            await client.order(newClientOrderId=fault + "end")
            seen: list[str] = []
            while not seen or seen[-1] != "end":
                event = (await receive(ws, is_event("executionReport")))["event"]
                seen.append(event["c"].removeprefix(fault))
            await client.signed("DELETE", "/api/v3/openOrders", symbol="ETHUSDT")
            for _ in range(4):
                await receive(ws, lambda m: m["event"].get("x") == "CANCELED")
            return seen

        kind = {"kind": "executionReport"}
        assert await ids("swallow_user_event", skip=1, **kind) == ["a", "c", "end"]
        assert await ids("duplicate_user_event", skip=2, **kind) == ["a", "b", "c", "c", "end"]
        assert await ids("reorder_user_events", **kind) in (["a", "b", "c", "end"], ["b", "a", "c", "end"])
        exchange.fault("stall_stream", kind="user")
        await client.order(newClientOrderId="unheard")
        await ws.ping()
        await ws.send_str('{"id":"alive","method":"ping"}')
        assert await receive(ws, lambda m: m.get("id") == "alive")
        exchange.clear_faults("stall_stream")
        await client.order(newClientOrderId="heard")
        assert (await receive(ws, is_event("executionReport")))["event"]["c"] == "heard"


async def test_legacy_listen_keys(client: Client) -> None:
    path = "/api/v3/userDataStream"
    _, body = await client.raw("POST", path)
    assert (await client.raw("POST", path))[1] == body
    for url, unwrap in ((f"/ws/{body['listenKey']}", None), (f"/stream?streams={body['listenKey']}", "data")):
        async with client.session.ws_connect(f"{client.exchange.ws_url}{url}") as ws:
            await client.order(newClientOrderId="n" + str(unwrap))
            message = await receive(ws)
            assert unwrap is None or message["stream"] == body["listenKey"]
            assert (message[unwrap] if unwrap else message)["x"] == "NEW"
    assert await client.raw("PUT", path, f"listenKey={body['listenKey']}") == (200, {})
    assert await client.raw("DELETE", path, f"listenKey={body['listenKey']}") == (200, {})
    assert (await client.raw("PUT", path, f"listenKey={body['listenKey']}"))[1]["code"] == -1125
    assert (await client.raw("POST", path, key="no"))[0] == 401


async def test_depth_joins_the_snapshot_and_leaves_no_id_out() -> None:
    exchange = await start_exchange(ExchangeConfig(flow="model", seed=5))
    try:
        streams = f"{exchange.ws_url}/stream?streams=ethusdt@depth@100ms"
        async with aiohttp.ClientSession() as session, session.ws_connect(streams) as ws:
            diffs = [await receive(ws) for _ in range(2)]
            async with session.get(f"{exchange.url}/api/v3/depth?symbol=ETHUSDT&limit=5000") as reply:
                snapshot = await reply.json()
            diffs += [await receive(ws) for _ in range(4)]
        assert {diff["stream"] for diff in diffs} == {"ethusdt@depth@100ms"}
        last = snapshot["lastUpdateId"]
        assert diffs[0]["data"]["U"] <= last + 1
        book = {side: {row[0]: row[1] for row in snapshot[side]} for side in ("bids", "asks")}
        previous = None
        for diff in (message["data"] for message in diffs):
            assert previous is None or diff["U"] == previous + 1
            previous = diff["u"]
            if diff["u"] > last:
                for side, rows in (("bids", diff["b"]), ("asks", diff["a"])):
                    book[side].update(dict(rows))
        assert previous is not None
        assert previous > last
        bids = [float(price) for price, size in book["bids"].items() if float(size)]
        asks = [float(price) for price, size in book["asks"].items() if float(size)]
        assert max(bids) < min(asks)
        assert len(bids) > 100
    finally:
        await exchange.stop()


async def test_the_slow_depth_stream_leaves_no_id_out_either(client: Client) -> None:
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws/ethusdt@depth") as ws:
        last, prices = 0, []
        for second in range(2):
            for number in range(10):
                if number < 2:
                    await client.order(price=str(2600 + 2 * second + number))
                client.exchange.step()  # the timer's work, without the wait
            diff = await receive(ws)
            while diff["u"] < 2 * (second + 1):
                assert diff["U"] == last + 1
                last = diff["u"]
                prices += [row[0] for row in diff["b"]]
                diff = await receive(ws)
            assert diff["U"] == last + 1
            last = diff["u"]
            prices += [row[0] for row in diff["b"]]
        assert prices == [f"{price}.00000000" for price in range(2600, 2604)]


async def armed(client: Client) -> list[Any]:
    async with client.session.get(f"{client.exchange.url}/_sandbox/fault") as reply:
        return (await reply.json())["armed"]


async def test_a_gap_in_the_depth_can_be_injected(client: Client) -> None:
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws/ethusdt@depth@100ms") as ws:
        await client.order()
        first = await receive(ws)
        client.exchange.fault("depth_gap")
        await client.order(price="2601")
        async with asyncio.timeout(5):
            while await armed(client):  # noqa: ASYNC110 - the silence itself is the event
                await asyncio.sleep(0.01)
        await client.order(price="2602")
        assert (await receive(ws))["U"] == first["u"] + 2


async def test_market_streams(client: Client, maker: Client) -> None:
    names = ["bookTicker", "trade", "aggTrade", "depth5@100ms", "depth@1000ms", "ticker", "miniTicker", "kline_1m"]
    streams = [f"ethusdt@{name}" for name in names]
    async with client.session.ws_connect(f"{client.exchange.ws_url}/stream") as ws:
        await ws.send_str(json.dumps({"method": "SUBSCRIBE", "params": [*streams, "ethusdt@nonsense"], "id": 1}))
        assert await receive(ws) == {"result": None, "id": 1}
        await ws.send_str('{"method":"LIST_SUBSCRIPTIONS","id":2}')
        assert await receive(ws) == {"result": sorted(streams), "id": 2}
        await maker.order(side="SELL", price="2700", quantity="0.5")
        await client.order(price="2700", quantity="0.2")
        seen: dict[str, Any] = {}
        async with asyncio.timeout(5):
            while set(seen) < set(streams):
                message = json.loads(await ws.receive_str())
                seen[message["stream"]] = message["data"]
        assert seen["ethusdt@trade"]["m"] is False
        assert seen["ethusdt@aggTrade"]["q"] == "0.20000000"
        assert (seen["ethusdt@bookTicker"]["a"], seen["ethusdt@bookTicker"]["A"]) == ("2700.00000000", "0.30000000")
        assert seen["ethusdt@depth5@100ms"]["asks"] == [["2700.00000000", "0.30000000"]]
        assert seen["ethusdt@depth@1000ms"]["a"] == [["2700.00000000", "0.30000000"]]
        assert seen["ethusdt@ticker"]["c"] == seen["ethusdt@kline_1m"]["k"]["c"] == "2700.00000000"
        await ws.send_str(json.dumps({"method": "UNSUBSCRIBE", "params": streams, "id": 3}))
        assert await receive(ws, lambda m: m.get("id") == 3) == {"result": None, "id": 3}
        assert client.exchange.listeners() == {}


async def test_hostile_frames_get_an_error_and_harm_nobody(client: Client) -> None:
    bad = ["", "x", "[]", "[" * 60_000, '{"id":' + "9" * 5000 + "}", '{"method":1,"id":{}}', '{"params":{"a":NaN}}', "\u0000"]
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws-api/v3") as ws:
        for text in bad:
            await ws.send_str(text)
            reply = await receive(ws)
            assert (reply["status"], reply["error"]["code"]) in ((400, -1135), (400, -1020)), (text[:20], reply)
        calls = [
            ({"method": "order.place", "params": {"apiKey": client.key, "signature": "0", "timestamp": 1.5}}, -1100),
            ({"method": "order.place", "params": {"apiKey": {}, "signature": "0"}}, -1102),
            ({"method": "order.place"}, -1102),
            ({"method": "depth", "params": {"symbol": "ETHUSDT", "limit": 1e300}}, -1100),
            ({"method": "depth", "params": {"symbol": ["ETHUSDT"]}}, -1100),
            ({"method": "userDataStream.subscribe"}, -1102),
            ({"method": "no.such"}, -1020),
        ]
        for call, code in calls:
            await ws.send_str(json.dumps({"id": "q"} | call))
            assert (await receive(ws))["error"]["code"] == code, call
    async with client.session.ws_connect(f"{client.exchange.ws_url}/ws") as ws:
        for text in [*bad, '{"method":"SUBSCRIBE","params":"a","id":1}', '{"method":"SUBSCRIBE","params":[1],"id":1}']:
            await ws.send_str(text)
            assert "error" in await receive(ws)
        await ws.send_str("x" * 100_000)
        assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    async with client.session.post(f"{client.exchange.url}/api/v3/order", data=b"\xff" * 100_000) as reply:
        assert reply.status == 413
    for line in (b"GET /api/v3/account?timestamp=1&signature=\xff\xed\xa0\x80 HTTP/1.1", b"POST /api/v3/order?\xff HTTP/1.1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.exchange.port)
        key = client.key.encode()
        writer.write(line + b"\r\nHost: x\r\nX-MBX-APIKEY: " + key + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xff\xfe")
        assert b" 400 " in (await asyncio.wait_for(reader.read(), 5)).splitlines()[0]
        writer.close()
    status, body = await client.raw("POST", "/api/v3/order", "%ff=%zz&&=&symbol")
    assert status == 400, body
    assert (await client.order())[0] == 200


async def test_a_slow_reader_is_cut_off_and_the_others_go_on(client: Client) -> None:
    exchange = client.exchange
    exchange.venue.house_place("ETHUSDT", 1, 270_000, 10**9, 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", exchange.port, limit=1024)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    writer.write(
        b"GET /ws/ethusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")  # and never again
    async with client.session.ws_connect(f"{exchange.ws_url}/ws/ethusdt@trade") as healthy:
        count = 0
        async with asyncio.timeout(20):
            while exchange.listeners().get("ethusdt@trade", 0) > 1:
                for _ in range(200):
                    exchange.venue.house_place("ETHUSDT", 0, 270_000, 1, 0, time_in_force="IOC")
                    count += 1
                    await healthy.receive_str()
        assert count < 100_000, "what is queued for a reader is bounded"
        exchange.venue.house_place("ETHUSDT", 0, 270_000, 1, 0, time_in_force="IOC")
        assert json.loads(await healthy.receive_str())["t"] == count + 1
    writer.close()


async def test_weights_are_counted_and_limits_enforced_on_request(client: Client, session: aiohttp.ClientSession) -> None:
    await client.order()
    assert client.headers["X-MBX-ORDER-COUNT-10S"] == "1"
    before = int(client.headers["X-MBX-USED-WEIGHT-1M"])
    await client.signed("GET", "/api/v3/account")
    assert int(client.headers["X-MBX-USED-WEIGHT-1M"]) in (before + 20, 20)
    strict = await start_exchange(ExchangeConfig(flow="none", enforce_limits=True))
    try:
        strict.deposit("alice", "USDT", "100")
        limited = Client(strict, "alice", session)
        bodies = [(await limited.order(price="0.01"))[1]["code"] for _ in range(2 * ORDER_LIMIT_10S + 1)]
        assert bodies[0] == -1013
        assert -1015 in bodies
        assert int(limited.headers["Retry-After"]) <= 10
    finally:
        await strict.stop()


async def test_amendments_and_replacements_on_the_web_socket_too(client: Client, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{client.exchange.ws_url}/ws-api/v3") as ws:
        await ws.send_str(client.call("userDataStream.subscribe.signature"))
        await client.order(newClientOrderId="a")
        wanted = {"symbol": "ETHUSDT", "origClientOrderId": "a", "newQty": "0.005"}
        await ws.send_str(client.call("order.amend.keepPriority", **wanted, newClientOrderId="b"))
        event = (await receive(ws, lambda m: m.get("event", {}).get("x") == "REPLACED"))["event"]
        assert [event[name] for name in ("c", "C", "X", "q", "z")] == ["b", "a", "NEW", "0.00500000", "0.00000000"]
        reply = await receive(ws, lambda m: m.get("id") == "order.amend.keepPriority")
        amended = reply["result"]["amendedOrder"]
        assert [amended[name] for name in ("origClientOrderId", "clientOrderId", "qty")] == ["a", "b", "0.00500000"]
        assert (await client.signed("GET", "/api/v3/account"))[1]["balances"][0]["locked"] == "13.00000000"
        _, refused = await client.signed(
            "PUT", "/api/v3/order/amend/keepPriority", symbol="ETHUSDT", orderId=event["i"], newQty="0.006"
        )
        assert refused["code"] == -2038
        mode = {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": "b"}
        client.exchange.fault("partial_cancel_replace")
        await ws.send_str(client.call("order.cancelReplace", **ORDER, **mode))
        reply = await receive(ws, lambda m: m.get("id") == "order.cancelReplace")
        assert (reply["status"], reply["error"]["code"]) == (409, -2021)
        data = reply["error"]["data"]
        assert (data["cancelResult"], data["newOrderResult"]) == ("SUCCESS", "FAILURE")
        assert (data["cancelResponse"]["origClientOrderId"], data["newOrderResponse"]["code"]) == ("b", -2010)


async def test_the_account_can_be_withdrawn_from(client: Client) -> None:
    await client.order(side="SELL", price="2700", quantity="4")
    path = "/sapi/v1/capital/withdraw/apply"
    assert (await client.signed("POST", path, coin="ETH", amount="6", address="0x1"))[1]["code"] == -1002
    client.exchange.fault("withdrawal_right", account="alice")
    assert (await client.signed("POST", path, coin="ETH", amount="6.1", address="0x1"))[1]["code"] == -4026
    assert "id" in (await client.signed("POST", path, coin="ETH", amount="6", address="0x1", network="ETH"))[1]
    _, account = await client.signed("GET", "/api/v3/account")
    assert {"asset": "ETH", "free": "0.00000000", "locked": "4.00000000"} in account["balances"]
    assert [row["amount"] for row in (await client.signed("GET", "/sapi/v1/capital/withdraw/history"))[1]] == ["6.00000000"]
    assert len((await client.signed("GET", "/sapi/v1/capital/deposit/hisrec", coin="ETH"))[1]) == 1


async def test_several_symbols_and_a_taken_port(client: Client) -> None:
    _, info = await client.raw("GET", "/api/v3/exchangeInfo")
    assert [row["symbol"] for row in info["symbols"]] == ["ETHUSDT", "BTCUSDT"]
    _, body = await client.order(symbol="BTCUSDT", quantity="0.00020", price="50000")
    assert body["origQty"] == "0.00020000"
    with pytest.raises(OSError, match="address already in use"):
        await start_exchange(ExchangeConfig(flow="none", port=client.exchange.port))
    for amount in ("-1", "1e9", "", "0.000000001"):
        with pytest.raises(ValueError, match="plain decimal"):
            client.exchange.deposit("alice", "ETH", amount)
    with pytest.raises(ValueError, match="the names are: drop_reply"):
        client.exchange.fault("nothing")
