"""`isthmus venues` on a journal whose venue has just begun to fail: it is marked, with the reason, and the charge says what for."""

import time
from pathlib import Path

from cli_kit import isthmus

from agent.domain.amount import Amount, Asset
from agent.domain.events import EngineStarted, Event, OrderApproved, OrderReported, OrderSent
from agent.domain.order import OrderState
from agent.domain.plan import Approved, PlaceOrder
from agent.journal.sqlite import SqliteJournal

ETH, USDT = Asset("ETH", "binance", 8, "ETH"), Asset("USDT", "binance", 8, "USDT")


def refused(name: str) -> list[Event]:
    sell, buy = Amount(10**8, ETH), Amount(2_680 * 10**8, USDT)
    plan = PlaceOrder(name, "", "main", "binance", "binance:ETH/USDT", "sell", 268_000, 10_000, "IOC", sell, buy)
    told = OrderReported(name, OrderState.REJECTED, "-2010 insufficient [bold]balance[/]")
    return [OrderApproved(Approved(plan)), OrderSent(name), told]


def test_a_venue_that_rejects_is_marked_and_says_why(tmp_path: Path) -> None:
    assert isthmus("init", at=tmp_path).code == 0
    (tmp_path / ".isthmus").mkdir(mode=0o700)
    journal = SqliteJournal(tmp_path / ".isthmus" / "journal.sqlite")
    journal.append(time.time_ns(), [EngineStarted("r", "v", "c"), *refused("a"), *refused("b")])
    journal.close()
    text = isthmus("venues", at=tmp_path)
    assert text.code == 0, text
    assert "binance: avoided for" in text.out
    assert "it rejected an order: -2010 insufficient [bold]balance[/]" in " ".join(text.out.split()), (
        "a venue's words are no markup"
    )
    assert "rejects" in text.out
    card = isthmus("venues", "--json", at=tmp_path).json["venues"]["binance"]
    assert card["orders"] == 2
    assert card["rejected"]["mean"] == 1.0
    assert card["charge_pips"] == round(2 / 22 * 200)
    assert "tried again" in card["avoided"]
    settings = tmp_path / "isthmus.toml"
    settings.write_text(settings.read_text() + "\n[scorecard]\nis_charged = false\n")
    card = isthmus("venues", "--json", at=tmp_path).json["venues"]["binance"]
    assert (card["charge_pips"], card["avoided"], card["rejected"]["mean"]) == (0, "", 1.0), "measured, and not used"
