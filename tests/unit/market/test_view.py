"""A view holds what can be trusted now, says why the rest cannot, and agrees on one exact middle price."""

import pytest

from agent.domain.amount import Asset
from agent.domain.instrument import Instrument, Pool
from agent.domain.market import BookDiff, BookSnapshot, ChainHead, Listed, PoolRanges, PoolReserves, PoolsCurrent, TradePrint
from agent.domain.price import Price
from agent.liquidity.tick_math import tick_at_sqrt_price
from agent.market.quality import QualityLimits
from agent.market.view import Market

SECOND = 10**9


def book(venue="binance", fee_pips=1_000, tick_units=10**6):
    base, quote = Asset("ETH", venue, 8, "ETH"), Asset("USDT", venue, 8, "USD")
    return Instrument(venue, "ETHUSDT", base, quote, fee_pips, tick_units, 10**4)


def pool(symbol="v2", protocol="v2", flipped=False, venue="uniswap"):
    base = Asset("WETH", "eip155:1", 18, "ETH", "0xaa")
    quote = Asset("USDC", "eip155:1", 6, "USD", "0xbb")
    tokens = ("0xBB", "0xAA") if flipped else ("0xAA", "0xBB")
    return Instrument(venue, symbol, base, quote, 3_000, pool=Pool(protocol, "0x1", *tokens, 60), gas=100_000)


def market(*instruments, limits=None):
    found = Market(limits or QualityLimits())
    for venue in dict.fromkeys(one.venue for one in instruments):
        found.apply(Listed(venue, tuple(one for one in instruments if one.venue == venue), 0))
    return found


def snapshot(instrument, bid, ask, at_ns=SECOND, seq=1):
    return BookSnapshot(instrument.id, seq, ((bid, 10),), ((ask, 10),), at_ns)


def head(number=10, at_ns=SECOND):
    return ChainHead(1, number, "0xh", "0xp", 10**9, 1_700_000_000, at_ns)


def reserves(instrument, price, block=10, weth=100):
    return PoolReserves(instrument.id, weth * 10**18, weth * price * 10**6, block, SECOND)


def codes(view):
    return sorted(reason.code for reason in view.untrusted)


def test_the_middle_of_a_book_is_exact():
    found = market(book())
    found.apply(snapshot(book(), 250_000, 250_001))
    view = found.view("ETH/USD", 2 * SECOND)
    assert view.mid == Price(500_001, 200)
    assert [source.instrument for source in view.sources] == [book()]
    assert view.sources[0].state.bids == ((250_000, 10),)
    assert not view.untrusted


@pytest.mark.parametrize("flipped", [False, True])
def test_the_middle_of_a_pool_does_not_depend_on_the_order_of_its_tokens(flipped):
    v2, v3 = pool(flipped=flipped), pool("v3", "v3", flipped=flipped)
    found = market(v2, v3)
    found.apply(head())
    found.apply(PoolReserves(v2.id, *((2_500 * 10**6, 10**18) if flipped else (10**18, 2_500 * 10**6)), 10, SECOND))
    root = int((2500e-12) ** (-0.5 if flipped else 0.5) * 2**96)
    tick = tick_at_sqrt_price(root)
    lower = tick // 60 * 60
    ticks = ((lower, 10**15), (lower + 60, -(10**15)))
    found.apply(PoolRanges(v3.id, root, tick, 10**15, ticks, -887_272, 887_272, 10, SECOND))
    view = found.view("ETH/USD", 2 * SECOND)
    assert codes(view) == []
    assert float(view.sources[0].mid.num / view.sources[0].mid.den) == 2500
    assert view.sources[1].mid.num / view.sources[1].mid.den == pytest.approx(2500, rel=1e-9)
    assert view.sources[1].block == 10


def test_books_are_preferred_for_the_middle_and_an_even_count_meets_halfway():
    one, two = book("a"), book("b")
    found = market(one, two, pool())
    found.apply(head())
    found.apply(snapshot(one, 250_000, 250_002))
    found.apply(snapshot(two, 250_100, 250_102))
    found.apply(reserves(pool(), 2_510))
    view = found.view("ETH/USD", 2 * SECOND)
    assert len(view.sources) == 3
    assert view.mid == Price(500_102, 200)


def test_stale_missing_and_broken_books_are_named():
    fresh, stale, none, crossed, gap, empty = (book(name) for name in ("a", "b", "c", "d", "e", "f"))
    found = market(fresh, stale, none, crossed, gap, empty)
    found.apply(snapshot(fresh, 250_000, 250_002, 5 * SECOND))
    found.apply(snapshot(stale, 250_000, 250_002, SECOND))
    found.apply(snapshot(crossed, 250_002, 250_002, 5 * SECOND))
    found.apply(snapshot(gap, 250_000, 250_002, 5 * SECOND))
    found.apply(BookDiff(gap.id, 5, 6, (), (), 5 * SECOND))
    found.apply(BookSnapshot(empty.id, 1, ((1, 1),), (), 5 * SECOND))
    view = found.view("ETH/USD", 5 * SECOND)
    assert codes(view) == ["BOOK_GAP", "CROSSED_BOOK", "NO_BOOK", "NO_SIDE", "STALE_BOOK"]
    assert [source.instrument.venue for source in view.sources] == ["a"]
    assert any(reason.text == "b:ETHUSDT: no update for 4.0 s (limit 3.0 s)" for reason in view.untrusted)


def test_a_pool_needs_a_fresh_head_and_a_recent_block():
    one = pool()
    found = market(one)
    assert codes(found.view("ETH/USD", SECOND)) == ["NO_POOL"]
    found.apply(reserves(one, 2_500))
    assert codes(found.view("ETH/USD", SECOND)) == ["STALE_CHAIN"]
    found.apply(head(13))
    assert codes(found.view("ETH/USD", SECOND)) == []
    assert codes(found.view("ETH/USD", 62 * SECOND)) == ["STALE_CHAIN"]
    found.apply(head(14))
    view = found.view("ETH/USD", SECOND)
    assert codes(view) == ["STALE_POOL"]
    assert view.mid is None
    assert found.heads()[1].number == 14


def test_a_pool_that_nobody_touches_stays_trusted_while_its_venue_follows_the_chain():
    one = pool()
    found = market(one)
    found.apply(reserves(one, 2_500))
    for number in range(11, 40):
        found.apply(head(number))
        found.apply(PoolsCurrent(one.venue, number, 0))
    view = found.view("ETH/USD", SECOND)
    assert [source.block for source in view.sources] == [39]
    for number in range(40, 44):  # its logs are not followed any more
        found.apply(head(number))
    assert codes(found.view("ETH/USD", SECOND)) == ["STALE_POOL"]


def test_a_pool_whose_numbers_contradict_each_other_is_not_quoted():
    one, two = pool("v3", "v3"), pool("v2")
    found = market(one, two)
    found.apply(head())
    found.apply(PoolRanges(one.id, 2**96, 5_000, 1, (), -887_272, 887_272, 10, SECOND))
    found.apply(PoolReserves(two.id, 0, 1, 10, SECOND))
    assert codes(found.view("ETH/USD", SECOND)) == ["BAD_POOL", "BAD_POOL"]


def test_an_outlier_is_left_out_and_two_that_disagree_are_both():
    one, two, three = book("a"), book("b"), book("c")
    found = market(one, two, three)
    found.apply(snapshot(one, 250_000, 250_002))
    found.apply(snapshot(two, 250_010, 250_012))
    found.apply(snapshot(three, 240_000, 240_002))
    view = found.view("ETH/USD", SECOND)
    assert codes(view) == ["OUTLIER"]
    assert [source.instrument.venue for source in view.sources] == ["a", "b"]
    pair = market(one, three)
    pair.apply(snapshot(one, 250_000, 250_002))
    pair.apply(snapshot(three, 240_000, 240_002))
    assert codes(pair.view("ETH/USD", SECOND)) == ["OUTLIER", "OUTLIER"]
    assert pair.view("ETH/USD", SECOND).mid is None


def test_a_listing_replaces_what_the_venue_listed_before():
    found = market(book())
    found.apply(snapshot(book(), 250_000, 250_002))
    found.apply(Listed("binance", (book(),), 1))
    assert found.view("ETH/USD", SECOND).mid is not None
    found.apply(Listed("binance", (book(tick_units=10**5),), 1))
    assert codes(found.view("ETH/USD", SECOND)) == ["NO_BOOK"]
    found.apply(Listed("binance", (), 1))
    assert found.instruments() == ()
    assert found.instrument("binance:ETHUSDT") is None


def test_facts_about_what_nobody_listed_are_ignored():
    found = Market()
    found.apply(snapshot(book(), 250_000, 250_002))
    found.apply(reserves(pool(), 2_500))
    found.apply(TradePrint("binance:ETHUSDT", 1, 1, True, 1))
    assert found.view("ETH/USD", SECOND).sources == ()
    assert found.last_trade("binance:ETHUSDT") is None


def test_the_last_trade_is_kept():
    found = market(book())
    found.apply(TradePrint("binance:ETHUSDT", 250_001, 3, True, 1))
    assert found.last_trade("binance:ETHUSDT").ticks == 250_001
