"""That the key's own address runs an account's code from now on, or no more (EIP-7702): the one authorization that is signed here.

It is as strong as the key itself, so it names nothing but the delegate of the policy, or nobody, on one chain and with one number;
the transaction that brings it goes from the key to itself and does nothing else.
"""

from collections.abc import Callable

from agent.domain.errors import SignerError
from agent.domain.plan import SignedTransaction
from agent.keys.accounts.eip7702 import (
    Authorization,
    SignedAuthorization,
    authorization_preimage,
    set_code_preimage,
    set_code_raw,
)
from agent.keys.accounts.kinds import Delegated
from agent.keys.bounds import NO_HOOKS, KeyPolicy
from agent.keys.digest import Transaction, address_bytes, checksum, keccak

NOBODY = NO_HOOKS  # whose code is none
GAS_LIMIT = 100_000  # 21,000 of the transaction and 25,000 of an authorization, and room


def delegation(
    policy: KeyPolicy, nonce: int, gas_fee_max: int, gas_tip: int, sign: Callable[[bytes], bytes], *, is_undone: bool = False
) -> SignedTransaction:
    """`sign` makes r, s, v (27 or 28) of a digest. SignerError where the policy is of no such account, or gas too dear."""
    if not isinstance(policy.account, Delegated):
        raise SignerError('policy: this key\'s address runs no code here; its venue needs account = "eip7702"')
    if not 0 <= gas_fee_max <= policy.gas_fee_max:
        raise SignerError(f"policy: gas fee {gas_fee_max} wei is above {policy.gas_fee_max}; raise gas_fee_max or wait")
    owner = address_bytes(policy.owner)
    tx = Transaction(policy.chain_id, nonce, gas_tip, gas_fee_max, GAS_LIMIT, owner, 0, b"")
    named = Authorization(policy.chain_id, NOBODY if is_undone else policy.account.delegate, nonce + 1)
    both = [SignedAuthorization(named, sign(keccak(authorization_preimage(named))))]
    raw = set_code_raw(tx, both, sign(keccak(set_code_preimage(tx, both))))
    return SignedTransaction("", policy.chain_id, checksum(owner), nonce, "0x" + keccak(raw).hex(), raw)
