"""Recorded exchange frames through the book: no gap after the join, and the same best prices as the exchange itself sent."""

import gzip
import json
from pathlib import Path

import pytest

from agent.domain.amount import parse_units
from agent.domain.market import BookDiff, BookSnapshot
from agent.market.book import Book

TAPE = Path(__file__).parents[4] / "shared/data/market/binance_spot_ethusdt_20240808.jsonl.gz"
FRAMES = 12_000


def levels(side):
    return tuple((parse_units(price, 2), parse_units(size, 4)) for price, size in side)


def frames():
    with gzip.open(TAPE, "rt") as lines:
        for _, line in zip(range(FRAMES), lines, strict=False):
            at, _, text = line.partition(" ")
            yield int(at), json.loads(text)


@pytest.mark.skipif(not TAPE.exists(), reason="recorded data is not part of the project")
def test_recorded_frames_keep_the_book_whole():
    book, checked, early, tickers, tops = Book(), 0, 0, {}, {}
    for at_ns, frame in frames():
        if "lastUpdateId" in frame:
            book.apply(BookSnapshot("x", frame["lastUpdateId"], levels(frame["bids"]), levels(frame["asks"]), at_ns))
            continue
        data = frame["data"]
        if data.get("e") == "depthUpdate":
            early += not book.is_valid
            book.apply(BookDiff("x", data["U"], data["u"], levels(data["b"]), levels(data["a"]), at_ns))
            if book.is_valid:
                tops[data["u"]] = book.levels(1)
        elif frame["stream"].endswith("bookTicker"):
            tickers[data["u"]] = (levels([(data["b"], data["B"])]), levels([(data["a"], data["A"])]))
    assert book.is_valid
    assert book.gap_count == 0
    assert early > 0
    for seq in tops.keys() & tickers.keys():
        assert tops[seq] == tickers[seq]
        checked += 1
    assert checked > 100
