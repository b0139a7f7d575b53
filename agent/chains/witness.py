"""Two providers of one chain that must tell the same story. One of them speaks; what it says of heads, and of receipts that decide
about money, is held against the other.

While they contradict each other (another hash at the same height, one far behind the other) nothing is believed and nothing new is
sent. While one of them does not answer, the other serves alone: orders that exist are still looked after, new ones wait. Signed
bytes go to both, since more nodes that know a transaction only make it happen sooner.
"""

import asyncio
from typing import Any

from agent import observe
from agent.chains.rpc import Node, NodeRefusedError, Rpc, WrongChainError, field, whole
from agent.domain.errors import ChainError, OutcomeUnknown
from agent.domain.market import ChainHead
from agent.ports import Clock

LAG_BLOCKS_MAX = 3
RETRY_NS = 5_000_000_000  # a provider that does not answer is asked again after this


class Witnesses:
    """Satisfies `Node`. `lag_max`: how many blocks one may be behind the other before neither is believed."""

    def __init__(self, first: Rpc, second: Rpc, clock: Clock, lag_max: int = LAG_BLOCKS_MAX) -> None:
        self._both = (first, second)
        self._clock, self._lag_max = clock, lag_max
        self._speaking = 0
        self._troubles: dict[int, str] = {}  # provider -> why it does not answer
        self._tried_ns: dict[int, int] = {}

    @property
    def place(self) -> str:
        """Of the one that speaks."""
        return self._both[self._speaking].place

    @property
    def chain_id(self) -> int:
        return self._both[0].chain_id

    @property
    def is_pushed(self) -> bool:
        return self._both[self._speaking].is_pushed

    @property
    def trouble(self) -> str:
        """Why only one of the two answers; empty while both do."""
        return next(iter(self._troubles.values()), "")

    async def open(self) -> None:
        """Connect to both. Raises ChainError when neither answers, or one is of another chain."""
        for which, rpc in enumerate(self._both):
            try:
                await rpc.open()
                self._troubles.pop(which, None)
            except WrongChainError:
                raise
            except ChainError as error:
                self._lost(which, error)
        if len(self._troubles) == len(self._both):
            raise ChainError(f"{self._troubles[0]}; and {self._troubles[1]}")
        if self._speaking in self._troubles:
            self._speaking = 1 - self._speaking

    async def call(self, method: str, *params: Any) -> Any:
        """One read from the one that speaks; when it cannot be reached, the other speaks from then on. Raises as `Rpc.call`."""
        which = self._speaking
        try:
            return await self._both[which].call(method, *params)
        except NodeRefusedError:
            raise
        except ChainError as error:
            self._lost(which, error)
            other = 1 - which
            if other in self._troubles:
                raise
            self._speaking = other
        return await self._both[other].call(method, *params)

    async def send_raw(self, raw: bytes) -> str:
        """To both. Taken by either counts; certainly refused only if both refuse; else nobody knows."""
        said = await asyncio.gather(*(rpc.send_raw(raw) for rpc in self._both), return_exceptions=True)
        taken = [one for one in said if isinstance(one, str)]
        if taken:
            return taken[0]
        for one in sorted(said, key=lambda error: isinstance(error, ChainError)):  # a doubt counts for more than a refusal
            if isinstance(one, BaseException):
                raise one
        raise OutcomeUnknown("neither provider gave an answer: ask for the transaction by its hash")

    async def news(self, timeout_s: float) -> None:
        await self._both[self._speaking].news(timeout_s)

    async def close(self) -> None:
        for rpc in self._both:
            await rpc.close()

    # -- what the other says -----------------------------------------------------------------------------------------------

    async def doubt(self, head: ChainHead) -> str:
        """Why the speaker's newest head is not believed; empty when the other agrees, or does not answer."""
        other = await self._listener()
        if other is None:
            return ""
        try:
            theirs = await other.call("eth_getBlockByNumber", "latest", False)
            number = whole(field(theirs, "number")) if isinstance(theirs, dict) else -1
            behind, ahead = (other.place, self.place) if number < head.number else (self.place, other.place)
            if abs(number - head.number) > self._lag_max:
                return f"{behind} is {abs(number - head.number)} blocks behind {ahead}: nothing is believed until they agree"
            if number > head.number:
                theirs = await other.call("eth_getBlockByNumber", hex(head.number), False)
            ours = head.hash if number >= head.number else await self._hash_at(number)
        except ChainError as error:
            self._lost(self._both.index(other), error)
            return ""
        if isinstance(theirs, dict) and str(theirs.get("hash", "")).lower() == ours.lower():
            return ""
        height = min(number, head.number)
        return f"{self.place} and {other.place} have different blocks at height {height}: nothing is believed until they agree"

    async def disputes(self, tx_hash: str, block: int, block_hash: str) -> bool:
        """Whether the other contradicts that a transaction is in this block. Not to know it yet is no contradiction."""
        other = await self._listener()
        if other is None:
            return False
        try:
            receipt = await other.call("eth_getTransactionReceipt", tx_hash)
            if isinstance(receipt, dict) and receipt.get("blockHash"):
                return str(receipt["blockHash"]).lower() != block_hash.lower()
            there = await other.call("eth_getBlockByNumber", hex(block), False)
        except ChainError as error:
            self._lost(self._both.index(other), error)
            return False
        return isinstance(there, dict) and str(there.get("hash", block_hash)).lower() != block_hash.lower()

    async def denies(self, tx_hashes: tuple[str, ...]) -> bool:
        """Whether the other, too, knows none of these transactions. False when it cannot be asked."""
        other = await self._listener()
        if other is None:
            return False
        try:
            for tx_hash in tx_hashes:
                for question in ("eth_getTransactionReceipt", "eth_getTransactionByHash"):
                    if await other.call(question, tx_hash) is not None:
                        return False
        except ChainError as error:
            self._lost(self._both.index(other), error)
            return False
        return True

    async def _hash_at(self, number: int) -> str:
        block = await self.call("eth_getBlockByNumber", hex(number), False)
        return str(field(block, "hash")) if isinstance(block, dict) else ""

    async def _listener(self) -> Rpc | None:
        """The one that does not speak, if it answers; one that did not is tried again now and then."""
        which = 1 - self._speaking
        if which not in self._troubles:
            return self._both[which]
        if self._clock.now_ns() - self._tried_ns[which] < RETRY_NS:
            return None
        try:
            await self._both[which].open()
        except ChainError as error:
            self._lost(which, error)
            return None
        self._troubles.pop(which, None)
        return self._both[which]

    def _lost(self, which: int, error: ChainError) -> None:
        if which not in self._troubles:
            observe.query_failed(self._both[which].place, str(error))
        self._troubles[which], self._tried_ns[which] = str(error), self._clock.now_ns()


async def connect(url: str, second_url: str, chain_id: int, timeout_s: float, clock: Clock, lag_max: int = LAG_BLOCKS_MAX) -> Node:
    """A connection that answers for `chain_id`; with a second address, two that must agree. Raises ChainError or ConfigError."""
    first = Rpc(url, chain_id, timeout_s)
    rpc: Node = Witnesses(first, Rpc(second_url, chain_id, timeout_s), clock, lag_max) if second_url else first
    try:
        await rpc.open()
    except ChainError:
        await rpc.close()
        raise
    return rpc
