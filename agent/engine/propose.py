"""From a route to orders that may be sent: permission for the token, then one child for each book and one batch for each chain.

Every plan passes the gate on its own, and what has passed counts at once for those after it. Pure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from agent.domain.amount import Amount, Asset, group_asset, rescale_down, rescale_up, zero
from agent.domain.events import Event, OrderApproved, OrderRefused, Routed, RoutePiece
from agent.domain.instrument import PIPS, Instrument
from agent.domain.intent import Intent
from agent.domain.plan import Approved, ApproveToken, ChainPlan, PlaceOrder, Plan, SwapBatch
from agent.domain.price import Price, decimal_of, price_of, worse_by
from agent.engine.links import room
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.world import Rules, World
from agent.execution.children import ChainTerms, Part, Tolerance, children, native, resting
from agent.execution.fees import gas_fee_max
from agent.execution.moves import HandOver, Rest
from agent.execution.placement import Post
from agent.execution.schedule import Slice
from agent.market.view import View
from agent.ports import Profile
from agent.risk.gate import Place, Situation, approve
from agent.routing.cost import Charge
from agent.routing.scorecard import stamped
from agent.routing.split import Piece, Route, report

APPROVE_GAS = 80_000


def trade(
    parent: Parent,
    route: Route,
    piece: Slice,
    view: View,
    limit: Price,
    learnt: Mapping[str, Charge],
    state: State,
    world: World,
    rules: Rules,
    now_ns: int,
    *,
    wanted: Amount | None,
    posts: Mapping[str, Post],
) -> Iterator[Event]:
    """The route as it is journaled, with what venues were charged for their past (`learnt`); then every order that may be sent.

    `wanted`: what the algorithm wants to have traded in all, then. `posts`: which parts at books rest instead of taking.
    """
    intent = parent.intent
    told = stamped(report(route, intent.intent_id, piece.index), learnt)
    yield msgspec.structs.replace(told, mid=view.mid, decided_ns=now_ns, wanted=wanted)
    parts = [Part(p.instrument, p.base, p.quote, p.ticks, p.lots) for p in route.pieces]
    ids = _ids(parent, state)
    terms = {
        venue: _terms(venue, parent, route, world, rules)
        for venue in dict.fromkeys(p.instrument.venue for p in parts if not p.instrument.is_book)
    }
    plans = children(intent, parts, lambda: next(ids), terms, Tolerance(rules.slippage_bps, limit), posts)
    yield from _gate(plans, parent, view.mid, state, world, rules, now_ns)


def rest(
    parent: Parent, move: Rest, view: View, limit: Price, state: State, world: World, rules: Rules, now_ns: int
) -> Iterator[Event]:
    """One order that waits at a book, as a route of one piece; nothing when it is too small there, or beyond the limit."""
    intent, found = parent.intent, world.market.instrument(move.instrument)
    if found is None or view.mid is None:
        return
    lots = int(rescale_down(move.quantity, found.base).units) // found.lot_units
    if not lots:
        return
    plan = resting(intent, found, move.ticks, lots, next(_ids(parent, state)))
    base, quote = (plan.sell, plan.buy) if intent.side == "sell" else (plan.buy, plan.sell)
    price = price_of(quote, base)
    if quote.units < found.notional_min or (price < limit if intent.side == "sell" else price > limit):
        return
    fee = quote.units * found.maker_pips // PIPS
    kept = Amount(quote.units - fee if intent.side == "sell" else quote.units + fee, quote.asset)
    group = group_asset(intent.quote)
    net = rescale_down(kept, group) if intent.side == "sell" else rescale_up(kept, group)
    placed, told = rescale_down(base, intent.quantity.asset), float(decimal_of(price))
    all_in = told * (1 - found.maker_pips / PIPS if intent.side == "sell" else 1 + found.maker_pips / PIPS)
    piece = RoutePiece(found.id, placed, net, 1.0, all_in, all_in, found.maker_pips, zero(net.asset), move.why)
    yield Routed(intent.intent_id, parent.slices, placed, (piece,), net, (), (), view.mid, now_ns)
    yield from _gate([plan], parent, view.mid, state, world, rules, now_ns)


def hand_over(
    parent: Parent, move: HandOver, view: View, limit: Price, state: State, world: World, rules: Rules, now_ns: int
) -> Iterator[Event]:
    """One order that the venue works by its own TWAP, as a route of one piece. It is journaled, also if refused."""
    intent, found, mid = parent.intent, world.market.instrument(move.instrument), view.mid
    assert found is not None and mid is not None, "what is handed over was seen in the view"  # noqa: PT018
    worst = worse_by(mid, rules.limits.collar_bps, selling=intent.side == "sell")
    bound = max(limit, worst) if intent.side == "sell" else min(limit, worst)
    top, bottom = int(bound.num) * 10**found.quote.decimals, int(bound.den) * found.tick_units
    ticks = -(-top // bottom) if intent.side == "sell" else top // bottom
    lots = int(rescale_down(move.quantity, found.base).units) // found.lot_units
    plan = native(intent, found, ticks, lots, move.seconds, next(_ids(parent, state)))
    placed = rescale_down(plan.sell if intent.side == "sell" else plan.buy, intent.quantity.asset)
    group, price = group_asset(intent.quote), float(decimal_of(mid))
    all_in = price * (1 - found.fee_pips / PIPS if intent.side == "sell" else 1 + found.fee_pips / PIPS)
    value = int(placed.units) * int(mid.num) * 10**group.decimals // (int(mid.den) * 10**placed.asset.decimals)
    fee = -(-value * found.fee_pips // PIPS)
    net = Amount(value - fee if intent.side == "sell" else value + fee, group)
    why = f"{found.venue} works it by its own TWAP over {move.seconds} s"
    piece = RoutePiece(found.id, placed, net, 1.0, all_in, all_in, found.fee_pips, zero(group), why)
    yield Routed(intent.intent_id, parent.slices, placed, (piece,), net, (), (), mid, now_ns)
    yield from _gate([plan], parent, mid, state, world, rules, now_ns)


def _terms(venue: str, parent: Parent, route: Route, world: World, rules: Rules) -> ChainTerms:
    chain_id = world.profiles[venue].chain_id
    assert chain_id is not None, "only venues on a chain have pools"
    head = world.market.heads()[chain_id]
    asset = next(given(p.instrument, parent.intent) for p in route.pieces if p.instrument.venue == venue)
    allowance = world.allowances.get((venue, asset.id))
    return ChainTerms(
        chain_id,
        allowance.permit_nonce if allowance else 0,
        head.timestamp_s + rules.deadline_s,
        rules.gas_base,
        gas_fee_max(head.base_fee, rules.gas_tip, rules.limits.gas_fee_cap),
        rules.gas_tip,
    )


def given(instrument: Instrument, intent: Intent) -> Asset:
    """What leaves the account."""
    return instrument.base if intent.side == "sell" else instrument.quote


def permission(parent: Parent, route: Route, state: State, world: World, rules: Rules, now_ns: int) -> list[Event] | None:
    """Permit2 must be allowed to move what the pools take, before the first batch. None when nothing stands in the way."""
    intent = parent.intent
    for venue in dict.fromkeys(p.instrument.venue for p in route.pieces if not p.instrument.is_book):
        pieces = [p for p in route.pieces if p.instrument.venue == venue]
        asset = given(pieces[0].instrument, intent)
        known = world.allowances.get((venue, asset.id))
        if known is None:
            return []  # not read yet: wait for it
        free = state.free(intent.account, venue, asset)
        if known.amount >= min(_most(pieces, intent, rules), free.units):
            continue
        # USDT refuses to change a permission that is not zero, so it is taken back first
        amount = Amount(0, asset) if known.amount else min(_rest(parent, asset, state), free)
        return list(_gate([_approval(parent, venue, amount, state, world, rules)], parent, None, state, world, rules, now_ns))
    return None


def _rest(parent: Parent, asset: Asset, state: State) -> Amount:
    """The most that the rest of the parent can take of a coin, at its limit: what Permit2 is allowed, and no more."""
    most = most_given(state.remaining(parent), parent, asset)
    return rescale_up(most, asset)


def most_given(base: Amount, parent: Parent, quote: Asset) -> Amount:
    """The most that trading `base` (of the base group) takes, at the parent's limit, rounded up: of the base or of `quote`."""
    intent = parent.intent
    if intent.side == "sell":
        return base
    limit = worse_by(parent.arrival, intent.slippage_bps_max, selling=False)
    top: int = base.units * limit.num * 10**quote.decimals
    bottom: int = limit.den * 10**base.asset.decimals
    return Amount(-(-top // bottom), quote)


def _most(pieces: Sequence[Piece], intent: Intent, rules: Rules) -> int:
    """The most that the pieces may take from the account: bought amounts may cost up to the slippage more."""
    total = sum(p.base.units if intent.side == "sell" else p.quote.units for p in pieces)
    return total if intent.side == "sell" else -(-total * (10_000 + rules.slippage_bps) // 10_000)


def _approval(parent: Parent, venue: str, amount: Amount, state: State, world: World, rules: Rules) -> ApproveToken:
    profile, intent = world.profiles[venue], parent.intent
    assert profile.chain_id is not None, "only venues on a chain need permissions"
    head = world.market.heads()[profile.chain_id]
    return ApproveToken(
        next(_ids(parent, state)),
        intent.intent_id,
        intent.account,
        venue,
        profile.chain_id,
        amount,
        profile.spender,
        APPROVE_GAS,
        gas_fee_max(head.base_fee, rules.gas_tip, rules.limits.gas_fee_cap),
        rules.gas_tip,
    )


def _ids(parent: Parent, state: State) -> Iterator[str]:
    """Deterministic order ids, unique in the journal and short enough for any venue's client order id."""
    count = len(parent.orders)
    while True:
        name = f"{parent.intent.intent_id}-{count}"
        count += 1
        if name not in state.orders:
            yield name


def _gate(
    plans: Sequence[Plan], parent: Parent, reference: Price | None, state: State, world: World, rules: Rules, now_ns: int
) -> Iterator[OrderApproved | OrderRefused]:
    """Each plan through the gate; what passes counts at once for those after it."""
    promised: dict[tuple[str, str], int] = {}
    remaining, in_flight = room(parent, state), len(state.working)
    for plan in plans:
        account = plan.account

        def free(venue: str, asset: Asset, account: str = account) -> Amount:
            return state.free(account, venue, asset) - Amount(promised.get((venue, asset.id), 0), asset)

        situation = _situation(plan, parent, reference, remaining, in_flight, free, state, world, rules, now_ns)
        answer = approve(plan, situation, _nonce(plan, state, world))
        if not isinstance(answer, Approved):
            yield OrderRefused(answer.plan, answer.reasons)
            continue
        in_flight += 1
        if isinstance(plan, PlaceOrder | SwapBatch):
            key = plan.venue, plan.sell.asset.id
            promised[key] = promised.get(key, 0) + plan.sell.units
            remaining = remaining - rescale_up(plan.sell if parent.intent.side == "sell" else plan.buy, remaining.asset)
        yield OrderApproved(answer)


def _nonce(plan: Plan, state: State, world: World) -> int | None:
    """Reserved by the approval: see `_busy_chains`, which keeps two of one decision from meeting."""
    return state.next_nonce(plan.venue, world.nonces.get(plan.venue, 0)) if isinstance(plan, ChainPlan) else None


def _situation(
    plan: Plan,
    parent: Parent,
    reference: Price | None,
    remaining: Amount,
    in_flight: int,
    free: Callable[[str, Asset], Amount],
    state: State,
    world: World,
    rules: Rules,
    now_ns: int,
) -> Situation:
    account = parent.intent.account

    def native(venue: str) -> Amount | None:
        chain_id = world.profiles[venue].chain_id
        return state.ledger.balance(account, venue, Asset("ETH", f"eip155:{chain_id}", 18, "ETH"))

    def allowance(venue: str, asset: Asset) -> int | None:
        known = world.allowances.get((venue, asset.id))
        return known.amount if known else None

    def chain_time_s(chain_id: int) -> int | None:
        head = world.market.heads().get(chain_id)
        return head.timestamp_s if head else None

    return Situation(
        now_ns,
        rules.limits,
        places(plan.venue, world.profiles, world.live),
        world.market.instrument,
        reference,
        free,
        native,
        allowance,
        chain_time_s,
        parent.intent,
        remaining,
        lambda name: name in state.orders,
        in_flight,
        state.halt_of_plan(plan),
    )


def places(venue: str, profiles: Mapping[str, Profile], live: frozenset[str]) -> dict[str, Place]:
    """What risk must know of the venue of a plan; nothing where it is not configured."""
    return {venue: _place(profiles[venue], venue not in live)} if venue in profiles else {}


@lru_cache(maxsize=256)
def _place(profile: Profile, is_local: bool) -> Place:
    contracts = frozenset(contract.lower() for contract in profile.contracts)
    return Place(profile.name, profile.chain_id, contracts, profile.spender, is_local)
