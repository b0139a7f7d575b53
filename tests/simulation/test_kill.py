"""The agent is killed in the middle of its work, for real, and started again: nothing is lost and nothing is done twice.

The demo runs as a process of its own in an empty folder and gets SIGKILL at a named point of its journal; `isthmus run` in the same
folder then finishes the order. The sandbox is a third process that outlives both, as an exchange and a chain do.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.domain.amount import group_asset, parse_amount, rescale_up
from agent.domain.events import BalanceAdopted, EngineStarted, EngineStopped, Event, OrderFilled, OrderSent, Routed
from agent.domain.order import OrderState
from agent.engine.state import State
from agent.journal.sqlite import SqliteJournal

START_S, WORK_S = 90.0, 90.0
HOME = Path(".isthmus/demo")
QUANTITY = "40"
ISTHMUS = (sys.executable, "-m", "agent")

# What the journal shows when the process dies: (kind of event, how many of them).
POINTS = {
    "first order approved": ("OrderApproved", 1),
    "first fill": ("OrderFilled", 1),
    "first order sent": ("OrderSent", 1),
    "permission sent": ("OrderSent", 2),
    "a later slice approved": ("OrderApproved", 4),
    "a later order sent": ("OrderSent", 5),
    "several fills": ("OrderFilled", 5),
    "third route": ("Routed", 3),
}
DEFAULT = ("first order sent", "several fills")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    isthmus("sandbox", "down", "--home", str(HOME), folder=tmp_path)


def isthmus(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run((*ISTHMUS, *arguments), cwd=folder, capture_output=True, text=True, timeout=WORK_S, check=False)


@contextlib.contextmanager
def demo(folder: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    command = (*ISTHMUS, "demo", "--json", "--slices", "3", "--every", "1s", "--qty", QUANTITY, *flags)
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def wait_for(folder: Path, kind: str, count: int, process: "subprocess.Popen[str]") -> None:
    """Until the journal holds `count` events of a kind, seen from outside the process that writes it."""
    path = folder / HOME / "journal.sqlite"
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise AssertionError(f"the demo ended first: {(folder / 'out.txt').read_text()[-600:]}")
        with contextlib.suppress(sqlite3.Error):
            database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            try:
                query = "SELECT COUNT(*) FROM record WHERE instr(CAST(body AS TEXT), ?) > 0"
                if database.execute(query, (f'"type":"{kind}"',)).fetchone()[0] >= count:
                    return
            finally:
                database.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.002)
    raise AssertionError(f"{count} x {kind} did not happen: {(folder / 'out.txt').read_text()[-600:]}")


def events_of(folder: Path) -> list[Event]:
    journal = SqliteJournal(folder / HOME / "journal.sqlite", read_only=True)
    try:
        return [record.event for record in journal.read()]
    finally:
        journal.close()


def state_of(folder: Path) -> State:
    journal = SqliteJournal(folder / HOME / "journal.sqlite", read_only=True)
    state = State()
    try:
        for record in journal.read():
            state.apply(record)
    finally:
        journal.close()
    return state


def resumed(folder: Path) -> dict[str, Any]:
    done = isthmus("run", "--json", folder=folder)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def check(folder: Path, answer: dict[str, Any], runs: int, dust: int = 10**14) -> None:
    events, state = events_of(folder), state_of(folder)
    assert answer["breaks"] == []
    (parent,) = state.parents.values()
    assert parent.status == "FILLED"
    asked = parse_amount(QUANTITY, group_asset("ETH"))
    paid = [fill.paid for name in parent.orders for fill in state.orders[name].fills]
    sold = sum(rescale_up(amount, asked.asset).units for amount in paid)
    assert sold == parent.filled.units <= asked.units
    assert asked.units - sold < dust, "nothing but dust below a lot of 0.0001 is left"
    fills = [event.fill for event in events if isinstance(event, OrderFilled)]
    assert len({fill.key for fill in fills}) == len(fills)
    sends = [event.order_id for event in events if isinstance(event, OrderSent)]
    assert [name for name, count in Counter(sends).items() if count > 1] == []
    gone = (OrderState.REJECTED, OrderState.CANCELLED)
    nonces = [
        order.nonce for order in state.orders.values() if order.nonce is not None and order.sent_ns and order.state not in gone
    ]
    assert sorted(nonces) == list(range(len(nonces))), "one transaction for each nonce, and no gap"
    assert sum(isinstance(event, EngineStarted) for event in events) == runs
    assert isinstance(events[-1], EngineStopped)
    adopted = [event.amount.asset.id for event in events if isinstance(event, BalanceAdopted)]
    assert len(adopted) == len(set(adopted)), "balances are taken over once"


@pytest.mark.chain
@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", [pytest.param(p, marks=() if p in DEFAULT else pytest.mark.nightly) for p in POINTS])
def test_a_killed_agent_resumes(folder: Path, point: str) -> None:
    with demo(folder) as process:
        wait_for(folder, *POINTS[point], process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not isinstance(events_of(folder)[-1], EngineStopped)
    check(folder, resumed(folder), runs=2)


@pytest.mark.chain
@pytest.mark.timeout(300)
def test_a_twap_that_is_killed_in_the_middle_goes_on(folder: Path) -> None:
    """The command of the README, shorter."""
    with demo(folder, "--algo", "twap", "--duration", "14s", "--interval", "1s") as process:
        wait_for(folder, "Routed", 5, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = sum(isinstance(event, Routed) for event in events_of(folder))
    check(folder, resumed(folder), runs=2, dust=2 * 10**15)  # less than an exchange's least order is left
    assert sum(isinstance(event, Routed) for event in events_of(folder)) > before, "and it was in the middle"


@pytest.mark.chain
@pytest.mark.timeout(300)
def test_an_agent_that_is_asked_to_stop_stops_cleanly_and_resumes(folder: Path) -> None:
    with demo(folder, "--keep") as process:
        wait_for(folder, "OrderFilled", 1, process)
        process.terminate()
        process.wait(timeout=30)
    assert process.returncode >= 0, "it leaves by itself"
    assert "Traceback" not in (folder / "out.txt").read_text()
    events, state = events_of(folder), state_of(folder)
    assert isinstance(events[-1], EngineStopped)
    assert not [order for order in state.orders.values() if order.state is OrderState.SENT], "no send was left half done"
    check(folder, resumed(folder), runs=2)
