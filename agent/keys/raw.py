"""The bytes of a transaction read back, strictly: what was checked is then what is signed, and what came back is what was asked.

Nothing is believed about a transaction but its bytes. What was read is laid out again and must give the same bytes, so there is one
way only to write each. Sources: EIP-1559, Ethereum yellow paper appendix B (RLP).
"""

from agent.domain.errors import SignerError
from agent.keys.digest import Transaction, transaction_fields, transaction_preimage, transaction_raw

BYTES_MAX = 32_768  # the most call data that a policy passes, and the rest of a transaction

_FIELDS = 9  # EIP-1559: chain, nonce, tip, fee, gas, to, value, data, access list


def read_transaction(preimage: bytes) -> Transaction:
    """0x02 || rlp(fields) -> the transaction. Raises SignerError for anything but the one way to write a type-2 transaction that
    calls something and has an empty access list.
    """
    if len(preimage) > BYTES_MAX or preimage[:1] != b"\x02":
        raise SignerError("these bytes are no transaction that this signer understands (EIP-1559, at most 32 kB)")
    fields = _items(_body(preimage[1:]))
    if len(fields) != _FIELDS:
        raise SignerError(f"a transaction to sign has {_FIELDS} fields, this has {len(fields)}")
    chain_id, nonce, gas_tip, gas_fee_max, gas_limit = (int.from_bytes(field, "big") for field in fields[:5])
    tx = Transaction(chain_id, nonce, gas_tip, gas_fee_max, gas_limit, fields[5], int.from_bytes(fields[6], "big"), fields[7])
    if transaction_preimage(transaction_fields(tx)) != preimage:
        raise SignerError("a transaction that is not written in the one way that there is; nothing was signed")
    return tx


def read_signature(raw: bytes, tx: Transaction) -> tuple[int, int]:
    """(r, s) of a signed transaction that must be `tx`, to the last byte. Raises SignerError if it is another one."""
    fields = transaction_fields(tx)
    if len(raw) > BYTES_MAX or raw[:1] != b"\x02":
        raise SignerError("the far end signed something else than a transaction of EIP-1559")
    found = _items(_body(raw[1:]))
    if len(found) != _FIELDS + 3 or len(found[-1]) > 32 or len(found[-2]) > 32 or found[-3] not in (b"", b"\x01"):
        raise SignerError("the far end's transaction does not end in a signature")
    r, s = (int.from_bytes(word, "big") for word in found[-2:])
    v = 27 + int.from_bytes(found[-3], "big")
    if transaction_raw(fields, r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((v,))) != raw:
        raise SignerError("the far end signed another transaction than it was asked for; stop and check what answers")
    return r, s


def _body(raw: bytes) -> bytes:
    """What a list holds, if it is all of `raw`."""
    if raw[:1] < b"\xc0":
        raise SignerError("a transaction that is no list of fields")
    start, size = _span(raw, 0xC0)
    if start + size != len(raw):
        raise SignerError("a transaction with bytes missing, or too many")
    return raw[start:]


def _items(body: bytes) -> list[bytes]:
    """Byte strings, and empty lists as the empty string. No list inside a list."""
    found: list[bytes] = []
    while body:
        if len(found) > _FIELDS + 3 or body[0] > 0xC0:
            raise SignerError("a transaction with more in it than this signer understands")
        start, size = (0, 1) if body[0] < 0x80 else (1, 0) if body[0] == 0xC0 else _span(body, 0x80)
        if start + size > len(body):
            raise SignerError("a transaction with bytes missing")
        found.append(body[start : start + size])
        body = body[start + size :]
    return found


def _span(raw: bytes, kind: int) -> tuple[int, int]:
    """Where the content begins, and its size. The size of a size is at most 8 bytes by RLP itself."""
    size = raw[0] - kind
    if size < 56:
        return 1, size
    return 1 + size - 55, int.from_bytes(raw[1 : 1 + size - 55], "big")
