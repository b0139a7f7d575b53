"""One order book, kept from a snapshot and the changes that follow it.

A book with a missing update shows prices that nobody offers any more. So the update numbers are watched: after a gap, or when the
best bid reaches the best ask, the book is worth nothing until the next snapshot, and says why. Changes that come too early wait.

The rules are Binance's for spot ("How to manage a local order book correctly"): the first change after a snapshot covers the update
that follows it, every later one begins where the one before ended. Venues that only send whole books send snapshots alone.
"""

from bisect import bisect_left
from collections import deque

from agent.domain.market import BookDiff, BookSnapshot, Level

PENDING_MAX = 2_000  # changes that wait for a snapshot; the oldest go first, and the join then shows a gap
LEVELS_MAX = 10_000  # a side; beyond it the worst prices are forgotten

NO_BOOK = "NO_BOOK"
BOOK_GAP = "BOOK_GAP"
CROSSED_BOOK = "CROSSED_BOOK"


class Book:
    """Owns the levels of one instrument, in ticks and lots. Both sides rise by price: the best ask is first, the best bid last."""

    __slots__ = (
        "_ask_ticks",
        "_asks",
        "_bid_ticks",
        "_bids",
        "_is_joined",
        "_pending",
        "at_ns",
        "gap_count",
        "seq",
        "trouble",
    )

    def __init__(self) -> None:
        self._bid_ticks: list[int] = []
        self._bids: list[Level] = []  # beside their ticks, which are searched
        self._ask_ticks: list[int] = []
        self._asks: list[Level] = []
        self._pending: deque[BookDiff] = deque(maxlen=PENDING_MAX)
        self._is_joined = False  # whether a change was applied since the snapshot
        self.seq = 0
        self.at_ns = 0
        self.gap_count = 0
        self.trouble = NO_BOOK  # a reason code, empty when the book can be trusted

    @property
    def is_valid(self) -> bool:
        return not self.trouble

    def apply(self, fact: BookSnapshot | BookDiff) -> None:
        """Take a fact in the order received. Never raises: what does not fit makes the book invalid or is old news."""
        if isinstance(fact, BookDiff):
            self._apply_diff(fact)
        else:
            self._apply_snapshot(fact)

    def levels(self, count: int) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """The best `count` bids and asks, best first, whatever `is_valid` says."""
        return tuple(self._bids[: -count - 1 : -1]), tuple(self._asks[:count])

    def _apply_snapshot(self, fact: BookSnapshot) -> None:
        self._bids = sorted(level for level in fact.bids if level[1])
        self._asks = sorted(level for level in fact.asks if level[1])
        self._bid_ticks = [ticks for ticks, _ in self._bids]
        self._ask_ticks = [ticks for ticks, _ in self._asks]
        self.seq, self.at_ns, self.trouble, self._is_joined = fact.seq, fact.at_ns, "", False
        self._check_crossed()
        waiting = list(self._pending)
        self._pending.clear()
        for diff in waiting:
            self._apply_diff(diff)

    def _apply_diff(self, diff: BookDiff) -> None:
        if self.trouble:
            self._pending.append(diff)
            return
        following = self.seq + 1
        if diff.seq_last < following:
            return  # the snapshot, or an earlier delivery, holds it already
        if diff.seq_first != following and (self._is_joined or diff.seq_first > following):
            self.gap_count += 1
            self.trouble = BOOK_GAP
            self._pending.append(diff)
            return
        if diff.bids:
            _merge(self._bid_ticks, self._bids, diff.bids)
            if len(self._bid_ticks) > LEVELS_MAX:
                del self._bid_ticks[:-LEVELS_MAX], self._bids[:-LEVELS_MAX]
        if diff.asks:
            _merge(self._ask_ticks, self._asks, diff.asks)
            if len(self._ask_ticks) > LEVELS_MAX:
                del self._ask_ticks[LEVELS_MAX:], self._asks[LEVELS_MAX:]
        self.seq, self._is_joined = diff.seq_last, True
        self.at_ns = max(self.at_ns, diff.at_ns)
        self._check_crossed()

    def _check_crossed(self) -> None:
        if self._bid_ticks and self._ask_ticks and self._bid_ticks[-1] >= self._ask_ticks[0]:
            self.trouble = CROSSED_BOOK


def _merge(ticks: list[int], levels: list[Level], changes: tuple[Level, ...]) -> None:
    for level in changes:
        price, lots = level
        place = bisect_left(ticks, price)
        if place < len(ticks) and ticks[place] == price:
            if lots:
                levels[place] = level
            else:
                del ticks[place], levels[place]
        elif lots:
            ticks.insert(place, price)
            levels.insert(place, level)
