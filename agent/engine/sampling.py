"""What markets do is noted, second by second: for schedules that follow it, and for the analysis afterwards."""

from itertools import takewhile

import msgspec

from agent.domain.events import IntentEnded
from agent.engine.state import State
from agent.engine.world import World

SAMPLE_NS = 250_000_000  # between two looks at where markets stand
LATELY_NS = 60_000_000_000


def sample(world: World, now_ns: int) -> None:
    """Note where every market stands, a few times a second; at once when it is not time yet."""
    if now_ns >= world.sampled_ns + SAMPLE_NS:
        world.sampled_ns = now_ns
        for market in world.market.markets():
            world.market.sample(market, now_ns)


def markets_worked(state: State, now_ns: int) -> set[str]:
    """The markets in which a parent is live, or was accepted lately."""
    recent = takewhile(lambda parent: parent.accepted_ns > now_ns - LATELY_NS, reversed(state.parents.values()))
    return {parent.intent.market for parent in (*state.live.values(), *recent)}


def departed(event: IntentEnded, state: State, world: World, now_ns: int) -> IntentEnded:
    """The end of a parent, with where its market stands then."""
    market = state.parents[event.intent_id].intent.market
    return msgspec.structs.replace(event, mid=world.market.view(market, now_ns).mid)
