"""What travels to a machine without a network and back: a request file that says everything, and a signature file.

Nothing in a request is believed: what is signed is laid out anew from its fields, must have the digest that stands beside it, and
is judged by the policy of the machine that signs. Sources: EIP-712 (JSON form), EIP-1559.
"""

from typing import Any, Literal

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import TypedData
from agent.keys.accounts.owners import Consent
from agent.keys.accounts.safe import SAFE_TX_TYPES
from agent.keys.asking import Asked
from agent.keys.custody.jsonrpc import document
from agent.keys.digest import Transaction, address_bytes, checksum, keccak, transaction_fields, transaction_preimage, typed_preimage

FILE_BYTES_MAX = 131_072
DIGITS_MAX = 78


class RequestFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`digest`: what is signed, 0x and 64 digits. One of `typed` (the form that wallets take) and `transaction` is there."""

    isthmus: Literal["request"]
    version: Literal[1]
    ticket: str
    account: str
    address: str
    signers: tuple[str, ...]
    meaning: tuple[str, ...]
    chain_id: int
    expires_s: int
    digest: str
    typed: dict[str, Any] | None = None
    transaction: dict[str, str] | None = None


class SignatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`how`: as a Safe's owner may say it; `signature`: 65 bytes, or of a contract its own, as 0x and hex digits."""

    isthmus: Literal["signature"]
    version: Literal[1]
    ticket: str
    digest: str
    signer: str
    signature: str
    how: Literal["ecdsa", "eth_sign", "contract"] = "ecdsa"


def preimage_of(source: TypedData | Transaction) -> bytes:
    """What the keccak is taken of."""
    return typed_preimage(source) if isinstance(source, TypedData) else transaction_preimage(transaction_fields(source))


def digest_of(source: TypedData | Transaction) -> str:
    return "0x" + keccak(preimage_of(source)).hex()


def request_file(asked: Asked) -> bytes:
    """JSON, one object, without anything that the machine which signs would have to believe."""
    source = asked.source
    made = RequestFile(
        "request",
        1,
        asked.ticket,
        asked.account,
        asked.address,
        asked.signers,
        asked.meaning,
        asked.chain_id,
        asked.expires_ns // 10**9,
        digest_of(source),
        document(source) if isinstance(source, TypedData) else None,
        None if isinstance(source, TypedData) else plain_transaction(source),
    )
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def read_request(raw: bytes) -> Asked:
    """Raises SignerError for anything but a request whose fields give its digest."""
    file: RequestFile = _read(raw, RequestFile, "request")
    if (file.typed is None) == (file.transaction is None):
        raise SignerError("a request holds either typed data or a transaction")
    source = _typed(file.typed, file.ticket) if file.typed is not None else read_plain_transaction(file.transaction or {})
    if digest_of(source) != file.digest:
        raise SignerError("the request's digest is not of what stands beside it; it was changed on its way")
    signers = tuple(checksum(address_bytes(one)) for one in file.signers)
    address, ends_ns = checksum(address_bytes(file.address)), file.expires_s * 10**9
    return Asked(file.ticket, file.account, address, signers, file.meaning, ends_ns, file.chain_id, source)


def signature_file(asked: Asked, signer: str, signature: bytes) -> bytes:
    made = SignatureFile("signature", 1, asked.ticket, digest_of(asked.source), signer, "0x" + signature.hex())
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def read_signature_file(raw: bytes) -> SignatureFile:
    """Raises SignerError for anything else. Whom it is of, and for what, the vault finds out."""
    found: SignatureFile = _read(raw, SignatureFile, "signature")
    return found


def word_of(file: SignatureFile, asked: Asked) -> Consent:
    """The word in a file, if it is for exactly what is asked now and of somebody who is asked. Raises SignerError."""
    if file.ticket != asked.ticket or file.digest != digest_of(asked.source):
        raise SignerError(f"the signature is for another request than ticket {asked.ticket} asks now; export it again")
    signer = checksum(address_bytes(file.signer))
    if signer not in asked.signers:
        raise SignerError(f"{signer} is not asked for ticket {asked.ticket}; it waits for {', '.join(asked.signers)}")
    try:
        return Consent(signer, file.how, bytes.fromhex(file.signature.removeprefix("0x")))
    except ValueError:
        raise SignerError("a signature is 0x and hex digits") from None


def plain_transaction(tx: Transaction) -> dict[str, str]:
    """Its fields as text, numbers in decimal."""
    found = {name: str(getattr(tx, name)) for name in tx.__struct_fields__ if name not in ("to", "data")}
    return {**found, "to": checksum(tx.to), "data": "0x" + tx.data.hex()}


def read_plain_transaction(found: dict[str, str]) -> Transaction:
    """And back. Raises SignerError for anything else."""
    names = set(Transaction.__struct_fields__)
    if found.keys() != names:
        raise SignerError(f"the request's transaction needs exactly {', '.join(sorted(names))}")
    numbers = {name: _whole(text, name) for name, text in found.items() if name not in ("to", "data")}
    try:
        return Transaction(to=address_bytes(found["to"]), data=bytes.fromhex(found["data"].removeprefix("0x")), **numbers)
    except ValueError:
        raise SignerError("the data of the request's transaction are not 0x and hex digits") from None


def _read(raw: bytes, kind: type[Any], what: str) -> Any:
    if len(raw) > FILE_BYTES_MAX:
        raise SignerError(f"a {what} file has at most {FILE_BYTES_MAX} bytes, this has {len(raw)}")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SignerError(f"this is no {what} file ({' '.join(str(error).split())[:100]})") from None


def _typed(found: dict[str, Any], order_id: str) -> TypedData:
    """A SafeTx: what else could be asked for is not understood."""
    types, domain, message = (found.get(name) for name in ("types", "domain", "message"))
    if not (isinstance(types, dict) and isinstance(domain, dict) and isinstance(message, dict)):
        raise SignerError("the typed data of the request are not whole")
    if {name: fields for name, fields in types.items() if name != "EIP712Domain"} != SAFE_TX_TYPES:
        raise SignerError("the request's typed data are not a SafeTx; nothing else is understood")
    kinds = {field["name"]: field["type"] for field in SAFE_TX_TYPES["SafeTx"]}
    values = {name: _whole(value, name) if kinds.get(name, "").startswith("uint") else value for name, value in message.items()}
    place = {name: _whole(value, name) if name == "chainId" else str(value) for name, value in domain.items()}
    return TypedData(order_id, place, SAFE_TX_TYPES, "SafeTx", values)


def _whole(text: object, name: str) -> int:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > DIGITS_MAX:
        raise SignerError(f"{name} of the request must be a whole number, as text")
    return int(text)
