"""Many replays, side by side: each algorithm at the same moments and seeds, beside two naive ways to trade.

The naive market order takes everything at once on the exchange alone; the naive TWAP takes equal parts there, without any dice and
without pools. Differences are taken run by run, so that what the market did in between counts for both.
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from agent import observe
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.simulation.replay.flow import order_ns, recording
from agent.simulation.replay.interval import Interval, Spread, Word, interval, spread, word
from agent.simulation.replay.measure import Measured, measured
from agent.simulation.replay.run import Wish, replayed
from agent.simulation.replay.setting import SECOND, Setting

NAIVE_MARKET, NAIVE_TWAP = "naive market", "naive twap"
NAIVE_PARTS = 30  # of the naive TWAP, where the order itself has none
PARTS_MAX = 1_000
TAIL_NS = 5 * SECOND  # of a tape after the last part: an order is not handed in where it cannot end


class Job(msgspec.Struct, frozen=True):
    label: str
    setting: Setting
    intent: Intent


class Row(msgspec.Struct, frozen=True):
    """One run of one way to trade."""

    label: str
    start_s: float
    seed: int
    done: Measured


class Difference(msgspec.Struct, frozen=True):
    """Of shortfalls, run by run, in bps: below zero costs less than `than`."""

    than: str
    bps: Interval
    word: Word


class Result(msgspec.Struct, frozen=True):
    """All runs of one way to trade."""

    label: str
    runs: int
    filled_share: float
    shortfall_bps: Spread
    mean_bps: Interval
    tracking_pct: float | None
    orders: float
    differences: tuple[Difference, ...]


def check_length(setting: Setting, lasting_ns: int) -> None:
    """Raises UsageError where the tape ends before the order can."""
    if not setting.tape:
        return
    length_ns = recording(setting.tape, setting.rules).length_ns
    left_ns = length_ns - setting.start_ns
    if left_ns < lasting_ns + TAIL_NS:
        raise UsageError(
            f"the tape is {length_ns / SECOND:.0f} s long, so from --start on {max(left_ns, 0) / SECOND:.0f} s are left, and the"
            f" order takes {(lasting_ns + TAIL_NS) / SECOND:.0f} s; begin sooner, make it shorter, or record a longer tape"
        )


def settings(first: Setting, runs: int, lasting_ns: int) -> list[Setting]:
    """Where and with which seed each run begins: spread evenly over the tape from `--start` on, or one seed after the other."""
    last_ns = first.start_ns
    if first.tape:
        last_ns = recording(first.tape, first.rules).length_ns - lasting_ns - TAIL_NS
    room = max(last_ns - first.start_ns, 0)
    starts = [first.start_ns + room * number // max(runs - 1, 1) for number in range(runs)]
    return [msgspec.structs.replace(first, seed=first.seed + number, start_ns=start) for number, start in enumerate(starts)]


def jobs(ways: Mapping[str, Wish], found: Sequence[Setting], lasting_ns: int) -> list[Job]:
    """All runs: every way at every moment, the naive ones on the exchange alone."""
    made: list[Job] = []
    for setting in found:
        alone, at_ns = msgspec.structs.replace(setting, chain=None), order_ns(setting)
        wishes = {label: named(wish(at_ns), setting) for label, wish in ways.items()}
        made += [Job(label, setting, intent) for label, intent in wishes.items()]
        first = next(iter(wishes.values()))
        made += [Job(label, alone, intent) for label, intent in naive(first, lasting_ns, setting).items()]
    return made


def named(intent: Intent, setting: Setting) -> Intent:
    """With a name that says which run it is: all of an order's dice come from its name. It ends with the tape at the latest."""
    ends_ns = intent.deadline_ns
    if setting.tape:
        found = recording(setting.tape, setting.rules)
        ends_ns = min(ends_ns, found.start_ns + found.length_ns - SECOND)
    return msgspec.structs.replace(intent, intent_id=f"r{setting.seed}", deadline_ns=ends_ns)


def naive(like: Intent, lasting_ns: int, setting: Setting) -> dict[str, Intent]:
    """The same order, at once and in equal parts."""
    parts = NAIVE_PARTS
    pause_ns = lasting_ns // parts
    if like.algo is not None:
        pause_ns = int(dict(like.algo.parameters).get("interval_ns", pause_ns))
        parts = max(1, min(-(-lasting_ns // pause_ns), PARTS_MAX))
    elif like.slices > 1:
        parts, pause_ns = like.slices, like.interval_ns
    plain = msgspec.structs.replace(like, algo=None, would=None, rests=False, slices=1, interval_ns=0)
    return {
        NAIVE_MARKET: named(plain, setting),
        NAIVE_TWAP: named(msgspec.structs.replace(plain, slices=parts, interval_ns=pause_ns), setting),
    }


def rows(found: Sequence[Job], processes: int = 1) -> Iterator[Row]:
    """Each run as it ends, in no particular order when processes share them. Raises what a run raises."""
    if processes <= 1:
        yield from map(_row, found)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, max(len(found), 1)), quiet) as pool:
        yield from pool.imap_unordered(_row, found)


def quiet() -> None:
    """What the agent logs in a replay is nobody's news."""
    observe.open_log(level="critical")


def results(found: Sequence[Row], overlap: float, labels: Iterable[str]) -> list[Result]:
    """One for each way, in the order of `labels`. `overlap`: how many neighbouring runs share their market, 1 where none does."""
    by_label: dict[str, dict[tuple[int, float], Measured]] = {label: {} for label in labels}
    for row in sorted(found, key=lambda one: one.seed):
        by_label[row.label][row.seed, row.start_s] = row.done
    return [_result(label, mine, by_label, overlap) for label, mine in by_label.items()]


def overlap_of(found: Sequence[Setting], lasting_ns: int) -> float:
    """How many neighbouring runs share parts of a tape; 1 for seeds of the model, which share nothing."""
    if not found or not found[0].tape or len(found) < 2:
        return 1.0
    pause_ns = (found[-1].start_ns - found[0].start_ns) / (len(found) - 1)
    return max(1.0, lasting_ns / pause_ns) if pause_ns else float(len(found))


def _result(
    label: str,
    mine: Mapping[tuple[int, float], Measured],
    others: Mapping[str, Mapping[tuple[int, float], Measured]],
    overlap: float,
) -> Result:
    costs, block = [one.shortfall_bps for one in mine.values()], max(1, round(overlap))
    tracked = [one.tracking_pct for one in mine.values() if one.tracking_pct is not None]
    differences = []
    for than in (NAIVE_MARKET, NAIVE_TWAP) if label not in (NAIVE_MARKET, NAIVE_TWAP) else ():
        if than in others:
            apart = [one.shortfall_bps - others[than][key].shortfall_bps for key, one in mine.items() if key in others[than]]
            gap = interval(apart, block)
            differences.append(Difference(than, gap, word(gap, len(apart) / overlap)))
    return Result(
        label,
        len(mine),
        sum(one.filled_share for one in mine.values()) / len(mine),
        spread(costs),
        interval(costs, block),
        sum(tracked) / len(tracked) if tracked else None,
        sum(one.orders for one in mine.values()) / len(mine),
        tuple(differences),
    )


def _row(job: Job) -> Row:
    return Row(job.label, job.setting.start_ns / SECOND, job.setting.seed, measured(replayed(job.setting, lambda _: job.intent)))
