"""How the venue suite trades on a `uniswap`: the sandbox chain, a funded wallet, and a permission as the order that works."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

from venue_case import Case, RealClock

from agent.domain.amount import Amount
from agent.domain.plan import Approved, ApproveToken, CancelOrder, PlaceOrder
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.ports import Tools
from agent.simulation.chain.deployment import Deployment
from agent.simulation.chain.world import start_chain
from agent.venues import uniswap

NAME = "chain1"
GWEI = 10**9
CONTRACTS = {
    "universal_router": "UniversalRouter",
    "permit2": "Permit2",
    "multicall3": "Multicall3",
    "weth": "WETH9",
    "v2_factory": "UniswapV2Factory",
    "v3_factory": "UniswapV3Factory",
    "v4_state_view": "StateView",
    "v4_pool_manager": "PoolManager",
}


def settings(book: Deployment, rpc_url: str, wallet: str) -> dict[str, Any]:
    return {
        "kind": "uniswap",
        "rpc_url": rpc_url,
        "chain_id": book.chain_id,
        "wallet": wallet,
        "contracts": {key: book.contracts[name] for key, name in CONTRACTS.items()},
        "tokens": [
            {"symbol": "WETH", "address": book.tokens["WETH"].address, "decimals": 18, "group": "ETH"},
            {"symbol": "USDT", "address": book.tokens["USDT"].address, "decimals": 6},
        ],
        "pools": [{"protocol": pool.protocol, "fee_pips": pool.fee_pips, "base": "WETH", "quote": "USDT"} for pool in book.pools],
        "poll_s": 0.02,
    }


@contextlib.asynccontextmanager
async def open_case() -> AsyncIterator[Case]:
    raw = secrets.token_bytes(32)
    signer = LocalSigner(bytearray(raw))
    async with await start_chain("anvil") as chain:
        await chain.fund(signer.address, {"ETH": "10", "WETH": "100", "USDT": "500000"})
        section = settings(chain.deployment, chain.rpc_url, signer.address)
        config = uniswap.Config.model_validate(section)
        tokens = frozenset(token.address for token in config.tokens)
        router, permit2 = config.contracts.universal_router, config.contracts.permit2
        signer.allow(swap_policy(config.chain_id, signer.address, router, permit2, tokens, 500 * GWEI, 3_000_000))
        venue = await uniswap.connect(NAME, config, Tools(RealClock(), account="desk7"))
        usdt = config.assets["USDT"]

        async def works() -> Approved:
            nonce = (await venue.snapshot()).nonce or 0
            spender, chain_id = venue.profile.spender, config.chain_id
            amount = Amount(5, usdt)
            plan = ApproveToken("seam-1", "i", "desk7", NAME, chain_id, amount, spender, 80_000, 100 * GWEI, GWEI)
            return Approved(plan, nonce)

        sell, buy = Amount(1, usdt), Amount(1, usdt)
        order = PlaceOrder("seam-2", "i", "desk7", NAME, f"{NAME}:NO/PE", "buy", 1, 1, "IOC", sell, buy)
        cancel = CancelOrder("seam-3", "i", "desk7", NAME, f"{NAME}:NO/PE", "seam-1")
        try:
            yield Case(uniswap, NAME, "desk7", venue, signer, section, works, (Approved(order), Approved(cancel)), raw.hex())
        finally:
            await venue.close()
            signer.close()
