"""Exact pool quotes in plain integers, beside the same quote asked of the deployed contract's own quoter over loopback RPC."""

import asyncio

from eth_abi.abi import encode

from agent.chains import abi
from agent.liquidity.concentrated import Concentrated
from agent.liquidity.constant_product import ConstantProduct
from agent.simulation.chain.pools import sqrt_price_x96
from agent.simulation.chain.rpc import Rpc
from agent.simulation.chain.world import start_chain
from benchmarks.measure import Result, versus

ETH = 10**18
QUOTE = "quoteExactInputSingle((address,address,uint256,uint24,uint160))"


def run() -> list[Result]:
    return asyncio.run(_run())


async def _run() -> list[Result]:
    chain = await start_chain("anvil")
    rpc = Rpc(chain.rpc_url)
    try:
        book = chain.deployment
        weth, usdt = book.tokens["WETH"].address, book.tokens["USDT"].address
        quoter = {"to": book.contracts["QuoterV2"]}
        body = encode(["(address,address,uint256,uint24,uint160)"], [(weth, usdt, 5 * ETH, 500, 0)])
        quoter["data"] = "0x" + (abi.selector(QUOTE) + body).hex()
        v2 = ConstantProduct(5_590 * ETH, 15_000_000 * 10**6, 3_000)
        price = sqrt_price_x96(268_380, weth_is_0=True)
        ticks = tuple((t, 10**17 if i < 20 else -(10**17)) for i, t in enumerate(range(-198_500, -194_500, 100)))
        v3 = Concentrated(price, -197_312, 10**18, 500, 10, ticks, -400_000, 100_000)
        peer = "QuoterV2 over RPC"
        return [
            versus("v2, exact in", lambda: v2.swap_in(5 * ETH, True), peer, lambda: rpc.call("eth_call", quoter, "latest"), 200, 9),
            versus("v3, exact in", lambda: v3.swap_in(5 * ETH, True), peer, lambda: rpc.call("eth_call", quoter, "latest"), 200, 9),
        ]
    finally:
        rpc.close()
        await chain.stop()
