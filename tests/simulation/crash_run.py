"""The sweep as a program: one warm process that forks a life for every point, lets it be killed there, and forks the next life.

`python tests/simulation/crash_run.py FOLDER --durability power` prints one line of JSON: how many points there are and were
swept, and what was lost or happened twice.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from crash_bugs import BUGS
from crash_life import Finding, live
from crash_points import Points

from agent import observe
from agent.domain.errors import JournalError
from agent.journal.sqlite import Durability, SqliteJournal

AGAIN_MAX = 40  # points into the second life
KILLED = {signal.SIGKILL, signal.SIGXFSZ}  # the second: in the middle of a write


FULL = 3  # how a life ends whose disk is full
PAGES = range(6, 60)  # of the database, from just made to more than the run needs


class Plan(NamedTuple):
    durability: Durability
    points_max: int
    bug: str
    kills_again: bool
    stops_early: bool


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; minus the signal that killed it, or its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - a child must never go on as if it were the parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_life(home: Path, plan: Plan, last: int = 0) -> int:
    """One life, killed at point `last`; where it comes to its end it leaves `points.json` and `verdict.json`."""

    def work() -> None:
        BUGS[plan.bug]()
        points = Points(last)
        finding = live(home, plan.durability, points)
        (home / "points.json").write_text(json.dumps(points.names))
        (home / "verdict.json").write_text(json.dumps(finding._asdict()))

    return in_child(work)


def run_full(home: Path, plan: Plan, pages: int) -> int:
    """One life on a disk that has room for so many pages of the database."""

    def work() -> None:
        start = SqliteJournal._start

        def started(self: SqliteJournal, durability: Durability) -> None:
            start(self, durability)
            writer = self._db if durability == "process" else self._back
            assert writer is not None
            writer.execute(f"PRAGMA max_page_count = {pages}")

        SqliteJournal._start = started  # type: ignore[method-assign]
        try:
            live(home, plan.durability, Points())
        except JournalError:
            os._exit(FULL)

    return in_child(work)


def recovered(home: Path, plan: Plan, point: int, code: int) -> Finding:
    """After the kill, and perhaps one more while it recovers: started again, what is found."""
    if -code not in KILLED and code != FULL:
        return Finding([], [], [f"it ended with {code} where it was to be killed"])
    if plan.kills_again:
        run_life(home, plan, 1 + point * 13 % AGAIN_MAX)
        (home / "verdict.json").unlink(missing_ok=True)
    code = run_life(home, plan)
    path = home / "verdict.json"
    if code or not path.exists():
        return Finding([], [], [f"the life after it ended with {code}"])
    return Finding(**json.loads(path.read_text()))


def chosen(count: int, points_max: int) -> list[int]:
    """All points, or so many of them at even distances."""
    if points_max >= count:
        return list(range(1, count + 1))
    return [1 + index * (count - 1) // (points_max - 1) for index in range(points_max)]


def sweep(folder: Path, plan: Plan) -> dict[str, Any]:
    """The first life without a kill counts the points; then each has its own files and two lives, or three."""
    begun = time.monotonic()
    first = folder / "first"
    first.mkdir()
    code = run_life(first, plan)
    names = json.loads((first / "points.json").read_text()) if code == 0 else []
    report: dict[str, Any] = {
        "points": len(names),
        "swept": 0,
        "torn": 0,
        "lost": 0,
        "twice": 0,
        "odd": 0,
        "words": [],
        "kinds": {},
    }
    if code:
        report["odd"], report["words"] = 1, [f"the life without a kill ended with {code}"]
    for point in chosen(len(names), plan.points_max):
        home = folder / f"point-{point}"
        home.mkdir()
        code = run_life(home, plan, point)
        found = recovered(home, plan, point, code)
        report["swept"] += 1
        report["torn"] += code == -signal.SIGXFSZ
        kind = names[point - 1]
        report["kinds"][kind] = report["kinds"].get(kind, 0) + 1
        for what, texts in found._asdict().items():
            report[what] += bool(texts)
            report["words"] += [f"point {point} ({kind[:60]}): {what}: {text}" for text in texts[:3]]
        if not any(found):
            shutil.rmtree(home)  # the files of the others stay, to be looked at
        elif plan.stops_early:
            break
    report["seconds"] = round(time.monotonic() - begun, 1)
    return report


def sweep_full(folder: Path, plan: Plan) -> dict[str, Any]:
    """The disk is full at each page of the database; then there is room again, and a new life goes on."""
    report: dict[str, Any] = {"swept": 0, "lost": 0, "twice": 0, "odd": 0, "words": []}
    for pages in PAGES:
        home = folder / f"pages-{pages}"
        home.mkdir()
        code = run_full(home, plan, pages)
        if code == 0:
            break  # there was room for all of it
        found = recovered(home, plan, pages, code)
        report["swept"] += 1
        for what, texts in found._asdict().items():
            report[what] += bool(texts)
            report["words"] += [f"{pages} pages: {what}: {text}" for text in texts[:3]]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--durability", default="process", choices=["process", "power"])
    parser.add_argument("--points", type=int, default=10**9)
    parser.add_argument("--bug", default="no_bug", choices=list(BUGS))
    parser.add_argument("--full-disk", action="store_true", help="instead of kills: a disk that is full at every page")
    parser.add_argument("--again", action="store_true", help="kill once more while it recovers")
    parser.add_argument("--stop-early", action="store_true", help="end at the first point where something is wrong")
    args = parser.parse_args()
    observe.open_log(level="critical")
    plan = Plan(args.durability, args.points, args.bug, args.again, args.stop_early)
    sys.stdout.write(json.dumps((sweep_full if args.full_disk else sweep)(args.folder, plan)))


if __name__ == "__main__":
    main()
