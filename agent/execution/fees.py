"""What a transaction may pay per unit of gas (EIP-1559): enough to survive a run of full blocks, never above the user's cap."""


def gas_fee_max(base_fee: int, tip: int, cap: int) -> int:
    """Wei per gas, tip included: twice the next block's base fee, which survives six full blocks in a row, up to `cap`.

    When base fee and tip alone are above the cap, that sum comes back: it is what the block asks, and the gate refuses it.
    """
    return max(min(2 * base_fee + tip, cap), base_fee + tip)


def outbid(fee_max: int, tip: int, base_fee: int, tip_usual: int, cap: int) -> tuple[int, int] | None:
    """(fee, tip) per gas of the next transaction for the same nonce; None when blocks cost more than the cap, or it leaves no room.

    Both rise by 13 %, rounded up: the strictest node asks for 12.5 %. More, when blocks have become dearer than that.
    """
    least, tip = -(-fee_max * 113 // 100), max(-(-tip * 113 // 100), tip_usual)
    if least > cap or base_fee + tip > cap:
        return None
    return max(least, min(gas_fee_max(base_fee, tip, cap), cap)), min(tip, cap)
