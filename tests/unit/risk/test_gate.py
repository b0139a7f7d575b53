"""Every check of the gate: the plan that passes, and for each reason code the smallest change that makes it refuse."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.instrument import Instrument, Pool
from agent.domain.intent import Intent
from agent.domain.plan import Approved, ApproveToken, CancelOrder, PlaceOrder, Plan, Refused, SwapBatch, SwapLeg
from agent.domain.price import Price
from agent.risk.gate import Place, Situation, approve, refuse_intent
from agent.risk.limits import Limits

ETH, USDT = Asset("ETH", "binance", 8, "ETH"), Asset("USDT", "binance", 8, "USDT")
WETH = Asset("WETH", "eip155:1", 18, "ETH", "0x01")
TETHER = Asset("USDT", "eip155:1", 6, "USDT", "0x02")
PERMIT2 = "0x00000000000000000000000000000000000000P2"
BOOK = Instrument("binance", "ETHUSDT", ETH, USDT, 1_000, 10**6, 10**4, 5 * 10**8)
ALLOWED = frozenset({"0x01", "0x02", PERMIT2.lower()})
POOL = Instrument("uniswap", "v3-500", WETH, TETHER, 500, pool=Pool("v3", "0x0a", "0x01", "0x02", 10), gas=100_000)
GROUP = group_asset("ETH")
UNIT = 10**18

PLACE = PlaceOrder(
    "i-0",
    "i",
    "main",
    "binance",
    BOOK.id,
    "sell",
    268_000,
    40_000,
    "IOC",
    Amount(4 * 10**8, ETH),
    Amount(4 * 268_000 * 10**6, USDT),
)
LEG = SwapLeg(POOL.id, Amount(4 * UNIT, WETH), Amount(10_720 * 10**6, TETHER), "sell")
SWAP = SwapBatch(
    "i-1", "i", "main", "uniswap", 1, "sell", (LEG,), LEG.sell, LEG.buy, 0, 1_060, 600_000, 3 * 10**9, 10**9
)  # fmt: skip
APPROVE = ApproveToken("i-2", "i", "main", "uniswap", 1, LEG.sell, PERMIT2, 80_000, 3 * 10**9, 10**9)
INTENT = Intent("i", "main", "s", "sell", Amount(40 * UNIT, GROUP), "USDT", 50, 10**18)


def situation(**changes: Any) -> Situation:
    at = Situation(
        1_000 * 10**9,
        Limits({"USDT": 20_000 * UNIT}, {"ETH": 5 * UNIT}),
        {
            "binance": Place("binance", None, frozenset(), "", is_local=True),
            "uniswap": Place("uniswap", 1, ALLOWED, PERMIT2, is_local=True),
        },
        {BOOK.id: BOOK, POOL.id: POOL}.get,
        Price(2_683, 1),
        lambda venue, asset: Amount(10**30, asset),
        lambda venue: Amount(UNIT, Asset("ETH", "eip155:1", 18, "ETH")),
        lambda venue, asset: 10**30,
        lambda chain_id: 1_000,
        INTENT,
        INTENT.quantity,
        lambda name: False,
        0,
    )
    for name, value in changes.items():
        setattr(at, name, value)
    return at


@pytest.mark.parametrize("plan", [PLACE, SWAP, APPROVE], ids=["order", "swap", "approve"])
def test_a_sound_plan_is_approved(plan: Plan) -> None:
    answer = approve(plan, situation(), 7)
    assert answer == Approved(plan, 7)


def limits(**changes: Any) -> dict[str, Any]:
    return {"limits": msgspec.structs.replace(situation().limits, **changes)}


def poor(bound: int) -> Callable[[str, Asset], Amount]:
    return lambda venue, asset: Amount(bound, asset)


REFUSALS: list[tuple[str, Plan, dict[str, Any]]] = [
    ("NOTIONAL_EXCEEDS_MAX_PER_ORDER", PLACE, limits(order_value_max={"USDT": 10_719 * UNIT})),
    ("NOTIONAL_EXCEEDS_MAX_PER_ORDER", SWAP, limits(order_value_max={})),
    ("QUANTITY_EXCEEDS_MAXIMUM", PLACE, limits(order_volume_max={"ETH": 4 * UNIT - 1})),
    ("QUANTITY_EXCEEDS_MAXIMUM", SWAP, limits(order_volume_max={"ETH": 4 * UNIT - 1})),
    ("PRICE_OUTSIDE_COLLAR", PLACE, {"reference": Price(2_708, 1)}),
    ("PRICE_OUTSIDE_COLLAR", SWAP, {"reference": Price(2_708, 1)}),
    ("NO_REFERENCE_PRICE", PLACE, {"reference": None}),
    ("NO_REFERENCE_PRICE", SWAP, {"reference": None}),
    ("DUPLICATE_ORDER", PLACE, {"order_ids": lambda name: True}),
    ("CHILD_EXCEEDS_PARENT", PLACE, {"remaining": Amount(4 * UNIT - 1, GROUP)}),
    ("CHILD_EXCEEDS_PARENT", SWAP, {"remaining": Amount(4 * UNIT - 1, GROUP)}),
    ("CHILD_EXCEEDS_PARENT", SWAP, {"remaining": None}),
    ("NOTIONAL_EXCEEDS_FREE_BALANCE", PLACE, {"free": poor(4 * 10**8 - 1)}),
    ("NOTIONAL_EXCEEDS_FREE_BALANCE", SWAP, {"free": poor(4 * UNIT - 1)}),
    ("ALLOWANCE_TOO_LOW", SWAP, {"allowance": lambda venue, asset: 4 * UNIT - 1}),
    ("ALLOWANCE_TOO_LOW", SWAP, {"allowance": lambda venue, asset: None}),
    ("GAS_BALANCE_TOO_LOW", SWAP, {"native": lambda venue: Amount(600_000 * 3 * 10**9 - 1, Asset("ETH", "eip155:1", 18))}),
    ("GAS_BALANCE_TOO_LOW", APPROVE, {"native": lambda venue: None}),
    ("GAS_FEE_ABOVE_CAP", SWAP, limits(gas_fee_cap=3 * 10**9 - 1)),
    ("GAS_LIMIT_OUT_OF_RANGE", SWAP, limits(gas_limit_max=599_999)),
    ("MIN_OUT_MISSING", msgspec.structs.replace(SWAP, buy=Amount(0, TETHER)), {}),
    ("MIN_OUT_MISSING", msgspec.structs.replace(SWAP, legs=(msgspec.structs.replace(LEG, buy=Amount(0, TETHER)),)), {}),
    ("VALIDATION_FAILED", msgspec.structs.replace(SWAP, buy=Amount(10_721 * 10**6, TETHER)), {}),
    ("DEADLINE_OUT_OF_RANGE", msgspec.structs.replace(SWAP, deadline_s=1_000), {}),
    ("DEADLINE_OUT_OF_RANGE", msgspec.structs.replace(SWAP, deadline_s=1_601), {}),
    ("STALE_CHAIN", SWAP, {"chain_time_s": lambda chain_id: None}),
    ("CHAIN_MISMATCH", msgspec.structs.replace(SWAP, chain_id=2), {}),
    ("CONTRACT_NOT_ALLOWED", msgspec.structs.replace(APPROVE, spender="0xbad"), {}),
    *(
        ("CONTRACT_NOT_ALLOWED", plan, {"places": {"uniswap": Place("uniswap", 1, ALLOWED - {gone}, PERMIT2, is_local=True)}})
        for plan, gone in ((SWAP, "0x01"), (SWAP, "0x02"), (SWAP, PERMIT2.lower()), (APPROVE, "0x01"), (APPROVE, PERMIT2.lower()))
    ),
    ("INSTRUMENT_NOT_FOUND", msgspec.structs.replace(PLACE, venue="nowhere"), {}),
    ("INSTRUMENT_NOT_FOUND", PLACE, {"instruments": lambda name: None}),
    ("NOTIONAL_BELOW_MINIMUM", msgspec.structs.replace(PLACE, sell=Amount(10_000, ETH), buy=Amount(26_800_000, USDT)), {}),
    ("TRADING_HALTED", PLACE, {"halted": "a break"}),
    ("RATE_LIMIT_EXCEEDED", PLACE, {"orders_in_flight": 32}),
    ("VENUE_NOT_ARMED", PLACE, {"places": {"binance": Place("binance", None, frozenset(), "", is_local=False)}}),
]


@pytest.mark.parametrize(
    ("code", "plan", "change"), REFUSALS, ids=[f"{c}-{type(p).__name__}-{i}" for i, (c, p, _) in enumerate(REFUSALS)]
)
def test_each_check_refuses_with_its_code(code: str, plan: Plan, change: dict[str, Any]) -> None:
    answer = approve(plan, situation(**change))
    assert isinstance(answer, Refused)
    assert code in {reason.code for reason in answer.reasons}
    assert all(reason.text and "\n" not in reason.text for reason in answer.reasons)


def test_live_venues_trade_when_armed() -> None:
    places = {"binance": Place("binance", None, frozenset(), "", is_local=False)}
    assert isinstance(approve(PLACE, situation(places=places, **limits(live_armed=True))), Approved)


def test_taking_risk_away_is_always_allowed() -> None:
    cancel = CancelOrder("c", "i", "main", "binance", BOOK.id, "i-0")
    assert isinstance(approve(cancel, situation(halted="yes", reference=None, orders_in_flight=99)), Approved)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"quantity": Amount(0, GROUP)}, "QUANTITY_BELOW_MINIMUM"),
        ({"intent_id": ""}, "VALIDATION_FAILED"),
        ({"intent_id": "a\nb"}, "VALIDATION_FAILED"),
        ({"intent_id": "x" * 25}, "VALIDATION_FAILED"),
        ({"deadline_ns": 5}, "EXPIRE_TIME_IN_PAST"),
        ({"slippage_bps_max": 0}, "SLIPPAGE_OUT_OF_RANGE"),
        ({"slices": 0}, "SCHEDULE_OUT_OF_RANGE"),
    ],
)
def test_a_bad_wish_is_refused(change: dict[str, Any], code: str) -> None:
    reasons = refuse_intent(msgspec.structs.replace(INTENT, **change), iter(()), 10, Limits())
    assert code in {reason.code for reason in reasons}


def test_the_same_wish_twice_is_refused_and_later_allowed() -> None:
    again = msgspec.structs.replace(INTENT, intent_id="j")
    assert [r.code for r in refuse_intent(again, iter([(INTENT, 10)]), 11, Limits())] == ["DUPLICATE_INTENT"]
    assert refuse_intent(again, iter([(INTENT, 10)]), 10 + Limits().duplicate_window_ns, Limits()) == ()
    assert [r.code for r in refuse_intent(INTENT, iter([(INTENT, 10)]), 10**17, Limits())] == ["DUPLICATE_INTENT"]
