"""Every algorithm, worked by the agent at an exchange with queues and at pools with blocks, and killed on the way.

Whatever happens: no more than the order, nothing worse than its limit, nothing after its end, nothing twice, and what the journal
says is what the venues saw.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from replay_kit import ALONE, lived, wish

from agent import observe
from agent.domain.algo import Algo, Value, new_algo
from agent.domain.amount import rescale_down
from agent.domain.errors import RefusedError
from agent.domain.events import OrderSent, Routed
from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.domain.order import Fill, OrderState
from agent.domain.plan import PlaceOrder, SwapBatch
from agent.domain.price import Price, price_of
from agent.engine.state import State
from agent.journal.codec import Row
from agent.journal.memory import MemoryJournal
from agent.simulation.drill.clock import warped
from agent.simulation.replay.run import World
from agent.simulation.replay.setting import SECOND, USER, ChainSetting

LOT = 10**14
SETTLES_S = 6.0  # for what is under way, and for its blocks
SOON = msgspec.structs.replace(ALONE, start_ns=SECOND, warm_up_ns=SECOND)
BLOCKS = ChainSetting(block_ns=2 * SECOND)
TIMES: dict[str, Value] = {"duration_ns": 14 * SECOND, "interval_ns": 2 * SECOND}
ALGOS: dict[str, Algo] = {
    "twap": new_algo("twap", **TIMES, randomise_size_pct=30, randomise_time_pct=30, placement="take"),
    "twap-auto": new_algo("twap", **TIMES),
    "twap-passive": new_algo("twap", **TIMES, placement="passive"),
    "vwap": new_algo("vwap", **TIMES, curve="500,200,300"),
    "pov": new_algo("pov", duration_ns=14 * SECOND, interval_ns=2 * SECOND, target_pct=30, floor_pct=10, cap_pct=50),
    "is": new_algo("is", **TIMES, urgency_pct=300),
    "is-measured": new_algo("is", **TIMES, risk_aversion="0.0001"),
    "iceberg": new_algo("iceberg", duration_ns=14 * SECOND, display="1.5"),
    "peg": new_algo("peg", duration_ns=14 * SECOND, at_end="take"),
    "sniper": new_algo("sniper", duration_ns=14 * SECOND),
}
COMPLETE = ("twap", "twap-auto", "vwap", "is", "is-measured", "peg")  # they take what is left at the end
LIMITS: dict[Side, Price] = {"sell": Price(2_678, 1), "buy": Price(2_690, 1)}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


def is_no_worse(fill: Fill, limit: Price, side: Side) -> bool:
    """Before the fee of a book, which is not in what was received."""
    base, quote = (fill.paid, fill.received) if side == "sell" else (fill.received, fill.paid)
    price = price_of(quote, base)
    return price >= limit if side == "sell" else price <= limit


def held(world: World, state: State, rows: list[Row], intent: Intent) -> None:
    """The laws."""
    parent, side = state.parents[intent.intent_id], intent.side
    orders = [state.orders[name] for name in parent.orders]
    fills = [fill for order in orders for fill in order.fills]
    assert not state.working
    assert len({fill.key for fill in fills}) == len(fills)
    traded = sum(rescale_down(one.paid if side == "sell" else one.received, intent.quantity.asset).units for one in fills)
    assert parent.filled.units == traded <= intent.quantity.units, "never more than the order"
    assert all(is_no_worse(fill, LIMITS[side], side) for fill in fills), "never beyond its limit"
    trading = [order for order in orders if isinstance(order.plan, PlaceOrder | SwapBatch)]
    assert all(order.approved_ns < parent.intent.deadline_ns for order in trading), "nothing but cancels is sent after its end"
    events = [record.event for record in MemoryJournal(list(rows)).read()]
    sends = [one.order_id for one in events if isinstance(one, OrderSent) and not one.attempt]
    assert len(set(sends)) == len(sends), "nothing is sent twice"
    wanted = [one.wanted for one in events if isinstance(one, Routed) and one.wanted is not None]
    assert wanted == sorted(wanted), "a schedule only rises"
    assert all(one <= intent.quantity for one in wanted)
    for order in orders:
        if isinstance(order.plan, PlaceOrder) and order.state is OrderState.REJECTED:
            assert order.reason.startswith("would take"), f"too small, or worse: {order.reason}"
    at_exchange = sum(fill.size_lots for fill in world.exchange.venue.fills.get(USER, ())) * LOT
    on_chain = sum(
        fill.paid.units if side == "sell" else fill.received.units
        for order in orders
        if isinstance(order.plan, SwapBatch)
        for fill in order.fills
    )
    assert abs(at_exchange + on_chain - traded) < LOT, "the journal says what the venues saw"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(list(ALGOS)),
    seed=st.integers(0, 10**6),
    tenths=st.integers(1, 300),
    side=st.sampled_from(("sell", "buy")),
    has_chain=st.booleans(),
    kills_s=st.lists(st.floats(0.01, 14), max_size=3),
)
@example(name="iceberg", seed=270, tenths=44, side="sell", has_chain=True, kills_s=[2.4])  # all of it at pools
@example(name="twap-passive", seed=3, tenths=200, side="sell", has_chain=True, kills_s=[4.0, 4.1])
@example(name="iceberg", seed=5, tenths=80, side="buy", has_chain=False, kills_s=[2.5])
@example(name="twap-passive", seed=228, tenths=90, side="sell", has_chain=False, kills_s=[9.544, 9.222, 4.0])  # cancelled late
@example(name="peg", seed=5, tenths=80, side="buy", has_chain=True, kills_s=[1.1])
def test_whatever_happens_the_laws_hold(
    name: str, seed: int, tenths: int, side: Side, has_chain: bool, kills_s: list[float]
) -> None:
    setting = msgspec.structs.replace(SOON, seed=seed, chain=BLOCKS if has_chain else None)
    work = wish(f"{tenths / 10}", side, 24, algo=ALGOS[name], limit=LIMITS[side])
    try:
        world, state, intent, rows = warped(lived(setting, work, kills_s, SETTLES_S))
    except RefusedError:
        if tenths > 8:  # else it is so little that its parts are too small
            raise
        return
    held(world, state, rows, intent)


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("has_chain", [False, True], ids=["alone", "with pools"])
def test_what_must_finish_does(name: str, has_chain: bool) -> None:
    setting = msgspec.structs.replace(SOON, chain=BLOCKS if has_chain else None)
    _, state, intent, _ = warped(lived(setting, wish("20", "sell", 24, algo=ALGOS[name]), [5.0], SETTLES_S))
    parent = state.parents[intent.intent_id]
    assert parent.status == "FILLED", parent.reason
    assert parent.intent.quantity.units - parent.filled.units < 20 * LOT, "no rest that could have been traded"


def resting(state: State) -> list[Any]:
    plans = [order.plan for order in state.orders.values()]
    return [plan for plan in plans if isinstance(plan, PlaceOrder) and plan.time_in_force == "POST"]


@pytest.mark.parametrize("name", ["twap-passive", "iceberg", "peg"])
def test_what_rests_is_paid_as_a_maker(name: str) -> None:
    """The exchange takes 2 bps of a maker here and 10 of a taker."""
    world, state, _, _ = warped(lived(SOON, wish("8", "sell", 24, algo=ALGOS[name]), [], SETTLES_S))
    assert resting(state)
    fills = [fill for order in state.orders.values() if order.plan in resting(state) for fill in order.fills]
    assert fills, "somebody came"
    for fill in fills:
        assert fill.fee.units <= fill.received.units * 200 // 10**6 + 1
    assert world.exchange.instrument.maker_pips == 200
