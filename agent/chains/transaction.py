"""What a transaction asks of the chain, read from its signed bytes or from a node; would it succeed now; who used its number.

A transaction that waits is run against each new block (an opinion: blocks change). That somebody else used our number is proved by
the body of the block that holds that transaction, never by the mere absence of a receipt, which a slow index explains as well.
Sources: EIP-1559 (fields of a type 2 transaction), Ethereum JSON-RPC.
"""

from typing import Any, Final

import msgspec
import rlp  # type: ignore[import-untyped]
from rlp.exceptions import DecodingError  # type: ignore[import-untyped]

from agent.chains.abi import revert_reason
from agent.chains.rpc import Node, NodeRefusedError, field, octets, whole
from agent.domain.errors import ChainError

_TYPE_2: Final = 0x02
_FIELDS_2: Final = 12  # chain, nonce, tip, fee, gas, to, value, data, access list, and the signature in three parts
NOBODY: Final = ("", 0)
_REVERTED_CODE: Final = "3"  # geth and those who follow it: the execution reverted


class Message(msgspec.Struct, frozen=True):
    """What is asked of the chain, without fees and signature. `to` is lower-case, empty for a creation; `value` is wei."""

    nonce: int
    gas: int
    to: str
    value: int
    data: bytes

    def is_nothing_for(self, wallet: str) -> bool:
        """Whether it only uses the wallet's number up: nothing, sent to oneself."""
        return self.to == wallet.lower() and not self.value and not self.data


def parse_raw(raw: bytes) -> Message:
    """Of signed bytes as `eth_sendRawTransaction` takes them. Raises ChainError for another kind than EIP-1559's."""
    try:
        fields: Any = rlp.decode(raw[1:]) if raw[:1] == bytes((_TYPE_2,)) else ()
    except DecodingError:
        fields = ()
    if len(fields) != _FIELDS_2 or not all(isinstance(fields[at], bytes) for at in (1, 4, 5, 6, 7)):
        raise ChainError("these are not the signed bytes of an EIP-1559 transaction: sign the plan anew")
    to = "0x" + fields[5].hex() if fields[5] else ""
    return Message(_number(fields[1]), _number(fields[4]), to, _number(fields[6]), fields[7])


def parse_transaction(found: dict[str, Any]) -> Message:
    """Of a transaction as a node gives it. Raises ChainError when fields are missing."""
    try:
        data = octets(found.get("input", found.get("data", "0x")))
        return Message(whole(found["nonce"]), whole(found["gas"]), str(found["to"] or "").lower(), whole(found["value"]), data)
    except KeyError as error:
        raise ChainError(f"the node's transaction lacks {error.args[0]}: use another RPC") from None


async def fetch_transaction(rpc: Node, tx_hash: str) -> tuple[Message, bool] | None:
    """(what it asks, whether it is in a block); None: this node does not know it. Raises ChainError."""
    found = await rpc.call("eth_getTransactionByHash", tx_hash)
    if not isinstance(found, dict):
        return None
    return parse_transaction(found), found.get("blockNumber") is not None


async def simulate(rpc: Node, wallet: str, message: Message, block: int) -> str | None:
    """Why it would fail if it came right after `block`; empty if it would succeed; None if the node cannot tell."""
    call = {
        "from": wallet,
        "to": message.to,
        "data": "0x" + message.data.hex(),
        "value": hex(message.value),
        "gas": hex(message.gas),
    }
    try:
        await rpc.call("eth_call", call, hex(block))
    except NodeRefusedError as refusal:
        if refusal.data:
            return revert_reason(refusal.data)
        return str(refusal) if refusal.code == _REVERTED_CODE or "revert" in str(refusal).lower() else None
    except ChainError:
        return None
    return ""


async def fetch_count(rpc: Node, wallet: str, block: int | None = None) -> int | None:
    """How many transactions of the wallet are mined up to `block`, or without one: those too that wait in the node's pool.

    None when the node does not keep state that old.
    """
    try:
        return whole(await rpc.call("eth_getTransactionCount", wallet, "pending" if block is None else hex(block)))
    except NodeRefusedError:
        return None


async def user_of(rpc: Node, wallet: str, nonce: int, block: int) -> tuple[str, int]:
    """The wallet's transaction with this number: its hash, and the block at or before `block` whose body holds it.

    ("", 0) when it was not used until then, or the node keeps no state that is old enough to find it. Raises ChainError.
    """
    low, high, step = block, block + 1, 1
    while low >= 0 and await _is_used(rpc, wallet, nonce, low):
        low, high, step = low - step, low, step * 2
    if high > block:
        return NOBODY
    low = max(low, -1)
    while high - low > 1:  # used at `high`, not yet at `low`
        middle = (low + high) // 2
        low, high = (low, middle) if await _is_used(rpc, wallet, nonce, middle) else (middle, high)
    body = await rpc.call("eth_getBlockByNumber", hex(high), True)
    for one in body.get("transactions", ()) if isinstance(body, dict) else ():
        if isinstance(one, dict) and str(one.get("from")).lower() == wallet.lower() and whole(one.get("nonce")) == nonce:
            return str(one.get("hash")).lower(), high
    return NOBODY


async def _is_used(rpc: Node, wallet: str, nonce: int, block: int) -> bool:
    """State that is too old for the node counts as not yet used: the body of the block that is found shows whether that is so."""
    count = await fetch_count(rpc, wallet, block)
    return count is not None and count > nonce


async def fetch_block_hash(rpc: Node, block: int) -> str:
    """The hash of the block that the chain has at this height; empty: none yet, as far as this node knows. Raises ChainError."""
    found = await rpc.call("eth_getBlockByNumber", hex(block), False)
    return str(field(found, "hash")).lower() if isinstance(found, dict) else ""


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")
