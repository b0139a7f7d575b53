"""`order tca`, `order report` and `tca`: what orders cost and why, for people, for scripts, and as a page for a colleague."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from agent.app import settings_of
from agent.cli import tca_tables
from agent.cli.options import Config, Json
from agent.cli.outcome import gap_told, names_in
from agent.cli.reading import replay
from agent.cli.report import page
from agent.cli.show import line, out, print_json
from agent.config import Loaded
from agent.domain.errors import LedgerError, UsageError
from agent.engine.analysis import Analysis, analysis
from agent.engine.many import KEYS, Row, rows
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.execution.tca import PARTS
from agent.journal.bars import read_bars
from agent.market.bars import SECOND_NS, Bar
from agent.simulation.exchange.tape import TapeError
from agent.simulation.exchange.tape_bars import tape_bars

AROUND_NS = 90 * SECOND_NS
NOTHING = "no order that has ended and traded; `isthmus order list` shows them all"

Name = Annotated[str, typer.Argument(help="A parent's id.")]
Tape = Annotated[
    Path | None,
    typer.Option("--tape", help="A tape of `isthmus record` in place of what the agent itself kept.", show_default=False),
]


def tca(name: Name, tape: Tape = None, config: Config = None, as_json: Json = False) -> None:
    """What one order cost and why: shortfall by parts, benchmarks, markouts, participation, and what else could have been done."""
    loaded = settings_of(config, with_venues=False)
    state = replay(loaded)
    found = analysis(state, name, _bars(loaded, _parent(state, name), tape))
    if as_json:
        print_json(told(found))
    else:
        out.print(tca_tables.whole(found, names_in(state)))


def report(
    name: Name,
    file: Annotated[Path, typer.Option("--out", help="Where to write, for example order.html.")],
    tape: Tape = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The same as one page of HTML with charts, complete in itself: no network, no scripts."""
    loaded = settings_of(config, with_venues=False)
    state = replay(loaded)
    found = analysis(state, name, _bars(loaded, _parent(state, name), tape))
    text = page(found, state, names_in(state))
    try:
        with file.open("w" if force else "x", encoding="utf-8") as page_file:
            page_file.write(text)
    except FileExistsError:
        raise UsageError(f"{file} exists already; say --force, or choose another name") from None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another place") from None
    if as_json:
        print_json({"file": str(file), "bytes": len(text.encode()), "intent_id": name})
    else:
        line(f"{file} written; open it in a browser, or print it")


def many(
    by: Annotated[
        Literal["strategy", "algo", "venue", "side"], typer.Option("--by", help="What orders are put together by.")
    ] = "algo",
    market: Annotated[str, typer.Option("--market", help="Only orders of this pair.")] = "",
    strategy: Annotated[str, typer.Option("--strategy", help="Only orders of this strategy.")] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What all orders that have ended cost, put together, with the interval in which the mean lies in 95 of 100 cases."""
    loaded = settings_of(config, with_venues=False)
    state = replay(loaded)
    chosen = [
        name
        for name, parent in state.parents.items()
        if not parent.is_live
        and parent.filled
        and strategy in ("", parent.intent.strategy)
        and market.upper() in ("", parent.intent.market.upper())
    ]
    known, left_out = list[Analysis](), list[str]()
    for name in chosen:
        try:
            known.append(analysis(state, name))
        except LedgerError as error:  # a fee in a coin without a price: the others still say something
            left_out.append(f"{name}: {error}")
    found = rows(known, KEYS[by])
    if as_json:
        print_json({"by": by, "orders": len(known), "rows": [_row(one) for one in found], "left_out": left_out})
        return
    out.print(tca_tables.rows_table(found, by) if found else NOTHING)
    for text in left_out:
        line(f"left out  {text}", "dim")


def told(found: Analysis) -> dict[str, Any]:
    """For scripts: exact amounts, prices in quote coins per base coin, basis points. The bars are left out."""
    fields = {name: getattr(found, name) for name in Analysis.__struct_fields__ if name != "bars"}
    cost = found.shortfall
    parts = {name: cost.share(getattr(cost, name)) for name in PARTS}
    fields["shortfall"] = msgspec.structs.asdict(cost) | {"bps": parts | {"total": cost.bps}}
    return fields | {"gap": gap_told(found.gap)}


def _row(one: Row) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Row.__struct_fields__}


def _parent(state: State, name: str) -> Parent:
    parent = state.parents.get(name)
    if parent is None:
        order = state.orders.get(name)
        fix = f"it is a child of {order.plan.intent_id}" if order is not None else "`isthmus order list` shows what there is"
        raise UsageError(f"no parent order {name[:40]!r} in the journal; {fix}")
    return parent


def _bars(loaded: Loaded, parent: Parent, tape: Path | None) -> Sequence[Bar]:
    """What was recorded of its market around its time."""
    if tape is None:
        until_ns = parent.ended_ns or 1 << 62
        return read_bars(loaded.home, parent.intent.market, parent.begun_ns - AROUND_NS, until_ns + AROUND_NS)
    try:
        found = tape_bars(tape, parent.intent.market.replace("/", ""))
    except TapeError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot read {tape}: {error.strerror or error}; name a tape of `isthmus record`") from None
    ended_s = (parent.ended_ns or 1 << 62) // SECOND_NS
    if not found or found[0].start_s > ended_s or found[-1].start_s < parent.begun_ns // SECOND_NS:
        raise UsageError(f"{tape.name} is of another time than the order; name a tape that was recorded meanwhile")
    return found
