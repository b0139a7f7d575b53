"""A market read from a file: the sources, prices and costs that venues would stream, written down so that anyone can check us.

`parse` takes text from outside and makes exact values of it, or says in one line what is wrong and where.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Literal, TypeVar

import msgspec

from agent.domain.amount import Amount, Asset, parse_units
from agent.domain.errors import LiquidityError, NumberError, UsageError
from agent.domain.instrument import PIPS, Instrument, Pool, Protocol
from agent.domain.price import Price
from agent.liquidity.concentrated import Concentrated
from agent.liquidity.concentrated import checked as checked_ranges
from agent.liquidity.constant_product import RESERVE_MAX, ConstantProduct
from agent.liquidity.depth import Depth, Levels
from agent.liquidity.stable import FEE_UNITS, RATE_UNIT, StableSwap
from agent.liquidity.stable import checked as checked_stable
from agent.liquidity.tick_math import tick_at_sqrt_price
from agent.market.described import ChainCost, Conversion, Described, Limits
from agent.market.document import (
    AssetRow,
    BookRow,
    ChainRow,
    ConversionRow,
    Document,
    LimitsRow,
    PoolRow,
    StableRow,
    V2Row,
    V3Row,
    V4Row,
    decode,
)
from agent.market.view import PoolLiquidity, Source, chain_of, pool_mid

_INTEGER_MAX = 1 << 256
_GWEI = 9  # decimals of wei in a gwei
_PRICE = 18  # decimals of a price that is given

T = TypeVar("T")
Kind = Protocol | Literal["stable"]


def parse(text: bytes) -> Described:
    """Strictly. Raises UsageError: one line that begins with the place in the file."""
    return build(decode(text))


def build(rows: Document) -> Described:
    """Values from rows. Raises UsageError where numbers contradict each other or names mean nothing."""
    assets = _named((_asset(row) for row in rows.assets), "assets", lambda asset: asset.id)
    books = [_book(row, assets, f"books[{i}]") for i, row in enumerate(rows.books)]
    pools = [_pool(row, assets, f"pools[{i}]") for i, row in enumerate(rows.pools)]
    sources = _named([*books, *pools], "books and pools", lambda source: source.instrument.id)
    chains = _named((_chain(row, f"chains[{i}]") for i, row in enumerate(rows.chains)), "chains", lambda chain: str(chain.chain_id))
    balances = None
    if rows.balances is not None:
        balances = {name: _balance(name, text, assets) for name, text in rows.balances.items()}
    conversions = tuple(_conversion(row, assets, f"conversions[{i}]") for i, row in enumerate(rows.conversions))
    return Described(assets, tuple(sources.values()), tuple(chains.values()), balances, conversions, _limits(rows.limits))


def _named(found: Iterable[T], where: str, name_of: Callable[[T], str]) -> dict[str, T]:
    named: dict[str, T] = {}
    for one in found:
        name = name_of(one)
        if name in named:
            raise UsageError(f"{where}: {name} is there twice; every name stands for one thing")
        named[name] = one
    return named


# -- numbers -----------------------------------------------------------------------------------------------------------


def _units(text: str, decimals: int, at: str, *, zero: bool = False) -> int:
    """Units of a plain decimal number, above zero unless `zero` says otherwise."""
    found = parse_units(text, decimals, at)
    if not found and not zero:
        raise NumberError(f"{at}: a number above zero is needed, not {text}")
    return found


def _integer(text: str, at: str) -> int:
    """An integer that a contract can hold, perhaps negative."""
    found = parse_units(text.removeprefix("-"), 0, at)
    if found >= _INTEGER_MAX:
        raise NumberError(f"{at}: no contract holds a number of more than 256 bits")
    return -found if text.startswith("-") else found


def _price(text: str, at: str) -> Price:
    return Price(_units(text, _PRICE, at), 10**_PRICE)


def _fee(row: BookRow | PoolRow, at: str, scale: int = PIPS) -> int:
    """The fee in parts of `scale`: from pips, or from basis points with as many decimals as it has."""
    if (row.fee_bps is None) == (row.fee_pips is None):
        raise UsageError(f"{at}: give its fee once, as fee_bps or as fee_pips")
    if row.fee_pips is not None:
        return row.fee_pips * (scale // PIPS)
    found = parse_units(row.fee_bps or "", len(str(scale)) - 5, f"{at}.fee_bps")
    if found >= scale:
        raise NumberError(f"{at}.fee_bps: {row.fee_bps} basis points are all there is, or more")
    return found


# -- rows --------------------------------------------------------------------------------------------------------------


def _asset(row: AssetRow) -> Asset:
    name = f"{row.symbol}@{row.home}"
    return Asset(row.symbol, row.home, row.decimals, row.group or row.symbol, row.address or name)


def _known(name: str, assets: Mapping[str, Asset], at: str) -> Asset:
    if name not in assets:
        raise UsageError(f"{at}: {name[:60]!r} is no asset of this file; write SYMBOL@HOME of one in `assets`")
    return assets[name]


def _apart(base: Asset, quote: Asset, at: str) -> None:
    if base.group == quote.group:
        raise UsageError(
            f"{at}: {base.id} and {quote.id} count as the same coin; give them different groups, or write a conversion"
        )


def _book(row: BookRow, assets: Mapping[str, Asset], at: str) -> Source:
    base, quote = _known(row.base, assets, f"{at}.base"), _known(row.quote, assets, f"{at}.quote")
    _apart(base, quote, at)
    tick, lot = _units(row.tick, quote.decimals, f"{at}.tick"), _units(row.lot, base.decimals, f"{at}.lot")
    fee, notional = _fee(row, at), _units(row.min_notional, quote.decimals, f"{at}.min_notional", zero=True)
    venue, _, symbol = row.id.partition(":")
    found = Instrument(venue, symbol, base, quote, fee, tick, lot, notional)
    sides = []
    for side, rows, sign in (("bids", row.bids, 1), ("asks", row.asks, -1)):
        levels = tuple(_level(one, found, row, f"{at}.{side}[{i}]") for i, one in enumerate(rows))
        for i, (near, far) in enumerate(pairwise(levels)):
            if near[0] * sign <= far[0] * sign:
                raise UsageError(f"{at}.{side}[{i + 1}]: levels stand best first, each price once")
        sides.append(levels)
    bids, asks = sides
    if bids and asks and bids[0][0] >= asks[0][0]:
        raise UsageError(f"{at}: crossed; its best bid {row.bids[0][0]} is not below its best ask {row.asks[0][0]}")
    if not bids and not asks:
        raise UsageError(f"{at}: neither bids nor asks; give it levels, or leave it out")
    return Source(found, Depth(bids, asks, tick, lot, base.decimals, fee), _between(bids, asks, found), 0)


def _level(level: tuple[str, str], found: Instrument, row: BookRow, at: str) -> tuple[int, int]:
    ticks, off = divmod(_units(level[0], found.quote.decimals, at), found.tick_units)
    if off:
        raise NumberError(f"{at}: the price {level[0]} is no multiple of the tick {row.tick}")
    lots, off = divmod(_units(level[1], found.base.decimals, at), found.lot_units)
    if off:
        raise NumberError(f"{at}: the size {level[1]} is no multiple of the lot {row.lot}")
    return ticks, lots


def _between(bids: Levels, asks: Levels, found: Instrument) -> Price:
    """The middle of a book; of one with a single side its best price."""
    low, high = (bids or asks)[0][0], (asks or bids)[0][0]
    return Price((low + high) * found.tick_units, 2 * 10**found.quote.decimals)


def _pool(row: PoolRow, assets: Mapping[str, Asset], at: str) -> Source:
    one, two = (_known(name, assets, f"{at}.assets[{i}]") for i, name in enumerate(row.assets))
    _apart(one, two, at)
    if one.home != two.home or one.address.lower() == two.address.lower():
        raise UsageError(f"{at}: a pool holds two different assets of one chain, not {one.id} and {two.id}")
    venue, _, symbol = row.id.partition(":")
    try:
        state, fee, kind = _state(row, (one, two), at)
    except LiquidityError as error:
        raise UsageError(f"{at}: {error}") from None
    spacing = row.tick_spacing if isinstance(row, V3Row | V4Row) else 0
    pool = Pool(kind, "", one.address, two.address, spacing)
    found = Instrument(venue, symbol, one, two, fee, pool=pool, gas=row.gas)
    if chain_of(found) is None:
        raise UsageError(f"{at}: its assets live at {one.home[:40]}; a pool's live on a chain, eip155:<chain id>")
    return Source(found, state, pool_mid(found, state), 0)


def _state(row: PoolRow, assets: tuple[Asset, Asset], at: str) -> tuple[PoolLiquidity, int, Kind]:
    """The pool as it stands, its fee in pips, and what kind it is. Raises UsageError and LiquidityError."""
    match row:
        case V2Row():
            fee = _fee(row, at)
            held = [_units(text, asset.decimals, f"{at}.reserves") for text, asset in zip(row.reserves, assets, strict=True)]
            if max(held) > RESERVE_MAX:
                raise NumberError(f"{at}.reserves: a pair holds at most 112 bits of units")
            return ConstantProduct(held[0], held[1], fee), fee, "v2"
        case StableRow():
            return _stable(row, assets, at), -(-_fee(row, at, FEE_UNITS) * PIPS // FEE_UNITS), "stable"
        case V3Row():
            return _ranges(row, at), _fee(row, at), "v3"
        case V4Row():
            zero, one = row.protocol_fee_pips
            found = msgspec.structs.replace(_ranges(row, at), protocol_fee_0_pips=zero, protocol_fee_1_pips=one)
            return checked_ranges(found), _fee(row, at), "v4"


def _ranges(row: V3Row | V4Row, at: str) -> Concentrated:
    root = _integer(row.sqrt_price_x96, f"{at}.sqrt_price_x96")
    ticks = tuple((tick, _integer(net, f"{at}.ticks[{i}]")) for i, (tick, net) in enumerate(row.ticks))
    liquidity = _integer(row.liquidity, f"{at}.liquidity")
    if not liquidity and not ticks:
        raise UsageError(f"{at}: the pool is empty; leave it out")
    tick = tick_at_sqrt_price(root) if row.tick is None else row.tick
    return checked_ranges(Concentrated(root, tick, liquidity, _fee(row, at), row.tick_spacing, ticks, *row.known))


def _stable(row: StableRow, assets: tuple[Asset, Asset], at: str) -> StableSwap:
    unit, places = row.amplification_unit, len(str(row.amplification_unit)) - 1
    held = [_units(text, asset.decimals, f"{at}.balances") for text, asset in zip(row.balances, assets, strict=True)]
    worth = [_units(text, _PRICE, f"{at}.rates") for text in row.rates]
    rates = [one * RATE_UNIT // 10**asset.decimals for one, asset in zip(worth, assets, strict=True)]
    amp = _units(row.amplification, places, f"{at}.A")
    kept = parse_units(row.admin_fee, len(str(FEE_UNITS)) - 1, f"{at}.admin_fee")
    return checked_stable(StableSwap(held[0], held[1], amp, _fee(row, at, FEE_UNITS), rates[0], rates[1], unit, kept))


def _chain(row: ChainRow, at: str) -> ChainCost:
    wei = parse_units(row.gas_price_gwei, _GWEI, f"{at}.gas_price_gwei")
    prices = {group: _price(text, f"{at}.coin_prices.{group}") for group, text in row.coin_prices.items()}
    return ChainCost(row.chain_id, wei, row.batch_gas, prices)


def _balance(name: str, text: str, assets: Mapping[str, Asset]) -> Amount:
    asset = _known(name, assets, "balances")
    return Amount(_units(text, asset.decimals, f"balances.{name}", zero=True), asset)


def _conversion(row: ConversionRow, assets: Mapping[str, Asset], at: str) -> Conversion:
    source, target = _known(row.source, assets, f"{at}.from"), _known(row.target, assets, f"{at}.to")
    if source == target or source.group != target.group:
        raise UsageError(f"{at}: it turns an asset into another one of its group, which {source.id} and {target.id} are not")
    pips = parse_units(row.cost_bps, 2, f"{at}.cost_bps")
    if pips >= PIPS:
        raise NumberError(f"{at}.cost_bps: {row.cost_bps} basis points are all there is, or more")
    return Conversion(source, target, _price(row.price, f"{at}.price"), pips)


def _limits(row: LimitsRow) -> Limits:
    least = parse_units(row.improvement_bps_min, 6, "limits.improvement_bps_min")
    return Limits(row.legs_max, least / 10**6, row.reserve_bps)
