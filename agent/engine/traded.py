"""The trades of a parent order as an analysis sees them, each with the market around it: who took and who rested, what the fees
were, how far from the middle they were, and where the market went afterwards.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset, group_asset, rescale_up
from agent.domain.order import Fill, Order
from agent.domain.plan import PlaceOrder, SwapBatch
from agent.engine.parent import Parent
from agent.engine.recorded import Recorded
from agent.engine.summary import rates_of
from agent.execution.tca import Liquidity, Terms, Trade, cost_bps, markout_bps, mean, near_price, pool_fee
from agent.ledger.pnl import worth_up
from agent.market.bars import SECOND_NS

HORIZONS_S = (1, 10, 60)  # of markouts
AT_ONCE_NS = 250_000_000  # what an order that may rest trades so soon after the venue's first word, it took


class Markout(msgspec.Struct, frozen=True):
    """Where the market was so long after the trades, by their value; `share` of them is known. None: of none."""

    after_s: int
    bps: float | None
    share: float


class Group(msgspec.Struct, frozen=True):
    """Some of the trades: of one venue's instrument, or all that took, rested, or went through pools. Amounts of the groups."""

    name: str
    base: Amount
    quote: Amount  # before fees
    fees: Amount  # those inside the prices of pools too
    share: float  # of what was traded
    fills: int
    price: float  # before fees
    cost_bps: float  # against arrival, with fees
    spread_bps: float  # against the middle of the moment, before fees; below zero: earned
    markouts: tuple[Markout, ...]


class Point(msgspec.Struct, frozen=True):
    """One fill in time. `price` before fees; `total`: what the parent had traded then, in base coins."""

    at_s: float
    price: float
    size: float
    total: float
    venue: str
    instrument: str
    liquidity: Liquidity
    order_id: str
    markouts_bps: tuple[float | None, ...]  # after each of `HORIZONS_S`; None: the market was not seen then


def trades_of(order: Order, parent: Parent, seen: Recorded) -> list[Trade]:
    return [_trade(fill, order, parent, seen) for fill in order.fills if isinstance(order.plan, PlaceOrder | SwapBatch)]


def _trade(fill: Fill, order: Order, parent: Parent, seen: Recorded) -> Trade:
    intent, asset = parent.intent, group_asset(parent.intent.quote)
    sold = intent.side == "sell"
    base = rescale_up(fill.paid if sold else fill.received, intent.quantity.asset)
    quote = rescale_up(fill.received if sold else fill.paid, asset)
    liquidity, route = _liquidity(fill, order), parent.routes[order.route] if order.route >= 0 else None
    mid = route.mid if route is not None and route.mid is not None else parent.arrival
    at_ns, decided_ns = fill.at_ns, route.decided_ns if route is not None else order.approved_ns
    if liquidity == "pool":
        mid = order.mark(0) or mid
    elif liquidity == "maker":
        decided_ns = at_ns
        mid = near_price(seen.mid_before(at_ns)) or order.mark(0) or mid
    pips = 0
    if liquidity == "pool" and route is not None:
        pips = next((piece.fee_pips for piece in route.pieces if piece.instrument == fill.instrument), 0)
    fee = _fee(fill, base, quote, parent, asset)
    place = order.order_id, fill.venue, fill.instrument, liquidity
    return Trade(*place, int(base.units), int(quote.units), fee, at_ns, mid, seen.half_spread_bps(decided_ns), pips)


def _liquidity(fill: Fill, order: Order) -> Liquidity:
    """A venue does not say who took. An order that may rest took what it traded at once."""
    if not isinstance(order.plan, PlaceOrder):
        return "pool"
    if order.plan.time_in_force == "POST":
        return "maker"
    if order.plan.native_s:
        return "taker"  # the parts that the venue sends are at the market
    if order.plan.time_in_force == "GTC" and order.heard_ns and fill.at_ns > order.heard_ns + AT_ONCE_NS:
        return "maker"
    return "taker"


def _fee(fill: Fill, base: Amount, quote: Amount, parent: Parent, asset: Asset) -> int:
    """In units of the quote group, rounded up. What is kept from the base is worth what the trade paid for it."""
    if fill.fee.asset.group == parent.intent.base:
        kept = rescale_up(fill.fee, base.asset)
        return -(-quote.units * kept.units // base.units) if base else 0
    return int(worth_up(fill.fee, asset, rates_of(parent)).units)


Tell = Callable[[Trade, int], float | None]  # (trade, seconds after it) -> its markout in bps


def teller(terms: Terms, seen: Recorded, orders: Mapping[str, Order], trades: Sequence[Trade]) -> Tell:
    """By the journal's own looks at the market after an order's first trade; for other trades and times, by the bars."""
    firsts: dict[str, int] = {}
    for trade in trades:
        firsts[trade.order_id] = min(firsts.get(trade.order_id, trade.at_ns), trade.at_ns)

    def tell(one: Trade, after_s: int) -> float | None:
        price = in_coins(one.quote, one.base, terms)
        mark = None
        if one.at_ns <= firsts[one.order_id] + AT_ONCE_NS or one.liquidity == "pool":
            mark = orders[one.order_id].mark(after_s * SECOND_NS)
        mid = mark.num / mark.den if mark is not None else seen.mid_near(one.at_ns + after_s * SECOND_NS)
        return markout_bps(terms.side, price, mid) if mid > 0 and price > 0 else None

    return tell


def group(name: str, trades: Sequence[Trade], terms: Terms, tell: Tell, total: int = 0) -> Group:
    base, quote = sum(one.base for one in trades), sum(one.quote for one in trades)
    fees = sum(one.fee + pool_fee(one, terms.side) for one in trades)
    outside = sum(one.fee for one in trades)
    price = in_coins(quote, base, terms)
    with_fees = in_coins(quote - outside if terms.side == "sell" else quote + outside, base, terms)
    arrival = terms.arrival.num / terms.arrival.den
    spread = mean(
        (one.quote, cost_bps(terms.side, in_coins(one.quote, one.base, terms), one.mid.num / one.mid.den)) for one in trades
    )
    return Group(
        name,
        Amount(base, terms.base),
        Amount(quote, terms.quote),
        Amount(fees, terms.quote),
        base / (total or base),
        len(trades),
        price,
        cost_bps(terms.side, with_fees, arrival),
        spread or 0.0,
        tuple(_markout(trades, after_s, tell) for after_s in HORIZONS_S),
    )


def groups(trades: Sequence[Trade], terms: Terms, tell: Tell, key: Callable[[Trade], str]) -> tuple[Group, ...]:
    total, names = sum(one.base for one in trades), dict.fromkeys(key(one) for one in trades)
    return tuple(group(name, [one for one in trades if key(one) == name], terms, tell, total) for name in names)


def _markout(trades: Sequence[Trade], after_s: int, tell: Tell) -> Markout:
    told = [(one.quote, bps) for one in trades if (bps := tell(one, after_s)) is not None]
    value = sum(one.quote for one in trades)
    return Markout(after_s, mean(told), sum(weight for weight, _ in told) / value if value else 0.0)


def points(trades: Sequence[Trade], terms: Terms, tell: Tell) -> tuple[Point, ...]:
    """The trades in time."""
    found, total = list[Point](), 0.0
    for one in sorted(trades, key=lambda one: one.at_ns):
        size = one.base / 10.0**terms.base.decimals
        total += size
        price = in_coins(one.quote, one.base, terms)
        place = one.venue, one.instrument, one.liquidity, one.order_id
        markouts_bps = tuple(tell(one, after_s) for after_s in HORIZONS_S)
        found.append(Point(one.at_ns / 1e9, price, size, total, *place, markouts_bps))
    return tuple(found)


def mean_price(trades: Sequence[Trade], terms: Terms) -> float | None:
    """Of all trades, before fees; None without any."""
    base = sum(one.base for one in trades)
    return in_coins(sum(one.quote for one in trades), base, terms) if base else None


def in_coins(quote: int, base: int, terms: Terms) -> float:
    """Quote coins per base coin; 0.0 without any."""
    return quote / base * 10.0 ** (terms.base.decimals - terms.quote.decimals) if base else 0.0
