"""`simulate`: whole days of the agent in virtual time, from a seed each, while exchanges, the chain, disk and clock misbehave."""

import sys
import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.cli.options import Json
from agent.cli.show import err, line, out, print_json
from agent.cli.tables import new_table
from agent.domain.errors import UsageError, VenueError
from agent.simulation.drill.day import Day, records
from agent.simulation.drill.faults import FAULTS, check_names
from agent.simulation.drill.laws import LAWS
from agent.simulation.drill.run import Total, days, quiet

SEEDS_MAX = 10_000_000
SHOWN_MAX = 5  # days that went wrong, told in full


def simulate(
    seeds: Annotated[str, typer.Option("--seeds", metavar="A:B", help="From A up to, not including, B.")] = "0:100",
    fault: Annotated[list[str] | None, typer.Option("--fault", metavar="NAME", help="Only this fault; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Processes that share the seeds.")] = 1,
    trace: Annotated[bool, typer.Option("--trace", help="Print every record of one seed's journal.")] = False,
    list_faults: Annotated[bool, typer.Option("--list-faults", help="Every fault, with what it does.")] = False,
    as_json: Json = False,
) -> None:
    """Simulate days with faults and hold the agent to its laws. Exit code 4 when one is broken."""
    if list_faults:
        _list(as_json=as_json)
        return
    found, only = seeds_of(seeds), check_names(fault or [])
    quiet()
    if trace:
        _trace(found, only)
        return
    began_s = time.monotonic()
    total, failed = _run(found, only, jobs, is_shown=not as_json and sys.stderr.isatty())
    spent_s = max(time.monotonic() - began_s, 1e-9)
    if as_json:
        print_json(_document(found, only, total, failed, spent_s))
    else:
        _tell(total, failed, only, spent_s)
    raise typer.Exit(VenueError.exit_code if failed else 0)


def seeds_of(text: str) -> range:
    """`3:10` is 3 to 9, `7` is 7 alone. Raises UsageError."""
    first, colon, last = text.partition(":")
    if not first.isdigit() or not first.isascii() or (colon and not (last.isdigit() and last.isascii())) or len(text) > 40:
        raise UsageError(f"--seeds {text[:40]!r}: write A:B with whole numbers, for example 0:1000")
    found = range(int(first), int(last) if colon else int(first) + 1)
    if not 0 < len(found) <= SEEDS_MAX or found.stop > 2**63:
        raise UsageError(f"--seeds {text}: between 1 and {SEEDS_MAX} seeds, the first before the last")
    return found


def _run(found: range, only: list[str], jobs: int, *, is_shown: bool) -> tuple[Total, list[Day]]:
    total, failed = Total(), list[Day]()
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not is_shown) as progress:
        task = progress.add_task("simulating", total=len(found))
        for day in days(found, only, jobs):
            total.add(day)
            if day.violations:
                failed.append(day)
            wrong = f", {len(failed)} wrong" if failed else ""
            progress.update(task, advance=1, description=f"simulating ({total.orders} orders{wrong})")
    return total, sorted(failed, key=lambda day: day.seed)


def _tell(total: Total, failed: list[Day], only: list[str], spent_s: float) -> None:
    sums = Table.grid(padding=(0, 2))
    sums.add_column(style="bold")
    sums.add_column(justify="right")
    for name, value in (
        ("seeds", f"{total.seeds:,}"),
        ("simulated", f"{total.hours:,.1f} h"),
        ("orders", f"{total.orders:,}"),
        ("fills", f"{total.fills:,}"),
        ("kills", f"{total.kills:,}"),
        ("starts again", f"{total.restarts:,}"),
        ("reorganisations", f"{total.reorgs:,}"),
        ("in doubt at most", f"{total.doubt_s_max:.1f} s after the faults"),
        ("violations", f"{total.violations:,}"),
        ("seeds a second", f"{total.seeds / spent_s:,.1f}"),
    ):
        sums.add_row(name, value)
    table = new_table(("fault", "struck"), ("fault",))
    for name, count in sorted(total.struck.items(), key=lambda pair: (-pair[1], pair[0])):
        table.add_row(name, f"{count:,}")
    out.print(table)
    if not only and (idle := total.idle):
        line(f"never struck   {', '.join(idle)}")
    out.print(sums)
    for day in failed[:SHOWN_MAX]:
        _tell_failed(day, only)
    if len(failed) > SHOWN_MAX:
        line(f"and {len(failed) - SHOWN_MAX} more: seeds {', '.join(str(day.seed) for day in failed[SHOWN_MAX : SHOWN_MAX + 20])}")


def _tell_failed(day: Day, only: list[str]) -> None:
    line("")
    line(f"seed {day.seed}: {len(day.violations)} violations")
    for one in day.violations:
        line(f"  {one.law} at record {one.seq}: {one.text}")
        line(f"    the law: {LAWS[one.law]}")
    line("  the last records:")
    for text in day.tail:
        line(f"    {text}")
    line(f"  again: {again(day.seed, only)}")


def again(seed: int, only: list[str]) -> str:
    """The command that repeats one day."""
    return f"isthmus simulate --seeds {seed}:{seed + 1}" + "".join(f" --fault {name}" for name in only) + " --trace"


def _document(found: range, only: list[str], total: Total, failed: list[Day], spent_s: float) -> dict[str, Any]:
    return {
        "seeds": [found.start, found.stop],
        "faults": only or "all",
        "violations": total.violations,
        "total": total,
        "never_struck": total.idle if not only else [],
        "seconds": round(spent_s, 1),
        "seeds_per_second": round(total.seeds / spent_s, 2),
        "failed": [{"again": again(day.seed, only), "day": day} for day in failed[:100]],
    }


def _list(*, as_json: bool) -> None:
    if as_json:
        print_json({name: {"rows": fault.rows.split(), "text": fault.text} for name, fault in FAULTS.items()})
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for name, fault in FAULTS.items():
        table.add_row(name, fault.rows, fault.text)
    out.print(table)


def _trace(found: range, only: list[str]) -> None:
    if len(found) != 1:
        raise UsageError("--trace prints one seed: write --seeds 7:8")
    day, texts = records(found.start, only)
    for text in texts:
        line(text)
    for one in day.violations:
        line(f"broken: {one.law} at record {one.seq}: {one.text}")
    line(f"head {day.head}")
    raise typer.Exit(VenueError.exit_code if day.violations else 0)
