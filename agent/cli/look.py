"""Seeing the market without trading: what venues stream, what accounts hold, and what the engine would decide about it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

import msgspec

from agent.app import RealClock, has_account, live_venues, open_venues
from agent.cli.reading import replay
from agent.config import Loaded
from agent.domain.amount import Amount
from agent.domain.errors import LiquidityError
from agent.domain.events import BalanceAdopted, Event, IntentAccepted, OrderApproved, Record, Routed
from agent.domain.intent import Intent
from agent.domain.market import MarketFact
from agent.domain.plan import ApproveToken
from agent.domain.price import Price, worse_by
from agent.engine.decide import decide
from agent.engine.state import State
from agent.engine.submit import accept_all
from agent.engine.world import World, gas_prices
from agent.market.view import Market, View
from agent.ports import Allowance, Profile, Snapshot, Venue
from agent.routing.scorecard import charges, stamped
from agent.routing.split import NoRoute, Route, report, split

LOOK_TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.05
ANY_BPS = 9_000
PERMISSIONS_MAX = 4  # take back and give, for two venues


class Seen(msgspec.Struct, frozen=True):
    """What was seen of the world at one moment."""

    market: Market
    view: View
    mid: Price
    profiles: dict[str, Profile]
    allowances: dict[tuple[str, str], Allowance]
    shots: tuple[Snapshot, ...]


async def look(loaded: Loaded, market: str, *, accounts: bool, measure_s: int = 0) -> Seen:
    """Connect, wait until every source of the market is seen, and leave. Raises LiquidityError if there is no trusted price.

    `measure_s`: stay so much longer, and note what the market does.
    """
    async with open_venues(loaded, None) as (venues, _):
        seen, allowances = await _watch(venues, market, accounts=accounts, measure_s=measure_s)
        able = [venue for name, venue in venues.items() if accounts and has_account(loaded.venues[name])]
        shots = await asyncio.gather(*(venue.snapshot() for venue in able))
        view = seen.view(market, RealClock().now_ns())
        if view.mid is None:
            why = "; ".join(reason.text for reason in view.untrusted) or "no venue answered"
            raise LiquidityError(f"there is no trusted price for {market}: {why}; `isthmus doctor` says more")
        profiles = {name: venue.profile for name, venue in venues.items()}
    return Seen(seen, view, view.mid, profiles, allowances, tuple(shots))


async def _watch(
    venues: dict[str, Venue], market: str, *, accounts: bool, measure_s: int
) -> tuple[Market, dict[tuple[str, str], Allowance]]:
    """Stream from every venue until all that they list of the market can be seen, or time is up; then measure."""
    seen, allowances = Market(), dict[tuple[str, str], Allowance]()

    async def pump(venue: Venue) -> None:
        async for event in venue.stream():
            if isinstance(event, Allowance):
                allowances[event.venue, event.token] = event
            elif isinstance(event, MarketFact):
                seen.apply(event)

    def complete() -> bool:
        view = seen.view(market, RealClock().now_ns())
        listed = [one for one in seen.instruments() if one.market == market]
        told = {venue for venue, _ in allowances} >= {name for name, one in venues.items() if one.profile.spender}
        return bool(listed) and len(view.sources) == len(listed) and (told or not accounts)

    tasks = [asyncio.create_task(pump(venue)) for venue in venues.values()]
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await _until(complete, tasks)
        end_ns = RealClock().now_ns() + measure_s * 10**9
        await _until(lambda: _noted(seen, market, RealClock().now_ns()) >= end_ns, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return seen, allowances


async def _until(complete: Callable[[], bool], tasks: "list[asyncio.Task[None]]") -> None:
    while not complete():
        for task in tasks:
            if task.done():
                task.result()  # a venue that failed ends the look with its own words
        await asyncio.sleep(LOOK_EVERY_S)


def _noted(seen: Market, market: str, now_ns: int) -> int:
    """The time, at which it was noted where the market stands."""
    seen.sample(market, now_ns)
    return now_ns


def routed(
    loaded: Loaded, seen: Seen, side: Literal["sell", "buy"], quantity: Amount, limit_bps: int = ANY_BPS
) -> tuple[Routed, Amount]:
    """The route over what was seen, and what it leaves; venues are charged for their past. Raises LiquidityError.

    Without accounts, as if the inventory were everywhere.
    """
    gas = gas_prices(_world(loaded, seen), loaded.rules(), seen.view.market.partition("/")[2], seen.view.at_ns)
    limit = worse_by(seen.mid, limit_bps, selling=side == "sell")
    cards, listed = replay(loaded).scores.cards, (one.instrument for one in seen.view.sources)
    learnt = charges(cards, loaded.scoring(), seen.view.at_ns, listed)
    found: Route | NoRoute = split(seen.view, side, quantity, _capacity(seen), gas, limit, charges=learnt)
    if isinstance(found, NoRoute):
        raise LiquidityError(f"no route: {'; '.join(reason.text for reason in (*found.reasons, *found.rejected))}")
    return stamped(report(found, "quote", 0), learnt), found.unplaced


def _capacity(seen: Seen) -> dict[str, Amount]:
    if seen.shots:
        return {amount.asset.id: amount for shot in seen.shots for amount in shot.balances}
    assets = [asset for one in seen.view.sources for asset in (one.instrument.base, one.instrument.quote)]
    return {asset.id: Amount(10 ** (asset.decimals + 12), asset) for asset in assets}


def _world(loaded: Loaded, seen: Seen) -> World:
    nonces = {shot.venue: shot.nonce for shot in seen.shots if shot.nonce is not None}
    return World(
        seen.market, seen.profiles, frozenset(live_venues(loaded)), dict(seen.allowances), nonces, set(seen.profiles)
    )  # fmt: skip


def rehearse(loaded: Loaded, seen: Seen, intent: Intent, *, live: bool) -> list[Event]:
    """What the engine would decide about the first slice, with every answer of the gate. Nothing is journaled, signed or sent.

    An order that waits for a price is decided on as if it fired now. A permission that is missing is decided too, and then taken
    for granted, so that the orders behind it are seen.
    """
    now_ns, rules, world = RealClock().now_ns(), loaded.rules(live=live), _world(loaded, seen)
    state, past = State(rules.scoring), replay(loaded)
    state.halted, state.scores.cards = dict(past.halted), dict(past.scores.cards)
    for shot in seen.shots:
        for amount in shot.balances:
            adopted = BalanceAdopted(intent.account, shot.venue, amount, "seen")
            state.apply(Record(state.seq + 1, now_ns, adopted, ""))
    alone = msgspec.structs.replace(intent, group="", after="")  # what it is linked to is not here
    (answer,) = accept_all((alone,), state, world, rules, now_ns)
    events: list[Event] = [answer]
    if not isinstance(answer, IntentAccepted):
        return events
    fired = IntentAccepted(msgspec.structs.replace(alone, trigger=None), answer.arrival, answer.coin)
    state.apply(Record(state.seq + 1, now_ns, fired, ""))
    for _ in range(PERMISSIONS_MAX + 1):
        decided = decide(state, world, rules, now_ns)
        words = [question.explained() for question in world.unexplained]
        world.unexplained.clear()
        events += [words[0].told_of(one) if words and isinstance(one, Routed) else one for one in decided]
        granted = [one.approved.plan for one in decided if isinstance(one, OrderApproved)]
        permissions = [plan for plan in granted if isinstance(plan, ApproveToken)]
        if not permissions:
            break
        for plan in permissions:
            token = plan.sell.asset.id
            nonce = world.allowances[plan.venue, token].permit_nonce
            world.allowances[plan.venue, token] = Allowance(plan.venue, token, plan.sell.units, nonce, now_ns)
    return events
