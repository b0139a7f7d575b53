"""Bugs that are planted in the lives of a sweep, to see that it finds them: each breaks one promise of engine or journal."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from agent.domain.events import IntentAccepted
from agent.domain.intent import Intent
from agent.domain.order import OrderState
from agent.domain.plan import Approved
from agent.engine.decide import accept
from agent.engine.dispatch import Dispatch, _sent
from agent.engine.loop import Engine
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.journal import store


def no_bug() -> None:
    """The engine as it is."""


def sends_before_it_records() -> None:
    async def send_first(self: Dispatch, approved: Approved) -> None:
        signed = await self._sign(approved)
        facts = await self._venues[approved.plan.venue].send(signed)
        self._recorder.record([_sent(approved, signed)])
        self._recorder.absorb(approved.plan.venue, facts)

    Dispatch._send_first = send_first  # type: ignore[method-assign]


def does_not_wait_for_the_disk() -> None:
    """Seen in mode `power` alone: in mode `process` there is nothing to wait for."""

    async def secured(self: Recorder) -> None:
        return

    Recorder.secured = secured  # type: ignore[method-assign]


def writes_one_append_late() -> None:
    insert, held = store.insert, list[Any]()

    def late(db: Any, rows: Sequence[Any]) -> None:
        held.append(list(rows))
        if len(held) > 1:
            insert(db, held.pop(0))

    store.insert = late


def takes_doubt_for_a_no() -> None:
    restart = State._restart

    def restarted(self: State) -> None:
        restart(self)
        for order in list(self.working.values()):
            if order.state is OrderState.UNKNOWN:
                self._move(order, OrderState.CANCELLED)

    State._restart = restarted  # type: ignore[method-assign]


def answers_before_it_records() -> None:
    async def submit(self: Engine, intent: Intent) -> tuple[Any, ...]:
        answer = accept(intent, self.state, self.world, self._rules, self._clock.now_ns())
        if not isinstance(answer, IntentAccepted):
            return answer.reasons
        asyncio.get_running_loop().call_later(2.0, self._recorder.record, [answer])
        return ()

    Engine.submit = submit  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        no_bug,
        sends_before_it_records,
        does_not_wait_for_the_disk,
        writes_one_append_late,
        takes_doubt_for_a_no,
        answers_before_it_records,
    )
}
