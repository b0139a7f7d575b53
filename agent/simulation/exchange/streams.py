"""Connections and subscriptions: who is listening to what, and a bounded queue to each, so that a slow reader harms nobody.

A peer whose queue is full is cut off, as the venue does: a client must never wait for another one. Faults that concern events
on their way out (stalls, swallowed or doubled user events) strike here.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from agent.simulation.exchange import faults as fault_names
from agent.simulation.exchange.faults import Faults

FRAMES_MAX: Final = 2000
BYTES_MAX: Final = 4 * 1024 * 1024
STREAMS_MAX: Final = 1024
_STREAM = re.compile(
    r"[a-z0-9._-]{1,20}@(depth(5|10|20)?(@100ms|@1000ms)?|trade|aggTrade|bookTicker|ticker|miniTicker|kline_[0-9]{1,2}[mhd])"
)
_LISTEN_KEY = re.compile(r"[A-Za-z0-9]{64}")

encode = msgspec.json.Encoder().encode


class Peer:
    """One WebSocket connection with its own bounded send queue. `send` never waits; a full queue ends the connection."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None) -> None:
        self.names: set[str] = set()
        self.is_combined = False
        self._socket = socket
        self._transport = transport
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    def send(self, frame: bytes) -> None:
        """Queue a text frame, or cut the connection if the reader is too far behind."""
        if len(self._frames) >= FRAMES_MAX or self._bytes + len(frame) > BYTES_MAX:
            self.abort()
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake.set()

    def abort(self) -> None:
        """Cut the connection at once, without a closing handshake."""
        self._frames.clear()
        self._bytes = 0
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    async def write(self) -> None:
        """Send what is queued until the connection ends."""
        try:
            while not self._socket.closed:
                await self._wake.wait()
                self._wake.clear()
                while self._frames:
                    frame = self._frames.popleft()
                    self._bytes -= len(frame)
                    await self._socket.send_frame(frame, WSMsgType.TEXT)
        except ConnectionError:
            self.abort()


class Hub:
    """All subscriptions of one exchange."""

    def __init__(self, faults: Faults) -> None:
        self.peers: set[Peer] = set()
        self.listen_keys: dict[str, str] = {}
        self._faults = faults
        self._topics: dict[str, dict[Peer, set[str]]] = {}
        self._users: dict[str, dict[Peer, dict[str, bytes]]] = {}
        self._late: tuple[str, Any] | None = None

    def close(self, peer: Peer) -> None:
        """Forget a connection."""
        self.peers.discard(peer)
        for name in list(peer.names):
            self.unsubscribe(peer, name)
        self.mute(peer)

    def subscribe(self, peer: Peer, name: str) -> bool:
        """Subscribe to a stream under exactly this name, or to a user's events by listen key. False if there is no such stream."""
        if name in self.listen_keys:
            self.listen(peer, self.listen_keys[name], name, _envelope(name) if peer.is_combined else b"")
        elif _STREAM.fullmatch(name):
            self._topics.setdefault(_topic(name), {}).setdefault(peer, set()).add(name)
        else:
            return False
        peer.names.add(name)
        return True

    def unsubscribe(self, peer: Peer, name: str) -> None:
        """End a subscription; one that does not exist is no error."""
        peer.names.discard(name)
        members = self._topics.get(_topic(name), {})
        if peer in members:
            members[peer].discard(name)
            if not members[peer]:
                del members[peer]
            if not members:
                del self._topics[_topic(name)]
        elif name in self.listen_keys:
            self._users.get(self.listen_keys[name], {}).get(peer, {}).pop(name, None)

    def listen(self, peer: Peer, account: str, key: str, prefix: bytes) -> None:
        """Send an account's events to a peer; `prefix` is the JSON before the event, b'' sends it bare."""
        self._users.setdefault(account, {}).setdefault(peer, {})[key] = prefix

    def mute(self, peer: Peer, key: str | None = None) -> None:
        """End one user subscription of a peer, or all."""
        for members in self._users.values():
            if key is None:
                members.pop(peer, None)
            elif peer in members:
                members[peer].pop(key, None)

    def wants(self, topic: str) -> bool:
        """Whether anybody listens to a topic, so that its payload need not be built otherwise."""
        return bool(self._topics.get(topic))

    def listeners(self) -> dict[str, int]:
        """How many connections listen to each stream, and to each account (as `user:<account>`)."""
        users = {f"user:{account}": len(members) for account, members in self._users.items() if members}
        return {topic: len(members) for topic, members in self._topics.items() if members} | users

    def publish(self, topic: str, data: Any) -> None:
        """Send a market event to the topic's subscribers; a combined stream carries the name that was subscribed."""
        members = self._topics.get(topic)
        if not members or self._faults.stands(fault_names.STALL_STREAM, "market"):
            return
        raw = encode(data)
        for peer, names in list(members.items()):
            for name in names:
                peer.send(_envelope(name) + raw + b"}" if peer.is_combined else raw)

    def tell(self, account: str, event: Any) -> None:
        """Send a user event to the account's connections, subject to faults."""
        if self._faults.stands(fault_names.STALL_STREAM, "user"):
            return
        kind = event["e"]
        if self._faults.strike(fault_names.SWALLOW_USER_EVENT, kind=kind):
            return
        if self._late is None and self._faults.strike(fault_names.REORDER_USER_EVENTS, kind=kind):
            self._late = account, event
            return
        if self._faults.strike(fault_names.REGRESS_CUMULATIVE, kind=kind):
            event = event | {"z": "0.00000000", "Z": "0.00000000"}
        times = 2 if self._faults.strike(fault_names.DUPLICATE_USER_EVENT, kind=kind) else 1
        for _ in range(times):
            self._deliver(account, event)
        if self._late is not None and self._late[1]["e"] == kind:
            late, self._late = self._late, None
            self._deliver(*late)

    def end(self, kind: str, now_ms: int) -> None:
        """Tell every account's connections that its events end with this one, and send none after it."""
        for account in list(self._users):
            self._deliver(account, {"e": kind, "E": now_ms})
        self._users.clear()

    def cut(self, kind: str) -> None:
        """Abort the connections that carry market streams, user events, or all."""
        user = {peer for members in self._users.values() for peer in members}
        market = {peer for members in self._topics.values() for peer in members}
        for peer in {"user": user, "market": market}.get(kind, set(self.peers)):
            peer.abort()

    def _deliver(self, account: str, event: Any) -> None:
        members = self._users.get(account)
        if not members:
            return
        raw = encode(event)
        for peer, prefixes in list(members.items()):
            for prefix in prefixes.values():
                peer.send(prefix + raw + b"}" if prefix else raw)


def is_listen_key(name: str) -> bool:
    """Whether a name has the form of a listen key."""
    return _LISTEN_KEY.fullmatch(name) is not None


def _topic(name: str) -> str:
    """`...@1000ms` is the default speed: both spellings are one topic."""
    return name.removesuffix("@1000ms")


def _envelope(name: str) -> bytes:
    return b'{"stream":"' + name.encode() + b'","data":'
