"""The life of an order, in one table.

An order is what was sent. Off chain: APPROVED -> SENT -> OPEN -> PARTIALLY_FILLED -> FILLED, CANCELLED or EXPIRED; on chain:
APPROVED -> SENT -> OPEN (a node holds it) -> MINED -> FINAL, or REVERTED, CANCELLED (by a transaction to oneself) or REPLACED (by
one that is not ours). UNKNOWN is a state of its own: nobody knows yet, the amount stays reserved, and only the venue or the chain
can end it, never a counter.

Evidence arrives late, twice and in any order, so what a venue can truthfully say of one order forms a ladder,
OPEN < EXPIRED < CANCELLED < FILLED, and an order stands on the highest step that was reported. Evidence that contradicts itself
(held and refused) is no step: the order is UNKNOWN and asked about. A fill is always accepted, whatever the state says: the venue
is the truth about trades.
"""

import enum

import msgspec

from agent.domain.amount import Amount
from agent.domain.plan import CancelOrder, PlaceOrder, Plan, SwapBatch
from agent.domain.price import Price


class OrderState(enum.StrEnum):
    APPROVED = "APPROVED"
    SENT = "SENT"
    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    PARTIAL = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    MINED = "MINED"
    FINAL = "FINAL"
    REVERTED = "REVERTED"
    REPLACED = "REPLACED"


WOULD_TAKE = "would take"  # how the reason begins of an order that may only rest and was refused for that: no failure of the venue
NEVER_SENT = "never sent"  # how the reason of an order begins that did not leave
INFERRED = "inferred-"  # how the trade id of an inferred fill begins
S = OrderState
RESTING = frozenset({S.OPEN, S.PARTIAL})  # a venue or a node holds it
ENDED = frozenset({S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.FINAL, S.REVERTED, S.REPLACED})
SETTLED = ENDED | {S.MINED}  # nothing more can leave the account through it
IN_DOUBT = frozenset({S.SENT, S.UNKNOWN})

_OUT: dict[OrderState, OrderState] = {
    s: s for s in (S.UNKNOWN, S.OPEN, S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.MINED, S.REVERTED, S.REPLACED, S.FINAL)
}

# state -> evidence -> where it leads. Evidence that is not here is late news and changes nothing: facts repeat, they are no errors.
TRANSITIONS: dict[OrderState, dict[OrderState, OrderState]] = {
    S.APPROVED: {S.SENT: S.SENT, S.CANCELLED: S.CANCELLED, S.REJECTED: S.REJECTED},
    S.SENT: _OUT,
    S.UNKNOWN: {evidence: state for evidence, state in _OUT.items() if evidence is not S.UNKNOWN},
    S.OPEN: {**{evidence: state for evidence, state in _OUT.items() if evidence is not S.OPEN}, S.REJECTED: S.UNKNOWN},
    S.PARTIAL: {S.UNKNOWN: S.UNKNOWN, S.FILLED: S.FILLED, S.CANCELLED: S.CANCELLED, S.EXPIRED: S.EXPIRED, S.REJECTED: S.UNKNOWN},
    S.EXPIRED: {S.CANCELLED: S.CANCELLED, S.FILLED: S.FILLED},
    S.CANCELLED: {S.FILLED: S.FILLED},
    S.REJECTED: {
        S.OPEN: S.UNKNOWN,
        S.EXPIRED: S.EXPIRED,
        S.CANCELLED: S.CANCELLED,
        S.FILLED: S.FILLED,
        S.MINED: S.MINED,
        S.REVERTED: S.REVERTED,
    },
    S.MINED: {S.FINAL: S.FINAL},
    S.REVERTED: {},
    S.REPLACED: {},
    S.FILLED: {},
    S.FINAL: {},
}
REORGANISED = frozenset({S.MINED, S.REVERTED, S.CANCELLED})  # what stands in a block, and may be taken back with it


def after(state: OrderState, evidence: OrderState) -> OrderState:
    """Where `evidence` leads an order that is in `state`; `state` itself when it is late news."""
    told = S.OPEN if evidence is S.PARTIAL else evidence
    return TRANSITIONS[state].get(told, state)


def follows(state: OrderState, evidence: OrderState) -> bool:
    """Whether evidence moves an order that is in `state`."""
    return after(state, evidence) is not state


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
    tx_hash: str = ""  # on chain: the transaction, which a reorganisation may take back

    @property
    def is_inferred(self) -> bool:
        """Whether a repair made it, from sums: the venue's own trades take its place."""
        return self.trade_id.startswith(INFERRED)

    @property
    def key(self) -> str:
        return f"{self.venue}|{self.instrument}|{self.trade_id}|{self.order_id}"


class Attempt(msgspec.Struct, frozen=True):
    """One of the transactions that compete for an order's nonce. At most one of them happens."""

    tx_hash: str
    raw: bytes
    sent_ns: int
    gas_fee_max: int
    gas_tip: int
    is_cancel: bool = False


class Order(msgspec.Struct):
    """One order as it stands now: a fold over its events. Owned and changed by the engine's state alone."""

    plan: Plan
    state: OrderState
    approved_ns: int
    nonce: int | None = None
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    venue_order_id: str = ""
    reason: str = ""
    sent_ns: int = 0
    ended_ns: int = 0
    tx_hash: str = ""  # the attempt that is in a block, or else the newest
    block: int = 0
    block_hash: str = ""
    is_final: bool = False  # no reorganisation takes it back any more
    fills: list[Fill] = msgspec.field(default_factory=list)
    told: Amount | None = None  # the most that the venue said was filled, in base
    is_shaken: bool = False  # the venue took a trade of it back: from then on its newest word counts, and not its highest
    size: Amount | None = None  # base, after the venue changed the order; None: as planned
    version: int = 0  # of that change, by the venue's count
    gas_paid: dict[str, Amount] = msgspec.field(default_factory=dict)  # tx hash -> what it cost
    route: int = -1  # which of its parent's routes it carries out; none: -1
    heard_ns: int = 0  # the first word about it
    filled_ns: int = 0  # the first trade of it that was told
    marks: tuple[tuple[int, Price], ...] = ()  # where the market stood so many ns later
    is_scored: bool = False  # its venue's scorecard knows how it ended

    @property
    def order_id(self) -> str:
        return self.plan.order_id

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED

    @property
    def raw(self) -> bytes:
        """The newest signed bytes; none before the first send."""
        return self.attempts[-1].raw if self.attempts else b""

    def mark(self, after_ns: int) -> Price | None:
        """Where the market stood so long after its first trade; None if nobody looked."""
        return next((mid for after, mid in self.marks if after == after_ns), None)

    @property
    def gas(self) -> Amount | None:
        """All gas that was paid for it."""
        paid = list(self.gas_paid.values())
        return sum(paid[1:], start=paid[0]) if paid else None

    @property
    def filled(self) -> int:
        """Base units of all fills; of a batch, of its venue's asset."""
        if not isinstance(self.plan, PlaceOrder | SwapBatch):
            return 0
        return sum(fill.paid.units if self.plan.side == "sell" else fill.received.units for fill in self.fills)

    @property
    def quantity(self) -> int:
        """Base units that it may trade at most: as planned, or what the venue left of it."""
        if not isinstance(self.plan, PlaceOrder | SwapBatch):
            return 0
        planned = self.plan.sell if self.plan.side == "sell" else self.plan.buy
        return planned.units if self.size is None else min(planned.units, self.size.units)

    @property
    def lacks_fills(self) -> bool:
        """The venue says that more was traded than it has told trades for. Until it has, nobody else may trade that part."""
        if not isinstance(self.plan, PlaceOrder):
            return False
        whole = self.quantity if self.state is OrderState.FILLED and self.told is None else 0
        return self.filled < max(whole, self.told.units if self.told else 0)

    def is_corrected(self, state: OrderState, filled: Amount | None) -> bool:
        """Whether the venue's word on an order that it took a trade back of differs from the one before, however high that was."""
        return self.is_shaken and filled is not None and state in ENDED and (state, filled) != (self.state, self.told)

    @property
    def is_resting(self) -> bool:
        """Whether a book holds it, and everything that it traded is known."""
        return isinstance(self.plan, PlaceOrder) and self.state in RESTING and not self.lacks_fills

    @property
    def may_trade(self) -> int:
        """Base units through which something may still happen: of an order that has ended, what the venue has not told yet."""
        if self.state in SETTLED:
            return max((self.told.units if self.told else self.quantity) - self.filled, 0) if self.lacks_fills else 0
        return max(self.quantity - self.filled, 0)

    @property
    def may_take(self) -> int:
        """Units of what it sells that may still leave the account, at its limit, rounded up."""
        if not isinstance(self.plan, PlaceOrder | SwapBatch) or not self.may_trade:
            return 0
        if self.plan.side == "sell":
            return self.may_trade
        if self.state not in ENDED and self.size is None:  # bought cheaper than the limit, the rest may still be spent
            return max(self.plan.sell.units - sum(fill.paid.units for fill in self.fills), 0)
        return -(-self.plan.sell.units * self.may_trade // self.plan.buy.units)

    def is_more(self, base: Amount) -> bool:
        """Whether a venue's figure is more than was ordered (or of another coin)."""
        if not isinstance(self.plan, PlaceOrder):
            return False
        planned = self.plan.sell if self.plan.side == "sell" else self.plan.buy
        return base.asset != planned.asset or base > planned


class OrderRef(msgspec.Struct, frozen=True):
    """Enough to ask a venue what became of an order: by our own id, or by every hash of its nonce."""

    order_id: str
    venue: str
    instrument: str
    venue_order_id: str = ""
    tx_hash: str = ""  # the attempt that is in a block, or else the newest
    nonce: int | None = None
    sent_ns: int = 0
    tx_hashes: tuple[str, ...] = ()  # all attempts, oldest first
    cancel_hashes: tuple[str, ...] = ()  # those of them that cancel
    block: int = 0
    block_hash: str = ""
    state: OrderState = OrderState.UNKNOWN
    filled: int = 0  # base units of the fills that we know
    target_id: str = ""  # of a cancel: the order that it takes back
    is_native: bool = False  # it is worked by the venue's own TWAP, or takes such an order back


def reference_of(order: Order) -> OrderRef:
    """What to ask the venue about this order."""
    plan = order.plan
    return OrderRef(
        order.order_id,
        plan.venue,
        plan.instrument if isinstance(plan, PlaceOrder | CancelOrder) else "",
        order.venue_order_id,
        order.tx_hash,
        order.nonce,
        order.sent_ns,
        tuple(one.tx_hash for one in order.attempts),
        tuple(one.tx_hash for one in order.attempts if one.is_cancel),
        order.block,
        order.block_hash,
        order.state,
        order.filled,
        plan.target_id if isinstance(plan, CancelOrder) else "",
        plan.is_native if isinstance(plan, CancelOrder) else isinstance(plan, PlaceOrder) and plan.native_s > 0,
    )
