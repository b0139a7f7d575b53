"""Bars say what a market did, second by second: every trade once, and nothing where nothing was told."""

from itertools import pairwise
from math import exp, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.market import BookSnapshot, Listed, TradePrint
from agent.market.bars import RETURNS_MIN, SECOND_NS, SECONDS_MAX, Bars
from agent.market.view import Market
from tests.unit.market.test_view import book, head, market, pool, reserves, snapshot

START_NS = 1_700_000_000 * SECOND_NS
CENT = 10**6  # the tick of `book()`, in quote units; a lot is 0.0001


def trade(at_ns, lots=10_000, ticks=250_000):
    return TradePrint(book().id, ticks, lots, False, at_ns)


def traded(*trades):
    found = Bars()
    for one in trades:
        found.add_trade(book(), one)
    return found


def walked(mids, every_ns=SECOND_NS):
    found = Bars()
    for place, mid in enumerate(mids):
        found.sample(mid, mid - 0.5, mid + 0.5, START_NS + place * every_ns)
    return found


def test_a_second_holds_what_happened_in_it():
    found = Bars()
    for at_ns, mid in ((0, 100.0), (10**8, 98.0), (2 * 10**8, 103.0), (9 * 10**8, 101.0)):
        found.sample(mid, mid - 0.5, mid + 0.5, START_NS + at_ns)
    found.add_trade(book(), trade(START_NS + 5, lots=20_000, ticks=10_000))
    found.add_trade(book(), trade(START_NS + 6, lots=10_000, ticks=10_300))
    (bar,) = found.since(0)
    assert (bar.start_s, bar.mid, bar.low, bar.high) == (START_NS // SECOND_NS, 101.0, 98.0, 103.0)
    assert (bar.bid, bar.ask) == (100.5, 101.5)
    assert bar.volume == pytest.approx(3.0)
    assert bar.value == pytest.approx(2 * 100 + 103)
    assert bar.spread_bps == pytest.approx(sum(10_000 / mid for mid in (100, 98, 103, 101)) / 4)
    assert found.vwap(START_NS, START_NS + SECOND_NS) == pytest.approx(101.0)


@given(
    times=st.lists(st.integers(0, 30 * SECOND_NS), min_size=1, max_size=30),
    cuts=st.lists(st.integers(-SECOND_NS, 32 * SECOND_NS), min_size=2, max_size=6),
)
def test_volume_adds_up_over_any_split_of_the_time(times, cuts):
    found = traded(*(trade(START_NS + one) for one in sorted(times)))
    cuts = sorted(START_NS + cut for cut in cuts)
    parts = sum(found.volume(one, other) for one, other in pairwise(cuts))
    assert found.volume(cuts[0], cuts[-1]) == pytest.approx(parts)
    whole_ns = (START_NS // SECOND_NS * SECOND_NS, START_NS + 31 * SECOND_NS)
    assert found.volume(*whole_ns) == pytest.approx(len(times)), "each trade once"


def test_what_comes_late_counts_in_the_newest_second():
    found = traded(trade(START_NS + 2 * SECOND_NS), trade(START_NS))
    assert [bar.start_s for bar in found.since(0)] == [START_NS // SECOND_NS + 2]
    assert found.volume(START_NS, START_NS + 3 * SECOND_NS) == pytest.approx(2.0)


def test_a_second_partly_inside_counts_by_its_share():
    found = traded(trade(START_NS))
    assert found.volume(START_NS + SECOND_NS // 4, START_NS + SECOND_NS // 2) == pytest.approx(0.25)


@given(sigma=st.sampled_from([1e-5, 1e-4, 1e-3]), missing=st.sets(st.integers(0, 199), max_size=100))
def test_volatility_is_found_however_many_seconds_are_missing(sigma, missing):
    """Of a market that goes up and down by the same step: neighbouring seconds differ by `sigma`; farther ones by 0 or `sigma`."""
    found = Bars()
    for second in range(200):
        if second not in missing:
            found.sample(100 * exp(sigma * (second % 2)), 0.0, 0.0, START_NS + second * SECOND_NS)
    known = [second for second in range(200) if second not in missing]
    if len(known) <= RETURNS_MIN:
        assert found.sigma(600) == 0.0
        return
    steps = sum((one - other) % 2 for one, other in pairwise(known))
    assert found.sigma(600) == pytest.approx(sigma * sqrt(steps / (known[-1] - known[0])), rel=1e-6)


def test_volatility_of_a_known_walk():
    found = walked([100 * exp(1e-4 * (second % 2)) for second in range(60)])
    assert found.sigma(600) == pytest.approx(1e-4)
    assert walked([100.0] * RETURNS_MIN).sigma(600) == 0.0, "too few seconds say nothing"


def test_mean_price_over_time_leaves_out_what_is_not_known():
    found = Bars()
    found.sample(100.0, 0.0, 0.0, START_NS)
    found.add_trade(book(), trade(START_NS + SECOND_NS))  # a second without a middle
    found.sample(110.0, 0.0, 0.0, START_NS + 2 * SECOND_NS)
    until_ns = START_NS + 3 * SECOND_NS
    assert found.twap(START_NS, until_ns) == pytest.approx(105.0)
    assert found.twap(START_NS + SECOND_NS // 2, START_NS + SECOND_NS) == pytest.approx(100.0)
    assert found.coverage(START_NS, until_ns) == pytest.approx(2 / 3)
    assert found.twap(until_ns, until_ns + SECOND_NS) == 0.0
    assert found.vwap(START_NS, START_NS + SECOND_NS) == 0.0
    assert found.mid_at(START_NS + SECOND_NS) == 0.0
    assert found.mid_at(START_NS + SECOND_NS, late_s=1) == 100.0
    assert found.mid_at(START_NS + 9 * SECOND_NS, late_s=5) == 0.0


def test_the_rate_is_that_of_complete_seconds():
    found = traded(*(trade(START_NS + second * SECOND_NS, lots=5_000) for second in range(11)))
    assert found.rate(10) == pytest.approx(0.5)
    assert found.rate(5) == pytest.approx(0.5)
    assert Bars().rate(5) == 0.0
    assert found.covered_from_ns == START_NS


def test_it_begins_when_the_first_news_came():
    found = Bars()
    assert found.covered_from_ns == 0
    found.sample(100.0, 0.0, 0.0, START_NS + 700)
    assert found.covered_from_ns == START_NS + 700


def test_old_seconds_are_forgotten():
    found = walked([100.0] * (SECONDS_MAX + 5))
    assert len(found.since(0)) == SECONDS_MAX
    assert found.covered_from_ns == START_NS + 5 * SECOND_NS


def test_kept_bars_answer_as_the_first_ones_did():
    found = walked([100 + second % 7 for second in range(100)])
    found.add_trade(book(), trade(START_NS + 99 * SECOND_NS))
    again = Bars.of([*reversed(found.since(0)), *found.since(START_NS + 50 * SECOND_NS)])
    assert again.since(0) == found.since(0)
    span = START_NS, START_NS + 100 * SECOND_NS
    for ask in (lambda bars: bars.sigma(60), lambda bars: bars.twap(*span), lambda bars: bars.volume(*span), lambda b: b.rate(60)):
        assert ask(again) == ask(found)


# -- in a market -------------------------------------------------------------------------------------------------------


def test_a_market_keeps_them_by_itself():
    binance, kraken = book(), book("kraken")
    found = market(binance, kraken)
    found.apply(snapshot(binance, 250_000, 250_100))
    found.apply(snapshot(kraken, 250_040, 250_060))
    found.apply(trade(SECOND_NS, ticks=250_050))
    found.apply(TradePrint(kraken.id, 250_050, 10_000, True, SECOND_NS))
    found.apply(TradePrint("nowhere:X", 1, 1, True, SECOND_NS))
    found.sample("ETH/USD", SECOND_NS)
    (bar,) = found.bars("ETH/USD").since(0)
    assert bar.mid == pytest.approx(2_500.50)
    assert (bar.bid, bar.ask) == pytest.approx((2_500.40, 2_500.60)), "of the tightest book"
    assert bar.volume == pytest.approx(2.0)
    assert found.markets() == ("ETH/USD",)


def test_without_a_trusted_price_nothing_is_noted():
    found = market(book())
    found.apply(BookSnapshot(book().id, 1, ((250_000, 10),), ((249_000, 10),), SECOND_NS))
    found.sample("ETH/USD", SECOND_NS)
    assert found.bars("ETH/USD").since(0) == []


def test_pools_alone_have_a_middle_and_no_spread():
    found = Market()
    found.apply(Listed("uniswap", (pool(),), 0))
    found.apply(head())
    found.apply(reserves(pool(), 2_500))
    found.sample("ETH/USD", SECOND_NS)
    (bar,) = found.bars("ETH/USD").since(0)
    assert (bar.mid, bar.bid, bar.ask, bar.spread_bps) == (2_500.0, 0.0, 0.0, 0.0)
    assert found.bars("ETH/USD").spread_bps(60) == 0.0
