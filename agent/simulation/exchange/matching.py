"""The matching engine: price-time priority on integer ticks and lots, exactly as a continuous exchange runs one order book.

LIMIT, MARKET and LIMIT_MAKER orders; GTC, IOC and FOK; self-trade prevention; cancel and reduce. There is no I/O, no clock and
no account in here: the same orders in the same sequence always give the same trades with the same ids.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Literal

import msgspec

Kind = Literal["LIMIT", "MARKET", "LIMIT_MAKER"]
TimeInForce = Literal["GTC", "IOC", "FOK"]
Prevention = Literal["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"]
Status = Literal["NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "REJECTED", "EXPIRED", "EXPIRED_IN_MATCH"]

BUY, SELL = 0, 1


class Order(msgspec.Struct, eq=False, kw_only=True):
    """One order and how far it got. `value` is the sum of ticks x lots over its fills."""

    id: int
    account: str
    client_id: str
    side: int
    price_ticks: int
    size_lots: int
    kind: Kind = "LIMIT"
    time_in_force: TimeInForce = "GTC"
    prevention: Prevention = "NONE"
    quote_units: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    filled_lots: int = 0
    value: int = 0
    status: Status = "NEW"

    @property
    def open_lots(self) -> int:
        """Lots that are neither filled nor withdrawn."""
        return self.size_lots - self.filled_lots


class Match(msgspec.Struct, frozen=True, eq=False):
    """One print. The cumulative figures are those after *this* fill, which is what an exchange reports fill by fill."""

    trade_id: int
    price_ticks: int
    size_lots: int
    taker: Order
    maker: Order
    taker_filled_lots: int
    taker_value: int
    maker_filled_lots: int
    maker_value: int


class Diff(msgspec.Struct, frozen=True):
    """What changed in the book between two update ids, inclusive: absolute lots per price, 0 where the level is gone."""

    first_update_id: int
    last_update_id: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class Book:
    """One symbol's order book.

    Levels are keyed by a *signed* price (a bid's key is minus its price), so the best level of either side is the first key.
    """

    def __init__(self) -> None:
        self.update_id = 0
        self.orders: dict[int, Order] = {}
        self._levels: tuple[dict[int, dict[int, Order]], dict[int, dict[int, Order]]] = ({}, {})
        self._keys: tuple[list[int], list[int]] = ([], [])
        self._total: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._dirty: tuple[set[int], set[int]] = (set(), set())
        self._published_id = 0
        self._trade_id = 0

    def submit(self, order: Order) -> tuple[list[Match], list[Order]]:
        """Match `order`, then rest what may rest; sets its status.

        Returns the prints in execution sequence, and the resting orders that self-trade prevention took out of the book.
        A post-only order that would take is REJECTED, a fill-or-kill that cannot fill whole is EXPIRED: neither changes the book.
        """
        if order.kind == "LIMIT_MAKER" and self._crosses(order):
            order.status = "REJECTED"
            return [], []
        if order.time_in_force == "FOK" and self._takable_lots(order) < order.size_lots:
            order.status = "EXPIRED"
            return [], []
        matches, removed, is_prevented = self._match(order)
        if not order.open_lots:
            order.status = "FILLED"
        elif is_prevented:
            order.status = "EXPIRED_IN_MATCH"
        elif order.kind == "MARKET" or order.time_in_force != "GTC":
            order.status = "EXPIRED"
        else:
            order.status = "PARTIALLY_FILLED" if order.filled_lots else "NEW"
            self._rest(order)
            self.update_id += 1
            return matches, removed
        if matches or removed:
            self.update_id += 1
        return matches, removed

    def cancel(self, order_id: int) -> Order | None:
        """Take a resting order out of the book; None if no such order rests here."""
        order = self.orders.get(order_id)
        if order is None:
            return None
        self._remove(order)
        order.status = "CANCELED"
        self.update_id += 1
        return order

    def reduce(self, order_id: int, lots: int) -> None:
        """Withdraw `lots` of a resting order; what is left keeps its place in the queue. All of it: the order is cancelled."""
        order = self.orders[order_id]
        if lots >= order.open_lots:
            self.cancel(order_id)
            return
        key = _key(order)
        order.size_lots -= lots
        self._total[order.side][key] -= lots
        self._dirty[order.side].add(key)
        self.update_id += 1

    def next_trade_id(self) -> int:
        """An id for a trade that happens now."""
        self._trade_id += 1
        return self._trade_id

    def best(self, side: int) -> tuple[int, int] | None:
        """(price in ticks, lots) of the best level of a side; None where the side is empty."""
        keys = self._keys[side]
        return (abs(keys[0]), self._total[side][keys[0]]) if keys else None

    def depth(self, side: int, levels_max: int) -> list[tuple[int, int]]:
        """Up to `levels_max` levels of a side as (price in ticks, lots), best first."""
        total = self._total[side]
        return [(abs(key), total[key]) for key in self._keys[side][:levels_max]]

    def lots_at(self, side: int, price_ticks: int) -> int:
        """Open lots at one price."""
        return self._total[side].get(-price_ticks if side == BUY else price_ticks, 0)

    def queue(self, side: int, price_ticks: int) -> list[Order]:
        """The orders at one price, in time priority."""
        return list(self._levels[side].get(-price_ticks if side == BUY else price_ticks, {}).values())

    def sweep(self, side: int, lots_max: int) -> tuple[int, int]:
        """(lots, ticks x lots) that a market order on `side` for `lots_max` would take now."""
        lots = value = 0
        for key in self._keys[1 - side]:
            here = min(self._total[1 - side][key], lots_max - lots)
            if not here:
                break
            lots, value = lots + here, value + here * abs(key)
        return lots, value

    def sweep_value(self, side: int, value_max: int) -> tuple[int, int]:
        """(lots, ticks x lots) of the largest market order on `side` that costs no more than `value_max` ticks x lots."""
        lots = value = 0
        for key in self._keys[1 - side]:
            here = min(self._total[1 - side][key], (value_max - value) // abs(key))
            lots, value = lots + here, value + here * abs(key)
            if here < self._total[1 - side][key]:
                break
        return lots, value

    def take_diff(self) -> Diff | None:
        """The changes since the last call; None when there are none. Consecutive diffs leave no update id out."""
        if self._published_id == self.update_id:
            return None
        bids, asks = self._dirty
        diff = Diff(
            self._published_id + 1,
            self.update_id,
            [(-key, self._total[BUY].get(key, 0)) for key in sorted(bids)],
            [(key, self._total[SELL].get(key, 0)) for key in sorted(asks)],
        )
        bids.clear()
        asks.clear()
        self._published_id = self.update_id
        return diff

    def _match(self, order: Order) -> tuple[list[Match], list[Order], bool]:
        other = 1 - order.side
        keys, levels = self._keys[other], self._levels[other]
        limit = _limit_key(order)
        matches: list[Match] = []
        removed: list[Order] = []
        while order.open_lots and keys and (limit is None or keys[0] <= limit):
            maker = next(iter(levels[keys[0]].values()))
            if order.prevention != "NONE" and maker.account == order.account:
                if order.prevention != "EXPIRE_TAKER":
                    self._remove(maker)
                    maker.status = "EXPIRED_IN_MATCH"
                    removed.append(maker)
                if order.prevention != "EXPIRE_MAKER":
                    return matches, removed, True
                continue
            matches.append(self._fill(order, maker, keys[0]))
        return matches, removed, False

    def _fill(self, taker: Order, maker: Order, key: int) -> Match:
        side, price = maker.side, abs(key)
        lots = min(taker.open_lots, maker.open_lots)
        for order in (taker, maker):
            order.filled_lots += lots
            order.value += lots * price
        if maker.open_lots:
            maker.status = "PARTIALLY_FILLED"
            self._total[side][key] -= lots
            self._dirty[side].add(key)
        else:
            maker.status = "FILLED"
            self._drop(maker, key, lots)
        return Match(
            self.next_trade_id(), price, lots, taker, maker,
            taker.filled_lots, taker.value, maker.filled_lots, maker.value,
        )  # fmt: skip

    def _rest(self, order: Order) -> None:
        key, side = _key(order), order.side
        queue = self._levels[side].get(key)
        if queue is None:
            self._levels[side][key] = queue = {}
            self._total[side][key] = 0
            insort(self._keys[side], key)
        queue[order.id] = order
        self._total[side][key] += order.open_lots
        self.orders[order.id] = order
        self._dirty[side].add(key)

    def _remove(self, order: Order) -> None:
        self._drop(order, _key(order), order.open_lots)

    def _drop(self, order: Order, key: int, lots: int) -> None:
        side = order.side
        queue = self._levels[side][key]
        del queue[order.id], self.orders[order.id]
        self._total[side][key] -= lots
        self._dirty[side].add(key)
        if not queue:
            del self._levels[side][key], self._total[side][key]
            self._keys[side].pop(bisect_left(self._keys[side], key))

    def _crosses(self, order: Order) -> bool:
        keys, limit = self._keys[1 - order.side], _limit_key(order)
        return bool(keys) and (limit is None or keys[0] <= limit)

    def _takable_lots(self, order: Order) -> int:
        """Lots that `order` could take, no more than it wants; its own account's orders count as self-trade prevention says."""
        lots, limit, other = 0, _limit_key(order), 1 - order.side
        for key in self._keys[other]:
            if (limit is not None and key > limit) or lots >= order.size_lots:
                break
            if order.prevention == "NONE":
                lots += self._total[other][key]
                continue
            for maker in self._levels[other][key].values():
                if maker.account != order.account:
                    lots += maker.open_lots
                elif order.prevention != "EXPIRE_MAKER":
                    return lots
        return lots


def _key(order: Order) -> int:
    return -order.price_ticks if order.side == BUY else order.price_ticks


def _limit_key(order: Order) -> int | None:
    """The worst key of the opposite side that the order accepts; None for a market order."""
    if order.kind == "MARKET":
        return None
    return order.price_ticks if order.side == BUY else -order.price_ticks
