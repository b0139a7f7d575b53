"""The sandbox's liquidity: how deep each pool is, and the transactions that put it there.

Depth is stated as a trader would: how many ETH move the price by ten basis points. Concentrated pools get nested positions
around the start price, so that depth thins out away from it and a swap crosses initialised ticks, as on a public chain.
"""

from decimal import Decimal, localcontext
from math import isqrt

from eth_abi.abi import encode

from agent.simulation.chain.deployment import Deployment, Pool
from agent.simulation.chain.rpc import Sender, calldata
from agent.simulation.chain.shape import DEPTH_ETH, POSITIONS, START_OFFSET_BPS, V2_WETH

START_PRICE_CENTS = 268_380  # 2683.80 USDT for one ETH
UNLIMITED = 2**256 - 1
FOREVER_S = 2**40
Q96 = 2**96
_MINT_V3 = "(address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256)"
_POOL_KEY = "(address,address,uint24,int24,address)"
_MINT_POSITION, _SETTLE_PAIR = 0x02, 0x0D
_GAS_PER_POSITION = 600_000


def sort_currencies(a: str, b: str) -> tuple[str, str]:
    """Two tokens in the order of the contracts: by address as a number."""
    return (a, b) if int(a, 16) < int(b, 16) else (b, a)


def start_price_cents(name: str) -> int:
    """What one ETH costs in a pool at the start, in cents."""
    return START_PRICE_CENTS * (10_000 + START_OFFSET_BPS[name]) // 10_000


def sqrt_price_x96(usdt_cents_per_eth: int, weth_is_0: bool) -> int:
    """The pool price sqrt(raw1/raw0) * 2^96, rounded down, for a dollar price in cents (18 and 6 decimals)."""
    # One ETH is 10^18 wei and its price is cents * 10^4 micro-dollars.
    numerator, denominator = usdt_cents_per_eth * 10**4, 10**18
    if not weth_is_0:
        numerator, denominator = denominator, numerator
    return isqrt((numerator << 192) // denominator)


def tick_at(sqrt_price: int) -> int:
    """The tick of a price: floor(log_1.0001(price)); good away from tick boundaries, as the start price is."""
    with localcontext(prec=60):
        ratio = (Decimal(sqrt_price) / Q96) ** 2
        return int((ratio.ln() / Decimal("1.0001").ln()).to_integral_value(rounding="ROUND_FLOOR"))


def sqrt_price_at(tick: int) -> int:
    """1.0001^(tick/2) * 2^96, rounded down; within one unit of the contract's table."""
    with localcontext(prec=80):
        return int((Decimal("1.0001") ** tick).sqrt() * Q96)


def amounts_for(liquidity: int, sqrt_price: int, lower: int, upper: int) -> tuple[int, int]:
    """What a position holds at a price (Uniswap v3 whitepaper, 6.29 and 6.30), rounded up."""
    low, high = sqrt_price_at(lower), sqrt_price_at(upper)
    at = min(max(sqrt_price, low), high)
    amount0 = -(-(liquidity * Q96 * (high - at)) // (high * at))
    amount1 = -(-(liquidity * (at - low)) // Q96)
    return amount0, amount1


def positions_of(pool: Pool, weth_is_0: bool) -> list[tuple[int, int, int]]:
    """The pool's positions as (lower tick, upper tick, liquidity), on its tick spacing; none repeats another's ticks."""
    # dx = L * d(1/sqrt P): ten basis points take L / sqrt(P) * 0.0005 of ETH; the 10^12 joins the 18 and 6 decimals.
    total = DEPTH_ETH[pool.name] * 2000 * isqrt(START_PRICE_CENTS * 10**22)
    spacing = pool.tick_spacing
    centre = tick_at(sqrt_price_x96(start_price_cents(pool.name), weth_is_0)) // spacing * spacing
    made: dict[tuple[int, int], int] = {}
    for half, shift, percent in POSITIONS:
        middle = centre + (shift if weth_is_0 else -shift) // spacing * spacing
        reach = max(half // spacing, 1) * spacing
        ticks = (middle - reach, middle + reach + spacing)
        made[ticks] = made.get(ticks, 0) + total * percent // 100
    return [(lower, upper, liquidity) for (lower, upper), liquidity in made.items()]


def add_v2(maker: Sender, deployment: Deployment, pool: Pool) -> None:
    """Queue the v2 pair's creation and its liquidity."""
    usdt = V2_WETH * start_price_cents(pool.name) * 10**4 // 10**18
    maker.invoke(
        deployment.contracts["UniswapV2Router02"],
        "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)",
        deployment.tokens["WETH"].address,
        deployment.tokens["USDT"].address,
        V2_WETH,
        usdt,
        0,
        0,
        maker.address,
        FOREVER_S,
        gas=4_000_000,
    )


def add_v3(maker: Sender, deployment: Deployment, pool: Pool) -> None:
    """Queue a v3 pool's creation at the start price and all its positions, in one transaction each."""
    weth_is_0 = pool.currency0 == deployment.tokens["WETH"].address
    price = sqrt_price_x96(start_price_cents(pool.name), weth_is_0)
    manager = deployment.contracts["NonfungiblePositionManager"]
    maker.invoke(
        manager,
        "createAndInitializePoolIfNecessary(address,address,uint24,uint160)",
        pool.currency0,
        pool.currency1,
        pool.fee_pips,
        price,
        gas=7_000_000,
    )
    mints = []
    for lower, upper, liquidity in positions_of(pool, weth_is_0):
        amount0, amount1 = amounts_for(liquidity, price, lower, upper)
        mint = (pool.currency0, pool.currency1, pool.fee_pips, lower, upper, amount0, amount1, 0, 0)
        data = calldata(f"mint({_MINT_V3})", (*mint, maker.address, FOREVER_S))
        mints.append(bytes.fromhex(data[2:]))
    maker.invoke(manager, "multicall(bytes[])", mints, gas=_GAS_PER_POSITION * len(mints))


def add_v4(maker: Sender, deployment: Deployment, pool: Pool) -> None:
    """Queue a v4 pool's creation at the start price and all its positions, paid through Permit2."""
    weth_is_0 = pool.currency0 == deployment.tokens["WETH"].address
    price = sqrt_price_x96(start_price_cents(pool.name), weth_is_0)
    key = (pool.currency0, pool.currency1, pool.fee_pips, pool.tick_spacing, pool.hooks)
    maker.invoke(deployment.contracts["PoolManager"], f"initialize({_POOL_KEY},uint160)", key, price)
    positions = positions_of(pool, weth_is_0)
    types = [_POOL_KEY, "int24", "int24", "uint256", "uint128", "uint128", "address", "bytes"]
    no_limit = 2**127
    steps = [encode(types, [key, *position, no_limit, no_limit, maker.address, b""]) for position in positions]
    steps.append(encode(["address", "address"], [pool.currency0, pool.currency1]))
    actions = bytes([_MINT_POSITION] * len(positions) + [_SETTLE_PAIR])
    maker.invoke(
        deployment.contracts["PositionManager"],
        "modifyLiquidities(bytes,uint256)",
        encode(["bytes", "bytes[]"], [actions, steps]),
        FOREVER_S,
        gas=_GAS_PER_POSITION * len(positions),
    )
