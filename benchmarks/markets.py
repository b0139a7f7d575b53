"""Seeded markets for the routing benchmarks: a view as the router gets it, and the same market as plain numbers for its peers.

A market is books, constant-product, concentrated and stableswap pools (whose rate is the price) around one price of 3,000 USDT,
scattered by a few basis points; every size and gap is drawn from one seed. The plain numbers are read off the integers of the view,
so that nobody solves a slightly different problem. What stays untraded counts as sold at half the middle (bought at twice), as the
router counts it: it is the last book of the plain numbers, gas-free and endless.
"""

import math
from itertools import accumulate
from random import Random

import msgspec

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.instrument import PIPS, Instrument, Pool, Side
from agent.domain.price import Price, decimal_of, rounded, ticks_price
from agent.liquidity.concentrated import Concentrated, checked
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth
from agent.liquidity.stable import FEE_UNITS, StableSwap
from agent.liquidity.tick_math import sqrt_price_at_tick, tick_at_sqrt_price
from agent.market.view import Source, View, pool_mid
from agent.routing.cost import GasPrice, gas_up

PRICE = 3_000.0
BOOK_QUOTE = 8  # decimals of USDT on the exchange
WETH, TETHER = Asset("WETH", "eip155:1", 18, "ETH", "0x01"), Asset("USDT", "eip155:1", 6, "USDT", "0x02")
ETH_GROUP, USDT_GROUP = group_asset("ETH"), group_asset("USDT")
Q96 = 2.0**96


class Shape(msgspec.Struct, frozen=True):
    """What a market is made of, and how large the order is (`typical_eth`: the median of a lognormal).

    `thick`: factor on the sizes of the books. `dear`: factor on the price of gas. `lot_units`: of 1e-8 ETH. `notional_min` in USDT.
    `batch_gas`: what a transaction costs once, however many pools it trades with.
    """

    books: int = 5
    v2: int = 5
    v3: int = 4
    stable: int = 0
    levels: int = 50
    ticks: int = 40
    typical_eth: float = 300.0
    spread: float = 0.8
    thick: float = 1.0
    dear: float = 1.0
    lot_units: int = 10_000
    notional_min: int = 0
    batch_gas: int = 75_000
    side: Side = "sell"


class Ladder(msgspec.Struct, frozen=True):
    """A book: prices before the fee, best first, with sizes in base coins; `least`: its smallest order."""

    prices: list[float]
    sizes: list[float]
    fee: float
    least: float = 0.0


class Pair(msgspec.Struct, frozen=True):
    """A constant-product pool: reserves in whole coins."""

    base: float
    quote: float
    fee: float


class Ranges(msgspec.Struct, frozen=True):
    """A concentrated pool in the direction of the order: liquidity of each range, roots of the prices at its edges (one more)."""

    liquidity: list[float]
    roots: list[float]
    fee: float


class Stable(msgspec.Struct, frozen=True):
    """A stableswap pool: balances in quote coins, `rate` of them for a base coin, `ann` of the invariant, fee of what goes out."""

    base: float
    quote: float
    rate: float
    ann: float
    fee: float


class Numbers(msgspec.Struct, frozen=True):
    """The market without any of our types. Sources count books, v2, v3, stable; `gas` is of the pools, in quote coins."""

    side: Side
    quantity: float
    books: list[Ladder]
    v2: list[Pair]
    v3: list[Ranges]
    stable: list[Stable]
    gas: list[float]
    batch: float


class Instance(msgspec.Struct, frozen=True):
    """One order in one market: what `split` takes, and the plain numbers."""

    seed: int
    view: View
    side: Side
    quantity: Amount
    capacity: dict[str, Amount]
    gas: dict[int, GasPrice]
    numbers: Numbers


def build_instance(shape: Shape, seed: int) -> Instance:
    """The same shape and seed give the same instance on every machine."""
    chance = Random(seed)
    sources = [_book(chance, shape, i) for i in range(shape.books)]
    sources += [_v2(chance, i) for i in range(shape.v2)]
    sources += [_v3(chance, shape, i) for i in range(shape.v3)]
    sources += [_stable(chance, i) for i in range(shape.stable)]
    mids = sorted(source.mid for source in sources if source.instrument.is_book or not shape.books)
    mid = rounded(mids[len(mids) // 2])
    view = View("ETH/USDT", 0, mid, tuple(sources), (), {})
    gas = {1: GasPrice(1, int(30e9 * shape.dear), Price(3_000, 1), shape.batch_gas)}
    # Hundredths of the order are whole lots, so that routers that go in steps can trade on books at all.
    step = 100 * shape.lot_units
    lots = max(int(shape.typical_eth * chance.lognormvariate(0, shape.spread) * 1e8) // step, 1) * step
    quantity = Amount(lots * 10**10, ETH_GROUP)
    capacity = {
        asset.id: Amount(10 ** (asset.decimals + 9), asset) for s in sources for asset in (s.instrument.base, s.instrument.quote)
    }
    return Instance(seed, view, shape.side, quantity, capacity, gas, _numbers(shape, sources, quantity, mid, gas[1]))


def _book(chance: Random, shape: Shape, number: int) -> Source:
    """Tick 0.01 USDT, gaps of four ticks on average."""
    venue = f"x{number}"
    base, quote = Asset("ETH", venue, 8, "ETH"), Asset("USDT", venue, BOOK_QUOTE, "USDT")
    minimum = shape.notional_min * 10**BOOK_QUOTE
    fee = round(chance.uniform(100, 1_000))
    found = Instrument(venue, "ETHUSDT", base, quote, fee, 10 ** (BOOK_QUOTE - 2), shape.lot_units, minimum)
    middle = PRICE * (1 + chance.gauss(0, 2e-4))
    half = max(middle * chance.uniform(1e-5, 1e-4), 0.01)

    def side(sign: int) -> tuple[tuple[int, int], ...]:
        first = round((middle + sign * half) * 100)
        gaps = accumulate(1 + int(chance.expovariate(0.29)) for _ in range(shape.levels))
        sizes = (chance.lognormvariate(0, 1) * 2e8 * shape.thick for _ in range(shape.levels))
        return tuple((first + sign * gap, max(int(size) // shape.lot_units, 1)) for gap, size in zip(gaps, sizes, strict=True))

    bids, asks = side(-1), side(1)
    both = ticks_price(bids[0][0] + asks[0][0], found.tick_units, quote.decimals)
    return Source(found, Depth(bids, asks, found.tick_units, found.lot_units, 8, fee), Price(both.num, 2 * both.den), 0)


def _v2(chance: Random, number: int) -> Source:
    found = Instrument("v2", f"p{number}", WETH, TETHER, 3_000, pool=_pool("v2", number), gas=int(chance.uniform(66_000, 150_000)))
    base = chance.lognormvariate(math.log(3_000), 0.8)
    price = PRICE * (1 + chance.gauss(0, 2e-4))
    state = ConstantProduct(int(base * 1e6) * 10**12, int(base * price * 1e6), 3_000)
    return Source(found, state, pool_mid(found, state), 0)


def _v3(chance: Random, shape: Shape, number: int) -> Source:
    """Liquidity wanders from range to range and thins out away from the price."""
    fee = (500, 3_000, 500, 10_000)[number % 4]
    spacing = {500: 10, 3_000: 60, 10_000: 200}[fee]
    found = Instrument("v3", f"p{number}", WETH, TETHER, fee, pool=_pool("v3", number), gas=int(chance.uniform(90_000, 220_000)))
    root_x96 = int(math.sqrt(PRICE * (1 + chance.gauss(0, 2e-4)) * 1e-12) * Q96)
    tick = tick_at_sqrt_price(root_x96)
    deep = 3_000 * math.sqrt(PRICE) * chance.lognormvariate(math.log(10), 0.6) * 1e12
    here = int(deep)
    below, above = tick // spacing * spacing, (tick // spacing + 1) * spacing

    def wander(start: int, step: int, sign: int) -> list[tuple[int, int]]:
        """(tick, net) away from the price: the next range is `here` less what the walk has left."""
        nets, liquidity, log = [], here, 0.0
        for j in range(1, shape.ticks):
            log += chance.gauss(0, 0.25)
            following = int(deep * math.exp(log - j / shape.ticks))
            nets.append((start + (j - 1) * step, sign * (following - liquidity)))
            liquidity = following
        return nets

    down, up = wander(below, -spacing, -1), wander(above, spacing, 1)
    lower, upper = below - (shape.ticks - 1) * spacing, above + (shape.ticks - 1) * spacing
    state = checked(Concentrated(root_x96, tick, here, fee, spacing, (*reversed(down), *up), lower, upper))
    return Source(found, state, pool_mid(found, state), 0)


def _stable(chance: Random, number: int) -> Source:
    """Somewhat out of balance, of every stiffness."""
    rate = int(PRICE * (1 + chance.gauss(0, 2e-4)) * 1e6) * 10**12
    base = chance.lognormvariate(math.log(3_000), 0.6)
    quote = base * rate / 1e18 * chance.uniform(0.6, 1.6)
    amp = chance.choice((100, 200, 500, 1_000)) * 100
    state = StableSwap(int(base * 1e6) * 10**12, int(quote * 1e6), amp, 4 * 10**6, rate, 10**30)
    found = Instrument(
        "curve", f"p{number}", WETH, TETHER, 400, pool=_pool("stable", number), gas=int(chance.uniform(110_000, 270_000))
    )
    return Source(found, state, pool_mid(found, state), 0)


def _pool(protocol: str, number: int) -> Pool:
    return Pool(protocol, f"0x{number + 16:040x}", WETH.address, TETHER.address)  # type: ignore[arg-type]


# -- the same in plain numbers -----------------------------------------------------------------------------------------


def _numbers(shape: Shape, sources: list[Source], quantity: Amount, mid: Price, gas: GasPrice) -> Numbers:
    books, v2, v3, stable, costs = [], [], [], [], []
    for source in sources:
        found, state = source.instrument, source.state
        match state:
            case Depth():
                books.append(_ladder(state, found, shape.side))
            case ConstantProduct():
                v2.append(Pair(state.reserve_0 / 1e18, state.reserve_1 / 1e6, state.fee_pips / PIPS))
            case Concentrated():
                v3.append(_ranges(state, shape.side))
            case StableSwap():
                base, quote, rate = state.balance_0 / 1e18, state.balance_1 / 1e6, state.rate_0 / 1e18
                stable.append(Stable(base * rate, quote, rate, 2 * state.amp / state.amp_precision, state.fee / FEE_UNITS))
        if not found.is_book:
            costs.append(gas_up(found.gas, gas, USDT_GROUP).units / 1e18)
    rest = float(decimal_of(mid)) * (0.5 if shape.side == "sell" else 2.0)
    books.append(Ladder([rest], [1e12], 0.0))
    batch = gas_up(gas.batch_gas, gas, USDT_GROUP).units / 1e18 if costs and gas.batch_gas else 0.0
    return Numbers(shape.side, quantity.units / 1e18, books, v2, v3, stable, costs, batch)


def _ladder(state: Depth, found: Instrument, side: Side) -> Ladder:
    levels = state.bids if side == "sell" else state.asks
    prices = [ticks * state.tick_units / 10**BOOK_QUOTE for ticks, _ in levels]
    sizes = [lots * state.lot_units / 1e8 for _, lots in levels]
    return Ladder(prices, sizes, state.fee_pips / PIPS, _least(levels, found) * state.lot_units / 1e8)


def _least(levels: tuple[tuple[int, int], ...], found: Instrument) -> int:
    """The fewest lots worth the minimum at the worst tick that they touch; 0 where there is no minimum."""
    known = 0
    for ticks, lots in levels:
        need = -(-found.notional_min * 10**found.base.decimals // (ticks * found.tick_units * found.lot_units))
        if need <= known + lots:
            return max(need, known + 1) if found.notional_min else 0
        known += lots
    return known + 1


def _ranges(state: Concentrated, side: Side) -> Ranges:
    """Down from the price for an order that sells the base, up for one that buys it."""
    selling = side == "sell"
    ticks = [one for one in state.ticks if (one[0] <= state.tick) == selling]
    end = state.known_lower if selling else state.known_upper
    liquidity, roots = [state.liquidity], [state.sqrt_price_x96]
    for tick, net in reversed(ticks) if selling else ticks:
        roots.append(sqrt_price_at_tick(tick))
        liquidity.append(liquidity[-1] + (-net if selling else net))
    roots.append(sqrt_price_at_tick(end))
    return Ranges([one / 1e12 for one in liquidity], [root / Q96 * 1e6 for root in roots], state.fee_pips / PIPS)
