"""The journal's head, written into a contract on a chain: whoever cuts or rewrites the journal later contradicts a block.

It is a transaction like any other: it passes the gate, takes the wallet's next number, and is outbid or taken back as swaps are. It
costs gas and moves nothing. Nothing starts it by itself: a person asks for it (`isthmus audit anchor`), as often as the desk wants.
"""

from agent.domain.amount import Amount, Asset, zero
from agent.domain.errors import UsageError
from agent.domain.events import OrderApproved, OrderRefused
from agent.domain.plan import AnchorHead, Approved, Reason, Refused
from agent.engine.propose import places
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.engine.world import Rules, World
from agent.execution.fees import gas_fee_max
from agent.ports import Anchoring, Profile
from agent.risk.gate import Situation, approve

ANCHOR_GAS = 80_000  # measured: see tests/chain/test_audit_anchor.py, which holds it to that
LANE_WAIT_NS = 20_000_000_000  # one transaction of a wallet at a time: for so long the one before is waited for
PAUSE_S = 0.1


async def write_head(recorder: Recorder, rules: Rules, account: str, venue: str) -> Anchoring:
    """Send the newest head of the journal to the contract of `venue` (empty: of the only venue that has one).

    Returns as soon as it is approved and journaled, or with the reasons why it is refused. Raises UsageError for a venue that keeps
    no heads, JournalError when the journal fails.
    """
    state, world = recorder.state, recorder.world
    profile = _keeper(world, venue)
    end_ns = recorder.clock.now_ns() + LANE_WAIT_NS
    world.anchoring.add(profile.name)  # no other transaction of the wallet begins while this one waits for its turn
    try:
        while busy := _under_way(state, profile.name):
            if recorder.clock.now_ns() >= end_ns or recorder.stopping.is_set():
                break
            await recorder.clock.sleep(PAUSE_S)
        if recorder.stopping.is_set():
            busy = Reason("AGENT_STOPPING", recorder.failure or "the agent is stopping; start it again")
        seq, head = recorder.head
        plan = _plan(profile, account, seq, head, world, rules)
        answer = Refused(plan, (busy,)) if busy else _judged(plan, profile, state, world, rules, recorder.clock.now_ns())
        if not recorder.stopping.is_set():
            recorder.record([OrderApproved(answer) if isinstance(answer, Approved) else OrderRefused(plan, answer.reasons)])
    finally:
        world.anchoring.discard(profile.name)
    if isinstance(answer, Refused):
        return Anchoring(profile.name, profile.anchor, seq, head, "", answer.reasons)
    await recorder.secured()
    return Anchoring(profile.name, profile.anchor, seq, head, plan.order_id)


def _keeper(world: World, venue: str) -> Profile:
    found = [one for one in world.profiles.values() if one.anchor and one.chain_id is not None and venue in ("", one.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"several venues keep heads: name one of {', '.join(one.name for one in found)} with --venue")
    who = f"{venue} keeps no heads" if venue else "no venue keeps heads"
    raise UsageError(f"{who} of the journal; set contracts.audit_anchor in the section of a venue on a chain")


def _under_way(state: State, venue: str) -> Reason | None:
    order = next((one for one in state.chain_orders() if one.plan.venue == venue), None)
    if order is None:
        return None
    text = f"order {order.order_id} ({order.state}) is under way with the wallet; try again when it is in a block"
    return Reason("RATE_LIMIT_EXCEEDED", text)


def _plan(profile: Profile, account: str, seq: int, head: str, world: World, rules: Rules) -> AnchorHead:
    assert profile.chain_id is not None, "only venues on a chain keep heads"
    block = world.market.heads().get(profile.chain_id)
    fee_max = gas_fee_max(block.base_fee if block else 0, rules.gas_tip, rules.limits.gas_fee_cap)
    place = account, profile.name, profile.chain_id, profile.anchor
    return AnchorHead(f"anchor-{seq}", "", *place, seq, head, ANCHOR_GAS, fee_max, rules.gas_tip)


def _judged(plan: AnchorHead, profile: Profile, state: State, world: World, rules: Rules, now_ns: int) -> Approved | Refused:
    def free(_venue: str, asset: Asset) -> Amount:
        return zero(asset)  # it moves no coins

    def native(venue: str) -> Amount:
        return state.ledger.balance(plan.account, venue, Asset("ETH", f"eip155:{plan.chain_id}", 18, "ETH"))

    heads = world.market.heads()
    situation = Situation(
        now_ns,
        rules.limits,
        places(plan.venue, world.profiles, world.live),
        world.market.instrument,
        None,
        free,
        native,
        lambda _venue, _asset: None,
        lambda chain_id: heads[chain_id].timestamp_s if chain_id in heads else None,
        None,
        None,
        lambda name: name in state.orders,
        len(state.working),
        _hindrance(profile, state, world),
    )
    return approve(plan, situation, state.next_nonce(profile.name, world.nonces.get(profile.name, 0)))


def _hindrance(profile: Profile, state: State, world: World) -> str:
    """Why the wallet may send nothing new now; empty if it may."""
    if halt := state.halt_of(profile.name):
        return halt
    if profile.name in state.status:
        return f"{profile.name} takes cancels only: {state.status[profile.name].reason}"
    if profile.name not in world.ready or profile.chain_id not in world.market.heads():
        return f"{profile.name} is not connected; look at `isthmus doctor`"
    return ""
