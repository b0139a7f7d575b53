"""The analysis of an order says what the account says, comes from journal and bars alone, and leaves out what was not recorded."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from engine_kit import (
    BOOK,
    CEX_ETH,
    CEX_USDT,
    ETH,
    MAIN,
    START_NS,
    ScriptedBook,
    ScriptedPool,
    WarpClock,
    replayed,
    running,
    sale,
    venues_of,
    warped,
)

from agent import observe
from agent.domain.amount import Amount, parse_amount
from agent.domain.intent import Intent
from agent.domain.market import TradePrint
from agent.domain.order import Fill, Order, OrderState
from agent.domain.plan import PlaceOrder
from agent.domain.price import Price
from agent.engine.analysis import Analysis, analysis
from agent.engine.parent import Parent
from agent.engine.recorded import Recorded
from agent.engine.state import State
from agent.engine.summary import summary
from agent.engine.traded import AT_ONCE_NS, trades_of
from agent.execution.tca import PARTS
from agent.market.bars import SECOND_NS, Bar
from agent.ports import VenueEvent


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


class Moving(ScriptedBook):
    """A book that moves by `step` ticks a pulse, on which 3 coins are traded each time."""

    step = -8

    def pulse(self) -> Sequence[VenueEvent]:
        self.bid += self.step
        told = TradePrint(BOOK.id, self.bid, 30_000, False, self.clock.now_ns())
        return (*super().pulse(), told)


async def worked(run: Any, intent: Intent, *, wait_s: int = 70) -> tuple[State, tuple[Bar, ...], list[Any]]:
    """The state and the bars when it has ended and its markouts are over, and the journal."""
    await run.engine.submit(intent)
    await run.engine.finished(intent.intent_id)
    await asyncio.sleep(wait_s)
    return run.engine.state, tuple(run.engine.world.market.bars("ETH/USDT").since(0)), list(run.journal.rows)


def one_sale(**changes: Any) -> tuple[State, tuple[Bar, ...], list[Any]]:
    async def work() -> tuple[State, tuple[Bar, ...], list[Any]]:
        book, pool = Moving(WarpClock(), 3), ScriptedPool(WarpClock(), 3)
        async with running(venues_of(book, pool)) as run:
            await asyncio.sleep(5)
            intent = sale("p1", "40", slices=4, interval_ns=5 * SECOND_NS)
            return await worked(run, msgspec.structs.replace(intent, **changes))

    return warped(work())


@pytest.fixture(scope="module")
def sold() -> tuple[State, tuple[Bar, ...], list[Any]]:
    return one_sale()


def bps_of(found: Analysis, name: str) -> float | None:
    return next(one.cost_bps for one in found.benchmarks if one.name == name)


def test_the_parts_end_at_what_the_account_received(sold: Any) -> None:
    state, bars, _ = sold
    found, done = analysis(state, "p1", bars), summary(state, "p1")
    cost = found.shortfall
    parts = {name: getattr(cost, name) for name in PARTS}
    assert sum(part.units for part in parts.values()) == cost.total.units
    arrival = done.arrival_price
    paper = done.filled.units * arrival.num // arrival.den
    assert abs(paper - done.quote.units - (cost.total.units - parts["opportunity"].units)) <= len(found.points), "values round down"
    assert parts["gas"] == done.gas.quote
    assert cost.bps is not None
    assert done.arrival_bps is not None
    assert cost.bps == pytest.approx(-done.arrival_bps, rel=1e-3), "all of it was traded"
    assert parts["timing"].units > 0, "the market fell while we sold"
    assert parts["spread"].units > 0
    assert parts["fees"].units > done.fees.units, "with the pools' own"


def test_benchmarks_come_from_the_bars(sold: Any) -> None:
    state, bars, _ = sold
    found, parent = analysis(state, "p1", bars), state.parents["p1"]
    price = {one.name: one.price for one in found.benchmarks}
    inside = [bar for bar in bars if parent.accepted_ns // SECOND_NS <= bar.start_s <= parent.ended_ns // SECOND_NS]
    assert price["arrival"] == parent.arrival.num / parent.arrival.den
    assert parent.departure is not None
    assert price["departure"] == parent.departure.num / parent.departure.den
    assert (price["open"], price["close"]) == (inside[0].mid, inside[-1].mid)
    for name in ("VWAP", "TWAP"):
        assert min(bar.low for bar in inside) - 1 < price[name] < max(bar.high for bar in inside) + 1
        assert bps_of(found, name) == pytest.approx((price[name] - found.price) / price[name] * 1e4)
    assert found.market_volume == pytest.approx(3 * (parent.ended_ns - parent.accepted_ns) / 1e9, rel=0.4)
    books = sum(float(str(one.base).split()[0]) for one in found.by_liquidity if one.name != "pool")
    assert found.participation == pytest.approx(books / found.market_volume)
    assert found.missing == ()


def test_markouts_are_the_journals_and_then_the_bars(sold: Any) -> None:
    state, bars, _ = sold
    found = analysis(state, "p1", bars)
    assert [one.after_s for one in found.markouts] == [1, 10, 60]
    assert all(one.share == 1.0 for one in found.markouts)
    assert found.markouts[0].bps < found.markouts[1].bps < found.markouts[2].bps, "it went on falling after we sold: good for us"
    by_hand = sum(point.size * point.price * (point.markouts_bps[1] or 0) for point in found.points)
    assert found.markouts[1].bps == pytest.approx(by_hand / sum(point.size * point.price for point in found.points))
    alone = analysis(state, "p1")
    assert [one.share for one in alone.markouts] == [1.0, 1.0, 0.0]
    assert alone.markouts[2].bps is None
    assert alone.markouts[1] == found.markouts[1]


def test_without_bars_figures_are_absent_and_say_why(sold: Any) -> None:
    state, bars, _ = sold
    found, full = analysis(state, "p1"), analysis(state, "p1", bars)
    assert found.shortfall.spread is None
    assert found.shortfall.total == full.shortfall.total
    assert (found.participation, found.market_volume, bps_of(found, "VWAP"), bps_of(found, "TWAP")) == (None, None, None, None)
    assert bps_of(found, "arrival") == bps_of(full, "arrival")
    assert [line.partition(":")[0] for line in found.missing] == [
        "spread", "VWAP, TWAP, open, close and participation", "markouts after 60 s",
    ]  # fmt: skip


def test_the_journal_alone_gives_the_same(sold: Any) -> None:
    state, bars, rows = sold
    again = replayed(rows)
    assert analysis(again, "p1", bars) == analysis(state, "p1", bars)
    assert analysis(again, "p1", tuple(reversed(bars))) == analysis(state, "p1", bars)


def test_all_of_it_at_arrival_is_known(sold: Any) -> None:
    state, bars, _ = sold
    found = analysis(state, "p1", bars)
    assert found.at_once is not None
    assert found.at_once.quantity == found.quantity
    assert found.at_once.cost_bps > 0
    assert found.shortfall.bps is not None
    assert found.at_once.better_bps == pytest.approx(found.at_once.cost_bps - found.shortfall.bps, abs=0.05)
    assert found.at_once.better_bps < 0, "the market fell: at once would have been better"


def test_groups_hold_everything_once(sold: Any) -> None:
    state, bars, _ = sold
    found = analysis(state, "p1", bars)
    for groups in (found.by_liquidity, found.by_source, found.by_venue):
        assert sum(one.base.units for one in groups) == found.filled.units
        assert sum(one.fills for one in groups) == len(found.points)
        assert sum(one.share for one in groups) == pytest.approx(1.0)
    assert {one.name for one in found.by_liquidity} == {"taker", "pool"}
    assert {one.name for one in found.by_venue} == {"cex", "amm"}
    assert found.points[-1].total == pytest.approx(40.0)


def test_what_was_not_traded_has_a_price_too() -> None:
    """Cancelled after the first of two slices, while the market falls."""

    async def work() -> Analysis:
        async with running(venues_of(Moving(WarpClock(), 3))) as run:
            await run.engine.submit(sale("p1", "20", slices=2, interval_ns=60 * SECOND_NS))
            await asyncio.sleep(20)
            early = analysis(run.engine.state, "p1")
            assert early.shortfall.opportunity is None
            assert "opportunity: the order is still worked" in early.missing
            await run.engine.cancel("p1")
            state, bars, _ = run.engine.state, run.engine.world.market.bars("ETH/USDT").since(0), await run.engine.finished("p1")
            return analysis(state, "p1", bars)

    found = warped(work())
    assert found.status == "CANCELLED"
    assert found.shortfall.opportunity is not None
    left = found.quantity.units - found.filled.units
    prices = {one.name: one.price for one in found.benchmarks}
    assert prices["arrival"] is not None
    assert prices["departure"] is not None
    assert found.shortfall.opportunity.units == pytest.approx(left * (prices["arrival"] - prices["departure"]))
    assert found.shortfall.opportunity.units > 0


def test_buying_a_fee_in_the_coin_itself_is_worth_what_was_paid_for_it() -> None:
    async def work() -> Analysis:
        async with running(venues_of(Moving(WarpClock(), 3))) as run:
            wanted = msgspec.structs.replace(sale("p1", "2"), side="buy")
            state, bars, _ = await worked(run, wanted)
            return analysis(state, "p1", bars)

    found = warped(work())
    quote = sum(one.quote.units for one in found.by_venue)
    assert found.shortfall.fees.units == pytest.approx(quote * 0.001, rel=1e-6)
    assert found.markouts[-1].bps is not None
    assert found.markouts[-1].bps < 0, "it fell after we bought"


def test_the_nearest_second_that_is_known_tells_the_middle() -> None:
    seen = Recorded([Bar(101, mid=11.0), Bar(100, mid=10.0, spread_bps=3.0), Bar(105, mid=15.0), Bar(101, mid=12.0)])
    assert seen.mid_before(102 * SECOND_NS) == 12.0, "of two bars of a second the later counts"
    assert seen.mid_before(101 * SECOND_NS + 5) == 10.0
    assert seen.mid_near(int(101.6 * SECOND_NS)) == 12.0, "that second ends at 102"
    assert seen.mid_near(int(101.4 * SECOND_NS)) == 10.0
    assert seen.mid_near(104 * SECOND_NS) == 12.0, "two seconds old"
    assert seen.mid_near(105 * SECOND_NS) == 0.0
    assert seen.half_spread_bps(103 * SECOND_NS) == 1.5
    assert seen.half_spread_bps(107 * SECOND_NS) is None
    assert [bar.start_s for bar in seen.between(100 * SECOND_NS, 102 * SECOND_NS)] == [100, 101]
    assert not Recorded([]).covers(0, SECOND_NS, 0.0)


# -- who took, and who rested --------------------------------------------------------------------------------------------


def resting(kind: Any, at_ns: int) -> Order:
    sell = parse_amount("1", CEX_ETH)
    buy = parse_amount("2683.5", CEX_USDT)
    plan = PlaceOrder("o", "p1", MAIN, "cex", BOOK.id, "sell", 268_350, 10_000, kind, sell, buy)
    order = Order(plan, OrderState.FILLED, START_NS, heard_ns=START_NS)
    order.fills.append(Fill("o", "cex", BOOK.id, "t1", sell, buy, Amount(0, CEX_USDT), at_ns))
    return order


@pytest.mark.parametrize(
    ("kind", "after_ns", "liquidity"),
    [
        ("IOC", 10 * SECOND_NS, "taker"),
        ("GTC", AT_ONCE_NS, "taker"),
        ("GTC", 5 * SECOND_NS, "maker"),
        ("POST", 5 * SECOND_NS, "maker"),
    ],
)
def test_an_order_that_rests_is_measured_against_the_middle_of_its_trade(kind: Any, after_ns: int, liquidity: str) -> None:
    """The market was at 2,683 when it was sent, and at 2,684 in the second before it traded, with a spread of 4 bps."""
    trade_s = (START_NS + after_ns) // SECOND_NS
    seen = Recorded([Bar(trade_s - 1, mid=2_684.0, spread_bps=4.0), Bar(trade_s, mid=2_690.0, spread_bps=9.0)])
    parent = Parent(sale("p1", "1"), Price(2_683, 1), START_NS, parse_amount("1", ETH))
    (trade,) = trades_of(resting(kind, START_NS + after_ns), parent, seen)
    assert trade.liquidity == liquidity
    assert trade.mid == (Price(2_684, 1) if liquidity == "maker" else Price(2_683, 1))
    if liquidity == "maker":
        assert trade.half_bps == 2.0
