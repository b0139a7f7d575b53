"""Every fault of an exchange that the catalogue names, injected by name into the sandbox, and what the adapter makes of it.

Rows B1 to B17; those about books and silence are in `test_exchange_venue.py`, those of the engine with the engine's tests.
"""

import time
from typing import Any

import pytest
from exchange_desk import (
    BINANCE,
    BUY,
    INSTRUMENT,
    NAME,
    SELL,
    SYMBOL,
    Desk,
    RealClock,
    asset,
    fills,
    has,
    listening,
    reports,
    started,
    states,
    trading,
)

from agent.domain.amount import Amount
from agent.domain.errors import ConfigError, OutcomeUnknown, VenueError
from agent.domain.events import FillReversed, OrderAmended, OrderReported, VenueStatus
from agent.domain.market import BookSnapshot, Listed
from agent.domain.order import OrderRef, OrderState
from agent.ports import DeadMan, Resting
from agent.simulation.exchange import Exchange, SymbolSpec
from agent.simulation.exchange.faults import FAULTS

S = OrderState
LOST = ["drop_reply", "timeout_1007", "unknown_1000"]
ETH = 10**8  # units of one


def statuses(seen: list[Any]) -> list[str]:
    return [event.status for event in seen if isinstance(event, VenueStatus)]


def reversals(facts: list[Any]) -> list[FillReversed]:
    return [fact for fact in facts if isinstance(fact, FillReversed)]


def amendments(facts: list[Any]) -> list[OrderAmended]:
    return [fact for fact in facts if isinstance(fact, OrderAmended)]


@pytest.fixture(params=["rest", "websocket"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fault is met by orders over both ways."""
    monkeypatch.setitem(BINANCE, "orders_over", request.param)


@pytest.fixture
async def exchange() -> Any:
    async with started() as one:
        yield one


@pytest.fixture
async def desk(exchange: Exchange) -> Any:
    async with trading(exchange) as one:
        yield one


# -- B1: sent, and no answer -------------------------------------------------------------------------------------------


async def test_b1_an_order_that_is_accepted_late_is_unknown_until_it_is_there(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("accept_late", delay_ms=300)
    async with listening(desk.venue) as listener:
        with pytest.raises(OutcomeUnknown):
            await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        assert await desk.ask("o1", sent_ns=time.time_ns()) == []
        await listener.until(has("o1", S.OPEN))
        assert states(await desk.ask("o1"), "o1") == [S.OPEN]


async def test_b1_a_reply_that_is_too_slow_is_unknown_and_its_order_is_found(exchange: Exchange) -> None:
    async with trading(exchange, request_timeout_ms=200) as desk:
        exchange.fault("slow_reply", on="place", delay_ms=1_000)
        with pytest.raises(OutcomeUnknown):
            await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        assert states(await desk.ask("o1"), "o1") == [S.OPEN]


# -- B2: too many requests ---------------------------------------------------------------------------------------------


async def test_b2_too_many_requests_stop_what_is_new_and_let_cancels_pass(exchange: Exchange) -> None:
    clock = RealClock()
    async with trading(exchange, clock=clock, stale_ms=200) as desk, listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("rate_limit_429", retry_after_s=100)
        (fact,) = await desk.send(desk.place("o2", "buy", 268_000, 10_000, "GTC"))
        assert (fact.state, fact.reason[:5]) == (S.REJECTED, "-1003")  # a definite no
        with pytest.raises(VenueError, match="nothing was sent"):
            await desk.send(desk.place("o3", "buy", 268_000, 10_000, "GTC"))
        with pytest.raises(VenueError, match="used up"):
            await desk.venue.snapshot()
        assert states(await desk.send(desk.cancel("c1", "o1")), "o1") == [S.CANCELLED]
        seen = await listener.until(lambda seen: "CANCEL_ONLY" in statuses(seen))
        told = next(one for one in reversed(seen) if isinstance(one, VenueStatus))
        assert told.reason == "too many requests"
        assert 95 < (told.until_ns - clock.now_ns()) / 1e9 <= 100
        clock.ahead_ns = 101 * 10**9
        await listener.until(lambda seen: statuses(seen)[-1] == "TRADING")


async def test_b2_a_ban_is_obeyed_told_and_remembered_over_a_restart(exchange: Exchange) -> None:
    notes: dict[str, str] = {}
    clock = RealClock()
    credentials = exchange.add_key("alice")
    async with trading(exchange, credentials, notes=notes, clock=clock) as desk, listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("ban_418", retry_after_s=900)
        await desk.send(desk.place("o2", "buy", 268_000, 10_000, "GTC"))
        await listener.until(lambda seen: "CANCEL_ONLY" in statuses(seen))
        for plan in (desk.place("o3", "buy", 268_000, 10_000, "GTC"), desk.place("o4", "buy", 268_000, 10_000, "GTC")):
            with pytest.raises(VenueError, match="nothing was sent"):
                await desk.send(plan)
        assert states(await desk.send(desk.cancel("c1", "o1")), "o1") == [S.CANCELLED]  # one is tried
        with pytest.raises(VenueError, match="nothing was sent"):
            await desk.send(desk.cancel("c2", "o1"))
    assert 890 < (int(notes["banned_until_ns"]) - clock.now_ns()) / 1e9 <= 900
    with pytest.raises(VenueError, match=r"used up for (900|89\d)"):
        async with trading(exchange, credentials, notes=notes, clock=clock):
            pass
    clock.ahead_ns = 901 * 10**9
    async with trading(exchange, credentials, notes=notes, clock=clock) as desk:
        assert (await desk.venue.snapshot()).is_orders_whole


# -- B3: cancel and replace --------------------------------------------------------------------------------------------


async def test_b3_a_replacement_ends_one_order_and_begins_another(exchange: Exchange, desk: Desk) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    desk.rest(SELL, 268_000, 4_000)
    facts = await desk.send(desk.place("o2", "buy", 268_100, 6_000, "GTC", replaces="o1"))
    assert reports(facts, "o1") == [(S.CANCELLED, 40_000_000)]
    assert reports(facts, "o2") == [(S.OPEN, 0)]
    assert [order.client_id for _, order in exchange.venue.open_orders("alice")] == ["o2"]


async def test_b3_a_replacement_that_fails_by_half_is_told_leg_by_leg(exchange: Exchange, desk: Desk) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    exchange.fault("partial_cancel_replace")
    facts = await desk.send(desk.place("o2", "buy", 268_100, 10_000, "GTC", replaces="o1"))
    assert states(facts, "o1") == [S.CANCELLED]
    assert states(facts, "o2") == [S.REJECTED]
    assert exchange.venue.open_orders("alice") == []


async def test_b3_a_replacement_of_what_is_gone_places_nothing_and_asks_what_became_of_it(exchange: Exchange, desk: Desk) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    desk.rest(SELL, 268_000, 10_000)
    facts = await desk.send(desk.place("o2", "buy", 268_100, 10_000, "GTC", replaces="o1"))
    assert reports(facts, "o1") == [(S.FILLED, ETH)]
    assert [one.received.units for one in fills(facts)] == [ETH]
    (fact,) = [fact for fact in facts if isinstance(fact, OrderReported) and fact.order_id == "o2"]
    assert (fact.state, fact.reason) == (S.REJECTED, "not tried, because o1 could not be taken back: -2011 Unknown order sent.")
    assert exchange.venue.open_orders("alice") == []


@pytest.mark.parametrize("fault", LOST)
async def test_b3_a_lost_reply_to_a_replacement_leaves_both_legs_to_be_asked(exchange: Exchange, desk: Desk, fault: str) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    exchange.fault(fault, on="place")
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o2", "buy", 268_100, 10_000, "GTC", replaces="o1"))
    facts = await desk.ask("o1", "o2", sent_ns=time.time_ns())
    assert states(facts, "o1") == [S.CANCELLED]
    assert states(facts, "o2") == [S.OPEN]


# -- B4, B5: twice, late, in another order -----------------------------------------------------------------------------


async def test_b4_the_stream_and_the_list_tell_a_trade_under_one_key(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("duplicate_user_event", kind="executionReport", count=3)
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        desk.rest(SELL, 268_000, 10_000)
        seen = await listener.until(lambda seen: len(fills(seen)) == 2)
    assert len({one.key for one in [*fills(seen), *fills(await desk.ask("o1"))]}) == 1


async def test_b5_a_fill_may_come_before_its_acknowledgement_and_after_its_cancel(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("reorder_user_events", kind="executionReport")  # NEW after TRADE
    desk.rest(SELL, 268_000, 4_000)
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        seen = await listener.until(has("o1", S.OPEN))
        assert reports(seen, "o1") == [(S.PARTIAL, 40_000_000), (S.OPEN, 0)]
        exchange.fault("reorder_user_events", kind="executionReport")  # TRADE after CANCELED
        desk.rest(SELL, 268_000, 1_000)
        await desk.send(desk.cancel("c1", "o1"))
        seen = await listener.until(lambda seen: len(fills(seen)) == 2)
        assert reports(seen, "o1")[-2:] == [(S.CANCELLED, 50_000_000), (S.PARTIAL, 50_000_000)]


# -- B6: trades that nobody expected -----------------------------------------------------------------------------------


async def test_b6_a_fill_of_a_cancelled_order_passes_on(exchange: Exchange, desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        await desk.send(desk.cancel("c1", "o1"))
        exchange.fault("late_fill")
        seen = await listener.until(fills)
    assert [one.received.units for one in fills(seen)] == [ETH]
    assert fills(seen) == fills(await desk.ask("o1"))


async def test_b6_orders_placed_by_hand_are_told_with_their_ids_and_listed_in_full(exchange: Exchange) -> None:
    credentials = exchange.add_key("alice")
    async with trading(exchange, credentials) as ours, trading(exchange, credentials) as by_hand, listening(ours.venue) as listener:
        await ours.venue.snapshot()  # until the first one, what trades may be of an order from before
        await by_hand.send(by_hand.place("web-1", "sell", 268_500, 20_000, "GTC"))
        ours.rest(BUY, 268_500, 5_000)
        seen = await listener.until(fills)
        assert fills(seen)[0].order_id == "web-1"
        assert reports(seen, "web-1")[-1] == (S.PARTIAL, 50_000_000)
        snapshot = await ours.venue.snapshot()
        (number,) = [str(order.id) for _, order in exchange.venue.open_orders("alice")]
        assert snapshot.resting == (Resting("web-1", INSTRUMENT, "sell", 268_500, 20_000, 5_000, number),)
        assert (snapshot.open_orders, snapshot.is_orders_whole, snapshot.is_balances_whole) == (("web-1",), True, True)
        await by_hand.send(by_hand.cancel("web-c", "web-1"))
        seen = await listener.until(has("web-1", S.CANCELLED))
        assert states(seen, "web-c") == []


# -- B7: an account of trades that is not what it was ------------------------------------------------------------------


async def test_b7_a_trade_too_many_is_told_as_it_is(exchange: Exchange, desk: Desk) -> None:
    desk.rest(SELL, 268_000, 10_000)
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000))
        exchange.fault("overfill")
        seen = await listener.until(lambda seen: len(fills(seen)) == 2)
    assert reports(seen, "o1")[-1] == (S.FILLED, 2 * ETH)
    assert len(fills(await desk.ask("o1"))) == 2


async def test_b7_a_trade_that_is_taken_back_is_reversed_by_its_key(exchange: Exchange, desk: Desk) -> None:
    desk.rest(SELL, 268_000, 10_000)
    before = (await desk.venue.snapshot()).balances
    async with listening(desk.venue) as listener:
        (filled,) = fills(await desk.send(desk.place("o1", "buy", 268_000, 10_000)))
        exchange.fault("bust_trade")
        seen = await listener.until(reversals)
    assert [(one.order_id, one.key) for one in reversals(seen)] == [("o1", filled.key)]
    assert (await desk.venue.snapshot()).balances == before


async def test_b7_a_trade_that_vanished_unseen_is_found_by_asking(exchange: Exchange) -> None:
    clock = RealClock()
    async with trading(exchange, clock=clock) as desk:
        desk.rest(SELL, 268_000, 4_000)
        desk.rest(SELL, 268_001, 6_000)
        kept, gone = fills(await desk.send(desk.place("o1", "buy", 268_001, 10_000)))
        exchange.fault("bust_trade")  # nobody listens
        ref = OrderRef("o1", NAME, INSTRUMENT, filled=ETH, state=S.FILLED)
        facts = list((await desk.venue.snapshot([ref])).facts)
        assert reversals(facts) == []  # the list of trades may be behind: nothing is taken back yet
        assert reports(facts, "o1") == [(S.FILLED, 40_000_000)]
        clock.ahead_ns = 60 * 10**9
        facts = list((await desk.venue.snapshot([ref])).facts)
        assert [one.key for one in reversals(facts)] == [gone.key]
        assert fills(facts) == [kept]


async def test_b7_a_sum_that_shrinks_takes_no_trade_back(exchange: Exchange, desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        desk.rest(SELL, 268_000, 4_000)
        await listener.until(fills)
        exchange.fault("regress_cumulative", kind="executionReport")
        await desk.send(desk.cancel("c1", "o1"))
        seen = await listener.until(has("o1", S.CANCELLED))
        assert reports(seen, "o1")[-1] == (S.CANCELLED, 0)
        assert reversals(seen) == []
    facts = await desk.ask("o1")
    assert reports(facts, "o1") == [(S.CANCELLED, 40_000_000)]


async def test_an_order_that_the_exchange_changes_goes_on_under_its_name(exchange: Exchange, desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("amend_order")
        seen = await listener.until(amendments)
        (changed,) = amendments(seen)
        assert (changed.order_id, changed.size) == ("o1", Amount(ETH // 2, asset("ETH")))
        assert changed.version > 0
        assert exchange.venue.open_orders("alice")[0][1].client_id != "o1"
        desk.rest(SELL, 268_000, 1_000)
        seen = await listener.until(fills)
        assert [one.order_id for one in fills(seen)] == ["o1"]
        snapshot = await desk.look("o1", filled=10_000_000)
        assert reports(list(snapshot.facts), "o1") == [(S.PARTIAL, 10_000_000)]
        assert [(one.order_id, one.lots, one.filled) for one in snapshot.resting] == [("o1", 5_000, 1_000)]
        facts = await desk.send(desk.cancel("c1", "o1"))
        assert (states(facts, "o1"), states(facts, "c1")) == ([S.CANCELLED], [S.FILLED])


async def test_a_change_that_was_not_heard_is_seen_in_the_list_and_survives_a_restart(exchange: Exchange) -> None:
    credentials = exchange.add_key("alice")
    async with trading(exchange, credentials) as desk:
        (opened,) = await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("amend_order", kind="same_id")
        assert [one.size.units for one in amendments(await desk.ask("o1"))] == [ETH // 2]
        exchange.fault("amend_order")  # and gets another id
    async with trading(exchange, credentials) as desk:
        ref = OrderRef("o1", NAME, INSTRUMENT, opened.venue_order_id, sent_ns=time.time_ns(), state=S.OPEN)
        snapshot = await desk.venue.snapshot([ref])
        assert states(list(snapshot.facts), "o1") == [S.OPEN]
        assert [(one.order_id, one.lots) for one in snapshot.resting] == [("o1", 2_500)]
        facts = await desk.send(desk.place("o2", "buy", 268_100, 10_000, "GTC", replaces="o1"))
        assert (states(facts, "o1"), states(facts, "o2")) == ([S.CANCELLED], [S.OPEN])


# -- B8, B9, B10: streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["eventStreamTerminated", "listenKeyExpired", "serverShutdown"])
async def test_b9_a_stream_that_announces_its_end_is_connected_anew(exchange: Exchange, desk: Desk, kind: str) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("end_stream", kind=kind)
        assert "ends the stream" in await listener.failure()
    desk.rest(SELL, 268_000, 10_000)
    async with listening(desk.venue):
        assert reports(await desk.ask("o1"), "o1") == [(S.FILLED, ETH)]


async def test_b10_an_exchange_that_refuses_every_connection_fails_at_once_each_time_and_then_works(
    exchange: Exchange, desk: Desk
) -> None:
    exchange.fault("refuse_connect")
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(VenueError, match=r"cannot open the streams|binance:"):
            await anext(desk.venue.stream())
        assert time.monotonic() - began < 2
    exchange.clear_faults()
    async with listening(desk.venue) as listener:
        assert any(isinstance(event, BookSnapshot) for event in listener.seen)


# -- B11: lists that are cut, and many orders --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1])
async def test_b11_what_a_cut_list_leaves_out_is_asked_for_and_never_cancelled(exchange: Exchange, desk: Desk, keep: int) -> None:
    for number in (1, 2):
        await desk.send(desk.place(f"o{number}", "buy", 268_000, 10_000, "GTC"))
    exchange.fault("truncate_list", kind="openOrders", keep=keep)
    snapshot = await desk.look("o1", "o2", sent_ns=time.time_ns())
    assert len(snapshot.resting) == keep
    assert not snapshot.is_orders_whole
    assert [states(list(snapshot.facts), name) for name in ("o1", "o2")] == [[S.OPEN], [S.OPEN]]


async def test_b11_trades_that_a_cut_list_leaves_out_are_still_owed(exchange: Exchange, desk: Desk) -> None:
    desk.rest(SELL, 268_000, 4_000)
    desk.rest(SELL, 268_001, 6_000)
    exchange.fault("drop_reply", on="place")
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 268_001, 10_000))
    exchange.fault("truncate_list", kind="myTrades", keep=1)
    facts = await desk.ask("o1")
    assert reports(facts, "o1") == [(S.FILLED, ETH)]
    assert [one.received.units for one in fills(facts)] == [40_000_000]
    assert len(fills((await desk.look("o1", filled=40_000_000)).facts)) == 2


async def test_b11_a_list_that_fails_is_not_an_empty_list(exchange: Exchange, desk: Desk) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    exchange.fault("maintenance", on="query")
    snapshot = await desk.look("o1", sent_ns=time.time_ns())
    assert states(list(snapshot.facts), "o1") in ([S.OPEN], [])
    assert [snapshot.is_orders_whole, snapshot.is_balances_whole].count(False) == 1
    assert bool(snapshot.balances) == snapshot.is_balances_whole


async def test_b11_an_order_of_more_trades_than_a_page_is_told_whole(exchange: Exchange, desk: Desk) -> None:
    for _ in range(1_100):
        desk.rest(SELL, 268_000, 100)
    exchange.fault("drop_reply", on="place")
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 268_000, 110_000))
    facts = await desk.ask("o1")
    assert sum(one.received.units for one in fills(facts)) == 11 * ETH
    assert len({one.key for one in fills(facts)}) == 1_100


@pytest.mark.parametrize("name", ["binance", "binanceus"])
async def test_a_thousand_resting_orders_cost_no_thousand_questions(name: str) -> None:
    many = 1_000
    spec = SymbolSpec(symbol=SYMBOL, base="ETH", quote="USDT", open_orders_max=many + 10)
    async with started(symbols=(spec,)) as exchange, trading(exchange, exchange=name, single_order_query_delay_ms=10) as desk:
        exchange.deposit("alice", "USDT", "10000000")
        from agent.simulation.exchange.filters import parse_order

        fields = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "2000"}
        for number in range(many):
            request = parse_order(fields | {"newClientOrderId": f"o{number}"}, exchange.venue.rules)
            exchange.venue.place("alice", request, time.time_ns() // 10**6)
        gone = [order for _, order in exchange.venue.open_orders("alice")][:15]
        for order in gone:
            exchange.venue.cancel("alice", SYMBOL, order, time.time_ns() // 10**6, "c" + order.client_id)
        numbers = {order.client_id: str(order.id) for order in exchange.venue.all_orders("alice", SYMBOL)}
        asked = [OrderRef(name, NAME, INSTRUMENT, number, state=S.OPEN, sent_ns=1) for name, number in numbers.items()]
        began = time.monotonic()
        first = await desk.venue.snapshot(asked)
        took_s = time.monotonic() - began
        second = await desk.venue.snapshot(asked)
    assert took_s < 2
    assert len(first.resting) == many - 15
    told = [[fact for fact in shot.facts if isinstance(fact, OrderReported)] for shot in (first, second)]
    assert [sum(fact.state is S.OPEN for fact in facts) for facts in told] == [many - 15, many - 15]
    ended = [{fact.order_id for fact in facts if fact.state is S.CANCELLED} for facts in told]
    assert [len(names) for names in ended] == [10, 10]  # max_single_order_queries_per_cycle
    assert ended[0] | ended[1] == {order.client_id for order in gone}


# -- B12, B13: rules, maintenance, clocks ------------------------------------------------------------------------------


async def test_b12_new_ticks_are_found_by_a_refusal_and_listed_anew(exchange: Exchange) -> None:
    async with trading(exchange, stale_ms=200) as desk:
        desk.rest(BUY, 267_995, 10)
        async with listening(desk.venue) as listener:
            exchange.fault("change_filters", tick="0.1", lot="0.001")
            (fact,) = await desk.send(desk.place("o1", "buy", 268_005, 10_005, "GTC"))
            assert (fact.state, fact.reason) == (S.REJECTED, "-1013 Filter failure: LOT_SIZE")
            assert "new rules" in await listener.failure()
        async with listening(desk.venue) as listener:
            (listed,) = [event for event in listener.seen if isinstance(event, Listed)]
            assert (listed.instruments[0].tick_units, listed.instruments[0].lot_units) == (10_000_000, 100_000)
            desk.rest(BUY, 267_990, 10)
            await listener.until(lambda seen: any(getattr(event, "bids", ()) == ((26_799, 1),) for event in seen))
        assert states(await desk.send(desk.place("o2", "buy", 26_800, 1_000, "GTC")), "o2") == [S.OPEN]


async def test_b12_finer_ticks_are_found_in_the_book(exchange: Exchange) -> None:
    exchange.fault("change_filters", tick="0.1")
    async with trading(exchange, stale_ms=200) as desk, listening(desk.venue) as listener:
        exchange.fault("change_filters", tick="0.01")
        desk.rest(BUY, 267_995, 10)
        assert "new rules" in await listener.failure()


async def test_b13_maintenance_allows_cancels_only_until_it_is_over(exchange: Exchange) -> None:
    async with trading(exchange, stale_ms=200, clock_check_ms=100) as desk, listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("maintenance", on="place", count=0)
        seen = await listener.until(lambda seen: "CANCEL_ONLY" in statuses(seen))
        assert next(one for one in seen if isinstance(one, VenueStatus) and one.reason).reason == "the exchange is in maintenance"
        assert states(await desk.send(desk.cancel("c1", "o1")), "o1") == [S.CANCELLED]
        exchange.clear_faults()
        await listener.until(lambda seen: statuses(seen)[-1] == "TRADING")


async def test_b13_an_overloaded_exchange_gets_no_new_orders_for_a_while(exchange: Exchange) -> None:
    clock = RealClock()
    async with trading(exchange, stale_ms=200, clock=clock) as desk, listening(desk.venue) as listener:
        exchange.fault("maintenance", on="place", count=3)
        for number in range(3):
            with pytest.raises(OutcomeUnknown):
                await desk.send(desk.place(f"o{number}", "buy", 268_000, 10_000, "GTC"))
        await listener.until(lambda seen: "CANCEL_ONLY" in statuses(seen))
        clock.ahead_ns = 11 * 10**9
        await listener.until(lambda seen: statuses(seen)[-1] == "TRADING")


async def test_b13_a_halted_market_is_kept_and_its_orders_can_be_cancelled(exchange: Exchange) -> None:
    async with trading(exchange, stale_ms=200, clock_check_ms=100) as desk, listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("halt_symbol")
        (fact,) = await desk.send(desk.place("o2", "buy", 268_000, 10_000, "GTC"))
        assert (fact.state, fact.reason) == (S.REJECTED, "-1013 Market is closed.")
        seen = await listener.until(lambda seen: "CANCEL_ONLY" in statuses(seen))
        assert next(one for one in seen if isinstance(one, VenueStatus) and one.reason).reason == "ETH/USDT is not traded now"
        assert states(await desk.send(desk.cancel("c1", "o1")), "o1") == [S.CANCELLED]
        exchange.fault("resume_symbol")
        await listener.until(lambda seen: statuses(seen)[-1] == "TRADING")


async def test_a_clock_that_is_too_uncertain_allows_cancels_only(exchange: Exchange) -> None:
    async with trading(exchange, stale_ms=400, clock_check_ms=100, recv_window_ms=200) as desk, listening(desk.venue) as listener:
        exchange.fault("slow_reply", on="query", delay_ms=300, count=20)
        seen = await listener.until(lambda seen: "CANCEL_ONLY" in statuses(seen))
        assert next(one for one in seen if isinstance(one, VenueStatus) and one.reason).reason.startswith("the exchange's clock")
        assert desk.venue.clock_uncertainty_ms > 100  # type: ignore[attr-defined]
        exchange.clear_faults()
        await listener.until(lambda seen: statuses(seen)[-1] == "TRADING")


async def test_the_clock_is_measured_again_and_again(exchange: Exchange) -> None:
    async with (
        trading(exchange, stale_ms=200, clock_check_ms=100, recv_window_ms=60_000) as desk,
        listening(desk.venue) as listener,
    ):
        exchange.fault("clock_offset", offset_ms=30_000)
        desk.rest(BUY, 267_995, 10)
        await listener.until(lambda _: abs(desk.venue.clock_offset_ms - 30_000) < 1_000)  # type: ignore[attr-defined]


# -- B14, B15: the dead man's switch -----------------------------------------------------------------------------------

SWITCH = {"dead_man_s": 1, "dead_man_path": "/fapi/v1/countdownCancelAll"}


async def test_b14_everything_is_cancelled_when_the_agent_falls_silent() -> None:
    async with started(offers_countdown=True) as exchange, trading(exchange, **SWITCH) as desk:
        assert isinstance(desk.venue, DeadMan)
        async with listening(desk.venue) as listener:
            await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
            await desk.venue.arm(0)  # disarmed: nothing happens
            await desk.venue.arm(desk.venue.countdown_s)
            seen = await listener.until(has("o1", S.CANCELLED))
            assert states(seen, "o1")[-1] is S.CANCELLED
    assert exchange.venue.open_orders("alice") == []


@pytest.mark.parametrize("fault", ["maintenance", "drop_reply"])
async def test_b15_a_switch_that_cannot_be_armed_says_so(fault: str) -> None:
    async with started(offers_countdown=True) as exchange, trading(exchange, **SWITCH) as desk:
        exchange.fault(fault, on="cancel")
        with pytest.raises(VenueError):
            await desk.venue.arm(1)  # type: ignore[attr-defined]


async def test_b15_binance_spot_has_no_switch(exchange: Exchange, desk: Desk) -> None:
    assert desk.venue.countdown_s == 0  # type: ignore[attr-defined]
    with pytest.raises(VenueError, match="no dead-man switch"):
        await desk.venue.arm(30)  # type: ignore[attr-defined]
    async with trading(exchange, **SWITCH) as other:  # and an exchange that does not know it refuses
        with pytest.raises(VenueError, match="-5000"):
            await other.venue.arm(30)  # type: ignore[attr-defined]


# -- B16, B17: keys, and trades with oneself ---------------------------------------------------------------------------


async def test_b16_a_key_that_was_taken_away_ends_the_connection_until_it_works_again(exchange: Exchange, desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        exchange.fault("revoked_key")
        (fact,) = await desk.send(desk.place("o2", "buy", 268_000, 10_000, "GTC"))
        assert (fact.state, fact.reason[:5]) == (S.REJECTED, "-2015")
        await listener.failure()
    with pytest.raises(VenueError, match="-2015"):
        await anext(desk.venue.stream())
    exchange.clear_faults()
    async with listening(desk.venue):
        assert states(await desk.ask("o1"), "o1") == [S.OPEN]


async def test_b16_a_key_that_may_withdraw_is_refused(exchange: Exchange) -> None:
    credentials = exchange.add_key("alice")
    exchange.fault("withdrawal_right")
    with pytest.raises(ConfigError, match="may withdraw"):
        async with trading(exchange, credentials):
            pass


async def test_b17_an_order_that_would_trade_with_another_of_ours_expires(exchange: Exchange, desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        assert reports(await desk.send(desk.place("o2", "sell", 268_000, 10_000)), "o2") == [(S.EXPIRED, 0)]
        seen = await listener.until(has("o2", S.EXPIRED))
        reason = next(fact.reason for fact in seen if isinstance(fact, OrderReported) and fact.state is S.EXPIRED)
        assert reason == "it would have traded with another order of ours"
    assert states(await desk.ask("o1"), "o1") == [S.OPEN]


# -- the catalogue -----------------------------------------------------------------------------------------------------


def test_every_fault_is_struck_by_a_test() -> None:
    from pathlib import Path

    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_exchange_*.py")]
    assert [name for name in FAULTS if not any(f'"{name}"' in text for text in texts)] == []


async def test_faults_that_make_no_sense_are_refused(exchange: Exchange) -> None:
    with pytest.raises(ValueError, match="none has a key yet"):
        exchange.fault("bust_trade")
    exchange.add_key("alice")
    for name, words in (
        ("bust_trade", "no trade"),
        ("overfill", "no order"),
        ("late_fill", "no order"),
        ("amend_order", "no resting order"),
        ("end_stream", "kind is one of"),
    ):
        with pytest.raises(ValueError, match=words):
            exchange.fault(name)
    with pytest.raises(ValueError, match="coarser"):
        exchange.fault("change_filters", tick="0.015")
    with pytest.raises(ValueError, match="no symbol"):
        exchange.fault("halt_symbol", symbol="NOPE")
