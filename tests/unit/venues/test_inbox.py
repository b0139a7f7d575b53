"""The inbox: market data gives way, news of our orders never does."""

import asyncio

import pytest

from agent.domain.errors import VenueError
from agent.domain.events import OrderReported
from agent.domain.market import TradePrint
from agent.domain.order import OrderState
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
