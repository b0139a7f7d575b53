"""A share for a venue's own TWAP: how much it is handed, what is refused, and that the rest keeps the timetable."""

import msgspec
import pytest
from algo_kit import BOOK, LOT, SECOND, START_NS, Desk, order
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.algo import new_algo
from agent.domain.intent import Intent
from agent.domain.price import Price
from agent.execution.algorithms import read
from agent.execution.moves import HandOver, Take
from agent.execution.native import hand_over, refusals
from agent.execution.standing import Standing
from agent.ports import NativeTwap

TERMS = NativeTwap("USDT", 300, 86_400, 1_000, 100_000)
COIN = 10**18
MID = Price(2_683, 1)


def twap(units: int, seconds: int = 600, **parameters: int) -> Intent:
    return order(new_algo("twap", duration_ns=seconds * SECOND, interval_ns=30 * SECOND, placement="take", **parameters), units)


def seen(intent: Intent, after_s: int = 0, *, worked: int = 0, done: int = 0, slices: int = 0, free: int = 10**30) -> Standing:
    desk = Desk(intent, least=LOT)
    desk.done, desk.slices, desk.last_ns = worked + done, slices, START_NS
    stand = desk.standing(START_NS + after_s * SECOND)
    return msgspec.structs.replace(stand, native=lambda _: TERMS, given=lambda: worked, free=lambda _: free)


def test_it_is_the_first_move_and_never_again() -> None:
    intent = twap(10 * COIN, native_pct=60)
    chosen = read(intent.algo) if intent.algo else None
    assert chosen is not None
    move = chosen.step(seen(intent))
    assert move == HandOver(BOOK.id, msgspec.structs.replace(intent.quantity, units=6 * COIN), 600)
    after = chosen.step(seen(intent, 1, worked=6 * COIN, slices=1))
    assert isinstance(after, Take)
    assert after.quantity.units == 4 * COIN // 20
    assert after.wanted is not None
    assert after.wanted.units == 10 * COIN // 20


@pytest.mark.parametrize(
    ("units", "after_s", "free", "handed"),
    [
        (10 * COIN, 0, 2 * COIN, 2 * COIN),  # what the account has
        (10 * COIN, 0, COIN // 10, None),  # too little of it
        (10 * COIN, 301, 10**30, None),  # too late
        (100 * COIN, 0, 10**30, 37_271 * COIN // 1_000),  # what the venue takes, at the best of the prices, in lots
        (COIN // 10, 0, 10**30, None),
    ],
)
def test_no_more_than_the_venue_takes_and_the_account_has(units: int, after_s: int, free: int, handed: int | None) -> None:
    move = hand_over(100, 600 * SECOND, seen(twap(units, native_pct=100), after_s, free=free))
    assert (None if move is None else move.quantity.units) == pytest.approx(handed, abs=2 * 10**15)


def test_without_an_offer_all_is_sliced_here() -> None:
    intent = twap(10 * COIN, native_pct=60)
    stand = msgspec.structs.replace(seen(intent), native=lambda _: None)
    move = read(intent.algo).step(stand) if intent.algo else None
    assert isinstance(move, Take)
    assert move.quantity.units == 10 * COIN // 20


@pytest.mark.parametrize(
    ("units", "seconds", "pct", "nearest"),
    [
        (10 * COIN, 300, 50, "at least 301 s"),
        (10 * COIN, 86_401, 50, "a duration of at most 86400 s, or native 0 %"),
        (2 * COIN, 600, 10, "at least 19 %"),
        (COIN // 10, 600, 100, "0 %"),
        (50 * COIN, 600, 100, "at most 74 %"),
        (10 * COIN, 600, 50, ""),
    ],
)
def test_refusals_name_the_nearest_value_and_it_would_do(units: int, seconds: int, pct: int, nearest: str) -> None:
    intent = twap(units, seconds, native_pct=pct)
    found = list(refusals(intent, pct, seconds * SECOND, MID, [(BOOK, TERMS)]))
    assert [text.rpartition(": ")[2] if ": " in text else text for text in found] == ([nearest] if nearest else [])
    if nearest.endswith(" %") and nearest[3:5] in ("le", "mo"):
        assert list(refusals(intent, int(nearest.split()[2]), seconds * SECOND, MID, [(BOOK, TERMS)])) == []


def test_where_nobody_offers_one_it_is_refused() -> None:
    assert next(refusals(twap(COIN), 10, 600 * SECOND, MID, [])).endswith("native 0 %")


@given(st.integers(1, 500), st.integers(1, 100), st.lists(st.integers(0, 100), min_size=1, max_size=25), st.integers(0, 100))
def test_own_slices_and_the_venue_s_never_add_up_to_more(coins: int, pct: int, fills: list[int], traded_pct: int) -> None:
    """The venue ends half way with only a part of its share traded; own slices fill as they may; at the end it is all."""
    units = coins * COIN // 10
    intent = twap(units, native_pct=pct)
    assert intent.algo is not None
    chosen, handed = read(intent.algo), units * pct // 100
    own = 0
    for turn, share in enumerate([*fills, 100, 100, 100]):
        at_s = min(turn * 30, 700) if turn < len(fills) else 700 + turn
        worked = handed if at_s < 300 else handed * traded_pct // 100
        move = chosen.step(seen(intent, at_s, worked=worked, done=own, slices=turn + 1))
        if move is None:
            continue
        assert isinstance(move, Take)
        assert move.quantity.units <= units - own - worked
        own += move.quantity.units * share // 100
        assert own + worked <= units
    assert units - own - worked < LOT
