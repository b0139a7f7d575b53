"""How values look: short text for people, exact plain JSON for scripts. Text is rounded for the eye, money in JSON never."""

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from agent.domain.amount import Amount, decimal_of, plain
from agent.domain.price import Price
from agent.domain.price import decimal_of as price_decimal

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

POOL = re.compile(r"(v[0-9]+-[0-9]+)-[^/]+/[^-]+(-.*)?")
PRICES = frozenset({"price", "price_all_in"})  # floats of the router that are prices
DIGITS = 8  # of a price, after the point
OPINION_DIGITS = 6  # of a share, of basis points, of seconds


def print_json(value: Any) -> None:
    """One JSON document on standard output; money as exact text."""
    sys.stdout.write(json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n")


def jsonable(value: Any, name: str = "") -> Any:
    """Amounts become {"amount", "asset"}, prices decimal text, opinions (shares, bps, seconds) short floats."""
    if isinstance(value, Amount):
        return {"amount": digits(value), "asset": str(value.asset)}
    if isinstance(value, Price):
        return f"{price_decimal(value):.{DIGITS}f}"
    if isinstance(value, msgspec.Struct):
        return {field: jsonable(getattr(value, field), field) for field in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): jsonable(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(one) for one in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}" if name in PRICES else round(value, OPINION_DIGITS)
    return value


def digits(amount: Amount) -> str:
    """Exact, plain, without the coin's name."""
    return plain(amount.units, amount.asset.decimals)


def coins(amount: Amount | None, places: int | None = None) -> str:
    """For the eye: two places from a thousand on, else four."""
    if amount is None:
        return "-"
    value = decimal_of(amount)
    return f"{value:,.{(2 if abs(value) >= 1_000 else 4) if places is None else places}f}"


def short(amount: Amount) -> str:
    """Without trailing zeros, with the coin: `40 ETH`."""
    text = coins(amount)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {amount.asset.group or amount.asset.symbol}"


def named(amount: Amount) -> str:
    """With the coin of its group: `6.0000 ETH`."""
    return f"{coins(amount)} {amount.asset.group or amount.asset.symbol}"


def money(price: Price | None, places: int = 3) -> str:
    return "-" if price is None else f"{price_decimal(price):,.{places}f}"


def bps(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} bps"


def gain(value: float | None) -> Text:
    """Basis points in green when they are in the client's favour."""
    return Text(bps(value), style="" if value is None else "green" if value > 0 else "red")


def hash_short(text: str) -> str:
    return f"{text[:10]}…" if len(text) > 11 else text


class Names:
    """Short names of instruments, `v3-500` and `binance`, as long as no two of them would be the same."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        wanted: dict[str, set[str]] = {}
        for one in set(ids):
            wanted.setdefault(_source(one), set()).add(one)
        self._twins = {one for same in wanted.values() if len(same) > 1 for one in same}

    def __call__(self, instrument: str) -> str:
        return instrument if instrument in self._twins else _source(instrument)


def _source(instrument: str) -> str:
    venue, colon, symbol = instrument.partition(":")
    pool = POOL.fullmatch(symbol)
    if pool:
        return pool[1] + (pool[2] or "")
    return venue if colon else f"{venue} (all)"


def line(text: str = "", style: str = "") -> None:
    """One line on standard output, never folded: a pipe gets it whole."""
    out.print(text, style=style or None, markup=False, soft_wrap=True)


def table_rows(rows: list[tuple[str, Any]], width: int = 18) -> None:
    """Names and values, one a line."""
    for name, value in rows:
        line(f"{name:{width}} {value}")
