"""What a node's answer to a send proves: the difference between refused and unknown is the difference between one trade and two."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from agent.chains.rpc import Rpc, connect
from agent.chains.submit import refusal, turned_away
from agent.domain.errors import ChainError, ConfigError, OutcomeUnknown

RAW, HASH = b"\x02\xf8", "0x" + "ab" * 32


@pytest.mark.parametrize(
    "message",
    [
        "already known",
        "AlreadyKnown",
        "transaction already imported",
        "nonce too low: next nonce 5, tx nonce 4",
        "internal error",
        "",
        "request timed out",
        "too many requests",
    ],
)
def test_what_may_have_been_accepted_is_unknown(message: str) -> None:
    assert isinstance(refusal(message, -32000, "http://node:1"), OutcomeUnknown)


@pytest.mark.parametrize(
    "message",
    [
        "insufficient funds for gas * price + value: balance 0",
        "Insufficient funds for gas * price + value",
        "intrinsic gas too low",
        "max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1",
        "transaction underpriced",
        "replacement transaction underpriced",
        "exceeds block gas limit",
        "Sender does not have enough balance to cover transaction value and gas",
        "invalid sender",
        "nonce too high",
        "tx fee (9.00 ether) exceeds the configured cap (1.00 ether)",
    ],
)
def test_what_was_certainly_refused_says_so(message: str) -> None:
    error = refusal(message, -32000, "http://node:1")
    assert isinstance(error, ChainError)
    assert message in str(error)
    assert error.code == "-32000"


def test_a_method_that_does_not_exist_did_nothing() -> None:
    assert isinstance(refusal("the method does not exist", -32601, "n"), ChainError)


@pytest.mark.parametrize(("status", "expected"), [(401, True), (403, True), (429, True), (400, False), (500, False), (503, False)])
def test_only_a_closed_door_proves_that_nothing_arrived(status: int, expected: bool) -> None:
    assert turned_away(status) is expected


# -- over a real connection --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def node(answer: str | int | None, chain_id: int = 7, drops_reads: int = 0) -> AsyncIterator[tuple[str, list[str]]]:
    """A node that answers `eth_chainId`, and a send with a body, a status, or (None) by hanging up. Keeps what it was asked."""
    asked: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        call = await request.json()
        asked.append(call["method"])
        if call["method"] == "eth_chainId" and asked.count("eth_chainId") > drops_reads:
            return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": hex(chain_id)})
        if isinstance(answer, str):
            return web.Response(text=answer.replace("ID", str(call["id"])), content_type="application/json")
        if isinstance(answer, int):
            return web.Response(status=answer)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/key/secret", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/key/secret", asked
    finally:
        await runner.cleanup()


async def send(answer: str | int | None) -> str:
    async with node(answer) as (url, asked):
        rpc = await connect(url, 7)
        try:
            return await rpc.send_raw(RAW)
        finally:
            assert asked.count("eth_sendRawTransaction") == 1, "once, whatever happens"
            await rpc.close()


async def test_an_accepted_send_gives_the_hash() -> None:
    assert await send(json.dumps({"jsonrpc": "2.0", "id": "ID", "result": HASH})) == HASH


@pytest.mark.parametrize(
    "answer",
    [
        None,
        500,
        502,
        400,
        "<html>",
        "[]",
        "null",
        '{"id":1}',
        '{"result":7}',
        '{"error":{"code":-32000,"message":"already known"}}',
    ],
)
async def test_an_answer_that_proves_nothing_is_unknown(answer: str | int | None) -> None:
    with pytest.raises(OutcomeUnknown) as unknown:
        await send(answer)
    assert "secret" not in str(unknown.value)
    assert "by its hash" in str(unknown.value)


@pytest.mark.parametrize("answer", [401, 429, '{"error":{"code":-32003,"message":"insufficient funds for transfer"}}'])
async def test_a_refused_send_is_refused(answer: str | int) -> None:
    with pytest.raises(ChainError) as refused:
        await send(answer)
    assert "secret" not in str(refused.value)


async def test_a_node_that_is_not_there_took_nothing() -> None:
    async with node(None) as (url, _):
        rpc = await connect(url, 7)
    with pytest.raises(ChainError, match="cannot be reached"):
        await rpc.send_raw(RAW)
    await rpc.close()
    with pytest.raises(ChainError, match="cannot be reached"):
        await rpc.send_raw(RAW)


async def test_a_node_that_never_answers_is_unknown_after_the_timeout() -> None:
    ended = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        call = await request.json()
        if call["method"] == "eth_sendRawTransaction" or call["method"] == "eth_blockNumber":
            await ended.wait()
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": "0x7"})

    app = web.Application()
    app.router.add_post("/", silent)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rpc = await connect(f"http://127.0.0.1:{runner.addresses[0][1]}/", 7, timeout_s=0.2)
    with pytest.raises(OutcomeUnknown, match="TimeoutError"):
        await rpc.send_raw(RAW)
    with pytest.raises(ChainError, match="does not answer in time"):
        await rpc.call("eth_blockNumber")
    ended.set()
    await rpc.close()
    await runner.cleanup()


async def test_a_dropped_read_is_tried_once_more() -> None:
    async with node(None, drops_reads=1) as (url, asked):
        rpc = await connect(url, 7)
        await rpc.close()
        assert asked == ["eth_chainId", "eth_chainId"]


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:99999999", "127.0.0.1:8545", "http://[::1"])
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="rpc_url is not an address"):
        Rpc(url, 1)
