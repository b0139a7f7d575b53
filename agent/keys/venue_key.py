"""An exchange's API key. The secret stays here: the exchange library is handed `hmac_sha256_hex` and nothing else.

An order is authorised twice: `sign` notes what the engine approved, and the payload that is about to leave must be that order, to
the last digit, once. The same holds for an order that replaces another: it names that one, and is placed only if it went. So
neither a bug nor a changed library can place another order, place one twice, or withdraw. What a payload says is decoded here; a
parameter that is not on the list is refused by name. Limit, said plainly: exchanges do not sign the path, so what takes only
harmless parameters (cancelling all orders of a symbol) cannot be told from a read.
"""

import hmac
import re
from collections import OrderedDict
from typing import Final
from urllib.parse import unquote_plus

from agent.domain.amount import parse_units
from agent.domain.errors import NumberError, SignerError
from agent.domain.plan import SignedRequest, Unsigned, VenueRequest
from agent.keys.secrets import Secret
from agent.ports import Custody

PAYLOAD_BYTES_MAX = 4_096
WAITING_MAX = 1_024  # authorised and not yet sent; beyond it the oldest can no longer be sent
USED_MAX = 65_536  # ids remembered as used
DECIMALS_MAX = 36

# What an authenticated request may carry beside the order itself.
_ENVELOPE: Final = frozenset({"timestamp", "recvWindow", "apiKey"})
_REPLACED: Final = ("cancelReplaceMode", "cancelOrigClientOrderId", "cancelOrderId")
_COMPARED: Final = ("symbol", "side", "type", "timeInForce", "quantity", "price", "newClientOrderId", *_REPLACED)
_ORDER_FIELDS: Final = _ENVELOPE | {*_COMPARED, "newOrderRespType", "selfTradePreventionMode"}
_NEEDED: Final = frozenset({"symbol", "side", "type", "quantity", "price", "newClientOrderId"})
_READ_FIELDS: Final = _ENVELOPE | {
    *("symbol", "symbols", "orderId", "origClientOrderId", "newClientOrderId", "cancelRestrictions"),
    *("fromId", "startTime", "endTime", "limit", "omitZeroBalances", "permissions", "listenKey", "returnRateLimits"),
    *("countdownTime", "algoId", "page", "pageSize"),
}
_NATIVE: Final = ("symbol", "side", "quantity", "duration", "limitPrice", "clientAlgoId")  # the exchange's own TWAP
_WITHDRAWAL: Final = frozenset(
    {"address", "addressTag", "withdrawOrderId", "withdrawKey", "walletType", "network", "coin", "asset", "amount", "toEmail"}
    | {"fromEmail", "email", "fromAccountType", "toAccountType", "fromAsset", "toAsset", "subAccountId", "transactionFeeFlag"}
)
_CANCEL_FIELDS: Final = frozenset({"symbol", "orderId", "origClientOrderId", "newClientOrderId"})
_TYPES: Final = frozenset({"LIMIT", "LIMIT_MAKER"})
_TIMES: Final = frozenset({"GTC", "IOC", "FOK"})
_SYMBOL = re.compile(r"[A-Z0-9._/:-]{1,40}", re.ASCII)
_NATIVE_ID = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)
_CLIENT_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}", re.ASCII)


class VenueKey:
    """One API key of one exchange. Satisfies the port Signer. For one event loop; not for several threads."""

    __slots__ = ("_keyed", "_used", "_waiting", "api_key", "key_id", "venue")

    def __init__(self, key_id: str, venue: str, api_key: str, secret: Secret) -> None:
        """`api_key` is the public half, which the exchange library needs; `secret` is absorbed and not kept as text."""
        self.key_id, self.venue, self.api_key = key_id, venue, api_key
        self._keyed: hmac.HMAC | None = hmac.new(secret.reveal().encode(), digestmod="sha256")
        self._waiting: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._used: OrderedDict[str, None] = OrderedDict()

    @property
    def custody(self) -> Custody:
        return Custody("local", "hot", "microseconds")

    async def sign(self, unsigned: Unsigned) -> SignedRequest:
        """See `sign_now`."""
        return self.sign_now(unsigned)

    def sign_now(self, unsigned: Unsigned) -> SignedRequest:
        """Authorise one order, or pass a cancel. Raises SignerError for everything else; then nothing was authorised."""
        if not isinstance(unsigned, VenueRequest):
            raise SignerError(f"key {self.key_id} speaks to {self.venue} only; calls and typed data need an on-chain key")
        if self._keyed is None:
            raise SignerError(f"key {self.key_id} is closed; open it again")
        if unsigned.venue != self.venue:
            raise SignerError(f"key {self.key_id} is for {self.venue}, the request is for {unsigned.venue}")
        fields = dict(unsigned.fields)
        if len(fields) != len(unsigned.fields):
            raise SignerError(f"order {unsigned.order_id}: a field is given twice")
        if unsigned.action == "place_native":
            _check_native(unsigned.order_id, fields)
            self._authorise(fields["clientAlgoId"], fields)
        elif unsigned.action == "cancel_native":
            _check_native_cancel(unsigned.order_id, fields)
        elif unsigned.action in ("place", "replace"):
            _check_target(unsigned.order_id, fields, is_replacement=unsigned.action == "replace")
            _check_order(unsigned.order_id, fields)
            self._authorise(unsigned.order_id, fields)
        else:
            _check_cancel(unsigned.order_id, fields)
        return SignedRequest(unsigned.order_id, unsigned, self.key_id)

    def hmac_sha256_hex(self, payload: bytes) -> str:
        """Authenticate one payload (`a=1&b=2`, as it is sent). Raises SignerError for an order that was not authorised,
        for whatever looks like a withdrawal, and for parameters that are not known."""
        if self._keyed is None:
            raise SignerError(f"key {self.key_id} is closed; open it again")
        fields = _parsed(payload)
        taken = sorted(fields.keys() & _WITHDRAWAL)
        if taken:
            raise SignerError(f"a payload with {taken[0]!r} looks like a withdrawal or transfer; this key never signs one")
        if fields.keys() & {"side", "quantity", "price", "type", "timeInForce", *_NATIVE[3:]}:
            self._spend(fields)
        else:
            _only(fields, _READ_FIELDS, "a request")
        keyed = self._keyed.copy()
        keyed.update(payload)
        return keyed.hexdigest()

    def close(self) -> None:
        """Forget the secret. Every later request is refused."""
        self._keyed = None
        self._waiting.clear()

    def __repr__(self) -> str:
        return f"VenueKey({self.key_id!r}, {self.venue!r}, secret=****)"

    def __reduce__(self) -> str:
        raise SignerError("a venue key cannot be pickled or copied")

    def _authorise(self, order_id: str, fields: dict[str, str]) -> None:
        if order_id in self._waiting or order_id in self._used:
            raise SignerError(f"order {order_id} was authorised before; an id is used once")
        self._waiting[order_id] = fields
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popitem(last=False)

    def _spend(self, fields: dict[str, str]) -> None:
        """The payload must be an order that waits, exactly. It is taken from the list: the same id cannot leave again."""
        is_native = "clientAlgoId" in fields
        _only(fields, _ENVELOPE | {*_NATIVE} if is_native else _ORDER_FIELDS, "an order")
        order_id = fields.get("clientAlgoId" if is_native else "newClientOrderId", "")
        authorised = self._waiting.get(order_id)
        if authorised is None:
            known = "was sent before" if order_id in self._used else "was never authorised"
            raise SignerError(f"an order payload with id {order_id[:36]!r} {known}; it is not signed")
        for name in _NATIVE if is_native else _COMPARED:
            if not _same(name, authorised.get(name), fields.get(name)):
                raise SignerError(f"order {order_id}: {name} differs from what was authorised; it is not signed")
        for name in ("newOrderRespType", "selfTradePreventionMode"):
            if name in authorised and authorised[name] != fields.get(name):
                raise SignerError(f"order {order_id}: {name} differs from what was authorised; it is not signed")
        del self._waiting[order_id]
        self._used[order_id] = None
        while len(self._used) > USED_MAX:
            self._used.popitem(last=False)


def _parsed(payload: bytes) -> dict[str, str]:
    """The one reading of a payload. Anything that two readers could understand differently is refused."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise SignerError(f"a payload of {len(payload)} bytes is more than {PAYLOAD_BYTES_MAX}; it is not signed")
    try:
        text = payload.decode("ascii")
        parts = [part.partition("=") for part in text.split("&")] if text else []
        if "%" in text or "+" in text:
            parts = [
                (unquote_plus(name, errors="strict"), mark, unquote_plus(value, errors="strict")) for name, mark, value in parts
            ]
    except ValueError:
        raise SignerError("this payload is not plain text; this key does not understand it") from None
    fields = {name: value for name, _, value in parts}
    if not all(name and mark for name, mark, _ in parts) or not all(map(str.isprintable, fields.values())):
        raise SignerError("this payload is not of the form a=1&b=2; this key does not understand it")
    if len(fields) != len(parts):
        raise SignerError("a payload gives a parameter twice; it is not signed")
    return fields


def _check_order(order_id: str, fields: dict[str, str]) -> None:
    _only(fields, _ORDER_FIELDS - _ENVELOPE, "an order")
    missing = sorted(_NEEDED - fields.keys())
    if missing:
        raise SignerError(f"order {order_id}: {missing[0]} is missing")
    if fields["newClientOrderId"] != order_id or not _CLIENT_ID.fullmatch(order_id):
        raise SignerError(f"order {order_id[:48]}: newClientOrderId must be the order's own id, of 1 to 36 plain characters")
    if not _SYMBOL.fullmatch(fields["symbol"]) or fields["side"] not in ("BUY", "SELL"):
        raise SignerError(f"order {order_id}: symbol or side is not understood")
    if fields["type"] not in _TYPES:
        raise SignerError(f"order {order_id}: only orders with a limit are signed, not {fields['type'][:24]!r}")
    timed = fields.get("timeInForce")
    if timed not in _TIMES if fields["type"] == "LIMIT" else timed is not None:
        raise SignerError(f"order {order_id}: timeInForce does not fit {fields['type']}")
    for name in ("quantity", "price"):
        if _number(fields[name]) <= 0:
            raise SignerError(f"order {order_id}: {name} must be a positive number")


def _check_target(order_id: str, fields: dict[str, str], *, is_replacement: bool) -> None:
    """A replacement names the one order that goes, and is not placed unless it went; any other order names none."""
    named = [fields[name] for name in _REPLACED[1:] if name in fields]
    if not is_replacement:
        if fields.keys() & set(_REPLACED):
            raise SignerError(f"order {order_id}: only a replacement names another order")
    elif fields.get("cancelReplaceMode") != "STOP_ON_FAILURE" or len(named) != 1 or not _CLIENT_ID.fullmatch(named[0]):
        raise SignerError(f"order {order_id}: a replacement needs STOP_ON_FAILURE and the one order that it replaces")


def _check_cancel(order_id: str, fields: dict[str, str]) -> None:
    _only(fields, _CANCEL_FIELDS, "a cancel")
    if not _SYMBOL.fullmatch(fields.get("symbol", "")) or not fields.keys() & {"orderId", "origClientOrderId"}:
        raise SignerError(f"cancel {order_id}: it needs a symbol, and orderId or origClientOrderId")


def _check_native(order_id: str, fields: dict[str, str]) -> None:
    """All that the exchange's own TWAP is asked, limit and id included: both are optional there, and not here."""
    _only(fields, frozenset(_NATIVE), "a TWAP")
    if missing := sorted({*_NATIVE} - fields.keys()):
        raise SignerError(f"order {order_id}: {missing[0]} is missing")
    if fields["clientAlgoId"].rstrip("_") != order_id.rstrip("_") or not _NATIVE_ID.fullmatch(fields["clientAlgoId"]):
        raise SignerError(f"order {order_id[:48]}: clientAlgoId must be the order's own id, filled up with _ to 32 characters")
    if not _SYMBOL.fullmatch(fields["symbol"]) or fields["side"] not in ("BUY", "SELL"):
        raise SignerError(f"order {order_id}: symbol or side is not understood")
    for name in ("quantity", "limitPrice", "duration"):
        if _number(fields[name]) <= 0:
            raise SignerError(f"order {order_id}: {name} must be a positive number")


def _check_native_cancel(order_id: str, fields: dict[str, str]) -> None:
    _only(fields, frozenset({"symbol", "clientAlgoId"}), "a cancel")
    if not _SYMBOL.fullmatch(fields.get("symbol", "")) or not _NATIVE_ID.fullmatch(fields.get("clientAlgoId", "")):
        raise SignerError(f"cancel {order_id}: it needs a symbol and the clientAlgoId of what it takes back")


def _only(fields: dict[str, str], allowed: frozenset[str], what: str) -> None:
    unknown = sorted(fields.keys() - allowed)
    if unknown:
        raise SignerError(f"this key does not understand {unknown[0][:48]!r} in {what}; it is not signed")


def _same(name: str, authorised: str | None, sent: str | None) -> bool:
    if authorised == sent:
        return True
    if name in ("quantity", "price") and authorised is not None and sent is not None:
        return _number(authorised) == _number(sent)
    return False


def _number(text: str) -> int:
    """Strict and exact: `1.50` and `1.5` are the same, an exponent or a sign is no number."""
    try:
        return parse_units(text, DECIMALS_MAX, "order")
    except NumberError:
        raise SignerError(f"{text[:24]!r} is not a plain decimal number; it is not signed") from None
