"""Every seam of the program on one page. Adapters satisfy these; the engine sees nothing else of the world."""

from collections.abc import AsyncIterator, Iterable, MutableMapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from agent.domain.amount import Amount
from agent.domain.events import (
    Break,
    Event,
    FillReversed,
    GasPaid,
    OrderAmended,
    OrderFilled,
    OrderReorged,
    OrderReported,
    Record,
    Surrounded,
    VenueConnected,
    VenueDisconnected,
    VenueStatus,
)
from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.domain.market import MarketFact
from agent.domain.order import Order, OrderRef
from agent.domain.plan import Approved, Call, Reason, Signed, Unsigned

PrivateFact = (
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
)


class Allowance(msgspec.Struct, frozen=True, tag=True):
    """How much of a token Permit2 may move for the account, and the router's Permit2 nonce for it."""

    venue: str
    token: str  # Asset.id
    amount: int
    permit_nonce: int
    at_ns: int


class Simulated(msgspec.Struct, frozen=True, tag=True):
    """A transaction that waits was run against the newest block. `reason` empty: it would succeed. An opinion, never journaled."""

    venue: str
    order_id: str
    block: int
    reason: str


VenueEvent = MarketFact | PrivateFact | Allowance | Simulated


class NativeTwap(msgspec.Struct, frozen=True):
    """What a venue's own TWAP takes: a duration, and a value in whole coins of `quote`, each within bounds. Ends included."""

    quote: str  # the group that an instrument must be quoted in
    duration_s_min: int
    duration_s_max: int
    value_min: int
    value_max: int


class Profile(msgspec.Struct, frozen=True):
    """A venue's facts as data. `is_atomic`: all legs of a plan travel in one transaction. `chain_id` None: custodial."""

    name: str
    kind: str
    is_atomic: bool
    chain_id: int | None
    contracts: tuple[str, ...] = ()  # the only contracts that plans for this venue may touch
    wallet: str = ""
    spender: str = ""  # who must be approved to move tokens (Permit2); empty off chain
    sends_in_flight_max: int = 8
    anchor: str = ""  # the contract that keeps heads of the journal, where one was deployed
    native_twap: NativeTwap | None = None  # it works a TWAP of its own, if one wants


class Resting(msgspec.Struct, frozen=True):
    """An order that rests at an exchange, as its list of open orders shows it."""

    order_id: str  # the client order id
    instrument: str
    side: Side
    ticks: int
    lots: int  # of the whole order
    filled: int  # lots
    venue_order_id: str


class Snapshot(msgspec.Struct, frozen=True):
    """A venue's own account of us. `facts` answers what was asked about orders: states and fills, by their own ids.

    A list that may have been cut off says so: what is missing in it is then neither cancelled nor flat, it is not told.
    """

    venue: str
    account: str
    balances: tuple[Amount, ...]  # total: free and locked
    open_orders: tuple[str, ...]  # our order ids that rest there
    facts: tuple[PrivateFact, ...]
    nonce: int | None = None  # chain: transactions mined from the wallet
    at_ns: int = 0
    resting: tuple[Resting, ...] = ()  # the open orders in full, ours and others
    is_orders_whole: bool = True
    is_balances_whole: bool = True
    proved: tuple[Amount, ...] = ()  # balances that were proved against the block's state root


class Repair(msgspec.Struct, frozen=True):
    """One step that puts a difference right. Without events it cannot be done here, and `action` says who can."""

    venue: str
    about: str
    action: str
    events: tuple[Event, ...] = ()


class Venue(Protocol):
    """A place to trade: one profile and four verbs. Outcomes of `send` arrive on the stream."""

    @property
    def profile(self) -> Profile: ...

    def stream(self) -> AsyncIterator[VenueEvent]:
        """Instruments, market facts and our own orders, in the order received. Raises VenueError when the connection is lost.

        An order's end may come before its fills if it says how much was `filled`; `Allowance`s come after the report of what
        changed them.
        """
        ...

    def build(self, approved: Approved) -> Unsigned:
        """Pure: what must be signed for an approved plan."""
        ...

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """One send, never a retry. Returns what the reply already proves.

        Raises VenueError if it was certainly not accepted, OutcomeUnknown if nobody knows.
        """
        ...

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """Balances, resting orders, and for each asked order what is certain about it. Silence about one means: still unknown."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class DeadMan(Protocol):
    """A venue that cancels everything by itself when we fall silent."""

    @property
    def countdown_s(self) -> int:
        """How long it waits; 0: not in use."""
        ...

    async def arm(self, countdown_s: int) -> None:
        """Start its countdown anew; 0 disarms it. Raises VenueError."""
        ...


class Asked(msgspec.Struct, frozen=True):
    """A transaction that nobody has signed yet. `holder` is whose coins it is about; `tokens` (addresses) are counted for it."""

    call: Call
    sender: str
    nonce: int
    gas_limit: int
    holder: str
    tokens: tuple[str, ...] = ()


class Rehearsed(msgspec.Struct, frozen=True):
    """What a transaction would do to its holder's coins, as if it came next. Addresses are lower case.

    `changes`: units of each token that the holder has more (or, below zero, less) of; the zero address is the native coin.
    `allowed`: (contract that says so, who may take coins of the holder from then on).
    """

    reverted: str  # why it would fail; empty if it would not
    changes: dict[str, int] = {}
    allowed: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class Rehearsing(Protocol):
    """A venue that can run a transaction and take it back."""

    async def rehearse(self, asked: Asked) -> Rehearsed:
        """After everything of ours that waits before it. Raises VenueError when nobody can tell."""
        ...


class Latch(Protocol):
    """The kill switch: outside the engine, so that it works when the engine does not."""

    def engaged(self) -> str:
        """Why nothing new may be sent; empty if it may. Costs no more than a look, and fails closed."""
        ...


class Custody(msgspec.Struct, frozen=True):
    """Where a key is, as data. `tier`: hot signs by itself, warm by itself within limits elsewhere, cold only by people."""

    kind: str  # local, or the name of the module in `agent.keys.custody` that reaches it
    tier: Literal["hot", "warm", "cold"]
    latency: Literal["microseconds", "milliseconds", "seconds", "people"]


class Signer(Protocol):
    """A key. It decodes what it signs and refuses (SignerError) what it does not understand.

    SignerError is final. SignerUnavailableError: nothing was signed, ask again later. SignatureUnknownError: ask about it first.
    """

    @property
    def key_id(self) -> str: ...

    @property
    def custody(self) -> Custody: ...

    async def sign(self, unsigned: Unsigned) -> Signed: ...


@runtime_checkable
class PromptSigner(Protocol):
    """A key in this process. It answers at once, so what it signed is journaled together with the approval."""

    def sign_now(self, unsigned: Unsigned) -> Signed | None:
        """As `Signer.sign`, without waiting for anything; None: it has to be waited for, and nothing was done."""
        ...


class Account(Protocol):
    """An on-chain identity that executes calls: an EOA signs a transaction, a smart wallet wraps the calls first."""

    @property
    def address(self) -> str: ...

    async def sign(self, unsigned: Unsigned) -> Signed: ...


TicketState = Literal["waiting", "ready", "sent", "done", "refused", "expired"]


class Ticket(msgspec.Struct, frozen=True):
    """What was asked of a vault: it waits for somebody, is ready to be sent, is sent, and ends done, refused or expired."""

    id: str
    account: str  # the vault's name in the settings
    kind: str
    request: str  # by which whoever asked knows it
    state: TicketState
    meaning: tuple[str, ...]  # what it does, one line each, as the policy read it
    created_ns: int
    expires_ns: int
    tx_hash: str = ""
    reason: str = ""  # what it waits for, or why it ended


class Vault(Protocol):
    """An account whose answer is a ticket, as people or a custodian's queue decide. For treasury work, never for orders.

    Errors as on `Signer`: SignerError is final, SignerUnavailableError changed nothing, SignatureUnknownError: poll first.
    """

    @property
    def address(self) -> str: ...

    @property
    def custody(self) -> Custody: ...

    async def propose(self, request: str, calls: Sequence[Call]) -> Ticket:
        """Ask for calls, in order. The same `request` is the same ticket, for ever; with other calls: SignerError."""
        ...

    async def poll(self, ticket: Ticket) -> Ticket:
        """What became of it, moved on as far as it goes without people. Asking again never carries anything out twice."""
        ...

    async def refuse(self, ticket: Ticket, reason: str) -> Ticket:
        """Take it back. It is refused only when it certainly cannot happen any more; until then it says what it waits for."""
        ...

    async def close(self) -> None: ...


class Journal(Protocol):
    """The record of everything, append-only, gapless, chained by hash."""

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        """All or none, in order, chained. Mode `process`: on return they are with the operating system and survive `kill -9`.

        Mode `power` and PostgreSQL: they may still be under way to the disk; `secured` says when they arrived. Raises JournalError.
        """
        ...

    async def secured(self, seq: int) -> None:
        """Returns when the record `seq` and all before it are as durable as the mode promises; at once in mode `process`.

        Raises JournalError if that will never be. Every send to the outside waits for it.
        """
        ...

    def read(self, after_seq: int = 0) -> Iterable[Record]:
        """In order, verified against the hash chain. Raises JournalError at the first record that does not fit."""
        ...

    @property
    def warning(self) -> str:
        """Why nothing new should be begun, while the rest still is recorded (a disk that fills up); empty if nothing is wrong."""
        ...

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest record; (0, genesis hash) when empty."""
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    """Time, injected: real in the agent, virtual in simulation."""

    def now_ns(self) -> int: ...

    async def sleep(self, seconds: float) -> None: ...


class RequestKey(Protocol):
    """An API key's secret half. It authenticates venue requests as they leave and never shows itself."""

    @property
    def key_id(self) -> str: ...

    def hmac_sha256_hex(self, payload: bytes) -> str:
        """HMAC-SHA256 of the payload, in lower-case hex."""
        ...


class Tools(msgspec.Struct, frozen=True):
    """What a venue is handed when it connects. `key` None: it may look, not trade."""

    clock: Clock
    key: RequestKey | None = None
    account: str = "main"  # whose balances and gas the venue reports: the journal's account
    notes: MutableMapping[str, str] = {}  # what the venue wants to find again after a restart, such as the end of a ban


class Chain(Protocol):
    """A connection to one chain, checked to be the chain that it should be."""

    @property
    def chain_id(self) -> int: ...

    async def call(self, method: str, *params: Any) -> Any: ...

    async def send_raw(self, raw: bytes) -> str: ...

    async def close(self) -> None: ...


class Rail(Protocol):
    """A way to move assets between places. No rail ships yet; the seam is laid so that the ledger knows transfers."""

    async def transfer(self, amount: Amount, to: str) -> str: ...


class Forecaster(Protocol):
    """An opinion about the next seconds of a market, in basis points. Neutral until prediction ships."""

    def drift_bps(self, market: str, horizon_ns: int) -> float: ...


class IntentView(msgspec.Struct, frozen=True):
    """A parent as a client sees it."""

    intent: Intent
    status: str
    filled: Amount
    reason: str
    orders: tuple[str, ...]


class Anchoring(msgspec.Struct, frozen=True):
    """The journal's head on its way into a contract: as which order, or why it is not."""

    venue: str
    contract: str
    seq: int
    head: str
    order_id: str  # empty when it was refused
    reasons: tuple[Reason, ...] = ()


class Desk(Protocol):
    """The only way in for people and programs: commands, queries, one subscription of events."""

    async def submit(self, intent: Intent) -> tuple[Reason, ...]:
        """Empty when accepted, else why not."""
        ...

    async def submit_all(self, intents: Sequence[Intent]) -> tuple[Reason, ...]:
        """Orders that belong together: all are accepted, or none."""
        ...

    async def cancel(self, intent_id: str) -> bool: ...

    async def pause(self, intent_id: str) -> bool:
        """Nothing new is sent for it and what rests is taken back, until `proceed`. False if there is no such live parent."""
        ...

    async def proceed(self, intent_id: str) -> bool: ...

    async def amend(self, intent: Intent) -> tuple[Reason, ...]:
        """A live parent is like this from now on. Empty when it is, else why not."""
        ...

    def intents(self) -> Sequence[IntentView]: ...

    def order(self, order_id: str) -> Order | None: ...

    def balances(self) -> Sequence[tuple[str, str, Amount]]: ...

    async def reconcile(self) -> Sequence[Break]: ...

    async def repair(self, *, is_rehearsal: bool) -> Sequence[Repair]:
        """Put right what can be put right from what venues say, and journal it; only say so in a rehearsal."""
        ...

    async def adopt(self, reason: str) -> Sequence[Break]:
        """Take the balances of now over, as explained by a person, and lift the halts; the breaks that stay."""
        ...

    async def anchor(self, venue: str) -> Anchoring:
        """Write the journal's head on a chain. Returns when it is approved and journaled; the order tells what becomes of it."""
        ...

    def events(self) -> AsyncIterator[Record]:
        """Every record from now on; a slow reader is cut off, never waited for."""
        ...
