"""Tapes: what is written is read back, snapshots join, gaps are refused, and a replay imposes the tape's book."""

import gzip
import json
from pathlib import Path

import pytest

from agent.simulation.exchange.accounts import Accounts
from agent.simulation.exchange.filters import SymbolRules
from agent.simulation.exchange.liquidity import Liquidity
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.exchange.tape import TapeError, TapeFlow, TapeWriter, read_tape
from agent.simulation.exchange.venue import Venue

RULES = SymbolRules(symbol="ETHUSDT", base="ETH", quote="USDT", tick_units=10**6, lot_units=10**4, notional_units_min=5 * 10**8)
SECOND_NS = 10**9


def depth(first: int, last: int, bids: list, asks: list) -> dict:
    data = {"e": "depthUpdate", "E": 1, "s": "ETHUSDT", "U": first, "u": last, "b": bids, "a": asks}
    return {"stream": "ethusdt@depth@100ms", "data": data}


def trade(price: str, size: str, is_buyer_maker: bool) -> dict:
    data = {"e": "trade", "s": "ETHUSDT", "t": 1, "p": price, "q": size, "T": 1, "m": is_buyer_maker}
    return {"stream": "ethusdt@trade", "data": data}


SNAPSHOT = {"lastUpdateId": 12, "bids": [["99.00", "1"], ["98.00", "2.00009"]], "asks": [["101.00", "1"], ["102.00", "5"]]}
FRAMES = [
    (0, depth(5, 10, [["97.00", "9"]], [])),
    (1, depth(11, 14, [["99.00", "3"]], [["101.00", "0"]])),
    (2, SNAPSHOT),
    (SECOND_NS, depth(15, 16, [], [["100.00", "4"]])),
    (2 * SECOND_NS, trade("100.00", "1.5", False)),
    (2 * SECOND_NS + 1, depth(17, 17, [], [["100.00", "2.5"]])),
]


def write(path: Path, frames: list) -> Path:
    with TapeWriter(path) as tape:
        for received_ns, frame in frames:
            tape.write(1000 + received_ns, json.dumps(frame))
    return path


def replay(flow: TapeFlow, until_s: float) -> Venue:
    venue = Venue([RULES], Accounts())
    liquidity = Liquidity(venue, "ETHUSDT")
    for number in range(int(until_s * 10) + 1):
        liquidity.apply(flow.step(number * SECOND_NS // 10), number * 100)
    return venue


def test_what_is_written_is_read_back_blank_lines_and_a_cut_end_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", FRAMES)
    assert [(frame.received_ns - 1000, frame.frame) for frame in read_tape(path)] == FRAMES
    lines = gzip.decompress(path.read_bytes()).replace(b"\n", b"\n\n  \n")
    blank = tmp_path / "b.jsonl.gz"
    blank.write_bytes(gzip.compress(lines))
    assert len(list(read_tape(blank))) == len(FRAMES)
    cut = tmp_path / "c.jsonl.gz"
    cut.write_bytes(path.read_bytes()[:-8])
    assert len(list(read_tape(cut))) == len(FRAMES)


def test_a_frame_is_one_line(tmp_path: Path) -> None:
    with TapeWriter(tmp_path / "a.gz") as tape, pytest.raises(ValueError, match="line breaks"):
        tape.write(1, '{"a":\n1}')


@pytest.mark.parametrize("line", [b"x {}", b"1 [1]", b"1", b"1 {", b"1 " + b"[" * 10_000])
def test_a_line_that_is_no_frame_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(b"1 {}\n" + line + b"\n"))
    with pytest.raises(TapeError, match="line 2"):
        list(read_tape(path))


def test_the_snapshot_joins_the_diffs_before_it_and_trades_take_from_the_book(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", FRAMES)
    venue = replay(TapeFlow(path, RULES), 0)
    book = venue.markets["ETHUSDT"].book
    assert book.depth(BUY, 9) == [(9900, 30_000), (9800, 20_000)]  # the size is rounded down to lots
    assert book.depth(SELL, 9) == [(10_200, 50_000)]
    venue = replay(TapeFlow(path, RULES), 3)
    assert venue.markets["ETHUSDT"].book.depth(SELL, 9) == [(10_000, 25_000), (10_200, 50_000)]
    assert [(t.price_ticks, t.size_lots) for t in venue.markets["ETHUSDT"].trades] == [(10_000, 15_000)]


def test_the_end_holds_or_loops_and_speed_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", FRAMES)
    held = TapeFlow(path, RULES, speed=10)
    venue = replay(held, 0.3)
    assert held.is_over
    assert venue.markets["ETHUSDT"].book.best(SELL) == (10_000, 25_000)
    looping = TapeFlow(path, RULES, end="loop")
    venue = replay(looping, 2.5)
    assert not looping.is_over
    assert venue.markets["ETHUSDT"].book.best(SELL) == (10_200, 50_000)


def test_gaps_and_tapes_without_a_snapshot_are_refused(tmp_path: Path) -> None:
    gap = [*FRAMES[:3], (SECOND_NS, depth(16, 17, [], []))]
    flow = TapeFlow(write(tmp_path / "a.gz", gap), RULES)
    with pytest.raises(TapeError, match="lost updates 15 to 15"):
        replay(flow, 2)
    with pytest.raises(TapeError, match="no book snapshot"):
        TapeFlow(write(tmp_path / "b.gz", FRAMES[:2]), RULES)


def test_a_recorded_market_is_replayed_to_the_level(shared_data: Path) -> None:
    flow = TapeFlow(shared_data / "market" / "binance_spot_ethusdt_20240808.jsonl.gz", RULES, speed=10)
    venue = Venue([RULES], Accounts())
    liquidity, book, number = Liquidity(venue, "ETHUSDT"), venue.markets["ETHUSDT"].book, 0
    while not flow.is_over:
        liquidity.apply(flow.step(number * SECOND_NS // 10), number)
        number += 1
    for side in (BUY, SELL):
        assert dict(book.depth(side, 10_000)) == flow._book.sides[side]
    assert len(venue.markets["ETHUSDT"].trades) > 4000
