"""The analysis of an order as tables that fit a terminal of 80 columns."""

from collections.abc import Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.cli.show import Names, bps, coins, gain, money, short
from agent.cli.tables import gap_table, new_table
from agent.domain.amount import Amount
from agent.engine.analysis import Analysis
from agent.engine.many import Row
from agent.engine.traded import Group, Markout
from agent.execution.tca import PARTS

PART_WORDS = {
    "delay": "delay before the first slice",
    "timing": "the market moved meanwhile",
    "spread": "half the spread",
    "impact": "impact and depth",
    "fees": "fees, those of pools too",
    "gas": "gas",
    "opportunity": "not traded in the end",
}
LIQUIDITY_WORDS = {"taker": "took", "maker": "rested", "pool": "pools"}


def whole(found: Analysis, names: Names) -> Lines:
    """Everything, the headline first."""
    shown: list[RenderableType] = [headline(found), cost_table(found), "", benchmark_table(found), ""]
    if found.points:
        shown += [group_table("traded at", found.by_source, names), ""]
        shown += [group_table("traded how", found.by_liquidity, LIQUIDITY_WORDS.get), ""]
        shown += [gap_table(found.gap, found.shortfall.total.asset.group), ""]
    return Lines(*shown, else_table(found, names), *missing_lines(found))


def headline(found: Analysis) -> Panel:
    cost, lines = found.shortfall, Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    lines.add_row("status", f"{found.status}  {found.reason}".strip())
    lines.add_row("worked as", f"{found.algo}, {seconds(found):,.1f} s, {len(found.points)} fills")
    lines.add_row("filled", f"{coins(found.filled)} of {short(found.quantity)}")
    quote = cost.total.asset.group
    lines.add_row("cost", Text(f"{plain_bps(cost.bps)} against arrival, {signed(cost.total)} {quote}", style="bold"))
    lines.add_row("price", f"{price(found.price)} before fees, {money(found.price_all_in)} all-in")
    if found.participation is not None:
        lines.add_row("participation", f"{found.participation:.2%} of {found.market_volume:,.2f} traded on books meanwhile")
    return Panel(lines, title=f"{found.intent_id}: {found.side} {short(found.quantity)} for {quote}", expand=False)


def cost_table(found: Analysis) -> Table:
    """Positive parts cost; they add up."""
    cost = found.shortfall
    table = new_table(("cost against arrival", cost.total.asset.group, "bps"), ("cost against arrival",))
    for name in PARTS:
        part: Amount | None = getattr(cost, name)
        table.add_row(PART_WORDS[name], "not known" if part is None else signed(part), plain_bps(cost.share(part), unit=""))
    table.add_row("in all", signed(cost.total), plain_bps(cost.bps, unit=""), style="bold")
    return table


def benchmark_table(found: Analysis) -> Table:
    """The mean price before fees against the market's."""
    table = new_table(("benchmark", "price", "cost bps"), ("benchmark",))
    for one in found.benchmarks:
        table.add_row(one.name, price(one.price), plain_bps(one.cost_bps, unit=""))
    return table


def group_table(title: str, groups: Sequence[Group], names: object) -> Lines:
    """`names`: how a group's name is shown. Markouts are positive when they are good for us."""
    ages = [f"+{one.after_s} s" for one in groups[0].markouts] if groups else []
    table = new_table((title, "share", "price", "cost", "spread", *ages), (title,))
    for one in groups:
        name = names(one.name) if callable(names) else one.name
        row = (f"{one.share:.0%}", price(one.price), f"{one.cost_bps:+.2f}", f"{one.spread_bps:+.2f}")
        table.add_row(name or one.name, *row, *(markout_text(mark) for mark in one.markouts))
    note = "bps against arrival with fees, against the middle, and markouts (+ is good)"
    return Lines(table, Text(f"  {note}", style="dim"))


def else_table(found: Analysis, names: Names) -> Table:
    """What else could have been done, and by how much this was better."""
    table = new_table(("what else could have been done", "all-in", "this was better by"), ("what else could have been done",))
    if found.at_once is not None:
        table.add_row("all of it at arrival", money(found.at_once.price), gain(found.at_once.better_bps))
    if found.best_single is not None:
        table.add_row(
            f"all slices at {names(found.best_single.instrument)}", money(found.best_single.price), gain(found.improvement_bps)
        )
    return table


def missing_lines(found: Analysis) -> list[Text]:
    return [Text(f"not known: {text}", style="dim", overflow="fold") for text in found.missing]


def rows_table(found: Sequence[Row], by: str) -> Lines:
    """Many orders put together."""
    table = new_table((by, "orders", "value", "mean bps", "95 % interval", "by value", "+10 s"), (by,))
    for one in found:
        span = "-" if one.low_bps is None or one.high_bps is None else f"{one.low_bps:+.2f} to {one.high_bps:+.2f}"
        value = f"{coins(one.notional, 0)} {one.notional.asset.group}"
        markout = "-" if one.markout_10s_bps is None else f"{one.markout_10s_bps:+.2f}"
        table.add_row(one.name, str(one.orders), value, f"{one.cost_bps:+.2f}", span, f"{one.weighted_bps:+.2f}", markout)
    note = "against arrival, after fees and gas; +10 s: the market then, + is good for us"
    if by == "venue":
        note = (
            "cost of what was traded there against arrival, after fees, before gas; positive costs. +10 s: positive is good for us."
        )
    return Lines(table, Text(f"  {note}", style="dim"))


def signed(part: Amount) -> str:
    text = coins(part)
    return text if part.units < 0 else f"+{text}"


def plain_bps(value: float | None, unit: str = " bps") -> str:
    return "-" if value is None else bps(value).removesuffix(" bps") + unit


def price(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}"


def markout_text(one: Markout) -> str:
    return "-" if one.bps is None else f"{one.bps:+.2f}"


def seconds(found: Analysis) -> float:
    """How long it was worked; until its last trade while it still is."""
    end_s = found.ended_ns / 1e9 if found.ended_ns else max((one.at_s for one in found.points), default=found.begun_ns / 1e9)
    return max(end_s - found.begun_ns / 1e9, 0.0)
