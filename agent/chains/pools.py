"""The state of Uniswap pools as the contracts hold it: read whole at one block, then carried forward by the pools' own logs.

A swap's log says where the pool stands afterwards, so nothing is read again for it. Added or removed liquidity, and a price that
has left the middle of the ticks that are known, need the ticks of that pool once more. Ticks are found through the bitmap: one
word holds 256 possible ticks.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from agent.chains import abi
from agent.chains.logs import LiquidityChanged, PairSwapped, PoolLog, PoolSwapped, ReservesChanged
from agent.chains.multicall import Read, read_all
from agent.chains.rpc import Node
from agent.domain.errors import ChainError
from agent.domain.instrument import Pool

TICK_MIN, TICK_MAX = -887_272, 887_272
WORD_TICKS = 256


class Reserves(msgspec.Struct, frozen=True):
    """A constant-product pair."""

    reserve0: int
    reserve1: int


class Ranges(msgspec.Struct, frozen=True):
    """A concentrated pool. `ticks` are all initialised ones from `known_lower` to `known_upper`, centred on bitmap word `word`."""

    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: tuple[tuple[int, int], ...]
    known_lower: int
    known_upper: int
    word: int


PoolState = Reserves | Ranges


def key_of(pool: Pool) -> str:
    """How logs name the pool: its address, or the id of a v4 pool; lower-case."""
    return (pool.pool_id if pool.protocol == "v4" else pool.address).lower()


def carry(state: PoolState, log: PoolLog, tick_spacing: int) -> PoolState | None:
    """The state after a log; None when the pool must be read again."""
    match state, log:
        case Reserves(), ReservesChanged():
            return Reserves(log.reserve0, log.reserve1)
        case Reserves(), PairSwapped():
            return state
        case Ranges(), PoolSwapped() if _word(log.tick, tick_spacing) == state.word:
            return msgspec.structs.replace(state, sqrt_price_x96=log.sqrt_price_x96, liquidity=log.liquidity, tick=log.tick)
        case Ranges(), LiquidityChanged() if log.upper < state.known_lower or log.lower > state.known_upper:
            return state  # outside of what is known on either side: nothing that we see has changed
    return None


async def read_pools(
    rpc: Node, multicall3: str, state_view: str, pools: Sequence[Pool], words: int, block: int, near: Mapping[str, int]
) -> dict[str, PoolState]:
    """All `pools` as of the end of `block`, by key. `words` bitmap words are read on each side of the price.

    `near` are ticks where pools stood a moment ago (by key): with them, prices and bitmaps come in one request. Raises ChainError
    for a pool that does not answer, was never initialised, or whose v4 protocol fee is on (that one is not modelled).
    """
    ranged = [pool for pool in pools if pool.protocol != "v2"]
    unknown = [pool for pool in ranged if key_of(pool) not in near]
    if unknown:
        near = {**near, **await _read_ticks_now(rpc, multicall3, state_view, unknown, block)}
    middle = {key_of(pool): _word(near[key_of(pool)], pool.tick_spacing) for pool in ranged}
    spans = {key_of(pool): _span(middle[key_of(pool)], words, pool.tick_spacing) for pool in ranged}
    reads = [read for pool in pools for read in _head_reads(pool, state_view)]
    reads += [_bitmap_read(pool, state_view, word) for pool in ranged for word in spans[key_of(pool)]]
    answers = iter(await read_all(rpc, multicall3, reads, block))
    states = {key_of(pool): _head(pool, answers) for pool in pools}
    found = {key_of(pool): _set_ticks(pool, spans[key_of(pool)], answers) for pool in ranged}
    now = {key: state.tick for key, state in states.items() if isinstance(state, Ranges)}
    if any(_word(now[key_of(pool)], pool.tick_spacing) != middle[key_of(pool)] for pool in ranged):
        # not where it was thought to be; at this block it stands still, so the second time it is right
        return await read_pools(rpc, multicall3, state_view, pools, words, block, {**near, **now})
    ticks = [_tick_read(pool, state_view, tick) for pool in ranged for tick in found[key_of(pool)]]
    nets = iter(await read_all(rpc, multicall3, ticks, block))
    for pool in ranged:
        key = key_of(pool)
        states[key] = _with_ticks(states[key], spans[key], pool.tick_spacing, [(t, _net(next(nets))) for t in found[key]])
    return states


async def _read_ticks_now(rpc: Node, multicall3: str, state_view: str, pools: Sequence[Pool], block: int) -> dict[str, int]:
    answers = iter(await read_all(rpc, multicall3, [read for pool in pools for read in _head_reads(pool, state_view)], block))
    states = {key_of(pool): _head(pool, answers) for pool in pools}
    return {key: state.tick for key, state in states.items() if isinstance(state, Ranges)}


def _head_reads(pool: Pool, state_view: str) -> list[Read]:
    if pool.protocol == "v2":
        return [Read(pool.address, abi.get_reserves(), "the v2 pair")]
    if pool.protocol == "v3":
        return [Read(pool.address, abi.v3_slot0(), "the v3 pool"), Read(pool.address, abi.v3_liquidity(), "the v3 pool")]
    return [
        Read(state_view, abi.v4_slot0(pool.pool_id), "StateView"),
        Read(state_view, abi.v4_liquidity(pool.pool_id), "StateView"),
    ]


def _head(pool: Pool, answers: Iterator[bytes]) -> PoolState:
    """Price and liquidity, without ticks."""
    first = _words(next(answers), 2, pool)
    if pool.protocol == "v2":
        return Reserves(first[0], first[1])
    if not first[0]:
        raise ChainError(f"the {pool.protocol} pool {key_of(pool)} was never initialised: take it out of the config")
    if pool.protocol == "v4" and first[2]:
        raise ChainError(f"the v4 pool {key_of(pool)} takes a protocol fee, which is not modelled: take it out of the config")
    return Ranges(first[0], abi.signed(first[1]), _words(next(answers), 1, pool)[0], (), 0, 0, 0)


def _words(answer: bytes, least: int, pool: Pool) -> list[int]:
    found = abi.words(answer)
    if len(found) < least:
        raise ChainError(f"the {pool.protocol} pool {key_of(pool)} answers too little: check its address in the config")
    return found


def _bitmap_read(pool: Pool, state_view: str, word: int) -> Read:
    if pool.protocol == "v3":
        return Read(pool.address, abi.v3_bitmap(word), "the v3 pool")
    return Read(state_view, abi.v4_bitmap(pool.pool_id, word), "StateView")


def _tick_read(pool: Pool, state_view: str, tick: int) -> Read:
    if pool.protocol == "v3":
        return Read(pool.address, abi.v3_tick(tick), "the v3 pool")
    return Read(state_view, abi.v4_tick(pool.pool_id, tick), "StateView")


def _set_ticks(pool: Pool, span: range, answers: Iterator[bytes]) -> list[int]:
    """The ticks whose bits are set, rising."""
    found = []
    for word in span:
        bits = _words(next(answers), 1, pool)[0]
        found += [(word * WORD_TICKS + bit) * pool.tick_spacing for bit in range(WORD_TICKS) if bits >> bit & 1]
    return found


def _net(answer: bytes) -> int:
    return abi.signed(abi.words(answer)[1])


def _with_ticks(state: PoolState, span: range, spacing: int, ticks: list[tuple[int, int]]) -> PoolState:
    assert isinstance(state, Ranges), "only concentrated pools have ticks"
    lower = max(span[0] * WORD_TICKS * spacing, TICK_MIN)
    upper = min(((span[-1] + 1) * WORD_TICKS - 1) * spacing, TICK_MAX)
    if span[-1] == _word(TICK_MAX, spacing):
        upper = TICK_MAX  # there are no ticks above: everything is known
    word = _word(state.tick, spacing)
    return msgspec.structs.replace(state, ticks=tuple(ticks), known_lower=lower, known_upper=upper, word=word)


def _word(tick: int, spacing: int) -> int:
    return tick // spacing >> 8


def _span(word: int, words: int, spacing: int) -> range:
    """The bitmap words to read, inside of what a pool can have."""
    return range(max(word - words, _word(TICK_MIN, spacing)), min(word + words, _word(TICK_MAX, spacing)) + 1)
