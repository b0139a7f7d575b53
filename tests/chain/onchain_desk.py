"""What tests of the Uniswap venue stand on: a sandbox chain, a funded wallet with its signer, a reader of the venue's stream."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from agent.domain.amount import Amount, Asset, zero
from agent.domain.events import GasPaid, OrderFilled, OrderReported
from agent.domain.market import ChainHead, PoolRanges, PoolReserves
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, ApproveToken, Plan, Signed, SignedTransaction, SwapBatch, SwapLeg
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.ports import Allowance, Tools, VenueEvent
from agent.simulation.chain.deployment import Deployment
from agent.simulation.chain.world import SandboxChain
from agent.venues.uniswap import Config, Uniswap, connect

WAIT_S = 30.0
GWEI = 10**9
GAS_FEE_MAX, GAS_TIP = 100 * GWEI, GWEI
T = TypeVar("T")


class RealClock:
    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def settings(book: Deployment, rpc_url: str, wallet: str, **changes: Any) -> dict[str, Any]:
    """The venue's section of a settings file, for the sandbox."""
    weth = book.tokens["WETH"].address
    pools = []
    for pool in book.pools:
        section: dict[str, Any] = {"protocol": pool.protocol, "fee_pips": pool.fee_pips, "base": "WETH", "quote": "USDT"}
        pools.append(section)
    names = {
        "universal_router": "UniversalRouter",
        "permit2": "Permit2",
        "multicall3": "Multicall3",
        "weth": "WETH9",
        "v2_factory": "UniswapV2Factory",
        "v3_factory": "UniswapV3Factory",
        "v4_state_view": "StateView",
        "v4_pool_manager": "PoolManager",
        "audit_anchor": "AuditAnchor",
    }
    return {
        "kind": "uniswap",
        "rpc_url": rpc_url,
        "chain_id": book.chain_id,
        "wallet": wallet,
        "contracts": {key: book.contracts[name] for key, name in names.items()},
        "tokens": [
            {"symbol": "WETH", "address": weth, "decimals": 18, "group": "ETH"},
            {"symbol": "USDT", "address": book.tokens["USDT"].address, "decimals": 6},
        ],
        "pools": pools,
        "poll_s": 0.02,
        "confirmations": 2,
        "timeout_s": 20,
        **changes,
    }


class Feed:
    """Reads a venue's stream in the background and waits for what a test needs."""

    def __init__(self, venue: Uniswap) -> None:
        self.events: list[VenueEvent] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(venue))

    async def _read(self, venue: Uniswap) -> None:
        async with contextlib.aclosing(venue.stream()) as stream:  # type: ignore[type-var]
            async for event in stream:
                async with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()

    async def until(self, found: Callable[[list[VenueEvent]], T | None]) -> T:
        """The first answer of `found` that is not None. Fails with the stream's own error when it ends."""

        async def wait() -> T:
            async with self._changed:
                while (answer := found(self.events)) is None:
                    if self._task.done():
                        self._task.result()
                        raise AssertionError("the stream ended")
                    await self._changed.wait()
                return answer

        waiting = asyncio.ensure_future(wait())
        await asyncio.wait({waiting, self._task}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            if self._task.done():
                self._task.result()
            raise AssertionError(f"waited {WAIT_S} s; last events: {self.events[-5:]}")
        return waiting.result()

    async def report(self, order_id: str, *states: OrderState) -> OrderReported:
        return await self.until(
            lambda events: next(
                (e for e in events if isinstance(e, OrderReported) and e.order_id == order_id and e.state in states), None
            )
        )

    async def settled(self, order_id: str) -> OrderReported:
        """Its end in a block, once the permissions that it changed were read too."""

        def found(events: list[VenueEvent]) -> OrderReported | None:
            ended = (OrderState.MINED, OrderState.REVERTED)
            for at, event in enumerate(events):
                if isinstance(event, OrderReported) and event.order_id == order_id and event.state in ended:
                    return event if any(isinstance(e, Allowance) for e in events[at:]) else None
            return None

        return await self.until(found)

    def has_ended(self, told: Sequence[OrderState], order_id: str) -> bool:
        """Whether it is in a block, by what the send said or by the stream."""
        heard = [e.state for e in self.events if isinstance(e, OrderReported) and e.order_id == order_id]
        return OrderState.MINED in (*told, *heard)

    async def head(self, number: int) -> ChainHead:
        return await self.until(lambda events: next((e for e in events if isinstance(e, ChainHead) and e.number >= number), None))

    def fills(self, order_id: str) -> list[Fill]:
        return [e.fill for e in self.events if isinstance(e, OrderFilled) and e.fill.order_id == order_id]

    def gas(self, order_id: str) -> GasPaid:
        return next(e for e in self.events if isinstance(e, GasPaid) and e.order_id == order_id)

    def pools(self) -> dict[str, PoolReserves | PoolRanges]:
        """The newest fact of each pool."""
        return {e.instrument: e for e in self.events if isinstance(e, PoolReserves | PoolRanges)}

    def permit_nonce(self, asset: Asset) -> int:
        return [e for e in self.events if isinstance(e, Allowance) and e.token == asset.id][-1].permit_nonce

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Desk:
    """A wallet with its key, the venue, and the venue's stream."""

    def __init__(self, chain: SandboxChain, venue: Uniswap, config: Config, signer: LocalSigner, key: bytes) -> None:
        self.chain, self.venue, self.config, self.signer, self.key = chain, venue, config, signer, key
        self.book = chain.deployment
        self.feed = Feed(venue)
        self.weth, self.usdt = config.assets["WETH"], config.assets["USDT"]
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"order-{self._count}"

    async def nonce(self) -> int:
        return (await self.venue.snapshot()).nonce or 0

    def permission(self, order_id: str, amount: Amount, gas_tip: int = GAS_TIP) -> ApproveToken:
        spender, chain_id = self.venue.profile.spender, self.config.chain_id
        return ApproveToken(order_id, "i", "main", "uniswap", chain_id, amount, spender, 80_000, GAS_FEE_MAX, gas_tip)

    async def approve(self, asset: Asset, units: int) -> str:
        plan = self.permission(self.name(), Amount(units, asset))
        await self.venue.send(await self.sign(plan))
        await self.feed.settled(plan.order_id)
        return plan.order_id

    async def batch(self, legs: Sequence[SwapLeg], **changes: Any) -> SwapBatch:
        sell, buy = zero(legs[0].sell.asset), zero(legs[0].buy.asset)
        for leg in legs:
            sell, buy = sell + leg.sell, buy + leg.buy
        head = [e for e in self.feed.events if isinstance(e, ChainHead)][-1]
        fields: dict[str, Any] = {
            "permit_nonce": self.feed.permit_nonce(sell.asset),
            "deadline_s": head.timestamp_s + 600,
            "gas_limit": 1_500_000,
            **changes,
        }
        return SwapBatch(
            self.name(), "i", "main", "uniswap", self.config.chain_id, "sell", tuple(legs), sell, buy,
            gas_fee_max=GAS_FEE_MAX, gas_tip=GAS_TIP, **fields,
        )  # fmt: skip

    async def sign(self, plan: Plan, nonce: int | None = None) -> SignedTransaction:
        approved = Approved(plan, await self.nonce() if nonce is None else nonce)
        signed: Signed = await self.signer.sign(self.venue.build(approved))
        assert isinstance(signed, SignedTransaction)
        return signed

    async def balances(self) -> dict[str, int]:
        return {amount.asset.symbol: amount.units for amount in (await self.venue.snapshot()).balances}

    def instrument(self, pool: str) -> str:
        return f"uniswap:{pool}-WETH/USDT"

    def sell_eth(self, pool: str, wei: int, least: int) -> SwapLeg:
        return SwapLeg(self.instrument(pool), Amount(wei, self.weth), Amount(least, self.usdt), "sell")

    def buy_eth(self, pool: str, wei: int, most: int) -> SwapLeg:
        return SwapLeg(self.instrument(pool), Amount(most, self.usdt), Amount(wei, self.weth), "buy")


@contextlib.asynccontextmanager
async def open_desk(chain: SandboxChain, rpc_url: str = "", *, after: Desk | None = None, **changes: Any) -> AsyncIterator[Desk]:
    """A fresh funded wallet on a running chain, with the venue connected and its stream read until all is listed.

    `after` another desk: the same wallet and an agent that has forgotten everything.
    """
    key = secrets.token_bytes(32) if after is None else after.key
    signer = LocalSigner(bytearray(key))
    book = chain.deployment
    if after is None:
        await chain.fund(signer.address, {"ETH": "10", "WETH": "100", "USDT": "500000"})
    config = Config.model_validate(settings(book, rpc_url or chain.rpc_url, signer.address, **changes))
    tokens = frozenset(token.address for token in config.tokens)
    router, permit2 = config.contracts.universal_router, config.contracts.permit2
    anchor = config.contracts.audit_anchor
    signer.allow(swap_policy(config.chain_id, signer.address, router, permit2, tokens, 500 * GWEI, 3_000_000, anchor))
    venue = await connect("uniswap", config, Tools(RealClock()))
    assert isinstance(venue, Uniswap)
    desk = Desk(chain, venue, config, signer, key)
    try:
        await desk.feed.until(lambda events: True if sum(isinstance(e, Allowance) for e in events) == len(config.tokens) else None)
        yield desk
    finally:
        await desk.feed.close()
        await venue.close()
        signer.close()
