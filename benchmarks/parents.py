"""An engine with 500 live parents: from a change of a book to the decision, beside our own bound of 5 ms for 99 of 100.

The parents are TWAPs of eight hours with a slice a minute each, begun one after the other, half of them in each of two markets, so
that at most ticks of 100 ms about one of them is due. A tick is: take the change of a book in, look after what is out, decide for
every parent. What is decided is then carried out at once, so that the next tick finds the state as it would be.
"""

import gc
import random
import time
from collections.abc import Iterator, Sequence

from agent.domain.algo import new_algo
from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.events import BalanceAdopted, Event, OrderApproved, OrderFilled, OrderReported, OrderSent, Record
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.market import BookDiff, BookSnapshot, Listed
from agent.domain.order import Fill, OrderState
from agent.domain.plan import PlaceOrder
from agent.engine.decide import accept, decide, prepare
from agent.engine.state import State
from agent.engine.tend import marks, tend
from agent.engine.world import Rules, World
from agent.market.view import Market
from agent.ports import Profile
from agent.risk.limits import Limits
from benchmarks.measure import Result, sample

SECOND = 10**9
START_NS = 1_800_000_000 * SECOND
PARENTS, TICKS, MAIN, VENUE = 500, 6_000, "main", "exchange"
HOURS, SLICE_S = 8, 60
COLLECT_EVERY = 500
BOUND_US = 5_000.0  # our own, for a p99
COINS = {"ETH": 268_380, "BTC": 6_200_000}  # where their prices are, in ticks
LEVELS, LOT, TICK_UNITS = 200, 10**4, 10**6


class Desk:
    """Owns the state and the picture of the market, and carries out at once what is decided."""

    def __init__(self, parents: int) -> None:
        self.now_ns, self._chance, self._seq = START_NS, random.Random(1), 0
        self.rules = Rules(Limits({"USDT": 10**30}, dict.fromkeys(COINS, 10**30), duplicate_window_ns=0))
        self.state, market = State(), Market()
        profiles = {VENUE: Profile(VENUE, "benchmark", False, None)}
        self.world = World(market, profiles, frozenset(), {}, {}, {VENUE}, {VENUE}, has_begun=True)
        self.found = {coin: _instrument(coin) for coin in COINS}
        self._updates = dict.fromkeys(COINS, 1)
        market.apply(Listed(VENUE, tuple(self.found.values()), self.now_ns))
        for coin, best in COINS.items():
            bids, asks = (tuple((best + sign * (level + (sign > 0)), 50_000) for level in range(LEVELS)) for sign in (-1, 1))
            market.apply(BookSnapshot(self.found[coin].id, 1, bids, asks, self.now_ns))
        for asset in {asset for one in self.found.values() for asset in (one.base, one.quote)}:
            self.record([BalanceAdopted(MAIN, VENUE, Amount(10**18, asset), "opening")])
        for number in range(parents):
            self.now_ns += SLICE_S * SECOND // parents  # one after the other, so that their slices are spread over a minute
            self.tick()
            coin = list(COINS)[number % len(COINS)]
            self.record([accept(self._wish(number, coin), self.state, self.world, self.rules, self.now_ns)])

    def _wish(self, number: int, coin: str) -> Intent:
        algo = new_algo("twap", duration_ns=HOURS * 3_600 * SECOND, interval_ns=SLICE_S * SECOND)
        quantity = Amount(48 * 10**18, group_asset(coin))
        deadline_ns = self.now_ns + (HOURS + 1) * 3_600 * SECOND
        return Intent(f"p{number}", MAIN, f"s{number}", "sell", quantity, "USDT", 500, deadline_ns, algo=algo)

    def record(self, events: Sequence[Event]) -> None:
        for event in events:
            self._seq += 1
            self.state.apply(Record(self._seq, self.now_ns, event, ""))

    def tick(self) -> BookDiff:
        """A change of one of the books, twenty levels of it; applied."""
        coin = self._chance.choice(list(COINS))
        self._updates[coin] += 1
        best, number = COINS[coin], self._updates[coin]
        bids = tuple((best - self._chance.randrange(LEVELS), self._chance.randrange(1, 90_000)) for _ in range(10))
        asks = tuple((best + 1 + self._chance.randrange(LEVELS), self._chance.randrange(1, 90_000)) for _ in range(10))
        fact = BookDiff(self.found[coin].id, number, number, bids, asks, self.now_ns)
        self.world.market.apply(fact)
        return fact

    def decided(self) -> list[Event]:
        """As the engine does it after every batch of facts."""
        return [*tend(self.state, self.world, self.rules, self.now_ns), *decide(self.state, self.world, self.rules, self.now_ns)]

    def carried_out(self, events: Sequence[Event]) -> None:
        """Journaled, sent and filled."""
        self.record(events)
        for event in events:
            if isinstance(event, OrderApproved) and isinstance(event.approved.plan, PlaceOrder):
                self.record(list(_filled(event.approved.plan, self.now_ns)))
        if not events:
            self.record(marks(self.state, self.world, self.now_ns))
            prepare(self.state, self.rules, self.now_ns)


def run(parents: int = PARENTS, ticks: int = TICKS) -> list[Result]:
    desk, taken, decisions = Desk(parents), list[int](), 0
    for number in range(ticks):
        if number % COLLECT_EVERY == 0:  # between ticks, never inside one
            gc.collect()
        desk.now_ns += SECOND // 10
        gc.disable()
        begun = time.perf_counter_ns()
        desk.tick()
        events = desk.decided()
        taken.append(time.perf_counter_ns() - begun)
        gc.enable()
        while events:
            decisions += 1
            desk.carried_out(events)
            events = desk.decided()
        desk.carried_out(())
    found, note = sample(taken), f"{decisions} decisions in {ticks} ticks"
    what = f"book change to decision, {parents} live parents"
    tail = [Result(f"{what}: p99", found.p99_us, "bound", BOUND_US, note=note)] if found.p99_us is not None else []
    return [Result(f"{what}: median", found.median_us, "bound", BOUND_US, note=note), *tail]


def _instrument(coin: str) -> Instrument:
    base, quote = Asset(coin, VENUE, 8, coin), Asset("USDT", VENUE, 8, "USDT")
    return Instrument(VENUE, f"{coin}/USDT", base, quote, 1_000, TICK_UNITS, LOT, 5 * 10**8)


def _filled(plan: PlaceOrder, now_ns: int) -> Iterator[Event]:
    fill = Fill(plan.order_id, VENUE, plan.instrument, plan.order_id, plan.sell, plan.buy, Amount(0, plan.buy.asset), now_ns)
    yield OrderSent(plan.order_id)
    yield OrderFilled(fill)
    yield OrderReported(plan.order_id, OrderState.FILLED, "", plan.order_id, filled=plan.sell)
