"""The options that choose an algorithm and its parameters, and its schedule as a table."""

from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from agent.cli import words
from agent.cli.tables import new_table
from agent.domain.algo import Algo, Shortfall, Twap
from agent.domain.amount import Amount
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.execution.schedule import timetable

AFTER_NS = 60_000_000_000  # what is left at the end of the duration may still be traded for so long
SHOWN_MAX = 12  # parts of a schedule in a table

Name = Annotated[
    Literal["twap", "is"] | None,
    typer.Option("--algo", help="twap: evenly over time; is: implementation shortfall, sooner by --urgency."),
]
Duration = Annotated[str, typer.Option("--duration", help="Of the algorithm: 10m, 2h.")]
Interval = Annotated[str, typer.Option("--interval", help="Of its slices: 5s, 1m.")]
Urgency = Annotated[
    int, typer.Option("--urgency", help="Of `is`, in per cent: 0 is a TWAP, 300 trades half within the first quarter.")
]
RandomiseSize = Annotated[int, typer.Option("--randomise-size", help="Slices larger or smaller by up to so many per cent.")]
RandomiseTime = Annotated[int, typer.Option("--randomise-time", help="Slices later by up to so many per cent of the interval.")]
CatchUp = Annotated[int, typer.Option("--catch-up", help="What was missed: at most so many per cent of a slice at once.")]


def chosen(name: str | None, duration: str, interval: str, urgency: int, randomise: tuple[int, int], catch_up: int) -> Algo | None:
    """None without --algo. Raises UsageError for a duration that is none; whether it all makes sense is for risk to say."""
    if name is None:
        return None
    lasting, every = words.duration(duration, "--duration"), words.duration(interval, "--interval")
    if not every or not lasting:
        raise UsageError("--duration and --interval must be above zero; write 30s, 20m or 2h")
    if name == "twap":
        return Twap(lasting, every, *randomise, catch_up)
    return Shortfall(lasting, every, urgency, *randomise, catch_up)


def timetable_rows(intent: Intent) -> list[dict[str, Any]]:
    """[{after_s, quantity, total}] for each slice that is planned."""
    if intent.algo is None:
        return []
    table, asset = timetable(intent.algo, intent.quantity.units, intent.intent_id), intent.quantity.asset
    return [
        {"after_s": start / 1e9, "quantity": Amount(table.part(at), asset), "total": Amount(table.units[at], asset)}
        for at, start in enumerate(table.starts_ns)
    ]


def timetable_lines(intent: Intent) -> Table:
    """The first slices and the last."""
    found = new_table(("slice", "after", intent.base, "in all"))
    rows = list(enumerate(timetable_rows(intent), 1))
    shown = rows if len(rows) <= SHOWN_MAX else [*rows[: SHOWN_MAX - 1], rows[-1]]
    for number, row in shown:
        if number == len(rows) and len(rows) > SHOWN_MAX:
            found.add_row("…", "…", "…", "…")
        amounts = (f"{float(str(row[key]).partition(' ')[0]):,.6g}" for key in ("quantity", "total"))
        found.add_row(str(number), f"{row['after_s']:.1f} s", *amounts)
    return found
