"""How a parent order is to be worked over time: which algorithm, with which parameters, under their usual names.

What the parameters of each mean, and within which bounds they make sense, is said once, in `agent/execution/algos/<name>.py`.
"""

import msgspec

Value = int | str


class Algo(msgspec.Struct, frozen=True):
    """`parameters`: (name, value) by name; times in ns (`_ns`), shares in per cent (`_pct`) or basis points (`_bps`), and text."""

    name: str
    parameters: tuple[tuple[str, Value], ...] = ()


def new_algo(name: str, **parameters: Value) -> Algo:
    """The same parameters in any order are the same algorithm."""
    return Algo(name, tuple(sorted(parameters.items())))
