"""Which algorithms there are, found by their files, and whether the parameters of an order make sense.

What does not is refused before anything is sent, with the reason and the nearest value that would do.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol, cast

import msgspec
from msgspec import inspect

from agent.domain.algo import Algo
from agent.domain.amount import Amount, plain
from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.execution import algos
from agent.execution.moves import Move
from agent.execution.parameters import MILLISECOND_NS
from agent.execution.schedule import PLANS_MAX, Timetable
from agent.execution.standing import Resting, Standing

OUT_OF_RANGE = "SCHEDULE_OUT_OF_RANGE"
UNKNOWN = "ALGO_UNKNOWN"


class Algorithm(Protocol):
    """A file of `algos`; see there. `own` is always an instance of its `Parameters`."""

    Parameters: type[msgspec.Struct]

    @staticmethod
    def step(own: Any, stand: Standing, /) -> Move | None: ...
    @staticmethod
    def stale(own: Any, stand: Standing, resting: Resting, /) -> str: ...
    @staticmethod
    def plan(own: Any, units: int, seed: str, /) -> Timetable | None: ...
    @staticmethod
    def check(own: Any, intent: Intent, /) -> Iterator[str]: ...


class Chosen(msgspec.Struct, frozen=True):
    """An algorithm with its parameters, read."""

    algorithm: Any  # an Algorithm: a module
    own: Any  # its Parameters

    def step(self, stand: Standing) -> Move | None:
        return cast("Algorithm", self.algorithm).step(self.own, stand)

    def stale(self, stand: Standing, resting: Resting) -> str:
        return cast("Algorithm", self.algorithm).stale(self.own, stand, resting)

    def plan(self, intent: Intent) -> Timetable | None:
        return cast("Algorithm", self.algorithm).plan(self.own, int(intent.quantity.units), intent.intent_id)

    @property
    def duration_ns(self) -> int:
        return int(self.own.duration_ns)


class Parameter(msgspec.Struct, frozen=True):
    """As a client sees it. `unit`: ns, pct, bps, ticks or empty; `choices` of a word; `least` and `most` of a number."""

    name: str
    unit: str
    default: int | str | None  # None: it must be given
    text: str
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()


def _found() -> dict[str, Algorithm]:
    names = sorted(one.name for one in pkgutil.iter_modules(algos.__path__))
    return {name.rstrip("_"): cast("Algorithm", importlib.import_module(f"{algos.__name__}.{name}")) for name in names}


ALGORITHMS = _found()  # by name; a name that is a word of Python's has an underscore in its file


@lru_cache(PLANS_MAX)
def read(algo: Algo) -> Chosen:
    """Raises msgspec.ValidationError where `refusals` names a reason; KeyError for a name that is none."""
    algorithm = ALGORITHMS[algo.name]
    return Chosen(algorithm, msgspec.convert(dict(algo.parameters), algorithm.Parameters))


@lru_cache
def parameters(name: str) -> tuple[Parameter, ...]:
    """Of the algorithm of that name, in the order of its file."""
    info = inspect.type_info(ALGORITHMS[name].Parameters)
    assert isinstance(info, inspect.StructType), "parameters are a struct"
    return tuple(_parameter(field) for field in info.fields)


def refusals(intent: Intent, algo: Algo, now_ns: int, *, least: int = 1) -> tuple[Reason, ...]:
    """Every reason why the order cannot be worked like that. `least`: units of the base group that can be traded at all."""
    if algo.name not in ALGORITHMS:
        return (Reason(UNKNOWN, f"there is no algorithm {algo.name[:24]!r}: one of {', '.join(ALGORITHMS)}"),)
    wrong = list(_out_of_range(algo))
    if not wrong:
        chosen = read(algo)
        wrong = [*chosen.algorithm.check(chosen.own, intent), *_too_late(intent, chosen.duration_ns, now_ns)]
        if not wrong and (table := chosen.plan(intent)) is not None:
            wrong = _too_small(intent, len(table.units), least)
    if intent.slices != 1 or intent.interval_ns:
        wrong.append("an algorithm makes its own slices: give 1 slice and no pause beside it")
    return tuple(Reason(OUT_OF_RANGE, text) for text in wrong)


def _out_of_range(algo: Algo) -> Iterator[str]:
    known = {key_of(one): one for one in parameters(algo.name)}
    given = dict(algo.parameters)
    for key in given.keys() - known.keys():
        yield f"{algo.name} has no parameter {key[:32]!r}: one of {', '.join(one.name for one in known.values())}"
    for key, one in known.items():
        value = given.get(key, one.default)
        if value is None:
            yield f"{algo.name} needs {one.name}: {one.text}"
        elif isinstance(value, int) and one.least is not None and one.most is not None and not one.least <= value <= one.most:
            nearest = one.most if value > one.most else one.least
            bounds = f"{_shown(one.least, one)} and {_shown(one.most, one)}"
            yield f"{one.name} {_shown(value, one)} is not within {bounds}: {_shown(nearest, one)}"
        elif one.choices and value not in one.choices:
            yield f"{one.name} {str(value)[:24]!r} is none of {', '.join(one.choices)}"
    try:
        msgspec.convert(given, ALGORITHMS[algo.name].Parameters)
    except msgspec.ValidationError as error:
        if "$." in str(error):  # a text that is written otherwise; numbers and words were named above
            key = str(error).rpartition("$.")[2].rstrip("`")
            if key in known and isinstance(given.get(key), str) and not known[key].choices:
                yield f"{known[key].name} {str(given[key])[:24]!r} is not written as it should be: {known[key].text}"


def _too_late(intent: Intent, duration_ns: int, now_ns: int) -> Iterator[str]:
    if intent.deadline_ns < now_ns + duration_ns:
        left = plain(max(0, intent.deadline_ns - now_ns) // MILLISECOND_NS, 3)
        yield f"the deadline comes {left} s from now, before the duration ends: at most {left} s"


def _too_small(intent: Intent, parts: int, least: int) -> list[str]:
    units, smallest = int(intent.quantity.units), "below the smallest order that any venue takes"
    if units < least:
        return [f"{intent.quantity} is {smallest}: at least {Amount(least, intent.quantity.asset)}"]
    if units // parts < least:
        return [f"{parts} parts of {intent.quantity} are {smallest}: at most {units // least} parts"]
    return []


def _parameter(field: inspect.Field) -> Parameter:
    meta = field.type.extra_json_schema or {} if isinstance(field.type, inspect.Metadata) else {}
    kind = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
    name, unit = _unit(field.encode_name)
    default = None if field.default is msgspec.NODEFAULT else field.default
    text = str(meta.get("description", ""))
    if isinstance(kind, inspect.IntType):
        return Parameter(name, unit, default, text, kind.ge, kind.le)
    choices = tuple(str(one) for one in kind.values) if isinstance(kind, inspect.LiteralType) else ()
    return Parameter(name, unit, default, text, choices=choices)


def _unit(key: str) -> tuple[str, str]:
    front, _, unit = key.rpartition("_")
    return (front.replace("_", "-"), unit) if front and unit in ("ns", "pct", "bps", "ticks") else (key.replace("_", "-"), "")


def key_of(one: Parameter) -> str:
    """Its name inside `Algo.parameters`."""
    return one.name.replace("-", "_") + (f"_{one.unit}" if one.unit else "")


def _shown(value: int, one: Parameter) -> str:
    return f"{plain(value, 9)} s" if one.unit == "ns" else f"{value} %" if one.unit == "pct" else f"{value} {one.unit}".strip()
