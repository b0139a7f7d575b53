"""When the next slice is due and how large it is.

Without an algorithm: equal parts, a fixed interval apart; the last ones catch up what was missed. An algorithm says how much of
the order belongs into which part of its time; from that follows, for every moment, how much should have been traded by then, and
a slice is what is missing. Nothing is remembered but what was filled, so a restart goes on where the order stands.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate

import msgspec

from agent.domain.algo import Algo, Shortfall, Twap
from agent.domain.amount import Amount
from agent.domain.intent import Intent
from agent.execution.algos import shortfall, twap

RETRY_NS = 500_000_000  # between attempts to clear a rest after the planned slices
PLANS_MAX = 4_096  # whose times and sizes are remembered: worked out once for each parent


class Slice(msgspec.Struct, frozen=True):
    """`index` counts from zero. After the planned slices, further ones clear what is left."""

    index: int
    quantity: Amount  # of the base group


class Timetable(msgspec.Struct, frozen=True):
    """`starts_ns[k]` after the beginning, `units[k]` should have been traded in all. Both rise; the last is the whole order."""

    starts_ns: tuple[int, ...]
    units: tuple[int, ...]

    def part(self, index: int) -> int:
        return self.units[index] - (self.units[index - 1] if index else 0)


def due(
    intent: Intent, remaining: Amount, planned: int, last_ns: int, now_ns: int, *, accepted_ns: int = 0, least: int = 1
) -> Slice | None:
    """The slice to trade now, or None while it is too early. `planned` slices were started, the last at `last_ns`.

    `least`: units that can be traded at all; an algorithm waits until so much is missing, and leaves no less behind.
    """
    if remaining.units <= 0 or now_ns >= intent.deadline_ns:
        return None
    if intent.algo is not None:
        units = _missing(intent, intent.algo, remaining.units, now_ns - accepted_ns, least)
        is_early = units <= 0 or (planned > 0 and now_ns < last_ns + RETRY_NS)
        return None if is_early else Slice(planned, Amount(units, remaining.asset))
    pause_ns = intent.interval_ns if planned < intent.slices else max(intent.interval_ns, RETRY_NS)
    if planned and now_ns < last_ns + pause_ns:
        return None
    left = max(intent.slices - planned, 1)
    return Slice(planned, Amount(-(-remaining.units // left), remaining.asset))


def parts(algo: Algo) -> int:
    """In how many parts its time falls; the last may be shorter."""
    return -(-algo.duration_ns // algo.interval_ns)


@lru_cache(PLANS_MAX)
def timetable(algo: Algo, units: int, seed: str) -> Timetable:
    """The same for the same order, whenever it is asked."""
    count = parts(algo)
    match algo:
        case Twap():
            wanted = twap.weights(algo, count)
        case Shortfall():
            wanted = shortfall.weights(algo, count)
    dice = _dice(seed)
    sizes = [weight * (1 + (2 * next(dice) - 1) * algo.randomise_size_pct / 100) for weight in wanted]
    later = [next(dice) * algo.randomise_time_pct / 100 * algo.interval_ns for _ in range(count)]
    starts = (0, *(min(int(part * algo.interval_ns + later[part]), algo.duration_ns) for part in range(1, count)))
    return Timetable(starts, _cumulated(sizes, units))


def _missing(intent: Intent, algo: Algo, left: int, elapsed_ns: int, least: int) -> int:
    """What should have been traded by now and was not: at most `catch_up_pct` of the part of now, all of it at the end."""
    table = timetable(algo, intent.quantity.units, intent.intent_id)
    at = bisect_right(table.starts_ns, elapsed_ns) - 1
    if at < 0:
        return 0
    missing = table.units[at] - (intent.quantity.units - left)
    if elapsed_ns < algo.duration_ns:
        missing = min(missing, max(table.part(at) * algo.catch_up_pct // 100, least))
    if missing < min(least, left):
        return 0
    return left if left - missing < least else missing


def _cumulated(sizes: Sequence[float], units: int) -> tuple[int, ...]:
    """In whole units, rounded down; the last is all of them."""
    whole = sum(sizes)
    return (*(int(units * (sofar / whole)) for sofar in accumulate(sizes[:-1])), units)


def _dice(seed: str) -> Iterator[float]:
    """Numbers from 0 up to 1, the same for the same seed on every machine."""
    number = 0
    while True:
        yield int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=7).digest(), "big") / 2**56
        number += 1
