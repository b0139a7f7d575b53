"""The line between the agent and the chain: a node that sees some blocks late, forgets, and answers wrongly at times.

It satisfies the port Venue and keeps its promises: what it says of a transaction it read in a block of the chain as it is, and it
tells when such a block is gone. A line dies with the agent's process.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from agent.domain.amount import Amount, encode_hook
from agent.domain.errors import ChainError, OutcomeUnknown, VenueError
from agent.domain.events import GasPaid, OrderFilled, OrderReorged, OrderReported, VenueConnected
from agent.domain.market import ChainHead, Listed, PoolReserves
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import (
    AnchorHead,
    Approved,
    ApproveToken,
    Call,
    Calls,
    CancelTransaction,
    Signed,
    SignedTransaction,
    SwapBatch,
    Unsigned,
)
from agent.ports import Allowance, PrivateFact, Profile, Simulated, Snapshot, VenueEvent
from agent.simulation.drill.blocks import Block, NodeError, Receipt, balances
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.clock import WarpClock, world_ns
from agent.simulation.drill.exchange_line import FOREVER_S, nothing, unwatched
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import AMM, ANCHOR, CHAIN_ID, COIN, MAIN, PERMIT2, POOL, ROUTER, USDT, WALLET, WETH

CONFIRMATIONS = 8
PULSE_S = 1.0


class Watched(msgspec.Struct):
    """A transaction of ours that is not final: where it was told to be."""

    order_id: str
    is_cancel: bool
    block: int = 0
    block_hash: str = ""


class ChainLine:
    """Satisfies the port Venue over the chain, in one life of the agent."""

    def __init__(self, chain: Chain, clock: WarpClock, weather: Weather) -> None:
        self.chain, self.clock, self.weather = chain, clock, weather
        contracts = (PERMIT2, WETH.address, USDT.address)
        self._profile = Profile(AMM, "drill", True, CHAIN_ID, contracts, WALLET, PERMIT2, anchor=ANCHOR)
        self._watched: dict[str, Watched] = {}
        self._is_cut = False
        self._woken = asyncio.Event()
        self.leaving: Callable[[Signed], None] = unwatched  # told of every send that begins
        self.carried_out: Callable[[], None] = nothing  # called when a request was carried out, before its reply
        self._connects = self._asked_at = 0  # how often a stream was opened; which of them a snapshot has followed

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def is_in_step(self) -> bool:
        """Whether it was asked what it knows since its stream was opened last."""
        return self._asked_at == self._connects

    def cut(self) -> None:
        """The agent's process is dead: nothing gets through any more."""
        self._is_cut = True

    async def close(self) -> None:
        self.cut()

    # -- sends -------------------------------------------------------------------------------------------------------

    def build(self, approved: Approved) -> Unsigned:
        """See the port. The call's data is the plan itself: this chain's router understands it."""
        plan, nonce = approved.plan, approved.nonce
        if not isinstance(plan, SwapBatch | ApproveToken | AnchorHead | CancelTransaction) or nonce is None:
            raise VenueError(f"{AMM} sends transactions; it cannot do a {type(plan).__name__}")
        to = WALLET if isinstance(plan, CancelTransaction) else ROUTER
        call = Call(to, msgspec.json.encode(plan, enc_hook=encode_hook))
        return Calls(plan.order_id, CHAIN_ID, (call,), (), nonce, plan.gas_limit, plan.gas_fee_max, plan.gas_tip)

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port."""
        if self._is_cut or not isinstance(signed, SignedTransaction):
            raise ChainError("this process is dead")
        weather, is_known = self.weather, signed.tx_hash in self._watched
        self.leaving(signed)
        self._watch(signed.tx_hash, signed.order_id, is_cancel=False)
        await asyncio.sleep(weather.dice.seconds(0.0, 0.05))
        if not is_known and weather.strikes("underpriced"):
            raise self._refused(signed, is_known=is_known, text="transaction underpriced: fee cap below the node's minimum")
        if weather.strikes("node-forgot"):
            raise OutcomeUnknown(f"{AMM}: no reply")
        try:
            self.chain.arrive(signed.raw, world_ns())
        except NodeError as error:
            if str(error) in ("already known", "nonce too low"):
                raise OutcomeUnknown(f"{AMM} may have this transaction already ({error}): ask for it by its hash") from None
            raise self._refused(signed, is_known=is_known, text=str(error)) from None
        self.carried_out()
        if weather.strikes("nonce-error"):
            raise OutcomeUnknown(f"{AMM}: {weather.dice.pick(('nonce too low', 'already known'))}: ask for it by its hash")
        if weather.strikes("node-silent"):
            if weather.dice.chance(0.4):
                await asyncio.sleep(FOREVER_S)
            raise OutcomeUnknown(f"{AMM}: the answer was lost")
        if self._is_cut:
            raise OutcomeUnknown("this process is dead")
        return (OrderReported(signed.order_id, OrderState.OPEN, venue_order_id=signed.tx_hash, tx_hash=signed.tx_hash),)

    def _refused(self, signed: SignedTransaction, *, is_known: bool, text: str) -> ChainError | OutcomeUnknown:
        if is_known:  # the first time may have worked, whatever is said to the second
            return OutcomeUnknown(f"{AMM}: {text}; but it was sent before: ask for it by its hash")
        self._watched.pop(signed.tx_hash, None)
        return ChainError(f"{AMM} refused the transaction: {text}")

    def _watch(self, tx_hash: str, order_id: str, *, is_cancel: bool) -> Watched:
        found = self._watched.setdefault(tx_hash, Watched(order_id, is_cancel))
        found.is_cancel = found.is_cancel or is_cancel
        return found

    # -- the stream ------------------------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port."""
        if self._is_cut or self.weather.strikes("no-connection"):
            raise ChainError("the node cannot be reached")
        await asyncio.sleep(self.weather.dice.seconds(0.0, 0.2))
        self._woken.clear()
        wake = self._woken.set
        self.chain.listeners.append(wake)
        try:
            yield Listed(AMM, (POOL,), self.clock.now_ns())
            self._connects += 1
            yield VenueConnected(AMM)
            seen = ""
            while True:
                if self.chain.head.hash != seen:
                    seen = self.chain.head.hash
                    for event in self._block(self.chain.head):
                        yield event
                    if self.weather.strikes("cut"):
                        raise ChainError("the node closed the connection")
                await self._wait()
        finally:
            self.chain.listeners.remove(wake)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(PULSE_S):
                await self._woken.wait()
        except TimeoutError:
            self.chain.advance(world_ns())
        self._woken.clear()
        if self._is_cut:
            raise ChainError("the connection was closed")

    def _block(self, head: Block) -> list[VenueEvent]:
        """What a new head says: the head, the pool, our transactions, what Permit2 may move, and how what waits would fare."""
        news: list[VenueEvent] = [fact for tx_hash in list(self._watched) for fact in self._look(tx_hash, head.number)]
        found: list[VenueEvent] = [self._head(head), self._pool(head), *news]
        return [*found, *self._allowances(head), *self._simulated(head)]

    def _head(self, head: Block) -> ChainHead:
        return ChainHead(
            CHAIN_ID, head.number, head.hash, head.parent, self.chain.ledger.base_fee, head.timestamp_s, self.clock.now_ns()
        )

    def _pool(self, head: Block) -> PoolReserves:
        wallet = self.chain.wallet_at(head.number)
        return PoolReserves(POOL.id, wallet.pool_weth, wallet.pool_usdt, head.number, self.clock.now_ns())

    def _allowances(self, head: Block) -> Sequence[Allowance]:
        wallet, now_ns = self.chain.wallet_at(head.number), self.clock.now_ns()
        return (
            Allowance(AMM, WETH.id, wallet.allowed_weth, wallet.permit_weth, now_ns),
            Allowance(AMM, USDT.id, wallet.allowed_usdt, wallet.permit_usdt, now_ns),
        )

    def _simulated(self, head: Block) -> Sequence[Simulated]:
        waiting = [tx for tx in self.chain.ledger.mempool.values() if tx.hash in self._watched]
        return [Simulated(AMM, tx.body.order_id, head.number, self.chain.tried(tx)[0]) for tx in waiting]

    def _look(self, tx_hash: str, height: int) -> list[PrivateFact]:
        """What changed about one transaction, as a node sees it that knows blocks up to `height`."""
        one, found = self._watched[tx_hash], self.chain.find(tx_hash, height)
        facts: list[PrivateFact] = []
        gone = self.chain.block(one.block)
        is_elsewhere = found is not None and found[0].hash != one.block_hash
        if one.block_hash and (is_elsewhere or (one.block <= height and (gone is None or gone.hash != one.block_hash))):
            facts.append(OrderReorged(one.order_id, tx_hash, one.block, one.block_hash))
            one.block, one.block_hash = 0, ""
        if found is None:
            return facts
        block, receipt = found
        if not one.block_hash:
            facts += _outcome(one.order_id, block, receipt)
            one.block, one.block_hash = block.number, block.hash
        if height - block.number >= CONFIRMATIONS:
            del self._watched[tx_hash]
            facts.append(_final(one.order_id, block, tx_hash))
        return facts

    # -- questions -------------------------------------------------------------------------------------------------------

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """See the port."""
        weather, connects = self.weather, self._connects
        await asyncio.sleep(weather.dice.seconds(0.0, 0.1))
        if self._is_cut or weather.strikes("no-snapshot"):
            if weather.dice.chance(0.3):
                await asyncio.sleep(FOREVER_S)
            raise ChainError("the node does not answer")
        self.chain.advance(world_ns())
        at_ns, height = self.clock.now_ns(), self.chain.head.number
        if weather.strikes("lagging"):
            height = max(height - weather.dice.between(1, 3), self.chain.ledger.blocks[0].number)
        wallet = self.chain.wallet_at(height)
        facts = [fact for ref in asked for fact in self._certain(ref, height)]
        resting = tuple(one.order_id for one in facts if isinstance(one, OrderReported) and one.state is OrderState.OPEN)
        await asyncio.sleep(weather.dice.seconds(0.0, 0.1))
        self._asked_at = max(self._asked_at, connects)  # an older question may be answered later
        return Snapshot(AMM, MAIN, balances(wallet), resting, tuple(facts), wallet.nonce, at_ns)

    def _certain(self, ref: OrderRef, height: int) -> list[PrivateFact]:
        """All that is certain about one order, by every hash of its nonce."""
        facts: list[PrivateFact] = []
        hashes = ref.tx_hashes or ((ref.tx_hash,) if ref.tx_hash else ())
        there = self.chain.block(ref.block)
        places = [found[0].hash for tx_hash in hashes if (found := self.chain.find(tx_hash, height)) is not None]
        is_gone = ref.block <= height and (there is None or there.hash != ref.block_hash)
        if ref.block_hash and (is_gone or (places and ref.block_hash not in places)):
            facts.append(OrderReorged(ref.order_id, ref.tx_hash, ref.block, ref.block_hash))
        for tx_hash in hashes:  # an answer may be lost on its way: what the stream has to tell stays to be told
            self._watch(tx_hash, ref.order_id, is_cancel=tx_hash in ref.cancel_hashes)
            found = self.chain.find(tx_hash, height)
            if found is not None:
                block, receipt = found
                is_deep = height - block.number >= CONFIRMATIONS
                final = [_final(ref.order_id, block, tx_hash)] if is_deep else []
                return [*facts, *_outcome(ref.order_id, block, receipt), *final]
        if any(tx_hash in self.chain.ledger.mempool for tx_hash in hashes):
            newest = next(tx_hash for tx_hash in reversed(hashes) if tx_hash in self.chain.ledger.mempool)
            return [*facts, OrderReported(ref.order_id, OrderState.OPEN, venue_order_id=newest, tx_hash=newest)]
        if ref.nonce is not None and self.chain.wallet_at(height - CONFIRMATIONS).nonce > ref.nonce:
            facts.append(OrderReported(ref.order_id, OrderState.REPLACED, "another transaction used its nonce"))
        return facts


def _outcome(order_id: str, block: Block, receipt: Receipt) -> list[PrivateFact]:
    """Fills and gas first, then the state."""
    tx_hash = receipt.tx.hash
    gas = GasPaid(order_id, MAIN, Amount(receipt.cost, COIN), receipt.gas_used, tx_hash)
    is_cancel = isinstance(receipt.tx.body.plan, CancelTransaction)
    state = OrderState.REVERTED if receipt.trouble else OrderState.CANCELLED if is_cancel else OrderState.MINED
    report = OrderReported(order_id, state, receipt.trouble, tx_hash, block.number, None, tx_hash, block.hash)
    return [*(OrderFilled(fill) for fill in receipt.fills), gas, report]


def _final(order_id: str, block: Block, tx_hash: str) -> OrderReported:
    return OrderReported(order_id, OrderState.FINAL, "", tx_hash, block.number, None, tx_hash, block.hash)
