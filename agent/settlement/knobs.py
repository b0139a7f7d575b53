"""How often, how patiently and how far back the journal is held against the world.

Names and defaults are NautilusTrader's where the meaning is the same, so that who knows those knobs knows these. Where it differs:
no number of retries ever ends an order here (they only raise an alarm), and what NautilusTrader leaves off is on.
"""

import msgspec


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of reconciliation. Times in the unit of their name."""

    inflight_check_interval_ms: int = 2_000  # the longest pause between two questions about an order in doubt
    inflight_check_threshold_ms: int = 5_000  # an order that was sent and not answered for so long is asked about
    inflight_check_retries: int = 5  # questions without an answer before people are told; it stays UNKNOWN
    open_check_interval_secs: int = 5  # how often resting orders are compared with the venue's list
    open_check_threshold_ms: int = 5_000  # orders that changed less long ago are left alone
    position_check_interval_secs: int = 30  # how often balances are compared
    reconciliation_startup_delay_secs: int = 10  # from ready until the first of these checks; starting has its own
    filtered_client_order_ids: tuple[str, ...] = ()  # orders at venues that are none of our business
    external_order_claims: tuple[str, ...] = ()  # instruments whose foreign orders are taken over; `*` for all
    allow_overfills: bool = False  # true: more than was ordered is booked and told, and does not halt the instrument
    timeout_connection_secs: int = 60  # until every venue is there at start
    timeout_reconciliation_secs: int = 30  # for one answer of a venue about all of our orders and balances
    timeout_disconnection_secs: int = 10  # for sends under way when the agent stops
