"""The pen: journal, apply, then act. Every change of what the agent knows of its own business goes through `Recorder.record`.

Facts from outside come in through `absorb`: market data changes the picture at once and is forgotten; news of our orders is
journaled as it is. What cannot be booked is never journaled, because a journal that cannot be replayed is worse than a fact that
is missing: it halts trading instead, and a person looks.
"""

import asyncio
import gc
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
        self._receipts: dict[tuple[str, str], dict[str, OrderFilled | GasPaid]] = {}  # of blocks whose report has not come yet
        self._is_closed = False

    def replay(self) -> None:
        """What the journal remembers. Raises JournalError when it cannot be trusted.

        Nothing of it is garbage, so the collector is not let loose on it: a quarter of the time for 100,000 records.
        """
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            for record in self._journal.read():
                self.state.apply(record)
        finally:
            if is_collecting:
                gc.enable()

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
            self._publish(record)
        self.woken.set()
        for record in records:
            if isinstance(record.event, OrderApproved | AttemptApproved):
                self._act(record.event.approved)
        _log_soon(records)

    @property
    def warning(self) -> str:
        """Why nothing new should be begun: the journal may soon not take it; empty if it will."""
        return self._journal.warning

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

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest record."""
        return self._journal.head

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
        if self._is_closed:
            return  # it is asked for again by the next run
        if (tx_hash := self._awaits_report(fact)) and isinstance(fact, OrderFilled | GasPaid):
            key = fact.fill.key if isinstance(fact, OrderFilled) else tx_hash
            self._receipts.setdefault((venue, tx_hash), {})[key] = fact
            return
        before: Iterable[PrivateFact] = ()
        if isinstance(fact, OrderReorged):
            self._receipts.pop((venue, fact.tx_hash), None)
        elif isinstance(fact, OrderReported) and fact.block:
            before = self._receipts.pop((venue, fact.tx_hash), {}).values()
        told = [one for one in (*before, fact) if self._is_bookable(venue, one)]
        self.record([*(event for one in told for event in (*self._outdone(one), one)), *self._too_much(told)])
        for one in told:
            self._look_at(venue, one)

    def _too_much(self, told: Sequence[PrivateFact]) -> list[Event]:
        """The halts that belong to these fills, in the same append: a crash in between would leave the excess without one."""
        fills = [one.fill for one in told if isinstance(one, OrderFilled) and not self._outdone(one)]
        halts: dict[str, Event] = {}
        for fill in fills if not self.allow_overfills else ():
            more = excess(self.state, fill.order_id, [one for one in fills if one.order_id == fill.order_id])
            if more and fill.instrument not in self.state.halted:
                halts[fill.instrument] = Halted(fill.instrument, f"{more}; see `isthmus reconcile`")
        return list(halts.values())

    def _awaits_report(self, fact: PrivateFact) -> str:
        """The hash of a transaction whose trades and gas are known and whose block is not yet: all of a receipt is one append.

        Half a receipt has no block, so nobody could tell after a crash that this block is gone.
        """
        if not isinstance(fact, OrderFilled | GasPaid):
            return ""
        name, tx_hash = (fact.fill.order_id, fact.fill.tx_hash) if isinstance(fact, OrderFilled) else (fact.order_id, fact.tx_hash)
        order = self.state.orders.get(name)
        return "" if order is None or (order.block and order.tx_hash == tx_hash) else tx_hash

    def _is_bookable(self, venue: str, fact: PrivateFact) -> bool:
        """Whether a fact is news and can be true; what cannot be halts the venue."""
        if not is_news(self.state, fact):
            if isinstance(fact, OrderFilled | GasPaid) and is_strange(self.state, fact):
                self.halt(venue, f"{venue} reports a trade of an order that the journal does not know; see `isthmus reconcile`")
            return False
        if trouble := contradiction(self.state, fact):
            self.halt(venue, f"{trouble}; it was not booked, see `isthmus reconcile`")
            return False
        return True

    def _look_at(self, venue: str, fact: PrivateFact) -> None:
        """What follows from a fact that was booked."""
        match fact:
            case OrderFilled(fill=fill):
                if not self.allow_overfills and (too_much := excess(self.state, fill.order_id)):
                    self.halt(fill.instrument, f"{too_much}; see `isthmus reconcile`")
            case OrderReorged() | OrderReported(state=OrderState.MINED | OrderState.REVERTED):
                self.forget_allowances(venue)
            case VenueConnected():
                self.forget_allowances(venue)
                self._receipts = {key: receipt for key, receipt in self._receipts.items() if key[0] != venue}
            case _:
                pass

    def _outdone(self, fact: PrivateFact) -> list[Event]:
        """Trades that were inferred give way to the venue's own account of them."""
        order = self.state.orders.get(fact.fill.order_id) if isinstance(fact, OrderFilled) else None
        guesses = [one for one in order.fills if one.is_inferred] if order is not None else []
        if isinstance(fact, OrderFilled) and fact.fill.is_inferred:
            return []
        return [FillReversed(one.order_id, one.key, "the venue tells the trade itself") for one in guesses]


def _log_soon(records: Sequence[Record]) -> None:
    """Behind the sends that were begun just now."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # nobody sends without one
        _log(records)
    else:
        loop.call_soon(_log, records)


def _log(records: Sequence[Record]) -> None:
    for record in records:
        recorded(record)


def _end(queue: "asyncio.Queue[Record | None]") -> None:
    """The end is always delivered, if need be in place of the newest record of a reader that is cut off anyway."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(None)
