"""The options of algorithms, made from what each says of itself, and an order's schedule as a table."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from agent.cli import words
from agent.cli.tables import new_table
from agent.domain.algo import Algo, Value, new_algo
from agent.domain.amount import Amount
from agent.domain.errors import UsageError
from agent.domain.intent import Intent
from agent.execution.algorithms import ALGORITHMS, Parameter, key_of, parameters, read
from agent.execution.algos import vwap
from agent.market.bars import SECOND_NS, Bar

AFTER_NS = 60_000_000_000  # what is left at the end of the duration may still be traded for so long
SHOWN_MAX = 12  # parts of a schedule in a table
PANEL = "Algorithms"


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes `algo: Algo | None` gets `--algo` and an option for each parameter of any algorithm in its place."""
    own = inspect.signature(command, eval_str=True)
    given = _given()
    added = [inspect.Parameter("algo", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_name_option())]
    added += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=one) for name, one in given.items()]

    @functools.wraps(command)
    def chosen_first(*args: Any, algo: str | None = None, **kwargs: Any) -> Any:
        texts = {name: kwargs.pop(name) for name in given}
        return command(*args, algo=chosen(algo, texts), **kwargs)

    kept = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, one in own.parameters.items() if name != "algo"]
    chosen_first.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    chosen_first.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
    return chosen_first


def chosen(name: str | None, texts: Mapping[str, str]) -> Algo | None:
    """From the words of the command line; None without --algo. Whether the values make sense is for the agent to say.

    Raises UsageError for an algorithm that there is not, a parameter that it has not, and for what is no value at all.
    """
    given = {key: text for key, text in texts.items() if text}
    if name is None:
        if given:
            raise UsageError(
                f"--{_dashed(next(iter(given)))} is of an algorithm: name it with --algo, one of {', '.join(ALGORITHMS)}"
            )
        return None
    if name not in ALGORITHMS:
        raise UsageError(f"there is no algorithm {name[:24]!r}; --algo is one of {', '.join(ALGORITHMS)}")
    known = {one.name.replace("-", "_"): one for one in parameters(name)}
    for key in given:
        if key not in known:
            raise UsageError(f"{name} has no --{_dashed(key)}; it has {', '.join('--' + one.name for one in known.values())}")
    missing = [one.name for key, one in known.items() if one.default is None and key not in given]
    if missing:
        raise UsageError(f"{name} needs --{missing[0]}: {known[missing[0].replace('-', '_')].text}")
    values: dict[str, Value] = {key_of(one): one.default for one in known.values() if one.default is not None}
    return new_algo(name, **(values | {key_of(known[key]): _value(known[key], text) for key, text in given.items()}))


def retuned(algo: Algo, texts: Mapping[str, str]) -> Algo:
    """The same algorithm with these parameters instead. Raises UsageError for one that it has not, or that is no value at all."""
    known = {one.name: one for one in parameters(algo.name)}
    if unknown := [key for key in texts if key not in known]:
        raise UsageError(f"{algo.name} has no {unknown[0][:32]}; it has {', '.join(known)}")
    return new_algo(algo.name, **(dict(algo.parameters) | {key_of(known[key]): _value(known[key], texts[key]) for key in texts}))


def learnt(intent: Intent, bars: Sequence[Bar], now_ns: int) -> Intent:
    """With the curve that the market's own past suggests, where the algorithm has one and was given none."""
    algo = intent.algo
    if algo is None or dict(algo.parameters).get("curve") != "":
        return intent
    seconds = lasting(algo) // SECOND_NS
    curve = vwap.learnt(bars, now_ns // SECOND_NS, seconds, min(seconds // 60, vwap.POINTS_MAX))
    return msgspec.structs.replace(intent, algo=new_algo(algo.name, **(dict(algo.parameters) | {"curve": curve})))


def lasting(algo: Algo) -> int:
    """How long it works, in ns."""
    return int(dict(algo.parameters)["duration_ns"])


def timetable_rows(intent: Intent) -> list[dict[str, Any]]:
    """[{after_s, quantity, total}] for each slice that is planned; none where the market makes the schedule."""
    table = read(intent.algo).plan(intent) if intent.algo is not None else None
    if table is None:
        return []
    asset = intent.quantity.asset
    return [
        {"after_s": start / 1e9, "quantity": Amount(table.part(at), asset), "total": Amount(table.units[at], asset)}
        for at, start in enumerate(table.starts_ns)
    ]


def timetable_lines(intent: Intent) -> Table | str:
    """The first slices and the last."""
    rows = list(enumerate(timetable_rows(intent), 1))
    if not rows:
        return "no schedule beforehand: it trades as the market comes"
    found = new_table(("slice", "after", intent.base, "in all"))
    shown = rows if len(rows) <= SHOWN_MAX else [*rows[: SHOWN_MAX - 1], rows[-1]]
    for number, row in shown:
        if number == len(rows) and len(rows) > SHOWN_MAX:
            found.add_row("…", "…", "…", "…")
        amounts = (f"{float(str(row[key]).partition(' ')[0]):,.6g}" for key in ("quantity", "total"))
        found.add_row(str(number), f"{row['after_s']:.1f} s", *amounts)
    return found


def _name_option() -> Any:
    return Annotated[str | None, typer.Option("--algo", help=f"How it is worked: {', '.join(ALGORITHMS)}.", rich_help_panel=PANEL)]


def _given() -> dict[str, Any]:
    """An option for each parameter, with the algorithms that know it."""
    users: dict[str, list[str]] = {}
    words_of: dict[str, Parameter] = {}
    for name in ALGORITHMS:
        for one in parameters(name):
            users.setdefault(one.name, []).append(name)
            words_of.setdefault(one.name, one)
    found: dict[str, Any] = {}
    for name, one in words_of.items():
        whose = "" if len(users[name]) == len(ALGORITHMS) else f" [{', '.join(users[name])}]"
        usual = {_usual(other) for user in users[name] for other in parameters(user) if other.name == name}
        said = f" [default: {usual.pop()}]" if len(usual) == 1 and "" not in usual else ""
        text = f"{one.text}{whose}{said}"
        option = typer.Option(f"--{name}", help=text, metavar=_metavar(one), rich_help_panel=PANEL, show_default=False)
        found[name.replace("-", "_")] = Annotated[str, option]
    return found


def _usual(one: Parameter) -> str:
    """Its default as a client would write it; empty where it has none."""
    if one.unit != "ns" or not isinstance(one.default, int):
        return str(one.default) if one.default is not None else ""
    units = (("m", 60 * SECOND_NS), ("s", SECOND_NS), ("ms", 10**6))
    size, unit = next((size, unit) for unit, size in units if one.default % size == 0)
    return f"{one.default // size}{unit}"


def _metavar(one: Parameter) -> str:
    return {"ns": "TIME", "pct": "%", "bps": "BPS", "ticks": "TICKS"}.get(one.unit, "|".join(one.choices) or "TEXT")


def _value(one: Parameter, text: str) -> Value:
    if one.unit == "ns":
        return words.duration(text, f"--{one.name}")
    if one.least is None:
        return text
    digits = text.removesuffix("%") if one.unit == "pct" else text.removesuffix("bps")
    if not digits.removeprefix("-").isdecimal() or not digits.isascii() or len(digits) > 9:
        raise UsageError(f"--{one.name} is a whole number; write {one.default if one.default is not None else one.least}")
    return int(digits)


def _dashed(key: str) -> str:
    return key.replace("_", "-")
