"""Bugs in the life of an order: evidence that is believed too soon, forgotten, or read as something else."""

from typing import Any

import pytest

from agent.domain.events import FillReversed, OrderFilled, OrderReported
from agent.domain.order import TRANSITIONS, Fill, Order, OrderState
from agent.domain.plan import CancelOrder, PlaceOrder
from agent.engine import record
from agent.engine.dispatch import Dispatch
from agent.engine.inquire import Inquiry
from agent.engine.state import State
from planted import bug, instead

S = OrderState


def _evidence(patch: pytest.MonkeyPatch, here: OrderState, told: OrderState, to: OrderState | None) -> None:
    """One entry of the table leads elsewhere, or nowhere."""
    row = {evidence: after for evidence, after in TRANSITIONS[here].items() if evidence is not told}
    patch.setitem(TRANSITIONS, here, row if to is None else row | {told: to})


def _property(patch: pytest.MonkeyPatch, name: str, wrong: Any) -> None:
    """A property of orders, wrong; `wrong` is given what is right, and the order."""
    right = getattr(Order, name).fget
    patch.setattr(Order, name, property(lambda self: wrong(right(self), self)))


@bug("below-truth", (2, 0, 3, 4), "error-500", "accept-late")
def doubt_reserves_nothing(patch: pytest.MonkeyPatch) -> None:
    """Of an order that is UNKNOWN nothing is reserved."""
    _property(patch, "may_trade", lambda right, order: 0 if order.state is S.UNKNOWN else right)


@bug("below-truth", (8, 13, 19, 14))
def a_partial_fill_frees_the_rest(patch: pytest.MonkeyPatch) -> None:
    """What is left of an order that traded a part is not reserved any more."""
    _property(patch, "may_trade", lambda right, order: 0 if order.state is S.PARTIAL else right)


@bug("below-truth", (53, 12, 47, 38), "crossed")
def what_rests_for_a_purchase_is_reserved_at_its_average(patch: pytest.MonkeyPatch) -> None:
    """The rest of a purchase reserves what the part before it cost, and not the limit."""

    def take(right: int, order: Order) -> int:
        if not isinstance(order.plan, PlaceOrder) or order.plan.side == "sell" or not order.fills:
            return right
        return sum(one.paid.units for one in order.fills) * order.may_trade // max(order.filled, 1)

    _property(patch, "may_take", take)


@bug("below-truth", (40, 7, 28, 0), "request-lost", "reply-lost")
def a_cancel_is_believed_when_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    """An order counts as cancelled as soon as its cancel leaves."""

    def sent(right: Any, self: State, event: Any) -> None:
        right(self, event)
        plan = self.orders[event.order_id].plan
        if isinstance(plan, CancelOrder):
            self._report(OrderReported(plan.target_id, S.CANCELLED, "its cancel was sent"))

    instead(patch, State, "_sent", sent)


@bug("fills", (7, 4, 0, 3), "late-fill")
def a_late_fill_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """A trade of an order that has ended is taken for an error and left out."""

    def is_news(right: Any, now: State, event: Any) -> bool:
        if isinstance(event, OrderFilled) and event.fill.order_id in now.orders and now.orders[event.fill.order_id].is_settled:
            return False
        return bool(right(now, event))

    instead(patch, record, "is_news", is_news)


@bug("order-overfilled", (2, 5, 6, 1), "twice")
def a_trade_told_twice_counts_twice(patch: pytest.MonkeyPatch) -> None:
    """Trades are not told apart by their number."""

    def fill(right: Any, self: State, event: Any) -> None:
        self.fills.pop(event.fill.key, None)
        right(self, event)

    def is_news(right: Any, now: State, event: Any) -> bool:
        return True if isinstance(event, OrderFilled) and event.fill.order_id in now.orders else bool(right(now, event))

    instead(patch, State, "_fill", fill)
    instead(patch, record, "is_news", is_news)


@bug("fills", (9, 36, 87, 90), "crossed")
def both_sides_of_a_trade_are_one(patch: pytest.MonkeyPatch) -> None:
    """Of a trade with oneself, which has one number, one side is taken for a repeat."""
    patch.setattr(Fill, "key", property(lambda self: f"{self.venue}|{self.instrument}|{self.trade_id}"))


@bug("fills", (6, 5, 4, 12))
def numbers_of_trades_are_unique_everywhere(patch: pytest.MonkeyPatch) -> None:
    """A trade is known by its number alone, and two exchanges count alike."""
    patch.setattr(Fill, "key", property(lambda self: self.trade_id))


@bug("parent-overfilled", (34, 10, 21, 52), "swallowed", "late-news")
def an_end_is_believed_before_its_trades(patch: pytest.MonkeyPatch) -> None:
    """FILLED or CANCELLED ends an order, whatever the venue's sum says of trades that were not told."""
    _property(patch, "lacks_fills", lambda right, order: False)


@bug("parent-overfilled", (83, 165, 39), "swallowed", "reordered", "error-500")
def the_sum_of_trades_may_shrink(patch: pytest.MonkeyPatch) -> None:
    """The last report counts, not the highest sum: an old one that comes late takes what is missing off the list."""

    def report(right: Any, self: State, event: Any) -> None:
        right(self, event)
        order = self.orders.get(event.order_id)
        if order is not None and event.filled is not None:
            order.told = event.filled
            self._settle(order)

    instead(patch, State, "_report", report)
    instead(patch, record, "is_news", lambda right, now, event: isinstance(event, OrderReported) or right(now, event))


@bug("below-truth", (2, 0, 3, 4), "cut-list")
def what_is_not_on_the_list_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    """An order that rests and is not on the venue's list is booked as cancelled."""

    async def snapshot(right: Any, self: Inquiry, name: str, back_ns: int = 0) -> Any:
        found = await right(self, name, back_ns)
        gone = [
            one.order_id
            for one in self._state.working.values()
            if one.plan.venue == name and isinstance(one.plan, PlaceOrder) and one.state in (S.OPEN, S.PARTIAL)
        ]
        lost = [one for one in gone if one not in found.open_orders]
        self._recorder.record([OrderReported(one, S.CANCELLED, "not on the list") for one in lost])
        return found

    instead(patch, Inquiry, "snapshot", snapshot)


@bug("excess", (2, 0, 4, 3), "overfill")
def an_overfill_halts_nothing(patch: pytest.MonkeyPatch) -> None:
    """More than was ordered is booked, and trading goes on."""
    instead(patch, record, "excess", lambda right, *some: "")


@bug("ladder", (94, 119, 6, 22), "reordered", "reply-lost")
def filled_may_become_cancelled(patch: pytest.MonkeyPatch) -> None:
    """A report that comes late takes an order back from FILLED."""
    for told in (S.OPEN, S.CANCELLED, S.EXPIRED):
        _evidence(patch, S.FILLED, told, told)
        _evidence(patch, S.CANCELLED, told, told)


@bug("below-truth", (12, 10, 0, 3), "timeout", "error-500")
def a_no_is_believed_after_a_yes(patch: pytest.MonkeyPatch) -> None:
    """An order that a venue holds is REJECTED when a second answer says so, and what it holds is not reserved."""
    for here in (S.OPEN, S.PARTIAL):
        _evidence(patch, here, S.REJECTED, S.REJECTED)

    def tell(right: Any, self: Dispatch, order_id: str, told: OrderState, reason: str) -> None:
        self._recorder.record([OrderReported(order_id, S.REJECTED if told is S.UNKNOWN else told, reason)])

    instead(patch, Dispatch, "_tell", tell)


@bug("fills", (19, 12, 10, 3), "bust")
def a_busted_trade_stands(patch: pytest.MonkeyPatch) -> None:
    """That a trade was taken back is not booked."""
    instead(patch, record, "is_news", lambda right, now, event: not isinstance(event, FillReversed) and right(now, event))


@bug("parent-overfilled", (12, 4, 7, 6))
def a_parent_forgets_what_is_under_way(patch: pytest.MonkeyPatch) -> None:
    """What is left of a parent counts what was filled and not what its orders may still trade."""
    instead(patch, State, "remaining", lambda right, self, parent: parent.intent.quantity - parent.filled)


@bug("parent-overfilled", (1, 4, 5, 3))
def a_fill_counts_for_its_parent_twice(patch: pytest.MonkeyPatch) -> None:
    """A slice is counted when its order fills and once more when it ends."""

    def fill(right: Any, self: State, event: Any) -> None:
        is_known = event.fill.key in self.fills
        right(self, event)
        order = self.orders.get(event.fill.order_id)
        if not is_known and order is not None and order.state is S.FILLED and order.plan.intent_id in self.parents:
            parent = self.parents[order.plan.intent_id]
            parent.count(event.fill, 1)

    instead(patch, State, "_fill", fill)
