"""What a key may touch on a chain, and the small rules that every kind of call shares. `policy` reads whole requests.

Everything here is a hard rule: no setting of the user lifts it. What the user allows beyond that is in `rules`.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from agent.domain.errors import SignerError
from agent.keys.accounts.kinds import Kind as AccountKind
from agent.keys.canonical import NotCanonicalError, read
from agent.keys.digest import address_bytes

NO_HOOKS: Final = "0x" + "00" * 20
MSG_SENDER: Final = "0x" + "00" * 19 + "01"  # the router's word for: whoever called me
FOREVER_S = 2**33  # year 2242: without a clock, a deadline must at least be one
DEADLINE_AHEAD_S = 3_600  # with a clock: the longest time for which a swap or permit may stay valid
ANY_AMOUNT = 2**256 - 1  # an amount that only the contract will know

Kind = Literal["approve", "permit", "swap", "anchor", "take_back", "transfer", "revoke", "owners"]


class Rule(msgspec.Struct, frozen=True):
    """What the user says about some acts: which it matches (what is empty matches all), and what becomes of them. See `rules`.

    `amount_max`: of the token that may leave, in its units, for one act. `window_max`: of all swaps that the rule allowed within
    `window_s`, together; swaps and transfers count, because approvals and permits move nothing by themselves. `to`: who may be
    paid, or become an owner. Addresses are lower case.
    """

    name: str
    effect: Literal["allow", "deny"]
    kinds: frozenset[Kind] = frozenset()
    contracts: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    received: frozenset[str] = frozenset()
    amount_max: int | None = None
    window_s: int = 0
    window_max: int | None = None
    to: frozenset[str] = frozenset()


class KeyPolicy(msgspec.Struct, frozen=True):
    """What one key may sign on one chain. Addresses are 0x text in any case; `contracts` maps each to its allowed selectors.

    `gas_fee_max` wei per gas, `gas_limit_max` gas, `value_max` wei. `tokens` are the only ones that may be sold, bought or
    permitted (a native coin in v4 is the zero address); `hooks` the only v4 hooks. The only typed-data domain is `permit2`'s here.
    `anchor` is the contract that keeps heads of the journal; empty: none. `rules`: what the user allows of all that. `names`:
    (symbol, decimals) of tokens, for words alone. `account`: the contract that the key acts for and that holds the tokens; then its
    calls are wrapped, and judged as what the account does. `is_treasury`: the key moves coins and takes rights away (`transfers`),
    and trades nothing.
    """

    chain_id: int
    owner: str
    router: str
    permit2: str
    tokens: frozenset[str]
    contracts: dict[str, frozenset[str]]
    gas_fee_max: int
    gas_limit_max: int
    value_max: int = 0
    hooks: frozenset[str] = frozenset({NO_HOOKS})
    anchor: str = ""
    rules: tuple[Rule, ...] = ()
    names: dict[str, tuple[str, int]] = {}
    account: AccountKind | None = None
    is_treasury: bool = False

    def __post_init__(self) -> None:
        """Raises SignerError for a bad address."""
        put = msgspec.structs.force_setattr
        for name in ("owner", "router", "permit2"):
            put(self, name, norm(getattr(self, name)))
        put(self, "anchor", norm(self.anchor) if self.anchor else "")
        put(self, "tokens", frozenset(map(norm, self.tokens)))
        put(self, "hooks", frozenset(map(norm, self.hooks)))
        put(self, "contracts", {norm(a): frozenset(s.lower() for s in selectors) for a, selectors in self.contracts.items()})


class Act(msgspec.Struct, frozen=True):
    """One thing that a request does, as read from its bytes. Addresses are lower case, amounts in units of their token.

    `given` may leave the account, at most `amount` of it (ANY_AMOUNT: the bytes do not say); `received` comes, at least `least`.
    `to`: who is paid, becomes an owner, or loses a right.
    """

    kind: Kind
    contract: str
    given: str = ""
    amount: int = 0
    received: str = ""
    least: int = 0
    to: str = ""


def check_deadline(deadline_s: int, deadline_s_max: int | None, what: str) -> None:
    top = FOREVER_S if deadline_s_max is None else deadline_s_max
    if deadline_s > top:
        raise SignerError(f"policy: {what} {deadline_s} is later than {top}; sign for a shorter time")


def check_recipient(policy: KeyPolicy, recipient: str, what: str) -> None:
    if recipient not in (policy.owner, MSG_SENDER):
        raise SignerError(f"policy: {what} pays {recipient}, which is not the owner {policy.owner}")


def check_tokens(policy: KeyPolicy, tokens: Sequence[str], what: str) -> None:
    for token in tokens:
        if token not in policy.tokens:
            raise SignerError(f"policy: {what}: token {token} is not on this key's list")


def norm(address: object) -> str:
    """An address in lower case, as eth_abi decodes it."""
    if not isinstance(address, str):
        raise SignerError("policy: an address must be text (0x and 40 hex digits)")
    return "0x" + address_bytes(address).hex()


def exact(kinds: tuple[str, ...], raw: bytes, what: str) -> tuple[Any, ...]:
    """Decode, and refuse whatever is not the canonical encoding of what was decoded. The library's own words say why."""
    with contextlib.suppress(NotCanonicalError):
        return read(kinds, raw)
    try:
        values = decode(kinds, raw)
        same = encode(kinds, values) == raw
    except (DecodingError, EncodingError, OverflowError, ValueError):
        raise SignerError(f"policy: {what} does not decode; this signer does not understand it") from None
    if not same:
        raise SignerError(f"policy: {what} is not in canonical ABI encoding")
    return values
