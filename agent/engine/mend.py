"""The journal held against the world, and put right: by what venues say themselves, or by a person's word.

Facts that were only missing (fills, ends of orders) are booked by asking. What is left is repaired from what venues say, or adopted
with a reason; every step is journaled, and a venue that then agrees with the journal may trade again.
"""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from agent import observe
from agent.domain.events import BalanceAdopted, Break, NonceAdopted, Reconciled, Resumed
from agent.engine.inquire import Inquiry
from agent.engine.record import Recorder
from agent.ports import Repair


async def reconcile(recorder: Recorder, inquiry: Inquiry, venues: Iterable[str]) -> list[Break]:
    """The differences that stay while facts had time to arrive."""
    found = await asyncio.gather(*(inquiry.check(name) for name in venues))
    breaks = [one for some, _ in found for one in some]
    if not recorder.stopping.is_set():
        recorder.record([Reconciled(sum(count for _, count in found), tuple(breaks))])
    for one in breaks:
        observe.break_found(one)
    return breaks


async def repair(recorder: Recorder, inquiry: Inquiry, venues: Sequence[str], *, is_rehearsal: bool) -> list[Repair]:
    """What can be put right without a person's word, and is, unless this is a rehearsal."""
    steps: list[Repair] = []
    for name in venues:  # one after the other, and nothing is awaited between a look and what it leads to
        found = await inquiry.repairs(name)
        steps += found
        if not is_rehearsal and not recorder.stopping.is_set():
            recorder.record([event for one in found for event in one.events])
    if not is_rehearsal and not recorder.stopping.is_set():
        await recorder.secured()
        differing = {one.venue for one in await reconcile(recorder, inquiry, venues)}
        agreeing = [scope for scope in recorder.state.halted if scope in set(venues) - differing]
        if not recorder.stopping.is_set():
            recorder.record([Resumed(scope, "repaired: it agrees with the journal") for scope in agreeing])
    return steps


async def adopt(recorder: Recorder, inquiry: Inquiry, venues: Sequence[str], reason: str, kept: Sequence[str]) -> list[Break]:
    """The balances of now are taken over, and every halt but those in `kept` is lifted. What stays is returned.

    Nothing is taken over at a venue where an order is under way, because its differences explain themselves later.
    """
    state, breaks = recorder.state, await reconcile(recorder, inquiry, venues)
    busy = {order.plan.venue: order.order_id for order in state.working.values()}
    for one in breaks:
        change = one.outside - one.journal
        if one.venue in busy or recorder.stopping.is_set():
            continue
        if one.is_balance and change:
            recorder.record([BalanceAdopted(one.account, one.venue, change, reason)])
        elif one.is_nonce:
            recorder.record([NonceAdopted(one.venue, int(one.outside.units), reason)])
    left = await reconcile(recorder, inquiry, venues)
    if not left and not recorder.stopping.is_set():
        recorder.record([Resumed(scope, reason) for scope in state.halted if scope not in kept])
    return [_hindered(one, busy.get(one.venue, "")) for one in left]


def _hindered(one: Break, order_id: str) -> Break:
    """A difference that was not taken over, with the reason."""
    if not order_id:
        return one
    cause = f"{one.cause}; not taken over while order {order_id} is under way there: wait for its end, or cancel it"
    return msgspec.structs.replace(one, cause=cause)
