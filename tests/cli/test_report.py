"""The page of an order is complete in itself, well formed whatever it shows, and says what the tables say."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from engine_kit import ScriptedBook, ScriptedPool, WarpClock, running, sale, venues_of, warped

from agent import observe
from agent.cli.outcome import names_in
from agent.cli.report import page, sentence
from agent.cli.show import Names
from agent.cli.tca import told
from agent.cli.tca_tables import PART_WORDS, rows_table, whole
from agent.cli.tca_tables import signed as shown
from agent.engine.analysis import Analysis, analysis
from agent.engine.many import KEYS, rows
from agent.engine.state import State
from agent.execution.tca import PARTS
from agent.market.bars import SECOND_NS

SVG = "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


@pytest.fixture(scope="module")
def sold() -> tuple[State, Analysis]:
    async def work() -> tuple[State, Analysis]:
        async with running(venues_of(ScriptedBook(WarpClock(), 3), ScriptedPool(WarpClock(), 3))) as run:
            await run.engine.submit(sale("p1", "40", slices=4, interval_ns=5 * SECOND_NS))
            await run.engine.finished("p1")
            await asyncio.sleep(70)
            state = run.engine.state
            return state, analysis(state, "p1", run.engine.world.market.bars("ETH/USDT").since(0))

    return warped(work())


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def test_the_page_is_one_file_that_fetches_nothing(sold: tuple[State, Analysis]) -> None:
    state, found = sold
    text = page(found, state, names_in(state))
    root = parsed(text)
    assert len(list(root.iter(SVG))) == 5
    assert not [one for one in root.iter() if one.tag.rpartition("}")[2] in ("script", "link", "img", "iframe", "object")]
    assert not re.findall(r"(?:src|href|action)=|url\(|@import", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}


def test_it_says_what_the_figures_say(sold: tuple[State, Analysis]) -> None:
    state, found = sold
    text = page(found, state, names_in(state))
    assert shown(found.shortfall.total) in text
    for name in PARTS:
        part = getattr(found.shortfall, name)
        assert PART_WORDS[name] in text
        assert shown(part) in text
    assert text.count('class="dot ') == len(found.points)
    assert sentence(found).startswith("It cost ")


def test_whatever_comes_from_outside_is_escaped(sold: tuple[State, Analysis]) -> None:
    state, found = sold
    bad = '<script>alert("x")</script>&'
    groups = tuple(msgspec.structs.replace(one, name=bad) for one in found.by_source)
    points = tuple(msgspec.structs.replace(one, instrument=bad, order_id=bad) for one in found.points)
    text = page(
        msgspec.structs.replace(found, strategy=bad, status=bad, by_source=groups, points=points, missing=(bad,)), state, Names()
    )
    parsed(text)
    assert "<script" not in text


def test_what_is_not_known_is_said(sold: tuple[State, Analysis]) -> None:
    state, _ = sold
    bare = analysis(state, "p1")
    text = page(bare, state, names_in(state))
    parsed(text)
    assert "not known" in text
    assert "60 s" in text


def test_an_order_that_never_traded_has_a_page_and_tables() -> None:
    async def work() -> State:
        async with running(venues_of(ScriptedBook(WarpClock(), 3))) as run:
            later = msgspec.structs.replace(sale("p1", "4"), algo=None)
            await run.engine.submit(later)
            await run.engine.cancel("p1")
            await run.engine.finished("p1")
            return run.engine.state

    state = warped(work())
    found = analysis(state, "p1")
    parsed(page(found, state, Names()))
    assert found.points == () or found.filled.units > 0
    assert whole(found, Names()).renderables


def test_for_scripts_the_parts_are_exact(sold: tuple[State, Analysis]) -> None:
    _, found = sold
    answer: dict[str, Any] = told(found)
    assert "bars" not in answer
    parts = [answer["shortfall"][name] for name in PARTS]
    assert sum(part.units for part in parts) == answer["shortfall"]["total"].units
    assert sum(answer["shortfall"]["bps"][name] for name in PARTS) == pytest.approx(answer["shortfall"]["bps"]["total"])


# -- many orders -------------------------------------------------------------------------------------------------------


def test_many_orders_are_put_together_with_an_interval(sold: tuple[State, Analysis]) -> None:
    """Three orders that cost 10, 20 and 30 bps: 20, and by Student between -4.8 and 44.8."""
    _, found = sold
    some = [costing(found, bps) for bps in (10, 20, 30)]
    (row,) = rows(some, KEYS["algo"])
    assert (row.name, row.orders) == ("slices", 3)
    assert row.cost_bps == pytest.approx(20, abs=1e-6)
    assert (row.low_bps, row.high_bps) == pytest.approx((20 - 24.84, 20 + 24.84), abs=0.01)
    (alone,) = rows(some[:1], KEYS["strategy"])
    assert (alone.low_bps, alone.high_bps) == (None, None)
    venues: Sequence[Any] = rows(some, KEYS["venue"])
    assert {one.name for one in venues} == {"cex", "amm"}
    assert rows_table(venues, "venue").renderables


def costing(found: Analysis, bps: int) -> Analysis:
    cost = found.shortfall
    total = msgspec.structs.replace(cost.total, units=cost.notional.units * bps // 10_000)
    return msgspec.structs.replace(found, shortfall=msgspec.structs.replace(cost, total=total))
