"""Uniswap v3 and v4: rounding against the trader, exact stops, half-known pools. Equality with the contracts is `tests/chain`'s."""

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.domain.errors import LiquidityError
from agent.liquidity.concentrated import AMOUNT_MAX, Concentrated, checked, swap, swap_fee_pips
from agent.liquidity.quote import Quote
from agent.liquidity.tick_math import TICK_MAX, TICK_MIN, sqrt_price_at_tick, tick_at_sqrt_price

SHAPES = st.sampled_from([(100, 1), (500, 10), (3_000, 60), (10_000, 200), (0, 60), (77, 7)])
AMOUNTS = st.integers(0, 100).flatmap(lambda bits: st.integers(1, 1 << bits))


@st.composite
def pools(draw: Any) -> Concentrated:
    """A pool with overlapping positions, sometimes with gaps, its price anywhere among them."""
    fee_pips, spacing = draw(SHAPES)
    nets: dict[int, int] = {}
    for _ in range(draw(st.integers(1, 6))):
        lower = draw(st.integers(-20_000 // spacing, 20_000 // spacing)) * spacing
        upper = lower + draw(st.integers(1, 10_000 // spacing)) * spacing
        liquidity = draw(st.integers(10**6, 10**24))
        nets[lower] = nets.get(lower, 0) + liquidity
        nets[upper] = nets.get(upper, 0) - liquidity
    ticks = tuple(sorted((tick, net) for tick, net in nets.items() if net))
    price = draw(st.integers(sqrt_price_at_tick(-25_000), sqrt_price_at_tick(25_000)))
    tick = tick_at_sqrt_price(price)
    active = sum(net for index, net in ticks if index <= tick)
    return checked(Concentrated(price, tick, active, fee_pips, spacing, ticks))


def after(quote: Quote) -> Concentrated:
    assert isinstance(quote.after, Concentrated)
    return quote.after


def quote_in(pool: Concentrated, amount: int, zero_for_one: bool) -> Quote:
    try:
        return pool.swap_in(amount, zero_for_one)
    except LiquidityError:
        assume(False)
        raise


@given(pools(), AMOUNTS, st.booleans())
def test_successor_is_sound_and_never_beats_the_price(pool: Concentrated, amount: int, zero_for_one: bool) -> None:
    quote = quote_in(pool, amount, zero_for_one)
    checked(after(quote))
    paid, received, square = quote.amount_in, quote.amount_out, pool.sqrt_price_x96**2
    assert received << 192 <= paid * square if zero_for_one else received * square <= paid << 192
    moved = after(quote).sqrt_price_x96 - pool.sqrt_price_x96
    assert moved <= 0 if zero_for_one else moved >= 0


@given(pools(), AMOUNTS, st.booleans())
def test_in_and_out_agree_up_to_rounding(pool: Concentrated, amount: int, zero_for_one: bool) -> None:
    quote = quote_in(pool, amount, zero_for_one)
    assume(quote.amount_out)
    back = pool.swap_out(quote.amount_out, zero_for_one)
    assert back.amount_in <= amount
    assert pool.swap_in(back.amount_in, zero_for_one).amount_out >= quote.amount_out


@given(pools(), AMOUNTS, AMOUNTS, st.booleans())
def test_more_in_is_more_out_at_no_better_price(pool: Concentrated, first: int, more: int, zero_for_one: bool) -> None:
    one, whole = quote_in(pool, first, zero_for_one), quote_in(pool, first + more, zero_for_one)
    assert one.amount_out <= whole.amount_out
    # Concave: the rest brings no more per unit than the first part, but for one unit of each asset lost to rounding at a stop.
    stops = 2 + len(pool.ticks) + 60_000 // (256 * pool.tick_spacing)
    spot = pool.sqrt_price_x96**2 / 2**192
    unit = 2 + int(spot if zero_for_one else 1 / spot)
    slack = stops * unit * (first + more)
    assert (whole.amount_out - one.amount_out) * first <= one.amount_out * more + slack


@given(pools(), AMOUNTS, st.booleans(), st.booleans(), st.integers(0, 5))
def test_stopping_at_a_tick_and_going_on_changes_nothing(
    pool: Concentrated, amount: int, zero_for_one: bool, exact_in: bool, skip: int
) -> None:
    whole = swap(pool, amount, zero_for_one, exact_in)
    ahead = [tick for tick, _ in pool.ticks if (tick < pool.tick if zero_for_one else tick > pool.tick)]
    ahead = ahead[::-1] if zero_for_one else ahead
    assume(ahead)
    first = swap(pool, amount, zero_for_one, exact_in, sqrt_price_at_tick(ahead[skip % len(ahead)]))
    left = amount - (first.amount_in if exact_in else first.amount_out)
    if not left:
        assert first == whole
        return
    second = swap(after(first), left, zero_for_one, exact_in)
    assert first.amount_in + second.amount_in == whole.amount_in
    assert first.amount_out + second.amount_out == whole.amount_out
    assert second.after == whole.after


@given(pools(), AMOUNTS, st.booleans(), st.booleans(), st.integers(1, 8_000), st.integers(1, 8_000))
def test_a_half_known_pool_quotes_exactly_or_not_at_all(
    pool: Concentrated, amount: int, zero_for_one: bool, exact_in: bool, below: int, above: int
) -> None:
    lower, upper = max(TICK_MIN, pool.tick - below), min(TICK_MAX, pool.tick + above)
    known = tuple(entry for entry in pool.ticks if lower <= entry[0] <= upper)
    half = checked(msgspec.structs.replace(pool, ticks=known, known_lower=lower, known_upper=upper))
    full = swap(pool, amount, zero_for_one, exact_in)
    price = after(full).sqrt_price_x96
    if sqrt_price_at_tick(lower) < price < sqrt_price_at_tick(upper):
        found = swap(half, amount, zero_for_one, exact_in)
        assert (found.amount_in, found.amount_out) == (full.amount_in, full.amount_out)
        assert (after(found).tick, after(found).liquidity) == (after(full).tick, after(full).liquidity)
    elif not sqrt_price_at_tick(lower) <= price <= sqrt_price_at_tick(upper):
        with pytest.raises(LiquidityError, match="known ticks end"):
            swap(half, amount, zero_for_one, exact_in)


POOL = Concentrated(1 << 96, 0, 10**18, 3_000, 60, ((-600, 10**18), (600, -(10**18))))


def test_v4_protocol_fee_comes_on_top() -> None:
    pool = msgspec.structs.replace(POOL, protocol_fee_0_pips=1_000)
    assert swap_fee_pips(pool, True) == 3_997
    assert swap_fee_pips(pool, False) == 3_000
    assert pool.swap_in(10**12, True).amount_out < POOL.swap_in(10**12, True).amount_out
    assert pool.swap_in(10**12, False).amount_out == POOL.swap_in(10**12, False).amount_out


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MAX, AMOUNT_MAX + 1])
@pytest.mark.parametrize("zero_for_one", [True, False])
def test_amounts_that_cannot_be_filled_are_refused(amount: int, zero_for_one: bool) -> None:
    with pytest.raises(LiquidityError):
        POOL.swap_in(amount, zero_for_one)
    with pytest.raises(LiquidityError):
        POOL.swap_out(amount, zero_for_one)


def test_a_drained_pool_refuses_one_direction_only() -> None:
    drained = after(swap(POOL, AMOUNT_MAX, True, True))
    with pytest.raises(LiquidityError, match="already at or past"):
        drained.swap_in(1, True)
    assert drained.swap_in(10**12, False).amount_out > 0


def test_limits_behind_the_price_are_refused() -> None:
    for zero_for_one, limit in ((True, 1 << 96), (True, (1 << 96) + 1), (False, 1 << 96), (False, 1)):
        with pytest.raises(LiquidityError):
            swap(POOL, 1, zero_for_one, True, limit)


@pytest.mark.parametrize(
    "change",
    [
        {"liquidity": 10**18 + 1},
        {"tick": 5},
        {"ticks": ((600, -(10**18)), (-600, 10**18))},
        {"ticks": ((-601, 10**18), (600, -(10**18)))},
        {"ticks": ((-600, 10**18),)},
        {"known_lower": -500},
        {"fee_pips": 1_000_000},
        {"tick_spacing": 0},
    ],
)
def test_contradictions_are_found(change: dict[str, Any]) -> None:
    with pytest.raises(LiquidityError, match="read the pool again"):
        checked(msgspec.structs.replace(POOL, **change))
