"""The everyday search, plain and compiled: the same answer to the last bit, with a memory and without, and never beaten."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_markets import ETH, gas_price, order_of, plenty, random_market, view_of
from test_search import task

from agent.domain.amount import Amount
from agent.routing import kernel
from agent.routing.cost import Charge
from agent.routing.fill import GATED, IN, bounds_of, fill, value
from agent.routing.memo import Memo
from agent.routing.problem import pose
from agent.routing.search import choose
from agent.routing.split import Route, split


def compiled():
    fast = pytest.importorskip("agent.routing.fast", reason="needs the extra [fast]", exc_type=ImportError)
    return fast.Arrays().search


def posed(seed, side, gwei, coins, memo=None):
    mid, sources, _ = random_market(seed, notional=seed % 2 == 0, chains=1 + seed % 3)
    view = view_of(*sources, mid=mid)
    gas = gas_price(gwei, mid) | gas_price(gwei / 3, mid, chain=2) | gas_price(gwei * 3, mid, chain=3)
    quantity = Amount(int(coins * 1_000) * 10**15, ETH)
    return pose(order_of(view, side, quantity), view.sources, None, gas, memo)


SEEDS, SIDES, GWEI = st.integers(0, 10**6), st.sampled_from(["sell", "buy"]), st.sampled_from([0, 2, 20, 200, 2_000])
COINS = st.sampled_from([0.002, 0.05, 0.5, 4, 30, 400])


@given(SEEDS, SIDES, GWEI, COINS)
def test_compiled_it_gives_the_same_answer_to_the_last_bit(seed, side, gwei, coins):
    found = posed(seed, side, gwei, coins)
    assert compiled()(found.problem, found.costs, ()) == kernel.search(found.problem, found.costs)


def test_compiled_arrays_follow_every_change_of_their_curves():
    search = compiled()
    for seed in range(40):  # the same arrays for markets of other sizes, one after the other
        found = posed(seed, "sell" if seed % 2 else "buy", 20, 4)
        assert search(found.problem, found.costs, ()) == kernel.search(found.problem, found.costs)
        curves = found.problem.curves
        if len(curves) > 2:  # one source shut, then another curve in its place
            assert search(found.problem, found.costs, (0,)) == kernel.search(found.problem, found.costs, (0,))
            other = msgspec.structs.replace(
                found.problem, curves=[curves[1], *curves[1:]], opens=found.problem.opens[1:2] + found.problem.opens[1:]
            )
            assert search(other, found.costs, ()) == kernel.search(other, found.costs)


@given(SEEDS, SIDES, GWEI, COINS)
def test_it_is_what_the_search_with_balances_finds_when_they_are_endless(seed, side, gwei, coins):
    found = posed(seed, side, gwei, coins)
    problem, answer = found.problem, kernel.search(found.problem, found.costs)
    assert answer is not None
    assert sum(answer.base) == pytest.approx(problem.quantity, rel=1e-10)
    bounds, curves = bounds_of(problem), problem.curves
    state = [IN if gas <= 0 and not c.is_book else GATED for gas, c in zip(problem.gas, curves, strict=True)]
    relaxed = fill(problem, bounds, state, curves)  # no batch costs anything, and pools may open in part: nothing beats that
    bound = value(problem, bounds, relaxed, state, curves)
    assert answer.worth <= bound + abs(bound) * 1e-9
    for shut in range(len(curves) - 1):
        less = kernel.search(problem, found.costs, (shut,))
        assert less is None or less.worth <= answer.worth + abs(answer.worth) * 1e-12


@pytest.mark.parametrize("seeds", [range(k, k + 15) for k in range(0, 60, 15)], ids=str)
def test_the_compiled_search_leads_to_the_same_choice_with_tight_balances(seeds):
    search = compiled()
    for seed in seeds:
        found = task(seed)
        assert choose(found.problem, found.costs, search=search) == choose(found.problem, found.costs)


@given(st.lists(st.tuples(st.integers(0, 30), SIDES, GWEI, COINS), min_size=2, max_size=6))
def test_what_is_remembered_changes_no_answer(questions):
    memos = {}
    for seed, side, gwei, coins in questions:
        memo = memos.setdefault((seed, side), Memo())
        with_it, without = posed(seed, side, gwei, coins, memo), posed(seed, side, gwei, coins)
        assert msgspec.structs.replace(with_it, search=None) == msgspec.structs.replace(without, search=None)


@given(SEEDS, SIDES, st.sampled_from([0, 20, 200]), st.sampled_from([0.5, 4, 30]), st.integers(1, 50_000))
def test_a_charge_moves_the_order_elsewhere_and_no_amount(seed, side, gwei, coins, pips):
    mid, sources, _ = random_market(seed)
    view, quantity = view_of(*sources, mid=mid), Amount(int(coins * 1_000) * 10**15, ETH)
    gas, charged = gas_price(gwei, mid), sources[0].instrument.id
    free = split(view, side, quantity, plenty(*sources), gas)
    route = split(view, side, quantity, plenty(*sources), gas, charges={charged: Charge(pips, "it is slow")})
    assert isinstance(free, Route)
    assert isinstance(route, Route)
    share = {piece.instrument.id: piece.share for piece in free.pieces}
    assert {p.instrument.id: p.share for p in route.pieces}.get(charged, 0) <= share.get(charged, 0) + 1e-3
    better = free.quote.units - route.quote.units
    assert (better if side == "sell" else -better) >= -abs(free.quote.units) * 1e-6, "a charge is never money"


@given(SEEDS, SIDES, GWEI, st.sampled_from([0.5, 4, 30]))
def test_without_words_the_split_is_the_same(seed, side, gwei, coins):
    mid, sources, _ = random_market(seed)
    view, quantity = view_of(*sources, mid=mid), Amount(int(coins * 1_000) * 10**15, ETH)
    told = split(view, side, quantity, plenty(*sources), gas_price(gwei, mid))
    short = split(view, side, quantity, plenty(*sources), gas_price(gwei, mid), is_explained=False)
    assert isinstance(told, Route)
    assert isinstance(short, Route)
    assert [(p.instrument, p.base, p.quote, p.gas) for p in told.pieces] == [
        (p.instrument, p.base, p.quote, p.gas) for p in short.pieces
    ]
    assert (told.quote, told.unplaced, told.gap_bps) == (short.quote, short.unplaced, short.gap_bps)
    assert told.gap_bps >= 0
    assert all(piece.why for piece in told.pieces)
    assert not any(piece.why for piece in short.pieces)
