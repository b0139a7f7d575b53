"""What a transaction may pay per unit of gas (EIP-1559): enough to survive a run of full blocks, never above the user's cap."""


def gas_fee_max(base_fee: int, tip: int, cap: int) -> int:
    """Wei per gas, tip included: twice the next block's base fee, which survives six full blocks in a row, up to `cap`.

    When base fee and tip alone are above the cap, that sum comes back: it is what the block asks, and the gate refuses it.
    """
    return max(min(2 * base_fee + tip, cap), base_fee + tip)
