"""An order book as liquidity: what a taker gets who walks its levels now.

Asset 0 is the base, asset 1 the quote, so a book answers the same question as a pool; it trades whole lots. Levels
are (ticks, lots), best first. `tick_units` are quote units per whole base coin and tick, `lot_units` base units per
lot. The venue keeps its fee out of what is received. Every level is its own fill: what is received rounds down and
what is paid rounds up level by level, and each fee rounds up.
"""

import msgspec

from agent.domain.errors import LiquidityError
from agent.domain.instrument import PIPS
from agent.liquidity.quote import Quote, div_up, require_positive

Levels = tuple[tuple[int, int], ...]


class Depth(msgspec.Struct, frozen=True):
    """Both sides of a book: bids fall, asks rise. Filling costs no gas."""

    bids: Levels
    asks: Levels
    tick_units: int
    lot_units: int
    base_decimals: int
    fee_pips: int

    def swap_in(self, amount_in: int, zero_for_one: bool) -> Quote:
        """Sell at most `amount_in` base units, or spend at most `amount_in` quote units: as many whole lots as fit.

        Raises LiquidityError when not even one lot fits, or when the known levels are used up first.
        """
        require_positive(amount_in, "amount_in")
        if zero_for_one:
            return sell_lots(self, amount_in // self.lot_units)
        return buy_lots(self, _lots_for_quote(self, amount_in))

    def swap_out(self, amount_out: int, zero_for_one: bool) -> Quote:
        """Sell the fewest lots that bring `amount_out` quote units after fees, or buy the fewest that bring so many base units.

        Raises LiquidityError when the known levels do not hold enough.
        """
        require_positive(amount_out, "amount_out")
        if zero_for_one:
            return sell_lots(self, _lots_yielding_quote(self, amount_out))
        return buy_lots(self, _lots_yielding_base(self, amount_out))


def sell_lots(book: Depth, lots: int) -> Quote:
    """Sell base: quote units received, rounded down, after the fee."""
    require_positive(lots, "the number of lots")
    left, received = lots, 0
    for position, (ticks, size) in enumerate(book.bids):
        taken = min(left, size)
        gross = ticks * book.tick_units * taken * book.lot_units // 10**book.base_decimals
        received += _after_fee(gross, book.fee_pips)
        left -= taken
        if not left:
            after = msgspec.structs.replace(book, bids=_rest(book.bids, position, taken))
            return Quote(lots * book.lot_units, received, 0, after)
    raise _too_thin("bids", lots - left, lots)


def buy_lots(book: Depth, lots: int) -> Quote:
    """Buy base: quote units paid, rounded up; the base units received are net of the fee, which is rounded up."""
    require_positive(lots, "the number of lots")
    left, paid, received = lots, 0, 0
    for position, (ticks, size) in enumerate(book.asks):
        taken = min(left, size)
        paid += div_up(ticks * book.tick_units * taken * book.lot_units, 10**book.base_decimals)
        received += _after_fee(taken * book.lot_units, book.fee_pips)
        left -= taken
        if not left:
            after = msgspec.structs.replace(book, asks=_rest(book.asks, position, taken))
            return Quote(paid, received, 0, after)
    raise _too_thin("asks", lots - left, lots)


def _after_fee(amount: int, fee_pips: int) -> int:
    """`amount` less a fee that is rounded up."""
    return amount - div_up(amount * fee_pips, PIPS)


def _rest(levels: Levels, position: int, taken: int) -> Levels:
    ticks, size = levels[position]
    partial = ((ticks, size - taken),) if taken < size else ()
    return partial + levels[position + 1 :]


def _lots_for_quote(book: Depth, budget: int) -> int:
    """The most lots whose rounded-up cost stays within `budget`."""
    scale: int = 10**book.base_decimals
    left, lots, lot_cost = budget, 0, 0
    for ticks, size in book.asks:
        lot_cost = ticks * book.tick_units * book.lot_units
        affordable = left * scale // lot_cost
        if affordable < size:
            return lots + affordable
        lots += size
        left -= div_up(lot_cost * size, scale)
    if left * scale >= lot_cost:
        raise LiquidityError(f"the book's known asks cost {budget - left} of {budget} quote units: trade less or read more levels")
    return lots


def _lots_yielding_base(book: Depth, wanted: int) -> int:
    """The fewest lots that leave `wanted` base units after the fee.

    An amount less a fee that is rounded up is a floor, so its inverse is a ceiling.
    """
    keep = PIPS - book.fee_pips
    left, lots = wanted, 0
    for _, size in book.asks:
        whole = _after_fee(size * book.lot_units, book.fee_pips)
        if whole >= left:
            return lots + div_up(left * PIPS, book.lot_units * keep)
        lots += size
        left -= whole
    raise LiquidityError(f"the book's known asks hold {wanted - left} of {wanted} base units: trade less or read more levels")


def _lots_yielding_quote(book: Depth, wanted: int) -> int:
    """The fewest lots that bring `wanted` quote units after the fee; both floors are inverted as ceilings."""
    keep, scale = PIPS - book.fee_pips, 10**book.base_decimals
    left, lots = wanted, 0
    for ticks, size in book.bids:
        lot_value = ticks * book.tick_units * book.lot_units
        whole = _after_fee(lot_value * size // scale, book.fee_pips)
        if whole >= left:
            return lots + div_up(div_up(left * PIPS, keep) * scale, lot_value)
        lots += size
        left -= whole
    raise LiquidityError(f"the book's known bids pay {wanted - left} of {wanted} quote units: trade less or read more levels")


def _too_thin(side: str, filled: int, lots: int) -> LiquidityError:
    return LiquidityError(f"the book's known {side} hold {filled} of {lots} lots: trade less or read more levels")
