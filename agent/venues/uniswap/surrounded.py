"""Was a mined swap of ours sandwiched, and what did that cost? Somebody bought before us what we bought, and sold it right after.

One question for the logs of our pools in our block; only when somebody traded there on both sides of us, a few more. The cost is
exact: what the pool would have given for the same payment, as it stood before the first of the two, less what it gave. Suspicion is
by the signer of both transactions: somebody who signs with two keys is not found, and nobody is found who did us no harm.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agent.chains.logs import Log, PairSwapped, PoolSwapped, log_filter, parse_logs, pool_log, pool_of
from agent.chains.pools import PoolState, Reserves, carry, read_pools
from agent.chains.receipts import PoolTrade, Receipt, pool_trades
from agent.chains.rpc import Node
from agent.domain.amount import Amount
from agent.domain.errors import ChainError, LiquidityError
from agent.domain.events import Surrounded
from agent.domain.instrument import Instrument, Pool
from agent.liquidity.concentrated import Concentrated, checked
from agent.liquidity.constant_product import ConstantProduct
from agent.venues.uniswap.config import Config

SUSPECTS_MAX = 4  # transactions before us, and as many after us, whose signer is asked for: the nearest


class Found(msgspec.Struct, frozen=True):
    """Two transactions of one signer, around ours."""

    by: str
    before: str
    after: str


async def fetch_surrounded(
    rpc: Node, receipt: Receipt, order_id: str, config: Config, by_pool: Mapping[str, Instrument]
) -> list[Surrounded]:
    """One for each of our pools where that happened. Nothing when the node cannot tell: it is no reason to book later."""
    mine = [(trade, by_pool[trade.pool]) for trade in pool_trades(receipt) if trade.pool in by_pool]
    if not mine:
        return []
    found = []
    try:
        pools = [one.pool for _, one in mine if one.pool is not None]
        addresses = sorted({pool.address or config.contracts.v4_pool_manager for pool in pools})
        question = log_filter(addresses, receipt.block, receipt.block)
        logs = [log for log in parse_logs(await rpc.call("eth_getLogs", question)) if log.block_hash == receipt.block_hash]
        for trade, instrument in mine:
            fact = await _look(rpc, receipt, order_id, config, trade, instrument, logs)
            if fact is not None:
                found.append(fact)
    except (ChainError, LiquidityError):
        return found
    return found


async def _look(
    rpc: Node, receipt: Receipt, order_id: str, config: Config, trade: PoolTrade, instrument: Instrument, logs: Sequence[Log]
) -> Surrounded | None:
    """Raises ChainError, LiquidityError."""
    ours = receipt.logs[trade.position].index
    there = [log for log in logs if pool_of(log) == trade.pool]
    first, last = _swaps(there, trade, before=ours), _swaps(there, trade, after=ours)
    found = await _signer_of_both(rpc, [log.tx_hash for log in reversed(first)], [log.tx_hash for log in last], config.wallet)
    if found is None or instrument.pool is None:
        return None
    state = await _state_before(rpc, receipt, config, instrument, instrument.pool, there, found.before)
    return _cost(receipt, order_id, trade, instrument, state, found)


def _swaps(logs: Sequence[Log], trade: PoolTrade, *, before: int | None = None, after: int | None = None) -> list[Log]:
    """Swaps of others: before us in our direction, or after us in the other."""
    found = []
    for log in logs:
        said = pool_log(log)
        if not isinstance(said, PairSwapped | PoolSwapped):
            continue
        is_same = (said.amount0 > 0) == (trade.amount0 > 0)
        if (before is not None and log.index < before and is_same) or (after is not None and log.index > after and not is_same):
            found.append(log)
    return found


async def _signer_of_both(rpc: Node, before: Sequence[str], after: Sequence[str], wallet: str) -> Found | None:
    """The nearest two transactions that one address signed, not ourselves."""
    first, last = list(dict.fromkeys(before))[:SUSPECTS_MAX], list(dict.fromkeys(after))[:SUSPECTS_MAX]
    if not first or not last:
        return None
    signers = {tx_hash: await _signer(rpc, tx_hash) for tx_hash in dict.fromkeys((*first, *last))}
    for one in first:
        for other in last:
            by = signers[one]
            if by and one != other and by == signers[other] and by != wallet.lower():
                return Found(by, one, other)
    return None


async def _signer(rpc: Node, tx_hash: str) -> str:
    """Lower-case; empty when the node does not know it."""
    sent = await rpc.call("eth_getTransactionByHash", tx_hash)
    return str(sent.get("from") or "").lower() if isinstance(sent, dict) else ""


async def _state_before(
    rpc: Node, receipt: Receipt, config: Config, instrument: Instrument, pool: Pool, there: Sequence[Log], first: str
) -> ConstantProduct | Concentrated:
    """The pool as the first of the two found it: as of the end of the block before, and carried on by the logs until then.

    Where logs alone cannot carry it (liquidity was moved, or the price left the known ticks), as of the end of the block before.
    """
    contracts, before = config.contracts, receipt.block - 1
    read = await read_pools(rpc, contracts.multicall3, contracts.v4_state_view, [pool], config.tick_words, before, {})
    (start,) = read.values()
    state: PoolState | None = start
    for log in there:
        if log.tx_hash == first or state is None:
            break
        said = pool_log(log)
        state = carry(state, said, pool.tick_spacing) if said is not None else state
    return _liquidity(start if state is None else state, pool, instrument.fee_pips)


def _liquidity(state: PoolState, pool: Pool, fee_pips: int) -> ConstantProduct | Concentrated:
    if isinstance(state, Reserves):
        return ConstantProduct(state.reserve0, state.reserve1, fee_pips)
    return checked(
        Concentrated(
            state.sqrt_price_x96,
            state.tick,
            state.liquidity,
            fee_pips,
            pool.tick_spacing,
            state.ticks,
            state.known_lower,
            state.known_upper,
        )
    )


def _cost(
    receipt: Receipt, order_id: str, trade: PoolTrade, instrument: Instrument, state: ConstantProduct | Concentrated, found: Found
) -> Surrounded | None:
    """What they took from us; None when that is nothing. Raises LiquidityError."""
    zero_for_one = trade.amount0 > 0
    paid, received = (trade.amount0, -trade.amount1) if zero_for_one else (trade.amount1, -trade.amount0)
    less = state.swap_in(paid, zero_for_one).amount_out - received
    more = paid - state.swap_out(received, zero_for_one).amount_in
    if less <= 0:
        return None
    gave, got = instrument.base, instrument.quote
    if zero_for_one != instrument.base_is_token0:
        gave, got = got, gave
    return Surrounded(
        order_id,
        instrument.id,
        receipt.tx_hash,
        found.by,
        found.before,
        found.after,
        Amount(less, got),
        Amount(max(more, 0), gave),
        receipt.block,
    )
