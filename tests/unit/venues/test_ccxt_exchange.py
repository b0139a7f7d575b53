"""The exchange adapter without a network: its settings, the words of Binance, and what a failure proves."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import ccxt.async_support as ccxt
import msgspec
import pytest
from pydantic import ValidationError

from agent.domain.amount import Amount, Asset, encode_hook
from agent.domain.errors import ConfigError, FrameError
from agent.domain.events import FillReversed, OrderAmended, OrderFilled, OrderReported
from agent.domain.instrument import Instrument
from agent.domain.market import BookDiff
from agent.domain.order import OrderRef, OrderState
from agent.venues import ccxt_exchange
from agent.venues.ccxt_exchange import binance_rest
from agent.venues.ccxt_exchange.binance_spot import BinanceSpot
from agent.venues.ccxt_exchange.client import _moved, _signer
from agent.venues.ccxt_exchange.own_orders import LIVE_MAX, OwnOrders
from agent.venues.ccxt_exchange.unified import _levels, _step, _units_down, _units_up

FOLDER = Path(__file__).resolve().parents[2] / "venues" / "ccxt_exchange"
ETH, USDT = Asset("ETH", "binance", 8, "ETH"), Asset("USDT", "binance", 8, "USDT")
MARKET = Instrument("binance", "ETH/USDT", ETH, USDT, 1000, 1_000_000, 10_000, 500_000_000)
CONTEXT = ccxt_exchange.Context("binance", {"ETHUSDT": MARKET}, {"ETH": "ETH", "USDT": "USDT"}, 1_763_719_200_000_000_000)
GOOD: dict[str, Any] = {"symbols": ["ETH/USDT"], "groups": {"ETH": "ETH"}}


def lines(name: str) -> list[str]:
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"symbols": []},
        {"symbols": ["ETHUSDT"]},
        {"symbols": ["ETH/USDT", "ETH/USDT"]},
        {"secret": "c29tZXNlY3JldA", "api_key": "k"},
        {"api_key": "k"},
        {"secret": "env:S"},
        {"ws_url": "ws://127.0.0.1:1"},
        {"recv_window_ms": 60_001},
        {"taker_fee_pips": -1},
        {"symbol": "ETH/USDT"},
        {"kind": "other"},
        {"dead_man_s": 30},
        {"dead_man_s": 30, "url": "http://127.0.0.1:1"},
        {"dead_man_s": 30, "dead_man_path": "/fapi/v1/countdownCancelAll"},
        {"dead_man_path": "/api/v3/openOrders"},
        {"max_single_order_queries_per_cycle": 0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ccxt_exchange.Config.model_validate(GOOD | change)


def test_settings_have_defaults_for_all_but_markets_and_groups() -> None:
    config = ccxt_exchange.Config.model_validate(GOOD)
    assert (config.kind, config.exchange, config.recv_window_ms) == ("ccxt_exchange", "binance", 5_000)


def test_every_address_moves_and_paths_stay() -> None:
    urls = {"a": "https://api.example.com/api/v3", "b": {"ws": "wss://stream.example.com:9443/ws"}}
    assert _moved(urls, "http://127.0.0.1:1", "ws://127.0.0.1:2") == {
        "a": "http://127.0.0.1:1/api/v3",
        "b": {"ws": "ws://127.0.0.1:2/ws"},
    }
    assert _moved(urls, "https://x.example", "wss://y.example")["b"]["ws"] == "wss://y.example/ws"


def test_the_key_signs_in_place_of_ccxt() -> None:
    class Key:
        key_id = "k"

        def hmac_sha256_hex(self, payload: bytes) -> str:
            return hmac.new(b"secret", payload, "sha256").hexdigest()

    sign, known = _signer(Key()), hmac.new(b"secret", b"a=1", "sha256").digest()
    assert sign(b"a=1", b"ignored", hashlib.sha256) == known.hex()
    assert sign(b"a=1", b"ignored", hashlib.sha256, "base64") == base64.b64encode(known).decode()
    assert sign(b"a=1", b"ignored", hashlib.sha256, "binary") == known
    with pytest.raises(ccxt.NotSupported):
        sign(b"a=1", b"ignored", hashlib.sha512)


# -- frames ------------------------------------------------------------------------------------------------------------


class Recorded(msgspec.Struct):
    frame: msgspec.Raw
    facts: list[dict[str, Any]]


@pytest.mark.parametrize("line", lines("frames.jsonl"), ids=range(len(lines("frames.jsonl"))))
def test_recorded_frames_give_the_recorded_facts(line: str) -> None:
    recorded = msgspec.json.decode(line, type=Recorded)
    facts = list(ccxt_exchange.parse(bytes(recorded.frame), CONTEXT))
    assert json.loads(msgspec.json.Encoder(enc_hook=encode_hook).encode(facts)) == recorded.facts


@pytest.mark.parametrize("line", lines("unknown.jsonl"), ids=range(len(lines("unknown.jsonl"))))
def test_what_is_not_understood_is_refused_before_any_fact(line: str) -> None:
    with pytest.raises(FrameError):
        ccxt_exchange.parse(line, CONTEXT)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"", b"null", b"[1]", b"[" * 100_000])
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    with pytest.raises(FrameError):
        ccxt_exchange.parse(raw, CONTEXT)


def report(**change: Any) -> str:
    event = {
        "e": "executionReport", "s": "ETHUSDT", "c": "o1", "C": "", "S": "BUY", "x": "TRADE", "X": "FILLED", "r": "NONE", "i": 7,
        "q": "0.10000000", "l": "0.10000000",
        "z": "0.10000000", "L": "2683.81000000", "n": "0.00010000", "N": "ETH", "t": 3, "T": 1763719200000,
    }  # fmt: skip
    return json.dumps({"subscriptionId": 0, "event": event | change})


def test_a_fee_in_a_third_coin_keeps_its_coin_and_no_fee_is_zero() -> None:
    filled, _ = ccxt_exchange.parse(report(n="0.00001234", N="BNB"), CONTEXT)
    assert isinstance(filled, OrderFilled)
    assert filled.fill.fee == Amount(1234, Asset("BNB", "binance", 8))
    free, _ = ccxt_exchange.parse(report(n="0", N=None), CONTEXT)
    assert isinstance(free, OrderFilled)
    assert free.fill.fee == Amount(0, ETH)


def test_values_finer_than_a_unit_round_against_us() -> None:
    fine = {"l": "0.00000003", "L": "0.50000000"}
    bought, _ = ccxt_exchange.parse(report(**fine), CONTEXT)
    sold, _ = ccxt_exchange.parse(report(S="SELL", **fine), CONTEXT)
    assert isinstance(bought, OrderFilled)
    assert isinstance(sold, OrderFilled)
    assert (bought.fill.paid, sold.fill.received) == (Amount(2, USDT), Amount(1, USDT))


def test_news_of_markets_that_are_not_traded_here_is_no_news() -> None:
    assert list(ccxt_exchange.parse(report(s="BTCUSDT"), CONTEXT)) == []


# -- what a failure proves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "text", "proof"),
    [
        (400, "-2010", "Account has insufficient balance for requested action.", True),
        (400, "-2010", "Duplicate order sent.", False),
        (400, "-4116", "ClientOrderId is duplicated.", False),
        (400, "-1013", "Filter failure: LOT_SIZE", True),
        (400, "-1021", "Timestamp for this request is outside of the recvWindow.", True),
        (400, "-2011", "Unknown order sent.", True),
        (401, "-2015", "Invalid API-key", True),
        (429, "", "", True),
        (418, "-1003", "banned", True),
        (504, "-1007", "Timeout waiting for response from backend server.", False),
        (503, "-1000", "Unknown error", False),
        (503, "-1008", "Server is currently overloaded", False),
        (500, "-2010", "whatever the code says", False),
        (400, "-1006", "An unexpected response was received from the message bus. Execution status unknown.", None),
        (400, "-1000", "", None),
        (400, "", "", None),
        (400, "x" * 30, "", None),
        (400, "-" + "9" * 500, "", None),
    ],
)
def test_only_definite_evidence_is_a_refusal(status: int, code: str, text: str, proof: bool | None) -> None:
    assert binance_rest.proves_refusal(status, code, text) is proof


# -- own orders --------------------------------------------------------------------------------------------------------


def test_own_orders_are_bounded_and_know_what_they_are_owed() -> None:
    own = OwnOrders()
    for number in range(LIVE_MAX + 5):
        own.departs(OrderRef(f"o{number}", "binance", MARKET.id), number)
    assert len(own.live()) == LIVE_MAX
    own.accepted("o1", 100)
    assert (own.silence(150, 100), own.silence(201, 100)) == ("", "o1")
    own.mentioned("o1")
    own.accepted("o1", 300)
    assert own.silence(900, 100) == ""
    own.departs(OrderRef("c1", "binance", MARKET.id), 7, "o9")
    assert (own.target("c1"), own.departed_ns("c1")) == ("o9", 7)
    own.stayed("c1")
    assert (own.target("c1"), own.departed_ns("c1")) == ("", 0)


def test_the_first_name_of_an_order_goes_on_whatever_the_exchange_calls_it() -> None:
    own = OwnOrders()
    own.learn([OrderRef("o1", "binance", MARKET.id, "7")], {MARKET.id: "ETHUSDT"})
    assert own.name("ETHUSDT", 7, "by-hand") == "o1"
    assert (own.spelled("o1"), own.original("by-hand")) == ("by-hand", "o1")
    assert (own.name("BTCUSDT", 7, "x"), own.name("BTCUSDT", 7, "y")) == ("x", "x")
    assert (own.spelled("o2"), own.original("o2")) == ("o2", "o2")


def test_fills_that_passed_on_and_are_not_listed_any_more_are_named() -> None:
    own = OwnOrders()
    facts = [*ccxt_exchange.parse(report(), CONTEXT), *ccxt_exchange.parse(report(t=4), CONTEXT)]
    keys = [fact.fill.key for fact in facts if isinstance(fact, OrderFilled)]
    own.note(facts, 100)
    assert own.vanished("o1", keys, 200) == ()
    assert own.vanished("o1", keys[:1], 200) == (keys[1],)
    assert own.vanished("o1", keys[:1], 100) == ()  # too fresh: the list may be behind
    own.note([FillReversed("o1", keys[1], "")], 150)
    assert own.vanished("o1", keys[:1], 200) == ()


# -- what a report says beside its fill --------------------------------------------------------------------------------


def test_a_trade_taken_back_and_a_changed_order_are_facts_of_their_own() -> None:
    filled, _ = ccxt_exchange.parse(report(), CONTEXT)
    assert isinstance(filled, OrderFilled)
    gone, after = ccxt_exchange.parse(report(x="TRADE_CANCEL", z="0"), CONTEXT)
    assert isinstance(gone, FillReversed)
    assert (gone.order_id, gone.key) == ("o1", filled.fill.key)
    assert isinstance(after, OrderReported)
    assert after.filled == Amount(0, ETH)
    change = {"x": "REPLACED", "X": "PARTIALLY_FILLED", "c": "new", "C": "o1", "q": "0.07", "z": "0.05", "t": -1}
    smaller, reported = ccxt_exchange.parse(report(**change), CONTEXT)
    assert smaller == OrderAmended("o1", Amount(7_000_000, ETH), 1763719200000, "the exchange changed the order")
    assert reported == OrderReported("o1", OrderState.PARTIAL, "", "7", filled=Amount(5_000_000, ETH))


def test_levels_between_two_ticks_are_left_out_and_sizes_round_down() -> None:
    pairs = [["2683.80", "0.00019"], ["2683.801", "1"], ["2683.81", "0.00001"]]
    frame = {"stream": "s", "data": {"e": "depthUpdate", "s": "ETHUSDT", "U": 1, "u": 2, "b": pairs, "a": []}}
    (diff,) = ccxt_exchange.parse(json.dumps(frame), CONTEXT)
    assert isinstance(diff, BookDiff)
    assert diff.bids == ((268_380, 1), (268_381, 0))


# -- other exchanges ---------------------------------------------------------------------------------------------------


def test_unified_numbers_are_read_exactly_and_rounded_by_name() -> None:
    assert (_units_down("1e-8", 8), _units_up("0.123456789", 8), _units_down("0.123456789", 8)) == (1, 12_345_679, 12_345_678)
    assert (_step("0.01", 4, "x"), _step("1e-5", 4, "x"), _step("3", 2, "x")) == ("0.01", "0.00001", "0.001")
    with pytest.raises(ConfigError):
        _step("5", 3, "x")


def test_unified_books_round_against_whoever_takes_them() -> None:
    bids = _levels([["100.019", "1.00019"], ["100.011", "2"]], MARKET, up=False)
    asks = _levels([["100.011", "1.00019"]], MARKET, up=True)
    assert bids == ((10_001, 10_001 + 20_000),)
    assert asks == ((10_002, 10_001),)


def test_the_venue_has_the_four_verbs() -> None:
    assert all(hasattr(BinanceSpot, verb) for verb in ("stream", "build", "send", "snapshot", "close"))
    assert OrderState.PARTIAL is binance_rest.state_of("PARTIALLY_FILLED")
