"""The router's float view agrees with the exact integer quotes: same base and same quote at the same marginal price."""

from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.liquidity.concentrated import Concentrated, checked, swap_fee_pips
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.curves import absorbed, exchanged, segments
from agent.liquidity.depth import Depth
from agent.liquidity.tick_math import sqrt_price_at_tick

UNIT = 10**24
NETS = ((-1_200, 5 * UNIT), (-600, 3 * UNIT), (-120, -UNIT), (0, UNIT), (300, -4 * UNIT), (900, -3 * UNIT), (1_500, -UNIT))
POOL = checked(Concentrated(sqrt_price_at_tick(37) + 12_345, 37, 8 * UNIT, 3_000, 60, NETS, protocol_fee_0_pips=1_000))
PAIR = ConstantProduct(10**24, 2 * 10**24)
BOOK = Depth(((300_000, 500), (299_990, 2_000)), ((300_010, 1_000), (300_050, 3_000)), 10_000, 10**15, 18, 1_000)

# 18 and 18 decimals keep integer rounding below the tolerance; 15 and 12 check that decimals are applied to both sides.
DECIMALS = st.sampled_from([(18, 18), (15, 12), (12, 15)])


@given(st.integers(10**18, 10**22), st.booleans(), st.booleans(), DECIMALS)
def test_concentrated(amount: int, selling: bool, base_is_0: bool, decimals: tuple[int, int]) -> None:
    base, quote = decimals
    curve = segments(POOL, selling=selling, base_decimals=base, quote_decimals=quote, base_is_0=base_is_0)
    zero_for_one = selling == base_is_0
    exact = POOL.swap_in(amount, zero_for_one) if selling else POOL.swap_out(amount, zero_for_one)
    assert isinstance(exact.after, Concentrated)
    root = exact.after.sqrt_price_x96 / 2**96
    price = (root * root if base_is_0 else 1 / (root * root)) * 10.0 ** (base - quote)
    gamma = 1 - swap_fee_pips(POOL, zero_for_one) / 1_000_000
    price *= gamma if selling else 1 / gamma
    base_units, quote_units = (amount, exact.amount_out) if selling else (amount, exact.amount_in)
    assert isclose(absorbed(curve, price, selling=selling), base_units / 10**base, rel_tol=1e-7)
    assert isclose(exchanged(curve, price, selling=selling), quote_units / 10**quote, rel_tol=1e-7)


@given(st.integers(10**18, 9 * 10**23), st.booleans(), st.booleans(), DECIMALS)
def test_constant_product(amount: int, selling: bool, base_is_0: bool, decimals: tuple[int, int]) -> None:
    base, quote = decimals
    curve = segments(PAIR, selling=selling, base_decimals=base, quote_decimals=quote, base_is_0=base_is_0)
    zero_for_one = selling == base_is_0
    exact = PAIR.swap_in(amount, zero_for_one) if selling else PAIR.swap_out(amount, zero_for_one)
    base_reserve, quote_reserve = (PAIR.reserve_0, PAIR.reserve_1) if base_is_0 else (PAIR.reserve_1, PAIR.reserve_0)
    product, gamma = base_reserve * quote_reserve, 0.997
    if selling:  # d out / d in
        price, other = gamma * product / (base_reserve + gamma * amount) ** 2, exact.amount_out
    else:  # d in / d out
        price, other = product / (gamma * (base_reserve - amount) ** 2), exact.amount_in
    price *= 10.0 ** (base - quote)
    assert isclose(absorbed(curve, price, selling=selling), amount / 10**base, rel_tol=1e-7)
    assert isclose(exchanged(curve, price, selling=selling), other / 10**quote, rel_tol=1e-7)


def test_a_book_is_steps_after_the_fee() -> None:
    bids = segments(BOOK, selling=True, base_decimals=18, quote_decimals=6)
    asks = segments(BOOK, selling=False, base_decimals=18, quote_decimals=6)
    assert [segment.slope for segment in (*bids, *asks)] == [0.0] * 4
    assert all(segment.price_start == segment.price_end for segment in (*bids, *asks))
    assert (bids[0].price_start, bids[0].base_capacity) == pytest.approx((2_997.0, 0.5))
    assert (asks[0].price_start, asks[0].base_capacity) == pytest.approx((3_000.1 / 0.999, 0.999))
    assert absorbed(bids, bids[0].price_start, selling=True) == 0.5
    assert absorbed(bids, 2_998.0, selling=True) == 0
    assert absorbed(bids, 1.0, selling=True) == 2.5
    sold, bought = BOOK.swap_in(25 * 10**17, True), BOOK.swap_in(12_002_000_000 + 1_500_000, False)
    assert exchanged(bids, 1.0, selling=True) == pytest.approx(sold.amount_out / 10**6)
    assert exchanged(asks, inf, selling=False) == pytest.approx(4 * 3_000.4)
    assert bought.amount_in <= 12_003_500_000


def test_curves_end_where_knowledge_ends() -> None:
    known = Concentrated(1 << 96, 0, 10**18, 0, 60, (), known_lower=-600, known_upper=600)
    for base_is_0 in (True, False):
        for selling in (True, False):
            (only,) = segments(known, selling=selling, base_decimals=18, quote_decimals=18, base_is_0=base_is_0)
            assert only.price_end == pytest.approx(1.0001 ** (-600 if selling else 600))
            everything = absorbed((only,), 0.0 if selling else inf, selling=selling)
            assert everything == only.base_capacity
    assert segments(ConstantProduct(0, 5), selling=True, base_decimals=1, quote_decimals=1) == ()
    (open_end,) = segments(PAIR, selling=True, base_decimals=18, quote_decimals=18)
    assert absorbed((open_end,), 0.0, selling=True) == inf
    (bounded,) = segments(PAIR, selling=False, base_decimals=18, quote_decimals=18)
    assert absorbed((bounded,), inf, selling=False) == pytest.approx(10**6)
