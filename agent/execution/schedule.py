"""When the next slice is due and how large it is.

Without an algorithm: equal parts, a fixed interval apart; the last ones catch up what was missed. A scheduled algorithm says how
much should have been traded by now, and a slice is what is missing. Nothing is remembered but what was filled, so a restart goes on
where the order stands.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Literal, Protocol

import msgspec

from agent.domain.amount import Amount, plain
from agent.domain.intent import Intent
from agent.domain.price import ticks_price
from agent.execution.moves import Take
from agent.execution.parameters import PARTS_MAX
from agent.execution.standing import Resting, Standing, books, is_within

RETRY_NS = 500_000_000  # between attempts to clear a rest after the planned slices
STAY_NS = 2_000_000_000  # before a child that is not at the best price any more follows it
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

    def at(self, elapsed_ns: int) -> int:
        """Which part it is then; -1 before the first."""
        return bisect_right(self.starts_ns, elapsed_ns) - 1


class Timed(Protocol):
    """The parameters of whatever keeps a schedule."""

    @property
    def duration_ns(self) -> int: ...
    @property
    def interval_ns(self) -> int: ...
    @property
    def catch_up_pct(self) -> int: ...
    @property
    def placement(self) -> Literal["take", "auto", "passive"]: ...


class Randomised(Timed, Protocol):
    @property
    def randomise_size_pct(self) -> int: ...
    @property
    def randomise_time_pct(self) -> int: ...


# -- without an algorithm ------------------------------------------------------------------------------------------------


def due(intent: Intent, remaining: Amount, planned: int, last_ns: int, now_ns: int) -> Slice | None:
    """The slice to trade now, or None while it is too early. `planned` slices were started, the last at `last_ns`."""
    if remaining.units <= 0 or now_ns >= intent.deadline_ns:
        return None
    pause_ns = intent.interval_ns if planned < intent.slices else max(intent.interval_ns, RETRY_NS)
    if planned and now_ns < last_ns + pause_ns:
        return None
    left = max(intent.slices - planned, 1)
    return Slice(planned, Amount(-(-remaining.units // left), remaining.asset))


# -- by a timetable ------------------------------------------------------------------------------------------------------


def over(own: Timed) -> int:
    """In how many parts its time falls; the last may be shorter."""
    return -(-own.duration_ns // own.interval_ns)


def check_times(own: Timed) -> Iterator[str]:
    """What makes no sense about its times, with what would."""
    shortest_ns = -(-own.duration_ns // PARTS_MAX)
    if own.interval_ns > own.duration_ns:
        yield f"the interval {seconds(own.interval_ns)} is longer than the duration: at most {seconds(own.duration_ns)}"
    elif own.interval_ns < shortest_ns:
        yield f"an interval of {seconds(own.interval_ns)} makes {over(own)} parts: at least {seconds(shortest_ns)} for {PARTS_MAX}"


def seconds(ns: int) -> str:
    return f"{plain(ns, 9)} s"


def timetable(own: Randomised, weights: Sequence[float], units: int, seed: str) -> Timetable:
    """`weights`: one for each part; only their proportions count. The same for the same order, whenever it is asked."""
    count = over(own)
    sizes = [one * (1 + (2 * dice(seed, part) - 1) * own.randomise_size_pct / 100) for part, one in enumerate(weights)]
    later = [dice(seed, count + part) * own.randomise_time_pct / 100 * own.interval_ns for part in range(count)]
    starts = (0, *(min(int(part * own.interval_ns + later[part]), own.duration_ns) for part in range(1, count)))
    return Timetable(starts, _cumulated(sizes, units))


def by_timetable(own: Timed, stand: Standing, table: Timetable) -> Take | None:
    """What should have been traded by now and was not. What a venue works by its own TWAP is no part of it: of the rest, as much as
    the timetable wants of all.
    """
    at = table.at(stand.elapsed_ns)
    if at < 0:
        return None
    until_ns = table.starts_ns[at + 1] if at + 1 < len(table.starts_ns) else own.duration_ns
    late = table.units[at - 1] if at else 0
    given, whole = stand.given(), int(stand.intent.quantity.units)
    if not given:
        return towards(own, stand, table.units[at], table.part(at), late, until_ns)
    kept = max(whole - given, 0)
    wanted, before = (given + kept * units // whole for units in (table.units[at], late))
    take = towards(own, stand, wanted, kept * table.part(at) // whole, before, until_ns)
    return take and msgspec.structs.replace(take, wanted=stand.amount(table.units[at]))


def towards(own: Timed, stand: Standing, wanted: int, part: int, late: int, until_ns: int) -> Take | None:
    """The slice that brings an order to `wanted` units in all: at most `catch_up_pct` of `part` at once, at the end all.

    `late`: units that should have been traded before this part; they do not rest again where the placement is up to the rule.
    `until_ns` (after the beginning): how long a part that rests may do so. A slice is never dust, and leaves none.
    """
    left, is_over = int(stand.left.units), stand.elapsed_ns >= own.duration_ns
    missing = min(left if is_over else wanted - stand.done, left)
    if not is_over:
        missing = min(missing, max(part * own.catch_up_pct // 100, stand.least))
    if missing <= 0 or missing < min(stand.least, left) or (stand.slices and stand.now_ns < stand.last_ns + RETRY_NS):
        return None
    if left - missing < stand.least:
        missing = left
    placement, behind = own.placement, late - stand.done
    if placement == "auto" and (is_over or behind >= stand.least):
        placement, missing = "take", missing if is_over else min(missing, behind)
    return Take(
        stand.amount(missing),
        stand.amount(max(wanted, stand.done + missing)),
        placement,
        stand.accepted_ns + until_ns,
        is_last=is_over,
    )


def stale_by_timetable(own: Timed, stand: Standing, table: Timetable, resting: Resting) -> str:
    """Why a part that rests should be taken back: its time is over, or the best price is elsewhere by now. Empty if it may stay."""
    at = table.at(resting.since_ns - stand.accepted_ns)
    until_ns = table.starts_ns[at + 1] if at + 1 < len(table.starts_ns) else own.duration_ns
    if stand.elapsed_ns >= until_ns and resting.since_ns < stand.accepted_ns + until_ns:
        return "its slice is over"
    return left_behind(stand, resting)


def left_behind(stand: Standing, resting: Resting) -> str:
    """Whether others are ahead of a child that rests, and have been long enough to say so."""
    if stand.now_ns < resting.since_ns + STAY_NS:
        return ""
    for found, depth in books(stand.view()):
        if found.id == resting.instrument:
            best = (depth.asks if stand.is_selling else depth.bids)[0][0]
            ours = ticks_price(resting.ticks, found.tick_units, found.quote.decimals)
            first = ticks_price(best, found.tick_units, found.quote.decimals)
            if best != resting.ticks and is_within(first, stand.limit, selling=stand.is_selling) and ours != first:
                return f"the best price is {first} now"
    return ""


def _cumulated(sizes: Sequence[float], units: int) -> tuple[int, ...]:
    """In whole units, rounded down; the last is all of them."""
    whole = sum(sizes)
    return (*(int(units * (sofar / whole)) for sofar in accumulate(sizes[:-1])), units)


def dice(seed: str, number: int) -> float:
    """From 0 up to 1: the `number`-th of a seed, the same on every machine."""
    return int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=7).digest(), "big") / 2**56
