"""When the next slice is due and how large it is: equal parts, a fixed interval apart; the last ones catch up what was missed."""

import msgspec

from agent.domain.amount import Amount
from agent.domain.intent import Intent

RETRY_NS = 500_000_000  # between attempts to clear a rest after the planned slices


class Slice(msgspec.Struct, frozen=True):
    """`index` counts from zero. After the planned slices, further ones clear what is left."""

    index: int
    quantity: Amount  # of the base group


def due(intent: Intent, remaining: Amount, planned: int, last_ns: int, now_ns: int) -> Slice | None:
    """The slice to trade now, or None while it is too early. `planned` slices were started, the last at `last_ns`."""
    if remaining.units <= 0 or now_ns >= intent.deadline_ns:
        return None
    pause_ns = intent.interval_ns if planned < intent.slices else max(intent.interval_ns, RETRY_NS)
    if planned and now_ns < last_ns + pause_ns:
        return None
    left = max(intent.slices - planned, 1)
    return Slice(planned, Amount(-(-remaining.units // left), remaining.asset))
