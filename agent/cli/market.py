"""`quote`, `route` and `record`: look at the market without trading."""

import asyncio
import gzip
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.app import RealClock, open_venues, open_wallet
from agent.cli import desk
from agent.cli.options import Config, Json, run_async, settings
from agent.cli.show import alternatives_table, bps, coins, out, print_json, route_table
from agent.config import Loaded
from agent.domain.amount import Amount, group_asset, parse_amount
from agent.domain.errors import LiquidityError, UsageError
from agent.domain.events import Routed
from agent.domain.market import MarketFact
from agent.domain.price import Price, bps_between, price_of, worse_by
from agent.engine.decide import World, gas_prices
from agent.market.view import Market, View
from agent.ports import Venue
from agent.routing.split import NoRoute, report, split

LOOK_TIMEOUT_S = 20.0
ANY_BPS = 9_000


class Look:
    """What was seen: a view, and the route over it."""

    def __init__(self, view: View, routed: Routed, mid: Price, unplaced: Amount) -> None:
        self.view, self.routed, self.mid, self.unplaced = view, routed, mid, unplaced


def quote(market: desk.Market, side: desk.Side, qty: desk.Quantity, config: Config = None, as_json: Json = False) -> None:
    """What a quantity would fetch now, over all venues, whatever the account holds."""
    look = _look_at(config, market, side, qty, own=False)
    price = price_of(look.routed.quote, look.routed.quantity)
    cost = bps_between(price, look.mid) * (1 if side == "sell" else -1)
    if as_json:
        print_json({
            "market": market.upper(), "side": side, "quantity": look.routed.quantity, "quote": look.routed.quote, "price": price,
            "mid": look.mid, "against_mid_bps": cost, "unplaced": look.unplaced,
        })  # fmt: skip
        return
    word = "fetches" if side == "sell" else "costs"
    out.print(
        f"{side} {coins(look.routed.quantity)} {market.upper()} {word} {coins(look.routed.quote, 2)}: {price} all-in, {bps(cost)} of mid {look.mid}"
    )


def route(
    market: desk.Market,
    side: desk.Side,
    qty: desk.Quantity,
    explain: Annotated[bool, typer.Option("--explain", help="Also show every alternative and every source left out.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """How a quantity would be split now, with what the account holds at each place."""
    look = _look_at(config, market, side, qty, own=True)
    if as_json:
        print_json({"mid": look.mid, "unplaced": look.unplaced, "route": look.routed})
        return
    out.print(route_table(look.routed, f"{side} {coins(look.routed.quantity)} of {market.upper()}, mid {look.mid}"))
    if look.unplaced:
        out.print(f"not placed: {look.unplaced}")
    if explain:
        out.print(alternatives_table(look.routed))
        for reason in (*look.routed.rejected, *look.view.untrusted):
            out.print(f"  left out  {reason.code}: {reason.text}", markup=False)


def _look_at(config: Path | None, market: str, side: Literal["sell", "buy"], qty: str, *, own: bool) -> Look:
    loaded = settings(config)
    base, name = desk.pair(market, desk.markets(loaded))
    quantity = parse_amount(qty, group_asset(base))
    if quantity.units <= 0:
        raise UsageError("--qty must be above zero")
    return run_async(lambda: _look(loaded, f"{base}/{name}", side, quantity, own=own))


async def _look(loaded: Loaded, market: str, side: Literal["sell", "buy"], quantity: Amount, *, own: bool) -> Look:
    async with open_venues(loaded, open_wallet(loaded) if own else None) as (venues, _):
        seen = await watch_market(venues, market)
        now_ns = RealClock().now_ns()
        view = seen.view(market, now_ns)
        if view.mid is None:
            why = "; ".join(reason.text for reason in view.untrusted) or "no venue answered"
            raise LiquidityError(f"there is no trusted price for {market}: {why}")
        held: dict[str, Amount] = {}
        if own:
            for venue in venues.values():
                held |= {amount.asset.id: amount for amount in (await venue.snapshot()).balances}
        else:
            held = _plenty(view)
    world = World(seen, {n: v.profile for n, v in venues.items()}, frozenset(), {}, {}, set())
    rules = loaded.rules()
    limit = worse_by(view.mid, ANY_BPS, selling=side == "sell")
    found = split(view, side, quantity, held, gas_prices(world, rules, view.mid), limit)
    if isinstance(found, NoRoute):
        raise LiquidityError(f"no route: {'; '.join(reason.text for reason in found.rejected)}")
    return Look(view, report(found, "quote", 0), view.mid, found.unplaced)


def _plenty(view: View) -> dict[str, Amount]:
    assets = [asset for one in view.sources for asset in (one.instrument.base, one.instrument.quote)]
    return {asset.id: Amount(10 ** (asset.decimals + 12), asset) for asset in assets}


async def watch_market(venues: dict[str, Venue], market: str) -> Market:
    """Stream from every venue until all that they list of the market can be seen, or time is up."""
    seen = Market()

    async def pump(venue: Venue) -> None:
        async for event in venue.stream():
            if isinstance(event, MarketFact):
                seen.apply(event)

    tasks = [asyncio.create_task(pump(venue)) for venue in venues.values()]
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            while True:
                for task in tasks:
                    if task.done():
                        task.result()
                view = seen.view(market, RealClock().now_ns())
                listed = [one for one in seen.instruments() if one.market == market]
                if listed and len(view.sources) == len(listed) and {one.venue for one in listed} == set(venues):
                    return seen
                await asyncio.sleep(0.05)
    except TimeoutError:
        return seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def record(
    file: Annotated[Path, typer.Argument(help="Where to write, for example eth.jsonl.gz.")],
    venue: Annotated[str, typer.Option("--venue", help="Which exchange of the settings.")] = "binance",
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86_400, help="How long.")] = 60,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write an exchange's raw market frames to a tape that `--tape` replays."""
    loaded = settings(config)
    section = loaded.venues.get(venue)
    if section is None or not hasattr(section, "secret"):
        raise UsageError(f"no exchange named {venue[:40]} in {loaded.path.name}; it has {', '.join(loaded.venues)}")
    if file.exists():
        raise UsageError(f"{file} exists already; choose another name")
    frames = run_async(lambda: _record(loaded, venue, file, seconds))
    if as_json:
        print_json({"file": str(file), "frames": frames})
    else:
        out.print(f"{frames} frames in {file}")


async def _record(loaded: Loaded, name: str, file: Path, seconds: int) -> int:
    from agent.config import venue_module
    from agent.ports import Tools

    section = loaded.venues[name]
    count = 0
    with gzip.open(file, "wt") as tape:
        async for at_ns, frame in venue_module(section.kind, name).frames(section, Tools(RealClock()), seconds):
            tape.write(f"{at_ns} {frame}\n")
            count += 1
    return count
