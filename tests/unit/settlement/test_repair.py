"""What can be put right without a person's word, and what cannot; the same repair twice books once."""

from collections.abc import Sequence

import msgspec
import pytest
from engine_kit import BOOK, CEX_ETH, CEX_USDT, MAIN

from agent.domain.amount import Amount, zero
from agent.domain.events import BalanceAdopted, OrderClaimed, OrderFilled, OrderReported
from agent.domain.order import Fill, Order, OrderState
from agent.domain.plan import PlaceOrder
from agent.ledger.positions import Ledger
from agent.ledger.posting import entry
from agent.ports import PrivateFact, Repair, Resting, Snapshot
from agent.settlement.reconcile import compare
from agent.settlement.repair import INFERRED, repairs

S = OrderState
LOTS = 1_000
SELL = Amount(LOTS * BOOK.lot_units, CEX_ETH)
BUY = Amount(268_000 * BOOK.tick_units * SELL.units // 10**8, CEX_USDT)
PLAN = PlaceOrder("o1", "p1", MAIN, "cex", BOOK.id, "sell", 268_000, LOTS, "GTC", SELL, BUY)
HELD = (Amount(60 * 10**8, CEX_ETH), Amount(10**12, CEX_USDT))


def fill(part: int = 100, trade_id: str = "t1") -> Fill:
    paid, got = Amount(SELL.units * part // 100, CEX_ETH), Amount(BUY.units * part // 100, CEX_USDT)
    return Fill("o1", "cex", BOOK.id, trade_id, paid, got, zero(CEX_USDT), 5)


def steps(outside: Sequence[Amount], orders: Sequence[Order], facts: Sequence[PrivateFact] = ()) -> list[Repair]:
    """What is proposed for a venue that holds `outside`, while the journal holds what it took over plus the orders' fills."""
    ledger, known = Ledger(), {one.order_id: one for one in orders}
    for amount in HELD:
        ledger.post(entry(BalanceAdopted(MAIN, "cex", amount, "opening balance")))
    for one in orders:
        for traded in one.fills:
            ledger.post(entry(OrderFilled(traded), one.plan))
    shot = Snapshot("cex", MAIN, tuple(outside), (), tuple(facts), at_ns=9)
    return repairs(compare(ledger, [shot], known), shot, known, lambda name: BOOK if name == BOOK.id else None)


def moved(part: int) -> tuple[Amount, ...]:
    return HELD[0] - fill(part).paid, HELD[1] + fill(part).received


def order(state: OrderState, *fills: Fill, told: int | None = None) -> Order:
    said = None if told is None else Amount(SELL.units * told // 100, CEX_ETH)
    return Order(PLAN, state, 0, sent_ns=1, fills=list(fills), told=said)


def test_nothing_is_wrong_and_nothing_is_done() -> None:
    assert steps(HELD, [order(S.CANCELLED)]) == []
    assert steps(moved(40), [order(S.CANCELLED, fill(40))], [OrderFilled(fill(40))]) == []


def test_a_trade_and_an_end_that_were_missed_are_booked_in_that_order() -> None:
    facts = [OrderFilled(fill()), OrderReported("o1", S.FILLED)]
    found = steps(moved(100), [order(S.OPEN)], facts)
    assert [one.events for one in found] == [(facts[0],), (facts[1],)]
    assert "book trade t1" in found[0].action
    assert "is OPEN here and FILLED there" in found[1].action


def test_an_order_of_somebody_else_is_taken_over_at_its_own_price() -> None:
    stranger = Resting("hand-1", BOOK.id, "buy", 200_000, 50, 0, "v7")
    (found,) = beside(stranger)
    (event,) = found.events
    assert isinstance(event, OrderClaimed)
    assert (event.plan.order_id, event.plan.side, event.plan.lots, event.venue_order_id) == ("hand-1", "buy", 50, "v7")
    assert event.plan.buy == Amount(50 * BOOK.lot_units, CEX_ETH)
    exact = 200_000 * BOOK.tick_units * event.plan.buy.units
    assert event.plan.sell.units == -(-exact // 10**8), "what a purchase may take is rounded up"


def beside(stranger: Resting) -> list[Repair]:
    ledger = Ledger()
    for amount in HELD:
        ledger.post(entry(BalanceAdopted(MAIN, "cex", amount, "opening balance")))
    shot = Snapshot("cex", MAIN, HELD, (stranger.order_id,), (), at_ns=9, resting=(stranger,))
    return repairs(compare(ledger, [shot], {}), shot, {}, lambda name: BOOK if name == BOOK.id else None)


def test_an_order_in_something_that_is_not_listed_is_left_to_a_person() -> None:
    (found,) = beside(Resting("hand-1", "cex:OTHER", "buy", 1, 1, 0, "v7"))
    assert found.events == ()
    assert "cancel it by hand" in found.action


@pytest.mark.parametrize("part", [1, 37, 100])
def test_a_trade_that_is_counted_and_not_listed_follows_from_the_balances(part: int) -> None:
    (found,) = steps(moved(part), [order(S.CANCELLED, told=part)])
    (event,) = found.events
    assert isinstance(event, OrderFilled)
    assert (event.fill.paid, event.fill.received) == (fill(part).paid, fill(part).received)
    assert event.fill.trade_id.startswith(INFERRED)
    assert steps(moved(part), [order(S.CANCELLED, told=part)]) == [found], "the same question has the same answer, id and all"
    assert steps(moved(part), [order(S.CANCELLED, event.fill, told=part)]) == [], "once booked, nothing is left to do"


def test_balances_that_moved_more_than_the_count_are_not_explained_by_it() -> None:
    (found,) = steps(moved(80), [order(S.CANCELLED, told=40)])
    assert found.events == ()
    assert "adopt them" in found.action


def test_of_two_orders_that_lack_trades_neither_is_guessed() -> None:
    other = Order(msgspec.structs.replace(PLAN, order_id="o2"), S.CANCELLED, 0, sent_ns=1, told=SELL)
    found = steps(moved(100), [order(S.CANCELLED, told=100), other])
    assert [one.events for one in found] == [(), ()]


def test_money_that_nobody_can_explain_is_never_explained_by_a_program() -> None:
    found = steps((HELD[0], HELD[1] + Amount(1, CEX_USDT)), [order(S.CANCELLED)])
    assert [(one.events, one.about) for one in found] == [((), CEX_USDT.id)]
    assert "--adopt REASON" in found[0].action
