"""Seeded small markets for the router's tests, and an answer that shares nothing with the router but the exact quotes."""

from fractions import Fraction
from itertools import combinations
from math import sqrt
from random import Random

import msgspec

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.errors import LiquidityError
from agent.domain.instrument import Instrument, Pool
from agent.domain.price import Price
from agent.liquidity.concentrated import Concentrated, checked
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth, buy_lots, sell_lots
from agent.liquidity.tick_math import tick_at_sqrt_price
from agent.market.view import Source, View, pool_mid
from agent.routing.cost import GasPrice, gas_up, paid_up
from agent.routing.terms import Order, Rules

ETH = group_asset("ETH")
USD = group_asset("USD")
E18 = 10**18


def book(name="binance", mid=2500.0, levels=6, size=3.0, fee_pips=1_000, lot=10**4, notional_min=0, rng=None):
    """Prices in cents, base of 8 decimals, quote of 8 decimals."""
    rng = rng or Random(1)
    base, quote = Asset("ETH", name, 8, "ETH"), Asset("USDT", name, 8, "USD")
    found = Instrument(name, "ETHUSDT", base, quote, fee_pips, tick_units=10**6, lot_units=lot, notional_min=notional_min)
    sides = []
    for sign in (-1, 1):
        ticks, side = round(mid * 100) + sign * rng.randint(1, 20), []
        for _ in range(levels):
            side.append((ticks, max(1, round(rng.lognormvariate(0, 0.8) * size * 10**8 / lot))))
            ticks += sign * rng.randint(1, 60)
        sides.append(tuple(side))
    tops = Fraction(sides[0][0][0] + sides[1][0][0], 200)
    state = Depth(sides[0], sides[1], found.tick_units, lot, 8, fee_pips)
    return Source(found, state, Price(tops.numerator, tops.denominator), 0)


def pool(protocol="v2", symbol="v2-a", mid=2500.0, size=300.0, fee_pips=3_000, gas=100_000, chain=1, flipped=False, rng=None):
    """`size` is about the base held; a concentrated pool has a few overlapping positions."""
    rng = rng or Random(2)
    home = f"eip155:{chain}"
    base = Asset("WETH", home, 18, "ETH", "0x" + ("bb" if flipped else "aa") * 20)
    quote = Asset("USDC", home, 6, "USD", "0x" + ("aa" if flipped else "bb") * 20)
    spacing = 60
    tokens = (quote.address, base.address) if flipped else (base.address, quote.address)
    found = Instrument("uniswap", symbol, base, quote, fee_pips, pool=Pool(protocol, "0x1", *tokens, spacing), gas=gas)
    if protocol == "v2":
        reserves = (round(size * E18), round(size * mid * 10**6))
        state = ConstantProduct(*(reserves[::-1] if flipped else reserves), fee_pips)
        return Source(found, state, pool_mid(found, state), 0, 1)
    raw = mid * 10**-12
    sqrt_x96 = int(sqrt(1 / raw if flipped else raw) * 2**96)
    tick = tick_at_sqrt_price(sqrt_x96)
    nets, liquidity = {}, 0
    for _ in range(rng.randint(1, 4)):
        lower = (tick // spacing - rng.randint(0, 15)) * spacing
        upper = (tick // spacing + rng.randint(1, 15)) * spacing
        amount = round(size * sqrt(mid) * 10 ** (18 - 6) * rng.lognormvariate(0, 0.6) * 3)
        nets[lower] = nets.get(lower, 0) + amount
        nets[upper] = nets.get(upper, 0) - amount
        liquidity += amount
    ticks = tuple(sorted((t, n) for t, n in nets.items() if n))
    state = checked(Concentrated(sqrt_x96, tick, liquidity, fee_pips, spacing, ticks))
    return Source(found, state, pool_mid(found, state), 0, 1)


def view_of(*sources, mid=2500.0):
    exact = Fraction(round(mid * 100), 100)
    return View("ETH/USD", 0, Price(exact.numerator, exact.denominator), tuple(sources), (), {})


def gas_price(gwei=20.0, mid=2500.0, batch=100_000, chain=1):
    return {chain: GasPrice(chain, round(gwei * 10**9), Price(round(mid * 100), 100), batch)}


def plenty(*sources):
    found = {}
    for source in sources:
        for asset in (source.instrument.base, source.instrument.quote):
            found[asset.id] = Amount(10**9 * 10**asset.decimals, asset)
    return found


def random_market(seed, *, lot=10**4, notional=False, chains=1):
    """2 to 4 sources around one middle price."""
    rng = Random(seed)
    mid = rng.uniform(1_500, 3_500)
    near = lambda: mid * (1 + rng.gauss(0, 5e-4))  # noqa: E731
    sources = [
        book(f"ex{k}", near(), rng.randint(2, 6), rng.choice([0.5, 2, 6]), rng.choice([0, 500, 1_000]), lot,
             rng.choice([10, 2_000, 9_000]) * 10**8 if notional else 0, rng)
        for k in range(rng.randint(0, 2))
    ]  # fmt: skip
    for k in range(rng.randint(2 if not sources else 1, 4 - len(sources))):
        protocol = rng.choice(["v2", "v3", "v4"])
        size = rng.choice([30, 200, 1_500])
        fee, gas = rng.choice([500, 3_000]), rng.choice([60_000, 120_000])
        sources.append(pool(protocol, f"{protocol}-{k}", near(), size, fee, gas, rng.randint(1, chains), rng.random() < 0.5, rng))
    return mid, sources, rng


class Brute:
    """Every way to cut the order into `parts` equal pieces over the sources and the untraded rest, quoted exactly."""

    def __init__(self, order, sources, capacity, gas, parts):
        self.order, self.sources, self.capacity, self.gas, self.parts = order, sources, capacity, gas, parts
        self.tables = [[self._quote(source, k) for k in range(parts + 1)] for source in sources]

    def _quote(self, source, k):
        """(value after fee, drawn from the balance) of k parts, or None if impossible."""
        if k == 0:
            return 0, 0
        order, found, state, side = self.order, source.instrument, source.state, self.order.side
        base = order.quantity.units * k // self.parts // 10 ** (18 - found.base.decimals)
        unit = 10 ** (18 - found.quote.decimals)
        try:
            if isinstance(state, Depth):
                assert base % found.lot_units == 0, "the grid is made of lots"
                return self._book(found, state, base // found.lot_units, unit)
            if side == "sell":
                swap = state.swap_in(base, found.base_is_token0)
                quote, drawn = swap.amount_out, base
            else:
                swap = state.swap_out(base, not found.base_is_token0)
                quote = swap.amount_in
                drawn = -(-quote * (10_000 + order.rules.reserve_bps) // 10_000)
            if not self._within(found, swap.after):
                return None
        except LiquidityError:
            return None
        return quote * unit, drawn

    def _within(self, found, after):
        """Whether the last unit, after the fee, was still within the limit."""
        if self.order.limit is None:
            return True
        mid, keep = pool_mid(found, after), Fraction(10**6 - found.fee_pips, 10**6)
        limit = Fraction(self.order.limit.num, self.order.limit.den)
        price = Fraction(mid.num, mid.den)
        return price * keep >= limit if self.order.side == "sell" else price / keep <= limit

    def _book(self, found, state, lots, unit):
        order = self.order
        left, worst = lots, 0
        for ticks, size in state.bids if order.side == "sell" else state.asks:
            left, worst = left - size, ticks
            if left <= 0:
                break
        if left > 0:
            return None
        slipped = worst * (10_000 - order.rules.reserve_bps) // 10_000 if order.side == "sell" else worst
        if order.limit is not None:
            last = order.limit.num * 10**found.quote.decimals / (order.limit.den * found.tick_units)
            if worst < last - 1e-9 if order.side == "sell" else worst > last + 1e-9:
                return None
            slipped = max(slipped, last) if order.side == "sell" else slipped
        else:
            slipped = worst
        if slipped * found.tick_units * lots * found.lot_units < found.notional_min * 10**found.base.decimals:
            return None
        if order.side == "sell":
            return sell_lots(state, lots).amount_out * unit, lots * found.lot_units
        high = -(-worst * (10_000 + order.rules.reserve_bps) // 10_000)
        if order.limit is not None:
            high = min(high, int(last))
        drawn = -(-high * found.tick_units * lots * found.lot_units // 10**found.base.decimals)
        return paid_up(buy_lots(state, lots).amount_in, found.fee_pips) * unit, drawn

    def best(self):
        """Units of the quote group, as `worth.net` counts them."""
        count = len(self.sources)
        cuts = combinations(range(self.parts + count), count)
        return max(worth for cut in cuts if (worth := self._worth(self._sizes(cut))) is not None)

    def _sizes(self, cut):
        previous, sizes = -1, []
        for bar in cut:
            sizes.append(bar - previous - 1)
            previous = bar
        return sizes

    def _worth(self, sizes):
        order, selling = self.order, self.order.side == "sell"
        total, drawn, legs = 0, {}, {}
        for source, k, table in zip(self.sources, sizes, self.tables, strict=True):
            if not k:
                continue
            if table[k] is None:
                return None
            found = source.instrument
            asset = found.base if selling else found.quote
            drawn[asset.id] = drawn.get(asset.id, 0) + table[k][1]
            if drawn[asset.id] > self.capacity.get(asset.id, Amount(0, asset)).units:
                return None
            total += table[k][0] if selling else -table[k][0]
            if not found.is_book:
                chain = int(found.base.home.split(":")[1])
                legs[chain] = legs.get(chain, 0) + found.gas
        for chain, units in legs.items():
            total -= gas_up(self.gas[chain].batch_gas + units, self.gas[chain], USD).units
        rest = order.quantity.units * (self.parts - sum(sizes)) // self.parts
        value = rest * order.rest.num // order.rest.den
        return total + (value if selling else -value)


def score(order, route):
    """The same measure for a route."""
    value = route.unplaced.units * order.rest.num // order.rest.den
    return route.quote.units + value if order.side == "sell" else -route.quote.units - value


def order_of(view, side, quantity, limit=None, rules=None):
    return Order(side, quantity, USD, view.mid, limit, rules or Rules())


def with_rules(**changes):
    return msgspec.structs.replace(Rules(), **changes)
