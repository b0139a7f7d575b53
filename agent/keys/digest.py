"""What is really signed: the 32-byte digest of typed data (EIP-712), and the bytes of a transaction (EIP-1559).

Types are compiled once and cached, so that an order costs microseconds. Strict where others guess: a value that does not fit its
declared type, a missing or an extra field, is a SignerError; nothing is padded, truncated or converted to make it fit.
Sources: EIP-712, EIP-1559, EIP-2718, Ethereum yellow paper appendix B (RLP).
"""

import re
from collections.abc import Callable
from functools import lru_cache

import msgspec
import sha3

from agent.domain.errors import SignerError
from agent.domain.plan import TypedData
from agent.keys.rlp import rlp_bytes, rlp_int, rlp_list

ITEMS_MAX = 1_000  # elements in one array
DEPTH_MAX = 16  # structs and arrays inside each other
WORD_MAX = 2**256 - 1
UINT64_MAX = 2**64 - 1

_Word = Callable[[object], bytes]
_Fields = tuple[tuple[str, str], ...]
_Types = tuple[tuple[str, _Fields], ...]

_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*", re.ASCII)
_ARRAY = re.compile(r"(.+)\[(\d{0,4})\]", re.ASCII)
_INTEGER = re.compile(r"(u?)int(\d{1,3})", re.ASCII)
_FIXED = re.compile(r"bytes(\d{1,2})", re.ASCII)
_DIGITS = re.compile(r"-?[0-9]{1,78}", re.ASCII)
_DOMAIN = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address", "salt": "bytes32"}


def keccak(data: bytes) -> bytes:
    return bytes(sha3.keccak_256(data).digest())


@lru_cache(maxsize=4096)
def address_bytes(text: str) -> bytes:
    """`0x` and 40 hex digits -> 20 bytes. In mixed case the EIP-55 checksum must be right. Raises SignerError."""
    if len(text) != 42 or text[:2] != "0x" or not text.isascii() or not text[2:].isalnum():
        raise SignerError(f"{text[:48]!r} is not an address (0x and 40 hex digits)")
    try:
        raw = bytes.fromhex(text[2:])
    except ValueError:
        raise SignerError(f"{text[:48]!r} is not an address (0x and 40 hex digits)") from None
    if text[2:] not in (text[2:].lower(), text[2:].upper()) and text != checksum(raw):
        raise SignerError(f"address {text} has a wrong checksum; copy it again from its source")
    return raw


def checksum(address: bytes) -> str:
    """20 bytes -> the mixed-case text of EIP-55."""
    digits = address.hex()
    marks = keccak(digits.encode()).hex()
    return "0x" + "".join(d.upper() if m > "7" else d for d, m in zip(digits, marks, strict=False))


# -- EIP-712 -----------------------------------------------------------------------------------------------------------


def typed_digest(typed: TypedData) -> bytes:
    """keccak of `typed_preimage`."""
    return keccak(typed_preimage(typed))


def typed_preimage(typed: TypedData) -> bytes:
    """0x19 0x01 || domain separator || hashStruct(message). Raises SignerError for whatever does not fit its type."""
    return b"\x19\x01" + domain_separator(typed.domain) + struct_hash(typed)


def domain_separator(domain: dict[str, str | int]) -> bytes:
    """hashStruct(EIP712Domain) over the fields that are present, in the order of the standard."""
    try:
        return _domain_hash(tuple(domain.items()))
    except TypeError:
        raise SignerError("typed data: a domain holds text and whole numbers only") from None


def struct_hash(typed: TypedData) -> bytes:
    """hashStruct(message): keccak(typeHash || encodeData)."""
    try:
        encode = _encoder(_frozen(typed.types), typed.primary)
    except TypeError:  # not hashable: a name or a type that is no text
        raise SignerError("typed data: names and types must be text") from None
    return encode(typed.message)


@lru_cache(maxsize=256)
def _domain_hash(items: tuple[tuple[str, str | int], ...]) -> bytes:
    domain = dict(items)
    unknown = sorted(domain.keys() - _DOMAIN.keys())
    if unknown or not domain:
        raise SignerError(f"typed data: the domain field {unknown[0][:48]!r} is unknown" if unknown else "typed data: no domain")
    fields = tuple((name, kind) for name, kind in _DOMAIN.items() if name in domain)
    return _struct("EIP712Domain", {"EIP712Domain": fields}, ())(domain)


def _frozen(types: dict[str, list[dict[str, str]]]) -> _Types:
    """The types as a key for the cache: by content, so that a dict that is changed later cannot borrow an old encoder."""
    try:
        return tuple((name, tuple((field["name"], field["type"]) for field in fields)) for name, fields in types.items())
    except (KeyError, TypeError, AttributeError):
        raise SignerError("typed data: types must map each name to a list of {name, type}") from None


@lru_cache(maxsize=256)
def _encoder(types: _Types, primary: str) -> _Word:
    declared = dict(types)
    if primary not in declared or "EIP712Domain" in declared:
        raise SignerError(f"typed data: types must define {primary!r} and leave EIP712Domain out")
    for name, fields in types:
        names = [field for field, _ in fields]
        if not all(_NAME.fullmatch(n) for n in (name, *names)) or len(set(names)) != len(names):
            raise SignerError(f"typed data: type {name[:48]!r} has a bad or a repeated field name")
    return _struct(primary, declared, ())


def _struct(name: str, types: dict[str, _Fields], path: tuple[str, ...]) -> _Word:
    if name in path or len(path) >= DEPTH_MAX:
        raise SignerError(f"typed data: type {name!r} contains itself or is nested deeper than {DEPTH_MAX}")
    fields = types[name]
    type_hash = keccak(_encode_type(name, types).encode())
    words = tuple((field, _word(kind, f"{name}.{field}", types, (*path, name))) for field, kind in fields)
    expected = {field for field, _ in fields}

    def encode(value: object) -> bytes:
        if not isinstance(value, dict) or value.keys() != expected:
            raise SignerError(f"typed data: {name} needs exactly the fields {', '.join(sorted(expected)) or '(none)'}")
        return keccak(type_hash + b"".join([word(value[field]) for field, word in words]))

    return encode


def _encode_type(name: str, types: dict[str, _Fields]) -> str:
    """encodeType of EIP-712: the struct itself, then the structs it uses, sorted by name."""
    used: set[str] = set()
    waiting = [name]
    while waiting:
        for _, kind in types[waiting.pop()]:
            inner = kind.partition("[")[0]
            if inner in types and inner not in used and inner != name:
                used.add(inner)
                waiting.append(inner)
    return "".join(f"{n}({','.join(f'{kind} {field}' for field, kind in types[n])})" for n in (name, *sorted(used)))


def _word(kind: str, label: str, types: dict[str, _Fields], path: tuple[str, ...]) -> _Word:
    """How one value of type `kind` becomes its 32 bytes."""
    if len(path) >= DEPTH_MAX:
        raise SignerError(f"typed data: {label} is nested deeper than {DEPTH_MAX}")
    if array := _ARRAY.fullmatch(kind):
        inner = _word(array[1], label, types, (*path, "[]"))
        return _array(inner, int(array[2]) if array[2] else None, label)
    if kind in types:
        return _struct(kind, types, path)
    if integer := _INTEGER.fullmatch(kind):
        bits = int(integer[2])
        if bits in range(8, 257, 8) and integer[2] == str(bits):
            return _unsigned(bits, kind, label) if integer[1] else _signed(bits, kind, label)
    if (fixed := _FIXED.fullmatch(kind)) and int(fixed[1]) in range(1, 33) and fixed[1] == str(int(fixed[1])):
        return _fixed_bytes(int(fixed[1]), label)
    plain: dict[str, Callable[[str], _Word]] = {"address": _address, "bool": _bool, "string": _string, "bytes": _bytes}
    if kind not in plain:
        raise SignerError(f"typed data: {label} has the type {kind[:48]!r}, which this signer does not understand")
    return plain[kind](label)


def _array(inner: _Word, size: int | None, label: str) -> _Word:
    def encode(value: object) -> bytes:
        if not isinstance(value, (list, tuple)) or len(value) > ITEMS_MAX or (size is not None and len(value) != size):
            raise SignerError(f"typed data: {label} must be a list of {f'at most {ITEMS_MAX}' if size is None else size} values")
        return keccak(b"".join([inner(item) for item in value]))

    return encode


def _unsigned(bits: int, kind: str, label: str) -> _Word:
    top = 2**bits - 1

    def encode(value: object) -> bytes:
        number = value if type(value) is int else _whole(value, label)
        if not 0 <= number <= top:
            raise SignerError(f"typed data: {label} does not fit {kind}")
        return number.to_bytes(32, "big")

    return encode


def _signed(bits: int, kind: str, label: str) -> _Word:
    bound = 2 ** (bits - 1)

    def encode(value: object) -> bytes:
        number = value if type(value) is int else _whole(value, label)
        if not -bound <= number < bound:
            raise SignerError(f"typed data: {label} does not fit {kind}")
        return number.to_bytes(32, "big", signed=True)

    return encode


def _whole(value: object, label: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise SignerError(f"typed data: {label} must be a whole number (or its digits), not {type(value).__name__}")


def _fixed_bytes(size: int, label: str) -> _Word:
    def encode(value: object) -> bytes:
        raw = _raw(value, label)
        if len(raw) != size:
            raise SignerError(f"typed data: {label} needs {size} bytes, this has {len(raw)}")
        return raw.ljust(32, b"\0")

    return encode


def _bytes(label: str) -> _Word:
    return lambda value: keccak(_raw(value, label))


def _raw(value: object, label: str) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str) and value[:2] == "0x" and value.isascii() and (value[2:].isalnum() or value == "0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise SignerError(f"typed data: {label} must be bytes, or 0x and hex digits")


def _address(label: str) -> _Word:
    def encode(value: object) -> bytes:
        if isinstance(value, str):
            return bytes(12) + address_bytes(value)
        if isinstance(value, bytes) and len(value) == 20:
            return bytes(12) + value
        raise SignerError(f"typed data: {label} must be an address")

    return encode


def _bool(label: str) -> _Word:
    def encode(value: object) -> bytes:
        if not isinstance(value, bool):
            raise SignerError(f"typed data: {label} must be true or false")
        return int(value).to_bytes(32, "big")

    return encode


def _string(label: str) -> _Word:
    def encode(value: object) -> bytes:
        if not isinstance(value, str):
            raise SignerError(f"typed data: {label} must be text")
        try:
            return keccak(value.encode())
        except UnicodeEncodeError:
            raise SignerError(f"typed data: {label} is not valid text") from None

    return encode


# -- EIP-1559 ----------------------------------------------------------------------------------------------------------


class Transaction(msgspec.Struct, frozen=True):
    """A type-2 transaction with an empty access list. `gas_fee_max` and `gas_tip` are wei per gas, `value` wei, `to` 20 bytes."""

    chain_id: int
    nonce: int
    gas_tip: int
    gas_fee_max: int
    gas_limit: int
    to: bytes
    value: int
    data: bytes


def transaction_fields(tx: Transaction) -> bytes:
    """The RLP items that are signed, joined. Raises SignerError if a number is out of its width, or `to` is not an address."""
    _within(tx.chain_id, 1, UINT64_MAX, "chain id")
    _within(tx.nonce, 0, UINT64_MAX - 1, "nonce")  # EIP-2681
    _within(tx.gas_limit, 1, UINT64_MAX, "gas limit")
    _within(tx.gas_fee_max, 0, WORD_MAX, "gas fee")
    _within(tx.gas_tip, 0, tx.gas_fee_max, "gas tip")
    _within(tx.value, 0, WORD_MAX, "value")
    if len(tx.to) != 20:
        raise SignerError("transaction: `to` must be an address; this signer creates no contracts")
    head = b"".join([rlp_int(n) for n in (tx.chain_id, tx.nonce, tx.gas_tip, tx.gas_fee_max, tx.gas_limit)])
    return head + b"\x94" + tx.to + rlp_int(tx.value) + rlp_bytes(tx.data) + b"\xc0"


def transaction_digest(fields: bytes) -> bytes:
    """What the sender signs: keccak of `transaction_preimage`."""
    return keccak(transaction_preimage(fields))


def transaction_preimage(fields: bytes) -> bytes:
    """0x02 || rlp(fields)."""
    return b"\x02" + rlp_list((fields,))


def transaction_raw(fields: bytes, signature: bytes) -> bytes:
    """The bytes for a node: 0x02 || rlp(fields, parity, r, s). `signature` is r, s and v (27 or 28): 65 bytes."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    return b"\x02" + rlp_list((fields, rlp_int(signature[64] - 27), rlp_int(r), rlp_int(s)))


def _within(value: object, low: int, high: int, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SignerError(f"transaction: the {what} must be a whole number from {low} to {high}")
