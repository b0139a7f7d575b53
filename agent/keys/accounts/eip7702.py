"""EIP-7702: an EOA lends its account the code of a contract, so that one transaction carries out several calls.

The authorization is as strong as the key itself: whose code it names may move everything. Bytes only; source: EIP-7702, EIP-2718.
"""

from collections.abc import Sequence

import msgspec

from agent.domain.errors import SignerError
from agent.keys.digest import UINT64_MAX, Transaction, address_bytes, transaction_fields
from agent.keys.rlp import rlp_int, rlp_list

AUTHORIZATIONS_MAX = 16
SIGNATURE_BYTES = 65
DELEGATED = b"\xef\x01\x00"  # an account's code is this and the delegate's address
_MAGIC, _TYPE = b"\x05", b"\x04"


class Authorization(msgspec.Struct, frozen=True):
    """`nonce` is the signer's own when the authorization is applied: one more than the transaction's where the signer sends it."""

    chain_id: int
    delegate: str
    nonce: int


class SignedAuthorization(msgspec.Struct, frozen=True):
    """`signature` is r, s and v (27 or 28) over the keccak of the preimage: 65 bytes."""

    authorization: Authorization
    signature: bytes


def authorization_preimage(authorization: Authorization) -> bytes:
    """0x05 || rlp([chain id, delegate, nonce]). Raises SignerError for chain 0, which would hold on every chain."""
    return _MAGIC + rlp_list(_items(authorization))


def set_code_preimage(tx: Transaction, authorizations: Sequence[SignedAuthorization]) -> bytes:
    """What the sender of the type-4 transaction signs: 0x04 || rlp(fields, authorizations)."""
    return _TYPE + rlp_list((_fields(tx, authorizations),))


def set_code_raw(tx: Transaction, authorizations: Sequence[SignedAuthorization], signature: bytes) -> bytes:
    """The bytes for a node. `signature`: the sender's r, s and v (27 or 28), 65 bytes."""
    return _TYPE + rlp_list((_fields(tx, authorizations), *_parity_r_s(signature)))


def _fields(tx: Transaction, authorizations: Sequence[SignedAuthorization]) -> bytes:
    """As those of an EIP-1559 transaction, with the list of authorizations behind."""
    if not 0 < len(authorizations) <= AUTHORIZATIONS_MAX:
        raise SignerError(f"a transaction sets code with 1 to {AUTHORIZATIONS_MAX} authorizations")
    lists = [rlp_list((*_items(one.authorization), *_parity_r_s(one.signature))) for one in authorizations]
    return transaction_fields(tx) + rlp_list(lists)


def _items(authorization: Authorization) -> tuple[bytes, ...]:
    if not 0 < authorization.chain_id <= UINT64_MAX or not 0 <= authorization.nonce < UINT64_MAX:
        raise SignerError("an authorization names one chain and a nonce of 64 bits; chain 0 would hold everywhere")
    return rlp_int(authorization.chain_id), b"\x94" + address_bytes(authorization.delegate), rlp_int(authorization.nonce)


def _parity_r_s(signature: bytes) -> tuple[bytes, ...]:
    if len(signature) != SIGNATURE_BYTES or signature[-1] not in (27, 28):
        raise SignerError("a signature has 65 bytes and v 27 or 28")
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    return rlp_int(signature[-1] - 27), rlp_int(r), rlp_int(s)
