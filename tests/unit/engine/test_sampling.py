"""The engine notes what markets do, second by second, whether it trades or not."""

import asyncio

from engine_kit import START_NS, ScriptedBook, WarpClock, replayed, running, sale, venues_of, warped

from agent.domain.price import Price
from agent.market.bars import SECOND_NS


def test_every_second_of_a_market_has_a_bar() -> None:
    async def work() -> None:
        async with running(venues_of(ScriptedBook(WarpClock(), 1))) as run:
            await run.engine.submit(sale(slices=3, interval_ns=5 * SECOND_NS))
            await run.engine.finished("p1")
            await asyncio.sleep(10)
            now_ns = run.engine.now_ns()
            bars = run.engine.world.market.bars("ETH/USDT").since(0)
            seconds = [bar.start_s for bar in bars]
            assert seconds == list(range(seconds[0], now_ns // SECOND_NS + 1))
            assert len(seconds) >= 20
            assert {(bar.mid, bar.bid, bar.ask) for bar in bars} == {(2_683.005, 2_683.0, 2_683.01)}
        assert seconds[0] >= START_NS // SECOND_NS

    warped(work())


def test_the_end_of_a_parent_says_where_the_market_stood() -> None:
    async def work() -> None:
        async with running(venues_of(ScriptedBook(WarpClock(), 1))) as run:
            await run.engine.submit(sale())
            await run.engine.finished("p1")
            rows = await run.stop()
        parent = replayed(rows).parents["p1"]
        assert parent.departure == parent.arrival == Price(2_683_005, 1_000)

    warped(work())


def test_of_many_parents_at_once_each_knows_what_it_would_have_given_whole() -> None:
    async def work() -> None:
        async with running(venues_of(ScriptedBook(WarpClock(), 1))) as run:
            for name in ("p1", "p2", "p3"):
                assert await run.engine.submit(sale(name, "4", slices=2, interval_ns=SECOND_NS)) == ()
            assert await run.engine.submit(sale("p4", "4")) == ()
            for name in ("p1", "p2", "p3", "p4"):
                await run.engine.finished(name)
            rows = await run.stop()
        parents = replayed(rows).parents
        for name in ("p1", "p2", "p3"):
            whole = parents[name].whole
            assert whole is not None
            assert (whole.quantity, whole.why) == (parents[name].intent.quantity, "")
        assert parents["p4"].whole is None, "its route is that"

    warped(work())


def test_what_could_not_have_been_traded_at_once_says_so() -> None:
    async def work() -> None:
        async with running(venues_of(ScriptedBook(WarpClock(), 1))) as run:
            assert await run.engine.submit(sale("p1", "200", slices=2, interval_ns=SECOND_NS, within_s=5)) == ()
            await run.engine.finished("p1")
            whole = run.engine.state.parents["p1"].whole
            assert whole is not None
            assert whole.quantity.units < 200 * 10**18
            assert "could have been traded" in whole.why

    warped(work())
