"""The exchange venue against the sandbox exchange: books that stay right, orders sent once, lost replies, limits, silence."""

import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from exchange_desk import (
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

from agent.domain.amount import Amount, parse_units
from agent.domain.errors import ConfigError, OutcomeUnknown, VenueError
from agent.domain.events import OrderReported, VenueConnected, VenueStatus
from agent.domain.market import BookDiff, BookSnapshot, Listed
from agent.domain.order import OrderState
from agent.ports import Tools, VenueEvent
from agent.simulation.exchange import Exchange, ExchangeConfig, start_exchange
from agent.venues import ccxt_exchange

LONG_AGO_NS = 120 * 10**9


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    async with started() as one:
        yield one


@pytest.fixture
async def desk(exchange: Exchange) -> AsyncIterator[Desk]:
    async with trading(exchange) as one:
        yield one


# -- connecting and books ----------------------------------------------------------------------------------------------


async def test_it_connects_first_then_lists_exact_rules(desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        first, second, *_ = listener.seen
        assert first == VenueConnected(NAME)
        assert isinstance(second, Listed)
        (instrument,) = second.instruments
        assert (instrument.id, instrument.market, instrument.fee_pips) == (INSTRUMENT, "ETH/USDT", 1000)
        assert instrument.tick_units == parse_units("0.01", 8)
        assert instrument.lot_units == parse_units("0.0001", 8)
        assert instrument.notional_min == parse_units("5", 8)
    assert abs(desk.venue.clock_offset_ms) < 1000  # type: ignore[attr-defined]


@pytest.mark.parametrize("gaps", [0, 1])
async def test_the_book_equals_the_exchange_s_whatever_is_lost(exchange: Exchange, desk: Desk, gaps: int) -> None:
    rng = random.Random(7)
    for offset in range(1, 30):
        desk.rest(BUY, 268_000 - offset, 100)
        desk.rest(SELL, 268_000 + offset, 100)
    async with listening(desk.venue) as listener:
        book = exchange.venue.markets[SYMBOL].book
        for turn in range(12):
            is_lost = turn % 4 == 2 and gaps > 0
            if is_lost:
                exchange.fault("depth_gap", symbol=SYMBOL, count=gaps)
            for _ in range(40):
                desk.rest(rng.choice((BUY, SELL)), 268_000 + rng.randint(-40, 40), rng.randint(1, 500))
            if is_lost:
                exchange._wires.publisher.tick()  # the change is made, and lost
            else:
                await listener.until(lambda _: _seq(listener.seen) == book.update_id)
        bids, asks = _replayed(listener.seen)
    assert bids == dict(book.depth(BUY, 1000))
    assert asks == dict(book.depth(SELL, 1000))
    if gaps:
        assert sum(isinstance(event, BookSnapshot) for event in listener.seen) > 1


def _seq(seen: list[VenueEvent]) -> int:
    books = [event for event in seen if isinstance(event, BookSnapshot | BookDiff)]
    return 0 if not books else books[-1].seq if isinstance(books[-1], BookSnapshot) else books[-1].seq_last


def _replayed(seen: list[VenueEvent]) -> tuple[dict[int, int], dict[int, int]]:
    """The book as a strict reader sees it: every change continues exactly what came before."""
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    seq = -1
    for event in seen:
        if isinstance(event, BookSnapshot):
            sides, seq = (dict(event.bids), dict(event.asks)), event.seq
        elif isinstance(event, BookDiff):
            assert event.seq_first == seq + 1, "a gap was passed on"
            seq = event.seq_last
            for side, levels in zip(sides, (event.bids, event.asks), strict=True):
                for ticks, lots in levels:
                    side.pop(ticks, None)
                    if lots:
                        side[ticks] = lots
    return sides


async def test_a_quiet_book_is_confirmed_and_a_stalled_one_is_an_error() -> None:
    async with started() as exchange, trading(exchange, stale_ms=300) as desk:
        desk.rest(BUY, 268_000, 5)
        async with listening(desk.venue) as listener:
            await listener.until(lambda seen: sum(isinstance(event, BookSnapshot) for event in seen) >= 3)
            exchange.fault("stall_stream", kind="market")
            desk.rest(SELL, 269_000, 5)
            assert "silent while the book" in await listener.failure()


# -- orders ------------------------------------------------------------------------------------------------------------


async def test_an_order_that_fills_at_once_is_proved_by_its_reply(desk: Desk) -> None:
    desk.rest(SELL, 268_000, 10_000)
    desk.rest(SELL, 268_001, 10_000)
    facts = await desk.send(desk.place("o1", "buy", 268_001, 15_000))
    assert states(facts, "o1") == [OrderState.FILLED]
    first, second = fills(facts)
    assert (first.paid, first.received) == (Amount(268_000_000_000, asset("USDT")), Amount(100_000_000, asset("ETH")))
    assert (second.paid, second.received) == (Amount(134_000_500_000, asset("USDT")), Amount(50_000_000, asset("ETH")))
    assert first.fee == Amount(100_000, asset("ETH"))
    balances = {amount.asset.symbol: amount.units for amount in (await desk.venue.snapshot()).balances}
    assert balances["ETH"] == 100 * 10**8 + sum(one.received.units - one.fee.units for one in (first, second))
    assert balances["USDT"] == 1_000_000 * 10**8 - sum(one.paid.units for one in (first, second))


async def test_a_sale_receives_quote_and_pays_its_fee_in_quote(desk: Desk) -> None:
    desk.rest(BUY, 268_000, 10_000)
    (sold,) = fills(await desk.send(desk.place("o1", "sell", 268_000, 10_000)))
    assert (sold.paid, sold.received) == (Amount(100_000_000, asset("ETH")), Amount(268_000_000_000, asset("USDT")))
    assert sold.fee == Amount(268_000_000, asset("USDT"))


async def test_what_an_ioc_cannot_fill_expires(desk: Desk) -> None:
    desk.rest(SELL, 268_000, 3_000)
    facts = await desk.send(desk.place("o1", "buy", 268_000, 10_000))
    assert [one.received.units for one in fills(facts)] == [30_000_000]
    assert states(facts, "o1") == [OrderState.EXPIRED]


async def test_a_resting_order_fills_on_the_stream_and_is_cancelled_with_both_ids_told(desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        assert states(await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC")), "o1") == [OrderState.OPEN]
        desk.rest(SELL, 268_000, 4_000)
        seen = await listener.until(fills)
        assert reports(seen, "o1") == [(OrderState.OPEN, 0), (OrderState.PARTIAL, 40_000_000)]
        assert (await desk.venue.snapshot()).open_orders == ("o1",)
        facts = await desk.send(desk.cancel("c1", "o1"))
        assert states(facts, "o1") == [OrderState.CANCELLED]
        assert states(facts, "c1") == [OrderState.FILLED]
        seen = await listener.until(has("c1", OrderState.FILLED))
        assert states(seen, "o1")[-1] is OrderState.CANCELLED
    facts = await desk.send(desk.cancel("c2", "o1"))  # refused, which raises a question: what became of o1?
    assert facts[-1] == OrderReported("c2", OrderState.REJECTED, "-2011 Unknown order sent.")
    assert reports(facts, "o1") == [(OrderState.CANCELLED, 40_000_000)]
    assert [one.received.units for one in fills(facts)] == [40_000_000]


async def test_refusals_are_facts_in_the_exchange_s_words(desk: Desk) -> None:
    desk.rest(SELL, 268_000, 10_000)
    (poor,) = await desk.send(desk.place("o1", "buy", 900_000, 9_000_000, "GTC"))
    assert (poor.state, poor.reason[:5]) == (OrderState.REJECTED, "-2010")
    (crossing,) = await desk.send(desk.place("o2", "buy", 268_000, 10_000, "POST"))
    assert (crossing.state, crossing.reason) == (OrderState.REJECTED, "would take: -2010 Order would immediately match and take.")
    (small,) = await desk.send(desk.place("o3", "buy", 268_000, 1, "GTC"))
    assert small.reason.startswith("-1013")


async def test_a_fill_is_the_same_from_the_reply_the_stream_and_the_list(desk: Desk) -> None:
    desk.rest(SELL, 268_000, 1_234)
    desk.rest(SELL, 268_007, 4_321)
    async with listening(desk.venue) as listener:
        replied = fills(await desk.send(desk.place("o1", "buy", 268_007, 5_555)))
        streamed = fills(await listener.until(has("o1", OrderState.FILLED)))
    listed = fills(await desk.ask("o1"))
    assert len(replied) == 2
    assert replied == streamed == listed


async def test_events_that_come_twice_or_late_change_nothing(exchange: Exchange, desk: Desk) -> None:
    desk.rest(SELL, 268_000, 10_000)
    exchange.fault("duplicate_user_event", kind="executionReport", count=3)
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 1_000))
        seen = await listener.until(lambda seen: states(seen, "o1").count(OrderState.FILLED) == 2)
    assert len({one.key for one in fills(seen)}) == 1


# -- what is lost ------------------------------------------------------------------------------------------------------

LOST = ["drop_reply", "timeout_1007", "unknown_1000"]


@pytest.mark.parametrize("fault", LOST)
async def test_a_lost_reply_is_unknown_and_a_snapshot_finds_the_truth(exchange: Exchange, desk: Desk, fault: str) -> None:
    desk.rest(SELL, 268_000, 3_000)
    exchange.fault(fault, on="place")
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    facts = await desk.ask("o1", sent_ns=time.time_ns())
    assert [one.received.units for one in fills(facts)] == [30_000_000]
    assert reports(facts, "o1") == [(OrderState.PARTIAL, 30_000_000)]


@pytest.mark.parametrize("fault", LOST)
async def test_a_lost_reply_to_a_cancel_is_settled_by_its_target(exchange: Exchange, desk: Desk, fault: str) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    exchange.fault(fault, on="cancel")
    try:
        facts = await desk.send(desk.cancel("c1", "o1"))
    except OutcomeUnknown:
        facts = await desk.ask("c1", sent_ns=time.time_ns())
    assert states(facts, "o1") == [OrderState.CANCELLED]
    assert states(facts, "c1") == [OrderState.FILLED]


async def test_an_order_that_never_arrived_stays_unknown_until_it_cannot_arrive(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("maintenance", on="place")
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    assert await desk.ask("o1", sent_ns=time.time_ns()) == []
    assert await desk.ask("o1", sent_ns=time.time_ns() - LONG_AGO_NS) == []  # this connection knows better when it left
    async with trading(exchange) as after_restart:
        (fact,) = await after_restart.ask("o1", sent_ns=time.time_ns() - LONG_AGO_NS)
        assert fact.state is OrderState.REJECTED
        assert await after_restart.ask("o1") == []  # nobody says that it was sent


async def test_a_duplicate_id_means_that_the_first_one_landed(exchange: Exchange) -> None:
    credentials = exchange.add_key("alice")
    async with trading(exchange, credentials) as first, trading(exchange, credentials) as second:
        await first.send(first.place("o1", "buy", 268_000, 10_000, "GTC"))
        with pytest.raises(OutcomeUnknown, match="Duplicate"):
            await second.send(second.place("o1", "buy", 268_000, 10_000, "GTC"))
        assert states(await second.ask("o1"), "o1") == [OrderState.OPEN]


async def test_nothing_is_sent_when_nobody_listens() -> None:
    exchange = await start_exchange(ExchangeConfig(flow="none"))
    async with trading(exchange) as desk:
        await exchange.stop()
        with pytest.raises(OutcomeUnknown):  # the connection that was open may have carried it
            await desk.send(desk.place("o1", "buy", 268_000, 10_000))
        with pytest.raises(VenueError, match="nothing was sent"):
            await desk.send(desk.place("o2", "buy", 268_000, 10_000))


async def test_a_clock_that_jumps_is_refused_once_and_measured_anew(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("clock_offset", offset_ms=60_000)
    (fact,) = await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    assert (fact.state, fact.reason[:5]) == (OrderState.REJECTED, "-1021")
    assert states(await desk.send(desk.place("o2", "buy", 268_000, 10_000, "GTC")), "o2") == [OrderState.OPEN]
    assert abs(desk.venue.clock_offset_ms - 60_000) < 1000  # type: ignore[attr-defined]


async def test_a_clock_that_jumps_keeps_no_doubt_open(exchange: Exchange, desk: Desk) -> None:
    await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
    for offset_ms in (60_000, -120_000):
        exchange.fault("clock_offset", offset_ms=offset_ms)
        assert states(await desk.ask("o1", sent_ns=time.time_ns()), "o1") == [OrderState.OPEN]


# -- streams that break ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["user", "market", "all"])
async def test_a_cut_stream_raises_and_the_next_one_tells_what_was_missed(exchange: Exchange, desk: Desk, kind: str) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        await listener.until(has("o1", OrderState.OPEN))
        exchange.fault("disconnect", kind=kind)
        assert "closed" in await listener.failure()
    desk.rest(SELL, 268_000, 4_000)
    async with listening(desk.venue) as again:
        assert again.seen[0] == VenueConnected(NAME)
        assert VenueStatus(NAME, "TRADING") in again.seen
        facts = await desk.ask("o1")  # as the engine does after each connect
        assert [one.received.units for one in fills(facts)] == [40_000_000]


async def test_an_end_says_how_much_was_filled_so_that_a_lost_fill_is_missed(exchange: Exchange, desk: Desk) -> None:
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        await listener.until(has("o1", OrderState.OPEN))
        exchange.fault("swallow_user_event", kind="executionReport")
        desk.rest(SELL, 268_000, 4_000)
        desk.exchange.venue.cancel("alice", SYMBOL, exchange.venue.open_orders("alice")[0][1], 1, "by-hand")
        seen = await listener.until(has("o1", OrderState.CANCELLED))
        assert fills(seen) == []
        assert reports(seen, "o1")[-1] == (OrderState.CANCELLED, 40_000_000)
        assert states(seen, "by-hand") == []  # a cancel by hand is no order of ours
    facts = await desk.ask("o1")
    assert [one.received.units for one in fills(facts)] == [40_000_000]
    assert not fills((await desk.look("o1", filled=40_000_000)).facts)  # nothing is missing: nothing is asked


async def test_a_private_stream_that_says_nothing_is_found_out() -> None:
    async with started() as exchange, trading(exchange, stale_ms=300) as desk, listening(desk.venue) as listener:
        exchange.fault("stall_stream", kind="user")
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        assert "does not mention order o1" in await listener.failure()


# -- keys and addresses ------------------------------------------------------------------------------------------------


async def test_the_secret_never_enters_ccxt_and_no_address_leaves_the_sandbox(exchange: Exchange) -> None:
    credentials = exchange.add_key("alice")
    async with trading(exchange, credentials) as desk:
        await desk.send(desk.place("o1", "buy", 268_000, 10_000, "GTC"))
        ccxt = desk.venue._client.exchange  # type: ignore[attr-defined]
        assert credentials[1] not in repr(vars(ccxt)) + repr(vars(desk.venue))
        hosts = set(_texts(ccxt.urls["api"]))
        assert all(url.startswith(exchange.url) for url in hosts), hosts


def _texts(tree: Any) -> list[str]:
    return [tree] if isinstance(tree, str) else [text for part in tree.values() for text in _texts(part)]


async def test_a_market_that_is_not_there_is_said_so(exchange: Exchange) -> None:
    config = ccxt_exchange.Config(url=exchange.url, symbols=("BTC/USDT",), groups={"BTC": "BTC", "USDT": "USDT"})
    with pytest.raises(ConfigError, match="correct symbols"):
        await ccxt_exchange.connect(NAME, config, Tools(RealClock()))
    config = ccxt_exchange.Config(url=exchange.url, symbols=("ETH/USDT",), groups={"ETH": "ETH"})
    with pytest.raises(ConfigError, match='add USDT = "USDT"'):
        await ccxt_exchange.connect(NAME, config, Tools(RealClock()))


async def test_without_a_key_it_looks_and_does_not_trade(exchange: Exchange) -> None:
    config = ccxt_exchange.Config(url=exchange.url, symbols=("ETH/USDT",), groups={"ETH": "ETH", "USDT": "USDT"})
    venue = await ccxt_exchange.connect(NAME, config, Tools(RealClock()))
    async with listening(venue) as listener:
        assert listener.seen[0] == VenueConnected(NAME)
        with pytest.raises(VenueError, match="no key"):
            await venue.snapshot()
    await venue.close()


async def test_a_recording_holds_a_snapshot_and_what_follows() -> None:
    async with started(flow="model") as exchange:
        config = ccxt_exchange.Config(url=exchange.url, symbols=("ETH/USDT",), groups={"ETH": "ETH", "USDT": "USDT"})
        rows = [row async for row in ccxt_exchange.frames(config, Tools(RealClock()), 1)]
    frames = [json.loads(text) for _, text in rows]
    assert "lastUpdateId" in frames[0]
    assert any(frame.get("stream") == "ethusdt@depth@100ms" for frame in frames)
    assert [at_ns for at_ns, _ in rows] == sorted(at_ns for at_ns, _ in rows)


# -- another exchange, through ccxt's unified words --------------------------------------------------------------------


async def test_a_polled_exchange_tells_the_same_story(exchange: Exchange) -> None:
    credentials = exchange.add_key("alice")
    desk_rest = Desk.rest
    async with (
        trading(exchange, credentials) as native,
        trading(exchange, credentials, exchange="binanceus", poll_ms=50) as polled,
        listening(polled.venue) as listener,
    ):
        desk_rest(polled, SELL, 268_000, 3_000)
        facts = await polled.send(polled.place("o1", "buy", 268_000, 10_000))
        assert states(facts, "o1") == [OrderState.EXPIRED]
        (filled,) = fills(facts)
        (known,) = fills(await native.ask("o1"))
        assert (filled.key, filled.paid, filled.received, filled.fee) == (known.key, known.paid, known.received, known.fee)
        await polled.send(polled.place("o2", "sell", 300_000, 10_000, "GTC"))
        desk_rest(polled, BUY, 300_000, 10_000)
        seen = await listener.until(has("o2", OrderState.FILLED))
        assert [one.paid.units for one in fills(seen, "o2")] == [100_000_000]
        await polled.send(polled.place("o3", "buy", 200_000, 10_000, "GTC"))
        await polled.send(polled.cancel("c3", "o3"))
        await listener.until(has("o3", OrderState.CANCELLED))
        ours, theirs = (await polled.venue.snapshot()).balances, (await native.venue.snapshot()).balances
        assert {amount.asset.symbol: amount.units for amount in ours} == {amount.asset.symbol: amount.units for amount in theirs}


@pytest.mark.parametrize("fault", LOST)
async def test_a_polled_exchange_does_not_guess_either(exchange: Exchange, fault: str) -> None:
    async with trading(exchange, exchange="binanceus") as polled:
        exchange.fault(fault, on="place")
        with pytest.raises(OutcomeUnknown):
            await polled.send(polled.place("o1", "buy", 268_000, 10_000, "GTC"))
        assert states(await polled.ask("o1"), "o1") == [OrderState.OPEN]
        assert await polled.ask("never-sent", sent_ns=1) == []
