"""What the key is willing to sign on a chain, decided on the raw bytes and never on what somebody says about them.

Understood: an exact token approval to Permit2, a UniversalRouter swap that pays the owner, the Permit2 permit inside it, nothing
sent to oneself (which takes back a transaction that waits), and the journal's head for the one AuditAnchor. Calls must be the
canonical ABI encoding (decoded and encoded again they give the same bytes), so that the contract cannot read them in another way
than the policy did. Everything else is refused by name. Sources: contract ABI specification; Permit2 (AllowanceTransfer);
UniversalRouter 2.1 (Commands, Dispatcher); v4-periphery (Actions, IV4Router).
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, TypedData
from agent.keys.canonical import NotCanonicalError, read
from agent.keys.digest import address_bytes

EXECUTE: Final = "0x3593564c"  # UniversalRouter.execute(bytes,bytes[],uint256)
APPROVE: Final = "0x095ea7b3"  # ERC-20 approve(address,uint256)
ANCHOR: Final = "0xa6855208"  # AuditAnchor.anchor(uint64,bytes32)
NO_HOOKS: Final = "0x" + "00" * 20
MSG_SENDER: Final = "0x" + "00" * 19 + "01"  # the router's word for: whoever called me
APPROVAL_BELOW = 2**255  # from here on an approval counts as unlimited
PERMIT_AMOUNT_MAX = 2**160 - 2  # Permit2 never lowers 2**160 - 1: that one is unlimited
FOREVER_S = 2**33  # year 2242: without a clock, a deadline must at least be one
DATA_BYTES_MAX = 24_576  # a swap over eight pools has about 4 kB; small, so that nested offsets cannot blow up the decoder
COMMANDS_MAX = 32

PERMIT_TYPES: Final[dict[str, list[dict[str, str]]]] = {
    "PermitDetails": [
        {"name": "token", "type": "address"},
        {"name": "amount", "type": "uint160"},
        {"name": "expiration", "type": "uint48"},
        {"name": "nonce", "type": "uint48"},
    ],
    "PermitSingle": [
        {"name": "details", "type": "PermitDetails"},
        {"name": "spender", "type": "address"},
        {"name": "sigDeadline", "type": "uint256"},
    ],
}

_PERMIT_ABI = ("((address,uint160,uint48,uint48),address,uint256)", "bytes")
_SWAP_V3_ABI = ("address", "uint256", "uint256", "bytes", "bool")
_SWAP_V2_ABI = ("address", "uint256", "uint256", "address[]", "bool")
_HOP_PRICES = "uint256[]"  # UniversalRouter 2.1 takes them as an optional last field of a v2 or v3 swap
_POOL_KEY = "(address,address,uint24,int24,address)"
_PATH = "(address,uint24,int24,address,bytes)[]"
_V4_ABI: Final[dict[int, tuple[str, ...]]] = {
    0x06: (f"({_POOL_KEY},bool,uint128,uint128,bytes)",),  # SWAP_EXACT_IN_SINGLE
    0x07: (f"(address,{_PATH},uint256[],uint128,uint128)",),  # SWAP_EXACT_IN
    0x08: (f"({_POOL_KEY},bool,uint128,uint128,bytes)",),  # SWAP_EXACT_OUT_SINGLE
    0x09: (f"(address,{_PATH},uint256[],uint128,uint128)",),  # SWAP_EXACT_OUT
    0x0B: ("address", "uint256", "bool"),  # SETTLE
    0x0C: ("address", "uint256"),  # SETTLE_ALL
    0x0E: ("address", "address", "uint256"),  # TAKE
    0x0F: ("address", "uint256"),  # TAKE_ALL
}


class KeyPolicy(msgspec.Struct, frozen=True):
    """What one key may sign on one chain. Addresses are 0x text in any case; `contracts` maps each to its allowed selectors.

    `gas_fee_max` wei per gas, `gas_limit_max` gas, `value_max` wei. `tokens` are the only ones that may be sold, bought or
    permitted (a native coin in v4 is the zero address); `hooks` the only v4 hooks. The only typed-data domain is `permit2`'s here.
    `anchor` is the contract that keeps heads of the journal; empty: none.
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

    def __post_init__(self) -> None:
        """Raises SignerError for a bad address."""
        put = msgspec.structs.force_setattr
        for name in ("owner", "router", "permit2"):
            put(self, name, _norm(getattr(self, name)))
        put(self, "anchor", _norm(self.anchor) if self.anchor else "")
        put(self, "tokens", frozenset(map(_norm, self.tokens)))
        put(self, "hooks", frozenset(map(_norm, self.hooks)))
        put(self, "contracts", {_norm(a): frozenset(s.lower() for s in selectors) for a, selectors in self.contracts.items()})


class Permit(msgspec.Struct, frozen=True):
    """A Permit2 PermitSingle as decoded. `expires_s` and `deadline_s` are unix seconds on the chain's clock."""

    token: str
    amount: int
    expires_s: int
    nonce: int
    spender: str
    deadline_s: int


class PermitCall(msgspec.Struct, frozen=True):
    """A permit inside call data, and at which byte its 65-byte signature begins."""

    permit: Permit
    signature_at: int


def swap_policy(
    chain_id: int,
    owner: str,
    router: str,
    permit2: str,
    tokens: frozenset[str],
    gas_fee_max: int,
    gas_limit_max: int,
    anchor: str = "",
) -> KeyPolicy:
    """The usual policy: swap through one router, approve each ERC-20 of `tokens` to Permit2, anchor the journal. No value is sent.

    Nothing may be sent to oneself, with any policy: that is how a transaction is taken back.
    """
    contracts = {token: frozenset({APPROVE}) for token in tokens if _norm(token) != NO_HOOKS}
    contracts[router] = frozenset({EXECUTE})
    if anchor:
        contracts[anchor] = frozenset({ANCHOR})
    return KeyPolicy(chain_id, owner, router, permit2, tokens, contracts, gas_fee_max, gas_limit_max, anchor=anchor)


def check_calls(policy: KeyPolicy, unsigned: Calls, deadline_s_max: int | None = None) -> Sequence[PermitCall]:
    """Pass one call, or raise SignerError naming the rule. Returns the permits that the call carries, in order.

    `deadline_s_max` bounds every deadline (unix seconds, the chain's clock); None when no clock is at hand.
    """
    if unsigned.chain_id != policy.chain_id:
        raise SignerError(f"policy: chain {unsigned.chain_id} is not chain {policy.chain_id}, for which this key may sign")
    if len(unsigned.calls) != 1:
        raise SignerError(f"policy: a plain account signs exactly one call, this plan has {len(unsigned.calls)}")
    if not 0 <= unsigned.gas_fee_max <= policy.gas_fee_max:
        raise SignerError(f"policy: gas fee {unsigned.gas_fee_max} wei is above {policy.gas_fee_max}; raise gas_fee_max or wait")
    if not 0 <= unsigned.gas_limit <= policy.gas_limit_max:
        raise SignerError(f"policy: gas limit {unsigned.gas_limit} is above {policy.gas_limit_max}")
    return _check_call(policy, unsigned.calls[0], deadline_s_max)


def check_typed(policy: KeyPolicy, typed: TypedData, deadline_s_max: int | None = None) -> Permit:
    """Pass a Permit2 PermitSingle within the policy, or raise SignerError naming the rule."""
    if typed.primary != "PermitSingle" or typed.types != PERMIT_TYPES:
        raise SignerError(
            f"policy: this signer does not understand typed data {typed.primary[:48]!r}; it knows Permit2 PermitSingle"
        )
    domain = typed.domain
    if domain.keys() != {"name", "chainId", "verifyingContract"} or domain["name"] != "Permit2":
        raise SignerError("policy: the typed-data domain is not Permit2's")
    if domain["chainId"] != policy.chain_id or _norm(str(domain["verifyingContract"])) != policy.permit2:
        raise SignerError(f"policy: the Permit2 of the typed data is not {policy.permit2} on chain {policy.chain_id}")
    permit = _permit_of(typed.message)
    _check_permit(policy, permit, deadline_s_max)
    return permit


# -- one call ----------------------------------------------------------------------------------------------------------


def _check_call(policy: KeyPolicy, call: Call, deadline_s_max: int | None) -> Sequence[PermitCall]:
    to, selector = _norm(call.to), "0x" + call.data[:4].hex()
    if to == policy.owner:
        if call.value or call.data:
            raise SignerError("policy: to oneself only nothing is sent: no value and no data")
        return ()
    if not 0 <= call.value <= policy.value_max:
        raise SignerError(f"policy: value {call.value} wei is above {policy.value_max}")
    if to not in policy.contracts:
        raise SignerError(f"policy: contract {to} is not on this key's list")
    if selector not in policy.contracts[to]:
        raise SignerError(f"policy: selector {selector} is not allowed on {to}")
    if len(call.data) > DATA_BYTES_MAX:
        raise SignerError(f"policy: call data of {len(call.data)} bytes is more than {DATA_BYTES_MAX}")
    if selector == APPROVE:
        _check_approve(policy, call)
        return ()
    if selector == ANCHOR:
        _check_anchor(policy, to, call)
        return ()
    if selector == EXECUTE:
        if to != policy.router:
            raise SignerError(f"policy: {to} is not the router {policy.router}")
        return _check_execute(policy, call.data, deadline_s_max)
    raise SignerError(f"policy: this signer does not understand selector {selector}")


def _check_approve(policy: KeyPolicy, call: Call) -> None:
    spender, amount = _exact(("address", "uint256"), call.data[4:], "approve")
    if spender != policy.permit2:
        raise SignerError(f"policy: approve to {spender} is refused; only Permit2 ({policy.permit2}) may be approved")
    if amount >= APPROVAL_BELOW:
        raise SignerError("policy: an unlimited approval is refused; approve the amount that is needed")
    if call.value:
        raise SignerError("policy: an approval carries no value")


def _check_anchor(policy: KeyPolicy, to: str, call: Call) -> None:
    if to != policy.anchor:
        raise SignerError(f"policy: {to} is not the contract that keeps the journal's heads")
    _exact(("uint64", "bytes32"), call.data[4:], "anchor")
    if call.value:
        raise SignerError("policy: an anchor carries no value")


def _check_execute(policy: KeyPolicy, data: bytes, deadline_s_max: int | None) -> Sequence[PermitCall]:
    commands, inputs, deadline_s = _exact(("bytes", "bytes[]", "uint256"), data[4:], "execute")
    if not commands or len(commands) > COMMANDS_MAX or len(commands) != len(inputs):
        raise SignerError(f"policy: execute needs 1 to {COMMANDS_MAX} commands with one input each")
    _check_deadline(deadline_s, deadline_s_max, "execute deadline")
    permits = []
    for index, (command, body) in enumerate(zip(commands, inputs, strict=True)):
        if command == 0x0A:
            permits.append(_check_permit_command(policy, data, index, body, deadline_s_max))
        elif command in (0x00, 0x01, 0x08, 0x09):
            _check_swap(policy, command, body)
        elif command == 0x10:
            _check_v4(policy, body)
        else:
            raise SignerError(f"policy: router command 0x{command:02x} is not understood; only swaps and permits are signed")
    return permits


def _check_permit_command(policy: KeyPolicy, data: bytes, index: int, body: bytes, deadline_s_max: int | None) -> PermitCall:
    ((token, amount, expires_s, nonce), spender, deadline_s), signature = _exact(_PERMIT_ABI, body, "PERMIT2_PERMIT")
    if len(signature) != 65:
        raise SignerError(f"policy: a permit's signature has 65 bytes, this has {len(signature)}")
    permit = Permit(token, amount, expires_s, nonce, spender, deadline_s)
    _check_permit(policy, permit, deadline_s_max)
    return PermitCall(permit, _input_at(data, index) + 8 * 32)  # six words of permit, the signature's offset and length


def _input_at(data: bytes, index: int) -> int:
    """Where the bytes of `inputs[index]` begin in call data that is known to be canonical: selector, then three words of head."""
    array = 4 + int.from_bytes(data[36:68], "big") + 32
    offset = array + index * 32
    return array + int.from_bytes(data[offset : offset + 32], "big") + 32


def _check_swap(policy: KeyPolicy, command: int, body: bytes) -> None:
    """V3 and V2 swaps: the owner is paid, every token of the path is known, and the bound is a real one."""
    v3, exact_in = command in (0x00, 0x01), command in (0x00, 0x08)
    name = f"{'V3' if v3 else 'V2'}_SWAP_EXACT_{'IN' if exact_in else 'OUT'}"
    recipient, first, bound, path = _exact_swap(_SWAP_V3_ABI if v3 else _SWAP_V2_ABI, body, name)
    _check_recipient(policy, recipient, name)
    _check_tokens(policy, _path_tokens(path) if v3 else path, name)
    if (exact_in and bound == 0) or first == 0:
        raise SignerError(f"policy: {name} without an amount or a least amount is refused")


def _exact_swap(kinds: tuple[str, ...], body: bytes, name: str) -> tuple[str, int, int, Any]:
    # The first word says where the path begins: after five fields, or after six when hop prices are given.
    with_prices = int.from_bytes(body[96:128], "big") == 6 * 32
    fields = _exact((*kinds, _HOP_PRICES) if with_prices else kinds, body, name)
    return fields[0], fields[1], fields[2], fields[3]


def _path_tokens(path: bytes) -> list[str]:
    """A v3 path: token, then (3 bytes of fee, token) for each pool."""
    if len(path) < 43 or (len(path) - 20) % 23:
        raise SignerError(f"policy: a v3 path of {len(path)} bytes is not understood")
    return ["0x" + path[at : at + 20].hex() for at in range(0, len(path), 23)]


# -- v4 ----------------------------------------------------------------------------------------------------------------


def _check_v4(policy: KeyPolicy, body: bytes) -> None:
    actions, params = _exact(("bytes", "bytes[]"), body, "V4_SWAP")
    if not actions or len(actions) > COMMANDS_MAX or len(actions) != len(params):
        raise SignerError(f"policy: V4_SWAP needs 1 to {COMMANDS_MAX} actions with one parameter block each")
    is_open, least = False, False  # an exact-in swap without a least amount; a TAKE_ALL that asks for one
    for action, block in zip(actions, params, strict=True):
        if action not in _V4_ABI:
            raise SignerError(f"policy: v4 action 0x{action:02x} is not understood; only swap, settle and take are signed")
        fields = _exact(_V4_ABI[action], block, f"v4 action 0x{action:02x}")
        if action in (0x06, 0x08):
            (currency0, currency1, _, _, hooks), _, _, bound, _ = fields[0]
            _check_pool(policy, (currency0, currency1), (hooks,))
            is_open |= action == 0x06 and bound == 0
        elif action in (0x07, 0x09):
            currency, path, _, _, bound = fields[0]
            _check_pool(policy, (currency, *(hop[0] for hop in path)), tuple(hop[3] for hop in path))
            is_open |= action == 0x07 and bound == 0
        else:
            _check_tokens(policy, (fields[0],), f"v4 action 0x{action:02x}")
            least |= action == 0x0F and fields[1] > 0
            if action == 0x0E:
                _check_recipient(policy, fields[1], "v4 TAKE")
    if is_open and not least:
        raise SignerError("policy: a v4 swap without a least amount is refused")


def _check_pool(policy: KeyPolicy, tokens: Sequence[str], hooks: Sequence[str]) -> None:
    _check_tokens(policy, tokens, "v4 swap")
    for hook in hooks:
        if hook not in policy.hooks:
            raise SignerError(
                f"policy: the v4 hook {hook} is foreign code that this key does not know; add it to hooks to trade it"
            )


# -- rules that several share ------------------------------------------------------------------------------------------


def _check_permit(policy: KeyPolicy, permit: Permit, deadline_s_max: int | None) -> None:
    if permit.spender != policy.router:
        raise SignerError(f"policy: a permit for {permit.spender} is refused; only the router {policy.router} may spend")
    _check_tokens(policy, (permit.token,), "permit")
    if permit.amount > PERMIT_AMOUNT_MAX:
        raise SignerError("policy: an unlimited permit is refused; permit the amount that is needed")
    _check_deadline(permit.expires_s, deadline_s_max, "permit expiration")
    _check_deadline(permit.deadline_s, deadline_s_max, "permit sigDeadline")


def _check_deadline(deadline_s: int, deadline_s_max: int | None, what: str) -> None:
    top = FOREVER_S if deadline_s_max is None else deadline_s_max
    if deadline_s > top:
        raise SignerError(f"policy: {what} {deadline_s} is later than {top}; sign for a shorter time")


def _check_recipient(policy: KeyPolicy, recipient: str, what: str) -> None:
    if recipient not in (policy.owner, MSG_SENDER):
        raise SignerError(f"policy: {what} pays {recipient}, which is not the owner {policy.owner}")


def _check_tokens(policy: KeyPolicy, tokens: Sequence[str], what: str) -> None:
    for token in tokens:
        if token not in policy.tokens:
            raise SignerError(f"policy: {what}: token {token} is not on this key's list")


def _permit_of(message: dict[str, object]) -> Permit:
    details = message.get("details")
    if not isinstance(details, dict):
        raise SignerError("policy: the permit has no details")
    return Permit(
        token=_norm(details.get("token")),
        amount=_whole(details.get("amount"), "amount"),
        expires_s=_whole(details.get("expiration"), "expiration"),
        nonce=_whole(details.get("nonce"), "nonce"),
        spender=_norm(message.get("spender")),
        deadline_s=_whole(message.get("sigDeadline"), "sigDeadline"),
    )


def _whole(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SignerError(f"policy: the permit's {what} must be a whole number")
    return int(value)


def _norm(address: object) -> str:
    """An address in lower case, as eth_abi decodes it."""
    if not isinstance(address, str):
        raise SignerError("policy: an address must be text (0x and 40 hex digits)")
    return "0x" + address_bytes(address).hex()


def _exact(kinds: tuple[str, ...], raw: bytes, what: str) -> tuple[Any, ...]:
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
