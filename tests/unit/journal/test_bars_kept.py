"""What markets did is kept beside the journal, as long as an order needs it: bounded, and good to read after any end."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from engine_kit import ScriptedBook, WarpClock, running, sale, venues_of, warped

from agent.domain.instrument import Instrument
from agent.engine.sampling import markets_worked
from agent.journal import bars as kept
from agent.journal.bars import AROUND_NS, OLDER_KEPT, BarKeeper, file_name, keep_bars, read_bars
from agent.market.bars import SECOND_NS, Bar
from agent.market.view import Market
from tests.unit.market.test_view import book, market, snapshot

NAME = "ETH/USD"


class Walk:
    """A market of which every second is known."""

    def __init__(self) -> None:
        self.market: Market = market(book())
        self.instrument: Instrument = book()
        self.now_s = 0

    def go(self, seconds: int) -> int:
        for _ in range(seconds):
            self.now_s += 1
            self.market.apply(
                snapshot(self.instrument, 250_000 + self.now_s, 250_001 + self.now_s, self.now_s * SECOND_NS, self.now_s)
            )
            self.market.sample(NAME, self.now_s * SECOND_NS)
        return self.now_s * SECOND_NS


def seconds(home: Path) -> list[int]:
    return [bar.start_s for bar in read_bars(home, NAME)]


def test_from_before_an_order_until_after_its_end(tmp_path: Path) -> None:
    walk, keeper = Walk(), BarKeeper(tmp_path)
    keeper.keep(walk.market, [], walk.go(200))
    assert seconds(tmp_path) == [], "nothing is worked"
    for _ in range(20):
        keeper.keep(walk.market, [NAME], walk.go(1))
    for _ in range(300):
        keeper.keep(walk.market, [], walk.go(1))
    around_s = AROUND_NS // SECOND_NS
    assert seconds(tmp_path) == list(range(201 - around_s, 220 + around_s)), "each second once"
    told = {bar.start_s: bar for bar in walk.market.bars(NAME).since(0)}
    assert read_bars(tmp_path, NAME) == [told[second] for second in seconds(tmp_path)]
    assert [bar.start_s for bar in read_bars(tmp_path, NAME, 150 * SECOND_NS, 153 * SECOND_NS)] == [150, 151, 152]


def test_the_second_that_is_not_over_is_kept_at_the_end(tmp_path: Path) -> None:
    walk, keeper = Walk(), BarKeeper(tmp_path)
    keeper.keep(walk.market, [NAME], walk.go(3))
    assert seconds(tmp_path) == [1, 2]
    keeper.close(walk.market, 3 * SECOND_NS)
    assert seconds(tmp_path) == [1, 2, 3]


def test_a_line_that_was_cut_costs_only_itself(tmp_path: Path) -> None:
    walk = Walk()
    BarKeeper(tmp_path).keep(walk.market, [NAME], walk.go(5))
    path = tmp_path / "bars" / file_name(NAME)
    path.write_bytes(path.read_bytes()[:-9])
    BarKeeper(tmp_path).keep(walk.market, [NAME], walk.go(1))
    assert seconds(tmp_path) == [1, 2, 3, 1, 2, 3, 4, 5]


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FILE_BYTES_MAX", 2_000)
    walk, keeper = Walk(), BarKeeper(tmp_path)
    for _ in range(500):
        keeper.keep(walk.market, [NAME], walk.go(1))
    files = list((tmp_path / "bars").iterdir())
    assert len(files) == OLDER_KEPT + 1
    assert sum(path.stat().st_size for path in files) < (OLDER_KEPT + 1) * 2_300
    found = seconds(tmp_path)
    assert found == list(range(found[0], 500)), "the newest, without a gap"


def test_a_folder_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("not a folder")
    walk = Walk()
    BarKeeper(tmp_path).keep(walk.market, [NAME], walk.go(5))
    assert read_bars(tmp_path, NAME) == []


@pytest.mark.parametrize(("name", "file"), [("ETH/USDT", "ETH-USDT.jsonl"), ("../x/Y", "..-x-Y.jsonl"), ("A B/C", "A%20B-C.jsonl")])
def test_the_name_of_a_file_is_one_name(name: str, file: str) -> None:
    assert file_name(name) == file


def test_an_engine_keeps_what_its_orders_need(tmp_path: Path) -> None:
    async def work() -> list[Bar]:
        async with running(venues_of(ScriptedBook(WarpClock(), 1))) as run:
            engine = run.engine
            await asyncio.sleep(5)
            keeping = asyncio.create_task(
                keep_bars(tmp_path, engine.world.market, partial(markets_worked, engine.state), WarpClock())
            )
            await engine.submit(sale(slices=2, interval_ns=3 * SECOND_NS))
            await engine.finished("p1")
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            assert markets_worked(engine.state, engine.now_ns()) == {"ETH/USDT"}
            assert read_bars(tmp_path, "ETH/USDT") == engine.world.market.bars("ETH/USDT").since(0)
            await asyncio.sleep(100)
            assert markets_worked(engine.state, engine.now_ns()) == set()
        return read_bars(tmp_path, "ETH/USDT")

    assert len(warped(work())) >= 8
