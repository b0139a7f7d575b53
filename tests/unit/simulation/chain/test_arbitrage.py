"""Where the arbitrageur stops, checked against the pools' own arithmetic."""

from fractions import Fraction
from math import isqrt

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.simulation.chain.arbitrage import PIPS, PoolState, find_trade, v2_amounts
from agent.simulation.chain.deployment import Pool
from agent.simulation.chain.pools import START_PRICE_CENTS, amounts_for, sqrt_price_at, sqrt_price_x96, tick_at

POOL = Pool(name="v3-500", protocol="v3", fee_pips=500, tick_spacing=10, currency0="0x01", currency1="0x02")
PRICE = Fraction(START_PRICE_CENTS * 10**4, 10**18)
DEEP = 3 * 10**18


def state_at(price: Fraction) -> PoolState:
    return PoolState(isqrt((price.numerator << 192) // price.denominator), DEEP)


@given(st.fractions(Fraction(9996, 10_000), Fraction(10_004, 10_000), max_denominator=10**9))
def test_inside_the_band_nothing_is_traded(ratio: Fraction) -> None:
    assert find_trade(POOL, state_at(PRICE * ratio), PRICE, Fraction(0)) is None


@given(st.fractions(Fraction(1, 2), Fraction(2), max_denominator=10**9), st.sampled_from([100, 500, 3000, 10_000]))
def test_a_trade_ends_at_the_edge_that_is_nearer(ratio: Fraction, fee_pips: int) -> None:
    pool = msgspec.structs.replace(POOL, fee_pips=fee_pips)
    trade = find_trade(pool, state_at(PRICE * ratio), PRICE, Fraction(0))
    keep = Fraction(PIPS - fee_pips, PIPS)
    if trade is None:
        assert keep - Fraction(1, 10**9) <= ratio <= 1 / keep + Fraction(1, 10**9)
        return
    edge = PRICE * keep if ratio < 1 else PRICE / keep
    assert trade.zero_for_one == (ratio > 1)
    assert abs(Fraction(trade.sqrt_target**2, 2**192) / edge - 1) < Fraction(1, 10**12)


def test_gas_must_be_paid_for() -> None:
    state = state_at(PRICE * Fraction(10_006, 10_000))  # one basis point outside the band
    assert find_trade(POOL, state, PRICE, Fraction(10**14)) is not None
    assert find_trade(POOL, state, PRICE, Fraction(10**18)) is None


@given(
    st.integers(10**15, 10**24),
    st.integers(10**9, 10**24),
    st.fractions(Fraction(1, 3), Fraction(99, 100), max_denominator=10**6),
)
def test_a_v2_trade_lands_on_its_price(reserve_in: int, reserve_out: int, fall: Fraction) -> None:
    wanted = Fraction(reserve_out, reserve_in) * fall
    amount_in, amount_out = v2_amounts(reserve_in, reserve_out, wanted)
    paid = amount_in * 997
    assert amount_out == paid * reserve_out // (reserve_in * 1000 + paid)
    landed = Fraction(reserve_out - amount_out, reserve_in + amount_in)
    assert abs(landed / wanted - 1) < Fraction(1, 10**5)


def test_positions_hold_what_the_whitepaper_says() -> None:
    price = sqrt_price_x96(START_PRICE_CENTS, weth_is_0=True)
    tick = tick_at(price)
    assert sqrt_price_at(tick) <= price < sqrt_price_at(tick + 1)
    assert amounts_for(DEEP, price, tick + 10, tick + 20)[1] == 0
    assert amounts_for(DEEP, price, tick - 20, tick - 10)[0] == 0
    assert all(amount > 0 for amount in amounts_for(DEEP, price, tick - 10, tick + 10))
