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
from aiohttp import web

from agent.simulation.exchange import faults as fault_names
from agent.simulation.exchange.access import known_key, parse_params, signed_text, verify
from agent.simulation.exchange.endpoints import REST, weight
from agent.simulation.exchange.faults import FAULTS, Fault
from agent.simulation.exchange.filters import Refused, required
from agent.simulation.exchange.mishaps import arm
from agent.simulation.exchange.request import (
    BODY_BYTES_MAX,
    CutConnection,
    Wires,
    carry_out,
    decode_request,
    open_socket,
    refuse_before,
    refuse_key,
    serve_socket,
)
from agent.simulation.exchange.streams import STREAMS_MAX, Hub, Peer, encode, is_listen_key
from agent.simulation.exchange.ws_api import serve_ws_api

LISTEN_KEYS_MAX: Final = 1000
ADMIN: Final = "/_sandbox/fault"
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")


def make_app(wires: Wires) -> web.Application:
    """The aiohttp application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_gate(wires)])

    def route(handler: Callable[[Wires, web.Request], Any]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            response: web.StreamResponse = await handler(wires, request)
            return response

        return handle

    app.router.add_route("*", "/api/v3/userDataStream", route(_listen_key))
    app.router.add_route("*", "/api/{tail:.*}", route(_rest))
    app.router.add_route("*", "/sapi/{tail:.*}", route(_rest))
    app.router.add_route("*", "/fapi/{tail:.*}", route(_rest))
    app.router.add_get("/ws-api/v3", route(serve_ws_api))
    for prefix in ("/stream", ""):
        app.router.add_get(prefix + "/ws", route(_streams))
        app.router.add_get(prefix + "/ws/{tail:.*}", route(_streams))
        app.router.add_get(prefix + "/stream", route(_streams))
    app.router.add_route("*", ADMIN, route(_admin))
    return app


def _gate(wires: Wires) -> Any:
    """Cuts whoever comes while nobody may, but for the hand that arms the faults."""

    @web.middleware
    async def gate(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if request.path != ADMIN and wires.faults.stands(fault_names.REFUSE_CONNECT):
            return _cut(request)
        response: web.StreamResponse = await handler(request)
        return response

    return gate


# -- REST ---------------------------------------------------------------------------------------------------------------


async def _rest(wires: Wires, request: web.Request) -> web.Response:
    now_ms, account = wires.now_ms(), None
    try:
        body = (await request.read()).decode("utf-8", "surrogateescape")
        query = request.raw_path.partition("?")[2].partition("#")[0]
        params = parse_params(query, body)
        endpoint = REST.get((request.method, request.path))
        if endpoint is None:
            raise Refused(-1020, "This operation is not supported.", 404)
        wires.limits.use(weight(endpoint, params), now_ms)
        if endpoint.is_signed:
            key = known_key(wires.venue.accounts, request.headers.get("X-MBX-APIKEY"))
            refuse_key(wires)
            verify(key, signed_text(query, body), params, now_ms)
            account = key.account
        refuse_before(wires, endpoint.scope)
        result = carry_out(wires, endpoint, account or "", params, now_ms)
        slow = wires.faults.strike(fault_names.SLOW_REPLY, on=endpoint.scope)
    except Refused as refusal:
        return _refusal(wires, refusal, account)
    except CutConnection:
        return _cut(request)
    if slow is not None:
        await asyncio.sleep(slow.delay_ms / 1000)
    return _answer(result, 200, wires.limits.headers(account, now_ms))


async def _listen_key(wires: Wires, request: web.Request) -> web.Response:
    """The legacy way to user events: POST makes a key, PUT keeps it alive, DELETE ends it; the API key alone is asked for."""
    try:
        params = parse_params(request.raw_path.partition("?")[2], (await request.read()).decode("utf-8", "surrogateescape"))
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
    socket, peer = await open_socket(wires, request)
    peer.is_combined = request.path.endswith("/stream") or "streams" in request.query
    tail = request.match_info.get("tail", "")  # ccxt appends a number, others append stream names
    names = request.query.get("streams") or ("" if tail.isdigit() else tail)
    for name in [name for name in names.split("/") if name][:STREAMS_MAX]:
        if not wires.hub.subscribe(peer, name) and is_listen_key(name):
            peer.abort()  # an expired or unknown listen key

    def on_text(text: str) -> None:
        peer.send(encode(_control(wires.hub, peer, text)))

    return await serve_socket(wires, socket, peer, on_text)


def _control(hub: Hub, peer: Peer, text: str) -> dict[str, Any]:
    """SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
    try:
        request = decode_request(text)
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
