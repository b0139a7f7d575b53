"""The order of the stages, and nothing else: view -> schedule -> route -> children -> gate. Pure: state and market in, events out.

Every event that comes out is journaled before anything acts on it.
"""

import itertools
from collections.abc import Iterator, Mapping

import msgspec

from agent.domain.amount import Amount, Asset, group_asset, rescale_down
from agent.domain.events import Event, IntentAccepted, IntentEnded, IntentRefused, IntentTrailed
from agent.domain.intent import Intent
from agent.domain.order import RESTING, Order, OrderState
from agent.domain.plan import ChainPlan, PlaceOrder, Plan, Reason
from agent.domain.price import Price
from agent.engine.conditions import held, is_quiet
from agent.engine.explain import Question
from agent.engine.links import ended as ended_by_others
from agent.engine.links import room
from agent.engine.parent import Parent
from agent.engine.propose import given, hand_over, most_given, permission, rest, trade
from agent.engine.state import State
from agent.engine.work import (
    least_of,
    limit_of,
    next_move,
    posts,
    rest_easy,
    rested,
    sleeps,
    standing,
    tighter,
    unworkable_natively,
)
from agent.engine.world import Rules, World, coin_price, gas_prices
from agent.execution.algorithms import refusals
from agent.execution.moves import HandOver, Move, Rest, Take
from agent.execution.schedule import Slice, due
from agent.execution.standing import can_take
from agent.market.view import View
from agent.risk.gate import refuse_intent
from agent.routing.scorecard import VENUE_DEGRADED, charges, degraded
from agent.routing.split import NoRoute, Route
from agent.routing.terms import Rules as RouteRules

REFUSALS_MAX = 3  # orders in a row that risk refuses before the parent is given up
FAILURES_MAX = 3  # orders in a row that a venue rejects or reverts before the parent goes on without it
STUCK_NS = 60_000_000_000  # a transaction that waits longer for its block no longer holds up anything else
ALL_IN_TRIES = 4
SLEEPERS_SPARE = 64  # parents that have ended and are still noted as asleep
REST_NS = 500_000_000  # after a failure; doubles with each further one, so that nothing is tried again blindly


def accept(intent: Intent, state: State, world: World, rules: Rules, now_ns: int) -> IntentAccepted | IntentRefused:
    """A wish becomes a parent, or is refused with every reason."""
    since_ns = now_ns - rules.limits.duplicate_window_ns
    recent = itertools.takewhile(lambda parent: parent.accepted_ns > since_ns, reversed(state.parents.values()))
    same = [state.parents[intent.intent_id]] if intent.intent_id in state.parents else []
    earlier = ((parent.intent, parent.accepted_ns) for parent in (*same, *recent))
    reasons = list(dict.fromkeys(refuse_intent(intent, earlier, now_ns, rules.limits)))
    view = world.market.view(intent.market, now_ns)
    if view.mid is None:
        why = "; ".join(reason.text for reason in view.untrusted) or "no venue is connected that trades it"
        reasons.append(Reason("NO_REFERENCE_PRICE", f"there is no trusted price for {intent.market}: {why}"))
    reasons.extend(unworkable(intent, world, rules, now_ns, now_ns))
    if not reasons and view.mid is not None:
        reasons.extend(unworkable_natively(intent, view.mid, world))
    if all(account != intent.account for account, _ in state.adopted):
        reasons.append(Reason("VALIDATION_FAILED", f"this agent works no account named {intent.account[:40]!r}"))
    if halt := _halt(intent, state, world):
        reasons.append(Reason("TRADING_HALTED", halt))
    if reasons or view.mid is None:
        return IntentRefused(intent, tuple(reasons))
    return IntentAccepted(intent, view.mid, coin_price(world, intent.quote, now_ns))


def unworkable(intent: Intent, world: World, rules: Rules, begun_ns: int, now_ns: int) -> Iterator[Reason]:
    """Whether the wish is below what any venue trades, or its algorithm, begun then, cannot work it like that."""
    dust = dust_of(intent, world)
    if 0 < intent.quantity.units <= dust:
        lot = Amount(dust + 1, intent.quantity.asset)
        yield Reason("QUANTITY_BELOW_MINIMUM", f"{intent.quantity} is below the smallest lot of any venue, {lot}")
    if intent.algo is not None:
        mid = world.market.view(intent.market, now_ns).mid
        least = dust + 1 if mid is None else least_of(intent, mid, world, rules, now_ns)
        yield from refusals(intent, intent.algo, begun_ns, least=least)


def decide(state: State, world: World, rules: Rules, now_ns: int) -> list[Event]:
    """What to do now, for every live parent. Called after each batch of facts and at every tick."""
    events: list[Event] = []
    if len(world.sleepers) > 2 * len(state.live) + SLEEPERS_SPARE:
        world.sleepers = {name: one for name, one in world.sleepers.items() if name in state.live}
    for parent in state.live.values():
        if world.sleepers and sleeps(parent, world, now_ns):
            continue
        if parent.is_waiting and is_quiet(parent, state, world, now_ns):
            continue
        events.extend(_work(parent, state, world, rules, now_ns))
        # one parent at a time: what was decided must be in the state before the next one is looked at, unless it moves nobody else
        if not all(isinstance(event, IntentTrailed) for event in events):
            break
    return events


def prepare(state: State, rules: Rules, now_ns: int) -> None:
    """While nothing is to be done: work out what the next decision needs and no market changes."""
    charges(state.scores.cards, rules.scoring, now_ns, ())


def _halt(intent: Intent, state: State, world: World) -> str:
    """Why nothing new may be traded for the parent; empty as long as one of its instruments may be."""
    if not state.halted:
        return ""
    listed = world.market.listed(intent.market)
    halts = [state.halt_of(one.venue, one.id) for one in listed]
    return halts[0] if halts and all(halts) else state.halt_of()


def _work(parent: Parent, state: State, world: World, rules: Rules, now_ns: int) -> Iterator[Event]:
    intent, left = parent.intent, state.remaining(parent)
    flying = state.unsettled(intent.intent_id)
    waited_for = {order.plan.venue for order in flying if not _is_patient(order, intent)}
    if waited_for and waited_for - _stuck(state, world, now_ns):
        return
    dust = dust_of(intent, world)
    least = dust + 1 if intent.algo is None else least_of(intent, parent.arrival, world, rules, now_ns)
    ended = ended_by_others(parent, dust, state) or _end(parent, left, least, state, world, rules, now_ns)
    if ended is not None:
        if not flying:
            yield ended
        return
    if (instead := held(parent, dust, state, world, now_ns)) is not None:
        yield from instead
        return
    move = _move(parent, room(parent, state), least, state, world, now_ns)
    if move is None and not flying:
        rest_easy(parent, world, now_ns)
    if move is None or _halt(intent, state, world) or _rests(parent, now_ns):
        return
    if not (world.has_begun or world.ready.issuperset(world.profiles)):
        return
    busy = _busy_chains(intent, state, world, now_ns)
    if busy and (intent.algo is None or (isinstance(move, Take) and move.is_last)):
        return
    view = world.market.view(intent.market, now_ns)
    if view.mid is None:
        return
    if isinstance(move, Rest):
        yield from rest(parent, move, view, limit_of(parent), state, world, rules, now_ns)
    elif isinstance(move, HandOver):
        yield from hand_over(parent, move, view, limit_of(parent), state, world, rules, now_ns)
    else:
        yield from _take(parent, move, view, busy, state, world, rules, now_ns)


def _move(parent: Parent, left: Amount, least: int, state: State, world: World, now_ns: int) -> Move | None:
    """What is to be done next, by the algorithm or, without one, by the clock alone."""
    if parent.intent.algo is None:
        piece = due(parent.intent, left, parent.slices, parent.slice_ns, now_ns)
        return None if piece is None else Take(piece.quantity)
    return next_move(standing(parent, left, least, state, world, now_ns))


def _take(
    parent: Parent, move: Take, view: View, busy: set[str], state: State, world: World, rules: Rules, now_ns: int
) -> Iterator[Event]:
    """Over all venues; an algorithm leaves out those whose chain is busy, and pools that had no time to refill."""
    intent, limit = parent.intent, tighter(limit_of(parent), move.limit, parent)
    if intent.limit is not None and not can_take(view, limit, selling=intent.side == "sell"):
        return  # most that have a limit wait for it: no route is looked for before the market is there
    if busy:
        view = msgspec.structs.replace(view, sources=tuple(one for one in view.sources if one.instrument.venue not in busy))
    if intent.algo is not None and not move.is_last:
        view = rested(view, parent, state, world)
    asked = _question(parent, parent.slices, move.quantity, limit, view, state, world, rules, now_ns)
    route = asked.route(world.memo(intent.market, intent.side))
    if move.is_all_in:
        asked, route = _all_in(asked, route, limit, world)
    if isinstance(route, NoRoute):
        return
    resting = posts(move, route, view, asked.charges, parent, world, now_ns)
    first = permission(parent, route, state, world, rules, now_ns)
    if first is not None:
        yield from first
        return
    world.unexplained.append(
        msgspec.structs.replace(asked, rests={name: one.why for name, one in resting.items()}) if resting else asked
    )
    piece = Slice(parent.slices, move.quantity)
    yield from trade(
        parent, route, piece, view, limit, asked.charges, state, world, rules, now_ns, wanted=move.wanted, posts=resting
    )


def _all_in(asked: Question, route: Route | NoRoute, limit: Price, world: World) -> tuple[Question, Route | NoRoute]:
    """The route without what costs more than the limit once fees and gas are paid."""
    worst, selling = int(limit.num) / int(limit.den), asked.side == "sell"
    for _ in range(ALL_IN_TRIES):
        if isinstance(route, NoRoute):
            break
        dear = {one.instrument.id for one in route.pieces if (one.price_all_in < worst if selling else one.price_all_in > worst)}
        if not dear:
            return asked, route
        kept = tuple(one for one in asked.view.sources if one.instrument.id not in dear)
        asked = msgspec.structs.replace(asked, view=msgspec.structs.replace(asked.view, sources=kept))
        route = asked.route(world.memo(asked.view.market, asked.side))
    return asked, route if isinstance(route, NoRoute) else NoRoute(asked.side, asked.quantity, (), ())


def _is_patient(order: Order, intent: Intent) -> bool:
    """An order that rests may rest long; the parent does not wait for it. Nor does an algorithm for a block, which is slow."""
    if intent.algo is not None and isinstance(order.plan, ChainPlan):
        return True
    return order.state in RESTING and isinstance(order.plan, PlaceOrder) and order.plan.time_in_force in ("GTC", "POST")


def _question(
    parent: Parent, index: int, quantity: Amount, limit: Price, view: View, state: State, world: World, rules: Rules, now_ns: int
) -> Question:
    free = capacity(state, world, rules, parent, now_ns)
    gas = gas_prices(world, rules, parent.intent.quote, now_ns)
    if state.halted:
        usable = tuple(one for one in view.sources if not state.halt_of(one.instrument.venue, one.instrument.id))
        view = msgspec.structs.replace(view, sources=usable)
    view = _trusted(view, parent, quantity, free, state, rules, now_ns)
    learnt = charges(state.scores.cards, rules.scoring, now_ns, (one.instrument for one in view.sources))
    settings = RouteRules(reserve_bps=rules.slippage_bps)
    return Question(parent.intent.intent_id, index, view, parent.intent.side, quantity, free, gas, limit, settings, learnt)


def _trusted(
    view: View, parent: Parent, quantity: Amount, free: Mapping[str, Amount], state: State, rules: Rules, now_ns: int
) -> View:
    """Without the venues that fail too often just now, as long as the balances at the others carry the whole quantity."""
    avoided = degraded(state.scores.cards, rules.scoring, now_ns)
    if not avoided:
        return view
    kept = tuple(one for one in view.sources if one.instrument.venue not in avoided)
    assets = {asset.id: asset for one in kept if (asset := given(one.instrument, parent.intent)).id in free}
    needed = most_given(quantity, parent, group_asset(parent.intent.quote))
    if sum(rescale_down(free[name], needed.asset).units for name in assets) < needed.units:
        return view
    seen = dict.fromkeys(one.instrument.venue for one in view.sources)
    left_out = tuple(Reason(VENUE_DEGRADED, avoided[venue]) for venue in seen if venue in avoided)
    return msgspec.structs.replace(view, sources=kept, untrusted=(*view.untrusted, *left_out))


def _hindrance(parent: Parent, left: Amount, state: State, world: World, rules: Rules, now_ns: int) -> str:
    """What stands in the way of the rest just now, for people; empty if nothing does."""
    intent = parent.intent
    if parent.paused or parent.is_waiting:
        return "it was paused" if parent.paused else f"it waited {parent.waits_for}"
    if halt := _halt(intent, state, world):
        return halt
    if away := sorted(world.profiles.keys() - world.ready):
        return f"not connected: {', '.join(away)}"
    view = world.market.view(intent.market, now_ns)
    if view.mid is None:
        return f"there is no trusted price for {intent.market}"
    if not capacity(state, world, rules, parent, now_ns):
        return f"no venue that can be used has {intent.base if intent.side == 'sell' else intent.quote} to give"
    route = _question(parent, 0, left, limit_of(parent), view, state, world, rules, now_ns).route(
        world.memo(intent.market, intent.side)
    )
    return "; ".join(reason.text for reason in route.reasons) if isinstance(route, NoRoute) else ""


def _end(parent: Parent, left: Amount, least: int, state: State, world: World, rules: Rules, now_ns: int) -> IntentEnded | None:
    intent = parent.intent
    done = "PARTIAL" if parent.filled else None
    if left.units < 0:
        return IntentEnded(intent.intent_id, "FILLED", f"traded {-left} more than asked")
    if parent.filled and left.units < least:
        return IntentEnded(intent.intent_id, "FILLED", f"{left} is below what any venue takes" if left else "")
    if parent.cancelled:
        return IntentEnded(intent.intent_id, "CANCELLED", f"cancelled by the client with {left} left")
    if now_ns >= intent.deadline_ns:
        why = _hindrance(parent, left, state, world, rules, now_ns)
        return IntentEnded(intent.intent_id, done or "EXPIRED", f"the deadline passed with {left} left{'; ' if why else ''}{why}")
    if parent.refusals >= REFUSALS_MAX:
        return IntentEnded(intent.intent_id, done or "REFUSED", f"risk refused {parent.refusals} times; {left} left")
    venues = {found.venue for found in world.market.listed(intent.market)} if parent.failures else set[str]()
    if venues and venues <= _given_up(parent):
        last = max(venues, key=lambda venue: parent.failed_ns[venue])
        why = next(o.reason for name in reversed(parent.orders) if (o := state.orders[name]).plan.venue == last)
        return IntentEnded(
            intent.intent_id, done or "REFUSED", f"every venue failed {FAILURES_MAX} times; last {last}: {why}; {left} left"
        )
    return None


def _rests(parent: Parent, now_ns: int) -> bool:
    """After a failure the parent waits a little, then is routed anew."""
    return any(
        now_ns < parent.failed_ns[venue] + (REST_NS << (count - 1))
        for venue, count in parent.failures.items()
        if count < FAILURES_MAX
    )


def _busy_chains(intent: Intent, state: State, world: World, now_ns: int) -> set[str]:
    """One transaction of a wallet at a time: the next permit is known only when the one before is in a block.

    So a market with pools waits for the block, or goes on without them where an algorithm spreads it over time; but nobody waits
    for a transaction that is stuck.
    """
    busy = {order.plan.venue for order in state.chain_orders()} | world.anchoring
    busy -= _stuck(state, world, now_ns) if busy else set()
    return busy & {found.venue for found in world.market.listed(intent.market)} if busy else busy


def _stuck(state: State, world: World, now_ns: int) -> set[str]:
    """Venues of whose orders nobody can say when they end: not connected, or with a transaction that is in doubt, pays less than
    blocks cost now, or has waited too long. What these may still trade stays reserved; the rest is traded elsewhere meanwhile.
    """
    heads = world.market.heads()

    def is_priced_out(plan: Plan) -> bool:
        head = heads.get(plan.chain_id) if isinstance(plan, ChainPlan) else None
        return head is not None and isinstance(plan, ChainPlan) and plan.gas_fee_max < head.base_fee

    waiting = {
        o.plan.venue
        for o in state.working.values()
        if o.state is OrderState.UNKNOWN
        or (isinstance(o.plan, ChainPlan) and (now_ns > o.approved_ns + STUCK_NS or is_priced_out(o.plan)))
    }
    return waiting | (world.profiles.keys() - world.ready)


def _too_dear(world: World, rules: Rules) -> set[str]:
    """Chain venues where gas costs more than the user's cap: the gate would refuse every order there."""
    dear = {head.chain_id for head in world.market.heads().values() if head.base_fee + rules.gas_tip > rules.limits.gas_fee_cap}
    return {name for name, profile in world.profiles.items() if profile.chain_id in dear}


def dust_of(intent: Intent, world: World) -> int:
    """The finest lot that any venue of the market trades, less one unit: below it nothing can be done."""
    decimals = intent.quantity.asset.decimals
    lots: list[int] = [units * 10 ** (decimals - places) for units, places in world.market.lots(intent.market)]
    return min(lots, default=1) - 1


def _given_up(parent: Parent) -> set[str]:
    return {venue for venue, count in parent.failures.items() if count >= FAILURES_MAX}


def capacity(state: State, world: World, rules: Rules, parent: Parent, now_ns: int) -> dict[str, Amount]:
    """What the account can still give at each place, by asset id.

    Nothing at a venue that is away or failed the parent too often, nothing on a chain where a transaction is stuck or gas too dear.
    """
    intent, found = parent.intent, dict[str, Amount]()
    closed = _given_up(parent) | _stuck(state, world, now_ns) | _too_dear(world, rules) | state.status.keys()
    seen: set[tuple[str, Asset]] = set()
    for instrument in world.market.listed(intent.market):
        asset = instrument.base if intent.side == "sell" else instrument.quote
        key = instrument.venue, asset
        if key in seen or instrument.venue in closed or (state.halted and state.halt_of(instrument.venue, instrument.id)):
            continue
        seen.add(key)
        free = state.free(intent.account, instrument.venue, asset)
        if free.units > 0:
            found[asset.id] = free
    return found
