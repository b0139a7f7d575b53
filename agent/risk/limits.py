"""The limits that the user sets. Every default is on the safe side for a first day with real money."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Amounts are whole coins of the group, as decimal text already parsed to 18 decimals; bps are of the reference price."""

    order_value_max: dict[str, int] = {}  # quote group -> units with 18 decimals, for one order
    order_volume_max: dict[str, int] = {}  # base group -> units with 18 decimals, for one order
    collar_bps: int = 100
    duplicate_window_ns: int = 5_000_000_000
    gas_fee_cap: int = 200 * 10**9  # wei per gas, absolute
    gas_limit_max: int = 3_000_000
    deadline_s_max: int = 600
    orders_in_flight_max: int = 32
    live_armed: bool = False  # venues that are not on this machine need explicit arming
