"""A decision changes type as it earns trust: Plan -> Approved | Refused -> Unsigned -> Signed.

Only `risk/gate.py` makes `Approved`; only `agent/keys` makes `Signed`. The type checker refuses everything else.
"""

from typing import Literal

import msgspec

from agent.domain.amount import Amount
from agent.domain.instrument import Side

# -- plans: what execution proposes ------------------------------------------------------------------------------------


class PlaceOrder(msgspec.Struct, frozen=True, tag=True):
    """One order on one book. `order_id` is also the client order id that the venue sees.

    `replaces` names the resting order that must go first: one request, two legs, each with its own outcome under its own id.
    `native_s`: the venue's own TWAP works it over so many seconds; 0: an ordinary order.
    """

    order_id: str
    intent_id: str
    account: str
    venue: str
    instrument: str
    side: Side
    ticks: int
    lots: int
    time_in_force: Literal["IOC", "GTC", "FOK", "POST"]
    sell: Amount  # the most that can leave, at the limit
    buy: Amount  # the least that arrives for a complete fill, before the fee
    replaces: str = ""
    native_s: int = 0


class SwapLeg(msgspec.Struct, frozen=True):
    """One pool of a batch. `exact == 'sell'`: `sell` is exact and `buy` the least; `'buy'`: `buy` is exact and `sell` the most."""

    instrument: str
    sell: Amount
    buy: Amount
    exact: Literal["sell", "buy"]


class SwapBatch(msgspec.Struct, frozen=True, tag=True):
    """All AMM legs of a plan on one chain: ONE transaction, all or nothing."""

    order_id: str
    intent_id: str
    account: str
    venue: str
    chain_id: int
    side: Side
    legs: tuple[SwapLeg, ...]
    sell: Amount  # the most that can leave, over all legs
    buy: Amount  # the least that arrives, over all legs
    permit_nonce: int  # Permit2's nonce for (owner, token, router)
    deadline_s: int  # the chain's clock
    gas_limit: int
    gas_fee_max: int  # wei per gas, tip included
    gas_tip: int  # wei per gas


class ApproveToken(msgspec.Struct, frozen=True, tag=True):
    """Allow Permit2 to move exactly `sell` of a token, no more: the step before a first swap."""

    order_id: str
    intent_id: str
    account: str
    venue: str
    chain_id: int
    sell: Amount  # what may be moved
    spender: str
    gas_limit: int
    gas_fee_max: int
    gas_tip: int


class CancelOrder(msgspec.Struct, frozen=True, tag=True):
    """Take a resting order back. `order_id` is the cancel's own id. `is_native`: the venue's own TWAP works the target."""

    order_id: str
    intent_id: str
    account: str
    venue: str
    instrument: str
    target_id: str
    is_native: bool = False


class CancelTransaction(msgspec.Struct, frozen=True, tag=True):
    """Take back a transaction that waits: nothing, sent to oneself, with the same nonce and a higher fee.

    `order_id` is that of the order which it takes back.
    """

    order_id: str
    intent_id: str
    account: str
    venue: str
    chain_id: int
    gas_limit: int
    gas_fee_max: int
    gas_tip: int


class AnchorHead(msgspec.Struct, frozen=True, tag=True):
    """Write the journal's newest hash into a contract, so that nobody can cut or rewrite the journal unseen."""

    order_id: str
    intent_id: str
    account: str
    venue: str
    chain_id: int
    contract: str
    seq: int
    head: str  # 64 hex digits
    gas_limit: int
    gas_fee_max: int
    gas_tip: int


ChainPlan = SwapBatch | ApproveToken | AnchorHead
Plan = PlaceOrder | SwapBatch | ApproveToken | AnchorHead | CancelOrder | CancelTransaction


class Reason(msgspec.Struct, frozen=True):
    """Why risk said no: a stable code for programs, one line for people."""

    code: str
    text: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    plan: Plan
    reasons: tuple[Reason, ...]


class Approved(msgspec.Struct, frozen=True, tag=True):
    """A plan that risk has passed. Chain plans carry the nonce that was reserved for them.

    `attempt` counts the transactions that compete for the nonce: 0 is the first, each further one pays more.
    """

    plan: Plan
    nonce: int | None = None
    attempt: int = 0


# -- what must be signed: one of three things --------------------------------------------------------------------------


class VenueRequest(msgspec.Struct, frozen=True, tag=True):
    """An authenticated request to an exchange, in the exchange's own words. Amounts are text."""

    order_id: str
    venue: str
    action: Literal["place", "cancel", "replace", "place_native", "cancel_native"]
    fields: tuple[tuple[str, str], ...]


class TypedData(msgspec.Struct, frozen=True, tag=True):
    """EIP-712. `types` without EIP712Domain; values are int, str, bool, bytes or nested dicts as eth-account takes them."""

    order_id: str
    domain: dict[str, str | int]
    types: dict[str, list[dict[str, str]]]
    primary: str
    message: dict[str, object]


class Call(msgspec.Struct, frozen=True):
    """One contract call. `data` is the ABI-encoded call; `value` wei."""

    to: str
    data: bytes
    value: int = 0


class SignatureSlot(msgspec.Struct, frozen=True):
    """65 zero bytes in a call's data that wait for the signature of `typed` (Permit2 inside a router call)."""

    call: int
    offset: int
    typed: TypedData


class Calls(msgspec.Struct, frozen=True, tag=True):
    """Contract calls for an on-chain account; the account wraps them (an EOA takes exactly one)."""

    order_id: str
    chain_id: int
    calls: tuple[Call, ...]
    slots: tuple[SignatureSlot, ...]
    nonce: int
    gas_limit: int
    gas_fee_max: int
    gas_tip: int


Unsigned = VenueRequest | Calls | TypedData


class SignedRequest(msgspec.Struct, frozen=True, tag=True):
    """A venue request that the key module will authenticate when it leaves (the timestamp is part of the signature)."""

    order_id: str
    request: VenueRequest
    key_id: str


class SignedTransaction(msgspec.Struct, frozen=True, tag=True):
    """Raw bytes, ready for any node. Rebroadcasting the same bytes is always safe."""

    order_id: str
    chain_id: int
    sender: str
    nonce: int
    tx_hash: str
    raw: bytes


class SignedTyped(msgspec.Struct, frozen=True, tag=True):
    order_id: str
    signature: bytes
    signer: str


Signed = SignedRequest | SignedTransaction | SignedTyped
