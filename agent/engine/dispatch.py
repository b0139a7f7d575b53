"""Orders out: build, sign, journal, send, in this order and each once. Sends run beside the loop, bounded for each venue.

Whatever is not certain afterwards is UNKNOWN. The venue's own word, which may arrive on its stream before the reply to the send,
always counts for more than how the send went.
"""

import asyncio
from collections.abc import Mapping

from agent.domain.errors import FrameError, IsthmusError, JournalError, OutcomeUnknown, VenueError
from agent.domain.events import OrderReported, OrderSent
from agent.domain.order import IN_DOUBT, OrderState
from agent.domain.plan import Approved, CancelOrder, Plan, Signed, SignedTransaction
from agent.engine.record import Recorder
from agent.ports import Signer, Venue

SEND_TIMEOUT_S = 15.0
DRAIN_S = 10.0
NEVER_SENT = "never sent"


class Dispatch:
    """Owns the sends that are under way."""

    def __init__(self, recorder: Recorder, venues: Mapping[str, Venue], signers: Mapping[str, Signer]) -> None:
        self._recorder, self._venues, self._signers = recorder, venues, signers
        self._gates = {name: asyncio.Semaphore(venue.profile.sends_in_flight_max) for name, venue in venues.items()}
        self._sends: set[asyncio.Task[None]] = set()

    def start(self, approved: Approved) -> None:
        """Begin to send an order that was approved and journaled."""
        task = asyncio.create_task(self._send(approved))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        self._recorder.guard(task)

    async def drain(self) -> None:
        """Wait for the sends under way; what takes too long is interrupted, and therefore UNKNOWN."""
        if self._sends:
            await asyncio.wait(self._sends, timeout=DRAIN_S)
        late = list(self._sends)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=DRAIN_S)

    async def _send(self, approved: Approved) -> None:
        plan = approved.plan
        async with self._gates[plan.venue]:
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
            trace = (signed.tx_hash, signed.raw) if isinstance(signed, SignedTransaction) else ("", b"")
            self._recorder.record([OrderSent(plan.order_id, *trace)])
            await self._deliver(plan, signed)

    async def _sign(self, approved: Approved) -> Signed:
        venue = approved.plan.venue
        if venue not in self._signers:
            raise VenueError(f"no key signs for {venue}; add a wallet or an API key to the settings")
        return await self._signers[venue].sign(self._venues[venue].build(approved))

    def _is_dropped(self, plan: Plan) -> bool:
        """An approval is not a duty: what nobody wants any more is taken back before it leaves."""
        reason = self._unwanted(plan)
        if reason and not self._recorder.error:
            self._tell(plan.order_id, OrderState.CANCELLED, f"{NEVER_SENT}: {reason}")
        return bool(reason)

    def _unwanted(self, plan: Plan) -> str:
        if self._recorder.stopping.is_set():
            return "the agent is stopping"
        if isinstance(plan, CancelOrder):
            return ""
        parent = self._recorder.state.parents.get(plan.intent_id)
        if parent is not None and parent.cancelled:
            return "the client cancelled"
        if parent is not None and self._recorder.clock.now_ns() >= parent.intent.deadline_ns:
            return "the deadline passed"
        return next(iter(self._recorder.state.halted.values()), "")

    async def _deliver(self, plan: Plan, signed: Signed) -> None:
        """One send. From here on the order may exist outside, whatever happens to this program."""
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
        finally:
            if state is not OrderState.SENT and not isinstance(self._recorder.error, JournalError):
                self._tell(plan.order_id, state, reason)

    def _tell(self, order_id: str, state: OrderState, reason: str) -> None:
        """What we conclude from the send itself, unless the venue has spoken already."""
        now = self._recorder.state.orders[order_id].state
        if state is OrderState.REJECTED and now is OrderState.OPEN:  # one of the two is wrong: ask
            state, reason = OrderState.UNKNOWN, f"the venue holds it, and yet: {reason}"
        elif now is not OrderState.APPROVED and now not in IN_DOUBT:
            return
        self._recorder.record([OrderReported(order_id, state, reason)])
