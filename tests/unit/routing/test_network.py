"""A network's answer is exact, better than any path, as good as the split where there is one hop, and within its stated bound."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_markets import gas_price, plenty, random_market, view_of
from random_markets import pool as pair_pool
from random_networks import (
    COINS,
    ETH,
    USD,
    a_book,
    a_pool,
    at_exchange,
    best_path,
    eth,
    gas_of,
    on_chain,
    random_network,
    whole_value,
)

from agent.domain.amount import Amount, Asset
from agent.domain.price import Price
from agent.market.view import Source
from agent.routing.cost import Charge, gas_up
from agent.routing.graph import Conversion
from agent.routing.network import Effort, Network, NoNetwork, trade
from agent.routing.paths import Hop
from agent.routing.split import Route, split

GWEI = st.sampled_from([0, 5, 50, 400])
SIZES = st.sampled_from([0.3, 4, 40])
SEEDS = st.integers(0, 10**6)


def check(found, sources, conversions, sell, gas):
    """Everything that must hold for any answer, from nothing but the exact quotes."""
    states = {source.instrument.id: source for source in sources}
    have, legs = {}, {}
    sold = 0
    for hop in found.hops:
        give, receive = hop.amount_in.asset, hop.amount_out.asset
        if give.group == sell.asset.group:
            sold += hop.amount_in.units * 10 ** (18 - give.decimals)
        else:
            have[give.id] = have.get(give.id, 0) - hop.amount_in.units
            assert have[give.id] >= 0, "a hop sends on more than has arrived"
        have[receive.id] = have.get(receive.id, 0) + hop.amount_out.units
        if isinstance(hop.via, Conversion):
            assert hop.via in conversions
            assert hop.amount_out.units == hop.via.received_down(hop.amount_in.units)
            continue
        source = states.pop(hop.via.instrument.id)  # at most once
        found_at = source.instrument
        forward = give == found_at.base
        quote = source.state.swap_in(hop.amount_in.units, forward == (found_at.is_book or found_at.base_is_token0))
        assert (quote.amount_in, quote.amount_out) == (hop.amount_in.units, hop.amount_out.units)
        if found_at.is_book:
            lots = (hop.amount_in if forward else hop.amount_out).units // found_at.lot_units
            assert hop.lots == lots if forward else hop.lots >= lots
        else:
            chain = int(found_at.base.home.split(":")[1])
            legs[chain] = legs.get(chain, gas[chain].batch_gas) + found_at.gas
    left = sum(one.units for one in found.left if one.asset == sell.asset)
    assert sold + left == sell.units
    received = sum(units * 10 ** (18 - hop_decimals(found, name)) for name, units in have.items() if group_of(found, name) == "USD")
    assert received == found.received.units
    assert found.gas.units == sum(gas_up(units, gas[chain], USD).units for chain, units in legs.items())
    assert found.net == found.received - found.gas
    assert found.residual <= 1e-6
    assert found.gap_bps >= -1e-4


def hop_decimals(found, name):
    return next(hop.amount_out.asset.decimals for hop in found.hops if hop.amount_out.asset.id == name)


def group_of(found, name):
    return next(hop.amount_out.asset.group for hop in found.hops if hop.amount_out.asset.id == name)


@given(SEEDS, GWEI, SIZES)
def test_it_is_exact_and_sends_on_no_more_than_arrives(seed, gwei, coins):
    sources, _ = random_network(seed)
    found = trade(sources, (), eth(coins), "USD", gas_of(gwei))
    if isinstance(found, Network):
        check(found, sources, (), eth(coins), gas_of(gwei))
    else:
        assert found.reasons


@given(SEEDS, GWEI, SIZES)
def test_it_is_never_worse_than_the_best_path_of_three_hops(seed, gwei, coins):
    sources, _ = random_network(seed)
    path, _ = best_path(sources, eth(coins), gas_of(gwei))
    found = trade(sources, (), eth(coins), "USD", gas_of(gwei))
    if path > 0:
        assert isinstance(found, Network)
        assert whole_value(found) >= path * (1 - 1e-9)


@given(SEEDS, GWEI, SIZES)
def test_it_says_how_far_from_the_best_it_can_be(seed, gwei, coins):
    """No answer that leaves a source out beats the bound, and the gap is small: lots, and what the effort leaves undecided."""
    sources, rng = random_network(seed)
    found = trade(sources, (), eth(coins), "USD", gas_of(gwei))
    fewer = tuple(one for one in sources if rng.random() < 0.8)
    other = trade(fewer, (), eth(coins), "USD", gas_of(gwei))
    if isinstance(found, Network):
        assert found.gap_bps <= 0.05 + lots_bps(sources, coins) or found.solves >= Effort().solves_max
        if isinstance(other, Network):
            assert whole_value(other) / 10**18 <= found.bound * (1 + 1e-9)


@given(SEEDS, GWEI, SIZES)
def test_one_more_source_never_hurts(seed, gwei, coins):
    """But for what the search is allowed to leave, and lots."""
    sources, _ = random_network(seed)
    fewer, more = (trade(some, (), eth(coins), "USD", gas_of(gwei)) for some in (sources[:-1], sources))
    if isinstance(fewer, Network):
        assert isinstance(more, Network)
        if more.solves < Effort().solves_max:
            assert whole_value(more) >= whole_value(fewer) * (1 - 2e-7 - lots_bps(sources, coins) / 10_000)


def lots_bps(sources, coins):
    """One lot of every book, against the order."""
    books = [one.instrument for one in sources if one.instrument.is_book]
    lots = sum(one.lot_units / 10**one.base.decimals * COINS[one.base.group][0] for one in books)
    return lots / (coins * COINS["ETH"][0]) * 10_000


@pytest.mark.parametrize("seed", range(60))
def test_with_one_hop_it_is_the_split(seed):
    mid, sources, rng = random_market(seed)
    gas = gas_price(rng.choice([0, 3, 20, 100, 400]), mid)
    quantity = Amount(rng.choice([1, 4, 15, 50]) * 10**17, ETH)
    route = split(view_of(*sources, mid=mid), "sell", quantity, plenty(*sources), gas)
    found = trade(sources, (), quantity, "USD", gas)
    assert isinstance(route, Route) == isinstance(found, Network)
    if isinstance(route, Route) and not route.unplaced.units:
        assert not found.left
        assert abs(found.net.units - route.quote.units) / route.quote.units * 10_000 <= 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_charges_weigh_as_in_a_split(seed):
    mid, sources, rng = random_market(seed)
    charges = {one.instrument.id: Charge(rng.choice([0, 200, 2_000]), "by experience") for one in sources}
    route = split(view_of(*sources, mid=mid), "sell", eth(5), plenty(*sources), gas_price(5, mid), charges=charges)
    found = trade(sources, (), eth(5), "USD", gas_price(5, mid), charges=charges)
    check(found, sources, (), eth(5), gas_price(5, mid))
    if not route.unplaced.units and not found.left:
        assert {hop.name for hop in found.hops} == {piece.instrument.id for piece in route.pieces}
        assert abs(found.net.units - route.quote.units) / route.quote.units * 10_000 <= 1e-2  # of equals, any
        assert found.gap_bps <= 0.05


def test_paths_share_a_pool_and_use_it_once(rng_pools):
    sources = rng_pools
    found = trade(sources, (), eth(40), "USD", gas_of(1))
    names = [hop.name for hop in found.hops]
    assert len(names) == len(set(names))
    assert "uniswap:last" in names
    assert names.index("uniswap:last") > max(names.index("uniswap:one"), names.index("uniswap:two"))
    check(found, sources, (), eth(40), gas_of(1))


@pytest.fixture
def rng_pools():
    """Two pools lead to BTC, one leads on."""
    from random import Random

    rng = Random(3)
    return (
        a_pool("one", on_chain("ETH"), on_chain("BTC"), 10**7, rng),
        a_pool("two", on_chain("BTC"), on_chain("ETH"), 2 * 10**7, rng),
        a_pool("last", on_chain("BTC"), on_chain("USD"), 5 * 10**7, rng),
    )


def test_nothing_moves_between_places_without_a_conversion(rng_pools):
    book = a_book("usd", at_exchange("BTC"), at_exchange("USD"), 10**6, __import__("random").Random(1))
    sources = (*rng_pools[:2], book)
    gas = gas_of(1)
    assert isinstance(trade(sources, (), eth(10), "USD", gas), NoNetwork)
    move = Conversion(
        on_chain("BTC"), at_exchange("BTC"), Price(1, 1), 5, Amount(2_000, on_chain("BTC")), why="deposit at the exchange"
    )
    found = trade(sources, (move,), eth(10), "USD", gas)
    assert found.conversions == (move,)
    check(found, sources, (move,), eth(10), gas)
    free = trade(sources, (msgspec.structs.replace(move, bps=0, fixed=None),), eth(10), "USD", gas)
    cost = (free.net.units - found.net.units) / free.net.units * 10_000
    assert cost == pytest.approx(5 + 2_000 / 10**8 * 60_000 / (free.net.units / 10**18) * 10_000, rel=1e-2)


def test_a_conversion_takes_no_more_than_it_may(rng_pools):
    book = a_book("usd", at_exchange("BTC"), at_exchange("USD"), 10**6, __import__("random").Random(1))
    most = Amount(10**7, on_chain("BTC"))
    move = Conversion(on_chain("BTC"), at_exchange("BTC"), Price(1, 1), most=most)
    found = trade((*rng_pools, book), (move,), eth(40), "USD", gas_of(0))
    used = [hop for hop in found.hops if isinstance(hop.via, Conversion)]
    assert [hop.amount_in for hop in used] == [most]
    assert found.gap_bps < 0.05


def test_a_peg_counts_where_the_coin_is_bought():
    from random import Random

    rng = Random(5)
    bridged = Asset("USDC.e", "eip155:1", 6, "USD", "0x" + "9" * 40)
    true = a_pool("true", on_chain("ETH"), on_chain("USD"), 10**7, rng, drift=0)
    other = msgspec.structs.replace(true, instrument=msgspec.structs.replace(true.instrument, symbol="bridged", quote=bridged))
    peg = Conversion(bridged, USD, Price(998, 1000), why="USDC.e sells at 0.998")
    alike = trade((true, other), (), eth(40), "USD", gas_of(0))
    found = trade((true, other), (peg,), eth(40), "USD", gas_of(0))
    first, second = (sum(h.amount_in.units for h in one.hops if h.name == "uniswap:bridged") for one in (alike, found))
    assert second < first
    assert [one.why for one in found.conversions] == [peg.why]
    assert found.net < alike.net
    check_prices = found.prices
    assert check_prices[bridged.id] == pytest.approx(0.998, rel=1e-6)


def test_what_is_sold_comes_from_where_it_is():
    mid, sources, _ = random_market(11)
    held = plenty(*sources)
    asset = sources[0].instrument.base
    held[asset.id] = Amount(10**asset.decimals // 2, asset)
    found = trade(sources, (), eth(4), "USD", gas_price(1, mid), held)
    given_there = sum(hop.amount_in.units for hop in found.hops if hop.amount_in.asset == asset)
    assert given_there <= held[asset.id].units
    assert all(isinstance(hop.via, Source) for hop in found.hops)
    none = trade(sources, (), eth(4), "USD", gas_price(1, mid), {})
    assert isinstance(none, NoNetwork)


def test_dear_gas_is_decided_and_not_dropped_greedily():
    """Pools that pay only in the right combination: against every subset, each solved without any choice."""
    from itertools import combinations
    from random import Random

    for seed in range(6):
        rng = Random(seed)
        pools = [a_pool(f"p{k}", on_chain("ETH"), on_chain("USD"), 10 ** rng.uniform(5, 6.5), rng) for k in range(5)]
        gas = gas_of(rng.choice([100, 400, 1_500]))
        best = -(10**30)
        for count in range(1, 6):
            for some in combinations(pools, count):
                free = [msgspec.structs.replace(one, instrument=msgspec.structs.replace(one.instrument, gas=0)) for one in some]
                answer = trade(free, (), eth(20), "USD", gas_of(0))
                cost = gas_up(gas[1].batch_gas + 100_000 * len(answer.hops), gas[1], USD).units
                rest = sum(one.units for one in answer.left) * answer.prices["ETH"]
                best = max(best, answer.received.units - cost + int(rest))
        found = trade(pools, (), eth(20), "USD", gas)
        value = whole_value(found) if isinstance(found, Network) else 0
        assert value >= best * (1 - 2e-7) - 10**9


def test_an_order_beyond_all_liquidity_leaves_a_rest():
    source = pair_pool("v3", size=20)
    found = trade((source,), (), eth(5_000), "USD", gas_price(1))
    assert found.left[0].asset == ETH
    assert 0 < found.left[0].units < eth(5_000).units
    check(found, (source,), (), eth(5_000), gas_price(1))


def test_no_way_and_no_gas_price_are_said():
    source = pair_pool()
    assert [one.code for one in trade((source,), (), eth(1), "USD", {}).rejected] == ["NO_GAS_PRICE"]
    assert [one.code for one in trade((source,), (), eth(1), "BTC", gas_price(1)).reasons] == ["NOTHING_FITS"]
    assert isinstance(trade((source,), (), eth(0), "USD", gas_price(1)), NoNetwork)


def test_what_counts_finer_than_the_order_is_left_out():
    source = pair_pool()
    coarse = Amount(10**6, msgspec.structs.replace(ETH, decimals=6))
    fine = Conversion(Asset("aUSD", "ex", 24, "USD"), USD, Price(1, 1))
    found = trade((source,), (fine,), coarse, "USD", gas_price(1))
    assert isinstance(found, NoNetwork)
    assert [one.code for one in found.rejected] == ["BAD_DECIMALS", "BAD_DECIMALS"]


def test_a_book_below_its_minimum_is_left_out():
    from random import Random

    rng = Random(2)
    book = a_book("b", at_exchange("ETH"), at_exchange("USD"), 10**6, rng, notional_min=10**6 * 10**8)
    pool = a_pool("p", on_chain("ETH"), on_chain("USD"), 10**7, rng)
    found = trade((book, pool), (), eth(2), "USD", gas_of(0))
    assert [hop.name for hop in found.hops] == ["uniswap:p"]
    assert [one.code for one in found.rejected] == ["BELOW_MINIMUM"]


def test_circles_of_prices_are_left_alone():
    """Two pools that disagree by more than their fees: no hop comes before itself."""
    from random import Random

    rng = Random(4)
    low = a_pool("low", on_chain("BTC"), on_chain("DAI"), 10**7, rng, fee_pips=500, drift=0)
    high = a_pool("high", on_chain("BTC"), on_chain("DAI"), 1.1 * 10**7, rng, fee_pips=500, drift=0.02)
    first = a_pool("first", on_chain("ETH"), on_chain("BTC"), 10**8, rng, fee_pips=500)
    last = a_pool("last", on_chain("DAI"), on_chain("USD"), 10**8, rng, fee_pips=500)
    side = a_pool("side", on_chain("BTC"), on_chain("USD"), 10**8, rng, fee_pips=500)
    sources = (low, high, first, last, side)
    found = trade(sources, (), eth(10), "USD", gas_of(1))
    check(found, sources, (), eth(10), gas_of(1))
    directions = {hop.name: hop.amount_in.asset.group for hop in found.hops if hop.name in ("uniswap:low", "uniswap:high")}
    assert len(set(directions.values())) <= 1


def test_the_same_question_has_the_same_answer():
    sources, _ = random_network(17)
    assert trade(sources, (), eth(4), "USD", gas_of(20)) == trade(sources, (), eth(4), "USD", gas_of(20))


def test_little_effort_is_said_in_the_gap():
    sources, _ = random_network(8, books=False)
    thorough = trade(sources, (), eth(4), "USD", gas_of(400))
    hasty = trade(sources, (), eth(4), "USD", gas_of(400), effort=Effort(solves_max=1))
    assert hasty.solves <= thorough.solves
    assert hasty.gap_bps >= thorough.gap_bps - 1e-3
    assert isinstance(hasty.hops[0], Hop)
