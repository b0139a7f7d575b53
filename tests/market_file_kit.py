"""Markets as files for tests: one that reads well, and hypothesis strategies for all that a file may say."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

PAGE = Path(__file__).resolve().parents[1] / "docs" / "market-file.md"
CHAIN = "eip155:1"


def example() -> dict[str, Any]:
    """The example of the page, as an object that a test may change."""
    block = PAGE.read_text(encoding="utf-8").partition("```json\n")[2].partition("```")[0]
    found: dict[str, Any] = json.loads(block)
    return found


def text_of(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def decimal(units: int, decimals: int) -> str:
    """Units as plain text, with all their places."""
    digits = str(units).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits


@st.composite
def amounts(draw: st.DrawFn, decimals: int, most: int = 10**30) -> str:
    return decimal(draw(st.integers(1, most)), decimals)


def fees() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.integers(0, 999_999).map(lambda pips: {"fee_pips": pips}),
        st.integers(0, 999_999).map(lambda pips: {"fee_bps": decimal(pips, 2)}),
    )


@st.composite
def books(draw: st.DrawFn, name: str, base: str, quote: str, decimals: tuple[int, int]) -> dict[str, Any]:
    tick, lot = draw(st.integers(1, 10**6)), draw(st.integers(1, 10**6))
    ticks = sorted(draw(st.sets(st.integers(1, 10**9), min_size=2, max_size=12)))
    cut = draw(st.integers(1, len(ticks) - 1))
    rows = [[decimal(one * tick, decimals[1]), decimal(draw(st.integers(1, 10**9)) * lot, decimals[0])] for one in ticks]
    found = {
        "id": name,
        "base": base,
        "quote": quote,
        "tick": decimal(tick, decimals[1]),
        "lot": decimal(lot, decimals[0]),
        "bids": rows[:cut][::-1],
        "asks": rows[cut:],
        "min_notional": decimal(draw(st.sampled_from([0, 0, 10**6, 10**12])), decimals[1]),
    }
    return found | draw(fees())


@st.composite
def pools(draw: st.DrawFn, name: str, pair: list[str], decimals: tuple[int, int]) -> dict[str, Any]:
    kind = draw(st.sampled_from(["v2", "v3", "v4", "stable"]))
    found: dict[str, Any] = {"kind": kind, "id": name, "assets": pair} | draw(fees())
    if draw(st.booleans()):
        found["gas"] = draw(st.integers(0, 10**6))
    if kind == "v2":
        return found | {"reserves": [draw(amounts(one)) for one in decimals]}
    if kind == "stable":
        balances = [decimal(draw(st.integers(10**3, 10**9)), one) for one in decimals]
        return found | {"balances": balances, "A": str(draw(st.integers(1, 5_000)))}
    spacing = draw(st.sampled_from([1, 10, 60]))
    middle, width = draw(st.integers(-5_000, 5_000)), draw(st.integers(1, 2_000))
    liquidity = draw(st.integers(1, 2**100))
    low, high = (middle - width) * spacing, (middle + width) * spacing
    root = int(1.0001 ** (middle * spacing / 2) * 2**96)
    return found | {
        "sqrt_price_x96": str(root), "liquidity": str(liquidity), "tick_spacing": spacing,
        "ticks": [[low, str(liquidity)], [high, str(-liquidity)]],
    }  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Sound files of one pair, with numbers of every size."""
    at_book, at_chain = ((draw(st.integers(0, 18)), draw(st.integers(0, 18))) for _ in range(2))
    assets = [
        {"symbol": "AAA", "home": "ex", "decimals": at_book[0]},
        {"symbol": "BBB", "home": "ex", "decimals": at_book[1]},
        {"symbol": "wAAA", "home": CHAIN, "decimals": at_chain[0], "group": "AAA"},
        {"symbol": "BBB", "home": CHAIN, "decimals": at_chain[1]},
    ]
    found: dict[str, Any] = {"assets": assets}
    found["books"] = [draw(books(f"ex:{k}", "AAA@ex", "BBB@ex", at_book)) for k in range(draw(st.integers(0, 2)))]
    pair = [f"wAAA@{CHAIN}", f"BBB@{CHAIN}"]
    turned = draw(st.booleans())
    found["pools"] = [
        draw(pools(f"amm:{k}", pair[::-1] if turned else pair, at_chain[::-1] if turned else at_chain))
        for k in range(draw(st.integers(1, 3)))
    ]
    price = decimal(draw(st.integers(1, 10**20)), 18)
    found["chains"] = [{"chain_id": 1, "gas_price_gwei": decimal(draw(st.integers(0, 10**12)), 9), "coin_prices": {"BBB": price}}]
    if draw(st.integers(0, 3)) == 0:
        names = [f"{one['symbol']}@{one['home']}" for one in assets]
        kept = draw(st.lists(st.sampled_from(names), unique=True))
        found["balances"] = {name: decimal(draw(st.integers(0, 10**24)), 0) for name in kept}
    return found
