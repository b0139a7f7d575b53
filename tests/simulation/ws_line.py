"""A line between the adapter and the sandbox exchange's WebSockets that a test can tamper with: frames lost, doubled, changed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

Frames = Callable[[str], list[str]]


def unchanged(text: str) -> list[str]:
    return [text]


class Line:
    """Passes every frame on. `answers` may change what the exchange answers to orders; `methods` are those that were asked for."""

    def __init__(self, upstream: str) -> None:
        self.upstream, self.url = upstream, ""
        self.answers: Frames = unchanged
        self.is_cut_after_request = self.is_refusing = False
        self.methods: list[str] = []
        self.order_lines: list[web.WebSocketResponse] = []

    def only(self, answers: Frames) -> None:
        """For one answer; then all pass unchanged again."""

        def once(text: str) -> list[str]:
            self.answers = unchanged
            return answers(text)

        self.answers = once

    async def hang_up(self) -> None:
        """As an exchange closes a connection that it does not want any more."""
        await asyncio.gather(*(one.close(code=1001) for one in self.order_lines))

    async def say(self, event: dict[str, Any]) -> None:
        """Something that nobody asked for, on the connections of orders."""
        for one in self.order_lines:
            await one.send_str(json.dumps(event))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if self.is_refusing and request.path == "/ws-api/v3":
            return web.Response(status=503)
        near = web.WebSocketResponse()
        await near.prepare(request)
        async with aiohttp.ClientSession() as session, session.ws_connect(self.upstream + request.raw_path) as far:
            back = asyncio.create_task(self._back(far, near))
            try:
                async for message in near:
                    if message.type is WSMsgType.TEXT:
                        await self._forth(message.data, near, far, request)
            finally:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
        return near

    async def _forth(
        self, text: str, near: web.WebSocketResponse, far: aiohttp.ClientWebSocketResponse, request: web.Request
    ) -> None:
        method = json.loads(text).get("method", "") if request.path == "/ws-api/v3" else ""
        if method.startswith("order."):
            self.methods.append(method)
            if near not in self.order_lines:
                self.order_lines.append(near)
        await far.send_str(text)
        if method.startswith("order.") and self.is_cut_after_request and request.transport is not None:
            self.is_cut_after_request = False
            request.transport.abort()

    async def _back(self, far: aiohttp.ClientWebSocketResponse, near: web.WebSocketResponse) -> None:
        async for message in far:
            for text in self.answers(message.data) if near in self.order_lines else [message.data]:
                await near.send_str(text)
        await near.close()


@contextlib.asynccontextmanager
async def line_to(upstream: str) -> AsyncIterator[Line]:
    line = Line(upstream)
    app = web.Application()
    app.router.add_get("/{tail:.*}", line.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    line.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield line
    finally:
        await runner.cleanup()
