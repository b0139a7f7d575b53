"""A sandwich around a swap of ours, in one block, with the real contracts: it is found, and costs what the chain's quoters say."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import pytest
from onchain_desk import Desk, open_desk
from test_world import MAX_48, MAX_160, MAX_256, PERMIT2, World, quote, swap_command

from agent.domain.events import Surrounded
from agent.domain.market import PoolRanges
from agent.domain.order import Fill, OrderRef, OrderState
from agent.liquidity.concentrated import Concentrated, checked
from agent.simulation.chain.rpc import Rpc, Sender, calldata, dev_account
from agent.simulation.chain.world import SandboxChain, start_chain

pytestmark = pytest.mark.chain
ETH, USDT, GWEI = 10**18, 10**6, 10**9
FOREVER_S = 2**40
ATTACKER, BYSTANDER = 6, 7


class Trade(NamedTuple):
    """Somebody else's swap: by whom, whether it comes before ours, what is given."""

    who: int
    is_before: bool
    token: str  # WETH or USDT
    amount: int


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


@pytest.fixture
async def desk(anvil: SandboxChain) -> AsyncIterator[Desk]:
    async with open_desk(anvil) as opened:
        await opened.approve(opened.weth, 20 * ETH)
        for who in (ATTACKER, BYSTANDER):
            address = str(dev_account(who).address)
            await anvil.fund(address, {"WETH": "200", "USDT": "500000"})
            await asyncio.to_thread(allow, opened, who)
        yield opened


def allow(desk: Desk, who: int) -> None:
    """Let the router take this account's coins."""
    rpc = Rpc(desk.chain.rpc_url)
    sender = Sender(rpc, dev_account(who))
    for token in ("WETH", "USDT"):
        address = desk.book.tokens[token].address
        sender.invoke(address, "approve(address,uint256)", PERMIT2, MAX_256)
        grant = (address, desk.book.contracts["UniversalRouter"], MAX_160, MAX_48)
        sender.invoke(PERMIT2, "approve(address,address,uint160,uint48)", *grant)
    sender.settle()
    rpc.close()


def queue(desk: Desk, pool: str, trades: Sequence[Trade]) -> list[str]:
    """Hand the swaps to the node, which mines them as they come; their hashes."""
    rpc, found, nonces = Rpc(desk.chain.rpc_url), desk.book.pool(pool), dict[int, int]()
    hashes = []
    for one in trades:
        account = dev_account(one.who)
        if one.who not in nonces:
            nonces[one.who] = int(rpc.call("eth_getTransactionCount", str(account.address), "pending"), 16)
        token_in = desk.book.tokens[one.token].address
        token_out = desk.book.tokens["USDT" if one.token == "WETH" else "WETH"].address
        command, data = swap_command(found, str(account.address), token_in, token_out, one.amount, 0)
        fields = {
            "type": 2, "chainId": desk.config.chain_id, "nonce": nonces[one.who], "gas": 900_000, "maxFeePerGas": 50 * GWEI,
            "maxPriorityFeePerGas": GWEI, "value": 0, "to": desk.book.contracts["UniversalRouter"],
            "data": calldata("execute(bytes,bytes[],uint256)", command, [data], FOREVER_S),
        }  # fmt: skip
        nonces[one.who] += 1
        raw = bytes(account.sign_transaction(fields).raw_transaction)
        hashes.append(str(rpc.call("eth_sendRawTransaction", "0x" + raw.hex())).lower())
    rpc.close()
    return hashes


async def one_block(
    desk: Desk, pool: str, trades: Sequence[Trade], sell: int = 5 * ETH
) -> tuple[Fill, list[Surrounded], list[str]]:
    """Our sale and the others' swaps in one block: what we got, what was told of it, and the others' hashes."""
    await desk.chain.call("evm_setAutomine", False)
    plan = await desk.batch([desk.sell_eth(pool, sell, 2_000 * USDT)])
    hashes = await asyncio.to_thread(queue, desk, pool, [one for one in trades if one.is_before])
    await desk.venue.send(await desk.sign(plan))
    hashes += await asyncio.to_thread(queue, desk, pool, [one for one in trades if not one.is_before])
    await desk.chain.call("evm_mine")
    report = await desk.feed.settled(plan.order_id)
    assert report.state is OrderState.MINED
    rpc = Rpc(desk.chain.rpc_url)
    body = await asyncio.to_thread(rpc.call, "eth_getBlockByNumber", hex(report.block), False)
    rpc.close()
    places = [[one.lower() for one in body["transactions"]].index(one) for one in (*hashes, report.tx_hash)]
    for one, place in zip(trades, places[:-1], strict=True):
        assert (place < places[-1]) is one.is_before, "the block is as the test wants it"
    (fill,) = desk.feed.fills(plan.order_id)
    return fill, [event for event in desk.feed.events if isinstance(event, Surrounded)], hashes


SANDWICH = (Trade(ATTACKER, True, "WETH", 40 * ETH), Trade(ATTACKER, False, "USDT", 100_000 * USDT))


@pytest.mark.parametrize("pool", ["v2-3000", "v3-500", "v4-500"])
async def test_a_sandwich_is_found_and_its_cost_is_exact(desk: Desk, pool: str) -> None:
    world = World(desk.chain)
    weth = desk.book.tokens["WETH"].address
    alone = await asyncio.to_thread(quote, world, desk.book.pool(pool), weth, 5 * ETH)
    world.rpc.close()
    fill, (told,), hashes = await one_block(desk, pool, SANDWICH)
    assert fill.received.units < alone
    assert told.received_less.units == alone - fill.received.units, "by the chain's own quoter, on the state before"
    assert told.received_less.asset == desk.usdt
    assert 0 < told.paid_more.units < 5 * ETH
    assert told.paid_more.asset == desk.weth
    assert (told.before, told.after, told.by) == (*hashes, str(dev_account(ATTACKER).address).lower())
    assert (told.order_id, told.instrument, told.tx_hash) == (fill.order_id, desk.instrument(pool), fill.tx_hash)


async def test_what_somebody_else_did_before_the_first_of_them_is_not_their_doing(desk: Desk) -> None:
    pool, bystander = "v3-500", Trade(BYSTANDER, True, "WETH", 10 * ETH)
    fact = desk.feed.pools()[desk.instrument(pool)]
    fill, (told,), hashes = await one_block(desk, pool, (bystander, *SANDWICH))
    assert isinstance(fact, PoolRanges)
    there = desk.book.pool(pool)
    before = checked(
        Concentrated(
            fact.sqrt_price_x96, fact.tick, fact.liquidity, there.fee_pips, there.tick_spacing, fact.ticks,
            fact.known_lower, fact.known_upper,
        )
    )  # fmt: skip
    weth_is_0 = there.currency0 == desk.book.tokens["WETH"].address
    then = before.swap_in(bystander.amount, weth_is_0).after
    assert isinstance(then, Concentrated)
    assert told.received_less.units == then.swap_in(5 * ETH, weth_is_0).amount_out - fill.received.units
    assert told.before == hashes[1]


@pytest.mark.parametrize(
    "trades",
    [
        (),
        (SANDWICH[0],),
        (SANDWICH[1],),
        (SANDWICH[0], Trade(BYSTANDER, False, "USDT", 100_000 * USDT)),
        (Trade(ATTACKER, True, "USDT", 100_000 * USDT), Trade(ATTACKER, False, "WETH", 30 * ETH)),
    ],
    ids=["alone", "only before", "only after", "two strangers", "somebody who helped us"],
)
async def test_what_is_no_sandwich_is_not_called_one(desk: Desk, trades: Sequence[Trade]) -> None:
    _, told, _ = await one_block(desk, "v3-500", trades)
    assert told == []


async def test_asked_again_it_is_told_again_the_same(desk: Desk) -> None:
    fill, (told,), _ = await one_block(desk, "v3-500", SANDWICH)
    shot = await desk.venue.snapshot([OrderRef(fill.order_id, "uniswap", "", tx_hash=fill.tx_hash)])
    assert [fact for fact in shot.facts if isinstance(fact, Surrounded)] == [told]
