"""What was recorded of a market, ready to be asked about single moments: bars that were kept, or those of a tape."""

from bisect import bisect_left
from collections.abc import Sequence

from agent.market.bars import SECOND_NS, Bar, Bars

NEAR_S = 2  # a middle so many seconds old still is one
SPREAD_S = 5  # a spread changes less


class Recorded:
    """Owns bars, in order, each second once. Prices in quote coins per base coin, times in ns; 0.0 is: not known."""

    def __init__(self, bars: Sequence[Bar]) -> None:
        self._by_second = {bar.start_s: bar for bar in bars}
        self._bars = [self._by_second[second] for second in sorted(self._by_second)]
        self._seconds = [bar.start_s for bar in self._bars]

    def between(self, from_ns: int, to_ns: int) -> tuple[Bar, ...]:
        """The bars of all seconds that are at least partly between."""
        return tuple(
            self._bars[bisect_left(self._seconds, from_ns // SECOND_NS) : bisect_left(self._seconds, -(-to_ns // SECOND_NS))]
        )

    def covers(self, from_ns: int, to_ns: int, least: float) -> bool:
        return bool(self._bars) and self.coverage(from_ns, to_ns) >= least

    def coverage(self, from_ns: int, to_ns: int) -> float:
        """The share of the time of which the middle is known."""
        return self._span(from_ns, to_ns).coverage(from_ns, to_ns)

    def volume(self, from_ns: int, to_ns: int) -> float:
        return self._span(from_ns, to_ns).volume(from_ns, to_ns)

    def vwap(self, from_ns: int, to_ns: int) -> float:
        return self._span(from_ns, to_ns).vwap(from_ns, to_ns)

    def twap(self, from_ns: int, to_ns: int) -> float:
        return self._span(from_ns, to_ns).twap(from_ns, to_ns)

    def mid_before(self, at_ns: int) -> float:
        """The last middle before the second of `at_ns`, which what happened in it has not moved."""
        return self._mid(at_ns // SECOND_NS - 1)

    def mid_near(self, at_ns: int) -> float:
        """The middle at the end of the second that ends nearest to `at_ns`."""
        return self._mid((at_ns + SECOND_NS // 2) // SECOND_NS - 1)

    def half_spread_bps(self, at_ns: int) -> float | None:
        """Half the tightest book's spread in the last second before that of `at_ns` that tells one; None without one."""
        second = at_ns // SECOND_NS
        for age in range(1, SPREAD_S + 1):
            bar = self._by_second.get(second - age)
            if bar is not None and bar.spread_bps > 0:
                return bar.spread_bps / 2
        bar = self._by_second.get(second)
        return bar.spread_bps / 2 if bar is not None and bar.spread_bps > 0 else None

    def _mid(self, second: int) -> float:
        for age in range(NEAR_S + 1):
            bar = self._by_second.get(second - age)
            if bar is not None and bar.mid > 0:
                return bar.mid
        return 0.0

    def _span(self, from_ns: int, to_ns: int) -> Bars:
        return Bars.of(self.between(from_ns, to_ns))
