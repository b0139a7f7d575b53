"""The inbox: market data gives way, news of our orders never does."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import VenueError
from agent.domain.events import OrderReported
from agent.domain.market import BookDiff, BookSnapshot, TradePrint
from agent.domain.order import OrderState
from agent.market.book import Book
from agent.ports import VenueEvent
from agent.venues.ccxt_exchange.inbox import Inbox


def trade(number: int) -> TradePrint:
    return TradePrint("x:A/B", number, 1, False, number)


def report(number: int) -> OrderReported:
    return OrderReported(f"o{number}", OrderState.OPEN)


async def drained(inbox: Inbox) -> tuple[list[VenueEvent], str]:
    """What comes before the error, and the error."""
    seen: list[VenueEvent] = []
    inbox.fail(VenueError("the end"))
    try:
        async for event in inbox.events():
            seen += [event]
    except VenueError as error:
        return seen, str(error)
    raise AssertionError("the stream did not end with an error")


async def test_everything_comes_in_order_and_then_the_error() -> None:
    inbox = Inbox()
    assert inbox.market([trade(1)])
    inbox.private([report(1)])
    assert inbox.market([trade(2)])
    assert await drained(inbox) == ([trade(1), report(1), trade(2)], "the end")


async def test_when_the_reader_is_slow_market_data_is_dropped_and_orders_stay() -> None:
    inbox = Inbox(market_max=3)
    inbox.private([report(1)])
    assert [inbox.market([trade(n)]) for n in range(5)] == [True, True, True, False, True]
    inbox.private([report(2)])
    assert await drained(inbox) == ([report(1), trade(4), report(2)], "the end")


async def test_orders_beyond_the_bound_end_the_connection_but_are_delivered() -> None:
    inbox = Inbox(private_max=2)
    inbox.private([report(n) for n in range(3)])
    seen, reason = await drained(inbox)
    assert seen == [report(n) for n in range(3)]
    assert "too slow" in reason


async def test_a_reader_waits_and_the_first_error_counts() -> None:
    inbox = Inbox()
    waiting = asyncio.ensure_future(anext(inbox.events()))
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.fail(VenueError("first"))
    inbox.fail(VenueError("second"))
    with pytest.raises(VenueError, match="first"):
        await waiting


# -- behind ------------------------------------------------------------------------------------------------------------

BOOKS = ("x:A/B", "x:C/D")
WORDS = st.lists(
    st.tuples(
        st.sampled_from([*["diff"] * 12, "snapshot", "trade", "report", "gap"]),
        st.sampled_from(BOOKS),
        st.integers(1, 8),
        st.integers(0, 3),
    ),
    min_size=8,
    max_size=80,
)


def told(words: list[tuple[str, str, int, int]]) -> list[VenueEvent]:
    """A stream as an exchange tells it: each book's changes continue each other, unless there is a gap."""
    at = dict.fromkeys(BOOKS, 1)
    events: list[VenueEvent] = [BookSnapshot(name, 1, ((50, 5),), ((60, 5),), 0) for name in BOOKS]
    for number, (kind, name, ticks, lots) in enumerate(words):
        if kind == "trade":
            events.append(TradePrint(name, ticks, lots + 1, False, number))
        elif kind == "report":
            events.append(report(number))
        elif kind == "snapshot":
            at[name] += 1
            events.append(BookSnapshot(name, at[name], ((ticks, 1 + lots),), ((60 + ticks, 1 + lots),), number))
        else:
            first = at[name] + (5 if kind == "gap" else 1)
            at[name] = first + lots
            events.append(BookDiff(name, first, at[name], ((ticks, lots),), ((60 + ticks, lots),), number))
    return events


@given(WORDS, st.integers(0, 5))
async def test_behind_books_end_the_same_and_everything_else_comes_as_it_came(
    words: list[tuple[str, str, int, int]], behind: int
) -> None:
    events, inbox = told(words), Inbox(behind=behind)
    for event in events:
        if isinstance(event, OrderReported):
            inbox.private([event])
        else:
            assert inbox.market([event])
    seen, _ = await drained(inbox)
    for name in BOOKS:
        books = Book(), Book()
        for book, stream in zip(books, (events, seen), strict=True):
            for event in stream:
                if isinstance(event, BookDiff | BookSnapshot) and event.instrument == name:
                    book.apply(event)
        assert books[0].trouble == books[1].trouble
        if not books[0].trouble:
            assert (books[0].levels(100), books[0].seq) == (books[1].levels(100), books[1].seq)
    others = [[one for one in stream if not isinstance(one, BookDiff | BookSnapshot)] for stream in (events, seen)]
    assert others[0] == others[1], "no trade and no news of ours is lost, or comes in another order"
    place = {id(event): number for number, event in enumerate(events)}
    for before, after in pairwise(seen):  # what is merged stands where the newest of it stood
        if id(before) in place and id(after) in place:
            assert place[id(before)] < place[id(after)]


async def test_however_long_nobody_reads_the_queue_stays_short() -> None:
    inbox = Inbox(behind=8)
    for seq in range(1, 20_000):
        assert inbox.market([BookDiff(BOOKS[seq % 2], seq // 2 + 1, seq // 2 + 1, ((seq % 50, seq),), (), seq)])
        assert len(inbox._slots) <= 40
    seen, _ = await drained(inbox)
    assert len(seen) <= 10
