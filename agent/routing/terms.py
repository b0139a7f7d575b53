"""What an order asks, and what an instrument means for it: which balance it draws on, how fine it counts, what it keeps back."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.instrument import PIPS, Instrument, Side
from agent.domain.plan import Reason
from agent.domain.price import Price, worse_by
from agent.liquidity.depth import Depth
from agent.market.view import Source, chain_of
from agent.routing.cost import Charge
from agent.routing.curve import worst_ticks

BAD_DECIMALS = "BAD_DECIMALS"


class Rules(msgspec.Struct, frozen=True):
    """The trader's settings for routes.

    `legs_max`: pieces of one route. `improvement_bps_min`: a piece that brings less than this of the whole is left out.
    `reserve_bps`: buying, how much of a balance is kept for slippage, as an order locks it at its limit. `rest_bps`: how far from
    the middle (gas included) trading still beats leaving a rest; where the order has no limit, half or double the middle.
    """

    legs_max: int = 12
    improvement_bps_min: float = 0.0
    reserve_bps: int = 10
    rest_bps: int = 1_000


class Order(msgspec.Struct, frozen=True):
    """What is to be routed: `quantity` of the base group, for `quote` (the group). `limit`: before gas and a book's fee.

    `charges`: by Instrument.id, what trading there costs beyond the fee.
    """

    side: Side
    quantity: Amount
    quote: Asset
    mid: Price
    limit: Price | None
    rules: Rules
    charges: Mapping[str, Charge] = {}

    @property
    def rest(self) -> Price:
        """What a coin that stays untraded is worth: so bad that everything within the limit is better."""
        selling = self.side == "sell"
        if self.limit is None:
            return Price(self.mid.num, self.mid.den * 2) if selling else Price(self.mid.num * 2, self.mid.den)
        far = worse_by(self.mid, self.rules.rest_bps, selling=selling)
        return min(far, self.limit) if selling else max(far, self.limit)


class Terms(msgspec.Struct, frozen=True):
    """One instrument, for orders of one side. `given`: what leaves the account.

    `scale`, `quote_scale`: group units in one of its own. `coin`: its units in a base coin, `lot`: coins in a lot. `draw`: how much
    of a balance one quote coin after fee takes when buying. `trouble`: why it cannot be used at all.
    """

    found: Instrument
    id: str
    given: Asset
    given_id: str
    is_book: bool
    chain: int | None
    scale: int
    quote_scale: int
    coin: int
    lot: float
    draw: float
    trouble: Reason | None


def terms_of(order: Order, found: Instrument) -> Terms:
    finer, finer_quote = order.quantity.asset.decimals - found.base.decimals, order.quote.decimals - found.quote.decimals
    trouble = None
    if finer < 0 or finer_quote < 0:
        trouble = Reason(BAD_DECIMALS, f"{found.id}: counts finer than the order does; state the order in more decimals")
    asset = found.base if order.side == "sell" else found.quote
    keep = 1 - found.fee_pips / PIPS if found.is_book else 1.0
    return Terms(
        found,
        found.id,
        asset,
        asset.id,
        found.is_book,
        None if found.is_book else chain_of(found),
        10 ** max(finer, 0),
        10 ** max(finer_quote, 0),
        10**found.base.decimals,
        found.lot_units / 10**found.base.decimals,
        keep * (1 + order.rules.reserve_bps / 10_000),
        trouble,
    )


def scale(order: Order, found: Instrument) -> int:
    """Base group units in one unit of the instrument's base."""
    power: int = 10 ** (order.quantity.asset.decimals - found.base.decimals)
    return power


def levels(source: Source, side: Side) -> tuple[tuple[int, int], ...]:
    """The side of a book that an order takes from."""
    assert isinstance(source.state, Depth), "only books have levels"
    return source.state.bids if side == "sell" else source.state.asks


def worst_touched(side: Sequence[tuple[int, int]], lots: int) -> int:
    """The ticks of the worst level that `lots` touch; of the last one where they are too many."""
    for ticks, size in side:
        lots -= size
        if lots <= 0:
            return ticks
    return side[-1][0]


def locked(order: Order, found: Instrument, ticks: int, lots: int) -> int:
    """What buying on a book locks, rounded up: all of it at the worst tick, slippage included; never beyond the limit."""
    ticks = -(-ticks * (10_000 + order.rules.reserve_bps) // 10_000)
    if order.limit is not None:
        ticks = min(ticks, worst_ticks(found, order.side, order.limit))
    return int(-(-ticks * found.tick_units * lots * found.lot_units // 10**found.base.decimals))


def most_lots(order: Order, source: Source, lots: int, budget: int) -> int:
    """The most lots, up to `lots`, that a balance of `budget` units pays for on a book."""
    found = source.instrument
    if order.side == "sell":
        return min(lots, max(budget, 0) // found.lot_units)
    side = levels(source, order.side)
    if locked(order, found, worst_touched(side, lots), lots) <= budget:
        return lots
    return bisect_right(range(lots), budget, key=lambda n: locked(order, found, worst_touched(side, n), n)) - 1


def least_lots(order: Order, source: Source) -> int:
    """The fewest lots that reach a book's minimum order value at the worst tick that they touch, slippage included; 0 for pools."""
    found = source.instrument
    if not found.is_book:
        return 0
    last = None if order.limit is None else worst_ticks(found, order.side, order.limit)
    slipped = 10_000 - order.rules.reserve_bps if order.side == "sell" else 10_000
    known = 0
    for ticks, lots in levels(source, order.side):
        worst = ticks if last is None or order.side == "buy" else max(last, ticks * slipped // 10_000)
        unit = worst * found.tick_units * found.lot_units
        need = max(-(-found.notional_min * 10**found.base.decimals // unit) if unit else 1, 1)
        if need <= known + lots:
            return max(need, known + 1)
        known += lots
    return known + 1
