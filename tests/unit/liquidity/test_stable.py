"""A stableswap pool against an independent computation in 80 digits, its laws, and its curve as the router sees it."""

from decimal import Decimal, localcontext
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.domain.errors import LiquidityError
from agent.liquidity.curves import absorbed, exchanged, segments
from agent.liquidity.quote import Quote
from agent.liquidity.stable import COINS_MAX, FEE_UNITS, StableSwap, checked, invariant, other_balance, scaled, spot
from agent.liquidity.stable_knots import knots

E18 = 10**18
SIX = 10**30  # the rate of a coin of six decimals
WSTETH = 1_187_654_321_012_345_678
DIGITS = 80

PLAIN = StableSwap(5_000_000 * E18, 6_000_000 * E18, 200 * 100, 4_000_000)
RATES = st.sampled_from([(E18, E18), (SIX, E18), (E18, SIX), (SIX, SIX), (WSTETH, E18)])
AMPS = st.sampled_from([(100, 100), (500, 100), (20_000, 100), (200_000, 100), (10**8, 100), (2_000, 1), (150_055, 100)])


@st.composite
def pools(draw: st.DrawFn) -> StableSwap:
    """Up to a thousand to one out of balance, from a thousand coins to a billion."""
    rates = draw(RATES)
    size, tilt = draw(st.integers(10**21, 10**27)), draw(st.integers(1, 1_000))
    balances = [size, size * tilt // 30]
    if draw(st.booleans()):
        balances.reverse()
    amp, unit = draw(AMPS)
    fee = draw(st.sampled_from([0, 1_000_000, 4_000_000, 40_000_000]))
    units = [balance * E18 // rate + 1 for balance, rate in zip(balances, rates, strict=True)]
    return StableSwap(*units, amp, fee, *rates, unit, draw(st.sampled_from([0, FEE_UNITS // 2, FEE_UNITS])))


def true_d(x: Decimal, y: Decimal, ann: Decimal) -> Decimal:
    """The root of the invariant by halving: nothing in common with Newton's way."""
    low, high = Decimal(0), x + y
    for _ in range(300):
        d = (low + high) / 2
        if ann * d + d**3 / (4 * x * y) - d > ann * (x + y):
            high = d
        else:
            low = d
    return (low + high) / 2


def true_y(x: Decimal, d: Decimal, ann: Decimal) -> Decimal:
    b, c = x + d / ann - d, d**3 / (4 * x * ann)
    return ((b * b + 4 * c).sqrt() - b) / 2


def ann_of(pool: StableSwap) -> Decimal:
    return Decimal(2 * pool.amp) / pool.amp_precision


def size_in(pool: StableSwap, part: float, zero_for_one: bool) -> int:
    return max(1, int((pool.balance_0 if zero_for_one else pool.balance_1) * part))


def test_a_published_quote() -> None:
    """The example in the documentation of curvesim, Curve's own simulator: 150 of 500,000 each, A = 250, 4 basis points."""
    pool = StableSwap(500_000 * 10**6, 500_000 * 10**6, 250, 4_000_000, SIX, SIX, 1)
    assert pool.swap_in(150 * 10**6, True).amount_out == 149_939_820


PARTS = st.floats(1e-9, 20.0)


def test_a_known_quote() -> None:
    """The first figures by hand: in balance a coin fetches a coin, less the fee and less the unit that stays."""
    pool = StableSwap(10**24, 10**24, 100 * 100, 4_000_000)
    assert invariant(pool) == 2 * 10**24
    quote = pool.swap_in(E18, True)
    assert quote.amount_out == pytest.approx(E18 * 9_996 // 10_000, rel=1e-8)
    assert quote.after == StableSwap(10**24 + E18, 10**24 - quote.amount_out, 10_000, 4_000_000)
    assert spot(pool)[0] == spot(pool)[1]


@given(pools(), PARTS, st.booleans())
def test_as_an_independent_computation_has_it(pool: StableSwap, part: float, zero_for_one: bool) -> None:
    amount = size_in(pool, part, zero_for_one)
    quote = _quoted(pool, amount, zero_for_one)
    rate_in, rate_out = (pool.rate_0, pool.rate_1) if zero_for_one else (pool.rate_1, pool.rate_0)
    x, y = scaled(pool, zero_for_one)
    with localcontext() as exact:
        exact.prec = DIGITS
        ann, d = ann_of(pool), true_d(Decimal(x), Decimal(y), ann_of(pool))
        assert abs(invariant(pool) - d) <= 2
        rest = true_y(x + Decimal(amount) * rate_in / E18, d, ann)
        wanted = (y - rest) * (FEE_UNITS - pool.fee) / FEE_UNITS * E18 / rate_out
        slack = _d_slack(x + amount * rate_in // E18, d, ann) * E18 / rate_out + 2
        assert wanted - slack <= quote.amount_out <= wanted + slack - 1


def _d_slack(x: int, d: Decimal, ann: Decimal) -> Decimal:
    """How far the other balance moves when D is known to two units only, and what its own roundings add."""
    return abs(true_y(Decimal(x), d + 2, ann) - true_y(Decimal(x), d, ann)) + 3


def _quoted(pool: StableSwap, amount: int, zero_for_one: bool) -> Quote:
    try:
        return pool.swap_in(amount, zero_for_one)
    except LiquidityError:
        assume(False)
        raise


@given(pools(), PARTS, st.booleans())
def test_d_never_falls(pool: StableSwap, part: float, zero_for_one: bool) -> None:
    """Beyond the two units to which the contract itself knows it."""
    quote = _quoted(pool, size_in(pool, part, zero_for_one), zero_for_one)
    state = quote.after
    with localcontext() as exact:
        exact.prec = DIGITS
        before, now = (true_d(*map(Decimal, scaled(one, True)), ann_of(pool)) for one in (pool, state))
        if pool.admin_fee < FEE_UNITS or not pool.fee:
            assert now >= before - 2 * max(1, int(before / min(scaled(state, True))))


@given(pools(), st.floats(1e-9, 0.999_999), st.booleans())
def test_the_least_input_that_is_enough(pool: StableSwap, part: float, zero_for_one: bool) -> None:
    wanted = max(1, int((pool.balance_1 if zero_for_one else pool.balance_0) * part))
    try:
        quote = pool.swap_out(wanted, zero_for_one)
    except LiquidityError:
        assert part > 0.99 or wanted < 10
        return
    assert quote.amount_out >= wanted
    assert quote == pool.swap_in(quote.amount_in, zero_for_one)
    for less in {quote.amount_in - 1, quote.amount_in - 2, quote.amount_in // 2} - {quote.amount_in}:
        if less > 0:
            try:
                assert pool.swap_in(less, zero_for_one).amount_out < wanted
            except LiquidityError:
                assert less < quote.amount_in


@given(pools(), PARTS, PARTS, st.booleans())
def test_more_in_is_more_out_and_splitting_gains_nothing(pool: StableSwap, one: float, two: float, zero_for_one: bool) -> None:
    first, second = sorted((size_in(pool, one, zero_for_one), size_in(pool, two, zero_for_one)))
    small, large = _quoted(pool, first, zero_for_one), _quoted(pool, second, zero_for_one)
    assert small.amount_out <= large.amount_out
    if second > first:
        rest = _quoted(state_of(small.after), second - first, zero_for_one)
        grain = 4 + 4 * E18 // (pool.rate_1 if zero_for_one else pool.rate_0)
        fees_help = small.amount_out * pool.fee // FEE_UNITS  # fees that stay deepen the pool for the second part
        assert small.amount_out + rest.amount_out <= large.amount_out + grain + fees_help


def state_of(pool: object) -> StableSwap:
    assert isinstance(pool, StableSwap)
    return pool


@given(pools(), PARTS, st.booleans())
def test_fees_come_out_of_what_is_paid(pool: StableSwap, part: float, zero_for_one: bool) -> None:
    amount = size_in(pool, part, zero_for_one)
    free = StableSwap(pool.balance_0, pool.balance_1, pool.amp, 0, pool.rate_0, pool.rate_1, pool.amp_precision)
    gross, net = _quoted(free, amount, zero_for_one), _quoted(pool, amount, zero_for_one)
    assert gross.amount_out * (FEE_UNITS - pool.fee) // FEE_UNITS - 1 <= net.amount_out <= gross.amount_out
    kept = [now - then for now, then in zip(_balances(net.after), _balances(pool), strict=True)]
    gone = -kept[1 if zero_for_one else 0]
    fee = gross.amount_out - net.amount_out
    assert kept[0 if zero_for_one else 1] == amount
    assert net.amount_out <= gone <= net.amount_out + fee * pool.admin_fee // FEE_UNITS + 1


def _balances(pool: object) -> tuple[int, int]:
    state = state_of(pool)
    return state.balance_0, state.balance_1


@given(pools(), st.booleans())
def test_both_directions_are_mirror_images(pool: StableSwap, zero_for_one: bool) -> None:
    turned = StableSwap(
        pool.balance_1, pool.balance_0, pool.amp, pool.fee, pool.rate_1, pool.rate_0, pool.amp_precision, pool.admin_fee
    )
    amount = size_in(pool, 0.01, zero_for_one)
    one, other = _quoted(pool, amount, zero_for_one), _quoted(turned, amount, not zero_for_one)
    assert one.amount_in == other.amount_in
    assert one.amount_out == pytest.approx(other.amount_out, rel=1e-12, abs=2), "get_D divides by coin 0 first"


@given(pools(), st.booleans())
def test_the_price_at_the_margin(pool: StableSwap, zero_for_one: bool) -> None:
    free = StableSwap(pool.balance_0, pool.balance_1, pool.amp, 0, pool.rate_0, pool.rate_1, pool.amp_precision)
    top, bottom = spot(free)
    price = top / bottom if zero_for_one else bottom / top
    amount = size_in(free, 1e-7, zero_for_one)
    got = _quoted(free, amount, zero_for_one).amount_out
    assume(got > 10**8)
    assert got / amount == pytest.approx(price, rel=2e-6)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (StableSwap(0, E18, 10_000, 0), "contradict"),
        (StableSwap(E18, -1, 10_000, 0), "contradict"),
        (StableSwap(E18, E18, 0, 0), "contradict"),
        (StableSwap(E18, E18, 99, 0), "contradict"),
        (StableSwap(E18, E18, 10**8 + 1, 0), "contradict"),
        (StableSwap(E18, E18, 10_000, FEE_UNITS), "contradict"),
        (StableSwap(E18, E18, 10_000, -1), "contradict"),
        (StableSwap(E18, E18, 10_000, 0, admin_fee=FEE_UNITS + 1), "contradict"),
        (StableSwap(E18, E18, 10_000, 0, rate_0=0), "contradict"),
        (StableSwap(E18, E18, 10_000, 0, amp_precision=0), "contradict"),
        (StableSwap(1, E18, 10_000, 0, rate_0=1), "empty"),
        (StableSwap(COINS_MAX + 1, E18, 10_000, 0), "more than any coin"),
        (StableSwap(COINS_MAX, 1, 10_000, 0), "out of balance"),
    ],
)
def test_what_cannot_be_a_pool_is_refused(pool: StableSwap, words: str) -> None:
    with pytest.raises(LiquidityError, match=words):
        checked(pool)


@pytest.mark.parametrize("amount", [0, -1])
def test_nothing_is_not_traded(amount: int) -> None:
    for swap in (PLAIN.swap_in, PLAIN.swap_out):
        with pytest.raises(LiquidityError, match="at least one unit"):
            swap(amount, True)


def test_what_the_pool_does_not_hold() -> None:
    with pytest.raises(LiquidityError, match="holds"):
        PLAIN.swap_out(PLAIN.balance_1, True)
    with pytest.raises(LiquidityError, match="trade less"):
        StableSwap(5 * 10**24, 6 * 10**24, 20_000, 0).swap_out(6 * 10**24 - 10, True)
    with pytest.raises(LiquidityError, match="more than any coin"):
        PLAIN.swap_in(COINS_MAX, True)
    with pytest.raises(LiquidityError, match="would pay nothing"):
        StableSwap(10**24, 10**18, 10_000, 0, E18, SIX).swap_in(1, True)


@pytest.mark.parametrize("tilt", [1, 10, 1_000, 10**6, 10**9])
@pytest.mark.parametrize("amp", [100, 20_000, 10**8])
def test_extreme_imbalance_stays_exact_or_is_refused(tilt: int, amp: int) -> None:
    pool = StableSwap(10**26, 10**26 // tilt, amp, 0)
    try:
        d = invariant(checked(pool))
    except LiquidityError:
        assert tilt >= 10**6
        return
    with localcontext() as exact:
        exact.prec = DIGITS
        assert abs(d - true_d(*map(Decimal, scaled(pool, True)), ann_of(pool))) <= 2 + tilt // 10_000
        assert abs(other_balance(pool, d, pool.balance_0) - pool.balance_1) <= 2 + tilt


# -- the curve that the router searches on -----------------------------------------------------------------------------

DECIMALS = {E18: 18, SIX: 6, WSTETH: 18}
RATIOS = (0.01, 0.2, 0.9, 1.0, 1.3, 5.0, 100.0)


def tables() -> list[StableSwap]:
    return [StableSwap(int(10**24 * r), 10**24, amp, 4_000_000) for amp in (500, 20_000, 200_000, 10**8) for r in RATIOS]


@pytest.mark.parametrize("selling", [True, False])
@pytest.mark.parametrize("pool", tables(), ids=lambda pool: f"A{pool.amp / 100:g}-{pool.balance_0 / pool.balance_1:g}")
def test_what_the_straight_lines_can_cost(pool: StableSwap, selling: bool) -> None:
    """Stated and kept: below 1e-4 basis points of the value, wherever the trade ends, when all else is flat."""
    table = knots(pool, True, selling)
    assert len(table) < 400
    assert all(u < v and b < c for (u, b), (v, c) in pairwise(table))
    worst = off = 0.0
    with localcontext() as exact:
        exact.prec = 40
        for k, ((u, b), (v, c)) in enumerate(pairwise(table)):
            for part in (0.2, 0.5, 0.8):
                base = b + (c - b) * part
                line = u + (base - b) / (c - b) * (v - u)
                true, _ = _truth(pool, base, selling)
                error = (line - true) / (v - u) * (c - b)
                price = 1 / true**2
                worst = max(worst, error * error / 2 * abs(1 / u**2 - 1 / v**2) / (c - b) / (price * base) * 1e4)
            if k % 2:
                given_ = sum((e - d) / (y - x) * (1 / x - 1 / y) for (x, d), (y, e) in pairwise(table[: k + 2]))
                off = max(off, abs(given_ / _truth(pool, c, selling)[1] - 1) * 1e4)
    assert worst < 1e-4
    assert off < 1e-5, "the value itself is exact at every second knot"


def _truth(pool: StableSwap, base: float, selling: bool) -> tuple[float, float]:
    """(u, quote) of the curve itself after `base` coins, in 40 digits."""
    ann = ann_of(pool)
    x, y = (Decimal(balance) / E18 for balance in scaled(pool, True))
    d = Decimal(invariant(pool)) / E18
    if selling:
        now_x = x + Decimal(base)
        now_y = true_y(now_x, d, ann)
    else:
        now_y = y - Decimal(base)
        now_x = true_y(now_y, d, ann)
    q = d**3 / (4 * now_x * now_y)
    root = ((ann + q / now_x) / (ann + q / now_y)).sqrt()
    return (float(1 / root), float(y - now_y)) if selling else (float(-root), float(now_x - x))


@given(pools(), st.floats(1e-4, 0.5), st.booleans(), st.booleans())
def test_segments_agree_with_exact_quotes(pool: StableSwap, part: float, selling: bool, base_is_0: bool) -> None:
    zero_for_one = selling == base_is_0
    units = (DECIMALS[pool.rate_0], DECIMALS[pool.rate_1])
    base_decimals, quote_decimals = units if base_is_0 else units[::-1]
    curve = segments(pool, selling=selling, base_decimals=base_decimals, quote_decimals=quote_decimals, base_is_0=base_is_0)
    assert all(a.price_end == b.price_start for a, b in pairwise(curve))
    base_units = int((pool.balance_0 if base_is_0 else pool.balance_1) * part)
    assume(base_units > 10**4)
    coins = base_units / 10**base_decimals
    assume(coins < sum(segment.base_capacity for segment in curve))
    try:
        swap = pool.swap_in(base_units, zero_for_one) if selling else pool.swap_out(base_units, zero_for_one)
    except LiquidityError:
        assume(False)
        raise
    left, price = coins, curve[0].price_start
    for segment in curve:
        sign = 1 if selling else -1
        if segment.base_capacity >= left:
            price = (sign * (sign / segment.price_start**0.5 + left / segment.slope)) ** -2
            break
        left -= segment.base_capacity
    quote = (swap.amount_out if selling else swap.amount_in) / 10**quote_decimals
    assert absorbed(curve, price, selling=selling) == pytest.approx(coins, rel=1e-9)
    assert exchanged(curve, price, selling=selling) == pytest.approx(quote, rel=2e-5, abs=2 / 10**quote_decimals)


def test_a_pool_out_of_order_has_no_curve() -> None:
    assert segments(StableSwap(COINS_MAX, 1, 10_000, 0), selling=True, base_decimals=18, quote_decimals=18) == ()
