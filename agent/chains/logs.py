"""What pools and tokens announce about themselves, read out of the chain's logs.

Amounts of swaps are the pool's: positive came into the pool, negative left it. Sources: IUniswapV2Pair, IUniswapV3PoolEvents,
v4-core IPoolManager (whose amounts are the trader's, so the sign is turned here), ERC-20.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from agent.chains.abi import signed, topic, words
from agent.chains.rpc import octets, whole
from agent.domain.errors import ChainError

PAIR_SYNC = topic("Sync(uint112,uint112)")
PAIR_SWAP = topic("Swap(address,uint256,uint256,uint256,uint256,address)")
V3_SWAP = topic("Swap(address,address,int256,int256,uint160,uint128,int24)")
V3_MINT = topic("Mint(address,address,int24,int24,uint128,uint256,uint256)")
V3_BURN = topic("Burn(address,int24,int24,uint128,uint256,uint256)")
V4_SWAP = topic("Swap(bytes32,address,int128,int128,uint160,uint128,int24,uint24)")
V4_MODIFY = topic("ModifyLiquidity(bytes32,address,int24,int24,int256,bytes32)")
TRANSFER = topic("Transfer(address,address,uint256)")
POOL_TOPICS = (PAIR_SYNC, PAIR_SWAP, V3_SWAP, V3_MINT, V3_BURN, V4_SWAP, V4_MODIFY)
# topic -> (topics, least words of data): contracts that reuse a name with other fields are left alone
_SHAPES = {
    PAIR_SYNC: (1, 2),
    PAIR_SWAP: (3, 4),
    V3_SWAP: (3, 5),
    V3_MINT: (4, 4),
    V3_BURN: (4, 3),
    V4_SWAP: (3, 6),
    V4_MODIFY: (3, 4),
    TRANSFER: (3, 1),
}


class Log(msgspec.Struct, frozen=True):
    """One log, as the node gave it. Addresses and hashes are lower-case text; `index` counts within the block."""

    address: str
    topics: tuple[str, ...]
    data: bytes
    block: int
    block_hash: str
    tx_hash: str
    index: int


class ReservesChanged(msgspec.Struct, frozen=True):
    """A v2 pair's reserves, as they are now."""

    pool: str
    reserve0: int
    reserve1: int


class PairSwapped(msgspec.Struct, frozen=True):
    """A trade in a v2 pair; the reserves come in a log of their own."""

    pool: str
    amount0: int
    amount1: int


class PoolSwapped(msgspec.Struct, frozen=True):
    """A trade in a v3 or v4 pool, and where the pool stands after it."""

    pool: str
    amount0: int
    amount1: int
    sqrt_price_x96: int
    liquidity: int
    tick: int


class LiquidityChanged(msgspec.Struct, frozen=True):
    """Somebody added to or took from a range: the ticks must be read again."""

    pool: str
    lower: int
    upper: int


class Transferred(msgspec.Struct, frozen=True):
    """A token moved. Addresses are lower-case."""

    token: str
    source: str
    target: str
    units: int


PoolLog = ReservesChanged | PairSwapped | PoolSwapped | LiquidityChanged


def parse_logs(found: object) -> list[Log]:
    """Logs as JSON-RPC gives them, in the chain's order, without those that a reorganisation removed. Raises ChainError."""
    if not isinstance(found, list):
        raise ChainError("the node answered with something that is not a list of logs: use another RPC")
    try:
        logs = [_log(item) for item in found if not item.get("removed")]
    except (AttributeError, KeyError, TypeError):
        raise ChainError("the node answered with a log that lacks fields: use another RPC") from None
    return sorted(logs, key=lambda log: (log.block, log.index))


def pool_log(log: Log) -> PoolLog | None:
    """What a log says about a pool; None if it is about something else. `pool` is the address, or the id of a v4 pool."""
    if not _has_shape(log):
        return None
    name, data = log.topics[0], words(log.data)
    if name == PAIR_SYNC:
        return ReservesChanged(log.address, data[0], data[1])
    if name == PAIR_SWAP:
        return PairSwapped(log.address, data[0] - data[2], data[1] - data[3])
    if name == V3_SWAP:
        return PoolSwapped(log.address, signed(data[0]), signed(data[1]), data[2], data[3], signed(data[4]))
    if name == V4_SWAP:
        return PoolSwapped(log.topics[1], -signed(data[0]), -signed(data[1]), data[2], data[3], signed(data[4]))
    if name in (V3_MINT, V3_BURN):
        return LiquidityChanged(log.address, signed(int(log.topics[2], 16)), signed(int(log.topics[3], 16)))
    if name == V4_MODIFY:
        return LiquidityChanged(log.topics[1], signed(data[0]), signed(data[1]))
    return None


def transfer(log: Log) -> Transferred | None:
    """What a log says about a token; None if it is about something else."""
    if not _has_shape(log) or log.topics[0] != TRANSFER:
        return None
    return Transferred(log.address, "0x" + log.topics[1][26:], "0x" + log.topics[2][26:], words(log.data)[0])


def pool_of(log: Log) -> str:
    """The key of the pool that a log may be about: cheap, before anything is decoded."""
    return log.topics[1] if log.topics and log.topics[0] in (V4_SWAP, V4_MODIFY) and len(log.topics) > 1 else log.address


def log_filter(addresses: Sequence[str], first: int, last: int) -> dict[str, Any]:
    """The question for `eth_getLogs`: everything that moves the pools, in blocks `first..last`."""
    return {"fromBlock": hex(first), "toBlock": hex(last), "address": list(addresses), "topics": [list(POOL_TOPICS)]}


def _has_shape(log: Log) -> bool:
    shape = _SHAPES.get(log.topics[0]) if log.topics else None
    return shape is not None and shape[0] == len(log.topics) and len(log.data) >= 32 * shape[1]


def _log(item: dict[str, Any]) -> Log:
    return Log(
        str(item["address"]).lower(),
        tuple(str(one).lower() for one in item["topics"]),
        octets(item["data"]),
        whole(item["blockNumber"]),
        str(item["blockHash"]).lower(),
        str(item["transactionHash"]).lower(),
        whole(item["logIndex"]),
    )
