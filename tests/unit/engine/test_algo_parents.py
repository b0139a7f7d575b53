"""A parent that an algorithm works: through routing and the gate as ever, and a kill at any moment changes no total."""

import random
from typing import Any

import msgspec
import pytest
from engine_kit import START_NS, Habits, Run, ScriptedBook, ScriptedPool, WarpClock, replayed, running, sale, venues_of, warped

from agent.domain.algo import Algo, new_algo
from agent.domain.events import IntentRefused, Routed
from agent.domain.intent import Intent

SECOND = 10**9
TIMES = {"duration_ns": 60 * SECOND, "interval_ns": 5 * SECOND}
TWAP = new_algo("twap", **TIMES, randomise_size_pct=20, randomise_time_pct=20)
URGENT = new_algo("is", **TIMES, urgency_pct=300)


def wish(algo: Algo, name: str = "p1", quantity: str = "20") -> Intent:
    return msgspec.structs.replace(sale(name, quantity), algo=algo, deadline_ns=START_NS + 300 * SECOND)


def venues(seed: int = 1, **habits: Any) -> dict[str, Any]:
    return dict(venues_of(ScriptedBook(WarpClock(), seed, Habits(**habits)), ScriptedPool(WarpClock(), seed)))


@pytest.mark.parametrize("algo", [TWAP, URGENT])
def test_it_is_worked_over_its_time(algo: Algo) -> None:
    async def lived() -> tuple[list[tuple[float, float]], str]:
        async with running(venues()) as run:
            assert await run.engine.submit(wish(algo)) == ()
            status = await run.engine.finished("p1")
            records = [record for record in run.journal.read() if isinstance(record.event, Routed)]
            parent = run.engine.state.parents["p1"]
            return [((r.at_ns - parent.accepted_ns) / SECOND, float(r.event.quantity.units) / 1e18) for r in records], status

    slices, status = warped(lived())
    assert status == "FILLED"
    assert len(slices) >= 12
    early = sum(units for after, units in slices if after < 15)
    assert slices[-1][0] > 50
    assert early == pytest.approx(20 / 4, rel=0.3) if algo.name == "twap" else early > 8


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_moment_it_goes_on_where_it_stood(seed: int) -> None:
    dice = random.Random(seed)

    async def lived() -> None:
        outside = venues(seed, partial=0.3, twice=0.2, drop=0.05)
        run = Run(outside)
        await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        assert await run.engine.submit(wish(TWAP)) == ()
        for _ in range(3):
            await run.engine._clock.sleep(dice.uniform(0.1, 25))
            rows = await run.kill()
            run = Run(outside, rows)
            await run.engine.ready()
        await run.engine.finished("p1")
        rows = await run.stop()
        parent = replayed(rows).parents["p1"]
        assert parent.status == "FILLED", parent.reason
        assert parent.filled == parent.intent.quantity

    warped(lived())


def test_parts_below_the_smallest_lot_are_refused_before_anything_is_sent() -> None:
    async def lived() -> None:
        async with running(venues()) as run:
            reasons = await run.engine.submit(wish(TWAP, quantity="0.0000001"))
            assert any("at least 0.0018" in reason.text for reason in reasons)
            reasons = await run.engine.submit(wish(TWAP, quantity="0.01"))
            assert any("12 parts of 0.01 ETH" in reason.text and "at most 5 parts" in reason.text for reason in reasons)
            assert not run.engine.state.orders
            assert any(isinstance(record.event, IntentRefused) for record in run.journal.read())

    warped(lived())
