"""The fold: what each event does to the state, and that the same records always give the same state."""

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
    START_NS,
    USDT,
    WETH,
    dump,
    replayed,
    sale,
)
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, parse_amount, zero
from agent.domain.events import (
    BalanceAdopted,
    EngineStarted,
    EngineStopped,
    Event,
    GasPaid,
    Halted,
    IntentAccepted,
    IntentCancelled,
    IntentEnded,
    IntentRefused,
    OrderApproved,
    OrderFilled,
    OrderRefused,
    OrderReorged,
    OrderReported,
    OrderSent,
    Reconciled,
    Routed,
    VenueConnected,
    VenueDisconnected,
)
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, ApproveToken, PlaceOrder, Plan, Reason, SwapBatch, SwapLeg
from agent.domain.price import Price
from agent.engine.judge import contradiction, excess, is_news, is_strange
from agent.engine.state import State
from agent.journal.memory import MemoryJournal

S = OrderState
ARRIVAL = Price(2_683, 1)


class Diary:
    """A journal with the state that follows it, second by second."""

    def __init__(self, *events: Event) -> None:
        self.journal, self.state, self.seconds = MemoryJournal(), State(), 0
        self.write(*events)

    def write(self, *events: Event) -> State:
        for event in events:
            self.seconds += 1
            for record in self.journal.append(START_NS + self.seconds * 10**9, [event]):
                self.state.apply(record)
        return self.state

    def absorb(self, event: Event) -> None:
        if is_news(self.state, event) and not contradiction(self.state, event):
            self.write(event)


def place(name: str = "p1-0", lots: int = 100_000, parent: str = "p1") -> PlaceOrder:
    sell = Amount(lots * BOOK.lot_units, CEX_ETH)
    buy = Amount(268_000 * BOOK.tick_units * sell.units // 10**8, CEX_USDT)
    return PlaceOrder(name, parent, MAIN, "cex", BOOK.id, "sell", 268_000, lots, "IOC", sell, buy)


def swap(name: str = "p1-1", eth: str = "5", parent: str = "p1") -> SwapBatch:
    sell, buy = parse_amount(eth, WETH), Amount(2_680 * 5 * 10**6, USDT)
    legs = (SwapLeg(POOL.id, sell, buy, "sell"),)
    return SwapBatch(name, parent, MAIN, "amm", 31_337, "sell", legs, sell, buy, 0, 1_900_000_000, 300_000, 3 * 10**9, 10**9)


def permit(name: str = "p1-2") -> ApproveToken:
    return ApproveToken(name, "p1", MAIN, "amm", 31_337, parse_amount("5", WETH), "0xspender", 80_000, 3 * 10**9, 10**9)


def sold(order: PlaceOrder | SwapBatch, part: int = 100, trade: str = "t1") -> OrderFilled:
    """A fill of `part` percent of an order."""
    paid, received = (
        Amount(order.sell.units * part // 100, order.sell.asset),
        Amount(order.buy.units * part // 100, order.buy.asset),
    )
    name = BOOK.id if isinstance(order, PlaceOrder) else POOL.id
    return OrderFilled(Fill(order.order_id, order.venue, name, trade, paid, received, zero(order.buy.asset), START_NS))


def sent(plan: Plan, nonce: int | None = None) -> tuple[Event, ...]:
    return (OrderApproved(Approved(plan, nonce)), OrderSent(plan.order_id, f"0x{plan.order_id}" if nonce is not None else "", b""))


def live() -> Diary:
    """A parent of 20 ETH, with 60 ETH at the exchange and 60 WETH on the chain."""
    return Diary(
        EngineStarted("r", "v", "c"),
        BalanceAdopted(MAIN, "cex", Amount(60 * 10**8, CEX_ETH), "opening balance"),
        BalanceAdopted(MAIN, "amm", Amount(60 * 10**18, WETH), "opening balance"),
        BalanceAdopted(MAIN, "amm", Amount(5 * 10**18, COIN), "opening balance"),
        IntentAccepted(sale(), ARRIVAL),
    )


def eth(text: str) -> Amount:
    return parse_amount(text, ETH)


# -- every event ---------------------------------------------------------------------------------------------------------


def test_intents() -> None:
    diary = live()
    state = diary.write(IntentRefused(sale("p2"), (Reason("X", "no"),)), IntentCancelled("p1"))
    assert list(state.parents) == ["p1"]
    parent = state.parents["p1"]
    assert (parent.cancelled, parent.is_live, parent.arrival) == (True, True, ARRIVAL)
    diary.write(IntentEnded("p1", "CANCELLED", "by the client"))
    assert (parent.status, parent.reason, parent.is_live) == ("CANCELLED", "by the client", False)


def test_routes_and_refusals_count() -> None:
    diary = live()
    route = Routed("p1", 0, eth("10"), (), zero(ETH), (), ())
    parent = diary.write(route, OrderRefused(place(), (Reason("X", "no"),)), OrderRefused(place(), (Reason("X", "no"),))).parents[
        "p1"
    ]
    assert (parent.slices, parent.refusals, parent.slice_ns) == (1, 2, START_NS + 6 * 10**9)
    diary.write(OrderApproved(Approved(place())))
    assert parent.refusals == 0


def test_a_book_order_from_approval_to_fill() -> None:
    diary, plan = live(), place()
    state = diary.write(OrderApproved(Approved(plan)))
    assert state.orders["p1-0"].state is S.APPROVED
    assert state.remaining(state.parents["p1"]) == eth("10"), "what is approved is promised at once"
    diary.write(OrderSent("p1-0"), sold(plan, 40, "t1"), OrderReported("p1-0", S.OPEN, venue_order_id="v9"))
    order = state.orders["p1-0"]
    assert (order.state, order.venue_order_id, order.sent_ns > 0) == (S.PARTIAL, "v9", True)
    assert state.promised(MAIN, "cex", CEX_ETH) == 6 * 10**8
    assert state.free(MAIN, "cex", CEX_ETH) == Amount(50 * 10**8, CEX_ETH)
    diary.write(sold(plan, 60, "t2"), OrderReported("p1-0", S.FILLED))
    assert state.working == {}
    assert state.parents["p1"].filled == eth("10")
    assert state.free(MAIN, "cex", CEX_ETH) == state.ledger.balance(MAIN, "cex", CEX_ETH) == Amount(50 * 10**8, CEX_ETH)


def test_a_batch_is_mined_and_final_and_a_reorganisation_brings_the_doubt_back() -> None:
    diary, plan = live(), swap()
    fill = OrderFilled(msgspec.structs.replace(sold(plan, trade="0xp1-1:0").fill, tx_hash="0xp1-1"))
    state = diary.write(
        *sent(plan, 0), OrderReported("p1-1", S.OPEN), fill, OrderReported("p1-1", S.MINED, block=7, tx_hash="0xp1-1")
    )
    order = state.orders["p1-1"]
    assert (order.nonce, order.tx_hash, order.block, list(state.mined)) == (0, "0xp1-1", 7, ["p1-1"])
    before = state.ledger.lines()
    diary.write(OrderReorged("p1-1", "0xp1-1", 7))
    assert (order.state, list(state.working), state.mined, state.chain_orders()) == (S.UNKNOWN, ["p1-1"], {}, [order])
    assert order.fills == []
    assert state.parents["p1"].filled == eth("0")
    assert not any(state.ledger.trial())
    diary.write(fill, OrderReported("p1-1", S.MINED, block=8), OrderReported("p1-1", S.FINAL))
    assert (order.state, order.is_final, state.working, state.mined) == (S.FINAL, True, {}, {})
    assert state.ledger.lines() == before, "mined again, it is booked again: once"


def test_gas_is_booked_once_for_each_transaction_also_of_a_revert() -> None:
    diary = live()
    gas = GasPaid("p1-1", MAIN, Amount(10**15, COIN), 200_000, "0xp1-1")
    state = diary.write(*sent(swap(), 0), gas, gas, OrderReported("p1-1", S.REVERTED, "TooLittleReceived"))
    assert state.ledger.balance(MAIN, "amm", COIN) == Amount(5 * 10**18 - 10**15, COIN)
    assert state.parents["p1"].failures == {"amm": 1}
    assert state.remaining(state.parents["p1"]) == eth("20")


def test_connections_and_stops_change_nothing_that_money_depends_on() -> None:
    diary = live()
    before = diary.state.ledger.lines()
    state = diary.write(
        VenueConnected("cex"), VenueDisconnected("cex", "x"), Reconciled(3, ()), Halted("cex", "why"), EngineStopped("x")
    )
    assert (state.ledger.lines(), state.halted, state.reconciled) == (before, {"cex": "why"}, Reconciled(3, ()))


# -- restarts ------------------------------------------------------------------------------------------------------------


def test_after_a_restart_sent_is_unknown_and_approved_was_never_sent() -> None:
    diary = live()
    diary.write(*sent(place("a")), OrderApproved(Approved(place("b"))), *sent(place("c")), OrderReported("c", S.OPEN))
    state = diary.write(EngineStarted("r2", "v", "c"))
    assert {name: order.state for name, order in state.orders.items()} == {"a": S.UNKNOWN, "b": S.CANCELLED, "c": S.OPEN}
    assert sorted(state.working) == ["a", "c"]
    again = dump(state)
    diary.write(EngineStarted("r2", "v", "c"))
    state.seq, state.now_ns = state.seq - 1, state.now_ns - 10**9
    assert dump(state) == again, "a second restart in a row changes nothing"


def test_the_doubt_of_a_restart_keeps_the_amount_reserved_until_the_venue_speaks() -> None:
    diary = live()
    state = diary.write(*sent(place()), EngineStarted("r2", "v", "c"))
    assert state.remaining(state.parents["p1"]) == eth("10")
    diary.write(OrderReported("p1-0", S.REJECTED, "never arrived"))
    assert state.remaining(state.parents["p1"]) == eth("20")


# -- news, repeats and contradictions --------------------------------------------------------------------------------------


def test_repeats_and_late_news_are_no_news() -> None:
    diary, plan = live(), place()
    state = diary.write(*sent(plan))
    fill, opened, filled = sold(plan, 40), OrderReported("p1-0", S.OPEN), OrderReported("p1-0", S.FILLED)
    for event in (opened, fill, filled):
        assert is_news(state, event)
        diary.write(event)
        assert not is_news(state, event)
    assert not is_news(state, opened)
    assert not is_news(state, OrderReported("nobody", S.OPEN))
    assert not is_news(state, OrderFilled(Fill("nobody", "cex", BOOK.id, "t", plan.sell, plan.buy, zero(CEX_USDT), 0)))
    assert is_news(state, OrderReported("p1-0", S.FILLED, venue_order_id="v1")), "its number at the venue is new"


@pytest.mark.parametrize("end", [S.CANCELLED, S.EXPIRED, S.REJECTED])
def test_a_late_fill_of_an_ended_order_is_booked(end: OrderState) -> None:
    diary, plan = live(), place()
    state = diary.write(*sent(plan), OrderReported("p1-0", end))
    assert is_news(state, sold(plan, 40))
    diary.write(sold(plan, 40))
    assert state.orders["p1-0"].state is (S.UNKNOWN if end is S.REJECTED else end), "refused and traded: ask"
    assert state.parents["p1"].filled == eth("4")
    diary.write(sold(plan, 60, "t2"))
    assert state.orders["p1-0"].state is S.FILLED, "what is complete is filled, whoever said what"
    assert state.working == {}


def test_a_filled_order_whose_fills_are_missing_still_holds_its_amount() -> None:
    diary, plan = live(), place()
    state = diary.write(*sent(plan), sold(plan, 30, "t1"), OrderReported("p1-0", S.FILLED))
    assert list(state.working) == ["p1-0"]
    assert state.remaining(state.parents["p1"]) == eth("10"), "or its missing part would be traded twice"
    assert state.unsettled("p1")
    diary.write(sold(plan, 70, "t2"))
    assert state.working == {}


def test_what_cannot_be_booked_is_named() -> None:
    diary, plan = live(), place()
    state = diary.write(*sent(plan), *sent(permit(), 0))
    fill = sold(plan).fill
    odd = [
        Fill("p1-0", "cex", BOOK.id, "t", fill.received, fill.paid, fill.fee, 0),
        Fill("p1-0", "amm", BOOK.id, "t", fill.paid, fill.received, fill.fee, 0),
        Fill("p1-0", "cex", BOOK.id, "t", -fill.paid, fill.received, fill.fee, 0),
        Fill("p1-2", "amm", POOL.id, "t", parse_amount("1", WETH), Amount(1, USDT), zero(USDT), 0),
    ]
    assert all(contradiction(state, OrderFilled(one)) for one in odd)
    assert contradiction(state, GasPaid("p1-2", "somebody", Amount(1, COIN), 1, "0x1"))
    assert contradiction(state, OrderFilled(fill)) == ""


def test_a_trade_of_nobody_is_strange_once_the_balance_is_ours() -> None:
    foreign = OrderFilled(Fill("hand", "cex", BOOK.id, "t", Amount(1, CEX_ETH), Amount(1, CEX_USDT), zero(CEX_USDT), 0))
    assert not is_strange(State(), foreign)
    assert is_strange(live().state, foreign)


def test_excess_is_seen_and_booked() -> None:
    diary, plan = live(), place()
    state = diary.write(*sent(plan), sold(plan, 100, "t1"))
    assert excess(state, "p1-0") == ""
    diary.write(sold(plan, 1, "t2"))
    assert "more than it may" in excess(state, "p1-0")
    assert state.ledger.balance(MAIN, "cex", CEX_ETH).units == 60 * 10**8 - plan.sell.units * 101 // 100


def test_a_parent_that_traded_too_much_is_seen() -> None:
    diary = live()
    first, second = place("p1-0", 150_000), place("p1-1", 150_000)
    state = diary.write(*sent(first), *sent(second), sold(first), sold(second, trade="t2"))
    assert "parent p1" in excess(state, "p1-1")


# -- nonces ----------------------------------------------------------------------------------------------------------------


def test_the_next_nonce_is_the_lowest_that_is_free() -> None:
    diary = live()
    state = diary.state
    assert state.next_nonce("amm", 4) == 4
    diary.write(OrderApproved(Approved(swap("a"), 4)))
    assert state.next_nonce("amm", 4) == 5, "an approval holds its number"
    diary.write(OrderSent("a"), *sent(swap("b"), 5), *sent(swap("c"), 6))
    assert state.next_nonce("amm", 4) == 7
    diary.write(OrderReported("b", S.REJECTED, "insufficient funds"))
    assert state.next_nonce("amm", 4) == 5, "one that was never accepted leaves no gap behind"
    diary.write(OrderReported("a", S.UNKNOWN, "no reply"))
    assert state.next_nonce("amm", 4) == 5, "one in doubt keeps its number"
    assert state.next_nonce("amm", 6) == 7, "what the chain has counted is gone"
    assert state.next_nonce("cex", 0) == 0


def test_an_approval_that_a_restart_cancelled_gives_its_nonce_back() -> None:
    diary = live()
    state = diary.write(OrderApproved(Approved(swap("a"), 0)), EngineStarted("r2", "v", "c"))
    assert state.next_nonce("amm", 0) == 0


# -- failures --------------------------------------------------------------------------------------------------------------


def test_failures_count_by_venue_and_a_fill_forgives_them() -> None:
    diary = live()
    for count in range(1, 4):
        name = f"p1-{count}"
        state = diary.write(*sent(place(name)), OrderReported(name, S.REJECTED, "no"))
        assert state.parents["p1"].failures == {"cex": count}
    diary.write(*sent(place("p1-9")), sold(place("p1-9")))
    assert diary.state.parents["p1"].failures == {}


# -- replay ----------------------------------------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 130)), max_size=60)


def play(steps: list[tuple[int, int, int]]) -> Diary:
    """A small driver: each step is something that could happen next, to one of the orders that exist."""
    diary = live()
    for kind, which, number in steps:
        names = list(diary.state.orders)
        order = diary.state.orders[names[which % len(names)]] if names else None
        name = f"o{len(names)}"
        on_chain = isinstance(getattr(order, "plan", None), SwapBatch | ApproveToken)
        match kind:
            case 0:
                diary.write(OrderApproved(Approved(place(name, number))))
            case 1:
                diary.write(OrderApproved(Approved(swap(name), diary.state.next_nonce("amm", 0))))
            case 2 if order and order.state is S.APPROVED:
                diary.write(OrderSent(order.order_id, "0x" + order.order_id if on_chain else "", b"raw" if on_chain else b""))
            case 3 | 4 if order and isinstance(order.plan, PlaceOrder | SwapBatch):
                diary.absorb(sold(order.plan, number, f"t{number % 7}"))
            case 5 if order and on_chain:
                diary.absorb(GasPaid(order.order_id, MAIN, Amount(number, COIN), number, order.tx_hash))
            case 6 | 7 if order:
                diary.absorb(OrderReported(order.order_id, list(OrderState)[number % len(OrderState)], "why", f"v{number}", number))
            case 8:
                diary.write(EngineStarted(f"r{number}", "v", "c"))
            case 9:
                diary.write(
                    Routed("p1", number, eth("1"), (), zero(ETH), (), ()), Halted("cex", "x") if number == 13 else Reconciled(1, ())
                )
            case _:
                pass
    return diary


@given(STEPS)
def test_replay_gives_the_same_state_bit_for_bit(steps: list[tuple[int, int, int]]) -> None:
    diary = play(steps)
    assert dump(replayed(diary.journal.rows)) == dump(diary.state)


@given(STEPS, STEPS)
def test_two_restarts_in_a_row_fold_the_same(first: list[tuple[int, int, int]], second: list[tuple[int, int, int]]) -> None:
    diary = play(first)
    diary.write(EngineStarted("again", "v", "c"), EngineStarted("and again", "v", "c"))
    for step in play(second).journal.read():
        event: Any = step.event
        if isinstance(event, OrderApproved) and event.approved.plan.order_id not in diary.state.orders:
            diary.write(event)
    assert dump(replayed(diary.journal.rows)) == dump(diary.state)
    assert not [order for order in replayed(diary.journal.rows).orders.values() if order.state is S.SENT]


@given(STEPS)
def test_sums_hold_whatever_happens(steps: list[tuple[int, int, int]]) -> None:
    """Postings sum to zero; what is promised is never below zero; the parent's sum is the sum of its children's."""
    state = play(steps).state
    assert not any(state.ledger.trial())
    assert state.promised(MAIN, "cex", CEX_ETH) >= 0
    assert state.promised(MAIN, "amm", WETH) >= 0
    total = sum(
        fill.paid.units * (10**10 if fill.paid.asset == CEX_ETH else 1) for order in state.orders.values() for fill in order.fills
    )
    assert state.parents["p1"].filled.units == total
    assert len({fill.key for order in state.orders.values() for fill in order.fills}) == len(state.fills)
