"""The sandbox's arbitrageur: keeps every pool as close to the exchange's price as a real one would, and no closer.

A pool is left alone while its price lies within its own fee of the exchange's mid price: trading there would lose money.
Outside that band the arbitrageur trades, when the gain pays for the gas, exactly to the edge of the band. It lives on its
own account and inventory, so it never touches the user's.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from fractions import Fraction
from math import isqrt
from typing import Any

import msgspec
from eth_abi.abi import decode
from eth_account.signers.local import LocalAccount

from agent.simulation.chain.deploy import ARBITRAGEUR
from agent.simulation.chain.deployment import Deployment, Pool
from agent.simulation.chain.rpc import Rpc, RpcError, Sender, calldata, dev_account

logger = logging.getLogger(__name__)

PIPS = 1_000_000
Q96 = 2**96
V2_FEE = (997, 1000)
GAS_PER_TRADE = 250_000
GAS_LIMIT = 3_000_000
GAS_PRICE_WEI = 2_000_000_000
AMOUNT_MAX = 2**120  # the price limit, not the amount, ends a trade
_POOL_KEY = "(address,address,uint24,int24,address)"
_SWAP_V2 = "swapV2(address,address,uint256,uint256,uint256)"
_SWAP_V3 = "swapV3(address,address,address,bool,uint256,uint160)"
_SWAP_V4 = f"swapV4({_POOL_KEY},bool,uint256,uint160)"


class PoolState(msgspec.Struct, frozen=True):
    """A pool's price as sqrt(raw1/raw0) * 2^96 and its liquidity at that price; v2 also has reserves."""

    sqrt_price: int
    liquidity: int
    reserves: tuple[int, int] = (0, 0)


class Trade(msgspec.Struct, frozen=True):
    """Move `pool` until its price is `sqrt_target`; `zero_for_one` sells currency0, which lowers the price."""

    pool: Pool
    zero_for_one: bool
    sqrt_target: int


async def keep_pools_near(mid: Callable[[], float], rpc_url: str, deployment: Deployment, *, every_s: float = 1.0) -> None:
    """Arbitrage all pools against `mid` (USDT for one ETH) about every `every_s` seconds, until cancelled.

    A failed round is logged and the next one starts anew: it never ends the sandbox. A `mid` that is no positive number
    means that the exchange has no price now, and is waited for.
    """
    rpc = Rpc(rpc_url)
    try:
        while True:
            try:
                await _whole(asyncio.to_thread(arbitrage_once, rpc, deployment, mid()))
            except (RpcError, OSError, ValueError) as error:
                logger.warning("the arbitrageur skips a round: %s", error)
            await asyncio.sleep(every_s)
    finally:
        rpc.close()


async def _whole(work: Coroutine[Any, Any, object]) -> None:
    """A thread cannot be cancelled: whoever is cancelled meanwhile waits for its end, so that nobody uses a closed connection."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])


def arbitrage_once(rpc: Rpc, deployment: Deployment, mid: float) -> list[Trade]:
    """One round: read all pools, trade those outside their band; returns the trades made."""
    if not 0 < mid < 1e12:
        return []
    weth, usdt = deployment.tokens["WETH"], deployment.tokens["USDT"]
    units = Fraction(mid) * Fraction(10**usdt.decimals, 10**weth.decimals)  # raw USDT for one raw WETH
    states = read_pools(rpc, deployment)
    found = []
    for pool, state in zip(deployment.pools, states, strict=True):
        weth_is_0 = pool.currency0 == weth.address
        gas_cost = GAS_PER_TRADE * GAS_PRICE_WEI * (Fraction(1) if weth_is_0 else units)
        if trade := find_trade(pool, state, units if weth_is_0 else 1 / units, gas_cost):
            found.append((trade, state))
    if found:
        # A new sender each time: its nonce comes from the chain, which may have been reverted since.
        sender = Sender(rpc, _account())
        for trade, state in found:
            _queue(sender, deployment, trade, state)
        sender.settle(together=True)
    return [trade for trade, _ in found]


def find_trade(pool: Pool, state: PoolState, price: Fraction, gas_cost0: Fraction) -> Trade | None:
    """The trade that brings a pool to the edge of its band around `price` (raw1 for raw0), or None.

    `gas_cost0` is what a trade costs, in raw currency0. The gain is half the remaining deviation on the amount traded,
    which is liquidity * (1/sqrt(a) - 1/sqrt(b)) of currency0 (Uniswap v3 whitepaper, 6.16).
    """
    keep = Fraction(PIPS - pool.fee_pips, PIPS)
    lowest, highest = _sqrt_x96(price * keep), _sqrt_x96(price / keep)
    at = state.sqrt_price
    if lowest <= at <= highest:
        return None
    target = lowest if at < lowest else highest
    amount0 = Fraction(state.liquidity * Q96 * abs(target - at), at * target)
    deviation = abs(Fraction(at * at, target * target) - 1)
    if amount0 * deviation / 2 <= gas_cost0:
        return None
    return Trade(pool, at > highest, target)


def v2_amounts(reserve_in: int, reserve_out: int, price_in: Fraction) -> tuple[int, int]:
    """Input and output that leave a v2 pool at `price_in` (raw output for raw input), fee of 0.3 % included.

    Solves 997 dx^2 + 1997 x dx + 1000 (x^2 - x y / p) = 0 for the input dx, rounded down; the output is the pair's own
    formula, rounded down.
    """
    kept, whole = V2_FEE
    a, b = kept, (kept + whole) * reserve_in
    c = whole * (reserve_in * reserve_in - int(reserve_in * reserve_out / price_in))
    amount_in = (isqrt(max(b * b - 4 * a * c, 0)) - b) // (2 * a)
    if amount_in <= 0:
        return 0, 0
    paid = amount_in * kept
    return amount_in, paid * reserve_out // (reserve_in * whole + paid)


def read_pools(rpc: Rpc, deployment: Deployment) -> list[PoolState]:
    """Price and liquidity of every pool, in the book's order, in one call."""
    view = deployment.contracts["StateView"]
    calls: list[tuple[str, str]] = []
    for pool in deployment.pools:
        if pool.protocol == "v2":
            calls.append((pool.address, calldata("getReserves()")))
        elif pool.protocol == "v3":
            calls += [(pool.address, calldata("slot0()")), (pool.address, calldata("liquidity()"))]
        else:
            key = bytes.fromhex(pool.pool_id[2:])
            calls += [(view, calldata("getSlot0(bytes32)", key)), (view, calldata("getLiquidity(bytes32)", key))]
    wanted = [(to, False, bytes.fromhex(data[2:])) for to, data in calls]
    raw = rpc.read(deployment.contracts["Multicall3"], "aggregate3((address,bool,bytes)[])", wanted)
    answers = iter([bytes(data) for _, data in decode(["(bool,bytes)[]"], raw)[0]])
    states = []
    for pool in deployment.pools:
        if pool.protocol == "v2":
            reserve0, reserve1 = decode(["uint112", "uint112"], next(answers)[:64])
            price = isqrt((reserve1 << 192) // reserve0)
            states.append(PoolState(price, isqrt(reserve0 * reserve1), (reserve0, reserve1)))
        else:
            price, liquidity = (int.from_bytes(next(answers)[:32], "big") for _ in range(2))
            states.append(PoolState(price, liquidity))
    return states


@functools.cache
def _account() -> LocalAccount:
    return dev_account(ARBITRAGEUR)


def _queue(sender: Sender, deployment: Deployment, trade: Trade, state: PoolState) -> None:
    pool, zero_for_one = trade.pool, trade.zero_for_one
    contract = deployment.contracts["SandboxArbitrageur"]
    if pool.protocol == "v2":
        target = Fraction(trade.sqrt_target**2, Q96**2)
        reserves = state.reserves if zero_for_one else state.reserves[::-1]
        paid, taken = v2_amounts(*reserves, target if zero_for_one else 1 / target)
        token_in = pool.currency0 if zero_for_one else pool.currency1
        outputs = (0, taken) if zero_for_one else (taken, 0)
        sender.invoke(contract, _SWAP_V2, pool.address, token_in, paid, *outputs, gas=GAS_LIMIT)
    elif pool.protocol == "v3":
        move = (pool.address, pool.currency0, pool.currency1, zero_for_one, AMOUNT_MAX, trade.sqrt_target)
        sender.invoke(contract, _SWAP_V3, *move, gas=GAS_LIMIT)
    else:
        key = (pool.currency0, pool.currency1, pool.fee_pips, pool.tick_spacing, pool.hooks)
        sender.invoke(contract, _SWAP_V4, key, zero_for_one, AMOUNT_MAX, trade.sqrt_target, gas=GAS_LIMIT)


def _sqrt_x96(price: Fraction) -> int:
    """sqrt(price) * 2^96, rounded down."""
    return isqrt((price.numerator << 192) // price.denominator)
