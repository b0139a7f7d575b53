"""What a replay takes place in: which market, from when on, how far away the venues are, what they charge, and what chain there is.

Everything is data, so that a run is repeated by the same words: nothing in a replay is random that these numbers do not seed.
"""

from fractions import Fraction

import msgspec

from agent.simulation.exchange.accounts import UNITS_PER_ASSET
from agent.simulation.exchange.filters import SymbolRules, units

SECOND = 1_000_000_000
MODEL_START_NS = 1_800_000_000 * SECOND  # when the model's market begins; a tape has times of its own
EXCHANGE, POOLS = "exchange", "pools"  # names of the venues in routes and journals
USER = "user"  # the account at the exchange


class Latency(msgspec.Struct, frozen=True):
    """`order_ns`: from us until a request is at the venue. `data_ns`: from the venue until its word is here, also the reply.

    `jitter_ns`: each comes up to that much later, on the seed; what came in one line stays in order.
    """

    order_ns: int = 40_000_000
    data_ns: int = 20_000_000
    jitter_ns: int = 5_000_000


class ChainSetting(msgspec.Struct, frozen=True):
    """Pools of ETH. `base_fee` is where the fee of blocks begins, in wei per gas; it wanders by up to 3 % a block."""

    block_ns: int = 12 * SECOND
    base_fee: int = 3_000_000_000


class Setting(msgspec.Struct, frozen=True):
    """`tape`: path of recorded frames; empty: the seeded model of a market, which begins at `mid`.

    `start_ns` after the beginning of the market the order is handed in; the agent watches from `warm_up_ns` before that on.
    Fees are pips (1e-6) of what is received. `tick`, `lot` and `mid` are decimal text, in quote per base and in base.
    """

    base: str = "ETH"
    quote: str = "USDT"
    tape: str = ""
    seed: int = 7
    start_ns: int = 10 * SECOND
    warm_up_ns: int = 10 * SECOND
    tick: str = "0.01"
    lot: str = "0.0001"
    mid: str = "2683.80"
    latency: Latency = Latency()
    maker_fee_pips: int = 1_000
    taker_fee_pips: int = 1_000
    chain: ChainSetting | None = ChainSetting()

    @property
    def symbol(self) -> str:
        return f"{self.base}{self.quote}".upper()

    @property
    def market(self) -> str:
        return f"{self.base}/{self.quote}"

    @property
    def has_chain(self) -> bool:
        """Pools trade ETH alone: for another coin the exchange is all there is."""
        return self.chain is not None and self.base == "ETH"

    @property
    def rules(self) -> SymbolRules:
        """As the exchange lists it. Raises ValueError for a tick or a lot that it cannot count in."""
        return SymbolRules(
            symbol=self.symbol,
            base=self.base,
            quote=self.quote,
            tick_units=units(self.tick),
            lot_units=units(self.lot),
            notional_units_min=5 * UNITS_PER_ASSET,
            open_orders_max=1_000,
        )


def whole(ticks_twice: int, rules: SymbolRules) -> Fraction:
    """A middle price, given twice in ticks, in whole quote coins per whole base coin."""
    return Fraction(ticks_twice * rules.tick_units, 2 * UNITS_PER_ASSET)
