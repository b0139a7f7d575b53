"""One venue, kept alive: its stream, the check after every connect, and the questions about orders whose outcome is open.

A venue that fails is connected again after growing pauses, for ever; it never takes the engine down and never delays another venue.
Its stream is read without a queue of our own: what arrives is journaled (our orders) or applied (market data) at once, so neither
can stand in the other's way. The adapters bound and conflate market data before it gets here.
"""

import asyncio
import zlib
from collections.abc import Mapping, Sequence

from agent import observe
from agent.domain.errors import IsthmusError, JournalError, StartRefusedError
from agent.domain.events import (
    Break,
    OrderReported,
    Reconciled,
    VenueConnected,
    VenueDisconnected,
    VenueStatus,
)
from agent.domain.order import RESTING, Order, OrderState
from agent.domain.plan import ChainPlan, PlaceOrder, SignedTransaction
from agent.engine.inquire import QUERY_S, Inquiry
from agent.engine.record import Recorder
from agent.engine.tend import unwanted
from agent.ports import Clock, DeadMan, Snapshot, Venue
from agent.settlement.knobs import Knobs
from agent.settlement.reconcile import checked

SEND_TIMEOUT_S = 15.0
UNARMED = "its dead-man switch cannot be armed"
MS = 1_000_000
BEAT_NS = 2_000_000_000  # an engine that did not go round for so long is not alive
REBROADCAST_NS = 2_000_000_000
BACKOFF_MAX_S = 30.0
STEADY_NS = 30_000_000_000  # a connection that lived so long starts the pauses anew
BURST_MAX = 256  # facts taken in before everybody else has a turn


class Supervisor:
    """Watches all venues for the engine. `up` is set when every venue has been connected and checked."""

    def __init__(
        self, recorder: Recorder, venues: Mapping[str, Venue], clock: Clock, inquiry: Inquiry, knobs: Knobs, *, is_strict: bool
    ) -> None:
        self._recorder, self._venues, self._clock, self._inquiry = recorder, venues, clock, inquiry
        self._knobs, self._is_strict = knobs, is_strict
        self._state, self._world = recorder.state, recorder.world
        self._troubles: dict[str, str] = {}
        self._asked: dict[str, tuple[int, int]] = {}  # order id -> (times asked, not again before)
        self._armed_ns: dict[str, int] = {}
        self.check_due = asyncio.Event()
        self.up = asyncio.Event()

    async def run(self, name: str) -> None:
        """Keep one venue's stream running until cancelled."""
        attempt = 0
        while True:
            began_ns = self._clock.now_ns()
            self._lost(name, await self._listen(name))
            attempt = 0 if self._clock.now_ns() - began_ns > STEADY_NS else attempt
            attempt += 1
            await self._clock.sleep(backoff_s(name, attempt))

    async def mind(self, name: str) -> None:
        """Ask for every order whose outcome is open for too long, by its own id, with growing pauses, until cancelled."""
        while True:
            await self._clock.sleep(QUERY_S)
            due = self._due(name)
            if not due:
                continue
            try:
                await self._rebroadcast(name, await self._inquiry.snapshot(name))
            except JournalError:
                raise
            except (IsthmusError, TimeoutError) as error:
                observe.query_failed(name, _words(error))
            for order in due:
                self._asked_again(order)

    async def keep_armed(self, name: str) -> None:
        """Tell a venue's dead-man switch that we live, until cancelled; by itself, so that no slow answer keeps us from it."""
        venue = self._venues[name]
        while isinstance(venue, DeadMan) and venue.countdown_s:
            await self._clock.sleep(QUERY_S)
            await self._arm(name, venue)

    async def watch(self) -> None:
        """The continuous check of balances, whenever it is due: a difference that stays halts the place where it is."""
        await self.up.wait()
        await self._clock.sleep(self._knobs.reconciliation_startup_delay_secs)
        while True:
            await self.check_due.wait()
            self.check_due.clear()
            for name in self._venues:
                if name in self._world.ready and not self._inquiry.is_busy(name) and not self._recorder.stopping.is_set():
                    await self._watch(name)

    async def _watch(self, name: str) -> None:
        try:
            breaks, compared = await self._inquiry.check(name)
        except JournalError:
            raise
        except (IsthmusError, TimeoutError) as error:
            observe.query_failed(name, _words(error))
            return
        if self._recorder.stopping.is_set() or self._inquiry.is_busy(name):
            return
        self._recorder.record([Reconciled(compared, tuple(breaks))])
        self._halt(name, breaks)

    def _halt(self, name: str, breaks: Sequence[Break]) -> None:
        for one in breaks:
            observe.break_found(one)
        if breaks:
            self._recorder.halt(name, f"{name} differs from the journal: {breaks[0].cause}; see `isthmus reconcile`")

    def waiting_for(self) -> str:
        """Which venues are not ready, and what the last word about them was."""
        return "; ".join(f"{n}: {self._troubles.get(n, 'no answer yet')}" for n in self._venues if n not in self._world.ready)

    # -- the stream ------------------------------------------------------------------------------------------------------

    async def _listen(self, name: str) -> str:
        """Read the stream until it ends; why it did."""
        checks: list[asyncio.Task[None]] = []
        stream, count = self._venues[name].stream(), 0
        try:
            async for event in stream:
                if isinstance(event, VenueConnected):
                    self._world.connected.add(name)
                    await _cancel(checks)
                    checks.append(asyncio.create_task(self._resync(name)))
                    self._recorder.guard(checks[-1])
                self._recorder.absorb(name, (event,))
                count += 1
                if count % BURST_MAX == 0:
                    await asyncio.sleep(0)
        except JournalError:
            raise
        except (IsthmusError, TimeoutError) as error:
            return _words(error)
        finally:
            await _cancel(checks)
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        return "the stream ended"

    def _lost(self, name: str, reason: str) -> None:
        """Journaled once for each connection, and when a first connection fails; further attempts are only logged."""
        self._world.ready.discard(name)
        if name in self._world.connected or name not in self._troubles:
            self._recorder.record([VenueDisconnected(name, reason)])
        else:
            observe.query_failed(name, reason)
        self._world.connected.discard(name)
        self._troubles[name] = reason

    async def _resync(self, name: str) -> None:
        """After a connect: learn what became of our orders, take over or compare balances, then allow new orders."""
        attempt = 0
        while True:
            try:
                breaks, compared = await self._agreed(name)
                break
            except JournalError:
                raise
            except (IsthmusError, TimeoutError) as error:
                self._troubles[name] = _words(error)
                observe.query_failed(name, self._troubles[name])
            attempt += 1
            await self._clock.sleep(backoff_s(name, attempt))
        self._recorder.record([Reconciled(compared, tuple(breaks))])
        if not self._inquiry.is_busy(name):
            self._halt(name, breaks)
        if self._is_strict and not self._world.has_begun and (why := self._state.halted.get(name)):
            how = "`isthmus reconcile --repair` or `--adopt REASON` explains it"
            self._recorder.fail(StartRefusedError(f"not started: {why.partition('; see')[0]}; {how}"))
            return
        self._world.ready.add(name)
        self._recorder.woken.set()
        if self._world.ready.issuperset(self._venues):
            self._world.has_begun = True
            self.up.set()

    async def _agreed(self, name: str) -> tuple[list[Break], int]:
        """As `check`, without waiting for orders that are still under way: their differences are explained later."""
        if not self._inquiry.is_busy(name):
            return await self._inquiry.check(name)
        snapshot = await self._inquiry.snapshot(name)
        self._inquiry.adopt(snapshot)
        if not self._inquiry.is_busy(name):  # what was open is settled now: the balances must agree
            return await self._inquiry.check(name)
        return self._inquiry.breaks(snapshot), checked(self._state.ledger, [snapshot])

    # -- doubts ----------------------------------------------------------------------------------------------------------

    def _due(self, name: str) -> list[Order]:
        now_ns = self._clock.now_ns()
        self._asked = {one: said for one, said in self._asked.items() if one in self._state.working}
        found = []
        for order in self._state.working.values():
            again_ns = self._asked.get(order.order_id, (0, 0))[1]
            if order.plan.venue == name and order.sent_ns and now_ns >= max(self._first_ns(order), again_ns):
                found.append(order)
        return found

    def _first_ns(self, order: Order) -> int:
        """From when on an order is asked about: at once when it is in doubt, later when it may still answer by itself."""
        knobs = self._knobs
        if order.state is OrderState.UNKNOWN or order.lacks_fills:
            return 0  # also where the clock was set back since it was sent
        if order.state in RESTING and isinstance(order.plan, PlaceOrder):
            return order.sent_ns + max(int(knobs.open_check_interval_secs * 10**9), knobs.open_check_threshold_ms * MS)
        return order.sent_ns + knobs.inflight_check_threshold_ms * MS

    def _asked_again(self, order: Order) -> None:
        """The pause doubles up to a limit; the questions never end. After some of them people are told."""
        knobs, times = self._knobs, self._asked.get(order.order_id, (0, 0))[0] + 1
        is_resting = order.state in RESTING and isinstance(order.plan, PlaceOrder)
        longest_s = knobs.open_check_interval_secs if is_resting else knobs.inflight_check_interval_ms / 1_000
        pause_s = longest_s if is_resting else min(QUERY_S * 2 ** min(times - 1, 8), longest_s)
        self._asked[order.order_id] = times, self._clock.now_ns() + int(pause_s * 10**9)
        if order.state is OrderState.UNKNOWN and times == knobs.inflight_check_retries:
            observe.order_in_doubt(order.order_id, times)

    async def _arm(self, name: str, venue: DeadMan) -> None:
        """Only while the engine goes round, the journal takes records, and the venue is in step."""
        now_ns = self._clock.now_ns()
        if name not in self._world.ready:
            return
        is_alive = self._recorder.error is None and now_ns - self._world.beat_ns < BEAT_NS
        if not is_alive or now_ns < self._armed_ns.get(name, 0) + venue.countdown_s * 10**9 // 3:
            return
        self._armed_ns[name] = now_ns
        known = self._state.status.get(name)
        is_ours = known is not None and known.reason.startswith(UNARMED)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await venue.arm(venue.countdown_s)
        except (IsthmusError, TimeoutError) as error:
            if is_ours or known is None:  # a reason of the venue's own stays: it says when that is over, and nobody else knows
                reason = f"{UNARMED}: {_words(error)}"
                self._recorder.absorb(name, [VenueStatus(name, "CANCEL_ONLY", reason)])
            return
        if is_ours:
            self._recorder.absorb(name, [VenueStatus(name, "TRADING")])

    async def _rebroadcast(self, name: str, snapshot: Snapshot) -> None:
        """A transaction of which no node says anything is sent again as the same bytes: it can only happen once.

        Not one that nobody wants any more: it may never have left, and is taken back when its own deadline is over.
        """
        now_ns, venue = self._clock.now_ns(), self._venues[name]
        known = {fact.order_id for fact in snapshot.facts if isinstance(fact, OrderReported)}
        silent = [one for one in self._state.chain_orders() if one.plan.venue == name and one.order_id not in known]
        for order in [one for one in silent if one.order_id not in self._world.attempting]:
            plan = order.plan
            last = order.attempts[-1] if order.attempts else None
            is_wanted = last is not None and (last.is_cancel or not unwanted(order, self._state, now_ns))
            is_due = last is not None and now_ns - last.sent_ns > REBROADCAST_NS
            if isinstance(plan, ChainPlan) and order.nonce is not None and last and is_due and is_wanted:
                wallet = venue.profile.wallet
                signed = SignedTransaction(order.order_id, plan.chain_id, wallet, order.nonce, last.tx_hash, last.raw)
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    self._recorder.absorb(name, await venue.send(signed))


async def _cancel(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    tasks.clear()


def _words(error: BaseException) -> str:
    return str(error) or "timed out"


def backoff_s(name: str, attempt: int) -> float:
    """Doubling, capped, and spread by name and attempt, so that venues do not reconnect in step."""
    spread = zlib.crc32(f"{name}{attempt}".encode()) % 1000 / 1000
    pause: float = min(0.25 * 2 ** min(attempt, 8), BACKOFF_MAX_S)
    return pause * (0.5 + spread / 2)
