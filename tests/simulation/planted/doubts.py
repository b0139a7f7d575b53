"""Bugs with what nobody knows: doubts that end by themselves, starts that forget, connections that are trusted too soon."""

from typing import Any

import pytest

from agent.domain.events import OrderReported, Reconciled
from agent.domain.order import RESTING, OrderState
from agent.domain.plan import PlaceOrder
from agent.engine.inquire import Inquiry
from agent.engine.state import State
from agent.engine.supervise import Supervisor
from planted import bug, instead

S = OrderState


@bug("below-truth", (5, 4, 3, 0), "accept-late")
def three_questions_end_a_doubt(patch: pytest.MonkeyPatch) -> None:
    """An order that was asked for three times without an answer is given up as rejected."""

    def asked(right: Any, self: Supervisor, order: Any) -> None:
        right(self, order)
        if order.state is S.UNKNOWN and self._asked[order.order_id][0] >= 3:
            self._recorder.record([OrderReported(order.order_id, S.REJECTED, "nobody knows it")])

    instead(patch, Supervisor, "_asked_again", asked)


@bug("below-truth", (2, 4, 3, 0), "accept-late")
def what_a_venue_does_not_mention_never_was(patch: pytest.MonkeyPatch) -> None:
    """A list without a word about an order in doubt is taken for a no."""

    async def snapshot(right: Any, self: Inquiry, name: str, back_ns: int = 0) -> Any:
        found = await right(self, name, back_ns)
        said = {getattr(fact, "order_id", "") for fact in found.facts} | set(found.open_orders)
        for order in list(self._state.working.values()):
            if order.plan.venue == name and order.state is S.UNKNOWN and order.order_id not in said:
                self._recorder.record([OrderReported(order.order_id, S.REJECTED, "not known")])
        return found

    instead(patch, Inquiry, "snapshot", snapshot)


@bug("live", (9, 8, 10, 0), "reply-lost", "swallowed")
def doubts_are_never_asked_about(patch: pytest.MonkeyPatch) -> None:
    """What is in doubt waits for the stream to tell, and the stream has told it already."""
    instead(patch, Supervisor, "_due", lambda right, self, name: [])


@bug("below-truth", (1, 11, 2, 0), "kill")
def a_restart_takes_silence_for_a_no(patch: pytest.MonkeyPatch) -> None:
    """What was sent and not answered when the process died is booked as rejected."""

    def restart(right: Any, self: State) -> None:
        sent = [one for one in self.working.values() if one.state is S.SENT]
        right(self)
        for order in sent:
            order.reason = "the agent restarted"
            self._move(order, S.REJECTED)

    instead(patch, State, "_restart", restart)


@bug("below-truth", (8, 39, 7, 9), "kill")
def a_restart_forgets_what_rests(patch: pytest.MonkeyPatch) -> None:
    """A new start begins without the orders that rest at the exchanges."""

    def restart(right: Any, self: State) -> None:
        right(self)
        for order in list(self.working.values()):
            if order.state in RESTING and isinstance(order.plan, PlaceOrder):
                self._move(order, S.CANCELLED)

    instead(patch, State, "_restart", restart)


@bug("halted", (31, 0, 23, 3), "overfill", "kill")
def a_restart_lifts_every_halt(patch: pytest.MonkeyPatch) -> None:
    """What was halted for a person to look at trades again after a new start."""

    def restart(right: Any, self: State) -> None:
        right(self)
        self.halted.clear()

    instead(patch, State, "_restart", restart)


@bug("live", (13, 11, 4, 15), "kill")
def a_restart_leaves_approved_orders_in_between(patch: pytest.MonkeyPatch) -> None:
    """What was approved and not sent when the process died waits for ever."""

    def restart(right: Any, self: State) -> None:
        kept = [one for one in self.working.values() if one.state is S.APPROVED]
        right(self)
        for order in kept:
            self._move(order, S.APPROVED)

    instead(patch, State, "_restart", restart)


@bug("in-step", (2, 0, 4, 3), "cut")
def a_connection_is_enough(patch: pytest.MonkeyPatch) -> None:
    """After a venue is connected again, trading goes on without asking what happened meanwhile."""

    async def resync(right: Any, self: Supervisor, name: str) -> None:
        if not self._world.has_begun:
            await right(self, name)
            return
        self._world.ready.add(name)
        self._recorder.record([Reconciled(0, ())])

    instead(patch, Supervisor, "_resync", resync)


@bug("halt", (11, 12, 6, 3))
def who_is_away_is_halted(patch: pytest.MonkeyPatch) -> None:
    """A connection that is lost halts its venue, and nobody lifts it when it is back."""

    def lost(right: Any, self: Supervisor, name: str, reason: str) -> None:
        right(self, name, reason)
        self._recorder.halt(name, reason)

    instead(patch, Supervisor, "_lost", lost)


@bug("live", (8, 7, 0, 3), "no-snapshot", "cut")
def a_venue_that_failed_is_given_up(patch: pytest.MonkeyPatch) -> None:
    """After three connections that failed a venue is left alone."""
    tries: dict[tuple[int, str], int] = {}

    async def listen(right: Any, self: Supervisor, name: str) -> Any:
        key = id(self), name
        tries[key] = tries.get(key, 0) + 1
        if tries[key] > 3:
            await self._recorder.stopping.wait()
        return await right(self, name)

    instead(patch, Supervisor, "_listen", listen)


@bug("alive", (0, 10, 8, 12), "no-snapshot")
def a_question_that_fails_ends_the_agent(patch: pytest.MonkeyPatch) -> None:
    """An exchange that does not answer once takes the whole agent down."""

    async def look(right: Any, self: Inquiry, *some: Any) -> Any:
        try:
            return await right(self, *some)
        except TimeoutError as error:
            raise RuntimeError("no answer") from error

    instead(patch, Inquiry, "_look", look)
