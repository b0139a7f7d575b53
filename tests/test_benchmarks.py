"""The benchmarks themselves: they run at tiny sizes without any peer, the page lists what there is, and locks name no address."""

import importlib
import json
import math
import re
from pathlib import Path

import pytest

from agent import observe
from agent.liquidity.depth import Depth
from benchmarks import (
    chart,
    growth,
    loopback,
    market_data,
    network,
    optimality,
    order_book,
    page,
    parents,
    replay,
    routing,
    signing,
    steps,
)
from benchmarks.catalogue import about, names
from benchmarks.markets import Shape, build_instance
from benchmarks.measure import P99_CALLS_MIN, Result, alternately, calls_of, sample
from benchmarks.peers import environments

ROOT = Path(__file__).resolve().parents[1]
LISTED = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


@pytest.fixture(autouse=True)
def no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    monkeypatch.delenv(market_data.DATA, raising=False)


def is_sane(row: Result) -> bool:
    if row.peer_us is None:
        return row.ours_us > 0 and row.ratio is None and "python -m" in row.note
    return row.ours_us > 0 and row.peer_us > 0 and row.ratio == pytest.approx(row.peer_us / row.ours_us)


@pytest.mark.parametrize("name", names())
def test_each_benchmark_says_what_it_compares_and_can_be_run(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)
    assert about(name).endswith(".")


def test_the_page_lists_what_there_is() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    section = text.partition("## Method")[0]
    assert sorted(LISTED.findall(section)) == names()
    assert set(page.blocks(text)) - {"setting", "optimality", "growth"} <= set(names())


def test_the_page_is_rewritten_between_its_marks(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text("before\n<!-- measured: setting -->\nold\n<!-- /measured -->\nafter\n", encoding="utf-8")
    page.rewrite(page=copy)
    text = copy.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- measured: setting -->\n* ")
    assert text.endswith("not measured)\n<!-- /measured -->\nafter\n")
    assert "old" not in text
    with pytest.raises(SystemExit, match=r"page\.md has no block for 'other'"):
        page.rewrite(("other",), page=copy)


def test_routing_without_peers() -> None:
    rows = routing.run(1)
    assert all(map(is_sane, rows))
    assert {row.peer for row in rows if row.peer_us is not None} >= set(routing.STEPS)
    assert any("python -m benchmarks peers uniswap" in row.note for row in rows)


def test_many_parents_and_a_replay_stand_beside_their_bounds() -> None:
    few = parents.run(20, 300)
    assert [row.what for row in few] == ["book change to decision, 20 live parents: median"], "a p99 of so few ticks is noise"
    assert all(map(is_sane, few))
    assert few[0].note.partition(" ")[0].isdigit()
    assert int(few[0].note.partition(" ")[0]) >= 5, "some parents were due, or nothing was timed"
    rows = replay.run(20, 10)
    assert all(map(is_sane, rows))
    assert all(int(row.note.partition(" ")[0]) >= 10 for row in rows), "a slice that rested and came back is made up for"


def test_the_network_without_peers() -> None:
    rows = network.run(1)
    assert all(map(is_sane, rows))
    assert {row.peer for row in rows if row.peer_us is None} == set(network.JOBS)


def test_the_other_hot_benchmarks_without_peers() -> None:
    rows = [*order_book.run(rounds=2, calls=20), *signing.run(rounds=2, calls=5), *market_data.run(2_000)]
    assert all(map(is_sane, rows))
    assert all(row.ours_p99_us is None for row in rows), "a p99 of so few calls is noise"


def test_an_order_that_the_exchange_sees_is_slower_than_an_echo() -> None:
    try:
        (row,) = loopback.run(rounds=2, calls=12)
    finally:
        observe.open_log()  # a benchmark is silent
    assert is_sane(row)
    assert row.ratio is not None
    assert 0 < row.ratio < 1, "nobody is faster than an echo"
    assert row.note.endswith(" times the floor")


def test_nobody_beats_the_route_on_a_few_instances() -> None:
    report = optimality.measure(len(optimality.CASES))
    assert report.failures == []
    assert set(report.missing) == {"solvers", "uniswap"}
    assert all(found is None or found.least >= 0 for row in report.rows for found in row.peers.values())
    assert json.loads(json.dumps(optimality.as_json(report)))["instances"] == len(optimality.CASES)


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_nobody_beats_the_route_on_a_thousand_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the peers that are installed, if any are: enumeration, a mixed-integer solver and Uniswap's router."""
    monkeypatch.undo()
    assert optimality.measure(1_000).failures == []


def test_growth_and_its_plot() -> None:
    found = growth.measure((10, 20), range(1))
    assert found["sizes"] == [10, 20]
    assert all(us > 0 for row in found["us"].values() for us in row)
    assert growth.drawn(found).count("<polyline") == len(found["us"])


@pytest.mark.parametrize("side", ["sell", "buy"])
def test_plain_numbers_are_the_view(side: str) -> None:
    """What a peer computes from the plain numbers is what the exact pools and books answer."""
    instance = build_instance(Shape(side=side, stable=2 * (side == "sell")), 3)  # type: ignore[arg-type]
    numbers, quotes = instance.numbers, steps.quoted(instance, 100)
    assert build_instance(Shape(side=side, stable=2 * (side == "sell")), 3) == instance  # type: ignore[arg-type]
    selling, x = side == "sell", numbers.quantity / 100
    found = []
    for book in numbers.books[:-1]:
        left, quote, keep = x, 0.0, 1 - book.fee
        for price, size in zip(book.prices, book.sizes, strict=True):
            part = min(left, size)
            quote, left = quote + part * (price * keep if selling else price / keep), left - part
        found.append(quote)
    for pair in numbers.v2:
        keep = 1 - pair.fee
        found.append(pair.quote * x * keep / (pair.base + x * keep) if selling else pair.quote * x / ((pair.base - x) * keep))
    for pool in numbers.v3:
        left, quote, keep = x, 0.0, 1 - pool.fee
        for deep, start, end in zip(pool.liquidity, pool.roots, pool.roots[1:], strict=False):
            room = deep * abs(1 / start - 1 / end) / (keep if selling else 1)
            part = min(left, room)
            stop = 1 / (1 / start + part * keep / deep) if selling else 1 / (1 / start - part / deep)
            quote, left = quote + deep * abs(stop - start) / (1 if selling else keep), left - part
        found.append(quote)
    for stable in numbers.stable:
        d, after = invariant(stable.base, stable.quote, stable.ann), stable.base + x * stable.rate
        b, c = after + d / stable.ann - d, d**3 / (4 * after * stable.ann)
        found.append((stable.quote - (math.sqrt(b * b + 4 * c) - b) / 2) * (1 - stable.fee))
    for row, quote, source in zip(quotes, found, instance.view.sources, strict=True):
        assert row[1] is not None, source.instrument.id
        assert abs(row[1]) / 1e18 == pytest.approx(quote, rel=1e-9 if isinstance(source.state, Depth) else 1e-8)


def invariant(x: float, y: float, ann: float) -> float:
    """D of Ann (x + y) + D = Ann D + D^3 / (4 x y)."""
    low, high = 0.0, 2 * (x + y)
    for _ in range(200):
        d = (low + high) / 2
        low, high = (d, high) if ann * (x + y) + d > ann * d + d**3 / (4 * x * y) else (low, d)
    return low


def test_step_routers_find_what_brute_force_finds() -> None:
    rows = [[0, 10, 15, 17], [0, 8, 16, 20], [0, 1, 2, 40]]
    every = [rows[0][a] + rows[1][b] + rows[2][3 - a - b] for a in range(4) for b in range(4 - a)]
    assert steps.one_split(rows) == max(every) == 40
    assert steps.greedy(rows) == 10 + 8 + 8
    assert steps.single(rows) == 40


def test_frames_queue_only_while_another_is_worked_on() -> None:
    assert market_data.played([0, 1_000, 2_000], [10, 10, 10], 10) == market_data.Load(30 / 200, 0)
    assert market_data.played([0, 100, 200, 300, 10_000], [250, 50, 50, 50, 50], 10) == market_data.Load(450 / 1_000, 3)


def test_samples() -> None:
    assert sample([3_000, 1_000, 2_000]) == (2.0, None, 3)
    assert sample(list(range(1_000, (P99_CALLS_MIN + 1) * 1_000, 1_000))).p99_us == P99_CALLS_MIN * 0.99 + 1
    asked: list[str] = []
    turns = {"a": calls_of(lambda: asked.append("a"), 2), "b": calls_of(lambda: asked.append("b"), 1)}
    assert alternately([turns, turns])["a"].calls == 2
    assert asked == ["a", "a", "b"] * 2


def test_a_chart_shows_every_line() -> None:
    text = chart.draw("t", "x", "y", [chart.Line("a < b", [(1, 10), (10, 100)]), chart.Line("c", [(10, 100)])])
    assert "a &lt; b" in text
    assert text.count("<circle") == 3


def test_peers_come_from_locks_without_addresses() -> None:
    for one in environments.ENVIRONMENTS.values():
        text = (one.folder / one.lock).read_text(encoding="utf-8")
        if one.pythons:
            pinned = [line for line in text.splitlines() if line and line[0] not in " #"]
            assert pinned
            assert "://" not in text
            assert all("==" in line and line.endswith("\\") for line in pinned), "every package has a version and hashes"
        else:
            packages = json.loads(text)["packages"]
            assert '"resolved"' not in text
            assert all("integrity" in package for name, package in packages.items() if name), "every package has its hash"


def test_a_missing_peer_costs_one_line() -> None:
    with pytest.raises(environments.PeerMissingError, match=r"`python -m benchmarks peers solvers` installs it"):
        environments.command("solvers")
    unknown = environments.Environment("solvers", "A peer", "requirements.txt", ((2, 0),))
    with pytest.raises(environments.PeerMissingError, match=r"needs Python 2\.0, and none is on PATH"):
        environments.python_for(unknown)


def test_every_twentieth_and_hundredth_of_an_order_is_whole_lots() -> None:
    for shape in optimality.CASES.values():
        step = 100 * shape.lot_units * 10**10
        assert build_instance(shape, 1).quantity.units % step == 0
