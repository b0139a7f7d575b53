"""Asking a venue about ourselves: what it says of balances and orders is taken in, and then held against the journal.

A difference counts when it stays while facts had time to arrive. Nothing is ever concluded from silence: a list that was cut off, a
question that failed and an order that is not mentioned leave everything as it was.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.errors import VenueError
from agent.domain.events import BalanceAdopted, Break, NonceAdopted
from agent.domain.order import reference_of
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.ports import Clock, Repair, Snapshot, Venue
from agent.settlement.knobs import Knobs
from agent.settlement.reconcile import checked, compare
from agent.settlement.repair import claimed, repairs

QUERY_S = 0.5
RECENT_NS = 3_600_000_000_000  # how far back ended orders are asked about when balances differ
RECENT_MAX = 100
SETTLE_TRIES = 16  # with QUERY_S between: how long facts may be under way before a difference counts
CALM_TRIES = 4  # the same where no order was sent or ended for a while: nothing of ours can be under way
CALM_NS = 15_000_000_000


class Inquiry:
    """Questions to all venues for the engine."""

    def __init__(self, recorder: Recorder, venues: Mapping[str, Venue], clock: Clock, account: str, knobs: Knobs) -> None:
        self._recorder, self._venues, self._clock, self._account, self._knobs = recorder, venues, clock, account, knobs
        self._state, self._world = recorder.state, recorder.world

    def is_busy(self, name: str) -> bool:
        """Whether an order is on its way at the venue, so that its balances may differ. One that rests moves nothing."""
        return any(order.plan.venue == name and not order.is_resting for order in self._state.working.values())

    async def snapshot(self, name: str, back_ns: int = 0) -> Snapshot:
        """What the venue says about balances and our open orders; the facts in it are taken in. Raises as `Venue.snapshot`.

        `back_ns`: ask about orders too that ended so recently. Nobody's word is taken for a wallet that others use: that halts it.
        """
        found = await self._look(name, back_ns)
        self._recorder.absorb(name, found.facts)
        self._claim(found)
        if found.nonce is not None and not self._recorder.is_closed:
            self._world.nonces[name] = found.nonce
            if name not in self._state.nonce_base:
                self._recorder.record([NonceAdopted(name, found.nonce, "first sight")])
        return found

    async def _look(self, name: str, back_ns: int) -> Snapshot:
        since_ns = self._clock.now_ns() - back_ns
        open_orders = {**self._state.working, **self._state.mined}
        recent = [o for o in self._state.orders.values() if o.ended_ns > since_ns and o.sent_ns] if back_ns else []
        open_orders |= {order.order_id: order for order in recent[-RECENT_MAX:]}
        asked = [reference_of(o) for o in open_orders.values() if o.plan.venue == name and o.sent_ns]
        try:
            async with asyncio.timeout(self._knobs.timeout_reconciliation_secs):
                found = await self._venues[name].snapshot(asked)
        except TimeoutError:
            raise TimeoutError(f"no snapshot within {self._knobs.timeout_reconciliation_secs:.0f} s") from None
        return msgspec.structs.replace(found, account=self._account)

    async def check(self, name: str) -> tuple[list[Break], int]:
        """Hold the journal against one venue: (breaks, balances compared). Repeats while facts may still be under way."""
        tries = SETTLE_TRIES
        for turn in range(SETTLE_TRIES):
            snapshot = await self.snapshot(name, RECENT_NS if turn else 0)
            self.adopt(snapshot)
            breaks = self.breaks(snapshot)
            if breaks and not turn and self._is_calm(name):
                tries = CALM_TRIES
            if not breaks or self._recorder.stopping.is_set() or turn + 1 == tries:
                break
            await self._clock.sleep(QUERY_S)
        return breaks, checked(self._state.ledger, [snapshot])

    def _is_calm(self, name: str) -> bool:
        since_ns = self._clock.now_ns() - CALM_NS
        orders = (order for order in self._state.orders.values() if order.plan.venue == name)
        return not self.is_busy(name) and all(max(order.sent_ns, order.ended_ns) < since_ns for order in orders)

    async def repairs(self, name: str) -> list[Repair]:
        """What could be put right at one venue; nothing is taken in for it."""
        found = await self._look(name, RECENT_NS)
        return repairs(self.breaks(found), found, self._state.orders, self._world.market.instrument)

    def breaks(self, snapshot: Snapshot) -> list[Break]:
        """All differences with one venue: balances, orders, and transactions of the wallet that are not ours."""
        return differences(self._state, snapshot, self._filtered)

    @property
    def _filtered(self) -> Sequence[str]:
        return self._knobs.filtered_client_order_ids

    def _claim(self, snapshot: Snapshot) -> None:
        """Orders that somebody else placed, where the settings say that they are ours to watch."""
        claims = self._knobs.external_order_claims
        for one in snapshot.resting if claims else ():
            instrument = self._world.market.instrument(one.instrument)
            is_ours = one.order_id in self._state.orders or one.order_id in self._filtered
            if instrument is not None and not is_ours and ("*" in claims or one.instrument in claims):
                self._recorder.record([claimed(one, snapshot, instrument, "claimed by the settings")])

    def adopt(self, snapshot: Snapshot) -> None:
        """The first sight of a venue: its balances, zeros left out, are the opening position. Once for each account and venue."""
        if (self._account, snapshot.venue) in self._state.adopted or self._recorder.is_closed:
            return
        if not snapshot.is_balances_whole:
            raise VenueError(f"{snapshot.venue} told only a part of the balances: they cannot be taken over")
        held = [one for one in snapshot.balances if one] or list(snapshot.balances[:1])
        self._recorder.record([BalanceAdopted(self._account, snapshot.venue, amount, "opening balance") for amount in held])


def differences(state: State, shot: Snapshot, filtered: Sequence[str] = ()) -> list[Break]:
    """Between the journal and one venue's word: balances, orders, and transactions of the wallet that are not ours."""
    found = list(compare(state.ledger, [shot], state.orders, filtered, state.unfinished()))
    foreign = None if shot.nonce is None else state.foreign_nonce(shot.venue, shot.nonce)
    if foreign is not None and shot.nonce is not None:
        unit = Asset("transactions", shot.venue, 0)
        cause = f"transaction {foreign} of the wallet is not of this journal: another program uses the key"
        found.append(
            Break(shot.account, shot.venue, "nonce", Amount(foreign, unit), Amount(shot.nonce, unit), cause, about="nonce")
        )
    return found
