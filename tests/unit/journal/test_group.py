"""Group commit: what piles up goes together, everyone who waits is told once, and after a failed write nothing follows."""

import asyncio
import random
import threading
from collections.abc import Sequence

import pytest

from agent.domain.errors import JournalError
from agent.journal import group
from agent.journal.codec import Row
from agent.journal.group import GroupCommit


def rows(first: int, last: int) -> list[Row]:
    return [Row(seq, 0, b"{}", "") for seq in range(first, last + 1)]


class Disk:
    """Keeps the batches that it was given; `gate` holds a write up, `failure` makes it fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def write(self, batch: Sequence[Row]) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        if self.failure:
            raise self.failure
        self.batches.append([row.seq for row in batch])

    @property
    def seqs(self) -> list[int]:
        return [seq for batch in self.batches for seq in batch]


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def test_what_is_secured_was_written(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    await commit.secured(7)  # nothing is under way
    for seq in range(8, 40, 2):
        commit.push(rows(seq, seq + 1))
        await commit.secured(seq + 1)
        assert disk.seqs[-1] == seq + 1
    await commit.secured(3)  # of before this run
    commit.push([])
    commit.close()
    assert disk.seqs == list(range(8, 40))


async def test_records_pile_up_while_a_write_is_under_way(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 1))
    assert disk.entered.wait(30)
    for seq in range(2, 258):
        commit.push(rows(seq, seq))
    waiting = [asyncio.create_task(commit.secured(seq)) for seq in range(257, 0, -1)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    disk.gate.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    assert [len(batch) for batch in disk.batches] == [1, 256]
    commit.close()


async def test_one_wake_up_for_all_who_wait(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, calls = asyncio.get_running_loop(), []
    schedule = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a: (calls.append(a), schedule(*a))[1])  # counted, not replaced
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 5))
    waiting = [asyncio.create_task(commit.secured(5)) for _ in range(100)]
    await asyncio.sleep(0)
    disk.gate.set()
    await asyncio.gather(*waiting)
    assert len(calls) == 1
    commit.close()


async def test_only_those_are_woken_whose_record_is_written(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 1))
    assert disk.entered.wait(30)
    commit.push(rows(2, 2))
    first, second = asyncio.create_task(commit.secured(1)), asyncio.create_task(commit.secured(2))
    await asyncio.sleep(0)
    disk.failure = None
    disk.entered.clear()
    disk.gate.set()
    await first
    assert 1 in disk.seqs
    await second
    assert disk.batches == [[1], [2]]
    commit.close()


@pytest.mark.parametrize(
    ("failure", "words"), [(OSError(5, "Input/output error"), "Input/output error"), (JournalError("the file is gone"), "gone")]
)
async def test_a_failed_write_fails_all_who_wait_and_all_who_come_later(disk: Disk, failure: Exception, words: str) -> None:
    commit = GroupCommit(disk.write, "test")
    commit.push(rows(1, 1))
    await commit.secured(1)
    disk.gate.clear()
    disk.entered.clear()
    commit.push(rows(2, 2))
    assert disk.entered.wait(30)
    commit.push(rows(3, 4))
    waiting = [asyncio.create_task(commit.secured(seq)) for seq in (2, 4, 3)]
    await asyncio.sleep(0)
    disk.failure = failure
    disk.gate.set()
    for task in waiting:
        with pytest.raises(JournalError, match=f"did not reach the disk .*{words}.*free the disk"):
            await task
    disk.failure = None  # mended: still nothing is tried again
    with pytest.raises(JournalError, match=f"takes no more records .*{words}"):
        commit.push(rows(5, 5))
    with pytest.raises(JournalError, match="did not reach"):
        await commit.secured(3)
    with pytest.raises(JournalError, match="did not reach"):
        commit.drain()
    await commit.secured(1)  # what was safe before stays safe
    assert words in commit.failure
    commit.close()
    assert disk.batches == [[1]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_defect_in_the_writer_leaves_nobody_waiting(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    disk.failure = KeyError("a defect")
    commit.push(rows(1, 1))
    with pytest.raises(JournalError, match="broke down"):
        await commit.secured(1)
    commit.close()


async def test_closing_writes_what_is_left_and_takes_no_more(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 1))
    assert disk.entered.wait(30)
    commit.push(rows(2, 9))
    waiting = asyncio.create_task(commit.secured(9))
    await asyncio.sleep(0)
    disk.gate.set()
    commit.close()
    commit.close()
    assert disk.seqs == list(range(1, 10))
    await asyncio.wait_for(waiting, 30)
    with pytest.raises(JournalError, match="closed"):
        commit.push(rows(10, 10))
    GroupCommit(disk.write, "never used").close()


async def test_waiting_for_what_never_comes_is_refused(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    commit.push(rows(1, 3))
    with pytest.raises(JournalError, match="record 4 was never appended, the last one is 3"):
        await commit.secured(4)
    commit.close()


async def test_one_who_gives_up_does_not_hurt_the_others(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 2))
    waiting = [asyncio.create_task(commit.secured(2)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    disk.gate.set()
    assert await asyncio.wait_for(waiting[0], 30) is await asyncio.wait_for(waiting[2], 30) is None
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    commit.close()


def test_a_loop_that_ended_while_it_waited_stops_nothing(disk: Disk) -> None:
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 1))

    async def gives_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(commit.secured(1), 0.001)

    asyncio.run(gives_up())
    disk.gate.set()
    commit.drain()
    commit.push(rows(2, 2))
    asyncio.run(commit.secured(2))
    commit.close()
    assert disk.seqs == [1, 2]


async def test_what_waits_is_bounded(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "ROWS_MAX", 100)
    monkeypatch.setattr(group, "BYTES_MAX", 1_000)
    commit = GroupCommit(disk.write, "test")
    disk.gate.clear()
    commit.push(rows(1, 1))
    assert disk.entered.wait(30)
    commit.push(rows(2, 90))
    with pytest.raises(JournalError, match="89 records wait for the disk"):
        commit.push(rows(91, 102))
    with pytest.raises(JournalError, match="wait for the disk"):
        commit.push([Row(91, 0, b"x" * 999, "")])
    commit.push(rows(91, 95))  # refused were those alone
    disk.gate.set()
    await asyncio.wait_for(commit.secured(95), 30)
    commit.push(rows(96, 260))  # more than the bound at once, but nothing waits
    commit.close()
    assert disk.seqs == list(range(1, 261))


async def test_many_producers_lose_and_swap_nothing(disk: Disk) -> None:
    commit, dice, last = GroupCommit(disk.write, "test"), random.Random(5), 0

    async def produce() -> None:
        nonlocal last
        for _ in range(60):
            count = dice.randrange(1, 4)
            commit.push(rows(last + 1, last + count))
            last += count
            mine = last
            if dice.random() < 0.7:
                await commit.secured(mine)
                assert disk.seqs[mine - 1] == mine

    async with asyncio.timeout(60):
        await asyncio.gather(*(produce() for _ in range(40)))
    commit.close()
    assert disk.seqs == list(range(1, last + 1))
