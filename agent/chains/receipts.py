"""What became of a transaction: its receipt, what it cost, what it moved in pools and in the wallet, and why it failed."""

from collections.abc import Sequence
from typing import Any

import msgspec

from agent.chains.abi import decoded, revert_reason, topic
from agent.chains.logs import Log, PairSwapped, PoolSwapped, parse_logs, pool_log, transfer
from agent.chains.rpc import Node, NodeRefusedError, field, whole
from agent.domain.errors import ChainError

# EntryPoint 0.7 and 0.8
_HANDLED = topic("UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)")
_REVERTED = topic("UserOperationRevertReason(bytes32,address,uint256,bytes)")


class Receipt(msgspec.Struct, frozen=True):
    """A mined transaction. `cost` is wei, all in: gas, and what a roll-up charges for its data on the first layer."""

    tx_hash: str
    block: int
    block_hash: str
    succeeded: bool
    gas_used: int
    cost: int
    logs: tuple[Log, ...]


class PoolTrade(msgspec.Struct, frozen=True):
    """One swap inside a transaction: the pool's amounts (positive came in), and its place among the transaction's logs."""

    pool: str
    amount0: int
    amount1: int
    position: int


async def fetch_receipt(rpc: Node, tx_hash: str) -> Receipt | None:
    """None: not mined, as far as this node knows. Raises ChainError."""
    found = await rpc.call("eth_getTransactionReceipt", tx_hash)
    return parse_receipt(found) if isinstance(found, dict) and found.get("blockNumber") is not None else None


def parse_receipt(found: dict[str, Any]) -> Receipt:
    """A receipt as JSON-RPC gives it. Raises ChainError when fields are missing."""
    try:
        gas_used = whole(found["gasUsed"])
        cost = gas_used * whole(found["effectiveGasPrice"])
        first_layer = found.get("l1Fee")
        return Receipt(
            str(found["transactionHash"]).lower(),
            whole(found["blockNumber"]),
            str(found["blockHash"]).lower(),
            whole(found["status"]) == 1,
            gas_used,
            cost + (whole(first_layer) if first_layer else 0),
            tuple(parse_logs(found["logs"])),
        )
    except KeyError as error:
        raise ChainError(f"the node's receipt lacks {error.args[0]}: use another RPC") from None


def pool_trades(receipt: Receipt) -> list[PoolTrade]:
    """Every v2, v3 and v4 swap of the transaction, in order. The position stays the same if the transaction is mined again."""
    found = []
    for position, log in enumerate(receipt.logs):
        said = pool_log(log)
        if isinstance(said, PairSwapped | PoolSwapped):
            found.append(PoolTrade(said.pool, said.amount0, said.amount1, position))
    return found


def operation_failure(receipt: Receipt, entry_point: str, account: str) -> str:
    """Why an ERC-4337 operation of `account` in the transaction failed; empty if none did. Raises ChainError.

    The EntryPoint takes such a transaction for a success: nothing that the account was told has happened, its number is used up.
    """
    if not account:
        return ""
    sender = "0x" + account.lower()[2:].rjust(64, "0")
    told = [log for log in receipt.logs if log.address == entry_point.lower() and len(log.topics) > 2 and log.topics[2] == sender]
    reasons = [decoded(["uint256", "bytes"], log.data, "the EntryPoint")[1] for log in told if log.topics[0] == _REVERTED]
    for log in told:
        if log.topics[0] == _HANDLED and not decoded(["uint256", "bool"], log.data, "the EntryPoint")[1]:
            return revert_reason(reasons[0]) if reasons else "the account's calls failed without a reason; out of gas, perhaps"
    return ""


def wallet_moves(receipt: Receipt, wallet: str, tokens: Sequence[str]) -> dict[str, int]:
    """By token (lower-case): what the wallet gained, negative for what it paid, by the tokens' own logs."""
    owner, moved = wallet.lower(), dict.fromkeys((token.lower() for token in tokens), 0)
    for log in receipt.logs:
        said = transfer(log) if log.address in moved else None
        if said is not None:
            moved[log.address] += said.units * ((said.target == owner) - (said.source == owner))
    return moved


async def fetch_reason(rpc: Node, receipt: Receipt) -> str:
    """Why a mined transaction reverted: it is run again at its block, then at the block before. An opinion, not a proof.

    Raises ChainError only when the node cannot be asked.
    """
    sent = await rpc.call("eth_getTransactionByHash", receipt.tx_hash)
    if not isinstance(sent, dict):
        return "reverted; the node no longer has the transaction"
    if receipt.gas_used >= whole(sent.get("gas")):
        return "out of gas"
    data = sent.get("input", sent.get("data", "0x"))
    call = {name: field(sent, name) for name in ("from", "to", "gas")} | {"data": data, "value": sent.get("value", "0x0")}
    for block in (receipt.block, receipt.block - 1):
        try:
            await rpc.call("eth_call", call, hex(block))
        except NodeRefusedError as refusal:
            return revert_reason(refusal.data) if refusal.data else str(refusal)
    return "reverted; run again it does not: something in the same block was in the way"
