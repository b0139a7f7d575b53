"""A scripted book whose price moves when a test says so, where patient orders rest until the test fills them, and orders
that belong together."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from engine_kit import BOOK, CEX_ETH, MAIN, START_NS, Habits, Run, ScriptedBook, Truth, WarpClock

from agent.domain.amount import Amount, group_asset, parse_amount
from agent.domain.events import OrderFilled, OrderReported
from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.domain.market import TradePrint
from agent.domain.order import Fill, OrderRef
from agent.domain.order import OrderState as S
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Signed, Unsigned, VenueRequest
from agent.domain.price import Price
from agent.domain.trigger import Stop, Touched
from agent.ports import PrivateFact, Snapshot

ETH = group_asset("ETH")
LOT = BOOK.lot_units
SECOND = 10**9


class MovingBook(ScriptedBook):
    """Orders that may rest do; others fill at once. `slow_s`: how long it thinks about a cancel."""

    def __init__(self, seed: int = 1, habits: Habits | None = None) -> None:
        super().__init__(WarpClock(), seed, habits)
        self.rests: dict[str, int] = {}  # order -> lots that are left
        self.slow_s = 0.0

    def to(self, price: float) -> None:
        """The market moves: the best bid is here now, the best offer a tick above."""
        self.bid = round(price * 100)
        self.push(*self.pulse())

    def print_at(self, price: float) -> None:
        """Somebody trades."""
        self.push(TradePrint(BOOK.id, round(price * 100), 1, False, self.clock.now_ns()))

    def build(self, approved: Approved) -> Unsigned:
        plan = approved.plan
        if not isinstance(plan, CancelOrder):
            return super().build(approved)
        self.plans[plan.order_id] = plan
        return VenueRequest(plan.order_id, "cex", "cancel", ())

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        plan = self.plans[signed.order_id]
        if isinstance(plan, PlaceOrder) and plan.time_in_force == "GTC":
            self.arrivals.append(plan.order_id)
            self.rests[plan.order_id] = plan.lots
            return [self._says(plan, S.OPEN)]
        if not isinstance(plan, CancelOrder):
            return await super().send(signed)
        await asyncio.sleep(self.slow_s)
        target = self.plans[plan.target_id]
        said = [OrderReported(plan.order_id, S.FILLED)]
        if self.rests.pop(plan.target_id, None) is not None:
            said.insert(0, self._says(target, S.CANCELLED))
        return said

    def _fill(self, plan: PlaceOrder, lots: int) -> Fill:
        """At the order's own limit: the market may have moved on while it was under way."""
        market, self.bid = self.bid, plan.ticks
        try:
            return super()._fill(plan, lots)
        finally:
            self.bid = market

    def trade(self, order_id: str, lots: int) -> None:
        """A resting order fills, in part or whole, and the stream says so."""
        plan, left = self.plans[order_id], self.rests[order_id]
        done = min(lots, left)
        fact = OrderFilled(self._fill(plan, done))
        self.truth[order_id].facts.append(fact)
        self.rests[order_id] = left - done
        if left == done:
            del self.rests[order_id]
        self.tell([fact, self._says(plan, S.FILLED if left == done else S.OPEN)])

    def _says(self, plan: PlaceOrder, state: S) -> OrderReported:
        known = self.truth.setdefault(plan.order_id, Truth(plan, state, [], self.clock.now_ns()))
        known.facts = [fact for fact in known.facts if isinstance(fact, OrderFilled)]
        filled = sum((fact.fill.paid if plan.side == "sell" else fact.fill.received).units for fact in known.facts)
        report = OrderReported(plan.order_id, state, venue_order_id=f"v{plan.order_id}", filled=Amount(filled, CEX_ETH))
        known.state, known.facts = state, [*known.facts, report]
        return report

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        return msgspec.structs.replace(await super().snapshot(asked), open_orders=tuple(self.rests))

    def traded(self, *intents: str) -> int:
        """Base units that these parents traded here, by the venue's own account."""
        kept = [one for one in self.truth.values() if one.plan.intent_id in intents]
        fills = [fact.fill for one in kept for fact in one.facts if isinstance(fact, OrderFilled)]
        return sum((fill.paid if fill.paid.asset == CEX_ETH else fill.received).units for fill in fills)


def price(value: str) -> Price:
    return Price(parse_amount(value, ETH).units, 10**18)


def order(name: str, side: Side = "sell", quantity: str = "5", within_s: int = 3_600, **more: Any) -> Intent:
    until_ns = START_NS + within_s * SECOND
    intent = Intent(name, MAIN, name, side, parse_amount(quantity, ETH), "USDT", 300, until_ns)
    return msgspec.structs.replace(intent, **more)


def bracket(quantity: str = "5", take: str = "2750", stop: str = "2600", **more: Any) -> tuple[Intent, Intent, Intent]:
    """A purchase, and two sales after it: at a profit, or at a loss."""
    exits = {"group": "g", "after": "entry"}
    return (
        order("entry", "buy", quantity, **more),
        order("take", "sell", quantity, trigger=Touched(price(take)), **exits),
        order("stop", "sell", quantity, trigger=Stop(price(stop)), **exits),
    )


async def settled(run: Run, seconds: float = 3) -> None:
    """Time for everything that follows from a move."""
    await run.engine._clock.sleep(seconds)
