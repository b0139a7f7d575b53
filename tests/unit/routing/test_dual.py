"""The solver: what flows in flows out, ramps cost no more than they are said to, and compiled it gives the same answer."""

from math import exp, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import ETH, USD, eth, gas_of, random_network

from agent.routing import network_fast
from agent.routing.dual import plain
from agent.routing.edges import GATED, OPEN, Edges
from agent.routing.graph import build, flatten
from agent.routing.network import trade
from agent.routing.ramps import PINNED

SEEDS = st.integers(0, 10**6)


def network_of(seed, gwei=0, coins=8):
    sources, rng = random_network(seed)
    graph = build(sources, (), eth(coins), USD, gas_of(gwei), None, {})
    worth = [2_500.0 if place == ETH else 1.0 for place in graph.places] if gwei else None
    return graph, flatten(graph, 1_250.0, worth), rng


def brought(edges, flow, last):
    return sum(received for received, head in zip(flow.received, edges.head, strict=True) if head == last)


@given(SEEDS, st.sampled_from([0.1, 3, 50]))
def test_what_arrives_is_sent_on_and_the_bound_is_attained(seed, coins):
    graph, edges, _ = network_of(seed, coins=coins)
    if not graph.ways:
        return
    flow = plain(edges, len(graph.places), graph.sold)([OPEN] * len(edges.tail), None)
    got = brought(edges, flow, len(graph.places) - 1)
    assert flow.residual <= 1e-8
    least = -1e-9 * graph.sold * exp(flow.worth[0])
    assert all(paid * exp(flow.worth[tail]) >= least for paid, tail in zip(flow.paid, edges.tail, strict=True))
    assert -1e-7 <= (flow.bound - got) / got <= 1e-7


@given(SEEDS)
def test_any_worths_give_a_bound(seed):
    """Weak duality: what the best flow brings is below the dual value from wherever it is looked at."""
    graph, edges, rng = network_of(seed)
    if not graph.ways:
        return
    nodes = len(graph.places)
    run = plain(edges, nodes, graph.sold)
    flow = run([OPEN] * len(edges.tail), None)
    got = brought(edges, flow, nodes - 1)
    for e in range(len(graph.ways)):
        state = [OPEN] * len(edges.tail)
        state[e] = 0
        without = run(state, flow.worth)
        assert brought(edges, without, nodes - 1) <= flow.bound * (1 + 1e-8)
        assert got >= brought(edges, without, nodes - 1) * (1 - 1e-7)
    assert rng is not None


def test_a_step_taken_in_part_is_off_by_less_than_its_ramp():
    """Two levels, then a pool: the error bound of the ramps, where the exact answer is known."""
    levels = [(2_510.0, 3.0), (2_500.0, 4.0)]
    flat = Edges(*([] for _ in Edges._fields))
    taken = given_out = 0.0
    pieces = []
    for price, size in levels:
        z = 1 / sqrt(price)
        pieces.append((z, taken, given_out, 0.0, 1e-3))
        taken, given_out = taken + size, given_out + size * price
        pieces.append((z, taken, given_out, 0.0, 0.0))
    for column, value in zip(flat[:7], (0, 1, 0, 4, 0, 0, 0.0), strict=True):
        column.append(value)
    for piece in pieces:
        for column, value in zip(flat[7:12], piece, strict=True):
            column.append(value)
    flat.steps.extend((0, 4))
    flow = plain(flat, 2, 5.0)([OPEN], None)
    exact = 3 * 2_510 + 2 * 2_500
    assert flow.paid == pytest.approx([5.0], rel=1e-12)
    assert flow.received == pytest.approx([exact], rel=1e-12)
    assert 0 <= flow.bound - exact <= 2 * PINNED * 2 * 2_500 + 1e-9 * exact
    assert 2_500 * (1 - 1e-12) <= exp(flow.worth[0]) <= 2_500 * (1 + 3 * PINNED)


@pytest.mark.skipif(network_fast.fast() is None, reason="numba is not installed")
@pytest.mark.parametrize("gwei", [0, 30])
def test_compiled_it_gives_the_same_answer_to_the_last_bit(gwei):
    prepare = network_fast.fast()
    for seed in range(15):
        graph, edges, _ = network_of(seed, gwei)
        state = [GATED if cost > 0 and gwei else OPEN for cost in edges.cost]
        first, second = (make(edges, len(graph.places), graph.sold)(state, None) for make in (plain, prepare))
        assert first == second
        sources, _ = random_network(seed)
        assert trade(sources, (), eth(4), "USD", gas_of(gwei)) == trade(sources, (), eth(4), "USD", gas_of(gwei), prepare=prepare)


def test_without_numba_there_is_no_compiled_solver(monkeypatch):
    monkeypatch.setattr(network_fast, "INSTALLED", False)
    assert network_fast.fast() is None


def test_a_warm_start_gives_the_same_flow():
    graph, edges, _ = network_of(Random(5).randint(0, 99))
    run = plain(edges, len(graph.places), graph.sold)
    cold = run([OPEN] * len(edges.tail), None)
    warm = run([OPEN] * len(edges.tail), cold.worth)
    assert warm.rounds <= cold.rounds
    assert warm.received == pytest.approx(cold.received, rel=1e-6, abs=1e-6)
