"""A page of HTML that is complete in itself: nothing is fetched, nothing runs, it is read by day and by night, and it prints."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --rule: #d8dde4; --page: #ffffff; --card: #f5f7f9;
  --market: #5b6675; --taker: #b3541e; --maker: #0b7a57; --pool: #2f67b1; --plan: #9aa4b0; --cost: #b3541e; --gain: #0b7a57; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa4b0; --rule: #343c47; --page: #14181d; --card: #1d232a;
  --market: #9aa4b0; --taker: #e58a52; --maker: #46bf92; --pool: #6ea5ea; --plan: #5b6675; --cost: #e58a52; --gain: #46bf92; } }
@media print { :root { color-scheme: light; --ink: #000000; --soft: #444444; --rule: #cccccc; --page: #ffffff; --card: #f5f7f9;
  --market: #5b6675; --taker: #b3541e; --maker: #0b7a57; --pool: #2f67b1; --plan: #9aa4b0; --cost: #b3541e; --gain: #0b7a57; }
  section { break-inside: avoid; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 960px; margin: 2em auto;
  padding: 0 1.2em; }
h1 { font-size: 1.5em; margin: 0; } h2 { font-size: 1.05em; margin: 2em 0 .5em; } .soft, figcaption { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: .7em; margin: 1.2em 0; }
.card { background: var(--card); border-radius: 8px; padding: .6em 1em; flex: 1 1 150px; }
.card b { display: block; font-size: 1.3em; font-variant-numeric: tabular-nums; } .card.first b { font-size: 1.7em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } figure { margin: 0; }
th, td { text-align: right; padding: .25em .6em; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child, td.left { text-align: left; } th { color: var(--soft); font-weight: 500; }
tr.all td { font-weight: 600; } .wide { overflow-x: auto; } svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke-width: 1.6; } svg path.market { stroke: var(--market); } svg path.plan { stroke: var(--plan);
  stroke-dasharray: 5 4; } svg path.done, svg path.arrival { stroke: var(--pool); } svg path.vwap { stroke: var(--maker);
  stroke-dasharray: 2 3; } svg path.twap { stroke: var(--taker); stroke-dasharray: 2 3; }
svg path.arrival { stroke-dasharray: 7 4; }
svg .dot { fill-opacity: .75; stroke: var(--page); stroke-width: .6; } svg .dot.taker { fill: var(--taker); }
svg .dot.maker { fill: var(--maker); } svg .dot.pool { fill: var(--pool); } svg .bar.cost { fill: var(--cost); }
svg .bar.gain { fill: var(--gain); } svg .bar.whole { fill: var(--ink); } svg .bar.share { fill: var(--pool); }
.key { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin: 0 .3em 0 1em; }
footer { margin: 3em 0 1em; color: var(--soft); font-size: .85em; }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole file. `body`: HTML."""
    lines = "\n".join(body)
    head = f'<meta name="viewport" content="width=device-width, initial-scale=1"/><title>{escape(title)}</title>'
    style = f"<style>{STYLE}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>{head}{style}</head>\n<body>\n{lines}\n</body></html>\n'


def section(title: str, inside: str, note: str = "") -> str:
    """One part of the page, left out when there is nothing inside. `inside` and `note` are HTML already."""
    if not inside:
        return ""
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    return f"<section><h2>{escape(title)}</h2><figure>{inside}{caption}</figure></section>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Everything is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
