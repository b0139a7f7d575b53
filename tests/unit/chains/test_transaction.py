"""What a transaction says, from its bytes and from a node; who used a number; what a node may answer to a rehearsal."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from eth_account import Account

from agent.chains.rpc import Rpc, connect
from agent.chains.transaction import Message, fetch_transaction, parse_raw, parse_transaction, simulate, user_of
from agent.domain.errors import ChainError

WALLET, TO = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23", "0x" + "a1" * 20
KEY = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"


def signed(**changes: Any) -> bytes:
    fields = {
        "type": 2, "chainId": 7, "nonce": 300, "gas": 22_000, "to": WALLET, "value": 0, "data": "0x",
        "maxFeePerGas": 10**9, "maxPriorityFeePerGas": 1, **changes,
    }  # fmt: skip
    return bytes(Account.from_key(KEY).sign_transaction(fields).raw_transaction)


def test_what_the_bytes_say() -> None:
    nothing = parse_raw(signed())
    assert nothing == Message(300, 22_000, WALLET.lower(), 0, b"")
    assert nothing.is_nothing_for(WALLET)
    for changes in ({"value": 1}, {"data": "0x01"}, {"to": "0x" + "11" * 20}):
        assert not parse_raw(signed(**changes)).is_nothing_for(WALLET)
    assert parse_raw(signed(nonce=0, value=2**100, data="0x" + "ab" * 600)) == Message(
        0, 22_000, WALLET.lower(), 2**100, b"\xab" * 600
    )


@pytest.mark.parametrize(
    "raw", [b"", b"\x02", b"\x01\xc0", b"\x02\xc0", b"\x02\x80", b"\xf8\x01", signed()[:-1], b"\x03" + signed()[1:]]
)
def test_bytes_that_are_no_such_transaction(raw: bytes) -> None:
    with pytest.raises(ChainError, match="not the signed bytes"):
        parse_raw(raw)


def test_what_a_node_says() -> None:
    found = {"nonce": "0x1", "gas": "0x5208", "to": None, "value": "0x0", "input": "0x6001"}
    assert parse_transaction(found) == Message(1, 21_000, "", 0, b"\x60\x01")
    with pytest.raises(ChainError, match="lacks nonce"):
        parse_transaction({"gas": "0x1"})


@contextlib.asynccontextmanager
async def node(answer: Callable[[str, list[Any]], Any]) -> AsyncIterator[Rpc]:
    async def serve(request: web.Request) -> web.Response:
        call = await request.json()
        said = "0x7" if call["method"] == "eth_chainId" else answer(call["method"], call["params"])
        body = said if isinstance(said, dict) and "error" in said else {"result": said}
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], **body})

    app = web.Application()
    app.router.add_post("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rpc = await connect(f"http://127.0.0.1:{runner.addresses[0][1]}/", 7)
    try:
        yield rpc
    finally:
        await rpc.close()
        await runner.cleanup()


def history(used_in: dict[int, int], *, oldest: int = 0, hides: bool = False) -> Callable[[str, list[Any]], Any]:
    """A wallet whose transaction n is in block `used_in[n]`; state before `oldest` is pruned."""

    def answer(method: str, params: list[Any]) -> Any:
        if method == "eth_getTransactionCount":
            block = int(params[1], 16)
            if block < oldest:
                return {"error": {"code": -32000, "message": "missing trie node"}}
            return hex(sum(place <= block for place in used_in.values()))
        block = int(params[0], 16)
        bodies = [{"from": WALLET.lower(), "nonce": hex(n), "hash": f"0xT{n}"} for n, place in used_in.items() if place == block]
        return {"hash": "0x1", "transactions": [] if hides else [{"from": TO, "nonce": "0x3", "hash": "0xNO"}, *bodies]}

    return answer


@pytest.mark.parametrize("oldest", [0, 900, 990])
async def test_who_used_a_number_is_found_in_the_body_of_a_block(oldest: int) -> None:
    used_in = {0: 5, 1: 700, 2: 991, 3: 991, 4: 999}
    async with node(history(used_in, oldest=oldest)) as rpc:
        for nonce, block in used_in.items():
            expected = (f"0xt{nonce}", block) if block >= oldest else ("", 0)
            assert await user_of(rpc, WALLET, nonce, 1_000) == expected
        assert await user_of(rpc, WALLET, 5, 1_000) == ("", 0), "nobody yet"
        assert await user_of(rpc, WALLET, 4, 998) == ("", 0), "nobody until then"


async def test_a_body_that_does_not_hold_it_proves_nothing() -> None:
    async with node(history({0: 10}, hides=True)) as rpc:
        assert await user_of(rpc, WALLET, 0, 20) == ("", 0)
    async with node(history({0: 0})) as rpc:
        assert await user_of(rpc, WALLET, 0, 20) == ("0xt0", 0), "the first block of all"


REVERT = "0x08c379a0" + f"{32:064x}{3:064x}" + b"why".hex().ljust(64, "0")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("0x", ""),
        ({"error": {"code": 3, "message": "execution reverted: why", "data": REVERT}}, "why"),
        ({"error": {"code": -32000, "message": "execution reverted", "data": {"data": REVERT}}}, "why"),
        ({"error": {"code": -32000, "message": "execution reverted"}}, "execution reverted"),
        ({"error": {"code": -32005, "message": "rate limited"}}, None),
        ({"error": {"code": -32000, "message": "missing trie node"}}, None),
    ],
)
async def test_a_rehearsal_tells_a_revert_from_a_node_that_cannot(answer: Any, expected: str | None) -> None:
    asked: list[Any] = []

    def said(method: str, params: list[Any]) -> Any:
        asked.append((method, params))
        return answer

    async with node(said) as rpc:
        found = await simulate(rpc, WALLET, Message(3, 50_000, TO, 5, b"\x01"), 12)
        assert found is None if expected is None else expected in str(found)
        assert found != "" or expected == ""
    call = {"from": WALLET, "to": TO, "data": "0x01", "value": "0x5", "gas": "0xc350"}
    assert asked == [("eth_call", [call, "0xc"])]


async def test_a_transaction_that_waits_and_one_that_nobody_knows() -> None:
    said = {"nonce": "0x1", "gas": "0x5208", "to": TO, "value": "0x0", "input": "0x", "blockNumber": None}
    async with node(lambda _, params: said if params[0] == "0x1" else None) as rpc:
        assert await fetch_transaction(rpc, "0x1") == (Message(1, 21_000, TO, 0, b""), False)
        assert await fetch_transaction(rpc, "0x2") is None
