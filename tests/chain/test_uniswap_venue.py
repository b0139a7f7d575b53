"""The Uniswap venue against the real contracts: what it believes, what it sends, and what it books, to the wei."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from aiohttp import ClientSession, web
from eth_abi.abi import encode
from onchain_desk import GAS_TIP, Desk, Feed, RealClock, open_desk, settings

from agent.chains.rpc import connect as connect_rpc
from agent.chains.watch import fetch_head
from agent.domain.amount import Amount
from agent.domain.errors import ChainError, OutcomeUnknown
from agent.domain.events import GasPaid, OrderFilled, OrderReorged, OrderReported, VenueConnected, VenueStatus
from agent.domain.market import ChainHead, Listed, PoolRanges, PoolReserves
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import Approved, Calls, SignedTransaction
from agent.liquidity.concentrated import Concentrated, checked
from agent.liquidity.constant_product import ConstantProduct
from agent.ports import Allowance, Tools, VenueEvent
from agent.simulation.chain.deployment import Deployment
from agent.simulation.chain.rpc import Rpc, Sender, calldata, dev_account
from agent.simulation.chain.world import SandboxChain, start_chain
from agent.venues.uniswap import BATCH_BASE_GAS, Config, Uniswap, connect
from agent.venues.uniswap.orders import Transactions

pytestmark = pytest.mark.chain
ETH, USDT = 10**18, 10**6
FOREVER_S = 2**40
STRANGER = 7
MINT = "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
POOL_KEY = "(address,address,uint24,int24,address)"


@pytest.fixture(params=["anvil", "eth-tester"])
async def chain(request: pytest.FixtureRequest) -> AsyncIterator[SandboxChain]:
    async with await start_chain(request.param) as running:
        yield running


@pytest.fixture
async def anvil() -> AsyncIterator[SandboxChain]:
    async with await start_chain("anvil") as running:
        yield running


@pytest.fixture
async def desk(chain: SandboxChain) -> AsyncIterator[Desk]:
    async with open_desk(chain) as opened:
        yield opened


async def fresh_pools(desk: Desk) -> dict[str, object]:
    """What a second venue reads whole at the newest block, without block and time."""
    venue = await connect("uniswap", desk.config, Tools(RealClock()))
    assert isinstance(venue, Uniswap)
    feed = Feed(venue)
    try:
        await feed.until(lambda events: True if any(isinstance(e, Allowance) for e in events) else None)
        return timeless(feed)
    finally:
        await feed.close()
        await venue.close()


def timeless(feed: Feed) -> dict[str, object]:
    return {name: msgspec.structs.replace(fact, block=0, at_ns=0) for name, fact in feed.pools().items()}


async def stranger_does(desk: Desk, work: Callable[[Sender, Deployment], None]) -> int:
    """Somebody else's transactions; returns the block after them."""
    account = dev_account(STRANGER)
    await desk.chain.fund(account.address, {"WETH": "100", "USDT": "300000"})

    def run() -> int:
        rpc = Rpc(desk.chain.rpc_url)
        try:
            sender = Sender(rpc, account)
            work(sender, desk.book)
            sender.settle()
            return int(rpc.call("eth_blockNumber"), 16)
        finally:
            rpc.close()

    return await asyncio.to_thread(run)


# -- discovery and state -----------------------------------------------------------------------------------------------


async def test_the_stream_opens_with_the_list_the_head_every_pool_and_the_permissions(desk: Desk) -> None:
    kinds = [type(event).__name__ for event in desk.feed.events]
    assert kinds[:3] == ["Listed", "VenueConnected", "ChainHead"]
    listed, _, head = desk.feed.events[:3]
    assert isinstance(listed, Listed)
    assert isinstance(head, ChainHead)
    assert [one.symbol for one in listed.instruments] == [f"{pool.name}-WETH/USDT" for pool in desk.book.pools]
    assert all(one.market == "ETH/USDT" and one.gas > 0 for one in listed.instruments)
    by_name = {pool.name: pool for pool in desk.book.pools}
    for one in listed.instruments:
        there = by_name[one.symbol.removesuffix("-WETH/USDT")]
        assert one.pool is not None
        assert (one.pool.address, one.pool.pool_id, one.pool.tick_spacing) == (there.address, there.pool_id, there.tick_spacing)
    pools = desk.feed.pools()
    assert len(pools) == len(by_name)
    assert {fact.block for fact in pools.values()} == {head.number}, "all pools at one block"
    profile = desk.venue.profile
    assert (profile.is_atomic, profile.chain_id, profile.spender) == (True, desk.book.chain_id, desk.book.contracts["Permit2"])


async def test_what_is_believed_of_a_pool_prices_a_swap_as_the_contracts_quoters_do(desk: Desk) -> None:
    rpc, book = Rpc(desk.chain.rpc_url), desk.book
    listed = next(e for e in desk.feed.events if isinstance(e, Listed))
    for one in listed.instruments:
        fact, pool = desk.feed.pools()[one.id], one.pool
        assert pool is not None
        weth, usdt, amount = one.base.address, one.quote.address, 3 * ETH
        if isinstance(fact, PoolReserves):
            state = ConstantProduct(fact.reserve0, fact.reserve1)
            path = [weth, usdt]
            answer = await asyncio.to_thread(
                rpc.read, book.contracts["UniswapV2Router02"], "getAmountsOut(uint256,address[])", amount, path
            )
            expected = int.from_bytes(answer[-32:], "big")
        else:
            state = checked(
                Concentrated(
                    fact.sqrt_price_x96,
                    fact.tick,
                    fact.liquidity,
                    one.fee_pips,
                    pool.tick_spacing,
                    fact.ticks,
                    fact.known_lower,
                    fact.known_upper,
                )
            )
            if pool.protocol == "v3":
                question = "quoteExactInputSingle((address,address,uint256,uint24,uint160))"
                what = (weth, usdt, amount, one.fee_pips, 0)
                answer = await asyncio.to_thread(rpc.read, book.contracts["QuoterV2"], question, what)
            else:
                key = (pool.token0, pool.token1, one.fee_pips, pool.tick_spacing, pool.hooks)
                question = f"quoteExactInputSingle(({POOL_KEY},bool,uint128,bytes))"
                answer = await asyncio.to_thread(
                    rpc.read, book.contracts["V4Quoter"], question, (key, one.base_is_token0, amount, b"")
                )
            expected = int.from_bytes(answer[:32], "big")
        assert state.swap_in(amount, one.base_is_token0).amount_out == expected, one.symbol
    rpc.close()


async def test_pools_follow_foreign_swaps_and_mints_as_a_whole_reading_would(desk: Desk) -> None:
    before = timeless(desk.feed)

    def work(sender: Sender, book: Deployment) -> None:
        weth, usdt, contracts = book.tokens["WETH"].address, book.tokens["USDT"].address, book.contracts
        for spender in ("UniswapV2Router02", "SwapRouter", "NonfungiblePositionManager", "Permit2"):
            for token in (weth, usdt):
                sender.invoke(token, "approve(address,uint256)", contracts[spender], 2**255)
        exact = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))"
        sender.invoke(contracts["SwapRouter"], exact, (weth, usdt, 500, sender.address, FOREVER_S, 20 * ETH, 0, 0), gas=900_000)
        sender.invoke(
            contracts["UniswapV2Router02"],
            "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)",
            5 * ETH, 0, [weth, usdt], sender.address, FOREVER_S,
        )  # fmt: skip
        pool = book.pool("v3-3000")
        for lower, upper in ((-198_000, -196_800), (-197_400, -197_340)):
            weth_is_0 = pool.currency0 == weth
            amounts = (3 * ETH, 9_000 * USDT) if weth_is_0 else (9_000 * USDT, 3 * ETH)
            ticks = (lower, upper) if weth_is_0 else (-upper, -lower)
            mint = (pool.currency0, pool.currency1, 3000, *ticks, *amounts, 0, 0, sender.address, FOREVER_S)
            sender.invoke(contracts["NonfungiblePositionManager"], MINT, mint, gas=900_000)
        for token in (weth, usdt):
            grant = "approve(address,address,uint160,uint48)"
            for spender in ("UniversalRouter", "PositionManager"):
                sender.invoke(contracts["Permit2"], grant, token, contracts[spender], 2**159, 2**47)
        sender.send(contracts["UniversalRouter"], v4_sale(book, sender.address, 10 * ETH), gas=900_000)
        sender.send(contracts["PositionManager"], v4_mint(book, sender.address), gas=900_000)

    await desk.feed.head(await stranger_does(desk, work))
    expected = await fresh_pools(desk)
    moved = {name for name in expected if expected[name] != before[name]}
    assert moved == {desk.instrument(name) for name in ("v2-3000", "v3-500", "v3-3000", "v4-500", "v4-3000")}
    # the head comes first and the pools with it: wait for the last of them
    await desk.feed.until(lambda _: True if timeless(desk.feed) == expected else None)


def v4_sale(book: Deployment, _owner: str, amount: int) -> str:
    pool, weth, usdt = book.pool("v4-500"), book.tokens["WETH"].address, book.tokens["USDT"].address
    key = (pool.currency0, pool.currency1, pool.fee_pips, pool.tick_spacing, pool.hooks)
    single = encode([f"({POOL_KEY},bool,uint128,uint128,bytes)"], [(key, pool.currency0 == weth, amount, 0, b"")])
    settle, take = encode(["address", "uint256"], [weth, 2**128]), encode(["address", "uint256"], [usdt, 0])
    body = encode(["bytes", "bytes[]"], [b"\x06\x0c\x0f", [single, settle, take]])
    return calldata("execute(bytes,bytes[],uint256)", b"\x10", [body], FOREVER_S)


def v4_mint(book: Deployment, owner: str) -> str:
    pool, weth = book.pool("v4-3000"), book.tokens["WETH"].address
    key = (pool.currency0, pool.currency1, pool.fee_pips, pool.tick_spacing, pool.hooks)
    ticks = (-198_000, -196_800) if pool.currency0 == weth else (196_800, 198_000)
    types = [POOL_KEY, "int24", "int24", "uint256", "uint128", "uint128", "address", "bytes"]
    mint = encode(types, [key, *ticks, 10**15, 2**127, 2**127, owner, b""])
    pair = encode(["address", "address"], [pool.currency0, pool.currency1])
    unlock = encode(["bytes", "bytes[]"], [b"\x02\x0d", [mint, pair]])
    return calldata("modifyLiquidities(bytes,uint256)", unlock, FOREVER_S)


# -- trading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["sell", "buy"])
async def test_three_protocols_trade_in_one_transaction_and_the_fills_are_the_balance_changes(desk: Desk, side: str) -> None:
    asset = desk.weth if side == "sell" else desk.usdt
    await desk.approve(asset, 60 * ETH if side == "sell" else 200_000 * USDT)
    names = ("v2-3000", "v3-500", "v4-500")
    if side == "sell":
        legs = [desk.sell_eth(name, (i + 1) * ETH, (i + 1) * 2_600 * USDT) for i, name in enumerate(names)]
    else:
        legs = [desk.buy_eth(name, (i + 1) * ETH, (i + 1) * 2_800 * USDT) for i, name in enumerate(names)]
    before = await desk.balances()
    plan = await desk.batch(legs)
    signed = await desk.sign(plan)
    reply = await desk.venue.send(signed)
    assert reply == (OrderReported(plan.order_id, OrderState.OPEN, venue_order_id=signed.tx_hash, tx_hash=signed.tx_hash),)
    report = await desk.feed.settled(plan.order_id)
    assert (report.state, report.reason, report.venue_order_id) == (OrderState.MINED, "", signed.tx_hash)
    after, fills, gas = await desk.balances(), desk.feed.fills(plan.order_id), desk.feed.gas(plan.order_id)
    assert [fill.instrument for fill in fills] == [desk.instrument(name) for name in names]
    assert len({fill.trade_id for fill in fills}) == 3
    assert all(fill.trade_id.startswith(signed.tx_hash + ":") for fill in fills)
    given, taken = ("WETH", "USDT") if side == "sell" else ("USDT", "WETH")
    assert before[given] - after[given] == sum(fill.paid.units for fill in fills)
    assert after[taken] - before[taken] == sum(fill.received.units for fill in fills)
    assert before["ETH"] - after["ETH"] == gas.amount.units
    for leg, fill in zip(legs, fills, strict=True):
        assert fill.paid <= leg.sell
        assert fill.received >= leg.buy
        assert (fill.paid == leg.sell) is (leg.exact == "sell")
    order = [type(e) for e in desk.feed.events if isinstance(e, OrderFilled | GasPaid) or e == report]
    assert order[-1] is OrderReported, "fills and gas come before the end"
    assert desk.feed.permit_nonce(asset) == 1
    listed = next(e for e in desk.feed.events if isinstance(e, Listed))
    planned = BATCH_BASE_GAS + sum(one.gas for one in listed.instruments if one.id in {leg.instrument for leg in legs})
    assert abs(planned - gas.gas_used) * 10 < 3 * gas.gas_used, (planned, gas.gas_used)


async def test_a_batch_that_cannot_keep_its_bound_reverts_costs_gas_and_fills_nothing(desk: Desk) -> None:
    await desk.approve(desk.weth, 60 * ETH)
    before = await desk.balances()
    legs = [desk.sell_eth("v3-500", ETH, 2_500 * USDT), desk.sell_eth("v2-3000", ETH, 2_900 * USDT)]
    plan = await desk.batch(legs)
    await desk.venue.send(await desk.sign(plan))
    report = await desk.feed.settled(plan.order_id)
    assert report.state is OrderState.REVERTED
    assert "V2TooLittleReceived" in report.reason
    gas, after = desk.feed.gas(plan.order_id), await desk.balances()
    assert desk.feed.fills(plan.order_id) == []
    assert before["ETH"] - after["ETH"] == gas.amount.units > 0
    assert (before["WETH"], before["USDT"]) == (after["WETH"], after["USDT"])
    assert desk.feed.permit_nonce(desk.weth) == 0, "the permit was taken back with the rest"


@pytest.mark.parametrize("pool", ["v3-500", "v4-500"])
async def test_other_refusals_are_named_too(anvil: SandboxChain, pool: str) -> None:
    async with open_desk(anvil) as desk:
        await desk.approve(desk.weth, 10 * ETH)
        for leg, word in (
            (desk.sell_eth(pool, ETH, 2_900 * USDT), "TooLittleReceived"),
            (desk.sell_eth(pool, 20 * ETH, 2_500 * USDT), "TRANSFER_FROM_FAILED"),
        ):
            plan = await desk.batch([leg])
            await desk.venue.send(await desk.sign(plan))
            report = await desk.feed.settled(plan.order_id)
            assert word in report.reason, report
        plan = await desk.batch([desk.sell_eth(pool, ETH, 2_500 * USDT)], permit_nonce=4)
        await desk.venue.send(await desk.sign(plan))
        assert "InvalidNonce()" in (await desk.feed.settled(plan.order_id)).reason


async def test_a_trade_is_final_after_its_confirmations(desk: Desk) -> None:
    order_id = await desk.approve(desk.usdt, 5 * USDT)
    mined = await desk.feed.report(order_id, OrderState.MINED)
    for _ in range(2):
        await desk.chain.fund(desk.config.wallet, {"ETH": "1"})  # a block each
    final = await desk.feed.report(order_id, OrderState.FINAL)
    assert final.block == mined.block
    newest = max(e.number for e in desk.feed.events if isinstance(e, ChainHead))
    assert newest - mined.block >= desk.config.confirmations


async def test_a_permission_is_taken_back_before_it_is_changed(desk: Desk) -> None:
    await desk.approve(desk.usdt, 5 * USDT)
    await desk.approve(desk.usdt, 0)
    await desk.approve(desk.usdt, 7 * USDT)
    found = [e.amount for e in desk.feed.events if isinstance(e, Allowance) and e.token == desk.usdt.id]
    assert found == [0, 5 * USDT, 0, 7 * USDT]


# -- doubts ------------------------------------------------------------------------------------------------------------


def reference(signed: SignedTransaction) -> OrderRef:
    return OrderRef(signed.order_id, "uniswap", "", tx_hash=signed.tx_hash, nonce=signed.nonce)


@contextlib.asynccontextmanager
async def swallowing_proxy(target: str) -> AsyncIterator[str]:
    """A node that takes transactions and then hangs up without an answer; everything else passes."""

    async def forward(request: web.Request) -> web.Response:
        body = await request.read()
        async with (
            ClientSession() as session,
            session.post(target, data=body, headers={"Content-Type": "application/json"}) as reply,
        ):
            answer = await reply.read()
        if b"eth_sendRawTransaction" in body and request.transport is not None:
            request.transport.abort()
        return web.Response(body=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{tail:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_a_send_without_an_answer_is_looked_for_by_its_hash(chain: SandboxChain) -> None:
    async with swallowing_proxy(chain.rpc_url) as url, open_desk(chain, url) as desk:
        plan = desk.permission("o", Amount(USDT, desk.usdt))
        signed = await desk.sign(plan)
        told = [fact.state for fact in await desk.venue.send(signed) if isinstance(fact, OrderReported)]
        assert told[0] in (OrderState.OPEN, OrderState.MINED), "the node has it, whatever became of its answer"
        await desk.feed.until(lambda _: True if desk.feed.has_ended(told, "o") else None)
        shot = await desk.venue.snapshot([reference(signed)])
        states = [fact.state for fact in shot.facts if isinstance(fact, OrderReported)]
        assert states[0] is OrderState.MINED
        assert sum(isinstance(fact, GasPaid) for fact in shot.facts) == 1
        again = await desk.venue.send(signed)  # the same bytes once more: it landed, so that is what is said
        assert [fact.state for fact in again if isinstance(fact, OrderReported)] == [OrderState.MINED]


async def test_an_order_of_an_earlier_run_is_answered_in_full(desk: Desk) -> None:
    await desk.approve(desk.weth, 10 * ETH)
    plan = await desk.batch([desk.sell_eth("v2-3000", ETH, 2_600 * USDT), desk.sell_eth("v4-3000", ETH, 2_600 * USDT)])
    signed = await desk.sign(plan)
    await desk.venue.send(signed)
    await desk.feed.settled(plan.order_id)
    second = await connect("uniswap", desk.config, Tools(RealClock(), account="other"))
    shot = await second.snapshot([reference(signed)])
    await second.close()
    fills = [fact.fill for fact in shot.facts if isinstance(fact, OrderFilled)]
    assert [fill.key for fill in fills] == [fill.key for fill in desk.feed.fills(plan.order_id)]
    assert shot.account == "other"
    assert [fact.account for fact in shot.facts if isinstance(fact, GasPaid)] == ["other"]
    assert shot.nonce == signed.nonce + 1


async def test_a_transaction_that_no_node_knows_stays_unknown_until_its_nonce_is_used_up(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        nonce = await desk.nonce()
        never = await desk.sign(desk.permission("never", Amount(USDT, desk.usdt)), nonce)
        other = await desk.sign(desk.permission("other", Amount(USDT, desk.usdt), 2 * GAS_TIP), nonce)
        assert (await desk.venue.snapshot([reference(never)])).facts == ()
        await desk.venue.send(other)
        await desk.feed.settled("other")
        (status,) = (await desk.venue.snapshot([reference(never)])).facts  # the other one may still be taken back
        assert isinstance(status, VenueStatus)
        assert (status.status, other.tx_hash in status.reason) == ("CANCEL_ONLY", True)
        await anvil.call("anvil_mine", "0x2")
        fact, status = (await desk.venue.snapshot([reference(never)])).facts
        assert status == VenueStatus("uniswap", "TRADING")
        assert isinstance(fact, OrderReported)
        assert fact.state is OrderState.REPLACED
        assert fact.reason.startswith(f"transaction {other.tx_hash} used nonce {nonce}: another program")
        with pytest.raises(OutcomeUnknown):
            await desk.venue.send(never)


async def test_an_answer_is_not_disturbed_by_the_stream_that_forgets_the_transaction_meanwhile(desk: Desk) -> None:
    signed = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)))
    await desk.venue.send(signed)
    mined = await desk.feed.report("o", OrderState.MINED)
    rpc = await connect_rpc(desk.config.rpc_url, desk.config.chain_id, 20)
    try:
        orders = Transactions("uniswap", "main", desk.config, rpc, RealClock(), ())
        asking = asyncio.create_task(orders.answer([reference(signed)], await fetch_head(rpc, RealClock())))
        await asyncio.sleep(0)
        orders.forget(signed.tx_hash)  # as the stream does when it is final
        assert mined.state in [fact.state for fact in await asking if isinstance(fact, OrderReported)]
    finally:
        await rpc.close()


async def test_a_pending_transaction_is_open_and_waits(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        await anvil.call("evm_setAutomine", False)
        plan = desk.permission("o", Amount(USDT, desk.usdt))
        signed = await desk.sign(plan)
        await desk.venue.send(signed)
        shot = await desk.venue.snapshot([reference(signed)])
        assert shot.open_orders == ("o",)
        await anvil.call("evm_mine")
        await desk.feed.report("o", OrderState.MINED)


async def test_a_reorganisation_takes_a_trade_back_and_pools_are_read_again(anvil: SandboxChain) -> None:
    async with open_desk(anvil, confirmations=50) as desk:
        await desk.approve(desk.weth, 10 * ETH)
        before = timeless(desk.feed)
        plan = await desk.batch([desk.sell_eth("v3-500", 5 * ETH, 2_500 * USDT)])
        signed = await desk.sign(plan)
        await desk.venue.send(signed)
        mined = await desk.feed.settled(plan.order_id)
        assert timeless(desk.feed) != before
        await anvil.call("anvil_reorg", 1, [])
        gone = await desk.feed.until(lambda events: next((e for e in events if isinstance(e, OrderReorged)), None))
        assert (gone.order_id, gone.tx_hash, gone.block, gone.block_hash) == (
            plan.order_id,
            signed.tx_hash,
            mined.block,
            mined.block_hash,
        )
        await desk.feed.until(lambda _: True if timeless(desk.feed) == before else None)
        await desk.venue.send(signed)  # the same bytes again: it can only happen once

        def mined_again(events: list[VenueEvent]) -> bool | None:
            found = [
                e for e in events if isinstance(e, OrderReported) and e.state is OrderState.MINED and e.order_id == plan.order_id
            ]
            return True if len(found) == 2 else None

        await desk.feed.until(mined_again)
        keys = [fill.key for fill in desk.feed.fills(plan.order_id)]
        assert len(keys) == 2
        assert len(set(keys)) == 1, "the same fill, so that it can be taken back and booked again"
        assert {fill.tx_hash for fill in desk.feed.fills(plan.order_id)} == {signed.tx_hash}


async def test_a_price_that_leaves_the_known_ticks_has_them_read_again(anvil: SandboxChain) -> None:
    async with open_desk(anvil, tick_words=1) as desk:
        await desk.approve(desk.weth, 100 * ETH)
        for _ in range(4):
            plan = await desk.batch([desk.sell_eth("v3-10000", 20 * ETH, 1)])
            await desk.venue.send(await desk.sign(plan))
            await desk.feed.settled(plan.order_id)
        expected = await fresh_pools(desk)
        await desk.feed.until(lambda _: True if timeless(desk.feed) == expected else None)


# -- connections -------------------------------------------------------------------------------------------------------


async def test_a_websocket_brings_the_same_news(anvil: SandboxChain) -> None:
    assert anvil.ws_url is not None
    async with open_desk(anvil, anvil.ws_url) as desk:
        await desk.approve(desk.weth, 10 * ETH)
        plan = await desk.batch([desk.sell_eth("v2-3000", ETH, 2_600 * USDT)])
        await desk.venue.send(await desk.sign(plan))
        assert (await desk.feed.settled(plan.order_id)).state is OrderState.MINED
        assert len(desk.feed.fills(plan.order_id)) == 1


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_wrong_chain_is_refused(anvil: SandboxChain, scheme: str) -> None:
    url = anvil.rpc_url.replace("http", scheme) + "/?key=a-secret-key"
    section = settings(anvil.deployment, url, dev_account(3).address, chain_id=1)
    with pytest.raises(ChainError, match="answers for chain 31337, the config says 1: ") as refused:
        await connect("uniswap", Config.model_validate(section), Tools(RealClock()))
    assert "a-secret-key" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_an_unreachable_node_is_one_line_that_says_what_to_do(anvil: SandboxChain, scheme: str) -> None:
    section = settings(anvil.deployment, f"{scheme}://user:a-secret-key@127.0.0.1:9/k?key=a-secret-key", dev_account(3).address)
    config = Config.model_validate(section)
    assert "a-secret-key" not in repr(config)
    with pytest.raises(ChainError, match="cannot be reached") as refused:
        await connect("uniswap", config, Tools(RealClock()))
    assert "a-secret-key" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_node_that_goes_away_ends_the_stream_in_one_line_and_took_nothing(anvil: SandboxChain, scheme: str) -> None:
    async with open_desk(anvil, anvil.rpc_url.replace("http", scheme)) as desk:
        await desk.feed.close()
        again = Feed(desk.venue)  # a stream can be begun again at any time
        await again.until(lambda events: True if any(isinstance(e, VenueConnected) for e in events) else None)
        signed = await desk.sign(desk.permission("o", Amount(USDT, desk.usdt)))
        await anvil.stop()
        with pytest.raises(ChainError, match=r"cannot be reached|closed the connection"):
            await again.until(lambda _: None)
        with pytest.raises(ChainError, match="cannot be reached"):
            await anext(desk.venue.stream())
        with pytest.raises(ChainError, match="cannot be reached"):
            await desk.venue.send(signed)
        await again.close()


async def test_a_socket_closed_under_a_read_is_an_error_and_no_cancellation(anvil: SandboxChain) -> None:
    rpc = await connect_rpc(anvil.rpc_url.replace("http", "ws"), anvil.chain_id)
    reads = [asyncio.create_task(rpc.call("eth_blockNumber")) for _ in range(20)]
    await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
    await rpc.close()
    done = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(one, str | ChainError) for one in done), done
    await rpc.open()
    assert isinstance(await rpc.call("eth_blockNumber"), str)
    await rpc.close()


async def test_a_config_that_contradicts_the_chain_is_refused(anvil: SandboxChain) -> None:
    book, wallet = anvil.deployment, dev_account(3).address

    async def refusal(**changes: object) -> str:
        section = settings(book, anvil.rpc_url, wallet, **changes)
        with pytest.raises(ChainError) as refused:
            await connect("uniswap", Config.model_validate(section), Tools(RealClock()))
        return str(refused.value)

    tokens = settings(book, anvil.rpc_url, wallet)["tokens"]
    assert "USDT has 6 decimals" in await refusal(tokens=[tokens[0], {**tokens[1], "decimals": 18}])
    v3 = {"protocol": "v3", "base": "WETH", "quote": "USDT"}
    assert "there is no v3 pool" in await refusal(pools=[{**v3, "fee_pips": 100}])
    assert "is not WETH/USDT at 500 pips" in await refusal(pools=[{**v3, "fee_pips": 500, "address": book.pool("v3-3000").address}])
    v4 = {"protocol": "v4", "base": "WETH", "quote": "USDT", "fee_pips": 100}
    venue = await connect("uniswap", Config.model_validate(settings(book, anvil.rpc_url, wallet, pools=[v4])), Tools(RealClock()))
    with pytest.raises(ChainError, match="was never initialised"):
        await anext(venue.stream())
    await venue.close()


async def test_the_same_plan_gives_the_same_bytes(anvil: SandboxChain) -> None:
    async with open_desk(anvil) as desk:
        plan = await desk.batch([desk.sell_eth("v4-500", ETH, 2_600 * USDT)])
        first, second = (desk.venue.build(Approved(plan, 3)) for _ in range(2))
        assert isinstance(first, Calls)
        assert first == second
        assert isinstance(desk.feed.pools()[desk.instrument("v4-500")], PoolRanges)
