"""A transaction that is not signed yet, run by the node and taken back: what would its holder have, and who might take from him?

`eth_simulateV1` runs several calls in a row as the next block and tells the logs of each, a transfer of the native coin as one of a
made-up token among them. Balances of the tokens that the transaction is about are read before and after it, since a token may tell
anything in its logs; the logs show what else leaves. Sources: execution-apis (eth_simulateV1), ERC-20, ERC-721, ERC-1155, Permit2.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from agent.chains import abi
from agent.chains.rpc import Node, NodeRefusedError, octets, printable, whole
from agent.chains.transaction import Message
from agent.domain.errors import ChainError
from agent.domain.market import ChainHead
from agent.ports import Asked, Rehearsed

NATIVE: Final = "0x" + "00" * 20
_NATIVE_LOGS: Final = "0x" + "ee" * 20  # where transfers of the native coin are told
_TRANSFER: Final = abi.topic("Transfer(address,address,uint256)")  # of an ERC-721 too, with the token's number as a fourth topic
_BATCHES: Final = frozenset(
    {
        abi.topic("TransferSingle(address,address,address,uint256,uint256)"),
        abi.topic("TransferBatch(address,address,address,uint256[],uint256[])"),
    }
)
_APPROVAL: Final = abi.topic("Approval(address,address,uint256)")
_APPROVAL_ALL: Final = abi.topic("ApprovalForAll(address,address,bool)")
_PERMIT2: Final = frozenset(
    {
        abi.topic("Approval(address,address,address,uint160,uint48)"),
        abi.topic("Permit(address,address,address,uint160,uint48,uint48)"),
    }
)
_READ_GAS: Final = 200_000
BLOCK_S: Final = 1  # how much later than the head it is run: enough for every node to take it as the next block


async def rehearse(rpc: Node, head: ChainHead, asked: Asked, before: Sequence[Message] = ()) -> Rehearsed:
    """Run `before`, then `asked`, on top of `head`. Raises ChainError when the node cannot."""
    reads = [_call(asked.holder, token, abi.balance_of(asked.holder), _READ_GAS) for token in asked.tokens]
    waiting = [_call(asked.sender, one.to, one.data, one.gas, one.value) for one in before]
    ours = _call(asked.sender, asked.call.to, asked.call.data, asked.gas_limit, asked.call.value)
    overrides = {"number": hex(head.number + 1), "time": hex(head.timestamp_s + BLOCK_S)}
    block = {"blockOverrides": overrides, "calls": [*waiting, *reads, ours, *reads]}
    question = {"blockStateCalls": [block], "traceTransfers": True, "validation": False}
    try:
        answer = await rpc.call("eth_simulateV1", question, hex(head.number))
    except NodeRefusedError as error:
        raise ChainError(f"{error}; use a node that knows eth_simulateV1, or sign without a rehearsal: simulate = false") from None
    done = _calls(answer, len(waiting) + 2 * len(reads) + 1)
    first, our = done[len(waiting) : len(waiting) + len(reads)], done[len(waiting) + len(reads)]
    if why := _failure(our):
        return Rehearsed(why)
    changes, allowed = _told(our, asked.holder.lower())
    for token, was, now in zip(asked.tokens, first, done[len(waiting) + len(reads) + 1 :], strict=True):
        changes[token.lower()] = _balance(now, token) - _balance(was, token)
    return Rehearsed("", dict(changes), tuple(dict.fromkeys(allowed)))


def _call(sender: str, to: str, data: bytes, gas: int, value: int = 0) -> dict[str, str]:
    return {"from": sender, "to": to, "data": "0x" + data.hex(), "value": hex(value), "gas": hex(gas)}


def _calls(answer: Any, count: int) -> list[dict[str, Any]]:
    found = answer[0].get("calls") if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict) else None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(one, dict) for one in found):
        raise ChainError("the node's answer to eth_simulateV1 is not one of its kind: use another RPC, or simulate = false")
    return found


def _failure(call: dict[str, Any]) -> str:
    if whole(call.get("status", "0x0")) == 1:
        return ""
    data = octets(call.get("returnData") or "0x")
    error = call.get("error")
    said = printable(error.get("message", "")) if isinstance(error, dict) else ""
    return abi.revert_reason(data) if data else said or "it reverts without a reason"


def _balance(call: dict[str, Any], token: str) -> int:
    if why := _failure(call):
        raise ChainError(f"the token {token} does not tell its balance: {why}")
    return int(abi.decoded(["uint256"], octets(call.get("returnData", "0x")), f"the token {token}")[0])


def _told(call: dict[str, Any], holder: str) -> tuple["Counter[str]", list[tuple[str, str]]]:
    """What the logs say of the holder: (units that came or left, by token; who may take some from now on)."""
    changes: Counter[str] = Counter()
    allowed: list[tuple[str, str]] = []
    for log in call.get("logs") or ():
        topics, data = [str(topic).lower() for topic in log.get("topics", ())], octets(log.get("data", "0x"))
        people, place = ["0x" + topic[-40:] for topic in topics[1:]], str(log.get("address", "")).lower()
        kind = topics[0] if topics else ""
        if kind == _TRANSFER and len(people) >= 2:
            units = 1 if len(people) == 3 else int.from_bytes(data[:32], "big")
            token = NATIVE if place == _NATIVE_LOGS else place
            changes[token] += units * ((people[1] == holder) - (people[0] == holder))
        elif kind in _BATCHES and len(people) >= 3:
            changes[place] += (people[2] == holder) - (people[1] == holder)
        elif kind in (_APPROVAL, _APPROVAL_ALL) and len(people) >= 2 and people[0] == holder:
            allowed += [(place, people[1])] if len(people) == 3 or any(data[:32]) else []
        elif kind in _PERMIT2 and len(people) >= 3 and people[0] == holder:
            allowed += [(place, people[2])] if any(data[:32]) else []
    return changes, allowed
