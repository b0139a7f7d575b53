"""The gate: the only maker of `Approved`. Each check has a stable reason code and one line for people.

A plan passes all checks or none: every reason is collected, so that the client sees them all at once. What has been approved counts
at once, before it is sent, so two plans of one decision cannot both spend the same coins.
"""

import re
from collections.abc import Callable, Collection, Iterator

import msgspec

from agent.domain.amount import Amount, Asset, plain, rescale_up
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.plan import (
    AnchorHead,
    Approved,
    ApproveToken,
    CancelOrder,
    CancelTransaction,
    ChainPlan,
    PlaceOrder,
    Plan,
    Reason,
    Refused,
    SwapBatch,
)
from agent.domain.price import Price, price_of, worse_by
from agent.risk.limits import Limits

GROUP_DECIMALS = 18
INTENT_ID = re.compile(r"[A-Za-z0-9_-]{1,24}", re.ASCII)


class Place(msgspec.Struct, frozen=True):
    """What risk must know of a venue."""

    venue: str
    chain_id: int | None
    contracts: frozenset[str]  # the only ones that plans may touch, lower case
    spender: str
    is_local: bool


class Situation(msgspec.Struct):
    """Everything the gate may look at, for one plan. `free` and `in_flight` already count what was approved a moment ago."""

    now_ns: int
    limits: Limits
    places: dict[str, Place]
    instruments: Callable[[str], Instrument | None]
    reference: Price | None  # middle of the trusted view, quote per base
    free: Callable[[str, Asset], Amount]  # (venue, asset) -> what is neither spent nor promised
    native: Callable[[str], Amount | None]  # venue -> coins for gas
    allowance: Callable[[str, Asset], int | None]  # (venue, token) -> units that the spender may move
    chain_time_s: Callable[[int], int | None]
    intent: Intent | None
    remaining: Amount | None  # of the parent, in its group: not filled and not promised to other children
    order_ids: Callable[[str], bool]  # is this id known already?
    orders_in_flight: int
    halted: str = ""


def approve(plan: Plan, situation: Situation, nonce: int | None = None) -> Approved | Refused:
    """The only way to trade. Reasons are ordered as the checks are."""
    reasons = tuple(_reasons(plan, situation))
    return Refused(plan, reasons) if reasons else Approved(plan, nonce)


def approve_cancel(plan: CancelOrder, venues: Collection[str]) -> Approved | Refused:
    """Taking risk away is always allowed, wherever we trade."""
    if plan.venue in venues:
        return Approved(plan)
    return Refused(plan, (Reason("INSTRUMENT_NOT_FOUND", f"no venue named {plan.venue} is configured"),))


def approve_again(
    plan: ChainPlan | CancelTransaction, first: ChainPlan, nonce: int, attempt: int, limits: Limits
) -> Approved | Refused:
    """Another transaction for a nonce that is used already: the same order with a higher fee, or a transaction to oneself.

    Whichever of them happens, it is one of them; so nothing is asked but that it is the same order, within the caps.
    """
    reasons = []
    if isinstance(plan, CancelTransaction):
        is_same = (plan.order_id, plan.account, plan.venue, plan.chain_id) == (
            first.order_id, first.account, first.venue, first.chain_id,
        )  # fmt: skip
    else:
        fees = {"gas_fee_max": first.gas_fee_max, "gas_tip": first.gas_tip}
        is_same = msgspec.structs.replace(plan, **fees) == first
    if not is_same or attempt < 1:
        text = f"another transaction for order {first.order_id} may change its fee and nothing else"
        reasons.append(Reason("VALIDATION_FAILED", text))
    if plan.gas_fee_max > limits.gas_fee_cap:
        text = f"{plan.gas_fee_max / 10**9:.1f} gwei is above the cap of {limits.gas_fee_cap / 10**9:.1f}"
        reasons.append(Reason("GAS_FEE_ABOVE_CAP", text))
    return Refused(plan, tuple(reasons)) if reasons else Approved(plan, nonce, attempt)


def refuse_intent(intent: Intent, earlier: Iterator[tuple[Intent, int]], now_ns: int, limits: Limits) -> tuple[Reason, ...]:
    """Checks on the parent itself. `earlier` are (intent, when accepted): the same wish again within the window is a slip."""
    reasons = []
    if not INTENT_ID.fullmatch(intent.intent_id):
        reasons.append(Reason("VALIDATION_FAILED", "an intent id has 1 to 24 letters, digits, - or _: venues see it in order ids"))
    if intent.quantity.units <= 0:
        reasons.append(Reason("QUANTITY_BELOW_MINIMUM", "the quantity must be above zero"))
    if intent.deadline_ns <= now_ns:
        reasons.append(Reason("EXPIRE_TIME_IN_PAST", "the deadline has passed already"))
    if not 0 < intent.slippage_bps_max <= 10_000:
        reasons.append(Reason("SLIPPAGE_OUT_OF_RANGE", f"slippage {intent.slippage_bps_max} bps is not within 1..10000"))
    if not 1 <= intent.slices <= 1_000 or intent.interval_ns < 0:
        reasons.append(Reason("SCHEDULE_OUT_OF_RANGE", "between 1 and 1000 slices, with an interval of zero or more"))
    for other, at_ns in earlier:
        if other.intent_id == intent.intent_id:
            reasons.append(Reason("DUPLICATE_INTENT", f"intent {intent.intent_id} is known already"))
        elif now_ns - at_ns < limits.duplicate_window_ns and _fingerprint(other) == _fingerprint(intent):
            text = f"the same wish came {(now_ns - at_ns) / 1e9:.1f} s ago as {other.intent_id}; wait, or change the strategy name"
            reasons.append(Reason("DUPLICATE_INTENT", text))
    return tuple(reasons)


def _fingerprint(intent: Intent) -> tuple[object, ...]:
    return intent.account, intent.strategy, intent.side, intent.quantity, intent.quote, intent.trigger


def _reasons(plan: Plan, at: Situation) -> Iterator[Reason]:
    place = at.places.get(plan.venue)
    if place is None:
        yield Reason("INSTRUMENT_NOT_FOUND", f"no venue named {plan.venue} is configured")
        return
    if isinstance(plan, CancelOrder | CancelTransaction):  # taking risk away is always allowed
        return
    if at.halted:
        yield Reason("TRADING_HALTED", at.halted)
    if not place.is_local and not at.limits.live_armed:
        yield Reason("VENUE_NOT_ARMED", f"{plan.venue} is a live venue: start with --live to trade real money")
    if at.order_ids(plan.order_id):
        yield Reason("DUPLICATE_ORDER", f"order id {plan.order_id} was used before")
    if at.orders_in_flight >= at.limits.orders_in_flight_max:
        yield Reason("RATE_LIMIT_EXCEEDED", f"{at.orders_in_flight} orders are in flight, at most {at.limits.orders_in_flight_max}")
    yield from _balance(plan, at)
    match plan:
        case PlaceOrder():
            yield from _trade(plan, at, _book_instrument(plan, at))
        case SwapBatch():
            yield from _trade(plan, at, _pool_instrument(plan, at))
            yield from _chain(plan, at, place)
            yield from _swap(plan, at)
        case ApproveToken() | AnchorHead():
            yield from _chain(plan, at, place)


def _balance(plan: PlaceOrder | SwapBatch | ApproveToken | AnchorHead, at: Situation) -> Iterator[Reason]:
    if isinstance(plan, ApproveToken | AnchorHead):
        return  # neither a permission nor a hash moves anything; the swap itself is checked
    free = at.free(plan.venue, plan.sell.asset)
    if free < plan.sell:
        yield Reason("NOTIONAL_EXCEEDS_FREE_BALANCE", f"{plan.venue} has {free} free, the order may need {plan.sell}")


def _book_instrument(plan: PlaceOrder, at: Situation) -> Instrument | None:
    return at.instruments(plan.instrument)


def _pool_instrument(plan: SwapBatch, at: Situation) -> Instrument | None:
    found = [at.instruments(leg.instrument) for leg in plan.legs]
    return found[0] if found and all(one is not None and one.venue == plan.venue for one in found) else None


def _trade(plan: PlaceOrder | SwapBatch, at: Situation, instrument: Instrument | None) -> Iterator[Reason]:
    if instrument is None or instrument.venue != plan.venue:
        yield Reason(
            "INSTRUMENT_NOT_FOUND", f"{plan.venue} does not list what the order names; wait for its list or check the config"
        )
        return
    base, quote = (plan.sell, plan.buy) if plan.side == "sell" else (plan.buy, plan.sell)
    if base.asset != instrument.base or quote.asset != instrument.quote or base.units <= 0:
        yield Reason("VALIDATION_FAILED", f"the order's amounts ({base}, {quote}) are not of {instrument.id}")
        return
    if quote.units <= 0:
        yield Reason("MIN_OUT_MISSING", "the order names no least amount to receive")
        return
    limit = price_of(quote, base)
    if at.reference is None:
        yield Reason("NO_REFERENCE_PRICE", f"no trusted price for {instrument.market}: nothing is sent without one")
    elif _worse(limit, worse_by(at.reference, at.limits.collar_bps, selling=plan.side == "sell"), plan.side):
        text = f"limit {limit} is more than {at.limits.collar_bps} bps worse than the reference {at.reference}"
        yield Reason("PRICE_OUTSIDE_COLLAR", text)
    if instrument.is_book and quote.units < instrument.notional_min:
        least = plain(instrument.notional_min, quote.asset.decimals)
        yield Reason("NOTIONAL_BELOW_MINIMUM", f"{quote} is below the venue's minimum of {least}")
    yield from _size(base, quote, at)
    yield from _parent(base, at)


def _worse(price: Price, bound: Price, side: str) -> bool:
    return price < bound if side == "sell" else price > bound


def _size(base: Amount, quote: Amount, at: Situation) -> Iterator[Reason]:
    for amount, bounds, code in (
        (quote, at.limits.order_value_max, "NOTIONAL_EXCEEDS_MAX_PER_ORDER"),
        (base, at.limits.order_volume_max, "QUANTITY_EXCEEDS_MAXIMUM"),
    ):
        group = amount.asset.group
        bound = bounds.get(group)
        if bound is None:
            yield Reason(code, f"no limit is set for {group}: add it under [risk] before trading it")
        elif rescale_up(amount, Asset(group, "*", GROUP_DECIMALS, group)).units > bound:
            yield Reason(code, f"{amount} is above the limit of {plain(bound, GROUP_DECIMALS)} {group} for one order")


def _parent(base: Amount, at: Situation) -> Iterator[Reason]:
    if at.remaining is None:
        yield Reason("CHILD_EXCEEDS_PARENT", "the order belongs to no live parent")
    elif rescale_up(base, at.remaining.asset) > at.remaining:
        yield Reason("CHILD_EXCEEDS_PARENT", f"{base} is more than the {at.remaining} that its parent has left")


def _chain(plan: ChainPlan, at: Situation, place: Place) -> Iterator[Reason]:
    if place.chain_id != plan.chain_id:
        yield Reason("CHAIN_MISMATCH", f"the plan is for chain {plan.chain_id}, {plan.venue} is on {place.chain_id}")
    if plan.gas_fee_max > at.limits.gas_fee_cap:
        text = f"{plan.gas_fee_max / 10**9:.1f} gwei is above the cap of {at.limits.gas_fee_cap / 10**9:.1f}"
        yield Reason("GAS_FEE_ABOVE_CAP", text)
    if not 21_000 <= plan.gas_limit <= at.limits.gas_limit_max:
        yield Reason("GAS_LIMIT_OUT_OF_RANGE", f"gas limit {plan.gas_limit} is not within 21000..{at.limits.gas_limit_max}")
    for contract in _touched(plan, place):
        if contract.lower() not in place.contracts:
            yield Reason(
                "CONTRACT_NOT_ALLOWED", f"{contract or 'a coin without contract'} is not among the contracts of {plan.venue}"
            )
    native, needed = at.native(plan.venue), plan.gas_limit * plan.gas_fee_max
    if native is None or native.units < needed:
        yield Reason("GAS_BALANCE_TOO_LOW", f"gas may cost {plain(needed, 18)} ETH, the wallet has {native or 'none'}")
    if isinstance(plan, SwapBatch) and not plan.legs:
        yield Reason("VALIDATION_FAILED", "a batch has at least one leg")


def _touched(plan: ChainPlan, place: Place) -> list[str]:
    """The contracts that a plan would reach beside the venue's own router: the coins, and who may move them."""
    if isinstance(plan, AnchorHead):
        return [plan.contract]
    if isinstance(plan, ApproveToken):
        return [plan.sell.asset.address, plan.spender]
    return [plan.sell.asset.address, plan.buy.asset.address, place.spender]


def _swap(plan: SwapBatch, at: Situation) -> Iterator[Reason]:
    now_s = at.chain_time_s(plan.chain_id)
    if now_s is None:
        yield Reason("STALE_CHAIN", f"no block of chain {plan.chain_id} is known")
    elif not now_s < plan.deadline_s <= now_s + at.limits.deadline_s_max:
        text = f"deadline {plan.deadline_s} is not within {at.limits.deadline_s_max} s after the chain's clock {now_s}"
        yield Reason("DEADLINE_OUT_OF_RANGE", text)
    if any(leg.sell.units <= 0 or leg.buy.units <= 0 for leg in plan.legs):
        yield Reason("MIN_OUT_MISSING", "every leg names what it sells and the least that it receives")
    sold, bought = sum(leg.sell.units for leg in plan.legs), sum(leg.buy.units for leg in plan.legs)
    if sold != plan.sell.units or bought != plan.buy.units:
        yield Reason("VALIDATION_FAILED", "the legs do not add up to the batch")
    allowed = at.allowance(plan.venue, plan.sell.asset)
    if allowed is None or allowed < plan.sell.units:
        text = f"Permit2 may move {plain(allowed or 0, plan.sell.asset.decimals)}, the batch needs {plan.sell}"
        yield Reason("ALLOWANCE_TOO_LOW", text)
