"""What is known without an agent of our own: the journal as it stands or grows, the accounts as they are, and if both agree."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec

from agent.app import has_account, open_reader, open_venues
from agent.config import Loaded
from agent.domain.errors import UsageError
from agent.domain.events import Break, Record
from agent.domain.order import OrderRef
from agent.engine.state import State, reference_of
from agent.gateways import local
from agent.ports import Repair, Snapshot
from agent.settlement.reconcile import compare
from agent.settlement.repair import repairs

FOLLOW_S = 0.1
ASKED_MAX = 100  # orders, newest first, whose trades are asked for when the journal is held against the world


def replay(loaded: Loaded) -> State:
    """The state that the journal gives, without starting anything; empty where there is no journal yet. Raises JournalError."""
    state, journal = State(), open_reader(loaded)
    if journal is not None:
        with contextlib.closing(journal):
            for record in journal.read():
                state.apply(record)
    return state


async def follow(loaded: Loaded, state: State) -> AsyncIterator[Record]:
    """The records that a running agent adds to its journal, each already applied to `state`; ends when the agent has gone."""
    journal = open_reader(loaded)
    if journal is None:
        return
    with contextlib.closing(journal):
        while True:
            was_running = local.is_running(loaded.home)
            for record in journal.read(state.seq):
                state.apply(record)
                yield record
            if not was_running:
                return
            await asyncio.sleep(FOLLOW_S)


async def look_at_accounts(loaded: Loaded, asked: Sequence[OrderRef] = ()) -> list[Snapshot]:
    """What every venue with an account says now, and of the orders that it is asked about. The wallet stays locked."""
    account = loaded.settings.account
    async with open_venues(loaded, None) as (venues, _):
        seen = [name for name, venue in venues.items() if has_account(loaded.venues[name])]
        shots = await asyncio.gather(*(venues[name].snapshot([one for one in asked if one.venue == name]) for name in seen))
    return [msgspec.structs.replace(shot, account=account) for shot in shots]


async def reconcile_journal(loaded: Loaded) -> tuple[list[Break], list[Repair]]:
    """Hold the journal against every venue that it knows, with no agent running: the differences, and what could be put right.

    Nothing is changed. Raises UsageError where there is no journal.
    """
    state = replay(loaded)
    if not state.seq:
        raise UsageError("there is no journal yet; `isthmus run` or `isthmus order submit` begins one")
    recent = [order for order in state.orders.values() if order.sent_ns][-ASKED_MAX:]
    shots = await look_at_accounts(loaded, [reference_of(order) for order in recent])
    known = [shot for shot in shots if (shot.account, shot.venue) in state.adopted]
    breaks = list(compare(state.ledger, known, state.orders, loaded.settings.reconcile.filtered_client_order_ids))
    return breaks, [step for shot in known for step in repairs(breaks, shot, state.orders, lambda _name: None)]
