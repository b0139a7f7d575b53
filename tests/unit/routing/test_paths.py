"""From flows to hops: order, circles, lots, dust, and never a unit more than there is."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import USD, a_book, a_pool, at_exchange, eth, gas_of, on_chain, random_network

from agent.domain.amount import Amount
from agent.domain.price import Price
from agent.routing.graph import Conversion, build
from agent.routing.paths import Broken, Settled, cycle, ordered, settle

RNG = Random(7)
FIRST = a_pool("first", on_chain("ETH"), on_chain("BTC"), 10**7, RNG)
BACK = a_pool("back", on_chain("BTC"), on_chain("DAI"), 10**7, RNG)
LAST = a_pool("last", on_chain("BTC"), on_chain("USD"), 10**7, RNG)
SIDE = a_pool("side", on_chain("DAI"), on_chain("USD"), 10**7, RNG)
SOURCES = (FIRST, BACK, LAST, SIDE)


def graph_of(sources=SOURCES, conversions=(), coins=10):
    return build(sources, conversions, eth(coins), USD, gas_of(1), None, {})


def ways_of(graph, *hops):
    """The numbers of the ways named `pool:GIVE`."""
    names = [f"{way.what.instrument.symbol}:{way.give.group}" for way in graph.ways]
    return [names.index(hop) for hop in hops]


def test_a_circle_is_found_and_a_tree_has_none():
    graph = graph_of()
    around = ways_of(graph, "first:ETH", "back:BTC", "back:DAI")
    assert sorted(cycle(graph, around)) == sorted(around[1:])
    assert cycle(graph, ways_of(graph, "first:ETH", "back:BTC", "side:DAI", "last:BTC")) == []


def test_places_stand_in_the_order_of_arrival():
    graph = graph_of()
    places = [graph.places[k].group for k in ordered(graph, ways_of(graph, "side:DAI", "last:BTC", "back:BTC", "first:ETH"))]
    assert places == ["ETH", "BTC", "DAI", "USD"]


@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=2), st.integers(1, 10**22))
def test_whatever_the_shares_everything_is_sent_on(shares, units):
    graph = graph_of()
    ways = ways_of(graph, "first:ETH", "last:BTC", "back:BTC", "side:DAI")
    paid = [0.0] * len(graph.ways)
    for e, share in zip(ways, (1.0, *shares, 1.0), strict=True):
        paid[e] = share
    found = settle(graph, ways, paid, Amount(units, graph.places[0]), 0.0)
    if isinstance(found, Broken):
        assert "nothing" in found.why or "112 bits" in found.why
        return
    assert units < 10**15 or not found.left  # a unit that a coarse coin cannot count
    arrived = {}
    for hop in found.hops:
        give = hop.amount_in.asset
        if give.group != "ETH":
            arrived[give.id] -= hop.amount_in.units
            assert arrived[give.id] >= 0
        if hop.amount_out.asset.group != "USD":
            arrived[hop.amount_out.asset.id] = arrived.get(hop.amount_out.asset.id, 0) + hop.amount_out.units
    assert sum(arrived.values()) == sum(one.units for one in found.left.values() if one.asset.group != "ETH")


def test_what_is_kept_on_purpose_stays():
    graph = graph_of()
    ways = ways_of(graph, "first:ETH", "last:BTC")
    paid = [0.0] * len(graph.ways)
    paid[ways[0]], paid[ways[1]] = 6.0, 0.2
    found = settle(graph, ways, paid, eth(10), 4.0)
    assert isinstance(found, Settled)
    assert found.left[0].units == pytest.approx(4 * 10**18, rel=1e-12)


def test_books_take_whole_lots_and_the_pool_takes_the_rest():
    rng = Random(3)
    book = a_book("b", at_exchange("ETH"), at_exchange("USD"), 10**5, rng, lot=10**6)
    pool = a_pool("p", on_chain("ETH"), on_chain("USD"), 10**7, rng)
    graph = build((book, pool), (), eth(3), USD, gas_of(0), None, {})
    paid = [1.23456 if way.what is book else 1.76544 for way in graph.ways]
    found = settle(graph, range(len(graph.ways)), paid, eth(3), 0.0)
    assert [hop.lots for hop in found.hops] == [123, 0]
    assert sum(hop.amount_in.units * 10 ** (18 - hop.amount_in.asset.decimals) for hop in found.hops) == eth(3).units
    more = settle(
        graph, range(len(graph.ways)), paid, eth(3), 0.0, bumped=next(e for e, w in enumerate(graph.ways) if w.what is book)
    )
    assert more.hops[0].lots == 124


def test_dust_between_two_books_is_named():
    rng = Random(3)
    sources = (
        a_book("one", at_exchange("ETH"), at_exchange("BTC"), 10**6, rng, lot=10**4),
        a_book("two", at_exchange("BTC"), at_exchange("USD"), 10**6, rng, lot=10**5),
    )
    graph = build(sources, (), eth(1), USD, {}, None, {})
    ways = [e for e, way in enumerate(graph.ways)]
    found = settle(graph, ways, [1.0] * len(ways), eth(1), 0.0)
    assert {graph.places[place].group for place in found.left} == {"ETH", "BTC"}
    assert 0 < found.left[1].units < 10**5


def test_a_fixed_cost_that_takes_all_is_said():
    one = Conversion(on_chain("BTC"), at_exchange("BTC"), Price(1, 1), fixed=Amount(10**9, on_chain("BTC")))
    assert one.received_down(10**9) == 0
    book = a_book("b", at_exchange("BTC"), at_exchange("USD"), 10**6, Random(1))
    graph = build((FIRST, book), (one,), eth(1), USD, gas_of(1), None, {})
    found = settle(graph, range(len(graph.ways)), [1.0] * len(graph.ways), eth(1), 0.0)
    assert isinstance(found, Broken)
    assert (found.code, "fixed cost" in found.why) == ("BELOW_MINIMUM", True)


@given(st.integers(0, 10**12), st.integers(1, 10**6), st.integers(0, 500), st.integers(0, 10**6))
def test_a_conversion_rounds_down(units, num, bps, fixed):
    one = Conversion(on_chain("BTC"), on_chain("USD"), Price(num, 1_000), bps, Amount(fixed, on_chain("BTC")))
    exact = max(units - fixed, 0) * num * (10_000 - bps)
    got = one.received_down(units)
    assert got * 1_000 * 10_000 * 10**2 <= exact < (got + 1) * 1_000 * 10_000 * 10**2


@given(st.integers(0, 10**6))
def test_every_kept_way_lies_between_what_is_sold_and_what_is_bought(seed):
    sources, _ = random_network(seed)
    graph = build(sources, (), eth(1), USD, gas_of(1), None, {})
    for way in graph.ways:
        assert way.head != 0
        assert way.tail != len(graph.places) - 1
        assert way.curve.u == sorted(way.curve.u)
