"""One request, whichever wire it came on: what it can reach, the faults before and after it, and its WebSocket if it has one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from agent.simulation.exchange import faults as fault_names
from agent.simulation.exchange.access import Limits
from agent.simulation.exchange.endpoints import Endpoint
from agent.simulation.exchange.faults import Faults
from agent.simulation.exchange.filters import Params, Refused
from agent.simulation.exchange.publisher import Publisher
from agent.simulation.exchange.streams import Hub, Peer
from agent.simulation.exchange.venue import Venue

BODY_BYTES_MAX: Final = 64 * 1024
_PEERS_MAX: Final = 500
_STATUS_UNKNOWN: Final = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."

# Decimals keep the digits that were sent: a signature covers the text, and money is never a float.
decode_request = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


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


class CutConnection(Exception):  # noqa: N818 - not an error: the fault that was asked for
    """The answer is to be lost with its connection."""


def carry_out(wires: Wires, endpoint: Endpoint, account: str, params: Params, now_ms: int) -> Any:
    """Do it, then lose the answer if a fault says so."""
    if endpoint.scope == "place":
        wires.limits.use_order(account, now_ms)
    late = wires.faults.strike(fault_names.ACCEPT_LATE, on=endpoint.scope)
    if late is not None:
        asyncio.get_running_loop().call_later(late.delay_ms / 1000, _carry_out_late, wires, endpoint, account, params)
        raise Refused(-1007, _STATUS_UNKNOWN, 504)
    if endpoint.is_replacement and wires.faults.strike(fault_names.PARTIAL_REPLACE):
        wires.venue.refuse_next(Refused(-2010, "Account has insufficient balance for requested action."))
    result = endpoint.handler(wires.venue, account, params, now_ms)
    cut = wires.faults.strike(fault_names.TRUNCATE_LIST, kind=endpoint.rows) if endpoint.rows else None
    if cut is not None:
        result = result[: cut.keep]
    if endpoint.scope != "query" and "symbol" in params:
        wires.publisher.book_moved(params["symbol"])
    scope = endpoint.scope
    if wires.faults.strike(fault_names.DROP_REPLY, on=scope):
        raise CutConnection
    if wires.faults.strike(fault_names.TIMEOUT_1007, on=scope):
        raise Refused(-1007, _STATUS_UNKNOWN, 504)
    if wires.faults.strike(fault_names.UNKNOWN_1000, on=scope):
        raise Refused(-1000, "Unknown error, please check your request or try again later.", 503)
    return result


def _carry_out_late(wires: Wires, endpoint: Endpoint, account: str, params: Params) -> None:
    """Nobody waits for the answer any more, be it yes or no."""
    with contextlib.suppress(Refused):
        endpoint.handler(wires.venue, account, params, wires.now_ms())


def refuse_before(wires: Wires, scope: str) -> None:
    """Faults that strike before anything is carried out."""
    for name, status in ((fault_names.RATE_LIMIT_429, 429), (fault_names.BAN_418, 418)):
        fault = wires.faults.strike(name, on=scope)
        if fault is not None:
            raise Refused(-1003, "Too many requests; please use the websocket for live updates.", status, fault.retry_after_s)
    if wires.faults.strike(fault_names.MAINTENANCE, on=scope):
        text = "Server is currently overloaded with other requests. Please try again in a few minutes."
        raise Refused(-1008, text, 503)


def refuse_key(wires: Wires) -> None:
    """The key was taken away."""
    if wires.faults.stands(fault_names.REVOKED_KEY):
        raise Refused(-2015, "Invalid API-key, IP, or permissions for action.", 401)


async def open_socket(wires: Wires, request: web.Request) -> tuple[web.WebSocketResponse, Peer]:
    """Accept a WebSocket connection, with its send queue. HTTP 503 beyond the bound on connections."""
    if len(wires.hub.peers) >= _PEERS_MAX:
        raise web.HTTPServiceUnavailable(text="too many connections: close some")
    socket = web.WebSocketResponse(max_msg_size=BODY_BYTES_MAX, compress=False)
    await socket.prepare(request)
    peer = Peer(socket, request.transport)
    wires.hub.peers.add(peer)
    return socket, peer


async def serve_socket(
    wires: Wires, socket: web.WebSocketResponse, peer: Peer, on_text: Callable[[str], None]
) -> web.StreamResponse:
    """Feed each text frame to `on_text` and send what is queued, until the connection ends."""
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
