"""The analysis of a parent order after the fact, from the journal and from what was recorded of its market, and from nothing else.

The same journal and the same bars give the same analysis. Where something was not recorded, a figure is absent and `missing` says
why; it is never guessed at. Costs are positive when they cost; markouts are positive when they are good for us.
"""

from collections.abc import Iterable, Sequence

import msgspec

from agent.domain.amount import Amount, group_asset, zero
from agent.domain.events import WholeQuoted
from agent.domain.instrument import Side
from agent.domain.price import Price, bps_between, price_of
from agent.engine.executed import parent_gap
from agent.engine.parent import Parent
from agent.engine.recorded import Recorded
from agent.engine.state import State
from agent.engine.summary import Single, Summary, summary
from agent.engine.traded import Group, Markout, Point, group, groups, mean_price, points, teller, trades_of
from agent.execution.gap import Gap
from agent.execution.tca import Shortfall, Terms, cost_bps, shortfall
from agent.market.bars import SECOND_NS, Bar

BEFORE_NS, AFTER_NS = 30 * SECOND_NS, 60 * SECOND_NS  # what charts show of the market around an order
COVERED_MIN = 0.9  # of the time of an order: with fewer bars there is no mean price of the market


class Benchmark(msgspec.Struct, frozen=True):
    """A price to compare with, in quote coins per base coin. `cost_bps`: of the mean price before fees against it."""

    name: str
    price: float | None
    cost_bps: float | None


class AtOnce(msgspec.Struct, frozen=True):
    """What the whole order would have given in one go when it was accepted, after fees and gas, as routed then with the account's
    own balances. `cost_bps` against arrival; `better_bps`: by how much the real all-in price is better.
    """

    quantity: Amount
    quote: Amount
    price: Price
    cost_bps: float
    better_bps: float | None


class Analysis(msgspec.Struct, frozen=True):
    """`price`: the mean before fees. `missing`: why figures are absent. `bars` and `points` are what charts show."""

    intent_id: str
    market: str
    side: Side
    strategy: str
    algo: str
    status: str
    reason: str
    quantity: Amount
    filled: Amount
    begun_ns: int  # when it was accepted, or what it waited for came
    ended_ns: int
    price: float | None
    price_all_in: Price | None
    shortfall: Shortfall
    at_once: AtOnce | None  # None: it is not known
    benchmarks: tuple[Benchmark, ...]
    markouts: tuple[Markout, ...]
    by_liquidity: tuple[Group, ...]
    by_source: tuple[Group, ...]
    by_venue: tuple[Group, ...]
    participation: float | None  # own part of what all books traded meanwhile, ours on books alone
    market_volume: float | None  # base coins
    gap: Gap
    best_single: Single | None
    improvement_bps: float | None
    missing: tuple[str, ...]
    points: tuple[Point, ...]
    bars: tuple[Bar, ...]


def analysis(state: State, intent_id: str, bars: Sequence[Bar] = ()) -> Analysis:
    """`bars` of its market, in any order. Raises KeyError if the parent is not known, LedgerError without a rate for a fee."""
    parent, seen, done = state.parents[intent_id], Recorded(bars), summary(state, intent_id)
    intent, until_ns = parent.intent, parent.ended_ns or state.now_ns
    orders = {name: state.orders[name] for name in parent.orders}
    trades = [trade for order in orders.values() for trade in trades_of(order, parent, seen)]
    terms = _terms(parent)
    found = shortfall(terms, trades, int(done.gas.quote.units))
    tell = teller(terms, seen, orders, trades)
    is_covered = seen.covers(parent.begun_ns, until_ns, COVERED_MIN)
    volume = seen.volume(parent.begun_ns, until_ns) if is_covered else None
    on_books = sum(one.base for one in trades if one.liquidity != "pool") / 10.0**terms.base.decimals
    markouts = group("all", trades, terms, tell).markouts if trades else ()
    at_once = _at_once(parent, done, terms)
    benchmarks = tuple(_benchmarks(parent, mean_price(trades, terms), seen if is_covered else None, until_ns))
    return Analysis(
        intent_id,
        intent.market,
        intent.side,
        intent.strategy,
        algo_name(parent),
        parent.status,
        parent.reason,
        intent.quantity,
        parent.filled,
        parent.begun_ns,
        parent.ended_ns,
        mean_price(trades, terms),
        done.all_in_price,
        found,
        at_once,
        benchmarks,
        markouts,
        groups(trades, terms, tell, lambda one: one.liquidity),
        groups(trades, terms, tell, lambda one: one.instrument),
        groups(trades, terms, tell, lambda one: one.venue),
        on_books / volume if volume else None,
        volume,
        parent_gap(state, intent_id),
        done.best_single_venue,
        done.improvement_bps,
        tuple(_missing(parent, found, at_once, markouts, volume, seen.coverage(parent.begun_ns, until_ns))),
        points(trades, terms, tell),
        seen.between(parent.begun_ns - BEFORE_NS, until_ns + AFTER_NS),
    )


def algo_name(parent: Parent) -> str:
    """As `--algo` has it; `slices` or `once` without one."""
    if parent.intent.algo is None:
        return "slices" if parent.intent.slices > 1 else "once"
    return parent.intent.algo.name


def _terms(parent: Parent) -> Terms:
    intent = parent.intent
    first = parent.routes[0].mid if parent.routes else None
    departure = parent.departure if parent.ended_ns else None
    base, quote = intent.quantity.asset, group_asset(intent.quote)
    return Terms(intent.side, base, quote, int(intent.quantity.units), parent.arrival, first, departure)


def _missing(
    parent: Parent, found: Shortfall, at_once: AtOnce | None, markouts: Sequence[Markout], volume: float | None, share: float
) -> Iterable[str]:
    """What is absent, and why."""
    if found.opportunity is None:
        yield f"opportunity: {'the order is still worked' if parent.is_live else 'there was no trusted price when it ended'}"
    if found.spread is None:
        yield "spread: what the books' spread was is not recorded for every trade; it is inside impact"
    if volume is None:
        yield f"VWAP, TWAP, open, close and participation: bars cover {share:.0%} of the time of the order"
    elif not volume:
        yield "VWAP and participation: no book told of any trade meanwhile"
    if short := [f"{one.after_s} s" for one in markouts if one.share < 1]:
        yield f"markouts after {', '.join(short)}: the market was not seen then after every trade"
    if at_once is None:
        whole = parent.whole
        yield f"all at arrival: {whole.why if whole is not None and whole.why else 'not recorded'}"


def _at_once(parent: Parent, done: Summary, terms: Terms) -> AtOnce | None:
    """Of an order that was not to be worked over time, its first route is that."""
    found, intent = parent.whole, parent.intent
    if found is None and parent.routes and parent.routes[0].quantity == intent.quantity:
        route = parent.routes[0]
        placed = sum((piece.base for piece in route.pieces), start=zero(intent.quantity.asset))
        found = WholeQuoted(intent.intent_id, placed, route.quote)
    if found is None or found.quantity != intent.quantity or found.quote.units <= 0:
        return None
    price, sign = price_of(found.quote, found.quantity), 1 if intent.side == "sell" else -1
    better = None if done.all_in_price is None else sign * bps_between(done.all_in_price, price)
    return AtOnce(found.quantity, found.quote, price, -sign * bps_between(price, terms.arrival), better)


def _benchmarks(parent: Parent, price: float | None, seen: Recorded | None, until_ns: int) -> Iterable[Benchmark]:
    """`seen` None: what the market did meanwhile is not known."""
    span, first = (parent.begun_ns, until_ns), parent.routes[0].mid if parent.routes else None
    inside = [bar.mid for bar in seen.between(*span) if bar.mid > 0] if seen is not None else []

    def against(name: str, reference: float) -> Benchmark:
        cost = cost_bps(parent.intent.side, price, reference) if price is not None and reference > 0 else None
        return Benchmark(name, reference if reference > 0 else None, cost)

    yield against("arrival", _float(parent.arrival))
    yield against("first slice", _float(first))
    yield against("VWAP", seen.vwap(*span) if seen is not None else 0.0)
    yield against("TWAP", seen.twap(*span) if seen is not None else 0.0)
    yield against("open", inside[0] if inside else 0.0)
    yield against("close", inside[-1] if inside else 0.0)
    yield against("departure", _float(parent.departure))


def _float(price: Price | None) -> float:
    return price.num / price.den if price is not None else 0.0
