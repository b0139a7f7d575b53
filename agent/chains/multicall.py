"""Many reads of contracts at one block, in one request: what is read together belongs together."""

from collections.abc import Sequence

import msgspec

from agent.chains.abi import aggregate3, aggregate3_results
from agent.chains.rpc import Node, octets
from agent.domain.errors import ChainError

CALLS_MAX = 400  # in one eth_call; nodes bound its gas


class Read(msgspec.Struct, frozen=True):
    """One question to one contract. `what` names it in errors."""

    to: str
    data: bytes
    what: str


async def read_all(rpc: Node, multicall3: str, reads: Sequence[Read], block: int) -> list[bytes]:
    """The answers in order, all as of the end of `block`. Raises ChainError naming the first contract that refuses."""
    answers: list[bytes] = []
    for start in range(0, len(reads), CALLS_MAX):
        part = reads[start : start + CALLS_MAX]
        data = aggregate3([(read.to, read.data) for read in part])
        found = octets(await rpc.call("eth_call", {"to": multicall3, "data": "0x" + data.hex()}, hex(block)))
        if not found:
            raise ChainError(f"there is no Multicall3 at {multicall3} on chain {rpc.chain_id}: correct contracts.multicall3")
        for read, (succeeded, answer) in zip(part, aggregate3_results(found), strict=True):
            if not succeeded or not answer:
                raise ChainError(
                    f"{read.what} at {read.to} does not answer on chain {rpc.chain_id}: check its address in the config"
                )
            answers.append(answer)
    return answers
