"""What venues say arrives late, twice and in any order: every order of the same news ends in the same state."""

import itertools
from collections.abc import Iterable, Sequence

import pytest
from engine_kit import BOOK, CEX_ETH, CEX_USDT, COIN, ETH, MAIN, POOL, START_NS, USDT, WETH, sale

from agent.domain.amount import Amount, parse_amount, zero
from agent.domain.events import (
    BalanceAdopted,
    FillReversed,
    GasPaid,
    IntentAccepted,
    OrderApproved,
    OrderFilled,
    OrderReorged,
    OrderReported,
    OrderSent,
    Record,
    VenueConnected,
)
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, PlaceOrder, SwapBatch, SwapLeg
from agent.domain.price import Price
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.engine.world import World
from agent.journal.memory import MemoryJournal
from agent.market.view import Market
from agent.ports import PrivateFact

S = OrderState
LOTS = 100_000
TX, BLOCK = "0xaa", "0xb1"
SELL = Amount(LOTS * BOOK.lot_units, CEX_ETH)
BUY = Amount(268_000 * BOOK.tick_units * SELL.units // 10**8, CEX_USDT)
PLACE = PlaceOrder("p1-0", "p1", MAIN, "cex", BOOK.id, "sell", 268_000, LOTS, "GTC", SELL, BUY)
WETH_5, USDT_5 = parse_amount("5", WETH), Amount(2_680 * 5 * 10**6, USDT)
LEG = SwapLeg(POOL.id, WETH_5, USDT_5, "sell")
SWAP = SwapBatch("p1-1", "p1", MAIN, "amm", 31_337, "sell", (LEG,), WETH_5, USDT_5, 0, 1_900_000_000, 300_000, 3 * 10**9, 10**9)
GAS = GasPaid("p1-1", MAIN, Amount(10**15, COIN), 200_000, TX)
SWAPPED = OrderFilled(Fill("p1-1", "amm", POOL.id, f"{TX}:0", WETH_5, USDT_5, zero(USDT), START_NS, TX))
MINED = OrderReported("p1-1", S.MINED, "", TX, 7, tx_hash=TX, block_hash=BLOCK)


class StillClock:
    def now_ns(self) -> int:
        return START_NS

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a recorder waits for nothing")


def pen() -> Recorder:
    """An agent that has sent one order to the book and one to the chain."""
    recorder = Recorder(MemoryJournal(), StillClock(), State(), World(Market(), {}, frozenset(), {}, {}, set()), lambda _: None)
    recorder.record(
        [
            BalanceAdopted(MAIN, "cex", Amount(60 * 10**8, CEX_ETH), "opening balance"),
            BalanceAdopted(MAIN, "amm", Amount(60 * 10**18, WETH), "opening balance"),
            BalanceAdopted(MAIN, "amm", Amount(5 * 10**18, COIN), "opening balance"),
            IntentAccepted(sale(), Price(2_683, 1)),
            OrderApproved(Approved(PLACE)),
            OrderSent("p1-0"),
            OrderApproved(Approved(SWAP, 0)),
            OrderSent("p1-1", TX, b"raw"),
        ]
    )
    return recorder


def fill(part: int, trade: str) -> OrderFilled:
    paid, got = Amount(SELL.units * part // 100, CEX_ETH), Amount(BUY.units * part // 100, CEX_USDT)
    return OrderFilled(Fill("p1-0", "cex", BOOK.id, trade, paid, got, zero(CEX_USDT), START_NS))


def said(state: OrderState, part: int) -> OrderReported:
    return OrderReported("p1-0", state, venue_order_id="v1", filled=Amount(SELL.units * part // 100, CEX_ETH))


def kept(recorder: Recorder) -> Sequence[Record]:
    return list(recorder._journal.read())


def outcome(facts: Iterable[PrivateFact], name: str) -> tuple[object, ...]:
    """All that money depends on, after these facts; and the books close."""
    recorder = pen()
    for fact in facts:
        recorder.absorb("cex" if name == "p1-0" else "amm", [fact])
    state, order = recorder.state, recorder.state.orders[name]
    assert not state.halted
    again = State()
    for record in kept(recorder):
        again.apply(record)
    assert again.ledger.lines() == state.ledger.lines()
    trades = tuple(sorted(one.trade_id for one in order.fills))
    taken = order.may_take, order.may_trade
    parent = state.parents["p1"]
    return (
        order.state,
        order.filled,
        trades,
        taken,
        order.block,
        parent.filled,
        tuple(state.ledger.lines()),
        state.remaining(parent),
    )


DAYS: dict[str, tuple[PrivateFact, ...]] = {
    "filled in two": (said(S.OPEN, 0), fill(40, "t1"), said(S.PARTIAL, 40), fill(60, "t2"), said(S.FILLED, 100)),
    "filled at once, told twice": (fill(100, "t1"), said(S.FILLED, 100), fill(100, "t1"), said(S.OPEN, 0), said(S.FILLED, 100)),
    "cancelled after a part": (said(S.OPEN, 0), fill(40, "t1"), said(S.CANCELLED, 40), said(S.UNKNOWN, 0), fill(40, "t1")),
    "expired, then fills": (said(S.OPEN, 0), said(S.EXPIRED, 70), fill(30, "t1"), fill(40, "t2"), said(S.OPEN, 0), fill(40, "t2")),
    "cancelled and yet filled": (said(S.OPEN, 0), said(S.CANCELLED, 0), fill(100, "t1"), said(S.FILLED, 100), fill(100, "t1")),
}  # fmt: skip


@pytest.mark.parametrize("day", DAYS)
def test_every_order_of_six_frames_ends_in_one_state(day: str) -> None:
    ends = {outcome(frames, "p1-0") for frames in itertools.permutations(DAYS[day])}
    assert len(ends) == 1, ends


@pytest.mark.parametrize("left_out", range(5))
def test_a_frame_that_is_lost_never_frees_more_than_the_truth(left_out: int) -> None:
    """Whatever is missing, the order still holds at least what the whole story says it holds."""
    whole = DAYS["cancelled after a part"][:3]
    for frames in itertools.permutations(frame for index, frame in enumerate(whole) if index != left_out):
        recorder = pen()
        for frame in frames:
            recorder.absorb("cex", [frame])
        order = recorder.state.orders["p1-0"]
        assert order.filled + order.may_trade >= SELL.units * 40 // 100


def test_a_receipt_is_booked_whole_whatever_comes_first() -> None:
    ends = {outcome((*frames, MINED), "p1-1") for frames in itertools.permutations((SWAPPED, GAS, SWAPPED))}
    assert len(ends) == 1
    assert next(iter(ends))[:3] == (S.MINED, WETH_5.units, (f"{TX}:0",))


def test_half_a_receipt_is_not_booked() -> None:
    recorder = pen()
    before = len(kept(recorder))
    recorder.absorb("amm", [SWAPPED, GAS])
    assert len(kept(recorder)) == before, "its block is not known: nobody could find out that it was taken back"
    recorder.absorb("amm", [VenueConnected("amm"), MINED])
    assert [type(one.event).__name__ for one in kept(recorder)[before:]] == ["VenueConnected", "OrderReported"]
    recorder.absorb("amm", [SWAPPED, GAS])
    assert recorder.state.orders["p1-1"].filled == WETH_5.units, "the block is known: it is booked at once"


def test_a_receipt_of_a_block_that_is_gone_is_forgotten() -> None:
    recorder = pen()
    recorder.absorb("amm", [SWAPPED, GAS, OrderReorged("p1-1", TX, 7, BLOCK), MINED])
    assert recorder.state.orders["p1-1"].filled == 0


@pytest.mark.parametrize("times", [1, 3])
def test_a_reorganisation_takes_back_all_of_it_and_the_same_receipt_may_come_again(times: int) -> None:
    recorder = pen()
    clean = recorder.state.ledger.lines()
    for _ in range(times):
        recorder.absorb("amm", [SWAPPED, GAS, MINED])
        booked = recorder.state.ledger.lines()
        assert recorder.state.parents["p1"].filled.units == WETH_5.units
        recorder.absorb("amm", [OrderReorged("p1-1", TX, 7, BLOCK)])
        assert recorder.state.ledger.lines() != booked
        assert {line for line in recorder.state.ledger.lines() if line[2]} == {line for line in clean if line[2]}
        assert recorder.state.orders["p1-1"].state is S.UNKNOWN
        assert recorder.state.parents["p1"].filled == zero(ETH)


def test_final_in_another_block_is_believed_only_after_the_first_is_gone() -> None:
    recorder = pen()
    elsewhere = OrderReported("p1-1", S.FINAL, "", TX, 9, tx_hash=TX, block_hash="0xb2")
    recorder.absorb("amm", [SWAPPED, GAS, MINED, elsewhere])
    assert not recorder.state.orders["p1-1"].is_final
    again = OrderReported("p1-1", S.MINED, "", TX, 9, tx_hash=TX, block_hash="0xb2")
    recorder.absorb("amm", [OrderReorged("p1-1", TX, 7, BLOCK), SWAPPED, GAS, again, elsewhere])
    order = recorder.state.orders["p1-1"]
    assert (order.is_final, order.block, order.filled) == (True, 9, WETH_5.units)


def test_a_trade_that_was_taken_back_leaves_nothing_but_its_traces() -> None:
    recorder = pen()
    clean = {line for line in recorder.state.ledger.lines() if line[2]}
    recorder.absorb("cex", [fill(100, "t1"), said(S.FILLED, 100)])
    key = fill(100, "t1").fill.key
    recorder.absorb("cex", [FillReversed("p1-0", key, "bust"), FillReversed("p1-0", key, "bust")])
    assert {line for line in recorder.state.ledger.lines() if line[2]} == clean
    order = recorder.state.orders["p1-0"]
    assert (order.state, order.filled, order.may_trade) == (S.UNKNOWN, 0, SELL.units), "until the venue says what is true now"
    names = [type(one.event).__name__ for one in kept(recorder)]
    assert names.count("FillReversed") == 1
    assert names.count("OrderFilled") == 1, "both stay in the journal"


def test_after_a_trade_was_taken_back_the_newest_word_counts_and_not_the_highest() -> None:
    recorder = pen()
    recorder.absorb("cex", [fill(100, "t1"), said(S.FILLED, 100), FillReversed("p1-0", fill(100, "t1").fill.key, "bust")])
    order = recorder.state.orders["p1-0"]
    recorder.absorb("cex", [said(S.CANCELLED, 0)])
    assert (order.state, order.lacks_fills, "p1-0" in recorder.state.working) == (S.CANCELLED, False, False)
    recorder.absorb("cex", [said(S.FILLED, 100)])  # from before, and late
    assert (order.lacks_fills, "p1-0" in recorder.state.working) == (True, True), "so it is asked for again"
    recorder.absorb("cex", [said(S.CANCELLED, 0), said(S.CANCELLED, 0)])
    assert (order.state, order.may_trade, "p1-0" in recorder.state.working) == (S.CANCELLED, 0, False)


def test_of_one_nonce_a_second_block_is_booked_only_after_the_first_is_gone() -> None:
    recorder = pen()
    recorder.absorb("amm", [SWAPPED, GAS, MINED])
    other = GasPaid("p1-1", MAIN, Amount(2 * 10**15, COIN), 200_000, "0xbb")
    mined = OrderReported("p1-1", S.MINED, "", "0xbb", 9, tx_hash="0xbb", block_hash="0xb2")
    recorder.absorb("amm", [other, mined])
    order = recorder.state.orders["p1-1"]
    assert (order.tx_hash, list(order.gas_paid)) == (TX, [TX])
    recorder.absorb("amm", [OrderReorged("p1-1", TX, 7, BLOCK), other, mined])
    assert (order.tx_hash, order.block, list(order.gas_paid), order.filled) == ("0xbb", 9, ["0xbb"], 0)


def test_what_is_too_much_halts_in_the_same_append() -> None:
    recorder = pen()
    recorder.absorb("cex", [fill(100, "t1")])
    before = len(kept(recorder))
    batches: list[int] = []
    append = recorder._journal.append
    recorder._journal.append = lambda at_ns, events: batches.append(len(events)) or append(at_ns, events)  # type: ignore[method-assign, func-returns-value]
    recorder.absorb("cex", [fill(10, "t2")])
    assert [type(one.event).__name__ for one in kept(recorder)[before:]] == ["OrderFilled", "Halted"]
    assert batches == [2]
    assert BOOK.id in recorder.state.halted
