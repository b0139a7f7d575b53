"""What a unit of gas costs in the next block (EIP-1559)."""

ELASTICITY = 2  # EIP-1559: a block aims at half of its gas limit
CHANGE_DENOMINATOR = 8  # and the base fee moves by at most an eighth per block


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
