"""One step of a parent that an algorithm works: what it sees, what it wants next, what of it should rest instead of take. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset, group_asset, rescale_down, rescale_up
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.order import RESTING, Order
from agent.domain.plan import PlaceOrder, Reason, SwapBatch
from agent.domain.price import Price, worse_by
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.world import Rules, Sleeper, World, gas_prices
from agent.execution import placement
from agent.execution.algorithms import OUT_OF_RANGE, read
from agent.execution.moves import Move, Take
from agent.execution.native import refusals
from agent.execution.placement import Post, Sight
from agent.execution.schedule import RETRY_NS
from agent.execution.standing import Resting, Standing, can_take
from agent.liquidity.depth import Depth
from agent.market.view import Source, View
from agent.ports import NativeTwap
from agent.routing.cost import Charge, gas_up
from agent.routing.split import Route

SLEEP_NS = 1_000_000_000
LOOKED_BACK = 8  # orders of a parent, when pools that were just used are looked for
WOULD_NS = 500_000_000  # between attempts to take all at the I-would price
NATIVE_LATE_NS = 5_000_000_000  # after its time, before what a venue works by itself is taken back
REFILL_BLOCKS = 2  # a pool that was just used is left alone for so long, for others to bring it back to the market


def unworkable_natively(intent: Intent, mid: Price, world: World) -> Iterator[Reason]:
    """Why no venue would work by itself what the order wants to hand over."""
    own = read(intent.algo).own if intent.algo is not None else None
    if own is None or not (pct := getattr(own, "native_pct", 0)):
        return
    listed = ((found, world.profiles[found.venue].native_twap) for found in world.market.listed(intent.market))
    offers = [(found, terms) for found, terms in listed if terms is not None]
    for text in refusals(intent, pct, own.duration_ns, mid, offers):
        yield Reason(OUT_OF_RANGE, text)


def limit_of(parent: Parent) -> Price:
    """The worst price of a parent, before fees: so much worse than arrival, and no worse than its own limit."""
    intent = parent.intent
    return tighter(worse_by(parent.arrival, intent.slippage_bps_max, selling=intent.side == "sell"), intent.limit, parent)


def tighter(limit: Price, other: Price | None, parent: Parent) -> Price:
    if other is None:
        return limit
    return max(limit, other) if parent.intent.side == "sell" else min(limit, other)


def standing(parent: Parent, left: Amount, least: int, state: State, world: World, now_ns: int) -> Standing:
    """What the algorithm looks at; what costs more is worked out when it asks."""
    intent, limit = parent.intent, limit_of(parent)
    route = parent.routes[-1] if parent.routes else None

    def view() -> View:
        return world.market.view(intent.market, now_ns)

    def resting() -> Sequence[Resting]:
        return [_resting(order, order.plan, intent.quantity) for order in state.unsettled(intent.intent_id) if _rests(order)]

    def on_books(since_ns: int) -> float:
        return _on_books(parent, state, since_ns)

    def free(found: Instrument) -> int:
        return _free(found, parent, limit, state)

    return Standing(
        intent,
        parent.begun_ns,
        now_ns,
        parent.arrival,
        left,
        parent.slices,
        parent.slice_ns,
        route.wanted if route is not None else None,
        limit,
        least,
        view,
        lambda: world.market.bars(intent.market),
        resting,
        on_books,
        free,
        lambda found: _native(found, parent, state, world),
        lambda: _given(parent, state),
    )


def next_move(stand: Standing) -> Move | None:
    """What to do now. The client's I-would price comes first."""
    intent = stand.intent
    if intent.algo is None or not stand.left.units:
        return None
    if intent.would is not None and _would(stand, intent.would):
        is_early = stand.slices and stand.now_ns < stand.last_ns + WOULD_NS
        return None if is_early else Take(stand.left, stand.wanted, limit=intent.would)
    return read(intent.algo).step(stand)


def sleeps(parent: Parent, world: World, now_ns: int) -> bool:
    """Whether nothing can be due for it yet: then the many are not looked at for the one whose time has come."""
    found = world.sleepers.get(parent.intent.intent_id)
    return found is not None and now_ns < found.until_ns and found.intent is parent.intent and found.stood == _stood(parent)


def rest_easy(parent: Parent, world: World, now_ns: int) -> None:
    """Nothing is under way, and only time makes its next slice due: let it sleep until then, or a second."""
    intent = parent.intent
    world.sleepers.pop(intent.intent_id, None)
    if intent.algo is None or intent.would is not None or intent.group or intent.after:
        return
    if dict(intent.algo.parameters).get("risk_aversion"):
        return  # it plans anew by the market, not by the clock alone
    table = read(intent.algo).plan(intent)
    if table is None:
        return
    at = table.at(now_ns - parent.begun_ns) + 1
    due_ns = parent.begun_ns + (table.starts_ns[at] if at < len(table.starts_ns) else read(intent.algo).duration_ns)
    retry_ns = parent.slice_ns + RETRY_NS
    until_ns = min(due_ns if due_ns > now_ns else intent.deadline_ns, intent.deadline_ns, now_ns + SLEEP_NS)
    if retry_ns > now_ns:
        until_ns = min(until_ns, retry_ns)
    if until_ns > now_ns:
        world.sleepers[intent.intent_id] = Sleeper(until_ns, intent, _stood(parent))


def _stood(parent: Parent) -> tuple[int, int, int, bool, bool]:
    return int(parent.filled.units), parent.slices, len(parent.orders), parent.cancelled, parent.paused


def stale(stand: Standing, order: Order) -> str:
    """Why a child of an algorithm that rests should go; empty if it may stay."""
    intent, plan = stand.intent, order.plan
    if intent.algo is None or not isinstance(plan, PlaceOrder):
        return ""
    if intent.would is not None and _would(stand, intent.would):
        return "the price is there at which all would be traded"
    if plan.native_s:
        is_late = stand.elapsed_ns >= read(intent.algo).duration_ns + NATIVE_LATE_NS
        return "its venue should have ended it by now" if is_late else ""
    return read(intent.algo).stale(stand, _resting(order, plan, intent.quantity))


def _would(stand: Standing, price: Price) -> bool:
    return can_take(stand.view(), price, selling=stand.is_selling)


def posts(
    move: Take, route: Route, view: View, charges: Mapping[str, Charge], parent: Parent, world: World, now_ns: int
) -> dict[str, Post]:
    """Of the route's parts at books those that rest instead, by instrument."""
    if move.placement == "take":
        return {}
    depths = {one.instrument.id: one.state for one in view.sources if isinstance(one.state, Depth)}
    horizon_s = max(move.until_ns - now_ns, 0) / 1e9
    pace, sigma = placement.pace_of(lambda: world.market.bars(parent.intent.market))
    drift = world.forecast(parent.intent.market, max(move.until_ns - now_ns, 0))
    found: dict[str, Post] = {}
    for piece in route.pieces:
        depth, charge = depths.get(piece.instrument.id), charges.get(piece.instrument.id)
        if depth is None:
            continue
        base = int(piece.base.units) / 10.0**piece.base.asset.decimals
        pips = charge.pips if charge is not None else 0
        sight = Sight(piece.instrument, depth, parent.intent.side, base, piece.price, horizon_s, pace, sigma, pips, drift)
        chosen = placement.post(sight, must=move.placement == "passive")
        if chosen is not None:
            found[piece.instrument.id] = chosen
    return found


def rested(view: View, parent: Parent, state: State, world: World) -> View:
    """Without the pools that were just used, as long as others are there: what was taken from them has not come back yet."""
    used: dict[str, int] = {}
    for name in parent.orders[-LOOKED_BACK:]:
        order = state.orders[name]
        if isinstance(order.plan, SwapBatch) and order.block:
            used |= {leg.instrument: order.block for leg in order.plan.legs}
    if not used:
        return view
    heads = {one.chain_id: one.number for one in world.market.heads().values()}

    def is_tired(one: Source) -> bool:
        block = used.get(one.instrument.id)
        chain_id = world.profiles[one.instrument.venue].chain_id
        return block is not None and chain_id is not None and heads.get(chain_id, 0) < block + REFILL_BLOCKS

    kept = tuple(one for one in view.sources if not is_tired(one))
    return msgspec.structs.replace(view, sources=kept) if kept else view


def least_of(intent: Intent, arrival: Price, world: World, rules: Rules, now_ns: int) -> int:
    """The least units of a slice: what the least demanding book takes at the worst price; where only pools trade the market, so
    much that gas is at most `slice_gas_bps_max` of it.
    """
    listed, group = world.market.listed(intent.market), intent.quantity.asset
    books = [one for one in listed if one.is_book]
    if books:
        low = worse_by(arrival, intent.slippage_bps_max, selling=True)
        return min(max(_lots_up(one, group), _base_for(Amount(one.notional_min, one.quote), low, group) + 1) for one in books)
    quote = group_asset(intent.quote)
    prices = gas_prices(world, rules, intent.quote, now_ns)
    costs = [gas_up(rules.gas_base + one.gas, gas, quote) for one in listed for gas in prices.values()]
    if not costs:
        return 1
    worth = Amount(min(cost.units for cost in costs) * 10_000 // rules.slice_gas_bps_max, quote)
    return max(_base_for(worth, arrival, group), 1)


def _lots_up(found: Instrument, group: Asset) -> int:
    return int(rescale_up(Amount(found.lot_units, found.base), group).units)


def _rests(order: Order) -> bool:
    return isinstance(order.plan, PlaceOrder) and order.state in RESTING and order.plan.time_in_force in ("GTC", "POST")


def _resting(order: Order, plan: object, quantity: Amount) -> Resting:
    assert isinstance(plan, PlaceOrder), "only orders at books rest"
    base = plan.sell if plan.side == "sell" else plan.buy
    left = rescale_down(Amount(order.may_trade, base.asset), quantity.asset)
    return Resting(order.order_id, plan.instrument, plan.ticks, left, order.sent_ns or order.approved_ns)


def _native(found: Instrument, parent: Parent, state: State, world: World) -> NativeTwap | None:
    """What the venue offers, as long as it can be used and has not failed the parent."""
    is_closed = found.venue in state.status or found.venue in parent.failures or found.venue not in world.ready
    return None if is_closed or state.halt_of(found.venue, found.id) else world.profiles[found.venue].native_twap


def _given(parent: Parent, state: State) -> int:
    units = 0
    for name in parent.orders:
        order = state.orders[name]
        if isinstance(order.plan, PlaceOrder) and order.plan.native_s:
            base = order.plan.sell if order.plan.side == "sell" else order.plan.buy
            units += int(rescale_up(Amount(order.filled + order.may_trade, base.asset), parent.intent.quantity.asset).units)
    return units


def _on_books(parent: Parent, state: State, since_ns: int) -> float:
    """Newest first, until an order ended before then."""
    coins = 0.0
    for name in reversed(parent.orders):
        order = state.orders[name]
        if order.ended_ns and order.ended_ns < since_ns:
            break
        if isinstance(order.plan, PlaceOrder):
            mine = [one.paid if order.plan.side == "sell" else one.received for one in order.fills if one.at_ns >= since_ns]
            coins += sum(int(one.units) / 10.0**one.asset.decimals for one in mine)
    return coins


def _free(found: Instrument, parent: Parent, limit: Price, state: State) -> int:
    intent = parent.intent
    selling = intent.side == "sell"
    free = state.free(intent.account, found.venue, found.base if selling else found.quote)
    if free.units <= 0:
        return 0
    if selling:
        return int(rescale_down(free, intent.quantity.asset).units)
    return _base_for(rescale_down(free, group_asset(intent.quote)), limit, intent.quantity.asset)


def _base_for(quote: Amount, price: Price, base: Asset) -> int:
    """Units of `base` that so much pays for, rounded down."""
    top: int = int(quote.units) * int(price.den) * 10**base.decimals
    bottom: int = int(price.num) * 10**quote.asset.decimals
    return top // bottom
