"""The analysis of an order as one page that a trader sends to a colleague: the headline, charts, and every table behind them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from math import sqrt

from agent import __version__
from agent.cli import svg
from agent.cli.algos import timetable_rows
from agent.cli.page import document, section, table
from agent.cli.show import Names, coins, hash_short, money, short
from agent.cli.svg import Dot, Line, Strip
from agent.cli.tca_tables import LIQUIDITY_WORDS, PART_WORDS, markout_text, plain_bps, price, seconds, signed
from agent.domain.amount import Amount, decimal_of
from agent.engine.analysis import Analysis
from agent.engine.state import State
from agent.engine.summary import Child, summary
from agent.engine.traded import Group
from agent.execution.tca import PARTS

DOTS_MAX = 2_000  # fills that the chart shows, the largest
GAP_S = 5.0  # where the market was not recorded for longer, its line is broken
ROWS_MAX = 300  # orders in the table


def page(found: Analysis, state: State, names: Names) -> str:
    """The whole document."""
    done = summary(state, found.intent_id)
    title = f"{found.side.capitalize()} {short(found.quantity)} for {found.shortfall.total.asset.group}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_when(found))}</p>',
        _cards(found),
        f"<p>{escape(sentence(found))}</p>",
        section("Price and trades", _price_chart(found), _price_key(found)),
        section("Schedule and what was traded", _schedule_chart(found, state), "dashed: the schedule, line: what was traded"),
        section("What it cost against arrival", _cost_chart(found), "positive costs; the parts add up exactly"),
        section("Benchmarks", _benchmarks(found), "of the mean price before fees; positive costs"),
        section("Where it traded", _shares(found, names) + _groups(found.by_source, names, "source")),
        section("How it traded", _groups(found.by_liquidity, lambda name: LIQUIDITY_WORDS.get(name, name), "trades")),
        section("Where the market went afterwards", _markout_chart(found), "by value; positive is good for us"),
        section("What else could have been done", _others(found, names), "all-in prices, after fees and gas"),
        section("Orders", _orders(done.children, names, found)),
        _missing(found),
        f"<footer>{escape(_footer(found))}</footer>",
    ]
    return document(title, body)


def sentence(found: Analysis) -> str:
    """The headline in words: what it cost, and the part that weighs most."""
    cost = found.shortfall
    quote, parts = cost.total.asset.group, {name: getattr(cost, name) for name in PARTS}
    known = {name: part for name, part in parts.items() if part}
    if not known:
        return "Nothing was traded, and nothing was lost by that."
    word = "cost" if cost.total.units >= 0 else "earned"
    amount = coins(cost.total if cost.total.units >= 0 else -cost.total)
    text = f"It {word} {amount} {quote} against the price at arrival"
    if cost.bps is not None:
        text += f", {abs(cost.bps):.2f} bps of {coins(cost.notional, 0)} {quote}"
    most = max(known, key=lambda name: abs(known[name].units))
    return f"{text}. The part that weighs most: {PART_WORDS[most]}, {signed(known[most])} {quote}."


# -- parts of the page -------------------------------------------------------------------------------------------------


def _cards(found: Analysis) -> str:
    cost, vwap = found.shortfall, next(one for one in found.benchmarks if one.name == "VWAP")
    cards = [
        ("against arrival, positive costs", plain_bps(cost.bps), "first"),
        ("the same in money", f"{signed(cost.total)} {cost.total.asset.group}", ""),
        ("filled", f"{coins(found.filled)} of {coins(found.quantity)}", ""),
        ("mean price before fees", price(found.price), ""),
        ("all-in price", money(found.price_all_in), ""),
        ("against the market's VWAP", plain_bps(vwap.cost_bps), ""),
        ("of what books traded meanwhile", "-" if found.participation is None else f"{found.participation:.2%}", ""),
        ("from start to end", svg.clock(seconds(found)), ""),
    ]
    inside = "".join(f'<div class="card {kind}"><b>{escape(value)}</b>{escape(name)}</div>' for name, value, kind in cards)
    return f'<div class="cards">{inside}</div>'


def _price_chart(found: Analysis) -> str:
    start_s, digits = found.begun_ns / 1e9, 2
    market = [(bar.start_s + 1 - start_s, bar.mid) for bar in found.bars if bar.mid > 0]
    last = max([seconds(found), *(point.at_s - start_s for point in found.points), *(x for x, _ in market)])
    first = min([0.0, *(x for x, _ in market)])
    lines = [Line("middle", market, "market", gap=GAP_S)] if market else []
    lines += [
        Line(f"{one.name} {one.price:,.{digits}f}", [(0.0, one.price), (seconds(found), one.price)], one.name.lower())
        for one in found.benchmarks
        if one.name in ("arrival", "VWAP", "TWAP") and one.price is not None
    ]
    largest = max((point.size for point in found.points), default=1.0)
    chosen = sorted(found.points, key=lambda point: -point.size)[:DOTS_MAX]
    dots = [
        Dot(
            point.at_s - start_s,
            point.price,
            point.liquidity,
            2 + 5 * sqrt(point.size / largest),
            f"{point.size:,.6g} at {point.price:,.4f}, {point.instrument}, {point.order_id}",
        )
        for point in chosen
    ]
    return svg.plot(
        "price and trades over time", lines, dots, digits=digits, unit=found.shortfall.total.asset.group, span=(first, last)
    )


def _price_key(found: Analysis) -> str:
    kinds = dict.fromkeys(point.liquidity for point in found.points)
    return "".join(f'<span class="key" style="background: var(--{kind})"></span>{LIQUIDITY_WORDS[kind]}' for kind in kinds)


def _schedule_chart(found: Analysis, state: State) -> str:
    start_s = found.begun_ns / 1e9
    done = [(0.0, 0.0), *((point.at_s - start_s, point.total) for point in found.points), (seconds(found), _float(found.filled))]
    lines = [Line("traded", done, "done", is_step=True)]
    rows = timetable_rows(state.parents[found.intent_id].intent)
    if rows:
        planned = [(0.0, 0.0), *((float(row["after_s"]), _float(row["total"])) for row in rows)]
        lines.insert(0, Line("planned", [*planned, (seconds(found), planned[-1][1])], "plan", is_step=True))
    last = max(x for line in lines for x, _ in line.points)
    return svg.plot("schedule and what was traded", lines, (), digits=2, unit=found.quantity.asset.group, span=(0.0, last))


def _cost_chart(found: Analysis) -> str:
    cost, at, strips = found.shortfall, 0.0, list[Strip]()
    for name in PARTS:
        part: Amount | None = getattr(cost, name)
        value = _float(part) if part is not None else 0.0
        told = "not known" if part is None else f"{signed(part)}  ({plain_bps(cost.share(part))})"
        strips.append(Strip(PART_WORDS[name], at, at + value, told, "cost" if value >= 0 else "gain"))
        at += value
    total = f"{signed(cost.total)} {cost.total.asset.group}  ({plain_bps(cost.bps)})"
    return svg.strips("cost by part", [*strips, Strip("in all", 0.0, at, total, "whole")])


def _benchmarks(found: Analysis) -> str:
    rows = [(one.name, price(one.price), plain_bps(one.cost_bps, unit="")) for one in found.benchmarks]
    return table(("benchmark", "price", "cost bps"), rows)


def _shares(found: Analysis, names: Names) -> str:
    strips = [Strip(names(one.name), 0.0, one.share, f"{one.share:.1%}", "share") for one in found.by_source]
    return svg.strips("share by source", strips)


def _groups(groups: Sequence[Group], names: object, title: str) -> str:
    ages = [f"+{mark.after_s} s" for mark in groups[0].markouts] if groups else []
    rows = [
        (
            names(one.name) if callable(names) else one.name,
            coins(one.base),
            f"{one.share:.1%}",
            str(one.fills),
            price(one.price),
            coins(one.fees, 2),
            f"{one.cost_bps:+.2f}",
            f"{one.spread_bps:+.2f}",
            *(markout_text(mark) for mark in one.markouts),
        )
        for one in groups
    ]
    return table((title, "amount", "share", "fills", "price", "fees", "cost bps", "against middle", *ages), rows)


def _markout_chart(found: Analysis) -> str:
    """One bar for each age."""
    known = [(mark.after_s, mark.bps, mark.share) for mark in found.markouts if mark.bps is not None]
    strips = [
        Strip(
            f"after {after_s} s",
            0.0,
            bps,
            f"{bps:+.2f} bps" + ("" if share == 1 else f" of {share:.0%}"),
            "gain" if bps >= 0 else "cost",
        )
        for after_s, bps, share in known
    ]
    return svg.strips("markouts", strips)


def _others(found: Analysis, names: Names) -> str:
    rows = [("as it was", money(found.price_all_in), "")]
    if found.at_once is not None:
        rows.append(("all of it at arrival", money(found.at_once.price), plain_bps(found.at_once.better_bps)))
    if found.best_single is not None:
        rows.append(
            (
                f"all slices at {names(found.best_single.instrument)}",
                money(found.best_single.price),
                plain_bps(found.improvement_bps),
            )
        )
    return table(("way", "all-in price", "as it was is better by"), rows)


def _orders(children: Sequence[Child], names: Names, found: Analysis) -> str:
    base = found.quantity.asset.group
    rows = [
        (
            one.order_id,
            "+".join(names(name) for name in one.instruments) or one.kind,
            one.state,
            coins(one.base),
            money(one.price),
            str(one.fills),
            hash_short(one.tx_hash),
        )
        for one in children[:ROWS_MAX]
    ]
    more = f'<p class="soft">and {len(children) - ROWS_MAX:,} more</p>' if len(children) > ROWS_MAX else ""
    return table(("order", "sources", "state", base, "price after fees", "fills", "transaction"), rows) + more


def _missing(found: Analysis) -> str:
    if not found.missing:
        return ""
    lines = "".join(f"<li>{escape(text)}</li>" for text in found.missing)
    return f"<section><h2>Not known</h2><ul>{lines}</ul></section>"


# -- writing -----------------------------------------------------------------------------------------------------------


def _when(found: Analysis) -> str:
    began = _utc(found.begun_ns)
    until = f"{_utc(found.ended_ns)} UTC" if found.ended_ns else "still worked"
    return f"{found.intent_id}, strategy {found.strategy}, {found.algo}, {found.status.lower()}: {began} to {until}"


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _footer(found: Analysis) -> str:
    return (
        f"Made by isthmus {__version__} from the journal and {len(found.bars):,} seconds of recorded market. "
        "Costs are positive when they cost, markouts are positive when they are good for us. Formulas: docs/tca.md."
    )


def _float(amount: Amount) -> float:
    return float(decimal_of(amount))
