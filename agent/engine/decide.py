"""The order of the stages, and nothing else: view -> schedule -> route -> children -> gate. Pure: state and market in, events out.

Every event that comes out is journaled before anything acts on it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset, rescale_up
from agent.domain.events import Event, IntentAccepted, IntentEnded, IntentRefused, OrderApproved, OrderRefused
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.market import ChainHead
from agent.domain.plan import Approved, ApproveToken, ChainPlan, PlaceOrder, Plan, Reason, SwapBatch
from agent.domain.price import Price, worse_by
from agent.engine.state import Parent, State
from agent.execution.children import ChainTerms, Part, Tolerance, children
from agent.execution.schedule import Slice, due
from agent.market.view import Market, View
from agent.ports import Allowance, Profile
from agent.risk.gate import Place, Situation, approve, refuse_intent
from agent.risk.limits import Limits
from agent.routing.cost import BATCH_GAS, GasPrice
from agent.routing.split import NoRoute, Piece, Route, report, split

REFUSALS_MAX = 3  # slices in a row that risk refuses before the parent is given up
APPROVE_GAS = 80_000


class Rules(msgspec.Struct, frozen=True):
    """The user's settings that decisions depend on."""

    limits: Limits
    slippage_bps: int = 10  # how much worse than its quote a child may trade
    deadline_s: int = 60  # how long a batch may wait for its block
    gas_tip: int = 10**9
    gas_base: int = BATCH_GAS  # of a batch itself: router, permit, token transfers


class World(msgspec.Struct):
    """What is known of the outside and not journaled."""

    market: Market
    profiles: dict[str, Profile]
    live: frozenset[str]  # venues that are not on this machine
    allowances: dict[tuple[str, str], Allowance]
    nonces: dict[str, int]  # venue -> transactions mined from its wallet, as last seen
    ready: set[str]  # venues that are connected and reconciled


def accept(intent: Intent, state: State, world: World, rules: Rules, now_ns: int) -> IntentAccepted | IntentRefused:
    """A wish becomes a parent, or is refused with every reason."""
    earlier = ((parent.intent, parent.accepted_ns) for parent in state.parents.values())
    reasons = list(refuse_intent(intent, earlier, now_ns, rules.limits))
    view = world.market.view(intent.market, now_ns)
    if view.mid is None:
        why = "; ".join(reason.text for reason in view.untrusted) or "no venue is connected that trades it"
        reasons.append(Reason("NO_REFERENCE_PRICE", f"there is no trusted price for {intent.market}: {why}"))
    if state.halted:
        reasons.append(Reason("TRADING_HALTED", next(iter(state.halted.values()))))
    if reasons or view.mid is None:
        return IntentRefused(intent, tuple(reasons))
    return IntentAccepted(intent, view.mid)


def decide(state: State, world: World, rules: Rules, now_ns: int) -> list[Event]:
    """What to do now, for every live parent. Called after each batch of facts and at every tick."""
    events: list[Event] = []
    for parent in state.parents.values():
        if parent.is_live and not state.unsettled(parent.intent.intent_id):
            events.extend(_work(parent, state, world, rules, now_ns))
            if events:  # one parent at a time: what was decided must be in the state before the next one is looked at
                break
    return events


def _work(parent: Parent, state: State, world: World, rules: Rules, now_ns: int) -> Iterator[Event]:
    intent, left = parent.intent, state.remaining(parent)
    ended = _end(parent, left, state, world, now_ns)
    if ended is not None:
        yield ended
        return
    piece = due(intent, left, parent.slices, parent.slice_ns, now_ns)
    if piece is None or state.halted:
        return
    view = world.market.view(intent.market, now_ns)
    if view.mid is None or not world.ready.issuperset(world.profiles):
        return
    limit = worse_by(parent.arrival, intent.slippage_bps_max, selling=intent.side == "sell")
    gas = gas_prices(world, rules, view.mid)
    route = split(view, intent.side, piece.quantity, capacity(state, world, intent, rules), gas, limit)
    if isinstance(route, NoRoute):
        return
    permission = _permission(parent, route, state, world, rules, left, now_ns)
    if permission is not None:
        yield from permission
        return
    yield from _trade(parent, route, piece, view, limit, state, world, rules, now_ns)


def _end(parent: Parent, left: Amount, state: State, world: World, now_ns: int) -> IntentEnded | None:
    intent = parent.intent
    dust = _dust(intent, world)
    done = "PARTIAL" if parent.filled else None
    if left.units <= dust:
        note = f"{left} is below the smallest lot" if left else ""
        return IntentEnded(intent.intent_id, "FILLED", note)
    if parent.cancelled:
        return IntentEnded(intent.intent_id, "CANCELLED", f"cancelled by the client with {left} left")
    if now_ns >= intent.deadline_ns:
        return IntentEnded(intent.intent_id, done or "EXPIRED", f"the deadline passed with {left} left")
    if parent.refusals >= REFUSALS_MAX:
        return IntentEnded(intent.intent_id, done or "REFUSED", f"risk refused {parent.refusals} times; {left} left")
    return None


def _dust(intent: Intent, world: World) -> int:
    """The finest lot that any venue of the market trades, less one unit: below it nothing can be done."""
    lots = [
        found.lot_units * 10 ** (intent.quantity.asset.decimals - found.base.decimals)
        for found in world.market.instruments()
        if found.market == intent.market and found.is_book
    ]
    return min(lots, default=1) - 1


def capacity(state: State, world: World, intent: Intent, rules: Rules) -> dict[str, Amount]:
    """What the account can still give at each place, by asset id."""
    found: dict[str, Amount] = {}
    for instrument in world.market.instruments():
        if instrument.market != intent.market:
            continue
        asset = instrument.base if intent.side == "sell" else instrument.quote
        free = state.free(intent.account, instrument.venue, asset)
        if free.units > 0:
            found[asset.id] = free
    return found


def gas_prices(world: World, rules: Rules, mid: Price) -> dict[int, GasPrice]:
    """What gas costs on each chain, in the quote group. The base group of every market here is the chain's own coin."""
    return {
        head.chain_id: GasPrice(head.chain_id, head.base_fee + rules.gas_tip, mid, rules.gas_base)
        for head in world.market.heads().values()
    }


def _trade(
    parent: Parent, route: Route, piece: Slice, view: View, limit: Price, state: State, world: World, rules: Rules, now_ns: int
) -> Iterator[Event]:
    intent = parent.intent
    yield report(route, intent.intent_id, piece.index)
    parts = [Part(p.instrument, p.base, p.quote, p.ticks, p.lots) for p in route.pieces]
    ids = _ids(parent, state)
    terms = {
        venue: _terms(venue, parent, route, state, world, rules)
        for venue in dict.fromkeys(p.instrument.venue for p in parts if not p.instrument.is_book)
    }
    plans = children(intent, parts, lambda: next(ids), terms, Tolerance(rules.slippage_bps, limit))
    yield from _gate(plans, parent, view.mid, state, world, rules, now_ns)


def _terms(venue: str, parent: Parent, route: Route, state: State, world: World, rules: Rules) -> ChainTerms:
    chain_id = world.profiles[venue].chain_id
    assert chain_id is not None, "only venues on a chain have pools"
    head = world.market.heads()[chain_id]
    asset = next(_given(p.instrument, parent.intent) for p in route.pieces if p.instrument.venue == venue)
    allowance = world.allowances.get((venue, asset.id))
    return ChainTerms(
        chain_id,
        allowance.permit_nonce if allowance else 0,
        head.timestamp_s + rules.deadline_s,
        rules.gas_base,
        _fee_max(head, rules),
        rules.gas_tip,
    )


def _fee_max(head: ChainHead, rules: Rules) -> int:
    """Twice the base fee and the tip survive six full blocks in a row; the user's cap is absolute."""
    return min(2 * head.base_fee + rules.gas_tip, rules.limits.gas_fee_cap)


def _given(instrument: Instrument, intent: Intent) -> Asset:
    return instrument.base if intent.side == "sell" else instrument.quote


def _permission(
    parent: Parent, route: Route, state: State, world: World, rules: Rules, left: Amount, now_ns: int
) -> list[Event] | None:
    """Permit2 must be allowed to move what the pools take, before the first batch. None when nothing stands in the way."""
    intent = parent.intent
    for venue in dict.fromkeys(p.instrument.venue for p in route.pieces if not p.instrument.is_book):
        pieces = [p for p in route.pieces if p.instrument.venue == venue]
        asset = _given(pieces[0].instrument, intent)
        known = world.allowances.get((venue, asset.id))
        if known is None:
            return []  # not read yet: wait for it
        free = state.free(intent.account, venue, asset)
        if known.amount >= min(_most(pieces, intent, rules), free.units):
            continue
        # USDT refuses to change a permission that is not zero, so it is taken back first
        amount = Amount(0, asset) if known.amount else free
        return list(_gate([_approval(parent, venue, amount, state, world, rules)], parent, None, state, world, rules, now_ns))
    return None


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
        _fee_max(head, rules),
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
    remaining, in_flight = state.remaining(parent), len(state.working)
    for plan in plans:
        account = plan.account

        def free(venue: str, asset: Asset, account: str = account) -> Amount:
            return state.free(account, venue, asset) - Amount(promised.get((venue, asset.id), 0), asset)

        situation = _situation(parent, reference, remaining, in_flight, free, state, world, rules, now_ns)
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
    if not isinstance(plan, ChainPlan):
        return None
    nonce = max(state.nonce_after(plan.venue), world.nonces.get(plan.venue, 0))
    while nonce in state.held_nonces(plan.venue):
        nonce += 1
    return nonce


def _situation(
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
        places(world.profiles, world.live),
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
        next(iter(state.halted.values()), ""),
    )


def places(profiles: Mapping[str, Profile], live: frozenset[str]) -> dict[str, Place]:
    return {
        name: Place(name, one.chain_id, frozenset(c.lower() for c in one.contracts), one.spender, name not in live)
        for name, one in profiles.items()
    }
