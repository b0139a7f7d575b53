"""The answers of the WebSocket API without a network: recorded frames, what they prove, what they count, and what is no answer."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from agent.domain.amount import Asset, encode_hook
from agent.domain.errors import FrameError
from agent.domain.instrument import Instrument
from agent.venues import ccxt_exchange
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange.binance_ws_orders import ORDERS, WEIGHT, read_answer, retry_s

RECORDED = Path(__file__).resolve().parents[2] / "venues" / "ccxt_exchange" / "answers.jsonl"
ETH, USDT = Asset("ETH", "binance", 8, "ETH"), Asset("USDT", "binance", 8, "USDT")
MARKET = Instrument("binance", "ETH/USDT", ETH, USDT, 1000, 1_000_000, 10_000, 500_000_000)
CONTEXT = ccxt_exchange.Context("binance", {"ETHUSDT": MARKET}, {"ETH": "ETH", "USDT": "USDT"}, 1_763_719_200_000_000_000)
LINES = RECORDED.read_text(encoding="utf-8").splitlines()
GOOD: dict[str, Any] = {"symbols": ["ETH/USDT"], "groups": {"ETH": "ETH"}}


class Recorded(msgspec.Struct):
    """`refused`: whether it proves that nothing was executed; None of a result. `used`: weight and orders that it counts."""

    frame: msgspec.Raw
    refused: bool | None
    used: tuple[int, int]
    retry_s: int
    facts: list[dict[str, Any]]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_recorded_answers_prove_what_was_recorded(line: str) -> None:
    recorded = msgspec.json.decode(line, type=Recorded)
    answer = read_answer(bytes(recorded.frame))
    used = {(one.rate_limit_type, one.interval, one.interval_num): one.count for one in answer.rate_limits}
    assert (used[WEIGHT], used[ORDERS]) == recorded.used
    assert retry_s(answer.error) == recorded.retry_s
    if answer.error is not None:
        refused = rest.proves_refusal(answer.status, str(answer.error["code"]), answer.error["msg"])
        assert (refused, answer.result) == (recorded.refused, None)
        return
    assert recorded.refused is None
    reply = answer.result.get("newOrderResponse", answer.result)
    view = rest.read(reply, rest.OrderView)
    facts = (*rest.fills_in_reply(view, view.told_id, CONTEXT), rest.order_report(view, view.told_id, CONTEXT))
    assert json.loads(msgspec.json.Encoder(enc_hook=encode_hook).encode(facts)) == recorded.facts


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\xff\xfe", b"null", b"[1]", b"7", b"{}x", b"[" * 100_000),
        *(b'{"id":1.5}', b'{"id":{}}', b'{"id":1,"status":"200"}', b'{"error":"no"}', b'{"event":7}', b'{"event":{}}'),
        *(b'{"rateLimits":7}', b'{"rateLimits":[{}]}', b'{"id":1,"id":'),
    ],
)
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(FrameError):
        read_answer(raw)


def test_an_answer_may_say_more_than_is_known() -> None:
    answer = read_answer('{"id":"x","status":200,"result":{"a":[1]},"news":1,"event":{"e":"serverShutdown","E":1}}')
    assert (answer.id, answer.status, answer.result, answer.rate_limits) == ("x", 200, {"a": [1]}, ())
    assert answer.event is not None
    assert answer.event.e == "serverShutdown"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (None, -1),
        ({"code": -1003}, -1),
        ({"data": 7}, -1),
        ({"data": {"retryAfter": 5}}, -1),
        ({"data": {"retryAfter": "5", "serverTime": 1}}, -1),
        ({"data": {"retryAfter": 1_001, "serverTime": 0}}, 2),
        ({"data": {"retryAfter": 1_000, "serverTime": 0}}, 1),
        ({"data": {"retryAfter": 0, "serverTime": 5_000}}, 0),
    ],
)
def test_how_long_the_exchange_wants_to_be_left_alone(error: dict[str, Any] | None, seconds: int) -> None:
    assert retry_s(error) == seconds


def test_only_binance_takes_orders_over_a_websocket() -> None:
    assert ccxt_exchange.Config.model_validate(GOOD).orders_over == "rest"
    assert ccxt_exchange.Config.model_validate(GOOD | {"orders_over": "websocket"}).orders_over == "websocket"
    with pytest.raises(ValidationError, match="is for binance alone; kraken takes orders through"):
        ccxt_exchange.Config.model_validate(GOOD | {"orders_over": "websocket", "exchange": "kraken"})
    with pytest.raises(ValidationError):
        ccxt_exchange.Config.model_validate(GOOD | {"orders_over": "fix"})
