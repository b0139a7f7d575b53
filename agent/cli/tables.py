"""Tables that fit a terminal of 80 columns: a route with its reasons, its alternatives, the end of an order, breaks."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.cli.show import Names, bps, coins, gain, hash_short, money, named, short
from agent.domain.amount import Amount, decimal_of, plain
from agent.domain.events import Break, Routed
from agent.domain.price import bps_between
from agent.engine.summary import Child, Leg, Summary
from agent.execution.gap import Gap
from agent.execution.gap import bps as gap_bps
from agent.ports import Repair

GAP_PLACES = 4
GAP_WORDS = {
    "drift": "the market moved",
    "fee": "fees other than told",
    "gas": "gas other than told",
    "sandwich": "traded around us",
    "rest": "thinner than it looked",
}
TOLD_BY_COLUMNS = ("% of size", "with its gas")  # parts of a reason that the table shows as numbers


def new_table(columns: Iterable[str], left: Iterable[str] = ()) -> Table:
    """No frames, no folding: numbers stay whole at 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim")
    named_left = set(left)
    for name in columns:
        table.add_column(name, justify="left" if name in named_left else "right", no_wrap=True)
    return table


def route_lines(route: Routed, names: Names, title: str = "") -> Group:
    """A split, and below it one short line of reason for each piece."""
    base, quote = route.quantity.asset.group, route.quote.asset.group
    head = (
        title
        or f"{route.intent_id} route {route.slice_index + 1}: {short(route.quantity)} -> {named(route.quote)} after fees and gas"
    )
    table = new_table(("source", "share", base, "price", "all-in", "fee", f"gas {quote}"), ("source",))
    for p in route.pieces:
        fee, gas = f"{p.fee_pips / 100:g} bps", coins(p.gas, 2) if p.gas else "-"
        table.add_row(names(p.instrument), f"{p.share:.1%}", coins(p.base), f"{p.price:,.3f}", f"{p.price_all_in:,.3f}", fee, gas)
    return Group(Text(head, style="bold"), table, *reason_lines(route, names))


def reason_lines(route: Routed, names: Names) -> list[Text]:
    """Why each piece is there, where it is known."""
    told = [piece for piece in route.pieces if piece.why]
    return [Text(f"  {names(p.instrument)}: {_reason(p.why)}", style="dim", overflow="fold") for p in told]


def _reason(why: str) -> str:
    kept = [part for part in why.split("; ") if not part.endswith(TOLD_BY_COLUMNS)]
    return "; ".join(kept)


def alternatives_table(route: Routed, names: Names) -> RenderableType:
    """What one place alone would have given for a slice."""
    table = new_table(("place", "all-in", "the split is better by"), ("place",))
    notes = []
    for one in sorted(route.alternatives, key=lambda a: (a.quote is None, -(a.quote.units if a.quote else 0))):
        if one.quote is None or not route.quantity:
            notes.append(Text(f"  {names(one.venue)}: {one.why}", style="dim"))
            continue
        ours, theirs = decimal_of(route.quote), decimal_of(one.quote)
        better = float((ours / theirs - 1) * 10_000) if theirs else None
        table.add_row(names(one.venue), f"{theirs / decimal_of(route.quantity):,.3f}", bps(better))
    return Group(_title("all of it at one place alone, after fees and gas, had the inventory been there"), table, *notes)


def _title(text: str) -> Text:
    return Text(text, style="bold")


def singles_table(done: Summary, names: Names) -> Group:
    """The whole order at one place alone, best first; places that could not have filled every slice are left out."""
    table = new_table(("place", "all-in", "isthmus is better by"), ("place",))
    sign = 1 if done.side == "sell" else -1
    for one in done.singles:
        better = None if done.all_in_price is None else sign * bps_between(done.all_in_price, one.price)
        table.add_row(names(one.instrument), money(one.price), bps(better))
    return Group(_title(f"{short(done.quantity)} at one place alone, had the inventory been there"), table)


def legs_table(legs: Sequence[Leg], done: Summary, names: Names) -> Group:
    """What each source gave. Amounts and prices are after its fee; pools have theirs inside the price."""
    base, quote = done.quantity.asset.group, done.quote.asset.group
    table = new_table(("source", "state", base, quote, "price", "fee", "fills"), ("source", "state"))
    for leg in legs:
        fee = coins(leg.fee, 2) if leg.fee else "-"
        row = (names(leg.instrument), leg.state, coins(leg.base), coins(leg.quote, 2), money(leg.price), fee)
        table.add_row(*row, str(leg.fills))
    return Group(_title("what traded where, after the venues' fees"), table)


def children_table(children: Sequence[Child], done: Summary, names: Names) -> Group:
    """Every order that was sent, without the permissions, which move nothing."""
    base = done.quantity.asset.group
    left = ("order", "sources", "state", "transaction")
    table = new_table(("order", "sources", "state", base, "price", "fills", "transaction"), left)
    told = []
    for one in children:
        if one.kind == "permission":
            continue
        sources = "+".join(names(name) for name in one.instruments)
        table.add_row(one.order_id, sources, one.state, coins(one.base), money(one.price), str(one.fills), hash_short(one.tx_hash))
        if one.reason:
            told.append(Text(f"  {one.order_id}: {one.reason}", style="dim"))
    return Group(_title("orders"), table, *told)


def summary_panel(done: Summary, breaks: Sequence[Break] | None, names: Names) -> Group:
    """The end of an order on one screen. `breaks` None: nothing was held against the venues."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    quote, base = done.quote.asset.group, done.quantity.asset.group
    lines.add_row("status", f"{done.status}  {done.reason}".strip())
    word = "slice" if done.slices == 1 else "slices"
    part = f"{coins(done.filled)} of {coins(done.quantity)} {base}, {done.slices} {word}, {done.seconds:.1f} s"
    lines.add_row("filled", part)
    verb = "received" if done.side == "sell" else "paid"
    lines.add_row(verb, f"{coins(done.quote, 2)} {quote}  (fees {coins(done.fees, 2)}, gas {coins(done.gas.quote, 2)})")
    lines.add_row("all-in price", Text(f"{money(done.all_in_price)} {quote}", style="bold"))
    lines.add_row("arrival price", Text.assemble(f"{money(done.arrival_price)} {quote}  ", gain(done.arrival_bps)))
    if done.best_single_venue is not None:
        one = done.best_single_venue
        lines.add_row("best single venue", f"{money(one.price)} {quote}  {names(one.instrument)}")
        lines.add_row("improvement", gain(done.improvement_bps))
    lines.add_row("gas", _gas(done))
    if breaks is not None:
        lines.add_row("reconciliation", Text(f"{len(breaks)} breaks", style="green" if not breaks else "red"))
    panel = Panel(lines, title=f"{done.side} {short(done.quantity)} for {quote}", expand=False)
    shown: list[RenderableType] = [legs_table(done.legs, done, names), ""] if done.legs else []
    if done.singles:
        shown += [singles_table(done, names), ""]
    return Group(*shown, panel, *([breaks_table(breaks)] if breaks else []))


def gap_table(gap: Gap, quote: str) -> Group:
    """From what was quoted to what was executed, part by part; positive is in the client's favour."""
    table = new_table(("quoted -> executed", quote, "bps"), ("quoted -> executed",))
    table.add_row("quoted", coins(gap.promised, GAP_PLACES), "")
    for name, words in GAP_WORDS.items():
        part: Amount = getattr(gap, name)
        table.add_row(words, _signed(part), _share(gap_bps(part, gap)) if part else "")
    whole = gap_bps(gap.executed - gap.promised, gap)
    table.add_row("executed", coins(gap.executed, GAP_PLACES), _share(whole))
    return Group(_title(f"{short(gap.base)}: what was quoted for it, and what became of it, after fees and gas"), table)


def _signed(part: Amount) -> str:
    """A part that is nothing for the eye is none."""
    text = f"{decimal_of(part):+,.{GAP_PLACES}f}"
    return text if text.strip("+-0.,") else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _gas(done: Summary) -> str:
    if not done.gas.paid:
        return "none"
    once = sum(one.kind == "permission" for one in done.children)
    count = f"{done.gas.transactions} transaction{'s' if done.gas.transactions > 1 else ''}"
    return f"{plain(done.gas.paid.units, 18)[:10]} ETH in {count}" + (f", {once} of them a permission" if once else "")


def breaks_table(breaks: Sequence[Break]) -> Group:
    """Each difference three ways (journal, venue, and what the chain itself proves), and below it its cause."""
    table = new_table(("venue", "asset", "journal", "outside", "proved"), ("venue", "asset"))
    for one in breaks:
        journal, outside = (plain(side.units, side.asset.decimals) for side in (one.journal, one.outside))
        proved = plain(one.proved.units, one.proved.asset.decimals) if one.proved is not None else "-"
        table.add_row(one.venue, one.asset, journal, outside, proved)
    causes = dict.fromkeys(f"  {one.venue} {one.asset.partition('@')[0]}: {one.cause}" for one in breaks)
    return Group(_title(f"{len(breaks)} breaks"), table, *(Text(cause, style="dim") for cause in causes))


def repairs_table(steps: Sequence[Repair], *, is_done: bool) -> Group:
    """What was put right, or would be, and what waits for a person."""
    table = new_table(("venue", "about", "done" if is_done else "would be done", "what"), ("venue", "about", "what"))
    for one in steps:
        table.add_row(one.venue, one.about.partition("@")[0], "yes" if one.events else "no", one.action)
    return Group(_title(f"{len(steps)} steps"), table)
