"""What a parent order cost, and why: its implementation shortfall, taken apart to the last unit of the quote group.

The paper order trades everything at once at the middle of the moment when the client decided, which here is when the order was
accepted (arrival). What the real one gave is held against it (A. Perold, "The implementation shortfall: paper versus reality",
1988; taken apart as in R. Kissell, "The expanded implementation shortfall", 2006). For a sale of X, of which b was traded for q,

    cost = X A - (sum q - fees - gas + (X - sum b) D)

with A the arrival price and D the middle at departure, when the order ended. A purchase has the opposite signs. Its parts:

    delay        sum b (A - M1)          the market moved before the first slice was decided at M1
    timing       sum b (M1 - m)          it moved while the order was worked, until m, against which a trade is measured
    spread       sum b m h               half the spread of the tightest book; earned, so below zero, by what rested
    fees         of venues, and those inside the prices of pools
    impact       the rest of sum (b m - q): depth, what others did meanwhile, rounding
    gas          of all transactions, permissions and failed ones included
    opportunity  (X - sum b) (A - D)     of what was not traded

Positive parts cost, negative ones earned. Values are rounded down and telescope, so that the parts add up to the cost exactly.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.instrument import PIPS, Side
from agent.domain.price import Price

Liquidity = Literal["taker", "maker", "pool"]
PARTS = ("delay", "timing", "spread", "impact", "fees", "gas", "opportunity")
BPS = 10_000.0
DIGITS = 10  # of a price that was an opinion


class Trade(msgspec.Struct, frozen=True):
    """One fill. `base`, `quote` and `fee` in units of the groups; `quote` before the fee.

    `mid`: against which it is measured. `half_bps`: half the spread then, None if it is not known. `pool_pips`: the fee inside
    a pool's price, in millionths of what is paid in.
    """

    order_id: str
    venue: str
    instrument: str
    liquidity: Liquidity
    base: int
    quote: int
    fee: int
    at_ns: int
    mid: Price
    half_bps: float | None = None
    pool_pips: int = 0


class Terms(msgspec.Struct, frozen=True):
    """What a parent is measured against. `quantity` in units of the base group.

    `first`: the middle when its first slice was decided. `departure`: when it ended; None: it has not, or nobody knows.
    """

    side: Side
    base: Asset
    quote: Asset
    quantity: int
    arrival: Price
    first: Price | None = None
    departure: Price | None = None


class Shortfall(msgspec.Struct, frozen=True):
    """All of the quote group. `spread` None: it is not known, and inside `impact`. `opportunity` None: it is not known, and `total`
    is the cost of what was traded. `notional`: what `total` is a part of: the order at its arrival price, or what was traded of it.
    """

    delay: Amount
    timing: Amount
    spread: Amount | None
    impact: Amount
    fees: Amount
    gas: Amount
    opportunity: Amount | None
    total: Amount
    notional: Amount

    @property
    def bps(self) -> float | None:
        """The whole cost in basis points of `notional`: an opinion for reports. None where there is nothing."""
        return self.share(self.total)

    def share(self, part: Amount | None) -> float | None:
        """A part of it in basis points of `notional`."""
        return None if part is None or not self.notional else part.units / self.notional.units * BPS


def shortfall(terms: Terms, trades: Sequence[Trade], gas: int) -> Shortfall:
    """`gas`: units of the quote group. The parts that are known add up to the total exactly."""
    sign = 1 if terms.side == "sell" else -1
    first = terms.first or terms.arrival
    delay = timing = spread = rest = fees = done = 0
    for one in trades:
        at_arrival, at_first, at_mid = (worth(one.base, price, terms) for price in (terms.arrival, first, one.mid))
        within = pool_fee(one, terms.side)
        half = half_spread(one, at_mid)
        delay += sign * (at_arrival - at_first)
        timing += sign * (at_first - at_mid)
        spread += half or 0
        rest += sign * (at_mid - one.quote) - (half or 0) - within
        fees += one.fee + within
        done += one.base
    left = max(terms.quantity - done, 0)
    missed = _missed(left, terms, sign)
    total = delay + timing + spread + rest + fees + gas + (missed or 0)
    is_known = all(one.half_bps is not None or one.liquidity == "pool" for one in trades)
    whole = worth(terms.quantity if missed is not None else done, terms.arrival, terms)
    if not is_known:
        rest += spread

    def coins(units: int) -> Amount:
        return Amount(units, terms.quote)

    return Shortfall(
        coins(delay),
        coins(timing),
        coins(spread) if is_known else None,
        coins(rest),
        coins(fees),
        coins(gas),
        None if missed is None else coins(missed),
        coins(total),
        coins(whole),
    )


def worth(base: int, price: Price, terms: Terms) -> int:
    """What units of the base group are worth at a price, in units of the quote group, rounded down."""
    top: int = base * price.num * 10**terms.quote.decimals
    bottom: int = price.den * 10**terms.base.decimals
    return top // bottom


def pool_fee(one: Trade, side: Side) -> int:
    """The fee inside a pool's price, in quote: of what was paid in, which for a sale is worth what came out and the fee."""
    return one.quote * one.pool_pips // (PIPS - one.pool_pips if side == "sell" else PIPS)


def half_spread(one: Trade, value: int) -> int | None:
    """Of a trade worth so much at its middle: paid by who took, earned by who rested. A pool has none. None: not known."""
    if one.liquidity == "pool":
        return 0
    if one.half_bps is None:
        return None
    return value * round(one.half_bps * 100) // PIPS * (-1 if one.liquidity == "maker" else 1)


def near_price(value: float) -> Price | None:
    """An opinion as a price that values can be counted at, to `DIGITS` decimals; None for what is no price."""
    scale = 10**DIGITS
    units = round(value * scale) if 0 < value < 10.0**12 else 0
    return Price(units, scale) if units else None


def cost_bps(side: Side, price: float, reference: float) -> float:
    """How much worse `price` is than `reference`, in basis points of it: positive costs."""
    return (reference - price if side == "sell" else price - reference) / reference * BPS


def markout_bps(side: Side, price: float, mid: float) -> float:
    """Where the market went after a trade at `price`, in basis points of it: positive is good for us."""
    return (price - mid if side == "sell" else mid - price) / price * BPS


def mean(weighted: Iterable[tuple[float, float]]) -> float | None:
    """Of (weight, value); None without weight."""
    weight = total = 0.0
    for one, value in weighted:
        weight += one
        total += one * value
    return total / weight if weight > 0 else None


def _missed(left: int, terms: Terms, sign: int) -> int | None:
    if not left:
        return 0
    if terms.departure is None:
        return None
    return sign * (worth(left, terms.arrival, terms) - worth(left, terms.departure, terms))
