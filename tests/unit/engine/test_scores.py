"""From facts to scorecards to routes: what venues did is counted once in whatever order it was told, a venue that begins to fail
loses its share and gets it back, and a replay of the journal finds the same cards and the same charges.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from engine_kit import (
    BOOK,
    CEX_ETH,
    CEX_USDT,
    COIN,
    ETH,
    MAIN,
    POOL,
    RULES,
    START_NS,
    USDT,
    WETH,
    Habits,
    Run,
    ScriptedBook,
    ScriptedPool,
    WarpClock,
    dump,
    replayed,
    running,
    sale,
    venues_of,
    warped,
)

from agent import observe
from agent.domain.amount import Amount, group_asset, parse_amount, zero
from agent.domain.events import (
    BalanceAdopted,
    EngineStarted,
    Event,
    GasPaid,
    IntentAccepted,
    Marked,
    OrderApproved,
    OrderFilled,
    OrderReported,
    OrderSent,
    Routed,
    RoutePiece,
)
from agent.domain.market import BookSnapshot, Listed
from agent.domain.order import NEVER_SENT, Fill, OrderState
from agent.domain.plan import Approved, ApproveToken, PlaceOrder, Plan, SwapBatch, SwapLeg
from agent.domain.price import Price
from agent.engine.scores import LATE_NS, UNMARKED_MAX
from agent.engine.state import State
from agent.engine.tend import marks
from agent.engine.world import World
from agent.journal.codec import Row
from agent.journal.memory import MemoryJournal
from agent.market.view import Market
from agent.routing.scorecard import HORIZONS_NS, SECOND_NS, Card, Mean, charges

S = OrderState
QUOTE = group_asset("USDT")
MID = Price(2_683, 1)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


# -- one order at a time -----------------------------------------------------------------------------------------------


def piece(name: str, eth: str, price: str, fee_pips: int = 0) -> RoutePiece:
    base = parse_amount(eth, ETH)
    quote = Amount(base.units * parse_amount(price, QUOTE).units // 10**18, QUOTE)
    return RoutePiece(name, base, quote, 0.5, float(price), float(price), fee_pips, zero(QUOTE), "cheapest")


def routed(*pieces: RoutePiece) -> Routed:
    total = sum((one.base for one in pieces), start=zero(ETH))
    return Routed("p1", 0, total, pieces, zero(QUOTE), (), (), MID, START_NS)


def place(name: str = "p1-0", lots: int = 100_000) -> PlaceOrder:
    """Sells 10 ETH at once, at 2,680 or better."""
    sell = Amount(lots * BOOK.lot_units, CEX_ETH)
    buy = Amount(268_000 * BOOK.tick_units * sell.units // 10**8, CEX_USDT)
    return PlaceOrder(name, "p1", MAIN, "cex", BOOK.id, "sell", 268_000, lots, "IOC", sell, buy)


def swap(name: str = "p1-1") -> SwapBatch:
    """Sells 5 ETH in the pool."""
    sell, buy = parse_amount("5", WETH), Amount(2_680 * 5 * 10**6, USDT)
    legs = (SwapLeg(POOL.id, sell, buy, "sell"),)
    return SwapBatch(name, "p1", MAIN, "amm", 31_337, "sell", legs, sell, buy, 0, 1_900_000_000, 300_000, 3 * 10**9, 10**9)


class Book:
    """A journal with the state that follows it; every event a millisecond after the last one, unless told otherwise."""

    def __init__(self, *route: RoutePiece, coin: Price | None = MID) -> None:
        self.journal, self.state, self.now_ns = MemoryJournal(), State(), START_NS
        self.write(
            EngineStarted("r", "v", "c"),
            BalanceAdopted(MAIN, "cex", Amount(60 * 10**8, CEX_ETH), "opening balance"),
            BalanceAdopted(MAIN, "amm", Amount(60 * 10**18, WETH), "opening balance"),
            BalanceAdopted(MAIN, "amm", Amount(5 * 10**18, COIN), "opening balance"),
            IntentAccepted(sale(), MID, coin),
            routed(*route),
        )

    def write(self, *events: Event, after_ms: int = 1) -> None:
        for event in events:
            self.now_ns += after_ms * 10**6
            for record in self.journal.append(self.now_ns, [event]):
                self.state.apply(record)

    def send(self, plan: Plan, nonce: int | None = None) -> None:
        self.write(OrderApproved(Approved(plan, nonce)), OrderSent(plan.order_id, "0xaa" if nonce is not None else ""))

    def card(self, venue: str = "cex") -> Card:
        return self.state.scores.cards[venue]


def fill(eth: str, price: str, trade: str = "t1", name: str = "p1-0") -> OrderFilled:
    paid = parse_amount(eth, CEX_ETH)
    received = Amount(paid.units * parse_amount(price, CEX_USDT).units // 10**8, CEX_USDT)
    return OrderFilled(Fill(name, "cex", BOOK.id, trade, paid, received, zero(CEX_USDT), START_NS))


def said(state: OrderState, eth: str | None = None, reason: str = "", name: str = "p1-0") -> OrderReported:
    return OrderReported(name, state, reason, "v1", filled=None if eth is None else parse_amount(eth, CEX_ETH))


def test_an_order_counts_once_for_its_answer_and_once_for_its_end() -> None:
    book = Book(piece(BOOK.id, "10", "2680", BOOK.fee_pips))
    book.send(place())
    book.write(said(S.OPEN), after_ms=40)
    book.write(fill("4", "2682"), fill("4", "2681", "t2"), said(S.CANCELLED, "8"), after_ms=5)
    card = book.card()
    assert (card.orders, card.ack_ms.weight, card.ack_ms.value) == (1, 1.0, 40.0)
    assert card.filled.value == pytest.approx(0.8)
    assert card.rejected.value == 0.0
    gross = 2_680 / (1 - BOOK.fee_pips / 1e6)  # what the route promised is after the fee
    assert card.drift_pips.value == pytest.approx((gross - 2_681.5) / gross * 1e6, rel=1e-6)
    assert card.reverted == Mean()
    book.write(said(S.CANCELLED, "8"))
    assert book.card() == card, "news that is none changes nothing"


FACTS = (said(S.OPEN, "0"), fill("3", "2682"), fill("5", "2681", "t2"), said(S.CANCELLED, "8"))


def test_the_order_in_which_an_order_is_told_does_not_matter() -> None:
    """All at one moment: then even the time of the first word is the same."""
    ends = set()
    for facts in itertools.permutations(FACTS):
        book = Book(piece(BOOK.id, "10", "2680", BOOK.fee_pips))
        book.send(place())
        book.write(*facts, after_ms=0)
        ends.add(book.card())
    assert len(ends) == 1


def test_of_two_venues_it_does_not_matter_who_speaks_first() -> None:
    gas = GasPaid("p1-1", MAIN, Amount(10**15, COIN), 200_000, "0xaa")
    mined = OrderReported("p1-1", S.REVERTED, "TooLittleReceived", "0xaa", 7, tx_hash="0xaa", block_hash="0xb1")
    cards = []
    for events in ([*FACTS, gas, mined], [gas, mined, *FACTS]):
        book = Book(piece(BOOK.id, "10", "2680", BOOK.fee_pips), piece(POOL.id, "5", "2681"))
        book.send(place())
        book.send(swap(), 0)
        book.write(*events, after_ms=0)
        cards.append(book.state.scores.cards)
    assert cards[0] == cards[1]


def test_a_batch_that_reverts_counts_with_the_gas_that_it_lost() -> None:
    book = Book(piece(POOL.id, "5", "2681"))
    book.send(swap("p1-0"), 0)
    book.write(OrderReported("p1-0", S.OPEN, "", "0xaa", tx_hash="0xaa"))
    book.write(GasPaid("p1-0", MAIN, Amount(10**15, COIN), 200_000, "0xaa"))
    book.write(OrderReported("p1-0", S.REVERTED, "TooLittleReceived", "0xaa", 7, tx_hash="0xaa", block_hash="0xb1"))
    card = book.card("amm")
    assert (card.orders, card.reverted.value, card.rejected.value, card.filled) == (1, 1.0, 0.0, Mean())
    assert card.lost_gas_pips.value == pytest.approx(0.001 * 2_683 / (5 * 2_681) * 1e6)
    assert card.ack_ms.weight == 1.0


def test_what_never_left_and_what_we_took_back_says_nothing_about_the_venue() -> None:
    book = Book(piece(BOOK.id, "10", "2680"), piece(POOL.id, "5", "2681"))
    book.write(OrderApproved(Approved(place())), OrderReported("p1-0", S.REJECTED, f"{NEVER_SENT}: no key"))
    book.send(place("p1-1"))
    book.write(OrderReported("p1-1", S.CANCELLED, f"{NEVER_SENT}: the client cancelled"))
    assert book.state.scores.cards == {}
    book.send(swap("p1-2"), 0)
    book.write(OrderReported("p1-2", S.CANCELLED, "cancelled by a transaction to oneself", "0xaa", 7, tx_hash="0xaa"))
    assert book.card("amm").orders == 0


def test_time_that_the_agent_was_away_is_no_latency_of_the_venue() -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    book.send(place())
    book.write(EngineStarted("r2", "v", "c"), after_ms=3_600_000)
    book.write(fill("10", "2680"), said(S.FILLED, "10"))
    assert book.card().ack_ms == Mean()
    assert (book.card().orders, book.card().filled.value) == (1, 1.0)


def test_that_we_gave_up_waiting_is_no_answer_and_the_venue_was_slow() -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    book.send(place())
    book.write(said(S.UNKNOWN, reason="no answer within 15 s"), after_ms=15_000)
    assert book.state.scores.cards == {}
    book.write(fill("10", "2680"), said(S.FILLED, "10"), after_ms=5_000)
    assert book.card().ack_ms.value == 20_000.0
    assert book.card().faults[2] > 0, "it is slow"


def test_a_reorganised_block_is_not_counted_twice() -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    book.send(place())
    book.write(fill("10", "2680"), said(S.FILLED, "10"))
    once = book.card()
    book.write(said(S.FILLED, "10"), fill("10", "2680"))
    assert book.card() == once


@pytest.mark.parametrize(("later", "sign"), [("2684.0", 1), ("2682.0", -1)])
def test_a_markout_is_against_us_when_the_price_rises_after_a_sale(later: str, sign: int) -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    book.send(place())
    book.write(fill("6", "2681"), fill("4", "2681", "t2"), said(S.FILLED, "10"))
    after = Price(parse_amount(later, QUOTE).units, 10**18)
    book.write(Marked("p1-0", HORIZONS_NS[0], MID), Marked("p1-0", HORIZONS_NS[1], after), Marked("p1-0", HORIZONS_NS[2], after))
    card = book.card()
    price = float(later)
    assert card.markout_1s_pips.value == pytest.approx((price / 2_681 - 1) * 1e6)
    assert card.markout_10s_pips.value == pytest.approx((price / 2_681 - 1) * 1e6)
    assert card.return_pips.value == pytest.approx((price / 2_683 - 1) * 1e6)
    assert card.return_pips.value * sign > 0
    before = dump(book.state)
    book.write(Marked("p1-0", HORIZONS_NS[2], MID))
    assert book.card() == card, "each while is looked at once"
    assert before != dump(book.state), "only the record was counted"
    assert book.state.scores.unmarked == {}


# -- looking at the market ---------------------------------------------------------------------------------------------


def looked(book: Book, at_ns: int, *, has_price: bool = True) -> list[Marked]:
    """What the engine would journal at that time."""
    market = Market()
    if has_price:
        market.apply(Listed("cex", (BOOK,), at_ns))
        market.apply(BookSnapshot(BOOK.id, 1, ((268_300, 10),), ((268_301, 10),), at_ns))
    world = World(market, {}, frozenset(), {}, {}, set())
    return [event for event in marks(book.state, world, at_ns) if isinstance(event, Marked)]


def test_the_market_is_looked_at_once_for_each_while_and_never_without_a_price() -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    book.send(place())
    book.write(fill("6", "2681"))
    first_ns = book.now_ns
    book.write(fill("4", "2681", "t2"), said(S.FILLED, "10"))
    assert looked(book, first_ns, has_price=False) == []
    seen = []
    for step in range(0, 15 * SECOND_NS, SECOND_NS // 10):
        told = looked(book, first_ns + step)
        seen += [(one.after_ns, step) for one in told]
        for one in told:
            book.write(one, after_ms=0)
    assert seen == [(0, 0), (SECOND_NS, SECOND_NS), (10 * SECOND_NS, 10 * SECOND_NS)]
    assert book.state.scores.unmarked == {}


def test_a_look_that_comes_too_late_is_none() -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    book.send(place())
    book.write(fill("10", "2681"))
    assert [one.after_ns for one in looked(book, book.now_ns + LATE_NS)] == [0]
    assert looked(book, book.now_ns + LATE_NS + 1) == []


def test_orders_that_wait_for_a_look_are_bounded() -> None:
    book = Book(piece(BOOK.id, "10", "2680"))
    for number in range(UNMARKED_MAX + 10):
        plan = place(f"p1-{number}", 10)
        book.send(plan)
        book.write(fill("0.001", "2681", f"t{number}", plan.order_id))
        assert len(book.state.scores.unmarked) <= UNMARKED_MAX
    book.send(place("last", 10))
    book.write(fill("0.001", "2681", "t-last", "last"), after_ms=20_000)
    assert list(book.state.scores.unmarked) == ["last"], "what is too old makes room"


# -- the engine --------------------------------------------------------------------------------------------------------


def records(run: Run | Sequence[Row], *kinds: type) -> list[Any]:
    journal = run.journal if isinstance(run, Run) else MemoryJournal(list(run))
    return [record.event for record in journal.read() if isinstance(record.event, kinds)]


def share(route: Routed, venue: str) -> float:
    return sum(one.share for one in route.pieces if one.instrument.startswith(f"{venue}:"))


def taken(route: Routed, venue: str) -> int:
    return sum(one.base.units for one in route.pieces if one.instrument.startswith(f"{venue}:"))


def is_avoided(route: Routed, venue: str) -> bool:
    return any(one.code == "VENUE_DEGRADED" and one.text.startswith(f"{venue}:") for one in route.rejected)


class FairPool(ScriptedPool):
    """Gives what was quoted; the other one always gives the least that it may."""

    def _effects(self, plan: SwapBatch | ApproveToken, tx: str) -> Sequence[Fill]:
        if isinstance(plan, SwapBatch):
            rate = 10_000 - RULES.slippage_bps
            legs = tuple(
                msgspec.structs.replace(leg, buy=Amount(leg.buy.units * 10_000 // rate, leg.buy.asset)) for leg in plan.legs
            )
            plan = msgspec.structs.replace(plan, legs=legs)
        return super()._effects(plan, tx)


def rejecting_day() -> list[Row]:
    """Ten slices, eight seconds apart; from the third on the book rejects everything, until it is avoided."""

    async def work() -> list[Row]:
        book, pool = ScriptedBook(WarpClock(), 1), FairPool(WarpClock(), 1)
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale("p1", "60", slices=10, interval_ns=8 * SECOND_NS))
            await run.until(lambda: len(records(run, Routed)) == 2)
            book.habits = Habits(("reject",))
            await run.until(lambda: "cex" in run.engine.state.scores.cards and run.engine.state.scores.cards["cex"].strikes)
            book.habits = Habits()
            assert await run.engine.finished("p1") == "FILLED"
            assert await run.engine.reconcile() == []
            return list(run.journal.rows)

    return warped(work())


def test_a_venue_that_starts_rejecting_loses_share_is_avoided_and_is_probed_again() -> None:
    routes = replayed(rejecting_day()).parents["p1"].routes
    gone = [index for index, route in enumerate(routes) if is_avoided(route, "cex")]
    assert gone == list(range(gone[0], gone[-1] + 1)), "avoided once, for one while"
    assert 3 <= len(gone) <= 5, "30 s of slices that are 8 s apart"
    before, lost, probe = routes[1], routes[gone[0] - 1], routes[gone[-1] + 1]
    assert share(before, "cex") > 0.2
    assert share(lost, "cex") > 0
    assert taken(lost, "amm") > taken(before, "amm"), "one rejection: the book is charged, and the other takes some of its share"
    assert all(share(routes[index], "cex") == 0 for index in gone)
    assert share(probe, "cex") > 0, "it is tried again"
    assert taken(probe, "amm") > taken(lost, "amm"), "and still charged for its past"
    charged = next(one for one in probe.pieces if one.instrument == BOOK.id)
    assert charged.charge_pips > 0
    assert "rejects" in charged.why
    assert taken(routes[-1], "amm") < taken(probe, "amm"), "what went well since then counts for it"


def test_a_venue_that_fills_worse_than_it_quotes_is_charged_and_loses_share_while_the_parent_runs() -> None:
    async def work() -> None:
        venues = venues_of(ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1))
        async with running(venues) as run:
            await run.engine.submit(sale("p1", "60", slices=10, interval_ns=8 * SECOND_NS))
            assert await run.engine.finished("p1") == "FILLED"
            card = run.engine.state.scores.cards["amm"]
        routes = run.engine.state.parents["p1"].routes
        assert card.drift_pips.value == pytest.approx(RULES.slippage_bps * 100, rel=1e-3)
        assert [taken(one, "amm") for one in routes[:9]] == sorted((taken(one, "amm") for one in routes[:9]), reverse=True)
        assert taken(routes[8], "amm") < taken(routes[0], "amm") * 0.9
        pool = next(one for one in routes[8].pieces if one.instrument == POOL.id)
        assert 200 < pool.charge_pips < 1_000
        assert "drift" in pool.why

    warped(work())


def test_the_venue_is_not_avoided_when_there_is_no_other_place() -> None:
    async def work() -> None:
        book = ScriptedBook(WarpClock(), 1, Habits(("reject",)))
        async with running(venues_of(book)) as run:
            await run.engine.submit(sale())
            await run.until(lambda: len(book.arrivals) == 2)
            book.habits = Habits()
            assert await run.engine.finished("p1") == "FILLED"
            assert run.engine.state.scores.cards["cex"].strikes == 0
            assert not any(is_avoided(one, "cex") for one in records(run, Routed))

    warped(work())


def test_a_venue_is_not_avoided_when_the_others_cannot_carry_the_slice() -> None:
    """The book has nearly all of the coins: the pool alone could not sell them."""

    async def work() -> None:
        book, pool = ScriptedBook(WarpClock(), 1, Habits(("reject",))), FairPool(WarpClock(), 1)
        pool.holding[WETH] = 10**18
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale("p1", "20"))
            await run.until(lambda: len(book.arrivals) == 2)
            book.habits = Habits()
            assert await run.engine.finished("p1") == "FILLED"
            assert not any(is_avoided(one, "cex") for one in records(run, Routed))
            seconds = run.engine.state.parents["p1"].ended_ns - run.engine.state.parents["p1"].accepted_ns
            assert seconds < 20 * SECOND_NS, "nobody waited for the end of a pause"

    warped(work())


def test_a_chain_that_reverts_loses_its_share_and_gets_it_back() -> None:
    async def work() -> None:
        book, pool = ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1, reverts=1.0)
        async with running(venues_of(book, pool)) as run:
            await run.engine.submit(sale("p1", "20", slices=20, interval_ns=5 * SECOND_NS))
            await run.until(lambda: "amm" in run.engine.state.scores.cards and run.engine.state.scores.cards["amm"].strikes)
            pool.reverts = 0.0
            assert await run.engine.finished("p1") == "FILLED"
        routes: list[Routed] = records(run, Routed)
        gone = [index for index, route in enumerate(routes) if is_avoided(route, "amm")]
        assert gone
        assert all(share(routes[index], "amm") == 0 for index in gone)
        assert any(share(route, "amm") > 0 for route in routes[gone[-1] + 1 :])
        card = run.engine.state.scores.cards["amm"]
        assert card.lost_gas_pips.value > 0

    warped(work())


def test_a_replay_finds_the_same_cards_and_charges_every_route_the_same() -> None:
    rows = rejecting_day()
    assert dump(replayed(rows)) == dump(replayed(rows))
    state, listed, charged = State(RULES.scoring), (BOOK, POOL), 0
    for record in MemoryJournal(list(rows)).read():
        if isinstance(record.event, Routed):
            learnt = charges(state.scores.cards, RULES.scoring, record.event.decided_ns, listed)
            for one in record.event.pieces:
                expected = learnt[one.instrument].pips if one.instrument in learnt else 0
                assert one.charge_pips == expected
                charged += expected > 0
        state.apply(record)
    assert charged > 2, "a check that could not fail"


def test_the_marks_of_a_day_are_few_and_in_their_time() -> None:
    rows = rejecting_day()
    first: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    for record in MemoryJournal(list(rows)).read():
        match record.event:
            case OrderFilled(fill=one):
                first.setdefault(one.order_id, record.at_ns)
            case Marked(order_id=name, after_ns=after_ns):
                assert (name, after_ns) not in seen
                assert after_ns in HORIZONS_NS
                assert 0 <= record.at_ns - first[name] - after_ns <= LATE_NS
                seen.add((name, after_ns))
    assert len(seen) > 20


def test_a_card_is_bounded_whatever_happens() -> None:
    state = replayed(rejecting_day())
    assert set(state.scores.cards) == {"cex", "amm"}
    assert len(msgspec.json.encode(state.scores.cards)) < 4_000
