"""Orders out: build, sign, journal, send, in this order and each once. Sends run beside the loop, bounded for each venue.

A key of this process signs before anything is journaled, so the approval and what leaves are one append (`prepared`); another key
is asked when the approval is journaled. Either way the order is in the journal, as sent, before its first byte leaves.

Whatever is not certain afterwards is UNKNOWN. The venue's own word, which may arrive on its stream before the reply to the send,
always counts for more than how the send went.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from agent import observe
from agent.domain.errors import FrameError, IsthmusError, JournalError, OutcomeUnknown, SignatureUnknownError, VenueError
from agent.domain.events import Event, OrderApproved, OrderReported, OrderSent
from agent.domain.order import IN_DOUBT, NEVER_SENT, RESTING, OrderState
from agent.domain.plan import Approved, CancelOrder, CancelTransaction, PlaceOrder, Plan, Signed, SignedTransaction
from agent.engine.record import Recorder
from agent.ports import Latch, PromptSigner, Signer, Venue

SEND_TIMEOUT_S = 15.0
DRAIN_S = 10.0
SIGN_TRIES = 3  # of a key that cannot say whether it signed. No key sends anything, so without our bytes its signature does nothing


class Dispatch:
    """Owns the sends that are under way."""

    def __init__(
        self, recorder: Recorder, venues: Mapping[str, Venue], signers: Mapping[str, Signer], latch: Latch, drain_s: float = DRAIN_S
    ) -> None:
        self._recorder, self._venues, self._signers, self._latch, self._drain_s = recorder, venues, signers, latch, drain_s
        self._prompt = {name: one for name, one in signers.items() if isinstance(one, PromptSigner)}
        self._gates = {name: asyncio.Semaphore(venue.profile.sends_in_flight_max) for name, venue in venues.items()}
        self._sends: set[asyncio.Task[None]] = set()
        self._ready: dict[str, Signed] = {}  # signed, and journaled or about to be; taken out when the send begins

    def prepared(self, events: Sequence[Event]) -> Sequence[Event]:
        """What is to be journaled, with each order that can be signed at once as signed, or as refused by its key.

        At most one for each venue, and none where others wait for their turn: an order that is journaled as sent is sent next.
        """
        found: list[Event] = []
        venues: set[str] = set()
        for event in events:
            found.append(event)
            if not isinstance(event, OrderApproved) or (venue := event.approved.plan.venue) in venues:
                continue
            signer = self._prompt.get(venue)
            if signer is not None and not self._gates[venue].locked():
                venues.add(venue)
                found += self._signed_now(event.approved, signer)
        return found

    def _signed_now(self, approved: Approved, signer: PromptSigner) -> Sequence[Event]:
        plan = approved.plan
        try:
            signed = signer.sign_now(self._venues[plan.venue].build(approved))
        except IsthmusError as error:
            return (OrderReported(plan.order_id, OrderState.REJECTED, f"{NEVER_SENT}: {error}"),)
        if signed is None:
            return ()
        self._ready[plan.order_id] = signed
        return (_sent(approved, signed),)

    def start(self, approved: Approved) -> None:
        """Begin to send an order that was approved and journaled."""
        name = approved.plan.order_id
        signed = self._ready.pop(name, None)
        if signed is None and self._recorder.state.orders[name].is_settled:
            return  # its key refused
        if approved.attempt:  # at once: whoever decides next must know that one is being made
            self._recorder.world.attempting.add(name)
            self._recorder.world.attempted_ns[name] = self._recorder.clock.now_ns()
        task = asyncio.create_task(self._send(approved, signed))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        self._recorder.guard(task)

    async def drain(self) -> None:
        """Wait for the sends under way; what takes too long is interrupted, and therefore UNKNOWN."""
        if self._sends:
            await asyncio.wait(self._sends, timeout=self._drain_s)
        late = list(self._sends)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=DRAIN_S)

    async def _send(self, approved: Approved, signed: Signed | None) -> None:
        plan, world = approved.plan, self._recorder.world
        world.attempting.add(plan.order_id)
        try:
            if approved.attempt:
                await self._send_again(approved)
            else:
                async with self._way(plan):
                    await (self._send_first(approved) if signed is None else self._deliver(plan, signed))
        finally:
            world.attempting.discard(plan.order_id)

    async def _send_first(self, approved: Approved) -> None:
        plan = approved.plan
        if self._is_dropped(plan):
            return
        try:
            signed = await self._sign(approved)
        except JournalError:
            raise
        except IsthmusError as error:
            self._tell(plan.order_id, OrderState.REJECTED, f"{NEVER_SENT}: {error}")
            return
        if self._is_dropped(plan):  # signing may have taken its time
            return
        self._recorder.record([_sent(approved, signed)])
        await self._deliver(plan, signed)

    async def _send_again(self, approved: Approved) -> None:
        """Another transaction for the nonce of an order that waits. Whatever becomes of it, the order stands as it stood."""
        plan = approved.plan
        async with self._way(plan):
            order = self._recorder.state.orders[plan.order_id]
            try:
                signed = await self._sign(approved)
                if order.is_settled or self._recorder.stopping.is_set():
                    return
                self._recorder.record([_sent(approved, signed)])
                await self._recorder.secured()
                if self._latch.engaged() and not isinstance(plan, CancelTransaction):
                    return
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    facts = await self._venues[plan.venue].send(signed)
                self._recorder.absorb(plan.venue, facts)
            except JournalError:
                raise
            except (IsthmusError, TimeoutError) as error:
                observe.attempt_failed(plan.order_id, approved.attempt, str(error) or "no answer in time")

    def _way(self, plan: Plan) -> contextlib.AbstractAsyncContextManager[None]:
        """Orders wait for one another; what takes risk away waits for nobody. It is one for each order, so it is bounded too."""
        return contextlib.nullcontext() if isinstance(plan, CancelOrder | CancelTransaction) else self._gates[plan.venue]

    async def _sign(self, approved: Approved) -> Signed:
        venue = approved.plan.venue
        if venue not in self._signers:
            raise VenueError(f"no key signs for {venue}; add a wallet or an API key to the settings")
        unsigned = self._venues[venue].build(approved)
        for _ in range(SIGN_TRIES - 1):
            with contextlib.suppress(
                SignatureUnknownError
            ):  # the same bytes again: a second signature can do no more than the first
                return await self._signers[venue].sign(unsigned)
        return await self._signers[venue].sign(unsigned)

    def _is_dropped(self, plan: Plan) -> bool:
        """An approval is not a duty: what nobody wants any more is taken back before it leaves."""
        reason = self._unwanted(plan)
        if reason and not self._recorder.error:
            self._tell(plan.order_id, OrderState.CANCELLED, f"{NEVER_SENT}: {reason}")
        return bool(reason)

    def _unwanted(self, plan: Plan) -> str:
        state = self._recorder.state
        if self._recorder.stopping.is_set():
            return "the agent is stopping"
        if isinstance(plan, CancelOrder):
            return ""
        if reason := self._latch.engaged():
            return reason
        parent = state.parents.get(plan.intent_id)
        if parent is not None and parent.cancelled:
            return "the client cancelled"
        if parent is not None and self._recorder.clock.now_ns() >= parent.intent.deadline_ns:
            return "the deadline passed"
        if plan.venue in state.status:
            return f"{plan.venue} takes cancels only: {state.status[plan.venue].reason}"
        return state.halt_of_plan(plan)

    async def _deliver(self, plan: Plan, signed: Signed) -> None:
        """One send. From here on the order may exist outside, whatever happens to this program."""
        await self._recorder.secured()
        if self._recorder.state.orders[plan.order_id].is_settled or self._is_dropped(plan):  # the disk may have taken its time
            return
        state, reason = OrderState.UNKNOWN, "the send was interrupted"
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                facts = await self._venues[plan.venue].send(signed)
            self._recorder.absorb(plan.venue, facts)
            state = OrderState.SENT
        except TimeoutError:
            reason = f"no answer within {SEND_TIMEOUT_S:.0f} s"
        except (OutcomeUnknown, FrameError) as error:  # an answer that nobody understands is no refusal
            reason = str(error)
        except VenueError as error:
            state, reason = OrderState.REJECTED, str(error)
        except JournalError:
            raise
        except IsthmusError as error:  # whatever else a reply makes us stumble over: it was sent
            reason = str(error)
        finally:
            if state is not OrderState.SENT and not isinstance(self._recorder.error, JournalError):
                self._tell(plan.order_id, state, reason)

    def _tell(self, order_id: str, state: OrderState, reason: str) -> None:
        """What we conclude from the send itself, unless the venue has spoken already."""
        order = self._recorder.state.orders[order_id]
        if state is OrderState.REJECTED and (order.state in RESTING or order.fills):  # one of the two is wrong: ask
            state, reason = OrderState.UNKNOWN, f"the venue holds it, and yet: {reason}"
        elif order.state is not OrderState.APPROVED and order.state not in IN_DOUBT:
            return
        self._recorder.record([OrderReported(order_id, state, reason)])


def _sent(approved: Approved, signed: Signed) -> OrderSent:
    plan = approved.plan
    if not isinstance(signed, SignedTransaction) or isinstance(plan, PlaceOrder | CancelOrder):
        return OrderSent(plan.order_id)
    is_cancel = isinstance(plan, CancelTransaction)
    return OrderSent(plan.order_id, signed.tx_hash, signed.raw, approved.attempt, plan.gas_fee_max, plan.gas_tip, is_cancel)
