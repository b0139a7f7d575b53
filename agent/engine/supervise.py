"""One venue, kept alive: its stream, the check after every connect, and the questions about orders whose outcome is open.

A venue that fails is connected again after growing pauses, for ever; it never takes the engine down and never delays another venue.
Its stream is read without a queue of our own: what arrives is journaled (our orders) or applied (market data) at once, so neither
can stand in the other's way. The adapters bound and conflate market data before it gets here.
"""

import asyncio
import zlib
from collections.abc import Mapping

import msgspec

from agent import observe
from agent.domain.errors import IsthmusError, JournalError
from agent.domain.events import BalanceAdopted, Break, OrderReported, Reconciled, VenueConnected, VenueDisconnected
from agent.domain.order import Order, OrderState
from agent.domain.plan import ChainPlan, SignedTransaction
from agent.engine.record import Recorder
from agent.engine.state import reference_of
from agent.ports import Clock, Snapshot, Venue
from agent.settlement.reconcile import checked, compare

QUERY_S = 0.5
QUERY_MAX_S = 10.0
SNAPSHOT_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 15.0
DOUBT_NS = 3_000_000_000  # an order that is not settled after this is asked about
REBROADCAST_NS = 2_000_000_000
BACKOFF_MAX_S = 30.0
STEADY_NS = 30_000_000_000  # a connection that lived so long starts the pauses anew
SETTLE_TRIES = 16  # with QUERY_S between: how long facts may be under way before a difference counts
BURST_MAX = 256  # facts taken in before everybody else has a turn


class Supervisor:
    """Watches all venues for the engine. `up` is set when every venue has been connected and checked."""

    def __init__(self, recorder: Recorder, venues: Mapping[str, Venue], clock: Clock, account: str) -> None:
        self._recorder, self._venues, self._clock, self._account = recorder, venues, clock, account
        self._state, self._world = recorder.state, recorder.world
        self._troubles: dict[str, str] = {}
        self._connected: set[str] = set()
        self._asked: dict[str, tuple[int, int]] = {}  # order id -> (times asked, not again before)
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
                await self._rebroadcast(name, await self.snapshot(name))
            except JournalError:
                raise
            except (IsthmusError, TimeoutError) as error:
                observe.query_failed(name, _words(error))
            for order in due:
                self._asked_again(order)

    def waiting_for(self) -> str:
        """Which venues are not ready, and what the last word about them was."""
        return "; ".join(f"{n}: {self._troubles.get(n, 'no answer yet')}" for n in self._venues if n not in self._world.ready)

    def is_busy(self, name: str) -> bool:
        """Whether an order is under way at the venue, so that its balances may differ for a moment."""
        return any(order.plan.venue == name for order in self._state.working.values())

    async def snapshot(self, name: str) -> Snapshot:
        """What the venue says about balances and our open orders; the facts in it are taken in. Raises as `Venue.snapshot`."""
        open_orders = [*self._state.working.values(), *self._state.mined.values()]
        asked = [reference_of(o) for o in open_orders if o.plan.venue == name and o.sent_ns]
        try:
            async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                found = await self._venues[name].snapshot(asked)
        except TimeoutError:
            raise TimeoutError(f"no snapshot within {SNAPSHOT_TIMEOUT_S:.0f} s") from None
        self._recorder.absorb(name, found.facts)
        if found.nonce is not None:
            self._world.nonces[name] = found.nonce
        return msgspec.structs.replace(found, account=self._account)

    async def check(self, name: str) -> tuple[list[Break], int]:
        """Hold the journal against one venue: (breaks, balances compared). Repeats while facts may still be under way."""
        for turn in range(SETTLE_TRIES):
            snapshot = await self.snapshot(name)
            self._adopt(snapshot)
            breaks = list(compare(self._state.ledger, [snapshot], self._state.orders))
            if not breaks or self._recorder.stopping.is_set() or turn + 1 == SETTLE_TRIES:
                break
            await self._clock.sleep(QUERY_S)
        return breaks, checked(self._state.ledger, [snapshot])

    # -- the stream ------------------------------------------------------------------------------------------------------

    async def _listen(self, name: str) -> str:
        """Read the stream until it ends; why it did."""
        checks: list[asyncio.Task[None]] = []
        stream, count = self._venues[name].stream(), 0
        try:
            async for event in stream:
                if isinstance(event, VenueConnected):
                    self._connected.add(name)
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
        if name in self._connected or name not in self._troubles:
            self._recorder.record([VenueDisconnected(name, reason)])
        else:
            observe.query_failed(name, reason)
        self._connected.discard(name)
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
        if breaks and not self.is_busy(name):
            for one in breaks:
                observe.break_found(one)
            self._recorder.halt(name, f"{name} differs from the journal: {breaks[0].cause}; see `isthmus reconcile`")
        self._world.ready.add(name)
        self._recorder.woken.set()
        if self._world.ready.issuperset(self._venues):
            self._world.has_begun = True
            self.up.set()

    async def _agreed(self, name: str) -> tuple[list[Break], int]:
        """As `check`, without waiting for orders that are still under way: their differences are explained later."""
        if not self.is_busy(name):
            return await self.check(name)
        snapshot = await self.snapshot(name)
        self._adopt(snapshot)
        if not self.is_busy(name):  # what was open is settled now: the balances must agree
            return await self.check(name)
        return list(compare(self._state.ledger, [snapshot], self._state.orders)), checked(self._state.ledger, [snapshot])

    def _adopt(self, snapshot: Snapshot) -> None:
        """The first sight of a venue: its balances, zeros left out, are the opening position. Once for each account and venue."""
        if (self._account, snapshot.venue) in self._state.adopted or self._recorder.is_closed:
            return
        held = [one for one in snapshot.balances if one] or list(snapshot.balances[:1])
        self._recorder.record([BalanceAdopted(self._account, snapshot.venue, amount, "opening balance") for amount in held])

    # -- doubts ----------------------------------------------------------------------------------------------------------

    def _due(self, name: str) -> list[Order]:
        now_ns = self._clock.now_ns()
        self._asked = {one: said for one, said in self._asked.items() if one in self._state.working}
        found = []
        for order in self._state.working.values():
            if order.plan.venue == name and order.sent_ns:
                first_ns = order.sent_ns if order.state is OrderState.UNKNOWN else order.sent_ns + DOUBT_NS
                if now_ns >= max(first_ns, self._asked.get(order.order_id, (0, 0))[1]):
                    found.append(order)
        return found

    def _asked_again(self, order: Order) -> None:
        """The pause doubles up to a limit; the questions never end."""
        times = self._asked.get(order.order_id, (0, 0))[0] + 1
        pause_s = min(QUERY_S * 2 ** min(times, 8), QUERY_MAX_S)
        self._asked[order.order_id] = times, self._clock.now_ns() + int(pause_s * 10**9)

    async def _rebroadcast(self, name: str, snapshot: Snapshot) -> None:
        """A transaction of which no node says anything is sent again as the same bytes: it can only happen once."""
        now_ns, venue = self._clock.now_ns(), self._venues[name]
        known = {fact.order_id for fact in snapshot.facts if isinstance(fact, OrderReported)}
        for order in [one for one in self._state.chain_orders() if one.plan.venue == name and one.order_id not in known]:
            plan = order.plan
            if isinstance(plan, ChainPlan) and order.nonce is not None and order.raw and now_ns - order.sent_ns > REBROADCAST_NS:
                wallet = venue.profile.wallet
                signed = SignedTransaction(order.order_id, plan.chain_id, wallet, order.nonce, order.tx_hash, order.raw)
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
