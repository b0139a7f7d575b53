"""What a venue connection remembers of our own orders, so that a report of an order's end is never passed on before all its fills.

Bounded: the oldest are forgotten, which costs at most one more question to the exchange.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeVar

from agent.domain.amount import Asset
from agent.domain.events import OrderFilled, OrderReported
from agent.domain.order import ENDED, OrderRef
from agent.ports import VenueEvent

REMEMBERED_MAX = 10_000
LIVE_MAX = 1_000
V = TypeVar("V")


class OwnOrders:
    """Fills seen per order, orders that may still live, and orders that the private stream still owes us a word about.

    `bases`: the base asset of each instrument, by its id.
    """

    def __init__(self, bases: Mapping[str, Asset]) -> None:
        self._bases = bases
        self._fills: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._mentioned: OrderedDict[str, bool] = OrderedDict()
        self._departed_ns: OrderedDict[str, int] = OrderedDict()
        self._targets: OrderedDict[str, str] = OrderedDict()
        self._live: OrderedDict[str, OrderRef] = OrderedDict()
        self._owed_ns: OrderedDict[str, int] = OrderedDict()

    def departs(self, ref: OrderRef, now_ns: int, target_id: str = "") -> None:
        """A request leaves now: for an order, or for a cancel of the order `target_id`."""
        _put(self._departed_ns, ref.order_id, now_ns, REMEMBERED_MAX)
        if target_id:
            _put(self._targets, ref.order_id, target_id, REMEMBERED_MAX)
        else:
            _put(self._live, ref.order_id, ref, LIVE_MAX)

    def stayed(self, order_id: str) -> None:
        """The request did not leave after all."""
        for entries in (self._departed_ns, self._targets, self._live):
            entries.pop(order_id, None)

    def departed_ns(self, order_id: str) -> int:
        """When its request left, as far as this connection knows; else 0."""
        return self._departed_ns.get(order_id, 0)

    def target(self, order_id: str) -> str:
        """The order that a cancel takes back; nothing if this is not the id of a cancel that was sent from here."""
        return self._targets.get(order_id, "")

    def live(self) -> tuple[OrderRef, ...]:
        """Orders sent from here whose end was not seen."""
        return tuple(self._live.values())

    def accepted(self, order_id: str, now_ns: int) -> None:
        """The exchange's reply proves that it took the order: its private stream must mention it too."""
        if order_id not in self._mentioned:
            _put(self._owed_ns, order_id, now_ns, LIVE_MAX)

    def mentioned(self, order_id: str) -> None:
        """The private stream spoke of the order."""
        _put(self._mentioned, order_id, True, REMEMBERED_MAX)
        self._owed_ns.pop(order_id, None)

    def silence(self, now_ns: int, stale_ns: int) -> str:
        """An order that the private stream should have mentioned by now, or nothing."""
        return next((name for name, since_ns in self._owed_ns.items() if now_ns - since_ns > stale_ns), "")

    def forgive(self) -> None:
        """A new private stream owes nothing about the past: its orders are asked for by name instead."""
        self._owed_ns.clear()

    def note(self, facts: Iterable[VenueEvent]) -> None:
        """Remember what passes on, from whichever source."""
        for fact in facts:
            if isinstance(fact, OrderFilled):
                fill = fact.fill
                size = fill.received if fill.received.asset == self._bases[fill.instrument] else fill.paid
                fills = self._fills.get(fill.order_id, {}) | {fill.trade_id: int(size.units)}
                _put(self._fills, fill.order_id, fills, REMEMBERED_MAX)
            elif isinstance(fact, OrderReported) and fact.state in ENDED:
                self._live.pop(fact.order_id, None)

    def filled_units(self, order_id: str) -> int:
        """Base units of all fills seen for the order."""
        return sum(self._fills.get(order_id, {}).values())


def _put(entries: OrderedDict[str, V], name: str, value: V, most: int) -> None:
    entries[name] = value
    if len(entries) > most:
        entries.popitem(last=False)
