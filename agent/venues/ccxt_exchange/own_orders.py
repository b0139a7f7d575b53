"""What a venue connection remembers of orders: which still owe us a word, what cancels were for, under which name each is known.

An exchange may rename an order (an amendment gives it a new client id), but its number stays; the first name is what counts.
Bounded: the oldest are forgotten, which costs at most one more question to the exchange.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import TypeVar

from agent.domain.events import FillReversed, OrderAmended, OrderFilled, OrderReported
from agent.domain.order import ENDED, OrderRef
from agent.ports import VenueEvent

REMEMBERED_MAX = 10_000
LIVE_MAX = 1_000
K = TypeVar("K")
V = TypeVar("V")


class OwnOrders:
    """Orders that may still live, names and sizes, fills seen, and orders that the private stream still owes us a word about."""

    def __init__(self) -> None:
        self._fills: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._mentioned: OrderedDict[str, bool] = OrderedDict()
        self._departed_ns: OrderedDict[str, int] = OrderedDict()
        self._targets: OrderedDict[str, str] = OrderedDict()
        self._live: OrderedDict[str, OrderRef] = OrderedDict()
        self._owed_ns: OrderedDict[str, int] = OrderedDict()
        self._names: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._spelled: OrderedDict[str, str] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def departs(self, ref: OrderRef, now_ns: int, target_id: str = "", size: int = 0) -> None:
        """A request leaves now: for an order of `size` base units, or for a cancel of the order `target_id`."""
        remember(self._departed_ns, ref.order_id, now_ns, REMEMBERED_MAX)
        if target_id:
            remember(self._targets, ref.order_id, target_id, REMEMBERED_MAX)
            return
        remember(self._live, ref.order_id, ref, LIVE_MAX)
        if size:
            remember(self._sizes, ref.order_id, size, REMEMBERED_MAX)

    def stayed(self, order_id: str) -> None:
        """The request did not leave after all."""
        for entries in (self._departed_ns, self._targets, self._live, self._sizes):
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

    # -- names --------------------------------------------------------------------------------------------------------

    def learn(self, refs: Iterable[OrderRef], symbols: dict[str, str]) -> None:
        """What the engine knows: our id and the exchange's number belong together. `symbols` by the instrument's id."""
        for ref in refs:
            if ref.venue_order_id:
                remember(self._names, (symbols.get(ref.instrument, ""), ref.venue_order_id), ref.order_id, REMEMBERED_MAX)

    def name(self, symbol: str, number: int | str, told_id: str) -> str:
        """The id under which the order with this number is known here; `told_id` if it is new."""
        found = self._names.get((symbol, str(number)))
        if found is None:
            remember(self._names, (symbol, str(number)), told_id, REMEMBERED_MAX)
            return told_id
        if found != told_id and told_id:
            remember(self._spelled, found, told_id, REMEMBERED_MAX)
        return found

    def spelled(self, order_id: str) -> str:
        """The client id under which the exchange knows our order now."""
        return self._spelled.get(order_id, order_id)

    def original(self, told_id: str) -> str:
        """Our id of the order that the exchange knows under `told_id` now."""
        return next((name for name, told in self._spelled.items() if told == told_id), told_id)

    def is_smaller(self, order_id: str, size: int) -> bool:
        """Whether the exchange made the order smaller than what was sent from here, in base units."""
        return 0 < size < self._sizes.get(order_id, 0)

    def is_known(self, symbol: str, number: int, told_id: str) -> bool:
        """Whether an order with this number, or under this client id, was sent from here or named before."""
        return (symbol, str(number)) in self._names or told_id in self._departed_ns or told_id in self._mentioned

    # -- the private stream -------------------------------------------------------------------------------------------

    def accepted(self, order_id: str, now_ns: int) -> None:
        """The exchange's reply proves that it took the order: its private stream must mention it too."""
        if order_id not in self._mentioned:
            remember(self._owed_ns, order_id, now_ns, LIVE_MAX)

    def mentioned(self, order_id: str) -> None:
        """The private stream spoke of the order."""
        remember(self._mentioned, order_id, True, REMEMBERED_MAX)
        self._owed_ns.pop(order_id, None)

    def silence(self, now_ns: int, stale_ns: int) -> str:
        """An order that the private stream should have mentioned by now, or nothing."""
        return next((name for name, since_ns in self._owed_ns.items() if now_ns - since_ns > stale_ns), "")

    def forgive(self) -> None:
        """A new private stream owes nothing about the past: its orders are asked for by name instead."""
        self._owed_ns.clear()

    # -- fills --------------------------------------------------------------------------------------------------------

    def note(self, facts: Iterable[VenueEvent], now_ns: int) -> None:
        """Remember what passes on, from whichever source."""
        for fact in facts:
            if isinstance(fact, OrderFilled):
                seen = self._fills.get(fact.fill.order_id, {})
                remember(self._fills, fact.fill.order_id, {fact.fill.key: now_ns} | seen, REMEMBERED_MAX)
            elif isinstance(fact, FillReversed):
                self._fills.get(fact.order_id, {}).pop(fact.key, None)
            elif isinstance(fact, OrderAmended):
                remember(self._sizes, fact.order_id, fact.size.units, REMEMBERED_MAX)
            elif isinstance(fact, OrderReported) and fact.state in ENDED:
                self._live.pop(fact.order_id, None)

    def vanished(self, order_id: str, listed: Collection[str], before_ns: int) -> tuple[str, ...]:
        """Fills that passed on before `before_ns` and are not among those that the exchange lists now, by their keys."""
        seen = self._fills.get(order_id, {})
        return tuple(key for key, noted_ns in seen.items() if key not in listed and noted_ns < before_ns)


def remember(entries: OrderedDict[K, V], name: K, value: V, most: int) -> None:
    """Put an entry, and forget the oldest beyond `most`."""
    entries[name] = value
    entries.move_to_end(name)
    if len(entries) > most:
        entries.popitem(last=False)
