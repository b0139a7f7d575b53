"""Seeded networks of books and pools over several coins, and answers that share nothing with the router but the exact quotes."""

from math import sqrt
from random import Random

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.errors import LiquidityError
from agent.domain.instrument import Instrument, Pool
from agent.domain.price import Price
from agent.liquidity.concentrated import Concentrated, checked
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth
from agent.liquidity.tick_math import tick_at_sqrt_price
from agent.market.view import Source
from agent.routing.cost import GasPrice, gas_up

E18 = 10**18
COINS = {"ETH": (2_500.0, 18), "USD": (1.0, 6), "BTC": (60_000.0, 8), "DAI": (1.0, 18), "LINK": (15.0, 18), "UNI": (8.0, 18)}
ETH, USD = group_asset("ETH"), group_asset("USD")


def on_chain(coin, chain=1):
    return Asset(coin, f"eip155:{chain}", COINS[coin][1], coin, f"0x{list(COINS).index(coin) + 1:040x}")


def at_exchange(coin, venue="ex"):
    return Asset(coin, venue, 8, coin)


def a_pool(name, base, quote, size, rng, *, protocol="v2", fee_pips=3_000, gas=100_000, drift=0.0015):
    """A pool between two coins near their prices; `size` is what it holds of each side, in dollars."""
    price = COINS[base.group][0] / COINS[quote.group][0] * (1 + rng.gauss(0, drift))
    forward = base.address < quote.address
    tokens = (base.address, quote.address) if forward else (quote.address, base.address)
    found = Instrument("uniswap", name, base, quote, fee_pips, pool=Pool(protocol, "0x1", *tokens, 60), gas=gas)
    base_units = size / COINS[base.group][0] * 10**base.decimals
    quote_units = size / COINS[base.group][0] * price * 10**quote.decimals
    reserves = (base_units, quote_units) if forward else (quote_units, base_units)
    if protocol == "v2":
        return Source(found, ConstantProduct(int(reserves[0]), int(reserves[1]), fee_pips), Price(1, 1), 0, 1)
    sqrt_x96 = int(sqrt(reserves[1] / reserves[0]) * 2**96)
    tick = tick_at_sqrt_price(sqrt_x96)
    nets, liquidity = {}, 0
    for _ in range(rng.randint(2, 5)):
        lower, upper = (tick // 60 - rng.randint(0, 12)) * 60, (tick // 60 + rng.randint(1, 12)) * 60
        amount = int(sqrt(reserves[0] * reserves[1]) * rng.lognormvariate(0, 0.6) * 2)
        nets[lower], nets[upper] = nets.get(lower, 0) + amount, nets.get(upper, 0) - amount
        liquidity += amount
    ticks = tuple(sorted((t, n) for t, n in nets.items() if n))
    return Source(found, checked(Concentrated(sqrt_x96, tick, liquidity, fee_pips, 60, ticks)), Price(1, 1), 0, 1)


def a_book(name, base, quote, size, rng, *, levels=8, fee_pips=500, lot=10**2, notional_min=0, drift=0.0005):
    """A book between two coins of one exchange, the dearer one as base; `size` is about a level's worth in dollars."""
    base, quote = sorted((base, quote), key=lambda one: -COINS[one.group][0])
    price = COINS[base.group][0] / COINS[quote.group][0] * (1 + rng.gauss(0, drift))
    tick_units = max(int(price * 10**8 / 10**6), 1)
    found = Instrument(base.home, name, base, quote, fee_pips, tick_units=tick_units, lot_units=lot, notional_min=notional_min)
    sides = []
    for sign in (-1, 1):
        ticks, side = round(price * 10**8 / tick_units) + sign * rng.randint(1, 100), []
        for _ in range(levels):
            lots = max(1, round(rng.lognormvariate(0, 0.8) * size / COINS[base.group][0] * 10**8 / lot))
            side.append((ticks, lots))
            ticks += sign * rng.randint(1, 300)
        sides.append(tuple(side))
    return Source(found, Depth(sides[0], sides[1], tick_units, lot, 8, fee_pips), Price(1, 1), 0)


def random_network(seed, *, books=True, pools=True, ranges=True, drift=0.0003):
    """Some books and pools between up to six coins, with ways from ETH to USD of one to three hops."""
    rng = Random(seed)
    coins = list(COINS)[: rng.randint(3, len(COINS))]
    pairs = [(a, b) for a in coins for b in coins if a < b]
    sources = []
    for k in range(rng.randint(4, 12)):
        base, quote = rng.choice(pairs) if k > 1 else (("ETH", "USD") if k else ("BTC", "ETH"))
        if rng.random() < 0.5:
            base, quote = quote, base
        size = 10 ** rng.uniform(5, 7.5)
        if books and (not pools or rng.random() < 0.4):
            venue = rng.choice(["ex", "by"])
            sources.append(a_book(f"b{k}", at_exchange(base, venue), at_exchange(quote, venue), size / 200, rng, drift=drift))
        else:
            protocol = rng.choice(["v2", "v3"]) if ranges else "v2"
            fee = rng.choice([500, 3_000])
            name = f"{protocol}-{k}"
            sources.append(a_pool(name, on_chain(base), on_chain(quote), size, rng, protocol=protocol, fee_pips=fee, drift=drift))
    return tuple(sources), rng


def gas_of(gwei, chain=1, batch=100_000):
    return {chain: GasPrice(chain, round(gwei * 10**9), Price(2_500, 1), batch)}


def best_path(sources, sell, gas, hops=3):
    """The most that one path of a few hops nets, all of it through every hop, quoted exactly; and what stays behind, by asset."""
    best = (0, ())

    def walk(asset, units, seen, legs):
        nonlocal best
        if asset.group == "USD":
            cost = sum(gas_up(gas[1].batch_gas + sum(legs), gas[1], USD).units for _ in [0] if legs)
            net = units * 10 ** (18 - asset.decimals) - cost
            best = max(best, (net, tuple(seen)))
            return
        if len(seen) == hops:
            return
        for source in sources:
            found = source.instrument
            for give, receive in ((found.base, found.quote), (found.quote, found.base)):
                if give != asset or found.id in seen or receive.group == "ETH":
                    continue
                try:
                    quote = source.state.swap_in(units, (give is found.base) == (found.is_book or found.base_is_token0))
                except LiquidityError:
                    continue
                walk(receive, quote.amount_out, [*seen, found.id], legs if found.is_book else [*legs, found.gas])

    starts = {s.id: s for source in sources for s in (source.instrument.base, source.instrument.quote) if s.group == "ETH"}
    for start in starts.values():
        walk(start, sell.units // 10 ** (18 - start.decimals), [], [])
    return best


def eth(coins):
    return Amount(round(coins * 10**9) * 10**9, ETH)


def whole_value(found):
    """Net of an answer with what it left at its own marginal prices, in units of USD with 18 decimals."""
    left = sum(one.units / 10**one.asset.decimals * found.prices[str(one.asset)] for one in found.left)
    return found.net.units + round(left * E18)
