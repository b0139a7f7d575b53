"""How far a mean of few observations can be believed: Student's interval (W. S. Gosset, 1908)."""

from collections.abc import Sequence
from math import sqrt

import msgspec

# the 97.5 % quantile of Student's distribution for 1 to 30 degrees of freedom; beyond them the normal one is near enough
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL_95 = 1.960


class Interval(msgspec.Struct, frozen=True):
    """A mean, and between what it lies in 95 of 100 cases; None: one observation says nothing about that."""

    mean: float
    low: float | None
    high: float | None


def interval(values: Sequence[float]) -> Interval | None:
    """None without any."""
    count = len(values)
    if not count:
        return None
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, None, None)
    spread = sqrt(sum((one - mean) ** 2 for one in values) / (count - 1))
    reach = (T_95[count - 2] if count - 2 < len(T_95) else NORMAL_95) * spread / sqrt(count)
    return Interval(mean, mean - reach, mean + reach)
