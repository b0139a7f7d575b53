"""Routers that go in steps: the order cut into equal parts, every source quoted at every number of parts, and the parts dealt out.

Quotes are exact integers of the group (18 decimals) after gas, the same that our own route is made of; a source that cannot fill so
many parts quotes None. `one_split` is 1inch's OneSplit contract: dynamic programming over sources. `greedy` gives each part to who
pays most for the next one. Both leave out what a chain's transaction costs once; `batched` charges it afterwards.
"""

from collections.abc import Sequence
from operator import add

from agent.domain.amount import Amount, rescale_down, rescale_up
from agent.domain.errors import LiquidityError
from agent.liquidity.depth import Depth, buy_lots, sell_lots
from agent.market.view import Source
from agent.routing.cost import gas_up, paid_up
from benchmarks.markets import USDT_GROUP, Instance

Quotes = list[list[int | None]]  # of each source: what 0, 1, 2, ... parts bring; negative when buying

NEVER = -(10**60)


def quoted(instance: Instance, parts: int) -> Quotes:
    """What every source brings for every number of parts, before gas."""
    found = []
    for number, source in enumerate(instance.view.sources):
        least = instance.numbers.books[number].least if source.instrument.is_book else 0.0
        row: list[int | None] = [0]
        for part in range(1, parts + 1):
            units = instance.quantity.units * part // parts // 10 ** (18 - source.instrument.base.decimals)
            row.append(
                _quote(source, units, instance.side == "sell") if units / 10**source.instrument.base.decimals >= least else None
            )
        found.append(row)
    return found


def gas_of(instance: Instance) -> list[int]:
    """What using each source costs, without the batch."""
    price = instance.gas[1]
    return [0 if s.instrument.is_book else int(gas_up(s.instrument.gas, price, USDT_GROUP).units) for s in instance.view.sources]


def priced(quotes: Quotes, gas: Sequence[int]) -> list[list[int]]:
    """The same after gas, with a number that no route survives where there is no quote."""
    return [[0, *(NEVER if quote is None else quote - cost for quote in row[1:])] for row, cost in zip(quotes, gas, strict=True)]


def one_split(rows: list[list[int]]) -> int:
    """The best total of all parts: the dynamic programme of OneSplit's `_findBestDistribution`."""
    best, *others = rows
    for row in others:
        best = [max(map(add, best[: parts + 1], row[parts::-1])) for parts in range(len(row))]
    return best[-1]


def greedy(rows: list[list[int]]) -> int:
    """Part after part to whoever pays most for one more; gas counts with a source's first part."""
    shares, total = [0] * len(rows), 0
    for _ in range(len(rows[0]) - 1):
        gains = [row[share + 1] - row[share] for row, share in zip(rows, shares, strict=True)]
        best = max(range(len(rows)), key=gains.__getitem__)
        shares[best] += 1
        total += gains[best]
    return total


def single(rows: list[list[int]]) -> int:
    """All of it at one source."""
    return max(row[-1] for row in rows)


def batched(instance: Instance, total: int, uses_pools: bool = True) -> int | None:
    """The total after what a transaction costs once; None where it is no whole route."""
    if total < NEVER // 2:
        return None
    batch = instance.gas[1].batch_gas if uses_pools else 0
    return total - (int(gas_up(batch, instance.gas[1], USDT_GROUP).units) if batch else 0)


def _quote(source: Source, units: int, selling: bool) -> int | None:
    state, found = source.state, source.instrument
    try:
        if isinstance(state, Depth):
            lots = units // found.lot_units
            quote = sell_lots(state, lots).amount_out if selling else paid_up(buy_lots(state, lots).amount_in, found.fee_pips)
        elif selling:
            quote = state.swap_in(units, found.base_is_token0).amount_out
        else:
            quote = state.swap_out(units, not found.base_is_token0).amount_in
    except LiquidityError:
        return None
    amount = Amount(quote, found.quote)
    return int(rescale_down(amount, USDT_GROUP).units) if selling else -int(rescale_up(amount, USDT_GROUP).units)
