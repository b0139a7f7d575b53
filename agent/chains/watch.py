"""Follows the head of a chain, block by block, and notices when history is rewritten.

Works with the plainest node (polling `eth_getBlockByNumber`); a WebSocket only shortens the wait. Nodes do not announce removed
logs reliably, so continuity is proved by hashes: whoever reads a step that is not continuous must read everything again that is
younger than the last block which is still the same. With a second provider, a head counts when both tell the same story of it.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from agent.chains.fees import base_fee_next
from agent.chains.rpc import Node, printable, whole
from agent.chains.witness import Witnesses
from agent.domain.errors import ChainError
from agent.domain.market import ChainHead
from agent.ports import Clock

REMEMBERED_MAX = 256  # heads whose hash is kept
GAP_MAX = 500  # blocks missed at once that are still read log by log
BEHIND_MAX = 20  # polls in a row for which a node may lag behind what it said before
DOUBT_NS = 3_000_000_000  # for so long two providers may disagree: a new block does not reach both at once
PUSH_WAIT_S = 5.0  # with a WebSocket: look anyway after this long without news


class Step(msgspec.Struct, frozen=True):
    """A new head. Blocks `first..head.number` are new; not `is_continuous`: what was known of earlier blocks may be wrong.

    `kept` is the youngest block that is known to be as it was; what was seen in younger ones must be looked at again. -1: none is.
    """

    head: ChainHead
    first: int
    is_continuous: bool
    kept: int


class Watch:
    """One follower of one chain. `start` first, then `advance` for ever. `depth`: how many heads it remembers."""

    def __init__(self, rpc: Node, clock: Clock, poll_s: float, depth: int = REMEMBERED_MAX) -> None:
        self._rpc, self._clock, self._poll_s, self._depth = rpc, clock, poll_s, depth
        self._witness = rpc if isinstance(rpc, Witnesses) else None
        self._hashes: OrderedDict[int, str] = OrderedDict()
        self._last: ChainHead | None = None
        self._behind = 0
        self._doubted_ns = 0
        self.is_quiet = False

    async def start(self) -> ChainHead:
        """The head as it is now. Raises ChainError, also when two providers do not agree on it."""
        self._doubted_ns = 0
        while True:
            head = await fetch_head(self._rpc, self._clock)
            if await self._is_agreed(head):
                break
            await self._clock.sleep(self._poll_s)
        self._hashes.clear()
        return self._take(head)

    async def advance(self) -> Step:
        """Wait for the next head. Raises ChainError when the node cannot be asked, or two providers contradict each other."""
        while True:
            step = await self.look()
            if step is not None:
                return step

    async def look(self) -> Step | None:
        """As `advance`, once: None when a poll finds no new head. Then `is_quiet` says whether the last one still stands."""
        if self._rpc.is_pushed:
            await self._rpc.news(PUSH_WAIT_S)
        else:
            await self._clock.sleep(self._poll_s)
        head = await fetch_head(self._rpc, self._clock)
        is_agreed = await self._is_agreed(head)
        self.is_quiet = is_agreed and self._last is not None and head.hash == self._last.hash
        return await self._judge(head) if is_agreed else None

    async def _is_agreed(self, head: ChainHead) -> bool:
        """Whether the other provider, if there is one, tells the same story. Raises ChainError when it does not for too long."""
        reason = await self._witness.doubt(head) if self._witness is not None else ""
        now_ns = self._clock.now_ns()
        if not reason:
            self._doubted_ns = 0
        elif not self._doubted_ns:
            self._doubted_ns = now_ns
        elif now_ns - self._doubted_ns > DOUBT_NS:
            raise ChainError(reason)
        return not reason

    async def _judge(self, head: ChainHead) -> Step | None:
        last = self._last
        assert last is not None, "start comes first"
        if head.hash == last.hash:
            return None
        first = last.number + 1
        if head.number <= last.number:
            if self._hashes.get(head.number) == head.hash and self._behind < BEHIND_MAX:
                self._behind += 1  # a lagging node, not a rewritten history
                return None
            is_continuous, first = False, head.number
        elif head.number == first:
            is_continuous = head.parent_hash == last.hash
        else:
            is_continuous = head.number - last.number <= GAP_MAX and await self._still_there(last)
        kept = last.number if is_continuous else await self._kept(min(head.number - 1, last.number))
        self._take(head)
        return Step(head, first, is_continuous, kept)

    async def _still_there(self, last: ChainHead) -> bool:
        block = await self._rpc.call("eth_getBlockByNumber", hex(last.number), False)
        return isinstance(block, dict) and block.get("hash") == last.hash

    async def _kept(self, newest: int) -> int:
        """The youngest remembered block, up to `newest`, that the chain still has: where the two histories part."""
        numbers = [number for number in self._hashes if number <= newest]
        low, high = 0, len(numbers)  # those before `low` are still there, those from `high` on are not
        while low < high:
            middle = (low + high) // 2
            block = await self._rpc.call("eth_getBlockByNumber", hex(numbers[middle]), False)
            if isinstance(block, dict) and block.get("hash") == self._hashes[numbers[middle]]:
                low = middle + 1
            else:
                high = middle
        return numbers[low - 1] if low else -1

    def _take(self, head: ChainHead) -> ChainHead:
        self._behind = 0
        self._last = head
        for number in [n for n in reversed(self._hashes) if n >= head.number]:
            del self._hashes[number]
        self._hashes[head.number] = head.hash
        while len(self._hashes) > self._depth:
            self._hashes.popitem(last=False)
        return head


async def fetch_head(rpc: Node, clock: Clock, block: str = "latest") -> ChainHead:
    """A block's head; `base_fee` is that of the block after it. Raises ChainError."""
    found = await rpc.call("eth_getBlockByNumber", block, False)
    if not isinstance(found, dict):
        raise ChainError(f"{rpc.place} knows no block {printable(block)}: wait until it is in step, or use another RPC")
    return parse_head(found, rpc.chain_id, clock.now_ns())


def parse_head(block: dict[str, Any], chain_id: int, at_ns: int) -> ChainHead:
    """A head from a block as JSON-RPC gives it. Raises ChainError when something is missing, or the base fee (before EIP-1559)."""
    if lacking := {"gasUsed", "gasLimit", "number", "hash", "parentHash", "timestamp"} - block.keys():
        raise ChainError(f"chain {chain_id}: the node gave a block without {', '.join(sorted(lacking))}; try another provider")
    if "baseFeePerGas" not in block:
        raise ChainError(f"chain {chain_id} has no base fee (EIP-1559): this program cannot price gas there")
    base_fee = base_fee_next(whole(block["baseFeePerGas"]), whole(block["gasUsed"]), whole(block["gasLimit"]))
    return ChainHead(
        chain_id, whole(block["number"]), str(block["hash"]), str(block["parentHash"]), base_fee, whole(block["timestamp"]), at_ns
    )
