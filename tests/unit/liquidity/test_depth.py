"""An order book as liquidity: rounding level by level, whole lots, fees on what is received, no quote beyond what is known."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.domain.errors import LiquidityError
from agent.liquidity.depth import Depth, buy_lots, sell_lots
from agent.liquidity.quote import Quote

# Ticks of 0.01 USDT (6 decimals), lots of 0.001 ETH (18 decimals), fee 10 bps.
BOOK = Depth(((300_000, 500), (299_990, 2_000)), ((300_010, 1_000), (300_050, 3_000)), 10_000, 10**15, 18, 1_000)


@st.composite
def books(draw: st.DrawFn) -> Depth:
    levels = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 50)), min_size=1, max_size=5)
    bids, asks = draw(levels), draw(levels)
    falling = tuple(sorted(dict(bids).items(), reverse=True))
    rising = tuple(sorted(dict(asks).items()))
    tick_units, lot_units = draw(st.integers(1, 99)), draw(st.integers(1, 99))
    fee_pips = draw(st.sampled_from([0, 1, 1_000, 25_000]))
    return Depth(falling, rising, tick_units, lot_units, draw(st.integers(0, 4)), fee_pips)


def test_selling_walks_the_bids() -> None:
    quote = BOOK.swap_in(7 * 10**17 + 999, zero_for_one=True)
    assert quote.amount_in == 7 * 10**17  # whole lots
    assert quote.amount_out == (1_500_000_000 - 1_500_000) + (599_980_000 - 599_980)
    assert quote.after == Depth(((299_990, 1_800),), BOOK.asks, 10_000, 10**15, 18, 1_000)
    assert quote.gas == 0


def test_buying_pays_the_asks_and_the_fee_is_base() -> None:
    quote = BOOK.swap_in(3_000_100_000 + 2_999_999, zero_for_one=False)
    assert (quote.amount_in, quote.amount_out) == (3_000_100_000, 999 * 10**15)
    assert quote.after == Depth(BOOK.bids, ((300_050, 3_000),), 10_000, 10**15, 18, 1_000)


@given(books(), st.integers(1, 10**7), st.booleans())
def test_swap_in_takes_the_most_lots_that_fit(book: Depth, amount: int, sells: bool) -> None:
    trade, levels = (sell_lots, book.bids) if sells else (buy_lots, book.asks)
    total = sum(size for _, size in levels)
    fitting = [lots for lots in range(1, total + 1) if trade(book, lots).amount_in <= amount]
    try:
        quote = book.swap_in(amount, sells)
    except LiquidityError:
        # Not even one lot fits, or every lot fits and there is budget for more.
        assert not fitting or len(fitting) == total
    else:
        assert quote == trade(book, fitting[-1])


@given(books(), st.integers(1, 10**6), st.booleans())
def test_swap_out_takes_the_fewest_lots(book: Depth, amount: int, sells: bool) -> None:
    trade, levels = (sell_lots, book.bids) if sells else (buy_lots, book.asks)
    total = sum(size for _, size in levels)
    enough = [lots for lots in range(1, total + 1) if trade(book, lots).amount_out >= amount]
    try:
        quote = book.swap_out(amount, sells)
    except LiquidityError:
        assert not enough
    else:
        assert quote == trade(book, enough[0])


@given(books(), st.integers(1, 100), st.integers(1, 100), st.booleans())
def test_two_trades_never_beat_one(book: Depth, first: int, second: int, sells: bool) -> None:
    trade, levels = (sell_lots, book.bids) if sells else (buy_lots, book.asks)
    assume(first + second <= sum(size for _, size in levels))
    one: Quote = trade(book, first)
    assert isinstance(one.after, Depth)
    two, whole = trade(one.after, second), trade(book, first + second)
    assert two.after == whole.after
    assert one.amount_out + two.amount_out <= whole.amount_out
    assert one.amount_in + two.amount_in >= whole.amount_in


@pytest.mark.parametrize("zero_for_one", [True, False])
def test_more_than_the_known_levels_is_refused(zero_for_one: bool) -> None:
    for amount in (0, -1, 1, 10**30):
        with pytest.raises(LiquidityError):
            BOOK.swap_in(amount, zero_for_one)
    with pytest.raises(LiquidityError):
        BOOK.swap_out(10**30, zero_for_one)
    empty = Depth((), (), 1, 1, 0, 0)
    with pytest.raises(LiquidityError):
        empty.swap_in(5, zero_for_one)
