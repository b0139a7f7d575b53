"""What a mined transaction of ours traded: what the pools' logs in its receipt say, held against what the tokens' own logs say the
wallet gained and paid.
"""

from collections.abc import Mapping

import msgspec

from agent.chains.receipts import PoolTrade, Receipt, pool_trades, wallet_moves
from agent.domain.amount import Amount, zero
from agent.domain.instrument import Instrument
from agent.domain.order import Fill
from agent.venues.uniswap.config import Config


def fills_of(
    receipt: Receipt, order_id: str, venue: str, config: Config, by_pool: Mapping[str, Instrument], at_ns: int
) -> tuple[list[Fill], str]:
    """One fill for each swap in a known pool, and a remark when the wallet's tokens moved otherwise (then the wallet is right).

    `trade_id` is the transaction's hash and the swap's place among its logs, so the same swap mined again after a reorganisation
    is the same fill. The pool's fee is inside what was paid.
    """
    fills = []
    for trade in pool_trades(receipt):
        instrument = by_pool.get(trade.pool)
        if instrument is not None:
            fills.append(_fill(trade, instrument, receipt.tx_hash, order_id, venue, at_ns))
    if not fills:
        return [], ""
    moved = wallet_moves(receipt, config.holder, [token.address for token in config.tokens])
    paid_more = -moved[fills[-1].paid.asset.address.lower()] - sum(fill.paid.units for fill in fills)
    got_more = moved[fills[-1].received.asset.address.lower()] - sum(fill.received.units for fill in fills)
    if not paid_more and not got_more:
        return fills, ""
    last = fills[-1]
    fills[-1] = msgspec.structs.replace(
        last,
        paid=Amount(last.paid.units + paid_more, last.paid.asset),
        received=Amount(last.received.units + got_more, last.received.asset),
    )
    return (
        fills,
        f"the wallet paid {paid_more} units more and received {got_more} more than the pools say; booked as the wallet says",
    )


def _fill(trade: PoolTrade, instrument: Instrument, tx_hash: str, order_id: str, venue: str, at_ns: int) -> Fill:
    base, quote = (trade.amount0, trade.amount1) if instrument.base_is_token0 else (trade.amount1, trade.amount0)
    if base > 0:
        paid, received = Amount(base, instrument.base), Amount(-quote, instrument.quote)
    else:
        paid, received = Amount(quote, instrument.quote), Amount(-base, instrument.base)
    trade_id = f"{tx_hash}:{trade.position}"
    return Fill(order_id, venue, instrument.id, trade_id, paid, received, zero(received.asset), at_ns, tx_hash)
