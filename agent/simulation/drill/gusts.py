"""What exchanges, the chain and people do of their own accord while the agent works: twice a second, as the weather wills."""

from collections.abc import Callable, Sequence

from agent.domain.instrument import Side
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.clock import SECOND, WarpClock, world_ns
from agent.simulation.drill.exchange import HAND, Exchange
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import LOT, SCALE
from agent.simulation.drill.orders import LEVELS
from agent.simulation.drill.play import PlayLatch

STEP_NS = 3 * SECOND  # how far a clock is set at most


class Gusts:
    """Owns what was begun and must end again."""

    def __init__(self, exchanges: Sequence[Exchange], chain: Chain, weather: Weather, latch: PlayLatch) -> None:
        self._exchanges, self._chain, self._weather, self._latch = exchanges, chain, weather, latch
        self._ends: list[tuple[int, Callable[[], None]]] = []
        ledger = chain.ledger
        ledger.revert_percent = int(100 * weather.strength.get("reverts", 0.0))
        ledger.older_percent = int(100 * weather.strength.get("older-mined", 0.0))

    def blow(self, clock: WarpClock) -> None:
        """Half a second has passed."""
        now_ns = world_ns()
        for due in [one for one in self._ends if one[0] <= now_ns]:
            self._ends.remove(due)
            due[1]()
        for exchange in self._exchanges:
            self._exchange(exchange)
        self._on_chain()
        if self._weather.strikes("clock-step"):
            clock.skew_ns += self._weather.dice.between(-STEP_NS, STEP_NS)

    def pull_switch(self) -> None:
        """A person pulls the kill switch: a process of its own, which needs no agent."""
        self._weather.count("kill-switch")
        self._latch.reason = "a person pulled the kill switch"
        for exchange in self._exchanges:
            exchange.cancel_all("killed")

    def calm(self) -> None:
        """The faults are over: everything is up, and what people placed by hand they take back."""
        for _, end in self._ends:
            end()
        self._ends.clear()
        self._latch.reason = ""
        self._chain.ledger.revert_percent = self._chain.ledger.older_percent = 0
        for exchange in self._exchanges:
            for order in [one for one in exchange.resting() if one.client_id.startswith(HAND)]:
                exchange.take_back(order)

    def _later(self, low_s: int, high_s: int, end: Callable[[], None]) -> None:
        self._ends.append((world_ns() + self._weather.dice.between(low_s, high_s) * SECOND, end))

    # -- exchanges -----------------------------------------------------------------------------------------------------

    def _exchange(self, exchange: Exchange) -> None:
        weather, roll, book = self._weather, self._weather.dice, exchange.ledger
        resting = [one for one in exchange.resting() if not one.client_id.startswith(HAND)]
        long = [one for one in resting if one.open_lots > 1]
        if long and weather.strikes("amended"):
            order = roll.pick(long)
            exchange.amend(order, order.filled + order.open_lots // 2)
        if resting and weather.strikes("overfill"):
            order = roll.pick(resting)
            exchange.overfill(order, order.open_lots + roll.between(1, 100))
        resting = [one for one in resting if one.open_lots]
        if resting and roll.chance(0.1) and weather.strikes("late-fill"):  # the exchange takes it back, and it trades all the same
            order = roll.pick(resting)
            exchange.trade_after_end(order, roll.between(1, order.open_lots), roll.between(SECOND // 10, 5 * SECOND))
            exchange.take_back(order)
        standing = [one for one in book.trades.values() if not one.is_busted and not one.fill.order_id.startswith(HAND)]
        if standing and weather.strikes("bust"):
            exchange.bust(roll.pick(standing))
        if not book.is_down and weather.strikes("by-hand"):
            side: Side = "sell" if roll.chance(0.5) else "buy"
            away = roll.between(-2, LEVELS)
            exchange.by_hand(side, book.bid + away if side == "sell" else book.bid - away, roll.between(10_000, 50_000))
        if weather.strikes("deposit"):
            exchange.deposit(roll.between(1, 100) * LOT, roll.between(1, 100) * SCALE)
        if book.status == "TRADING" and weather.strikes("cancel-only"):
            exchange.set_status("CANCEL_ONLY", "volatility")
            self._later(5, 15, lambda: exchange.set_status("TRADING", ""))
        if not book.is_down and weather.strikes("maintenance"):
            exchange.go(down=True)
            self._later(3, 12, lambda: self._return(exchange))

    def _return(self, exchange: Exchange) -> None:
        exchange.cancel_all("maintenance")
        exchange.go(down=False)

    # -- the chain -----------------------------------------------------------------------------------------------------

    def _on_chain(self) -> None:
        weather, roll, chain = self._weather, self._weather.dice, self._chain
        ledger = chain.ledger
        if ledger.mempool and weather.strikes("dropped"):
            chain.drop()
        if any(one.receipts for one in ledger.blocks[-5:]) and weather.strikes("reorg"):
            how = roll.between(0, 2)
            chain.reorg(roll.between(1, 7), returns=how != 0, is_remined=how == 1)
        if weather.strikes("wild-price"):
            chain.move_pool(roll.pick((-300, 400)))
        if weather.strikes("sandwich"):
            chain.move_pool(roll.between(-15, 15))
        if weather.strikes("foreign"):
            chain.spend_elsewhere()
        if ledger.mempool and ledger.fee_floor == 10**9 and weather.strikes("spike"):
            ledger.fee_floor *= roll.between(10, 50)
            ledger.base_fee = ledger.fee_floor
            self._later(8, 25, self._cheap)
        if ledger.mempool and not ledger.is_deaf and weather.strikes("deaf"):
            ledger.is_deaf = True
            self._later(5, 20, self._hears)
        if not ledger.is_stalled and weather.strikes("no-blocks"):
            ledger.is_stalled = True
            self._later(5, 20, self._moves)

    def _cheap(self) -> None:
        self._chain.ledger.fee_floor = 10**9

    def _hears(self) -> None:
        self._chain.ledger.is_deaf = False

    def _moves(self) -> None:
        self._chain.ledger.is_stalled = False
