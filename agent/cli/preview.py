"""`order preview`: what an order would probably cost, how it is best worked, and where its first slice would go. Sends nothing."""

import time
from typing import Annotated, Literal

import msgspec
import typer
from rich.panel import Panel
from rich.table import Table

from agent.app import settings_of
from agent.cli import look, words
from agent.cli.options import Config, Json, Market, Quantity, Side, run_async
from agent.cli.show import Names, err, line, out, print_json, short
from agent.cli.tables import new_table, route_lines
from agent.config import Loaded
from agent.domain.amount import Amount, group_asset
from agent.domain.errors import LiquidityError, UsageError
from agent.domain.events import Routed
from agent.domain.instrument import PIPS
from agent.execution.pretrade import (
    DURATION_S_MAX,
    Conditions,
    Estimate,
    Suggestion,
    estimate,
    participation,
    shortest_s,
    slices_of,
    span,
    suggest,
)
from agent.execution.tca import BPS, cost_bps
from agent.journal.bars import read_bars
from agent.market.bars import SECOND_NS, SECONDS_MAX, Bars

MEASURE_S_MAX = 600
SLICES_MAX = 1_000
DEFAULT_S = 1_800.0  # where the market does not say what would be moderate
GAS_BPS_MAX = 25.0
PART_MAX = 0.25  # beyond it the square-root law promises too little
PARTS = (
    ("half the spread", "spread_bps"),
    ("fees", "fees_bps"),
    ("gas", "gas_bps"),
    ("depth, and off the middle", "distance_bps"),
    ("impact", "impact_bps"),
)


def preview(
    market: Market,
    side: Side,
    qty: Quantity,
    duration: Annotated[
        str, typer.Option("--duration", help="Over which it would be traded: 10m, 2h. [default: what is suggested]")
    ] = "",
    interval: Annotated[str, typer.Option("--interval", help="Between slices.")] = "30s",
    measure: Annotated[str, typer.Option("--measure", help="How long to watch the market first; 0s: only what was kept.")] = "10s",
    risk_weight: Annotated[
        float, typer.Option("--risk-weight", min=0.0, max=10.0, help="What a standard deviation of the cost is worth to you.")
    ] = 0.1,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What an order would probably cost: participation, cost with its range, a suggestion, and the route of its first slice."""
    wanted = words.quantity(qty, words.pair(market))
    every_s, lasting_s = words.duration(interval, "--interval") / SECOND_NS, 0.0
    if not every_s:
        raise UsageError("--interval must be above zero; write 30s, 1m")
    if duration:
        lasting_s = words.duration(duration, "--duration") / SECOND_NS
        _check(lasting_s, every_s)
    watched_s = words.duration(measure, "--measure") // SECOND_NS
    if watched_s > MEASURE_S_MAX:
        raise UsageError(f"--measure {measure} is longer than {MEASURE_S_MAX // 60} minutes; write 10m or less")
    loaded = settings_of(config)
    base, quote = words.traded(words.pair(market), loaded)
    quantity = Amount(wanted.units, group_asset(base))
    if watched_s and not as_json:
        err.print(f"watching {base}/{quote} for {watched_s} s …", style="dim")
    seen = run_async(lambda: look.look(loaded, f"{base}/{quote}", accounts=True, measure_s=watched_s))
    found = _previewed(loaded, seen, side, quantity, (lasting_s, every_s), risk_weight)
    if as_json:
        print_json({"market": f"{base}/{quote}", "side": side, "quantity": quantity} | msgspec.structs.asdict(found))
        return
    out.print(_panel(side, quantity, quote, found))
    out.print(_table(found.expected, _coins(quantity) * found.conditions.mid, quote))
    names = Names(one.id for one in seen.market.instruments())
    out.print(route_lines(found.first_slice, names, f"first slice: {short(found.first_slice.quantity)}"))
    if note := _note(found, _coins(quantity)):
        line(note, "dim")


class Previewed(msgspec.Struct, frozen=True):
    """`measured_s`: how many seconds of the market it rests on. `unplaced`: what of the first slice nobody would take."""

    measured_s: int
    conditions: Conditions
    expected: Estimate
    suggestion: Suggestion | None
    first_slice: Routed
    unplaced: Amount


def _previewed(
    loaded: Loaded,
    seen: look.Seen,
    side: Literal["sell", "buy"],
    quantity: Amount,
    times_s: tuple[float, float],
    risk_weight: float,
) -> Previewed:
    """`times_s`: the duration, 0 for the shortest that is moderate, and the interval."""
    (lasting_s, every_s), bars, coins = times_s, _bars(loaded, seen), _coins(quantity)
    sigma, rate = bars.sigma(SECONDS_MAX), bars.rate(SECONDS_MAX)
    if not lasting_s:
        lasting_s = min(max(shortest_s(coins, rate), every_s), DURATION_S_MAX) if rate > 0 else DEFAULT_S
    slices = min(slices_of(lasting_s, every_s), SLICES_MAX, _lots(seen, quantity))
    first, unplaced = look.routed(loaded, seen, side, Amount(quantity.units // slices, quantity.asset))
    all_in_bps = _cost_bps(first, first.quantity - unplaced, seen, side) or 0.0
    at_once_bps = _at_once_bps(loaded, seen, side, quantity)
    now = _conditions(seen, first, all_in_bps, bars.spread_bps(SECONDS_MAX), sigma, rate, at_once_bps)
    advice = suggest(coins, every_s, now, risk_weight)
    return Previewed(len(bars.since(0)), now, estimate(coins, lasting_s, slices, now), advice, first, unplaced)


def _check(lasting_s: float, every_s: float) -> None:
    """Raises UsageError with the nearest value that would do."""
    if lasting_s < every_s:
        raise UsageError(f"--interval is longer than --duration: write --interval {max(int(lasting_s), 1)}s or less")
    if slices_of(lasting_s, every_s) > SLICES_MAX:
        least = -int(-lasting_s // SLICES_MAX)
        raise UsageError(f"more than {SLICES_MAX:,} slices: write --interval {least}s or more")


def _lots(seen: look.Seen, quantity: Amount) -> int:
    """How many of the smallest lot of any book it is; raises UsageError if it is less than one."""
    decimals = quantity.asset.decimals
    least = min((units * 10 ** (decimals - places) for units, places in seen.market.lots(seen.view.market)), default=1)
    if quantity.units < least:
        raise UsageError(f"--qty is below the smallest lot of any venue, {Amount(least, quantity.asset)}; write at least that")
    return int(quantity.units // least)


def _bars(loaded: Loaded, seen: look.Seen) -> Bars:
    """What was just seen, and what the agent kept lately."""
    now_ns, market = time.time_ns(), seen.view.market
    kept = read_bars(loaded.home, market, now_ns - SECONDS_MAX * SECOND_NS, now_ns)
    return Bars.of([*kept, *seen.market.bars(market).since(0)])


def _at_once_bps(loaded: Loaded, seen: look.Seen, side: Literal["sell", "buy"], quantity: Amount) -> float | None:
    """What all of it would cost now; None where it could not be traded at once."""
    try:
        whole, unplaced = look.routed(loaded, seen, side, quantity)
    except LiquidityError:
        return None
    return None if unplaced else _cost_bps(whole, quantity, seen, side)


def _cost_bps(route: Routed, placed: Amount, seen: look.Seen, side: Literal["sell", "buy"]) -> float | None:
    """Of a route, after fees and gas, against the middle."""
    if route.quote.units <= 0 or not placed:
        return None
    price = route.quote.units / placed.units * 10.0 ** (placed.asset.decimals - route.quote.asset.decimals)
    return cost_bps(side, price, seen.mid.num / seen.mid.den)


def _conditions(
    seen: look.Seen, first: Routed, all_in_bps: float, spread_bps: float, sigma: float, rate: float, at_once_bps: float | None
) -> Conditions:
    """Other slices are taken to cost what the first one does, `all_in_bps`. Pools have no spread."""
    value = sum(int(piece.quote.units) for piece in first.pieces) or 1
    fee_bps = sum(int(piece.quote.units) * piece.fee_pips for piece in first.pieces) / value / PIPS * BPS
    gas = sum(piece.gas.units / 10.0**piece.gas.asset.decimals for piece in first.pieces)
    books = {one.id for one in seen.market.instruments() if one.is_book}
    share = sum(int(piece.quote.units) for piece in first.pieces if piece.instrument in books) / value
    mid, half_bps = seen.mid.num / seen.mid.den, spread_bps / 2 * share
    gas_bps = gas / (_coins(first.quantity) * mid) * BPS
    distance_bps = all_in_bps - half_bps - fee_bps - gas_bps
    return Conditions(mid, half_bps, fee_bps, gas, sigma, rate, at_once_bps, distance_bps)


def _coins(quantity: Amount) -> float:
    return quantity.units / 10.0**quantity.asset.decimals


def _panel(side: str, quantity: Amount, quote: str, found: Previewed) -> Panel:
    now, expected = found.conditions, found.expected
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    lines.add_row("middle", f"{now.mid:,.3f} {quote}, {found.measured_s:,} s measured")
    daily = now.sigma * 86_400**0.5
    lines.add_row(
        "market", f"volatility {daily:.2%} a day, {now.rate:,.3f} {quantity.asset.group} a second" if now.sigma else "not known yet"
    )
    if expected.participation is not None and expected.duration_s:
        lines.add_row("participation", f"{expected.participation:.1%} of what is traded in {span(expected.duration_s)}")
    if expected.mean_bps is not None:
        ranged = f"{expected.low_bps:+.2f} to {expected.high_bps:+.2f} bps in 90 of 100 cases"
        lines.add_row("expected cost", f"{expected.mean_bps:+.2f} bps; {ranged}")
    if now.at_once_bps is not None:
        lines.add_row("all of it now", f"{now.at_once_bps:+.2f} bps, after fees and gas")
    lines.add_row("suggested", _suggested(found.suggestion))
    return Panel(lines, title=f"preview: {side} {short(quantity)} for {quote}; nothing is sent", expand=False)


def _suggested(advice: Suggestion | None) -> str:
    if advice is None:
        return "too little is known of the market; measure longer, for example --measure 60s"
    if advice.algo == "once":
        return f"in one go: {advice.why}"
    urgency = f" --urgency {advice.urgency_pct}" if advice.algo == "is" else ""
    return f"--algo {advice.algo} --duration {_typed(advice.duration_s)}{urgency}: {advice.why}"


def _typed(seconds: float) -> str:
    """As `--duration` takes it, rounded up."""
    whole = -int(-seconds // 1)
    return f"{whole}s" if whole < 600 else f"{-(-whole // 60)}m"


def _table(expected: Estimate, value: float, quote: str) -> Table:
    table = new_table((f"in {expected.slices} slices", "bps", quote), (f"in {expected.slices} slices",))

    def row(name: str, bps: float | None, style: str = "") -> None:
        text = ("not known", "-") if bps is None else (f"{bps:+.2f}", f"{bps / BPS * value:+,.2f}")
        table.add_row(name, *text, style=style)

    for name, field in PARTS:
        row(name, getattr(expected, field))
    row("expected", expected.mean_bps, style="bold")
    row("risk (standard deviation)", expected.risk_bps)
    return table


def _note(found: Previewed, coins: float) -> str:
    """What the trader should know about these figures."""
    rate, lasting_s = found.conditions.rate, found.expected.duration_s
    if not rate:
        return "no trade was seen: participation and impact are not known; measure longer with --measure"
    if participation(coins, lasting_s, rate) > PART_MAX:
        return f"so large a part of the market costs more than this; {span(shortest_s(coins, rate))} would be 10 % of it"
    if found.expected.gas_bps > GAS_BPS_MAX:
        return "gas weighs more than all else: choose a longer --interval, so that slices are larger"
    return ""
