"""The matching engine: price-time priority, conservation of lots, all-or-nothing orders, self-trade prevention."""

import itertools
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from agent.simulation.exchange.matching import BUY, SELL, Book, Kind, Match, Order, Prevention, TimeInForce

PRICES = st.integers(95, 105)
LOTS = st.integers(1, 20)
ORDERS = st.tuples(
    st.integers(BUY, SELL),
    PRICES,
    LOTS,
    st.sampled_from(["LIMIT", "LIMIT", "LIMIT", "MARKET", "LIMIT_MAKER"]),
    st.sampled_from(["GTC", "GTC", "IOC", "FOK"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["NONE", "NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"]),
)
CANCELS = st.integers(1, 60)
STREAMS = st.lists(ORDERS | CANCELS, max_size=60)


def make(
    number: int,
    side: int,
    price: int,
    lots: int,
    kind: Kind = "LIMIT",
    tif: TimeInForce = "GTC",
    account: str = "a",
    prevention: Prevention = "NONE",
) -> Order:
    return Order(
        id=number,
        account=account,
        client_id="",
        side=side,
        price_ticks=price,
        size_lots=lots,
        kind=kind,
        time_in_force="GTC" if kind == "LIMIT_MAKER" else tif,
        prevention=prevention,
    )


def run(stream: list) -> tuple[Book, list[Order], list[Match], list[Order]]:
    book, orders, matches, prevented = Book(), [], [], []
    for step in stream:
        if isinstance(step, int):
            book.cancel(step)
            continue
        order = make(len(orders) + 1, *step)
        orders.append(order)
        asks_before = book.best(SELL)
        bids_before = book.best(BUY)
        got, removed = book.submit(order)
        matches += got
        prevented += removed
        check_priority(order, got, bids_before, asks_before)
        check_terminal(order, got)
        bid, ask = book.best(BUY), book.best(SELL)
        assert bid is None or ask is None or bid[0] < ask[0], "the book is never crossed"
    return book, orders, matches, prevented


def check_priority(order: Order, matches: list[Match], bid: tuple | None, ask: tuple | None) -> None:
    prices = [match.price_ticks for match in matches]
    assert prices == sorted(prices, reverse=order.side == SELL), "better prices first"
    for earlier, later in itertools.pairwise(matches):
        if earlier.price_ticks == later.price_ticks:
            assert earlier.maker.id < later.maker.id, "the older order first"
    best = ask if order.side == BUY else bid
    if matches:
        assert best is not None
        if order.kind != "MARKET":
            worst = max(prices) if order.side == BUY else min(prices)
            assert worst <= order.price_ticks if order.side == BUY else worst >= order.price_ticks


def check_terminal(order: Order, matches: list[Match]) -> None:
    traded = sum(match.size_lots for match in matches)
    assert traded == order.filled_lots
    if order.time_in_force == "FOK" and order.kind != "LIMIT_MAKER":
        assert traded in (0, order.size_lots), "all or nothing"
    if order.kind == "LIMIT_MAKER":
        assert not traded
    if matches:
        assert matches[-1].taker_filled_lots == traded
        assert matches[-1].taker_value == sum(m.size_lots * m.price_ticks for m in matches)


@given(STREAMS)
def test_lots_are_conserved_and_the_book_is_what_rests(stream: list) -> None:
    book, orders, matches, _ = run(stream)
    filled: dict[int, int] = defaultdict(int)
    for match in matches:
        filled[match.taker.id] += match.size_lots
        filled[match.maker.id] += match.size_lots
    assert all(order.filled_lots == filled[order.id] <= order.size_lots for order in orders)
    assert [match.trade_id for match in matches] == list(range(1, len(matches) + 1))
    resting: dict[tuple[int, int], int] = defaultdict(int)
    for order in book.orders.values():
        assert order.status in ("NEW", "PARTIALLY_FILLED")
        resting[order.side, order.price_ticks] += order.open_lots
    shown = {(side, price): lots for side in (BUY, SELL) for price, lots in book.depth(side, 1000)}
    assert shown == dict(resting)
    for order in orders:
        assert (order.id in book.orders) == (order.status in ("NEW", "PARTIALLY_FILLED"))


@given(STREAMS)
def test_diffs_rebuild_the_book_without_a_gap(stream: list) -> None:
    book, copy, last_id = Book(), ({}, {}), 0
    for number, step in enumerate(stream, 1):
        if isinstance(step, int):
            book.cancel(step)
        else:
            book.submit(make(number, *step))
        if number % 3:
            continue
        diff = book.take_diff()
        if diff is None:
            continue
        assert diff.first_update_id == last_id + 1
        last_id = diff.last_update_id
        for side, rows in ((BUY, diff.bids), (SELL, diff.asks)):
            for price, lots in rows:
                copy[side][price] = lots
        for side in (BUY, SELL):
            assert {p: lots for p, lots in copy[side].items() if lots} == dict(book.depth(side, 1000))


@given(STREAMS)
def test_no_account_trades_with_itself_under_prevention(stream: list) -> None:
    _, _, matches, prevented = run(stream)
    assert all(m.taker.account != m.maker.account or m.taker.prevention == "NONE" for m in matches)
    assert all(order.status == "EXPIRED_IN_MATCH" for order in prevented)


@given(STREAMS)
def test_the_same_orders_give_the_same_tape(stream: list) -> None:
    tapes = [[(m.trade_id, m.price_ticks, m.size_lots, m.taker.id, m.maker.id) for m in run(stream)[2]] for _ in (1, 2)]
    assert tapes[0] == tapes[1]


def test_reduce_keeps_the_place_in_the_queue() -> None:
    book = Book()
    for number in (1, 2):
        book.submit(make(number, SELL, 100, 10))
    book.reduce(1, 4)
    matches, _ = book.submit(make(3, BUY, 100, 7))
    assert [(m.maker.id, m.size_lots) for m in matches] == [(1, 6), (2, 1)]
    book.reduce(2, 100)
    assert book.best(SELL) is None


def test_expire_taker_stops_at_its_own_order() -> None:
    book = Book()
    book.submit(make(1, SELL, 100, 5, account="b"))
    book.submit(make(2, SELL, 101, 5, account="a"))
    taker = make(3, BUY, 102, 10, account="a", prevention="EXPIRE_TAKER")
    matches, removed = book.submit(taker)
    assert (len(matches), removed, taker.status, taker.filled_lots) == (1, [], "EXPIRED_IN_MATCH", 5)
    assert book.best(SELL) == (101, 5)


def test_sweeps_say_what_a_market_order_would_take() -> None:
    book = Book()
    book.submit(make(1, SELL, 100, 5))
    book.submit(make(2, SELL, 110, 5))
    assert book.sweep(BUY, 7) == (7, 720)
    assert book.sweep(BUY, 70) == (10, 1050)
    assert book.sweep_value(BUY, 729) == (7, 720)
    assert book.sweep_value(BUY, 99) == (0, 0)
