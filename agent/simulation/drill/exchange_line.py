"""The line between the agent and an exchange: replies, a private stream and lists, each with delays and troubles of its own.

It satisfies the port Venue and keeps its promises as a good adapter does: what it says is certain, what it does not know it does
not say. The truth stays with the exchange; a line dies with the agent's process.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from agent.domain.amount import Amount
from agent.domain.errors import OutcomeUnknown, VenueError
from agent.domain.events import FillReversed, OrderFilled, OrderReported, VenueConnected, VenueStatus
from agent.domain.market import BookDiff, BookSnapshot, Listed
from agent.domain.order import ENDED, OrderRef, OrderState
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Signed, SignedRequest, Unsigned, VenueRequest
from agent.ports import PrivateFact, Profile, Resting, Snapshot, VenueEvent
from agent.simulation.drill.clock import SECOND, WarpClock, world_ns
from agent.simulation.drill.exchange import HAND, WINDOW_NS, Exchange
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import MAIN, base_of, book_of, quote_of
from agent.simulation.drill.orders import Placed, RefusedError, Request

PULSE_S = 0.5
STALE_S = 8.0  # a stream that is silent for so long is given up, whatever its pings say
FOREVER_S = 3_600.0
COUNTDOWN_S = 10


class ExchangeLine:
    """Satisfies the ports Venue and DeadMan over one exchange, in one life of the agent."""

    def __init__(self, exchange: Exchange, clock: WarpClock, weather: Weather) -> None:
        self.exchange, self.clock, self.weather = exchange, clock, weather
        self.name = exchange.ledger.venue
        self._profile = Profile(self.name, "drill", False, None)
        self._offset_ns = 0  # the exchange's clock minus ours, as measured last
        self._told = 0  # events of the private stream that were read from the exchange
        self._is_cut = False
        self._banned_ns = 0
        self._silent_ns = 0  # the stream says nothing until then
        self._revoked_ns = 0
        self._woken = asyncio.Event()
        self.leaving: Callable[[Signed], None] = unwatched  # told of every send that begins
        self.carried_out: Callable[[], None] = nothing  # called when a request was carried out, before its reply
        self._connects = self._asked_at = 0  # how often a stream was opened; which of them a snapshot has followed

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def is_in_step(self) -> bool:
        """Whether it was asked what it knows since its stream was opened last."""
        return self._asked_at == self._connects

    def cut(self) -> None:
        """The agent's process is dead: nothing gets through any more, in either direction."""
        self._is_cut = True

    async def close(self) -> None:
        self.cut()

    # -- sends -------------------------------------------------------------------------------------------------------

    def build(self, approved: Approved) -> Unsigned:
        """See the port."""
        match approved.plan:
            case PlaceOrder() as plan:
                fields = {
                    "side": plan.side,
                    "ticks": str(plan.ticks),
                    "lots": str(plan.lots),
                    "time_in_force": plan.time_in_force,
                    "target_id": plan.replaces,
                }
                return VenueRequest(plan.order_id, self.name, "replace" if plan.replaces else "place", tuple(fields.items()))
            case CancelOrder() as plan:
                return VenueRequest(plan.order_id, self.name, "cancel", (("target_id", plan.target_id),))
            case plan:
                raise VenueError(f"{self.name} trades on a book; it cannot do a {type(plan).__name__}")

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """See the port."""
        if self._is_cut or not isinstance(signed, SignedRequest):
            raise VenueError("this process is dead")
        request = self._request(signed.request)
        self.leaving(signed)
        self._refuse_early()
        weather, now_ns = self.weather, world_ns()
        self.exchange.note(request.client_id, now_ns + WINDOW_NS)
        await asyncio.sleep(weather.dice.seconds(0.0, 0.05))
        if weather.strikes("request-lost"):
            raise OutcomeUnknown(f"{self.name}: connection reset")
        if weather.strikes("accept-late"):
            self.exchange.depart(request, world_ns(), weather.dice.between(SECOND // 2, 5 * SECOND))
            raise OutcomeUnknown(f"{self.name}: 504 Gateway Timeout")
        if weather.strikes("error-500") and weather.dice.chance(0.5):
            raise OutcomeUnknown(f"{self.name}: 500 Internal Server Error")
        facts = self._carry_out(request)
        self.carried_out()
        if weather.strikes("reply-lost") or weather.strikes("error-500"):
            raise OutcomeUnknown(f"{self.name}: the reply was lost")
        if weather.strikes("timeout"):
            await asyncio.sleep(FOREVER_S)
        if weather.strikes("slow-reply"):
            await asyncio.sleep(weather.dice.seconds(0.1, 2.0))
        if self._is_cut:
            raise OutcomeUnknown("this process is dead")
        return facts

    def _refuse_early(self) -> None:
        """What certainly keeps a request from being carried out."""
        weather, now_ns = self.weather, world_ns()
        if self.exchange.ledger.is_down:
            raise VenueError(f"{self.name} is down for maintenance")
        if weather.strikes("banned"):
            self._banned_ns = now_ns + 30 * SECOND
        if now_ns < self._banned_ns and weather.has("banned"):
            raise VenueError(f"{self.name}: 418 banned for {(self._banned_ns - now_ns) // SECOND} s", "418")
        if weather.strikes("too-many"):
            raise VenueError(f"{self.name}: 429 Too Many Requests", "429")
        if weather.strikes("revoked"):
            self._revoked_ns = now_ns + 20 * SECOND
        if now_ns < self._revoked_ns and weather.has("revoked"):
            raise VenueError(f"{self.name}: 401 Invalid API-key", "401")

    def _carry_out(self, request: Request) -> Sequence[PrivateFact]:
        """What the reply proves. A refusal by the exchange is a fact."""
        exchange, weather, now_ns = self.exchange, self.weather, world_ns()
        if request.action != "cancel" and weather.strikes("rejected"):
            reason = weather.dice.pick(("-1013 Filter failure: PRICE_FILTER", "-2010 a bad price", "-1111 precision"))
            exchange.ledger.refused[request.client_id] = reason
            return (OrderReported(request.client_id, OrderState.REJECTED, reason),)
        if request.action == "cancel":
            self._race(request.target_id)
        try:
            facts = [one for one in exchange.arrive(request, now_ns) if not isinstance(one, VenueStatus)]
            if weather.strikes("duplicate-id"):
                exchange.arrive(request, now_ns)
        except RefusedError as refusal:
            return self._refused(request, refusal)
        mine = [one for one in facts if _order_of(one) in (request.client_id, request.target_id)]
        if request.action == "cancel":
            mine.append(OrderReported(request.client_id, OrderState.FILLED))
        return mine

    def _refused(self, request: Request, refusal: RefusedError) -> Sequence[PrivateFact]:
        if refusal.code == "-2012" or (refusal.code == "-2011" and request.client_id in self.exchange.ledger.arrivals):
            raise OutcomeUnknown(f"{self.name}: {refusal}; ask for it by its id") from None
        if refusal.code == "-1021":
            self._measure()
        facts: list[PrivateFact] = [OrderReported(request.client_id, OrderState.REJECTED, str(refusal))]
        target = self.exchange.ledger.orders.get(request.target_id)
        if target is not None and target.state in ENDED:
            facts = [*self._whole(target), *facts]
        return facts

    def _race(self, target_id: str) -> None:
        """While a cancel is under way the order may trade once more, and the exchange tells of it afterwards."""
        order = self.exchange.ledger.orders.get(target_id)
        if order is not None and order.open_lots and self.weather.strikes("late-fill"):
            lots = self.weather.dice.between(1, order.open_lots)
            self.exchange.trade_after_end(order, lots, self.weather.dice.between(SECOND // 10, 5 * SECOND))

    def _request(self, asked: VenueRequest) -> Request:
        fields: dict[str, Any] = dict(asked.fields)
        for name in ("ticks", "lots"):
            if name in fields:
                fields[name] = int(fields[name])
        assert asked.action != "place_native" and asked.action != "cancel_native", "it offers no TWAP of its own"  # noqa: PT018
        return Request(asked.action, asked.order_id, self.clock.now_ns() + self._offset_ns, **fields)

    def _measure(self) -> None:
        self._offset_ns = world_ns() - self.clock.now_ns()

    # -- the stream ------------------------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """See the port."""
        if self._is_cut or self.exchange.ledger.is_down or self.weather.strikes("no-connection"):
            raise VenueError(f"{self.name} cannot be reached")
        await asyncio.sleep(self.weather.dice.seconds(0.0, 0.2))
        self._measure()
        self._told = len(self.exchange.ledger.events)  # what was told before is asked for, not repeated
        self._woken.clear()
        wake = self._woken.set
        self.exchange.listeners.append(wake)
        try:
            self._connects += 1
            yield VenueConnected(self.name)
            yield Listed(self.name, (book_of(self.name),), self.clock.now_ns())
            if self.exchange.ledger.status != "TRADING":
                yield VenueStatus(self.name, self.exchange.ledger.status, "cancels alone")
            async for event in self._events():
                yield event
        finally:
            self.exchange.listeners.remove(wake)

    async def _events(self) -> AsyncIterator[VenueEvent]:
        heard_ns, book_ns, book_seq = world_ns(), 0, 0
        while True:
            self._check()
            if world_ns() < self._silent_ns and self.weather.has("stalled"):
                self._told = len(self.exchange.ledger.events)  # what is said now is lost
                if world_ns() - heard_ns > STALE_S * SECOND:
                    raise VenueError(f"{self.name} was silent for {STALE_S:.0f} s")
            else:
                for event in await self._news():
                    heard_ns = world_ns()
                    yield event
                if world_ns() - book_ns >= PULSE_S * SECOND:
                    heard_ns = book_ns = world_ns()
                    for fact in self._book(book_seq):
                        book_seq = self.exchange.ledger.seq
                        yield fact
            await self._wait()

    def _check(self) -> None:
        if self._is_cut or self.exchange.ledger.is_down:
            raise VenueError(f"{self.name}: the connection was closed")

    async def _wait(self) -> None:
        """Until something changes at the exchange, or for half a second."""
        try:
            async with asyncio.timeout(PULSE_S):
                await self._woken.wait()
        except TimeoutError:
            self.exchange.advance(world_ns())
            if self.weather.strikes("cut"):
                raise VenueError(f"{self.name}: connection reset by peer") from None
            if self.weather.strikes("stalled"):
                self._silent_ns = world_ns() + self.weather.dice.between(2, 12) * SECOND
        self._woken.clear()

    async def _news(self) -> list[VenueEvent]:
        """What the private stream says now, after what happens to it on its way."""
        events = self.exchange.ledger.events[self._told :]
        self._told += len(events)
        if not events:
            return []
        weather = self.weather
        if weather.strikes("late-news"):
            await asyncio.sleep(weather.dice.seconds(0.2, 4.0))
            self._check()
        if len(events) > 1 and not any(isinstance(one, FillReversed) for one in events) and weather.strikes("reordered"):
            events = weather.dice.some(events, len(events))
        found: list[VenueEvent] = []
        for event in events:
            if not isinstance(event, FillReversed | VenueStatus) and weather.strikes("swallowed"):
                continue
            if isinstance(event, OrderReported | OrderFilled) and _order_of(event).startswith(HAND):
                if isinstance(event, OrderFilled):
                    found.append(event)
                continue
            found.extend([event] * (2 if weather.strikes("twice") else 1))
        return found

    def _book(self, last_seq: int) -> Sequence[VenueEvent]:
        exchange, now_ns = self.exchange, self.clock.now_ns()
        bids, asks = exchange.levels()
        name, seq = book_of(self.name).id, exchange.ledger.seq
        if last_seq and self.weather.strikes("book-gap"):
            return (BookDiff(name, seq + 5, seq + 6, bids[:1], (), now_ns),)
        facts: list[VenueEvent] = [BookSnapshot(name, seq, bids, asks, now_ns)]
        if self.weather.strikes("burst"):
            facts *= 300
        return facts

    # -- questions -------------------------------------------------------------------------------------------------------

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """See the port."""
        weather, connects = self.weather, self._connects
        self._refuse_early()
        await asyncio.sleep(weather.dice.seconds(0.0, 0.1))
        if self._is_cut or weather.strikes("no-snapshot"):
            if weather.dice.chance(0.3):
                await asyncio.sleep(FOREVER_S)
            raise VenueError(f"{self.name} does not answer")
        self.exchange.advance(world_ns())
        resting = self.exchange.resting()
        if resting and weather.strikes("cut-list"):
            resting = resting[: len(resting) // 2]
        balances, is_whole = self._balances(), True
        if weather.strikes("cut-balances"):
            balances, is_whole = balances[:1], False
        facts = [fact for ref in asked for fact in self._certain(ref)] + list(self.exchange.busts())
        found = Snapshot(
            self.name,
            MAIN,
            balances,
            tuple(one.client_id for one in resting),
            tuple(facts),
            None,
            self.clock.now_ns(),
            tuple(self._resting(one) for one in resting),
            True,
            is_whole,
        )
        await asyncio.sleep(weather.dice.seconds(0.0, 0.1))
        self._asked_at = max(self._asked_at, connects)  # an older question may be answered later
        return found

    def _balances(self) -> tuple[Amount, ...]:
        ledger = self.exchange.ledger
        return (Amount(ledger.base, base_of(self.name)), Amount(ledger.quote, quote_of(self.name)))

    def _resting(self, order: Placed) -> Resting:
        return Resting(
            order.client_id, book_of(self.name).id, order.side, order.ticks, order.lots, order.filled, f"v{order.number}"
        )

    def _certain(self, ref: OrderRef) -> Sequence[PrivateFact]:
        """All that is certain about one order."""
        if ref.target_id:
            return self._certain_cancel(ref)
        order = self.exchange.ledger.orders.get(ref.order_id)
        if order is not None:
            return self._whole(order)
        if self._may_arrive(ref):
            return ()
        reason = self.exchange.ledger.refused.get(ref.order_id, "the exchange does not know it, and could not accept it any more")
        return (OrderReported(ref.order_id, OrderState.REJECTED, reason),)

    def _certain_cancel(self, ref: OrderRef) -> Sequence[PrivateFact]:
        """A cancel is judged by its target; its own id means nothing to the exchange."""
        target = self.exchange.ledger.orders.get(ref.target_id)
        if target is None:
            if self._may_arrive(ref):
                return ()
            return (OrderReported(ref.order_id, OrderState.REJECTED, f"{ref.target_id} is not known"),)
        facts = list(self._whole(target))
        if target.state is OrderState.CANCELLED:
            facts.append(OrderReported(ref.order_id, OrderState.FILLED))
        elif target.state in ENDED or not self._may_arrive(ref):
            facts.append(OrderReported(ref.order_id, OrderState.REJECTED, f"{ref.target_id} is {target.state}"))
        return facts

    def _may_arrive(self, ref: OrderRef) -> bool:
        """Whether a request that was under way may still be accepted. One that nobody saw leave is given the time all the same."""
        ledger, now_ns = self.exchange.ledger, world_ns()
        if ref.order_id in ledger.departed:
            return self.exchange.may_arrive(ref.order_id, now_ns)
        return abs(self.clock.now_ns() - ref.sent_ns) < 2 * WINDOW_NS

    def _whole(self, order: Placed) -> list[PrivateFact]:
        """An order with all its trades and changes, its state last."""
        exchange = self.exchange
        fills = [OrderFilled(fill) for fill in exchange.fills(order.client_id)]
        return [*exchange.amendment(order), *fills, exchange.report(order)]

    # -- the dead man's switch ---------------------------------------------------------------------------------------------

    @property
    def countdown_s(self) -> int:
        return COUNTDOWN_S if self.weather.has("dead-man") else 0

    async def arm(self, countdown_s: int) -> None:
        """See the port."""
        if self._is_cut or self.exchange.ledger.is_down or self.weather.strikes("dead-man"):
            raise VenueError(f"{self.name} does not arm its switch")
        await asyncio.sleep(0.01)
        self.exchange.arm(countdown_s, world_ns())


def unwatched(signed: Signed) -> None:
    """Nobody looks."""


def nothing() -> None:
    """Nothing happens."""


def _order_of(fact: object) -> str:
    if isinstance(fact, OrderFilled):
        return fact.fill.order_id
    return getattr(fact, "order_id", "")
