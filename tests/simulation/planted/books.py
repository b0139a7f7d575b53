"""Bugs in the books: what is booked by half, not at all, or beside the journal."""

from typing import Any

import msgspec
import pytest

from agent.domain.amount import zero
from agent.domain.events import GasPaid, OrderFilled, OrderReported
from agent.domain.order import Fill, OrderState
from agent.domain.plan import SwapBatch
from agent.engine import inquire, record
from agent.engine.inquire import Inquiry
from agent.engine.loop import Engine
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.ledger import positions, posting
from agent.simulation.drill.clock import world_ns
from planted import bug, instead

S = OrderState


@bug("sums-to-zero", (1, 0, 4, 3))
def one_leg_is_lost(patch: pytest.MonkeyPatch) -> None:
    """A fee leaves the wallet and arrives nowhere, and nobody adds up."""

    def fill(right: Any, fact: Any, account: str) -> Any:
        *legs, fee_out, _fee_in = right(fact, account)
        return (*legs, fee_out)

    instead(patch, posting, "_fill", fill)
    for place in (posting, positions):
        instead(patch, place, "balanced", lambda right, postings: tuple(one for one in postings if one.amount))


@bug("breaks", (1, 4, 3, 0))
def fees_are_not_booked(patch: pytest.MonkeyPatch) -> None:
    """A trade is booked without what the venue keeps of it."""
    instead(patch, posting, "_fill", lambda right, fact, account: right(fact, account)[:-2])


@bug("breaks", (1, 0, 4, 3))
def a_fee_is_a_rebate(patch: pytest.MonkeyPatch) -> None:
    """The sign of fees is turned round."""

    def fill(right: Any, fact: Any, account: str) -> Any:
        return right(msgspec.structs.replace(fact, fee=-fact.fee), account)

    instead(patch, posting, "_fill", fill)


@bug("fills", (2, 1, 4, 6), "sandwich")
def what_was_quoted_is_booked(patch: pytest.MonkeyPatch) -> None:
    """A swap is booked at what it was sure to bring, not at what its receipt says."""

    def fill(right: Any, self: State, event: Any) -> None:
        order = self.orders.get(event.fill.order_id)
        if order is not None and isinstance(order.plan, SwapBatch):
            event = OrderFilled(msgspec.structs.replace(event.fill, paid=order.plan.sell, received=order.plan.buy))
        right(self, event)

    instead(patch, State, "_fill", fill)


@bug("fills", (5, 1, 0, 3), "reverts")
def what_reverts_costs_nothing(patch: pytest.MonkeyPatch) -> None:
    """Gas is booked for transactions that trade, and not for those that revert."""

    def absorb(right: Any, self: Recorder, venue: str, facts: Any) -> None:
        for fact in facts:
            order = self.state.orders.get(fact.order_id) if isinstance(fact, GasPaid) else None
            if order is not None and isinstance(order.plan, SwapBatch) and not self._receipts and not order.fills:
                continue
            right(self, venue, [fact])

    instead(patch, Recorder, "absorb", absorb)


@bug("fills", (5, 1, 0, 3), "reverts")
def a_revert_is_booked_as_a_trade(patch: pytest.MonkeyPatch) -> None:
    """A transaction that is in a block has traded, whatever became of it there."""

    def absorb(right: Any, self: Recorder, venue: str, facts: Any) -> None:
        right(self, venue, [traded for fact in facts for traded in _trade(self.state, fact)])

    def _trade(now: State, fact: Any) -> list[Any]:
        order = now.orders.get(fact.order_id) if isinstance(fact, OrderReported) and fact.state is S.REVERTED else None
        if order is None or not isinstance(order.plan, SwapBatch):
            return [fact]
        plan, leg = order.plan, order.plan.legs[0]
        name = f"{fact.tx_hash}:0"
        fill = Fill(plan.order_id, plan.venue, leg.instrument, name, plan.sell, plan.buy, zero(plan.buy.asset), 0, fact.tx_hash)
        return [OrderFilled(fill), msgspec.structs.replace(fact, state=S.MINED)]

    instead(patch, Recorder, "absorb", absorb)


@bug("breaks", (8, 10, 0, 4), "cut-balances")
def a_part_of_the_balances_is_adopted(patch: pytest.MonkeyPatch) -> None:
    """The opening balances are taken from a list that was cut off."""

    def adopt(right: Any, self: Inquiry, snapshot: Any) -> None:
        right(self, msgspec.structs.replace(snapshot, is_balances_whole=True))

    instead(patch, Inquiry, "adopt", adopt)


@bug("balances", (1, 0, 4, 3))
def cents_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    """Fees are rounded, and a check that forgives small differences never tells."""

    def fill(right: Any, fact: Any, account: str) -> Any:
        fee = fact.fee
        return right(msgspec.structs.replace(fact, fee=type(fee)(fee.units // 1_000 * 1_000, fee.asset)), account)

    def compare(right: Any, *some: Any) -> Any:
        return tuple(one for one in right(*some) if not one.is_balance or abs(one.outside.units - one.journal.units) > 10**6)

    instead(patch, posting, "_fill", fill)
    instead(patch, inquire, "compare", compare)


@bug("replay", (1, 2, 3, 0))
def gas_is_booked_beside_the_journal(patch: pytest.MonkeyPatch) -> None:
    """Gas goes straight into the books, and the journal never hears of it."""

    def recorded(right: Any, self: Recorder, events: Any) -> None:
        for event in events:
            if isinstance(event, GasPaid):
                self.state._gas(event)
        right(self, [one for one in events if not isinstance(one, GasPaid)])

    instead(patch, Recorder, "record", recorded)


@bug("replay", (1, 2, 0, 3))
def the_state_remembers_the_clock(patch: pytest.MonkeyPatch) -> None:
    """Something in the state comes from the machine and not from the record."""

    def approved(right: Any, self: State, *some: Any) -> None:
        right(self, *some)
        order = self.orders[some[0].order_id]
        order.approved_ns = world_ns() + 1

    instead(patch, State, "_approved", approved)


@bug("flood", (2, 1, 0, 3))
def a_refusal_is_recorded_again_and_again(patch: pytest.MonkeyPatch) -> None:
    """A fact that changes nothing is news each time, and wakes the loop that asks for it."""

    def decide(right: Any, self: Engine) -> None:
        right(self)
        for order in list(self.state.working.values()):
            if order.state is S.OPEN:
                self._recorder.record([OrderReported(order.order_id, S.OPEN, "still there")])

    instead(patch, Engine, "_decide", decide)


@bug("final", (2, 1, 0, 3), "reorg")
def one_block_is_final(patch: pytest.MonkeyPatch) -> None:
    """A transaction counts as final as soon as it is in a block, and is taken back all the same."""

    def report(right: Any, self: State, event: Any) -> None:
        right(self, event)
        order = self.orders.get(event.order_id)
        if order is not None and order.block and event.block:
            order.is_final = True
            self._settle(order)

    instead(patch, State, "_report", report)
    instead(patch, record, "contradiction", lambda right, *some: "")
