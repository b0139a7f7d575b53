"""Python equals the deployed contracts by `==`: thousands of random swaps on Anvil, each compared amount by amount and
state by state.

The first state of every pool is read from the chain (reserves, TickLens, StateView), never derived from our own
maths; from there Python carries its state forward and every Swap event must agree with it. Swaps are mined in large
blocks, which keeps this fast.
"""

import json
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from agent.domain.errors import LiquidityError
from agent.liquidity.concentrated import AMOUNT_MAX, Concentrated, checked, swap
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.quote import Quote
from agent.liquidity.tick_math import (
    SQRT_PRICE_MAX_X96,
    SQRT_PRICE_MIN_X96,
    TICK_MAX,
    TICK_MIN,
    sqrt_price_at_tick,
    tick_at_sqrt_price,
)
from agent.simulation.chain.anvil import start_anvil
from agent.simulation.chain.artifacts import Artifact, read_texts, tarball, third_party
from agent.simulation.chain.rpc import Rpc, calldata, created_address

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

SWAPS, SWAPS_NIGHTLY = 2_000, 20_000
BLOCK_SWAPS = 250
FOREVER = 1 << 40
ZERO = "0x" + "00" * 20
SUPPLY = 1 << 250
V4_CORE = "@uniswap/v4-core@1.0.2"
KEY = "(address,address,uint24,int24,address)"
V2_SWAP_TOPIC = "0x" + keccak(text="Swap(address,uint256,uint256,uint256,uint256,address)").hex()
V2_SYNC_TOPIC = "0x" + keccak(text="Sync(uint112,uint112)").hex()
V3_SWAP_TOPIC = "0x" + keccak(text="Swap(address,address,int256,int256,uint160,uint128,int24)").hex()
V4_SWAP_TOPIC = "0x" + keccak(text="Swap(bytes32,address,int128,int128,uint160,uint128,int24,uint24)").hex()


class Sent(NamedTuple):
    """One swap on its way: where to, with what data, and what Python says about it (None: it must revert)."""

    to: str
    data: str
    expected: Quote | None
    zero_for_one: bool


class World:
    """An Anvil that mines on command, one unlocked trader, two tokens."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.trader = str(rpc.call("eth_accounts")[0])
        self.nonce = 0
        erc20 = _artifact("@uniswap/v2-core@1.0.1", "build/ERC20.json")
        tokens = [self.deploy(erc20, ["uint256"], SUPPLY) for _ in range(2)]
        self.token_0, self.token_1 = sorted(tokens, key=lambda address: int(address, 16))

    def transactions(self, calls: list[tuple[str | None, str]]) -> list[dict[str, Any]]:
        """Send all in nonce order, mine one block, return the receipts in the same order."""
        requests: list[tuple[str, list[Any]]] = []
        for to, data in calls:
            fields = {"from": self.trader, "nonce": hex(self.nonce), "gas": hex(60_000_000), "data": data}
            requests.append(("eth_sendTransaction", [fields | ({"to": to} if to else {})]))
            self.nonce += 1
        hashes = self.rpc.batch(requests)
        self.rpc.call("evm_mine")
        receipts = self.rpc.call("eth_getBlockReceipts", "latest")
        assert [receipt["transactionHash"] for receipt in receipts] == hashes
        found: list[dict[str, Any]] = receipts
        return found

    def deploy(self, artifact: Artifact, types: list[str], *args: Any) -> str:
        address = created_address(self.trader, self.nonce)
        (receipt,) = self.transactions([(None, artifact.bytecode + encode(types, args).hex())])
        assert receipt["status"] == "0x1"
        return address

    def invoke(self, to: str, signature: str, *args: Any) -> None:
        (receipt,) = self.transactions([(to, calldata(signature, *args))])
        assert receipt["status"] == "0x1", signature

    def approve(self, *spenders: str) -> None:
        for spender in spenders:
            for token in (self.token_0, self.token_1):
                self.invoke(token, "approve(address,uint256)", spender, (1 << 256) - 1)

    def read(self, types: list[str], to: str, signature: str, *args: Any) -> tuple[Any, ...]:
        return tuple(decode(types, self.rpc.read(to, signature, *args)))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    child = start_anvil(extra=("--no-mining", "--disable-block-gas-limit"))
    rpc = Rpc(child.url, timeout_s=300)
    yield World(rpc)
    rpc.close()
    child.stop()


@pytest.fixture
def swaps(request: pytest.FixtureRequest) -> int:
    return SWAPS_NIGHTLY if request.config.getoption("--nightly", default=False) else SWAPS


def test_v2_equals_router_and_pair(world: World, swaps: int) -> None:
    rng = random.Random(2)
    factory = world.deploy(third_party("UniswapV2Factory"), ["address"], world.trader)
    router = world.deploy(third_party("UniswapV2Router02"), ["address", "address"], factory, ZERO)
    world.approve(router)
    tokens = (world.token_0, world.token_1)
    world.invoke(factory, "createPair(address,address)", *tokens)
    (pair,) = world.read(["address"], factory, "getPair(address,address)", *tokens)
    done = reverts = 0
    while done < swaps:
        # A new mix of reserves now and then: donate to one side of the pair and sync it in.
        gifts = [int(10 ** rng.uniform(3, 27)) for _ in tokens]
        for token, gift in zip(tokens, gifts, strict=True):
            world.invoke(token, "transfer(address,uint256)", pair, gift)
        supply = world.read(["uint256"], pair, "totalSupply()")[0]
        world.invoke(pair, "sync()" if supply else "mint(address)", *([] if supply else [world.trader]))
        reserve_0, reserve_1, _ = world.read(["uint112", "uint112", "uint32"], pair, "getReserves()")
        batch = _v2_batch(rng, ConstantProduct(reserve_0, reserve_1), router, tokens, world.trader)
        receipts = world.transactions([(sent.to, sent.data) for sent in batch])
        for sent, receipt in zip(batch, receipts, strict=True):
            _check_v2(sent, receipt)
        done += sum(sent.expected is not None for sent in batch)
        reverts += sum(sent.expected is None for sent in batch)
    assert done >= swaps
    assert reverts > 10


def _v2_batch(rng: random.Random, pool: ConstantProduct, router: str, tokens: tuple[str, str], trader: str) -> list[Sent]:
    batch = []
    for _ in range(BLOCK_SWAPS):
        zero_for_one, exact_in = rng.random() < 0.5, rng.random() < 0.5
        reserve = (pool.reserve_0, pool.reserve_1)[zero_for_one != exact_in]
        amount = max(1, int(reserve * 10 ** rng.uniform(-9, 0.7))) if rng.random() < 0.9 else rng.randint(1, 50)
        path = list(tokens if zero_for_one else tokens[::-1])
        try:
            expected = pool.swap_in(amount, zero_for_one) if exact_in else pool.swap_out(amount, zero_for_one)
            pool = expected.after  # type: ignore[assignment]
        except LiquidityError:
            expected = None
        name = "swapExactTokensForTokens" if exact_in else "swapTokensForExactTokens"
        bound = 0 if exact_in else SUPPLY
        data = calldata(f"{name}(uint256,uint256,address[],address,uint256)", amount, bound, path, trader, FOREVER)
        batch.append(Sent(router, data, expected, zero_for_one))
    return batch


def _check_v2(sent: Sent, receipt: dict[str, Any]) -> None:
    if sent.expected is None:
        assert receipt["status"] == "0x0"
        return
    assert receipt["status"] == "0x1"
    in_0, in_1, out_0, out_1 = decode(["uint256"] * 4, _event(receipt, V2_SWAP_TOPIC))
    reserves = decode(["uint112", "uint112"], _event(receipt, V2_SYNC_TOPIC))
    paid, received = sent.expected.amount_in, sent.expected.amount_out
    assert (in_0, in_1, out_0, out_1) == ((paid, 0, 0, received) if sent.zero_for_one else (0, paid, received, 0))
    after = sent.expected.after
    assert isinstance(after, ConstantProduct)
    assert reserves == (after.reserve_0, after.reserve_1)


def test_v3_equals_pool(world: World, swaps: int) -> None:
    rng = random.Random(3)
    factory = world.deploy(third_party("UniswapV3Factory"), [])
    manager = world.deploy(third_party("NonfungiblePositionManager"), ["address", "address", "address"], factory, ZERO, ZERO)
    router = world.deploy(third_party("SwapRouter"), ["address", "address"], factory, ZERO)
    lens = world.deploy(third_party("TickLens"), [])
    world.approve(manager, router)
    world.invoke(factory, "enableFeeAmount(uint24,int24)", 100, 1)
    world.invoke(factory, "enableFeeAmount(uint24,int24)", 54_321, 7)
    done = 0
    for fee_pips, spacing, share in ((500, 10, 0.27), (3_000, 60, 0.27), (10_000, 200, 0.27), (100, 1, 0.12), (54_321, 7, 0.07)):
        tokens = (world.token_0, world.token_1)
        ranges, start_x96 = _random_ranges(rng, spacing)
        world.invoke(manager, "createAndInitializePoolIfNecessary(address,address,uint24,uint160)", *tokens, fee_pips, start_x96)
        (pool,) = world.read(["address"], factory, "getPool(address,address,uint24)", *tokens, fee_pips)
        signature = "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
        for lower, upper, liquidity in ranges:
            wanted = _amounts(start_x96, lower, upper, liquidity)
            world.invoke(manager, signature, (*tokens, fee_pips, lower, upper, *wanted, 0, 0, world.trader, FOREVER))
        state = _read_v3(world, pool, lens, fee_pips, spacing, ranges)
        state, count = _trade(world, rng, state, math.ceil(swaps * share), router, None)
        done += count
        # The chain's own state at the end, read afresh, is Python's.
        assert _read_v3(world, pool, lens, fee_pips, spacing, ranges) == state
    assert done >= swaps


def test_v3_equals_pool_where_256_bits_overflow(world: World) -> None:
    """At extreme prices SqrtPriceMath falls back to a coarser formula; the fall-back is the contract's answer too."""
    factory = world.deploy(third_party("UniswapV3Factory"), [])
    manager = world.deploy(third_party("NonfungiblePositionManager"), ["address", "address", "address"], factory, ZERO, ZERO)
    router = world.deploy(third_party("SwapRouter"), ["address", "address"], factory, ZERO)
    lens = world.deploy(third_party("TickLens"), [])
    world.approve(manager, router)
    tokens = (world.token_0, world.token_1)
    edge = 880_000
    for fee_pips in range(20_000, 20_020):
        world.invoke(factory, "enableFeeAmount(uint24,int24)", fee_pips, 16_000)
        start_x96 = sqrt_price_at_tick(edge - 1_000)
        world.invoke(manager, "createAndInitializePoolIfNecessary(address,address,uint24,uint160)", *tokens, fee_pips, start_x96)
        (pool,) = world.read(["address"], factory, "getPool(address,address,uint24)", *tokens, fee_pips)
        signature = "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
        wanted = _amounts(start_x96, -edge, edge, 1 << 106)
        world.invoke(manager, signature, (*tokens, fee_pips, -edge, edge, *wanted, 0, 0, world.trader, FOREVER))
        state = _read_v3(world, pool, lens, fee_pips, 16_000, [(-edge, edge, 0)])
        amount = (1 << 97) + fee_pips**5
        assert amount * start_x96 * 97 // 100 >= 1 << 256
        expected = state.swap_in(amount, zero_for_one=True)
        single = (*tokens, fee_pips, world.trader, FOREVER, amount, 0, SQRT_PRICE_MIN_X96 + 1)
        data = calldata("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))", single)
        (receipt,) = world.transactions([(router, data)])
        _check_concentrated(Sent(router, data, expected, True), receipt, is_v4=False)


def test_v4_equals_pool_manager(world: World, swaps: int) -> None:
    rng = random.Random(4)
    manager = world.deploy(third_party("PoolManager"), ["address"], world.trader)
    view = world.deploy(third_party("StateView"), ["address"], manager)
    names = [f"out/{name}.sol/{name}.json" for name in ("PoolSwapTest", "PoolModifyLiquidityTest")]
    swapper, provider = (world.deploy(_artifact(V4_CORE, name), ["address"], manager) for name in names)
    world.approve(swapper, provider)
    world.invoke(manager, "setProtocolFeeController(address)", world.trader)
    # fee, spacing, v4 protocol fees for selling asset 0 and asset 1
    shapes = [(500, 10, 0, 0), (3_000, 60, 0, 0), (10_000, 200, 250, 1_000), (100, 1, 0, 0), (0, 5, 0, 0)]
    shapes += [(0, 30, 1, 999), (77, 7, 1_000, 33), (123_456, 100, 500, 0), (999_999, 60, 0, 0), (1, 32_767, 0, 7)]
    done = 0
    for fee_pips, spacing, protocol_0, protocol_1 in shapes:
        key = (world.token_0, world.token_1, fee_pips, spacing, ZERO)
        pool_id = keccak(encode(["address", "address", "uint24", "int24", "address"], key))
        ranges, start_x96 = _random_ranges(rng, spacing)
        world.invoke(manager, f"initialize({KEY},uint160)", key, start_x96)
        if protocol_0 or protocol_1:
            world.invoke(manager, f"setProtocolFee({KEY},uint24)", key, protocol_1 << 12 | protocol_0)
        for lower, upper, liquidity in ranges:
            change = (lower, upper, liquidity, b"\0" * 32)
            world.invoke(provider, f"modifyLiquidity({KEY},(int24,int24,int256,bytes32),bytes)", key, change, b"")
        state = _read_v4(world, pool_id, view, fee_pips, spacing, ranges)
        assert (state.protocol_fee_0_pips, state.protocol_fee_1_pips) == (protocol_0, protocol_1)
        state, count = _trade(world, rng, state, math.ceil(swaps / len(shapes)), swapper, key)
        done += count
        assert _read_v4(world, pool_id, view, fee_pips, spacing, ranges) == state
    assert done >= swaps


def _trade(
    world: World, rng: random.Random, state: Concentrated, count: int, router: str, key: tuple[Any, ...] | None
) -> tuple[Concentrated, int]:
    """`count` random swaps in the pool (v4 when `key` is given), compared one by one."""
    done = 0
    while done < count:
        batch: list[Sent] = []
        while len(batch) < min(BLOCK_SWAPS, count - done):
            sent = _random_swap(world, rng, state, router, key)
            if sent is None:
                continue
            assert sent.expected is not None
            assert isinstance(sent.expected.after, Concentrated)
            state = sent.expected.after
            batch.append(sent)
        receipts = world.transactions([(sent.to, sent.data) for sent in batch])
        for sent, receipt in zip(batch, receipts, strict=True):
            assert receipt["status"] == "0x1"
            _check_concentrated(sent, receipt, is_v4=key is not None)
        done += len(batch)
    return state, done


def _random_swap(world: World, rng: random.Random, state: Concentrated, router: str, key: tuple[Any, ...] | None) -> Sent | None:
    """A swap that the contracts accept, or None when the dice fell on one that they refuse."""
    zero_for_one, exact_in = rng.random() < 0.5, rng.random() < 0.5
    # Half of the swaps aim at a price somewhere among the positions, so that they cross a few ticks and the pool comes back.
    aim_x96 = sqrt_price_at_tick(rng.randint(state.ticks[1][0], state.ticks[-2][0])) if rng.random() < 0.5 else None
    if aim_x96 is not None and aim_x96 != state.sqrt_price_x96:
        zero_for_one = aim_x96 < state.sqrt_price_x96
        reached = swap(state, AMOUNT_MAX, zero_for_one, True, aim_x96)
        amount = max(1, int((reached.amount_in if exact_in else reached.amount_out) * rng.choice((1, rng.random()))))
    elif rng.random() < 0.04:
        amount = (1 << 126) + rng.getrandbits(120)  # drain it
    else:
        amount = max(1, int(10 ** rng.uniform(0, 24)))
    limit_x96 = SQRT_PRICE_MIN_X96 + 1 if zero_for_one else SQRT_PRICE_MAX_X96 - 1
    if state.sqrt_price_x96 == limit_x96:
        return None
    if rng.random() < 0.15:
        limit_x96 = _random_limit(rng, state, zero_for_one, limit_x96)
    expected = swap(state, amount, zero_for_one, exact_in, limit_x96)
    if not expected.amount_in:
        return None  # v3's callback refuses to pay nothing: the limit lies inside a gap without liquidity
    if key is not None:
        params = (zero_for_one, -amount if exact_in else amount, limit_x96)
        signature = f"swap({KEY},(bool,int256,uint160),(bool,bool),bytes)"
        return Sent(router, calldata(signature, key, params, (False, False), b""), expected, zero_for_one)
    tokens = (world.token_0, world.token_1) if zero_for_one else (world.token_1, world.token_0)
    bound = 0 if exact_in else SUPPLY
    name = "exactInputSingle" if exact_in else "exactOutputSingle"
    single = (*tokens, state.fee_pips, world.trader, FOREVER, amount, bound, limit_x96)
    data = calldata(f"{name}((address,address,uint24,address,uint256,uint256,uint256,uint160))", single)
    return Sent(router, data, expected, zero_for_one)


def _random_limit(rng: random.Random, state: Concentrated, zero_for_one: bool, furthest_x96: int) -> int:
    """A price limit ahead: anywhere near, on a tick, or on the end of a bitmap word."""
    tick = tick_at_sqrt_price(state.sqrt_price_x96) + (-1 if zero_for_one else 1) * rng.randint(2, 40_000)
    grid = rng.choice((1, state.tick_spacing, 256 * state.tick_spacing))
    tick = min(max(tick // grid * grid, TICK_MIN + 1), TICK_MAX - 1)
    limit_x96 = sqrt_price_at_tick(tick) + (rng.getrandbits(20) if rng.random() < 0.3 else 0)
    ahead = limit_x96 < state.sqrt_price_x96 if zero_for_one else limit_x96 > state.sqrt_price_x96
    return limit_x96 if ahead else furthest_x96


def _check_concentrated(sent: Sent, receipt: dict[str, Any], is_v4: bool) -> None:
    assert sent.expected is not None
    after = sent.expected.after
    assert isinstance(after, Concentrated)
    data = _event(receipt, V4_SWAP_TOPIC if is_v4 else V3_SWAP_TOPIC)
    # v3 tells what the pool gained, v4 what the trader gained.
    if is_v4:
        change_0, change_1, price, liquidity, tick, _ = decode(["int128", "int128", "uint160", "uint128", "int24", "uint24"], data)
        change_0, change_1 = -change_0, -change_1
    else:
        change_0, change_1, price, liquidity, tick = decode(["int256", "int256", "uint160", "uint128", "int24"], data)
    paid, received = sent.expected.amount_in, sent.expected.amount_out
    assert (change_0, change_1) == ((paid, -received) if sent.zero_for_one else (-received, paid))
    assert (price, liquidity, tick) == (after.sqrt_price_x96, after.liquidity, after.tick)


def _random_ranges(rng: random.Random, spacing: int) -> tuple[list[tuple[int, int, int]], int]:
    """Random positions (lower, upper, liquidity), gaps and overlaps included, and a starting root price among them."""
    centre = rng.randint(-60_000, 60_000)
    reach = max(12_000, 6 * spacing)
    lowest, highest = -(-TICK_MIN // spacing) * spacing, TICK_MAX // spacing * spacing
    ranges = []
    for _ in range(rng.randint(6, 14)):
        edges = {(centre + round(rng.gauss(0, reach / 2))) // spacing * spacing for _ in range(2)}
        lower, upper = min(edges), max(edges)
        upper += spacing if upper == lower else 0
        if lowest <= lower < upper <= highest:
            ranges.append((lower, upper, int(10 ** rng.uniform(12, 22))))
    if rng.random() < 0.5:
        ranges.append((lowest, highest, int(10 ** rng.uniform(9, 15))))
    start_x96 = sqrt_price_at_tick(centre + rng.randint(-2_000, 2_000)) + rng.getrandbits(30)
    return ranges, start_x96


def _amounts(price_x96: int, lower: int, upper: int, liquidity: int) -> tuple[int, int]:
    """What a position of about `liquidity` costs, in both assets; at least some of each, so that the mint is never empty."""
    low_x96, high_x96 = sqrt_price_at_tick(lower), sqrt_price_at_tick(upper)
    inside_x96 = min(max(price_x96, low_x96), high_x96)
    amount_0 = (liquidity << 96) * (high_x96 - inside_x96) // (high_x96 * inside_x96)
    amount_1 = liquidity * (inside_x96 - low_x96) >> 96
    return amount_0 + 1_000, amount_1 + 1_000


def _words(spacing: int, ranges: list[tuple[int, int, int]]) -> list[int]:
    """Every bitmap word that a position can have touched, and the words around them."""
    edges = {tick // spacing >> 8 for lower, upper, _ in ranges for tick in (lower, upper)}
    span = range(max(-3466, TICK_MIN // spacing >> 8), (TICK_MAX // spacing >> 8) + 1)
    return sorted({word + side for word in edges for side in (-1, 0, 1) if word + side in span})


def _read_v3(world: World, pool: str, lens: str, fee_pips: int, spacing: int, ranges: list[tuple[int, int, int]]) -> Concentrated:
    types = ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]
    price_x96, tick, *_ = world.read(types, pool, "slot0()")
    (liquidity,) = world.read(["uint128"], pool, "liquidity()")
    ticks = []
    for word in _words(spacing, ranges):
        (found,) = world.read(["(int24,int128,uint128)[]"], lens, "getPopulatedTicksInWord(address,int16)", pool, word)
        ticks += [(index, net) for index, net, _ in found]
    return checked(Concentrated(price_x96, tick, liquidity, fee_pips, spacing, tuple(sorted(ticks))))


def _read_v4(
    world: World, pool_id: bytes, view: str, fee_pips: int, spacing: int, ranges: list[tuple[int, int, int]]
) -> Concentrated:
    types = ["uint160", "int24", "uint24", "uint24"]
    price_x96, tick, protocol, fee = world.read(types, view, "getSlot0(bytes32)", pool_id)
    assert fee == fee_pips
    (liquidity,) = world.read(["uint128"], view, "getLiquidity(bytes32)", pool_id)
    ticks = []
    for word in _words(spacing, ranges):
        (bitmap,) = world.read(["uint256"], view, "getTickBitmap(bytes32,int16)", pool_id, word)
        for bit in range(256):
            if bitmap >> bit & 1:
                index = (word * 256 + bit) * spacing
                _, net = world.read(["uint128", "int128"], view, "getTickLiquidity(bytes32,int24)", pool_id, index)
                ticks.append((index, net))
    pool = Concentrated(
        price_x96,
        tick,
        liquidity,
        fee_pips,
        spacing,
        tuple(sorted(ticks)),
        protocol_fee_0_pips=protocol & 0xFFF,
        protocol_fee_1_pips=protocol >> 12,
    )
    return checked(pool)


def _event(receipt: dict[str, Any], topic: str) -> bytes:
    (log,) = [log for log in receipt["logs"] if log["topics"][0] == topic]
    return bytes.fromhex(log["data"][2:])


def _artifact(package: str, path: str) -> Artifact:
    """A contract that only this test needs, straight from the locked package."""
    content = json.loads(read_texts(tarball(package), {path})[path])
    code = content["bytecode"]
    code = code["object"] if isinstance(code, dict) else code
    return Artifact(content["abi"], code if code.startswith("0x") else "0x" + code)
