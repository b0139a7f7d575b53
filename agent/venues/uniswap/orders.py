"""Our own transactions, from the send until they are final: found in blocks, booked from receipts, taken back by reorganisations.

All transactions that compete for one nonce are one order, and whichever is mined decides what became of it. Nothing here ever
resends, and the absence of a receipt proves nothing: a trade is taken back only when the chain shows another block in the place of
its block, an order is replaced only when the block that used its nonce is final and holds a transaction that is not ours, and of
what no node knows nothing is said (then the engine sends the same bytes once more).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from agent.chains.pools import key_of
from agent.chains.receipts import Receipt, fetch_reason, fetch_receipt, operation_failure
from agent.chains.rpc import Node
from agent.chains.transaction import Message, fetch_block_hash, fetch_count, fetch_transaction, parse_raw, simulate, user_of
from agent.chains.watch import Step
from agent.chains.witness import Witnesses
from agent.domain.amount import Amount
from agent.domain.errors import VenueError
from agent.domain.events import GasPaid, OrderFilled, OrderReorged, OrderReported, Surrounded
from agent.domain.instrument import Instrument
from agent.domain.market import ChainHead
from agent.domain.order import Fill, OrderRef, OrderState
from agent.domain.plan import SignedTransaction
from agent.ports import Clock, PrivateFact, Simulated
from agent.venues.uniswap.config import Config
from agent.venues.uniswap.fills import fills_of
from agent.venues.uniswap.surrounded import fetch_surrounded

WATCHED_MAX = 1_000
FINALS_MAX = 256  # orders that are final and still looked after: a reorganisation of them must not go unseen
WARY_STEPS = 3  # after a reorganisation everything in a block is looked at so many times more: providers change over one by one
ASKED_AT_ONCE = 16
ANOTHER_PROGRAM: Final = "another program signs with this wallet; give the agent one of its own"
CANCELLED_WORDS: Final = "cancelled by a transaction to oneself"


class Place(msgspec.Struct, frozen=True):
    """Where a transaction is in the chain."""

    tx_hash: str
    block: int
    block_hash: str


class Lane(msgspec.Struct):
    """One nonce of the wallet and the transactions of ours that compete for it."""

    order_id: str
    since_ns: int
    nonce: int | None = None
    hashes: list[str] = msgspec.field(default_factory=list)  # oldest first
    cancels: set[str] = msgspec.field(default_factory=set)
    message: Message | None = None  # of the newest attempt that does not cancel
    place: Place | None = None  # as the stream told it last; answers to questions may be lost on their way, and change nothing here
    crowded: int = 0  # times in a row that no node knew ours, and yet one waits with its nonce


class Transactions:
    """The transactions of one wallet. Owned by the venue; asks the node, tells facts.

    `turn` is held while facts are found out and until they are handed on, so that two accounts of one order never cross.
    """

    def __init__(
        self, venue: str, account: str, config: Config, rpc: Node, clock: Clock, instruments: Sequence[Instrument]
    ) -> None:
        self._venue, self._account, self._config, self._rpc, self._clock = venue, account, config, rpc, clock
        self._witness = rpc if isinstance(rpc, Witnesses) else None
        self._by_pool = {key_of(one.pool): one for one in instruments if one.pool is not None}
        self._lanes: dict[str, Lane] = {}
        self._finals: OrderedDict[str, Lane] = OrderedDict()
        self._foreign: dict[str, str] = {}  # order -> who else uses its nonce
        self._is_moved = False
        self._wary, self._kept = 0, -1
        self.turn = asyncio.Lock()

    def watch(self, signed: SignedTransaction) -> tuple[Lane, bool]:
        """From before it is sent: its lane, and whether anything was sent in it before.

        Raises VenueError when too many are open, ChainError for bytes that are no such transaction.
        """
        message = parse_raw(signed.raw)
        if len(self._lanes) >= WATCHED_MAX and signed.order_id not in self._lanes:
            raise VenueError(f"{self._venue} watches {WATCHED_MAX} orders already: wait until some are final")
        lane = self._finals.get(signed.order_id) or self._lane(signed.order_id, self._clock.now_ns())
        is_first = not lane.hashes
        lane.nonce = signed.nonce
        if message.is_nothing_for(self._config.wallet):
            lane.cancels.add(signed.tx_hash.lower())
        else:
            lane.message = message
        if signed.tx_hash.lower() not in lane.hashes:
            lane.hashes.append(signed.tx_hash.lower())
        return lane, not is_first

    def forget(self, order_id: str) -> None:
        """It was certainly not accepted, and nothing else was ever sent for it."""
        self._lanes.pop(order_id, None)
        self._foreign.pop(order_id, None)

    @property
    def foreign(self) -> str:
        """Why the wallet seems to be used by somebody else, while that is not settled; empty if it does not."""
        return next(iter(self._foreign.values()), "")

    def take_moved(self) -> bool:
        """Whether a transaction of ours entered or left a block since the last time of asking: permissions may have changed."""
        moved, self._is_moved = self._is_moved, False
        return moved

    # -- what is asked of it -------------------------------------------------------------------------------------------------

    async def news(self, step: Step) -> list[PrivateFact]:
        """What changed with a new head: mined, final, or taken back. Under `turn`. Raises ChainError."""
        if not step.is_continuous:
            self._wary, self._kept = WARY_STEPS, min(step.kept, self._kept) if self._wary else step.kept
        elif self._wary:
            self._wary -= 1
        facts: list[PrivateFact] = []
        lanes = list(self._to_look_at(step.head.number))
        for at in range(0, len(lanes), ASKED_AT_ONCE):
            found = await asyncio.gather(*(self._look(lane, step.head.number) for lane in lanes[at : at + ASKED_AT_ONCE]))
            facts += [fact for some in found for fact in some]
        while len(self._finals) > FINALS_MAX:
            self._finals.popitem(last=False)
        return facts

    async def answer(self, asked: Sequence[OrderRef], head: ChainHead) -> list[PrivateFact]:
        """All that is certain about orders of this or an earlier run, by all their hashes. Raises ChainError."""
        facts: list[PrivateFact] = []
        async with self.turn:
            for ref in asked:
                if ref.venue == self._venue and (ref.tx_hash or ref.tx_hashes):
                    facts += await self._certain(ref, head.number)
        return facts

    async def last_look(self, order_id: str, tx_hash: str) -> list[PrivateFact]:
        """After a send that failed: what is known of the order all the same. Raises ChainError."""
        async with self.turn:
            lane = self._lanes.get(order_id) or self._finals.get(order_id)
            receipt = await self._receipt(lane) if lane is not None else None
            if lane is not None and receipt is not None:
                return await self._outcome(lane, receipt)
            known = await fetch_transaction(self._rpc, tx_hash)
            return [_open(order_id, tx_hash)] if known is not None else []

    async def before(self, nonce: int, head: ChainHead) -> list[Message]:
        """What of ours waits for its turn before `nonce`, in order. Raises ChainError."""
        waiting = {lane.nonce: lane.message for lane in self._lanes.values() if lane.place is None and lane.message is not None}
        if not any(number is not None and number < nonce for number in waiting):
            return []
        mined = await fetch_count(self._rpc, self._config.wallet, head.number) or 0
        return [found for number in range(mined, nonce) if (found := waiting.get(number)) is not None]

    async def simulations(self, head: ChainHead) -> list[Simulated]:
        """The transaction that is next in turn, run against the newest block. Those behind it depend on it and are not judged."""
        waiting = {lane.nonce: lane for lane in self._lanes.values() if lane.place is None and lane.message is not None}
        if not waiting:
            return []
        lane = waiting.get(await fetch_count(self._rpc, self._config.wallet, head.number))
        if lane is None or lane.message is None:
            return []
        reason = await simulate(self._rpc, self._config.wallet, lane.message, head.number)
        return [] if reason is None else [Simulated(self._venue, lane.order_id, head.number, reason)]

    # -- looking -------------------------------------------------------------------------------------------------------------

    def _to_look_at(self, height: int) -> Iterator[Lane]:
        """What is not in a block, what is deep enough to be final, and what a reorganisation may have touched."""
        deep = height - self._config.confirmations
        for lane in self._lanes.values():
            if lane.place is None or lane.place.block <= deep or self._is_suspect(lane.place):
                yield lane
        for lane in self._finals.values():
            if lane.place is not None and self._is_suspect(lane.place):
                yield lane

    def _is_suspect(self, place: Place) -> bool:
        return self._wary > 0 and place.block > self._kept

    async def _look(self, lane: Lane, height: int) -> list[PrivateFact]:
        """Hold what was told against the chain; tell what is new."""
        receipt = await self._receipt(lane)
        facts, is_open = await self._taken_back(lane, lane.place, receipt)
        if facts:
            lane.place = None
        if receipt is None or is_open:
            return facts
        if lane.place != _place(receipt):
            facts += await self._outcome(lane, receipt)
            lane.place = _place(receipt)
        if lane.order_id not in self._finals and (final := self._final(lane, receipt, height)):
            self._finals[lane.order_id] = self._lanes.pop(lane.order_id)
            facts += final
        return facts

    async def _certain(self, ref: OrderRef, height: int) -> list[PrivateFact]:
        lane = self._finals.get(ref.order_id) or self._lane(ref.order_id, ref.sent_ns)
        self._foreign.pop(ref.order_id, None)
        _learn(lane, ref)
        receipt = await self._receipt(lane)
        journal = Place(ref.tx_hash.lower(), ref.block, ref.block_hash.lower()) if ref.block and ref.block_hash else None
        facts: list[PrivateFact] = []
        for believed in dict.fromkeys((journal, lane.place)):
            found, is_open = await self._taken_back(lane, believed, receipt)
            facts += found
            if is_open:
                return facts
        if receipt is not None:  # in full, whatever was told before: the asker may not have heard it
            return [*facts, *await self._outcome(lane, receipt), *self._final(lane, receipt, height)]
        for tx_hash in reversed(lane.hashes):
            known = await fetch_transaction(self._rpc, tx_hash)
            if known is not None:
                lane.message = lane.message if known[0].is_nothing_for(self._config.wallet) else known[0]
                return [*facts, _open(ref.order_id, tx_hash)]
        return [*facts, *await self._replaced(lane, height)]

    async def _receipt(self, lane: Lane) -> Receipt | None:
        """Of the one transaction of the lane that is in a block of the chain as it is now, undisputed by the other provider."""
        found = await asyncio.gather(*(fetch_receipt(self._rpc, tx_hash) for tx_hash in lane.hashes))
        for receipt in found:
            if receipt is None:
                continue
            is_known = lane.place == _place(receipt)
            if not is_known or sum(one is not None for one in found) > 1:
                if await fetch_block_hash(self._rpc, receipt.block) != receipt.block_hash:
                    continue
                if self._witness and await self._witness.disputes(receipt.tx_hash, receipt.block, receipt.block_hash):
                    continue
            return receipt
        return None

    async def _taken_back(self, lane: Lane, believed: Place | None, receipt: Receipt | None) -> tuple[list[PrivateFact], bool]:
        """(the news that a place is not in the chain any more, whether that is still open: then nothing else is certain either)."""
        if believed is None or (receipt is not None and _place(receipt) == believed):
            return [], False
        if receipt is None:
            there = await fetch_block_hash(self._rpc, believed.block)
            if there in ("", believed.block_hash):  # too young for this node, or only the receipt is missing
                return [], True
        self._is_moved = True
        self._finals.pop(lane.order_id, None)
        self._lanes[lane.order_id] = lane
        return [OrderReorged(lane.order_id, believed.tx_hash, believed.block, believed.block_hash)], False

    async def _replaced(self, lane: Lane, height: int) -> list[PrivateFact]:
        """Of a lane of which no node knows anything: whether somebody else uses its nonce. Only what is final ends the order."""
        wallet, nonce = self._config.wallet, lane.nonce
        if nonce is None:
            return []
        user, block = await user_of(self._rpc, wallet, nonce, height)
        if not user or user in lane.hashes:
            waiting = None if user else await fetch_count(self._rpc, wallet)
            is_crowded = waiting is not None and waiting > nonce >= (await fetch_count(self._rpc, wallet, height) or 0)
            lane.crowded = lane.crowded + 1 if is_crowded else 0
            if lane.crowded > 1:  # once may be ours, on its way between two nodes of one provider
                self._foreign[lane.order_id] = f"another transaction waits with nonce {nonce}: {ANOTHER_PROGRAM}"
            return []
        if self._witness is not None and not await self._witness.denies(tuple(lane.hashes)):
            return []
        sent = await fetch_transaction(self._rpc, user)
        if sent is not None and sent[0].is_nothing_for(wallet):  # `isthmus kill` does that, beside the journal
            lane.hashes.append(user)
            lane.cancels.add(user)
            receipt = await self._receipt(lane)
            return [] if receipt is None else [*await self._outcome(lane, receipt), *self._final(lane, receipt, height)]
        reason = f"transaction {user} used nonce {nonce}: {ANOTHER_PROGRAM}"
        self._foreign[lane.order_id] = reason
        if block > height - self._config.confirmations:
            return []
        self.forget(lane.order_id)
        return [OrderReported(lane.order_id, OrderState.REPLACED, reason)]

    # -- telling -------------------------------------------------------------------------------------------------------------

    async def _outcome(self, lane: Lane, receipt: Receipt) -> list[PrivateFact]:
        """Fills and gas first, then the state: who reads in order never sees an ended order without its fills.

        Last, who traded around us, where somebody did.
        """
        gas = Amount(receipt.cost, self._config.native)
        paid = GasPaid(lane.order_id, self._account, gas, receipt.gas_used, receipt.tx_hash)
        fills, around = list[Fill](), list[Surrounded]()
        state, reason = OrderState.MINED, ""
        if receipt.tx_hash in lane.cancels:  # even one that failed has used the nonce up
            state, reason = OrderState.CANCELLED, CANCELLED_WORDS
        elif not receipt.succeeded:
            state, reason = OrderState.REVERTED, await fetch_reason(self._rpc, receipt)
        elif inside := operation_failure(receipt, self._config.contracts.entry_point, self._config.smart_account):
            state, reason = OrderState.REVERTED, inside
        else:
            fills, reason = fills_of(receipt, lane.order_id, self._venue, self._config, self._by_pool, self._clock.now_ns())
            around = await fetch_surrounded(self._rpc, receipt, lane.order_id, self._config, self._by_pool)
        self._foreign.pop(lane.order_id, None)
        self._is_moved = self._is_moved or lane.place != _place(receipt)
        return [*(OrderFilled(fill) for fill in fills), paid, _report(lane.order_id, state, receipt, reason), *around]

    def _final(self, lane: Lane, receipt: Receipt, height: int) -> list[PrivateFact]:
        if height - receipt.block < self._config.confirmations:
            return []
        return [_report(lane.order_id, OrderState.FINAL, receipt)]

    def _lane(self, order_id: str, since_ns: int) -> Lane:
        return self._lanes.setdefault(order_id, Lane(order_id, since_ns))


def _learn(lane: Lane, ref: OrderRef) -> None:
    """What the journal knows of a lane: all hashes, oldest first."""
    lane.nonce = lane.nonce if ref.nonce is None else ref.nonce
    for tx_hash in (*ref.tx_hashes, ref.tx_hash):
        if tx_hash and tx_hash.lower() not in lane.hashes:
            lane.hashes.append(tx_hash.lower())
    lane.cancels.update(tx_hash.lower() for tx_hash in ref.cancel_hashes)
    if ref.tx_hashes and ref.tx_hash and ref.tx_hash not in ref.tx_hashes:  # not of our attempts, and yet it was believed once
        lane.cancels.add(ref.tx_hash.lower())


def _place(receipt: Receipt) -> Place:
    return Place(receipt.tx_hash, receipt.block, receipt.block_hash)


def _open(order_id: str, tx_hash: str) -> OrderReported:
    return OrderReported(order_id, OrderState.OPEN, venue_order_id=tx_hash, tx_hash=tx_hash)


def _report(order_id: str, state: OrderState, receipt: Receipt, reason: str = "") -> OrderReported:
    return OrderReported(
        order_id,
        state,
        reason,
        receipt.tx_hash,
        receipt.block,
        tx_hash=receipt.tx_hash,
        block_hash=receipt.block_hash,
    )
