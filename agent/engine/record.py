"""The pen: journal, apply, then act. Every change of what the agent knows of its own business goes through `Recorder.record`.

Facts from outside come in through `absorb`: market data changes the picture at once and is forgotten; news of our orders is
journaled as it is. What cannot be booked is never journaled, because a journal that cannot be replayed is worse than a fact that
is missing: it halts trading instead, and a person looks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from agent import observe
from agent.domain.errors import IsthmusError, JournalError
from agent.domain.events import (
    AttemptApproved,
    Event,
    FillReversed,
    GasPaid,
    Halted,
    OrderApproved,
    OrderFilled,
    OrderReorged,
    OrderReported,
    Record,
    VenueConnected,
)
from agent.domain.order import OrderState
from agent.domain.plan import Approved
from agent.engine.judge import contradiction, excess, is_news, is_strange
from agent.engine.state import State
from agent.engine.world import World
from agent.observe.records import recorded
from agent.ports import Allowance, Clock, Journal, PrivateFact, Simulated, VenueEvent
from agent.settlement.repair import INFERRED

SUBSCRIBER_MAX = 4_096


class Recorder:
    """Owns the pen and the state that it writes. Everything runs in one thread, so there is one writer and no lock.

    `stopping` is set once, by whoever ends the run; `failure` says why if it was no clean end; `woken` is set whenever there is
    something new to decide about.
    """

    def __init__(self, journal: Journal, clock: Clock, state: State, world: World, act: Callable[[Approved], None]) -> None:
        self.state, self.world, self.clock = state, world, clock
        self.stopping, self.woken = asyncio.Event(), asyncio.Event()
        self.failure = ""
        self.allow_overfills = False
        self.error: BaseException | None = None
        self._journal, self._act = journal, act
        self._subscribers: set[asyncio.Queue[Record | None]] = set()
        self._is_closed = False

    def replay(self) -> None:
        """What the journal remembers. Raises JournalError when it cannot be trusted."""
        for record in self._journal.read():
            self.state.apply(record)

    def record(self, events: Sequence[Event]) -> None:
        """Journal, apply, tell subscribers, then act on what was approved. Raises JournalError; nothing is recorded after that."""
        if not events:
            return
        if isinstance(self.error, JournalError) or self._is_closed:
            raise JournalError(self.failure or "the agent has stopped; nothing more is recorded")
        try:
            records = self._journal.append(self.clock.now_ns(), events)
        except JournalError as error:
            self.fail(error)
            raise
        for record in records:
            self.state.apply(record)
            recorded(record)
            self._publish(record)
        self.woken.set()
        for record in records:
            if isinstance(record.event, OrderApproved | AttemptApproved):
                self._act(record.event.approved)

    async def secured(self) -> None:
        """Wait until all that was recorded so far is as durable as the journal promises. Raises JournalError if it never is."""
        try:
            await self._journal.secured(self.state.seq)
        except JournalError as error:
            self.fail(error)
            raise

    def absorb(self, venue: str, facts: Iterable[VenueEvent]) -> None:
        """Take in what a venue says, in its order, without waiting."""
        for fact in facts:
            if isinstance(fact, Allowance):
                self.world.allowances[fact.venue, fact.token] = fact
            elif isinstance(fact, Simulated):
                self.world.simulated[fact.order_id] = fact
            elif isinstance(fact, PrivateFact):
                self._take(venue, fact)
            else:
                self.world.market.apply(fact)
        self.woken.set()

    def halt(self, scope: str, reason: str) -> None:
        """No new risk until a person has looked. The first reason of a scope counts."""
        if scope not in self.state.halted:
            self.record([Halted(scope, reason)])

    def forget_allowances(self, venue: str) -> None:
        """They are read again before the next transaction is planned."""
        for key in [key for key in self.world.allowances if key[0] == venue]:
            del self.world.allowances[key]

    def fail(self, error: BaseException) -> None:
        """The run ends because of `error`; the first one counts."""
        if self.error is None:
            self.error = error
            self.failure = str(error) if isinstance(error, IsthmusError) else f"{type(error).__name__}: {error}"
            observe.engine_failed(self.failure)
        self.stopping.set()
        self.woken.set()

    def guard(self, task: "asyncio.Task[Any]") -> None:
        """A task that nobody waits for still ends the run when it fails."""
        task.add_done_callback(self._ended)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Nothing is recorded any more; subscribers get what is left and then the end."""
        self._is_closed = True
        for subscriber in list(self._subscribers):
            _end(subscriber)
        self._subscribers.clear()

    def events(self) -> AsyncIterator[Record]:
        """Every record from this call on. Whoever is `SUBSCRIBER_MAX` records behind is cut off."""
        queue: asyncio.Queue[Record | None] = asyncio.Queue(SUBSCRIBER_MAX)
        if self._is_closed:
            queue.put_nowait(None)
        else:
            self._subscribers.add(queue)
        return self._read(queue)

    async def _read(self, queue: "asyncio.Queue[Record | None]") -> AsyncIterator[Record]:
        try:
            while (record := await queue.get()) is not None:
                yield record
        finally:
            self._subscribers.discard(queue)

    def _publish(self, record: Record) -> None:
        for subscriber in list(self._subscribers):
            if subscriber.full():
                self._subscribers.discard(subscriber)
                _end(subscriber)
                observe.client_cut_off("subscriber", f"{SUBSCRIBER_MAX} records behind")
            else:
                subscriber.put_nowait(record)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    # -- facts in --------------------------------------------------------------------------------------------------------

    def _take(self, venue: str, fact: PrivateFact) -> None:
        state = self.state
        if self._is_closed:
            return  # it is asked for again by the next run
        if not is_news(state, fact):
            if isinstance(fact, OrderFilled | GasPaid) and is_strange(state, fact):
                self.halt(venue, f"{venue} reports a trade of an order that the journal does not know; see `isthmus reconcile`")
            return
        trouble = contradiction(state, fact)
        if trouble:
            self.halt(venue, f"{trouble}; it was not booked, see `isthmus reconcile`")
            return
        self.record([*self._outdone(fact), fact])
        match fact:
            case OrderFilled(fill=fill):
                if not self.allow_overfills and (too_much := excess(state, fill.order_id)):
                    self.halt(fill.instrument, f"{too_much}; see `isthmus reconcile`")
            case OrderReorged() | OrderReported(state=OrderState.MINED | OrderState.REVERTED) | VenueConnected():
                self.forget_allowances(venue)
            case _:
                pass

    def _outdone(self, fact: PrivateFact) -> list[Event]:
        """Trades that were inferred give way to the venue's own account of them."""
        order = self.state.orders.get(fact.fill.order_id) if isinstance(fact, OrderFilled) else None
        guesses = [one for one in order.fills if one.trade_id.startswith(INFERRED)] if order is not None else []
        if isinstance(fact, OrderFilled) and fact.fill.trade_id.startswith(INFERRED):
            return []
        return [FillReversed(one.order_id, one.key, "the venue tells the trade itself") for one in guesses]


def _end(queue: "asyncio.Queue[Record | None]") -> None:
    """The end is always delivered, if need be in place of the newest record of a reader that is cut off anyway."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(None)
