"""One suite for every venue that `agent/venues` holds: the promises of the port, and nothing that only one kind of venue does.

The kinds are found, not listed: a new `agent/venues/<kind>.py` with `connect` fails here until `venue_<kind>.py` says how to trade
on it. A kind that trades in more than one way has a file `venue_<kind>_<way>.py` for each further one.
"""

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from venue_case import Case

from agent.config import venue_kinds
from agent.domain.errors import FrameError, UsageError, VenueError
from agent.domain.events import OrderFilled, OrderReported, VenueConnected
from agent.domain.market import BookDiff, BookSnapshot, Listed, MarketFact, PoolRanges, PoolReserves
from agent.domain.order import IN_DOUBT, OrderRef, OrderState
from agent.domain.plan import Approved, Signed, SignedRequest, SignedTransaction, VenueRequest
from agent.ports import PrivateFact, Snapshot, VenueEvent

pytestmark = [pytest.mark.chain]
PATIENCE_S = 30
SOURCES = (BookSnapshot, BookDiff, PoolReserves, PoolRanges)


WAYS = [path.stem.removeprefix("venue_") for path in Path(__file__).parent.glob("venue_*_*.py")]
CASES = sorted({*venue_kinds(), *(way for way in WAYS if way.startswith(tuple(venue_kinds())))})


@pytest.fixture(params=CASES)
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    module = importlib.import_module(f"venue_{request.param}")
    async with module.open_case() as opened:
        yield opened


async def read(case: Case, is_enough: Callable[[list[VenueEvent]], bool]) -> list[VenueEvent]:
    """The stream from its start until it is enough."""
    seen: list[VenueEvent] = []
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(case.venue.stream()) as stream:  # type: ignore[type-var]
        async for event in stream:
            seen.append(event)
            if is_enough(seen):
                break
    return seen


def is_open(seen: list[VenueEvent]) -> bool:
    kinds = {type(event) for event in seen}
    return {VenueConnected, Listed} <= kinds and bool(kinds & set(SOURCES))


def reference(case: Case, approved: Approved, signed: Signed) -> OrderRef:
    plan = approved.plan
    tx_hash = signed.tx_hash if isinstance(signed, SignedTransaction) else ""
    return OrderRef(plan.order_id, case.name, getattr(plan, "instrument", ""), tx_hash=tx_hash, nonce=approved.nonce)


async def carried_out(case: Case) -> tuple[OrderRef, list[PrivateFact]]:
    """An order that works, sent; and what its venue proved at once."""
    approved = await case.works()
    signed = await case.signer.sign(case.venue.build(approved))
    return reference(case, approved, signed), list(await case.venue.send(signed))


async def settled(case: Case, ref: OrderRef) -> Snapshot:
    """The venue's account once it is certain about the order."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            snapshot = await case.venue.snapshot([ref])
            if any(isinstance(f, OrderReported) and f.state not in (OrderState.OPEN, *IN_DOUBT) for f in snapshot.facts):
                return snapshot
            await asyncio.sleep(0.05)


def test_there_are_venues_to_test() -> None:
    assert {"ccxt_exchange", "uniswap"} <= set(venue_kinds())
    assert {"ccxt_exchange_websocket"} <= set(CASES)


async def test_the_file_is_the_kind_and_says_what_it_takes(case: Case) -> None:
    kind = case.module.__name__.rpartition(".")[2]
    config = case.module.Config
    assert config.model_fields["kind"].default == kind or kind in str(config.model_fields["kind"].annotation)
    assert config.model_config["extra"] == "forbid"
    assert list(inspect.signature(case.module.connect).parameters) == ["name", "config", "tools"]
    config.model_validate(case.settings)
    with pytest.raises(ValueError, match=r"(?i)extra"):
        config.model_validate(case.settings | {"surprise": 1})


async def test_the_profile_states_its_facts(case: Case) -> None:
    profile = case.venue.profile
    assert (profile.name, profile.kind) == (case.name, case.module.__name__.rpartition(".")[2])
    assert profile.is_atomic == (profile.chain_id is not None)
    assert profile.sends_in_flight_max >= 1
    assert bool(profile.wallet) == (profile.chain_id is not None)


async def test_the_stream_opens_with_what_is_listed(case: Case) -> None:
    seen = await read(case, is_open)
    listed = next(event for event in seen if isinstance(event, Listed))
    assert (listed.venue, VenueConnected(case.name) in seen) == (case.name, True)
    assert listed.instruments
    known = {one.id for one in listed.instruments}
    for one in listed.instruments:
        assert one.venue == case.name
        assert one.base.group
        assert one.quote.group
        assert 0 <= one.fee_pips < 1_000_000
        assert one.tick_units > 0
        assert one.lot_units > 0
        assert one.is_book == (case.venue.profile.chain_id is None)
    first = next(at for at, event in enumerate(seen) if isinstance(event, SOURCES))
    assert seen.index(listed) < first, "a market fact before its market was listed"
    assert {event.instrument for event in seen if isinstance(event, SOURCES)} <= known
    assert all(event.at_ns > 0 for event in seen if isinstance(event, MarketFact))


async def test_a_stream_that_was_closed_can_be_opened_again(case: Case) -> None:
    first, second = await read(case, is_open), await read(case, is_open)
    lists = [next(event for event in seen if isinstance(event, Listed)).instruments for seen in (first, second)]
    assert lists[0] == lists[1]


async def test_build_is_pure_and_refuses_what_it_cannot_do(case: Case) -> None:
    approved = await case.works()
    assert case.venue.build(approved) == case.venue.build(approved)
    assert case.venue.build(approved).order_id == approved.plan.order_id
    for plan in case.impossible:
        with pytest.raises((VenueError, UsageError)):
            case.venue.build(plan)


async def test_what_is_sent_is_told_by_its_own_id_and_a_snapshot_agrees(case: Case) -> None:
    ref, facts = await carried_out(case)
    assert facts, "a reply proves something"
    assert {fact.fill.order_id if isinstance(fact, OrderFilled) else getattr(fact, "order_id", "") for fact in facts} == {
        ref.order_id
    }
    first, second = await settled(case, ref), await settled(case, ref)
    assert first.facts == second.facts, "the same question has the same answer"
    replied = {fact.fill.key: fact.fill for fact in facts if isinstance(fact, OrderFilled)}
    asked = {fact.fill.key: fact.fill for fact in first.facts if isinstance(fact, OrderFilled)}
    assert replied.items() <= asked.items(), "a fill is the same wherever it is told"
    for fill in asked.values():
        assert fill.venue == case.name
        assert fill.trade_id
        assert fill.paid.units > 0
        assert fill.received.units > 0
        assert fill.fee.units >= 0


async def test_a_snapshot_is_the_account_s_and_silent_about_what_it_cannot_know(case: Case) -> None:
    ref, _ = await carried_out(case)
    await settled(case, ref)
    unheard = OrderRef("never-heard-of", case.name, ref.instrument, nonce=None)
    snapshot = await case.venue.snapshot([unheard])
    assert (snapshot.venue, snapshot.account) == (case.name, case.account)
    assert snapshot.facts == ()
    assert snapshot.at_ns > 0
    assert snapshot.balances
    assert all(amount.units >= 0 for amount in snapshot.balances)
    ids = [amount.asset.id for amount in snapshot.balances]
    assert len(set(ids)) == len(ids)
    assert (snapshot.nonce is None) == (case.venue.profile.chain_id is None)


async def test_what_is_signed_for_something_else_is_not_sent(case: Case) -> None:
    foreign: list[Signed] = [
        SignedRequest("x-1", VenueRequest("x-1", "elsewhere", "place", (("symbol", "ETHUSDT"),)), "another key"),
        SignedTransaction("x-2", 999_999, "0x" + "12" * 20, 0, "0x" + "00" * 32, b"\x02"),
    ]
    for signed in foreign:
        with pytest.raises(VenueError):
            await case.venue.send(signed)


async def test_frames_that_are_not_understood_are_refused(case: Case) -> None:
    parse = getattr(case.module, "parse", None)
    if parse is None:
        pytest.skip("this kind reads no frames of its own: its answers are read in agent/chains")
    context = case.module.Context(case.name, {}, {})
    for frame in (b"", b"\xff", b"{}", b"[]", b'{"stream":"x","data":{"e":"new"}}', b"[" * 10_000):
        with pytest.raises(FrameError):
            parse(frame, context)


async def test_nothing_shows_the_secret(case: Case) -> None:
    ref, facts = await carried_out(case)
    texts = [repr(case.venue), repr(case.venue.profile), repr(facts), repr(await case.venue.snapshot([ref]))]
    assert not any(case.secret in text for text in texts)
