"""Writes the figures of `docs/benchmarks.md`: `python -m benchmarks page [NAME ...]`, all of them or those that are named.

The page is text with blocks between `<!-- measured: NAME -->` and `<!-- /measured -->`; only blocks are rewritten. Each says when
it was measured and how busy the machine was then, because a figure without that is a rumour.
"""

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks import growth, optimality
from benchmarks.catalogue import measured
from benchmarks.measure import Result
from benchmarks.peers.child import Child
from benchmarks.peers.environments import ENVIRONMENTS, PeerMissingError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PLOT = DOCS / "benchmarks.md", DOCS / "growth.svg"
BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- /measured -->)", re.DOTALL)
PACKAGES = ("ccxt", "coincurve", "eth-account", "msgspec", "numba", "numpy", "safe-pysha3")
BUSY = 1.5  # a load average above it spoils figures on a machine of two cores


def blocks(text: str) -> list[str]:
    """The names of a page's blocks."""
    return [name for _, name, _ in BLOCK.findall(text)]


def rewrite(chosen: Sequence[str] = (), instances: int = 1_000, svg: Path | None = None, page: Path = PAGE) -> None:
    """Measure and write block by block, so that what was measured is kept when the next one fails. `setting` is always written."""
    text = page.read_text(encoding="utf-8")
    if unknown := set(chosen) - set(blocks(text)):
        raise SystemExit(f"{page.name} has no block for {sorted(unknown)[0]!r}; it has {', '.join(blocks(text))}")
    for name in blocks(text):
        if name == "setting" or not chosen or name in chosen:
            print(f"{name} ...", flush=True)
            body = "\n".join(_block(name, instances, svg or PLOT))
            text = BLOCK.sub(lambda m, name=name, body=body: f"{m[1]}{body}\n{m[3]}" if m[2] == name else m[0], text)  # type: ignore[misc]
            page.write_text(text, encoding="utf-8")


def _block(name: str, instances: int, svg: Path) -> Iterator[str]:
    if name == "setting":
        yield from _setting()
        return
    before, when = os.getloadavg()[0], datetime.datetime.now(datetime.UTC)
    match name:
        case "optimality":
            lines = list(_optimality(optimality.measure(instances)))
        case "growth":
            lines = list(_growth(growth.measure(), svg))
        case _:
            lines = list(_table(measured(name)))
    yield from lines
    if lines[-1]:
        yield ""
    yield f"_{when:%Y-%m-%d %H:%M} UTC{'' if name == 'optimality' else _load(before)}._"


def _setting() -> Iterator[str]:
    yield f"* {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, {_memory()}"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _has(name)}
    yield f"* Python {platform.python_version()}: " + ", ".join(f"{name} {version}" for name, version in versions.items())
    for name, one in ENVIRONMENTS.items():
        try:
            with Child(name) as child:
                yield f"* `{name}`: " + ", ".join(f"{package} {version}" for package, version in child.versions.items())
        except PeerMissingError:
            yield f"* `{name}`: not installed here ({one.title} was not measured)"


def _table(results: Sequence[Result]) -> Iterator[str]:
    """One table for everything of ours that was timed: the peers that it stands beside."""
    notes: dict[str, None] = {}
    for what, rows in groupby(results, key=lambda r: r.what):
        ours, *others = rows
        p99 = "" if ours.ours_p99_us is None else f" (p99 {_us(ours.ours_p99_us)})"
        yield f"**{what}: {_us(ours.ours_us)} µs**{p99}"
        yield ""
        yield "| beside | its µs | p99 | ratio |"
        yield "|---|--:|--:|--:|"
        for r in (ours, *others):
            theirs = "not measured | | " if r.ratio is None else f"{_us(r.peer_us)} | {_us(r.peer_p99_us)} | {_times(r.ratio)}"
            yield f"| {r.peer} | {theirs} |"
            notes |= {r.note: None} if r.note else {}
        yield ""
    for note in notes:
        yield f"{note}."
        yield ""


def _optimality(report: optimality.Report) -> Iterator[str]:
    yield f"{report.instances:,} instances, seeds from {optimality.SEED:,}. Basis points of the optimum."
    yield ""
    yield "| case | instances | our gap, search: most | our gap, exact: median, most | HiGHS less ours: most |"
    yield "|---|--:|--:|--:|--:|"
    for row in report.rows:
        exact = "-" if row.exact is None else f"{row.exact.median:.1e}, {row.exact.most:.1e}"
        yield f"| {row.case} | {row.instances} | {_most(row.search)} | {exact} | {_most(row.mixed)} |"
    yield ""
    yield "What others lose against our exact route: median / p95 / most, and below, the least."
    names = list(report.rows[0].peers)
    yield ""
    yield f"| case | {' | '.join(names)} |"
    yield "|---|" + "--:|" * len(names)
    for row in report.rows:
        cells = ("-" if one is None else f"{_bps(one.median)} / {_bps(one.p95)} / {_bps(one.most)}" for one in row.peers.values())
        yield f"| {row.case} | {' | '.join(cells)} |"
    least = [one.least for row in report.rows for one in row.peers.values() if one is not None]
    yield ""
    yield f"The least that any peer lost on any instance: {min(least, default=0.0):.1e} bps. " + (
        "All that is promised held: nobody was better by more than rounding, 0.000001 USDT a leg."
        if not report.failures
        else f"FAILED: {'; '.join(report.failures[:5])}."
    )
    for text in report.missing.values():
        yield f"{text}."


def _growth(found: growth.Growth, svg: Path) -> Iterator[str]:
    svg.write_text(growth.drawn(found), encoding="utf-8")
    yield f"![{growth.TITLE}]({svg.name})"
    yield ""
    yield "| µs | " + " | ".join(f"{size:,}" for size in found["sizes"]) + " |"
    yield "|---|" + "--:|" * len(found["sizes"])
    for name, row in found["us"].items():
        yield f"| {name} | " + " | ".join(_us(us) for us in row) + " |"


def _load(before: float) -> str:
    """What a busy machine does: a call of milliseconds is interrupted, one of microseconds mostly not."""
    busy = "" if before < BUSY else ": a busy machine, which slows long calls more than short ones; measure again when it is quiet"
    return f", load average {before:.1f} before it began{busy}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def _us(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bps(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value >= 0.01 else "0" if value == 0 else "<0.01"


def _most(found: optimality.Losses | None) -> str:
    return "-" if found is None else f"{found.most:.1e}"


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
