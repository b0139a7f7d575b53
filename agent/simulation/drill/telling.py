"""A day in words: a state as bytes that can be compared, a record as a line that can be read."""

import msgspec

from agent.domain.events import Event, Record
from agent.engine.state import State
from agent.simulation.drill.clock import SECOND, START_NS


def dump(state: State) -> bytes:
    """Everything that a state holds, as bytes: equal states give equal bytes."""
    fields = {name: value for name, value in vars(state).items() if name != "ledger"}
    fields |= {"ledger": state.ledger.lines(), "adopted": sorted(state.adopted), "fills": sorted(state.fills)}
    fields |= {"nonces": {venue: sorted(used.items()) for venue, used in state.nonces.items()}}
    return msgspec.json.encode(fields, enc_hook=_plain, order="sorted")


def told(record: Record) -> str:
    """A record in one line."""
    event: Event = record.event
    text = msgspec.json.encode(event, enc_hook=_plain).decode()
    at_s = (record.at_ns - START_NS) / SECOND
    return f"{record.seq:5} {at_s:8.3f} {type(event).__name__} {text[:900]}"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
