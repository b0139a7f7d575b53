"""`quote` and `route`: look at the market without trading."""

from typing import Annotated

import typer

from agent.app import settings_of
from agent.cli import look, words
from agent.cli.options import Config, Json, Market, Quantity, Side, run_async
from agent.cli.show import Names, bps, line, money, named, out, print_json, short
from agent.cli.tables import alternatives_table, route_lines
from agent.domain.amount import Amount, group_asset
from agent.domain.price import bps_between, price_of


def quote(market: Market, side: Side, qty: Quantity, config: Config = None, as_json: Json = False) -> None:
    """What a quantity would fetch now, over all venues, whatever the account holds."""
    wanted = words.quantity(qty, words.pair(market))
    loaded = settings_of(config)
    base, coin = words.traded(words.pair(market), loaded)
    quantity = Amount(wanted.units, group_asset(base))
    seen = run_async(lambda: look.look(loaded, f"{base}/{coin}", accounts=False))
    found, unplaced = look.routed(loaded, seen, side, quantity)
    placed = found.quantity - unplaced
    price = price_of(found.quote, placed)
    cost = bps_between(price, seen.mid) * (1 if side == "sell" else -1)
    if as_json:
        print_json({
            "market": f"{base}/{coin}", "side": side, "quantity": found.quantity, "quote": found.quote, "price": price,
            "mid": seen.mid, "against_mid_bps": cost, "unplaced": unplaced,
        })  # fmt: skip
        return
    word = "fetches" if side == "sell" else "costs"
    line(f"{side} {short(placed)} {word} {named(found.quote)}: {money(price)} all-in, {bps(cost)} against mid {money(seen.mid)}")
    if unplaced:
        line(f"not placed: {named(unplaced)}; the market is not deep enough for it")


def route(
    market: Market,
    side: Side,
    qty: Quantity,
    explain: Annotated[bool, typer.Option("--explain", help="Also show every alternative and every source left out.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """How a quantity would be split now, with what the account holds at each place."""
    wanted = words.quantity(qty, words.pair(market))
    loaded = settings_of(config)
    base, coin = words.traded(words.pair(market), loaded)
    quantity = Amount(wanted.units, group_asset(base))
    seen = run_async(lambda: look.look(loaded, f"{base}/{coin}", accounts=True))
    found, unplaced = look.routed(loaded, seen, side, quantity)
    if as_json:
        print_json({"market": f"{base}/{coin}", "side": side, "mid": seen.mid, "unplaced": unplaced, "route": found})
        return
    names = Names(one.id for one in seen.market.instruments())
    title = f"{side} {short(quantity)} for {named(found.quote)} after fees and gas, mid {money(seen.mid)}"
    out.print(route_lines(found, names, title))
    if unplaced:
        line(f"not placed: {named(unplaced)}")
    if explain:
        out.print(alternatives_table(found, names))
        for reason in (*found.rejected, *seen.view.untrusted):
            source, colon, text = reason.text.partition(": ")
            line(f"left out  {reason.code}: {names(source)}: {text}" if colon else f"left out  {reason.code}: {reason.text}")
