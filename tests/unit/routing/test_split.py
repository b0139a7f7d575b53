"""The split is as good as trying everything, exact to the unit, and says what it could not do and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_markets import (
    E18,
    ETH,
    USD,
    Brute,
    book,
    gas_price,
    order_of,
    plenty,
    pool,
    random_market,
    score,
    view_of,
    with_rules,
)

from agent.domain.amount import Amount, rescale_down
from agent.domain.events import Routed
from agent.domain.plan import Reason
from agent.domain.price import Price, worse_by
from agent.liquidity.depth import buy_lots, sell_lots
from agent.market.view import View
from agent.routing.cost import gas_up, paid_up
from agent.routing.split import NoRoute, Route, report, split

PARTS = 12
TINY_BPS = 1e-6


def eth(coins):
    return Amount(round(coins * 10**6) * 10**12, ETH)


def case(seed):
    """A whole small situation from a seed: sources, size, gas from none to dear, balances, limit."""
    coarse, notional, tight = seed % 2, seed % 3 == 0, seed % 4 >= 2
    mid, sources, rng = random_market(seed, lot=10**6 if coarse else 10**4, notional=notional, chains=1 + (seed % 5 == 0))
    quantity = eth(rng.choice([1, 3, 12, 40, 120]) * PARTS / 100)
    gwei, side = rng.choice([0, 3, 20, 100, 400, 2_000]), rng.choice(["sell", "buy"])
    gas = gas_price(gwei, mid) | gas_price(gwei / 10, mid, chain=2)
    capacity = plenty(*sources)
    if tight:
        for source in sources:
            asset = source.instrument.base if side == "sell" else source.instrument.quote
            coins = quantity.units / E18 * rng.choice([0, 0.2, 0.5, 0.8, 2]) * (1 if side == "sell" else mid)
            capacity[asset.id] = Amount(int(coins * 10**asset.decimals), asset)
    view = view_of(*sources, mid=mid)
    limit = worse_by(view.mid, rng.choice([5, 30, 200]), selling=side == "sell") if rng.random() < 0.5 else None
    return view, side, quantity, capacity, gas, limit


def check_route(route, view, capacity, gas, limit):
    """Everything that must hold for any route, from nothing but the exact quotes."""
    states = {source.instrument.id: source for source in view.sources}
    drawn, batches, total, placed = {}, {}, 0, 0
    for piece in route.pieces:
        found, state = piece.instrument, states[piece.instrument.id].state
        base, quote = piece.base.units, piece.quote.units
        if found.is_book:
            assert base == piece.lots * found.lot_units
            swap = sell_lots(state, piece.lots) if route.side == "sell" else buy_lots(state, piece.lots)
            expected = swap.amount_out if route.side == "sell" else paid_up(swap.amount_in, found.fee_pips)
            spent = base if route.side == "sell" else swap.amount_in
            assert piece.ticks * found.tick_units * base >= found.notional_min * 10**found.base.decimals
            if limit is not None:
                at = Price(piece.ticks * found.tick_units, 10**found.quote.decimals)
                assert at >= limit if route.side == "sell" else at <= limit
        else:
            forward = (route.side == "sell") == found.base_is_token0
            swap = state.swap_in(base, forward) if route.side == "sell" else state.swap_out(base, forward)
            expected = swap.amount_out if route.side == "sell" else swap.amount_in
            spent = base if route.side == "sell" else quote
            chain = int(found.base.home.split(":")[1])
            batches[chain] = batches.get(chain, 0) + found.gas
            if limit is not None:
                left = quote * limit.den * 10**found.base.decimals
                right = base * limit.num * 10**found.quote.decimals
                assert left >= right if route.side == "sell" else left <= right
        assert quote == expected
        asset = found.base if route.side == "sell" else found.quote
        drawn[asset.id] = drawn.get(asset.id, 0) + spent
        total += rescale_down(piece.quote, USD).units
        placed += rescale_down(piece.base, ETH).units
        assert piece.why
    assert all(units <= capacity[name].units for name, units in drawn.items())
    assert placed + route.unplaced.units == route.quantity.units
    assert route.unplaced.units >= 0
    assert (route.unplaced_reason is None) == (route.unplaced.units == 0)
    cost = sum(gas_up(gas[chain].batch_gas + units, gas[chain], USD).units for chain, units in batches.items())
    assert route.gas.units == cost == sum(piece.gas.units for piece in route.pieces)
    assert route.quote.units == (total - cost if route.side == "sell" else total + cost)


@pytest.mark.parametrize("seeds", [range(k, k + 20) for k in range(0, 240, 20)], ids=str)
def test_no_cut_into_equal_parts_is_better(seeds):
    """Books and pools together: lots, minimum orders, shared balances, two chains, limits, gas up to a hundred times too dear."""
    for seed in seeds:
        view, side, quantity, capacity, gas, limit = case(seed)
        order = order_of(view, side, quantity, limit)
        route = split(view, side, quantity, capacity, gas, limit)
        if isinstance(route, Route):
            check_route(route, view, capacity, gas, limit)
            ours = score(order, route)
        else:
            ours = (1 if side == "sell" else -1) * (quantity.units * order.rest.num // order.rest.den)
        best = Brute(order, view.sources, capacity, gas, PARTS).best()
        assert (best - ours) / abs(best) * 10_000 <= TINY_BPS, seed


@given(st.integers(1_000, 10**6), st.sampled_from(["sell", "buy"]), st.sampled_from([0, 5, 50, 500]), st.integers(1, 10**20))
def test_whatever_the_market_the_route_is_sound(seed, side, gwei, units):
    mid, sources, rng = random_market(seed, notional=seed % 2 == 0)
    view, gas = view_of(*sources, mid=mid), gas_price(gwei, mid)
    capacity = {
        name: Amount(amount.units // rng.choice([1, 10**8, 10**9]), amount.asset) for name, amount in plenty(*sources).items()
    }
    limit = rng.choice([None, worse_by(view.mid, 50, selling=side == "sell")])
    route = split(view, side, Amount(units, ETH), capacity, gas, limit)
    if isinstance(route, Route):
        check_route(route, view, capacity, gas, limit)
    else:
        assert route.reasons


@given(st.integers(0, 10**6), st.sampled_from(["sell", "buy"]), st.sampled_from([0, 5, 50, 500]), st.sampled_from([0.5, 4, 30]))
def test_a_route_is_never_worse_than_its_best_single_instrument(seed, side, gwei, coins):
    mid, sources, _ = random_market(seed)
    view = view_of(*sources, mid=mid)
    route = split(view, side, eth(coins), plenty(*sources), gas_price(gwei, mid))
    assert isinstance(route, Route)
    if route.best_single is not None:
        order = order_of(view, side, eth(coins))
        single = route.best_single.quote.units
        assert score(order, route) >= (single if side == "sell" else -single)


@given(st.integers(0, 10**6), st.sampled_from(["sell", "buy"]), st.sampled_from([0, 5, 50, 500]))
def test_one_more_source_never_makes_it_worse(seed, side, gwei):
    mid, sources, _ = random_market(seed)
    if len(sources) < 2:
        return
    gas, quantity = gas_price(gwei, mid), eth(8)

    def worth(some):
        view = view_of(*some, mid=mid)
        route = split(view, side, quantity, plenty(*sources), gas)
        assert isinstance(route, Route)
        return score(order_of(view, side, quantity), route)

    fewer, more = worth(sources[:-1]), worth(sources)
    assert more >= fewer - abs(fewer) * 10**-10  # lots and last units


def test_the_same_question_has_the_same_answer():
    view, side, quantity, capacity, gas, limit = case(7)
    assert split(view, side, quantity, capacity, gas, limit) == split(view, side, quantity, capacity, gas, limit)


def test_gas_decides_between_book_and_pool():
    sources = book(levels=6, size=1.0), pool("v2", size=2_000, fee_pips=500)
    view, capacity = view_of(*sources), plenty(*sources)
    cheap = split(view, "sell", eth(5), capacity, gas_price(1))
    dear = split(view, "sell", eth(0.5), capacity, gas_price(1_000))
    assert {piece.instrument.venue for piece in cheap.pieces} == {"binance", "uniswap"}
    assert [piece.instrument.venue for piece in dear.pieces] == ["binance"]
    assert [reason.code for reason in dear.rejected] == ["GAS_NOT_EARNED"]


def test_pools_of_one_chain_share_one_balance_and_one_batch():
    one, two = pool("v2", "v2-a", size=500), pool("v3", "v3-b", size=500)
    view, gas = view_of(one, two), gas_price(1)
    capacity = plenty(one, two) | {"WETH@eip155:1": Amount(3 * E18, one.instrument.base)}
    route = split(view, "sell", eth(10), capacity, gas)
    assert sum(piece.base.units for piece in route.pieces) == pytest.approx(3 * E18, rel=1e-8)
    assert sum(piece.base.units for piece in route.pieces) <= 3 * E18
    assert len(route.pieces) == 2
    assert route.gas == gas_up(100_000 + 200_000, gas[1], USD)
    assert route.unplaced_reason.code == "NO_INVENTORY"
    assert all("all that the account has of WETH@eip155:1" in piece.why for piece in route.pieces)


def test_a_missing_balance_means_none():
    source = book()
    route = split(view_of(source), "sell", eth(1), {}, {})
    assert isinstance(route, NoRoute)
    assert [reason.code for reason in route.rejected] == ["NO_CAPACITY"]
    assert route.reasons[0].code == "NOTHING_FITS"


def test_a_pool_without_a_gas_price_is_left_out():
    route = split(view_of(pool()), "sell", eth(1), plenty(pool()), {})
    assert isinstance(route, NoRoute)
    assert [reason.code for reason in route.rejected] == ["NO_GAS_PRICE"]


def test_without_a_trusted_price_there_is_no_route():
    view = View("ETH/USD", 0, None, (), (Reason("STALE_BOOK", "x: no update"),), {})
    route = split(view, "sell", eth(1), {}, {})
    assert isinstance(route, NoRoute)
    assert route.reasons[0].code == "NO_TRUSTED_PRICE"
    assert route.rejected == view.untrusted


def test_nothing_is_traded_beyond_the_limit():
    source = pool("v2", size=100)
    view = view_of(source)
    limit = worse_by(view.mid, 100, selling=True)
    route = split(view, "sell", eth(50), plenty(source), gas_price(0), limit)
    assert 0 < route.pieces[0].share < 0.1
    assert route.unplaced_reason.code == "LIMIT_REACHED"
    tight = split(view, "sell", eth(50), plenty(source), gas_price(0), worse_by(view.mid, 5, selling=True))
    assert isinstance(tight, NoRoute)  # the pool's fee alone is 30 bps
    assert tight.rejected[0].code == "BEYOND_LIMIT"


def test_dust_below_a_lot_is_named():
    source = book()
    route = split(view_of(source), "sell", Amount(E18 + 5 * 10**12, ETH), plenty(source), {})
    assert route.unplaced == Amount(5 * 10**12, ETH)
    assert route.unplaced_reason.code == "LOT_DUST"


def test_a_quantity_below_every_minimum_has_no_route():
    source = book(notional_min=1_000 * 10**8)
    route = split(view_of(source), "sell", eth(0.1), plenty(source), {})
    assert isinstance(route, NoRoute)


def test_pieces_are_counted_and_must_bring_something():
    sources = [book(f"ex{k}", levels=6, size=1.0) for k in range(4)]
    view, capacity = view_of(*sources), plenty(*sources)
    assert len(split(view, "sell", eth(8), capacity, {}).pieces) == 4
    assert len(split(view, "sell", eth(3), capacity, {}, None, with_rules(legs_max=2)).pieces) <= 2
    assert len(split(view, "sell", eth(0.5), capacity, {}, None, with_rules(improvement_bps_min=50)).pieces) == 1


def test_alternatives_cover_every_instrument_and_every_venue():
    sources = book(levels=2, size=0.5), pool("v2", "a", size=900), pool("v2", "b", size=500)
    route = split(view_of(*sources), "sell", eth(20), plenty(*sources), gas_price(5))
    found = {one.venue: one for one in route.alternatives}
    assert set(found) == {"binance:ETHUSDT", "uniswap:a", "uniswap:b", "uniswap"}
    assert found["binance:ETHUSDT"].quote is None
    assert "could not fill" in found["binance:ETHUSDT"].why
    assert found["uniswap"].quote >= max(found["uniswap:a"].quote, found["uniswap:b"].quote)
    assert route.best_single == max((found["uniswap:a"], found["uniswap:b"]), key=lambda one: one.quote.units)
    assert "had the inventory been there" in route.best_single.why
    assert route.quote >= route.best_single.quote


def test_the_report_is_in_groups_and_adds_up():
    sources = book(levels=4, size=1.0), pool("v2", size=2_000)
    route = split(view_of(*sources), "buy", eth(6), plenty(*sources), gas_price(2))
    event = report(route, "parent-1", 3)
    assert isinstance(event, Routed)
    assert (event.intent_id, event.slice_index, event.quantity) == ("parent-1", 3, eth(6))
    assert sum(piece.base.units for piece in event.pieces) + route.unplaced.units == eth(6).units
    assert sum(piece.quote.units + piece.gas.units for piece in event.pieces) == event.quote.units
    assert {piece.base.asset for piece in event.pieces} == {ETH}
    assert sum(piece.share for piece in event.pieces) == pytest.approx(1)
    assert all(piece.price_all_in >= piece.price for piece in event.pieces)
    assert event.alternatives == route.alternatives
