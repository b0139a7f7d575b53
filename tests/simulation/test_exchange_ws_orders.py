"""Orders over the exchange's WebSocket API: the same facts as through REST, whatever the line does, and never one order twice.

The faults of the exchange itself are in `test_exchange_faults.py`, which runs over both ways.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from exchange_desk import SELL, SYMBOL, Desk, fills, has, listening, reports, started, states, trading
from ws_line import Line, line_to, unchanged

from agent import observe
from agent.cli.doctor_venues import _orders
from agent.domain.errors import OutcomeUnknown, VenueError
from agent.domain.order import OrderState
from agent.domain.plan import Approved
from agent.simulation.exchange import Exchange
from agent.venues.ccxt_exchange.binance_ws_orders import IN_FLIGHT_MAX, OrderLine

S = OrderState
ETH = 10**8
WEBSOCKET: dict[str, Any] = {"orders_over": "websocket"}
PATIENCE_S = 15


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    async with started() as one:
        yield one


@pytest.fixture
async def line(exchange: Exchange) -> AsyncIterator[Line]:
    async with line_to(exchange.ws_url) as one:
        yield one


@pytest.fixture
async def desk(exchange: Exchange, line: Line) -> AsyncIterator[Desk]:
    async with trading(exchange, ws_url=line.url, request_timeout_ms=1_000, **WEBSOCKET) as one:
        yield one


def order_line(desk: Desk) -> OrderLine:
    found: OrderLine = desk.venue._line  # type: ignore[attr-defined]
    return found


async def until(is_met: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_met():  # noqa: ASYNC110  # a connection has no event
            await asyncio.sleep(0.01)


def resting(exchange: Exchange) -> list[str]:
    return [order.client_id for _, order in exchange.venue.open_orders("alice")]


# -- the same as REST --------------------------------------------------------------------------------------------------


async def story(desk: Desk) -> list[list[Any]]:
    """Orders of every kind and what was proved about each; without what differs from one exchange to the next."""
    desk.rest(SELL, 268_000, 4_000)
    desk.rest(SELL, 268_001, 16_000)
    plans = [
        desk.place("taker", "buy", 268_001, 10_000),
        desk.place("rests", "buy", 260_000, 10_000, "GTC"),
        desk.place("instead", "buy", 260_100, 10_000, "GTC", replaces="rests"),
        desk.place("crosses", "buy", 268_001, 1_000, "POST"),
        desk.place("too-big", "buy", 268_000, 90_000_000),
        desk.place("part", "buy", 268_001, 20_000),
        desk.cancel("back", "instead"),
        desk.cancel("again", "instead"),
        desk.cancel("never", "no-such-order"),
        desk.place("too-late", "buy", 260_000, 10_000, "GTC", replaces="instead"),
    ]
    told = [await desk.send(plan) for plan in plans]
    return [[_timeless(fact) for fact in facts] for facts in told]


def _timeless(fact: Any) -> Any:
    fill = getattr(fact, "fill", None)
    return msgspec.structs.replace(fact, fill=msgspec.structs.replace(fill, at_ns=0)) if fill is not None else fact


async def test_both_ways_give_the_same_facts(exchange: Exchange, desk: Desk, line: Line) -> None:
    over_websocket = await story(desk)
    assert line.methods == ["order.place"] * 2 + ["order.cancelReplace"] + ["order.place"] * 3 + ["order.cancel"] * 3 + [
        "order.cancelReplace"
    ]
    async with started() as other, trading(other) as through_rest:
        assert await story(through_rest) == over_websocket
    assert [bool(facts) for facts in over_websocket] == [True] * len(over_websocket)
    assert fills(over_websocket[0])


async def test_the_exchange_s_count_of_orders_is_heard(desk: Desk) -> None:
    budget = order_line(desk)._client.budget
    budget.orders.used = budget.weight.used = 0
    for number in range(3):
        await desk.send(desk.place(f"o{number}", "buy", 260_000, 1_000, "GTC"))
    assert budget.orders.used == 3
    assert budget.weight.used >= 3  # ours, and what the exchange counted before
    spent = desk.exchange._wires.limits._weight[1]
    assert budget.weight.used == spent


async def test_limits_that_are_enforced_stop_us_for_as_long_as_the_exchange_says() -> None:
    async with started(enforce_limits=True) as exchange, trading(exchange, orders_per_10s=1_000, **WEBSOCKET) as desk:
        facts: list[Any] = []
        count = 0
        while not facts or facts[0].state is not S.REJECTED:
            facts = await desk.send(desk.place(f"o{count}", "buy", 260_000, 100, "GTC"))
            count += 1
        assert "-1015" in facts[0].reason
        _, until_ns = order_line(desk)._client.budget.stopped()
        assert 0 < until_ns - time.time_ns() <= 10 * 10**9


# -- no answer ---------------------------------------------------------------------------------------------------------


async def test_an_answer_that_is_lost_is_unknown_and_the_order_is_found(desk: Desk, line: Line) -> None:
    line.only(lambda _: [])
    with pytest.raises(OutcomeUnknown, match="o1: no answer in time"):
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    assert states(await desk.ask("o1"), "o1") == [S.OPEN]
    assert line.methods == ["order.place"]


def ignored() -> float:
    """How many answers were told as ignored so far."""
    return observe.registry.get_sample_value("isthmus_answer_ignored_total", {"venue": "binance"}) or 0.0


async def test_an_answer_that_comes_too_late_is_ignored(desk: Desk, exchange: Exchange) -> None:
    before = ignored()
    exchange.fault("slow_reply", on="place", delay_ms=1_300)
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    assert states(await desk.send(desk.place("o2", "buy", 260_100, 10_000, "GTC")), "o2") == [S.OPEN]
    await until(lambda: ignored() == before + 1)
    assert resting(exchange) == ["o1", "o2"]


async def test_a_line_on_which_nothing_is_heard_is_given_up_and_what_comes_next_takes_rest(
    exchange: Exchange, desk: Desk, line: Line
) -> None:
    await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    line.answers = lambda _: []
    with pytest.raises(OutcomeUnknown, match="no answer in time"):
        await desk.send(desk.place("o2", "buy", 260_100, 10_000, "GTC"))
    before = order_line(desk)._socket
    assert before is not None
    assert not order_line(desk).is_up
    assert states(await desk.send(desk.cancel("c1", "o1")), "o1") == [S.CANCELLED]
    assert line.methods == ["order.place"] * 2
    line.answers = unchanged
    await until(lambda: order_line(desk).is_up)
    assert before.closed
    assert states(await desk.send(desk.cancel("c2", "o2")), "o2") == [S.CANCELLED]
    assert line.methods == ["order.place"] * 2 + ["order.cancel"]


async def test_a_slow_answer_on_a_line_that_speaks_is_no_reason_to_give_it_up(exchange: Exchange, desk: Desk, line: Line) -> None:
    before = order_line(desk)._socket
    exchange.fault("slow_reply", on="place", delay_ms=1_300)
    slow = asyncio.create_task(desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC")))
    await until(lambda: resting(exchange) == ["o1"])
    await desk.send(desk.place("o2", "buy", 260_100, 10_000, "GTC"))
    with pytest.raises(OutcomeUnknown):
        await slow
    assert order_line(desk).is_up
    assert order_line(desk)._socket is before


async def test_a_connection_cut_after_the_write_leaves_all_that_was_under_way_in_doubt(
    exchange: Exchange, desk: Desk, line: Line
) -> None:
    exchange.fault("slow_reply", on="place", delay_ms=300, count=3)
    sends = [asyncio.create_task(desk.send(desk.place(f"o{n}", "buy", 260_000 + n, 10_000, "GTC"))) for n in range(3)]
    await until(lambda: len(resting(exchange)) == 3)
    for one in line.order_lines:
        assert one._req is not None
        assert one._req.transport is not None
        one._req.transport.abort()
    ends = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(end) for end in ends] == [OutcomeUnknown] * 3
    assert "the connection ended before the answer" in str(ends[0])
    assert [states(await desk.ask(f"o{n}"), f"o{n}") for n in range(3)] == [[S.OPEN]] * 3
    await until(lambda: order_line(desk).is_up)
    assert states(await desk.send(desk.place("o9", "buy", 260_900, 10_000, "GTC")), "o9") == [S.OPEN]
    assert line.methods == ["order.place"] * 4, "nothing left twice"


async def test_a_connection_cut_with_the_request_is_no_refusal(exchange: Exchange, desk: Desk, line: Line) -> None:
    line.is_cut_after_request = True
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    await until(lambda: resting(exchange) == ["o1"])


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_answer_of_5xx_leaves_the_outcome_open(desk: Desk, line: Line, status: int) -> None:
    def overloaded(text: str) -> list[str]:
        answer = json.loads(text)
        del answer["result"]
        return [json.dumps(answer | {"status": status, "error": {"code": -2010, "msg": "whatever the code says"}})]

    line.only(overloaded)
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    assert states(await desk.ask("o1"), "o1") == [S.OPEN]


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer | {"result": None},
        lambda answer: answer | {"result": {"orderId": "seven"}},
        lambda answer: answer | {"result": answer["result"] | {"clientOrderId": "another"}},
        lambda answer: answer | {"result": answer["result"] | {"status": "SUSPENDED"}},
        lambda answer: answer | {"status": 202},
        lambda answer: answer | {"status": 400, "result": None},
        lambda answer: answer | {"status": 400, "error": {"code": "x", "msg": 7}},
    ],
)
async def test_an_answer_that_cannot_be_read_leaves_the_outcome_open(
    desk: Desk, line: Line, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    line.only(lambda text: [json.dumps(change(json.loads(text)))])
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    assert states(await desk.ask("o1"), "o1") == [S.OPEN]


@pytest.mark.parametrize("frame", ["", "nonsense", "[]", "{}x", '{"id":1.5}', '{"id":1,"rateLimits":7}', "[" * 5_000])
async def test_a_frame_that_is_no_answer_ends_the_connection_which_comes_back(desk: Desk, line: Line, frame: str) -> None:
    line.only(lambda text: [frame, text])
    with pytest.raises(OutcomeUnknown):
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    assert states(await desk.ask("o1"), "o1") == [S.OPEN]
    await until(lambda: order_line(desk).is_up)


async def test_answers_that_come_twice_or_to_nobody_change_nothing(desk: Desk, exchange: Exchange, line: Line) -> None:
    def more(text: str) -> list[str]:
        answer = json.loads(text)
        strangers = [json.dumps(answer | {"id": name}) for name in (None, "1", 0, -1, 10**6, 2**62)]
        return [*strangers, text, text, *strangers]

    line.answers, before = more, ignored()
    for number in range(3):
        told = await desk.send(desk.place(f"o{number}", "buy", 260_000, 10_000, "GTC"))
        assert states(told, f"o{number}") == [S.OPEN]
    await until(lambda: ignored() == before + 3 * 13)
    assert resting(exchange) == ["o0", "o1", "o2"]


async def test_answers_in_another_order_find_who_asked(desk: Desk, line: Line) -> None:
    held: list[str] = []

    def backwards(text: str) -> list[str]:
        held.append(text)
        return held[::-1] if len(held) == 3 else []

    line.answers = backwards
    plans = [desk.place(f"o{n}", "buy", 260_000, 10_000, "GTC") for n in range(3)]
    told = await asyncio.gather(*(desk.send(plan) for plan in plans))
    assert [states(facts, f"o{n}") for n, facts in enumerate(told)] == [[S.OPEN]] * 3


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_duplicate_id_is_no_refusal(exchange: Exchange, line: Line) -> None:
    credentials = exchange.add_key("alice")
    async with trading(exchange, credentials) as first:
        await first.send(first.place("o1", "buy", 260_000, 10_000, "GTC"))
    async with trading(exchange, credentials, ws_url=line.url, **WEBSOCKET) as again:  # a key that has forgotten
        with pytest.raises(OutcomeUnknown, match="Duplicate order sent"):
            await again.send(again.place("o1", "buy", 260_000, 10_000, "GTC"))
        assert states(await again.ask("o1"), "o1") == [S.OPEN]
    assert line.methods == ["order.place"]


async def test_a_clock_that_was_set_is_measured_after_the_first_refusal(exchange: Exchange, desk: Desk) -> None:
    exchange.fault("clock_offset", offset_ms=60_000)
    (refused,) = await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    assert (refused.state, refused.reason[:5]) == (S.REJECTED, "-1021")
    assert states(await desk.send(desk.place("o2", "buy", 260_000, 10_000, "GTC")), "o2") == [S.OPEN]


async def test_what_the_account_cannot_pay_is_refused(desk: Desk) -> None:
    (refused,) = await desk.send(desk.place("o1", "buy", 268_000, 90_000_000))
    assert (refused.state, refused.reason) == (S.REJECTED, "-2010 Account has insufficient balance for requested action.")


async def test_an_order_that_the_key_did_not_approve_is_not_sent(desk: Desk, line: Line) -> None:
    signed = await desk.key.sign(desk.venue.build(_approved(desk)))
    assert isinstance(signed.request.fields, tuple)
    dearer = tuple((name, "9999" if name == "price" else text) for name, text in signed.request.fields)
    with pytest.raises(VenueError, match="nothing was sent"):
        await desk.venue.send(msgspec.structs.replace(signed, request=msgspec.structs.replace(signed.request, fields=dearer)))
    assert line.methods == []
    assert states(list(await desk.venue.send(signed)), "o1") == [S.OPEN]
    with pytest.raises(VenueError, match="was sent before"):
        await desk.venue.send(signed)
    assert line.methods == ["order.place"]


def _approved(desk: Desk) -> Any:
    return Approved(desk.place("o1", "buy", 260_000, 10_000, "GTC"))


async def test_the_doctor_says_which_way_orders_take(exchange: Exchange, desk: Desk, line: Line) -> None:
    assert [(one.name, one.level) for one in _orders("binance", desk.venue)] == [("binance orders", "ok")]
    line.is_refusing = True
    async with trading(exchange, ws_url=line.url, **WEBSOCKET) as other:
        assert [(one.level, one.text) for one in _orders("binance", other.venue)] == [
            ("warn", "the WebSocket API cannot be reached, so orders take REST")
        ]
    async with trading(exchange) as plain:
        assert _orders("binance", plain.venue) == []


# -- up and down -------------------------------------------------------------------------------------------------------


async def test_a_line_that_is_down_leaves_orders_to_rest_until_it_is_back(exchange: Exchange, line: Line) -> None:
    line.is_refusing = True
    async with trading(exchange, ws_url=line.url, **WEBSOCKET) as desk:
        assert not order_line(desk).is_up
        assert states(await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC")), "o1") == [S.OPEN]
        assert line.methods == []
        line.is_refusing = False
        await until(lambda: order_line(desk).is_up)
        assert states(await desk.send(desk.place("o2", "buy", 260_000, 10_000, "GTC")), "o2") == [S.OPEN]
        assert line.methods == ["order.place"]


async def test_an_exchange_that_hangs_up_while_nothing_is_under_way_is_called_again(desk: Desk, line: Line) -> None:
    await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    before = order_line(desk)._socket
    await line.hang_up()
    await until(lambda: order_line(desk)._socket not in (before, None))
    assert states(await desk.send(desk.cancel("c1", "o1")), "o1") == [S.CANCELLED]
    assert line.methods == ["order.place", "order.cancel"]


async def test_an_announced_end_lets_what_is_under_way_finish_and_takes_nothing_new(
    exchange: Exchange, desk: Desk, line: Line
) -> None:
    await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
    before = order_line(desk)._socket
    exchange.fault("slow_reply", on="place", delay_ms=200)
    slow = asyncio.create_task(desk.send(desk.place("o2", "buy", 260_000, 10_000, "GTC")))
    await until(lambda: len(line.methods) == 2)
    await line.say({"event": {"e": "serverShutdown", "E": 1}})
    await until(lambda: not order_line(desk).is_up)
    assert states(await desk.send(desk.place("o3", "buy", 260_000, 10_000, "GTC")), "o3") == [S.OPEN]
    assert len(line.methods) == 2, "it took REST"
    assert states(await slow, "o2") == [S.OPEN]
    await until(lambda: order_line(desk).is_up)
    assert order_line(desk)._socket is not before


async def test_no_more_than_so_many_wait_on_one_line(desk: Desk) -> None:
    one = order_line(desk)
    loop = asyncio.get_running_loop()
    one._waiting.update({-1 - number: loop.create_future() for number in range(IN_FLIGHT_MAX)})
    assert not one.is_up
    one._waiting.clear()
    assert one.is_up


async def test_closing_the_venue_ends_who_waits(exchange: Exchange) -> None:
    async with trading(exchange, **WEBSOCKET) as desk:
        exchange.fault("slow_reply", on="place", delay_ms=5_000)
        send = asyncio.create_task(desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC")))
        await until(lambda: resting(exchange) == ["o1"])
    with pytest.raises(OutcomeUnknown):
        await send
    with pytest.raises((OutcomeUnknown, aiohttp.ClientError, RuntimeError)):
        await desk.send(desk.place("o2", "buy", 260_000, 10_000, "GTC"))


# -- beside the private stream -----------------------------------------------------------------------------------------


async def test_an_answer_after_the_fill_on_the_private_stream_tells_the_same_fill(exchange: Exchange, desk: Desk) -> None:
    desk.rest(SELL, 268_000, 10_000)
    exchange.fault("slow_reply", on="place", delay_ms=300)
    async with listening(desk.venue) as listener:
        send = asyncio.create_task(desk.send(desk.place("o1", "buy", 268_000, 10_000)))
        seen = await listener.until(has("o1", S.FILLED))
        assert not send.done()
        replied = await send
        assert reports(replied, "o1") == [(S.FILLED, ETH)]
        assert [one.key for one in fills(replied, "o1")] == [one.key for one in fills(seen, "o1")]
        assert fills(replied, "o1") == fills(seen, "o1")


async def test_the_loss_of_the_order_line_is_no_loss_of_the_streams(exchange: Exchange, desk: Desk, line: Line) -> None:
    desk.rest(SELL, 268_000, 20_000)
    async with listening(desk.venue) as listener:
        await desk.send(desk.place("o1", "buy", 260_000, 10_000, "GTC"))
        await line.hang_up()
        await until(lambda: order_line(desk).is_up)
        await desk.send(desk.place("o2", "buy", 268_000, 10_000))
        await listener.until(has("o2", S.FILLED))
        assert listener.error is None
    assert exchange.venue.rules[SYMBOL].status == "TRADING"
