"""The sandbox's chain as a trader meets it: the same world on Anvil and on eth-tester, real contracts, honest prices."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from agent.simulation.chain.arbitrage import arbitrage_once, keep_pools_near, read_pools
from agent.simulation.chain.artifacts import data_dir
from agent.simulation.chain.deploy import MULTICALL3, PERMIT2
from agent.simulation.chain.deployment import Deployment, Pool, load_deployment
from agent.simulation.chain.pools import start_price_cents, tick_at
from agent.simulation.chain.rpc import Rpc, RpcError, Sender, calldata, dev_account
from agent.simulation.chain.shape import DEPTH_ETH
from agent.simulation.chain.world import SandboxChain, ensure_world, start_chain

pytestmark = pytest.mark.chain
TRADER = 5
ETH = 10**18
FOREVER_S = 2**40
MAX_160, MAX_48, MAX_256 = 2**160 - 1, 2**48 - 1, 2**256 - 1
POOL_KEY = "(address,address,uint24,int24,address)"
USER = "0x00000000000000000000000000000000000000AA"


class World:
    """A running chain, and a snapshot to come back to after each test."""

    def __init__(self, chain: SandboxChain) -> None:
        self.chain, self.book = chain, chain.deployment
        self.rpc = Rpc(chain.rpc_url)
        self.weth, self.usdt = self.book.tokens["WETH"].address, self.book.tokens["USDT"].address

    def balance(self, token: str, owner: str) -> int:
        return int.from_bytes(self.rpc.read(token, "balanceOf(address)", owner), "big")

    def fund(self, address: str, amounts: dict[str, str]) -> None:
        asyncio.run(self.chain.fund(address, amounts))


@pytest.fixture(scope="session", params=["anvil", "eth-tester"])
def started(request: pytest.FixtureRequest) -> Iterator[World]:
    chain = asyncio.run(start_chain(request.param))
    world = World(chain)
    yield world
    world.rpc.close()
    asyncio.run(chain.stop())


@pytest.fixture
def world(started: World) -> Iterator[World]:
    snapshot = asyncio.run(started.chain.snapshot())
    yield started
    asyncio.run(started.chain.revert(snapshot))


@pytest.fixture
def trader(world: World) -> Sender:
    """A funded account that has approved the UniversalRouter through Permit2."""
    sender = Sender(world.rpc, dev_account(TRADER))
    world.fund(sender.address, {"WETH": "200", "USDT": "500000"})
    for token in (world.weth, world.usdt):
        sender.invoke(token, "approve(address,uint256)", PERMIT2, MAX_256)
        grant = (token, world.book.contracts["UniversalRouter"], MAX_160, MAX_48)
        sender.invoke(PERMIT2, "approve(address,address,uint160,uint48)", *grant)
    sender.settle()
    return sender


def test_addresses_are_those_of_the_committed_book(started: World) -> None:
    committed = load_deployment(31337)
    assert msgspec.structs.replace(started.book, chain_id=31337) == committed
    assert int(started.rpc.call("eth_chainId"), 16) == started.book.chain_id == int(started.rpc.call("net_version"))
    for address in [*committed.contracts.values(), *(pool.address for pool in committed.pools if pool.address)]:
        assert len(started.rpc.call("eth_getCode", address, "latest")) > 2, address


def test_permit2_is_the_public_one(started: World) -> None:
    assert started.book.contracts["Permit2"] == PERMIT2
    type_hash = keccak(text="EIP712Domain(string name,uint256 chainId,address verifyingContract)")
    fields = [type_hash, keccak(text="Permit2"), started.book.chain_id, PERMIT2]
    domain = keccak(encode(["bytes32", "bytes32", "uint256", "address"], fields))
    assert started.rpc.read(PERMIT2, "DOMAIN_SEPARATOR()") == domain


def test_multicall_is_also_at_its_usual_address_on_anvil(started: World) -> None:
    if started.chain.kind != "anvil":
        pytest.skip("eth-tester cannot put code at an address")
    assert started.rpc.call("eth_getCode", MULTICALL3, "latest") == started.rpc.call(
        "eth_getCode", started.book.contracts["Multicall3"], "latest"
    )


def test_loading_the_built_world_is_fast() -> None:
    ensure_world()
    began = time.monotonic()
    chain = asyncio.run(start_chain("anvil"))
    took_s = time.monotonic() - began
    asyncio.run(chain.stop())
    assert took_s < 3  # 0.05 s on an idle machine


@pytest.mark.parametrize("name", ["v2-3000", "v3-500", "v3-3000", "v3-10000", "v4-500", "v4-3000"])
@pytest.mark.parametrize("sell_weth", [True, False])
def test_a_swap_through_the_universal_router_pays_what_was_quoted(world: World, trader: Sender, name: str, sell_weth: bool) -> None:
    pool = world.book.pool(name)
    token_in, token_out = (world.weth, world.usdt) if sell_weth else (world.usdt, world.weth)
    amount_in = 7 * ETH if sell_weth else 20_000 * 10**6
    quoted = quote(world, pool, token_in, amount_in)
    had_in, had_out = world.balance(token_in, trader.address), world.balance(token_out, trader.address)
    command, data = swap_command(pool, trader.address, token_in, token_out, amount_in, quoted)
    router = world.book.contracts["UniversalRouter"]
    trader.invoke(router, "execute(bytes,bytes[],uint256)", command, [data], FOREVER_S, gas=800_000)
    trader.settle()
    assert world.balance(token_out, trader.address) - had_out == quoted > 0
    assert had_in - world.balance(token_in, trader.address) == amount_in


def test_depth_is_as_stated(world: World) -> None:
    for name, size in DEPTH_ETH.items():
        pool, start = world.book.pool(name), start_price_cents(name) * 10**4
        out = quote(world, pool, world.weth, size * ETH)
        fair = size * start * (1_000_000 - pool.fee_pips) // 1_000_000
        assert 40 <= (fair - out) * 100_000 // fair <= 60, name  # half of the 10 bps that it moves the price
    both = quote(world, world.book.pool("v2-3000"), world.weth, 40 * ETH)
    assert both < 40 * start_price_cents("v2-3000") * 10**4 * 984 // 1000


def test_the_tight_pool_has_twenty_initialised_ticks_around_the_price(world: World) -> None:
    pool = world.book.pool("v3-500")
    tick = tick_at(read_pools(world.rpc, world.book)[1].sqrt_price)
    word = (tick // pool.tick_spacing) >> 8
    found = 0
    for index in range(word - 3, word + 4):
        raw = world.rpc.read(world.book.contracts["TickLens"], "getPopulatedTicksInWord(address,int16)", pool.address, index)
        found += len(decode(["(int24,int128,uint128)[]"], raw)[0])
    assert found >= 20


def test_the_sandbox_tether_has_the_habits_of_usdt(world: World, trader: Sender) -> None:
    move = {"from": trader.address, "to": world.usdt, "data": calldata("transfer(address,uint256)", USER, 5)}
    assert world.rpc.call("eth_call", move, "latest") == "0x"
    approve = {"from": trader.address, "to": world.usdt, "data": calldata("approve(address,uint256)", PERMIT2, 5)}
    with pytest.raises(RpcError) as caught:  # the trader has a non-zero allowance already
        world.rpc.call("eth_call", approve, "latest")
    assert caught.value.code == 3
    assert caught.value.data == calldata("AllowanceNotZero(address,uint256)", PERMIT2, MAX_256)
    dollar = {"from": trader.address, "to": world.book.tokens["USDC"].address}
    dollar["data"] = calldata("approve(address,uint256)", USER, 5)
    assert int(world.rpc.call("eth_call", dollar, "latest"), 16) == 1


def test_a_revert_string_comes_with_its_payload(world: World) -> None:
    call = {"from": USER, "to": world.book.contracts["UniswapV2Router02"]}
    path = [world.weth, world.usdt]
    call["data"] = calldata("getAmountsOut(uint256,address[])", 0, path)
    with pytest.raises(RpcError) as caught:
        world.rpc.call("eth_call", call, "latest")
    assert caught.value.code == 3
    assert caught.value.data == calldata("Error(string)", "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT")
    assert "INSUFFICIENT_INPUT_AMOUNT" in caught.value.message


def test_funding_gives_what_was_asked_for(world: World) -> None:
    world.fund(USER, {"ETH": "1.5", "WETH": "0.25", "USDT": "100.5", "USDC": "3"})
    assert int(world.rpc.call("eth_getBalance", USER, "latest"), 16) == 15 * ETH // 10
    amounts = [world.balance(token.address, USER) for token in world.book.tokens.values()]
    assert amounts == [ETH // 4, 100_500_000, 3_000_000]
    with pytest.raises(ValueError, match="DOGE"):
        world.fund(USER, {"DOGE": "1"})


def test_a_client_sees_the_same_json_on_both_chains(world: World, trader: Sender) -> None:
    trader.invoke(world.weth, "deposit()", value=1)
    trader.settle()
    block = world.rpc.call("eth_getBlockByNumber", "latest", True)
    for key in ("number", "timestamp", "baseFeePerGas", "gasUsed", "gasLimit"):
        assert int(block[key], 16) >= 0
    assert len(block["logsBloom"]) == 514
    assert abs(int(block["timestamp"], 16) - time.time()) < 60
    sent = block["transactions"][0]
    receipt = world.rpc.call("eth_getTransactionReceipt", sent["hash"])
    assert sent["blockHash"] == receipt["blockHash"] == block["hash"]
    assert sent["from"].lower() == trader.address.lower()
    assert receipt["status"] == "0x1"
    (log,) = world.rpc.call("eth_getLogs", {"fromBlock": block["number"], "toBlock": block["number"]})
    assert log["removed"] is False
    assert (log["transactionHash"], log["logIndex"]) == (sent["hash"], "0x0")
    history = world.rpc.call("eth_feeHistory", "0x2", "latest", [50])
    assert len(history["baseFeePerGas"]) == 3
    assert len(history["reward"]) == 2
    before = hex(int(block["number"], 16) - 1)
    supply = calldata("totalSupply()")
    then, now = world.rpc.batch([("eth_call", [{"to": world.weth, "data": supply}, at]) for at in (before, "latest")])
    assert int(now, 16) - int(then, 16) == 1
    assert world.rpc.call("eth_getTransactionReceipt", "0x" + "11" * 32) is None
    with pytest.raises(RpcError) as caught:
        world.rpc.call("no_such_method")
    assert caught.value.code == -32601
    trader.nonce -= 1
    trader.invoke(world.weth, "deposit()", value=1)
    with pytest.raises(RpcError, match=r"(?i)nonce"):
        trader.settle()


def test_logs_are_numbered_through_a_block() -> None:
    chain = asyncio.run(start_chain("eth-tester", block_time_s=0.2))
    try:
        asyncio.run(chain.fund(USER, {"WETH": "1", "USDT": "1"}))
        rpc = Rpc(chain.rpc_url)
        last = int(rpc.call("eth_blockNumber"), 16)
        logs = rpc.call("eth_getLogs", {"fromBlock": hex(last - 3), "toBlock": "latest"})
        rpc.close()
        assert len(logs) >= 3
        assert len({(log["blockHash"], log["logIndex"]) for log in logs}) == len(logs)
    finally:
        asyncio.run(chain.stop())


@pytest.mark.parametrize("mid", [2720.0, 2600.0])
def test_the_arbitrageur_brings_every_pool_to_the_edge_of_its_band(world: World, mid: float) -> None:
    arbitrage_once(world.rpc, world.book, mid)
    for pool, state in zip(world.book.pools, read_pools(world.rpc, world.book), strict=True):
        price = (state.sqrt_price / 2**96) ** 2 * (10**12 if pool.currency0 == world.weth else 1)
        price = price if pool.currency0 == world.weth else 10**12 / price
        fee = pool.fee_pips / 1e6
        assert 1 - fee - 1e-4 < price / mid < 1 / (1 - fee) + 1e-4, pool.name
    assert arbitrage_once(world.rpc, world.book, mid) == []


async def test_the_arbitrageur_runs_until_it_is_cancelled() -> None:
    async with await start_chain("anvil") as chain:
        prices = iter([float("nan"), 2683.8])
        task = asyncio.create_task(keep_pools_near(lambda: next(prices, 2720.0), chain.rpc_url, chain.deployment, every_s=0.01))
        rpc = Rpc(chain.rpc_url)
        start = read_pools(rpc, chain.deployment)[1].sqrt_price
        async with asyncio.timeout(20):
            while read_pools(rpc, chain.deployment)[1].sqrt_price == start:  # noqa: ASYNC110  # the chain has no event
                await asyncio.sleep(0.01)
        rpc.close()
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
def test_a_chain_dies_with_its_parent() -> None:
    program = (
        "import os, sys\n"
        "from agent.simulation.chain.anvil import start_anvil\n"
        "child = start_anvil()\n"
        "sys.stdout.write(child.url)\n"
        "sys.stdout.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("http://127.0.0.1:")
    deadline = time.monotonic() + 20
    while (alive := answers(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive


def test_the_committed_book_is_found_from_the_package() -> None:
    assert (data_dir("deployments") / "31337.json").exists()


def answers(url: str) -> bool:
    rpc = Rpc(url)
    try:
        rpc.call("eth_chainId")
    except OSError:
        return False
    finally:
        rpc.close()
    return True


def quote(world: World, pool: Pool, token_in: str, amount_in: int) -> int:
    """What the chain's own quoting contract says."""
    contracts = world.book.contracts
    token_out = world.usdt if token_in == world.weth else world.weth
    if pool.protocol == "v2":
        asked = (amount_in, [token_in, token_out])
        raw = world.rpc.read(contracts["UniswapV2Router02"], "getAmountsOut(uint256,address[])", *asked)
        return int(decode(["uint256[]"], raw)[0][-1])
    if pool.protocol == "v3":
        signature = "quoteExactInputSingle((address,address,uint256,uint24,uint160))"
        raw = world.rpc.read(contracts["QuoterV2"], signature, (token_in, token_out, amount_in, pool.fee_pips, 0))
    else:
        signature = f"quoteExactInputSingle(({POOL_KEY},bool,uint128,bytes))"
        raw = world.rpc.read(contracts["V4Quoter"], signature, (key_of(pool), token_in == pool.currency0, amount_in, b""))
    return int.from_bytes(raw[:32], "big")


def swap_command(pool: Pool, owner: str, token_in: str, token_out: str, amount_in: int, least: int) -> tuple[bytes, bytes]:
    """UniversalRouter command and its argument: V3_SWAP_EXACT_IN 0x00, V2_SWAP_EXACT_IN 0x08, V4_SWAP 0x10."""
    if pool.protocol == "v2":
        types = ["address", "uint256", "uint256", "address[]", "bool"]
        return b"\x08", encode(types, [owner, amount_in, least, [token_in, token_out], True])
    if pool.protocol == "v3":
        path = bytes.fromhex(token_in[2:]) + pool.fee_pips.to_bytes(3, "big") + bytes.fromhex(token_out[2:])
        return b"\x00", encode(["address", "uint256", "uint256", "bytes", "bool"], [owner, amount_in, least, path, True])
    single = (key_of(pool), token_in == pool.currency0, amount_in, least, b"")
    steps = [
        encode([f"({POOL_KEY},bool,uint128,uint128,bytes)"], [single]),
        encode(["address", "uint256"], [token_in, MAX_256]),
        encode(["address", "uint256"], [token_out, least]),
    ]
    return b"\x10", encode(["bytes", "bytes[]"], [bytes([0x06, 0x0C, 0x0F]), steps])


def key_of(pool: Pool) -> tuple[str, str, int, int, str]:
    return pool.currency0, pool.currency1, pool.fee_pips, pool.tick_spacing, pool.hooks


def test_pool_ids_follow_from_their_keys() -> None:
    book: Deployment = load_deployment(31337)
    for pool in book.pools:
        if pool.protocol == "v4":
            packed = encode(["address", "address", "uint24", "int24", "address"], list(key_of(pool)))
            assert pool.pool_id == "0x" + keccak(packed).hex()
