"""The exchange of a replay: the sandbox's matching engine with the recorded or modelled market in it, and our orders in its queues.

Our orders wait their turn: who came to a price before us trades before us. What the rest of the world withdraws goes from the back
of the queue, what it trades eats from the front, so a resting order fills when the market has worked its way to it. What we take
is missing from the book until the market brings it back.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from agent.domain.amount import Amount, Asset
from agent.domain.instrument import Instrument
from agent.domain.market import BookDiff, BookSnapshot, TradePrint
from agent.ports import Clock, VenueEvent
from agent.simulation.exchange.accounts import Accounts
from agent.simulation.exchange.filters import NewOrder, Refused, check_notional
from agent.simulation.exchange.liquidity import Liquidity
from agent.simulation.exchange.matching import BUY, SELL, Order
from agent.simulation.exchange.venue import Fill, Report, Trade, Venue
from agent.simulation.replay.flow import Moment
from agent.simulation.replay.setting import EXCHANGE, SECOND, USER, Setting

MS = 1_000_000
LEVELS_MAX = 100_000  # a side of a snapshot: all of it
DECIMALS = 8

Listener = Callable[[Callable[[int], Sequence[VenueEvent]]], None]


class Exchange:
    """Owns the market. It outlives the agent: orders that rest go on resting while nobody looks."""

    def __init__(self, setting: Setting, clock: Clock, moments: Iterator[Moment]) -> None:
        self._clock, self._moments, self.rules = clock, moments, setting.rules
        accounts = Accounts(setting.maker_fee_pips, setting.taker_fee_pips)
        self.venue = Venue([self.rules], accounts)
        self._liquidity = Liquidity(self.venue, self.rules.symbol)
        self.instrument = instrument_of(setting)
        self.book = self.venue.markets[self.rules.symbol].book
        self.venue.on_trades = self._on_trades
        self.venue.on_report = self._on_report
        self.on_news: Listener = nobody
        self.on_own: Callable[[Report], None] = nobody
        self.now_ns = 0  # when it acted last
        self.is_over = False  # the tape has ended: nothing moves any more

    def open(self) -> None:
        """The book as it is at the beginning."""
        self.now_ns, actions = next(self._moments)
        self._liquidity.apply(actions, self.now_ns // MS)

    async def run(self) -> None:
        """Let the world act, each time when its moment has come, until cancelled or until the tape ends."""
        for at_ns, actions in self._moments:
            wait_ns = at_ns - self._clock.now_ns()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / SECOND)
            self.now_ns = at_ns
            self._liquidity.apply(actions, at_ns // MS)
            self._tell_book()
        self.is_over = True

    # -- questions ---------------------------------------------------------------------------------------------------

    @property
    def mid_ticks_twice(self) -> int | None:
        """Best bid and best ask added up; None while a side is empty."""
        bid, ask = self.book.best(BUY), self.book.best(SELL)
        return None if bid is None or ask is None else bid[0] + ask[0]

    def snapshot(self, at_ns: int) -> BookSnapshot:
        """The whole book now; what is told from here on follows it."""
        self.book.take_diff()
        bids, asks = (tuple(self.book.depth(side, LEVELS_MAX)) for side in (BUY, SELL))
        return BookSnapshot(self.instrument.id, self.book.update_id, bids, asks, at_ns)

    def find(self, order_id: str) -> Order | None:
        """Ours, by our id."""
        try:
            return self.venue.find(USER, self.rules.symbol, None, order_id)
        except Refused:
            return None

    def fills(self, order: Order) -> list[Fill]:
        return [fill for fill in self.venue.fills.get(USER, ()) if fill.order_id == order.id]

    def balances(self) -> tuple[Amount, ...]:
        """Free and locked together."""
        held = {name: self.venue.accounts.balance(USER, name) for name in (self.rules.base, self.rules.quote)}
        assets = (self.instrument.base, self.instrument.quote)
        return tuple(Amount(held[asset.symbol].free + held[asset.symbol].locked, asset) for asset in assets)

    # -- requests ----------------------------------------------------------------------------------------------------

    def deposit(self, asset: str, units: int) -> None:
        self.venue.accounts.transfer(USER, asset, units, self.now_ns // MS)

    def place(self, request: NewOrder, now_ns: int) -> tuple[Order, list[Fill]]:
        """The order, and what it took at once. Raises Refused with the exchange's own code."""
        check_notional(self.rules, self.rules.quote_units(request.price_ticks * request.size_lots))
        return self.venue.place(USER, request, now_ns // MS)

    def cancel(self, order_id: str, cancel_id: str, now_ns: int) -> Order:
        """Raises Refused (-2011) when there is nothing to take back."""
        order = self.venue.find(USER, self.rules.symbol, None, order_id)
        return self.venue.cancel(USER, self.rules.symbol, order, now_ns // MS, cancel_id)

    # -- what it says ------------------------------------------------------------------------------------------------

    def _tell_book(self) -> None:
        diff = self.book.take_diff()
        if diff is None:
            return
        name, bids, asks = self.instrument.id, tuple(diff.bids), tuple(diff.asks)
        first, last = diff.first_update_id, diff.last_update_id
        self.on_news(lambda at_ns: (BookDiff(name, first, last, bids, asks, at_ns),))

    def _on_trades(self, _symbol: str, trades: list[Trade]) -> None:
        name = self.instrument.id

        def letter(at_ns: int) -> Sequence[VenueEvent]:
            return [TradePrint(name, one.price_ticks, one.size_lots, one.is_buyer_maker, at_ns) for one in trades]

        self.on_news(letter)

    def _on_report(self, report: Report) -> None:
        self.on_own(report)


def instrument_of(setting: Setting) -> Instrument:
    """The exchange's one market, as it lists it."""
    rules = setting.rules
    base, quote = (Asset(name, EXCHANGE, DECIMALS, name) for name in (setting.base, setting.quote))
    sizes = rules.tick_units, rules.lot_units, rules.notional_units_min
    return Instrument(
        EXCHANGE,
        setting.market,
        base,
        quote,
        setting.taker_fee_pips,
        *sizes,
        maker_fee_pips=setting.maker_fee_pips,
    )


def nobody(_news: object) -> None:
    """Nobody listens."""
