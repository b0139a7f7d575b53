"""Public keys and signatures as clouds and modules write them (DER), read strictly: one way to write each, and no other.

Sources: SEC 1 (points), SEC 2 (secp256k1), RFC 5480 (public keys), RFC 3279 (signatures), X.690 (DER).
"""

from agent.domain.errors import SignerError
from agent.keys.digest import checksum, keccak

POINT_BYTES = 65  # 0x04, x, y
CURVE_OID = bytes.fromhex("06052b8104000a")  # 1.3.132.0.10, secp256k1
SPKI_HEAD = bytes.fromhex("3056301006072a8648ce3d0201") + CURVE_OID + bytes.fromhex("034200")  # before the point

_INTEGER, _SEQUENCE = 0x02, 0x30
_WORD_BYTES_MAX = 33  # 32, and a zero in front of what would look negative


def address_of(point: bytes) -> str:
    """The account of an uncompressed point, with checksum. Raises SignerError for anything else."""
    if len(point) != POINT_BYTES or point[0] != 4:
        raise SignerError("this is no uncompressed point of secp256k1; the key must be of that curve")
    return checksum(keccak(point[1:])[12:])


def point_of(spki: bytes) -> bytes:
    """The point of a SubjectPublicKeyInfo on secp256k1. Raises SignerError for another curve, or another way to write it."""
    if not spki.startswith(SPKI_HEAD) or len(spki) != len(SPKI_HEAD) + POINT_BYTES:
        raise SignerError("the public key is not one of secp256k1; make the key anew, of that curve")
    return spki[len(SPKI_HEAD) :]


def read_der(signature: bytes) -> tuple[int, int]:
    """(r, s) of an ECDSA signature in DER. Raises SignerError for whatever is not exactly that."""
    if not 8 <= len(signature) <= 72 or signature[0] != _SEQUENCE or signature[1] != len(signature) - 2:
        raise SignerError("the signature is not in DER; check which key answers")
    r, rest = _integer(signature[2:])
    s, rest = _integer(rest)
    if rest:
        raise SignerError("the signature has bytes after its end; check which key answers")
    return r, s


def read_pair(signature: bytes) -> tuple[int, int]:
    """(r, s) of 32 bytes each, as modules give them."""
    if len(signature) != 64:
        raise SignerError(f"a signature of {len(signature)} bytes, where r and s have 64; check which key answers")
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def _integer(raw: bytes) -> tuple[int, bytes]:
    size = raw[1] if len(raw) > 1 and raw[0] == _INTEGER else 0
    body = raw[2 : 2 + size]
    is_padded = len(body) > 1 and body[0] == 0 and body[1] < 0x80
    if not 1 <= size <= _WORD_BYTES_MAX or len(body) != size or body[0] >= 0x80 or is_padded:
        raise SignerError("the signature is not in DER; check which key answers")
    return int.from_bytes(body, "big"), raw[2 + size :]
