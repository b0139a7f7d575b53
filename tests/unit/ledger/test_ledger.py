"""Law 8: postings sum to zero per asset, whatever happens, and the same events always give the same books."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, Asset, group_asset, zero
from agent.domain.errors import LedgerError
from agent.domain.events import BalanceAdopted, GasPaid, OrderFilled
from agent.domain.order import Fill, Order, OrderState
from agent.domain.plan import PlaceOrder
from agent.domain.price import Price
from agent.ledger.pnl import execution
from agent.ledger.positions import Ledger
from agent.ledger.posting import GAS, Booked, Posting, balanced, counter, entry

ETH = Asset("ETH", "binance", 18, "ETH")
USDT = Asset("USDT", "binance", 8, "USDT")
BNB = Asset("BNB", "binance", 8, "BNB")
GAS_COIN = Asset("ETH", "eip155:1", 18, "ETH")
BASE, QUOTE = group_asset("ETH"), group_asset("USDT")


def plan(order_id: str = "o1", account: str = "main") -> PlaceOrder:
    return PlaceOrder(
        order_id, "i1", account, "binance", "binance:ETHUSDT", "sell", 1, 1, "IOC", Amount(10**18, ETH), Amount(10**8, USDT)
    )


def fill(paid: Amount, received: Amount, fee: Amount, trade_id: str = "t1", order_id: str = "o1") -> OrderFilled:
    return OrderFilled(Fill(order_id, "binance", "binance:ETHUSDT", trade_id, paid, received, fee, 1))


ASSETS = st.sampled_from([ETH, USDT, BNB])
WORTH = st.integers(0, 10**30)
FILLS = st.builds(
    fill,
    st.builds(Amount, WORTH, ASSETS),
    st.builds(Amount, WORTH, ASSETS),
    st.builds(Amount, st.integers(-(10**20), 10**20), ASSETS),
)
GASES = st.builds(lambda units: GasPaid("o1", "main", Amount(units, GAS_COIN), 21_000, "0x"), WORTH)
ADOPTED = st.builds(lambda amount: BalanceAdopted("main", "binance", amount, "opening"), st.builds(Amount, st.integers(), ASSETS))


@given(st.lists(st.one_of(FILLS, GASES, ADOPTED), max_size=30))
def test_the_books_always_sum_to_zero_and_replay_equal(events: list[Booked]) -> None:
    first, second = Ledger(), Ledger()
    for ledger in (first, second):
        for event in events:
            ledger.post(entry(event, plan()))
    assert not any(first.trial())
    assert first.lines() == second.lines()


@given(st.lists(FILLS, max_size=20))
def test_the_wallet_moves_by_exactly_what_the_fills_say(events: list[OrderFilled]) -> None:
    ledger = Ledger()
    for event in events:
        ledger.post(entry(event, plan()))
    for asset in (ETH, USDT, BNB):
        expected = 0
        for fact in (event.fill for event in events):
            moves = ((fact.received, 1), (fact.paid, -1), (fact.fee, -1))
            expected += sum(sign * amount.units for amount, sign in moves if amount.asset == asset)
        assert ledger.balance("main", "binance", asset).units == expected


def test_a_fill_with_its_fee() -> None:
    ledger = Ledger()
    order = Order(plan(), OrderState.OPEN, 0)
    ledger.post(entry(fill(Amount(10**18, ETH), Amount(3_000, USDT), Amount(3, USDT)), order))
    assert [(account, str(amount)) for account, _, amount in ledger.lines()] == [
        ("main", "-1 ETH@binance"),
        ("main", "0.00002997 USDT@binance"),
        ("main:fees", "0.00000003 USDT@binance"),
        ("main:market", "1 ETH@binance"),
        ("main:market", "-0.00003 USDT@binance"),
    ]
    assert [account for account, _, _ in ledger.balances()] == ["main", "main"]


def test_gas_lies_where_the_order_was() -> None:
    ledger = Ledger()
    ledger.post(entry(GasPaid("o1", "main", Amount(7, GAS_COIN), 21_000, "0x"), plan()))
    assert ledger.balance("main", "binance", GAS_COIN).units == -7
    assert ledger.balance(counter("main", GAS), "binance", GAS_COIN).units == 7
    assert ledger.balance("nobody", "nowhere", ETH) == zero(ETH)


@pytest.mark.parametrize(
    ("event", "of", "message"),
    [
        (fill(Amount(-1, ETH), zero(USDT), zero(USDT)), plan(), "negative"),
        (fill(Amount(1, ETH), Amount(-1, USDT), zero(USDT)), plan(), "negative"),
        (fill(Amount(1, ETH), zero(USDT), zero(USDT)), plan("o2"), "asked of order o2"),
        (fill(Amount(1, ETH), zero(USDT), zero(USDT)), None, "not known"),
        (GasPaid("o1", "other", Amount(1, GAS_COIN), 1, "0x"), plan(), "of account other"),
    ],
)
def test_what_does_not_belong_is_not_booked(event: Booked, of: PlaceOrder | None, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        entry(event, of)


def test_an_entry_that_does_not_sum_to_zero_changes_nothing() -> None:
    ledger = Ledger()
    good = Posting("main", "binance", Amount(5, ETH))
    for postings in (
        [good],
        [good, Posting("main:market", "binance", Amount(-4, ETH))],
        [good, Posting("x", "y", Amount(-5, GAS_COIN))],
    ):
        with pytest.raises(LedgerError, match="without a counter-entry"):
            ledger.post(postings)
        with pytest.raises(LedgerError):
            balanced(postings)
    assert ledger.lines() == ()


# -- what it really cost -----------------------------------------------------------------------------------------------


def test_selling_all_in() -> None:
    fills = [fill(Amount(2 * 10**18, ETH), Amount(6_000 * 10**8, USDT), Amount(6 * 10**8, USDT)).fill]
    result = execution("sell", fills, [Amount(10**15, GAS_COIN)], BASE, QUOTE, {"ETH": Price(3_000, 1)})
    assert (str(result.base), str(result.quote_gross), str(result.fees), str(result.gas)) == (
        "2 ETH",
        "6000 USDT",
        "6 USDT",
        "3 USDT",
    )
    assert result.price_all_in == Price(5_991, 2)


def test_buying_all_in_with_a_fee_in_base() -> None:
    fills = [fill(Amount(3_000 * 10**8, USDT), Amount(10**18, ETH), Amount(10**15, ETH)).fill]
    result = execution("buy", fills, [], BASE, QUOTE, {})
    assert str(result.base) == "0.999 ETH"
    assert result.price_all_in == Price(3_000_000, 999)


def test_a_fee_in_a_third_coin_needs_its_price_and_rounds_up() -> None:
    fills = [fill(Amount(3_000 * 10**8, USDT), Amount(10**18, ETH), Amount(1, BNB)).fill]
    with pytest.raises(LedgerError, match="no price of BNB"):
        execution("buy", fills, [], BASE, QUOTE, {})
    assert execution("buy", fills, [], BASE, QUOTE, {"BNB": Price(1, 3)}).fees.units == -(-(10**10) // 3)


def test_nothing_filled_has_no_price() -> None:
    assert execution("sell", [], [], BASE, QUOTE, {}).price_all_in is None
    dust = [fill(Amount(1, ETH), Amount(1, USDT), zero(USDT)).fill]
    assert execution("sell", dust, [Amount(10**18, GAS_COIN)], BASE, QUOTE, {"ETH": Price(3_000, 1)}).price_all_in is None
