"""What size costs on the books just now: an opinion, in floats."""

from agent.execution.standing import books
from agent.market.view import View


def slope(view: View, base: float, *, selling: bool) -> float:
    """By how many quote coins the price gets worse for each base coin that is taken, over the first `base` coins of all books.

    From the mean price: with levels of even depth that many coins cost half of their slope each beyond the best price. 0.0 where
    there is no book, or where the best level holds all of it.
    """
    levels = sorted(
        (
            (ticks * found.tick_units / 10.0**found.quote.decimals, lots * found.lot_units / 10.0**found.base.decimals)
            for found, depth in books(view)
            for ticks, lots in (depth.bids if selling else depth.asks)
        ),
        reverse=selling,
    )
    taken = value = 0.0
    for price, size in levels:
        part = min(size, base - taken)
        taken, value = taken + part, value + part * price
        if taken >= base:
            break
    return abs(value / taken - levels[0][0]) * 2 / taken if taken > 0 else 0.0
