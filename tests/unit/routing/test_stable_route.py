"""Over stableswap pools the router loses less than 1e-4 basis points against the exact curves, in the contracts' own integers."""

from collections.abc import Callable
from random import Random

import pytest

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.errors import LiquidityError
from agent.domain.instrument import Instrument, Pool
from agent.domain.price import Price
from agent.liquidity.depth import Depth
from agent.liquidity.stable import StableSwap
from agent.market.view import Source, View, middle, pool_mid
from agent.routing.cost import GasPrice
from agent.routing.split import Route, split

E18 = 10**18
LOSS_BPS = 1e-4
USDE, USDC = Asset("USDe", "eip155:1", 18, "USDe", "0xaa"), Asset("USDC", "eip155:1", 6, "USDC", "0xbb")
BOOK_BASE, BOOK_QUOTE = Asset("USDe", "ex", 8, "USDe"), Asset("USDC", "ex", 8, "USDC")
FREE = {1: GasPrice(1, 0, Price(1, 1), 0)}


def stable(rng: Random, name: str, *, flipped: bool = False) -> Source:
    size = 10 ** rng.uniform(5, 7)
    tilt = 10 ** rng.uniform(-0.7, 0.7)
    units_18, units_6 = int(size * 1e12 * tilt) * 10**6, int(size / tilt) * 10**6
    amp, fee = rng.choice([20, 100, 500, 2_000]) * 100, rng.choice([1_000_000, 4_000_000])
    state = (
        StableSwap(units_6, units_18, amp, fee, 10**30, E18) if flipped else StableSwap(units_18, units_6, amp, fee, E18, 10**30)
    )
    tokens = (USDC.address, USDE.address) if flipped else (USDE.address, USDC.address)
    found = Instrument("curve", name, USDE, USDC, fee // 10_000, pool=Pool("stable", "", *tokens))
    return Source(found, state, pool_mid(found, state), 0, 1)


def flat(price: float) -> Source:
    """A book with one endless level a side: everything beyond the pool trades at one price, where the pool's errors cost most."""
    found = Instrument("ex", "USDeUSDC", BOOK_BASE, BOOK_QUOTE, 0, tick_units=1, lot_units=1)
    ticks = round(price * 10**8)
    depth = Depth(((ticks, 10**18),), ((ticks + 1, 10**18),), 1, 1, 8, 0)
    return Source(found, depth, Price(2 * ticks + 1, 2 * 10**8), 0)


def routed(side: str, quantity: int, sources: tuple[Source, ...]) -> Route:
    view = View("USDe/USDC", 0, middle(sources), sources, (), {})
    assets = [asset for one in sources for asset in (one.instrument.base, one.instrument.quote)]
    plenty = {asset.id: Amount(10 ** (asset.decimals + 12), asset) for asset in assets}
    found = split(view, side, Amount(quantity, group_asset("USDe")), plenty, FREE)
    assert isinstance(found, Route), found
    return found


def quoted(source: Source, side: str, base: int) -> int:
    """Quote units, of 6 decimals, for base units of 18, signed so that more is better."""
    if base == 0:
        return 0
    forward = (side == "sell") == source.instrument.base_is_token0
    assert isinstance(source.state, StableSwap)
    if side == "sell":
        return source.state.swap_in(base, forward).amount_out
    return -source.state.swap_out(base, forward).amount_in


def best(worth: Callable[[int], int | float], high: int) -> float:
    """The greatest value of a concave function of whole units, by thirds."""
    low = 0
    while high - low > 10**9:
        third = (high - low) // 3
        if worth(low + third) < worth(high - third):
            low += third
        else:
            high -= third
    return max(worth(low), worth((low + high) // 2), worth(high))


def guarded(worth: Callable[[int], int | float]) -> Callable[[int], int | float]:
    def wrapped(base: int) -> int | float:
        try:
            return worth(base)
        except LiquidityError:
            return -(10**30)

    return wrapped


def value(route: Route) -> int:
    return sum(piece.quote.units * 10 ** (18 - piece.quote.asset.decimals) for piece in route.pieces) * (
        1 if route.side == "sell" else -1
    )


@pytest.mark.parametrize("side", ["sell", "buy"])
@pytest.mark.parametrize("seed", range(20))
def test_two_pools_share_as_they_should(seed: int, side: str) -> None:
    rng = Random(seed)
    pools = (stable(rng, "a"), stable(rng, "b", flipped=True))
    quantity = int(10 ** rng.uniform(3, 5.6)) * E18
    route = routed(side, quantity, pools)
    if route.unplaced:
        pytest.skip("the pools are too small for it")
    top = best(guarded(lambda base: quoted(pools[0], side, base) + quoted(pools[1], side, quantity - base)), quantity) * 10**12
    loss = (top - value(route)) / abs(top) * 1e4
    assert loss < LOSS_BPS + 3 * 10**12 / abs(top) * 1e4, "three units of six decimals are rounding"


@pytest.mark.parametrize("side", ["sell", "buy"])
@pytest.mark.parametrize("seed", range(20))
def test_a_pool_beside_a_flat_market(seed: int, side: str) -> None:
    rng = Random(1_000 + seed)
    pool = stable(rng, "a", flipped=seed % 2 == 0)
    spot = pool.mid.num / pool.mid.den
    away = rng.uniform(1e-3, 0.03)
    book = flat(spot * (1 - away if side == "sell" else 1 + away))
    quantity = 10**25
    route = routed(side, quantity, (pool, book))
    assert isinstance(book.state, Depth)
    ticks = book.state.bids[0][0] if side == "sell" else -book.state.asks[0][0]
    top = best(guarded(lambda base: quoted(pool, side, base) * 10**12 + (quantity - base) * ticks / 10**8), quantity)
    alone = (quantity * ticks) / 10**8
    swapped = next(piece for piece in route.pieces if not piece.instrument.is_book)
    share = abs(quoted(pool, side, swapped.base.units)) * 10**12
    loss = (top - value(route)) / share * 1e4
    assert loss < LOSS_BPS + (3 * 10**12 + abs(alone) * 1e-15) / share * 1e4, "of what the pool itself trades"
