"""Prices compare exactly, whatever the decimals behind them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, Asset
from agent.domain.price import Price, bps_between, price_of, rounded, ticks_price, worse_by

positive = st.integers(1, 10**40)


def of(price: Price) -> Fraction:
    return Fraction(int(price.num), int(price.den))


@given(positive, positive, positive, positive)
def test_order_is_that_of_the_ratios(a: int, b: int, c: int, d: int) -> None:
    one, two = Price(a, b), Price(c, d)
    assert (one < two) == (of(one) < of(two))
    assert (one == two) == (of(one) == of(two))
    assert (one >= two) == (of(one) >= of(two))


def test_the_same_price_at_two_places_is_equal() -> None:
    book = price_of(Amount(268_380_000_000, Asset("USDT", "binance", 8, "USDT")), Amount(10**8, Asset("ETH", "binance", 8, "ETH")))
    pool = price_of(
        Amount(2_683_800_000, Asset("USDT", "eip155:1", 6, "USDT")), Amount(10**18, Asset("WETH", "eip155:1", 18, "ETH"))
    )
    assert book == pool == ticks_price(268_380, 10**6, 8)
    assert str(book) == "2683.8"


@given(positive, positive, st.integers(0, 9_999))
def test_worse_is_lower_for_sellers_and_higher_for_buyers(a: int, b: int, bps: int) -> None:
    price = Price(a, b)
    assert worse_by(price, bps, selling=True) <= price <= worse_by(price, bps, selling=False)


def test_distance_in_basis_points() -> None:
    assert bps_between(Price(10_010, 10_000), Price(1, 1)) == pytest.approx(10)


@pytest.mark.parametrize(("num", "den"), [(0, 1), (1, 0), (-1, 1)])
def test_a_price_is_positive(num: int, den: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Price(num, den)


@given(positive, positive)
def test_rounding_is_to_the_nearest_and_never_to_nothing(a: int, b: int) -> None:
    near = rounded(Price(a, b))
    assert near.den <= 10**18
    assert abs(of(near) - of(Price(a, b))) <= Fraction(1, 2 * 10**18) or near == Price(1, 10**18)
