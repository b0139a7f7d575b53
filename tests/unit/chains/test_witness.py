"""Two providers that must agree: each word of one is held against the other; a send counts when either took it. Scripted."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from agent.chains.rpc import Rpc
from agent.chains.watch import DOUBT_NS, Watch, fetch_head
from agent.chains.witness import RETRY_NS, Witnesses, connect
from agent.domain.errors import ChainError, OutcomeUnknown

HASH = "0x" + "ab" * 32


class Clock:
    """Time that passes with each sleep."""

    def __init__(self) -> None:
        self.now = 1

    def now_ns(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 10**9)


class Node:
    """A chain as one provider tells it: `blocks[n]` is the hash of block n."""

    def __init__(self, blocks: list[str]) -> None:
        self.blocks, self.is_down, self.url = blocks, False, ""
        self.receipts: dict[str, Any] = {}
        self.send: object = HASH
        self.asked: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        call = await request.json()
        self.asked.append(call["method"])
        if self.is_down and request.transport is not None:
            request.transport.abort()
            return web.Response()
        said = self.answer(call["method"], call["params"])
        return web.json_response(
            {"jsonrpc": "2.0", "id": call["id"]} | (said if isinstance(said, dict) and "error" in said else {"result": said})
        )

    def answer(self, method: str, params: list[Any]) -> Any:
        match method:
            case "eth_chainId":
                return "0x7"
            case "eth_sendRawTransaction":
                return self.send
            case "eth_getTransactionReceipt" | "eth_getTransactionByHash":
                return self.receipts.get(params[0])
        number = len(self.blocks) - 1 if params[0] == "latest" else int(params[0], 16)
        if number >= len(self.blocks):
            return None
        fees = {"baseFeePerGas": "0x64", "gasUsed": "0x0", "gasLimit": "0x10", "timestamp": "0x1"}
        return {"number": hex(number), "hash": self.blocks[number], "parentHash": self.blocks[number - 1], **fees}


@contextlib.asynccontextmanager
async def serving(node: Node) -> AsyncIterator[Node]:
    app = web.Application()
    app.router.add_post("/{tail:.*}", node.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    node.url = f"http://127.0.0.1:{runner.addresses[0][1]}/a-secret-key"
    try:
        yield node
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def two(first: list[str], second: list[str]) -> AsyncIterator[tuple[Node, Node, Witnesses, Clock]]:
    clock = Clock()
    async with serving(Node(first)) as one, serving(Node(second)) as other:
        rpc = await connect(one.url, other.url, 7, 1, clock)
        assert isinstance(rpc, Witnesses)
        try:
            yield one, other, rpc, clock
        finally:
            await rpc.close()


LONG = [f"0x{n:064x}" for n in range(20)]
FORKED = [*LONG[:15], *(f"0xff{n:062x}" for n in range(15, 20))]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (LONG, LONG, ""),
        (LONG[:18], LONG, ""),
        (LONG, LONG[:18], ""),
        (LONG[:10], LONG, "10 blocks behind"),
        (LONG, LONG[:10], "10 blocks behind"),
        (LONG, FORKED, "different blocks at height 19"),
        (LONG[:18], FORKED, "different blocks at height 17"),
        (LONG, FORKED[:18], "different blocks at height 17"),
    ],
)
async def test_a_head_is_held_against_the_other(first: list[str], second: list[str], words: str) -> None:
    async with two(first, second) as (one, other, rpc, clock):
        doubt = await rpc.doubt(await fetch_head(rpc, clock))
        assert words in doubt if words else doubt == ""
        assert "secret" not in doubt
        assert rpc.trouble == ""
        assert "eth_getBlockByNumber" in other.asked
        if "behind" in words:
            lagging = one if len(first) < len(second) else other
            assert doubt.startswith(lagging.url.removesuffix("/a-secret-key"))


async def test_a_disagreement_is_waited_out_and_then_refused() -> None:
    async with two(LONG, FORKED) as (one, other, rpc, clock):
        began = clock.now
        with pytest.raises(ChainError, match="different blocks"):
            await Watch(rpc, clock, 0.5).start()
        assert clock.now - began > DOUBT_NS
        other.blocks = list(LONG)
        watch = Watch(rpc, clock, 0.5)
        assert (await watch.start()).number == 19
        one.blocks = [*LONG, "0x" + "14" * 32]
        other.blocks = list(one.blocks)
        assert (await watch.advance()).is_continuous


async def test_one_that_is_away_is_told_and_comes_back() -> None:
    async with two(LONG, LONG) as (one, _, rpc, clock):
        one.is_down = True
        assert (await fetch_head(rpc, clock)).number == 19, "the other serves alone"
        assert one.url.removesuffix("/a-secret-key") in rpc.trouble
        assert "secret" not in rpc.trouble
        assert await rpc.doubt(await fetch_head(rpc, clock)) == ""
        one.is_down = False
        asked = len(one.asked)
        await rpc.doubt(await fetch_head(rpc, clock))
        assert len(one.asked) == asked, "not asked again at once"
        clock.now += RETRY_NS
        assert await rpc.doubt(await fetch_head(rpc, clock)) == ""
        assert rpc.trouble == ""


async def test_both_away_is_an_error() -> None:
    async with two(LONG, LONG) as (one, other, rpc, clock):
        one.is_down = other.is_down = True
        with pytest.raises(ChainError, match="cannot be reached"):
            await fetch_head(rpc, clock)
        with pytest.raises(ChainError, match="; and http"):
            await rpc.open()


TAKEN, NO = HASH, {"error": {"code": -32000, "message": "insufficient funds"}}
PERHAPS = {"error": {"code": -32000, "message": "internal error"}}


@pytest.mark.parametrize(("first", "second"), [(TAKEN, TAKEN), (TAKEN, NO), (NO, TAKEN), (PERHAPS, TAKEN)])
async def test_taken_by_either_is_taken(first: object, second: object) -> None:
    async with two(LONG, LONG) as (one, other, rpc, _):
        one.send, other.send = first, second
        assert await rpc.send_raw(b"\x02") == HASH
        assert one.asked.count("eth_sendRawTransaction") == other.asked.count("eth_sendRawTransaction") == 1


async def test_refused_only_by_both_and_in_doubt_else() -> None:
    async with two(LONG, LONG) as (one, other, rpc, _):
        one.send = other.send = NO
        with pytest.raises(ChainError, match="insufficient funds"):
            await rpc.send_raw(b"\x02")
        for first, second in ((NO, PERHAPS), (PERHAPS, NO), (PERHAPS, PERHAPS)):
            one.send, other.send = first, second
            with pytest.raises(OutcomeUnknown):
                await rpc.send_raw(b"\x02")
        one.is_down = True  # hung up after the bytes had left: nobody knows
        other.send = NO
        with pytest.raises(OutcomeUnknown):
            await rpc.send_raw(b"\x02")


async def test_a_receipt_is_disputed_by_another_block_and_not_by_silence() -> None:
    async with two(LONG, LONG) as (_, other, rpc, _clock):
        assert not await rpc.disputes(HASH, 19, LONG[19])
        assert not await rpc.disputes(HASH, 25, "0x" + "25" * 32), "too young for it"
        assert await rpc.disputes(HASH, 19, FORKED[19])
        other.receipts[HASH] = {"blockHash": FORKED[19]}
        assert await rpc.disputes(HASH, 19, LONG[19])
        assert not await rpc.disputes(HASH, 19, FORKED[19])


async def test_that_nobody_knows_a_transaction_takes_both() -> None:
    async with two(LONG, LONG) as (_, other, rpc, _clock):
        assert await rpc.denies((HASH,))
        other.receipts[HASH] = {"blockHash": LONG[3]}
        assert not await rpc.denies(("0x01", HASH))
        other.is_down = True
        assert not await rpc.denies(("0x01",)), "it cannot be asked"
        assert not await rpc.denies(("0x01",))


async def test_one_address_is_one_connection() -> None:
    async with serving(Node(LONG)) as node:
        rpc = await connect(node.url, "", 7, 1, Clock())
        assert isinstance(rpc, Rpc)
        await rpc.close()
