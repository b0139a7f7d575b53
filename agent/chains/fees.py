"""What a transaction may cost per unit of gas (EIP-1559): the block's base fee, burned, plus a tip for whoever makes the block."""

import msgspec

from agent.domain.market import ChainHead
from agent.domain.plan import Reason

ELASTICITY = 2  # EIP-1559: a block aims at half of its gas limit
CHANGE_DENOMINATOR = 8  # and the base fee moves by at most an eighth per block


class Fees(msgspec.Struct, frozen=True):
    """Wei per gas. `gas_fee_max` includes the tip."""

    gas_fee_max: int
    gas_tip: int


def fees(head: ChainHead, tip: int, cap: int) -> Fees | Reason:
    """Enough for six full blocks in a row (twice the base fee), but never more than `cap`. All in wei per gas.

    Refuses (GAS_FEE_ABOVE_CAP) when the next block's base fee and the tip alone are above the cap.
    """
    if tip < 0 or cap < 0:
        raise ValueError("tip and cap are zero or more")
    if head.base_fee + tip > cap:
        text = f"the next block asks {head.base_fee} wei per gas and the tip is {tip}, the cap is {cap}: wait, or raise the cap"
        return Reason("GAS_FEE_ABOVE_CAP", text)
    return Fees(min(2 * head.base_fee + tip, cap), tip)


def base_fee_next(base_fee: int, gas_used: int, gas_limit: int) -> int:
    """The next block's base fee, wei per gas, as EIP-1559 computes it from this block.

    Chains with other parameters (some roll-ups) differ by a few percent; twice the base fee covers that.
    """
    target = gas_limit // ELASTICITY
    if gas_used == target or not target:
        return base_fee
    if gas_used > target:
        return base_fee + max(base_fee * (gas_used - target) // target // CHANGE_DENOMINATOR, 1)
    return base_fee - base_fee * (target - gas_used) // target // CHANGE_DENOMINATOR
