"""`route --market FILE --hops`: the best way through every book and pool of the file, over other coins too where that pays."""

import time
from typing import Any

import msgspec
from rich.console import Group
from rich.text import Text

from agent.cli.route_file import Ask, capacity_of, gas_of
from agent.cli.route_shown import coins_shown, plain, price_shown
from agent.cli.show import Names, line, named, out, print_json, short
from agent.cli.tables import new_table
from agent.domain.amount import decimal_of
from agent.domain.errors import LiquidityError
from agent.market.described import Described
from agent.market.view import Source
from agent.routing.graph import Conversion
from agent.routing.network import Network, NoNetwork, trade
from agent.routing.paths import Hop

PIPS_IN_BPS = 100


class Way(msgspec.Struct, frozen=True):
    """The network that was found, and how long that took."""

    ask: Ask
    found: Network
    time_us: float


def answer(described: Described, ask: Ask) -> Way:
    """Sells what the question names for as much as possible of the other coin. Raises LiquidityError, with every reason."""
    base, _, quote = ask.market.partition("/")
    balances = None if described.balances is None and ask.base_asset is None else dict(capacity_of(described))
    if ask.base_asset is not None and balances is not None:  # from one place only
        balances = {name: held for name, held in balances.items() if held.asset.group != base or held.asset == ask.base_asset}
    start = time.perf_counter_ns()
    found = trade(described.sources, conversions(described), ask.quantity, quote, gas_of(described, quote), balances)
    took = (time.perf_counter_ns() - start) / 1_000
    if isinstance(found, NoNetwork):
        raise LiquidityError(f"no way: {'; '.join(reason.text for reason in (*found.reasons, *found.rejected))}")
    return Way(ask, found, took)


def conversions(described: Described) -> tuple[Conversion, ...]:
    """Those of the file; what they cost rounds up to whole basis points."""
    return tuple(
        Conversion(one.source, one.target, one.price, -(-one.cost_pips // PIPS_IN_BPS), why="as the file says")
        for one in described.conversions
    )


def show(way: Way, *, explain: bool) -> None:
    """The hops in the order in which each one's input is there, and what they come to."""
    found = way.found
    names = Names(hop.name for hop in found.hops if isinstance(hop.via, Source))
    head = f"sell {short(found.sell)}: fetches {named(found.net)} after fees and gas, over {len(found.hops)} hops"
    table = new_table(("hop", "gives", "gets", "price"), ("hop",))
    for hop in found.hops:
        name = names(hop.name) if isinstance(hop.via, Source) else hop.name
        table.add_row(name, f"{coins_shown(hop.amount_in)} {hop.amount_in.asset.symbol}", _got(hop), price_shown(_price(hop)))
    out.print(Group(Text(head, style="bold"), table, ""))
    rows = [
        ("average price", price_shown(float(decimal_of(found.net) / decimal_of(found.sell)))),
        ("gas", named(found.gas) if found.gas else "none"),
        ("conversions", f"{len(found.conversions)}" if found.conversions else "none"),
        ("at most missed", f"{max(found.gap_bps, 0):.2g} bps of the best that is possible"),
        ("found in", f"{way.time_us:,.0f} µs, {found.solves} networks solved"),
    ]
    for name, text in rows:
        line(f"{name:17} {text}")
    for left in found.left:
        if left:
            line(f"{'left':17} {named(left)} of {left.asset.id}")
    for reason in found.rejected if explain else ():
        line(f"left out  {reason.code}: {reason.text}")


def show_json(way: Way) -> None:
    print_json(answer_json(way))


def answer_json(way: Way) -> dict[str, Any]:
    """Amounts as exact text with their asset, prices as text, opinions as numbers."""
    found = way.found
    return {
        "market": way.ask.market,
        "side": "sell",
        "quantity": found.sell,
        "quote": found.net,
        "received": found.received,
        "gas": found.gas,
        "left": [one for one in found.left if one],
        "average_price": plain(float(decimal_of(found.net) / decimal_of(found.sell))),
        "worths": {name: plain(price) for name, price in found.prices.items()},
        "gap_bps": max(found.gap_bps, 0.0),
        "residual": found.residual,
        "time_us": way.time_us,
        "hops": [
            {"via": hop.name, "kind": _kind(hop), "amount_in": hop.amount_in, "amount_out": hop.amount_out} for hop in found.hops
        ],
        "left_out": list(found.rejected),
    }


def _kind(hop: Hop) -> str:
    if not isinstance(hop.via, Source):
        return "conversion" if isinstance(hop.via, Conversion) else "balance"
    return hop.via.instrument.pool.protocol if hop.via.instrument.pool else "book"


def _got(hop: Hop) -> str:
    return f"{coins_shown(hop.amount_out)} {hop.amount_out.asset.symbol}"


def _price(hop: Hop) -> float:
    given = decimal_of(hop.amount_in)
    return float(decimal_of(hop.amount_out) / given) if given else 0.0
