"""Differences that arose while the agent was away: the start is refused, the causes are told, and each is put right."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, isthmus

from agent.app import running_engine
from agent.config import load
from agent.domain.amount import group_asset, parse_amount
from agent.domain.errors import StartRefusedError
from agent.domain.events import EngineStopped, OrderClaimed
from agent.domain.intent import Intent
from agent.journal.sqlite import SqliteJournal
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.filters import parse_order

pytestmark = pytest.mark.timeout(180)
WAIT_S = 60.0


class Desk:
    """A sandbox exchange, the settings of an agent that trades there, and its command line."""

    def __init__(self, exchange: Exchange, home: Path) -> None:
        self.exchange, self.home = exchange, home

    async def says(self, *words: str) -> Done:
        return await asyncio.to_thread(isthmus, *words, "--config", self.home / "isthmus.toml", at=self.home)

    async def trade(self) -> None:
        """One start, one sale, and a clean end."""
        async with running_engine(load(self.home / "isthmus.toml")) as engine, asyncio.timeout(WAIT_S):
            await engine.ready()
            await engine.priced("ETH/USDT")
            quantity = parse_amount("2", group_asset("ETH"))
            intent = Intent("p1", "main", "test", "sell", quantity, "USDT", 100, engine.now_ns() + 60 * 10**9)
            assert await engine.submit(intent) == ()
            await engine.finished("p1")
            assert await engine.reconcile() == []

    async def start(self) -> str:
        """Why a start is refused; empty when it is not."""
        try:
            async with running_engine(load(self.home / "isthmus.toml")) as engine, asyncio.timeout(WAIT_S):
                await engine.ready()
        except StartRefusedError as error:
            return str(error)
        return ""

    def by_hand(self, price: str, quantity: str) -> None:
        """Somebody uses the same account beside the agent."""
        fields: dict[str, Any] = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
        venue = self.exchange.venue
        order = parse_order(fields | {"quantity": quantity, "price": price, "newClientOrderId": "by-hand"}, venue.rules)
        venue.place("user", order, time.time_ns() // 10**6)

    def journal(self) -> list[object]:
        with contextlib.closing(SqliteJournal(self.home / "journal.sqlite", read_only=True)) as journal:
            return [record.event for record in journal.read()]


@contextlib.asynccontextmanager
async def desk_at(home: Path) -> AsyncIterator[Desk]:
    exchange = await start_exchange(ExchangeConfig(seed=7))
    try:
        exchange.deposit("user", "ETH", "60")
        exchange.deposit("user", "USDT", "250000")
        key, secret = exchange.add_key("user")
        (home / "exchange.secret").touch(mode=0o600)
        (home / "exchange.secret").write_text(secret)
        (home / "isthmus.toml").write_text(
            'home = "."\n[venues.binance]\nkind = "ccxt_exchange"\n'
            f'url = "{exchange.url}"\nws_url = "{exchange.ws_url}"\napi_key = "{key}"\n'
            'secret = "file:exchange.secret"\nsymbols = ["ETH/USDT"]\ngroups = { ETH = "ETH", USDT = "USDT" }\n'
        )
        desk = Desk(exchange, home)
        await desk.trade()
        yield desk
    finally:
        await exchange.stop()


async def test_a_deposit_in_the_night_refuses_the_start_until_a_person_explains_it(tmp_path: Path) -> None:
    async with desk_at(tmp_path) as desk:
        desk.exchange.deposit("user", "ETH", "1.5")
        assert "1.5 ETH@binance more outside" in (why := await desk.start())
        assert why.startswith("not started: ")
        assert "--adopt REASON" in why
        assert isinstance(desk.journal()[-1], EngineStopped)
        refused = await desk.says("order", "submit", "ETH/USDT", "--side", "sell", "--qty", "1", "--json")
        assert (refused.code, refused.json["status"]) == (4, "error"), refused
        told = await desk.says("reconcile", "--json")
        assert told.code == 4
        assert [one["cause"] for one in told.json["breaks"]] == [
            "unexplained: 1.5 ETH@binance more outside (a deposit, or a trade by hand)"
        ]
        tried = await desk.says("reconcile", "--repair", "--json")
        assert tried.code == 4, "no program explains money"
        assert [one["is_possible"] for one in tried.json["repairs"]] == [False]
        done = await desk.says("reconcile", "--adopt", "a deposit of 1.5 ETH", "--json")
        assert (done.code, done.json["breaks"]) == (0, [])
        assert await desk.start() == ""


async def test_an_order_by_hand_refuses_the_start_and_a_repair_takes_it_over(tmp_path: Path) -> None:
    async with desk_at(tmp_path) as desk:
        desk.by_hand("1000.00", "3")
        assert "the journal does not know it" in await desk.start()
        before = len(desk.journal())
        rehearsed = await desk.says("reconcile", "--repair", "--dry-run", "--json")
        assert rehearsed.code == 4
        assert [(one["about"], one["is_possible"]) for one in rehearsed.json["repairs"]] == [("by-hand", True)]
        assert not any(isinstance(event, OrderClaimed) for event in desk.journal()[before:]), "a rehearsal changes nothing"
        text = await desk.says("reconcile", "--repair")
        assert text.code == 0, text
        assert "take the order over" in " ".join(text.out.split())
        assert [event.plan.order_id for event in desk.journal() if isinstance(event, OrderClaimed)] == ["by-hand"]
        assert await desk.start() == ""
        again = await desk.says("reconcile", "--repair", "--json")
        assert (again.code, again.json["repairs"]) == (0, []), "twice does nothing"
        desk.exchange.deposit("user", "USDT", "5")
        adopted = await desk.says("reconcile", "--adopt", "a deposit of 5 USDT", "--json")
        assert adopted.code == 4
        assert "not taken over while order by-hand is under way there" in adopted.json["breaks"][0]["cause"]
