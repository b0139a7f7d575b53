"""The float curves say what the exact quotes say."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_markets import E18, book, order_of, plenty, pool, view_of

from agent.domain.amount import Amount, group_asset
from agent.domain.price import Price
from agent.liquidity.depth import buy_lots, sell_lots
from agent.routing.cost import GasPrice, after_fee, gas_up, spread_up
from agent.routing.curve import (
    book_curve,
    cut,
    floored,
    pool_curve,
    price_at,
    quote_for,
    root,
    supply,
    supply_before,
    threshold,
    worst_ticks,
)


@given(
    st.sampled_from(["v2", "v3", "v4"]),
    st.booleans(),
    st.sampled_from(["sell", "buy"]),
    st.sampled_from([500, 3_000]),
    st.integers(0, 1_000),
    st.floats(0.001, 0.95),
)
def test_a_pool_curve_equals_the_pool(protocol, flipped, side, fee, seed, part):
    source = pool(protocol, size=100, fee_pips=fee, flipped=flipped, rng=Random(seed))
    found = source.instrument
    curve = pool_curve(source.state, found, side, 1_900.0 if side == "sell" else 3_300.0)
    base = int(curve.base[-1] * part * E18)
    forward = (side == "sell") == found.base_is_token0
    quote = source.state.swap_in(base, forward).amount_out if side == "sell" else source.state.swap_out(base, forward).amount_in
    assert quote_for(curve, base / E18) == pytest.approx(quote / 10**6, rel=1e-9, abs=1e-4)


@pytest.mark.parametrize("side", ["sell", "buy"])
def test_a_book_curve_equals_the_book(side):
    source = book(levels=20, rng=Random(4))
    found, state = source.instrument, source.state
    levels = state.bids if side == "sell" else state.asks
    curve = book_curve(levels, found, side, None)
    total = sum(lots for _, lots in levels)
    for lots in (1, levels[0][1], levels[0][1] + 1, total // 2, total):
        exact = (
            sell_lots(state, lots).amount_out
            if side == "sell"
            else after_fee(buy_lots(state, lots).amount_in, found.fee_pips, side)
        )
        assert quote_for(curve, lots * found.lot_units / 10**8) == pytest.approx(exact / 10**8, rel=1e-9, abs=1e-7)
    first = curve.u[0]
    assert supply(curve, first) == pytest.approx(levels[0][1] * found.lot_units / 10**8)
    assert supply_before(curve, first) == 0


def test_the_limit_of_a_book_is_exact():
    source = book(levels=3)
    bids = source.state.bids
    at = Price(bids[1][0], 100)
    assert len(book_curve(bids, source.instrument, "sell", at).u) == 2
    assert worst_ticks(source.instrument, "sell", at) == bids[1][0]
    above = Price(bids[1][0] * 10 + 1, 1_000)
    assert len(book_curve(bids, source.instrument, "sell", above).u) == 1


def test_a_floored_and_a_cut_book():
    source = book(levels=5)
    curve = book_curve(source.state.asks, source.instrument, "buy", None)
    half = curve.base[-1] / 2
    least, most = floored(curve, half), cut(curve, half)
    assert supply(least, float("-inf")) == half
    assert supply(least, curve.u[-1]) == curve.base[-1]
    assert supply(most, curve.u[-1]) == half
    for one in (least, most):
        assert quote_for(one, half) == pytest.approx(quote_for(curve, half), rel=1e-12)


@pytest.mark.parametrize("side", ["sell", "buy"])
@pytest.mark.parametrize("protocol", ["v2", "v3"])
def test_at_its_threshold_a_pool_just_earns_its_gas(side, protocol):
    curve = pool_curve(pool(protocol, size=200).state, pool(protocol).instrument, side, 1_000.0 if side == "sell" else 6_000.0)
    sign = 1 if side == "sell" else -1
    before = curve.u[0]
    for gas in (0.01, 1, 50, 2_000):
        u = threshold(curve, gas, side)
        assert u > before
        base = supply(curve, u)
        assert sign * (quote_for(curve, base) - base * price_at(u)) == pytest.approx(gas, rel=1e-6)
        before = u
    assert threshold(curve, 0, side) == curve.u[0]
    if side == "sell":
        assert threshold(curve, 1e12, side) == float("inf")
    assert price_at(root(2_500.0, side)) == pytest.approx(2_500)


def test_gas_rounds_up_and_is_shared_exactly():
    usd = group_asset("USD", 6)
    price = GasPrice(1, 1, Price(2_500, 1), 0)
    assert gas_up(1, price, usd) == Amount(1, usd)
    assert gas_up(400_000_000, price, usd) == Amount(1, usd)
    assert gas_up(400_000_001, price, usd) == Amount(2, usd)
    assert spread_up(10, [1, 1, 1]) == [4, 3, 3]
    assert spread_up(5, [0, 0]) == [5, 0]


def test_fees_round_against_us():
    assert after_fee(1_001, 1_000, "sell") == 999
    assert after_fee(1_001, 1_000, "buy") == 1_003
    assert order_of(view_of(book()), "sell", Amount(1, group_asset("ETH"))).rest == Price(1_250, 1)
    assert plenty(book())["ETH@binance"].units > 0
