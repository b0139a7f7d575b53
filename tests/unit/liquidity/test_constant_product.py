"""Uniswap v2: rounding against the trader, no free lunch, refusals. Equality with the contract is `tests/chain`'s."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.domain.errors import LiquidityError
from agent.liquidity.constant_product import RESERVE_MAX, ConstantProduct
from agent.liquidity.quote import Quote

RESERVES = st.integers(1_000, 10**30)
POOLS = st.builds(ConstantProduct, RESERVES, RESERVES, st.sampled_from([0, 500, 3_000, 10_000, 250_000]))


def after(quote: Quote) -> ConstantProduct:
    assert isinstance(quote.after, ConstantProduct)
    return quote.after


def quote_in(pool: ConstantProduct, amount: int, zero_for_one: bool) -> Quote:
    try:
        return pool.swap_in(amount, zero_for_one)
    except LiquidityError:
        assume(False)
        raise


def test_a_known_quote() -> None:
    quote = ConstantProduct(10**21, 3 * 10**24).swap_in(10**18, zero_for_one=True)
    assert quote.amount_out == 10**18 * 997 * 3 * 10**24 // (10**21 * 1000 + 10**18 * 997)
    assert quote.after == ConstantProduct(10**21 + 10**18, 3 * 10**24 - quote.amount_out)


@given(POOLS, st.integers(1, 10**30), st.booleans())
def test_product_never_falls_and_price_never_beats_spot(pool: ConstantProduct, amount: int, zero_for_one: bool) -> None:
    quote = quote_in(pool, amount, zero_for_one)
    assert after(quote).reserve_0 * after(quote).reserve_1 >= pool.reserve_0 * pool.reserve_1
    reserve_in, reserve_out = (pool.reserve_0, pool.reserve_1) if zero_for_one else (pool.reserve_1, pool.reserve_0)
    assert quote.amount_out * reserve_in * 1_000_000 <= amount * (1_000_000 - pool.fee_pips) * reserve_out


@given(POOLS, st.integers(1, 10**30), st.booleans())
def test_in_and_out_agree_up_to_rounding(pool: ConstantProduct, amount: int, zero_for_one: bool) -> None:
    quote = quote_in(pool, amount, zero_for_one)
    back = pool.swap_out(quote.amount_out, zero_for_one)
    assert back.amount_in <= amount + 1  # the contract always adds one
    assert pool.swap_in(back.amount_in, zero_for_one).amount_out >= quote.amount_out


@given(POOLS, st.integers(1, 10**28), st.integers(1, 10**28), st.booleans())
def test_splitting_never_pays(pool: ConstantProduct, first: int, second: int, zero_for_one: bool) -> None:
    one = quote_in(pool, first, zero_for_one)
    two = quote_in(after(one), second, zero_for_one)
    whole = quote_in(pool, first + second, zero_for_one)
    assert one.amount_out <= whole.amount_out  # monotone
    assert one.amount_out + two.amount_out <= whole.amount_out


@pytest.mark.parametrize(
    ("pool", "amount_in"),
    [
        (ConstantProduct(10**9, 10**9), 0),
        (ConstantProduct(10**9, 10**9), -5),
        (ConstantProduct(10**9, 10), 1),  # pays nothing
        (ConstantProduct(0, 10**9), 1),
        (ConstantProduct(10**9, 10**9, 1_000_000), 10),
        (ConstantProduct(10**9, 10**9), RESERVE_MAX),
    ],
)
def test_what_the_pair_would_revert_is_refused(pool: ConstantProduct, amount_in: int) -> None:
    with pytest.raises(LiquidityError):
        pool.swap_in(amount_in, zero_for_one=True)


@pytest.mark.parametrize("amount_out", [0, 10**9, 10**10])
def test_the_reserve_cannot_be_emptied(amount_out: int) -> None:
    with pytest.raises(LiquidityError):
        ConstantProduct(10**9, 10**9).swap_out(amount_out, zero_for_one=True)
