"""What is told never holds a secret, every event is told, and telling never gets in the way."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import observe
from agent.domain.amount import Amount, Asset
from agent.domain.errors import ConfigError
from agent.domain.events import (
    AttemptApproved,
    BalanceAdopted,
    Break,
    EngineStarted,
    EngineStopped,
    Event,
    FillReversed,
    GasPaid,
    Halted,
    IntentAccepted,
    IntentAmended,
    IntentCancelled,
    IntentContinued,
    IntentEnded,
    IntentPaused,
    IntentRefused,
    IntentTrailed,
    IntentTriggered,
    Marked,
    NonceAdopted,
    OrderAmended,
    OrderApproved,
    OrderClaimed,
    OrderFilled,
    OrderRefused,
    OrderReorged,
    OrderReported,
    OrderSent,
    Reconciled,
    Record,
    Resumed,
    Routed,
    RouteExplained,
    RoutePiece,
    Surrounded,
    VenueConnected,
    VenueDisconnected,
    VenueStatus,
    WholeQuoted,
)
from agent.domain.intent import Intent
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, Reason
from agent.domain.price import Price
from agent.observe.records import recorded

ETH = Asset("ETH", "binance", 18, "ETH")
ONE = Amount(10**18, ETH)
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"  # a well-known test key; a canary here
PLAN = CancelOrder("o1", "i1", "main", "binance", "binance:ETHUSDT", "o0")
PLACE = PlaceOrder("o2", "", "main", "binance", "binance:ETHUSDT", "sell", 1, 1, "GTC", ONE, ONE)
INTENT = Intent("i1", "main", "twap", "sell", ONE, "USDT", 50, 10)
PIECE = RoutePiece("binance:ETHUSDT", ONE, ONE, 1.0, 1.0, 1.0, 0, ONE, "cheapest")
EVENTS: list[tuple[Event, str]] = [
    (OrderReported("o1", OrderState.OPEN), "order_reported"),
    (OrderReported("o1", OrderState.UNKNOWN, "timed out"), "order_unknown"),
    (OrderFilled(Fill("o1", "binance", "binance:ETHUSDT", "7", ONE, ONE, ONE, 1)), "order_filled"),
    (FillReversed("o1", "k", "bust"), "fill_reversed"),
    (OrderAmended("o1", ONE, 2, "self-trade"), "order_amended"),
    (OrderReorged("o1", "0x1", 7), "order_reorged"),
    (AttemptApproved(Approved(PLAN, 3, 1), "outbid"), "attempt_approved"),
    (OrderClaimed(PLACE, "9", "by hand"), "order_claimed"),
    (NonceAdopted("binance", 3, "first sight"), "nonce_adopted"),
    (VenueStatus("binance", "CANCEL_ONLY", "418"), "venue_status"),
    (GasPaid("o1", "main", ONE, 21_000, "0x" + KEY), "gas_paid"),
    (Surrounded("o1", "uniswap:v3", "0x1", "0x2", "0x3", "0x4", ONE, ONE), "surrounded"),
    (VenueConnected("binance"), "venue_connected"),
    (VenueDisconnected("binance", "reset"), "venue_disconnected"),
    (EngineStarted("r1", "0.1.0", KEY), "engine_started"),
    (EngineStopped("asked"), "engine_stopped"),
    (BalanceAdopted("main", "binance", ONE, "opening"), "balance_adopted"),
    (IntentAccepted(INTENT, Price(3_000, 1)), "intent_accepted"),
    (IntentRefused(INTENT, (Reason("size", "too large"),)), "intent_refused"),
    (IntentCancelled("i1"), "intent_cancelled"),
    (IntentPaused("i1"), "intent_paused"),
    (IntentContinued("i1"), "intent_continued"),
    (IntentAmended(INTENT), "intent_amended"),
    (IntentTriggered("i1", Price(3_000, 1), Price(3_001, 1)), "intent_triggered"),
    (IntentTrailed("i1", Price(3_000, 1)), "intent_trailed"),
    (IntentEnded("i1", "FILLED", ""), "intent_ended"),
    (Routed("i1", 0, ONE, (PIECE,), ONE, (), ()), "routed"),
    (RouteExplained("i1", 0, ("it pays best",), (), ()), "route_explained"),
    (WholeQuoted("i1", Amount(1, ETH), Amount(2, ETH)), "whole_quoted"),
    (Marked("o1", 10**9, Price(3_000, 1)), "marked"),
    (OrderApproved(Approved(PLAN)), "order_approved"),
    (OrderRefused(PLAN, (Reason("halted", "binance is halted"),)), "risk_refused"),
    (OrderSent("o1", "0x" + KEY, bytes.fromhex(KEY)), "order_sent"),
    (Reconciled(3, ()), "reconciled"),
    (Halted("binance", "a break"), "halted"),
    (Resumed("binance", "a deposit"), "resumed"),
]


@pytest.fixture(autouse=True)
def _back_to_stderr() -> Iterator[None]:
    yield
    observe.open_log()


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(("event", "name"), EVENTS, ids=[name for _, name in EVENTS])
def test_every_event_is_told_and_counted(event: Event, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = total(name)
    recorded(Record(1, 1, event, "00"))
    (line,) = lines(capsys.readouterr().err)
    assert line["event"] == name
    assert line["timestamp"]
    assert total(name) == before + 1


def total(name: str) -> float:
    family = next(family for family in observe.registry.collect() if family.name == f"isthmus_{name}")
    return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))


def test_hashes_are_told_whole_and_amounts_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    observe.gas_paid("o1", ONE, 21_000, "0x" + KEY)
    (line,) = lines(capsys.readouterr().err)
    assert line["tx_hash"] == "0x" + KEY
    assert line["amount"] == "1 ETH@binance"


class Secret:
    """As `agent.keys` has it: its text must never be asked for."""

    def __str__(self) -> str:
        return KEY

    __repr__ = __str__


class SecretText(str):
    """A secret that passes for text."""

    __slots__ = ()


@pytest.mark.parametrize(
    "told",
    [
        {"reason": f"bad key {KEY}"},
        {"reason": f"bad key 0x{KEY.upper()}!"},
        {"reason": f"raw 0x{KEY * 3}"},
        {"tx_hash": f"{KEY} {KEY}"},
        {"tx_hash": KEY + KEY},
        {"reason": "x" * 480 + KEY},
        {"value": Secret()},
        {"value": SecretText(KEY)},
        {"value": bytes.fromhex(KEY)},
        {"value": KEY.encode()},
        {"value": int(KEY, 16)},
        {"value": [{"deep": (Secret(), KEY)}]},
        {"api_key": KEY[:20]},
        {"Signature": KEY[:20]},
        {"value": {"password": KEY[:20]}},
        {"reason": f"cannot reach https://eth.example/v3/{KEY[:32]}?x=1 now"},
        {"reason": f"cannot reach wss://user:{KEY[:20]}@eth.example/ now"},
        {"reason": f"-----BEGIN PRIVATE KEY-----\n{'MC4CAQAwBQYDK2VwBCIEI' + KEY[:43]}\n-----END PRIVATE KEY-----"},
    ],
)
def test_a_canary_is_never_told(told: dict[str, object]) -> None:
    text = json.dumps(observe.redact(told)).lower()
    for canary in (KEY[:20], KEY[-20:], str(int(KEY, 16))[:20]):
        assert canary not in text


def test_a_canary_in_any_told_reason(capsys: pytest.CaptureFixture[str]) -> None:
    for tell in (observe.engine_failed, observe.engine_stopping, observe.journal_stopped):
        tell(f"SignerError: {KEY}")
    observe.venue_disconnected("binance", f"https://rpc.example/{KEY[:32]} gave up")
    observe.break_found(Break("main", "binance", "ETH@binance", ONE, ONE, KEY))
    observe.query_failed("binance", KEY)
    observe.frame_refused("binance", KEY)
    observe.answer_ignored("binance", KEY)
    observe.order_line_lost("binance", KEY)
    observe.client_cut_off("c1", KEY)
    told = capsys.readouterr().err
    assert len(lines(told)) == 10
    assert KEY[:20] not in told
    assert "rpc.example/<redacted> gave up" in told


def test_plain_values_stay_as_they_are() -> None:
    fields = {"a": 1, "b": None, "c": True, "d": "o1", "e": [1, "x"], "url": "http://127.0.0.1:8545", "big": 2**60}
    assert observe.redact(fields) == {**fields, "big": str(2**60)}


def test_a_log_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    observe.open_log(tmp_path / "agent.log", "warning")
    observe.venue_connected("binance")
    observe.venue_disconnected("binance", "reset")
    assert [line["event"] for line in lines((tmp_path / "agent.log").read_text())] == ["venue_disconnected"]
    assert stat.S_IMODE((tmp_path / "agent.log").stat().st_mode) == 0o600
    for path, level in ((tmp_path / "no" / "folder", "info"), (None, "loud")):
        with pytest.raises(ConfigError):
            observe.open_log(path, level)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_does_not_stop_the_telling() -> None:
    lost = observe.registry.get_sample_value("isthmus_log_lines_lost_total")
    assert lost is not None
    observe.open_log(Path("/dev/full"))
    observe.engine_stopping("x")
    assert observe.registry.get_sample_value("isthmus_log_lines_lost_total") == lost + 1


def test_the_metrics_are_prometheus_text() -> None:
    observe.risk_refused(PLAN, [Reason("halted", "binance is halted")])
    assert b'isthmus_risk_refused_total{code="halted",venue="binance"}' in observe.metrics_text()
