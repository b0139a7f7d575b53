"""One life of the agent's process in a drill: from its start to its end, clean or not. What outlives it is the journal's rows."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from agent.domain.errors import JournalError
from agent.domain.events import AttemptApproved, Event, OrderApproved, OrderFilled, OrderReorged, OrderReported, OrderSent
from agent.engine.loop import Engine
from agent.engine.world import Rules
from agent.journal.codec import Row
from agent.market.view import Market
from agent.ports import Venue
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.chain_line import ChainLine
from agent.simulation.drill.clock import WarpClock
from agent.simulation.drill.exchange import Exchange
from agent.simulation.drill.exchange_line import ExchangeLine
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.laws import Laws
from agent.simulation.drill.market import AMM, MAIN
from agent.simulation.drill.play import PlayJournal, PlayLatch, play_signer

DELICATE = (OrderSent, OrderApproved, AttemptApproved, OrderFilled, OrderReorged, OrderReported)


class BugError(Exception):
    """What an adapter raises that nobody foresaw."""


class Death:
    """When the process is killed: at the n-th delicate record, before or after it is written, or at the n-th request."""

    def __init__(self, weather: Weather, *, is_doomed: bool, is_soon: bool = False) -> None:
        roll = weather.dice
        self._records = roll.between(1, 8 if is_soon else 24) if is_doomed and roll.chance(0.7) else 0
        self._requests = roll.between(1, 6) if is_doomed and not self._records else 0
        self._when = roll.pick(("before", "after"))
        self._is_anything = is_soon or roll.chance(0.3)

    def spare(self) -> None:
        """It is not killed any more."""
        self._records = self._requests = 0

    def at(self, event: Event) -> str:
        """For the journal: whether this record is the one."""
        if not self._records or not (self._is_anything or isinstance(event, DELICATE)):
            return ""
        self._records -= 1
        return "" if self._records else self._when

    def is_now(self) -> bool:
        """For the lines: whether this request is the one."""
        if not self._requests:
            return False
        self._requests -= 1
        return not self._requests


class Life:
    """Owns the process: its clock, its lines, its engine. `end` says how it came to its end."""

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        chain: Chain,
        weather: Weather,
        latch: PlayLatch,
        laws: Laws,
        rules: Rules,
        rows: list[Row],
        death: Death,
        skew_ns: int = 0,
    ) -> None:
        self.clock, self.death, self._weather = WarpClock(skew_ns), death, weather
        self.lines: dict[str, ExchangeLine | ChainLine] = {
            one.ledger.venue: ExchangeLine(one, self.clock, weather) for one in exchanges
        }
        self.lines[AMM] = ChainLine(chain, self.clock, weather)
        for line in self.lines.values():
            line.leaving = laws.leaving
            line.carried_out = self._dies_here(death)
        self.journal = PlayJournal(rows, weather, laws.before, death.at)
        venues: dict[str, Venue] = {**self.lines}
        signers = {name: play_signer(weather) for name in venues}
        self.engine = Engine(self.journal, venues, signers, self.clock, rules, Market(), MAIN, run_id="drill", latch=latch)
        laws.begin(self.engine.state, self.journal, self.clock, self.lines)
        self.task = asyncio.create_task(self.engine.run())

    def _dies_here(self, death: Death) -> Callable[[], None]:
        def look() -> None:
            if self._weather.strikes("bug"):
                raise BugError("an answer that nobody foresaw")
            if death.is_now():
                self.journal.die("killed")
                for line in self.lines.values():
                    line.cut()
                raise JournalError("killed")

        return look

    @property
    def trouble(self) -> str:
        """Why the process is dead or dying; empty while it lives."""
        return self.journal.trouble or (self.engine.failure if self.engine.is_stopping else "")

    async def stop(self) -> None:
        """Asked to, in order."""
        await self.engine.stop("drill")
        with contextlib.suppress(JournalError, BugError):
            await self.task
        self._cut()

    async def kill(self) -> None:
        """As `kill -9` does it: what is in the journal now is all that is left."""
        self.journal.die("killed")
        self._cut()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def _cut(self) -> None:
        for line in self.lines.values():
            line.cut()
