"""What waits is tended: orders that rest are taken back when nobody wants them any more, transactions are outbid or taken back,
and the market is looked at once more after each trade.

All transactions of one order share its nonce, so at most one of them happens, whichever is mined. A transaction is outbid by 13 %
(nodes ask for 10 to 12.5 % and round), as often as the caps allow; when its deadline is over, when it would revert, or when the
client cancels, the next one sends nothing to oneself and costs a bare transfer. Pure; source of the rules: CoW Protocol's driver.
"""

from collections.abc import Iterator

import msgspec

from agent.domain.events import AttemptApproved, Event, Marked, OrderApproved
from agent.domain.market import ChainHead
from agent.domain.order import RESTING, Order
from agent.domain.plan import AnchorHead, Approved, ApproveToken, CancelOrder, CancelTransaction, ChainPlan, PlaceOrder, SwapBatch
from agent.engine.links import unwanted as unwanted_by_others
from agent.engine.scores import LATE_NS
from agent.engine.state import State
from agent.engine.work import stale, standing
from agent.engine.world import Rules, World
from agent.execution.fees import outbid
from agent.risk.gate import approve_again, approve_cancel
from agent.routing.scorecard import HORIZONS_NS

CANCEL_GAS = 22_000  # 21,000 for a transfer, and a little for accounts that carry delegated code
ATTEMPT_PAUSE_NS = 2_000_000_000
ATTEMPTS_MAX = 32
CANCEL_PAUSE_NS = 1_000_000_000  # before a cancel that failed is tried again; doubles
CANCEL_PAUSE_MAX_NS = 30_000_000_000


def tend(state: State, world: World, rules: Rules, now_ns: int) -> list[Event]:
    """What to do about orders that are out."""
    events: list[Event] = []
    for order in state.working.values():
        match order.plan:
            case PlaceOrder() as plan if order.state in RESTING:
                events.extend(_take_back(order, plan, state, world, now_ns))
            case SwapBatch() | ApproveToken() | AnchorHead() as plan if order.attempts:
                events.extend(_compete(order, plan, state, world, rules, now_ns))
            case _:
                pass
    return events


def marks(state: State, world: World, now_ns: int) -> list[Event]:
    """Where the market stands a while after each order's first trade: once for each while, and never without a trusted price."""
    events: list[Event] = []
    for name, filled_ns in state.scores.unmarked.items():
        order = state.orders[name]
        age_ns, parent = now_ns - filled_ns, state.parents.get(order.plan.intent_id)
        due = [after for after in HORIZONS_NS if after <= age_ns <= after + LATE_NS and order.mark(after) is None]
        if due and parent is not None and order.fills:
            mid = world.market.view(parent.intent.market, now_ns).mid
            if mid is not None:
                events.extend(Marked(name, after_ns, mid) for after_ns in due)
    return events


# -- resting orders ----------------------------------------------------------------------------------------------------


def unwanted(order: Order, state: State, now_ns: int) -> str:
    """Why an order that rests or waits should go; empty if it may stay."""
    parent = state.parents.get(order.plan.intent_id)
    if "kill" in state.halted:
        return state.halted["kill"]
    if parent is None:
        return ""
    if parent.cancelled:
        return "the client cancelled"
    if parent.paused:
        return "the client paused"
    if order.order_id in parent.outdated:
        return "the client amended its price"
    if why := unwanted_by_others(parent, state):
        return why
    if now_ns >= parent.intent.deadline_ns:
        return "the deadline passed"
    return ""


def _is_stale(order: Order, state: State, world: World, now_ns: int) -> bool:
    """Whether the algorithm that placed it wants it back."""
    parent = state.parents.get(order.plan.intent_id)
    if parent is None or parent.intent.algo is None:
        return False
    return bool(stale(standing(parent, state.remaining(parent), 1, state, world, now_ns), order))


def _take_back(order: Order, plan: PlaceOrder, state: State, world: World, now_ns: int) -> Iterator[Event]:
    if plan.venue not in world.connected or not (unwanted(order, state, now_ns) or _is_stale(order, state, world, now_ns)):
        return
    earlier = state.cancels.get(order.order_id, [])
    if any(name in state.working for name in earlier):
        return
    if earlier:
        pause_ns = min(CANCEL_PAUSE_NS << min(len(earlier), 10), CANCEL_PAUSE_MAX_NS)
        if now_ns < state.orders[earlier[-1]].ended_ns + pause_ns:
            return
    name = f"{order.order_id}x{len(earlier)}"
    at = plan.intent_id, plan.account, plan.venue, plan.instrument
    cancel = CancelOrder(name, *at, order.order_id, is_native=plan.native_s > 0)
    answer = approve_cancel(cancel, world.profiles)
    if isinstance(answer, Approved):
        yield OrderApproved(answer)


# -- transactions ------------------------------------------------------------------------------------------------------


def _compete(order: Order, plan: ChainPlan, state: State, world: World, rules: Rules, now_ns: int) -> Iterator[Event]:
    """One more transaction for the same nonce, if this one waits in vain."""
    head = world.market.heads().get(plan.chain_id)
    rested_ns = max(order.attempts[-1].sent_ns, world.attempted_ns.get(order.order_id, 0))
    is_bounded = len(order.attempts) < ATTEMPTS_MAX and now_ns >= rested_ns + ATTEMPT_PAUSE_NS
    if head is None or order.is_settled or order.order_id in world.attempting or not is_bounded:
        return
    last, is_cancelling = order.attempts[-1], any(one.is_cancel for one in order.attempts)
    back = "" if is_cancelling else _why_back(order, plan, state, world, rules, head, now_ns)
    if not back and not _is_slow(last.gas_fee_max, last.sent_ns, head, rules, now_ns):
        return
    fees = outbid(last.gas_fee_max, last.gas_tip, head.base_fee, rules.gas_tip, rules.limits.gas_fee_cap)
    if fees is None:
        return  # at the cap: it waits, and the same bytes are sent again when a node forgets them
    fee_max, tip = fees
    again: ChainPlan | CancelTransaction
    if back or is_cancelling:
        place = plan.order_id, plan.intent_id, plan.account, plan.venue, plan.chain_id
        again, why = CancelTransaction(*place, CANCEL_GAS, fee_max, tip), back or "outbid: it waits too long"
    else:
        again, why = msgspec.structs.replace(plan, gas_fee_max=fee_max, gas_tip=tip), "outbid: it waits too long"
    assert order.nonce is not None, "a transaction has its nonce from its approval on"
    answer = approve_again(again, plan, order.nonce, len(order.attempts), rules.limits)
    if isinstance(answer, Approved):
        yield AttemptApproved(answer, why)


def _why_back(order: Order, plan: ChainPlan, state: State, world: World, rules: Rules, head: ChainHead, now_ns: int) -> str:
    if "kill" in state.halted:
        return state.halted["kill"]
    parent = state.parents.get(plan.intent_id)
    if parent is not None and parent.cancelled:
        return "the client cancelled"
    if parent is not None and isinstance(plan, SwapBatch) and state.remaining(parent).units < 0:
        return "its amount was traded elsewhere while its block was gone"
    deadline_s = plan.deadline_s if isinstance(plan, SwapBatch) else order.approved_ns // 10**9 + rules.deadline_s
    clock_s = head.timestamp_s if isinstance(plan, SwapBatch) else now_ns // 10**9
    if clock_s > deadline_s:
        return "its deadline is over"
    seen = world.simulated.get(order.order_id)
    if seen is not None and seen.reason and seen.block >= head.number:
        return f"it would revert now: {seen.reason}"
    return ""


def _is_slow(fee_max: int, sent_ns: int, head: ChainHead, rules: Rules, now_ns: int) -> bool:
    return fee_max < head.base_fee or now_ns > sent_ns + rules.outbid_after_s * 10**9
