"""A small market for tests of algorithms alone: one book and its tape, and an order that is worked there without an engine."""

from collections.abc import Callable, Sequence

import msgspec

from agent.domain.algo import Algo
from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.market import TradePrint
from agent.domain.price import Price, ticks_price, worse_by
from agent.execution.algorithms import read
from agent.execution.moves import Move, Rest, Take
from agent.execution.standing import Resting, Standing, can_take
from agent.liquidity.depth import Depth
from agent.market.bars import Bars
from agent.market.view import Source, View

SECOND = 10**9
START_NS = 1_000 * SECOND
GROUP = group_asset("ETH")
BASE, QUOTE = Asset("ETH", "cex", 8, "ETH"), Asset("USDT", "cex", 8, "USDT")
BOOK = Instrument("cex", "ETH/USDT", BASE, QUOTE, 1_000, 10**6, 10**4)
MID_TICKS = 268_300
LOT = 10**14  # of the group


def depth(bid: int = MID_TICKS - 1, ask: int = MID_TICKS + 1, lots: int = 100_000) -> Depth:
    """Ten even levels on either side, one tick apart."""
    bids, asks = (tuple((best + sign * step, lots) for step in range(10)) for best, sign in ((bid, -1), (ask, 1)))
    return Depth(bids, asks, BOOK.tick_units, BOOK.lot_units, BASE.decimals, BOOK.fee_pips)


def order(algo: Algo, units: int, name: str = "i", *, side: str = "sell", after_ns: int = 120 * SECOND, limit: str = "") -> Intent:
    quantity, price = Amount(units, GROUP), Price(int(limit), 1) if limit else None
    lasting = dict(algo.parameters).get("duration_ns", 1_800 * SECOND)
    ends_ns = START_NS + int(lasting) + after_ns
    return Intent(name, "m", "s", "sell" if side == "sell" else "buy", quantity, "USDT", 50, ends_ns, algo=algo, limit=price)


class Step(msgspec.Struct, frozen=True):
    """What an algorithm did, after the beginning. `done`: units that were traded before; `filled`: of this move."""

    at_ns: int
    move: Move
    done: int
    filled: int


class Desk:
    """Works one order: asks the algorithm, fills a share of what it wants, and forgets all but what a journal would know."""

    def __init__(self, intent: Intent, *, least: int = 1, shares: Sequence[float] = (), volume: float = 1.0) -> None:
        """`shares`: of each move that is filled, then all. `volume`: base coins that others trade each second."""
        self.intent, self.least, self.shares, self.volume = intent, least, list(shares), volume
        self.done = self.slices = self.last_ns = 0
        self.wanted: Amount | None = None
        self.resting: list[Resting] = []
        self.steps: list[Step] = []
        self.book: Callable[[int], Depth] = lambda at_ns: depth()
        self.bars = Bars()
        self.mine: list[tuple[int, float]] = []

    def standing(self, now_ns: int) -> Standing:
        mid = ticks_price(MID_TICKS, BOOK.tick_units, QUOTE.decimals)
        promised = sum(one.left.units for one in self.resting)
        left = Amount(self.intent.quantity.units - self.done - promised, GROUP)
        state = self.book(now_ns)
        middle = ticks_price(state.bids[0][0] + state.asks[0][0], BOOK.tick_units, QUOTE.decimals)
        source = Source(BOOK, state, Price(middle.num, 2 * middle.den), now_ns)
        worst = worse_by(mid, self.intent.slippage_bps_max, selling=self.intent.side == "sell")
        bound = self.intent.limit
        limit = worst if bound is None else max(worst, bound) if self.intent.side == "sell" else min(worst, bound)
        return Standing(
            self.intent, START_NS, now_ns, mid, left, self.slices, self.last_ns, self.wanted, limit, self.least,
            lambda: View("ETH/USDT", now_ns, source.mid, (source,), (), {}), lambda: self.bars, lambda: self.resting,
            lambda since_ns: sum(size for at_ns, size in self.mine if at_ns >= since_ns), lambda found: 10**30,
        )  # fmt: skip

    def tick(self, now_ns: int) -> Step | None:
        """Half a second of the market, and what the algorithm does."""
        ticks = int(self.volume / 2 * 10**BASE.decimals) // BOOK.lot_units
        if ticks:
            self.bars.add_trade(BOOK, TradePrint(BOOK.id, MID_TICKS, ticks, True, now_ns))
        self.bars.sample(2_683.0, 2_682.99, 2_683.01, now_ns)
        chosen = read(self.intent.algo or Algo(""))
        stand = self.standing(now_ns)
        self.resting = [one for one in self.resting if not chosen.stale(stand, one)]
        stand = self.standing(now_ns)
        if stand.left.units <= 0 or now_ns >= self.intent.deadline_ns:
            return None
        move = chosen.step(stand)
        return None if move is None else self._happens(move, now_ns)

    def work(self, step_ns: int = SECOND // 2) -> list[Step]:
        """Until its deadline."""
        for now_ns in range(START_NS, self.intent.deadline_ns + step_ns, step_ns):
            self.tick(now_ns)
        return self.steps

    def fill_resting(self, now_ns: int, share: float = 1.0) -> None:
        """Somebody comes and takes what rests."""
        for one in self.resting:
            units = int(one.left.units) if share == 1.0 else int(one.left.units * share)
            self.done += units
            self.mine.append((now_ns, units / 1e18))
        self.resting = [] if share == 1.0 else self.resting

    def _happens(self, move: Move, now_ns: int) -> Step:
        units, number = int(move.quantity.units), len(self.steps)
        share = self.shares[number] if number < len(self.shares) else 1.0
        filled = 0
        if isinstance(move, Take):
            is_there = move.limit is None or can_take(self.standing(now_ns).view(), move.limit, selling=self.intent.side == "sell")
            filled = 0 if not is_there else units if share == 1.0 else int(units * share)
            self.wanted = move.wanted
        else:
            assert isinstance(move, Rest), "there are two moves"
            self.wanted = None
            self.resting.append(Resting(f"o{number}", move.instrument, move.ticks, move.quantity, now_ns))
        self.steps.append(Step(now_ns - START_NS, move, self.done, filled))
        self.done += filled
        self.mine.append((now_ns, filled / 1e18))
        if filled >= LOT:  # our own trades are on the tape too
            self.bars.add_trade(BOOK, TradePrint(BOOK.id, MID_TICKS, filled // LOT, True, now_ns))
        self.slices, self.last_ns = self.slices + 1, now_ns
        return self.steps[-1]
