"""A key of this process signs before anything is journaled: the approval and the send are one append, and nothing leaves before."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from engine_kit import Habits, PlainSigner, Run, ScriptedBook, ScriptedPool, WarpClock, sale, venues_of, warped

from agent.domain.errors import JournalError, SignatureUnknownError, SignerError
from agent.domain.events import Event, OrderApproved, OrderReported, OrderSent, Record
from agent.domain.order import NEVER_SENT, OrderState
from agent.domain.plan import Signed, Unsigned
from agent.engine.dispatch import SIGN_TRIES
from agent.journal.memory import MemoryJournal


class PromptSigner:
    """PlainSigner, at once."""

    key_id = "k"

    async def sign(self, unsigned: Unsigned) -> Signed:
        return self.sign_now(unsigned)

    def sign_now(self, unsigned: Unsigned) -> Signed:
        try:
            PlainSigner().sign(unsigned).send(None)  # it waits for nothing
        except StopIteration as done:
            signed: Signed = done.value
            return signed
        raise AssertionError("a plain signer answers at once")


class Refusing(PromptSigner):
    def sign_now(self, unsigned: Unsigned) -> Signed:
        raise SignerError(f"{unsigned.order_id} is against the policy")


class Waiting(PromptSigner):
    """Never answers at once."""

    def sign_now(self, unsigned: Unsigned) -> Signed | None:  # type: ignore[override]
        return None

    async def sign(self, unsigned: Unsigned) -> Signed:
        return await PlainSigner().sign(unsigned)


class Forgetful:
    """Cannot say whether it signed, twice for each request."""

    key_id = "k"

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    async def sign(self, unsigned: Unsigned) -> Signed:
        self.asked[unsigned.order_id] = self.asked.get(unsigned.order_id, 0) + 1
        if self.asked[unsigned.order_id] < SIGN_TRIES:
            raise SignatureUnknownError("the line broke")
        return await PlainSigner().sign(unsigned)


class Watched(MemoryJournal):
    """Keeps each append as one; `wall` stops before the disk has it, `is_torn` fails when an order is about to leave."""

    def __init__(self) -> None:
        super().__init__([])
        self.appends: list[list[Event]] = []
        self.wall = asyncio.Event()
        self.wall.set()
        self.is_torn = False

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        if self.is_torn and any(isinstance(event, OrderSent) for event in events):
            raise JournalError("torn")
        self.appends.append(list(events))
        return super().append(at_ns, events)

    async def secured(self, seq: int) -> None:
        await self.wall.wait()
        await super().secured(seq)


def venues(**habits: Any) -> dict[str, Any]:
    return venues_of(ScriptedBook(WarpClock(), 1, Habits(**habits)), ScriptedPool(WarpClock(), 1))


def life(
    work: Callable[[Run, Watched, dict[str, Any]], Awaitable[None]], new_signer: Callable[[], Any] = PromptSigner, **habits: Any
) -> Watched:
    """One life of an engine with such keys; its journal."""

    async def lived() -> Watched:
        journal, outside = Watched(), venues(**habits)
        run = Run(outside, journal=journal, new_signer=new_signer)
        try:
            await run.engine.ready()
            await run.engine.priced("ETH/USDT")
            await work(run, journal, outside)
            if not run.task.done():
                await run.stop()
        finally:
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)
        return journal

    return warped(lived())


def sent_with_their_approval(journal: Watched) -> int:
    """How many sends are journaled right behind their approval, in one append."""
    pairs = ((a, b) for append in journal.appends for a, b in pairwise(append))
    return sum(isinstance(a, OrderApproved) and isinstance(b, OrderSent) for a, b in pairs)


def test_an_order_is_approved_and_sent_in_one_append() -> None:
    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        await run.engine.submit(sale(slices=3, interval_ns=2 * 10**9))
        assert await run.engine.finished("p1") == "FILLED"

    journal = life(work)
    sends = [event for append in journal.appends for event in append if isinstance(event, OrderSent) and not event.attempt]
    assert len(sends) > 3
    assert sent_with_their_approval(journal) == len(sends)


def test_another_key_is_asked_when_the_approval_is_journaled() -> None:
    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        await run.engine.submit(sale())
        assert await run.engine.finished("p1") == "FILLED"

    assert sent_with_their_approval(life(work, PlainSigner)) == 0


def test_a_key_of_this_process_may_ask_for_time() -> None:
    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        await run.engine.submit(sale())
        assert await run.engine.finished("p1") == "FILLED"

    assert sent_with_their_approval(life(work, Waiting)) == 0


def test_a_key_that_cannot_say_whether_it_signed_is_asked_again() -> None:
    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        await run.engine.submit(sale())
        assert await run.engine.finished("p1") == "FILLED"

    journal = life(work, Forgetful)
    assert not [e for append in journal.appends for e in append if isinstance(e, OrderReported) and NEVER_SENT in e.reason]


def test_what_a_key_refuses_is_journaled_with_the_reason_and_never_sent() -> None:
    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        await run.engine.submit(sale())
        assert await run.engine.finished("p1") == "REFUSED"
        assert [venue.arrivals for venue in outside.values()] == [[], []]
        assert not run.engine.state.working

    journal = life(work, Refusing)
    refused = [e for append in journal.appends for e in append if isinstance(e, OrderReported) and e.state is OrderState.REJECTED]
    assert refused
    assert all(one.reason == f"{NEVER_SENT}: {one.order_id} is against the policy" for one in refused)


def test_what_ended_while_the_disk_took_its_time_is_not_sent() -> None:
    """Silence of a venue about an order may be taken for its end while it still waits for the disk: then it must not leave."""

    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        journal.wall.clear()
        asking = asyncio.create_task(run.engine.submit(sale()))
        await run.until(lambda: run.engine.state.orders)
        names = list(run.engine.state.working)
        for name in names:
            run.engine._recorder.record([OrderReported(name, OrderState.REJECTED, "the venue does not know it")])
        journal.wall.set()
        await asking
        await asyncio.sleep(0.4)  # less than the pause after a failure
        assert all(name not in venue.arrivals for venue in outside.values() for name in names)

    life(work)


def test_nothing_leaves_when_the_journal_does_not_take_it() -> None:
    async def work(run: Run, journal: Watched, outside: dict[str, Any]) -> None:
        journal.is_torn = True
        await run.engine.submit(sale())
        with pytest.raises(JournalError, match="torn"):
            await run.task
        assert [venue.arrivals for venue in outside.values()] == [[], []]

    life(work)
