"""Many records, one trip to the disk: while one write is under way the next records pile up, and then go together.

The thread of the loop only hands rows over; a thread of the journal's own writes them and says up to which record everything is
safe. After a write that failed nobody can say what the disk holds, so nothing is tried again: everyone who waits is told, and
nothing more is taken.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from agent.domain.errors import JournalError
from agent.journal.codec import Row

ROWS_MAX = 65_536  # records that may wait for the disk
BYTES_MAX = 64 << 20  # and bytes of them


class GroupCommit:
    """One thread that writes what piled up while the write before was under way. Fail-stop, see above.

    `write` is called in that thread with rows in the order of their numbers and returns when they are safe. It raises JournalError
    or OSError; what else it raises stops the journal as well. `tidy` is called there with the last row when everyone was told, and
    raises the same. Everything else is for the thread of the loop, one loop at a time.
    """

    def __init__(self, write: Callable[[Sequence[Row]], None], name: str, tidy: Callable[[Row], None] = lambda _: None) -> None:
        self._write, self._tidy, self._name = write, tidy, name
        self._guard = threading.Lock()  # over what both threads change
        self._settled = threading.Condition(self._guard)
        self._bell = threading.Lock()  # free while the thread has something to do: cheaper to ring than a condition
        self._bell.acquire()
        self._rows: list[Row] = []
        self._bytes = 0
        self._pushed = self._secured = self._tidied = 0
        self._failure = ""
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # changed by the loop's thread alone
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def push(self, rows: Sequence[Row]) -> None:
        """Hand over rows that follow those before. Never waits for the disk. Raises JournalError, and then takes none of them."""
        if not rows:
            return
        last = rows[-1]
        size = len(last.body) if len(rows) == 1 else sum(len(row.body) for row in rows)
        with self._guard:
            if self._failure or self._is_closing:
                self._refuse()
            waiting = self._rows
            if not waiting:
                self._bell.release()
            elif len(waiting) + len(rows) > ROWS_MAX or self._bytes + size > BYTES_MAX:
                raise JournalError(f"{len(waiting)} records wait for the disk, which is too slow for them; nothing was recorded")
            if not self._pushed:
                self._secured = rows[0].seq - 1
            waiting.extend(rows)
            self._bytes += size
            self._pushed = last.seq

    async def secured(self, seq: int) -> None:
        """Returns when the record `seq` and all before it are written. Raises JournalError if that will never be."""
        future = self.waiter(seq)
        if future is not None:
            await future

    def waiter(self, seq: int) -> asyncio.Future[None] | None:
        """What `secured` waits for; None if that is nothing."""
        if seq <= self._secured or self._is_settled(seq):
            return None
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting = loop, []  # those of a loop that has ended wait no more
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        self._waiting.append((seq, future))
        if seq <= self._secured or self._failure:
            self._release()  # just now, and perhaps before we were seen waiting
        return future

    def drain(self) -> None:
        """Blocks until everything that was pushed before is written, and tidied up after. JournalError if that will never be."""
        with self._guard:
            seq = self._pushed
            self._settled.wait_for(lambda: self._failure or seq <= self._tidied)
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
        failure = self._failure  # looked at first: once it is there, what is secured changes no more
        if seq <= self._secured or not self._pushed:
            return True
        if failure:
            raise _lost(seq, failure)
        if seq > self._pushed:
            raise JournalError(f"record {seq} was never appended, the last one is {self._pushed}")
        return False

    def _refuse(self) -> NoReturn:
        if self._failure:
            raise JournalError(f"the journal takes no more records ({self._failure}); free the disk or repair it, then start again")
        raise JournalError("the journal is closed; open it again")

    def _run(self) -> None:
        while not self._failure:
            self._bell.acquire()
            with self._guard:
                rows, self._rows, self._bytes = self._rows, [], 0
            if not rows:
                return  # rung to close
            last = rows[-1]
            self._attempt(partial(self._write, rows), last.seq)
            if not self._failure:
                self._attempt(partial(self._tidy, last), last.seq)
            with self._guard:
                self._tidied = last.seq
                self._settled.notify_all()
                if self._is_closing and not self._rows:
                    return

    def _attempt(self, work: Callable[[], None], seq: int) -> None:
        """Does it, and tells everyone when that makes more of the records safe, or when it failed."""
        failure = f"the thread {self._name} broke down"
        try:
            work()
            failure = ""
        except (JournalError, OSError) as e:
            failure = str(e) or type(e).__name__
        finally:
            if failure or seq > self._secured:
                self._settle(seq, failure)

    def _settle(self, seq: int, failure: str) -> None:
        """Tell everyone who waited: one wake-up of the loop for the whole write."""
        with self._guard:
            if failure:
                self._failure, self._rows = failure, []
            else:
                self._secured = seq
            self._settled.notify_all()
        if self._waiting and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._release)
            except RuntimeError:
                return  # that loop has ended: nobody waits in it any more

    def _release(self) -> None:
        """In the thread of the loop: wakes those whose record is written, or all when none will be any more."""
        still: list[tuple[int, asyncio.Future[None]]] = []
        failure = self._failure  # first, as above
        secured = self._secured
        for seq, future in self._waiting:
            if future.done():
                continue  # whoever waited gave up
            if seq <= secured:
                future.set_result(None)
            elif failure:
                future.set_exception(_lost(seq, failure))
            else:
                still.append((seq, future))
        self._waiting = still


def _lost(seq: int, failure: str) -> JournalError:
    return JournalError(f"record {seq} did not reach the disk ({failure}); free the disk or repair it, then start again")
