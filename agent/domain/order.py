"""The life of an order, in one table.

An order is what was sent. Off chain: APPROVED -> SENT -> OPEN -> FILLED, CANCELLED or EXPIRED; on chain: APPROVED -> SENT -> OPEN
(a node holds it) -> MINED -> FINAL, or REVERTED. UNKNOWN is a state of its own: nobody knows yet, the amount stays reserved, and
only the venue or the chain can end it. A fill is always accepted, whatever the state says: the venue is the truth about trades.
"""

import enum

import msgspec

from agent.domain.amount import Amount
from agent.domain.plan import Plan


class OrderState(enum.StrEnum):
    APPROVED = "APPROVED"
    SENT = "SENT"
    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    MINED = "MINED"
    FINAL = "FINAL"
    REVERTED = "REVERTED"


S = OrderState
ENDED = frozenset({S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.FINAL, S.REVERTED})
SETTLED = ENDED | {S.MINED}  # nothing more can leave the account through it
IN_DOUBT = frozenset({S.SENT, S.UNKNOWN})

# from -> the states that evidence may lead to. What is not here is ignored as late news (never an error: facts repeat).
TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    S.APPROVED: frozenset({S.SENT, S.CANCELLED, S.REJECTED}),
    S.SENT: frozenset({S.UNKNOWN, S.OPEN, S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.MINED, S.REVERTED, S.FINAL}),
    S.UNKNOWN: frozenset({S.OPEN, S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.MINED, S.REVERTED, S.FINAL}),
    S.OPEN: frozenset({S.UNKNOWN, S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.MINED, S.REVERTED, S.FINAL}),
    S.MINED: frozenset({S.FINAL, S.UNKNOWN}),  # a reorganisation takes it back into doubt
    S.REVERTED: frozenset({S.UNKNOWN}),
    S.FILLED: frozenset(),
    S.CANCELLED: frozenset(),
    S.EXPIRED: frozenset(),
    S.REJECTED: frozenset(),
    S.FINAL: frozenset(),
}


def follows(state: OrderState, new: OrderState) -> bool:
    """Whether evidence of `new` moves an order that is in `state`."""
    return new in TRANSITIONS[state]


class Fill(msgspec.Struct, frozen=True):
    """What traded, as the receipt or the venue's trade says it. `received` is before `fee`; `trade_id` is the venue's own.

    Unique by (venue, instrument, trade_id, order_id): the same fill from two streams counts once, and of a trade with oneself both
    sides count.
    """

    order_id: str
    venue: str
    instrument: str
    trade_id: str
    paid: Amount
    received: Amount
    fee: Amount
    at_ns: int

    @property
    def key(self) -> str:
        return f"{self.venue}|{self.instrument}|{self.trade_id}|{self.order_id}"


class Order(msgspec.Struct):
    """One order as it stands now: a fold over its events. Owned and changed by the engine's state alone."""

    plan: Plan
    state: OrderState
    approved_ns: int
    nonce: int | None = None
    tx_hash: str = ""
    raw: bytes = b""
    venue_order_id: str = ""
    reason: str = ""
    sent_ns: int = 0
    ended_ns: int = 0
    block: int = 0
    fills: list[Fill] = msgspec.field(default_factory=list)
    gas: Amount | None = None

    @property
    def order_id(self) -> str:
        return self.plan.order_id

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED


class OrderRef(msgspec.Struct, frozen=True):
    """Enough to ask a venue what became of an order: by our own id, or by every hash of its nonce."""

    order_id: str
    venue: str
    instrument: str
    venue_order_id: str = ""
    tx_hash: str = ""
    nonce: int | None = None
    sent_ns: int = 0
