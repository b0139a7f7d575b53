"""A small plot with logarithmic axes, as SVG text: enough for one page, and no library for it."""

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 238, 48, 56
COLOURS = ("#0b6e4f", "#3ca370", "#1f5fa8", "#b3541e", "#8a3ffc", "#7a7a7a", "#a8174b")
FONT = 'font-family="system-ui, sans-serif"'


class Line(msgspec.Struct, frozen=True):
    """One curve: positive points, x rising."""

    name: str
    points: list[tuple[float, float]]


def draw(title: str, across: str, up: str, lines: Sequence[Line]) -> str:
    """All curves with a grid at the powers of ten and their names at their ends."""
    lines = [line for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low_x, high_x = math.log10(min(xs)), math.log10(max(xs))
    low_y, high_y = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def place(x: float, y: float) -> tuple[float, float]:
        wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        part_x = (math.log10(x) - low_x) / ((high_x - low_x) or 1)
        part_y = (math.log10(y) - low_y) / ((high_y - low_y) or 1)
        return round(LEFT + wide * part_x, 1), round(TOP + high * (1 - part_y), 1)

    right = WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 26, title, size=16, weight="600"),
        _text((LEFT + right) / 2, HEIGHT - 12, across, anchor="middle"),
        _text(0, 0, up, anchor="middle", place=f"translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"),
    ]
    for power in range(low_y, high_y + 1):
        _, y = place(min(xs), 10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{10**power:,}" if power >= 0 else f"{10.0**power:g}", anchor="end"))
    for x_value in sorted(set(xs)):
        x, _ = place(x_value, 10.0**low_y)
        parts.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{x_value:,.0f}", anchor="middle"))
    names = _apart([place(*line.points[-1])[1] for line in lines])
    for number, (line, name_y) in enumerate(zip(lines, names, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in places]
        end_x, end_y = places[-1]
        parts.append(f'<line x1="{end_x + 4}" y1="{end_y}" x2="{right + 12}" y2="{name_y}" stroke="{colour}" stroke-width="0.7"/>')
        parts.append(_text(right + 16, name_y + 4, line.name, colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _apart(wanted: Sequence[float], room: float = 18.0) -> list[float]:
    """The same heights, moved down where names would cover one another."""
    found = [0.0] * len(wanted)
    last = -math.inf
    for i in sorted(range(len(wanted)), key=wanted.__getitem__):
        last = found[i] = max(wanted[i], last + room)
    return found


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: str = "400",
    colour: str = "#222222",
    place: str = "",
) -> str:
    move = f' transform="{place}"' if place else ""
    style = f'{FONT} font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}{move}>{escape(text)}</text>'
