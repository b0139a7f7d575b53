"""Following a chain: new blocks, missed blocks, rewritten blocks, lagging nodes. Against a scripted node on loopback."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from agent.chains.rpc import connect
from agent.chains.watch import BEHIND_MAX, Watch


class Clock:
    """Time that passes at once."""

    def now_ns(self) -> int:
        return 1

    async def sleep(self, seconds: float) -> None:
        return


class Chain:
    """Blocks by number as the node has them, and the order in which it shows its newest."""

    def __init__(self) -> None:
        self.blocks: dict[int, tuple[str, str]] = {}
        self.shown: list[tuple[int, str]] = []

    def grow(self, *names: str, start: int = 1) -> None:
        """Blocks named in order; each is a child of the one before it in the list."""
        parent = self.blocks.get(start - 1, ("none", ""))[0]
        for number, name in enumerate(names, start):
            self.blocks[number] = (name, parent)
            parent = name
        self.show(start + len(names) - 1)

    def show(self, number: int, times: int = 1) -> None:
        self.shown += [(number, self.blocks[number][0])] * times

    def answer(self, method: str, params: list[object]) -> object:
        if method == "eth_chainId":
            return "0x7"
        if params[0] == "latest":
            number, _ = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        else:
            number = int(str(params[0]), 16)
        name, parent = self.blocks[number]
        fees = {"baseFeePerGas": "0x64", "gasUsed": "0x0", "gasLimit": "0x10"}
        return {"number": hex(number), "hash": name, "parentHash": parent, "timestamp": hex(number), **fees}


@contextlib.asynccontextmanager
async def watching(chain: Chain) -> AsyncIterator[Watch]:
    async def serve(request: web.Request) -> web.Response:
        call = await request.json()
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": chain.answer(call["method"], call["params"])})

    app = web.Application()
    app.router.add_post("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rpc = await connect(f"http://127.0.0.1:{runner.addresses[0][1]}/", 7)
    try:
        yield Watch(rpc, Clock(), 0.25)
    finally:
        await rpc.close()
        await runner.cleanup()


async def test_a_new_block_follows_and_the_same_one_is_no_news() -> None:
    chain = Chain()
    chain.grow("a")
    async with watching(chain) as watch:
        head = await watch.start()
        assert (head.number, head.hash, head.base_fee) == (1, "a", 88)
        chain.show(1, times=3)
        chain.grow("b", start=2)
        step = await watch.advance()
    assert (step.head.hash, step.first, step.is_continuous) == ("b", 2, True)


async def test_missed_blocks_are_named() -> None:
    chain = Chain()
    chain.grow("a")
    async with watching(chain) as watch:
        await watch.start()
        chain.grow("b", "c", "d", start=2)
        step = await watch.advance()
    assert (step.head.number, step.first, step.is_continuous, step.kept) == (4, 2, True, 1)


async def test_a_rewritten_block_breaks_continuity_at_the_same_height() -> None:
    chain = Chain()
    chain.grow("a", "b")
    async with watching(chain) as watch:
        await watch.start()
        chain.grow("b2", start=2)
        step = await watch.advance()
    assert (step.head.hash, step.is_continuous) == ("b2", False)


async def test_a_rewritten_parent_breaks_it_too_even_with_blocks_missed() -> None:
    for names in (("b2", "c2"), ("b2", "c2", "d2", "e2")):
        chain = Chain()
        chain.grow("a", "b")
        async with watching(chain) as watch:
            await watch.start()
            chain.shown.clear()
            chain.grow(*names, start=2)
            step = await watch.advance()
        assert (step.head.hash, step.is_continuous) == (names[-1], False)


@pytest.mark.parametrize("depth", [1, 2, 7, 64])
async def test_the_block_where_two_histories_part_is_found(depth: int) -> None:
    chain, names = Chain(), [f"a{n}" for n in range(1, 101)]
    async with watching(chain) as watch:
        chain.grow(names[0])
        await watch.start()
        for number in range(2, 101):
            chain.grow(names[number - 1], start=number)
            await watch.advance()
        chain.shown.clear()
        chain.grow(*(f"b{n}" for n in range(depth + 1)), start=101 - depth)
        step = await watch.advance()
    assert (step.head.number, step.is_continuous, step.kept) == (101, False, 100 - depth)


async def test_nothing_is_known_to_be_kept_below_what_is_remembered() -> None:
    chain = Chain()
    async with watching(chain) as watch:
        chain.grow("a1", "a2", "a3")
        await watch.start()
        chain.grow("a4", start=4)
        await watch.advance()
        chain.shown.clear()
        chain.grow("b2", "b3", "b4", start=2)
        assert (await watch.advance()).kept == -1


async def test_a_lagging_node_is_waited_for_but_not_for_ever() -> None:
    chain = Chain()
    chain.grow("a")
    async with watching(chain) as watch:
        await watch.start()
        chain.grow("b", start=2)
        await watch.advance()
        chain.show(1, times=3)
        chain.grow("c", start=3)
        step = await watch.advance()
        assert (step.head.hash, step.is_continuous) == ("c", True)
        chain.show(3)
        chain.show(1, times=BEHIND_MAX + 5)
        step = await watch.advance()
    assert (step.head.hash, step.is_continuous) == ("a", False)
