"""Charts stay inside their frame and read right."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.svg import HEIGHT, WIDTH, Dot, Line, Strip, clock, plot, strips, ticks

VALUE = st.floats(-1e9, 1e9, allow_nan=False)


@given(low=VALUE, size=st.floats(1e-6, 1e9), count=st.integers(2, 9))
def test_round_values_lie_between_and_are_not_too_many(low, size, count) -> None:
    if size < abs(low) * 1e-9:  # between such neighbours floats have no room for round values
        return
    found = ticks(low, low + size, count)
    assert len(found) <= count + 1
    assert all(low - size * 1e-3 <= value <= low + size * 1.001 for value in found)


@given(points=st.lists(st.tuples(st.floats(0, 1e5), st.floats(1e-3, 1e6)), min_size=1, max_size=20), is_step=st.booleans())
def test_everything_is_inside(points, is_step) -> None:
    lines, dots = [Line("a", sorted(points), "market", is_step)], [Dot(x, y, "taker") for x, y in points]
    text = plot("t", lines, dots, digits=2, unit="u", span=(0.0, 1e5))
    root = ElementTree.fromstring(text)
    for one in root.iter():
        for name, most in (("cx", WIDTH), ("x", WIDTH), ("cy", HEIGHT), ("y", HEIGHT)):
            assert 0 <= float(one.get(name, "0")) <= most
    (path,) = re.findall(r' d="([^"]+)"', text)
    assert ("H" in path) == (is_step and len(points) > 1)


@given(edges=st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=8))
def test_bars_stay_inside_too(edges) -> None:
    text = strips("t", [Strip("n<", start, end, "&", "cost") for start, end in edges])
    root = ElementTree.fromstring(text)
    for one in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(one.get("x", "")) <= float(one.get("x", "")) + float(one.get("width", "")) <= WIDTH


def test_a_line_is_broken_where_nothing_is_known() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (9.0, 3.0), (10.0, 1.0)]
    (path,) = re.findall(r' d="([^"]+)"', plot("t", [Line("a", points, "market", gap=5.0)], [], digits=2, unit="", span=(0, 10)))
    assert (path.count("M"), path.count("L")) == (2, 2)


def test_nothing_is_drawn_of_nothing() -> None:
    assert plot("t", [], [], digits=2, unit="", span=(0, 1)) == strips("t", []) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (16.1, "16.1 s"), (90, "1:30"), (-90, "-1:30"), (3_600, "1:00:00"), (7_500, "2:05:00")]
)
def test_clock(seconds, shown) -> None:
    assert clock(seconds) == shown
