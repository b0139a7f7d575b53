"""The background flow: its statistics are those of the recorded market, and it costs next to nothing."""

import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from agent.simulation.exchange.accounts import Accounts
from agent.simulation.exchange.filters import SymbolRules
from agent.simulation.exchange.flow import MarketModel
from agent.simulation.exchange.liquidity import Liquidity, Quote, Take
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.exchange.tape import TapeBook, read_tape
from agent.simulation.exchange.venue import Venue

RULES = SymbolRules(symbol="ETHUSDT", base="ETH", quote="USDT", tick_units=10**6, lot_units=10**4, notional_units_min=5 * 10**8)
STEPS = 3460  # as long as the recording
BANDS_BPS = (5, 10, 25)

# Ours within this factor of the recording (and one over it).
TOLERANCE = {
    "spread": 1.01,
    "depth 5": 1.25,
    "depth 10": 1.25,
    "depth 25": 1.25,
    "takers/s": 1.15,
    "taker size": 1.3,
    "levels/s": 1.3,
    "volatility 1s": 1.25,
}


def summarise(samples: list[dict[str, Any]], takers: list[float], levels: int, seconds: float) -> dict[str, float]:
    mids = [sample["mid"] for sample in samples]
    moves = [math.log(b / a) * 1e4 for a, b in zip(mids[::10], mids[10::10], strict=False)]
    depths = [sample["depth"] for sample in samples if sample["depth"]]
    out = {f"depth {band}": statistics.median(d for row in depths for d in row[band]) for band in BANDS_BPS}
    return out | {
        "spread": statistics.median(sample["spread"] for sample in samples),
        "takers/s": len(takers) / seconds,
        "taker size": statistics.median(takers),
        "levels/s": levels / seconds,
        "volatility 1s": statistics.pstdev(moves),
    }


def sample(sides: tuple[dict[int, int], dict[int, int]], bid: int, ask: int, with_depth: bool) -> dict[str, Any]:
    mid = (bid + ask) / 2
    depth = {
        band: [sum(lots for p, lots in side.items() if abs(p - mid) <= mid * band / 1e4) / 1e4 for side in sides]
        for band in (BANDS_BPS if with_depth else ())
    }
    return {"mid": mid, "spread": ask - bid, "depth": depth}


def measure_model(seed: int) -> dict[str, float]:
    venue = Venue([RULES], Accounts())
    book, liquidity = venue.markets["ETHUSDT"].book, Liquidity(venue, "ETHUSDT")
    model = MarketModel(seed, 2683.8, 0.01, 0.0001)
    liquidity.apply(model.step(), 0)
    book.take_diff()
    samples, takers, levels = [], [], 0
    for number in range(STEPS):
        actions = model.step()
        liquidity.apply(actions, number * 100)
        diff = book.take_diff()
        levels += len(diff.bids) + len(diff.asks) if diff else 0
        takers += [action.size_lots / 1e4 for action in actions if isinstance(action, Take)]
        bid, ask = book.best(BUY), book.best(SELL)
        assert bid is not None
        assert ask is not None
        with_depth = number % 20 == 0
        sides = (dict(book.depth(BUY, 5000)), dict(book.depth(SELL, 5000))) if with_depth else ({}, {})
        samples.append(sample(sides, bid[0], ask[0], with_depth))
    return summarise(samples, takers, levels, STEPS / 10)


def measure_tape(path: Path) -> dict[str, float]:
    book, samples, levels, first, last = TapeBook(RULES), [], 0, 0, 0
    takers: dict[tuple[int, bool], float] = {}
    for frame in read_tape(path):
        first, last = first or frame.received_ns, frame.received_ns
        data = frame.frame.get("data", {})
        if "lastUpdateId" in frame.frame:
            book.load(frame.frame)
        elif data.get("e") == "trade":
            key = data["T"], data["m"]
            takers[key] = takers.get(key, 0.0) + float(data["q"])
        elif data.get("e") == "depthUpdate":
            levels += len(book.follow(data))
            if book.update_id is not None:
                with_depth = len(samples) % 20 == 0
                samples.append(sample(book.sides, max(book.sides[BUY]), min(book.sides[SELL]), with_depth))
    return summarise(samples, list(takers.values()), levels, (last - first) / 1e9)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_model_has_the_statistics_of_the_recorded_market(shared_data: Path, seed: int) -> None:
    recorded = measure_tape(shared_data / "market" / "binance_spot_ethusdt_20240808.jsonl.gz")
    ours = measure_model(seed)
    for name, factor in TOLERANCE.items():
        assert 1 / factor <= ours[name] / recorded[name] <= factor, (name, ours[name], recorded[name])


def test_the_same_seed_gives_the_same_market() -> None:
    runs = []
    for seed in (7, 7, 8):
        model = MarketModel(seed, 2683.8, 0.01, 0.0001)
        runs.append([model.step() for _ in range(50)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(("mid", "tick", "lot"), [(61_000.0, 0.01, 0.00001), (0.5, 0.0001, 1.0), (25.0, 0.01, 0.01)])
def test_other_symbols_get_a_sane_book(mid: float, tick: float, lot: float) -> None:
    venue = Venue([RULES], Accounts())
    liquidity, model = Liquidity(venue, "ETHUSDT"), MarketModel(1, mid, tick, lot)
    book = venue.markets["ETHUSDT"].book
    for number in range(300):
        liquidity.apply(model.step(), number)
        bid, ask = book.best(BUY), book.best(SELL)
        assert bid is not None
        assert ask is not None
        assert bid[0] < ask[0]
    assert abs(ask[0] * tick / mid - 1) < 0.05
    assert 5 <= len(book.depth(BUY, 5000)) <= 2000


def test_the_model_restores_what_clients_take_near_the_touch() -> None:
    venue = Venue([RULES], Accounts())
    liquidity, model = Liquidity(venue, "ETHUSDT"), MarketModel(1, 2683.8, 0.01, 0.0001)
    book = venue.markets["ETHUSDT"].book
    liquidity.apply(model.step(), 0)
    before = book.best(SELL)
    assert before is not None
    liquidity.apply([Take(BUY, before[0] + 5, 10**9)], 0)
    assert book.best(SELL)[0] > before[0]
    liquidity.apply(model.step(), 1)
    assert book.best(SELL)[0] - book.best(BUY)[0] <= 11


def test_the_house_never_trades_with_its_own_quotes() -> None:
    venue = Venue([RULES], Accounts())
    liquidity, book = Liquidity(venue, "ETHUSDT"), venue.markets["ETHUSDT"].book
    liquidity.apply([Quote(SELL, 100, 5)], 0)
    liquidity.apply([Quote(BUY, 101, 5)], 0)
    assert not venue.markets["ETHUSDT"].trades
    assert book.best(BUY) is None
    liquidity.apply([Quote(BUY, 101, 5), Quote(SELL, 100, 0), Quote(SELL, 102, 1)], 0)
    assert (book.best(BUY), book.best(SELL)) == ((101, 5), (102, 1))
