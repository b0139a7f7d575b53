"""What can be traded: one book or one pool at one venue, with the rules that an order there must keep."""

from typing import Literal

import msgspec

from agent.domain.amount import Asset

PIPS = 1_000_000
Protocol = Literal["v2", "v3", "v4"]  # Uniswap's
Side = Literal["sell", "buy"]  # always of the base


class Pool(msgspec.Struct, frozen=True):
    """Where a pool lives. v2 and v3 have a contract of their own (`address`); v4 pools are an id inside the manager."""

    protocol: Protocol | Literal["stable"]
    address: str
    token0: str
    token1: str
    tick_spacing: int = 0
    hooks: str = "0x0000000000000000000000000000000000000000"
    pool_id: str = ""


class Instrument(msgspec.Struct, frozen=True):
    """A market at a venue. `fee_pips` is in millionths: of what is received on a book, of what is paid into a pool.

    Books only: `tick_units` quote units per whole base coin and tick; `lot_units` base units per lot; `notional_min` quote units.
    `maker_fee_pips`: where an order that rests pays another fee than one that takes; below zero it is paid for.
    `gas` is what one swap there adds to a batch, in units of gas, for planning.
    """

    venue: str
    symbol: str
    base: Asset
    quote: Asset
    fee_pips: int
    tick_units: int = 1
    lot_units: int = 1
    notional_min: int = 0
    pool: Pool | None = None
    gas: int = 0
    maker_fee_pips: int | None = None

    @property
    def id(self) -> str:
        return f"{self.venue}:{self.symbol}"

    @property
    def market(self) -> str:
        """The pair of groups, the same for every venue: `ETH/USDT`."""
        return f"{self.base.group}/{self.quote.group}"

    @property
    def is_book(self) -> bool:
        return self.pool is None

    @property
    def maker_pips(self) -> int:
        return self.fee_pips if self.maker_fee_pips is None else self.maker_fee_pips

    @property
    def base_is_token0(self) -> bool:
        return self.pool is not None and self.base.address.lower() == self.pool.token0.lower()
