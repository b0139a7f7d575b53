"""A market file says exactly what it says: every number to the unit, or one line that names the place where it is wrong."""

import json
import time
from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from market_file_kit import documents, example, text_of

from agent.domain.amount import Amount
from agent.domain.errors import UsageError
from agent.domain.price import Price
from agent.liquidity.concentrated import Concentrated
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth
from agent.liquidity.stable import StableSwap
from agent.market import document
from agent.market.described import NO_CONVERSION, pairs, reached, turned, view
from agent.market.file import parse
from agent.routing.cost import BATCH_GAS

QUICK_S = 2.0
ETH, USDT, CHAIN_USDT, WETH = "ETH@binance", "USDT@binance", "USDT@eip155:1", "WETH@eip155:1"


def complaint(text: bytes) -> str | None:
    """What is wrong with it, in one line of bounded length; None for a market."""
    try:
        parse(text)
    except UsageError as error:
        words = str(error)
    else:
        return None
    assert "\n" not in words
    assert len(words) < 400
    return words


def refusal(text: bytes) -> str:
    words = complaint(text)
    assert words is not None, text[:80]
    return words


def changed(*path: Any, to: Any) -> bytes:
    """The example with one thing put in another's place."""
    found = example()
    place: Any = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return text_of(found)


def test_the_example_to_the_unit() -> None:
    found = parse(text_of(example()))
    assert list(found.assets) == [ETH, USDT, WETH, CHAIN_USDT, "DAI@eip155:1"]
    book, pair, ranges, stable = (source.state for source in found.sources)
    assert isinstance(book, Depth)
    assert book.bids[0] == (249_990, 65_000)
    assert (book.tick_units, book.lot_units, book.fee_pips) == (10**6, 10**4, 1_000)
    assert pair == ConstantProduct(1_200 * 10**18, 3_012_000 * 10**6, 3_000)
    assert isinstance(ranges, Concentrated)
    assert (ranges.tick, ranges.fee_pips, ranges.ticks[0]) == (-198_080, 500, (-199_000, 6 * 10**17))
    assert stable == StableSwap(21_000_000 * 10**18, 19_000_000 * 10**6, 200_000, 4_000_000, 10**18, 10**30)
    book_at, pool_at = found.sources[0].instrument, found.sources[1].instrument
    assert (book_at.id, book_at.market, book_at.notional_min) == ("binance:ETHUSDT", "ETH/USDT", 5 * 10**8)
    assert (pool_at.id, pool_at.base.id, pool_at.base_is_token0, pool_at.gas) == ("uniswap:v2-3000", WETH, True, 66_000)
    assert found.sources[0].mid == Price(2_500, 1)
    assert found.chains[0].wei_per_gas == 2 * 10**9
    assert found.chains[0].batch_gas == BATCH_GAS
    assert found.chains[0].coin_prices == {"USDT": Price(2_500, 1), "DAI": Price(2_500, 1)}
    assert found.balances is None
    assert found.conversions[0].cost_pips == 80


def test_pairs_and_views() -> None:
    found = parse(text_of(example()))
    assert pairs(found) == ("ETH/USDT", "DAI/USDT", "USDT/DAI"), "books in the direction in which they are quoted, pools in both"
    seen = view(found, "ETH/USDT")
    assert [source.instrument.id for source in seen.sources] == ["binance:ETHUSDT", "uniswap:v2-3000", "uniswap:v3-500"]
    assert seen.mid == Price(2_500, 1), "of the book alone"
    forward, back = view(found, "DAI/USDT"), view(found, "USDT/DAI")
    assert forward.mid is not None
    assert back.mid is not None
    assert float(Fraction(forward.mid.num, forward.mid.den) * Fraction(back.mid.num, back.mid.den)) == pytest.approx(1, rel=1e-15)
    assert turned(back.sources[0]) == forward.sources[0]
    assert not back.sources[0].instrument.base_is_token0
    assert view(found, "ETH/DAI").sources == ()


def test_a_book_with_one_side() -> None:
    found = parse(changed("books", 0, "asks", to=[]))
    assert found.sources[0].mid == Price(249_990, 100)
    assert "neither bids nor asks" in refusal(text_of(_with(example(), books=[{**example()["books"][0], "asks": [], "bids": []}])))


def _with(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return found | changes


def test_fees_in_both_units() -> None:
    for fee in ({"fee_bps": "30"}, {"fee_bps": "30.00"}, {"fee_pips": 3_000}):
        pool = {key: value for key, value in example()["pools"][0].items() if key != "fee_bps"} | fee
        assert parse(text_of(_with(example(), pools=[pool]))).sources[1].instrument.fee_pips == 3_000
    stable = {**example()["pools"][2], "fee_bps": "0.012345"}
    found = parse(text_of(_with(example(), pools=[stable]))).sources[1]
    assert isinstance(found.state, StableSwap)
    assert (found.state.fee, found.instrument.fee_pips) == (12_345, 2), "exact in the pool, rounded up for show"


def test_stable_pools_of_other_kinds() -> None:
    pool = {**example()["pools"][2], "A": "150.55", "rates": ["1.187", "1"], "admin_fee": "0.5"}
    state = parse(text_of(_with(example(), pools=[pool]))).sources[1].state
    assert isinstance(state, StableSwap)
    assert (state.amp, state.amp_precision, state.rate_0, state.admin_fee) == (15_055, 100, 1_187 * 10**15, 5 * 10**9)
    old = parse(text_of(_with(example(), pools=[{**example()["pools"][2], "A_precision": 1}]))).sources[1].state
    assert isinstance(old, StableSwap)
    assert (old.amp, old.amp_precision) == (2_000, 1)


def test_conversions_count_where_an_asset_is_named() -> None:
    found = parse(text_of(example()))
    seen = view(found, "ETH/USDT")
    assert reached(found, seen, "sell", None, None).cost_pips == {}
    wanted = reached(found, seen, "sell", None, found.assets[USDT])
    assert wanted.cost_pips == {"uniswap:v2-3000": 80, "uniswap:v3-500": 80}
    assert len(wanted.view.sources) == 3
    paying = reached(found, seen, "buy", None, found.assets[USDT])
    assert [source.instrument.id for source in paying.view.sources] == ["binance:ETHUSDT"]
    assert {reason.code for reason in paying.view.untrusted} == {NO_CONVERSION}
    assert paying.view.mid == seen.mid
    pegged = [
        {"from": CHAIN_USDT, "to": USDT, "price": "1.0004", "cost_bps": "1"},
        {"from": USDT, "to": CHAIN_USDT, "cost_bps": "20"},
    ]
    found = parse(text_of(_with(example(), conversions=pegged)))
    dollars = found.assets[USDT]
    assert set(reached(found, seen, "sell", None, dollars).cost_pips.values()) == {-299}, "1 - 1.0004 * 0.9999, rounded up"
    assert set(reached(found, seen, "buy", None, dollars).cost_pips.values()) == {2_005}, "1 / 0.998 - 1, rounded up"
    assert "no conversion from USDT@binance to USDT@eip155:1" in paying.view.untrusted[0].text


def test_balances() -> None:
    found = parse(text_of(_with(example(), balances={ETH: "10.5", WETH: "0"})))
    assert found.balances == {ETH: Amount(1_050_000_000, found.assets[ETH]), WETH: Amount(0, found.assets[WETH])}


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(documents())
def test_every_number_arrives(rows: dict[str, Any]) -> None:
    try:
        found = parse(text_of(rows))
    except UsageError as error:
        assume("use another source" not in str(error) and "112 bits" not in str(error))
        raise
    assets = {f"{one['symbol']}@{one['home']}": one["decimals"] for one in rows["assets"]}
    for row, source in zip([*rows["books"], *rows["pools"]], found.sources, strict=True):
        one, state = source.instrument, source.state
        fee = Fraction(row["fee_pips"], 10**6) if "fee_pips" in row else Fraction(row["fee_bps"]) / 10_000
        if isinstance(state, Depth):
            assert Fraction(one.fee_pips, 10**6) == fee
            for side, levels in ((row["bids"], state.bids), (row["asks"], state.asks)):
                tick, lot = Fraction(state.tick_units, 10**one.quote.decimals), Fraction(state.lot_units, 10**one.base.decimals)
                assert [(Fraction(p), Fraction(s)) for p, s in side] == [(t * tick, k * lot) for t, k in levels]
        elif isinstance(state, ConstantProduct):
            held = [Fraction(text) * 10 ** assets[name] for text, name in zip(row["reserves"], row["assets"], strict=True)]
            assert held == [state.reserve_0, state.reserve_1]
            assert Fraction(state.fee_pips, 10**6) == fee
        elif isinstance(state, StableSwap):
            held = [Fraction(text) * 10 ** assets[name] for text, name in zip(row["balances"], row["assets"], strict=True)]
            assert held == [state.balance_0, state.balance_1]
            assert (Fraction(state.fee, 10**10), state.amp) == (fee, int(row["A"]) * 100)
            assert [state.rate_0, state.rate_1] == [10 ** (36 - assets[name]) for name in row["assets"]]
        else:
            assert (state.sqrt_price_x96, state.liquidity) == (int(row["sqrt_price_x96"]), int(row["liquidity"]))
            assert [[tick, str(net)] for tick, net in state.ticks] == row["ticks"]


# -- what is refused ---------------------------------------------------------------------------------------------------

HUGE = "1e1000000"
WRONG = {
    "exponent": (("books", 0, "bids", 0, 0), HUGE, r"books[0].bids[0]: '1e1000000' is not a plain decimal"),
    "a number without an end": (("books", 0, "bids", 0, 0), "9" * 5_000, "books[0].bids[0]: a number has 1 to 80 characters"),
    "not a number": (("pools", 0, "reserves", 0), "NaN", "pools[0].reserves: 'NaN' is not a plain decimal"),
    "infinite": (("pools", 2, "balances", 1), "Infinity", "pools[2].balances: 'Infinity' is not"),
    "negative": (("chains", 0, "gas_price_gwei"), "-1", "chains[0].gas_price_gwei: '-1' is not"),
    "other digits": (("books", 0, "lot"), "٠.1", "books[0].lot: '٠.1' is not a plain decimal"),
    "a float": (("books", 0, "tick"), 0.01, "books[0].tick: Expected `str`, got `float`"),
    "nothing": (("books", 0, "tick"), None, "books[0].tick: Expected `str`, got `null`"),
    "zero tick": (("books", 0, "tick"), "0", "books[0].tick: a number above zero"),
    "zero size": (("books", 0, "asks", 1, 1), "0.000", "books[0].asks[1]: a number above zero"),
    "finer than the asset": (("pools", 0, "reserves", 1), "1.0000001", "pools[0].reserves: '1.0000001' has 7 decimals, at most 6"),
    "off the tick": (("books", 0, "bids", 1, 0), "2499.405", "books[0].bids[1]: the price 2499.405 is no multiple of"),
    "off the lot": (("books", 0, "bids", 1, 1), "9.00005", "books[0].bids[1]: the size 9.00005 is no multiple of the lot 0.0001"),
    "levels out of order": (("books", 0, "bids", 1, 0), "2499.95", "books[0].bids[1]: levels stand best first"),
    "a price twice": (("books", 0, "asks", 1, 0), "2500.10", "books[0].asks[1]: levels stand best first, each price once"),
    "crossed": (("books", 0, "bids", 0, 0), "2500.10", "books[0]: crossed; its best bid 2500.10 is not below its best ask 2500.10"),
    "unknown key": (("books", 0, "tik"), "1", "books[0]: Object contains unknown field `tik`"),
    "a key that draws": (("books", 0, "\x1b[31m\n"), "1", "books[0]: Object contains unknown field `?[31m?`"),
    "an endless key": (("books", 0, "k" * 100_000), "1", "books[0]: Object contains unknown field `kkkk"),
    "unknown kind": (("pools", 0, "kind"), "v9", "pools[0].kind: Invalid value 'v9'"),
    "unknown asset": (("pools", 0, "assets", 0), "DOGE@x", "pools[0].assets[0]: 'DOGE@x' is no asset of this file"),
    "balance of no asset": (("balances",), {"DOGE@x": "1"}, "balances: 'DOGE@x' is no asset"),
    "same coin twice": (("books", 0, "quote"), ETH, "books[0]: ETH@binance and ETH@binance count as the same coin"),
    "a pool off chain": (("pools", 0, "assets"), [ETH, USDT], "pools[0]: its assets live at binance; a pool's live on a chain"),
    "a pool across places": (("pools", 0, "assets"), [WETH, USDT], "pools[0]: a pool holds two different assets of one chain"),
    "id twice": (("pools", 0, "id"), "uniswap:v3-500", "books and pools: uniswap:v3-500 is there twice"),
    "asset twice": (("assets", 2, "symbol"), "USDT", "assets: USDT@eip155:1 is there twice"),
    "chain twice": (("chains",), [{"chain_id": 1, "gas_price_gwei": "1", "coin_prices": {}}] * 2, "chains: 1 is there twice"),
    "two fees": (("pools", 0, "fee_pips"), 3_000, "pools[0]: give its fee once, as fee_bps or as fee_pips"),
    "no fee": (("books", 0, "fee_bps"), None, "books[0]: give its fee once"),
    "all of it as fee": (("books", 0, "fee_bps"), "10000", "books[0].fee_bps: 10000 basis points are all there is"),
    "fee too fine": (("books", 0, "fee_bps"), "1.001", "books[0].fee_bps: '1.001' has 3 decimals, at most 2"),
    "an id that draws": (("books", 0, "id"), "\x1b[31mred:x", "books[0].id: Expected `str` matching regex"),
    "an id with a line": (("books", 0, "id"), "binance:x\n", "books[0].id: Expected `str` matching regex"),
    "too many decimals": (("assets", 0, "decimals"), 19, "assets[0].decimals: Expected `int` <= 18"),
    "ticks out of order": (("pools", 1, "ticks"), [[10, "5"], [0, "-5"]], "pools[1]: the pool's ticks, price and fee contradict"),
    "a tick beyond all": (("pools", 1, "ticks", 0, 0), 900_000, "pools[1].ticks[0][0]: Expected `int` <= 887272"),
    "a price beyond all": (("pools", 1, "sqrt_price_x96"), "1", "pools[1]: root price 1 is outside"),
    "more than a word": (("pools", 1, "liquidity"), str(1 << 256), "pools[1].liquidity: no contract holds"),
    "signs": (("pools", 1, "ticks", 0, 1), "--5", "pools[1].ticks[0]: '-5' is not a plain decimal"),
    "an empty pool": (("pools", 1), {**example()["pools"][1], "liquidity": "0", "ticks": []}, "pools[1]: the pool is empty"),
    "too much for a pair": (("pools", 0, "reserves", 0), "9" * 17, "pools[0].reserves: a pair holds at most 112 bits"),
    "A of nothing": (("pools", 2, "A"), "0", "pools[2].A: a number above zero"),
    "A too large": (("pools", 2, "A"), "1000001", "pools[2]: the pool's balances, amplification"),
    "admin fee of more": (("pools", 2, "admin_fee"), "1.1", "pools[2]: the pool's balances, amplification"),
    "conversion between coins": (
        ("conversions", 0, "to"), ETH, "conversions[0]: it turns an asset into another one of its group"),
    "conversion of everything": (("conversions", 0, "cost_bps"), "10000", "conversions[0].cost_bps: 10000 basis points are all"),
    "limits": (("limits",), {"legs_max": 0}, "limits.legs_max: Expected `int` >= 1"),
    "a coin without a price": (("chains", 0, "coin_prices", "USDT"), "0", "chains[0].coin_prices.USDT: a number above zero"),
    "no assets": (("assets",), [], "assets: Expected `array` of length >= 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_place(name: str) -> None:
    path, value, words = WRONG[name]
    assert words in refusal(changed(*path, to=value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 1_000_000, "Expected `object`, got `array`"),
        (b'{"assets":' + b"[" * 1_000_000, "assets[0]: Expected `object`"),
        (b'{"balances":' + b'{"a":' * 1_000_000, "balances"),
        (b'{"note":' + b"9" * 1_000_000 + b"}", "note"),
        (b'{"assets": [{"symbol": "A", "home": "x", "decimals": 1e1000000}]}', "assets[0].decimals"),
        (b'{"assets": [{"symbol": "A", "home": "x", "decimals": NaN}]}', "not JSON"),
        (b" " * (document.BYTES_MAX + 1), "at most 32 MiB"),
    ],
    ids=range(10),
)
def test_hostile_text_is_refused_at_once(text: bytes, words: str) -> None:
    start = time.perf_counter()
    assert words in refusal(text)
    assert time.perf_counter() - start < QUICK_S


def test_a_key_that_stands_twice() -> None:
    text = text_of(example()).replace(b'"tick": "0.01"', b'"tick": "0.01", "tick": "0.02"')
    assert "the key 'tick' stands twice" in refusal(text)
    text = text_of(_with(example(), balances={ETH: "1", "x": "1"})).replace(b'"x": "1"', b'"ETH@binance": "2"')
    assert "the key 'ETH@binance' stands twice" in refusal(text)


def leaves(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [path] + [deeper for step, one in steps for deeper in leaves(one, (*path, step))]


HOSTILE = [
    HUGE, "NaN", "-0", "-1", "", " ", "0", "1" * 80, "1" * 81, "0." + "0" * 78, "٣", "\x00", "\ud800", "0x10", "1_000", "+1", "1e3",
    ".5", "5.", None, True, 0, -1, 10**18, 10**400, 0.1, [], {}, [[]], ["1", "2", "3"], {"a": {}},
]  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(leaves(example())[1:]), st.sampled_from(HOSTILE))
def test_whatever_stands_where_nothing_but_one_line_comes(path: tuple[Any, ...], value: Any) -> None:
    found = deepcopy(example())
    place: Any = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    complaint(json.dumps(found).encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_noise_is_refused(text: bytes) -> None:
    refusal(text)


def test_the_schema_knows_every_row_of_the_example() -> None:
    schema = document.schema()
    names = {name for row in schema["$defs"].values() for name in row["properties"]}
    used = {step for path in leaves(example()) for step in path if isinstance(step, str)} - {"USDT", "DAI"}
    assert used <= names
    assert all(row.get("additionalProperties") is False for row in schema["$defs"].values())
    tick = schema["$defs"]["BookRow"]["properties"]["tick"]
    assert (tick["type"], tick["maxLength"]) == ("string", 80)
