"""The whole agent, as its user runs it, against the real sandbox exchange and the real contracts, with faults on purpose."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from agent.app import running_engine
from agent.cli.templates import write_config
from agent.config import load
from agent.domain.amount import group_asset, parse_amount
from agent.domain.events import EngineStopped, Event, OrderReported, OrderSent
from agent.domain.intent import Intent
from agent.domain.order import Order, OrderState
from agent.domain.plan import SwapBatch
from agent.engine.loop import Engine
from agent.journal.sqlite import SqliteJournal
from agent.keys.keystore import Keystore
from agent.keys.secrets import Secret
from agent.simulation.chain.arbitrage import arbitrage_once
from agent.simulation.chain.rpc import Rpc
from agent.simulation.chain.world import SandboxChain, start_chain
from agent.simulation.exchange.sandbox import Exchange, ExchangeConfig, start_exchange
from agent.simulation.world import Info

pytestmark = [pytest.mark.chain, pytest.mark.timeout(180)]
SYMBOL, WAIT_S = "ETHUSDT", 60.0
S = OrderState


class Scene:
    """A running sandbox, the engine that trades in it, and its journal."""

    def __init__(self, exchange: Exchange, chain: SandboxChain, engine: Engine, home: Path) -> None:
        self.exchange, self.chain, self.engine, self.home = exchange, chain, engine, home

    async def sell(self, quantity: str, slices: int = 1, slippage_bps: int = 100) -> str:
        intent = Intent(
            "p1", "main", "test", "sell", parse_amount(quantity, group_asset("ETH")), "USDT", slippage_bps,
            self.engine.now_ns() + 120 * 10**9, slices, 0,
        )  # fmt: skip
        assert await self.engine.submit(intent) == ()
        return intent.intent_id

    async def until(self, met: Callable[[], object]) -> None:
        """Looks again after every record."""
        records = self.engine.events()
        async with asyncio.timeout(WAIT_S):
            while not met():
                await anext(records)

    async def ended(self, name: str) -> None:
        await self.until(lambda: not self.engine.state.parents[name].is_live)

    def orders(self, *states: OrderState) -> list[Order]:
        return [order for order in self.engine.state.orders.values() if not states or order.state in states]

    def journal(self) -> list[Event]:
        journal = SqliteJournal(self.home / "journal.sqlite", read_only=True)
        try:
            return [record.event for record in journal.read()]
        finally:
            journal.close()

    async def agrees(self) -> None:
        """0 breaks, and nothing sent or booked twice."""
        assert await self.engine.reconcile() == []
        sends = Counter((event.order_id, event.attempt) for event in self.journal() if isinstance(event, OrderSent))
        assert set(sends.values()) == {1}
        keys = [fill.key for order in self.orders() for fill in order.fills]
        assert len(keys) == len(set(keys))
        parent = self.engine.state.parents["p1"]
        assert parent.filled <= parent.intent.quantity


@contextlib.asynccontextmanager
async def trading(
    home: Path, fault: Callable[[Exchange], None] = lambda _: None, orders_over: str = "rest"
) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        chain = await start_chain("anvil", block_time_s=0.5)
        stack.push_async_callback(chain.stop)
        exchange = await start_exchange(ExchangeConfig(seed=7))
        stack.push_async_callback(exchange.stop)
        for coin, text in {"ETH": "60", "USDT": "250000"}.items():
            exchange.deposit("user", coin, text)
        settings = await written(home, exchange, chain)
        kind, text = 'kind = "ccxt_exchange"\n', settings.read_text()
        assert kind in text
        settings.write_text(text.replace(kind, f'{kind}orders_over = "{orders_over}"\n'))
        fault(exchange)
        engine = await stack.enter_async_context(running_engine(load(settings)))
        async with asyncio.timeout(WAIT_S):
            await engine.ready()
        await engine.priced("ETH/USDT")
        yield Scene(exchange, chain, engine, home)


async def written(home: Path, exchange: Exchange, chain: SandboxChain) -> Path:
    """The settings file, a new key with its password, and the exchange's secret, as `isthmus sandbox up` leaves them."""
    api_key, secret = exchange.add_key("user")
    for name, text in {"exchange.secret": secret, "wallet.password": "a test"}.items():
        (home / name).touch(mode=0o600)
        (home / name).write_text(text)
    wallet = Keystore(home / "keystore", 2**12).new("main", Secret("a test"))
    await chain.fund(wallet, {"ETH": "5", "WETH": "60", "USDT": "250000"})
    book = chain.deployment
    await asyncio.to_thread(move_pools, chain, float(exchange.mid(SYMBOL) or 0))
    info = Info(
        os.getpid(), int(time.time()), 600, "anvil", "", exchange.url, exchange.ws_url, api_key, str(home / "exchange.secret"),
        chain.rpc_url, chain.chain_id, wallet, {name: (token.address, token.decimals) for name, token in book.tokens.items()},
        book.contracts, msgspec.to_builtins(book.pools),
    )  # fmt: skip
    write_config(home / "isthmus.toml", info)
    return home / "isthmus.toml"


def move_pools(chain: SandboxChain, mid: float) -> None:
    rpc = Rpc(chain.rpc_url)
    try:
        arbitrage_once(rpc, chain.deployment, mid)
    finally:
        rpc.close()


@pytest.mark.parametrize("orders_over", ["rest", "websocket"])
async def test_a_parent_trades_on_the_exchange_and_on_the_chain(tmp_path: Path, orders_over: str) -> None:
    async with trading(tmp_path, orders_over=orders_over) as scene:
        await scene.ended(await scene.sell("30", slices=2))
        assert scene.engine.state.parents["p1"].status == "FILLED"
        venues = {fill.venue for order in scene.orders() for fill in order.fills}
        assert venues == {"binance", "uniswap"}
        await scene.agrees()
    assert isinstance(scene.journal()[-1], EngineStopped)


@pytest.mark.parametrize("name", ["drop_reply", "timeout_1007", "unknown_1000"])
async def test_an_answer_that_never_came_is_asked_for_and_booked_once(tmp_path: Path, name: str) -> None:
    def silence(exchange: Exchange) -> None:
        exchange.fault(name, on="place", count=1)
        exchange.fault("stall_stream", kind="user")  # and the private stream does not tell either

    async with trading(tmp_path, silence) as scene:
        await scene.ended(await scene.sell("20"))
        doubts = [e.order_id for e in scene.journal() if isinstance(e, OrderReported) and e.state is S.UNKNOWN]
        (doubted,) = set(doubts)
        assert scene.engine.state.orders[doubted].fills
        assert scene.engine.state.parents["p1"].status == "FILLED"
        assert not scene.orders(S.UNKNOWN, S.SENT)
        await scene.agrees()


async def test_an_exchange_in_maintenance_refuses_and_the_parent_comes_back(tmp_path: Path) -> None:
    async with trading(tmp_path, lambda exchange: exchange.fault("maintenance", on="place", count=1)) as scene:
        await scene.ended(await scene.sell("20"))
        assert [order.plan.venue for order in scene.orders(S.REJECTED)] == ["binance"]
        assert scene.engine.state.parents["p1"].status == "FILLED"
        await scene.agrees()


async def test_a_batch_that_the_market_overtook_is_taken_back_and_the_parent_takes_another_route(tmp_path: Path) -> None:
    async with trading(tmp_path) as scene:
        await scene.sell("30")

        def batches() -> list[Order]:
            return [order for order in scene.orders(S.OPEN) if isinstance(order.plan, SwapBatch)]

        # no block from the permission on: the batch waits in the node, which then forgets it
        await scene.until(lambda: scene.orders(S.MINED))
        await scene.chain.call("evm_setIntervalMining", 0)
        await scene.until(batches)
        (batch,) = batches()
        await scene.chain.call("anvil_dropAllTransactions")
        await scene.chain.call("evm_setIntervalMining", 1)
        await asyncio.to_thread(
            move_pools, scene.chain, float(scene.exchange.mid(SYMBOL) or 0) * 0.985
        )  # beyond the limit, not so far that nobody knows the price
        # taken back by a transaction to oneself; or a block came first, and it reverted: nothing traded, the gas is booked
        await scene.until(lambda: batch.state in (S.CANCELLED, S.REVERTED))
        assert batch.gas_paid
        assert batch.fills == []
        await scene.ended("p1")
        assert scene.engine.state.parents["p1"].status == "FILLED"
        later = scene.engine.state.parents["p1"].orders
        assert later.index(batch.order_id) < len(later) - 1, "the rest took another way"
        await scene.agrees()


async def test_a_cut_connection_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    async with trading(tmp_path) as scene:
        await scene.sell("20", slices=3)
        await scene.until(lambda: scene.orders(S.FILLED))
        scene.exchange.fault("disconnect", kind="all")
        await scene.ended("p1")
        assert scene.engine.state.parents["p1"].status == "FILLED"
        await scene.agrees()


async def test_pools_that_nobody_trades_stay_in_the_picture(tmp_path: Path) -> None:
    async with trading(tmp_path) as scene:
        world = scene.engine.world
        start = next(iter(world.market.heads().values())).number
        async with asyncio.timeout(WAIT_S):
            while next(iter(world.market.heads().values())).number < start + 8:  # noqa: ASYNC110  # the head has no event
                await asyncio.sleep(0.1)
        view = world.market.view("ETH/USDT", scene.engine.now_ns())
        assert view.untrusted == ()
        assert len(view.sources) == 7
