"""The cost of an order is taken apart to the last unit, as the books do it, and the parts have the right signs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, group_asset
from agent.domain.price import Price
from agent.execution.tca import (
    PARTS,
    Shortfall,
    Terms,
    Trade,
    cost_bps,
    markout_bps,
    mean,
    near_price,
    pool_fee,
    shortfall,
    worth,
)

BASE, QUOTE = group_asset("ETH"), group_asset("USDT")
ONE = 10**18


def price(text: str) -> Price:
    front, _, part = text.partition(".")
    return Price(int(front + part), 10 ** len(part))


def trade(base: str, at: str, *, mid: str, fee: int = 0, half_bps: float | None = None, liquidity="taker", pool_pips=0) -> Trade:
    units = price(base)
    size = ONE * units.num // units.den
    paid = price(at)
    return Trade("o", "cex", "cex:X", liquidity, size, size * paid.num // paid.den, fee, 0, price(mid), half_bps, pool_pips)


def whole(found: Shortfall) -> dict[str, float]:
    """Parts in whole coins; those that are known add up."""
    parts = {name: getattr(found, name) for name in PARTS}
    assert sum(part.units for part in parts.values() if part is not None) == found.total.units
    return {name: part.units / ONE for name, part in parts.items() if part is not None and part.units}


def test_the_example_of_the_textbook_adds_up() -> None:
    """Buy 1,000 at 10; a day later, at 10.05, 700 of them for 10.07 and 14 of fees; the rest is left at 10.15: 1.08 %."""
    terms = Terms("buy", BASE, QUOTE, 1_000 * ONE, price("10"), price("10.05"), price("10.15"))
    found = shortfall(terms, [trade("700", "10.07", mid="10.05", fee=14 * ONE)], 0)
    assert whole(found) == pytest.approx({"delay": 35, "impact": 14, "fees": 14, "opportunity": 45})
    assert found.spread is None
    assert found.bps == pytest.approx(108)
    assert found.notional == Amount(10_000 * ONE, QUOTE)


def test_another_one() -> None:
    """50,000 at 42, first traded at 42.30, 35,000 for 42.75, cancelled at 43.50: 0.5 + 0.75 + 1.0714 %."""
    terms = Terms("buy", BASE, QUOTE, 50_000 * ONE, price("42"), price("42.30"), price("43.50"))
    found = shortfall(terms, [trade("35000", "42.75", mid="42.30")], 0)
    shares = [found.share(found.delay), found.share(found.impact), found.share(found.opportunity)]
    assert shares == pytest.approx([50, 75, 107.142857])
    assert found.bps == pytest.approx(232.142857)


def test_a_sale_that_was_worked_while_the_market_fell() -> None:
    """Two trades of 1: half a spread of 5 bps below the middle each, then a bit more; the market fell 10 between them."""
    terms = Terms("sell", BASE, QUOTE, 2 * ONE, price("2000"), price("1999"), price("1980"))
    trades = [
        trade("1", "1998", mid="1999", half_bps=5, fee=ONE),
        trade("1", "1987", mid="1989", half_bps=5),
    ]
    found = whole(shortfall(terms, trades, ONE // 2))
    assert found == pytest.approx({
        "delay": 2, "timing": 10, "spread": 0.9995 + 0.9945, "impact": 3 - 0.9995 - 0.9945, "fees": 1, "gas": 0.5,
    })  # fmt: skip


def test_who_rests_earns_the_spread() -> None:
    terms = Terms("sell", BASE, QUOTE, ONE, price("2000"), price("2000"), price("2000"))
    found = shortfall(terms, [trade("1", "2001", mid="2000", half_bps=5, liquidity="maker")], 0)
    assert whole(found) == pytest.approx({"spread": -1.0})
    assert found.bps == pytest.approx(-5)


@pytest.mark.parametrize(("side", "fee"), [("sell", "6"), ("buy", "6")])
def test_the_fee_inside_a_pools_price_is_a_fee(side, fee) -> None:
    """1 ETH for 2,000 at 0.3 %: a seller got 1,994; of a buyer's 2,000 the pool kept 6."""
    got = "1994" if side == "sell" else "2000"
    one = trade("1", got, mid="2000", liquidity="pool", pool_pips=3_000)
    assert pool_fee(one, side) == (int(fee) * ONE if side == "buy" else one.quote * 3_000 // 997_000)
    terms = Terms(side, BASE, QUOTE, ONE, price("2000"), price("2000"), price("2000"))
    found = shortfall(terms, [one], 0)
    assert found.spread == Amount(0, QUOTE), "a pool has none"
    assert whole(found)["fees"] == pytest.approx(6.0)


def test_what_is_not_known_is_not_made_up() -> None:
    terms = Terms("sell", BASE, QUOTE, 2 * ONE, price("2000"))
    found = shortfall(terms, [trade("1", "1999", mid="2000")], 0)
    assert (found.spread, found.opportunity) == (None, None)
    assert found.notional == Amount(2_000 * ONE, QUOTE), "of what was traded"
    assert whole(found) == {"impact": 1.0}
    nothing = shortfall(terms, [], 0)
    assert (nothing.total.units, nothing.bps) == (0, None)


RATIO = st.builds(Price, st.integers(1, 10**12), st.integers(1, 10**9))
TRADE = st.builds(
    Trade,
    order_id=st.just("o"),
    venue=st.just("v"),
    instrument=st.just("v:x"),
    liquidity=st.sampled_from(["taker", "maker", "pool"]),
    base=st.integers(1, 10**24),
    quote=st.integers(0, 10**27),
    fee=st.integers(-(10**18), 10**24),
    at_ns=st.just(0),
    mid=RATIO,
    half_bps=st.none() | st.floats(0, 500),
    pool_pips=st.sampled_from([0, 500, 10_000]),
)


@given(
    side=st.sampled_from(["sell", "buy"]),
    trades=st.lists(TRADE, max_size=6),
    quantity=st.integers(1, 10**25),
    prices=st.tuples(RATIO, st.none() | RATIO, st.none() | RATIO),
    gas=st.integers(0, 10**22),
)
def test_every_unit_has_one_name(side, trades, quantity, prices, gas) -> None:
    """The parts add up to paper less reality, computed directly, and nothing depends on what lies between."""
    terms = Terms(side, BASE, QUOTE, quantity, *prices)
    found = shortfall(terms, trades, gas)
    parts = [getattr(found, name) for name in PARTS]
    assert sum(part.units for part in parts if part is not None) == found.total.units
    sign = 1 if side == "sell" else -1
    left = max(quantity - sum(one.base for one in trades), 0)
    directly = sum(sign * (worth(one.base, terms.arrival, terms) - one.quote) + one.fee for one in trades) + gas
    if terms.departure is not None:
        directly += sign * (worth(left, terms.arrival, terms) - worth(left, terms.departure, terms))
    assert directly == found.total.units
    assert (found.opportunity is None) == (left > 0 and terms.departure is None)
    assert (found.spread is None) == any(one.half_bps is None and one.liquidity != "pool" for one in trades)


def test_signs() -> None:
    assert cost_bps("sell", 99, 100) == pytest.approx(100)
    assert cost_bps("buy", 99, 100) == pytest.approx(-100)
    assert markout_bps("buy", 100, 101) == pytest.approx(100), "it rose after we bought"
    assert markout_bps("sell", 100, 101) == pytest.approx(-100)
    assert mean([(1, 2.0), (3, 4.0)]) == 3.5
    assert mean([]) is None


def test_an_opinion_becomes_a_price_once() -> None:
    assert near_price(2_683.005) == price("2683.005")
    assert [near_price(value) for value in (0.0, -1.0, float("nan"), float("inf"), 1e-11)] == [None] * 5
