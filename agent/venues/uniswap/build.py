"""From an approved plan to the one contract call that the wallet signs. Pure: the same plan gives the same bytes.

A batch becomes one `execute` of the UniversalRouter: Permit2's permission for exactly what the batch may sell, valid until its
deadline, then one command per pool, each with its own bound. Either all of it happens or nothing. An account on the chain signs no
permits: it tells Permit2 the same by calls before the router's, valid in that block alone, all in one transaction; behind a role
each swap is a call of its own, so that the contract can read it. A further attempt for the same nonce differs in its fees alone:
call data, permit and deadline stay as they are.
"""

from collections.abc import Mapping

from agent.chains import abi, router
from agent.domain.errors import VenueError
from agent.domain.instrument import Instrument
from agent.domain.plan import (
    AnchorHead,
    Approved,
    ApproveToken,
    Call,
    Calls,
    CancelTransaction,
    SignatureSlot,
    SwapBatch,
    SwapLeg,
)
from agent.venues.uniswap.config import Config

PERMIT_AMOUNT_MAX = 2**160 - 2  # one more means unlimited to Permit2
GWEI = 10**9
SEQ_MAX, HEAD_DIGITS = 2**64 - 1, 64
_Signable = tuple[tuple[Call, ...], tuple[SignatureSlot, ...]]


def build(approved: Approved, config: Config, instruments: Mapping[str, Instrument]) -> Calls:
    """What must be signed. Raises VenueError for a plan that is not this venue's or contradicts itself."""
    plan, nonce = approved.plan, approved.nonce
    if not isinstance(plan, SwapBatch | ApproveToken | AnchorHead | CancelTransaction):
        raise VenueError(f"Uniswap has no orders that rest: {type(plan).__name__} cannot be built")
    if plan.chain_id != config.chain_id or nonce is None:
        raise VenueError(
            f"{plan.order_id} is for chain {plan.chain_id} with nonce {nonce}; this venue is on chain {config.chain_id}"
        )
    if plan.gas_fee_max > config.gas_fee_max_gwei * GWEI or plan.gas_limit > config.gas_limit_max:
        raise VenueError(f"{plan.order_id} may cost more gas than gas_fee_max_gwei and gas_limit_max allow: raise them, or wait")
    match plan:
        case SwapBatch():
            calls, slots = _swap(plan, config, instruments)
        case ApproveToken():
            calls, slots = _approve(plan, config)
        case AnchorHead():
            calls, slots = _anchor(plan, config)
        case CancelTransaction():  # nothing, sent to oneself: it only uses the nonce up
            calls, slots = (Call(config.wallet, b""),), ()
    return Calls(plan.order_id, plan.chain_id, calls, slots, nonce, plan.gas_limit, plan.gas_fee_max, plan.gas_tip)


def _approve(plan: ApproveToken, config: Config) -> _Signable:
    """Zero units take a permission back, which tokens such as USDT ask for before they change it."""
    token = plan.sell.asset.address
    if plan.spender.lower() != config.contracts.permit2.lower():
        raise VenueError(f"{plan.order_id} would let {plan.spender} move tokens; only Permit2 ({config.contracts.permit2}) may")
    if plan.sell.units < 0 or token not in {one.address for one in config.tokens}:
        raise VenueError(f"{plan.order_id} approves {plan.sell}, which is no amount of a token of this venue")
    return (Call(token, abi.approve(config.contracts.permit2, plan.sell.units)),), ()


def _anchor(plan: AnchorHead, config: Config) -> _Signable:
    if not config.contracts.audit_anchor or plan.contract.lower() != config.contracts.audit_anchor.lower():
        raise VenueError(f"{plan.order_id} anchors in {plan.contract}, which is not contracts.audit_anchor of the config")
    try:
        head = bytes.fromhex(plan.head)
    except ValueError:
        head = b""
    if len(plan.head) != HEAD_DIGITS or len(head) != HEAD_DIGITS // 2 or not 0 < plan.seq <= SEQ_MAX:
        raise VenueError(f"{plan.order_id} anchors record {plan.seq} with a head that is not {HEAD_DIGITS} hexadecimal digits")
    return (Call(config.contracts.audit_anchor, abi.anchor(plan.seq, head)),), ()


def _swap(plan: SwapBatch, config: Config, instruments: Mapping[str, Instrument]) -> _Signable:
    if not plan.legs or not 0 < plan.sell.units <= PERMIT_AMOUNT_MAX:
        raise VenueError(f"{plan.order_id} sells nothing, or more than Permit2 can count")
    if sum(leg.sell.units for leg in plan.legs) > plan.sell.units:
        raise VenueError(f"{plan.order_id} sells more in its legs than in total: the permit would not cover it")
    contracts = config.contracts
    swaps = tuple(_leg(plan, leg, config, instruments) for leg in plan.legs)
    if config.tells_permit2:
        told = _alone(plan, swaps) if config.account == "role" else [router.execute_permitted(plan.deadline_s, swaps)]
        return (*_told(plan, config), *(Call(contracts.universal_router, data) for data in told)), ()
    permit = router.Permit(
        plan.chain_id,
        contracts.permit2,
        contracts.universal_router,
        plan.sell.asset.address,
        plan.sell.units,
        plan.permit_nonce,
        plan.deadline_s,
    )
    data, offset = router.execute(permit, swaps)
    slot = SignatureSlot(0, offset, router.permit_typed(plan.order_id, permit))
    return (Call(contracts.universal_router, data),), (slot,)


def _alone(plan: SwapBatch, swaps: tuple[router.Swap, ...]) -> list[bytes]:
    """Each swap by itself. A Roles modifier reads one form of arguments for each function: v4's have a function of their own."""
    return [
        router.execute_within(one) if one.command == router.V4_SWAP else router.execute_permitted(plan.deadline_s, (one,))
        for one in swaps
    ]


def _told(plan: SwapBatch, config: Config) -> tuple[Call, ...]:
    """Permission for what the batch may sell, in this block alone. First none: USDT changes no permission that is not zero.

    Behind a role it ends with the batch's deadline, because not every swap carries that there.
    """
    token, permit2, units = plan.sell.asset.address, config.contracts.permit2, plan.sell.units
    expires_s = plan.deadline_s if config.account == "role" else 0
    spender = abi.permit2_approve(token, config.contracts.universal_router, units, expires_s)
    approvals = (abi.approve(permit2, 0), abi.approve(permit2, units))
    return (*(Call(token, data) for data in approvals), Call(permit2, spender))


def _leg(plan: SwapBatch, leg: SwapLeg, config: Config, instruments: Mapping[str, Instrument]) -> router.Swap:
    instrument = instruments.get(leg.instrument)
    if instrument is None or instrument.pool is None:
        raise VenueError(f"{plan.order_id} names the pool {leg.instrument}, which this venue does not list")
    pair = {instrument.base, instrument.quote}
    if {leg.sell.asset, leg.buy.asset} != pair or leg.sell.asset != plan.sell.asset or leg.buy.asset != plan.buy.asset:
        raise VenueError(f"{plan.order_id} trades other coins in {leg.instrument} than it or the batch has")
    if leg.sell.units <= 0 or leg.buy.units <= 0:
        raise VenueError(f"{plan.order_id} has no bound in {leg.instrument}: name what is sold and the least received")
    exact_in = leg.exact == "sell"
    amount, bound = (leg.sell.units, leg.buy.units) if exact_in else (leg.buy.units, leg.sell.units)
    path, pool = (leg.sell.asset.address, leg.buy.asset.address), instrument.pool
    match pool.protocol:
        case "v2":
            return router.v2_swap(config.holder, path, amount, bound, exact_in=exact_in)
        case "v3":
            return router.v3_swap(config.holder, path, instrument.fee_pips, amount, bound, exact_in=exact_in)
        case "v4":
            key = (pool.token0, pool.token1, instrument.fee_pips, pool.tick_spacing, pool.hooks)
            return router.v4_swap(key, path, amount, bound, exact_in=exact_in)
        case "stable":
            raise VenueError(f"{plan.order_id} names the pool {leg.instrument}, which is none of Uniswap's")
