"""Calls inside calls: what a key's transaction makes its account on the chain do, and where in it the key signs for that account.

Each kind is read as it is written (`agent.keys.accounts`) and in no other way: one layer, calls only, all of them or none.
"""

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call, TypedData
from agent.keys.accounts import erc4337, roles, safe
from agent.keys.accounts.kinds import Delegated, Kind, Role, Safe, UserOps
from agent.keys.accounts.owners import PART, read_consents


class Wrapped(msgspec.Struct, frozen=True):
    """What was inside, in order. `places`: bytes of the call data at which 65 zero bytes wait for the key's own signature.

    `signs`: what such a signature is for. `gas` and `gas_fee_max` (wei per gas) are what the account pays, 0 where it pays nothing.
    """

    calls: tuple[Call, ...]
    places: tuple[int, ...] = ()
    signs: safe.SafeTx | erc4337.UserOperation | None = None
    gas: int = 0
    gas_fee_max: int = 0


def read_wrapped(account: Kind, call: Call, key: str) -> Wrapped:
    """The calls in a call to `account.entry` that `key` sends. SignerError for whatever is not understood."""
    if call.value:
        raise SignerError("policy: a wrapped call carries no value of the key's own; the account pays")
    match account:
        case Safe():
            return _safe(account, call.data)
        case Role():
            return Wrapped(roles.read_exec(call.data, account.key, account.multi_send))
        case UserOps():
            return _user_ops(account, call.data, key)
        case Delegated():
            return Wrapped(erc4337.read_execute(call.data))


def signed_for(account: Kind, chain_id: int, wrapped: Wrapped, typed: TypedData) -> TypedData:
    """The typed data that a signature in `wrapped` must be for. A SafeTx's number is taken from `typed`: it is in no call data."""
    signs = wrapped.signs
    if isinstance(account, Safe) and isinstance(signs, safe.SafeTx):
        nonce = typed.message.get("nonce")
        if not isinstance(nonce, int) or isinstance(nonce, bool):
            raise SignerError("policy: the nonce of a SafeTx must be a whole number")
        return safe.safe_tx_typed(typed.order_id, chain_id, account.address, signs, nonce)
    if isinstance(account, UserOps) and isinstance(signs, erc4337.UserOperation):
        return erc4337.user_op_typed(typed.order_id, signs, account.entry_point, chain_id, version=account.version)
    raise SignerError("policy: nothing is signed inside this call")


def _safe(account: Safe, data: bytes) -> Wrapped:
    found = safe.read_exec(data)
    consents = read_consents(found.signatures)
    places = tuple(found.signatures_at + PART * at for at, one in enumerate(consents) if one.how == "empty")
    return Wrapped(safe.unwrap(found.tx, account.multi_send), places, found.tx)


def _user_ops(account: UserOps, data: bytes, key: str) -> Wrapped:
    found = erc4337.read_handle(data)
    op = found.op
    if found.beneficiary != key:
        raise SignerError(f"policy: what the account pays for gas goes to {found.beneficiary}, not to the key that sends it")
    places = (found.signature_at,) if op.signature == bytes(PART) else ()
    return Wrapped(calls_of(account, op), places, op, op.gas, op.gas_fee_max)


def calls_of(account: UserOps, op: erc4337.UserOperation) -> tuple[Call, ...]:
    """What an operation makes the account do. SignerError for one that is not its own, or that somebody else has a hand in."""
    if op.sender != account.address:
        raise SignerError(f"policy: the operation is of {op.sender}, not of {account.address}")
    if op.paymaster:
        raise SignerError("policy: an operation that a paymaster pays for is refused")
    if op.init_code not in (b"", account.init_code):
        raise SignerError("policy: the operation would create the account in another way than the one that is allowed")
    return erc4337.read_execute(op.data, account.version)
