"""The engine: take facts in, decide, act; one thread, one writer. This is the desk that people and programs talk to.

Whatever is news is journaled, then applied, and only then may it lead to an action (`record`). Venues are watched side by side
(`supervise`), orders leave side by side (`dispatch`), and between two batches of facts `decide` says what to do now. The end is
always recorded: a clean stop waits for the sends under way, a failure keeps its words in `failure`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from agent import observe
from agent.domain.amount import Amount
from agent.domain.errors import JournalError, StartRefusedError
from agent.domain.events import (
    Break,
    EngineStarted,
    EngineStopped,
    Event,
    IntentAccepted,
    IntentAmended,
    IntentCancelled,
    IntentContinued,
    IntentEnded,
    IntentPaused,
    Record,
    Resumed,
    Turn,
)
from agent.domain.intent import Intent
from agent.domain.order import Order
from agent.domain.plan import Approved, Reason
from agent.engine import mend
from agent.engine.amend import refuse_amended
from agent.engine.anchor import write_head
from agent.engine.at_once import whole, whole_quoted
from agent.engine.decide import decide, prepare
from agent.engine.dispatch import Dispatch
from agent.engine.inquire import Inquiry
from agent.engine.parent import LIVE, Parent
from agent.engine.record import Recorder
from agent.engine.sampling import departed, sample
from agent.engine.state import State
from agent.engine.submit import accept_all, reasons_of
from agent.engine.supervise import Supervisor
from agent.engine.tend import marks, tend
from agent.engine.world import Rules, World
from agent.market.view import Market
from agent.ports import Anchoring, Clock, Forecaster, IntentView, Journal, Latch, Repair, Signer, Venue
from agent.routing import kernel
from agent.routing.search import Search

TICK_S = 0.1
PEN_S = 1.0
KILL, DISK = "kill", "disk"  # scopes of halts that the kill switch and a full disk make, and that end with their cause
GRACE_NS = 60_000_000_000  # how long past its deadline an order in doubt is waited for


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
        latch: Latch | None = None,
        is_strict: bool = False,
        is_idle: bool = False,
        new_search: Callable[[], Search] = lambda: kernel.search,
        forecaster: Forecaster | None = None,
    ) -> None:
        """`latch`: the kill switch. `is_strict`: refuse to start while the state cannot be explained. `is_idle`: only look.

        `new_search`: what finds the splits of a market, plain or compiled. `forecaster`: an opinion for whoever may
        rest; without one it is neutral.
        """
        self.state = State(rules.scoring)
        self.world = World(market, {n: v.profile for n, v in venues.items()}, live, {}, {}, set(), new_search=new_search)
        self.world.forecaster = forecaster
        self._venues, self._clock, self._rules, self._account = dict(venues), clock, rules, account
        self._started = EngineStarted(run_id, version, config_hash)
        self._recorder = Recorder(journal, clock, self.state, self.world, self._act)
        self._recorder.allow_overfills = rules.knobs.allow_overfills
        self._latch = latch or _Open()
        drain_s = rules.knobs.timeout_disconnection_secs
        self._dispatch = Dispatch(self._recorder, self._venues, signers, self._latch, drain_s)
        self._inquiry = Inquiry(self._recorder, self._venues, clock, account, rules.knobs)
        self._supervisor = Supervisor(self._recorder, self._venues, clock, self._inquiry, rules.knobs, is_strict=is_strict)
        self._is_strict, self._is_idle = is_strict, is_idle
        self._why_stopped = ""
        self._decisions = 0

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Replay, connect, reconcile, then work until `stop`. Raises what ended it, if it was not `stop`."""
        try:
            self._recorder.replay()
            self._recorder.record([self._started])
            self._refuse_halted()
            await self._work()
        except BaseException as error:
            self._recorder.fail(error)
            raise
        finally:
            self._recorder.stopping.set()
            self._recorder.close()
            self._supervisor.up.set()

    def _refuse_halted(self) -> None:
        """What was halted in an earlier run still waits for a person."""
        why = next((reason for scope, reason in self.state.halted.items() if scope not in (KILL, DISK)), "")
        if why and self._is_strict:
            raise StartRefusedError(f"not started: {why}; `isthmus reconcile --adopt REASON` lifts the halt when it is explained")

    async def stop(self, reason: str = "asked to stop") -> None:
        """No new orders; sends under way are waited for, within bounds. The first reason counts."""
        if not self._why_stopped:
            self._why_stopped = reason
            observe.engine_stopping(reason)
        self._recorder.stopping.set()
        self._recorder.woken.set()

    async def ready(self) -> None:
        """Returns when every venue is connected and reconciled, or the engine stopped. `waiting_for` says what is missing."""
        await self._supervisor.up.wait()

    async def stopped(self) -> None:
        """Returns when the engine is asked to stop."""
        await self._recorder.stopping.wait()

    @property
    def failure(self) -> str:
        """Why the run ended, if it was not asked to; one line."""
        return self._recorder.failure

    @property
    def is_stopping(self) -> bool:
        return self._recorder.stopping.is_set()

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def waiting_for(self) -> str:
        """Which venues are not ready, and what the last word about them was."""
        return self._supervisor.waiting_for()

    async def _work(self) -> None:
        for_each = self._supervisor.run, self._supervisor.mind, self._supervisor.keep_armed
        watchers = [asyncio.create_task(watch(name)) for name in self._venues for watch in for_each]
        watchers += [asyncio.create_task(one()) for one in (self._supervisor.watch, self._hold_pen, self._beat)]
        for watcher in watchers:
            self._recorder.guard(watcher)
        try:
            while not self.is_stopping:
                await self._news()
                self._reflect(KILL, self._latch.engaged(), "the kill switch was lifted")
                self._decide()
        finally:  # streams stay open while sends are under way: their outcomes arrive there
            self._recorder.stopping.set()
            await self._dispatch.drain()
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
        if not isinstance(self._recorder.error, JournalError):
            self._recorder.record([EngineStopped(self.failure or self._why_stopped or "stopped")])
        if self._recorder.error is not None:
            raise self._recorder.error

    async def _hold_pen(self) -> None:
        """Nothing new is begun while the journal may soon not be written, until it may again.

        An agent that may not write at all any more (another one took the desk over) stops, also while it has nothing to write.
        """
        while True:
            self._reflect(DISK, self._recorder.warning, "there is room again")
            await self._clock.sleep(PEN_S)
            await self._recorder.secured()

    def _reflect(self, scope: str, reason: str, lifted: str) -> None:
        """What has a cause outside is a halt that everybody can see as long as the cause lasts."""
        if self.is_stopping:
            return
        if reason:
            self._recorder.halt(scope, reason)
        elif scope in self.state.halted:
            self._recorder.record([Resumed(scope, lifted)])

    def _decide(self) -> None:
        now_ns = self.world.beat_ns = self._clock.now_ns()
        if self.is_stopping or self._is_idle:
            return
        self._recorder.record(self._dispatch.prepared(tend(self.state, self.world, self._rules, now_ns)))
        events = [self._departed(event, now_ns) for event in decide(self.state, self.world, self._rules, now_ns)]
        self._recorder.record(self._dispatch.prepared(events))
        self._decisions += len(events)
        if not events:  # orders first: a mark may come a little later
            self._recorder.record(marks(self.state, self.world, now_ns))
            self._quote_whole()
            prepare(self.state, self._rules, now_ns)
            sample(self.world, now_ns)

    def _departed(self, event: Event, now_ns: int) -> Event:
        """The end of a parent, with where its market stands then; what it traded is put into words first."""
        if not isinstance(event, IntentEnded):
            return event
        self._explain(event.intent_id)
        self._quote_whole(event.intent_id)
        return departed(event, self.state, self.world, now_ns)

    def _quote_whole(self, intent_id: str = "") -> None:
        """What parents that are worked over time would have given in one go: one after the other, and before its end."""
        asked = next((one for one in self.world.unquoted if intent_id in ("", one.intent_id)), None)
        if asked is not None:
            self.world.unquoted.remove(asked)
            self._recorder.record([whole_quoted(asked, self.world.memo(asked.view.market, asked.side))])

    def _explain(self, intent_id: str = "") -> None:
        """What was routed is put into words when nothing else happens, one route at a time, and before its parent ends."""
        waiting = self.world.unexplained
        chosen = [one for one in waiting if one.intent_id == intent_id] if intent_id else list(waiting)[:1]
        for question in chosen:
            waiting.remove(question)
        if not self.is_stopping:
            self._recorder.record([question.explained() for question in chosen])

    async def _news(self) -> None:
        """Wait for facts, or for the next tick: time passing is a fact too."""
        woken = self._recorder.woken
        if woken.is_set():
            await asyncio.sleep(0)  # a loop that always has news still gives everybody a turn
        else:
            await woken.wait()
        woken.clear()

    async def _beat(self) -> None:
        """Time passes, also where nothing happens. What is left for idle moments is done when nothing was decided for a while."""
        while True:
            decisions = self._decisions
            await asyncio.sleep(TICK_S)
            if decisions == self._decisions:
                self._explain()
            self._recorder.woken.set()

    def _act(self, approved: Approved) -> None:
        self._dispatch.start(approved)

    # -- the desk ----------------------------------------------------------------------------------------------------------

    async def submit(self, intent: Intent) -> tuple[Reason, ...]:
        """Empty when accepted, else why not."""
        return await self.submit_all((intent,))

    async def submit_all(self, intents: Sequence[Intent]) -> tuple[Reason, ...]:
        """Orders that belong together: accepted or refused together, in one append."""
        if self.is_stopping:
            return (Reason("AGENT_STOPPING", self.failure or "the agent is stopping; start it again"),)
        now_ns = self._clock.now_ns()
        answers = accept_all(intents, self.state, self.world, self._rules, now_ns)
        self._recorder.record(answers)
        for answer in answers:
            if isinstance(answer, IntentAccepted):
                self.world.market.sample(answer.intent.market, now_ns)  # an analysis begins here
                parent = self.state.parents[answer.intent.intent_id]
                self.world.unquoted.extend(whole(parent, self.state, self.world, self._rules, now_ns))
        await self._recorder.secured()
        return reasons_of(answers)

    async def cancel(self, intent_id: str) -> bool:
        """The rest is not traded any more; what is under way settles. False if there is no such live parent."""
        return await self._turn(intent_id, lambda parent: None if parent.cancelled else IntentCancelled(intent_id))

    async def pause(self, intent_id: str) -> bool:
        """Nothing new is sent and what rests is taken back, until `proceed`; its deadline stays. False: no such live parent."""
        return await self._turn(intent_id, lambda parent: None if parent.paused else IntentPaused(intent_id))

    async def proceed(self, intent_id: str) -> bool:
        """A paused parent goes on. False if there is no such live parent."""
        return await self._turn(intent_id, lambda parent: IntentContinued(intent_id) if parent.paused else None)

    async def amend(self, intent: Intent) -> tuple[Reason, ...]:
        """A live parent is like `intent` from now on; or why not. What it is already changes nothing."""
        if self.is_stopping:
            return (Reason("AGENT_STOPPING", self.failure or "the agent is stopping; start it again"),)
        reasons = refuse_amended(intent, self.state, self.world, self._rules, self._clock.now_ns())
        if not reasons:
            await self._turn(intent.intent_id, lambda parent: None if parent.intent == intent else IntentAmended(intent))
        return reasons

    async def _turn(self, intent_id: str, turn: Callable[[Parent], Turn | None]) -> bool:
        """Something happens to a live parent, once: what has happened already is not journaled again."""
        parent = self.state.parents.get(intent_id)
        if parent is None or not parent.is_live or self.is_stopping:
            return False
        event = turn(parent)
        if event is not None:
            self._recorder.record([event])
            await self._recorder.secured()
        return True

    def intents(self) -> Sequence[IntentView]:
        return [IntentView(p.intent, p.word, p.filled, p.reason, tuple(p.orders)) for p in self.state.parents.values()]

    def order(self, order_id: str) -> Order | None:
        return self.state.orders.get(order_id)

    def balances(self) -> Sequence[tuple[str, str, Amount]]:
        return self.state.ledger.balances()

    async def reconcile(self) -> Sequence[Break]:
        """Hold the journal against every venue and chain now. A difference counts when it stays while facts had time to arrive."""
        return await mend.reconcile(self._recorder, self._inquiry, self._venues)

    async def repair(self, *, is_rehearsal: bool) -> Sequence[Repair]:
        """What can be put right without a person's word, and is, unless this is a rehearsal; see `engine.mend`."""
        return await mend.repair(self._recorder, self._inquiry, list(self._venues), is_rehearsal=is_rehearsal)

    async def adopt(self, reason: str) -> Sequence[Break]:
        """A person explains the differences: the balances of now are taken over, every halt is lifted. What stays is returned."""
        return await mend.adopt(self._recorder, self._inquiry, list(self._venues), reason, (KILL, DISK))

    async def anchor(self, venue: str = "") -> Anchoring:
        """Write the journal's head into the contract of a venue on a chain; see `engine.anchor`."""
        return await write_head(self._recorder, self._rules, self._account, venue)

    @property
    def patience_s(self) -> int:
        """How long the venues have at start, before whoever waits for `ready` gives up."""
        return self._rules.knobs.timeout_connection_secs

    def remind(self) -> None:
        """It is time for the continuous check of balances. Returns at once."""
        self._supervisor.check_due.set()

    async def priced(self, market: str, timeout_s: float = 20.0) -> None:
        """Wait until there is a trusted price and every instrument of the market is known. Returns anyway when time is up."""
        for _ in range(int(timeout_s / TICK_S)):
            view = self.world.market.view(market, self._clock.now_ns())
            listed = [one for one in self.world.market.instruments() if one.market == market]
            if (view.mid is not None and len(view.sources) == len(listed)) or self.is_stopping:
                return
            await self._clock.sleep(TICK_S)

    def events(self) -> AsyncIterator[Record]:
        """Every record from this call on; a slow reader is cut off, never waited for."""
        return self._recorder.events()

    async def finished(self, intent_id: str) -> str:
        """Wait until a parent has ended, or the engine has stopped; its status.

        LIVE when an order of it is still in doubt a minute after the deadline: the agent goes on asking, the caller need not wait.
        """
        while not self.is_stopping:
            parent = self.state.parents.get(intent_id)
            if parent is None or parent.status != LIVE or self._clock.now_ns() > parent.intent.deadline_ns + GRACE_NS:
                break
            await self._clock.sleep(TICK_S / 2)
        return self.state.parents[intent_id].status if intent_id in self.state.parents else ""


class _Open:
    """A kill switch that nobody has."""

    def engaged(self) -> str:
        return ""
