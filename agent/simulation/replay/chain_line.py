"""The agent's connection to the chain of a replay: it satisfies the port Venue with pools that one wallet trades in.

Signed bytes take their time to a node; a new block is heard of a while after it was made, with the pools that moved in it and what
became of our transactions.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from agent.domain.amount import Amount, encode_hook
from agent.domain.errors import VenueError
from agent.domain.events import GasPaid, OrderFilled, OrderReported, VenueConnected
from agent.domain.market import ChainHead, Listed, PoolsCurrent
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import Approved, ApproveToken, Call, Calls, CancelTransaction, Signed, SignedTransaction, SwapBatch, Unsigned
from agent.ports import Allowance, Clock, PrivateFact, Profile, Snapshot, VenueEvent
from agent.simulation.drill.blocks import Receipt
from agent.simulation.drill.clock import dice
from agent.simulation.drill.market import CHAIN_ID, COIN, PERMIT2, ROUTER, USDT, WALLET, WETH
from agent.simulation.replay.chain import Block, Chain
from agent.simulation.replay.exchange_line import ACCOUNT
from agent.simulation.replay.mail import Mailbox, Way
from agent.simulation.replay.pools import fact, listed
from agent.simulation.replay.setting import POOLS, SECOND, Setting

CONFIRMATIONS: Final = 2


class ChainLine:
    """Satisfies the port Venue over the chain. It may be handed from an engine that died to the next one."""

    def __init__(self, chain: Chain, setting: Setting, clock: Clock) -> None:
        self._chain, self._clock, latency = chain, clock, setting.latency
        contracts = (PERMIT2, WETH.address, USDT.address)
        self._profile = Profile(POOLS, "replay", True, CHAIN_ID, contracts, WALLET, PERMIT2)
        self._mail = Mailbox(clock, latency, dice(setting.seed, "chain-data"))
        self._out = Way(clock, latency.order_ns, latency.jitter_ns, dice(setting.seed, "chain-orders"))
        self._data_s = latency.data_ns / SECOND

    @property
    def profile(self) -> Profile:
        return self._profile

    async def close(self) -> None:
        self._chain.on_block = _nobody

    # -- sends -------------------------------------------------------------------------------------------------------

    def build(self, approved: Approved) -> Unsigned:
        """See the port. The call's data is the plan itself: this chain's router understands it."""
        plan, nonce = approved.plan, approved.nonce
        if not isinstance(plan, SwapBatch | ApproveToken | CancelTransaction) or nonce is None:
            raise VenueError(f"{POOLS} trades in pools; it cannot do a {type(plan).__name__}")
        to = WALLET if isinstance(plan, CancelTransaction) else ROUTER
        call = Call(to, msgspec.json.encode(plan, enc_hook=encode_hook))
        return Calls(plan.order_id, CHAIN_ID, (call,), (), nonce, plan.gas_limit, plan.gas_fee_max, plan.gas_tip)

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port."""
        if not isinstance(signed, SignedTransaction):
            raise VenueError(f"{POOLS} takes transactions, no requests")
        loop, reply = asyncio.get_running_loop(), asyncio.Event()
        refused: list[VenueError] = []

        def arrive() -> None:
            try:
                self._chain.arrive(signed.raw, self._clock.now_ns())
            except VenueError as error:
                refused.append(error)
            reply.set()

        loop.call_later((self._out.due_ns() - self._clock.now_ns()) / SECOND, arrive)
        await reply.wait()
        await asyncio.sleep(self._data_s)
        if refused:
            raise refused[0]
        return (OrderReported(signed.order_id, OrderState.OPEN, venue_order_id=signed.tx_hash, tx_hash=signed.tx_hash),)

    # -- the stream --------------------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port."""
        await asyncio.sleep(self._data_s)
        yield Listed(POOLS, listed(), self._clock.now_ns())
        yield VenueConnected(POOLS)
        self._mail.clear()
        self._chain.on_block = self._tell
        for event in self._block(self._chain.head, tuple(self._chain.pools), self._clock.now_ns()):
            yield event
        try:
            async for event in self._mail.read():
                yield event
        finally:
            self._chain.on_block = _nobody

    def _tell(self, block: Block) -> None:
        facts = self._block(block, block.moved, 0)  # the pools as they are now, not as they are when this is heard
        self._mail.post(lambda at_ns: [_stamped(one, at_ns) for one in facts])

    def _block(self, block: Block, pools: Sequence[str], at_ns: int) -> list[VenueEvent]:
        """The head, the pools that moved, what became of our transactions, and what Permit2 may move from now on."""
        head = ChainHead(CHAIN_ID, block.number, block.hash, block.parent, block.next_base_fee, block.timestamp_s, at_ns)
        found: list[VenueEvent] = [head]
        found += [fact(name, self._chain.pools[name], block.number, at_ns) for name in pools]
        found.append(PoolsCurrent(POOLS, block.number, at_ns))
        for receipt in block.receipts:
            found += _outcome(block, receipt)
        for then, receipt in list(self._chain.mined.values()):
            if then.number == block.number - CONFIRMATIONS:
                found.append(_final(then, receipt))
        chain = self._chain
        found += [Allowance(POOLS, one.id, chain.allowed[one], chain.permits[one], at_ns) for one in (WETH, USDT)]
        return found

    # -- questions ---------------------------------------------------------------------------------------------------

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """See the port."""
        await asyncio.sleep(self._out.delay_ns / SECOND)
        balances = tuple(Amount(units, asset) for asset, units in self._chain.held.items())
        facts = tuple(one for ref in asked for one in self._certain(ref))
        waiting = tuple(one.order_id for one in facts if isinstance(one, OrderReported) and one.state is OrderState.OPEN)
        found = Snapshot(POOLS, ACCOUNT, balances, waiting, facts, self._chain.nonce, self._clock.now_ns())
        await asyncio.sleep(self._data_s)
        return found

    def _certain(self, ref: OrderRef) -> list[PrivateFact]:
        """By every hash of its nonce: what a block holds of it, or that it waits."""
        hashes = ref.tx_hashes or ((ref.tx_hash,) if ref.tx_hash else ())
        for tx_hash in hashes:
            if tx_hash in self._chain.mined:
                block, receipt = self._chain.mined[tx_hash]
                is_deep = self._chain.head.number - block.number >= CONFIRMATIONS
                return [*_outcome(block, receipt), *([_final(block, receipt)] if is_deep else [])]
        for tx in self._chain.waiting.values():
            if tx.hash in hashes:
                return [OrderReported(ref.order_id, OrderState.OPEN, venue_order_id=tx.hash, tx_hash=tx.hash)]
        if ref.nonce is not None and self._chain.nonce > ref.nonce:
            return [OrderReported(ref.order_id, OrderState.REPLACED, "another transaction used its nonce")]
        return []


def _outcome(block: Block, receipt: Receipt) -> list[PrivateFact]:
    """Fills and gas first, then the state."""
    name, tx_hash = receipt.tx.body.order_id, receipt.tx.hash
    gas = GasPaid(name, ACCOUNT, Amount(receipt.cost, COIN), receipt.gas_used, tx_hash)
    is_cancel = isinstance(receipt.tx.body.plan, CancelTransaction)
    state = OrderState.REVERTED if receipt.trouble else OrderState.CANCELLED if is_cancel else OrderState.MINED
    report = OrderReported(name, state, receipt.trouble, tx_hash, block.number, None, tx_hash, block.hash)
    return [*(OrderFilled(fill) for fill in receipt.fills), gas, report]


def _final(block: Block, receipt: Receipt) -> OrderReported:
    name, tx_hash = receipt.tx.body.order_id, receipt.tx.hash
    return OrderReported(name, OrderState.FINAL, "", tx_hash, block.number, None, tx_hash, block.hash)


def _stamped(event: VenueEvent, at_ns: int) -> VenueEvent:
    """As received at that time."""
    return msgspec.structs.replace(event, at_ns=at_ns) if hasattr(event, "at_ns") else event


def _nobody(_block: Block) -> None:
    """Nobody watches."""
