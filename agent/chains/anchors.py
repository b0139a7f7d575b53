"""The heads of a journal that a wallet has written into AuditAnchor: what a chain remembers, whatever became of the journal.

The newest head alone proves every record before it, because records are chained by hash. The older ones, where the node still has
the logs, tell how far back somebody began to write another story.
"""

from typing import Final

import msgspec

from agent.chains import abi
from agent.chains.logs import Log, parse_logs
from agent.chains.rpc import Node, NodeRefusedError, octets, whole
from agent.chains.watch import fetch_head
from agent.chains.witness import Witnesses, connect
from agent.domain.errors import ChainError
from agent.ports import Clock

ANCHORED: Final = abi.topic("Anchored(address,uint64,bytes32)")
HEADS_MAX = 10_000  # the newest that are looked at


class AnchoredHead(msgspec.Struct, frozen=True):
    """Record `seq` had the hash `head`. Block 0 and no transaction: the node has forgotten when that was said."""

    seq: int
    head: str
    block: int = 0
    tx_hash: str = ""


async def read_anchors(urls: tuple[str, str], chain_id: int, contract: str, wallet: str, clock: Clock) -> list[AnchoredHead]:
    """What `wallet` has anchored in `contract`, oldest first. `urls`: a provider and, if not empty, a second that must agree.

    Raises ChainError when the chain cannot be asked, the two do not agree, or there is no such contract.
    """
    rpc = await connect(*urls, chain_id, timeout_s=5.0, clock=clock)
    try:
        return await fetch_anchors(rpc, contract, wallet, clock)
    finally:
        await rpc.close()


async def fetch_anchors(rpc: Node, contract: str, wallet: str, clock: Clock) -> list[AnchoredHead]:
    """As `read_anchors`, over a connection that is open. All as of one block."""
    block = await fetch_head(rpc, clock)
    if isinstance(rpc, Witnesses) and (doubt := await rpc.doubt(block)):
        raise ChainError(doubt)
    call = {"to": contract, "data": "0x" + abi.anchored(wallet).hex()}
    answer = octets(await rpc.call("eth_call", call, hex(block.number)))
    seq, head = abi.decoded(["uint64", "bytes32"], answer, f"AuditAnchor at {contract}")
    if not seq:
        return []
    newest = AnchoredHead(seq, head.hex())
    told = {one.seq: one for one in await _history(rpc, contract, wallet, block.number)}
    if newest.seq not in told or told[newest.seq].head != newest.head:  # the contract itself counts for more than its logs
        told[newest.seq] = newest
    return [told[seq] for seq in sorted(told)]


async def _history(rpc: Node, contract: str, wallet: str, last: int) -> list[AnchoredHead]:
    """By the contract's logs; nothing when the node does not look so far back."""
    owner = "0x" + "00" * 12 + wallet.lower().removeprefix("0x")
    asked = {"address": contract, "topics": [ANCHORED, owner], "fromBlock": "0x0", "toBlock": hex(last)}
    try:
        logs = parse_logs(await rpc.call("eth_getLogs", asked))
    except NodeRefusedError:
        return []
    place = contract.lower(), (ANCHORED, owner)
    ours = [log for log in logs if (log.address, log.topics[:2]) == place and len(log.topics) == 3 and len(log.data) == abi.WORD]
    return [_head(log) for log in ours[-HEADS_MAX:]]


def _head(log: Log) -> AnchoredHead:
    return AnchoredHead(whole(log.topics[2]), log.data.hex(), log.block, log.tx_hash)
