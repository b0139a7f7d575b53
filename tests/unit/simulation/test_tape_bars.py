"""A tape says what a market did, second by second, and only where it is whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.market.bars import SECOND_NS, Bars
from agent.simulation.exchange.tape import TapeError, TapeWriter
from agent.simulation.exchange.tape_bars import tape_bars

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "data" / "market" / "binance_spot_ethusdt_20240808.jsonl.gz"


def level(price: float, size: float = 1.0) -> list[str]:
    return [f"{price:.2f}", f"{size:.4f}"]


def change(first: int, last: int, bids: list[list[str]], asks: list[list[str]], symbol: str = "ETHUSDT") -> dict[str, Any]:
    data = {"e": "depthUpdate", "s": symbol, "U": first, "u": last, "b": bids, "a": asks}
    return {"stream": "ethusdt@depth@100ms", "data": data}


def trade(price: float, size: float) -> dict[str, Any]:
    return {"stream": "ethusdt@trade", "data": {"e": "trade", "s": "ETHUSDT", "p": f"{price}", "q": f"{size}", "m": True}}


def taped(folder: Path, frames: list[tuple[float, dict[str, Any]]]) -> Path:
    path = folder / "t.jsonl.gz"
    with TapeWriter(path) as tape:
        for at_s, frame in frames:
            tape.write(int(at_s * SECOND_NS), json.dumps(frame))
    return path


SNAPSHOT = {"lastUpdateId": 10, "bids": [level(99), level(98)], "asks": [level(101), level(102)]}


def test_bars_of_a_tape(tmp_path: Path) -> None:
    path = taped(tmp_path, [
        (100.0, change(9, 10, [level(99, 5)], [])),
        (100.1, change(11, 12, [level(99.5)], [])),
        (100.2, SNAPSHOT),
        (100.5, trade(99.5, 2)),
        (101.3, change(13, 13, [level(99.5, 0)], [level(101, 0)])),
    ])  # fmt: skip
    first, second = tape_bars(path, "ETHUSDT")
    assert (first.start_s, first.bid, first.ask, first.mid) == (100, 99.5, 101.0, 100.25)
    assert (first.volume, first.value) == (2.0, 199.0)
    assert (second.bid, second.ask, second.volume) == (99.0, 102.0, 0.0)


def test_where_updates_are_missing_nothing_is_known_until_the_next_snapshot(tmp_path: Path) -> None:
    path = taped(tmp_path, [
        (100.0, SNAPSHOT),
        (101.0, change(14, 15, [level(100)], [])),
        (102.0, change(16, 17, [level(100.5)], [])),
        (103.0, SNAPSHOT | {"lastUpdateId": 15, "bids": [level(100)]}),
        (103.5, trade(100, 1)),
    ])  # fmt: skip
    found = tape_bars(path, "ETHUSDT")
    assert [(bar.start_s, bar.bid) for bar in found] == [(100, 99.0), (103, 100.5)]


def test_a_tape_of_another_market_says_so(tmp_path: Path) -> None:
    path = taped(tmp_path, [(100.0, change(1, 2, [], [], symbol="BTCUSDT"))])
    with pytest.raises(TapeError, match="holds nothing of ETHUSDT; it holds BTCUSDT"):
        tape_bars(path, "ETHUSDT")
    broken = taped(
        tmp_path, [(100.0, trade(1, 1)), (101.0, {"stream": "ethusdt@trade", "data": {"s": "ETHUSDT", "p": "x", "q": "1"}})]
    )
    with pytest.raises(TapeError, match="record the tape again"):
        tape_bars(broken, "ETHUSDT")


@pytest.mark.skipif(not RECORDED.exists(), reason="needs the recorded data beside the checkout")
def test_the_recorded_tape_has_a_bar_for_every_second() -> None:
    found = tape_bars(RECORDED, "ETHUSDT")
    seconds = [bar.start_s for bar in found]
    assert seconds == list(range(seconds[0], seconds[-1] + 1))
    bars = Bars.of(found)
    assert 0.00001 < bars.sigma(3_600) < 0.001
    assert sum(bar.volume for bar in found) > 100
    assert all(bar.bid < bar.mid < bar.ask for bar in found if bar.mid)
