"""Facts about markets and chains, as they come in from outside. They are conflated, never journaled.

`at_ns` is when *we* received it, nanoseconds since 1970.
"""

import msgspec

from agent.domain.instrument import Instrument

Level = tuple[int, int]  # ticks, lots


class BookSnapshot(msgspec.Struct, frozen=True, tag=True):
    """The whole book up to and including update `seq`. Bids fall, asks rise."""

    instrument: str
    seq: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    at_ns: int


class BookDiff(msgspec.Struct, frozen=True, tag=True):
    """Levels that changed in updates `seq_first..seq_last`; zero lots removes a level."""

    instrument: str
    seq_first: int
    seq_last: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    at_ns: int


class TradePrint(msgspec.Struct, frozen=True, tag=True):
    """Somebody traded."""

    instrument: str
    ticks: int
    lots: int
    is_buyer_maker: bool
    at_ns: int


class PoolReserves(msgspec.Struct, frozen=True, tag=True):
    """A constant-product pool at a block."""

    instrument: str
    reserve0: int
    reserve1: int
    block: int
    at_ns: int


class PoolRanges(msgspec.Struct, frozen=True, tag=True):
    """A concentrated pool at a block: price, liquidity, and the initialised ticks known between `known_lower` and `known_upper`."""

    instrument: str
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: tuple[tuple[int, int], ...]  # (tick index, net liquidity), rising
    known_lower: int
    known_upper: int
    block: int
    at_ns: int


class PoolsCurrent(msgspec.Struct, frozen=True, tag=True):
    """All that was told of a venue's pools still holds as of `block`: those that nobody touched have not moved."""

    venue: str
    block: int
    at_ns: int


class ChainHead(msgspec.Struct, frozen=True, tag=True):
    """The newest block. `base_fee` is the *next* block's, in wei per gas; `timestamp_s` is the chain's clock."""

    chain_id: int
    number: int
    hash: str
    parent_hash: str
    base_fee: int
    timestamp_s: int
    at_ns: int


class Listed(msgspec.Struct, frozen=True, tag=True):
    """What a venue offers, with its rules of now."""

    venue: str
    instruments: tuple[Instrument, ...]
    at_ns: int


MarketFact = BookSnapshot | BookDiff | TradePrint | PoolReserves | PoolRanges | PoolsCurrent | ChainHead | Listed
