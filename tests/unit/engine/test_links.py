"""Orders that belong together: a group trades no more than its largest, and what comes after an order no more than it brought."""

from typing import Any

import msgspec
import pytest
from engine_kit import Habits, Run, dump, replayed, running, warped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linked_kit import ETH, LOT, MovingBook, bracket, order, price, settled

from agent.domain.amount import Amount, parse_amount
from agent.domain.events import IntentAccepted, IntentRefused, IntentTriggered, OrderFilled
from agent.domain.intent import Intent
from agent.domain.plan import CancelOrder
from agent.domain.trigger import Stop, Touched

ONE = 10_000  # lots of an ETH
FEE = 5 * 10**8 // 1_000  # of 5 ETH bought, in the coin itself
NET = (5 * 10**8 - FEE) // LOT * LOT  # what can be sold of it, in whole lots
changed = msgspec.structs.replace


async def born(book: MovingBook, rows: Any = None) -> Run:
    run = Run({"cex": book}, rows)
    await run.engine.ready()
    await run.engine.priced("ETH/USDT")
    return run


def statuses(run: Run) -> dict[str, str]:
    return {name: parent.word for name, parent in run.engine.state.parents.items()}


@pytest.mark.parametrize(("to", "winner", "loser"), [(2760, "take", "stop"), (2590, "stop", "take")])
def test_a_bracket_sells_what_was_bought_once(to: float, winner: str, loser: str) -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            assert await run.engine.submit_all(bracket()) == ()
            await settled(run)
            assert statuses(run) == {"entry": "FILLED", "take": "WAITING", "stop": "WAITING"}
            book.to(to)
            assert await run.engine.finished(winner) == "FILLED"
            assert await run.engine.finished(loser) == "CANCELLED"
            assert book.traded(winner) == NET
            assert f"{winner} of its group traded it" in run.engine.state.parents[loser].reason
            records = list(run.journal.read())
            accepted = [one.seq for one in records if isinstance(one.event, IntentAccepted)]
            assert accepted == list(range(accepted[0], accepted[0] + 3)), "one append"
            assert len({one.at_ns for one in records if isinstance(one.event, IntentAccepted)}) == 1

    warped(lived())


def test_an_entry_that_brought_nothing_takes_its_exits_with_it() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            entry, *exits = bracket(rests=True)
            assert await run.engine.submit_all((entry, *exits)) == ()
            await settled(run)
            book.to(2500)
            await settled(run)
            assert statuses(run)["stop"] == "WAITING", "nothing was bought yet, so nothing is at stake"
            assert await run.engine.cancel("entry")
            for one in exits:
                assert await run.engine.finished(one.intent_id) == "CANCELLED"
                assert "entry ended CANCELLED with nothing traded" in run.engine.state.parents[one.intent_id].reason

    warped(lived())


def test_an_exit_that_begins_ends_its_entry_and_sells_what_came_so_far() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            entry, take, stop = bracket(rests=True)
            take, stop = changed(take, rests=False), changed(stop, rests=False)
            assert await run.engine.submit_all((entry, take, stop)) == ()
            await run.until(lambda: book.rests)
            book.trade("entry-0", 2 * ONE)
            await settled(run)
            book.to(2590)
            assert await run.engine.finished("entry") == "CANCELLED"
            assert await run.engine.finished("stop") == "FILLED"
            assert await run.engine.finished("take") == "CANCELLED"
            assert book.traded("entry") == 2 * 10**8
            assert book.traded("stop") == (2 * 10**8 - 2 * 10**5) // LOT * LOT

    warped(lived())


@pytest.mark.parametrize("between", [0, 15_000])
def test_what_rests_is_taken_back_before_the_stop_sells_and_a_trade_in_between_shrinks_it(between: int) -> None:
    """Nothing is sold twice: the stop waits for the cancel's word."""

    async def lived() -> None:
        book = MovingBook()
        book.slow_s = 5
        async with running({"cex": book}) as run:
            pair = order("take", group="g", rests=True), order("stop", group="g", trigger=Stop(price("2600")))
            assert await run.engine.submit_all(pair) == ()
            await run.until(lambda: book.rests)
            book.trade("take-0", ONE)
            await settled(run)
            book.to(2590)
            await settled(run, 2)
            stop = run.engine.state.parents["stop"]
            assert stop.triggered_ns
            assert not stop.orders, "the venue has not said that the other one is gone"
            if between:
                book.trade("take-0", between)
            assert await run.engine.finished("stop") == "FILLED"
            assert await run.engine.finished("take") == "FILLED"
            assert (book.traded("take"), book.traded("stop")) == ((ONE + between) * LOT, (4 * ONE - between) * LOT)
            (cancel,) = [plan for plan in book.plans.values() if isinstance(plan, CancelOrder)]
            assert cancel.target_id == "take-0"

    warped(lived())


def test_of_a_scale_out_each_part_leaves_the_rest_protected() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            group = (
                order("near", quantity="2", group="g", trigger=Touched(price("2700"))),
                order("far", quantity="3", group="g", trigger=Touched(price("2800"))),
                order("stop", quantity="5", group="g", trigger=Stop(price("2600"))),
            )
            assert await run.engine.submit_all(group) == ()
            book.to(2710)
            assert await run.engine.finished("near") == "FILLED"
            await settled(run)
            assert statuses(run) == {"near": "FILLED", "far": "WAITING", "stop": "WAITING"}
            book.to(2590)
            assert await run.engine.finished("stop") == "FILLED"
            assert await run.engine.finished("far") == "CANCELLED"
            assert (book.traded("near"), book.traded("stop")) == (2 * ONE * LOT, 3 * ONE * LOT)

    warped(lived())


def test_what_comes_after_follows_as_far_as_the_first_has_come() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            pair = order("first", "buy", rests=True), order("then", after="first")
            assert await run.engine.submit_all(pair) == ()
            await run.until(lambda: book.rests)
            await settled(run)
            assert statuses(run) == {"first": "LIVE", "then": "WAITING"}
            book.trade("first-0", ONE)
            await settled(run)
            assert statuses(run) == {"first": "LIVE", "then": "LIVE"}
            assert book.traded("then") == 9_990 * LOT, "less the fee, which was paid in the coin"
            book.trade("first-0", 4 * ONE)
            assert await run.engine.finished("first") == "FILLED"
            assert await run.engine.finished("then") == "FILLED"
            assert book.traded("then") == NET
            assert len([one for one in run.journal.read() if isinstance(one.event, IntentTriggered)]) == 1

    warped(lived())


BAD: dict[str, tuple[Intent, ...]] = {
    "a group has 2 to 16 orders": (order("a", group="g"),),
    "one account, market and side": (order("a", group="g"), order("b", "buy", group="g")),
    "after the same order": (order("e"), order("a", group="g", after="e"), order("b", group="g")),
    "which is not known": (order("a", after="nobody"),),
    "not known: submit both": (order("a", after="a"), order("b")),
    "trade the same": (
        order("e", strategy="x"),
        changed(
            order("a", after="e"),
            quantity=parse_amount("1", msgspec.structs.replace(ETH, symbol="USDT", group="USDT")),
            quote="ETH",
        ),
    ),
    "comes twice": (order("a"), order("a")),
    "which has ended": (order("a", after="done"),),
    "is known already": (order("a", group="old"), order("b", group="old")),
}


@pytest.mark.parametrize("text", BAD)
def test_what_does_not_fit_is_refused_as_a_whole(text: str) -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            assert (
                await run.engine.submit_all((order("done", group="old"), order("x", group="old", trigger=Stop(price("9"))))) == ()
            )
            await run.engine.finished("x")
            reasons = await run.engine.submit_all(BAD[text])
            assert any(text in reason.text for reason in reasons), reasons
            assert run.engine.state.parents.keys() == {"done", "x"}
            refused = [record.event for record in run.journal.read() if isinstance(record.event, IntentRefused)]
            assert len(refused) == len(BAD[text])

    warped(lived())


def test_the_largest_of_a_group_is_not_amended_below_what_the_group_has_traded() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            pair = (
                order("take", quantity="5", group="g", rests=True),
                order("stop", quantity="4", group="g", trigger=Stop(price("9"))),
            )
            assert await run.engine.submit_all(pair) == ()
            await run.until(lambda: book.rests)
            assert await run.engine.amend(changed(pair[1], quantity=parse_amount("1", ETH))) == ()
            (reason,) = await run.engine.amend(changed(pair[0], quantity=parse_amount("4", ETH)))
            assert "at least 5 ETH" in reason.text, "all of it rests"

    warped(lived())


def test_a_profit_at_a_limit_trades_at_it_or_better_and_a_stop_in_between_ends_it() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            entry, _, stop = bracket(limit=price("2650"))
            take = order("take", group="g", after="entry", limit=price("2750"), rests=True)
            assert await run.engine.submit_all((entry, take, stop)) == ()
            await settled(run)
            assert statuses(run) == {"entry": "LIVE", "take": "WAITING", "stop": "WAITING"}
            book.to(2640)
            assert await run.engine.finished("entry") == "FILLED"
            await settled(run)
            assert statuses(run)["take"] == "LIVE"
            assert not book.rests, "the market is not there"
            book.to(2751)
            await run.until(lambda: book.rests)
            plan = book.plans["take-0"]
            assert plan.ticks >= 275_000
            book.trade("take-0", 2 * ONE)
            await settled(run)
            book.to(2590)
            assert await run.engine.finished("stop") == "FILLED"
            assert await run.engine.finished("take") == "FILLED"
            assert book.traded("take", "stop") == NET

    warped(lived())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stop": "2660"}, "2660 is not below the entry entry, which is at 2650"),
        ({"take": "2640"}, "2640 is not above the entry entry, which is at 2650"),
    ],
)
def test_exits_are_held_against_the_price_of_their_entry(changes: dict[str, str], text: str) -> None:
    async def lived() -> None:
        async with running({"cex": MovingBook()}) as run:
            (reason,) = await run.engine.submit_all(bracket(limit=price("2650"), **changes))
            assert text in reason.text

    warped(lived())


def test_a_paused_stop_leaves_the_other_to_trade_and_one_that_failed_too() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            pair = (
                order("take", group="g", trigger=Touched(price("2750"))),
                order("stop", group="g", trigger=Stop(price("2600")), within_s=60),
            )
            assert await run.engine.submit_all(pair) == ()
            assert await run.engine.pause("stop")
            book.to(2590)
            await settled(run, 5)
            assert statuses(run) == {"take": "WAITING", "stop": "PAUSED"}
            book.to(2751)
            assert await run.engine.finished("take") == "FILLED"
            assert await run.engine.finished("stop") == "CANCELLED"

    warped(lived())


@pytest.mark.parametrize("moment", ["entering", "holding", "resting", "taking back", "selling"])
def test_killed_in_any_state_it_goes_on_and_sells_once(moment: str) -> None:
    async def lived() -> None:
        book = MovingBook()
        book.slow_s = 4
        entry, _, stop = bracket(rests=True)
        take = order("take", group="g", after="entry", limit=price("2750"), rests=True)
        run = await born(book)
        assert await run.engine.submit_all((entry, take, stop)) == ()
        await run.until(lambda: book.rests)
        book.trade("entry-0", ONE)
        await settled(run)
        run = await again(book, run, moment == "entering")
        assert statuses(run) == {"entry": "LIVE", "take": "LIVE", "stop": "WAITING"}
        book.trade("entry-0", 4 * ONE)
        await run.until(lambda: not run.engine.state.parents["entry"].is_live)
        run = await again(book, run, moment == "holding")
        book.to(2751)
        await run.until(lambda: sum(book.rests.values()) == NET // LOT)
        for name in list(book.rests)[:1]:
            book.trade(name, ONE // 2)
        await settled(run)
        run = await again(book, run, moment == "resting")
        book.to(2590)
        await settled(run, 1)
        assert run.engine.state.parents["stop"].triggered_ns
        run = await again(book, run, moment == "taking back")
        await run.until(lambda: book.traded("stop"))
        run = await again(book, run, moment == "selling")
        assert await run.engine.finished("stop") == "FILLED"
        assert await run.engine.finished("take") == "FILLED"
        assert (book.traded("take"), book.traded("take", "stop")) == (ONE // 2 * LOT, NET)
        rows = await run.stop()
        assert dump(replayed(rows)) == dump(run.engine.state)

    warped(lived())


async def again(book: MovingBook, run: Run, is_now: bool) -> Run:
    """Killed and started anew, if this is the moment."""
    return await born(book, await run.kill()) if is_now else run


def test_a_trade_of_an_order_that_was_gone_halts_when_it_makes_the_group_trade_too_much() -> None:
    async def lived() -> None:
        book = MovingBook()
        async with running({"cex": book}) as run:
            pair = order("take", group="g", rests=True), order("stop", group="g", trigger=Stop(price("2600")))
            assert await run.engine.submit_all(pair) == ()
            await run.until(lambda: book.rests)
            book.to(2590)
            assert await run.engine.finished("stop") == "FILLED"
            assert await run.engine.finished("take") == "CANCELLED"
            book.push(OrderFilled(book._fill(book.plans["take-0"], ONE)))
            await settled(run)
            (why,) = run.engine.state.halted.values()
            assert "take, stop traded 1 ETH more than they may together" in why

    warped(lived())


# -- whatever happens -----------------------------------------------------------------------------------------------------


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["up", "up", "down", "price", "fill", "fill", "fill", "cancel", "pause", "kill", "wait", "amend"]),
        st.integers(0, 2),
        st.integers(1, 100),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=MOVES, seed=st.integers(0, 1_000), rests=st.tuples(st.booleans(), st.booleans()), slow=st.sampled_from([0.0, 0.4, 3.0])
)
def test_no_more_is_sold_than_was_bought_and_never_by_both(
    moves: list[tuple[str, int, int]], seed: int, rests: tuple[bool, bool], slow: float
) -> None:
    """Any sequence of prices, fills, lost replies, cancels, pauses, amendments, kills and restarts."""

    async def lived() -> None:
        book = MovingBook(seed, Habits(sends=("reply", "reply", "quiet", "lost_done", "late"), partial=0.4, delay_s=0.3, twice=0.2))
        book.slow_s = slow
        entry, take, stop = bracket()
        names = ("entry", "take", "stop")
        run = await born(book)
        assert await run.engine.submit_all((changed(entry, rests=rests[0]), changed(take, rests=rests[1]), stop)) == ()
        for kind, which, number in moves:
            name, parent = names[which], run.engine.state.parents[names[which]]
            match kind:
                case "up" | "down" | "price":
                    book.to({"up": 2755, "down": 2595}.get(kind, 2550 + number * 2.5))
                case "fill" if book.rests:
                    target = sorted(book.rests)[which % len(book.rests)]
                    book.trade(target, number * ONE // 20)
                case "cancel" if number > 70:
                    await run.engine.cancel(name)
                case "pause":
                    await (run.engine.proceed(name) if parent.paused else run.engine.pause(name))
                case "amend":
                    await run.engine.amend(changed(parent.intent, quantity=Amount(number * 10**17, ETH)))
                case "kill":
                    run = await born(book, await run.kill())
                case _:
                    pass
            await settled(run, number / 25)
            hold(book, run)
        for name in names:
            await run.engine.proceed(name)
        await settled(run, 30)
        hold(book, run)
        rows = await run.stop()
        assert dump(replayed(rows)) == dump(run.engine.state)

    warped(lived())


def hold(book: MovingBook, run: Run) -> None:
    """The venue's own account against the promise."""
    state = run.engine.state
    bought, sold = book.traded("entry"), book.traded("take", "stop")
    assert sold <= bought
    assert bought <= state.parents["entry"].intent.quantity.units // 10**10
    assert sold <= max(state.parents[name].intent.quantity.units for name in ("take", "stop")) // 10**10
    assert not state.halted, state.halted
