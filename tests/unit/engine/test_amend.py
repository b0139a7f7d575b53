"""An order that runs is paused, goes on, and is amended: within what was traded, once, and a restart remembers it."""

from typing import Any

import msgspec
import pytest
from engine_kit import (
    START_NS,
    Habits,
    Run,
    ScriptedBook,
    ScriptedPool,
    WarpClock,
    dump,
    replayed,
    running,
    sale,
    venues_of,
    warped,
)

from agent.domain.algo import new_algo
from agent.domain.amount import group_asset, parse_amount
from agent.domain.events import IntentAmended, IntentContinued, IntentPaused, Routed
from agent.domain.intent import Intent
from agent.domain.price import Price
from agent.engine.parent import Parent

SECOND = 10**9
TWAP = new_algo("twap", duration_ns=60 * SECOND, interval_ns=5 * SECOND)
ETH = group_asset("ETH")


def venues(**habits: Any) -> dict[str, Any]:
    return dict(venues_of(ScriptedBook(WarpClock(), 1, Habits(**habits)), ScriptedPool(WarpClock(), 1)))


def wish(**changes: Any) -> Intent:
    return msgspec.structs.replace(sale(), algo=TWAP, deadline_ns=START_NS + 300 * SECOND, **changes)


def told(run: Run, kind: type) -> list[Any]:
    return [record for record in run.journal.read() if isinstance(record.event, kind)]


def test_paused_nothing_is_sent_and_what_was_missed_is_made_up_for() -> None:
    async def lived() -> None:
        async with running(venues()) as run:
            assert await run.engine.submit(wish()) == ()
            await run.engine._clock.sleep(12)
            assert await run.engine.pause("p1")
            assert await run.engine.pause("p1"), "again is no error"
            await run.engine._clock.sleep(3)
            parent, routed = run.engine.state.parents["p1"], len(told(run, Routed))
            assert (parent.word, parent.status) == ("PAUSED", "LIVE")
            await run.engine._clock.sleep(20)
            assert len(told(run, Routed)) == routed
            assert await run.engine.proceed("p1")
            assert await run.engine.proceed("p1")
            assert await run.engine.finished("p1") == "FILLED"
            assert parent.filled == parent.intent.quantity
            assert parent.ended_ns <= parent.accepted_ns + 65 * SECOND, "the end of its algorithm did not move"
            assert (len(told(run, IntentPaused)), len(told(run, IntentContinued))) == (1, 1)

    warped(lived())


def test_the_deadline_ends_a_paused_order_and_so_does_the_client() -> None:
    async def lived() -> None:
        async with running(venues()) as run:
            for name in ("p1", "p2"):
                assert await run.engine.submit(msgspec.structs.replace(wish(), intent_id=name, strategy=name)) == ()
                assert await run.engine.pause(name)
            assert await run.engine.cancel("p2")
            assert await run.engine.finished("p2") == "CANCELLED"
            assert await run.engine.finished("p1") in ("EXPIRED", "PARTIAL")
            assert not await run.engine.pause("p1"), "it has ended"
            assert not await run.engine.proceed("nobody")

    warped(lived())


def test_a_restart_keeps_it_paused_and_amended() -> None:
    async def lived() -> None:
        outside = venues()
        run = Run(outside)
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        assert await run.engine.submit(wish()) == ()
        await run.engine._clock.sleep(7)
        assert await run.engine.pause("p1")
        longer = msgspec.structs.replace(
            wish(quantity=parse_amount("15", ETH)), algo=new_algo("twap", duration_ns=120 * SECOND, interval_ns=5 * SECOND)
        )
        assert await run.engine.amend(longer) == ()
        rows = await run.kill()
        run = Run(outside, rows)
        await run.engine.ready()
        parent = run.engine.state.parents["p1"]
        assert parent.word == "PAUSED"
        assert parent.intent == longer
        slices = parent.slices
        await run.engine._clock.sleep(10)
        assert parent.slices == slices
        assert await run.engine.proceed("p1")
        assert await run.engine.finished("p1") == "FILLED"
        assert parent.filled.units == pytest.approx(15 * 10**18, abs=10**16), "but for less than the smallest lot"
        assert parent.ended_ns > parent.accepted_ns + 100 * SECOND
        rows = await run.stop()
        assert dump(replayed(rows)) == dump(run.engine.state)

    warped(lived())


def test_amended_it_passes_the_checks_of_a_new_order_and_never_falls_below_what_was_traded() -> None:
    async def lived() -> None:
        async with running(venues()) as run:
            assert await run.engine.submit(wish()) == ()
            await run.engine._clock.sleep(21)
            parent = run.engine.state.parents["p1"]
            await run.until(lambda: parent.filled.units and not run.engine.state.unsettled("p1"))
            filled = parent.filled
            bad: dict[str, dict[str, Any]] = {
                f"at least {filled}": {"quantity": parse_amount("0.5", ETH)},
                "the deadline has passed": {"deadline_ns": START_NS},
                "slippage 0 bps": {"slippage_bps_max": 0},
                "side of an order cannot be amended": {"side": "buy"},
                "counted in": {"quantity": parse_amount("30", group_asset("BTC"))},
                "longer than the duration": {"algo": new_algo("twap", duration_ns=60 * SECOND, interval_ns=61 * SECOND)},
            }
            for text, changes in bad.items():
                reasons = await run.engine.amend(msgspec.structs.replace(parent.intent, **changes))
                assert any(text in reason.text for reason in reasons), (text, reasons)
            (reason,) = await run.engine.amend(sale("nobody"))
            assert reason.code == "NOT_LIVE"
            assert told(run, IntentAmended) == []
            same = msgspec.structs.replace(parent.intent, quantity=filled)
            assert await run.engine.amend(parent.intent) == (), "what it is already changes nothing"
            assert told(run, IntentAmended) == []
            assert await run.engine.amend(same) == ()
            assert await run.engine.finished("p1") == "FILLED"
            assert parent.filled == filled
            (reason,) = await run.engine.amend(same)
            assert "FILLED already" in reason.text

    warped(lived())


@pytest.mark.parametrize(("changes", "gone"), [({"slippage_bps_max": 50}, True), ({"deadline_ns": START_NS + 500 * SECOND}, False)])
def test_a_price_bound_that_changed_takes_back_what_rests(changes: dict[str, Any], gone: bool) -> None:
    before = sale()
    parent = Parent(before, Price(2_683, 1), START_NS, before.quantity)
    parent.turn(IntentAmended(msgspec.structs.replace(before, **changes)), START_NS, ["p1-0"])
    assert (parent.outdated == ("p1-0",)) is gone
