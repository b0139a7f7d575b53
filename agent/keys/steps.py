"""What a request needs signed, in order: the one place where policy is asked and bytes are laid out, whoever holds the key.

A key never sees a request, and a request never sees a key: `steps` yields what is to be signed and is sent each signature. So a key
in a locked page, in a process of its own or in a service far away signs the same bytes after the same checks.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Literal

import msgspec

from agent.domain.errors import SignatureUnknownError, SignerError
from agent.domain.plan import Call, Calls, Signed, SignedTransaction, SignedTyped, TypedData, Unsigned, VenueRequest
from agent.keys.accounts.erc4337 import PRIMARY, bringer_of, preimage_of, user_op_of
from agent.keys.bounds import Act, KeyPolicy
from agent.keys.digest import (
    Transaction,
    address_bytes,
    keccak,
    transaction_fields,
    transaction_preimage,
    transaction_raw,
)
from agent.keys.policy import Meaning, act_of, check_calls, check_safe_tx, check_typed, check_user_op
from agent.keys.raw import read_transaction
from agent.keys.rules import charged
from agent.keys.spent import Reserved, Spent
from agent.keys.wrapped import signed_for

SIGNATURE_BYTES = 65


class Preimage(msgspec.Struct, frozen=True):
    """What is signed: the keccak of `data`, which is typed data (0x19 0x01, domain, struct) or a transaction (0x02, RLP). Of an
    ERC-4337 operation of 0.7 it is the prefix of eth_sign and the operation's hash, and `source` shows it all the same.

    `source` is what it was made of, for keys that want to read it themselves. `meaning`: what a transaction was found to do.
    """

    kind: Literal["typed", "transaction"]
    data: bytes
    source: TypedData | Transaction
    meaning: Meaning | None = None

    @property
    def digest(self) -> bytes:
        return keccak(self.data)


Steps = Generator[Preimage, bytes, Signed]


def steps(
    unsigned: Unsigned,
    policies: Mapping[int, KeyPolicy],
    address: str,
    key_id: str,
    deadline_s_max: int | None = None,
    spent: Spent | None = None,
) -> Steps:
    """Yields each thing to sign, is sent its signature (r, s, v: 65 bytes, s low, v 27 or 28), and returns what is signed.

    Raises SignerError for what the policy of its chain does not allow, before the first thing is yielded. What a key raises is
    thrown in: only a refusal (no SignatureUnknownError) gives back what was set aside in `spent`.
    """
    match unsigned:
        case Calls():
            policy = _policy(policies, unsigned.chain_id, key_id)
            meaning = check_calls(policy, unsigned, deadline_s_max)
            _check_slots(unsigned, meaning, policy, deadline_s_max)
            held = _set_aside(policy, meaning.acts, f"{unsigned.chain_id}:{unsigned.nonce}", spent)
            return (yield from _within(held, _calls(unsigned, address, meaning)))
        case TypedData(primary="SafeTx"):
            policy = _policy(policies, unsigned.domain.get("chainId"), key_id)
            acts = check_safe_tx(policy, unsigned, deadline_s_max)
            held = _set_aside(policy, acts, f"{policy.chain_id}:safe:{unsigned.message.get('nonce')}", spent)
            return (yield from _within(held, _signed_typed(unsigned, address)))
        case TypedData():
            policy = _policy(policies, unsigned.domain.get("chainId"), key_id)
            charged(policy.rules, (act_of(check_typed(policy, unsigned, deadline_s_max), policy),), policy.names)
            return (yield from _signed_typed(unsigned, address))
        case VenueRequest():
            raise SignerError(f"key {key_id} signs on chain; a request to {unsigned.venue} needs that venue's own key")


async def signed_by(work: Steps, sign: Callable[[Preimage], Awaitable[bytes]]) -> Signed:
    """Carry `steps` out with a key that has to be waited for. Raises what `steps` or `sign` raise."""
    try:
        wanted = next(work)
        while True:
            try:
                signature = await sign(wanted)
            except SignerError as error:
                work.throw(error)  # gives back what was set aside, and raises it
            else:
                wanted = work.send(signature)
    except StopIteration as done:
        signed: Signed = done.value
        return signed


def alone(
    preimage: Preimage,
    policies: Mapping[int, KeyPolicy],
    key_id: str,
    deadline_s_max: int | None = None,
    spent: Spent | None = None,
) -> Reserved | None:
    """Decide on one thing to sign by its bytes alone, for who is asked by another process. Raises SignerError.

    Typed data must give the very bytes; a transaction is read from them, and its `source` is not looked at. What was set aside in
    `spent` is returned, to be released if no signature is made.
    """
    typed = preimage.source
    if preimage.kind == "transaction":
        tx = read_transaction(preimage.data)
        call = Call("0x" + tx.to.hex(), tx.data, tx.value)
        calls = Calls("", tx.chain_id, (call,), (), tx.nonce, tx.gas_limit, tx.gas_fee_max, tx.gas_tip)
        policy = _policy(policies, tx.chain_id, key_id)
        return _set_aside(policy, check_calls(policy, calls, deadline_s_max).acts, f"{tx.chain_id}:{tx.nonce}", spent)
    if not isinstance(typed, TypedData):
        raise SignerError("typed data that is not shown; nothing is signed without being read")
    # The policy first: it knows the few types that there are, and laying out unknown ones may take for ever.
    policy = _policy(policies, typed.domain.get("chainId"), key_id)
    acts = _acts(policy, typed, deadline_s_max)
    if preimage_of(typed) != preimage.data:
        raise SignerError("the bytes to sign are not of the typed data beside them; nothing is signed without being read")
    if typed.primary == "SafeTx":
        return _set_aside(policy, acts, f"{policy.chain_id}:safe:{typed.message.get('nonce')}", spent)
    if typed.primary == PRIMARY:
        return _set_aside(policy, acts, _operation(policy, user_op_of(typed.message).nonce), spent)
    charged(policy.rules, acts, policy.names)
    return None


def _acts(policy: KeyPolicy, typed: TypedData, deadline_s_max: int | None) -> tuple[Act, ...]:
    match typed.primary:
        case "SafeTx":
            return check_safe_tx(policy, typed, deadline_s_max)
        case "PackedUserOperation":
            return check_user_op(policy, typed, deadline_s_max)
        case _:
            return (act_of(check_typed(policy, typed, deadline_s_max), policy),)


def _operation(policy: KeyPolicy, number: int) -> str:
    """An operation and the transaction that brings it take their room in a window once."""
    nonce = bringer_of(policy.owner, number)
    return f"{policy.chain_id}:op:{number}" if nonce is None else f"{policy.chain_id}:{nonce}"


def _policy(policies: Mapping[int, KeyPolicy], chain_id: object, key_id: str) -> KeyPolicy:
    policy = policies.get(chain_id) if isinstance(chain_id, int) else None
    if policy is None:
        raise SignerError(f"key {key_id} has no policy for chain {str(chain_id)[:24]}; it signs nothing there")
    return policy


def _typed(typed: TypedData) -> Preimage:
    return Preimage("typed", preimage_of(typed), typed)


def _signed_typed(typed: TypedData, address: str) -> Steps:
    return SignedTyped(typed.order_id, (yield _typed(typed)), address)


def _set_aside(policy: KeyPolicy, acts: Sequence[Act], request: str, spent: Spent | None) -> Reserved | None:
    charges = charged(policy.rules, acts, policy.names) if policy.rules else ()
    if not charges:
        return None
    if spent is None:
        raise SignerError(f"policy: rule {charges[0].rule.name!r} has a window, and this key keeps no count of what it signed")
    return spent.reserve(request, charges)


def _within(held: Reserved | None, work: Steps) -> Steps:
    try:
        return (yield from work)
    except SignatureUnknownError:
        raise
    except SignerError:
        if held is not None:
            held.release()
        raise


def _calls(unsigned: Calls, address: str, meaning: Meaning) -> Steps:
    call = unsigned.calls[0]
    data = bytearray(call.data)
    for slot in unsigned.slots:
        data[slot.offset : slot.offset + SIGNATURE_BYTES] = yield _typed(slot.typed)
    tx = Transaction(
        chain_id=unsigned.chain_id,
        nonce=unsigned.nonce,
        gas_tip=unsigned.gas_tip,
        gas_fee_max=unsigned.gas_fee_max,
        gas_limit=unsigned.gas_limit,
        to=address_bytes(call.to),
        value=call.value,
        data=bytes(data),
    )
    fields = transaction_fields(tx)
    signature = yield Preimage("transaction", transaction_preimage(fields), tx, meaning)
    raw = transaction_raw(fields, signature)
    return SignedTransaction(unsigned.order_id, unsigned.chain_id, address, unsigned.nonce, "0x" + keccak(raw).hex(), raw)


def _check_slots(unsigned: Calls, meaning: Meaning, policy: KeyPolicy, deadline_s_max: int | None) -> None:
    """Every slot is the empty signature of a permit in the call, or of what an account is told by it, and is for exactly that.

    Before anything is signed.
    """
    places = {found.signature_at: found.permit for found in meaning.permits}
    wrapped = meaning.wrapped
    data = unsigned.calls[0].data
    if len({slot.offset for slot in unsigned.slots}) != len(unsigned.slots):
        raise SignerError("two signatures for the same place in a call")
    for slot in unsigned.slots:
        if policy.account is not None and wrapped is not None and slot.call == 0 and slot.offset in wrapped.places:
            expected = signed_for(policy.account, policy.chain_id, wrapped, slot.typed)
            if preimage_of(slot.typed) != preimage_of(expected):
                raise SignerError("the typed data to sign is not what the account is told in the call")
            continue
        if slot.call != 0 or slot.offset not in places:
            raise SignerError(f"byte {slot.offset} of call {slot.call} is not the signature of a permit")
        if any(data[slot.offset : slot.offset + SIGNATURE_BYTES]):
            raise SignerError(f"the place for a signature at byte {slot.offset} is not empty")
        is_here = slot.typed.domain.get("chainId") == policy.chain_id
        if not is_here or check_typed(policy, slot.typed, deadline_s_max) != places[slot.offset]:
            raise SignerError("the typed data to sign is not the permit in the call")
