"""What an algorithm looks at: how far its order is, what rests, the clock, the market. The same picture gives the same move."""

from collections.abc import Callable, Sequence

import msgspec

from agent.domain.amount import Amount
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.price import Price, ticks_price
from agent.liquidity.depth import Depth
from agent.market.bars import Bars
from agent.market.view import Source, View
from agent.ports import NativeTwap


def _none(_: Instrument) -> None:
    """No venue offers anything."""


class Resting(msgspec.Struct, frozen=True):
    """A child that waits at a book. `left`: base group, what may still trade."""

    order_id: str
    instrument: str
    ticks: int
    left: Amount
    since_ns: int


class Standing(msgspec.Struct, frozen=True):
    """`left`: of the base group, neither filled nor promised to a child. `wanted`: what should have been traded in all by the last
    slice, from the journal, or None. `limit`: the worst price, before fees. `least`: units that can be traded at all.

    What costs more to know is asked for: `view` (the trusted market), `bars` (what it did), `resting` (children at books),
    `on_books_since` (base coins that children traded on books since a moment: part of what the tape says was traded), `free` (units
    of the base group that the account could trade at a book within the limit), `native` (the TWAP of its own that the venue of a
    book offers now), `given` (units that venues work so: what they traded, and what they still may).
    """

    intent: Intent
    accepted_ns: int
    now_ns: int
    arrival: Price
    left: Amount
    slices: int
    last_ns: int
    wanted: Amount | None
    limit: Price
    least: int
    view: Callable[[], View]
    bars: Callable[[], Bars]
    resting: Callable[[], Sequence[Resting]]
    on_books_since: Callable[[int], float]
    free: Callable[[Instrument], int]
    native: Callable[[Instrument], NativeTwap | None] = _none
    given: Callable[[], int] = int

    @property
    def elapsed_ns(self) -> int:
        return self.now_ns - self.accepted_ns

    @property
    def done(self) -> int:
        """Units that are filled or promised."""
        return int(self.intent.quantity.units) - int(self.left.units)

    @property
    def is_selling(self) -> bool:
        return self.intent.side == "sell"

    def amount(self, units: int) -> Amount:
        return Amount(units, self.left.asset)


def books(view: View) -> list[tuple[Instrument, Depth]]:
    """The trusted books, each with both its sides."""
    return [(one.instrument, one.state) for one in view.sources if isinstance(one.state, Depth)]


def best_opposite(source: Source, *, selling: bool) -> Price:
    """The best price at which something could be had there now, before a book's fee and with a pool's."""
    found, state = source.instrument, source.state
    if isinstance(state, Depth):
        return ticks_price((state.bids if selling else state.asks)[0][0], found.tick_units, found.quote.decimals)
    kept = 1_000_000 - found.fee_pips
    num, den = int(source.mid.num), int(source.mid.den)
    return Price(num * kept, den * 1_000_000) if selling else Price(num * 1_000_000, den * kept)


def is_within(price: Price, limit: Price, *, selling: bool) -> bool:
    """Whether a price is no worse than the limit."""
    return price >= limit if selling else price <= limit


def can_take(view: View, limit: Price, *, selling: bool) -> bool:
    """Whether anything at all could be had within the limit now."""
    return any(is_within(best_opposite(one, selling=selling), limit, selling=selling) for one in view.sources)
