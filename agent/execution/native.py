"""What of an order a venue works by itself: how much its own TWAP may take, and whether it takes it at all. Pure.

The venue's bounds are on the value of what it is handed and on the time that it has. What it would not take stays with the order's
own slices; what it did not trade by its end comes back to them.
"""

from collections.abc import Iterator, Sequence

from agent.domain.amount import Amount, rescale_up
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.price import Price
from agent.execution.moves import HandOver
from agent.execution.parameters import SECOND_NS
from agent.execution.standing import Standing, books
from agent.ports import NativeTwap

Offers = Sequence[tuple[Instrument, NativeTwap]]


def hand_over(native_pct: int, duration_ns: int, stand: Standing) -> HandOver | None:
    """So much of the order to the venue that takes the most of it; None if none takes any."""
    view = stand.view()
    seconds = (duration_ns - stand.elapsed_ns) // SECOND_NS
    wanted = min(int(stand.intent.quantity.units) * native_pct // 100, int(stand.left.units))
    if not wanted or view.mid is None:
        return None
    prices = stand.limit, stand.arrival, view.mid
    best: HandOver | None = None
    for found, _ in books(view):
        terms = stand.native(found)
        if terms is None or found.quote.group != terms.quote or not terms.duration_s_min <= seconds <= terms.duration_s_max:
            continue
        lot = int(rescale_up(Amount(found.lot_units, found.base), stand.left.asset).units)
        most = _units_worth(terms.value_max, max(prices), stand.left)
        units = min(wanted, most, stand.free(found)) // lot * lot
        is_enough = units > 0 and units >= _units_worth(terms.value_min, min(prices), stand.left)
        if is_enough and (best is None or units > best.quantity.units):
            best = HandOver(found.id, stand.amount(units), seconds)
    return best


def refusals(intent: Intent, native_pct: int, duration_ns: int, price: Price, offers: Offers) -> Iterator[str]:
    """Why no venue would take what the order wants to hand over, with the nearest value that would do."""
    taking = [(found, terms) for found, terms in offers if found.quote.group == terms.quote]
    if not taking:
        yield f"no venue that trades {intent.market} has a TWAP of its own for it: native 0 %"
        return
    reasons = [_refusal(intent, native_pct, duration_ns, price, found, terms) for found, terms in taking]
    if all(reasons):
        yield reasons[0]


def _refusal(intent: Intent, pct: int, duration_ns: int, price: Price, found: Instrument, terms: NativeTwap) -> str:
    low, high = terms.duration_s_min, terms.duration_s_max
    # it is handed over a moment after the beginning, and the rest of that second is lost
    if duration_ns < (low + 1) * SECOND_NS:
        return f"the TWAP of {found.venue} takes {low} s or more, and the duration must leave it so long: at least {low + 1} s"
    if duration_ns > high * SECOND_NS:
        return f"the TWAP of {found.venue} takes {high} s or less: a duration of at most {high} s, or native 0 %"
    units = int(intent.quantity.units)
    least, most = (_units_worth(value, price, intent.quantity) for value in (terms.value_min, terms.value_max))
    if units * pct // 100 < least:
        nearest = -(-least * 100 // units)
        instead = f"at least {nearest} %" if nearest <= 100 else "0 %"
        return f"native {pct} % is worth less than the {terms.value_min} {terms.quote} that {found.venue} takes: {instead}"
    if units * pct // 100 > most:
        instead = f"at most {most * 100 // units} %"
        return f"native {pct} % is worth more than the {terms.value_max} {terms.quote} that {found.venue} takes: {instead}"
    return ""


def _units_worth(value: int, price: Price, base: Amount) -> int:
    """Units of base that are worth so many whole coins of quote, rounded up."""
    top: int = value * int(price.den) * 10**base.asset.decimals
    return -(-top // int(price.num))
