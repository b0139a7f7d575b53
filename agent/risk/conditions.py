"""Whether what an order waits for, and what it is linked to, makes sense: what does not is refused before anything is sent."""

from collections.abc import Iterator, Sequence

from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.domain.price import Price, worse_by
from agent.domain.trigger import Trailing, is_awaited_below, is_reached

DISTANCE_BPS_MAX = 5_000
MEMBERS_MAX = 16
RANGE, REACHED, LINK = "TRIGGER_OUT_OF_RANGE", "TRIGGER_REACHED", "LINK_UNSOUND"


def refuse_trigger(intent: Intent, price: Price | None, whose: str = "the market") -> Iterator[Reason]:
    """`price`: where the market will be when it is watched, as far as that is known, by the word that the trigger goes by.

    A trigger that is reached already is refused, as exchanges do: who wants that wants an order without a trigger. One that comes
    after another order is held against that one's price; if the market is elsewhere when its time comes, it may fire at once.
    """
    trigger = intent.trigger
    if trigger is None:
        return
    if isinstance(trigger, Trailing):
        if not 1 <= trigger.distance_bps <= DISTANCE_BPS_MAX:
            nearest = 1 if trigger.distance_bps < 1 else DISTANCE_BPS_MAX
            text = f"a distance of {trigger.distance_bps} bps is not within 1 and {DISTANCE_BPS_MAX} bps: {nearest} bps"
            yield Reason(RANGE, text)
        return
    if price is None:
        yield Reason("NO_REFERENCE_PRICE", f"there is no trusted {trigger.by} price of {intent.market}: wait, or go by another")
        return
    falling = is_awaited_below(trigger, intent.side)
    if is_reached(trigger.price, price, falling=falling):
        where, bound = ("below", "at most") if falling else ("above", "at least")
        value = worse_by(price, 1, selling=falling)
        text = f"{trigger.price} is not {where} {whose}, which is at {price} ({trigger.by}): {bound} {value} now"
        yield Reason(REACHED, text)


def refuse_links(intent: Intent, group: Sequence[Intent], entry: Intent | None, *, is_entry_live: bool) -> Iterator[Reason]:
    """`group`: all members of its group in the same submit, itself included; `entry`: the order that it comes after, if known."""
    if intent.group:
        if len(group) < 2 or len(group) > MEMBERS_MAX:
            yield Reason(LINK, f"a group has 2 to {MEMBERS_MAX} orders, all in one submit; {intent.group} has {len(group)}")
        if any(_place(one) != _place(intent) or one.after != intent.after for one in group):
            yield Reason(
                LINK, f"the orders of group {intent.group} have one account, market and side, and come after the same order"
            )
    if not intent.after:
        return
    if entry is None:
        yield Reason(LINK, f"it comes after {intent.after[:40]}, which is not known: submit both together, or that one first")
    elif not is_entry_live:
        yield Reason(LINK, f"it comes after {intent.after}, which has ended: submit it on its own")
    elif (entry.account, entry.base) != (intent.account, intent.base):
        yield Reason(LINK, f"it comes after {intent.after}, which trades {entry.base} of account {entry.account}: trade the same")


def _place(intent: Intent) -> tuple[str, str, str]:
    return intent.account, intent.market, intent.side
