"""A market written down as JSON: what may stand in the file, row by row. `file` makes values of it.

Unknown keys are refused, and so is a key that stands twice. Money, prices and sizes are text, plain decimals in whole coins; what a
pool counts in integers (root prices, liquidity) is text with those integers. Small counts (decimals, ticks, gas) are JSON integers.
"""

import json
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agent.domain.amount import TEXT_MAX
from agent.domain.errors import UsageError
from agent.liquidity import constant_product, stable
from agent.liquidity.concentrated import SWAP_GAS as CONCENTRATED_GAS
from agent.liquidity.tick_math import TICK_MAX, TICK_MIN

BYTES_MAX = 32 * 2**20
SHOWN_MAX = 300  # characters of an error
V4_EXTRA_GAS = 15_000  # measured beside v3; see liquidity.concentrated
BATCH_GAS = 75_000  # a transaction without its legs, as routing.cost has it

_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$\.?(.*)`", re.DOTALL)
_END = r"$(?!\n)"  # `$` alone lets a line feed pass in Python, and other readers of the schema do not know `\Z`


def _text(pattern: str, what: str) -> Meta:
    """For the schema; the reader itself is `amount.parse_units`, whose words are better than those of a pattern."""
    return Meta(extra_json_schema={"pattern": pattern, "maxLength": TEXT_MAX}, description=what)


Number = Annotated[str, _text(r"^[0-9]+(\.[0-9]+)?$", "A plain decimal number, without sign and exponent.")]
Whole = Annotated[str, _text(r"^[0-9]+$", "An integer as text.")]
Signed = Annotated[str, _text(r"^-?[0-9]+$", "An integer as text, perhaps negative.")]
Symbol = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}" + _END)]
Home = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}" + _END, description="A venue's name, or eip155:<chain id>.")
]
AssetId = Annotated[str, Meta(max_length=100, description="SYMBOL@HOME of an asset in `assets`.")]
Id = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}:[A-Za-z0-9._/-]{1,64}" + _END, description="VENUE:NAME, once in the file.")
]
Gas = Annotated[int, Meta(ge=0, le=10**8, description="Units of gas.")]
Pips = Annotated[int, Meta(ge=0, lt=10**6, description="Millionths. Give this or fee_bps.")]
Tick = Annotated[int, Meta(ge=TICK_MIN, le=TICK_MAX)]
Levels = Annotated[list[tuple[Number, Number]], Meta(max_length=5_000, description="[price, size], best first.")]
Pair = Annotated[tuple[AssetId, AssetId], Meta(description="Asset 0 and asset 1; the pool's other pairs follow this order.")]


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Strict: a key that is not known is refused."""


class AssetRow(_Row, frozen=True):
    """A coin at a place. Assets of one group count as the same coin; without a group the symbol is one."""

    symbol: Symbol
    home: Home
    decimals: Annotated[int, Meta(ge=0, le=18)]
    group: Symbol | None = None
    address: Annotated[str, Meta(max_length=64)] = ""


class BookRow(_Row, frozen=True):
    """An order book. `tick` is the step of prices, `lot` that of sizes. Its fee is taken from what is received."""

    id: Id
    base: AssetId
    quote: AssetId
    tick: Number
    lot: Number
    bids: Levels
    asks: Levels
    fee_bps: Number | None = None
    fee_pips: Pips | None = None
    min_notional: Number = "0"


class _Pool(_Row, frozen=True):
    id: Id
    assets: Pair
    fee_bps: Number | None = None
    fee_pips: Pips | None = None


class V2Row(_Pool, frozen=True, kw_only=True, tag="v2", tag_field="kind"):
    """x y = k. `gas` is what the swap adds to the chain's batch."""

    reserves: tuple[Number, Number]
    gas: Gas = constant_product.SWAP_GAS


class _Ranges(_Pool, frozen=True, kw_only=True):
    sqrt_price_x96: Whole
    liquidity: Whole
    tick_spacing: Annotated[int, Meta(ge=1, le=32_767)]
    ticks: Annotated[list[tuple[Tick, Signed]], Meta(max_length=20_000, description="[tick, liquidity net], rising.")]
    tick: Tick | None = None
    known: Annotated[tuple[Tick, Tick], Meta(description="Where `ticks` is complete.")] = (TICK_MIN, TICK_MAX)


class V3Row(_Ranges, frozen=True, kw_only=True, tag="v3", tag_field="kind"):
    """A Uniswap v3 pool: all initialised ticks within `known`."""

    gas: Gas = CONCENTRATED_GAS


class V4Row(_Ranges, frozen=True, kw_only=True, tag="v4", tag_field="kind"):
    """A Uniswap v4 pool without hooks. `protocol_fee_pips`: for selling asset 0, for selling asset 1."""

    gas: Gas = CONCENTRATED_GAS + V4_EXTRA_GAS
    protocol_fee_pips: tuple[Annotated[int, Meta(ge=0, le=1_000)], Annotated[int, Meta(ge=0, le=1_000)]] = (0, 0)


class StableRow(_Pool, frozen=True, kw_only=True, tag="stable", tag_field="kind"):
    """Two coins of Curve's. `rates`: what a coin counts for (wstETH more than 1). `admin_fee`: the part of the fee that leaves."""

    balances: tuple[Number, Number]
    amplification: Annotated[Number, Meta(description="Curve's A.")] = msgspec.field(name="A")
    amplification_unit: Annotated[Literal[1, 100], Meta(description="A_PRECISION of the contract.")] = msgspec.field(
        default=100, name="A_precision"
    )
    rates: tuple[Number, Number] = ("1", "1")
    admin_fee: Number = "0"
    gas: Gas = stable.SWAP_GAS


class ChainRow(_Row, frozen=True):
    """What gas costs. `coin_prices`: the chain's coin in each group that orders are quoted in."""

    chain_id: Annotated[int, Meta(ge=1, le=2**53)]
    gas_price_gwei: Number
    coin_prices: Annotated[dict[Symbol, Number], Meta(max_length=1_000)]
    batch_gas: Gas = BATCH_GAS


class ConversionRow(_Row, frozen=True):
    """What turns one asset of a group into another. Counts when an order names an asset instead of its group.

    `price`: coins received for one that is given, where the peg is not quite one; `cost_bps` come off that.
    """

    source: AssetId = msgspec.field(name="from")
    target: AssetId = msgspec.field(name="to")
    cost_bps: Number
    price: Number = "1"


class LimitsRow(_Row, frozen=True):
    """The trader's settings. `reserve_bps`: what buying keeps of a balance for slippage."""

    legs_max: Annotated[int, Meta(ge=1, le=1_000)] = 12
    improvement_bps_min: Number = "0"
    reserve_bps: Annotated[int, Meta(ge=0, le=5_000)] = 0


PoolRow = V2Row | V3Row | V4Row | StableRow


class Document(_Row, frozen=True):
    """A market at one moment. Without `balances` every account is endless."""

    assets: Annotated[list[AssetRow], Meta(min_length=2, max_length=5_000)]
    books: Annotated[list[BookRow], Meta(max_length=5_000)] = []
    pools: Annotated[list[PoolRow], Meta(max_length=20_000)] = []
    chains: Annotated[list[ChainRow], Meta(max_length=1_000)] = []
    balances: Annotated[dict[AssetId, Number], Meta(max_length=5_000)] | None = None
    conversions: Annotated[list[ConversionRow], Meta(max_length=5_000)] = []
    limits: LimitsRow = LimitsRow()
    note: Annotated[str, Meta(max_length=1_000)] = ""


def decode(text: bytes) -> Document:
    """The rows, as written. Raises UsageError: one line that begins with the place in the file."""
    if len(text) > BYTES_MAX:
        raise UsageError(f"a market file has at most {BYTES_MAX >> 20} MiB; describe fewer levels, ticks or pools")
    try:
        found = msgspec.json.decode(text, type=Document)
        json.loads(text, object_pairs_hook=_once, parse_int=str, parse_float=str)  # of known shape by now: shallow and bounded
    except msgspec.ValidationError as error:
        match = _PLACE.fullmatch(str(error))
        place, what = (match[2], match[1]) if match else ("", str(error))
        raise UsageError(_tame(f"{place or 'the file'}: {what}")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(_tame(f"this is not JSON: {error}")) from None
    return found


def schema() -> dict[str, Any]:
    """The same as a JSON schema (draft 2020-12), for editors and other programs."""
    return msgspec.json.schema(Document)


def _tame(text: str) -> str:
    """One line of bounded length without characters that would draw on a terminal: keys of the file stand in it as they are."""
    return "".join(one if one.isprintable() else "?" for one in text[:SHOWN_MAX])


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the key {twice[:40]!r} stands twice in one object; keep one")
    return found
