"""`isthmus route --market FILE`: what it prints, what it refuses, and whether a solver that shares nothing with it agrees."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, isthmus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_file_kit import amounts, documents, example, text_of

from agent.cli import route_file, route_shown
from agent.cli.show import jsonable
from agent.domain.errors import IsthmusError
from agent.market.file import parse

KEYS = {
    "market", "side", "quantity", "placed", "unplaced", "unplaced_reason", "quote", "gas", "conversion_cost", "average_price",
    "marginal_price", "mid", "against_mid_bps", "gap_bps", "time_us", "legs", "counterfactuals", "left_out",
}  # fmt: skip
LEG_KEYS = {
    "source", "kind", "amount_in", "amount_out", "share", "average_price", "average_price_after_gas", "fee_pips", "gas", "why",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "market.json").write_bytes(text_of(example()))
    return tmp_path


def route(
    document: dict[str, Any], *, coin: str | None = None, limit: str | None = None, legs: int | None = None, **ask: str
) -> Any:
    """In process, as the object that `--json` prints."""
    described = parse(text_of(document))
    asked = route_file.question(described, ask.get("sell"), ask.get("buy"), coin, limit, legs)
    return json.loads(json.dumps(jsonable(route_shown.answer_json(route_file.answer(described, asked)))))


def units(amount: dict[str, str]) -> Decimal:
    return Decimal(amount["amount"])


# -- what it prints ----------------------------------------------------------------------------------------------------


def test_a_table_that_fits(here: Path) -> None:
    done = isthmus("route", "--market", "market.json", "--sell", "40 ETH", at=here)
    assert done.code == 0, done
    assert done.err == ""
    assert done.out.startswith("sell 40 ETH: fetches 99,86")
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert "\x1b" not in done.out
    for words in ("binance", "v3-500", "v2-3000", "average price", "marginal price", "best alone", "equal parts", "found in"):
        assert words in done.out
    explained = isthmus("route", "--market", "market.json", "--sell", "4 ETH", "--explain", at=here)
    assert "all of it at one place" in explained.out
    assert "pays best until" in explained.out
    assert re.search(r"left out {2}(GAS_NOT_EARNED|WORSE_PRICE): binance: ", explained.out)


def test_standard_input_and_json(here: Path) -> None:
    text = (here / "market.json").read_text()
    piped = isthmus("route", "--market", "-", "--buy", "12.5 ETH", "--for", "USDT", "--json", at=here, stdin=text)
    assert piped.code == 0, piped
    named = isthmus("route", "--market", "market.json", "--buy", "12.5 ETH", "--json", at=here).json
    assert {**piped.json, "time_us": 0} == {**named, "time_us": 0}, "the same question, the same answer"
    assert set(named) == KEYS
    assert all(set(leg) == LEG_KEYS for leg in named["legs"])
    assert named["quantity"] == named["placed"] == {"amount": "12.5", "asset": "ETH"}
    assert units(named["quote"]) == sum(units(leg["amount_in"]) for leg in named["legs"]) + units(named["gas"])
    assert sum(units(leg["amount_out"]) for leg in named["legs"]) == Decimal("12.5")
    assert sum(leg["share"] for leg in named["legs"]) == pytest.approx(1)
    assert {leg["kind"] for leg in named["legs"]} == {"book", "v3"}
    assert all(isinstance(named[key], str) for key in ("average_price", "marginal_price", "mid"))


def test_the_schema(here: Path) -> None:
    done = isthmus("route", "--schema", at=here)
    assert done.code == 0, done
    assert set(done.json["$defs"]["Document"]["properties"]) == {
        "assets", "books", "pools", "chains", "balances", "conversions", "limits", "note",
    }  # fmt: skip


# -- what it answers ---------------------------------------------------------------------------------------------------


def test_selling_and_buying() -> None:
    sold = route(example(), sell="40 ETH")
    assert (sold["market"], sold["side"]) == ("ETH/USDT", "sell")
    assert units(sold["quote"]) == sum(units(leg["amount_out"]) for leg in sold["legs"]) - units(sold["gas"])
    assert sold["gap_bps"] < 1e-3
    assert sold["against_mid_bps"] < 0
    assert float(sold["marginal_price"]) < float(sold["average_price"])
    told = sold["counterfactuals"]
    assert {one["place"] for one in told["alone"]} == {"binance:ETHUSDT", "uniswap:v2-3000", "uniswap:v3-500", "uniswap"}
    assert [one["place"] for one in told["naive"]] == ["best first price", "equal parts"]
    assert all(one["split_is_better_bps"] is None or one["split_is_better_bps"] >= 0 for one in (*told["alone"], *told["naive"]))
    assert told["best_single"]["place"] == "uniswap:v3-500"
    bought = route(example(), buy="40 ETH")
    assert units(bought["quote"]) > units(sold["quote"])
    assert bought["against_mid_bps"] < 0


def test_a_pool_in_both_directions() -> None:
    there = route(example(), sell="100000 DAI")
    back = route(example(), sell=f"{there['quote']['amount'].partition('.')[0]} USDT", coin="DAI")
    assert [leg["kind"] for leg in there["legs"]] == ["stable"]
    assert 99_900 < float(units(back["quote"])) < 99_925, "two fees of 4 basis points, gas, and the same price both ways"


def test_over_other_coins_the_hops_conserve_every_unit(here: Path) -> None:
    done = isthmus("route", "--market", "market.json", "--sell", "40 ETH", "--for", "DAI", "--hops", "--json", at=here)
    assert done.code == 0, done
    found = done.json
    assert any(hop["via"].startswith("curve") for hop in found["hops"]), "no pool trades ETH for DAI"
    have: dict[str, Decimal] = {}
    for hop in found["hops"]:
        for amount, sign in ((hop["amount_in"], -1), (hop["amount_out"], 1)):
            have[amount["asset"]] = have.get(amount["asset"], Decimal(0)) + sign * units(amount)
            if sign < 0 and "ETH" not in amount["asset"]:
                assert have[amount["asset"]] >= 0, "nothing is sent on that has not arrived"
    assert have["DAI@eip155:1"] == units(found["received"])
    assert units(found["quote"]) == units(found["received"]) - units(found["gas"])
    assert 0 <= found["gap_bps"] < 0.01
    table = isthmus("route", "--market", "market.json", "--sell", "40 ETH", "--for", "DAI", "--hops", "--explain", at=here)
    assert table.code == 0
    assert "at most missed" in table.out
    assert all(len(line) <= 80 for line in table.out.splitlines() if not line.startswith("left out"))


def test_over_other_coins_a_direct_pair_is_worth_no_less(here: Path) -> None:
    ask = ("route", "--market", "market.json", "--sell", "40 ETH", "--for", "USDT", "--json")
    direct, around = isthmus(*ask, at=here).json, isthmus(*ask, "--hops", at=here).json
    assert units(around["quote"]) >= units(direct["quote"]) * Decimal("0.9999999")


def test_limits_balances_and_few_legs() -> None:
    free = route(example(), sell="40 ETH")
    few = route(example(), sell="40 ETH", legs=1)
    assert len(few["legs"]) == 1
    assert units(few["quote"]) < units(free["quote"])
    limited = route(example(), sell="400 ETH", limit="2499")
    assert limited["unplaced_reason"]["code"] == "LIMIT_REACHED"
    assert units(limited["placed"]) + units(limited["unplaced"]) == 400
    poor = route(example() | {"balances": {"ETH@binance": "3"}}, sell="40 ETH")
    assert [leg["source"] for leg in poor["legs"]] == ["binance:ETHUSDT"]
    assert (poor["placed"]["amount"], poor["unplaced_reason"]["code"]) == ("3", "NO_INVENTORY")
    assert {one["code"] for one in poor["left_out"]} == {"NO_CAPACITY"}
    strict = route(example() | {"limits": {"legs_max": 2}}, sell="40 ETH")
    assert len(strict["legs"]) == 2


def test_conversions_move_the_split_and_never_the_money() -> None:
    free, fixed = route(example(), sell="40 ETH"), route(example(), sell="40 ETH", coin="USDT@binance")
    share = {leg["source"]: leg["share"] for leg in free["legs"]}
    moved = {leg["source"]: leg["share"] for leg in fixed["legs"]}
    assert moved["binance:ETHUSDT"] > share["binance:ETHUSDT"]
    assert units(free["conversion_cost"]) == 0
    pools = sum(units(leg["amount_out"]) for leg in fixed["legs"] if leg["kind"] != "book")
    assert units(fixed["conversion_cost"]) == pytest.approx(pools * Decimal("0.8") / 10_000, rel=Decimal("1e-6"))
    assert units(fixed["quote"]) == sum(units(leg["amount_out"]) for leg in fixed["legs"]) - units(fixed["gas"])
    worth_more = [{"from": "USDT@eip155:1", "to": "USDT@binance", "price": "1.0009", "cost_bps": "0"}]
    pegged = route(example() | {"conversions": worth_more}, sell="40 ETH", coin="USDT@binance")
    kept = {leg["source"]: leg["share"] for leg in pegged["legs"]}
    assert kept["binance:ETHUSDT"] < share["binance:ETHUSDT"]
    assert units(pegged["conversion_cost"]) < 0
    stuck = route(example(), buy="4 ETH", coin="USDT@binance")
    assert [leg["source"] for leg in stuck["legs"]] == ["binance:ETHUSDT"]
    assert {one["code"] for one in stuck["left_out"]} == {"NO_CONVERSION"}


def test_dear_gas_keeps_pools_out() -> None:
    found = example()
    found["chains"][0]["gas_price_gwei"] = "900"
    dear = route(found, sell="12 ETH")
    assert [leg["kind"] for leg in dear["legs"]] == ["book"]
    assert {one["code"] for one in dear["left_out"]} == {"GAS_NOT_EARNED"}
    none = route(example() | {"chains": []}, sell="12 ETH")
    assert {one["code"] for one in none["left_out"]} == {"NO_GAS_PRICE"}


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(documents(), st.sampled_from(["sell", "buy"]), amounts(18, 10**20), st.sampled_from([None, "0.5", "2000000"]))
def test_every_sound_file_gets_an_answer_or_one_line(rows: dict[str, Any], side: str, number: str, limit: str | None) -> None:
    """Also with numbers of every size: nothing overflows, nothing is divided by zero, and what is placed adds up."""
    with contextlib.suppress(IsthmusError), localcontext() as exact:  # a refusal is an answer too
        exact.prec = 80
        found = route(rows, coin="BBB", limit=limit, **{side: f"{number} AAA"})
        base, quote = ("amount_in", "amount_out") if side == "sell" else ("amount_out", "amount_in")
        assert sum(units(leg[base]) for leg in found["legs"]) == units(found["placed"])
        assert units(found["placed"]) + units(found["unplaced"]) == Decimal(number)
        gas = units(found["gas"]) * (1 if side == "buy" else -1)
        assert units(found["quote"]) == sum(units(leg[quote]) for leg in found["legs"]) + gas


# -- what a solver of one's own says -----------------------------------------------------------------------------------

Gain = Callable[[float], float]


def best_split(gains: list[Gain], highs: list[float], amount: float) -> float:
    """The most that concave gains bring together: a price is halved until the sizes at which each gain peaks add up."""

    def sizes(price: float) -> list[float]:
        return [peak(lambda x, gain=gain: gain(x) - price * x, high) for gain, high in zip(gains, highs, strict=True)]

    low, high = 0.0, 10_000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(sizes(middle)) > amount else (low, middle)
    dear, cheap = sizes(high), sizes(low)
    total = sum(dear)
    part = (amount - total) / (sum(cheap) - total) if sum(cheap) > total else 0.0
    return sum(gain(x + (y - x) * part) for gain, x, y in zip(gains, dear, cheap, strict=True))


def peak(worth: Gain, high: float) -> float:
    """Where a concave function is greatest, by thirds."""
    low = 0.0
    for _ in range(80):
        third = (high - low) / 3
        if worth(low + third) < worth(high - third):
            low += third
        else:
            high -= third
    return (low + high) / 2


def gains_of(document: dict[str, Any]) -> Iterator[tuple[Gain, float, float]]:
    """(what it pays for x, how much it takes at most, gas in quote coins), by the formulas of the page, from the file's text."""
    gas = float(document["chains"][0]["gas_price_gwei"]) * 1e-9 * float(document["chains"][0]["coin_prices"]["USDT"])
    for book in document["books"]:
        keep = 1 - float(book["fee_bps"]) / 1e4
        levels = [(float(price), float(size)) for price, size in book["bids"]]
        yield lambda x, levels=levels, keep=keep: keep * walk(levels, x), sum(size for _, size in levels), 0.0
    for pool in document["pools"]:
        keep = 1 - float(pool["fee_bps"]) / 1e4
        if pool["kind"] == "v2":
            r, q = map(float, pool["reserves"])
            yield lambda x, r=r, q=q, keep=keep: q * keep * x / (r + keep * x), 1e4, 66_000 * gas
        elif pool["kind"] == "v3":
            s, liquidity = float(pool["sqrt_price_x96"]) / 2**96 * 1e6, float(pool["liquidity"]) / 1e12
            r, q = liquidity / s, liquidity * s
            end = sqrt(1.0001 ** pool["ticks"][0][0] * 1e12)
            most = liquidity * (1 / end - 1 / s) / keep
            yield lambda x, r=r, q=q, keep=keep: q * keep * x / (r + keep * x), most, 82_000 * gas


def walk(levels: list[tuple[float, float]], left: float) -> float:
    total = 0.0
    for price, size in levels:
        take = min(left, size)
        total, left = total + take * price, left - take
    return total


@pytest.mark.parametrize("gwei", ["0", "2", "60", "400"])
@pytest.mark.parametrize("amount", [1, 12, 40, 90])
def test_an_independent_solver_agrees(amount: int, gwei: str) -> None:
    """Every set of pools is tried; for each, the concave split is solved by halving a price. Nothing of the agent's is used."""
    document = example()
    document["chains"][0]["gas_price_gwei"] = gwei
    found = route(document, sell=f"{amount} ETH")
    sources = list(gains_of(document))
    unit = float(gwei) * 1e-9 * 2_500
    best = 0.0
    for used in product((False, True), repeat=len(sources)):
        chosen = [source for source, on in zip(sources, used, strict=True) if on]
        if sum(most for _, most, _ in chosen) < amount:
            continue
        cost = sum(gas for *_, gas in chosen) + (75_000 * unit if any(gas or most >= 1e3 for _, most, gas in chosen) else 0.0)
        best = max(best, best_split([gain for gain, *_ in chosen], [min(most, amount) for _, most, _ in chosen], amount) - cost)
    assert float(units(found["quote"])) == pytest.approx(best, rel=1e-8), "1e-4 basis points"


# -- what it refuses ---------------------------------------------------------------------------------------------------

FILE = ("route", "--market", "market.json")
WRONG = {
    "hops and a limit": ((*FILE, "--sell", "40 ETH", "--for", "DAI", "--hops", "--limit", "3"), "--limit cannot go with --hops"),
    "hops and a purchase": ((*FILE, "--buy", "40 ETH", "--for", "DAI", "--hops"), "--buy cannot go with --hops"),
    "no amount": (FILE, "--market wants one of --sell and --buy"),
    "two amounts": ((*FILE, "--sell", "1 ETH", "--buy", "1 ETH"), "--market wants one of --sell and --buy"),
    "a pair too": ((*FILE[:1], "ETH/USDT", *FILE[1:], "--sell", "1 ETH"), "PAIR cannot go with --market"),
    "a side too": ((*FILE, "--sell", "1 ETH", "--side", "sell"), "--side cannot go with --market"),
    "settings too": ((*FILE, "--sell", "1 ETH", "-c", "x.toml"), "--config cannot go with --market.*needs no settings"),
    "no file": (("route", "--sell", "1 ETH"), "--sell cannot go with your venues: add --market FILE"),
    "an amount for venues": (
        ("route", "ETH/USDT", "--side", "sell", "--qty", "1", "--for", "USDT"), "--for cannot go with your venues"),
    "nothing": (("route",), "missing PAIR, --side, --qty: say PAIR --side sell --qty 40, or --market FILE --sell '40 ETH'"),
    "no quantity": (("route", "ETH/USDT", "--side", "sell"), "missing --qty"),
    "no such file": (("route", "--market", "none.json", "--sell", "1 ETH"), "cannot read none.json: No such file"),
    "a folder": (("route", "--market", ".", "--sell", "1 ETH"), "cannot read .: Is a directory"),
    "not an amount": ((*FILE, "--sell", "40ETH"), "--sell: '40ETH' is not an amount of a coin; write --sell '40 ETH'"),
    "an exponent": ((*FILE, "--sell", "1e1000000 ETH"), "'1e1000000' is not a plain decimal number"),
    "negative": ((*FILE, "--sell", "-5 ETH"), "'-5' is not a plain decimal number"),
    "zero": ((*FILE, "--buy", "0 ETH"), "--buy: the amount must be above zero"),
    "unknown coin": ((*FILE, "--sell", "1 DOGE"), "'DOGE' is no coin of this file; name ETH, USDT, DAI"),
    "unknown partner": ((*FILE, "--sell", "1 ETH", "--for", "DOGE"), "--for: 'DOGE' is no coin"),
    "no direct market": ((*FILE, "--sell", "1 ETH", "--for", "DAI"), "ETH against DAI directly; --hops looks"),
    "the wrong way round": ((*FILE, "--sell", "100 USDT", "--for", "ETH"), "the books quote ETH in USDT; .*buy ETH, --for USDT"),
    "itself": ((*FILE, "--sell", "1 ETH", "--for", "ETH"), "nothing in this file trades ETH against ETH directly"),
    "zero limit": ((*FILE, "--sell", "1 ETH", "--limit", "0"), "--limit: a price of ETH/USDT is above zero"),
    "odd limit": ((*FILE, "--sell", "1 ETH", "--limit", "NaN"), "--limit: 'NaN' is not a plain decimal"),
    "no legs": ((*FILE, "--sell", "1 ETH", "--legs", "0"), "--legs"),
}  # fmt: skip


def complains(done: Done, code: int, words: str) -> None:
    assert done.code == code, done
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1, done
    assert re.search(words, lines[0]), lines[0]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_questions(here: Path, name: str) -> None:
    arguments, words = WRONG[name]
    complains(isthmus(*arguments, at=here), 2, words)


def test_wrong_files(here: Path) -> None:
    (here / "bad.json").write_bytes(text_of(example()).replace(b'"tick": "0.01"', b'"tick": "1e1000000"'))
    ask = ("--sell", "1 ETH")
    complains(isthmus("route", "--market", "bad.json", *ask, at=here), 2, r"bad.json: books\[0\].tick: '1e1000000' is not a plain")
    complains(
        isthmus("route", "--market", "-", *ask, at=here, stdin="[" * 100_000), 2, "standard input: the file: Expected `object`"
    )
    done = isthmus("route", "--market", "bad.json", *ask, "--json", at=here)
    assert (done.code, done.json["status"], done.json["exit_code"]) == (2, "error", 2)


def test_nothing_can_be_traded(here: Path) -> None:
    done = isthmus(*FILE, "--sell", "1 ETH", "--limit", "9000", at=here)
    complains(
        done, 4, "no route: nothing of 1 ETH can be traded within the limit.*binance:ETHUSDT: its best price is already beyond"
    )
