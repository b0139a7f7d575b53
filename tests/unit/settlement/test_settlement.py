"""Every difference between the journal and the world is found, and its cause is named as far as it can be known."""

from collections.abc import Sequence

import pytest

from agent.domain.amount import Amount, Asset
from agent.domain.events import BalanceAdopted, Break, GasPaid, OrderFilled, OrderReported
from agent.domain.order import Fill, Order, OrderState
from agent.domain.plan import ApproveToken, PlaceOrder, Plan, SwapBatch, SwapLeg
from agent.ledger.positions import Ledger
from agent.ledger.posting import entry
from agent.ports import PrivateFact, Snapshot
from agent.settlement.finality import finality
from agent.settlement.reconcile import checked, compare

S = OrderState
ETH, USDT = Asset("ETH", "binance", 18, "ETH"), Asset("USDT", "binance", 8, "USDT")
NATIVE = Asset("ETH", "eip155:1", 18, "ETH")
WETH = Asset("WETH", "eip155:1", 18, "ETH", "0x" + "c0" * 20)
COIN = Asset("USDT", "eip155:1", 6, "USDT", "0x" + "da" * 20)


def book_plan(order_id: str = "o1", units: int = 100) -> PlaceOrder:
    return PlaceOrder(
        order_id, "i", "main", "binance", "binance:ETHUSDT", "sell", 1, 1, "GTC", Amount(units, ETH), Amount(3 * units, USDT)
    )


def swap_plan(order_id: str = "s1") -> SwapBatch:
    leg = SwapLeg("uniswap:pool", Amount(100, WETH), Amount(300, COIN), "sell")
    return SwapBatch(
        order_id, "i", "main", "uniswap", 1, "sell", (leg,), leg.sell, leg.buy, 0, 9, gas_limit=10, gas_fee_max=5, gas_tip=1
    )


def a_fill(order_id: str = "o1", trade_id: str = "t1", venue: str = "binance") -> Fill:
    base, quote = (ETH, USDT) if venue == "binance" else (WETH, COIN)
    return Fill(order_id, venue, f"{venue}:x", trade_id, Amount(100, base), Amount(300, quote), Amount(1, quote), 5)


def books(*balances: Amount, place: str = "binance") -> Ledger:
    ledger = Ledger()
    for amount in balances:
        ledger.post(entry(BalanceAdopted("main", place, amount, "opening")))
    return ledger


def shot(
    *balances: Amount, facts: Sequence[PrivateFact] = (), resting: Sequence[str] = (), venue: str = "binance", at_ns: int = 0
) -> Snapshot:
    return Snapshot(venue, "main", balances, tuple(resting), tuple(facts), at_ns=at_ns)


def order(plan: Plan, state: OrderState, *fills: Fill, sent_ns: int = 1, gas: Amount | None = None) -> Order:
    return Order(plan, state, 0, sent_ns=sent_ns, fills=list(fills), gas_paid={"0x1": gas} if gas else {})


def breaks(ledger: Ledger, seen: Snapshot, *orders: Order) -> tuple[Break, ...]:
    return compare(ledger, [seen], {one.order_id: one for one in orders})


def cause(ledger: Ledger, seen: Snapshot, *orders: Order) -> str:
    (one,) = breaks(ledger, seen, *orders)
    return one.cause


def test_equal_books_have_no_breaks() -> None:
    ledger = books(Amount(5, ETH), Amount(7, USDT))
    assert breaks(ledger, shot(Amount(7, USDT), Amount(5, ETH))) == ()
    assert breaks(ledger, shot(Amount(7, USDT), Amount(5, ETH), Amount(0, WETH))) == ()
    assert checked(ledger, [shot(Amount(7, USDT), Amount(1, WETH))]) == 3


def test_places_and_accounts_are_held_apart() -> None:
    ledger = books(Amount(5, ETH))
    assert compare(ledger, [], {}) == ()
    assert breaks(ledger, Snapshot("kraken", "main", (), (), ())) == ()
    assert breaks(ledger, Snapshot("binance", "other", (), (), ())) == ()


@pytest.mark.parametrize(
    ("outside", "text"), [(9, "more outside (a deposit"), (1, "less outside (a withdrawal"), (0, "less outside")]
)
def test_a_deposit_or_withdrawal_that_nobody_explains(outside: int, text: str) -> None:
    seen = shot(Amount(outside, ETH)) if outside else shot()
    (one,) = breaks(books(Amount(5, ETH)), seen)
    assert (one.account, one.venue, one.asset) == ("main", "binance", "ETH@binance")
    assert (one.journal, one.outside) == (Amount(5, ETH), Amount(outside, ETH))
    assert one.cause.startswith("unexplained: ")
    assert text in one.cause


def test_coins_that_the_journal_never_saw_are_a_break() -> None:
    (one,) = breaks(Ledger(), shot(Amount(1, USDT)))
    assert (one.journal.units, one.outside.units) == (0, 1)


@pytest.mark.parametrize("state", [S.SENT, S.UNKNOWN])
def test_an_order_in_doubt_explains_both_of_its_assets(state: OrderState) -> None:
    ledger = books(Amount(100, ETH))
    found = breaks(ledger, shot(Amount(310, USDT)), order(book_plan(), state))
    assert [one.cause for one in found] == [f"in doubt: order o1 ({state})"] * 2


def test_an_order_in_doubt_does_not_explain_more_than_its_limit() -> None:
    assert cause(books(Amount(500, ETH)), shot(Amount(300, ETH)), order(book_plan(), S.UNKNOWN)) == (
        "unexplained: 0.0000000000000002 ETH@binance less outside (a withdrawal, a charge, or a trade by hand);"
        " in doubt: order o1 (UNKNOWN) explains a part at most"
    )
    assert cause(books(), shot(Amount(1, ETH)), order(book_plan(), S.UNKNOWN)).startswith("unexplained")
    assert cause(books(Amount(1, NATIVE)), shot(), order(book_plan(), S.UNKNOWN)).startswith("unexplained")


def test_a_fill_that_the_venue_told_and_we_did_not_book() -> None:
    ledger = books(Amount(100, ETH))
    seen = shot(Amount(299, USDT), facts=[OrderFilled(a_fill()), OrderFilled(a_fill())])
    found = breaks(ledger, seen, order(book_plan(), S.FILLED))
    assert [one.cause for one in found] == ["fill missing: t1 of order o1"] * 2
    booked = order(book_plan(), S.FILLED, a_fill())
    assert "unexplained" in cause(ledger, shot(facts=[OrderFilled(a_fill())]), booked)
    assert "unexplained" in cause(ledger, shot(facts=[OrderFilled(a_fill("stranger"))]))


def test_a_fill_missing_that_explains_only_a_part() -> None:
    found = breaks(
        books(Amount(200, ETH)),
        shot(Amount(50, ETH), Amount(299, USDT), facts=[OrderFilled(a_fill())]),
        order(book_plan(), S.CANCELLED),
    )
    text = found[0].cause
    assert text.startswith("fill missing: t1 of order o1; unexplained: ")
    assert found[1].cause == "fill missing: t1 of order o1"


def test_an_order_that_ended_without_all_its_fills() -> None:
    assert cause(books(Amount(100, ETH)), shot(), order(book_plan(), S.FILLED)) == "fill missing: order o1 (FILLED)"
    found = breaks(
        books(Amount(100, WETH), place="uniswap"),
        shot(Amount(300, COIN), venue="uniswap"),
        order(swap_plan(), S.MINED, gas=Amount(1, NATIVE)),
    )
    assert [one.cause for one in found] == ["fill missing: order s1 (MINED)"] * 2


def test_a_resting_order_may_have_filled_a_moment_ago() -> None:
    assert cause(books(Amount(100, ETH)), shot(Amount(60, ETH), resting=["o1"]), order(book_plan(), S.OPEN)) == (
        "a fill may be on its way: order o1 (OPEN)"
    )


@pytest.mark.parametrize("state", [S.MINED, S.REVERTED, S.FINAL])
def test_gas_that_is_not_booked(state: OrderState) -> None:
    ledger = books(Amount(100, NATIVE), place="uniswap")
    done = order(swap_plan(), state, a_fill("s1", venue="uniswap"))
    assert cause(ledger, shot(Amount(60, NATIVE), venue="uniswap"), done) == f"gas is not booked: order s1 ({state})"
    assert cause(ledger, shot(Amount(40, NATIVE), venue="uniswap"), done).startswith("unexplained")
    assert cause(ledger, shot(Amount(200, NATIVE), venue="uniswap"), done).startswith("unexplained")
    paid = order(swap_plan(), state, a_fill("s1", venue="uniswap"), gas=Amount(3, NATIVE))
    assert cause(ledger, shot(Amount(60, NATIVE), venue="uniswap"), paid).startswith("unexplained")


def test_gas_that_the_chain_told() -> None:
    ledger = books(Amount(100, NATIVE), place="uniswap")
    seen = shot(Amount(58, NATIVE), facts=[GasPaid("s1", "main", Amount(42, NATIVE), 8, "0x1")], venue="uniswap")
    assert cause(ledger, seen, order(swap_plan(), S.REVERTED)) == "gas of order s1 is not booked"


def test_an_order_resting_there_that_we_do_not_know() -> None:
    (one,) = breaks(books(), shot(resting=["stranger"]))
    assert (one.asset, one.journal.units, one.outside.units) == ("order:stranger", 0, 1)
    assert "does not know it" in one.cause


@pytest.mark.parametrize(
    ("state", "is_break"), [(S.FILLED, True), (S.CANCELLED, True), (S.APPROVED, True), (S.OPEN, False), (S.UNKNOWN, False)]
)
def test_an_order_resting_there_that_is_something_else_here(state: OrderState, is_break: bool) -> None:
    found = breaks(books(), shot(resting=["o1"]), order(book_plan(), state))
    assert [one.cause for one in found] == ([f"rests at the venue, but here it is {state}"] if is_break else [])


def test_an_order_open_here_that_the_venue_does_not_hold() -> None:
    (one,) = breaks(books(), shot(), order(book_plan(), S.OPEN))
    assert (one.asset, one.journal.units, one.outside.units) == ("order:o1", 1, 0)
    assert one.cause == "is open here, the venue does not hold it"
    told = shot(facts=[OrderReported("o1", S.CANCELLED)])
    assert cause(books(), told, order(book_plan(), S.OPEN)) == "is open here, the venue says CANCELLED"
    assert breaks(books(), shot(at_ns=100), order(book_plan(), S.OPEN, sent_ns=101)) == ()


@pytest.mark.parametrize(
    ("state", "on_chain"),
    [
        (S.APPROVED, "reported"),
        (S.SENT, "mempool"),
        (S.UNKNOWN, "mempool"),
        (S.OPEN, "mempool"),
        (S.MINED, "block"),
        (S.REVERTED, "block"),
        (S.FINAL, "final"),
        (S.REJECTED, "reported"),
    ],
)
def test_finality(state: OrderState, on_chain: str) -> None:
    approve = ApproveToken("a", "i", "main", "uniswap", 1, Amount(1, COIN), "0x", 1, 1, 1)
    assert finality(order(swap_plan(), state)) == finality(order(approve, state)) == on_chain
    assert finality(order(book_plan(), state)) == "reported"


def test_what_stands_in_a_block_is_as_sure_as_the_block_also_where_nothing_traded() -> None:
    for state in (S.CANCELLED, S.REVERTED):
        ended = order(swap_plan(), state)
        assert finality(ended) == ("block" if state is S.REVERTED else "reported")
        ended.block = 7
        assert finality(ended) == "block"
        ended.is_final = True
        assert finality(ended) == "final"
