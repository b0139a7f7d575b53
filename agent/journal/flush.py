"""A thread that brings to the disk what the system holds, soon after an append and never in its way."""

import threading
from collections.abc import Callable

from agent.domain.errors import JournalError

PAUSE_S = 0.01  # between two flushes: an append that meets one waits for the disk, and for what Python does around it


class Flusher:
    """Calls `flush` in its thread once after any number of `wake`s. A failure is kept, and nothing is tried again."""

    def __init__(self, flush: Callable[[], None], name: str) -> None:
        self._flush = flush
        self.failure = ""
        self._wanted, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        if not self._wanted.is_set():
            self._wanted.set()

    def close(self) -> None:
        """Flushes once more and ends the thread."""
        self._closing.set()
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.failure:
            self._wanted.wait()
            self._closing.wait(PAUSE_S)
            self._wanted.clear()  # before the flush: what is appended meanwhile asks for another one
            is_last = self._closing.is_set()  # after it: a wish to close that was cleared away is seen here
            failure = "the thread that writes to the disk broke down"
            try:
                self._flush()
                failure = ""
            except JournalError as e:
                failure = str(e)
            finally:
                self.failure = failure
            if is_last:
                return
