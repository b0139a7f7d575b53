"""The exchange and the chain of a replay: who waits where in a queue, what comes late, and what a transaction may do."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_kit import ALONE, ASK, AT_ONCE, BID, LOT, by_hand

from agent.domain.amount import Amount, encode_hook
from agent.domain.errors import OutcomeUnknown, VenueError
from agent.domain.events import OrderFilled, OrderReported
from agent.domain.order import OrderRef
from agent.domain.order import OrderState as S
from agent.domain.plan import Approved, CancelOrder, PlaceOrder, SignedRequest, SwapBatch, SwapLeg, VenueRequest
from agent.market.view import pool_mid
from agent.ports import PrivateFact, VenueEvent
from agent.simulation.drill.blocks import Body, Tx, hash_of
from agent.simulation.drill.clock import WarpClock, warped
from agent.simulation.drill.market import CHAIN_ID, COIN, USDT, WETH
from agent.simulation.exchange.liquidity import Action, Quote, Take
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.replay import pools
from agent.simulation.replay.chain import Chain
from agent.simulation.replay.exchange import Exchange
from agent.simulation.replay.exchange_line import ExchangeLine
from agent.simulation.replay.setting import ChainSetting, Latency

MS = 1_000_000
MID = Fraction("2683.80")
Play = Callable[[Exchange, ExchangeLine], Coroutine[Any, Any, None]]


def played(play: Play, *moments: tuple[float, Sequence[Action]], latency: Latency = AT_ONCE) -> None:
    """`play` against a book that is written by hand."""

    async def whole() -> None:
        setting, clock = msgspec.structs.replace(ALONE, latency=latency), WarpClock()
        exchange = Exchange(setting, clock, by_hand(*moments))
        exchange.open()
        clock.skew_ns = exchange.now_ns - clock.now_ns()
        exchange.deposit("ETH", 100 * 10**8)
        exchange.deposit("USDT", 10**6 * 10**8)
        world = asyncio.create_task(exchange.run())
        await play(exchange, ExchangeLine(exchange, setting, clock))
        world.cancel()

    warped(whole())


async def placed(line: ExchangeLine, name: str, kind: str, ticks: int, lots: int, side: str = "sell") -> Sequence[PrivateFact]:
    base = Amount(lots * LOT, ALONE_BOOK.base)
    quote = Amount(ticks * 10**6 * lots * LOT // 10**8, ALONE_BOOK.quote)
    sell, buy = (base, quote) if side == "sell" else (quote, base)
    plan = PlaceOrder(name, "p", "main", "exchange", ALONE_BOOK.id, side, ticks, lots, kind, sell, buy)  # type: ignore[arg-type]
    request = line.build(Approved(plan))
    assert isinstance(request, VenueRequest)
    return await line.send(SignedRequest(name, request, "k"))


async def taken_back(line: ExchangeLine, name: str, target: str) -> Sequence[PrivateFact]:
    request = line.build(Approved(CancelOrder(name, "p", "main", "exchange", ALONE_BOOK.id, target)))
    assert isinstance(request, VenueRequest)
    return await line.send(SignedRequest(name, request, "k"))


def stood(facts: Sequence[PrivateFact]) -> list[tuple[str, S, int]]:
    """(order, state, lots filled) of each report."""
    return [
        (one.order_id, one.state, one.filled.units // LOT if one.filled else 0) for one in facts if isinstance(one, OrderReported)
    ]


ALONE_BOOK = Exchange(ALONE, WarpClock(), by_hand()).instrument


# -- the exchange --------------------------------------------------------------------------------------------------------


def test_who_came_first_trades_first_and_who_withdraws_leaves_from_the_back() -> None:
    async def play(exchange: Exchange, line: ExchangeLine) -> None:
        assert stood(await placed(line, "a", "POST", ASK, 2 * LOT)) == [("a", S.OPEN, 0)]
        await asyncio.sleep(1.5)  # 5 ETH are before it, 3 come after it and 2 of these go again; 3 are traded in front of it
        order = exchange.find("a")
        assert order is not None
        assert order.filled_lots == 0
        assert [one.account for one in exchange.book.queue(SELL, ASK)] == ["house", "user", "house"]
        await asyncio.sleep(1)  # two more of the five, and then one of its own
        assert order.filled_lots == LOT

    grows, shrinks = [Quote(SELL, ASK, 8 * LOT)], [Quote(SELL, ASK, 6 * LOT)]
    played(play, (0.5, grows), (1, shrinks), (1.2, [Take(BUY, ASK, 3 * LOT)]), (2, [Take(BUY, ASK, 3 * LOT)]))


def test_an_order_meets_the_book_as_it_is_when_it_arrives() -> None:
    gone = [Quote(BUY, BID, 0)]

    async def late(_: Exchange, line: ExchangeLine) -> None:
        assert stood(await placed(line, "a", "IOC", BID, LOT)) == [("a", S.EXPIRED, 0)]

    async def in_time(_: Exchange, line: ExchangeLine) -> None:
        assert stood(await placed(line, "a", "IOC", BID, LOT)) == [("a", S.FILLED, LOT)]

    played(late, (0.03, gone), latency=Latency(40 * MS, 0, 0))
    played(in_time, (0.03, gone), latency=Latency(20 * MS, 0, 0))


def test_news_comes_late_and_in_order() -> None:
    async def play(exchange: Exchange, line: ExchangeLine) -> None:
        heard: list[tuple[float, VenueEvent]] = []

        async def listen() -> None:
            async for event in line.stream():
                heard.append((asyncio.get_running_loop().time(), event))  # noqa: PERF401 - it never ends

        task = asyncio.create_task(listen())
        await asyncio.sleep(3)
        task.cancel()
        diffs = [(at, one.seq_first, one.seq_last) for at, one in heard if hasattr(one, "seq_first")]
        assert [round(at, 3) for at, _, _ in diffs] == [1.25, 2.25]
        assert diffs[0][2] + 1 == diffs[1][1], "no update is missing in between"
        assert len(exchange.book.depth(BUY, 50)) == 11

    changes = [(at, [Quote(BUY, BID - 20, int(at) * LOT)]) for at in (1.0, 2.0)]
    played(play, *changes, latency=Latency(40 * MS, 250 * MS, 0))


def test_a_maker_is_told_of_its_trades_and_pays_its_own_fee() -> None:
    async def play(exchange: Exchange, line: ExchangeLine) -> None:
        events = line.stream()
        for _ in range(3):
            await anext(events)
        await placed(line, "a", "GTC", ASK, LOT)
        told = [one async for one in _some(events, 6)]
        fills = [one.fill for one in told if isinstance(one, OrderFilled)]
        assert [(one.order_id, str(one.received), str(one.fee)) for one in fills] == [
            ("a", "2683.81 USDT@exchange", "0.536762 USDT@exchange")
        ]
        assert stood([one for one in told if isinstance(one, OrderReported)]) == [("a", S.FILLED, LOT)]
        assert exchange.balances()[0] == Amount(99 * 10**8, ALONE_BOOK.base)

    played(play, (1, [Take(BUY, ASK, 6 * LOT)]))


async def _some(events: Any, count: int) -> Any:
    with_time = asyncio.timeout(5)
    try:
        async with with_time:
            for _ in range(count):
                yield await anext(events)
    except TimeoutError:
        return


def test_every_kind_of_order_and_its_end() -> None:
    async def play(exchange: Exchange, line: ExchangeLine) -> None:
        assert stood(await placed(line, "post", "POST", BID, LOT)) == [("post", S.REJECTED, 0)]
        assert stood(await placed(line, "fok", "FOK", BID, 6 * LOT)) == [("fok", S.EXPIRED, 0)]
        assert stood(await placed(line, "ioc", "IOC", BID, 6 * LOT)) == [("ioc", S.EXPIRED, 5 * LOT)]
        assert stood(await placed(line, "gtc", "GTC", BID, LOT)) == [("gtc", S.OPEN, 0)]
        assert stood(await placed(line, "tiny", "GTC", BID, 1)) == [("tiny", S.REJECTED, 0)]
        assert stood(await taken_back(line, "x1", "gtc")) == [("gtc", S.CANCELLED, 0), ("x1", S.FILLED, 0)]
        assert stood(await taken_back(line, "x2", "gtc")) == [("gtc", S.CANCELLED, 0), ("x2", S.REJECTED, 0)]
        asked = [OrderRef(name, "exchange", ALONE_BOOK.id) for name in ("ioc", "post", "nobody")]
        found = await line.snapshot(asked)
        assert stood(found.facts) == [("ioc", S.EXPIRED, 5 * LOT), ("post", S.REJECTED, 0), ("nobody", S.REJECTED, 0)]
        assert found.open_orders == ()
        assert found.balances == exchange.balances()

    played(play)


def test_of_what_is_still_on_its_way_nothing_is_said() -> None:
    async def play(_: Exchange, line: ExchangeLine) -> None:
        sending = asyncio.create_task(placed(line, "a", "GTC", ASK + 5, LOT))
        await asyncio.sleep(0.01)
        sending.cancel()  # the agent dies
        assert line._certain(OrderRef("a", "exchange", ALONE_BOOK.id)) == []
        await asyncio.sleep(1)
        assert stood(line._certain(OrderRef("a", "exchange", ALONE_BOOK.id))) == [("a", S.OPEN, 0)], "it arrived all the same"

    played(play, latency=Latency(40 * MS, 0, 0))


# -- the chain -----------------------------------------------------------------------------------------------------------


def new_chain(mid: Callable[[], Fraction | None] = lambda: MID) -> Chain:
    async def made() -> Chain:
        return Chain(ChainSetting(), 7, WarpClock(), mid)

    chain = warped(made())
    chain.held |= {WETH: 100 * 10**18, USDT: 300_000 * 10**6, COIN: 10**18}
    return chain


def batch(
    chain: Chain, sell: int, least: int, name: str = "a", nonce: int = 0, deadline_s: int = 2**40, fee: int = 10**11
) -> bytes:
    leg = SwapLeg("pools:v3-500", Amount(sell, WETH), Amount(least, USDT), "sell")
    permit = chain.permits[WETH]
    plan = SwapBatch(name, "p", "main", "pools", CHAIN_ID, "sell", (leg,), leg.sell, leg.buy, permit, deadline_s, 10**6, fee, 10**9)
    return msgspec.json.encode(Body(name, nonce, 10**6, fee, 10**9, plan), enc_hook=encode_hook)


def test_a_swap_gives_what_the_pool_gives_and_costs_its_gas() -> None:
    chain = new_chain()
    wanted = pools.quote(chain.pools["pools:v3-500"], 10**18, is_sale=True, exact="sell").amount_out
    chain.arrive(batch(chain, 10**18, wanted), 0)
    chain.mine(0)
    (receipt,) = chain.head.receipts
    assert (receipt.trouble, [fill.received.units for fill in receipt.fills]) == ("", [wanted])
    assert chain.held == {WETH: 99 * 10**18, USDT: 300_000 * 10**6 + wanted, COIN: 10**18 - receipt.cost}
    assert receipt.cost == receipt.gas_used * (ChainSetting().base_fee + 10**9)
    assert (chain.nonce, chain.permits[WETH]) == (1, 1)


@pytest.mark.parametrize(
    ("least", "deadline_s", "words"), [(2**60, 2**40, "TooLittleReceived"), (1, 5, "TransactionDeadlinePassed")]
)
def test_what_would_give_too_little_or_comes_too_late_is_reverted(least: int, deadline_s: int, words: str) -> None:
    chain = new_chain()
    before = dict(chain.pools)
    chain.arrive(batch(chain, 10**18, least, deadline_s=deadline_s), 0)
    chain.mine(10 * 10**9)
    (receipt,) = chain.head.receipts
    assert (receipt.trouble, receipt.fills) == (words, ())
    assert chain.held == {WETH: 100 * 10**18, USDT: 300_000 * 10**6, COIN: 10**18 - receipt.cost}
    assert receipt.cost > 0, "a reverted transaction is paid for"
    assert chain.pools == before
    assert chain.nonce == 1, "and takes its number"


def test_of_two_transactions_with_one_number_one_happens() -> None:
    chain = new_chain()
    chain.arrive(batch(chain, 10**18, 1, "a"), 0)
    with pytest.raises(VenueError, match="underpriced"):
        chain.arrive(batch(chain, 2 * 10**18, 1, "b", fee=10**11 + 1), 0)
    chain.arrive(batch(chain, 2 * 10**18, 1, "c", fee=2 * 10**11), 0)
    chain.mine(0)
    assert [receipt.tx.body.order_id for receipt in chain.head.receipts] == ["c"]
    with pytest.raises(OutcomeUnknown):
        chain.arrive(batch(chain, 10**18, 1, "a"), 0)


def test_a_transaction_waits_for_those_before_it_and_for_a_fee_that_pays() -> None:
    chain = new_chain()
    chain.arrive(batch(chain, 10**18, 1, "b", nonce=1), 0)
    chain.mine(0)
    assert chain.head.receipts == ()
    chain.arrive(batch(chain, 10**18, 1, "cheap", fee=10**9), 0)
    chain.mine(0)
    assert chain.head.receipts == (), "it pays less than a block costs"


def price_of(chain: Chain, name: str) -> float:
    found = pool_mid(next(one for one in pools.listed() if one.id == name), chain.pools[name])
    return int(found.num) / int(found.den)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(-300, 300))
def test_the_pools_come_back_to_the_exchange_within_their_fees(ether: int, moved_bps: int) -> None:
    """Whatever we or the market did: after the next block nobody gains by trading a pool against the exchange."""
    mid = MID
    chain = new_chain(lambda: mid)
    chain.arrive(batch(chain, ether * 10**18, 1), 0)
    chain.mine(0)
    mid = MID * (10_000 + moved_bps) / 10_000
    chain.mine(12)
    for name, state in chain.pools.items():
        off_bps = abs(price_of(chain, name) / float(mid) - 1) * 1e4
        room_bps = 1.0 if state.fee_pips == 500 else 2.5  # what is not worth the gas of bringing it back
        assert off_bps <= state.fee_pips / 100 * 1.01 + room_bps, (name, off_bps)


def test_a_pool_within_its_fee_is_left_alone() -> None:
    chain = new_chain()
    before = dict(chain.pools)
    chain.mine(0)
    assert chain.pools == before
    assert chain.head.moved == ()


def test_a_transaction_is_named_by_its_bytes() -> None:
    chain = new_chain()
    raw = batch(chain, 10**18, 1)
    assert chain.arrive(raw, 0) == hash_of(raw)
    assert isinstance(chain.waiting[0], Tx)
