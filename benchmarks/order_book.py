"""The order book: a diff of 20 levels, then the best 50 of both sides, beside ccxt's book on the same stream."""

import random

from ccxt.async_support.base.ws.order_book import OrderBook

from agent.domain.market import BookDiff, BookSnapshot
from agent.market.book import Book
from benchmarks.measure import Result, versus

LEVELS, CHANGES, MESSAGES, SEED = 400, 20, 400, 7
MID = 268_380


def run() -> list[Result]:
    chance = random.Random(SEED)
    bids = tuple((MID - 1 - i, chance.randint(1, 10_000)) for i in range(LEVELS))
    asks = tuple((MID + 1 + i, chance.randint(1, 10_000)) for i in range(LEVELS))
    diffs = [
        (
            tuple(
                (MID - 1 - min(int(chance.expovariate(0.02)), LEVELS), chance.choice((0, *range(1, 5_000))))
                for _ in range(CHANGES // 2)
            ),
            tuple(
                (MID + 1 + min(int(chance.expovariate(0.02)), LEVELS), chance.choice((0, *range(1, 5_000))))
                for _ in range(CHANGES // 2)
            ),
        )
        for _ in range(MESSAGES)
    ]
    ours = Book()
    ours.apply(BookSnapshot("x", 0, bids, asks, 0))
    peer = OrderBook({"bids": [list(x) for x in bids], "asks": [list(x) for x in asks]})
    position = [0, 0]

    def us() -> object:
        b, a = diffs[position[0] % MESSAGES]
        position[0] += 1
        ours.apply(BookDiff("x", position[0], position[0], b, a, 0))
        return ours.levels(50)

    def them() -> object:
        b, a = diffs[position[1] % MESSAGES]
        position[1] += 1
        for price, size in b:
            peer["bids"].store(price, size)
        for price, size in a:
            peer["asks"].store(price, size)
        peer.limit()
        return peer["bids"][:50], peer["asks"][:50]

    return [versus("20 changes, then the best 50 a side", us, "ccxt OrderBook", them, calls=MESSAGES)]
