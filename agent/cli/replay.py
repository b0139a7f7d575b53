"""`replay`: an order played over a recorded tape or the seeded model of a market, by the agent itself, in virtual time."""

import inspect
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import typer.exceptions
import typer.main
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.cli import algos, order, triggers, words
from agent.cli.options import Json
from agent.cli.outcome import exit_code, names_in, result, tell
from agent.cli.show import err, line, out, print_json
from agent.cli.tables import new_table
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.engine.summary import summary
from agent.execution.algorithms import ALGORITHMS, parameters
from agent.simulation.exchange.filters import units
from agent.simulation.replay import compare as many
from agent.simulation.replay.exchange_line import ACCOUNT
from agent.simulation.replay.keep import SETTINGS, keep, prepare
from agent.simulation.replay.measure import measured
from agent.simulation.replay.run import Wish, replayed
from agent.simulation.replay.setting import ChainSetting, Latency, Setting

RUNS_MAX = 10_000
WORDS = '"sell 40 ETH/USDT --algo twap --duration 3m --interval 2s"'
AT_ONCE = "market"
GWEI = 10**9
PIPS_PER_BPS = 100
TEXT_MAX = 2_000
SHORT = 3  # words of the short form: side, quantity, pair
WITHIN = "10m"
PATIENCE_NS = 3_600 * 10**9  # how long an order waits for its price, unless it says so


def replay(
    text: Annotated[str, typer.Option("--order", metavar="WORDS", help=f"As for `order submit`: {WORDS}.")],
    tape: Annotated[str, typer.Option("--tape", metavar="FILE", help="Of `isthmus record`; without it, the seeded model.")] = "",
    start: Annotated[str, typer.Option("--start", help="When the order comes, from the beginning of the market.")] = "10s",
    warm_up: Annotated[str, typer.Option("--warm-up", help="How long the agent watches before that.")] = "10s",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Of the model, of jitter and of the order's dice.")] = 7,
    runs: Annotated[int, typer.Option("--runs", min=1, max=RUNS_MAX, help="Spread over the tape, or over seeds.")] = 1,
    compare: Annotated[str, typer.Option("--compare", metavar="NAMES", help="Algorithms side by side: twap,is,market.")] = "",
    order_latency: Annotated[str, typer.Option("--order-latency", help="From here to a venue.")] = "40ms",
    data_latency: Annotated[str, typer.Option("--data-latency", help="From a venue to here.")] = "20ms",
    jitter: Annotated[str, typer.Option("--jitter", help="Up to so much later than that.")] = "5ms",
    maker_fee: Annotated[float, typer.Option("--maker-fee", min=0, max=1_000, help="Of the exchange, in bps.")] = 10,
    taker_fee: Annotated[float, typer.Option("--taker-fee", min=0, max=1_000, help="Of the exchange, in bps.")] = 10,
    mid: Annotated[str, typer.Option("--mid", help="Where the model's price begins.")] = "2683.80",
    tick: Annotated[str, typer.Option("--tick", help="Of the exchange's prices.")] = "0.01",
    lot: Annotated[str, typer.Option("--lot", help="Of the exchange's sizes.")] = "0.0001",
    chain: Annotated[bool, typer.Option("--chain/--no-chain", help="With pools of ETH, or the exchange alone.")] = True,
    block_time: Annotated[str, typer.Option("--block-time", help="Of the chain.")] = "12s",
    gas: Annotated[float, typer.Option("--gas", min=0.01, max=1_000, help="Base fee of the first block, in gwei.")] = 3,
    journal: Annotated[
        Path | None, typer.Option("--journal", metavar="FOLDER", help="Keep the journal, for `order show -c FOLDER/isthmus.toml`.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Processes that share the runs.")] = 1,
    as_json: Json = False,
) -> None:
    """Play an order over a tape or the model of a market, many times faster than real time. With --runs, how it does as a rule."""
    wish = wish_of(text)
    first = wish(0)
    check_text(tick, lot, mid)
    waits = (
        words.duration(order_latency, "--order-latency"),
        words.duration(data_latency, "--data-latency"),
        words.duration(jitter, "--jitter"),
    )
    setting = Setting(
        first.base,
        first.quote,
        tape,
        seed,
        words.duration(start, "--start"),
        words.duration(warm_up, "--warm-up"),
        tick,
        lot,
        mid,
        Latency(*waits),
        round(maker_fee * PIPS_PER_BPS),
        round(taker_fee * PIPS_PER_BPS),
        ChainSetting(words.duration(block_time, "--block-time"), round(gas * GWEI)) if chain else None,
    )
    lasting_ns = lasting(first)
    many.check_length(setting, lasting_ns)
    many.quiet()
    if runs == 1 and not compare:
        _once(setting, wish, journal, as_json=as_json)
        return
    if journal is not None:
        raise UsageError("--journal keeps one run: leave out --runs and --compare")
    ways = {name: wish_of(text, name) for name in names_of(compare)} or {label_of(first): wish}
    _many(setting, ways, runs, lasting_ns, jobs, as_json=as_json)


# -- the order -----------------------------------------------------------------------------------------------------------


def wish_of(text: str, algo: str = "") -> Wish:
    """What `order submit` would make of the words, worked by `algo` if one is named. Raises UsageError."""
    params = _params(text)
    texts = {key: params[key] for key in _keys(*ALGORITHMS)}
    if algo == AT_ONCE:
        params |= {"algo": None, "slices": 1, "every": "0s", "rest": False, "within": params["within"] or WITHIN}
        texts = {}
    elif algo:
        params |= {"algo": algo, "slices": 1, "every": "0s"}
        texts = {key: word for key, word in texts.items() if key in _keys(algo)}  # what another has is none of its business
    taken = {name: params[name] for name in inspect.signature(order.drafted).parameters}
    draft = order.drafted(**(taken | {"algo": algos.chosen(params["algo"], texts)}))
    base, quote = words.pair(params["market"]).split("/")
    trigger = triggers.chosen(*(params[name] for name in ("stop", "take", "trail", "activation", "stop_by")))
    if params["after"]:
        raise UsageError("--order: a replay has one order, so there is none to come --after")

    def wish(now_ns: int) -> Intent:
        intent = draft("r", ACCOUNT, base, quote, now_ns)
        waits_ns = PATIENCE_NS if trigger is not None and not params["within"] else 0
        return msgspec.structs.replace(intent, trigger=trigger, deadline_ns=intent.deadline_ns + waits_ns)

    return wish


def _keys(*names: str) -> set[str]:
    """The options of algorithms, as a program spells them."""
    return {one.name.replace("-", "_") for name in names if name in ALGORITHMS for one in parameters(name)}


def _params(text: str) -> dict[str, Any]:
    """The options of `order submit`, read by itself. `sell 40 ETH/USDT` is short for `ETH/USDT --side sell --qty 40`."""
    try:
        found = shlex.split(text[:TEXT_MAX])
    except ValueError as error:
        raise UsageError(f"--order: {error}; write it as {WORDS}") from None
    if "--help" in found:
        raise UsageError("--order: `isthmus order submit --help` names what it takes")
    if len(found) >= SHORT and found[0] in ("sell", "buy"):
        side, qty, pair, *rest = found
        found = [pair, "--side", side, "--qty", qty, *rest]
    group: Any = typer.main.get_command(order.commands)
    command = group.get_command(typer.Context(group), "submit")
    try:
        return dict(command.make_context("--order", found).params)
    except typer.exceptions.TyperException as error:
        raise UsageError(f"--order: {error.format_message().rstrip('.')}; write it as {WORDS}") from None


def lasting(intent: Intent) -> int:
    """How long the order takes when all goes well, in ns."""
    return algos.lasting(intent.algo) if intent.algo is not None else (intent.slices - 1) * intent.interval_ns


def label_of(intent: Intent) -> str:
    if intent.algo is not None:
        return intent.algo.name
    return AT_ONCE if intent.slices == 1 else f"{intent.slices} slices"


def names_of(compare: str) -> list[str]:
    """`twap,is,market`, each once."""
    return list(dict.fromkeys(name.strip() for name in compare.split(",") if name.strip()))


def check_text(tick: str, lot: str, mid: str) -> None:
    """Raises UsageError for what is no number or does not go together."""
    try:
        rules = Setting(tick=tick, lot=lot, mid=mid).rules
        if units(mid) <= rules.tick_units:
            raise ValueError(f"--mid {mid[:24]} is not above one tick")
    except ValueError as error:
        raise UsageError(f"--tick, --lot or --mid: {error}") from None


# -- one run -------------------------------------------------------------------------------------------------------------


def _once(setting: Setting, wish: Wish, journal: Path | None, *, as_json: bool) -> None:
    if journal is not None:
        prepare(journal)
    done = replayed(setting, lambda now_ns: many.named(wish(now_ns), setting), lingers=True, home=journal)
    if journal is not None:
        keep(done.rows, journal)
    found, numbers = summary(done.state, done.intent_id), measured(done)
    code = exit_code(done.state, [found], [])
    speed = done.played_s / max(done.spent_s, 1e-9)
    if as_json:
        told = {
            "virtual_s": done.virtual_s,
            "played_s": done.played_s,
            "spent_s": done.spent_s,
            "speed": speed,
            "records": len(done.rows),
            "head": done.head,
        }
        cost = {"shortfall_bps": numbers.shortfall_bps, "tracking_pct": numbers.tracking_pct}
        print_json(result(done.state, found, None) | {"replay": told | cost | {"setting": setting}})
    else:
        tell(found, None, names_in(done.state))
        tracked = "" if numbers.tracking_pct is None else f", off its schedule by {numbers.tracking_pct:.2f} % of the order (rms)"
        line(f"shortfall {numbers.shortfall_bps:+.2f} bps of the whole order, after fees and gas{tracked}")
        line(
            f"{done.played_s:.1f} s of the market in {done.spent_s:.1f} s: {speed:,.0f} times real time; head {done.head[:16]}",
            "dim",
        )
        if journal is not None:
            line(f"kept: isthmus order show {done.intent_id} -c {journal / SETTINGS}", "dim")
    raise typer.Exit(code)


# -- many runs -----------------------------------------------------------------------------------------------------------


def _many(setting: Setting, ways: dict[str, Wish], runs: int, lasting_ns: int, jobs: int, *, as_json: bool) -> None:
    places = many.settings(setting, runs, lasting_ns)
    work = many.jobs(ways, places, lasting_ns)
    began_s, rows = time.monotonic(), list[many.Row]()
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not sys.stderr.isatty()) as progress:
        task = progress.add_task("replaying", total=len(work))
        for row in many.rows(work, jobs):
            rows.append(row)
            progress.update(task, advance=1)
    overlap = many.overlap_of(places, lasting_ns)
    labels = dict.fromkeys(job.label for job in work)
    found, spent_s = many.results(rows, overlap, labels), time.monotonic() - began_s
    if as_json:
        document = {"runs": runs, "separate": runs / overlap, "setting": setting, "results": found}
        print_json(document | {"rows": sorted(rows, key=lambda row: (row.label, row.seed)), "seconds": round(spent_s, 1)})
        return
    _tell(found, runs / overlap, spent_s, sum(row.done.virtual_s for row in rows))


def _tell(found: Sequence[many.Result], separate: float, spent_s: float, virtual_s: float) -> None:
    table = new_table(("cost, bps", "filled", "mean", "95 %", "median", "p5", "p95", "off"), ("cost, bps",))
    for one in found:
        cost, mean = one.shortfall_bps, one.mean_bps
        tracked = "-" if one.tracking_pct is None else f"{one.tracking_pct:.1f}%"
        between = f"{mean.low:.2f} to {mean.high:.2f}"
        numbers = (f"{cost.mean:.2f}", between, f"{cost.median:.2f}", f"{cost.p5:.1f}", f"{cost.p95:.1f}")
        table.add_row(one.label, f"{one.filled_share:.0%}", *numbers, tracked)
    out.print(table)
    apart = new_table(("cost less than", "bps", "95 %", "so it is"), ("cost less than", "so it is"))
    for one in found:
        for gap in one.differences:
            between = f"{gap.bps.low:+.2f} to {gap.bps.high:+.2f}"
            apart.add_row(f"{one.label} - {gap.than}", f"{gap.bps.mean:+.2f}", between, gap.word)
    out.print(apart)
    line("cost: of the whole order against arrival, after fees and gas; what was not traded, as if taken at the end", "dim")
    line("off: what was traded less what the schedule said, root of the mean square, of the order", "dim")
    line(f"{found[0].runs} runs, {separate:.1f} separate stretches of market; {virtual_s:,.0f} s of it in {spent_s:.1f} s", "dim")
