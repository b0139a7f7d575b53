"""Our own transactions, from the send until they are final: found in blocks, booked from receipts, taken back by reorganisations.

What traded is what the pools' logs in the receipt say, held against what the tokens' own logs say the wallet gained and paid.
Nothing here ever resends: a transaction that no node knows is reported as nothing, one whose nonce was used otherwise as replaced.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agent.chains.pools import key_of
from agent.chains.receipts import PoolTrade, Receipt, fetch_reason, fetch_receipt, pool_trades, wallet_moves
from agent.chains.rpc import NodeRefusedError, Rpc, whole
from agent.domain.amount import Amount, zero
from agent.domain.errors import VenueError
from agent.domain.events import GasPaid, OrderFilled, OrderReported
from agent.domain.instrument import Instrument
from agent.domain.market import ChainHead
from agent.domain.order import Fill, OrderRef, OrderState
from agent.ports import Clock, PrivateFact
from agent.venues.uniswap.config import Config

WATCHED_MAX = 1_000


class Watched(msgspec.Struct):
    """One transaction that may still change: `block_hash` empty until it is mined."""

    order_id: str
    block: int = 0
    block_hash: str = ""


class Transactions:
    """The transactions of one wallet that are not final. Owned by the venue; asks the node, tells facts."""

    def __init__(self, venue: str, account: str, config: Config, rpc: Rpc, clock: Clock, instruments: Sequence[Instrument]) -> None:
        self._venue, self._account, self._config, self._rpc, self._clock = venue, account, config, rpc, clock
        self._by_pool = {key_of(one.pool): one for one in instruments if one.pool is not None}
        self._watched: dict[str, Watched] = {}
        self._is_moved = False

    def __contains__(self, tx_hash: str) -> bool:
        return tx_hash.lower() in self._watched

    def watch(self, tx_hash: str, order_id: str) -> Watched:
        """From before it is sent. Raises VenueError when too many are open."""
        if len(self._watched) >= WATCHED_MAX and tx_hash not in self:
            raise VenueError(f"{self._venue} watches {WATCHED_MAX} transactions already: wait until some are final")
        return self._watched.setdefault(tx_hash.lower(), Watched(order_id))

    def forget(self, tx_hash: str) -> None:
        """It was certainly not accepted."""
        self._watched.pop(tx_hash.lower(), None)

    def take_moved(self) -> bool:
        """Whether a transaction of ours was found in a block since the last time of asking: permissions may have changed."""
        moved, self._is_moved = self._is_moved, False
        return moved

    async def news(self, head: ChainHead, *, is_continuous: bool) -> list[PrivateFact]:
        """What changed with a new head: mined, final, or taken back. Raises ChainError."""
        facts: list[PrivateFact] = []
        for tx_hash, one in list(self._watched.items()):
            is_deep = head.number - one.block >= self._config.confirmations
            if not one.block_hash or is_deep or not is_continuous:
                facts += await self._look(tx_hash, one, head.number)
        return facts

    async def answer(self, asked: Sequence[OrderRef], head: ChainHead) -> list[PrivateFact]:
        """All that is certain about orders of this or an earlier run, by their hashes; nothing about others. Raises ChainError."""
        facts: list[PrivateFact] = []
        for ref in asked:
            if ref.venue == self._venue and ref.tx_hash:
                facts += await self._certain(ref, head.number)
        return facts

    async def _certain(self, ref: OrderRef, height: int) -> list[PrivateFact]:
        one = self.watch(ref.tx_hash, ref.order_id)
        receipt = await fetch_receipt(self._rpc, ref.tx_hash)
        if receipt is not None:  # the stream, which looks too, may have forgotten it as final meanwhile
            one.block, one.block_hash = receipt.block, receipt.block_hash
            facts = await self._outcome(ref.order_id, receipt)
            return facts + self._final(ref.tx_hash.lower(), one, receipt, height)
        if isinstance(await self._rpc.call("eth_getTransactionByHash", ref.tx_hash), dict):
            return [OrderReported(ref.order_id, OrderState.OPEN, venue_order_id=ref.tx_hash)]
        if ref.nonce is not None and await self._is_used_up(ref.nonce, height):
            self.forget(ref.tx_hash)
            return [OrderReported(ref.order_id, OrderState.REJECTED, "replaced: another transaction used its nonce")]
        return []

    async def _is_used_up(self, nonce: int, height: int) -> bool:
        """Whether the wallet's transaction with this number is final, whichever it was. False too when the node cannot tell."""
        block = max(height - self._config.confirmations, 0)
        try:
            return whole(await self._rpc.call("eth_getTransactionCount", self._config.wallet, hex(block))) > nonce
        except NodeRefusedError:
            return False  # state that old is not kept here; a few blocks on it will be

    async def _look(self, tx_hash: str, one: Watched, height: int) -> list[PrivateFact]:
        receipt = await fetch_receipt(self._rpc, tx_hash)
        facts: list[PrivateFact] = []
        if one.block_hash and (receipt is None or receipt.block_hash != one.block_hash):
            facts.append(OrderReported(one.order_id, OrderState.UNKNOWN, f"block {one.block} was taken back by a reorganisation"))
            one.block, one.block_hash = 0, ""
        if receipt is None:
            return facts
        if not one.block_hash:
            facts += await self._outcome(one.order_id, receipt)
            one.block, one.block_hash = receipt.block, receipt.block_hash
        return facts + self._final(tx_hash, one, receipt, height)

    def _final(self, tx_hash: str, one: Watched, receipt: Receipt, height: int) -> list[PrivateFact]:
        if height - receipt.block < self._config.confirmations:
            return []
        self._watched.pop(tx_hash, None)
        if not receipt.succeeded:
            return []
        return [OrderReported(one.order_id, OrderState.FINAL, venue_order_id=tx_hash, block=receipt.block)]

    async def _outcome(self, order_id: str, receipt: Receipt) -> list[PrivateFact]:
        """Fills and gas first, then the state: who reads in order never sees an ended order without its fills."""
        self._is_moved = True
        gas = Amount(receipt.cost, self._config.native)
        paid = GasPaid(order_id, self._account, gas, receipt.gas_used, receipt.tx_hash)
        if not receipt.succeeded:
            reason = await fetch_reason(self._rpc, receipt)
            report = OrderReported(order_id, OrderState.REVERTED, reason, receipt.tx_hash, receipt.block)
            return [paid, report]
        fills, remark = fills_of(receipt, order_id, self._venue, self._config, self._by_pool, self._clock.now_ns())
        report = OrderReported(order_id, OrderState.MINED, remark, receipt.tx_hash, receipt.block)
        return [*(OrderFilled(fill) for fill in fills), paid, report]


def fills_of(
    receipt: Receipt, order_id: str, venue: str, config: Config, by_pool: Mapping[str, Instrument], at_ns: int
) -> tuple[list[Fill], str]:
    """One fill for each swap in a known pool, and a remark when the wallet's tokens moved otherwise (then the wallet is right).

    `trade_id` is the transaction's hash and the swap's place among its logs, so the same swap mined again after a reorganisation
    is the same fill. The pool's fee is inside what was paid.
    """
    fills = []
    for trade in pool_trades(receipt):
        instrument = by_pool.get(trade.pool)
        if instrument is not None:
            fills.append(_fill(trade, instrument, receipt.tx_hash, order_id, venue, at_ns))
    if not fills:
        return [], ""
    moved = wallet_moves(receipt, config.wallet, [token.address for token in config.tokens])
    paid_more = -moved[fills[-1].paid.asset.address.lower()] - sum(fill.paid.units for fill in fills)
    got_more = moved[fills[-1].received.asset.address.lower()] - sum(fill.received.units for fill in fills)
    if not paid_more and not got_more:
        return fills, ""
    last = fills[-1]
    fills[-1] = msgspec.structs.replace(
        last,
        paid=Amount(last.paid.units + paid_more, last.paid.asset),
        received=Amount(last.received.units + got_more, last.received.asset),
    )
    return (
        fills,
        f"the wallet paid {paid_more} units more and received {got_more} more than the pools say; booked as the wallet says",
    )


def _fill(trade: PoolTrade, instrument: Instrument, tx_hash: str, order_id: str, venue: str, at_ns: int) -> Fill:
    base, quote = (trade.amount0, trade.amount1) if instrument.base_is_token0 else (trade.amount1, trade.amount0)
    if base > 0:
        paid, received = Amount(base, instrument.base), Amount(-quote, instrument.quote)
    else:
        paid, received = Amount(quote, instrument.quote), Amount(-base, instrument.base)
    trade_id = f"{tx_hash}:{trade.position}"
    return Fill(order_id, venue, instrument.id, trade_id, paid, received, zero(received.asset), at_ns)
