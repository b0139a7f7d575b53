"""The engine: inbox, journal, apply, decide, dispatch; one thread, one writer.

Facts from every venue arrive on one bounded inbox. Whatever is news is journaled, then applied, and only then may it lead to an action.
Sends run beside the loop, bounded per venue, and hand their outcome back as facts. A venue that fails is reconnected with growing
pauses; it never takes the engine down. An outcome that nobody knows is asked for by its own id until the venue or the chain tells.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec

from agent import observe
from agent.domain.amount import Amount
from agent.domain.errors import IsthmusError, JournalError, OutcomeUnknown, SignerError, VenueError
from agent.domain.events import (
    BalanceAdopted,
    Break,
    EngineStarted,
    EngineStopped,
    Event,
    Halted,
    IntentAccepted,
    IntentCancelled,
    OrderApproved,
    OrderReported,
    OrderSent,
    Reconciled,
    Record,
    VenueConnected,
    VenueDisconnected,
)
from agent.domain.intent import Intent
from agent.domain.order import Order, OrderState
from agent.domain.plan import Approved, ChainPlan, Reason, SignedTransaction
from agent.engine.decide import Rules, World, accept, decide
from agent.engine.state import LIVE, State, reference_of
from agent.market.view import Market
from agent.ports import Allowance, Clock, IntentView, Journal, PrivateFact, Signer, Snapshot, Venue, VenueEvent
from agent.settlement.reconcile import checked as count
from agent.settlement.reconcile import compare

INBOX_MAX = 10_000
TICK_S = 0.1
QUERY_S = 0.5
SNAPSHOT_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 15.0
DOUBT_NS = 3_000_000_000  # an order that is not settled after this is asked about
REBROADCAST_NS = 2_000_000_000
BACKOFF_MAX_S = 30.0
SUBSCRIBER_MAX = 4_096
DRAIN_S = 10.0
SETTLE_TRIES = 40

PRIVATE = PrivateFact


class Engine:
    """Satisfies the `Desk` port. `run` lives until `stop`; everything else may be called while it runs, from the same thread."""

    def __init__(
        self,
        journal: Journal,
        venues: Mapping[str, Venue],
        signers: Mapping[str, Signer],
        clock: Clock,
        rules: Rules,
        market: Market,
        account: str,
        *,
        live: frozenset[str] = frozenset(),
        run_id: str = "run",
        version: str = "",
        config_hash: str = "",
    ) -> None:
        self.state = State()
        self.world = World(market, {n: v.profile for n, v in venues.items()}, live, {}, {}, set())
        self._journal, self._venues, self._signers, self._clock = journal, dict(venues), dict(signers), clock
        self._rules, self._account = rules, account
        self._started = EngineStarted(run_id, version, config_hash)
        self._inbox: asyncio.Queue[tuple[str, VenueEvent]] = asyncio.Queue(INBOX_MAX)
        self._stopping, self._started_up, self._poke = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._sends: set[asyncio.Task[None]] = set()
        self._gates = {n: asyncio.Semaphore(v.profile.sends_in_flight_max) for n, v in self._venues.items()}
        self._subscribers: set[asyncio.Queue[Record | None]] = set()
        self._asked_ns: dict[str, int] = {}
        self._troubles: dict[str, str] = {}
        self.failure = ""

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Replay, connect, reconcile, then work until `stop`. Raises JournalError when the journal cannot be trusted or written."""
        for record in self._journal.read():
            self.state.apply(record)
        self._record([self._started])
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._supervise(name, venue)) for name, venue in self._venues.items()]
                helpers.append(tasks.create_task(self._settle_doubts()))
                await self._work()
                for helper in helpers:
                    helper.cancel()
        finally:
            self._stopping.set()
            self._started_up.set()
            for subscriber in self._subscribers:
                _offer(subscriber, None)

    async def stop(self, reason: str = "asked to stop") -> None:
        """No new orders; sends under way are waited for, within bounds."""
        observe.engine_stopping(reason)
        self._stopping.set()
        self._poke.set()

    async def ready(self) -> None:
        """Returns when every venue is connected and reconciled, or the engine stopped."""
        await self._started_up.wait()

    async def stopped(self) -> None:
        """Returns when the engine is asked to stop."""
        await self._stopping.wait()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def waiting_for(self) -> str:
        """Which venues are not ready, and what the last word about them was."""
        return "; ".join(f"{n}: {self._troubles.get(n, 'no answer yet')}" for n in self._venues if n not in self.world.ready)

    async def _work(self) -> None:
        while not self._stopping.is_set():
            await self._gather()
            if not self._stopping.is_set():
                self._record(decide(self.state, self.world, self._rules, self._clock.now_ns()))
        if self._sends:
            await asyncio.wait(self._sends, timeout=DRAIN_S)
        self._record([EngineStopped("stopped")])
        self._started_up.set()

    async def _gather(self) -> None:
        """Wait for facts or the next tick, then take in everything that is there."""
        try:
            async with asyncio.timeout(TICK_S):
                venue, event = await self._inbox.get()
                self._absorb(venue, [event])
        except TimeoutError:
            return
        batch = []
        while not self._inbox.empty():
            batch.append(self._inbox.get_nowait())
        for venue, event in batch:
            self._absorb(venue, [event])

    # -- facts in --------------------------------------------------------------------------------------------------------

    def _absorb(self, venue: str, facts: Iterable[VenueEvent]) -> None:
        for fact in facts:
            if isinstance(fact, Allowance):
                self.world.allowances[fact.venue, fact.token] = fact
            elif isinstance(fact, PRIVATE):
                if self.state.is_news(fact):
                    self._record([fact])
                    self._forget_allowances(venue, fact)
            else:
                self.world.market.apply(fact)

    def _forget_allowances(self, venue: str, fact: PrivateFact) -> None:
        """What a transaction changed is read again before the next one is planned."""
        if isinstance(fact, OrderReported) and fact.state in (OrderState.MINED, OrderState.REVERTED):
            for key in [k for k in self.world.allowances if k[0] == venue]:
                del self.world.allowances[key]

    def _record(self, events: Sequence[Event]) -> None:
        """Journal, apply, then act. The one place where state changes."""
        if not events:
            return
        try:
            records = self._journal.append(self._clock.now_ns(), events)
        except JournalError as error:
            self.failure = str(error)
            self._stopping.set()
            raise
        for record in records:
            self.state.apply(record)
            observe.recorded(record)
            for subscriber in list(self._subscribers):
                if not _offer(subscriber, record):
                    self._subscribers.discard(subscriber)
        for record in records:
            if isinstance(record.event, OrderApproved):
                self._dispatch(record.event.approved)

    # -- orders out --------------------------------------------------------------------------------------------------------

    def _dispatch(self, approved: Approved) -> None:
        task = asyncio.create_task(self._send(approved))
        self._sends.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = f"{type(error).__name__}: {error}"
            observe.engine_failed(self.failure)
            self._stopping.set()

    async def _send(self, approved: Approved) -> None:
        """Build, sign, journal, send: in this order. Whatever is not certain afterwards is UNKNOWN."""
        plan = approved.plan
        venue, order_id = self._venues[plan.venue], plan.order_id
        async with self._gates[plan.venue]:
            try:
                signed = await self._signers[plan.venue].sign(venue.build(approved))
            except (SignerError, VenueError) as error:
                self._record([OrderReported(order_id, OrderState.REJECTED, f"never sent: {error}")])
                return
            sent = OrderSent(order_id, signed.tx_hash, signed.raw) if isinstance(signed, SignedTransaction) else OrderSent(order_id)
            self._record([sent])
            certain = False
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    facts = await venue.send(signed)
                self._absorb(plan.venue, facts)
                certain = True
            except TimeoutError:
                self._record([OrderReported(order_id, OrderState.UNKNOWN, f"no answer within {SEND_TIMEOUT_S:.0f} s")])
                certain = True
            except OutcomeUnknown as error:
                self._record([OrderReported(order_id, OrderState.UNKNOWN, str(error))])
                certain = True
            except VenueError as error:
                self._record([OrderReported(order_id, OrderState.REJECTED, str(error))])
                certain = True
            finally:
                if not certain and not self.failure:
                    self._record([OrderReported(order_id, OrderState.UNKNOWN, "the send was interrupted")])
            self._poke.set()

    # -- venues ------------------------------------------------------------------------------------------------------------

    async def _supervise(self, name: str, venue: Venue) -> None:
        """Keep one venue's stream running. Every (re)connect is followed by a snapshot before new orders."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                async for event in venue.stream():
                    if isinstance(event, VenueConnected):
                        self._record([event])
                        await self._resync(name, venue)
                        attempt = 0
                        continue
                    await self._inbox.put((name, event))
            except IsthmusError as error:
                reason = str(error)
            except TimeoutError:
                reason = "timed out"
            else:
                reason = "the stream ended"
            self.world.ready.discard(name)
            self._troubles[name] = reason
            self._record([VenueDisconnected(name, reason)])
            attempt += 1
            await self._clock.sleep(_backoff_s(name, attempt))

    async def _resync(self, name: str, venue: Venue) -> None:
        """After a connect: learn what became of our orders, take over or compare balances, then allow new orders."""
        snapshot = await self._snapshot(name, venue)
        for _ in range(SETTLE_TRIES):
            if (self._account, name) not in self.state.adopted:
                self._adopt(snapshot)
            if not self._breaks([snapshot]) or any(o.plan.venue == name for o in self.state.working.values()):
                break
            await self._clock.sleep(QUERY_S)  # facts of a moment ago may still be on their way
            snapshot = await self._snapshot(name, venue)
        breaks = self._breaks([snapshot])
        doubtful = any(o.plan.venue == name for o in self.state.working.values())
        self._record([Reconciled(len(snapshot.balances), tuple(breaks))])
        if breaks and not doubtful:
            for one in breaks:
                observe.break_found(one)
            self._record([Halted(name, f"{name} differs from the journal: {breaks[0].cause}; see `isthmus reconcile`")])
        self.world.ready.add(name)
        if self.world.ready.issuperset(self._venues):
            self._started_up.set()

    def _adopt(self, snapshot: Snapshot) -> None:
        """The first sight of a venue: its balances are the opening position."""
        held = [BalanceAdopted(self._account, snapshot.venue, amount, "opening balance") for amount in snapshot.balances if amount]
        self._record(
            held or [BalanceAdopted(self._account, snapshot.venue, one, "opening balance") for one in snapshot.balances[:1]]
        )

    async def _snapshot(self, name: str, venue: Venue) -> Snapshot:
        open_orders = [*self.state.working.values(), *self.state.mined.values()]
        asked = [reference_of(o) for o in open_orders if o.plan.venue == name and o.sent_ns]
        async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
            snapshot = await venue.snapshot(asked)
        self._absorb(name, snapshot.facts)
        snapshot = msgspec.structs.replace(snapshot, account=self._account)
        if snapshot.nonce is not None:
            self.world.nonces[name] = snapshot.nonce
        return snapshot

    def _breaks(self, snapshots: Sequence[Snapshot]) -> list[Break]:
        return list(compare(self.state.ledger, snapshots, self.state.orders))

    # -- doubts ------------------------------------------------------------------------------------------------------------

    async def _settle_doubts(self) -> None:
        """Ask for every order whose outcome is open for too long, by its own id, with growing pauses, for ever."""
        while not self._stopping.is_set():
            await self._clock.sleep(QUERY_S)
            now_ns = self._clock.now_ns()
            for name, venue in self._venues.items():
                if any(self._is_due(order, name, now_ns) for order in self.state.working.values()):
                    try:
                        await self._snapshot(name, venue)
                        await self._rebroadcast(name, venue)
                    except (IsthmusError, TimeoutError) as error:
                        observe.query_failed(name, str(error) or "timed out")

    def _is_due(self, order: Order, name: str, now_ns: int) -> bool:
        if order.plan.venue != name or not order.sent_ns:
            return False
        first = order.sent_ns if order.state is OrderState.UNKNOWN else order.sent_ns + DOUBT_NS
        due_ns = max(first, self._asked_ns.get(order.order_id, 0))
        if now_ns < due_ns:
            return False
        order.queries += 1
        self._asked_ns[order.order_id] = now_ns + min(500_000_000 << min(order.queries, 5), 10_000_000_000)
        return True

    async def _rebroadcast(self, name: str, venue: Venue) -> None:
        """A transaction that no node knows is sent again as the same bytes: it can only happen once."""
        now_ns = self._clock.now_ns()
        for order in [o for o in self.state.in_doubt() if o.plan.venue == name and o.raw]:
            plan = order.plan
            if isinstance(plan, ChainPlan) and order.nonce is not None and now_ns - order.sent_ns > REBROADCAST_NS:
                wallet = venue.profile.wallet
                signed = SignedTransaction(order.order_id, plan.chain_id, wallet, order.nonce, order.tx_hash, order.raw)
                self._absorb(name, await venue.send(signed))

    # -- the desk ----------------------------------------------------------------------------------------------------------

    async def submit(self, intent: Intent) -> tuple[Reason, ...]:
        answer = accept(intent, self.state, self.world, self._rules, self._clock.now_ns())
        self._record([answer])
        return () if isinstance(answer, IntentAccepted) else answer.reasons

    async def cancel(self, intent_id: str) -> bool:
        parent = self.state.parents.get(intent_id)
        if parent is None or not parent.is_live:
            return False
        self._record([IntentCancelled(intent_id)])
        return True

    def intents(self) -> Sequence[IntentView]:
        return [IntentView(p.intent, p.status, p.filled, p.reason, tuple(p.orders)) for p in self.state.parents.values()]

    def order(self, order_id: str) -> Order | None:
        return self.state.orders.get(order_id)

    def balances(self) -> Sequence[tuple[str, str, Amount]]:
        return self.state.ledger.balances()

    async def reconcile(self) -> Sequence[Break]:
        """Hold the journal against every venue and chain now. Waits a little for facts that are still under way."""
        breaks: list[Break] = []
        checked = 0
        for _ in range(SETTLE_TRIES):
            snapshots = [await self._snapshot(name, venue) for name, venue in self._venues.items()]
            breaks, checked = self._breaks(snapshots), count(self.state.ledger, snapshots)
            if not breaks and not self.state.working:
                break
            await self._clock.sleep(QUERY_S)
        self._record([Reconciled(checked, tuple(breaks))])
        for one in breaks:
            observe.break_found(one)
        return breaks

    async def watch(self) -> None:
        """The continuous check: reconcile while nothing is being worked; a difference that stays halts new orders."""
        if self.state.working or self._stopping.is_set() or not self.world.ready.issuperset(self._venues):
            return
        try:
            breaks = await self.reconcile()
        except (IsthmusError, TimeoutError) as error:
            observe.query_failed("reconcile", str(error) or "timed out")
            return
        if breaks and not self.state.halted and not self._stopping.is_set():
            self._record([Halted(breaks[0].venue, f"{breaks[0].venue} differs from the journal: {breaks[0].cause}")])

    async def priced(self, market: str, timeout_s: float = 20.0) -> None:
        """Wait until there is a trusted price and every instrument of the market is known. Returns anyway when time is up."""
        for _ in range(int(timeout_s / TICK_S)):
            view = self.world.market.view(market, self._clock.now_ns())
            listed = [one for one in self.world.market.instruments() if one.market == market]
            if view.mid is not None and len(view.sources) == len(listed) or self.is_stopping:
                return
            await self._clock.sleep(TICK_S)

    async def events(self) -> AsyncIterator[Record]:
        queue: asyncio.Queue[Record | None] = asyncio.Queue(SUBSCRIBER_MAX)
        self._subscribers.add(queue)
        try:
            while (record := await queue.get()) is not None:
                yield record
        finally:
            self._subscribers.discard(queue)

    async def finished(self, intent_id: str) -> str:
        """Wait until a parent has ended, or the engine has stopped; its status."""
        while not self._stopping.is_set():
            parent = self.state.parents.get(intent_id)
            if parent is not None and parent.status != LIVE:
                return parent.status
            await self._clock.sleep(TICK_S / 2)
        return self.state.parents[intent_id].status if intent_id in self.state.parents else ""


def _offer(queue: "asyncio.Queue[Record | None]", record: Record | None) -> bool:
    try:
        queue.put_nowait(record)
    except asyncio.QueueFull:
        return False
    return True


def _backoff_s(name: str, attempt: int) -> float:
    """Doubling, capped, and spread by name and attempt, so that venues do not reconnect in step."""
    spread = zlib.crc32(f"{name}{attempt}".encode()) % 1000 / 1000
    pause: float = min(0.25 * 2 ** min(attempt, 8), BACKOFF_MAX_S)
    return pause * (0.5 + spread / 2)
