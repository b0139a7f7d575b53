"""Children keep the parent's limit to the unit, whatever the route says, and the schedule adds up."""

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.instrument import Instrument, Pool, Side
from agent.domain.intent import Intent
from agent.domain.plan import PlaceOrder, SwapBatch
from agent.domain.price import Price, price_of, worse_by
from agent.execution.children import ChainTerms, Part, Tolerance, children
from agent.execution.schedule import RETRY_NS, due

ETH, USDT = Asset("ETH", "binance", 8, "ETH"), Asset("USDT", "binance", 8, "USDT")
WETH, TETHER = Asset("WETH", "eip155:1", 18, "ETH", "0x01"), Asset("USDT", "eip155:1", 6, "USDT", "0x02")
BOOK = Instrument("binance", "ETHUSDT", ETH, USDT, 1_000, 10**6, 10**4, 5 * 10**8)
POOLS = [
    Instrument("uniswap", f"v3-{fee}", WETH, TETHER, fee, pool=Pool("v3", "0x0a", "0x01", "0x02", 10), gas=100_000)
    for fee in (500, 3_000)
]
GROUP = group_asset("ETH")
TERMS = {"uniswap": ChainTerms(1, 3, 1_060, 120_000, 2 * 10**9, 10**9)}


def intent(side: Side, slices: int = 1) -> Intent:
    return Intent("i", "main", "s", side, Amount(10 * 10**18, GROUP), "USDT", 50, 10**18, slices, 10**9)


@given(
    st.sampled_from(["sell", "buy"]), st.integers(200_000, 300_000), st.integers(1, 10**6), st.integers(1, 500),
    st.integers(1, 10**24), st.integers(-40, 40),
)  # fmt: skip
def test_no_child_is_worse_than_the_parents_limit(side: Side, ticks: int, lots: int, bps: int, wei: int, off: int) -> None:
    arrival = Price(ticks, 100)
    limit = worse_by(arrival, 50, selling=side == "sell")
    sign = -1 if side == "sell" else 1
    mean = ticks + sign * max(0, off)  # a route never trades beyond the limit
    quote = mean * wei // (100 * 10**12) or 1
    parts = [
        Part(BOOK, Amount(lots * 10**4, ETH), Amount(1, USDT), mean, lots),
        *(Part(pool, Amount(wei, WETH), Amount(quote, TETHER)) for pool in POOLS),
    ]
    plans = children(intent(side), parts, iter("abc").__next__, TERMS, Tolerance(bps, limit), {})
    order, batch = plans
    assert isinstance(order, PlaceOrder)
    assert isinstance(batch, SwapBatch)
    base, paid = (order.sell, order.buy) if side == "sell" else (order.buy, order.sell)
    tick = Price(order.ticks, 100)
    assert tick >= limit if side == "sell" else tick <= limit
    assert base.units == lots * 10**4
    if paid.units > 10**4:  # below that one unit of rounding is a price of its own
        assert abs(float(price_of(paid, base).num) / float(price_of(paid, base).den) / (order.ticks / 100) - 1) < 1e-3
    assert batch.sell.units == sum(leg.sell.units for leg in batch.legs)
    assert batch.buy.units == sum(leg.buy.units for leg in batch.legs)
    assert batch.gas_limit == 2 * (120_000 + 200_000)
    for leg in batch.legs:
        assert leg.exact == side
        assert leg.buy.units <= quote if side == "sell" else leg.sell.units >= quote


def test_all_pools_of_a_venue_travel_in_one_batch_and_books_go_first() -> None:
    parts = [Part(pool, Amount(10**18, WETH), Amount(2_600 * 10**6, TETHER)) for pool in POOLS]
    parts.insert(1, Part(BOOK, Amount(10**8, ETH), Amount(2_600 * 10**8, USDT), 260_000, 10_000))
    plans = children(intent("sell"), parts, iter("ab").__next__, TERMS, Tolerance(10, Price(2_500, 1)), {})
    assert [type(plan) for plan in plans] == [PlaceOrder, SwapBatch]
    assert isinstance(plans[1], SwapBatch)
    assert len(plans[1].legs) == 2
    assert plans[1].permit_nonce == 3


@given(st.integers(1, 50), st.integers(1, 10**20))
def test_slices_add_up_to_the_parent(slices: int, units: int) -> None:
    wish = Intent("i", "m", "s", "sell", Amount(units, GROUP), "USDT", 50, 10**18, slices, 5)
    left, now, done = wish.quantity, 100, []
    while (piece := due(wish, left, len(done), now - 5, now)) is not None:
        done.append(piece)
        left, now = left - piece.quantity, now + 5
    assert sum(piece.quantity.units for piece in done) == units
    assert len(done) <= slices


def test_nothing_is_due_too_early_too_late_or_when_done() -> None:
    wish = intent("sell", 2)
    assert due(wish, wish.quantity, 1, 0, 10**9 - 1) is None
    assert due(wish, wish.quantity, 1, 0, 10**9) is not None
    assert due(wish, Amount(0, GROUP), 0, 0, 0) is None
    assert due(wish, wish.quantity, 0, 0, wish.deadline_ns) is None


def test_a_rest_is_retried_with_a_pause() -> None:
    wish = Intent("i", "m", "s", "sell", Amount(10, GROUP), "USDT", 50, 10**18, 1, 0)
    assert due(wish, wish.quantity, 1, 0, RETRY_NS - 1) is None
    assert due(wish, wish.quantity, 1, 0, RETRY_NS) is not None
