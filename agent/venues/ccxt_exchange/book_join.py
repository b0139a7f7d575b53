"""Joins a snapshot of a book with the stream of its changes, so that what goes on is never a wrong book. No I/O.

Rule of the exchange: changes `first..last` are absolute sizes and continue each other without a gap; a snapshot taken at `seq`
continues with the change that contains `seq + 1`. After a gap nothing is passed on until a new snapshot has been joined.
Source: Binance spot documentation, 'How to manage a local order book correctly'.
"""

from collections import deque

import msgspec

from agent.domain.market import BookDiff, BookSnapshot

BUFFER_MAX = 2_000  # changes kept while a snapshot is on its way: more than three minutes of a 100 ms stream


class BookJoin:
    """The join of one book. `seq` is the last update that was passed on; `is_joined` says whether changes flow."""

    def __init__(self) -> None:
        self.seq = 0
        self.is_joined = False
        self.changed_ns = 0
        self._waiting: deque[BookDiff] = deque(maxlen=BUFFER_MAX)

    def reset(self) -> None:
        """Pass nothing on until the next snapshot. Changes that come meanwhile are kept."""
        self.is_joined = False
        self._waiting.clear()

    def diff(self, change: BookDiff) -> tuple[BookDiff, ...]:
        """What may be passed on because of this change. Afterwards `is_joined` False means: a snapshot is needed."""
        self.changed_ns = change.at_ns
        if not self.is_joined:
            self._waiting.append(change)
            return ()
        if change.seq_last <= self.seq:
            return ()  # a repeat
        if change.seq_first > self.seq + 1:
            self.reset()
            self._waiting.append(change)
            return ()
        return (self._follow(change),)

    def snapshot(self, book: BookSnapshot) -> tuple[BookSnapshot | BookDiff, ...]:
        """The snapshot and the kept changes that continue it; nothing if there is a gap between them (ask for another)."""
        later = [change for change in self._waiting if change.seq_last > book.seq]
        if later and later[0].seq_first > book.seq + 1:
            return ()
        self.seq, self.is_joined = book.seq, True
        self._waiting.clear()
        joined: list[BookSnapshot | BookDiff] = [book]
        for change in later:
            joined.extend(self.diff(change))
        return tuple(joined) if self.is_joined else ()

    def _follow(self, change: BookDiff) -> BookDiff:
        """The change, trimmed to begin exactly after what is known, so that a strict reader accepts the first one as well."""
        first, self.seq = self.seq + 1, change.seq_last
        return change if change.seq_first == first else msgspec.structs.replace(change, seq_first=first)
