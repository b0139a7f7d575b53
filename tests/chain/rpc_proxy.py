"""A node that misbehaves on purpose: it stands before a real one and passes everything on, or lies, lags and falls silent."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import ClientSession, web
from eth_utils.crypto import keccak


class Proxy:
    """The faults that are on now. All of them can be changed while it runs."""

    def __init__(self, target: str) -> None:
        self.target, self.url = target, ""
        self.is_down = False  # hangs up at once, on everything
        self.cut: set[str] = set()  # methods that reach the node, and whose answer is cut off
        self.swallowed: set[str] = set()  # methods that never reach the node, and are answered as if they had
        self.pretended: set[str] = set()  # the same, in the words of one that took it: with the transaction's own hash
        self.broken: dict[str, int] = {}  # method -> the HTTP status that comes back, though it reached the node
        self.muddled: dict[str, str] = {}  # method -> the words of an error that comes back, though it reached the node
        self.nulls: set[str] = set()  # methods that are answered with nothing: an index that lags
        self.refused: dict[str, str] = {}  # method -> the words with which it is refused
        self.lag = 0  # blocks that its newest is behind
        self.twist: Callable[[str, Any], Any] = lambda _, found: found  # (method, answer) -> what is said instead
        self.asked: list[tuple[str, list[Any]]] = []

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.asked)

    async def answer(self, request: web.Request) -> web.Response:
        call = json.loads(await request.read())
        method, params = str(call["method"]), list(call["params"])
        self.asked.append((method, params))
        if self.is_down:
            return _hung_up(request)
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        if method in self.refused:
            return web.json_response(reply | {"error": {"code": -32000, "message": self.refused[method]}})
        if method in self.swallowed:
            return web.json_response(reply | {"result": "0x" + "00" * 32})
        if method in self.pretended:
            return web.json_response(reply | {"result": "0x" + keccak(hexstr=params[0]).hex()})
        if method in self.nulls:
            return web.json_response(reply | {"result": None})
        if self.lag and params and params[0] == "latest":
            newest = await self._ask({**call, "method": "eth_blockNumber", "params": []})
            call["params"] = [hex(int(newest["result"], 16) - self.lag), *params[1:]]
        passed = await self._ask(call)
        if method in self.broken:
            return web.Response(status=self.broken[method])
        if method in self.muddled:
            return web.json_response(reply | {"error": {"code": -32603, "message": self.muddled[method]}})
        if "result" in passed:
            passed["result"] = self.twist(method, passed["result"])
        return _hung_up(request) if method in self.cut else web.json_response(passed)

    async def _ask(self, call: dict[str, Any]) -> Any:
        async with ClientSession() as session, session.post(self.target, json=call) as reply:
            return await reply.json()


@contextlib.asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """A proxy before the node at `target`, on loopback."""
    proxy = Proxy(target)
    app = web.Application()
    app.router.add_post("/{tail:.*}", proxy.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()


def _hung_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
