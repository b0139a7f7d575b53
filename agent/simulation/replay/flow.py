"""What the rest of the world does in a replay, moment by moment: a recorded tape, or the seeded model of a market.

A tape is read once in a process and then kept, because many runs begin at different moments of the same one.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from agent.domain.errors import UsageError
from agent.simulation.exchange.filters import SymbolRules
from agent.simulation.exchange.flow import STEP_MS, MarketModel
from agent.simulation.exchange.liquidity import Action, Quote
from agent.simulation.exchange.tape import TapeError, TapeFlow, read_tape
from agent.simulation.replay.setting import MODEL_START_NS, Setting

ACTIONS_MAX = 10_000_000  # of one tape; it is held in memory
FRAMES_LOOKED_AT = 200
STEP_NS = STEP_MS * 1_000_000

Moment = tuple[int, Sequence[Action]]  # when, in ns since 1970, and what happens then


class Recording(msgspec.Struct, frozen=True):
    """A tape from the moment on at which its book is whole: that moment comes first, with the whole book."""

    moments: tuple[Moment, ...]

    @property
    def start_ns(self) -> int:
        return self.moments[0][0]

    @property
    def length_ns(self) -> int:
        return self.moments[-1][0] - self.start_ns

    def since(self, after_ns: int) -> Iterator[Moment]:
        """From `after_ns` after its beginning on: the book as it stands then, and what follows."""
        from_ns = self.start_ns + after_ns
        book: dict[tuple[int, int], Quote] = {}
        later = 0
        for at_ns, actions in self.moments:
            if at_ns > from_ns:
                break
            later += 1
            for action in actions:
                if isinstance(action, Quote):
                    book[action.side, action.price_ticks] = action
        yield from_ns, [quote for quote in book.values() if quote.size_lots]
        yield from self.moments[later:]


def moments(setting: Setting) -> Iterator[Moment]:
    """The market from `warm_up_ns` before the order comes, or from its beginning if that is later. Times rise.

    Raises UsageError for a tape that cannot be used.
    """
    first_ns = max(setting.start_ns - setting.warm_up_ns, 0)
    if setting.tape:
        yield from recording(setting.tape, setting.rules).since(first_ns)
        return
    model = MarketModel(setting.seed, float(setting.mid), float(setting.tick), float(setting.lot))
    at_ns = MODEL_START_NS + first_ns
    while True:
        yield at_ns, model.step(at_ns)
        at_ns += STEP_NS


def order_ns(setting: Setting) -> int:
    """When the order is handed in, in ns since 1970."""
    begin_ns = recording(setting.tape, setting.rules).start_ns if setting.tape else MODEL_START_NS
    return begin_ns + setting.start_ns


@lru_cache(2)
def recording(path: str, rules: SymbolRules) -> Recording:
    """The whole tape. Raises UsageError if there is none, or if it holds nothing of the symbol."""
    _check_symbol(Path(path), rules.symbol)
    found: list[Moment] = []
    count = 0
    try:
        for at_ns, actions in TapeFlow(Path(path), rules).batches():
            count += len(actions)
            if count > ACTIONS_MAX:
                raise UsageError(f"{path} is too long: more than {ACTIONS_MAX:,} changes; cut it there")
            if actions:
                found.append((max(at_ns, found[-1][0] if found else 0), tuple(actions)))
    except TapeError as error:
        raise UsageError(str(error)) from None
    return Recording(tuple(found))


def _check_symbol(path: Path, symbol: str) -> None:
    seen: set[str] = set()
    try:
        for frame, _ in zip(read_tape(path), range(FRAMES_LOOKED_AT), strict=False):
            data = frame.frame.get("data")
            if isinstance(data, dict):
                seen.add(str(data.get("s", ""))[:20])
    except (OSError, TapeError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read the tape {path}: {reason}; `isthmus record` makes one") from None
    if symbol not in seen:
        named = ", ".join(sorted(seen - {""})) or "no market"
        raise UsageError(f"{path.name} has nothing of {symbol}, it is of {named}; name that pair in the order")
