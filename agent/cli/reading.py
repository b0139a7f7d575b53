"""What is known without an agent of our own: the journal as it stands or grows, the accounts as they are, and if both agree."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import cast

import msgspec

from agent.app import has_account, open_reader, open_venues
from agent.config import Loaded
from agent.domain.errors import UsageError
from agent.domain.events import Break, Record
from agent.domain.instrument import Instrument
from agent.domain.market import Listed
from agent.domain.order import OrderRef, reference_of
from agent.engine.inquire import differences
from agent.engine.state import State
from agent.gateways import local
from agent.ports import Repair, Snapshot, Venue, VenueEvent
from agent.settlement.repair import repairs

FOLLOW_S = 0.1
LISTED_TIMEOUT_S = 20.0
ASKED_MAX = 100  # orders, newest first, whose trades are asked for when the journal is held against the world


def replay(loaded: Loaded) -> State:
    """The state that the journal gives, without starting anything; empty where there is no journal yet. Raises JournalError."""
    state, journal = State(loaded.scoring()), open_reader(loaded)
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


async def look_at_accounts(loaded: Loaded) -> list[Snapshot]:
    """What every venue with an account says now. The wallet stays locked."""
    async with open_venues(loaded, None) as (venues, _):
        return await _ask(loaded, venues, ())


async def _ask(loaded: Loaded, venues: Mapping[str, Venue], asked: Sequence[OrderRef]) -> list[Snapshot]:
    seen = [name for name in venues if has_account(loaded.venues[name])]
    shots = await asyncio.gather(*(venues[name].snapshot([one for one in asked if one.venue == name]) for name in seen))
    return [msgspec.structs.replace(shot, account=loaded.settings.account) for shot in shots]


async def reconcile_journal(loaded: Loaded) -> tuple[list[Break], list[Repair]]:
    """Hold the journal against every venue that it knows, with no agent running: the differences, and what could be put right.

    Nothing is changed. Raises UsageError where there is no journal.
    """
    state = replay(loaded)
    if not state.seq:
        raise UsageError("there is no journal yet; `isthmus run` or `isthmus order submit` begins one")
    recent = [order for order in state.orders.values() if order.sent_ns][-ASKED_MAX:]
    asked = {order.order_id: order for order in (*state.working.values(), *state.mined.values(), *recent) if order.sent_ns}
    breaks, steps = list[Break](), list[Repair]()
    async with open_venues(loaded, None) as (venues, _):
        shots = await _ask(loaded, venues, [reference_of(order) for order in asked.values()])
        for shot in [one for one in shots if (one.account, one.venue) in state.adopted]:
            found = differences(state, shot, loaded.settings.reconcile.filtered_client_order_ids)
            has_strangers = any(one.order_id not in state.orders for one in shot.resting)
            listed = await _listed(venues[shot.venue]) if has_strangers else {}
            breaks += found
            steps += repairs(found, shot, state.orders, listed.get)
    return breaks, steps


async def _listed(venue: Venue) -> dict[str, Instrument]:
    """What a venue trades; nothing where it does not say so in time."""
    stream = venue.stream()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LISTED_TIMEOUT_S), contextlib.aclosing(cast("AsyncGenerator[VenueEvent, None]", stream)):
            async for event in stream:
                if isinstance(event, Listed):
                    return {one.id: one for one in event.instruments}
    return {}
