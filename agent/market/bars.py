"""What a market did, second by second: the middle, the spread, and what was traded. An opinion in floats, never money.

Trades are those that the venues' books tell; pools tell none. A second of which nobody told anything has no bar, and nothing is
made up for it. Volumes are in whole base coins, prices in quote coins per base coin, times in ns since 1970.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log, sqrt

import msgspec

from agent.domain.instrument import Instrument
from agent.domain.market import TradePrint

SECONDS_MAX = 7_200  # that are remembered; older ones are forgotten
RETURNS_MIN = 20  # fewer say nothing about volatility
BPS = 10_000.0
SECOND_NS = 1_000_000_000


class Bar(msgspec.Struct, frozen=True, omit_defaults=True):
    """One second. What is not known is 0.0; `bid` and `ask` are those of the tightest book at its end, `spread_bps` is the mean."""

    start_s: int  # since 1970
    mid: float = 0.0  # the last one
    low: float = 0.0  # of the middle
    high: float = 0.0
    spread_bps: float = 0.0
    volume: float = 0.0  # base coins, by all books' trades
    value: float = 0.0  # what they cost, in quote coins
    bid: float = 0.0
    ask: float = 0.0


class _Second(msgspec.Struct):
    """A bar while it is counted. `spreads`: the sum of `looks` of them."""

    start_s: int
    mid: float = 0.0
    low: float = 0.0
    high: float = 0.0
    spreads: float = 0.0
    looks: int = 0
    volume: float = 0.0
    value: float = 0.0
    bid: float = 0.0
    ask: float = 0.0


class Bars:
    """Owns the last seconds of one market. What comes late counts in the newest second."""

    def __init__(self, seconds_max: int = SECONDS_MAX) -> None:
        self._seconds: deque[_Second] = deque(maxlen=seconds_max)
        self._first_ns = 0

    @classmethod
    def of(cls, bars: Sequence[Bar]) -> "Bars":
        """From bars that were kept, in any order, all of them; of two for the same second the later in the sequence counts."""
        found = cls(max(len(bars), SECONDS_MAX))
        for bar in sorted({bar.start_s: bar for bar in bars}.values(), key=lambda bar: bar.start_s):
            looks = int(bar.bid > 0)
            found._seconds.append(
                _Second(bar.start_s, bar.mid, bar.low, bar.high, bar.spread_bps, looks, bar.volume, bar.value, bar.bid, bar.ask)
            )
        if found._seconds:
            found._first_ns = found._seconds[0].start_s * SECOND_NS
        return found

    def add_trade(self, instrument: Instrument, trade: TradePrint) -> None:
        """Somebody traded on a book. Each call is one trade."""
        size = trade.lots * instrument.lot_units / 10.0**instrument.base.decimals
        price = trade.ticks * instrument.tick_units / 10.0**instrument.quote.decimals
        self.add(size, price, trade.at_ns)

    def add(self, size: float, price: float, at_ns: int) -> None:
        """The same in base coins and quote coins per base coin."""
        second = self._second(at_ns)
        second.volume += size
        second.value += size * price

    def sample(self, mid: float, bid: float, ask: float, now_ns: int) -> None:
        """Where the market stands now. `bid` and `ask` are 0.0 where there is no book."""
        second = self._second(now_ns)
        second.low = min(second.low, mid) if second.mid else mid
        second.high = max(second.high, mid)
        second.mid, second.bid, second.ask = mid, bid, ask
        if bid > 0 and ask > 0:
            second.spreads += (ask - bid) / mid * BPS
            second.looks += 1

    # -- questions ---------------------------------------------------------------------------------------------------

    @property
    def covered_from_ns(self) -> int:
        """Since when something is known; 0 when nothing is."""
        return max(self._first_ns, self._seconds[0].start_s * SECOND_NS) if self._seconds else 0

    def since(self, start_ns: int) -> Sequence[Bar]:
        """The bars of all seconds that end after `start_ns`, oldest first; the newest may still grow."""
        found: list[Bar] = []
        for one in reversed(self._seconds):
            if (one.start_s + 1) * SECOND_NS <= start_ns:
                break
            found.append(_bar(one))
        return found[::-1]

    def volume(self, from_ns: int, to_ns: int) -> float:
        """Base coins that were traded; a second that is partly inside counts by its share."""
        return sum(one.volume * share for one, share in self._inside(from_ns, to_ns))

    def vwap(self, from_ns: int, to_ns: int) -> float:
        """The mean price of all trades, by size; 0.0 without any."""
        volume = self.volume(from_ns, to_ns)
        return sum(one.value * share for one, share in self._inside(from_ns, to_ns)) / volume if volume > 0 else 0.0

    def twap(self, from_ns: int, to_ns: int) -> float:
        """The mean of the middle over the seconds of which it is known; 0.0 without any."""
        known = [(one.mid, share) for one, share in self._inside(from_ns, to_ns) if one.mid > 0]
        weight = sum(share for _, share in known)
        return sum(mid * share for mid, share in known) / weight if weight > 0 else 0.0

    def coverage(self, from_ns: int, to_ns: int) -> float:
        """Of the time between, the share in which the middle is known, from 0.0 to 1.0."""
        known_s = sum(share for one, share in self._inside(from_ns, to_ns) if one.mid > 0)
        return min(known_s * SECOND_NS / (to_ns - from_ns), 1.0) if to_ns > from_ns else 0.0

    def mid_at(self, at_ns: int, late_s: int = 0) -> float:
        """The middle at the end of the second of `at_ns`, or of one of the `late_s` seconds before it; 0.0 if it is not known."""
        second = at_ns // SECOND_NS
        for one in reversed(self._seconds):
            if one.start_s < second - late_s:
                break
            if one.start_s <= second and one.mid > 0:
                return one.mid
        return 0.0

    def sigma(self, window_s: int) -> float:
        """The standard deviation of log returns of the middle, per square root of a second, over the last seconds.

        sqrt(sum r^2 / sum dt) over neighbouring known seconds, dt apart, without a mean, which is nothing at this scale; so a
        second that is missing only makes one return longer. 0.0 with fewer than `RETURNS_MIN` of them.
        """
        known = [one for one in self._recent(window_s) if one.mid > 0]
        if len(known) <= RETURNS_MIN:
            return 0.0
        squares = sum(log(new.mid / old.mid) ** 2 for new, old in pairwise(known))
        return sqrt(squares / (known[0].start_s - known[-1].start_s))

    def spread_bps(self, window_s: int) -> float:
        """The mean spread of the tightest book over the last seconds; 0.0 where there was no book."""
        recent = [one for one in self._recent(window_s) if one.looks]
        return sum(one.spreads / one.looks for one in recent) / len(recent) if recent else 0.0

    def rate(self, window_s: int) -> float:
        """Base coins traded per second, over those of the last seconds that are complete and known; 0.0 without one."""
        complete = list(self._recent(window_s))[1:]
        return sum(one.volume for one in complete) / len(complete) if complete else 0.0

    # -- counting ----------------------------------------------------------------------------------------------------

    def _second(self, at_ns: int) -> _Second:
        start_s = at_ns // SECOND_NS
        if not self._seconds:
            self._first_ns = at_ns
        if not self._seconds or start_s > self._seconds[-1].start_s:
            self._seconds.append(_Second(start_s))
        return self._seconds[-1]

    def _recent(self, window_s: int) -> Iterator[_Second]:
        for one in reversed(self._seconds):
            if one.start_s < self._seconds[-1].start_s - window_s:
                return
            yield one

    def _inside(self, from_ns: int, to_ns: int) -> Iterator[tuple[_Second, float]]:
        """The seconds between, newest first, each with the share of it that is inside."""
        for one in reversed(self._seconds):
            start_ns = one.start_s * SECOND_NS
            if start_ns + SECOND_NS <= from_ns:
                return
            if start_ns < to_ns:
                yield one, (min(start_ns + SECOND_NS, to_ns) - max(start_ns, from_ns)) / SECOND_NS


def _bar(one: _Second) -> Bar:
    spread_bps = one.spreads / one.looks if one.looks else 0.0
    return Bar(one.start_s, one.mid, one.low, one.high, spread_bps, one.volume, one.value, one.bid, one.ask)
