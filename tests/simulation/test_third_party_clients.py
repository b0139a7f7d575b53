"""Unmodified ccxt and python-binance trade on the sandbox exchange; only their URLs are changed."""

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import ccxt.pro as ccxt
import pytest

from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange

with warnings.catch_warnings():  # python-binance uses the old names of websockets
    warnings.simplefilter("ignore", DeprecationWarning)
    from binance import AsyncClient, BinanceSocketManager

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

S = "ETH/USDT"
ONE_CALL = {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False}


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    exchange = await start_exchange(ExchangeConfig(flow="none", key_seed="third-party"))
    for account in ("alice", "bob"):
        exchange.deposit(account, "USDT", "1000000")
        exchange.deposit(account, "ETH", "100")
    yield exchange
    await exchange.stop()


def relocate(urls: Any, host: str) -> Any:
    """Every URL of a ccxt exchange with the sandbox's host; paths stay."""
    if isinstance(urls, dict):
        return {name: relocate(url, host) for name, url in urls.items()}
    scheme, path = re.match(r"(\w+)://[^/]+(.*)", urls).groups()  # type: ignore[union-attr]
    return f"{'ws' if scheme.startswith('ws') else 'http'}://{host}{path}"


def ccxt_client(exchange: Exchange, account: str) -> Any:
    key, secret = exchange.add_key(account)
    host = f"127.0.0.1:{exchange.port}"
    client = ccxt.binance({"apiKey": key, "secret": secret, "enableRateLimit": False, "options": dict(ONE_CALL)})
    client.urls["api"] = relocate(client.urls["api"], host)
    client.urls["api"]["ws"]["spot"] = f"ws://{host}/stream/ws"
    return client


@pytest.fixture
async def alice(exchange: Exchange) -> AsyncIterator[Any]:
    client = ccxt_client(exchange, "alice")
    await client.load_markets()
    yield client
    await client.close()


@pytest.fixture
async def bob(exchange: Exchange) -> AsyncIterator[Any]:
    client = ccxt_client(exchange, "bob")
    await client.load_markets()
    yield client
    await client.close()


async def until(read: Callable[[], Awaitable[Any]], is_done: Callable[[Any], bool]) -> Any:
    """Await updates until one satisfies."""
    async with asyncio.timeout(10):
        while True:
            value = await read()
            if is_done(value):
                return value


async def test_ccxt_trades_over_rest(alice: Any, bob: Any) -> None:
    for step in range(3):
        await bob.create_order(S, "limit", "sell", 1, 2700 + step)
    bought = await alice.create_order(S, "limit", "buy", 1.5, 2701, {"clientOrderId": "abc1"})
    assert (bought["status"], bought["filled"], bought["clientOrderId"]) == ("closed", 1.5, "abc1")
    assert [(t["price"], t["amount"], t["fee"]["currency"]) for t in bought["trades"]] == [
        (2700, 1, "ETH"),
        (2701, 0.5, "ETH"),
    ]
    partial = await alice.create_order(S, "limit", "buy", 1, 2701)
    assert (partial["status"], partial["filled"]) == ("open", 0.5)
    assert (await alice.fetch_order(partial["id"], S))["remaining"] == 0.5
    assert [o["id"] for o in await alice.fetch_open_orders(S)] == [partial["id"]]
    cancelled = await alice.cancel_order(partial["id"], S)
    assert (cancelled["status"], cancelled["filled"]) == ("canceled", 0.5)
    fills = await alice.fetch_my_trades(S)
    assert sum(Decimal(str(t["amount"])) for t in fills) == 2
    assert (await alice.fetch_balance())["ETH"]["total"] == 101.998  # 2 ETH less 10 bps, taken in ETH
    assert (await bob.fetch_balance())["USDT"]["total"] == pytest.approx(1_000_000 + (2700 + 2701) * 0.999)
    book = await alice.fetch_order_book(S)
    assert (book["bids"], book["asks"]) == ([], [[2702.0, 1.0]])
    assert [t["price"] for t in await alice.fetch_trades(S)] == [2700.0, 2701.0, 2701.0]
    assert (await alice.fetch_ticker(S))["last"] == 2701
    assert (await alice.fetch_ohlcv(S))[-1][4] == 2701
    assert (await alice.fetch_trading_fee(S))["taker"] == 0.001
    assert len(await alice.fetch_orders(S)) == 2


KINDS = (
    (("limit", "buy", 0.01, 2600, {"postOnly": True}), "open"),
    (("limit", "buy", 0.01, 2700, {"timeInForce": "IOC"}), "closed"),
    (("limit", "buy", 5, 2700, {"timeInForce": "FOK"}), "expired"),
    (("market", "buy", 0.5, None, {}), "closed"),
    (("market", "buy", 1, None, {"cost": 100}), "closed"),
    (("limit", "buy", 0.01, 2800, {"postOnly": True}), ccxt.OrderImmediatelyFillable),
    (("limit", "buy", 5000, 2600, {}), ccxt.InsufficientFunds),
    (("limit", "buy", 0.001, 2600, {}), ccxt.BadRequest),  # -1013: ccxt maps it to InvalidOrder on the real host only
)


async def test_ccxt_order_kinds(alice: Any, bob: Any) -> None:
    await bob.create_order(S, "limit", "sell", 1, 2700)
    for arguments, expected in KINDS:
        if isinstance(expected, str):
            order = await alice.create_order(S, *arguments)
            assert order["status"] == expected, arguments
        else:
            with pytest.raises(expected):
                await alice.create_order(S, *arguments)


async def test_ccxt_replaces_and_repeats(alice: Any) -> None:
    first = await alice.create_order(S, "limit", "buy", 0.01, 2600, {"clientOrderId": "one"})
    with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
        await alice.create_order(S, "limit", "buy", 0.01, 2600, {"clientOrderId": "one"})
    second = await alice.edit_order(first["id"], S, "limit", "buy", 0.02, 2601)
    assert (second["price"], second["amount"]) == (2601, 0.02)
    assert (await alice.fetch_order(None, S, {"clientOrderId": "one"}))["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        await alice.cancel_order(first["id"], S)
    assert len(await alice.cancel_all_orders(S)) == 1


async def heard(exchange: Exchange, *streams: str) -> None:
    """Wait until somebody listens to each of the streams."""
    async with asyncio.timeout(10):
        while not set(streams) <= set(exchange.listeners()):  # noqa: ASYNC110 - the client does not tell
            await asyncio.sleep(0.01)


async def test_ccxt_streams_books_trades_and_fills(exchange: Exchange, alice: Any, bob: Any) -> None:
    waits = [
        asyncio.create_task(until(lambda: alice.watch_order_book(S), lambda b: b["bids"] and b["bids"][0][0] == 2650)),
        asyncio.create_task(until(lambda: alice.watch_trades(S), lambda rows: rows[-1]["price"] == 2700)),
        asyncio.create_task(until(alice.watch_my_trades, lambda rows: rows[-1]["amount"] == 0.5)),
        asyncio.create_task(until(alice.watch_orders, lambda rows: rows[-1]["status"] == "canceled")),
        asyncio.create_task(until(alice.watch_balance, lambda b: b["ETH"]["total"] == 100.4995)),
        asyncio.create_task(until(lambda: alice.watch_ticker(S), lambda t: t["last"] == 2700)),
    ]
    await heard(exchange, "ethusdt@depth@100ms", "ethusdt@trade", "ethusdt@miniTicker", "user:alice")
    await bob.create_order(S, "limit", "sell", 0.5, 2700)
    await alice.create_order(S, "limit", "buy", 0.5, 2700)
    await bob.create_order(S, "limit", "buy", 1, 2650)
    order = await alice.create_order_ws(S, "limit", "buy", 0.01, 2600)
    assert order["status"] == "open"
    await alice.cancel_order_ws(order["id"], S)
    book, _, fills, _, _, _ = await asyncio.gather(*waits)
    assert book["bids"][0] == [2650, 1]
    assert fills[-1]["fee"] == {"currency": "ETH", "cost": 0.0005}


LOST = (
    ("drop_reply", ccxt.ExchangeNotAvailable),
    ("timeout_1007", ccxt.RequestTimeout),
    ("unknown_1000", ccxt.OperationFailed),
)


async def test_a_lost_reply_leaves_the_order_open(exchange: Exchange, alice: Any) -> None:
    for fault, raised in LOST:
        exchange.fault(fault)
        with pytest.raises(raised) as caught:
            await alice.create_order(S, "limit", "buy", 0.01, 2600, {"clientOrderId": fault})
        assert type(caught.value) is raised
        assert (await alice.fetch_order(None, S, {"clientOrderId": fault}))["status"] == "open"


async def test_a_rate_limit_is_not_an_execution(exchange: Exchange, alice: Any) -> None:
    exchange.fault("rate_limit_429", retry_after_s=7)
    with pytest.raises(ccxt.DDoSProtection):
        await alice.create_order(S, "limit", "buy", 0.01, 2600)
    assert alice.last_response_headers["Retry-After"] == "7"
    assert await alice.fetch_open_orders(S) == []


async def test_python_binance(exchange: Exchange, bob: Any) -> None:
    key, secret = exchange.add_key("alice")
    client = AsyncClient(key, secret)
    client.API_URL, client.ws_api._url = f"{exchange.url}/api", f"{exchange.ws_url}/ws-api/v3"
    client.ws_api.TIMEOUT = 1  # how long its own close waits for a last message
    sockets = BinanceSocketManager(client)
    sockets.STREAM_URL = f"{exchange.ws_url}/stream/"
    assert len((await client.get_exchange_info())["symbols"]) == 1
    assert (await client.get_asset_balance("USDT"))["free"] == "1000000.00000000"
    async with sockets.depth_socket("ETHUSDT", interval=100) as depth, sockets.user_socket() as user:
        await bob.create_order(S, "limit", "sell", 1, 2700)
        diff = await until(depth.recv, lambda m: m["e"] == "depthUpdate")
        assert diff["a"] == [["2700.00000000", "1.00000000"]]
        filled = await client.order_limit_buy(symbol="ETHUSDT", quantity="0.4000", price="2700.00")
        assert (filled["status"], filled["fills"][0]["commissionAsset"]) == ("FILLED", "ETH")
        event = await until(user.recv, lambda m: m.get("x") == "TRADE")
        assert (event["z"], event["X"], event["n"], event["N"]) == ("0.40000000", "FILLED", "0.00040000", "ETH")
        placed = await client.ws_create_order(
            symbol="ETHUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="2600.00"
        )
        assert [o["orderId"] for o in await client.get_open_orders(symbol="ETHUSDT")] == [placed["orderId"]]
        gone = await client.cancel_order(symbol="ETHUSDT", orderId=placed["orderId"])
        assert gone["status"] == "CANCELED"
        event = await until(user.recv, lambda m: m.get("x") == "CANCELED")
        assert event["C"] == placed["clientOrderId"]
    assert len(await client.get_my_trades(symbol="ETHUSDT")) == 1
    await client.close_connection()


async def test_python_binance_trades_against_the_model() -> None:
    exchange = await start_exchange(ExchangeConfig(flow="model", seed=3))
    exchange.deposit("carol", "USDT", "100000")
    key, secret = exchange.add_key("carol")
    client = AsyncClient(key, secret)
    client.API_URL = f"{exchange.url}/api"
    book = await client.get_order_book(symbol="ETHUSDT", limit=1000)
    assert len(book["bids"]) > 100
    order = await client.order_market_buy(symbol="ETHUSDT", quantity="1.0000")
    assert order["status"] == "FILLED"
    mid = exchange.mid("ETHUSDT")
    assert mid is not None
    assert abs(Decimal(order["cummulativeQuoteQty"]) / mid - 1) < Decimal("0.01")
    await client.close_connection()
    await exchange.stop()
