"""Passive or aggressive: the cheaper in expectation, and each thing that is weighed pulls the way it should."""

import msgspec
import pytest
from algo_kit import BOOK, MID_TICKS, depth
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.instrument import Side
from agent.execution.placement import Sight, post, weigh

MID = MID_TICKS / 100
CHEAP_TO_REST = msgspec.structs.replace(BOOK, maker_fee_pips=200)
SIZE = 10.0  # base coins at each level
EVEN = Sight(CHEAP_TO_REST, depth(lots=100_000), "sell", 1.0, (MID - 0.01) * 0.999, 30.0, 2.0, 0.00002)


def changed(**fields: object) -> Sight:
    return msgspec.structs.replace(EVEN, **fields)


def rest_bps(sight: Sight) -> float:
    found = weigh(sight)
    assert found is not None
    return found.rest_bps - found.take_bps


def test_a_cheap_makers_fee_and_a_busy_market_let_it_rest() -> None:
    chosen = post(EVEN, must=False)
    assert chosen is not None
    assert chosen.ticks == MID_TICKS + 1
    assert "bps expected against 10.0" in chosen.why


@pytest.mark.parametrize(
    "sight",
    [
        changed(pace=0.0),  # nobody comes
        changed(horizon_s=0.5),  # there is no time
        changed(found=BOOK, sigma=0.001),  # waiting is dear and nothing is won by it
        changed(drift_bps=-30.0),  # the price is expected to fall, and we sell
    ],
)
def test_otherwise_it_takes(sight: Sight) -> None:
    assert post(sight, must=False) is None


def test_a_forecast_turns_the_decision() -> None:
    assert post(changed(drift_bps=0.0), must=False) is not None
    assert post(changed(drift_bps=-30.0), must=False) is None
    buying = changed(side="buy", take_price=(MID + 0.01) * 1.001, drift_bps=-30.0)
    assert post(buying, must=False) is not None, "a buyer waits for a falling price"
    assert post(msgspec.structs.replace(buying, drift_bps=30.0), must=False) is None


def test_what_must_rest_rests_and_an_empty_side_has_no_place() -> None:
    assert post(changed(pace=0.0), must=True) is not None
    empty = msgspec.structs.replace(depth(), bids=())
    assert post(changed(depth=empty), must=True) is None


@given(
    st.sampled_from(["sell", "buy"]),
    st.floats(0.01, 50),
    st.floats(0.1, 600),
    st.floats(0, 100),
    st.floats(0, 0.001),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
)
def test_each_thing_pulls_its_own_way(
    side: Side, base: float, horizon_s: float, pace: float, sigma: float, bid_lots: int, ask_lots: int
) -> None:
    book = depth()
    book = msgspec.structs.replace(
        book, bids=((MID_TICKS - 1, bid_lots), *book.bids[1:]), asks=((MID_TICKS + 1, ask_lots), *book.asks[1:])
    )
    price = (MID - 0.01) * 0.999 if side == "sell" else (MID + 0.01) * 1.001
    sight = Sight(CHEAP_TO_REST, book, side, base, price, horizon_s, pace, sigma)
    found = weigh(sight)
    assert found is not None
    assert 0 <= found.filled <= 1
    assert found.ticks == (MID_TICKS + 1 if side == "sell" else MID_TICKS - 1), "it joins, and never takes"
    assert found.take_bps == pytest.approx(10.03, abs=0.1)

    def more(**fields: object) -> float:
        other = weigh(msgspec.structs.replace(sight, **fields))
        assert other is not None
        return other.rest_bps - found.rest_bps

    assert more(sigma=sigma + 0.0001) >= -1e-9, "the wilder, the dearer to wait"
    assert more(found=msgspec.structs.replace(CHEAP_TO_REST, maker_fee_pips=900)) >= -1e-9
    quick = weigh(msgspec.structs.replace(sight, pace=pace * 2 + 1))
    assert quick is not None
    assert quick.filled >= found.filled, "the busier, the surer"
    late = weigh(msgspec.structs.replace(sight, base=base * 2))
    assert late is not None
    assert late.filled <= found.filled


def test_the_scorecards_charge_makes_taking_dearer() -> None:
    assert rest_bps(changed(charge_pips=500)) == pytest.approx(rest_bps(EVEN) - 5 * _filled(EVEN), abs=1e-6)


def _filled(sight: Sight) -> float:
    found = weigh(sight)
    assert found is not None
    return found.filled
