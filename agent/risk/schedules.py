"""Whether the parameters of an algorithm make sense together: what does not is refused before anything is sent, with what would."""

from collections.abc import Iterator

from agent.domain.algo import Algo, Shortfall
from agent.domain.amount import plain
from agent.domain.intent import Intent
from agent.domain.plan import Reason

SECOND_NS = 1_000_000_000
PARTS_MAX = 1_000
DURATION_NS_MAX = 31 * 86_400 * SECOND_NS
RANDOMISE_PCT_MAX = 50
CATCH_UP_PCT_MAX = 10_000
URGENCY_PCT_MAX = 5_000  # nearly all of it in the first part
CODE = "SCHEDULE_OUT_OF_RANGE"


def refuse_algo(intent: Intent, algo: Algo, now_ns: int) -> Iterator[Reason]:
    """Every reason, each with the nearest value that would do."""
    if not SECOND_NS <= algo.duration_ns <= DURATION_NS_MAX:
        yield Reason(CODE, f"a duration of {_seconds(algo.duration_ns)} is not within 1 s and 31 days")
        return
    shortest = max(SECOND_NS, -(-algo.duration_ns // (PARTS_MAX * SECOND_NS)) * SECOND_NS)
    if algo.interval_ns > algo.duration_ns:
        text = f"the interval {_seconds(algo.interval_ns)} is longer than the duration: at most {_seconds(algo.duration_ns)}"
        yield Reason(CODE, text)
    elif algo.interval_ns < shortest:
        text = (
            f"an interval of {_seconds(algo.interval_ns)} makes too many parts: at least {_seconds(shortest)} for {PARTS_MAX} parts"
        )
        yield Reason(CODE, text)
    if intent.deadline_ns < now_ns + algo.duration_ns:
        left = max(0, intent.deadline_ns - now_ns)
        yield Reason(CODE, f"the deadline comes {_seconds(left)} from now, before the duration ends: at most {_seconds(left)}")
    if intent.slices != 1 or intent.interval_ns:
        yield Reason(CODE, "an algorithm makes its own slices: give 1 slice and no pause beside it")
    yield from _percent("randomise-size", algo.randomise_size_pct, 0, RANDOMISE_PCT_MAX)
    yield from _percent("randomise-time", algo.randomise_time_pct, 0, RANDOMISE_PCT_MAX)
    yield from _percent("catch-up", algo.catch_up_pct, 100, CATCH_UP_PCT_MAX)
    if isinstance(algo, Shortfall):
        yield from _percent("urgency", algo.urgency_pct, 0, URGENCY_PCT_MAX)


def _percent(name: str, value: int, least: int, most: int) -> Iterator[Reason]:
    if not least <= value <= most:
        yield Reason(CODE, f"{name} {value} % is not within {least} % and {most} %: {most if value > most else least} %")


def _seconds(ns: int) -> str:
    return f"{plain(ns, 9)} s"
