"""What the key is willing to sign on a chain, decided on the raw bytes and never on what somebody says about them.

Understood: an exact token approval to Permit2, a UniversalRouter swap that pays the owner, the Permit2 permit inside it, nothing
sent to oneself (which takes back a transaction that waits), and the journal's head for the one AuditAnchor. A key that acts for an
account on the chain (a Safe, a role, an ERC-4337 account, its own EOA with code) wraps its calls; they are judged one by one with
that account as the owner, and one such layer is all there may be. Calls must be the canonical ABI encoding (decoded and encoded
again they give the same bytes), so that the contract cannot read them in another way than the policy did. Everything else is
refused by name. Sources: contract ABI specification; Permit2 (AllowanceTransfer); UniversalRouter 2.1 (Commands, Dispatcher);
v4-periphery (Actions, IV4Router).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, TypedData
from agent.keys.accounts import erc4337
from agent.keys.accounts.kinds import Kind as AccountKind
from agent.keys.accounts.kinds import Role, Safe, UserOps
from agent.keys.accounts.safe import SAFE_TX_TYPES, safe_tx_of, unwrap
from agent.keys.bounds import NO_HOOKS, Act, KeyPolicy, Rule, check_deadline, check_tokens, exact, norm
from agent.keys.swaps import V2_IN, V2_OUT, V3_IN, V3_OUT, V4, read_swap
from agent.keys.transfers import read_transfer
from agent.keys.wrapped import Wrapped, calls_of, read_wrapped

EXECUTE: Final = "0x3593564c"  # UniversalRouter.execute(bytes,bytes[],uint256)
EXECUTE_PERMITTED: Final = "0x24856bc3"  # UniversalRouter.execute(bytes,bytes[]): ends with the permission that it uses
APPROVE: Final = "0x095ea7b3"  # ERC-20 approve(address,uint256)
ANCHOR: Final = "0xa6855208"  # AuditAnchor.anchor(uint64,bytes32)
STANDING: Final = "0x87517c45"  # Permit2.approve(address,address,uint160,uint48): what accounts do that sign no permits
APPROVAL_BELOW = 2**255  # from here on an approval counts as unlimited
PERMIT_AMOUNT_MAX = 2**160 - 2  # Permit2 never lowers 2**160 - 1: that one is unlimited
DATA_BYTES_MAX = 24_576  # a swap over eight pools has about 4 kB; small, so that nested offsets cannot blow up the decoder
COMMANDS_MAX = 32

PERMIT, SWAPS = 0x0A, frozenset({V2_IN, V2_OUT, V3_IN, V3_OUT, V4})

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

_TOO_MUCH_GAS = "policy: the account would pay for more gas, or more for gas, than this key may"
_PERMIT_ABI = ("((address,uint160,uint48,uint48),address,uint256)", "bytes")


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


class Meaning(msgspec.Struct, frozen=True):
    """What a request does: its acts and the permits that it carries, both in order. `wrapped`: what an account is told."""

    acts: tuple[Act, ...]
    permits: tuple[PermitCall, ...] = ()
    wrapped: Wrapped | None = None


def swap_policy(
    chain_id: int,
    owner: str,
    router: str,
    permit2: str,
    tokens: frozenset[str],
    gas_fee_max: int,
    gas_limit_max: int,
    anchor: str = "",
    rules: tuple[Rule, ...] = (),
    names: dict[str, tuple[str, int]] | None = None,
    account: AccountKind | None = None,
) -> KeyPolicy:
    """The usual policy: swap through one router, approve each ERC-20 of `tokens` to Permit2, anchor the journal. No value is sent.

    With an `account` all but the anchor happens through it, and Permit2 is told by a call what a permit would tell it.

    Nothing may be sent to oneself, with any policy: that is how a transaction is taken back.
    """
    contracts = {token: frozenset({APPROVE}) for token in tokens if norm(token) != NO_HOOKS}
    contracts[router] = frozenset({EXECUTE})
    if anchor:
        contracts[anchor] = frozenset({ANCHOR})
    if account is not None:
        contracts[permit2] = frozenset({STANDING})
    if isinstance(account, Role):
        contracts[router] = frozenset({EXECUTE, EXECUTE_PERMITTED})
    return KeyPolicy(
        chain_id,
        owner,
        router,
        permit2,
        tokens,
        contracts,
        gas_fee_max,
        gas_limit_max,
        anchor=anchor,
        rules=rules,
        names=names or {},
        account=account,
    )


def check_calls(policy: KeyPolicy, unsigned: Calls, deadline_s_max: int | None = None) -> Meaning:
    """What one call does, or SignerError naming the rule that it breaks.

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
    call = unsigned.calls[0]
    if policy.account is None:
        return _check_call(policy, call, deadline_s_max)
    return _check_account_call(policy, policy.account, call, deadline_s_max)


def check_typed(policy: KeyPolicy, typed: TypedData, deadline_s_max: int | None = None) -> Permit:
    """Pass a Permit2 PermitSingle within the policy, or raise SignerError naming the rule."""
    if typed.primary != "PermitSingle" or typed.types != PERMIT_TYPES:
        raise SignerError(
            f"policy: this signer does not understand typed data {typed.primary[:48]!r}; it knows Permit2 PermitSingle"
        )
    domain = typed.domain
    if domain.keys() != {"name", "chainId", "verifyingContract"} or domain["name"] != "Permit2":
        raise SignerError("policy: the typed-data domain is not Permit2's")
    if domain["chainId"] != policy.chain_id or norm(str(domain["verifyingContract"])) != policy.permit2:
        raise SignerError(f"policy: the Permit2 of the typed data is not {policy.permit2} on chain {policy.chain_id}")
    permit = _permit_of(typed.message)
    _check_permit(policy, permit, deadline_s_max)
    return permit


def check_safe_tx(policy: KeyPolicy, typed: TypedData, deadline_s_max: int | None = None) -> tuple[Act, ...]:
    """What a SafeTx does that this key signs as one of the Safe's owners, or SignerError naming the rule that it breaks."""
    account, domain = policy.account, typed.domain
    if not isinstance(account, Safe) or typed.primary != "SafeTx" or typed.types != SAFE_TX_TYPES:
        raise SignerError(f"policy: this signer does not understand typed data {typed.primary[:48]!r}; it acts for no Safe")
    if domain.keys() != {"chainId", "verifyingContract"} or domain["chainId"] != policy.chain_id:
        raise SignerError(f"policy: the SafeTx is not for chain {policy.chain_id}")
    if norm(domain["verifyingContract"]) != account.address:
        raise SignerError(f"policy: the SafeTx is of another Safe than {account.address}")
    return _inner_acts(policy, account, unwrap(safe_tx_of(typed.message), account.multi_send), deadline_s_max)


def acts_of(policy: KeyPolicy, calls: Sequence[Call]) -> tuple[Act, ...]:
    """What these calls do when whoever holds the tokens makes them, or SignerError naming the rule that they break."""
    if policy.account is not None:
        return _inner_acts(policy, policy.account, calls, None)
    return tuple(act for call in calls for act in _check_call(policy, call, None).acts)


def check_user_op(policy: KeyPolicy, typed: TypedData, deadline_s_max: int | None = None) -> tuple[Act, ...]:
    """What an operation does that this key signs for its ERC-4337 account, or SignerError naming the rule that it breaks."""
    account = policy.account
    if not isinstance(account, UserOps) or typed.types != erc4337.TYPES:
        raise SignerError(f"policy: this signer does not understand typed data {typed.primary[:48]!r}; it has no such account")
    version = erc4337.DOMAIN_VERSIONS[account.version]
    domain = {**typed.domain, "verifyingContract": norm(typed.domain.get("verifyingContract"))}
    if domain != {"name": "ERC4337", "version": version, "chainId": policy.chain_id, "verifyingContract": account.entry_point}:
        raise SignerError(f"policy: the operation is not for the EntryPoint {account.entry_point} on chain {policy.chain_id}")
    op = erc4337.user_op_of(typed.message)
    if op.gas > policy.gas_limit_max or op.gas_fee_max > policy.gas_fee_max:
        raise SignerError(_TOO_MUCH_GAS)
    return _inner_acts(policy, account, calls_of(account, op), deadline_s_max)


def act_of(permit: Permit, policy: KeyPolicy) -> Act:
    """A permit lets Permit2 hand that much to the router."""
    return Act("permit", policy.permit2, permit.token, permit.amount)


# -- calls of an account -----------------------------------------------------------------------------------------------


def _check_account_call(policy: KeyPolicy, account: AccountKind, call: Call, deadline_s_max: int | None) -> Meaning:
    """Through its account, or itself: the journal's head, and nothing to itself."""
    to, selector = norm(call.to), "0x" + call.data[:4].hex()
    if to == policy.owner and not call.data:
        return _check_call(policy, call, deadline_s_max)
    if to == policy.anchor and selector == ANCHOR:
        return _check_call(policy, call, deadline_s_max)
    if to != account.entry:
        raise SignerError(f"policy: this key acts for {account.address} through {account.entry}; a call to {to} is refused")
    if len(call.data) > DATA_BYTES_MAX:
        raise SignerError(f"policy: call data of {len(call.data)} bytes is more than {DATA_BYTES_MAX}")
    wrapped = read_wrapped(account, call, policy.owner)
    if wrapped.gas > policy.gas_limit_max or wrapped.gas_fee_max > policy.gas_fee_max:
        raise SignerError(_TOO_MUCH_GAS)
    return Meaning(_inner_acts(policy, account, wrapped.calls, deadline_s_max), wrapped=wrapped)


def _inner_acts(policy: KeyPolicy, account: AccountKind, calls: Sequence[Call], deadline_s_max: int | None) -> tuple[Act, ...]:
    """What the account does. It has no account of its own: a wrap inside a wrap is a call that nobody understands."""
    inner = msgspec.structs.replace(policy, owner=account.address, account=None)
    acts: list[Act] = []
    for call in calls:
        meaning = _check_call(inner, call, deadline_s_max)
        if meaning.permits:
            raise SignerError("policy: a permit inside a wrapped call is refused; this account tells Permit2 by a call of its own")
        acts += meaning.acts
    return tuple(acts)


# -- one call ----------------------------------------------------------------------------------------------------------


def _check_call(policy: KeyPolicy, call: Call, deadline_s_max: int | None) -> Meaning:
    to, selector = norm(call.to), "0x" + call.data[:4].hex()
    if policy.is_treasury and (call.value or call.data):
        return Meaning(read_transfer(policy, to, call))
    if to == policy.owner:
        if call.value or call.data:
            raise SignerError("policy: to oneself only nothing is sent: no value and no data")
        return Meaning((Act("take_back", to),))
    if not 0 <= call.value <= policy.value_max:
        raise SignerError(f"policy: value {call.value} wei is above {policy.value_max}")
    if to not in policy.contracts:
        raise SignerError(f"policy: contract {to} is not on this key's list")
    if selector not in policy.contracts[to]:
        raise SignerError(f"policy: selector {selector} is not allowed on {to}")
    if len(call.data) > DATA_BYTES_MAX:
        raise SignerError(f"policy: call data of {len(call.data)} bytes is more than {DATA_BYTES_MAX}")
    if selector == APPROVE:
        return Meaning((_check_approve(policy, call),))
    if selector == STANDING:
        return Meaning((_check_standing(policy, to, call, deadline_s_max),))
    if selector == ANCHOR:
        _check_anchor(policy, to, call)
        return Meaning((Act("anchor", to),))
    if selector in (EXECUTE, EXECUTE_PERMITTED):
        if to != policy.router:
            raise SignerError(f"policy: {to} is not the router {policy.router}")
        return _check_execute(policy, selector, call.data, deadline_s_max)
    raise SignerError(f"policy: this signer does not understand selector {selector}")


def _check_approve(policy: KeyPolicy, call: Call) -> Act:
    spender, amount = exact(("address", "uint256"), call.data[4:], "approve")
    if spender != policy.permit2:
        raise SignerError(f"policy: approve to {spender} is refused; only Permit2 ({policy.permit2}) may be approved")
    if amount >= APPROVAL_BELOW:
        raise SignerError("policy: an unlimited approval is refused; approve the amount that is needed")
    if call.value:
        raise SignerError("policy: an approval carries no value")
    return Act("approve", norm(call.to), norm(call.to), amount)


def _check_standing(policy: KeyPolicy, to: str, call: Call, deadline_s_max: int | None) -> Act:
    """A permit that is told instead of signed: the same bounds hold."""
    if to != policy.permit2 or call.value:
        raise SignerError(f"policy: {to} is not Permit2, or would be paid; only {policy.permit2} is told who may spend")
    token, spender, amount, expires_s = exact(("address", "address", "uint160", "uint48"), call.data[4:], "Permit2 approve")
    permit = Permit(token, amount, expires_s, 0, spender, expires_s)
    _check_permit(policy, permit, deadline_s_max)
    return act_of(permit, policy)


def _check_anchor(policy: KeyPolicy, to: str, call: Call) -> None:
    if to != policy.anchor:
        raise SignerError(f"policy: {to} is not the contract that keeps the journal's heads")
    exact(("uint64", "bytes32"), call.data[4:], "anchor")
    if call.value:
        raise SignerError("policy: an anchor carries no value")


def _check_execute(policy: KeyPolicy, selector: str, data: bytes, deadline_s_max: int | None) -> Meaning:
    """Without a deadline of its own it ends with the account's permission at Permit2, which `_check_standing` bounds."""
    kinds = ("bytes", "bytes[]", "uint256") if selector == EXECUTE else ("bytes", "bytes[]")
    commands, inputs, *deadline_s = exact(kinds, data[4:], "execute")
    if not commands or len(commands) > COMMANDS_MAX or len(commands) != len(inputs):
        raise SignerError(f"policy: execute needs 1 to {COMMANDS_MAX} commands with one input each")
    for one in deadline_s:
        check_deadline(one, deadline_s_max, "execute deadline")
    permits: list[PermitCall] = []
    acts: list[Act] = []
    for index, (command, body) in enumerate(zip(commands, inputs, strict=True)):
        if command == PERMIT:
            permits.append(_check_permit_command(policy, data, index, body, deadline_s_max))
            acts.append(act_of(permits[-1].permit, policy))
        elif command in SWAPS:
            acts += read_swap(policy, command, body)
        else:
            raise SignerError(f"policy: router command 0x{command:02x} is not understood; only swaps and permits are signed")
    return Meaning(tuple(acts), tuple(permits))


def _check_permit_command(policy: KeyPolicy, data: bytes, index: int, body: bytes, deadline_s_max: int | None) -> PermitCall:
    ((token, amount, expires_s, nonce), spender, deadline_s), signature = exact(_PERMIT_ABI, body, "PERMIT2_PERMIT")
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


# -- permits -----------------------------------------------------------------------------------------------------------


def _check_permit(policy: KeyPolicy, permit: Permit, deadline_s_max: int | None) -> None:
    if permit.spender != policy.router:
        raise SignerError(f"policy: a permit for {permit.spender} is refused; only the router {policy.router} may spend")
    check_tokens(policy, (permit.token,), "permit")
    if permit.amount > PERMIT_AMOUNT_MAX:
        raise SignerError("policy: an unlimited permit is refused; permit the amount that is needed")
    check_deadline(permit.expires_s, deadline_s_max, "permit expiration")
    check_deadline(permit.deadline_s, deadline_s_max, "permit sigDeadline")


def _permit_of(message: dict[str, object]) -> Permit:
    details = message.get("details")
    if not isinstance(details, dict):
        raise SignerError("policy: the permit has no details")
    return Permit(
        token=norm(details.get("token")),
        amount=_whole(details.get("amount"), "amount"),
        expires_s=_whole(details.get("expiration"), "expiration"),
        nonce=_whole(details.get("nonce"), "nonce"),
        spender=norm(message.get("spender")),
        deadline_s=_whole(message.get("sigDeadline"), "sigDeadline"),
    )


def _whole(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SignerError(f"policy: the permit's {what} must be a whole number")
    return int(value)
