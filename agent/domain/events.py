"""What is journaled: a closed union. State is a fold over these and nothing else, so a replay gives the same state, bit for bit.

The first group comes in from outside as facts and is journaled as it is; the second group is what the engine decided.
"""

from typing import Literal

import msgspec

from agent.domain.amount import Amount
from agent.domain.intent import Intent
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Approved, PlaceOrder, Plan, Reason
from agent.domain.price import Price
from agent.domain.route import Alternative as Alternative
from agent.domain.route import Marked as Marked
from agent.domain.route import Routed as Routed
from agent.domain.route import RouteExplained as RouteExplained
from agent.domain.route import RoutePiece as RoutePiece
from agent.domain.route import WholeQuoted as WholeQuoted

# -- from venues and chains --------------------------------------------------------------------------------------------


class OrderReported(msgspec.Struct, frozen=True, tag=True):
    """A venue or chain says where an order stands. `reason` is theirs, decoded where it can be.

    `filled` is the venue's own sum of what was traded so far, in base; on chain, `tx_hash` is the attempt that speaks.
    """

    order_id: str
    state: OrderState
    reason: str = ""
    venue_order_id: str = ""
    block: int = 0
    filled: Amount | None = None
    tx_hash: str = ""
    block_hash: str = ""


class OrderFilled(msgspec.Struct, frozen=True, tag=True):
    fill: Fill


class FillReversed(msgspec.Struct, frozen=True, tag=True):
    """A trade that was booked did not happen, or not like that: the venue took it back, or a better account of it replaces it."""

    order_id: str
    key: str  # Fill.key
    reason: str


class OrderAmended(msgspec.Struct, frozen=True, tag=True):
    """The venue itself changed a resting order. `size`: all of it, in base. Of several changes the highest version counts."""

    order_id: str
    size: Amount
    version: int
    reason: str = ""


class OrderReorged(msgspec.Struct, frozen=True, tag=True):
    """The block that a transaction of ours was in is not in the chain any more: what was booked from it is taken back."""

    order_id: str
    tx_hash: str
    block: int
    block_hash: str = ""


class GasPaid(msgspec.Struct, frozen=True, tag=True):
    """What a transaction cost, mined or reverted, from its receipt."""

    order_id: str
    account: str
    amount: Amount
    gas_used: int
    tx_hash: str


class Surrounded(msgspec.Struct, frozen=True, tag=True):
    """Somebody traded before us in our direction and after us in the other, in one pool and one block: a sandwich.

    What it cost, by the pool as it stood before them: `received_less` than our payment would have brought, which is the same as
    `paid_more` than what we received would have cost. Each is exact; only one of the two is what the order asked for.
    """

    order_id: str
    instrument: str
    tx_hash: str  # ours
    by: str  # the address that signed both
    before: str  # the transaction before ours, and the one after
    after: str
    received_less: Amount
    paid_more: Amount
    block: int = 0


class VenueConnected(msgspec.Struct, frozen=True, tag=True):
    venue: str


class VenueDisconnected(msgspec.Struct, frozen=True, tag=True):
    venue: str
    reason: str


class VenueStatus(msgspec.Struct, frozen=True, tag=True):
    """What a connected venue lets us do. CANCEL_ONLY: nothing new, but what rests can be taken back."""

    venue: str
    status: Literal["TRADING", "CANCEL_ONLY"]
    reason: str = ""
    until_ns: int = 0  # 0: until it says otherwise


# -- decided here ------------------------------------------------------------------------------------------------------


class EngineStarted(msgspec.Struct, frozen=True, tag=True):
    """A run begins: what was SENT and not answered is UNKNOWN from here on; what was only APPROVED was never sent."""

    run_id: str
    version: str
    config_hash: str


class EngineStopped(msgspec.Struct, frozen=True, tag=True):
    reason: str


class BalanceAdopted(msgspec.Struct, frozen=True, tag=True):
    """A balance taken over from a venue or chain: the opening position, or an explained deposit or withdrawal."""

    account: str
    venue: str
    amount: Amount  # the change that the ledger books, signed
    cause: str


class NonceAdopted(msgspec.Struct, frozen=True, tag=True):
    """A wallet's transactions before `nonce` are not of this journal, and are accounted for."""

    venue: str
    nonce: int
    cause: str


class IntentAccepted(msgspec.Struct, frozen=True, tag=True):
    intent: Intent
    arrival: Price  # the middle of the trusted view when the intent arrived
    coin: Price | None = None  # what the coin that pays for gas was worth in the quote group then


class IntentRefused(msgspec.Struct, frozen=True, tag=True):
    intent: Intent
    reasons: tuple[Reason, ...]


class IntentCancelled(msgspec.Struct, frozen=True, tag=True):
    """The client takes the rest back: nothing more is planned."""

    intent_id: str


class IntentPaused(msgspec.Struct, frozen=True, tag=True):
    """The client holds the rest for a while: nothing new is sent and what rests is taken back. Time goes on, and ends it."""

    intent_id: str


class IntentContinued(msgspec.Struct, frozen=True, tag=True):
    """The client lets a paused order go on."""

    intent_id: str


class IntentAmended(msgspec.Struct, frozen=True, tag=True):
    """The client changed an order while it runs: `intent` as it is from now on. When it arrived, and at what price, stays."""

    intent: Intent


class IntentTriggered(msgspec.Struct, frozen=True, tag=True):
    """What an order waited for has come: the market was at `price`. From here on it is worked, as if it had arrived now.

    `arrival`: the middle of the trusted view then, from which its slippage counts.
    """

    intent_id: str
    price: Price
    arrival: Price


class IntentTrailed(msgspec.Struct, frozen=True, tag=True):
    """The best price that a trailing stop has seen, and follows from now on."""

    intent_id: str
    best: Price


class IntentEnded(msgspec.Struct, frozen=True, tag=True):
    """`status` is FILLED, PARTIAL, CANCELLED, EXPIRED or REFUSED."""

    intent_id: str
    status: str
    reason: str
    mid: Price | None = None  # the middle of the trusted view then; None: there was none


class OrderApproved(msgspec.Struct, frozen=True, tag=True):
    approved: Approved


class OrderRefused(msgspec.Struct, frozen=True, tag=True):
    plan: Plan
    reasons: tuple[Reason, ...]


class AttemptApproved(msgspec.Struct, frozen=True, tag=True):
    """Another transaction for the nonce of an order that waits: the same with a higher fee, or nothing, to take it back."""

    approved: Approved
    why: str


class OrderSent(msgspec.Struct, frozen=True, tag=True):
    """On disk before the first byte leaves. From here on the order may exist outside. Once for each attempt."""

    order_id: str
    tx_hash: str = ""
    raw: bytes = b""
    attempt: int = 0
    gas_fee_max: int = 0
    gas_tip: int = 0
    is_cancel: bool = False


class OrderClaimed(msgspec.Struct, frozen=True, tag=True):
    """An order that rests at a venue and is not of this journal is taken over: it reserves, and its fills are booked."""

    plan: PlaceOrder
    venue_order_id: str
    reason: str


class Break(msgspec.Struct, frozen=True):
    """A difference between the journal and the world, with its cause as far as it is known.

    `proved` is what the chain itself shows for it (a proof against a block's state root), where that can be had.
    """

    account: str
    venue: str
    asset: str
    journal: Amount
    outside: Amount
    cause: str
    proved: Amount | None = None
    about: Literal["balance", "order", "nonce"] = "balance"

    @property
    def is_balance(self) -> bool:
        return self.about == "balance"

    @property
    def is_nonce(self) -> bool:
        return self.about == "nonce"


class Reconciled(msgspec.Struct, frozen=True, tag=True):
    """The journal was held against every venue and chain."""

    checked: int
    breaks: tuple[Break, ...]


class Halted(msgspec.Struct, frozen=True, tag=True):
    """No new risk until a person lifts it."""

    scope: str
    reason: str


class Resumed(msgspec.Struct, frozen=True, tag=True):
    """A person has looked, and lifts a halt. `reason` is in their words."""

    scope: str
    reason: str


Turn = IntentCancelled | IntentPaused | IntentContinued | IntentAmended | IntentTriggered | IntentTrailed  # of a live parent


Event = (
    OrderReported
    | OrderFilled
    | FillReversed
    | OrderAmended
    | OrderReorged
    | GasPaid
    | Surrounded
    | VenueConnected
    | VenueDisconnected
    | VenueStatus
    | EngineStarted
    | EngineStopped
    | BalanceAdopted
    | NonceAdopted
    | IntentAccepted
    | IntentRefused
    | Turn
    | IntentEnded
    | Routed
    | RouteExplained
    | WholeQuoted
    | Marked
    | OrderApproved
    | OrderRefused
    | AttemptApproved
    | OrderSent
    | OrderClaimed
    | Reconciled
    | Halted
    | Resumed
)


class Record(msgspec.Struct, frozen=True):
    """An event in its place: gapless `seq`, and the hash that chains it to the record before."""

    seq: int
    at_ns: int
    event: Event
    hash: str
