"""The world's side of the book: turns what a flow wants (a size at a price, a trade) into the house's orders in the engine.

A flow speaks in absolutes ("10 ETH are bid at 2683.80"), the engine in orders. Growing a level queues the difference behind
everybody who already waits there; shrinking it withdraws the newest orders first. So a client's place in the queue is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from agent.simulation.exchange.matching import BUY, SELL, Order
from agent.simulation.exchange.venue import Venue


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Have exactly `size_lots` of the house resting at this price; 0 clears the level."""

    side: int
    price_ticks: int
    size_lots: int


class Take(msgspec.Struct, frozen=True, gc=False):
    """Take up to `size_lots` at once, at `price_ticks` or better; what is not there is not taken."""

    side: int
    price_ticks: int
    size_lots: int


Action = Quote | Take


class Flow(Protocol):
    """A source of background liquidity. Called every 100 ms with the time; answers with what to do, in sequence."""

    def step(self, now_ns: int) -> list[Action]:
        """What the world does now."""


class Liquidity:
    """The house's resting orders in one symbol."""

    def __init__(self, venue: Venue, symbol: str) -> None:
        self._venue, self._symbol = venue, symbol
        self._book = venue.markets[symbol].book
        self._resting: tuple[dict[int, list[Order]], dict[int, list[Order]]] = ({}, {})  # by side and price

    def apply(self, actions: Iterable[Action], now_ms: int) -> None:
        """Carry out a batch: trades first, then what shrinks, then what grows, so that the house never trades with itself.

        Of several quotes for one level the last one counts.
        """
        quotes: dict[tuple[int, int], Quote] = {}
        for action in actions:
            if isinstance(action, Take):
                self._venue.house_place(
                    self._symbol, action.side, action.price_ticks, action.size_lots, now_ms, time_in_force="IOC"
                )
            else:
                quotes[action.side, action.price_ticks] = action
        growing = [(quote, missing) for quote in quotes.values() if (missing := self._shrink(quote))]
        best = self._own_best() if growing else []
        for quote, missing in growing:
            other = best[1 - quote.side]
            if other is not None and (other <= quote.price_ticks if quote.side == BUY else other >= quote.price_ticks):
                continue  # the flow crossed itself (a tape may, for an instant): its next word settles it
            order = self._venue.house_place(self._symbol, quote.side, quote.price_ticks, missing, now_ms)
            if order.open_lots:
                self._resting[quote.side].setdefault(quote.price_ticks, []).append(order)

    def _shrink(self, quote: Quote) -> int:
        """Withdraw what rests beyond the wanted size; returns what is missing instead."""
        orders = self._resting[quote.side].get(quote.price_ticks)
        if orders is None:
            return quote.size_lots
        if len(orders) == 1 and orders[0].open_lots == quote.size_lots and orders[0].id in self._book.orders:
            return 0  # most levels most of the time
        orders[:] = [order for order in orders if order.id in self._book.orders]
        excess = sum(order.open_lots for order in orders) - quote.size_lots
        while excess > 0:
            order = orders[-1]
            lots = min(excess, order.open_lots)
            if lots == order.open_lots:
                orders.pop()
            self._book.reduce(order.id, lots)
            excess -= lots
        if not orders:
            del self._resting[quote.side][quote.price_ticks]
        return -excess

    def _own_best(self) -> list[int | None]:
        """The best prices at which the house itself rests: [bid, ask]. What grows in this batch never crosses what grows."""
        return [max(self._resting[BUY], default=None), min(self._resting[SELL], default=None)]
