"""What waits is tended: outbid within the caps, taken back when nobody wants it, one transaction for a nonce at a time."""

from typing import Any

import msgspec
import pytest
from engine_kit import BOOK, CEX_ETH, CEX_USDT, CHAIN_ID, COIN, MAIN, RULES, START_NS, WETH, sale
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import Amount, zero
from agent.domain.events import (
    AttemptApproved,
    BalanceAdopted,
    Event,
    Halted,
    IntentAccepted,
    IntentCancelled,
    OrderApproved,
    OrderFilled,
    OrderReported,
    OrderSent,
)
from agent.domain.market import ChainHead
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, CancelOrder, CancelTransaction, PlaceOrder, SwapBatch, SwapLeg
from agent.domain.price import Price
from agent.engine.state import State
from agent.engine.tend import ATTEMPTS_MAX, CANCEL_GAS, tend
from agent.engine.world import World
from agent.execution.fees import outbid
from agent.journal.memory import MemoryJournal
from agent.market.view import Market
from agent.ports import Profile, Simulated

S = OrderState
GWEI, SECOND = 10**9, 10**9
CAP = RULES.limits.gas_fee_cap
CEX = Profile("cex", "ccxt_exchange", False, None)
AMM = Profile("amm", "uniswap", True, CHAIN_ID, wallet="0xwallet")
USDT = CEX_USDT
PLACE = PlaceOrder("p1-0", "p1", MAIN, "cex", BOOK.id, "sell", 268_000, 100, "GTC", Amount(10**8, CEX_ETH), Amount(1, USDT))
LEG = SwapLeg("amm:v2", Amount(10**18, WETH), Amount(1, msgspec.structs.replace(WETH, symbol="USDT", group="USDT")), "sell")
SWAP = SwapBatch(
    "p1-1", "p1", MAIN, "amm", CHAIN_ID, "sell", (LEG,), LEG.sell, LEG.buy, 0, START_NS // SECOND + 60, 300_000, 3 * GWEI, GWEI
)


class Desk:
    """A state with a parent and whatever was approved and sent for it; a chain that stands at some block."""

    def __init__(self, *events: Event, base_fee: int = GWEI) -> None:
        self.journal, self.state, self.now_ns = MemoryJournal(), State(), START_NS
        self.world = World(Market(), {"cex": CEX, "amm": AMM}, frozenset(), {}, {}, {"cex", "amm"}, {"cex", "amm"})
        self.head(base_fee)
        self.write(BalanceAdopted(MAIN, "amm", Amount(10**19, COIN), "opening balance"), IntentAccepted(sale(), Price(2_683, 1)))
        self.write(*events)

    def write(self, *events: Event) -> None:
        for record in self.journal.append(self.now_ns, events):
            self.state.apply(record)

    def head(self, base_fee: int, later_s: int = 0) -> None:
        self.now_ns += later_s * SECOND
        number = 100 + (self.now_ns - START_NS) // SECOND
        self.world.market.apply(ChainHead(CHAIN_ID, number, f"0x{number}", "", base_fee, self.now_ns // SECOND, self.now_ns))

    def tended(self) -> list[Event]:
        return tend(self.state, self.world, RULES, self.now_ns)

    def again(self) -> AttemptApproved:
        (event,) = self.tended()
        assert isinstance(event, AttemptApproved)
        return event


def swapping(**more: Any) -> Desk:
    return Desk(
        OrderApproved(Approved(SWAP, 7)),
        OrderSent("p1-1", "0xa", b"a", 0, SWAP.gas_fee_max, SWAP.gas_tip),
        OrderReported("p1-1", S.OPEN, tx_hash="0xa"),
        **more,
    )


def resting() -> Desk:
    return Desk(OrderApproved(Approved(PLACE)), OrderSent("p1-0"), OrderReported("p1-0", S.OPEN))


def test_what_is_wanted_and_well_paid_is_left_alone() -> None:
    assert swapping().tended() == []
    assert resting().tended() == []


def test_a_transaction_that_waits_too_long_is_outbid_for_the_same_nonce() -> None:
    desk = swapping()
    desk.head(GWEI, later_s=RULES.outbid_after_s + 1)
    event = desk.again()
    assert (event.approved.nonce, event.approved.attempt) == (7, 1)
    assert isinstance(plan := event.approved.plan, SwapBatch)
    assert (plan.gas_fee_max, plan.gas_tip) == (3 * GWEI * 113 // 100, GWEI * 113 // 100)
    assert msgspec.structs.replace(plan, gas_fee_max=SWAP.gas_fee_max, gas_tip=SWAP.gas_tip) == SWAP, "nothing else changed"


def test_one_that_blocks_outgrew_is_outbid_at_once_and_by_what_they_cost() -> None:
    desk = swapping()
    desk.head(9 * GWEI, later_s=3)
    plan = desk.again().approved.plan
    assert isinstance(plan, SwapBatch)
    assert plan.gas_fee_max > 9 * GWEI


def test_above_the_cap_it_waits() -> None:
    desk = swapping()
    desk.head(CAP + 1, later_s=RULES.outbid_after_s + 1)
    assert desk.tended() == []


@pytest.mark.parametrize("why", ["deadline", "cancelled", "kill", "would revert"])
def test_what_nobody_wants_is_taken_back_by_a_transfer_to_oneself(why: str) -> None:
    desk, later_s = swapping(), 3
    match why:
        case "deadline":
            later_s = 61
        case "cancelled":
            desk.write(IntentCancelled("p1"))
        case "kill":
            desk.write(Halted("kill", "pulled"))
        case _:
            pass
    desk.head(GWEI, later_s)
    if why == "would revert":
        desk.world.simulated["p1-1"] = Simulated("amm", "p1-1", 10**9, "TooLittleReceived")
    plan = desk.again().approved.plan
    assert isinstance(plan, CancelTransaction)
    assert (plan.gas_limit, plan.gas_fee_max) == (CANCEL_GAS, 3 * GWEI * 113 // 100)
    desk.write(OrderSent("p1-1", "0xb", b"b", 1, plan.gas_fee_max, plan.gas_tip, is_cancel=True))
    assert desk.tended() == [], "once"
    desk.head(GWEI, later_s=RULES.outbid_after_s + 1)
    later = desk.again()
    assert isinstance(later.approved.plan, CancelTransaction), "what was taken back is never wanted again"
    assert later.approved.attempt == 2


def test_one_attempt_at_a_time_and_not_for_ever() -> None:
    desk = swapping()
    desk.head(GWEI, later_s=RULES.outbid_after_s + 1)
    desk.world.attempting.add("p1-1")
    assert desk.tended() == []
    desk.world.attempting.clear()
    for attempt in range(1, ATTEMPTS_MAX):
        desk.write(OrderSent("p1-1", f"0x{attempt}", b"x", attempt, 4 * GWEI, GWEI))
    desk.head(GWEI, later_s=RULES.outbid_after_s + 1)
    assert desk.tended() == []


def test_a_resting_order_that_nobody_wants_is_cancelled_once_and_again_after_a_pause() -> None:
    desk = resting()
    desk.write(IntentCancelled("p1"))
    (event,) = desk.tended()
    assert isinstance(event, OrderApproved)
    assert isinstance(plan := event.approved.plan, CancelOrder)
    assert (plan.order_id, plan.target_id) == ("p1-0x0", "p1-0")
    desk.write(event, OrderSent("p1-0x0"))
    assert desk.tended() == [], "the first is still under way"
    desk.write(OrderReported("p1-0x0", S.REJECTED, "busy"))
    assert desk.tended() == [], "not at once"
    desk.now_ns += 3 * SECOND
    (event,) = desk.tended()
    assert isinstance(event, OrderApproved)
    assert event.approved.plan.order_id == "p1-0x1"


def test_a_venue_that_is_away_is_not_asked_to_cancel() -> None:
    desk = resting()
    desk.write(IntentCancelled("p1"))
    desk.world.connected.discard("cex")
    assert desk.tended() == []


FEES = st.integers(1, 10**12)


@given(fee_max=FEES, tip=FEES, base_fee=FEES, usual=FEES, cap=FEES)
def test_an_outbid_raises_both_fees_enough_for_every_node_and_stays_within_the_cap(
    fee_max: int, tip: int, base_fee: int, usual: int, cap: int
) -> None:
    found = outbid(fee_max, tip, base_fee, usual, cap)
    if found is None:
        assert -(-fee_max * 113 // 100) > cap or base_fee + max(-(-tip * 113 // 100), usual) > cap
        return
    fee, paid = found
    assert fee * 8 >= fee_max * 9, "12.5 %, what the strictest node asks for"
    assert paid * 8 >= tip * 9 or paid == cap
    assert paid <= fee <= cap
    assert fee >= base_fee


def test_what_was_traded_elsewhere_while_its_block_was_gone_is_taken_back_and_not_outbid() -> None:
    desk = swapping()
    whole = OrderFilled(Fill("p1-9", "cex", BOOK.id, "t1", Amount(20 * 10**8, CEX_ETH), Amount(1, USDT), zero(USDT), START_NS))
    other = msgspec.structs.replace(PLACE, order_id="p1-9", lots=2_000_000, sell=Amount(20 * 10**8, CEX_ETH))
    desk.write(BalanceAdopted(MAIN, "cex", Amount(60 * 10**8, CEX_ETH), "opening balance"), OrderApproved(Approved(other)), whole)
    desk.head(GWEI, later_s=3)
    event = desk.again()
    assert isinstance(event.approved.plan, CancelTransaction)
    assert event.why.startswith("its amount was traded elsewhere")
