"""Seeded networks of constant-product pools for the benchmarks: tokens with prices, pools between them, one order through it all.

Every token has a pool with the one before it, so that all are connected; the other pools join two tokens at random, the popular
ones more often. Reserves are lognormal in value and stand a few basis points off the fair price.
"""

import math
from random import Random

import msgspec


class Network(msgspec.Struct, frozen=True):
    """Plain numbers, whole coins. `pools`: (token, token, reserve, reserve, fee). Sell `amount` of `source` for `target`.

    `start`: the fair prices in coins of `target`, from which peers that iterate may begin.
    """

    tokens: int
    pools: list[tuple[int, int, float, float, float]]
    source: int
    target: int
    amount: float
    start: list[float]


def build_network(tokens: int, pools: int, seed: int, amount_value: float = 1e6) -> Network:
    """`amount_value`: of the order, in coins of a token worth 1. The same seed gives the same network on every machine."""
    chance = Random(seed)
    prices = [math.exp(chance.gauss(0, 3)) for _ in range(tokens)]
    pairs = [(i, i - 1) for i in range(1, tokens)]
    while len(pairs) < pools:
        p, q = (min(int(chance.expovariate(5 / tokens)), tokens - 1) for _ in range(2))
        if p != q:
            pairs.append((p, q))
    found = []
    for p, q in pairs:
        value = chance.lognormvariate(math.log(2e6), 1.2)
        off = math.exp(chance.gauss(0, 5e-4))
        found.append((p, q, value / prices[p] * off, value / prices[q] / off, chance.choice((0.0005, 0.003, 0.003, 0.01))))
    source, target = 0, 3
    return Network(tokens, found, source, target, amount_value / prices[source], [price / prices[target] for price in prices])
