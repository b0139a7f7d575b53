"""Branch and bound gives what trying every set of pools gives, with gas from nothing to absurd."""

from itertools import product
from random import Random

import pytest
from random_markets import E18, ETH, book, gas_price, order_of, plenty, pool, view_of

from agent.domain.amount import Amount
from agent.routing.fill import GATED, IN, OUT, bounds_of, fill, value
from agent.routing.problem import pose
from agent.routing.search import choose


def task(seed):
    rng = Random(seed)
    mid = 2_500.0
    near = lambda: mid * (1 + rng.gauss(0, 1e-3))  # noqa: E731
    sources = [book("ex", near(), 20, rng.choice([0.3, 3]), rng=rng)]
    for k in range(6):
        protocol, size = rng.choice(["v2", "v3", "v4"]), rng.choice([20, 100, 400])
        sources.append(
            pool(protocol, f"p{k}", near(), size, rng.choice([500, 3_000]), rng.choice([60_000, 140_000]), 1 + k % 2, rng=rng)
        )
    gwei, side = rng.choice([0, 2, 20, 200]), rng.choice(["sell", "buy"])
    gas = gas_price(gwei, mid) | gas_price(gwei, mid, chain=2)
    capacity = plenty(*sources)
    if seed % 2:
        for source in sources[1:]:
            asset = source.instrument.base if side == "sell" else source.instrument.quote
            coins = rng.choice([1, 5, 20]) * (1 if side == "sell" else mid)
            capacity[asset.id] = Amount(int(coins * 10**asset.decimals), asset)
    view = view_of(*sources, mid=mid)
    return pose(order_of(view, side, Amount(rng.choice([2, 10, 40]) * E18, ETH)), view.sources, capacity, gas)


@pytest.mark.parametrize("seeds", [range(k, k + 10) for k in range(0, 60, 10)], ids=str)
def test_it_equals_enumeration(seeds):
    for seed in seeds:
        found = task(seed)
        problem, costs = found.problem, found.costs
        pools = [i for i, source in enumerate(found.sources) if not source.instrument.is_book]
        bounds, best = bounds_of(problem), float("-inf")
        for uses in product((IN, OUT), repeat=len(pools)):
            state = [GATED] * len(problem.curves)
            for i, use in zip(pools, uses, strict=True):
                state[i] = use
            filling = fill(problem, bounds, state, problem.curves)
            batches = sum(cost for members, cost in costs.chains if any(state[i] == IN for i in members))
            best = max(best, value(problem, bounds, filling, state, problem.curves) - batches)
        assert choose(problem, costs).worth == pytest.approx(best, rel=1e-11)
