"""What may be told: only plain values, and nothing that looks like a key, a token or a signed transaction."""

import enum
import re
from collections.abc import Mapping
from typing import Any

from agent.domain.amount import Amount
from agent.domain.price import Price

REDACTED = "<redacted>"
TEXT_MAX = 500  # characters of one value
HASH_FIELDS = frozenset({"tx_hash", "block_hash", "config_hash", "record_hash", "pool_id", "trade_id", "instrument", "asset"})
SECRET_FIELDS = frozenset(
    {"secret", "password", "passphrase", "private_key", "api_key", "api_secret", "mnemonic", "signature", "raw", "authorization"}
)

_URL = re.compile(r"\b([a-z][a-z0-9+.-]{1,15})://([^\s/@]*@)?([^\s/?#'\"]+)([^\s'\"]*)", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9+/=_-]{64,}")  # keys, signatures, raw transactions, tokens: nothing that we print is so long
_HASH = re.compile(r"(0x)?[0-9a-fA-F]{64}")


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they may be printed. Values of types that are not plain are replaced by their type's name."""
    return {name: REDACTED if name.lower() in SECRET_FIELDS else _printable(name, value) for name, value in fields.items()}


def _printable(name: str, value: Any) -> Any:
    match value:
        case None | bool() | float():
            return value
        case enum.Enum():
            return _clean(name, str(value.value))
        case int():
            return value if abs(value) < 1 << 53 else _clean(name, str(value))
        case str() if type(value) is str:
            return _clean(name, value)
        case Amount() | Price():
            return _clean(name, str(value))
        case list() | tuple():
            return [_printable(name, one) for one in value]
        case dict():
            return redact({str(key): one for key, one in value.items()})
        case _:
            return f"<{type(value).__name__}>"


def _clean(name: str, text: str) -> str:
    if name in HASH_FIELDS and _HASH.fullmatch(text.rpartition(":")[2]):
        return text
    kept = _URL.sub(_host_only, text)
    return _RUN.sub(REDACTED, kept)[:TEXT_MAX]


def _host_only(match: re.Match[str]) -> str:
    scheme, _, host, path = match.groups()
    return f"{scheme}://{host}" + (f"/{REDACTED}" if path.strip("/") else "")
