"""Small charts as SVG text that stand inside a page: lines, steps, dots and bars, in the colours of the page."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, inf, log10

import msgspec

WIDTH, HEIGHT = 900, 320
LEFT, RIGHT, TOP, BOTTOM = 78, 150, 18, 34
ROW = 26  # height of a bar

Points = Sequence[tuple[float, float]]


class Line(msgspec.Struct, frozen=True):
    """`kind` is a class of the page's style. `is_step`: it stays until it jumps. It is broken where x jumps by more than `gap`."""

    name: str
    points: Points
    kind: str
    is_step: bool = False
    gap: float = inf


class Dot(msgspec.Struct, frozen=True):
    """`size`: radius in pixels. `title` is shown when it is pointed at."""

    x: float
    y: float
    kind: str
    size: float = 3.5
    title: str = ""


class Strip(msgspec.Struct, frozen=True):
    """One bar of a list: from `start` to `end` on the scale, with what is written beside it."""

    name: str
    start: float
    end: float
    text: str
    kind: str


def plot(title: str, lines: Sequence[Line], dots: Sequence[Dot], *, digits: int, unit: str, span: tuple[float, float]) -> str:
    """Over time: x in seconds from the beginning, within `span`. `digits` after the point of y."""
    ys = [y for line in lines for _, y in line.points] + [dot.y for dot in dots]
    if not ys:
        return ""
    low, high = _widened(min(ys), max(ys))
    first, last = span if span[1] > span[0] else (span[0], span[0] + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        inside = min(max((x - first) / (last - first), 0.0), 1.0)
        return round(LEFT + wide * inside, 1), round(TOP + tall * (1 - (y - low) / (high - low)), 1)

    parts = [_open(WIDTH, HEIGHT, title)]
    for y_value in ticks(low, high):
        _, y = place(first, y_value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        parts.append(text(LEFT - 8, y + 4, f"{y_value:,.{digits}f}", "end"))
    for x_value in ticks(first, last, 7):
        x, _ = place(x_value, low)
        parts.append(text(x, HEIGHT - BOTTOM + 20, clock(x_value), "middle"))
    parts.append(text(LEFT - 8, TOP - 2, unit, "end"))
    heights = _apart([place(*line.points[-1])[1] for line in lines if line.points])
    for line, height in zip([line for line in lines if line.points], heights, strict=True):
        path = "".join(_path([place(*point) for point in part], is_step=line.is_step) for part in _unbroken(line))
        parts.append(f'<path class="line {line.kind}" d="{path}"/>')
        parts.append(text(WIDTH - RIGHT + 8, height + 4, line.name, "start", f"name {line.kind}"))
    for dot in dots:
        x, y = place(dot.x, dot.y)
        told = f"<title>{escape(dot.title)}</title>" if dot.title else ""
        parts.append(f'<circle class="dot {dot.kind}" cx="{x}" cy="{y}" r="{dot.size:.1f}">{told}</circle>')
    return "\n".join([*parts, "</svg>"])


def strips(title: str, found: Sequence[Strip]) -> str:
    """Bars below one another on one scale, with zero where it belongs."""
    if not found:
        return ""
    low, high = min(0.0, *(min(one.start, one.end) for one in found)), max(0.0, *(max(one.start, one.end) for one in found))
    low, high = (low, high) if high > low else (low, low + 1)
    left, right, tall = 220, 230, ROW * len(found) + 12

    def place(value: float) -> float:
        return round(left + (WIDTH - left - right) * (value - low) / (high - low), 1)

    parts = [_open(WIDTH, tall, title), f'<line class="axis" x1="{place(0)}" y1="2" x2="{place(0)}" y2="{tall - 6}"/>']
    for number, one in enumerate(found):
        y, x = 6 + number * ROW, place(min(one.start, one.end))
        wide = max(place(max(one.start, one.end)) - x, 1.0)
        parts.append(text(left - 12, y + 14, one.name, "end"))
        parts.append(f'<rect class="bar {one.kind}" x="{x}" y="{y}" width="{wide:.1f}" height="{ROW - 8}"/>')
        parts.append(text(max(place(one.start), place(one.end), place(0)) + 8, y + 14, one.text, "start"))
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between, about `count` of them."""
    step = 10 ** floor(log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count)
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def clock(seconds: float) -> str:
    """Time since the beginning: `-5 s`, `1:30`, `2:05:00`."""
    whole = round(seconds)
    if abs(whole) < 60:
        return f"{seconds:.0f} s" if abs(seconds - whole) < 0.05 else f"{seconds:.1f} s"
    hours, rest = divmod(abs(whole), 3_600)
    told = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
    return f"-{told}" if whole < 0 else told


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def _open(wide: int, tall: int, title: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" role="img" aria-label="{escape(title)}">'


def _unbroken(line: Line) -> list[list[tuple[float, float]]]:
    """Its points, parted where there is a gap."""
    found: list[list[tuple[float, float]]] = []
    for point in line.points:
        if not found or point[0] - found[-1][-1][0] > line.gap:
            found.append([])
        found[-1].append(point)
    return found


def _path(places: Points, *, is_step: bool) -> str:
    (x, y), *rest = places
    if is_step:
        return f"M{x},{y}" + "".join(f"H{x}V{y}" for x, y in rest)
    return f"M{x},{y}" + "".join(f"L{x},{y}" for x, y in rest)


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.06 or abs(high) * 0.001 or 1.0
    return low - margin, high + margin


def _apart(wanted: Sequence[float], room: float = 16.0) -> list[float]:
    """The same heights, moved down where names would cover one another."""
    found, last = [0.0] * len(wanted), -room
    for place in sorted(range(len(wanted)), key=wanted.__getitem__):
        last = found[place] = max(wanted[place], last + room)
    below = max(last - (HEIGHT - BOTTOM), 0.0)
    return [one - below for one in found]
