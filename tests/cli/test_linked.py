"""Orders that are paused and amended while they run, that wait for a price, and that belong together, as a user meets them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import isthmus, started, variant

pytestmark = pytest.mark.xdist_group("commands")

PAIR = "ETH/USDT"
SOON = ("--slippage-bps", "60", "--json")


@pytest.fixture(scope="module")
def desk(box: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with settings for the sandbox, where an agent runs."""
    home = variant(box, tmp_path_factory.mktemp("linked")).parent
    agent = started("run", at=home)
    assert agent.stdout is not None
    try:
        while "serving the desk" not in (text := agent.stdout.readline()):
            assert text, "the agent left"
        yield home
    finally:
        agent.send_signal(signal.SIGTERM)
        out, err = agent.communicate(timeout=30)
    assert agent.returncode == 0, out + err


def test_an_order_that_runs_is_paused_amended_and_goes_on(desk: Path) -> None:
    long = ("order", "submit", PAIR, "--side", "sell", "--qty", "8", "--slices", "8", "--every", "1m", "--detach", "--json")
    name = isthmus(*long, at=desk).json["parent"]["intent_id"]
    for _ in range(200):  # the first of its slices
        if isthmus("order", "show", name, "--json", at=desk).json["parent"]["filled"]["amount"] != "0":
            break
    assert isthmus("order", "pause", name, "--json", at=desk).json == {"status": "PAUSED", "intent_id": name}
    amended = isthmus("order", "amend", name, "--qty", "7.5", "--within", "30m", "--limit", "1", "--json", at=desk)
    assert amended.json["intent"]["quantity"]["amount"] == "7.5", amended
    refused = isthmus("order", "amend", name, "--qty", "0.0001", at=desk)
    assert (refused.code, "at least" in refused.err) == (3, True), refused
    assert isthmus("order", "continue", name, "--json", at=desk).json == {"status": "LIVE", "intent_id": name}
    assert isthmus("order", "cancel", name, "--json", at=desk).json["status"] == "CANCELLED"


def test_a_bracket_waits_and_is_moved(desk: Path) -> None:
    pair = ("order", "bracket", PAIR, "--side", "buy", "--qty", "1", "--take-profit", "9000", *SOON)
    wrong = isthmus(*pair, "--stop-loss", "8999", at=desk)
    assert (wrong.code, "TRIGGER_REACHED: 8999 is not below" in wrong.out) == (3, True), wrong
    sent = isthmus(*pair, "--stop-loss", "100", "--detach", at=desk)
    assert sent.code == 0, sent
    _, take, stop = (one["parent"]["intent_id"] for one in sent.json["orders"])
    moved = isthmus("order", "amend", stop, "--stop", "150", "--json", at=desk)
    assert float(moved.json["intent"]["trigger"]["price"]) == 150, moved
    shown = isthmus("order", "show", stop, "--json", at=desk).json
    assert (shown["status"], "for the market to fall to 150 (mid)" in shown["parent"]["reason"]) == ("WAITING", True)
    for name in (take, stop):
        assert isthmus("order", "cancel", name, "--json", at=desk).json["status"] == "CANCELLED"


def test_two_exits_expire_together_and_a_trailing_stop_follows(desk: Path) -> None:
    two = ("order", "oco", PAIR, "--side", "sell", "--qty", "1", "--take-profit", "9000", "--trail", "500bps")
    expired = isthmus(*two, "--within", "4s", "--strategy", "pair", "--json", at=desk)
    assert [one["status"] for one in expired.json["orders"]] == ["EXPIRED", "EXPIRED"], expired
    assert expired.code == 4, expired
    waiting = ("order", "submit", PAIR, "--side", "sell", "--qty", "1", "--trail", "500bps", "--strategy", "trail", "--detach")
    dry = isthmus(*waiting[:-1], *SOON, "--dry-run", at=desk).json
    assert (dry["status"], [one["decision"] for one in dry["orders"]][:1]) == ("DRY_RUN", ["APPROVED"]), "as if it fired now"
    name = isthmus(*waiting, *SOON, at=desk).json["parent"]["intent_id"]
    assert "for the market to fall to" in isthmus("order", "show", name, at=desk).out
    assert isthmus("order", "cancel", name, "--json", at=desk).json["status"] == "CANCELLED"


def test_a_bracket_buys_and_sells_once(desk: Path) -> None:
    """Over the exchange and the pools: a stop one basis point behind the best price fires soon."""
    pair = ("order", "bracket", PAIR, "--side", "buy", "--qty", "1", "--take-profit", "9000", "--trail", "1bps", *SOON)
    done = isthmus(*pair, "--strategy", "both", at=desk)
    assert done.code == 0, done
    assert [one["status"] for one in done.json["orders"]] == ["FILLED", "CANCELLED", "FILLED"]
    bought, _, sold = (float(one["parent"]["filled"]["amount"]) for one in done.json["orders"])
    assert 0.99 < sold <= bought <= 1
    assert done.json["breaks"] == []
