"""Logs into words: recorded receipts of real contracts, and logs that are none of ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.chains import logs
from agent.chains.logs import LiquidityChanged, Log, PoolSwapped, ReservesChanged, parse_logs, pool_log, pool_of, transfer
from agent.chains.pools import Ranges, Reserves, carry
from agent.chains.receipts import parse_receipt, pool_trades, wallet_moves
from agent.domain.errors import ChainError

RECORDED = json.loads((Path(__file__).parents[2] / "venues" / "uniswap" / "receipts.json").read_text())
WALLET = RECORDED["wallet"]
WETH, USDT = "0x5fbdb2315678afecb367f032d93f642f64180aa3", "0xe7f1725e7734ce288f8367e1bb143e90bb3f0512"
POOL = "0x" + "aa" * 20


def word(value: int) -> bytes:
    return (value % 2**256).to_bytes(32, "big")


def made(topics: tuple[str, ...], *values: int, index: int = 0) -> Log:
    return Log(POOL, topics, b"".join(map(word, values)), 1, "0xb", "0xt", index)


def test_a_recorded_batch_moves_the_wallet_by_what_the_pools_say() -> None:
    receipt = parse_receipt(RECORDED["receipts"]["sell_in_three"])
    trades = pool_trades(receipt)
    moved = wallet_moves(receipt, WALLET, [WETH, USDT])
    assert receipt.succeeded
    assert [trade.amount0 for trade in trades] == [10**18, 2 * 10**18, 3 * 10**18]
    assert moved == {WETH: -sum(t.amount0 for t in trades), USDT: -sum(t.amount1 for t in trades)}
    assert receipt.cost == receipt.gas_used * int(RECORDED["receipts"]["sell_in_three"]["effectiveGasPrice"], 16)


def test_a_recorded_purchase_has_the_signs_turned() -> None:
    receipt = parse_receipt(RECORDED["receipts"]["buy_in_two"])
    trades, moved = pool_trades(receipt), wallet_moves(receipt, WALLET, [WETH, USDT])
    assert [trade.amount0 for trade in trades] == [-(10**18), -(10**18)]
    assert moved[WETH] == 2 * 10**18
    assert moved[USDT] == -sum(trade.amount1 for trade in trades) < 0


def test_a_recorded_revert_moved_nothing() -> None:
    receipt = parse_receipt(RECORDED["receipts"]["reverted"])
    assert (receipt.succeeded, pool_trades(receipt), receipt.logs) == (False, [], ())
    assert receipt.cost > 0


def test_a_rollup_adds_the_cost_of_its_data() -> None:
    recorded = RECORDED["receipts"]["reverted"]
    assert parse_receipt({**recorded, "l1Fee": "0x10"}).cost == parse_receipt(recorded).cost + 16


@pytest.mark.parametrize("field", ["gasUsed", "effectiveGasPrice", "status", "logs", "blockHash"])
def test_a_receipt_that_lacks_a_field_is_refused_by_name(field: str) -> None:
    cut = {key: value for key, value in RECORDED["receipts"]["reverted"].items() if key != field}
    with pytest.raises(ChainError, match=field):
        parse_receipt(cut)


def test_the_pools_amounts_are_the_pools_whatever_the_protocol() -> None:
    account = "0x" + "00" * 32
    v3 = made((logs.V3_SWAP, account, account), 5, -7, 2**96, 11, -3)
    v4 = made((logs.V4_SWAP, "0xid", account), -5, 7, 2**96, 11, -3, 500)
    pair = made((logs.PAIR_SWAP, account, account), 5, 0, 0, 7)
    assert pool_log(v3) == PoolSwapped(POOL, 5, -7, 2**96, 11, -3)
    assert pool_log(v4) == PoolSwapped("0xid", 5, -7, 2**96, 11, -3)
    assert pool_log(pair) == logs.PairSwapped(POOL, 5, -7)
    assert (pool_of(v3), pool_of(v4)) == (POOL, "0xid")


def test_added_and_removed_liquidity_names_its_ticks() -> None:
    lower, upper = "0x" + word(-60).hex(), "0x" + word(120).hex()
    mint = made((logs.V3_MINT, "0x0", lower, upper), 0, 1, 2, 3)
    burn = made((logs.V3_BURN, "0x0", lower, upper), 1, 2, 3)
    modify = made((logs.V4_MODIFY, "0xid", "0x0"), -60, 120, -9, 0)
    assert pool_log(mint) == pool_log(burn) == LiquidityChanged(POOL, -60, 120)
    assert pool_log(modify) == LiquidityChanged("0xid", -60, 120)


@pytest.mark.parametrize(
    "log",
    [
        made(()),
        made(("0x" + "12" * 32,), 1, 2),
        made((logs.PAIR_SYNC,), 1),  # too little data
        made((logs.V3_SWAP, "0x0"), 1, 2, 3, 4, 5),  # too few topics
    ],
)
def test_what_only_looks_like_a_pool_is_left_alone(log: Log) -> None:
    assert pool_log(log) is None
    assert transfer(log) is None


def test_an_nfts_transfer_is_no_money() -> None:
    topics = (logs.TRANSFER, "0x" + "00" * 32, "0x" + "00" * 32, "0x" + "00" * 32)
    assert transfer(Log(POOL, topics, b"", 1, "0xb", "0xt", 0)) is None


def test_logs_are_put_in_the_chains_order_without_the_removed() -> None:
    first: dict[str, Any] = {**RECORDED["receipts"]["sell_in_three"]["logs"][0]}
    found = parse_logs([{**first, "logIndex": "0x9"}, {**first, "logIndex": "0x2"}, {**first, "logIndex": "0x5", "removed": True}])
    assert [log.index for log in found] == [2, 9]


@pytest.mark.parametrize("found", [None, {}, [{}], ["x"], [{"address": POOL, "topics": None}]])
def test_a_node_that_answers_nonsense_is_refused(found: object) -> None:
    with pytest.raises(ChainError, match="use another RPC"):
        parse_logs(found)


def test_states_are_carried_by_logs_or_read_again() -> None:
    state = Ranges(2**96, 5, 100, ((-60, 100), (60, -100)), -15_360, 15_300, 0)
    assert carry(Reserves(1, 2), ReservesChanged(POOL, 3, 4), 0) == Reserves(3, 4)
    assert carry(Reserves(1, 2), logs.PairSwapped(POOL, 3, 4), 0) == Reserves(1, 2)
    inside = carry(state, PoolSwapped(POOL, 1, -1, 2**97, 50, 70), 60)
    assert inside == Ranges(2**97, 70, 50, state.ticks, -15_360, 15_300, 0)
    assert carry(state, PoolSwapped(POOL, 1, -1, 2**97, 50, -1), 60) is None  # the price left the middle word
    assert carry(state, LiquidityChanged(POOL, -60, 60), 60) is None
    assert carry(state, LiquidityChanged(POOL, 20_000, 30_000), 60) == state
    assert carry(state, LiquidityChanged(POOL, -30_000, 30_000), 60) is None, "a range over all of it is part of the liquidity"
