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


def naive(stream: list) -> list[tuple[int, int, int, int]]:
    """The rules once more, without any structure: search all orders for the best, the oldest first."""
    resting: list[Order] = []
    tape = []
    for number, step in enumerate((s for s in stream if not isinstance(s, int)), 1):
        order = make(number, *step[:6])
        sign = 1 if order.side == BUY else -1

        def can_take(other: Order, order: Order = order, sign: int = sign) -> bool:
            is_good = order.kind == "MARKET" or (order.price_ticks - other.price_ticks) * sign >= 0
            return other.side != order.side and is_good

        takable = sorted((o for o in resting if can_take(o)), key=lambda o: (o.price_ticks * sign, o.id))
        if (order.kind == "LIMIT_MAKER" and takable) or (
            order.time_in_force == "FOK" and sum(o.open_lots for o in takable) < order.size_lots
        ):
            continue
        for maker in takable:
            lots = min(order.open_lots, maker.open_lots)
            if lots:
                tape.append((maker.price_ticks, lots, order.id, maker.id))
                order.filled_lots += lots
                maker.filled_lots += lots
        resting = [o for o in resting if o.open_lots]
        if order.open_lots and order.kind != "MARKET" and order.time_in_force == "GTC":
            resting.append(order)
    return tape


@given(STREAMS)
def test_the_tape_is_that_of_a_naive_engine(stream: list) -> None:
    orders = [(*step[:6], "NONE") for step in stream if not isinstance(step, int)]
    got = [(m.price_ticks, m.size_lots, m.taker.id, m.maker.id) for m in run(orders)[2]]
    assert got == naive(orders)


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


def test_fill_or_kill_counts_everything_up_to_its_limit() -> None:
    for limit, filled in ((101, 8), (100, 0)):
        book = Book()
        book.submit(make(1, SELL, 100, 5))
        book.submit(make(2, SELL, 101, 5))
        order = make(3, BUY, limit, 8, tif="FOK")
        book.submit(order)
        assert order.filled_lots == filled
        assert order.status == ("FILLED" if filled else "EXPIRED")
