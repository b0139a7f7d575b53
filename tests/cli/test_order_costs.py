"""Before and after an order, on a sandbox: the preview, the analysis, its page, and many orders put together."""

from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cli_kit import isthmus, variant

from agent.execution.tca import PARTS

pytestmark = pytest.mark.xdist_group("commands")

SALE = ("ETH/USDT", "--side", "sell", "--qty", "6")


@pytest.fixture(scope="module")
def desk(box: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return variant(box, tmp_path_factory.mktemp("tca")).parent


@pytest.fixture(scope="module")
def sold(desk: Path) -> str:
    """An order in three slices, three seconds apart."""
    done = isthmus("order", "submit", *SALE, "--slices", "3", "--every", "3s", "--slippage-bps", "300", "--json", at=desk)
    assert done.code == 0, done
    return str(done.json["parent"]["intent_id"])


def amount(told: Any) -> Decimal:
    return Decimal(told["amount"])


@pytest.mark.chain
def test_the_analysis_of_a_real_order(desk: Path, sold: str) -> None:
    found = isthmus("order", "tca", sold, "--json", at=desk).json
    cost = found["shortfall"]
    assert sum(amount(cost[name]) for name in PARTS) == amount(cost["total"])
    assert amount(cost["spread"]) >= 0, "the bars that the agent kept tell it"
    prices = {one["name"]: one["price"] for one in found["benchmarks"]}
    assert all(prices[name] is not None for name in ("arrival", "TWAP", "open", "close", "departure"))
    assert found["at_once"]["cost_bps"] > 0
    assert (desk / "bars" / "ETH-USDT.jsonl").exists() or list(desk.rglob("ETH-USDT.jsonl"))
    text = isthmus("order", "tca", sold, at=desk)
    assert text.code == 0
    assert all(len(line) <= 80 for line in text.out.splitlines()), text.out
    assert "in all" in text.out


@pytest.mark.chain
def test_its_page(desk: Path, sold: str) -> None:
    assert isthmus("order", "report", sold, "--out", "order.html", at=desk).code == 0
    text = (desk / "order.html").read_text(encoding="utf-8")
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    again = isthmus("order", "report", sold, "--out", "order.html", at=desk)
    assert again.code == 2
    assert "--force" in again.err
    told = isthmus("order", "report", sold, "--out", "order.html", "--force", "--json", at=desk).json
    assert told["bytes"] == len(text.encode())


@pytest.mark.chain
def test_orders_put_together(desk: Path, sold: str) -> None:
    for by in ("algo", "venue", "side", "strategy"):
        rows = isthmus("tca", "--by", by, "--json", at=desk).json["rows"]
        assert rows
        assert all(row["orders"] >= 1 for row in rows)
    assert isthmus("tca", "--strategy", "nobody", "--json", at=desk).json["rows"] == []
    assert "no order" in isthmus("tca", "--market", "XYZ/USDT", at=desk).out


@pytest.mark.chain
def test_a_preview_sends_nothing(desk: Path, sold: str) -> None:
    before = isthmus("order", "list", "--json", at=desk).json
    found = isthmus("order", "preview", *SALE, "--measure", "12s", "--duration", "2m", "--json", at=desk).json
    assert found["conditions"]["sigma"] > 0
    expected = found["expected"]
    assert expected["slices"] == 4
    known = ("spread_bps", "fees_bps", "gas_bps", "distance_bps", "impact_bps")
    assert sum(expected[name] for name in known) == pytest.approx(expected["mean_bps"], abs=1e-4)
    assert expected["low_bps"] < expected["mean_bps"] < expected["high_bps"]
    assert found["suggestion"]["algo"] in ("once", "twap", "is")
    text = isthmus("order", "preview", *SALE, "--measure", "0s", at=desk)
    assert text.code == 0, text
    assert "nothing is sent" in text.out
    assert isthmus("order", "list", "--json", at=desk).json == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("preview", *SALE, "--duration", "10s"), "--interval 10s or less"),
        (("preview", *SALE, "--duration", "20h", "--interval", "1s"), "--interval 72s or more"),
        (("preview", *SALE, "--interval", "0s"), "above zero"),
        (("preview", *SALE, "--measure", "2h"), "10m or less"),
        (("preview", "ETH/USDT", "--side", "sell", "--qty", "0"), "above zero"),
        (("preview", *SALE, "--risk-weight", "-1"), "risk-weight"),
        (("preview", "ETH/USDT", "--side", "sell", "--qty", "0.00001", "--measure", "0s"), "at least that"),
        (("tca", "nobody"), "isthmus order list"),
        (("report", "nobody", "--out", "x.html"), "isthmus order list"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(desk: Path, arguments: tuple[str, ...], words: str) -> None:
    done = isthmus("order", *arguments, at=desk)
    assert done.code == 2, done
    assert words in done.err


@pytest.mark.chain
def test_a_tape_that_is_none_is_refused(desk: Path, sold: str) -> None:
    (desk / "none.gz").write_text("x")
    done = isthmus("order", "tca", sold, "--tape", "none.gz", at=desk)
    assert done.code == 2
    assert "isthmus record" in done.err
