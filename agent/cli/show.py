"""How results look: rich tables for people, plain JSON for scripts. Numbers are printed as they are, rounded only for the eye."""

import json
import sys
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.domain.amount import Amount, decimal_of, plain
from agent.domain.events import Break, Routed
from agent.domain.price import Price
from agent.domain.price import decimal_of as price_decimal
from agent.engine.summary import Summary

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output; money as exact text."""
    sys.stdout.write(json.dumps(jsonable(value), indent=2) + "\n")


def jsonable(value: Any) -> Any:
    """Amounts become {"amount", "asset"}, prices decimal text; everything else as msgspec sees it."""
    if isinstance(value, Amount):
        return {"amount": plain(value.units, value.asset.decimals), "asset": str(value.asset)}
    if isinstance(value, Price):
        return f"{price_decimal(value):.8f}"
    if isinstance(value, msgspec.Struct):
        return {name: jsonable(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value


def coins(amount: Amount, places: int = 4) -> str:
    return f"{decimal_of(amount):,.{places}f}"


def money(price: Price | None, places: int = 3) -> str:
    return "-" if price is None else f"{price_decimal(price):,.{places}f}"


def bps(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} bps"


def route_table(route: Routed, title: str = "") -> Table:
    """A split with its reasons, and what each venue alone would have given."""
    head = title or f"slice {route.slice_index + 1}: {coins(route.quantity)} {route.quantity.asset.group}"
    table = Table(title=head, title_justify="left", title_style="bold", expand=False)
    for name, justify in (("source", "left"), ("share", "right"), ("base", "right"), ("price", "right"), ("all-in", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("fee", justify="right")
    table.add_column("gas", justify="right")
    table.add_column("why", overflow="fold")
    for p in route.pieces:
        table.add_row(
            p.instrument,
            f"{p.share:.1%}",
            coins(p.base),
            f"{p.price:,.3f}",
            f"{p.price_all_in:,.3f}",
            f"{p.fee_pips / 100:g} bps",
            coins(p.gas, 2),
            p.why,
        )
    return table


def alternatives_table(route: Routed) -> Table:
    table = Table(title="the same quantity at one place alone", title_justify="left", title_style="bold")
    table.add_column("place")
    table.add_column("all-in", justify="right")
    table.add_column("split is better by", justify="right")
    table.add_column("note", overflow="fold")
    for one in sorted(route.alternatives, key=lambda a: (a.quote is None, -(a.quote.units if a.quote else 0))):
        if one.quote is None or not route.quantity:
            table.add_row(one.venue, "-", "-", one.why)
            continue
        ours, theirs = decimal_of(route.quote), decimal_of(one.quote)
        gain = float((ours / theirs - 1) * 10_000) if theirs else 0.0
        table.add_row(one.venue, f"{theirs / decimal_of(route.quantity):,.3f}", f"{gain:+.2f} bps", one.why)
    return table


def summary_panel(done: Summary, breaks: list[Break] | tuple[Break, ...]) -> Group:
    """The end of an order on one screen."""
    legs = Table(title="legs", title_justify="left", title_style="bold")
    for name, justify in (
        ("order", "left"),
        ("source", "left"),
        ("state", "left"),
        ("base", "right"),
        ("price after fee", "right"),
    ):
        legs.add_column(name, justify=justify)  # type: ignore[arg-type]
    legs.add_column("fee", justify="right")
    legs.add_column("fills", justify="right")
    legs.add_column("transaction")
    for leg in done.legs:
        legs.add_row(
            leg.order_id,
            leg.instrument,
            leg.state,
            coins(leg.base),
            money(leg.price),
            coins(leg.fee, 2),
            str(leg.fills),
            leg.tx_hash[:12],
        )
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold")
    lines.add_column()
    quote, base = done.quote.asset.group, done.quantity.asset.group
    lines.add_row("status", f"{done.status}  {done.reason}".strip())
    lines.add_row("filled", f"{coins(done.filled)} of {coins(done.quantity)} {base} in {done.slices} slices, {done.seconds:.1f} s")
    lines.add_row(
        "all-in price", f"{money(done.all_in_price)} {quote}  (after fees {coins(done.fees, 2)}, gas {coins(done.gas.quote, 2)})"
    )
    lines.add_row("against arrival", f"{money(done.arrival_price)}   {bps(done.arrival_bps)}")
    if done.best_single_venue is not None:
        one = done.best_single_venue
        lines.add_row("best single venue", f"{money(one.price)}   {one.instrument}")
        lines.add_row("improvement", Text(bps(done.improvement_bps), style="green" if (done.improvement_bps or 0) > 0 else "red"))
    paid = f"{plain(done.gas.paid.units, 18)[:10]} ETH" if done.gas.paid else "none"
    lines.add_row("gas", f"{paid} in {done.gas.transactions} transactions")
    lines.add_row("reconciliation", Text(f"{len(breaks)} breaks", style="green" if not breaks else "red"))
    return Group(legs, Panel(lines, title=f"{done.side} {coins(done.quantity, 2)} {base} for {quote}", expand=False))


def breaks_table(breaks: list[Break] | tuple[Break, ...]) -> Table:
    table = Table(title=f"{len(breaks)} breaks", title_justify="left", title_style="bold")
    for name in ("venue", "asset", "journal", "outside", "cause"):
        table.add_column(name, overflow="fold")
    for one in breaks:
        table.add_row(one.venue, one.asset, str(one.journal), str(one.outside), one.cause)
    return table
