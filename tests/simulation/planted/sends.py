"""Bugs on the way out: what leaves too early, twice, or although nobody wants it any more."""

from typing import Any

import msgspec
import pytest

from agent.domain.errors import IsthmusError, OutcomeUnknown
from agent.domain.events import IntentAccepted, OrderSent
from agent.domain.order import OrderState
from agent.domain.price import Price
from agent.engine import decide, dispatch, propose, tend
from agent.engine.dispatch import Dispatch
from agent.engine.loop import Engine
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.risk import gate
from planted import bug, instead

S = OrderState


def _read_as(patch: pytest.MonkeyPatch, words: tuple[str, ...], state: OrderState = S.REJECTED) -> None:
    """A send that ended with one of these words is taken for a no."""

    def tell(right: Any, self: Dispatch, order_id: str, told: OrderState, reason: str) -> None:
        is_it = told is S.UNKNOWN and any(word in reason for word in words)
        right(self, order_id, state if is_it else told, reason)

    instead(patch, Dispatch, "_tell", tell)


@bug("below-truth", (32, 0, 56, 3), "slow-reply", "late-news", "swallowed")
def a_timeout_is_a_no(patch: pytest.MonkeyPatch) -> None:
    """Nobody answered within a second: the order is booked as rejected, and its amount is traded elsewhere."""
    patch.setattr(dispatch, "SEND_TIMEOUT_S", 1.0)
    _read_as(patch, ("no answer within",))


@bug("below-truth", (2, 0, 4, 3), "error-500", "accept-late")
def a_5xx_is_a_no(patch: pytest.MonkeyPatch) -> None:
    """500 and 504 are booked as rejected."""
    _read_as(patch, ("500", "504"))


@bug("below-truth", (8, 0, 3, 4), "duplicate-id")
def a_duplicate_id_is_a_no(patch: pytest.MonkeyPatch) -> None:
    """The exchange says that it knows the id already: booked as rejected."""
    _read_as(patch, ("-2012",))


@bug("below-truth", (5, 0, 3, 6), "nonce-error", "deaf")
def nonce_too_low_is_a_no(patch: pytest.MonkeyPatch) -> None:
    """A node says `nonce too low` or `already known` to what it took: booked as rejected."""
    _read_as(patch, ("nonce too low", "already known"))


@bug("states", (33, 176, 23, 140), "stop", "timeout", "late-news", "swallowed")
def what_the_stop_interrupts_never_left(patch: pytest.MonkeyPatch) -> None:
    """A send that the end of the run interrupts is booked as cancelled."""
    patch.setattr(dispatch, "DRAIN_S", 0.1)
    _read_as(patch, ("interrupted",), S.CANCELLED)
    instead(patch, Dispatch, "__init__", lambda right, self, *some: right(self, *some[:4], 0.1))


@bug("sent-once", (2, 0, 4, 3), "reply-lost")
def a_lost_reply_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A layer below tries every request that failed once more."""

    class Retrying:
        def __init__(self, venue: Any) -> None:
            self._venue = venue

        def __getattr__(self, name: str) -> Any:
            return getattr(self._venue, name)

        async def send(self, signed: Any) -> Any:
            try:
                return await self._venue.send(signed)
            except OutcomeUnknown:
                return await self._venue.send(signed)

    def made(right: Any, self: Dispatch, recorder: Any, venues: Any, *rest: Any) -> None:
        right(self, recorder, {name: Retrying(one) for name, one in venues.items()}, *rest)

    instead(patch, Dispatch, "__init__", made)


@bug("sent-once", (1, 2, 3, 0), "kill")
def a_restart_sends_what_was_under_way(patch: pytest.MonkeyPatch) -> None:
    """After a crash every order that was not answered is sent again, to be sure."""
    sent: list[Any] = []

    def replayed(right: Any, self: Recorder) -> None:
        right(self)
        sent[:] = [one for one in self.state.working.values() if one.state is S.SENT]

    def worked(right: Any, self: Engine) -> Any:
        for order in sent:
            self._dispatch.start(gate.Approved(order.plan, order.nonce))
        return right(self)

    instead(patch, Recorder, "replay", replayed)
    instead(patch, Engine, "_work", worked)


@bug("durable-first", (0, 3, 1, 2), "kill")
def sent_before_it_is_journaled(patch: pytest.MonkeyPatch) -> None:
    """An order leaves first and is journaled when the answer is there."""

    async def send(right: Any, self: Dispatch, approved: Any) -> None:
        plan = approved.plan
        if self._is_dropped(plan):
            return
        try:
            signed = await self._sign(approved)
            facts = await self._venues[plan.venue].send(signed)
        except IsthmusError as error:
            self._tell(plan.order_id, S.REJECTED, str(error))
            return
        self._recorder.record([dispatch._sent(approved, signed)])
        self._recorder.absorb(plan.venue, facts)

    instead(patch, Dispatch, "_send_first", send)


@bug("durable-first", (1, 2, 0, 3), "slow-disk")
def nobody_waits_for_the_disk(patch: pytest.MonkeyPatch) -> None:
    """An order leaves while its record is still on its way to the disk."""

    async def secured(right: Any, self: Recorder) -> None:
        return

    instead(patch, Recorder, "secured", secured)


@bug("durable-first", (5, 0, 1, 3), "spike")
def what_outbids_is_not_journaled(patch: pytest.MonkeyPatch) -> None:
    """Only the first transaction of an order is written down before it leaves."""

    def record(right: Any, self: Recorder, events: Any) -> None:
        right(self, [one for one in events if not (isinstance(one, OrderSent) and one.attempt)])

    instead(patch, Recorder, "record", record)


@bug("acked", (0, 29, 44, 63), "power-loss")
def accepted_before_it_is_safe(patch: pytest.MonkeyPatch) -> None:
    """The client is told yes as soon as the record is made, not when it is safe."""

    async def submit(right: Any, self: Engine, intent: Any) -> Any:
        answer = decide.accept(intent, self.state, self.world, self._rules, self._clock.now_ns())
        self._recorder.record([answer])
        return () if isinstance(answer, IntentAccepted) else answer.reasons

    instead(patch, Engine, "submit", submit)


@bug("halted", (12, 5, 1, 4), "kill-switch", "slow-disk", "slow-signer")
def nobody_looks_again_after_the_disk(patch: pytest.MonkeyPatch) -> None:
    """Whether an order is still wanted is asked once, before its key and the disk take their time."""

    asked: set[tuple[int, str]] = set()

    def once(right: Any, self: Dispatch, plan: Any) -> bool:
        if (id(self), plan.order_id) in asked:
            return False
        asked.add((id(self), plan.order_id))
        return bool(right(self, plan))

    instead(patch, Dispatch, "_is_dropped", once)


@bug("halted", (1, 2, 7, 3), "kill-switch")
def the_kill_switch_is_looked_at_when_the_agent_starts(patch: pytest.MonkeyPatch) -> None:
    """The switch keeps an agent from starting, and does nothing to one that runs."""

    class Blind:
        def engaged(self) -> str:
            return ""

    def made(right: Any, self: Engine, *some: Any, **more: Any) -> None:
        right(self, *some, **(more | {"latch": Blind()}))

    instead(patch, Engine, "__init__", made)


@bug("halted", (12, 6, 8, 3), "cancel-only")
def cancel_only_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """A venue that takes cancels alone is routed and sent to as ever."""

    def without_status(right: Any, state: Any, *rest: Any) -> Any:
        status, state.status = state.status, {}
        try:
            return right(state, *rest)
        finally:
            state.status = status

    def unwanted(right: Any, self: Dispatch, plan: Any) -> str:
        reason = right(self, plan)
        return "" if "cancels only" in reason else str(reason)

    instead(patch, decide, "capacity", without_status)
    instead(patch, Dispatch, "_unwanted", unwanted)


@bug("unwanted", (1, 6, 3, 4), "slow-signer", "slow-disk")
def the_deadline_is_not_looked_at_again(patch: pytest.MonkeyPatch) -> None:
    """An order whose deadline passes while its key takes its time leaves all the same."""

    def unwanted(right: Any, self: Dispatch, plan: Any) -> str:
        reason = right(self, plan)
        return "" if reason == "the deadline passed" else str(reason)

    instead(patch, Dispatch, "_unwanted", unwanted)


@bug("unwanted", (21, 43, 44, 50), "slow-signer", "slow-disk")
def a_cancelled_parent_sends_what_was_approved(patch: pytest.MonkeyPatch) -> None:
    """The client cancels, and what was approved a moment before leaves all the same."""

    def unwanted(right: Any, self: Dispatch, plan: Any) -> str:
        reason = right(self, plan)
        return "" if reason == "the client cancelled" else str(reason)

    instead(patch, Dispatch, "_unwanted", unwanted)


@bug("live", (109, 91, 77, 23), "request-lost", "too-many")
def a_cancel_that_failed_is_not_tried_again(patch: pytest.MonkeyPatch) -> None:
    """One cancel for each order: when it is refused or lost, the order rests for ever."""

    def take_back(right: Any, order: Any, plan: Any, state: Any, *rest: Any) -> Any:
        return () if state.cancels.get(order.order_id) else right(order, plan, state, *rest)

    instead(patch, tend, "_take_back", take_back)


@bug("live", (7, 77, 90, 32), "twice")
def the_deadline_of_what_rests_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """An order that rests is taken back when the client cancels, and never because its time is over."""

    def unwanted(right: Any, *some: Any) -> str:
        reason = right(*some)
        return "" if reason == "the deadline passed" else str(reason)

    instead(patch, tend, "unwanted", unwanted)


@bug("limit", (2, 1, 3, 0))
def the_limit_of_the_parent_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Children may trade as much worse than their quote as the slippage allows, whatever the parent's limit is."""

    def made(right: Any, intent: Any, parts: Any, new_id: Any, terms: Any, tolerance: Any, *more: Any, **others: Any) -> Any:
        limit = tolerance.limit
        wide = Price(limit.num * (95 if intent.side == "sell" else 105), limit.den * 100)
        loose = msgspec.structs.replace(tolerance, slippage_bps=80, limit=wide)
        return right(intent, parts, new_id, terms, loose, *more, **others)

    instead(patch, propose, "children", made)


@bug("beyond-balance", (13, 22, 23, 20), "runaway")
def what_is_promised_is_free(patch: pytest.MonkeyPatch) -> None:
    """Coins that orders under way may still take are given to the next order too."""
    instead(patch, State, "promised", lambda right, self, account, venue, asset: 0)


@bug("nonsense", (2, 0, 1, 3), "nonsense")
def whatever_is_wished_is_accepted(patch: pytest.MonkeyPatch) -> None:
    """The checks on a parent are left out."""
    instead(patch, decide, "refuse_intent", lambda right, *some: ())


@bug("nonsense", (1, 2, 0, 3), "asked-twice")
def the_same_wish_twice_is_two(patch: pytest.MonkeyPatch) -> None:
    """An intent that is known already is accepted anew, over the first."""

    def refused(right: Any, intent: Any, earlier: Any, *rest: Any) -> Any:
        list(earlier)
        return right(intent, iter(()), *rest)

    instead(patch, decide, "refuse_intent", refused)
