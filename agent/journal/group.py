"""Many records, one trip to the disk: while one write is under way the next records pile up, and then go together.

The thread of the loop only hands rows over; a thread of the journal's own writes them and says up to which record everything is
safe. After a write that failed nobody can say what the disk holds, so nothing is tried again: everyone who waits is told, and
nothing more is taken.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence

from agent.domain.errors import JournalError
from agent.journal.codec import Row

ROWS_MAX = 65_536  # records that may wait for the disk
BYTES_MAX = 64 << 20  # and bytes of them

_Waiting = list[tuple[int, asyncio.Future[None]]]


class GroupCommit:
    """One thread that writes what piled up while the write before was under way. Fail-stop, see above.

    `write` is called in that thread with rows in the order of their numbers and returns when they are safe. It raises JournalError
    or OSError; what else it raises stops the journal as well.
    """

    def __init__(self, write: Callable[[Sequence[Row]], None], name: str) -> None:
        self._write, self._name = write, name
        self._guard = threading.Condition(threading.Lock())  # over everything below
        self._bell = threading.Lock()  # free while the thread has something to do: cheaper to ring than a condition
        self._bell.acquire()
        self._rows: list[Row] = []
        self._bytes = 0
        self._pushed = self._secured = 0
        self._failure = ""
        self._is_closing = False
        self._waiting: dict[asyncio.AbstractEventLoop, _Waiting] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def push(self, rows: Sequence[Row]) -> None:
        """Hand over rows that follow those before. Never waits for the disk. Raises JournalError, and then takes none of them."""
        if not rows:
            return
        size = sum(len(row.body) for row in rows)
        with self._guard:
            self._refuse()
            is_first = not self._rows
            if not is_first and (len(self._rows) + len(rows) > ROWS_MAX or self._bytes + size > BYTES_MAX):
                raise JournalError(f"{len(self._rows)} records wait for the disk, which is too slow for them; nothing was recorded")
            if not self._pushed:
                self._secured = rows[0].seq - 1
            self._rows += rows
            self._bytes += size
            self._pushed = rows[-1].seq
            if is_first:
                self._bell.release()

    async def secured(self, seq: int) -> None:
        """Returns when the record `seq` and all before it are written. Raises JournalError if that will never be."""
        if seq <= self._secured:
            return
        loop = asyncio.get_running_loop()
        with self._guard:
            if self._is_settled(seq):
                return
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(loop, []).append((seq, future))
        await future

    def drain(self) -> None:
        """Blocks until everything that was pushed before is written. Raises JournalError if that will never be."""
        with self._guard:
            seq = self._pushed
            self._guard.wait_for(lambda: self._failure or seq <= self._secured)
            self._is_settled(seq)

    @property
    def failure(self) -> str:
        """Why nothing is written any more; empty as long as all is well."""
        return self._failure

    def close(self) -> None:
        """Writes what is left and ends the thread. Closing twice is allowed."""
        with self._guard:
            if not self._is_closing:
                self._is_closing = True
                if not self._rows and not self._failure:
                    self._bell.release()
        self._thread.join()

    def _is_settled(self, seq: int) -> bool:
        """Whether there is nothing to wait for. Raises JournalError where waiting would not end."""
        if seq <= self._secured or not self._pushed:
            return True
        if self._failure:
            raise JournalError(
                f"record {seq} did not reach the disk ({self._failure}); free the disk or repair it, then start again"
            )
        if seq > self._pushed:
            raise JournalError(f"record {seq} was never appended, the last one is {self._pushed}")
        return False

    def _refuse(self) -> None:
        if self._failure:
            raise JournalError(f"the journal takes no more records ({self._failure}); free the disk or repair it, then start again")
        if self._is_closing:
            raise JournalError("the journal is closed; open it again")

    def _run(self) -> None:
        while not self._failure:
            self._bell.acquire()
            with self._guard:
                rows, self._rows, self._bytes = self._rows, [], 0
            if not rows:
                return  # rung to close
            failure = f"the thread {self._name} broke down"
            try:
                self._write(rows)
                failure = ""
            except (JournalError, OSError) as e:
                failure = str(e) or type(e).__name__
            finally:
                self._settle(rows[-1].seq, failure)
            with self._guard:
                if self._is_closing and not self._rows:
                    return

    def _settle(self, seq: int, failure: str) -> None:
        """Tell everyone who waited: one wake-up of the loop for the whole write."""
        with self._guard:
            if failure:
                self._failure, self._rows = failure, []
            else:
                self._secured = seq
            waiting, self._waiting = self._waiting, {}
            for loop, waiters in waiting.items():
                later = [] if failure else [waiter for waiter in waiters if waiter[0] > seq]
                if later:
                    self._waiting[loop] = later
                    waiters[:] = [waiter for waiter in waiters if waiter[0] <= seq]
            self._guard.notify_all()
        for loop, waiters in waiting.items():
            try:
                loop.call_soon_threadsafe(_release, waiters, failure)
            except RuntimeError:
                continue  # that loop has ended: nobody waits in it any more


def _release(waiters: Iterable[tuple[int, asyncio.Future[None]]], failure: str) -> None:
    for seq, future in waiters:
        if future.done():
            continue  # whoever waited gave up
        if failure:
            future.set_exception(
                JournalError(f"record {seq} did not reach the disk ({failure}); free the disk or repair it, then start again")
            )
        else:
            future.set_result(None)
