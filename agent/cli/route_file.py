"""`route --market FILE`: the split over a market that is described in a file. No settings, no network, no keys."""

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.domain.amount import Amount, Asset, group_asset, parse_amount, parse_units, rescale_up
from agent.domain.errors import LiquidityError, UsageError
from agent.domain.events import Alternative
from agent.domain.instrument import PIPS, Side
from agent.domain.price import Price
from agent.market.described import Described, pairs, reached, view
from agent.market.document import BYTES_MAX
from agent.market.file import parse
from agent.market.view import View
from agent.routing.cost import Charge, GasPrice
from agent.routing.naive import naive
from agent.routing.split import NoRoute, Route, split
from agent.routing.terms import Order, Rules

STDIN = "-"
SHOWN_MAX = 12  # names in an error
REPEATS = 9  # the time that is told is the median of so many runs, without words and alternatives
REPEAT_BELOW_NS = 50_000_000  # a run that takes longer than this is not repeated
ENDLESS = 10**15  # coins, where the file names no balances


class Ask(msgspec.Struct, frozen=True):
    """One question to a market. `base_asset`, `quote_asset`: the place that is meant; None for a whole group."""

    market: str
    side: Side
    quantity: Amount
    base_asset: Asset | None
    quote_asset: Asset | None
    limit: Price | None
    rules: Rules


class Answer(msgspec.Struct, frozen=True):
    """The route, what it was compared with, what conversions cost beside it, and how long the routing itself took."""

    ask: Ask
    view: View
    route: Route
    naive: tuple[Alternative, ...]
    conversion_cost: Amount
    time_us: float


def read(name: str) -> Described:
    """The market in a file, or on standard input for `-`. Raises UsageError, which names the file and the place in it."""
    try:
        if name == STDIN:
            text = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}; name a market file, or - for standard input") from None
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{_shown(name)}: {error}") from None


def question(
    described: Described,
    sell: str | None,
    buy: str | None,
    coin: str | None,
    limit: str | None,
    legs: int | None,
    *,
    over_others: bool = False,
) -> Ask:
    """What the options ask of a market. `over_others`: any coin of the file will do. Raises UsageError and NumberError."""
    option, text = ("--sell", sell) if sell is not None else ("--buy", buy or "")
    number, _, name = text.strip().partition(" ")
    if not name.strip():
        raise UsageError(f"{option}: {text[:40]!r} is not an amount of a coin; write {option} '40 ETH'")
    base, base_asset = _coin(described, name.strip(), option)
    quantity = parse_amount(number, group_asset(base))
    if not quantity:
        raise UsageError(f"{option}: the amount must be above zero")
    quote, quote_asset = _coin(described, coin, "--for") if coin is not None else (_partner(described, base), None)
    market = f"{base}/{quote}" if over_others and base != quote else _direct(described, base, quote)
    rules = Rules(legs or described.limits.legs_max, described.limits.improvement_bps_min, described.limits.reserve_bps)
    return Ask(market, "sell" if sell is not None else "buy", quantity, base_asset, quote_asset, _limit(limit, market), rules)


def answer(described: Described, ask: Ask) -> Answer:
    """The best split, timed. Raises LiquidityError, with every reason, where there is none."""
    seen = reached(described, view(described, ask.market), ask.side, ask.base_asset, ask.quote_asset)
    gas, capacity = gas_of(described, ask.market.partition("/")[2]), capacity_of(described)

    charges = {name: Charge(pips, "conversion") for name, pips in seen.cost_pips.items()}

    def routed(*, is_explained: bool) -> tuple[Route | NoRoute, int]:
        start = time.perf_counter_ns()
        found = split(seen.view, ask.side, ask.quantity, capacity, gas, ask.limit, ask.rules, charges, is_explained=is_explained)
        return found, time.perf_counter_ns() - start

    found, _ = routed(is_explained=True)
    if isinstance(found, NoRoute):
        raise LiquidityError(f"no route: {'; '.join(reason.text for reason in (*found.reasons, *found.rejected))}")
    took: float = routed(is_explained=False)[1]
    if took < REPEAT_BELOW_NS:
        took = statistics.median(routed(is_explained=False)[1] for _ in range(REPEATS))
    assert seen.view.mid is not None, "without a middle there is no route"
    order = Order(ask.side, ask.quantity, found.quote.asset, seen.view.mid, None, Rules())
    cost = conversion_up(found, seen.cost_pips)
    return Answer(ask, seen.view, found, naive(order, seen.view.sources, gas), cost, took / 1_000)


def conversion_up(route: Route, cost_pips: Mapping[str, int]) -> Amount:
    """What turning the asset that the order names into those that trade costs in all, in the quote group, rounded up."""
    parts = [(rescale_up(one.quote, route.quote.asset).units, cost_pips.get(one.instrument.id, 0)) for one in route.pieces]
    return Amount(sum(-(-units * pips // PIPS) for units, pips in parts), route.quote.asset)


def gas_of(described: Described, quote: str) -> Mapping[int, GasPrice]:
    """Gas prices by chain, for the chains whose coin has a price in the quote."""
    return {
        one.chain_id: GasPrice(one.chain_id, one.wei_per_gas, one.coin_prices[quote], one.batch_gas)
        for one in described.chains
        if quote in one.coin_prices
    }


def capacity_of(described: Described) -> Mapping[str, Amount]:
    """The balances of the file; as good as endless where it names none."""
    if described.balances is not None:
        return described.balances
    return {name: Amount(ENDLESS * 10**asset.decimals, asset) for name, asset in described.assets.items()}


def _shown(name: str) -> str:
    return "standard input" if name == STDIN else name


def _coin(described: Described, name: str, option: str) -> tuple[str, Asset | None]:
    """(group, the asset if one place is named). A group's name, an asset's SYMBOL@HOME, or a symbol of one group alone."""
    if name in described.assets:
        return described.assets[name].group, described.assets[name]
    groups = dict.fromkeys(asset.group for asset in described.assets.values())
    if name in groups:
        return name, None
    wanted = name.casefold()
    same = [group for group in groups if group.casefold() == wanted]
    same = same or list(dict.fromkeys(one.group for one in described.assets.values() if one.symbol.casefold() == wanted))
    if len(same) == 1:
        return same[0], None
    raise UsageError(f"{option}: {name[:40]!r} is {'several coins' if same else 'no coin'} of this file; name {_some(groups)}")


def _partner(described: Described, base: str) -> str:
    """The only coin that the base trades against."""
    found = [market.partition("/")[2] for market in pairs(described) if market.startswith(f"{base}/")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{base} trades against {_some(found)}; choose with --for")
    others = [market.partition("/")[0] for market in pairs(described) if market.endswith(f"/{base}")]
    if others:
        raise UsageError(f"{base} is what {_some(others)} is quoted in; sell or buy that coin, --for {base}")
    raise UsageError(f"nothing in this file trades {base} directly")


def _direct(described: Described, base: str, quote: str) -> str:
    """The market of the two coins."""
    known = pairs(described)
    if f"{base}/{quote}" in known:
        return f"{base}/{quote}"
    if f"{quote}/{base}" in known:
        raise UsageError(f"the books quote {quote} in {base}; ask the other way round: sell or buy {quote}, --for {base}")
    raise UsageError(
        f"nothing in this file trades {base} against {quote} directly; --hops looks for a way over others, it has {_some(known)}"
    )


def _limit(text: str | None, market: str) -> Price | None:
    """The worst price, in whole quote coins per base coin."""
    if text is None:
        return None
    units = parse_units(text, 18, "--limit")
    if not units:
        raise UsageError(f"--limit: a price of {market} is above zero")
    return Price(units, 10**18)


def _some(names: "Mapping[str, None] | list[str] | tuple[str, ...]") -> str:
    shown = list(names)
    return ", ".join(shown[:SHOWN_MAX]) + (f" and {len(shown) - SHOWN_MAX} more" if len(shown) > SHOWN_MAX else "")
