"""Orders that the exchange works itself, through the adapter: one order of ours, whose trades are those of many of theirs."""

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from exchange_desk import BUY, INSTRUMENT, LONG_AGO_NS, NAME, SELL, SYMBOL, Desk, asset, fills, has, listening, states, trading

from agent.domain.amount import Amount
from agent.domain.errors import VenueError
from agent.domain.events import OrderFilled, OrderReported
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import CancelOrder, PlaceOrder
from agent.ports import Snapshot
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.simulation.exchange.filters import NewOrder
from agent.venues.ccxt_exchange.binance_native import NATIVE_TWAP, spelled

S = OrderState


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    exchange = await start_exchange(ExchangeConfig(flow="none", algo_speed=100))
    exchange.deposit("alice", "ETH", "100")
    exchange.deposit("alice", "USDT", "100000")
    yield exchange
    await exchange.stop()


@pytest.fixture
async def desk(exchange: Exchange) -> AsyncIterator[Desk]:
    async with trading(exchange, exchange.add_key("alice")) as one:
        one.rest(BUY, 268_000, 300_000)
        yield one


def twap(desk: Desk, order_id: str = "p1-0", lots: int = 100_000, ticks: int = 260_000, seconds: int = 300) -> PlaceOrder:
    return msgspec.structs.replace(desk.place(order_id, "sell", ticks, lots, "GTC"), native_s=seconds)


def cancel(order_id: str, target: str) -> CancelOrder:
    return CancelOrder(order_id, "i", "a", NAME, INSTRUMENT, target, is_native=True)


async def look(desk: Desk, order_id: str = "p1-0", target: str = "", sent_ns: int = 0, state: OrderState = S.UNKNOWN) -> Snapshot:
    ref = OrderRef(order_id, NAME, INSTRUMENT, sent_ns=sent_ns, state=state, target_id=target, is_native=True)
    return await desk.venue.snapshot([ref])


def traded(events: Any) -> int:
    """Units of base of distinct trades."""
    found = {event.fill.key: event.fill.paid.units for event in events if isinstance(event, OrderFilled)}
    return sum(found.values())


async def test_its_trades_are_those_of_the_exchange_s_own_orders(desk: Desk) -> None:
    assert desk.venue.profile.native_twap == NATIVE_TWAP
    async with listening(desk.venue) as listener:
        assert await desk.send(twap(desk)) == [OrderReported("p1-0", S.OPEN)]
        seen = await listener.until(has("p1-0", S.FILLED))
    assert traded(seen) == 10 * 10**8
    assert {event.fill.order_id for event in seen if isinstance(event, OrderFilled)} == {"p1-0"}
    assert {event.order_id for event in seen if isinstance(event, OrderReported)} == {"p1-0"}
    ended = [event for event in seen if isinstance(event, OrderReported)][-1]
    assert (ended.filled, ended.venue_order_id) == (Amount(10 * 10**8, asset("ETH")), "algo:1")


async def test_what_a_restart_asks_for_is_the_same_again(exchange: Exchange, desk: Desk) -> None:
    await desk.send(twap(desk))
    exchange.venue.algos.tick(exchange._wires.now_ms() + 1_500)
    async with trading(exchange, exchange.add_key("alice")) as other:
        first = await look(other)
        assert first.open_orders == ("p1-0",)
        again = await look(other)
        units = traded(first.facts)
        assert 5 * 10**8 <= units <= 6 * 10**8
        assert first.is_orders_whole
        assert traded((*first.facts, *again.facts)) >= units
        assert states(first.facts, "p1-0")[-1] is S.OPEN


async def test_a_cancel_ends_it_and_keeps_what_was_traded(desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(twap(desk))
        await listener.until(lambda seen: fills(seen))
        facts = await desk.send(cancel("p1-0x0", "p1-0"))
        assert states(facts, "p1-0x0") == [S.FILLED]
        assert states(facts, "p1-0") == [S.CANCELLED]
        told = next(fact.filled for fact in facts if isinstance(fact, OrderReported) and fact.order_id == "p1-0")
        assert told is not None
        assert 0 < traded([*listener.seen, *facts]) == told.units < 10 * 10**8
        again = await desk.send(cancel("p1-0x1", "p1-0"))
        assert states(again, "p1-0x1") == [S.REJECTED]
    assert states((await look(desk, "p1-0x0", "p1-0")).facts, "p1-0x0") == [S.FILLED]


async def test_what_it_did_not_trade_by_its_end_is_said(desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(twap(desk, ticks=269_000))
        seen = await listener.until(has("p1-0", S.EXPIRED))
    assert traded(seen) == 0


async def test_a_lost_answer_is_asked_for_and_not_sent_again(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("drop_reply", on="place")
    with pytest.raises(Exception, match="nobody knows"):
        await desk.send(twap(desk))
    assert states((await look(desk, sent_ns=1)).facts, "p1-0")[-1] in (S.OPEN, S.FILLED)
    with pytest.raises(Exception, match="authorised before"):
        await desk.send(twap(desk))


async def test_only_what_two_lists_do_not_know_after_a_while_was_never_there(desk: Desk) -> None:
    now_ns = time.time_ns()
    assert (await look(desk, sent_ns=now_ns)).facts == ()
    assert states((await look(desk, sent_ns=now_ns - LONG_AGO_NS)).facts, "p1-0") == [S.REJECTED]
    assert (await look(desk, sent_ns=now_ns - LONG_AGO_NS, state=S.OPEN)).facts == ()


async def test_a_refusal_proves_that_nothing_is_worked(desk: Desk) -> None:
    facts = await desk.send(twap(desk, lots=3_000))
    assert states(facts, "p1-0") == [S.REJECTED]
    assert "-20204" in facts[0].reason
    with pytest.raises(VenueError, match="takes 300 to 86400 s"):
        await desk.send(twap(desk, "p1-1", seconds=299))


async def test_somebody_else_s_trade_is_still_told_as_such(exchange: Exchange, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.venues.ccxt_exchange.binance_native.HELD_NS", 10**8)
    desk.rest(SELL, 268_100, 1_000)
    async with listening(desk.venue) as listener:
        await desk.send(twap(desk))
        request = NewOrder(
            symbol=SYMBOL, side=SELL, kind="MARKET", time_in_force="IOC", prevention="NONE", price_ticks=0, size_lots=100,
            quote_units=0, client_id="by-hand", reply_kind="FULL",
        )  # fmt: skip
        exchange.venue.place("alice", request, exchange._wires.now_ms())
        seen = await listener.until(lambda seen: has("by-hand", S.FILLED)(seen) and has("p1-0", S.FILLED)(seen))
    mine = [event for event in seen if isinstance(event, OrderFilled) and event.fill.order_id == "p1-0"]
    assert traded(mine) == 10 * 10**8


def test_a_name_is_filled_up_and_comes_back() -> None:
    assert (len(spelled("p1-0")), spelled("p1-0").rstrip("_")) == (32, "p1-0")
