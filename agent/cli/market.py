"""`quote` and `route`: look at the market without trading."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.app import settings_of
from agent.cli import look, route_file, route_network, route_shown, words
from agent.cli.options import Config, Json, Market, Quantity, Side, run_async
from agent.cli.show import Names, bps, line, money, named, out, print_json, short
from agent.cli.tables import alternatives_table, route_lines
from agent.domain.amount import Amount, group_asset
from agent.domain.errors import UsageError
from agent.domain.price import bps_between, price_of
from agent.market import document


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
    market: Annotated[
        str | None, typer.Argument(help="The pair, for example ETH/USDT.", metavar="PAIR", show_default=False)
    ] = None,
    side: Annotated[Literal["sell", "buy"] | None, typer.Option("--side", help="Of the base coin.")] = None,
    qty: Annotated[str | None, typer.Option("--qty", help="How much of the base coin, for example 40 or 0.25.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show every alternative and every source left out.")] = False,
    config: Config = None,
    market_file: Annotated[
        str | None,
        typer.Option("--market", metavar="FILE", help="A market described in JSON instead of PAIR; - reads it from stdin."),
    ] = None,
    sell: Annotated[str | None, typer.Option("--sell", metavar="AMOUNT", help="With --market: what to sell, '40 ETH'.")] = None,
    buy: Annotated[str | None, typer.Option("--buy", metavar="AMOUNT", help="With --market: what to buy, '40 ETH'.")] = None,
    coin: Annotated[str | None, typer.Option("--for", metavar="COIN", help="With --market: what it is traded against.")] = None,
    limit: Annotated[
        str | None, typer.Option("--limit", metavar="PRICE", help="With --market: the worst price of any piece.")
    ] = None,
    legs: Annotated[int | None, typer.Option("--legs", min=1, max=1_000, help="With --market: at most so many pieces.")] = None,
    hops: Annotated[
        bool, typer.Option("--hops", help="With --market and --sell: also over other coins, through all books and pools.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of market files.")] = False,
    as_json: Json = False,
) -> None:
    """How a quantity would be split, over your venues now or over a market in a file.

    Over your venues, with what the account holds at each place: PAIR --side --qty. Over a file: --market with --sell or --buy.
    """
    here, there = {"PAIR": market, "--side": side, "--qty": qty}, {"--sell": sell, "--buy": buy, "--for": coin, "--limit": limit}
    there |= {"--legs": None if legs is None else str(legs), "--hops": "yes" if hops else None}
    if schema:
        print_json(document.schema())
    elif market_file is not None:
        _refuse(here | {"--config": config}, "--market, which wants --sell or --buy with an amount and needs no settings")
        if (sell is None) == (buy is None):
            raise UsageError("--market wants one of --sell and --buy, for example --sell '40 ETH'")
        described = route_file.read(market_file)
        if hops:
            _refuse({"--buy": buy, "--limit": limit, "--legs": legs}, "--hops, which sells for as much as possible")
            way = route_network.answer(described, route_file.question(described, sell, None, coin, None, None, over_others=True))
            route_network.show_json(way) if as_json else route_network.show(way, explain=explain)
            return
        found = route_file.answer(described, route_file.question(described, sell, buy, coin, limit, legs))
        route_shown.show_json(found) if as_json else route_shown.show(found, explain=explain)
    elif market is None or side is None or qty is None:
        _refuse(there, "your venues: add --market FILE, or say PAIR --side sell --qty 40")
        missing = ", ".join(name for name, value in here.items() if value is None)
        raise UsageError(f"missing {missing}: say PAIR --side sell --qty 40, or --market FILE --sell '40 ETH'")
    else:
        _refuse(there, "your venues: add --market FILE and leave PAIR, --side and --qty away, or the reverse")
        _over_venues(market, side, qty, config, explain=explain, as_json=as_json)


def _refuse(given: Mapping[str, object], where: str) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UsageError(f"{', '.join(names)} cannot go with {where}")


def _over_venues(market: str, side: Literal["sell", "buy"], qty: str, config: Path | None, *, explain: bool, as_json: bool) -> None:
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
