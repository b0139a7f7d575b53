"""`kill -9` at every point of a scripted run of the whole engine, and then a new start: nothing is lost, nothing happens twice.

Parents on both sides, slices, an order that rests and is taken back, approvals and swaps, a reorganisation; the journal is a real
one. The points, the lives and what is held against what are in `crash_points` and `crash_life`; `crash_run` forks the lives.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_bugs import BUGS

ROOT = Path(__file__).resolve().parents[2]
MODES = pytest.mark.parametrize("durability", ["process", "power"])
TIMEOUT_S = 240


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is a file system for that: what a kill leaves does not depend on the disk below."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def sweep(folder: Path, durability: str, *options: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The sweep's report, from a process of its own that nothing else has threads in."""
    command = [sys.executable, str(ROOT / "tests/simulation/crash_run.py"), str(folder), "--durability", durability, *options]
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(report: dict[str, Any], durability: str) -> None:
    sys.stdout.write(
        f"crash sweep, `{durability}`: {report['swept']} of {report['points']} points swept in {report['seconds']} s,"
        f" lost {report['lost']}, duplicated {report['twice']}\n"
    )
    assert (report["lost"], report["twice"], report["odd"]) == (0, 0, 0), "\n".join(report["words"])


@MODES
@pytest.mark.timeout(TIMEOUT_S)
def test_a_kill_at_every_point_loses_nothing_and_sends_nothing_twice(folder: Path, durability: str) -> None:
    report = sweep(folder, durability)
    check(report, durability)
    assert report["swept"] == report["points"] >= 200
    kinds = set(report["kinds"])
    told = {name for kind in kinds for name in kind.removeprefix("before ").removeprefix("after ").split("+")}
    assert told >= {"OrderApproved", "OrderSent", "OrderFilled", "GasPaid", "OrderReorged", "IntentCancelled", "IntentEnded"}
    assert kinds >= {"before OrderSent", "after OrderSent", "half written", "before it leaves", "carried out", "head kept"}
    assert report["torn"] > report["kinds"]["half written"] // 2, "a write was cut off in its middle"
    if durability == "power":
        assert kinds >= {"before the disk", "written", "secured"}


@MODES
@pytest.mark.timeout(TIMEOUT_S)
def test_a_second_kill_while_it_recovers_changes_nothing(folder: Path, durability: str) -> None:
    report = sweep(folder, durability, "--again", "--points", "50")
    check(report, durability)
    assert report["swept"] == 50


@MODES
@pytest.mark.timeout(TIMEOUT_S)
def test_a_disk_that_is_full_at_any_page_ends_the_life_and_the_next_goes_on(folder: Path, durability: str) -> None:
    """The engine stops in the middle of its work; what it had sent is known, and a start with room settles all of it."""
    report = sweep(folder, durability, "--full-disk")
    assert report["swept"] >= 8
    assert (report["lost"], report["twice"], report["odd"]) == (0, 0, 0), report["words"]


@pytest.mark.nightly
@MODES
@pytest.mark.timeout(3_600)
def test_both_kills_at_every_point_on_the_disk(tmp_path: Path, durability: str) -> None:
    report = sweep(tmp_path, durability, "--again", timeout_s=3_500)
    check(report, durability)
    assert report["swept"] == report["points"]


@pytest.mark.timeout(TIMEOUT_S)
def test_an_engine_that_sends_before_it_records_loses_orders_and_trades_too_much(folder: Path) -> None:
    """The control: the same sweep over a planted bug."""
    report = sweep(folder, "process", "--bug", "sends_before_it_records", "--points", "80")
    assert report["lost"] > 0
    assert report["twice"] > 0


@pytest.mark.parametrize("bug", [name for name in BUGS if name != "no_bug"])
@MODES
@pytest.mark.timeout(TIMEOUT_S)
def test_planted_bugs_are_found(folder: Path, durability: str, bug: str) -> None:
    if (durability, bug) == ("process", "does_not_wait_for_the_disk"):
        pytest.skip("in mode `process` there is nothing to wait for")
    report = sweep(folder, durability, "--bug", bug, "--points", "90", "--stop-early")
    assert report["lost"] + report["twice"] + report["odd"] > 0
