"""The wires: REST, the WebSocket API, market streams and user streams, served by aiohttp on the loopback interface only.

Whatever a client sends, it gets the venue's error and never a server error: every text is read by `filters`, every message and
queue has a bound, and a connection that misbehaves is closed without touching the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from agent.simulation.exchange import faults as fault_names
from agent.simulation.exchange.access import (
    Limits,
    known_key,
    parse_params,
    signed_params,
    signed_text,
    verify,
)
from agent.simulation.exchange.endpoints import REST, WS_API, Endpoint, weight
from agent.simulation.exchange.faults import FAULTS, Fault, Faults
from agent.simulation.exchange.filters import Params, Refused, required
from agent.simulation.exchange.publisher import Publisher
from agent.simulation.exchange.streams import STREAMS_MAX, Hub, Peer, encode, is_listen_key
from agent.simulation.exchange.venue import Venue

BODY_BYTES_MAX: Final = 64 * 1024
LISTEN_KEYS_MAX: Final = 1000
_PEERS_MAX: Final = 500
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")

# Decimals keep the digits that were sent: a signature covers the text, and money is never a float.
_decode_request = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


class Wires(msgspec.Struct, frozen=True):
    """Everything a request can reach."""

    venue: Venue
    hub: Hub
    publisher: Publisher
    faults: Faults
    limits: Limits
    clock_ns: Callable[[], int]

    def now_ms(self) -> int:
        """The venue's clock."""
        return self.clock_ns() // 1_000_000 + self.faults.clock_offset_ms()


class _CutConnection(Exception):  # noqa: N818 - not an error: the fault that was asked for
    """The answer is to be lost with its connection."""


def make_app(wires: Wires) -> web.Application:
    """The aiohttp application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)

    def route(handler: Callable[[Wires, web.Request], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            response: web.StreamResponse = await handler(wires, request)
            return response

        return handle

    app.router.add_route("*", "/api/v3/userDataStream", route(_listen_key))
    app.router.add_route("*", "/api/{tail:.*}", route(_rest))
    app.router.add_route("*", "/sapi/{tail:.*}", route(_rest))
    app.router.add_get("/ws-api/v3", route(_ws_api))
    for prefix in ("/stream", ""):
        app.router.add_get(prefix + "/ws", route(_streams))
        app.router.add_get(prefix + "/ws/{tail:.*}", route(_streams))
        app.router.add_get(prefix + "/stream", route(_streams))
    app.router.add_route("*", "/_sandbox/fault", route(_admin))
    return app


# -- one request, on either wire ----------------------------------------------------------------------------------------


def _carry_out(wires: Wires, endpoint: Endpoint, account: str, params: Params, now_ms: int) -> Any:
    """Do it, then lose the answer if a fault says so."""
    if endpoint.scope == "place":
        wires.limits.use_order(account, now_ms)
    result = endpoint.handler(wires.venue, account, params, now_ms)
    if endpoint.scope != "query" and "symbol" in params:
        wires.publisher.book_moved(params["symbol"])
    scope = endpoint.scope
    if wires.faults.strike(fault_names.DROP_REPLY, on=scope):
        raise _CutConnection
    if wires.faults.strike(fault_names.TIMEOUT_1007, on=scope):
        text = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
        raise Refused(-1007, text, 504)
    if wires.faults.strike(fault_names.UNKNOWN_1000, on=scope):
        raise Refused(-1000, "Unknown error, please check your request or try again later.", 503)
    return result


def _refuse_before(wires: Wires, scope: str) -> None:
    """Faults that strike before anything is carried out."""
    for name, status in ((fault_names.RATE_LIMIT_429, 429), (fault_names.BAN_418, 418)):
        fault = wires.faults.strike(name, on=scope)
        if fault is not None:
            raise Refused(-1003, "Too many requests; please use the websocket for live updates.", status, fault.retry_after_s)
    if wires.faults.strike(fault_names.MAINTENANCE, on=scope):
        text = "Server is currently overloaded with other requests. Please try again in a few minutes."
        raise Refused(-1008, text, 503)


# -- REST ---------------------------------------------------------------------------------------------------------------


async def _rest(wires: Wires, request: web.Request) -> web.Response:
    now_ms, account = wires.now_ms(), None
    try:
        body = (await request.read()).decode("latin-1")
        query = request.raw_path.partition("?")[2].partition("#")[0]
        params = parse_params(query, body)
        endpoint = REST.get((request.method, request.path))
        if endpoint is None:
            raise Refused(-1020, "This operation is not supported.", 404)
        wires.limits.use(weight(endpoint, params), now_ms)
        if endpoint.is_signed:
            key = known_key(wires.venue.accounts, request.headers.get("X-MBX-APIKEY"))
            verify(key, signed_text(query, body), params, now_ms)
            account = key.account
        _refuse_before(wires, endpoint.scope)
        result = _carry_out(wires, endpoint, account or "", params, now_ms)
    except Refused as refusal:
        return _refusal(wires, refusal, account)
    except _CutConnection:
        return _cut(request)
    return _answer(result, 200, wires.limits.headers(account, now_ms))


async def _listen_key(wires: Wires, request: web.Request) -> web.Response:
    """The legacy way to user events: POST makes a key, PUT keeps it alive, DELETE ends it; the API key alone is asked for."""
    try:
        params = parse_params(request.raw_path.partition("?")[2], (await request.read()).decode("latin-1"))
        account = known_key(wires.venue.accounts, request.headers.get("X-MBX-APIKEY")).account
        wires.limits.use(2, wires.now_ms())
        if request.method == "POST":
            return _answer({"listenKey": _new_listen_key(wires, account)}, 200, {})
        name = required(params, "listenKey")
        if wires.hub.listen_keys.get(name) != account:
            raise Refused(-1125, "This listenKey does not exist.")
        if request.method == "DELETE":
            del wires.hub.listen_keys[name]
        return _answer({}, 200, {})
    except Refused as refusal:
        return _refusal(wires, refusal, None)


def _new_listen_key(wires: Wires, account: str) -> str:
    """An account has one key at a time; asking again gives the same one."""
    for name, owner in wires.hub.listen_keys.items():
        if owner == account:
            return name
    if len(wires.hub.listen_keys) >= LISTEN_KEYS_MAX:
        raise Refused(-1003, "Too many listen keys.", 429, 60)
    secret = next(key.secret for key in wires.venue.accounts.keys.values() if key.account == account)
    name = hashlib.sha256(f"listen:{secret}".encode()).hexdigest()
    wires.hub.listen_keys[name] = account
    return name


def _answer(body: Any, status: int, headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=encode(body), status=status, content_type="application/json", headers=headers)


def _refusal(wires: Wires, refusal: Refused, account: str | None) -> web.Response:
    headers = wires.limits.headers(account, wires.now_ms())
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return _answer(refusal.payload(), refusal.http_status, headers)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # never arrives


# -- market streams and legacy user streams -----------------------------------------------------------------------------


async def _streams(wires: Wires, request: web.Request) -> web.StreamResponse:
    socket, peer = await _open(wires, request)
    peer.is_combined = request.path.endswith("/stream") or "streams" in request.query
    tail = request.match_info.get("tail", "")  # ccxt appends a number, others append stream names
    names = request.query.get("streams") or ("" if tail.isdigit() else tail)
    for name in [name for name in names.split("/") if name][:STREAMS_MAX]:
        if not wires.hub.subscribe(peer, name) and is_listen_key(name):
            peer.abort()  # an expired or unknown listen key

    def on_text(text: str) -> None:
        peer.send(encode(_control(wires.hub, peer, text)))

    return await _serve(wires, socket, peer, on_text)


def _control(hub: Hub, peer: Peer, text: str) -> dict[str, Any]:
    """SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
    try:
        request = _decode_request(text)
    except (msgspec.DecodeError, RecursionError):
        return {"error": {"code": 3, "msg": "Invalid JSON: expected an object"}}
    number = request.get("id")
    if not (number is None or isinstance(number, int | str)):
        return {"error": {"code": 2, "msg": "Invalid request: 'id' must be an integer or a string"}}
    method, names = request.get("method"), request.get("params", [])
    if method == "LIST_SUBSCRIPTIONS":
        return {"result": sorted(peer.names), "id": number}
    if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
        return {"error": {"code": 2, "msg": "Invalid request: unknown method"}, "id": number}
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return {"error": {"code": 2, "msg": "Invalid request: params must be an array of strings"}, "id": number}
    if method == "SUBSCRIBE" and len(peer.names) + len(names) > STREAMS_MAX:
        return {"error": {"code": 2, "msg": f"Invalid request: at most {STREAMS_MAX} streams"}, "id": number}
    for name in names:
        if method == "SUBSCRIBE":
            hub.subscribe(peer, name)  # an unknown stream is accepted and stays silent, as at the venue
        else:
            hub.unsubscribe(peer, name)
    return {"result": None, "id": number}


# -- the WebSocket API --------------------------------------------------------------------------------------------------


class _Session(msgspec.Struct):
    """What a WebSocket API connection remembers."""

    api_key: str = ""
    account: str = ""
    since_ms: int = 0
    subscriptions: int = 0


async def _ws_api(wires: Wires, request: web.Request) -> web.StreamResponse:
    socket, peer = await _open(wires, request)
    session = _Session()

    def on_text(text: str) -> None:
        try:
            peer.send(encode(_call(wires, peer, session, text)))
        except _CutConnection:
            peer.abort()

    return await _serve(wires, socket, peer, on_text)


def _call(wires: Wires, peer: Peer, session: _Session, text: str) -> dict[str, Any]:
    now_ms, number, rows = wires.now_ms(), None, True
    head: dict[str, Any]
    retry: dict[str, Any] = {}
    try:
        number, method, params = _read_call(text)
        rows = params.get("returnRateLimits") != "false"
        head = {"status": 200, "result": _result_of(wires, peer, session, method, params, now_ms)}
    except Refused as refusal:
        if refusal.retry_after_s is not None:
            retry = {"data": {"serverTime": now_ms, "retryAfter": now_ms + refusal.retry_after_s * 1000}}
        head = {"status": refusal.http_status, "error": refusal.payload() | retry}
    limits = {"rateLimits": wires.limits.rows(session.account or None, now_ms)} if rows else {}
    return {"id": number} | head | limits


def _read_call(text: str) -> tuple[int | str | None, str, dict[str, str]]:
    try:
        request = _decode_request(text)
    except (msgspec.DecodeError, RecursionError):
        raise Refused(-1135, "Invalid JSON Request") from None
    number, method, params = request.get("id"), request.get("method"), request.get("params") or {}
    if not (number is None or isinstance(number, int | str)) or not isinstance(method, str) or not isinstance(params, dict):
        raise Refused(-1135, "Invalid JSON Request")
    return number, method, {name: _param_text(name, value) for name, value in params.items()}


def _param_text(name: str, value: Any) -> str:
    """A parameter as text, the way it was signed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    if isinstance(value, list):
        return encode(value).decode()
    raise Refused(-1102, f"Mandatory parameter '{name[:40]}' was not sent, was empty/null, or malformed.")


def _result_of(wires: Wires, peer: Peer, session: _Session, method: str, params: dict[str, str], now_ms: int) -> Any:
    endpoint = WS_API.get(method)
    if endpoint is not None:
        wires.limits.use(weight(endpoint, params), now_ms)
        account = _signed_account(wires, session, params, now_ms) if endpoint.is_signed else ""
        _refuse_before(wires, endpoint.scope)
        return _carry_out(wires, endpoint, account, params, now_ms)
    wires.limits.use(2, now_ms)
    if method in ("session.logon", "session.status", "session.logout"):
        return _session_call(wires, session, method, params, now_ms)
    if method in ("userDataStream.subscribe", "userDataStream.subscribe.signature"):
        account = _signed_account(wires, session, params, now_ms)
        number, session.subscriptions = session.subscriptions, session.subscriptions + 1
        if number >= STREAMS_MAX:
            raise Refused(-1003, "Too many subscriptions on this connection.", 429, 60)
        wires.hub.listen(peer, account, str(number), b'{"subscriptionId":%d,"event":' % number)
        return {"subscriptionId": number}
    if method == "userDataStream.unsubscribe":
        wires.hub.mute(peer, params.get("subscriptionId"))
        return {}
    raise Refused(-1020, "This operation is not supported.", 400)


def _session_call(wires: Wires, session: _Session, method: str, params: Params, now_ms: int) -> dict[str, Any]:
    if method == "session.logon":
        session.account = _signed_account(wires, session, params, now_ms)
        session.api_key, session.since_ms = params["apiKey"], now_ms
    elif method == "session.logout":
        session.account = session.api_key = ""
    is_on = bool(session.account)
    return {
        "apiKey": session.api_key if is_on else None, "authorizedSince": session.since_ms if is_on else None,
        "connectedSince": now_ms, "returnRateLimits": True, "serverTime": now_ms, "userDataStream": session.subscriptions > 0,
    }  # fmt: skip


def _signed_account(wires: Wires, session: _Session, params: Params, now_ms: int) -> str:
    """The account that a call acts for: by its own signature, or by the logon of its connection."""
    if "signature" not in params and session.account:
        return session.account
    required(params, "signature")
    key = known_key(wires.venue.accounts, params.get("apiKey"))
    verify(key, signed_params(params), params, now_ms)
    return key.account


# -- what both kinds of WebSocket share ---------------------------------------------------------------------------------


async def _open(wires: Wires, request: web.Request) -> tuple[web.WebSocketResponse, Peer]:
    if len(wires.hub.peers) >= _PEERS_MAX:
        raise web.HTTPServiceUnavailable(text="too many connections: close some")
    socket = web.WebSocketResponse(max_msg_size=BODY_BYTES_MAX, compress=False)
    await socket.prepare(request)
    peer = Peer(socket, request.transport)
    wires.hub.peers.add(peer)
    return socket, peer


async def _serve(wires: Wires, socket: web.WebSocketResponse, peer: Peer, on_text: Callable[[str], None]) -> web.StreamResponse:
    writer = asyncio.create_task(peer.write())
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                on_text(message.data)
    finally:
        wires.hub.close(peer)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    return socket


# -- faults, for tests in any language ----------------------------------------------------------------------------------


async def _admin(wires: Wires, request: web.Request) -> web.Response:
    """GET lists the faults, POST {"name": ..., ...} arms one, DELETE clears. Loopback only, and not from a web page."""
    if request.remote not in ("127.0.0.1", "::1") or not _LOOPBACK.fullmatch(request.host) or "Origin" in request.headers:
        raise web.HTTPForbidden(text="faults are armed from this machine only")
    if request.method == "DELETE":
        wires.faults.clear(request.query.get("name"))
    elif request.method == "POST":
        try:
            arm(wires, msgspec.json.decode(await request.read(), type=Fault))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            return _answer({"error": str(error)}, 400, {})
    armed = [msgspec.structs.asdict(fault) for fault in wires.faults.armed()]
    return _answer({"faults": FAULTS, "armed": armed}, 200, {})


def arm(wires: Wires, fault: Fault) -> None:
    """Arm a fault; a disconnect strikes at once."""
    if fault.name == fault_names.DISCONNECT:
        wires.hub.cut(fault.kind)
    else:
        wires.faults.arm(fault)
