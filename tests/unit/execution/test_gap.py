"""Every unit between what was quoted and what was executed has exactly one name, and the names add up."""

from fractions import Fraction
from typing import Any, Literal

import pytest
from engine_kit import BOOK, CEX_ETH, CEX_USDT, COIN, ETH, POOL, START_NS, USDT, WETH
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, group_asset, parse_amount, rescale_up, zero
from agent.domain.events import RoutePiece, Surrounded
from agent.domain.instrument import PIPS
from agent.domain.order import Fill
from agent.domain.price import Price
from agent.execution.gap import PARTS, Gap, Money, add, bps, no_gap, order_gap
from agent.ledger.pnl import execution

QUOTE = group_asset("USDT")
RATES = {"ETH": Price(2_000, 1)}
SALE, PURCHASE = Money("sell", ETH, QUOTE, RATES), Money("buy", ETH, QUOTE, RATES)


def usdt(text: str) -> Amount:
    sign = -1 if text.startswith("-") else 1
    return Amount(sign * parse_amount(text.lstrip("-"), QUOTE).units, QUOTE)


def eth(text: str) -> Amount:
    return parse_amount(text, ETH)


def piece(name: str, base: str, quote: str, fee_pips: int = 0, gas: str = "0") -> RoutePiece:
    return RoutePiece(name, eth(base), usdt(quote), 1.0, 1.0, 1.0, fee_pips, usdt(gas), "cheapest")


def traded(side: Literal["sell", "buy"], name: str, base: str, quote: str, fee: str = "0", trade: str = "t1") -> Fill:
    """Of the book or of the pool; the fee is in what is received, as books take it."""
    mine, yours = (CEX_ETH, CEX_USDT) if name == BOOK.id else (WETH, USDT)
    eths, coins = parse_amount(base, mine), parse_amount(quote, yours)
    paid, received = (eths, coins) if side == "sell" else (coins, eths)
    return Fill("o", name.partition(":")[0], name, trade, paid, received, parse_amount(fee, received.asset), START_NS, "0xaa")


def whole(gap: Gap) -> dict[str, str]:
    """The parts in text, and they add up."""
    parts = [getattr(gap, name) for name in PARTS]
    assert gap.executed == sum(parts, start=gap.promised)
    return {name: str(getattr(gap, name)).removesuffix(" USDT") for name in ("promised", "executed", *PARTS)}


def test_a_sale_on_a_book_loses_to_the_market_to_a_thin_book_and_to_a_higher_fee() -> None:
    """10 ETH at 2,000 less 0.1 %; the market fell by 1, it traded 1.5 lower, and the fee was 0.2 %."""
    fills = [traded("sell", BOOK.id, "10", "19985", "39.97")]
    gap = order_gap(SALE, (piece(BOOK.id, "10", "19980", 1_000),), fills, (), is_book=True, mids=(Price(2_001, 1), Price(2_000, 1)))
    assert whole(gap) == {
        "promised": "19980", "executed": "19945.03", "drift": "-10", "fee": "-19.97", "gas": "0", "sandwich": "0", "rest": "-5",
    }  # fmt: skip
    assert bps(gap.drift, gap) == pytest.approx(-10 / 19_980 * 10_000)


def test_a_purchase_on_a_book_counts_the_fee_that_was_taken_in_base() -> None:
    """10 ETH for 20,000 and a fee of 1 % of the ETH: as routes count it, 20,000 / 0.99. The market rose by 2 and cost 15."""
    said = Amount(-(-usdt("20000").units * PIPS // (PIPS - 10_000)), QUOTE)
    piece_ = RoutePiece(BOOK.id, eth("10"), said, 1.0, 1.0, 1.0, 10_000, zero(QUOTE), "")
    fills = [traded("buy", BOOK.id, "10", "20015", "0.1")]
    gap = order_gap(PURCHASE, (piece_,), fills, (), is_book=True, mids=(Price(2_000, 1), Price(2_002, 1)))
    told = whole(gap)
    assert (told["drift"], told["gas"], told["sandwich"]) == ("-20", "0", "0")
    assert -gap.executed.units == usdt("20015").units - (-usdt("20015").units // 99), "the fee's worth is rounded up"
    assert gap.rest.units == pytest.approx(usdt("5").units, rel=1e-9), "5 better than the market moved"
    assert gap.fee.units == pytest.approx(-usdt("15").units / 99, rel=1e-6)


def test_without_marks_the_price_of_a_book_is_all_drift() -> None:
    gap = order_gap(SALE, (piece(BOOK.id, "10", "20000"),), [traded("sell", BOOK.id, "10", "19990")], (), is_book=True)
    assert whole(gap)["drift"] == "-10"
    assert whole(gap)["rest"] == "0"


def sandwich(less: str, more: str) -> Surrounded:
    return Surrounded("o", POOL.id, "0xaa", "0xbad", "0x1", "0x2", parse_amount(less, USDT), parse_amount(more, USDT), 7)


def test_a_sale_in_a_pool_loses_to_a_sandwich_and_to_gas() -> None:
    pieces, gas = (piece(POOL.id, "5", "10000", 500, "3"),), [parse_amount("0.002", COIN)]
    fills = [traded("sell", POOL.id, "5", "9960")]
    gap = order_gap(
        SALE, pieces, fills, gas, is_book=False, mids=(Price(2_000, 1), Price(3_000, 1)), sandwiches=[sandwich("30", "31")]
    )
    assert whole(gap) == {
        "promised": "9997", "executed": "9956", "drift": "-10", "fee": "0", "gas": "-1", "sandwich": "-30", "rest": "0",
    }  # fmt: skip


def test_a_purchase_in_a_pool_counts_what_the_sandwich_made_it_pay_more() -> None:
    gap = order_gap(
        PURCHASE, (piece(POOL.id, "5", "10000", 500, "3"),), [traded("buy", POOL.id, "5", "10040")],
        [parse_amount("0.0015", COIN)], is_book=False, sandwiches=[sandwich("30", "31")],
    )  # fmt: skip
    assert whole(gap) == {
        "promised": "-10003", "executed": "-10043", "drift": "-9", "fee": "0", "gas": "0", "sandwich": "-31", "rest": "0",
    }  # fmt: skip


def test_a_batch_that_reverted_promised_nothing_and_cost_its_gas() -> None:
    gap = order_gap(SALE, (piece(POOL.id, "5", "10000", 0, "3"),), (), [parse_amount("0.002", COIN)], is_book=False)
    assert whole(gap) == {
        "promised": "0", "executed": "-4", "drift": "0", "fee": "0", "gas": "-4", "sandwich": "0", "rest": "0",
    }  # fmt: skip
    assert bps(gap.gas, gap) is None


def test_what_was_filled_in_part_is_held_against_its_part_of_the_promise() -> None:
    gap = order_gap(SALE, (piece(BOOK.id, "10", "20000"),), [traded("sell", BOOK.id, "4", "8000")], (), is_book=True)
    assert whole(gap)["promised"] == "8000"
    assert str(gap.base) == "4 ETH"
    assert set(PARTS) == {name for name in PARTS if not getattr(gap, name)}


amounts = st.integers(1, 10**14)


@st.composite
def days(draw: Any) -> tuple[Money, tuple[RoutePiece, ...], list[Fill], list[Amount], dict[str, Any]]:
    """An order of any kind with fills, fees in either coin, gas, marks and sandwiches of any size."""
    side: Literal["sell", "buy"] = draw(st.sampled_from(["sell", "buy"]))
    is_book = draw(st.booleans())
    names, mine, yours = ([BOOK.id], CEX_ETH, CEX_USDT) if is_book else ([POOL.id, "amm:v3"], WETH, USDT)
    pieces = tuple(
        RoutePiece(
            name, Amount(draw(amounts) * 10**6, ETH), Amount(draw(amounts) * 10**8, QUOTE), 0.5, 1.0, 1.0,
            draw(st.integers(0, 10_000)), Amount(draw(amounts), QUOTE), "",
        )
        for name in names
    )  # fmt: skip
    fills = []
    for trade in range(draw(st.integers(0, 4))):
        eths, coins = Amount(draw(amounts), mine), Amount(draw(amounts), yours)
        paid, received = (eths, coins) if side == "sell" else (coins, eths)
        fee_coin = draw(st.sampled_from([mine, yours])) if is_book else yours
        fee = Amount(draw(st.integers(0, eths.units // 2 if fee_coin == mine else coins.units // 2)) if is_book else 0, fee_coin)
        fills.append(Fill("o", "v", draw(st.sampled_from(names)), f"t{trade}", paid, received, fee, START_NS))
    gas = [Amount(draw(amounts), COIN) for _ in range(draw(st.integers(0, 2)))]
    mids = draw(st.none() | st.tuples(*[st.builds(Price, st.integers(1, 10**9), st.integers(1, 10**6))] * 2))
    cost = [Amount(draw(amounts), USDT) for _ in range(draw(st.integers(0, 2)))]
    around = [] if is_book else [Surrounded("o", POOL.id, "0xaa", "0xbad", "0x1", "0x2", one, one) for one in cost]
    money = Money(side, ETH, QUOTE, RATES)
    return money, pieces, fills, gas, {"is_book": is_book, "mids": mids, "sandwiches": around}


@given(days())
def test_the_parts_add_up_to_the_last_unit_and_to_what_the_books_say(day: Any) -> None:
    money, pieces, fills, gas, rest = day
    gap = order_gap(money, pieces, fills, gas, **rest)
    whole(gap)
    sign = 1 if money.side == "sell" else -1
    base = sum(rescale_up(one.paid if sign == 1 else one.received, ETH).units for one in fills)
    assert gap.base.units == base
    promised = Fraction(0)
    for said in pieces:
        mine = [one for one in fills if one.instrument == said.instrument]
        sold = sum(rescale_up(one.paid if sign == 1 else one.received, ETH).units for one in mine)
        promised += sign * Fraction(said.quote.units * sold, said.base.units) - (said.gas.units if mine else 0)
    assert 0 <= promised - gap.promised.units < len(pieces), "rounded against us"
    if all(one.fee.asset.group == "USDT" for one in fills):
        done = execution(money.side, fills, gas, ETH, QUOTE, RATES)
        assert gap.executed.units == sign * done.quote_gross.units - done.fees.units - done.gas.units
    if not rest["is_book"]:
        assert gap.sandwich.units == -sum(rescale_up(one.paid_more, QUOTE).units for one in rest["sandwiches"])
        assert gap.fee.units == 0


@given(days(), days())
def test_the_gap_of_a_parent_is_the_sum_of_its_orders(one: Any, other: Any) -> None:
    first, second = (order_gap(money, *parts, **rest) for money, *parts, rest in (one, other))
    total = add(add(no_gap(SALE), first), second)
    whole(total)
    assert total.executed == first.executed + second.executed
    assert total.drift == first.drift + second.drift
