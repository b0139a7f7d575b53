"""Orders that wait for a price: when they fire, from what their slippage counts, and that a restart forgets nothing."""

from typing import Any

import msgspec
import pytest
from engine_kit import START_NS, Run, replayed, running, warped
from linked_kit import SECOND, MovingBook, order, price, settled

from agent.domain.algo import new_algo
from agent.domain.events import IntentTrailed, IntentTriggered, Resumed
from agent.domain.instrument import Side
from agent.domain.trigger import Stop, Touched, Trailing, Trigger
from agent.engine.summary import summary


def told(run: Run, kind: type) -> list[Any]:
    return [record.event for record in run.journal.read() if isinstance(record.event, kind)]


@pytest.mark.parametrize(
    ("side", "trigger", "quiet", "fires"),
    [
        ("sell", Stop(price("2600")), [2690, 2601], 2599.99),
        ("buy", Stop(price("2750")), [2600, 2749], 2750),
        ("sell", Touched(price("2750")), [2600, 2749], 2750),
        ("buy", Touched(price("2600")), [2750, 2601], 2599.98),
        ("sell", Stop(price("2600"), "bid_ask"), [2601, 2600.01], 2600),
        ("buy", Stop(price("2750"), "bid_ask"), [2749, 2749.98], 2749.99),
        ("sell", Trailing(100), [2690, 2700, 2674], 2672),  # 1 % below 2,700
        ("buy", Trailing(100), [2670, 2600, 2625], 2627),
        ("sell", Trailing(100, price("2700")), [2600, 2699, 2660, 2701, 2675], 2673),  # it follows from 2,700 on
    ],
)
def test_it_waits_until_the_market_is_there(side: Side, trigger: Trigger, quiet: list[float], fires: float) -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            assert await run.engine.submit(order("p1", side, trigger=trigger)) == ()
            parent = run.engine.state.parents["p1"]
            for at in quiet:
                book.to(at)
                await settled(run)
                assert (parent.word, parent.orders) == ("WAITING", []), at
                assert "for the market to" in summary(run.engine.state, "p1").reason
            book.to(fires)
            assert await run.engine.finished("p1") == "FILLED"
            (event,) = told(run, IntentTriggered)
            assert parent.arrival == event.arrival, "its slippage counts from here"
            assert float(event.arrival.num) / float(event.arrival.den) == pytest.approx(fires, abs=0.02)
            assert parent.begun_ns > parent.accepted_ns

    warped(lived())


def test_by_the_last_trade_a_print_counts_and_one_that_is_far_off_does_not() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            (reason,) = await run.engine.submit(order("p1", trigger=Stop(price("2600"), "last")))
            assert (reason.code, "go by another" in reason.text) == ("NO_REFERENCE_PRICE", True)
            book.print_at(2683)
            await settled(run)
            assert await run.engine.submit(order("p2", trigger=Stop(price("2650"), "last"))) == ()
            parent = run.engine.state.parents["p2"]
            book.to(2640)
            await settled(run)
            book.print_at(2_000)  # a fat finger
            await settled(run)
            assert parent.is_waiting
            book.print_at(2_649)
            assert await run.engine.finished("p2") == "FILLED"

    warped(lived())


def test_without_a_trusted_price_nothing_fires() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            assert await run.engine.submit(order("p1", trigger=Stop(price("2600")))) == ()
            book.is_down = True
            book.to(2500)  # nobody hears it
            book.cut()
            await settled(run, 60)
            assert run.engine.state.parents["p1"].is_waiting
            book.is_down = False
            assert await run.engine.finished("p1") == "FILLED"

    warped(lived())


@pytest.mark.parametrize(
    ("trigger", "side", "text"),
    [
        (Stop(price("2700")), "sell", "2700 is not below the market, which is at 2683.005 (mid): at most 2682.7367 now"),
        (Stop(price("2600")), "buy", "is not above the market"),
        (Touched(price("2600")), "sell", "is not above the market"),
        (Touched(price("2700"), "bid_ask"), "buy", "(bid_ask): at most"),
        (Trailing(0), "sell", "not within 1 and 5000 bps: 1 bps"),
        (Trailing(9_000), "sell", "5000 bps"),
    ],
)
def test_what_would_fire_at_once_is_refused_with_the_nearest_value(trigger: Trigger, side: Side, text: str) -> None:
    async def lived() -> None:
        async with running({"cex": MovingBook()}) as run:
            (reason,) = await run.engine.submit(order("p1", side, trigger=trigger))
            assert text in reason.text

    warped(lived())


def test_a_trailing_stop_remembers_the_best_price_over_a_restart_and_records_no_more_than_it_must() -> None:
    async def lived() -> None:
        book = MovingBook()
        run = Run({"cex": book})
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        assert await run.engine.submit(order("p1", trigger=Trailing(100))) == ()
        for cents in range(270_000, 270_100):  # 1 USDT up, by cents: 4 basis points
            book.to(cents / 100)
            await settled(run, 0.2)
        assert 4 <= len(told(run, IntentTrailed)) <= 7
        book.to(2900)  # a spike that nobody else would remember
        await settled(run, 0.2)
        book.to(2880)
        await settled(run)
        rows = await run.kill()
        book.to(2872)
        run = Run({"cex": book}, rows)
        await run.engine.ready()
        await settled(run)
        assert run.engine.state.parents["p1"].word == "WAITING"
        book.to(2870)
        assert await run.engine.finished("p1") == "FILLED"
        rows = await run.stop()
        assert replayed(rows).parents["p1"].best == run.engine.state.parents["p1"].best

    warped(lived())


@pytest.mark.parametrize("moment", ["waiting", "fired", "paused"])
def test_a_restart_goes_on_where_it_stood(moment: str) -> None:
    async def lived() -> None:
        book = MovingBook()
        run = Run({"cex": book})
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        twap = new_algo("twap", duration_ns=60 * SECOND, interval_ns=5 * SECOND)
        assert await run.engine.submit(order("p1", trigger=Stop(price("2600")), algo=twap)) == ()
        await settled(run, 120)  # longer than its algorithm works
        if moment == "fired":
            book.to(2590)
            await settled(run, 20)
        if moment == "paused":
            await run.engine.pause("p1")
            book.to(2590)
            await settled(run, 20)
            assert not run.engine.state.parents["p1"].triggered_ns, "paused, it is not watched"
            book.to(2620)
        run = Run({"cex": book}, await run.kill())
        await run.engine.ready()
        parent = run.engine.state.parents["p1"]
        assert bool(parent.filled) is (moment == "fired")
        if moment == "paused":
            assert await run.engine.proceed("p1")
            await settled(run)
            assert parent.is_waiting
        book.to(2590)
        assert await run.engine.finished("p1") == "FILLED"
        assert parent.ended_ns - parent.triggered_ns >= 50 * SECOND, "its algorithm began when it fired"
        await run.stop()

    warped(lived())


def test_it_can_be_amended_cancelled_and_expires_while_it_waits() -> None:
    async def lived() -> None:
        async with running({"cex": MovingBook()}) as run:
            for name in ("p1", "p2", "p3"):
                assert await run.engine.submit(order(name, trigger=Stop(price("2600")), within_s=60)) == ()
            lower = order("p1", trigger=Stop(price("2500")), within_s=90)
            assert await run.engine.amend(lower) == ()
            (reason,) = await run.engine.amend(msgspec.structs.replace(lower, trigger=Stop(price("2800"))))
            assert reason.code == "TRIGGER_REACHED"
            assert await run.engine.cancel("p2")
            assert await run.engine.finished("p2") == "CANCELLED"
            assert await run.engine.finished("p3") == "EXPIRED"
            assert "it waited for the market to fall to 2600 (mid)" in run.engine.state.parents["p3"].reason
            assert run.engine.state.parents["p1"].is_live
            assert await run.engine.finished("p1") == "EXPIRED"
            assert run.engine.state.now_ns >= START_NS + 90 * SECOND

    warped(lived())


def test_while_trading_is_halted_nothing_fires_and_then_the_market_of_then_counts() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            assert await run.engine.submit(order("p1", trigger=Stop(price("2600")))) == ()
            run.engine._recorder.halt("agent", "a person looks")
            book.to(2590)
            await settled(run)
            assert run.engine.state.parents["p1"].is_waiting
            book.to(2650)
            await settled(run)
            run.engine._recorder.record([Resumed("agent", "looked")])
            await settled(run)
            assert run.engine.state.parents["p1"].is_waiting
            book.to(2590)
            assert await run.engine.finished("p1") == "FILLED"

    warped(lived())
