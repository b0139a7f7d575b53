"""The exchange key: a payload leaves only as the order that was authorised, once; withdrawals never; reads and cancels freely."""

import copy
import hashlib
import hmac
import pickle
import traceback
from decimal import Decimal
from urllib.parse import urlencode

import onchain_samples as o
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.domain.errors import SignerError
from agent.domain.plan import VenueRequest
from agent.keys.secrets import Secret
from agent.keys.venue_key import USED_MAX, WAITING_MAX, VenueKey

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"  # the example of the exchange's documentation
API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
ORDER = {
    "symbol": "ETHUSDT",
    "side": "SELL",
    "type": "LIMIT",
    "timeInForce": "IOC",
    "quantity": "1.5",
    "price": "2500.10",
    "newClientOrderId": "o-1",
}
SENT = {**ORDER, "newOrderRespType": "FULL", "timestamp": "1700000000000", "recvWindow": "5000"}


def key() -> VenueKey:
    return VenueKey("main", "binance", API_KEY, Secret(SECRET))


def place(order_id: str = "o-1", **changes: str | None) -> VenueRequest:
    fields = {**ORDER, "newClientOrderId": order_id, **changes}
    return VenueRequest(order_id, "binance", "place", tuple((k, v) for k, v in fields.items() if v is not None))


def payload(**changes: str | None) -> bytes:
    return urlencode({k: v for k, v in {**SENT, **changes}.items() if v is not None}).encode()


async def authorised(**changes: str | None) -> VenueKey:
    made = key()
    await made.sign(place(**changes))
    return made


def test_the_hmac_is_the_one_of_the_documentation() -> None:
    read = b"symbol=LTCBTC&orderId=7&recvWindow=5000&timestamp=1499827319559"
    assert key().hmac_sha256_hex(read) == hmac.new(SECRET.encode(), read, hashlib.sha256).hexdigest()


async def test_an_authorised_order_leaves_once() -> None:
    made = await authorised()
    assert made.hmac_sha256_hex(payload()) == hmac.new(SECRET.encode(), payload(), hashlib.sha256).hexdigest()
    with pytest.raises(SignerError, match="was sent before"):
        made.hmac_sha256_hex(payload())
    with pytest.raises(SignerError, match="authorised before; an id is used once"):
        await made.sign(place())


async def test_an_id_is_authorised_once() -> None:
    made = await authorised()
    with pytest.raises(SignerError, match="authorised before"):
        await made.sign(place(quantity="9"))
    made.hmac_sha256_hex(payload())


@pytest.mark.parametrize("change", [{"quantity": "1.50"}, {"quantity": "01.500"}, {"price": "2500.1"}, {"price": "2500.1000"}])
async def test_the_same_number_in_other_digits_is_the_same_order(change: dict[str, str]) -> None:
    (await authorised()).hmac_sha256_hex(payload(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": "1.51"},
        {"quantity": "15"},
        {"price": "2500.11"},
        {"price": "0.01"},
        {"price": None},
        {"quantity": None},
        {"side": "BUY"},
        {"side": "sell"},
        {"symbol": "ETHUSDC"},
        {"symbol": None},
        {"type": "MARKET"},
        {"type": "LIMIT_MAKER"},
        {"timeInForce": "GTC"},
        {"timeInForce": None},
    ],
)
async def test_an_order_that_differs_is_refused_and_stays_unspent(change: dict[str, str | None]) -> None:
    made = await authorised()
    with pytest.raises(SignerError, match=r"o-1: .* differs from what was authorised"):
        made.hmac_sha256_hex(payload(**change))
    made.hmac_sha256_hex(payload())


@pytest.mark.parametrize("text", ["1e0", "+1.5", "-1.5", "NaN", "1,5", "٣", "0x1", " 1.5", "1.5.0", "1" * 90, "."])
async def test_odd_numbers_are_refused(text: str) -> None:
    with pytest.raises(SignerError, match="not a plain decimal number"):
        (await authorised()).hmac_sha256_hex(payload(quantity=text))
    with pytest.raises(SignerError, match="not a plain decimal number"):
        await key().sign(place(quantity=text))


@pytest.mark.parametrize(
    "body",
    [
        payload(),
        payload(newClientOrderId=None),
        payload(newClientOrderId="o-2"),
        b"symbol=ETHUSDT&side=SELL&type=MARKET&quantity=1&timestamp=1",
        b"symbol=ETHUSDT&quantity=1&timestamp=1",
        b"symbol=ETHUSDT&type=MARKET&timestamp=1",
        b"%73ide=SELL&symbol=ETHUSDT&newClientOrderId=o-9",
    ],
)
def test_orders_that_nobody_authorised_are_refused(body: bytes) -> None:
    with pytest.raises(SignerError, match="was never authorised"):
        key().hmac_sha256_hex(body)


REPLACES = {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": "o-0"}


async def test_a_replacement_leaves_once_and_only_in_place_of_the_order_that_it_names() -> None:
    made = key()
    request = place(**REPLACES)
    await made.sign(VenueRequest("o-1", "binance", "replace", request.fields))
    for change in ({"cancelOrigClientOrderId": "o-9"}, {"cancelReplaceMode": "ALLOW_FAILURE"}, dict.fromkeys(REPLACES)):
        with pytest.raises(SignerError, match="differs from what was authorised"):
            made.hmac_sha256_hex(payload(**(REPLACES | change)))
    made.hmac_sha256_hex(payload(**REPLACES))
    with pytest.raises(SignerError, match="was sent before"):
        made.hmac_sha256_hex(payload(**REPLACES))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        REPLACES | {"cancelReplaceMode": "ALLOW_FAILURE"},
        REPLACES | {"cancelOrderId": "7"},
        REPLACES | {"cancelOrigClientOrderId": "a b"},
    ],
)
async def test_a_replacement_that_could_go_wrong_by_halves_is_refused(fields: dict[str, str | None]) -> None:
    with pytest.raises(SignerError, match="needs STOP_ON_FAILURE and the one order"):
        await key().sign(VenueRequest("o-1", "binance", "replace", place("o-1", **fields).fields))


async def test_only_a_replacement_names_another_order() -> None:
    with pytest.raises(SignerError, match="only a replacement"):
        await key().sign(place(**REPLACES))
    with pytest.raises(SignerError, match="differs from what was authorised"):
        (await authorised()).hmac_sha256_hex(payload(**REPLACES))


@pytest.mark.parametrize(
    "extra",
    [
        "stopPrice",
        "quoteOrderQty",
        "icebergQty",
        "sideEffectType",
        "cancelNewClientOrderId",
        "trailingDelta",
        "strategyId",
        "batchOrders",
    ],
)
async def test_orders_with_parameters_that_are_not_understood(extra: str) -> None:
    with pytest.raises(SignerError, match=f"does not understand '{extra}' in an order"):
        (await authorised()).hmac_sha256_hex(payload(**{extra: "1"}))
    with pytest.raises(SignerError, match=f"does not understand '{extra}' in an order"):
        await key().sign(place(**{extra: "1"}))


@pytest.mark.parametrize(
    "body",
    [
        b"coin=USDT&address=0xdead&amount=5&timestamp=1",
        b"asset=USDT&address=0xdead&amount=5&timestamp=1",
        b"withdrawOrderId=1&timestamp=1",
        b"%61ddress=0xdead&timestamp=1",
        b"type=MAIN_UMFUTURE&asset=USDT&amount=1&timestamp=1",
        b"toEmail=a&timestamp=1",
        b"coin=USDT&network=ETH&timestamp=1",
        b"fromAsset=BTC&toAsset=USDT&timestamp=1",
        payload() + b"&address=0xdead",
    ],
)
async def test_withdrawals_and_transfers_are_always_refused(body: bytes) -> None:
    with pytest.raises(SignerError, match="looks like a withdrawal"):
        (await authorised()).hmac_sha256_hex(body)


@pytest.mark.parametrize(
    "body",
    [
        b"timestamp=1",
        b"",
        b"apiKey=abc&timestamp=1",
        b"omitZeroBalances=true&timestamp=1&recvWindow=5000",
        b"symbol=ETHUSDT&origClientOrderId=o-1&timestamp=1",
        b"symbol=ETHUSDT&origClientOrderId=o-1&newClientOrderId=c-1&timestamp=1",
        b"symbol=ETHUSDT&limit=1000&fromId=7&startTime=1&endTime=2&timestamp=1",
        b"recvWindow=5000&timestamp=1",  # the kill switch: what rests anywhere,
        b"symbol=ETHUSDT&recvWindow=5000&timestamp=1",  # cancel all of a symbol,
        b"symbol=ETHUSDT&orderId=7&recvWindow=5000&timestamp=1",  # and cancel one by the exchange's number, without an approval
        b"symbol=%E5%B8%81USDT&recvWindow=5000&timestamp=1",
    ],
)
def test_reads_and_cancels_pass(body: bytes) -> None:
    assert key().hmac_sha256_hex(body) == hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("twice", b"symbol=A&symbol=B"),
        ("twice", b"symbol=A&%73ymbol=B"),
        ("a=1&b=2", b"2024-01-01T00:00:00ZGET/api"),
        ("a=1&b=2", b'{"symbol":"A"}'),
        ("a=1&b=2", b"=1"),
        ("a=1&b=2", b"symbol=A&"),
        ("a=1&b=2", b"symbol=A\n"),
        ("a=1&b=2", b"symbol=%0a"),
        ("plain text", b"symbol=\xff"),
        ("plain text", b"symbol=%ff"),
        ("is more than 4096", b"symbol=" + b"A" * 4_096),
        ("does not understand 'colour'", b"colour=red&timestamp=1"),
    ],
)
def test_payloads_that_are_not_understood(reason: str, body: bytes) -> None:
    with pytest.raises(SignerError, match=reason):
        key().hmac_sha256_hex(body)


@pytest.mark.parametrize(
    "request_",
    [
        place(symbol=None),
        place(side="HOLD"),
        place(type="MARKET"),
        place(timeInForce=None),
        place(timeInForce="GTX"),
        place(type="LIMIT_MAKER"),
        place(type="LIMIT_MAKER", timeInForce=""),
        place(quantity="0"),
        place(price="0.000"),
        place(price=None),
        place(symbol="ETH USDT"),
        place(order_id="x" * 37),
        place(order_id="a b"),
        VenueRequest("o-2", "binance", "place", place().fields),
        VenueRequest("o-1", "other", "place", place().fields),
        VenueRequest("o-1", "binance", "place", (*place().fields, ("price", "1"))),
        VenueRequest("o-1", "binance", "place", (*place().fields, ("address", "0xdead"))),
        VenueRequest("o-1", "binance", "place", (*place().fields, ("timestamp", "1"))),
        VenueRequest("c-1", "binance", "cancel", ()),
        VenueRequest("c-1", "binance", "cancel", (("symbol", "ETHUSDT"),)),
        VenueRequest("c-1", "binance", "cancel", (("symbol", "ETHUSDT"), ("origClientOrderId", "o-1"), ("side", "BUY"))),
    ],
)
async def test_requests_that_are_refused(request_: VenueRequest) -> None:
    with pytest.raises(SignerError):
        await key().sign(request_)


async def test_a_post_only_order_and_a_cancel_pass() -> None:
    made = key()
    await made.sign(place(type="LIMIT_MAKER", timeInForce=None))
    made.hmac_sha256_hex(payload(type="LIMIT_MAKER", timeInForce=None))
    fields = (("symbol", "ETHUSDT"), ("origClientOrderId", "o-1"), ("newClientOrderId", "c-1"))
    signed = await made.sign(VenueRequest("c-1", "binance", "cancel", fields))
    assert (signed.order_id, signed.key_id, signed.request.action) == ("c-1", "main", "cancel")


async def test_the_memory_is_bounded() -> None:
    made = key()
    for number in range(WAITING_MAX + 1):
        await made.sign(place(order_id=f"o-{number}"))
    with pytest.raises(SignerError, match="never authorised"):
        made.hmac_sha256_hex(payload(newClientOrderId="o-0"))
    made.hmac_sha256_hex(payload(newClientOrderId="o-1"))
    assert len(made._waiting) == WAITING_MAX - 1
    assert len(made._used) <= USED_MAX


async def test_the_secret_shows_nowhere() -> None:
    made = await authorised()
    shown = [repr(made), str(made), f"{made}"]
    for attempt in (lambda: pickle.dumps(made), lambda: copy.deepcopy(made)):
        with pytest.raises(SignerError) as caught:
            attempt()
        shown += traceback.format_exception(caught.value)
    with pytest.raises(SignerError) as caught:
        made.hmac_sha256_hex(payload(side="BUY"))
    shown += traceback.format_exception(caught.value)
    assert SECRET not in " ".join(shown)
    assert SECRET not in repr([getattr(made, name, None) for name in VenueKey.__slots__])


async def test_a_closed_key_refuses() -> None:
    made = await authorised()
    made.close()
    for attempt in (lambda: made.hmac_sha256_hex(b"timestamp=1"), lambda: made.hmac_sha256_hex(payload())):
        with pytest.raises(SignerError, match="closed"):
            attempt()
    with pytest.raises(SignerError, match="closed"):
        await made.sign(place())


async def test_it_signs_nothing_on_chain() -> None:
    for unsigned in (o.permit_and_swap(), o.permit_typed()):
        with pytest.raises(SignerError, match="need an on-chain key"):
            await key().sign(unsigned)


@settings(max_examples=150, deadline=None)
@given(st.decimals("0.00000001", "99999999", places=8), st.decimals("0.00000001", "99999999", places=8))
def test_only_equal_quantities_leave(approved: Decimal, sent: Decimal) -> None:
    made = key()
    with pytest.raises(StopIteration):
        made.sign(place(quantity=f"{approved:f}")).send(None)
    if approved != sent:
        with pytest.raises(SignerError, match="quantity differs"):
            made.hmac_sha256_hex(payload(quantity=f"{sent:f}"))
    made.hmac_sha256_hex(payload(quantity=f"{approved.normalize():f}"))


async def test_an_exchange_library_signs_through_it_without_the_secret() -> None:
    """ccxt's own request building, with only its hmac replaced on the instance."""
    ccxt = pytest.importorskip("ccxt")
    made = await authorised()
    exchange = ccxt.binance({"apiKey": API_KEY, "secret": "not the secret"})
    exchange.hmac = lambda request, secret, algorithm=None, digest="hex": made.hmac_sha256_hex(request)
    sent = exchange.sign("order", ["private"], "POST", {**ORDER, "newOrderRespType": "FULL"})
    query, _, signature = sent["body"].rpartition("&signature=")
    assert signature == hmac.new(SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()
    with pytest.raises(SignerError, match="was sent before"):
        exchange.sign("order", ["private"], "POST", ORDER)
    with pytest.raises(SignerError, match="was never authorised"):
        exchange.sign("order", ["private"], "POST", {k: v for k, v in ORDER.items() if k != "newClientOrderId"})
    with pytest.raises(SignerError, match="looks like a withdrawal"):
        exchange.sign("capital/withdraw/apply", ["sapi"], "POST", {"coin": "USDT", "address": "x", "amount": "1"})
    exchange.sign("openOrders", ["private"], "GET", {"symbol": "ETHUSDT"})
    exchange.sign("account", ["private"], "GET", {})


# -- the exchange's own TWAP -------------------------------------------------------------------------------------------

NATIVE = {
    "symbol": "ETHUSDT",
    "side": "SELL",
    "quantity": "10",
    "duration": "300",
    "limitPrice": "2600",
    "clientAlgoId": "o-1".ljust(32, "_"),
}


def native(order_id: str = "o-1", **changes: str | None) -> VenueRequest:
    fields = tuple((k, v) for k, v in {**NATIVE, **changes}.items() if v is not None)
    return VenueRequest(order_id, "binance", "place_native", fields)


def native_payload(**changes: str | None) -> bytes:
    sent = {**NATIVE, "timestamp": "1700000000000", "recvWindow": "5000", **changes}
    return urlencode({k: v for k, v in sent.items() if v is not None}).encode()


async def test_a_twap_leaves_once_and_only_as_it_was_authorised() -> None:
    made = key()
    await made.sign(native())
    for name, value in (("quantity", "11"), ("limitPrice", "2599"), ("duration", "301"), ("side", "BUY"), ("limitPrice", None)):
        with pytest.raises(SignerError, match=f"{name} differs"):
            made.hmac_sha256_hex(native_payload(**{name: value}))
    with pytest.raises(SignerError, match="does not understand"):
        made.hmac_sha256_hex(native_payload(type="MARKET"))
    assert made.hmac_sha256_hex(native_payload())
    with pytest.raises(SignerError, match="was sent before"):
        made.hmac_sha256_hex(native_payload())
    with pytest.raises(SignerError, match="authorised before"):
        await made.sign(native())


@pytest.mark.parametrize(
    "changes",
    [{name: None} for name in NATIVE]
    + [{"clientAlgoId": "o-2".ljust(32, "_")}, {"clientAlgoId": "o-1"}, {"quantity": "0"}, {"duration": "-1"}, {"price": "1"}],
)
async def test_a_twap_that_does_not_say_everything_is_not_authorised(changes: dict[str, str | None]) -> None:
    with pytest.raises(SignerError):
        await key().sign(native(**changes))


@pytest.mark.parametrize("missing", ["side", "quantity", "limitPrice"])
def test_a_twap_that_was_never_authorised_is_not_signed_in_parts_either(missing: str) -> None:
    with pytest.raises(SignerError):
        key().hmac_sha256_hex(native_payload(**{missing: None}))


async def test_taking_a_twap_back_and_asking_about_it_need_nothing() -> None:
    made = key()
    fields = (("symbol", "ETHUSDT"), ("clientAlgoId", NATIVE["clientAlgoId"]))
    await made.sign(VenueRequest("o-1x0", "binance", "cancel_native", fields))
    assert made.hmac_sha256_hex(b"algoId=7&timestamp=1700000000000&recvWindow=5000")
    assert made.hmac_sha256_hex(b"algoId=7&page=1&pageSize=100&timestamp=1700000000000&recvWindow=5000")
    with pytest.raises(SignerError, match="needs a symbol"):
        await made.sign(VenueRequest("o-1x0", "binance", "cancel_native", fields[:1]))
