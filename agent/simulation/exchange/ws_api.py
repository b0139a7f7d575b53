"""The WebSocket API: the same endpoints as REST over one connection, with logon, and user events beside the answers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from agent.simulation.exchange import faults as fault_names
from agent.simulation.exchange.access import known_key, signed_params, verify
from agent.simulation.exchange.endpoints import WS_API, weight
from agent.simulation.exchange.filters import Params, Refused, required
from agent.simulation.exchange.request import (
    CutConnection,
    Wires,
    carry_out,
    decode_request,
    open_socket,
    refuse_before,
    refuse_key,
    serve_socket,
)
from agent.simulation.exchange.streams import STREAMS_MAX, Peer, encode


async def serve_ws_api(wires: Wires, request: web.Request) -> web.StreamResponse:
    """Serve one connection until it ends."""
    socket, peer = await open_socket(wires, request)
    connection = _Connection()

    def on_text(text: str) -> None:
        connection.asks_for, connection.delay_ms = "", 0
        try:
            frame = encode(_call(wires, peer, connection, text))
        except CutConnection:
            peer.abort()
            return
        if connection.delay_ms:
            asyncio.get_running_loop().call_later(connection.delay_ms / 1000, peer.send, frame)
        else:
            peer.send(frame)

    return await serve_socket(wires, socket, peer, on_text)


class _Connection(msgspec.Struct):
    """What a WebSocket API connection remembers. The last two belong to the call of the moment."""

    api_key: str = ""
    account: str = ""
    since_ms: int = 0
    subscriptions: int = 0
    asks_for: str = ""
    delay_ms: int = 0


def _call(wires: Wires, peer: Peer, connection: _Connection, text: str) -> dict[str, Any]:
    now_ms, number, rows = wires.now_ms(), None, True
    head: dict[str, Any]
    retry: dict[str, Any] = {}
    try:
        number, method, params = _read_call(text)
        rows = params.get("returnRateLimits") != "false"
        head = {"status": 200, "result": _result_of(wires, peer, connection, method, params, now_ms)}
    except Refused as refusal:
        if refusal.retry_after_s is not None:
            retry = {"data": {"serverTime": now_ms, "retryAfter": now_ms + refusal.retry_after_s * 1000}}
        head = {"status": refusal.http_status, "error": refusal.payload() | retry}
    limits = {"rateLimits": wires.limits.rows(connection.asks_for or connection.account or None, now_ms)} if rows else {}
    return {"id": number} | head | limits


def _read_call(text: str) -> tuple[int | str | None, str, dict[str, str]]:
    try:
        request = decode_request(text)
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


def _result_of(wires: Wires, peer: Peer, connection: _Connection, method: str, params: dict[str, str], now_ms: int) -> Any:
    endpoint = WS_API.get(method)
    if endpoint is not None:
        wires.limits.use(weight(endpoint, params), now_ms)
        account = _signed_account(wires, connection, params, now_ms) if endpoint.is_signed else ""
        connection.asks_for = account
        refuse_before(wires, endpoint.scope)
        result = carry_out(wires, endpoint, account, params, now_ms)
        slow = wires.faults.strike(fault_names.SLOW_REPLY, on=endpoint.scope)
        connection.delay_ms = slow.delay_ms if slow else 0
        return result
    wires.limits.use(2, now_ms)
    if method in ("session.logon", "session.status", "session.logout"):
        return _logon_call(wires, connection, method, params, now_ms)
    if method in ("userDataStream.subscribe", "userDataStream.subscribe.signature"):
        account = _signed_account(wires, connection, params, now_ms)
        number, connection.subscriptions = connection.subscriptions, connection.subscriptions + 1
        if number >= STREAMS_MAX:
            raise Refused(-1003, "Too many subscriptions on this connection.", 429, 60)
        wires.hub.listen(peer, account, str(number), b'{"subscriptionId":%d,"event":' % number)
        return {"subscriptionId": number}
    if method == "userDataStream.unsubscribe":
        wires.hub.mute(peer, params.get("subscriptionId"))
        return {}
    raise Refused(-1020, "This operation is not supported.", 400)


def _logon_call(wires: Wires, connection: _Connection, method: str, params: Params, now_ms: int) -> dict[str, Any]:
    if method == "session.logon":
        connection.account = _signed_account(wires, connection, params, now_ms)
        connection.api_key, connection.since_ms = params["apiKey"], now_ms
    elif method == "session.logout":
        connection.account = connection.api_key = ""
    is_on = bool(connection.account)
    return {
        "apiKey": connection.api_key if is_on else None, "authorizedSince": connection.since_ms if is_on else None,
        "connectedSince": now_ms, "returnRateLimits": True, "serverTime": now_ms, "userDataStream": connection.subscriptions > 0,
    }  # fmt: skip


def _signed_account(wires: Wires, connection: _Connection, params: Params, now_ms: int) -> str:
    """The account that a call acts for: by its own signature, or by the logon of its connection."""
    if "signature" not in params and connection.account:
        return connection.account
    required(params, "signature")
    key = known_key(wires.venue.accounts, params.get("apiKey"))
    refuse_key(wires)
    verify(key, signed_params(params), params, now_ms)
    return key.account
